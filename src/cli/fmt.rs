//! `mngc fmt`: formats model files.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use mngc_dsl::{Sources, format};

use crate::output::{self, Mistakes};

/// Options of the command.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Fmt {
    /// Files to format in place; `-` formats standard input to standard output
    #[arg(value_name = "FILES", required = true)]
    files: Vec<PathBuf>,

    /// Change nothing: list the files that are not formatted, and exit with 1 if there are any
    #[arg(long)]
    check: bool,
}

const EXAMPLES: &str = "\
Examples:
  mngc fmt models/*.mng
  mngc fmt --check models/*.mng
  mngc fmt - < model.mng";

impl Fmt {
    /// Does it, and goes on where a file has mistakes.
    pub fn run(&self, color: bool) -> Result<ExitCode> {
        let mut code = ExitCode::SUCCESS;
        for file in &self.files {
            match self.file(file) {
                Ok(true) => {}
                Ok(false) => code = ExitCode::FAILURE,
                Err(error) if self.files.len() == 1 => return Err(error),
                Err(error) => code = output::fail(&error, color, false),
            }
        }
        Ok(code)
    }

    /// Formats one file and says whether it is as it should be now.
    fn file(&self, path: &Path) -> Result<bool> {
        let stdin = path == Path::new("-");
        let text = if stdin { read_stdin() } else { fs::read_to_string(path) };
        let text = text.with_context(|| format!("cannot read {}", path.display()))?;
        let mut sources = Sources::default();
        let name = if stdin { "<stdin>".to_string() } else { path.display().to_string() };
        let file = sources.add(&name, &text);
        let formatted = match format(&sources, file) {
            Ok(formatted) => formatted,
            Err(diagnostics) => return Err(Mistakes { sources, diagnostics }.into()),
        };
        if self.check {
            if formatted != text {
                output::print(&format!("{name}\n"))?;
            }
            return Ok(formatted == text);
        }
        if stdin {
            output::print(&formatted)?;
        } else if formatted != text {
            // In place, so that links, owner and permissions of the user's own file stay.
            fs::write(path, formatted).with_context(|| format!("cannot write {name}"))?;
        }
        Ok(true)
    }
}

fn read_stdin() -> io::Result<String> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text)?;
    Ok(text)
}
