//! What batching random functions alone would not show: every op is met, and a hand-written gradient's sums in numbers.

use std::collections::BTreeSet;

use mngc_compiler::ir::typing::Stage;
use mngc_compiler::ir::{DimRole, Func, Module, Value, print, read, verify};
use mngc_compiler::passes::batch::{BatchError, batch};
use mngc_runtime::{Context, Tensor, evaluate};
use mngc_testkit::generate::case;
use mngc_testkit::kind::Kind;
use mngc_testkit::{Config, values};

/// Batches `func` of a module over two sequences.
fn batched(module: &Module, func: Func, mask: &[bool]) -> Result<(Module, Func), BatchError> {
    let mut m = module.clone();
    let seq = m.dims.intern("seq", 2, DimRole::Sequence);
    let (made, _) = batch(&mut m, func, seq, mask)?;
    if let Err(errors) = verify::module(&m, Stage::Elaborated) {
        panic!("{}\n{}", errors[0], print::module(&m));
    }
    Ok((m, made))
}

/// A property of random functions also holds for a generator whose cases all fail to batch.
#[test]
fn every_op_is_met_with_a_batched_operand() {
    let mut met = BTreeSet::new();
    for seed in 0..400 {
        let choices: Vec<u32> = (0..300).map(|i| values::hash(seed, i) as u32).collect();
        let case = case(&choices, seed, Config { smooth: false, one_sequence: true });
        let mask: Vec<bool> = (0..case.args.len()).map(|i| values::hash(seed, 1000 + i as u64) & 1 == 1).collect();
        let Ok((module, func)) = batched(&case.module, case.func, &mask) else { continue };
        let graph = &module.funcs[func];
        let in_front = |v: &Value| {
            let dims = &graph.ty(*v).dims;
            dims.first().is_some_and(|&d| module.dims.role(d) == DimRole::Sequence)
        };
        met.extend(graph.nodes.values().filter(|node| node.args.iter().any(in_front)).map(|node| Kind::of(&node.op)));
    }
    let without = [Kind::Const, Kind::Iota, Kind::Random, Kind::ScatterAdd];
    let missing: Vec<_> = Kind::ALL.iter().filter(|kind| !met.contains(kind) && !without.contains(kind)).collect();
    assert!(missing.is_empty(), "no case batches {missing:?}");
}

/// x·n with a gradient of its own: x differs between sequences or n does.
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
    let gradient = |mask: &[bool], args: Vec<Tensor>| {
        let (b, func) = batched(&m, Func::from_u32(1), mask).expect("nothing is in the way");
        let gradient = b.funcs[func].gradient.expect("it is batched too");
        evaluate(&b, gradient, args, &Context::default()).expect("it runs")
    };
    let (x, n, dy) = (floats(&[2, 2], &[1.0, 2.0, 3.0, 4.0]), floats(&[2], &[5.0, 7.0]), floats(&[2, 2], &[1.0; 4]));
    let (row, three) = (floats(&[2], &[1.0, 2.0]), Tensor::scalar(3.0));

    let found = gradient(&[true, false], vec![x.clone(), three, x.clone(), dy.clone()]);
    assert_eq!(found, [floats(&[2, 2], &[3.0; 4]), Tensor::scalar(10.0)]);
    let found = gradient(&[false, true], vec![row, n, x, dy]);
    assert_eq!(found, [floats(&[2], &[12.0, 12.0]), floats(&[2], &[3.0, 3.0])]);
}
