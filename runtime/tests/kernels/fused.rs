//! Every fused call of random modules on a device against the graph that it stands for, in f64.
//!
//! How far a kernel may be from that follows from its graph: each node may be off by the bound for its op, and what these
//! errors do together is found by making them, at random, in f64. A kernel rounds at fewer places than its graph does.

use crate::DEVICE;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};

use crate::common::{Way, backend, exact, one_node, planned, run_on, sums};
use mngc_compiler::ir::{
    CallKind, DType, EntryKind, Func, Fusion, Graph, Module, Node, NodeData, Op, Type, Value, ValueDef, print,
};
use mngc_runtime::{Context, Data, Precision, Tensor, evaluate};
use mngc_testkit::close::largest;
use mngc_testkit::steps::{self, Sizes};
use mngc_testkit::{Case, Config, Tolerance, bits, cases, generate, values};
use proptest::prelude::*;

/// Runs with errors: so many that they do not cancel in all, even in one number that two of them meet in.
const SAMPLES: u64 = 20;
/// How many times the largest effect of the errors a kernel may be off.
const MULTIPLE: f64 = 2.0;

/// A tensor with an error in each element, of random sign.
fn off(tensor: &Tensor, tolerance: Tolerance, seed: u64) -> Tensor {
    let Data::Float(floats) = tensor.data() else { return tensor.clone() };
    let off = |(at, &x): (usize, &f64)| {
        let sign = if values::hash(seed, at as u64) & 1 == 0 { 1.0 } else { -1.0 };
        x + sign * (tolerance.abs + tolerance.rel * x.abs())
    };
    Tensor::floats(tensor.sizes(), floats.iter().enumerate().map(off).collect()).expect("the same sizes")
}

/// Whether every number is one, and neither it nor its square leaves the range of the dtype that it is computed in.
fn in_range(tensor: &Tensor, dtype: DType) -> bool {
    let most = if dtype == DType::F16 { 6e4 } else { 1e15 };
    tensor.as_floats().is_none_or(|x| x.iter().all(|x| x.is_finite() && x.abs() < most))
}

/// Results of the graph that a call stands for, with the errors of a sample in every node; none where a number is out of
/// range on the way.
fn with_errors(m: &Module, func: Func, args: &[Tensor], sample: Option<u64>) -> Option<Vec<Tensor>> {
    let g = &m.funcs[func];
    let mut known: HashMap<Value, Tensor> = g.params.iter().copied().zip(args.iter().cloned()).collect();
    for (node, data) in g.nodes.iter() {
        let args: Vec<Tensor> = data.args.iter().map(|v| known[v].clone()).collect();
        let (single, f) = alone(m, g, data);
        for (i, (&value, mut result)) in data.results.iter().zip(exact(&single, f, &args)).enumerate() {
            if let Some(sample) = sample {
                let sums = sums(&single, f, &args);
                let magnitude = sums.magnitude.unwrap_or_else(|| largest(&result));
                let tolerance = Tolerance::of(g.ty(value).dtype, sums.terms, magnitude);
                result = off(&result, tolerance, values::hash(sample, u64::from(node.as_u32()) << 8 | i as u64));
            }
            if !in_range(&result, g.ty(value).dtype) {
                return None;
            }
            known.insert(value, result);
        }
    }
    Some(g.results.iter().map(|v| known[v].clone()).collect())
}

/// The effect of errors on the results. A product that is symmetric in exact arithmetic is mirrored, whatever the
/// rounding of its operands makes of it.
fn samples(m: &Module, func: Func, fusion: Fusion, args: &[Tensor]) -> Option<Vec<Vec<Tensor>>> {
    let g = &m.funcs[func];
    let sample = |sample: u64| {
        let mut args = args.to_vec();
        if fusion == Fusion::SymmetricDot {
            for (i, (arg, &param)) in args.iter_mut().zip(&g.params).enumerate() {
                *arg = off(arg, Tolerance::of(g.ty(param).dtype, 1, 0.0), values::hash(!sample, i as u64));
            }
        }
        with_errors(m, func, &args, Some(sample))
    };
    (0..SAMPLES).map(sample).collect()
}

/// A module whose function is one node of a graph.
fn alone(m: &Module, g: &Graph, data: &NodeData) -> (Module, Func) {
    let types = |values: &[Value]| -> Vec<Type> { values.iter().map(|&v| g.ty(v).clone()).collect() };
    one_node(m.clone(), data.op.clone(), types(&data.args), types(&data.results))
}

fn distance(a: &Tensor, b: &Tensor) -> f64 {
    match (a.as_floats(), b.as_floats()) {
        (Some(a), Some(b)) => a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt(),
        _ if bits(a) == bits(b) => 0.0,
        _ => f64::INFINITY,
    }
}

