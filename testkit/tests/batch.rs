//! A batched function on stacked sequences gives, to the bit, what the function gives for each sequence.

use std::collections::BTreeSet;

use mngc_compiler::ir::typing::Stage;
use mngc_compiler::ir::{DimRole, Func, Module, Op, print, read, verify};
use mngc_compiler::passes::batch::{BatchError, batch};
use mngc_runtime::{Context, Data, Precision, Tensor, evaluate};
use mngc_testkit::generate::case;
use mngc_testkit::kind::Kind;
use mngc_testkit::{Case, Config, cases, values};
use proptest::prelude::*;

const MODEL: Config = Config { smooth: false, one_sequence: true };

/// Bits of a tensor, all NaNs alike.
fn bits(t: &Tensor) -> Vec<u64> {
    let float = |x: &f64| if x.is_nan() { f64::NAN.to_bits() } else { x.to_bits() };
    match t.data() {
        Data::Float(v) => v.iter().map(float).collect(),
        Data::Int(v) => v.iter().map(|&x| x as u64).collect(),
        Data::Bool(v) => v.iter().map(|&x| x as u64).collect(),
    }
}

fn stack(parts: &[Tensor]) -> Tensor {
    let mut sizes = vec![parts.len()];
    sizes.extend(parts[0].sizes());
    let data = match parts[0].data() {
        Data::Float(_) => Data::Float(parts.iter().flat_map(|p| p.as_floats().unwrap()).copied().collect()),
        Data::Int(_) => Data::Int(parts.iter().flat_map(|p| p.as_ints().unwrap()).copied().collect()),
        Data::Bool(_) => Data::Bool(parts.iter().flat_map(|p| p.as_bools().unwrap()).copied().collect()),
    };
    Tensor::new(sizes, data).expect("as many elements as the sizes say")
}

/// Batches `func` of a module over `n` sequences.
fn batched(module: &Module, func: Func, mask: &[bool], n: usize) -> Result<(Module, Func, Vec<bool>), BatchError> {
    let mut m = module.clone();
    let seq = m.dims.intern("seq", n, DimRole::Sequence);
    let (made, results) = batch(&mut m, func, seq, mask)?;
    if let Err(errors) = verify::module(&m, Stage::Elaborated) {
        panic!("{}\n{}", errors[0], print::module(&m));
    }
    Ok((m, made, results))
}

/// Arguments of each sequence: those that the mask marks differ.
fn sequences(case: &Case, mask: &[bool], n: usize) -> Vec<Vec<Tensor>> {
    let types: Vec<_> = case.graph().params.iter().map(|&v| case.graph().ty(v)).collect();
    let arg = |s: usize, i: usize| match mask[i] {
        true => values::tensor(&case.module.dims, types[i], values::hash(case.seed, (s * 100 + i) as u64), false),
        false => case.args[i].clone(),
    };
    (0..n).map(|s| (0..mask.len()).map(|i| arg(s, i)).collect()).collect()
}

fn check(case: &Case, mask: &[bool], n: usize) -> Result<(), TestCaseError> {
    let mask: Vec<bool> = (0..case.args.len()).map(|i| mask[i % mask.len()]).collect();
    let (module, func, results) = match batched(&case.module, case.func, &mask, n) {
        Ok(made) => made,
        Err(e) => {
            let ops = || case.module.funcs.values().flat_map(|g| g.nodes.values().map(|node| &node.op));
            let may = |op: &Op| match op {
                Op::Gather | Op::ScatterAdd => e.message.contains("table"),
                Op::Rope { .. } => e.message.contains("rope"),
                Op::Attention { mask, .. } | Op::AttentionGrad { mask, .. } => {
                    mask.window && e.message.contains("window")
                }
                _ => false,
            };
            prop_assert!(ops().any(may), "{}", e);
            return Ok(());
        }
    };
    let sequences = sequences(case, &mask, n);
    let args = (0..mask.len()).map(|i| match mask[i] {
        true => stack(&sequences.iter().map(|args| args[i].clone()).collect::<Vec<_>>()),
        false => case.args[i].clone(),
    });
    let ctx = Context::new(Precision::Rounded, case.seed, 3);
    let found = evaluate(&module, func, args.collect(), &ctx).expect("the batched function runs");
    let single: Vec<Vec<Tensor>> = sequences.iter().map(|args| case.run(args, &ctx).expect("it runs")).collect();
    for (i, found) in found.iter().enumerate() {
        let parts: Vec<Tensor> = single.iter().map(|results| results[i].clone()).collect();
        let want = if results[i] { stack(&parts) } else { parts[0].clone() };
        prop_assert_eq!(found.sizes(), want.sizes());
        prop_assert_eq!(bits(found), bits(&want), "result {} of\n{}", i, print::graph(&module, func));
    }
    Ok(())
}

