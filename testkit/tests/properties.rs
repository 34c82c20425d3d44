//! What holds for every module: the text form, the verifier, the oracle.

use std::collections::{BTreeMap, BTreeSet};

use mngc_compiler::ir::typing::Stage;
use mngc_compiler::ir::{Func, Graph, Input, Module, Output, print, read, verify};
use mngc_runtime::{Backend, Context, Precision, Reference, Tensor, evaluate};
use mngc_testkit::generate::case;
use mngc_testkit::kind::Kind;
use mngc_testkit::smooth::is_smooth;
use mngc_testkit::trace::trace;
use mngc_testkit::{Case, Config, bits, cases, values};
use proptest::prelude::*;

const ANY: Config = Config { smooth: false, one_sequence: false };
const SMOOTH: Config = Config { smooth: true, one_sequence: false };

/// Sizes and bits of every tensor.
fn all_bits(tensors: &[Tensor]) -> Vec<(Vec<usize>, Vec<u64>)> {
    tensors.iter().map(|t| (t.sizes().to_vec(), bits(t))).collect()
}

fn context(case: &Case, precision: Precision) -> Context<'static> {
    Context::new(precision, case.seed, 3)
}

/// A function of one node.
fn alone(module: &Module, step: &mngc_testkit::trace::Step) -> (Module, Func) {
    let from = &module.funcs[step.func];
    let mut g = Graph::new("alone");
    let args = step.node.args.iter().map(|&v| g.param("", from.ty(v).clone())).collect();
    let types = step.node.results.iter().map(|&v| from.ty(v).clone()).collect();
    let node = g.push(step.node.op.clone(), args, types, None);
    for v in g.nodes[node].results.clone() {
        g.result("", v);
    }
    let mut m = Module { dims: module.dims.clone(), ..Module::default() };
    let func = m.funcs.push(g);
    (m, func)
}

/// The entry on a backend gives what the function gives.
fn check_entry(case: &Case) -> Result<(), TestCaseError> {
    let entry = case.module.entries.values().next().expect("an entry");
    let mut backend = Reference::new(case.module.clone(), case.seed, Precision::Rounded);
    let (mut inputs, mut args) = (BTreeMap::new(), Vec::new());
    for (input, arg) in entry.inputs.iter().zip(&case.args) {
        args.push(match input {
            Input::Scalar(scalar) => Tensor::scalar(case.module.scalars[*scalar].expr.eval(3)),
            Input::Slot(_) | Input::Batch(_) => arg.clone(),
        });
        match input {
            Input::Slot(slot) => backend.set_slot(*slot, arg.clone()).expect("the slot takes it"),
            Input::Batch(name) => drop(inputs.insert(name.clone(), arg.clone())),
            Input::Scalar(_) => {}
        }
    }
    let out = backend.run(entry.key, &inputs, 3).expect("the entry runs");
    let results = case.run(&args, &context(case, Precision::Rounded)).expect("the function runs");
    let mut names = BTreeSet::new();
    for (output, result) in entry.outputs.iter().zip(&results) {
        let found = match output {
            Output::Slot(slot) => backend.slot(*slot).expect("it was written"),
            Output::Host(name) => {
                names.insert(name);
                out[name].clone()
            }
        };
        prop_assert_eq!(bits(&found), bits(result));
    }
    prop_assert_eq!(out.len(), names.len());
    Ok(())
}

