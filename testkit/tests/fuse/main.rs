//! Fusion keeps every value to the bit, as the oracle runs the graphs that fused calls stand for; it settles; and every
//! call is one kernel.

use std::collections::BTreeMap;

use mngc_compiler::ir::typing::Stage;
use mngc_compiler::ir::{
    BinaryOp, CallKind, DType, Entry, EntryKind, Func, Fusion, Graph, Input, Module, Op, Output, ReduceKind, Type,
    Value, ValueData, ValueDef, print, verify,
};
use mngc_compiler::passes;
use mngc_compiler::schedule;
use mngc_compiler::schedule::cluster::{self, Leaf};
use mngc_compiler::schedule::kernel::Kernel;
use mngc_compiler::schedule::plan::Launch;
use mngc_runtime::{Context, Data, Precision, Tensor, evaluate};
use mngc_testkit::{Case, Config, bits, cases, steps, values};
use proptest::prelude::*;

/// The case's function as an entry, flat and clean.
fn flat(case: &Case) -> Module {
    let mut m = case.module.clone();
    let g = &m.funcs[case.func];
    let inputs = (0..g.params.len()).map(|i| Input::Batch(format!("in{i}"))).collect();
    let outputs = (0..g.results.len()).map(|i| Output::Host(format!("out{i}"))).collect();
    let key = EntryKind::Evaluate.into();
    m.entries = [(key, Entry { key, func: case.func, inputs, outputs })].into();
    let mut stage = Stage::Elaborated;
    for list in [passes::CASTS, passes::FLATTEN, passes::CLEANUP] {
        stage = passes::run_with(&mut m, list, stage, true, &mut Vec::new()).unwrap_or_else(|e| panic!("{e}"));
    }
    m
}

fn fused(m: &Module, list: &[passes::Pass]) -> Module {
    let mut after = m.clone();
    let run = passes::run_with(&mut after, list, Stage::CastsPlaced, true, &mut Vec::new());
    run.unwrap_or_else(|e| panic!("{e}\nfrom\n{}", print::module(m)));
    after
}

/// What the entry gives.
fn outputs(m: &Module, case: &Case, precision: Precision) -> Vec<Vec<u64>> {
    let entry = m.entries.values().next().expect("an entry");
    let ctx = Context::new(precision, case.seed, 3);
    evaluate(m, entry.func, case.args.clone(), &ctx).expect("it runs").iter().map(bits).collect()
}

fn calls(m: &Module, fusion: Fusion) -> usize {
    let nodes = m.funcs.values().flat_map(|g| g.nodes.values());
    nodes.filter(|node| matches!(node.op, Op::Call { kind: CallKind::Fused(f), .. } if f == fusion)).count()
}

/// The module with the product of every symmetric call as a further output of its entry, named by its batch axes.
/// Bodies with one more result are copies: a call that is not symmetric may share the body.
fn with_products(m: &Module) -> Module {
    let mut m = m.clone();
    let entry = m.entries.values_mut().next().expect("an entry");
    let mut product: BTreeMap<Func, (Func, Type, usize)> = BTreeMap::new();
    let mut g = m.funcs[entry.func].clone();
    for node in g.nodes.keys().collect::<Vec<_>>() {
        let kind = CallKind::Fused(Fusion::SymmetricDot);
        let Op::Call { func, kind: found } = g.nodes[node].op else { continue };
        if found != kind {
            continue;
        }
        let (func, ty, batch) = product.entry(func).or_insert_with(|| {
            let mut body = m.funcs[func].clone();
            let mut dots = body.nodes.values().filter_map(|n| match &n.op {
                Op::Dot { batch, .. } => Some((n.results[0], batch.len())),
                _ => None,
            });
            let (dot, batch) = dots.next_back().expect("a product");
            body.result("", dot);
            let ty = body.ty(dot).clone();
            (m.funcs.push(body), ty, batch)
        });
        g.nodes[node].op = Op::Call { func: *func, kind };
        let def = ValueDef::Result(node, g.nodes[node].results.len());
        let value = g.values.push(ValueData { ty: ty.clone(), def });
        g.nodes[node].results.push(value);
        entry.outputs.push(Output::Host(format!("product{}", g.results.len())));
        g.result(format!("product {batch}"), value);
    }
    // Behind the bodies that it calls.
    entry.func = m.funcs.push(g);
    m
}

