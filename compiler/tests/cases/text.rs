//! Broken texts and broken modules, with the messages that they get.

use mngc_compiler::ir::op::{CallKind, Op};
use mngc_compiler::ir::typing::Stage;
use mngc_compiler::ir::{Func, read, verify};

use crate::harness;

#[test]
fn read_errors() {
    harness::check("read", |text| match read::module(text) {
        Ok(_) => vec!["no error".into()],
        Err(e) => vec![e.to_string()],
    });
}

#[test]
fn verifier_errors() {
    harness::check("verifier", |text| {
        let m = read::module(text).unwrap_or_else(|e| panic!("{e} in\n{text}"));
        // A first line `// after casts` asks for the rules of that stage.
        let after_casts = text.lines().any(|line| line.trim() == "// after casts");
        let stage = if after_casts { Stage::CastsPlaced } else { Stage::Elaborated };
        match verify::module(&m, stage) {
            Ok(()) => vec!["no error".into()],
            Err(errors) => errors.iter().map(ToString::to_string).collect(),
        }
    });
}

/// The text form cannot say it, a pass could make it.
#[test]
fn a_node_has_a_result() {
    let mut m = harness::module("module \"m\"\nfunc f0 \"f\" () {\n  return\n}\nfunc f1 \"g\" () {\n  return\n}\n");
    let (callee, caller) = (Func::from_u32(0), Func::from_u32(1));
    m.funcs[caller].push(Op::Call { func: callee, kind: CallKind::Block }, vec![], vec![], None);
    let errors = verify::module(&m, Stage::Elaborated).expect_err("a call without results");
    assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), ["n0 has no result of f1"]);
}
