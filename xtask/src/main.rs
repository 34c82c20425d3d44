//! Tasks of the workspace: `cargo xtask test` is what must pass before a change lands, `cargo xtask tidy` its quick part.

#![allow(clippy::print_stdout, clippy::print_stderr)] // Its output is what a task is run for.

mod test;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "\
Usage: cargo xtask TASK

Tasks:
  tidy   format, headers, sizes of files, manifests
  test   tidy, clippy, all tests, documentation; warnings are errors
  fuzz   the tests again and again, each time with other random cases, until one fails";

fn main() -> ExitCode {
    let tasks: Vec<String> = std::env::args().skip(1).collect();
    let result = match tasks.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["tidy"] => tidy::run(&root()),
        ["test"] => test::run(&root()),
        ["fuzz"] => test::fuzz(&root()),
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The folder of the workspace: this package lies directly in it.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
