//! `gpu-check`: kernels on a GPU, compared with the oracle and with what the soft GPU made of them.
//!
//! On an ordinary machine `prepare` draws the cases, compiles their kernels and runs them on the soft GPU; on a machine with
//! a GPU `run` runs the same cases. scripts/gpu-check calls both. Images go to, and come from, the folder that
//! `MNGC_IMAGES` names.
//!
//! The files: `cases` is what is run; `defined` says of which kernels PTX defines every bit; `store` keeps results;
//! `images` compiles; `run` is the comparison.

mod cases;
mod defined;
mod images;
mod run;
mod store;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use mngc_runtime::cuda::Kind;

const USAGE: &str = "\
Usage: gpu-check prepare DIR [OPTIONS]   compile the kernels of all cases, and keep the soft GPU's results in DIR
       gpu-check run DIR [OPTIONS]       run the cases of DIR, one JSON object a case on standard output
       gpu-check images MODEL [--set NAME=VALUE]...   compile the kernels of a model file
       gpu-check list                    print the names of all cases

Options:
  --device cuda|soft   what runs them [run: cuda; prepare always takes soft]
  --from N             begin with case N [0]
  --every N            take every Nth case [1]
  --seconds N          begin no case after so many seconds
  --set NAME=VALUE     a constant or a setting of the model

MNGC_IMAGES names the folder of images: prepare and images write there.
Exit codes: 0 all is right; 1 something is wrong; 2 the command line is; 3 the GPU cannot go on after the last case.";

/// What stands on the command line.
struct Args {
    command: String,
    /// The folder or the model file.
    path: PathBuf,
    kind: Kind,
    which: Which,
    set: Vec<(String, String)>,
}

/// Which of the cases.
struct Which {
    from: usize,
    every: usize,
    time: Option<Duration>,
}

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)) {
        Ok(Some(args)) => match command(&args) {
            Ok(code) => code,
            Err(error) => {
                complain(&format!("{error:#}"));
                ExitCode::FAILURE
            }
        },
        Ok(None) => {
            let _ = writeln!(std::io::stdout(), "{USAGE}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&format!("{error:#}; --help lists all"));
            ExitCode::from(2)
        }
    }
}

fn command(args: &Args) -> Result<ExitCode> {
    match args.command.as_str() {
        "prepare" => run::prepare(&args.path, &args.which),
        "run" => run::run(&args.path, args.kind, &args.which),
        "images" => images::of_model(&args.path, &args.set),
        _ => {
            for case in cases::all() {
                writeln!(std::io::stdout(), "{}", case.name)?;
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// None: help was asked for.
fn parse(mut words: impl Iterator<Item = String>) -> Result<Option<Args>> {
    let command = words.next().context("a command is missing")?;
    if ["-h", "--help", "help"].contains(&command.as_str()) {
        return Ok(None);
    }
    if !["prepare", "run", "images", "list"].contains(&command.as_str()) {
        bail!("there is no command `{command}`");
    }
    let which = Which { from: 0, every: 1, time: None };
    let mut args = Args { command, path: PathBuf::new(), kind: Kind::Nvidia, which, set: Vec::new() };
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} needs a value"));
        let number = |text: String| text.parse::<usize>().with_context(|| format!("`{text}` is no whole number"));
        match word.as_str() {
            "--device" => {
                args.kind = match value()?.as_str() {
                    "cuda" => Kind::Nvidia,
                    "soft" => Kind::Soft,
                    other => bail!("--device is cuda or soft, not `{other}`"),
                }
            }
            "--from" => args.which.from = number(value()?)?,
            "--every" => args.which.every = number(value()?)?.max(1),
            "--seconds" => args.which.time = Some(Duration::from_secs(number(value()?)? as u64)),
            "--set" => {
                let setting = value()?;
                let (name, value) = setting.split_once('=').context("write --set NAME=VALUE")?;
                args.set.push((name.into(), value.into()));
            }
            _ if word.starts_with('-') => bail!("there is no option `{word}`"),
            _ if args.path.as_os_str().is_empty() => args.path = word.into(),
            _ => bail!("`{word}` is too much"),
        }
    }
    if args.path.as_os_str().is_empty() && args.command != "list" {
        bail!("{} of what?", args.command);
    }
    Ok(Some(args))
}

fn complain(what: &str) {
    let _ = writeln!(std::io::stderr(), "gpu-check: {what}");
}
