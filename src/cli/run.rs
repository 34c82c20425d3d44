//! `mngc run`: trains a model.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use mngc_trainer::{Options, Plan, Report, check_memory, memory, train};

use super::ModelArgs;
use crate::device::{self, Device, Oracle};
use crate::output;
use crate::progress::{self, Progress};

/// Options of the command.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Run {
    #[command(flatten)]
    model: ModelArgs,

    /// What runs the program
    #[arg(long, value_enum, default_value_t = Device::Auto)]
    device: Device,

    /// Threads of the cpu device [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,

    /// Compute without rounding (with the reference device)
    #[arg(long, value_enum, value_name = "PRECISION")]
    oracle: Option<Oracle>,

    /// Training shards instead of the file's
    #[arg(long, value_name = "GLOB")]
    data: Option<String>,

    /// Validation shards instead of the file's
    #[arg(long, value_name = "GLOB")]
    val: Option<String>,

    /// Start from the parameters in this safetensors file
    #[arg(long, value_name = "FILE")]
    init: Option<PathBuf>,

    /// The run folder; without it a new one: runs/MODEL-001
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Stop after N steps of the unchanged schedule (--set steps=N changes the schedule)
    #[arg(long, value_name = "N")]
    steps: Option<u64>,

    /// Seed of all random numbers
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// Write the gradients of this step (from 0) to gradients-STEP.safetensors; may be repeated
    #[arg(long, value_name = "STEP")]
    dump_gradients: Vec<u64>,

    /// Show no progress
    #[arg(long, short)]
    quiet: bool,

    /// Print the result as one JSON object
    #[arg(long)]
    pub json: bool,
}

const EXAMPLES: &str = "\
Examples:
  mngc run gpt2-mini
  mngc run gpt2-mini --set low=f32 --set steps=20 --set batch=512
  mngc run my.mng --data 'data/train_*.bin' --val 'data/val_*.bin' --out runs/first
  mngc run my.mng --init runs/first/final.safetensors --steps 0     only validate

The run folder gets log.jsonl (an object a line: start, step, val, end) and final.safetensors.";

impl Run {
    /// Does it.
    pub fn run(&self) -> Result<ExitCode> {
        let device = device::choose(self.device, self.oracle)?;
        let model = self.model.compile()?;
        let options = Options {
            name: model.name,
            sources: model.sources,
            set: self.model.set.iter().cloned().collect(),
            data: self.data.clone(),
            val: self.val.clone(),
            init: self.init.clone(),
            out: self.out.clone(),
            steps: self.steps,
            seed: self.seed,
            precision: device.precision().to_string(),
            dump_gradients: self.dump_gradients.clone(),
        };
        let plan = Plan::new(&model.program, &options)?;
        check_memory(memory::least(&model.program.module))?;
        let mut backend = device.open(&model.program, self.seed, self.threads.map(|n| n as usize))?;
        let mut progress = Progress::new(self.quiet);
        let report = train(plan, backend.as_mut(), &mut |event| progress.show(event))?;
        if self.json {
            output::print_json(&report)?;
        } else {
            output::print(&text(&report))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn text(report: &Report) -> String {
    let mut losses = Vec::new();
    losses.extend(report.train_loss.map(|loss| format!("train_loss {loss:.6}")));
    losses.extend(report.val_loss.map(|loss| format!("val_loss {loss:.6}")));
    let time = progress::duration(report.seconds * 1e3);
    format!("{} steps in {time}  {}\n{}\n", report.steps, losses.join("  "), report.folder.display())
}
