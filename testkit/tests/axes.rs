//! Where axes go is what perturbing one position of an operand shows.

use mngc_compiler::axes::{Along, Tracer};
use mngc_compiler::ir::print;
use mngc_runtime::{Context, Data, Precision, Tensor};
use mngc_testkit::{Case, Config, bits, cases};
use proptest::prelude::*;

/// Position along `axis` of element `index`.
fn position(sizes: &[usize], axis: usize, index: usize) -> usize {
    index / sizes[axis + 1..].iter().product::<usize>() % sizes[axis]
}

/// Other elements at one position.
fn perturbed(t: &Tensor, axis: usize, at: usize) -> Tensor {
    let here = |index: &usize| position(t.sizes(), axis, *index) == at;
    let mut data = t.data().clone();
    match &mut data {
        Data::Float(v) => (0..v.len()).filter(here).for_each(|i| v[i] = 0.7 * v[i] + 0.4),
        Data::Int(v) => (0..v.len()).filter(here).for_each(|i| v[i] += 1),
        Data::Bool(v) => (0..v.len()).filter(here).for_each(|i| v[i] = !v[i]),
    }
    Tensor::new(t.sizes(), data).unwrap()
}

/// Elements in which two tensors differ.
fn changed(a: &Tensor, b: &Tensor) -> Vec<usize> {
    let (a, b) = (bits(a), bits(b));
    (0..a.len()).filter(|&i| a[i] != b[i]).collect()
}

/// Whether a position of a result may read a position of the operand.
fn reads(along: Along, to: usize, from: usize) -> bool {
    match along {
        Along::Pointwise => to == from,
        Along::Shift(n) => to as i64 - n == from as i64,
        Along::Prefix => from <= to,
        Along::Suffix => from >= to,
        Along::Mixes => true,
    }
}

fn check(case: &Case) -> Result<(), TestCaseError> {
    let ctx = Context::new(Precision::F64, case.seed, 0);
    let before = case.run(&case.args, &ctx).expect("it runs");
    let mut tracer = Tracer::new(&case.module);
    for (param, arg) in case.args.iter().enumerate() {
        for axis in 0..arg.rank() {
            let flows = tracer.param(case.func, param, axis);
            for at in 0..arg.sizes()[axis] {
                let mut args = case.args.clone();
                args[param] = perturbed(arg, axis, at);
                let after = case.run(&args, &ctx).expect("it runs");
                for (result, (old, new)) in before.iter().zip(&after).enumerate() {
                    let flow = flows.iter().find(|flow| flow.result == result);
                    for index in changed(old, new) {
                        let allowed = flow.is_some_and(|flow| match flow.axis {
                            Some(to) => reads(flow.along, position(old.sizes(), to, index), at),
                            None => true,
                        });
                        prop_assert!(
                            allowed,
                            "parameter {param}, axis {axis}, position {at} changes element {index} of result {result} \
                             against {flow:?}\n{}",
                            print::graph(&case.module, case.func)
                        );
                    }
                }
            }
        }
    }
    Ok(())
}

proptest! {
    // A fault that is found becomes a test of its own, with a name.
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_read_that_is_not_declared(case in cases(Config::default())) {
        check(&case)?;
    }
}
