//! Fusion keeps every value to the bit, as the oracle runs the graphs that fused calls stand for; it settles; and every
//! call is one kernel.

mod steps;

use mngc_compiler::ir::typing::Stage;
use mngc_compiler::ir::{CallKind, Entry, EntryKind, Fusion, Input, Module, Op, Output, print};
use mngc_compiler::passes;
use mngc_compiler::schedule;
use mngc_compiler::schedule::cluster::{self, Leaf};
use mngc_compiler::schedule::kernel::Kernel;
use mngc_compiler::schedule::plan::Launch;
use mngc_runtime::{Context, Precision, evaluate};
use mngc_testkit::{Case, Config, bits, cases};
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
fn values(m: &Module, case: &Case, precision: Precision) -> Vec<Vec<u64>> {
    let entry = m.entries.values().next().expect("an entry");
    let ctx = Context::new(precision, case.seed, 3);
    evaluate(m, entry.func, case.args.clone(), &ctx).expect("it runs").iter().map(bits).collect()
}

fn calls(m: &Module, fusion: Fusion) -> usize {
    let nodes = m.funcs.values().flat_map(|g| g.nodes.values());
    nodes.filter(|node| matches!(node.op, Op::Call { kind: CallKind::Fused(f), .. } if f == fusion)).count()
}

/// Both kinds of cases: of all ops, and of what training steps are made of.
fn any_case() -> impl Strategy<Value = Case> {
    let step = (proptest::collection::vec(any::<u32>(), 0..160), 0u64..1 << 32);
    prop_oneof![1 => cases(Config::default()), 4 => step.prop_map(|(choices, seed)| steps::case(&choices, seed))]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn values_are_kept(case in any_case()) {
        let before = flat(&case);
        for i in 0..=passes::FUSE.len() {
            let list = if i == 0 { passes::FUSE } else { &passes::FUSE[i - 1..i] };
            let after = fused(&before, list);
            for precision in [Precision::Rounded, Precision::F64] {
                prop_assert_eq!(
                    values(&after, &case, precision),
                    values(&before, &case, precision),
                    "{}\nfrom\n{}",
                    print::module(&after),
                    print::module(&before)
                );
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
