//! Every op on the soft GPU against the oracle in f64: the nodes of random modules one by one, each on the operands that
//! it had there.

mod common;

use std::collections::BTreeMap;

use common::{Way, assert_close, exact, one_node, planned, run_on, sums};
use mngc_compiler::ir::{Module, Op, Type};
use mngc_runtime::cuda::{Cuda, Kind as Driver};
use mngc_runtime::{Context, Precision, Tensor};
use mngc_testkit::kind::Kind;
use mngc_testkit::{Case, Config, generate, trace, values};

fn on_soft(m: &Module, func: mngc_compiler::ir::Func, args: &[Tensor], way: Way) -> Result<Vec<Tensor>, String> {
    let (m, plan) = planned(m, func, way);
    let mut backend = Cuda::new(m, &plan, 7, Driver::Soft).map_err(|e| e.to_string())?;
    Ok(run_on(&mut backend, args, 3))
}

/// Checks each node of a case; counts kinds of ops.
fn check_nodes(case: &Case, seen: &mut BTreeMap<Kind, usize>) {
    let ctx = Context::new(Precision::Rounded, case.seed, 3);
    let steps = trace::trace(&case.module, case.func, &case.args, &ctx).unwrap();
    for step in steps {
        let g = &case.module.funcs[step.func];
        if matches!(step.node.op, Op::Const(_)) {
            continue;
        }
        let types =
            |values: &[mngc_compiler::ir::Value]| -> Vec<Type> { values.iter().map(|&v| g.ty(v).clone()).collect() };
        let (m, f) =
            one_node(case.module.clone(), step.node.op.clone(), types(&step.node.args), types(&step.node.results));
        let wanted = exact(&m, f, &step.args);
        let sums = sums(&m, f, &step.args);
        match on_soft(&m, f, &step.args, Way::Planned) {
            Ok(found) => {
                assert_close(&m, f, &found, &wanted, sums, &format!("{:?} {:?}", step.node.op, step.args));
                *seen.entry(Kind::of(&step.node.op)).or_default() += 1;
            }
            Err(e) if e.contains("there is no kernel") => {}
            Err(e) => panic!("{:?} {:?}: {e}", step.node.op, step.args),
        }
    }
}

#[test]
fn nodes_of_random_modules() {
    let mut seen = BTreeMap::new();
    for seed in 0..40u64 {
        let choices: Vec<u32> = (0..200).map(|i| values::hash(seed, i) as u32).collect();
        check_nodes(&generate::case(&choices, seed, Config::default()), &mut seen);
    }
    eprintln!("{seen:?}");
}
