//! Every whole file of docs/language.md compiles, is laid out as `mngc fmt` does it, and excerpts at least parse.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use mngc_compiler::{CompileOptions, compile};
use mngc_dsl::{Diagnostic, FileId, Sources, format};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

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

fn draw(sources: &Sources, diagnostics: &[Diagnostic]) -> String {
    diagnostics.iter().map(|diagnostic| diagnostic.render(sources, false)).collect()
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
        let mut sources = Sources::default();
        let main = sources.add(format!("docs/language.md, block at line {line}"), text);
        let mut ids: HashMap<PathBuf, FileId> = HashMap::new();
        let mut load = |name: &str, _: FileId, sources: &mut Sources| {
            let path = root().join("models").join(name);
            let text = fs::read_to_string(&path).map_err(|error| error.to_string())?;
            Ok(*ids.entry(path).or_insert_with(|| sources.add(name, text)))
        };
        if let Err(errors) = compile(&mut sources, main, &mut load, &CompileOptions::default()) {
            panic!("{}", draw(&sources, &errors));
        }
    }
}
