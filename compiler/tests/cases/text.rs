//! Broken texts and broken modules, with the messages that they get.

use mngc_compiler::ir::typing::Stage;
use mngc_compiler::ir::{read, verify};

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
