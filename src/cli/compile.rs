//! `mngc compile`: compiles a model and shows the plan.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use mngc_compiler::ir::print;
use mngc_kernels_gen::image::Target;
use mngc_trainer::files::write_atomically;

use super::ModelArgs;
use crate::kernels::Kernels;
use crate::load::Schedule;
use crate::manifest::Manifest;
use crate::output;

/// Options of the command.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Compile {
    #[command(flatten)]
    model: ModelArgs,

    /// Compile the kernels for this architecture as well, such as sm_80 or sm_90a: NVRTC is needed, a GPU is not
    #[arg(long, value_name = "ARCH")]
    arch: Option<Target>,

    /// Write manifest.json and graph.ir (the program's text form) into this folder, and with --arch each kernel's text,
    /// PTX and machine code into kernels/
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
  mngc compile my.mng --set layers=4 -o build/
  mngc compile gpt2 --arch sm_90a -o build/      its kernels for a GPU, without one

Times are a roofline: the longer of what a card's memory needs for the bytes of a launch and of what its arithmetic needs
for the operations, each byte moved once. What a launch costs is shared by its calls that multiply matrices.";

impl Compile {
    /// Does it.
    pub fn run(&self) -> Result<ExitCode> {
        let model = self.model.compile()?;
        let (schedule, kernels) = match self.arch {
            None => (Schedule::of(&model.program)?, None),
            Some(target) => {
                let schedule = Schedule::grouped(&model.program)?;
                let (recipe, keeps) = (&model.program.recipe, self.output.is_some());
                let kernels = Kernels::compile(&schedule, recipe, target, !self.json, keeps)?;
                (schedule, Some(kernels))
            }
        };
        for name in kernels.iter().flat_map(Kernels::spilling) {
            output::note(&format!("warning: registers of {name} run out: it spills to memory\n"));
        }
        if let (Some(folder), Some(kernels)) = (&self.output, &kernels) {
            kernels.write(folder)?;
        }
        let manifest = Manifest::new(&model, &schedule, &self.model.set, kernels);
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
