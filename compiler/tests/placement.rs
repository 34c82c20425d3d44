//! Passes that decide where things stand: the axis of sequences, casts, shadow slots. On small modules; a function named
//! `fires …` must change, one named `stays …` must not.

#[path = "cases/harness.rs"]
mod harness;

use mngc_compiler::ir::typing::Stage;
use mngc_compiler::ir::{DimRole, Func, Module, print, verify};
use mngc_compiler::passes::batch::batch;
use mngc_compiler::passes::{place_casts, shadow};

fn legal(m: &Module, stage: Stage) {
    if let Err(errors) = verify::module(m, stage) {
        panic!("{}\n{}", errors[0], print::module(m));
    }
}

/// Runs a pass, twice: a second run must find nothing.
fn pass(text: &str, run: fn(&mut Module) -> Result<usize, String>, stage: Stage) -> Vec<String> {
    let mut m = harness::module(text);
    let before: Vec<String> = m.funcs.keys().map(|f| print::graph(&m, f)).collect();
    let changes = run(&mut m).unwrap_or_else(|e| panic!("{e} in\n{text}"));
    legal(&m, stage);
    let after = print::module(&m);
    for graph in before {
        let unchanged = after.contains(&graph);
        assert!(!graph.contains(" \"fires") || !unchanged, "nothing fired in {graph}");
        assert!(!graph.contains(" \"stays") || unchanged, "something fired in {graph}");
    }
    assert_eq!(run(&mut m), Ok(0), "a second run finds more to do in\n{after}");
    assert_eq!(print::module(&m), after);
    let shown = after.lines().filter(|line| !line.starts_with("module ") && !line.starts_with("dim "));
    let mut out = vec![format!("{changes} changes")];
    out.extend(shown.map(str::to_owned));
    out
}

#[test]
fn place_casts_files() {
    harness::check("passes/place_casts", |text| pass(text, place_casts::run, Stage::CastsPlaced));
}

#[test]
fn shadow_files() {
    harness::check("passes/shadow", |text| pass(text, shadow::run, Stage::CastsPlaced));
}

/// Batches the last function over two sequences: those of its parameters whose names end in `*`.
#[test]
fn batch_files() {
    harness::check("passes/batch", |text| {
        let mut m = harness::module(text);
        let seq = m.dims.intern("seq", 2, DimRole::Sequence);
        let func = m.funcs.keys().next_back().expect("a function");
        let count = m.funcs.len();
        let mask: Vec<bool> = m.funcs[func].param_names.iter().map(|name| name.ends_with('*')).collect();
        match batch(&mut m, func, seq, &mask) {
            Err(e) => vec![format!("error: {e}")],
            Ok((made, results)) => {
                legal(&m, Stage::Elaborated);
                let new = (count..m.funcs.len()).map(|i| print::graph(&m, Func::from_u32(i as u32)));
                let last = format!("{made}, batched results: {results:?}");
                new.chain([last]).collect()
            }
        }
    });
}