proptest! {
    // A fault that is found becomes a test of its own, with a name.
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn printing_what_was_read_gives_the_same_text(case in cases(ANY)) {
        let text = print::module(&case.module);
        let back = read::module(&text).map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert_eq!(print::module(&back), text);
        prop_assert_eq!(back.funcs.len(), case.module.funcs.len());
        for (func, graph) in case.module.funcs.iter() {
            // NaN constants are equal by their bits.
            prop_assert_eq!(&back.funcs[func].nodes, &graph.nodes);
            prop_assert_eq!(&back.funcs[func].params, &graph.params);
            prop_assert_eq!(&back.funcs[func].param_names, &graph.param_names);
            prop_assert_eq!(&back.funcs[func].result_names, &graph.result_names);
        }
        prop_assert_eq!(&back.entries, &case.module.entries);
        prop_assert_eq!(&back.slots, &case.module.slots);
    }

    #[test]
    fn the_verifier_accepts_what_is_generated(case in cases(ANY)) {
        let verdict = verify::module(&case.module, Stage::Elaborated);
        prop_assert!(verdict.is_ok(), "{}", verdict.unwrap_err()[0]);
    }

    #[test]
    fn a_read_module_computes_the_same(case in cases(ANY)) {
        let back = read::module(&print::module(&case.module)).expect("it reads");
        let ctx = context(&case, Precision::Rounded);
        let (a, b) = (case.run(&case.args, &ctx), evaluate(&back, case.func, case.args.clone(), &ctx));
        prop_assert_eq!(all_bits(&a.expect("it runs")), all_bits(&b.expect("it runs")));
    }

    #[test]
    fn evaluation_depends_on_nothing_else(case in cases(ANY)) {
        for precision in [Precision::Rounded, Precision::F64] {
            let ctx = context(&case, precision);
            let once = case.run(&case.args, &ctx).expect("it runs");
            prop_assert_eq!(all_bits(&once), all_bits(&case.run(&case.args, &ctx).expect("it runs")));
            // The observer only looks on.
            let steps = trace(&case.module, case.func, &case.args, &ctx).expect("it runs");
            let last = case.graph().results.iter().zip(&once);
            for (&value, result) in last {
                let made = steps.iter().rev().find(|s| s.func == case.func && s.node.results.contains(&value));
                if let Some(step) = made {
                    let i = step.node.results.iter().position(|&v| v == value).expect("it is there");
                    prop_assert_eq!(bits(&step.results[i]), bits(result));
                }
            }
        }
    }

    /// The rounded oracle is the exact one, on operands that are rounded, rounded once.
    #[test]
    fn each_result_is_rounded_once(case in cases(ANY)) {
        let steps = trace(&case.module, case.func, &case.args, &context(&case, Precision::Rounded)).expect("it runs");
        for step in steps {
            let (m, f) = alone(&case.module, &step);
            let exact = evaluate(&m, f, step.args.clone(), &context(&case, Precision::F64)).expect("it runs");
            for ((exact, &result), found) in exact.into_iter().zip(&m.funcs[f].results).zip(&step.results) {
                let dtype = m.funcs[f].ty(result).dtype;
                prop_assert_eq!(bits(&exact.rounded(dtype)), bits(found), "{:?}", step.node.op);
            }
        }
    }

    /// What is called free moves values or fills in zeros; it computes none.
    #[test]
    fn free_ops_only_move(case in cases(ANY)) {
        let steps = trace(&case.module, case.func, &case.args, &context(&case, Precision::Rounded)).expect("it runs");
        for step in steps.iter().filter(|step| step.node.op.is_free() && !step.args.is_empty()) {
            let there: BTreeSet<u64> = step.args.iter().flat_map(bits).collect();
            for x in bits(&step.results[0]) {
                prop_assert!(x == 0 || there.contains(&x), "{:?}", step.node.op);
            }
        }
    }

    #[test]
    fn an_entry_gives_what_its_function_gives(case in cases(ANY)) {
        check_entry(&case)?;
    }

    #[test]
    fn smooth_cases_are_smooth_and_finite(case in cases(SMOOTH)) {
        prop_assert_eq!(is_smooth(&case.module, case.func, &case.args, case.seed, 0), Ok(true));
        let ctx = Context::new(Precision::F64, case.seed, 0);
        for result in case.run(&case.args, &ctx).expect("it runs") {
            prop_assert!(result.as_floats().expect("floats only").iter().all(|x| x.is_finite()));
        }
        prop_assert!(!case.graph().results.is_empty());
        for (_, graph) in case.module.funcs.iter() {
            prop_assert!(graph.nodes.values().all(|node| Kind::of(&node.op).is_differentiable()));
        }
    }

    #[test]
    fn one_sequence_has_no_sequence_axis(case in cases(Config { one_sequence: true, ..SMOOTH })) {
        prop_assert!(case.module.dims.iter().all(|(_, d)| d.role != mngc_compiler::ir::DimRole::Sequence));
    }
}

/// A generator that stops making something makes every test above weaker without a sound.
#[test]
fn every_op_is_made() {
    for config in [ANY, SMOOTH] {
        let mut counts: BTreeMap<Kind, usize> = BTreeMap::new();
        let mut names = BTreeSet::new();
        let (mut calls, mut nodes) = (0, 0);
        for seed in 0..1500 {
            let choices: Vec<u32> = (0..250).map(|i| values::hash(seed, i) as u32).collect();
            let case = case(&choices, seed, config);
            calls += usize::from(case.graph().nodes.values().any(|n| Kind::of(&n.op) == Kind::Call));
            for graph in case.module.funcs.values() {
                nodes += graph.nodes.len();
                for node in graph.nodes.values() {
                    *counts.entry(Kind::of(&node.op)).or_default() += 1;
                    names.insert(node.op.name());
                }
            }
        }
        for kind in Kind::ALL {
            let wanted = if config.smooth && !kind.is_differentiable() { 0 } else { 20 };
            let count = counts.get(kind).copied().unwrap_or(0);
            assert!(count >= wanted && (wanted > 0 || count == 0), "{config:?}: {kind:?} {count} times, {counts:?}");
        }
        assert!(calls > 50 && nodes > 5000, "{calls} calls, {nodes} nodes");
        assert!(names.contains("pow") && names.contains("shr") && names.contains("ge") && names.contains("round"));
    }
}
