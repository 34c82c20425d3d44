//! The schedule of the bundled models: complete, verified, and within what a step should take.

#[path = "common/compile.rs"]
mod compile;

use compile::{program, sets};
use mngc_compiler::ir::EntryKind;
use mngc_compiler::schedule;

#[test]
fn bundled_models_are_scheduled() {
    let small: &[(&str, &str)] = &[("sequence", "64"), ("batch", "128"), ("validate.tokens", "128"), ("layers", "2")];
    let narrow: Vec<(&str, &str)> = small.iter().copied().chain([("low", "f32")]).collect();
    for model in ["gpt2", "gpt2-1.5b", "gpt2-classic", "gpt2-mini"] {
        for set in [small, &narrow] {
            let program = program(&format!("models/{model}.mng"), &sets(set)).unwrap_or_else(|e| panic!("{e}"));
            let mut timings = Vec::new();
            let lowered = schedule::lower(&program.module, &mut timings).unwrap_or_else(|e| panic!("{model}: {e}"));
            let plan = schedule::plan(&lowered, &mut timings).unwrap_or_else(|e| panic!("{model}: {e}"));
            let launches = |kind: EntryKind| plan.entries[&kind.into()].launches.len();
            // Two layers: what nothing fused would be several times as many.
            assert!(launches(EntryKind::MicroStep) <= 110, "{model}: {}", launches(EntryKind::MicroStep));
            assert!(launches(EntryKind::Evaluate) <= 30, "{model}: {}", launches(EntryKind::Evaluate));
            assert!(launches(EntryKind::Update) <= 240, "{model}: {}", launches(EntryKind::Update));
        }
    }
}
