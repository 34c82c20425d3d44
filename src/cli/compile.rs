//! `mngc compile`: compiles a model and shows the plan.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use mngc_compiler::ir::print;
use mngc_trainer::files::write_atomically;

use super::ModelArgs;
use crate::load::Schedule;
use crate::manifest::Manifest;
use crate::output;

/// Options of the command.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Compile {
    #[command(flatten)]
    model: ModelArgs,

    /// Write manifest.json and graph.ir (the program's text form) into this folder
    #[arg(short, value_name = "DIR")]
    output: Option<PathBuf>,

    /// Show how long each part of compiling took
    #[arg(long)]
    timings: bool,

    /// Print the plan as one JSON object
    #[arg(long)]
    pub json: bool,
}

const EXAMPLES: &str = "\
Examples:
  mngc compile gpt2 --timings
  mngc compile my.mng --set layers=4 -o build/";

impl Compile {
    /// Does it.
    pub fn run(&self) -> Result<ExitCode> {
        let model = self.model.compile()?;
        let schedule = Schedule::of(&model.program)?;
        let manifest = Manifest::new(&model, &schedule, &self.model.set);
        if let Some(folder) = &self.output {
            write(folder, &manifest, &print::module(&model.program.module))?;
        }
        if self.json {
            output::print_json(&manifest)?;
        } else {
            output::print(&manifest.text(self.timings))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn write(folder: &Path, manifest: &Manifest, graph: &str) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let json = serde_json::to_string_pretty(manifest)? + "\n";
    write_atomically(&folder.join("manifest.json"), json.as_bytes())?;
    write_atomically(&folder.join("graph.ir"), graph.as_bytes())?;
    Ok(())
}
