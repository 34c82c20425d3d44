//! Plans of random modules keep every tensor until its last reader, and the verifier sees plans that do not.

use mngc_compiler::ir::typing::Stage;
use mngc_compiler::ir::{Entry, EntryKind, Input, Module, Output, print};
use mngc_compiler::passes;
use mngc_compiler::schedule::plan::{ALIGNMENT, Operand, Place};
use mngc_compiler::schedule::{self, Plan, verify};
use mngc_testkit::{Case, Config, cases, values};
use proptest::prelude::*;

/// The module with an entry that runs the function of the case.
fn with_entry(case: &Case) -> Module {
    let mut m = case.module.clone();
    passes::run(&mut m, passes::CASTS, Stage::Elaborated, &mut Vec::new()).unwrap_or_else(|e| panic!("{e}"));
    let g = &m.funcs[case.func];
    let inputs = (0..g.params.len()).map(|i| Input::Batch(format!("in{i}"))).collect();
    let outputs = (0..g.results.len()).map(|i| Output::Host(format!("out{i}"))).collect();
    let key = EntryKind::Evaluate.into();
    m.entries.insert(key, Entry { key, func: case.func, inputs, outputs });
    m
}

fn planned(case: &Case) -> (Module, Plan) {
    let lowered = schedule::lower(&with_entry(case), &mut Vec::new()).unwrap_or_else(|e| panic!("{e}"));
    let plan = schedule::plan(&lowered, &mut Vec::new());
    let plan = plan.unwrap_or_else(|e| panic!("{e}\n{}", print::module(&lowered)));
    (lowered, plan)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn plans_of_random_modules_are_sound(case in cases(Config::default())) {
        planned(&case);
    }

    /// Two buffers that are alive together, moved to one place: unless nothing reads the first after the second was
    /// written, somebody reads the wrong tensor.
    #[test]
    fn overlapping_buffers_are_found(case in cases(Config::default())) {
        let (m, mut plan) = planned(&case);
        let key = EntryKind::Evaluate.into();
        let Some(entry) = plan.entries.get_mut(&key) else { return Ok(()) };
        // A launch with an operand in the arena that is also read later, and a result elsewhere in the arena.
        let in_arena = |b| matches!(entry.buffers[b].place, Place::Arena(_));
        let mut candidates = Vec::new();
        for (at, launch) in entry.launches.iter().enumerate() {
            for arg in &launch.args {
                let Operand::View(view) = arg else { continue };
                for result in &launch.results {
                    let later = |l: &mngc_compiler::schedule::plan::Launch| {
                        l.args.iter().any(|a| matches!(a, Operand::View(v) if v.value == view.value && v.buffer == view.buffer && v.offset == view.offset))
                    };
                    let full = m.bytes(&view.ty) > 0 && m.bytes(&result.ty) > 0 && view.offset == 0;
                    if full && in_arena(view.buffer) && in_arena(result.buffer) && view.buffer != result.buffer
                        && entry.launches[at + 1..].iter().any(later)
                    {
                        candidates.push((view.buffer, result.buffer));
                    }
                }
            }
        }
        if candidates.is_empty() {
            return Ok(());
        }
        let (operand, result) = candidates[values::hash(case.seed, 1) as usize % candidates.len()];
        entry.buffers[result].place = entry.buffers[operand].place.clone();
        let bytes = entry.buffers[result].bytes;
        if let Place::Arena(offset) = entry.buffers[result].place {
            plan.arena = plan.arena.max((offset + bytes).next_multiple_of(ALIGNMENT));
        }
        prop_assert!(verify::plan(&m, &plan).is_err(), "{operand} and {result} share their place");
    }

    /// Launches in another order, where one reads what the other makes.
    #[test]
    fn a_reader_before_its_writer_is_found(case in cases(Config::default())) {
        let (m, mut plan) = planned(&case);
        let key = EntryKind::Evaluate.into();
        let Some(entry) = plan.entries.get_mut(&key) else { return Ok(()) };
        let reads = |at: usize| {
            let made: Vec<u32> = entry.launches[at].results.iter().map(|r| r.value).collect();
            entry.launches[at + 1].args.iter().any(|a| matches!(a, Operand::View(v) if made.contains(&v.value) && m.bytes(&v.ty) > 0))
        };
        let pairs: Vec<usize> = (0..entry.launches.len().saturating_sub(1)).filter(|&at| reads(at)).collect();
        if pairs.is_empty() {
            return Ok(());
        }
        let at = pairs[values::hash(case.seed, 2) as usize % pairs.len()];
        entry.launches.swap(at, at + 1);
        prop_assert!(verify::plan(&m, &plan).is_err(), "launches {at} and {} are exchanged", at + 1);
    }
}
