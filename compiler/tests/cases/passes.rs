//! Passes on small modules. A function named `fires …` must change, one named `stays …` must not.

use mngc_compiler::ir::typing::Stage;
use mngc_compiler::ir::{Module, print, verify};
use mngc_compiler::passes::{self, const_fold, cse, dce, fuse, inline, rewrite, simplify};

use crate::harness;

/// Runs a pass on every case of its folder.
fn files(name: &str, run: fn(&mut Module) -> Result<usize, String>) {
    harness::check(&format!("passes/{name}"), |text| {
        let mut m = harness::module(text);
        rewrite::renumber(&mut m);
        let before: Vec<String> = m.funcs.keys().map(|f| print::graph(&m, f)).collect();
        let changes = run(&mut m).unwrap_or_else(|e| panic!("{e} in\n{text}"));
        if let Err(errors) = verify::module(&m, Stage::Elaborated) {
            panic!("{}\n{}", errors[0], print::module(&m));
        }
        let after = print::module(&m);
        for graph in before {
            // Without the id, which changes where an earlier function goes.
            let unchanged = after.contains(&graph[graph.find('"').unwrap_or(0)..]);
            assert!(!graph.contains(" \"fires") || !unchanged, "nothing fired in {graph}");
            assert!(!graph.contains(" \"stays") || unchanged, "something fired in {graph}");
        }
        let functions = after.split_once("\nfunc ").map_or(String::new(), |(_, rest)| format!("func {rest}"));
        let again = run(&mut m).expect("a second run");
        assert_eq!(again, 0, "a second run of {name} finds more to do in\n{}", print::module(&m));
        vec![format!("{changes} changes"), functions]
    });
}

#[test]
fn const_fold_files() {
    files("const_fold", const_fold::run);
}

#[test]
fn simplify_files() {
    files("simplify", simplify::run);
}

#[test]
fn cse_files() {
    files("cse", cse::run);
}

#[test]
fn dce_files() {
    files("dce", dce::run);
}

#[test]
fn inline_blocks_files() {
    files("inline_blocks", inline::blocks);
}

#[test]
fn inline_small_blocks_files() {
    files("inline_small_blocks", inline::small_blocks);
}

#[test]
fn fuse_dot_files() {
    files("fuse_dot", fuse::dot::run);
}

#[test]
fn fuse_sums_files() {
    files("fuse_sums", fuse::sums::run);
}

#[test]
fn fuse_pads_files() {
    files("fuse_pads", fuse::pads::run);
}

#[test]
fn fuse_rows_files() {
    files("fuse_rows", fuse::rows::run);
}

#[test]
fn fuse_loss_files() {
    files("fuse_loss", fuse::loss::run);
}

#[test]
fn cleanup_files() {
    files("cleanup", |m| {
        let before = print::module(m);
        passes::run(m, passes::CLEANUP, Stage::Elaborated, &mut Vec::new()).map_err(|e| e.to_string())?;
        Ok(usize::from(print::module(m) != before))
    });
}

#[test]
fn a_pass_that_breaks_the_module_is_named() {
    fn broken(m: &mut Module) -> Result<usize, String> {
        for g in m.funcs.values_mut() {
            g.result_names.push("one too many".into());
        }
        Ok(1)
    }
    let mut m = harness::module("module \"m\"\nfunc f0 \"f\" (v0: f32[]) {\n return v0\n}\n");
    let list = [passes::Pass { name: "broken", run: broken, reaches: None }];
    let error = passes::run_with(&mut m, &list, Stage::Elaborated, true, &mut Vec::new()).unwrap_err();
    assert_eq!(error.to_string(), "pass broken left a broken module: names do not match parameters or results of f0");
}

#[test]
fn every_pass_is_timed_under_its_name() {
    let mut m = harness::module("module \"m\"\nfunc f0 \"f\" (v0: f32[]) {\n return v0\n}\n");
    let mut timings = Vec::new();
    let stage = passes::run(&mut m, passes::CLEANUP, Stage::CastsPlaced, &mut timings).expect("passes that pass");
    assert_eq!(stage, Stage::CastsPlaced);
    let names: Vec<&str> = timings.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, passes::CLEANUP.iter().map(|pass| pass.name).collect::<Vec<_>>());
    assert!(timings.iter().all(|(_, seconds)| (0.0..60.0).contains(seconds)));
}
