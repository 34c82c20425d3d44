//! Every op on a device against the oracle in f64: the nodes of random modules one by one, each on the operands that it
//! had there; as a row program where it is one, and as the op that it is.

use crate::DEVICE;
use std::collections::BTreeMap;

use crate::common::{Device, Way, assert_close, check, exact, on_device, one_node, sums};
use mngc_compiler::ir::{DType, F64, Module, Op, Type};
use mngc_runtime::{Context, Precision, Tensor};
use mngc_testkit::kind::Kind;
use mngc_testkit::{Case, Config, bits, cases, generate, trace, values};
use proptest::prelude::*;

/// Random numbers are drawn on the host: only `init` has them.
fn is_on_device(op: &Op) -> bool {
    DEVICE == Device::Cpu || !matches!(op, Op::Random { .. })
}

/// Checks each node of a case; counts kinds of ops.
fn check_nodes(case: &Case, seen: &mut BTreeMap<Kind, usize>) {
    let ctx = Context::new(Precision::Rounded, case.seed, 3);
    let steps = trace::trace(&case.module, case.func, &case.args, &ctx).unwrap();
    for step in steps {
        let g = &case.module.funcs[step.func];
        if matches!(step.node.op, Op::Const(_)) || !is_on_device(&step.node.op) {
            continue;
        }
        *seen.entry(Kind::of(&step.node.op)).or_default() += 1;
        let types =
            |values: &[mngc_compiler::ir::Value]| -> Vec<Type> { values.iter().map(|&v| g.ty(v).clone()).collect() };
        let (m, f) =
            one_node(case.module.clone(), step.node.op.clone(), types(&step.node.args), types(&step.node.results));
        let wanted = exact(&m, f, &step.args);
        let mut sums = sums(&m, f, &step.args);
        if let Op::Attention { .. } | Op::AttentionGrad { .. } = step.node.op {
            sums.terms += DEVICE.rounded_terms(g.ty(step.node.args[0]).dtype);
        }
        for way in [Way::Planned, Way::Op] {
            let found = on_device(&m, f, &step.args, way, 2);
            assert_close(&m, f, &found, &wanted, sums, &format!("{way:?} {:?} {:?}", step.node.op, step.args));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: DEVICE.cases(200), ..ProptestConfig::default() })]

    #[test]
    fn nodes_of_random_modules(case in cases(Config::default())) {
        if !DEVICE.is_ready() {
            return Ok(());
        }
        check_nodes(&case, &mut BTreeMap::new());
    }

    #[test]
    fn threads_change_no_bit(case in cases(Config::default())) {
        if DEVICE.others().is_empty() {
            return Ok(());
        }
        let run = |threads| on_device(&case.module, case.func, &case.args, Way::Lowered, threads);
        let one = run(1);
        for &threads in DEVICE.others() {
            for (a, b) in one.iter().zip(&run(threads)) {
                prop_assert_eq!(bits(a), bits(b), "{} threads", threads);
            }
        }
    }
}

/// The generator reaches every kind of op, so that no kernel goes unchecked.
#[test]
fn every_kind_of_op_is_checked() {
    if !DEVICE.is_ready() {
        return;
    }
    let mut seen = BTreeMap::new();
    for seed in 0..u64::from(DEVICE.cases(300)) {
        let choices: Vec<u32> = (0..200).map(|i| values::hash(seed, i) as u32).collect();
        check_nodes(&generate::case(&choices, seed, Config::default()), &mut seen);
    }
    let is_seen = |kind: &Kind| match kind {
        Kind::Call | Kind::Const => true,
        Kind::Random => DEVICE == Device::Soft || seen.contains_key(kind),
        _ => seen.contains_key(kind),
    };
    let missing: Vec<_> = Kind::ALL.iter().filter(|kind| !is_seen(kind)).collect();
    assert!(missing.is_empty(), "no case has {missing:?}");
}

/// Rows whose elements differ by little, so that the mean takes nearly all of them away.
#[test]
fn norms_of_nearly_equal_rows() {
    if !DEVICE.is_ready() {
        return;
    }
    for n in [1usize, 2, 3, 17, 96, 1024] {
        for spread in [0.0, 1e-7, 1e-5, 1e-3, 0.1] {
            for eps in [1e-12, 1e-6, 1e-2] {
                let element = |seed, i| 2.0 * values::unit(seed, i as u64) - 1.0;
                let x = (0..3 * n).map(|i| 1.0 + spread * element(n as u64, i)).collect();
                let dy = (0..3 * n).map(|i| element(7, i)).collect();
                let tensor = |x| Tensor::floats([3, n], x).unwrap().rounded(DType::F32);
                let args = [tensor(x), tensor(dy)];
                let mut m = Module::default();
                let ty = Type::new(DType::F32, [m.dims.anonymous(3), m.dims.anonymous(n)]);
                let eps = F64(eps);
                let ops =
                    [Op::LayerNorm { eps }, Op::LayerNormGrad { eps }, Op::RmsNorm { eps }, Op::RmsNormGrad { eps }];
                for (op, operands) in ops.into_iter().zip([1, 2, 1, 2]) {
                    let (m, f) = one_node(m.clone(), op, vec![ty.clone(); operands], vec![ty.clone()]);
                    check(&m, f, &args[..operands], Way::Planned, sums(&m, f, &args[..operands]));
                }
            }
        }
    }
}
