//! Every whole file of docs/language.md compiles, is laid out as `mngc fmt` does it, and excerpts at least parse.

use std::fs;

use mngc_compiler::CompileOptions;
use mngc_dsl::{Sources, format};

#[path = "common/compile.rs"]
mod compile;

use compile::{Files, draw, root};

/// The blocks of the page, each with the line of its fence and its mark.
fn blocks() -> Vec<(usize, String, String)> {
    let text = fs::read_to_string(root().join("docs/language.md")).expect("docs/language.md");
    let mut out = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if let Some(mark) = line.strip_prefix("```") {
            let body = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```");
            let body: String = body.flat_map(|line| [line, "\n"]).collect();
            out.push((number + 1, mark.to_string(), body));
        }
    }
    out
}

#[test]
fn blocks_are_laid_out() {
    for (line, _, text) in blocks() {
        let mut sources = Sources::default();
        let file = sources.add(format!("docs/language.md, block at line {line}"), text.as_str());
        let formatted = format(&sources, file).unwrap_or_else(|errors| panic!("{}", draw(&sources, &errors)));
        assert_eq!(formatted, text, "block at line {line}");
    }
}

#[test]
fn whole_files_compile() {
    let whole: Vec<_> = blocks().into_iter().filter(|(_, mark, _)| mark == "mng").collect();
    assert!(whole.len() >= 2, "the page lost its examples");
    for (line, _, text) in whole {
        let (mut sources, mut files) = (Sources::default(), Files::new(root().to_path_buf()));
        // As if it lay among the bundled models, which it may name.
        let path = root().join("models").join("block.mng");
        let main = files.add(path, &format!("docs/language.md, block at line {line}"), text, &mut sources);
        if let Err(errors) = files.compile(main, &mut sources, &CompileOptions::default()) {
            panic!("{}", draw(&sources, &errors));
        }
    }
}