/// Both kinds of cases: of all ops, and of what training steps are made of.
fn any_case() -> impl Strategy<Value = Case> {
    let step = (proptest::collection::vec(any::<u32>(), 0..160), 0u64..1 << 32);
    prop_oneof![1 => cases(Config::default()), 4 => step.prop_map(|(choices, seed)| steps::case(&choices, seed, steps::SMALL))]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn values_are_kept(case in any_case()) {
        // The first passes change the order of sums, and the sign of zeros; the others change nothing.
        let (rewriting, others) = passes::FUSE.split_at(2);
        prop_assert_eq!([rewriting[0].name, rewriting[1].name], ["fuse_sums", "fuse_pads"]);
        let before = fused(&flat(&case), rewriting);
        for i in 0..=others.len() {
            let list = if i == 0 { others } else { &others[i - 1..i] };
            let after = fused(&before, list);
            for precision in [Precision::Rounded, Precision::F64] {
                prop_assert_eq!(
                    outputs(&after, &case, precision),
                    outputs(&before, &case, precision),
                    "{}\nfrom\n{}",
                    print::module(&after),
                    print::module(&before)
                );
            }
        }
    }

    /// On integers, whose sums are exact.
    #[test]
    fn folds_of_folds_are_kept(axes in proptest::collection::vec(0usize..4, 1..5), kind in 0usize..3, seed: u64) {
        let mut m = Module::default();
        let mut dims: Vec<_> = [3, 2, 4, 2, 3].map(|size| m.dims.anonymous(size)).into();
        let mut g = Graph::new("folds");
        let mut value = g.param("x", Type::new(DType::F32, dims.clone()));
        let sizes = m.dims.sizes(&dims);
        let kind = [ReduceKind::Sum, ReduceKind::Max, ReduceKind::Min][kind];
        for axis in axes {
            let axis = axis % dims.len();
            dims.remove(axis);
            let op = Op::Reduce { kind, axes: vec![axis as u8] };
            value = g.push1(op, vec![value], Type::new(DType::F32, dims.clone()), None);
        }
        g.result("y", value);
        let func = m.funcs.push(g);
        let x = (0..144).map(|i| (values::hash(seed, i) % 64) as f64 - 32.0).collect();
        let args = vec![Tensor::floats(sizes, x).expect("as many as the sizes say")];
        let case = Case { module: m, func, args, seed };
        let before = flat(&case);
        let after = fused(&before, &passes::FUSE[..1]);
        prop_assert_eq!(outputs(&after, &case, Precision::F64), outputs(&before, &case, Precision::F64));
    }

    /// Some parts of a tensor, padded back and added.
    #[test]
    fn sums_of_padded_tensors_are_kept(cuts in proptest::collection::vec(0usize..7, 1..6), seed: u64) {
        let mut m = Module::default();
        let [rows, wide] = [3, 6].map(|size| m.dims.anonymous(size));
        let ty = Type::new(DType::F32, [rows, wide]);
        let mut g = Graph::new("pads");
        let x = g.param("x", ty.clone());
        let mut ends = cuts.clone();
        ends.sort_unstable();
        let mut sum: Option<Value> = None;
        // Every pair of neighbours, in the order in which they were drawn.
        for &cut in &cuts {
            let at = ends.iter().position(|&end| end == cut).unwrap_or(0);
            let (start, end) = (if at == 0 { 0 } else { ends[at - 1] }, if at + 1 == ends.len() { 6 } else { cut });
            let mut part = ty.clone();
            part.dims[1] = m.dims.anonymous(end - start);
            let part = g.push1(Op::Slice { axis: 1, start }, vec![x], part, None);
            let part = g.push1(Op::Pad { axis: 1, before: start }, vec![part], ty.clone(), None);
            let add = Op::Binary(BinaryOp::Add);
            sum = Some(sum.map_or(part, |sum| g.push1(add, vec![part, sum], ty.clone(), None)));
        }
        g.result("y", sum.unwrap_or(x));
        let args = vec![values::tensor(&m.dims, &ty, seed, true)];
        let func = m.funcs.push(g);
        let case = Case { module: m, func, args, seed };
        let before = flat(&case);
        let after = fused(&before, &passes::FUSE[1..2]);
        prop_assert_eq!(outputs(&after, &case, Precision::F64), outputs(&before, &case, Precision::F64));
    }

    /// As matrices of the free axes, which come last: up to the rounding of f64.
    #[test]
    fn symmetric_products_are_symmetric(case in any_case()) {
        let m = with_products(&fused(&flat(&case), passes::FUSE));
        if let Err(errors) = verify::module(&m, Stage::CastsPlaced) {
            panic!("{}\n{}", errors[0], print::module(&m));
        }
        let entry = m.entries.values().next().expect("an entry");
        let ctx = Context::new(Precision::F64, case.seed, 3);
        let found = evaluate(&m, entry.func, case.args.clone(), &ctx).expect("it runs");
        let results = &m.funcs[entry.func];
        for (tensor, name) in found.iter().zip(&results.result_names) {
            let Some(batch) = name.strip_prefix("product ") else { continue };
            let Data::Float(x) = tensor.data() else { panic!("{name} is no float") };
            let free = &tensor.sizes()[batch.parse().expect("a number")..];
            let n: usize = free[free.len() / 2..].iter().product();
            let size = x.iter().filter(|x| x.is_finite()).fold(0.0, |a: f64, x| a.max(x.abs()));
            for (at, &a) in x.iter().enumerate() {
                let (matrix, i, j) = (at / (n * n), at / n % n, at % n);
                let b = x[matrix * n * n + j * n + i];
                let close = (a - b).abs() <= 1e-9 * size || !a.is_finite() || !b.is_finite();
                prop_assert!(close, "{a} against {b} in\n{}", print::module(&m));
            }
        }
    }

    #[test]
    fn a_second_run_finds_nothing(case in any_case()) {
        let before = flat(&case);
        for pass in passes::FUSE {
            let once = fused(&before, &[*pass]);
            let mut twice = once.clone();
            let changes = (pass.run)(&mut twice).expect("it runs");
            prop_assert_eq!(changes, 0, "{} on\n{}\ngives\n{}", pass.name, print::module(&once), print::module(&twice));
        }
    }

    #[test]
    fn calls_are_kernels(case in any_case()) {
        let m = fused(&flat(&case), passes::FUSE);
        for node in m.funcs.values().flat_map(|g| g.nodes.values()) {
            if let Op::Call { func, kind: CallKind::Fused(Fusion::Rows) } = node.op {
                let g = &m.funcs[func];
                let leaves: Vec<Leaf> =
                    g.params.iter().enumerate().map(|(operand, &value)| Leaf { value, operand }).collect();
                let outputs: Vec<cluster::Output> =
                    g.results.iter().enumerate().map(|(result, &value)| cluster::Output { value, result }).collect();
                let program = cluster::compile(&m, g, &leaves, &outputs);
                prop_assert!(program.is_ok(), "{:?} in\n{}", program, print::graph(&m, func));
            }
        }
        let plan = schedule::plan(&m, &mut Vec::new()).unwrap_or_else(|e| panic!("{e}\n{}", print::module(&m)));
        let launches: Vec<&Launch> = plan.entries.values().flat_map(|e| &e.launches).collect();
        let count = |is: &dyn Fn(&Launch) -> bool| launches.iter().filter(|launch| is(launch)).count();
        let symmetric = |l: &Launch| matches!(&l.kernel, Kernel::Dot(dot) if dot.symmetric);
        let losses = count(&|l| matches!(l.kernel, Kernel::Loss(_)));
        prop_assert_eq!(losses, calls(&m, Fusion::Loss), "{}", print::module(&m));
        prop_assert_eq!(count(&symmetric), calls(&m, Fusion::SymmetricDot), "{}", print::module(&m));
        // A product that fell apart has the name of its op alone.
        let whole = count(&|l| matches!(l.kernel, Kernel::Dot(_)) && !symmetric(l) && l.name.contains('+'));
        prop_assert_eq!(whole, calls(&m, Fusion::Dot), "{}", print::module(&m));
    }
}