proptest! {
    // A fault that is found becomes a test of its own, with a name.
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sequences_do_not_meet(case in cases(MODEL), mask in prop::collection::vec(any::<bool>(), 1..8), n in 1usize..4) {
        check(&case, &mask, n)?;
    }

    #[test]
    fn nothing_batched_changes_nothing(case in cases(MODEL)) {
        let mask = vec![false; case.args.len()];
        let (module, func, results) = batched(&case.module, case.func, &mask, 2).expect("nothing is in the way");
        prop_assert_eq!(func, case.func);
        prop_assert!(!results.contains(&true));
        prop_assert_eq!(module.funcs.len(), case.module.funcs.len());
    }
}

/// The property above would also hold for a generator whose cases all fail to batch.
#[test]
fn every_op_is_met_with_a_batched_operand() {
    let mut met = BTreeSet::new();
    for seed in 0..400 {
        let choices: Vec<u32> = (0..300).map(|i| values::hash(seed, i) as u32).collect();
        let case = case(&choices, seed, MODEL);
        let mask: Vec<bool> = (0..case.args.len()).map(|i| values::hash(seed, 1000 + i as u64) & 1 == 1).collect();
        let Ok((module, func, _)) = batched(&case.module, case.func, &mask, 2) else { continue };
        let graph = &module.funcs[func];
        let in_front = |v: &mngc_compiler::ir::Value| {
            let dims = &graph.ty(*v).dims;
            dims.first().is_some_and(|&d| module.dims.role(d) == DimRole::Sequence)
        };
        met.extend(graph.nodes.values().filter(|node| node.args.iter().any(in_front)).map(|node| Kind::of(&node.op)));
    }
    let without = [Kind::Const, Kind::Iota, Kind::Random, Kind::ScatterAdd];
    let missing: Vec<_> = Kind::ALL.iter().filter(|kind| !met.contains(kind) && !without.contains(kind)).collect();
    assert!(missing.is_empty(), "no case batches {missing:?}");
}

/// x·n with a gradient of its own, of which n has none: x differs between sequences or n does.
const OWN_GRADIENT: &str = r#"
module "own gradient"
dim dim = 2

func f0 "scale.gradient" (v0 "x": f32[dim], v1 "n": f32[], v2 "y": f32[dim], v3 "dy": f32[dim]) {
  v4: f32[dim] = mul v3, v1
  v5: f32[dim] = mul v3, v0
  v6: f32[] = reduce v5 {kind = sum, axes = [0]}
  return v4, v6
}

func f1 "scale" (v0 "x": f32[dim], v1 "n": f32[]) gradient f0 {
  v2: f32[dim] = mul v0, v1
  return v2
}
"#;

#[test]
fn cotangents_of_shared_parameters_are_summed_over_sequences() {
    let m = read::module(OWN_GRADIENT).expect("it reads");
    let floats = |sizes: &[usize], v: &[f64]| Tensor::floats(sizes, v.to_vec()).expect("as many");
    let ctx = Context::default();
    let (x, n, dy) = (floats(&[2, 2], &[1.0, 2.0, 3.0, 4.0]), floats(&[2], &[5.0, 7.0]), floats(&[2, 2], &[1.0; 4]));
    let row = floats(&[2], &[1.0, 2.0]);

    let (b, func, _) = batched(&m, Func::from_u32(1), &[true, false], 2).expect("nothing is in the way");
    let gradient = b.funcs[func].gradient.expect("it is batched too");
    let args = vec![x.clone(), Tensor::scalar(3.0), x.clone(), dy.clone()];
    let found = evaluate(&b, gradient, args, &ctx).expect("it runs");
    assert_eq!(found, [floats(&[2, 2], &[3.0; 4]), Tensor::scalar(10.0)]);

    let (b, func, _) = batched(&m, Func::from_u32(1), &[false, true], 2).expect("nothing is in the way");
    let gradient = b.funcs[func].gradient.expect("it is batched too");
    let found = evaluate(&b, gradient, vec![row, n, x, dy], &ctx).expect("it runs");
    assert_eq!(found, [floats(&[2], &[12.0, 12.0]), floats(&[2], &[3.0, 3.0])]);
}
