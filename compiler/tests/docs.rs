//! Every block of IR in docs/ir.md is legal, and prints as what was read.

use std::fs;
use std::path::Path;

use mngc_compiler::ir::typing::Stage;
use mngc_compiler::ir::{print, read, verify};

/// The blocks fenced as ```` ```ir ````, each with the line of its fence.
fn blocks(text: &str) -> Vec<(usize, String)> {
    let mut out = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if line == "```ir" {
            let body = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```");
            out.push((number + 1, body.collect::<Vec<_>>().join("\n")));
        }
    }
    out
}

#[test]
fn ir_blocks_are_legal() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/ir.md");
    let text = fs::read_to_string(&path).expect("docs/ir.md");
    let blocks = blocks(&text);
    assert_eq!(blocks.len(), text.matches("```ir").count(), "every fence opens a block");
    assert!(blocks.len() >= 9, "the page lost its examples");
    for (line, block) in blocks {
        let module = read::module(&block).unwrap_or_else(|e| panic!("docs/ir.md, block at line {line}: {e}"));
        if let Err(errors) = verify::module(&module, Stage::Elaborated) {
            let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
            panic!("docs/ir.md, block at line {line}: {}", errors.join("\n"));
        }
        let printed = print::module(&module);
        let again = read::module(&printed).unwrap_or_else(|e| panic!("printed block at line {line}: {e}\n{printed}"));
        assert_eq!(print::module(&again), printed, "block at line {line}");
    }
}
