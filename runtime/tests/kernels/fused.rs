//! Every fused call of random modules on a device against the graph that it stands for, in f64.

use crate::DEVICE;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};

use crate::common::{Way, backend, planned, run_on};
use mngc_compiler::ir::{CallKind, EntryKind, Func, Fusion, Graph, Module, Node, NodeData, Op, Value, ValueDef, print};
use mngc_runtime::{Context, Precision, Tensor, evaluate};
use mngc_testkit::kernels::calls::{alone, judge};
use mngc_testkit::steps::{self, Sizes};
use mngc_testkit::{Case, Config, cases, generate, values};
use proptest::prelude::*;

/// Checks a fused call on operands, unless its results hang on a comparison that rounding decides, or are not finite.
fn check_call(m: &Module, g: &Graph, data: &NodeData, args: &[Tensor]) -> bool {
    let (single, f) = alone(m, g, data);
    let found = run_on(&mut *backend(&single, f, Way::Planned, 2), args, 3);
    judge(m, data, args, &found).unwrap_or_else(|e| panic!("{e} of\n{}", print::module(&single)))
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
