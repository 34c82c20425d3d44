//! One test a wrong model file: tests/files/wrong/NAME.mng has one mistake, and NAME.diag is what the user reads.
//!
//! `MNG_BLESS=1 cargo test --test wrong` writes the expected messages anew; read the difference before keeping it.

use std::path::{Path, PathBuf};
use std::{env, fs};

use libtest_mimic::{Arguments, Failed, Trial};
use mngc_compiler::CompileOptions;
use mngc_dsl::Sources;

#[path = "common/compile.rs"]
mod compile;

use compile::{Files, draw};

fn main() {
    let arguments = Arguments::from_args();
    let mut trials = vec![Trial::test("base is right", || base().map_err(Failed::from))];
    for file in wrong_files() {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        trials.push(Trial::test(name, move || wrong(&file)));
    }
    libtest_mimic::run(&arguments, trials).exit();
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files")
}

fn wrong_files() -> Vec<PathBuf> {
    let folder = folder().join("wrong");
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "mng"));
    files.sort();
    files
}

/// The messages that a file gives, drawn without colour; none when it compiles.
fn messages(path: &Path) -> Result<Option<String>, String> {
    let (mut sources, mut files) = (Sources::default(), Files::new(folder()));
    let main = files.open(path, &mut sources)?;
    let compiled = files.compile(main, &mut sources, &CompileOptions::default());
    Ok(compiled.err().map(|diagnostics| draw(&sources, &diagnostics)))
}

fn base() -> Result<(), String> {
    match messages(&folder().join("base.mng"))? {
        None => Ok(()),
        Some(messages) => Err(messages),
    }
}

fn wrong(path: &Path) -> Result<(), Failed> {
    let Some(actual) = messages(path)? else { return Err("the file is accepted".into()) };
    let expected_path = path.with_extension("diag");
    if env::var_os("MNG_BLESS").is_some_and(|value| value == "1") {
        return Ok(fs::write(expected_path, actual)?);
    }
    let expected = fs::read_to_string(&expected_path)
        .map_err(|error| format!("{}: {error}; MNG_BLESS=1 writes it", expected_path.display()))?;
    if expected == actual {
        return Ok(());
    }
    Err(format!("{} differs\n---- expected\n{expected}---- actual\n{actual}", expected_path.display()).into())
}