/// Checks a fused call on operands, unless its results hang on a comparison that rounding decides, or are not finite.
fn check_call(m: &Module, g: &Graph, data: &NodeData, args: &[Tensor]) -> bool {
    let Op::Call { func: body, kind: CallKind::Fused(fusion) } = data.op else { panic!("a fused call") };
    let Some(wanted) = with_errors(m, body, args, None) else { return false };
    let Some(samples) = samples(m, body, fusion, args) else { return false };
    let (single, f) = alone(m, g, data);
    let found = run_on(&mut *backend(&single, f, Way::Planned, 2), args, 3);
    let mut checked = false;
    for (i, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
        let reach = samples.iter().map(|sample| distance(&sample[i], wanted)).max_by(f64::total_cmp).unwrap_or(0.0);
        // Truth values and integers that an error changes.
        if !reach.is_finite() {
            continue;
        }
        let far = distance(found, wanted);
        // A division by what errors may make zero.
        let size = wanted.as_floats().map_or(f64::INFINITY, |x| x.iter().map(|x| x * x).sum::<f64>().sqrt());
        if !far.is_finite() && reach >= size {
            continue;
        }
        checked = true;
        assert!(
            far <= MULTIPLE * reach,
            "result {i} is {far:e} off, over {MULTIPLE} times {reach:e}: {found:?}, not {wanted:?} of\n{}",
            print::module(&single)
        );
    }
    checked
}

/// Every fused call that a case is lowered to, on the operands that it has there. Counts them by kind.
fn check(case: &Case, seen: &mut BTreeMap<String, usize>) {
    let (m, _) = planned(&case.module, case.func, Way::Lowered);
    let entry = &m.entries[&EntryKind::Evaluate.into()];
    let g = &m.funcs[entry.func];
    let made: RefCell<HashMap<Value, Tensor>> = RefCell::default();
    let observer = |path: &[(Func, Node)], results: &[Tensor]| {
        if let [(_, node)] = path {
            made.borrow_mut().extend(g.nodes[*node].results.iter().copied().zip(results.iter().cloned()));
        }
    };
    let ctx = Context { observer: Some(&observer), ..Context::new(Precision::F64, 7, 3) };
    evaluate(&m, entry.func, case.args.clone(), &ctx).expect("it runs");
    let made = made.into_inner();
    let operand = |v: &Value| match g.values[*v].def {
        ValueDef::Param(i) => case.args[i].clone(),
        ValueDef::Result(..) => made[v].clone(),
    };
    let operand = |v: &Value| operand(v).rounded(g.ty(*v).dtype);
    for data in g.nodes.values() {
        if let Op::Call { kind: CallKind::Fused(fusion), .. } = data.op {
            let args: Vec<Tensor> = data.args.iter().map(operand).collect();
            if check_call(&m, g, data, &args) {
                *seen.entry(format!("{fusion:?}")).or_default() += 1;
            }
        }
    }
}

/// 1, 2, odd, primes, around the tiles.
fn sizes() -> impl Strategy<Value = Sizes> {
    let of = |sizes: &'static [usize]| prop::sample::select(sizes);
    let rows = (of(&[1, 2, 3]), of(&[1, 2, 3, 5, 7, 16, 17, 67]));
    let columns = (of(&[1, 2, 3, 7]), of(&[1, 2, 3, 5, 8, 17]), of(&[1, 2, 6, 13, 31, 97]), of(&[1, 2, 5, 53, 101]));
    (rows, columns).prop_map(|((seq, t), (heads, half, wide, vocab))| Sizes { seq, t, heads, half, wide, vocab })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: DEVICE.cases(120), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn calls_of_random_modules(case in cases(Config::default())) {
        if !DEVICE.is_ready() {
            return Ok(());
        }
        check(&case, &mut BTreeMap::new());
    }

    #[test]
    fn calls_of_training_steps(choices in prop::collection::vec(any::<u32>(), 0..160), seed in 0u64..1 << 32, sizes in sizes()) {
        if !DEVICE.is_ready() {
            return Ok(());
        }
        check(&steps::case(&choices, seed, sizes), &mut BTreeMap::new());
    }
}

/// The generators reach every kind of fusion, and few calls are passed over.
#[test]
fn every_fusion_is_checked() {
    if !DEVICE.is_ready() {
        return;
    }
    let mut seen = BTreeMap::new();
    for seed in 0..40u64 {
        let choices: Vec<u32> = (0..120).map(|i| values::hash(seed, i) as u32).collect();
        check(&steps::case(&choices, seed, steps::SMALL), &mut seen);
        check(&generate::case(&choices, seed, Config::default()), &mut seen);
    }
    for fusion in [Fusion::Rows, Fusion::Dot, Fusion::SymmetricDot, Fusion::Loss] {
        assert!(seen.get(&format!("{fusion:?}")).is_some_and(|&n| n >= 5), "{fusion:?} of {seen:?}");
    }
}
