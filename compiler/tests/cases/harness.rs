//! Files of cases: `//# name` starts a case, IR text follows, `//= ` lines say what is expected of it.
//!
//! `MNG_BLESS=1 cargo test -p mngc-compiler --test cases` writes the expected lines anew; read the difference before
//! keeping it.

use std::fmt::Write;
use std::path::PathBuf;

use mngc_compiler::ir::typing::Stage;
use mngc_compiler::ir::{Module, read, verify};

/// One case of a file.
struct Case<'a> {
    name: &'a str,
    input: Vec<&'a str>,
    expected: Vec<&'a str>,
}

/// Runs `answer` on the text of every case in `tests/files/<dir>` and compares its lines with those expected.
pub fn check(dir: &str, answer: impl Fn(&str) -> Vec<String>) {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/files").join(dir);
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a file").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ext| ext == "ir"));
    paths.sort();
    assert!(!paths.is_empty(), "no cases in {}", dir.display());

    let bless = std::env::var_os("MNG_BLESS").is_some_and(|value| value == "1");
    let mut faults = String::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("a text file");
        let (head, cases) = split(&text);
        assert!(!cases.is_empty(), "no cases in {}", path.display());
        let mut blessed = head.join("\n");
        for case in &cases {
            let input = case.input.join("\n");
            let found: Vec<String> =
                answer(&input).iter().flat_map(|text| text.lines()).map(|line| line.trim_end().to_owned()).collect();
            if found != case.expected {
                let place = format!("{}, case {}", path.display(), case.name);
                let _ = writeln!(
                    faults,
                    "{place}\n  expected:\n{}\n  found:\n{}",
                    case.expected.join("\n"),
                    found.join("\n")
                );
            }
            let _ = write!(blessed, "\n//# {}\n{}\n", case.name, input.trim());
            for line in found {
                let _ = writeln!(blessed, "{}", format!("//= {line}").trim_end());
            }
        }
        if bless {
            std::fs::write(&path, blessed).expect("a file that may be written");
        }
    }
    assert!(bless || faults.is_empty(), "{faults}\nMNG_BLESS=1 writes what was found");
}

fn split(text: &str) -> (Vec<&str>, Vec<Case<'_>>) {
    let mut head = Vec::new();
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("//# ") {
            cases.push(Case { name, input: Vec::new(), expected: Vec::new() });
        } else if let Some(case) = cases.last_mut() {
            match line.strip_prefix("//=") {
                Some(rest) => case.expected.push(rest.strip_prefix(' ').unwrap_or(rest)),
                None => case.input.push(line),
            }
        } else {
            head.push(line);
        }
    }
    while head.last().is_some_and(|line| line.is_empty()) {
        head.pop();
    }
    head.push("");
    (head, cases)
}

/// A module that must be legal.
pub fn module(text: &str) -> Module {
    let m = read::module(text).unwrap_or_else(|e| panic!("{e} in\n{text}"));
    if let Err(errors) = verify::module(&m, Stage::Elaborated) {
        panic!("{} in\n{text}", errors[0]);
    }
    m
}
