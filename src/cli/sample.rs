//! `mngc sample`: text from a trained model.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;
use mngc_compiler::CompileOptions;
use mngc_trainer::sample::Sampling;
use mngc_trainer::{train, trained};
use serde::Serialize;

use crate::device::{self, Device};
use crate::load::{self, Model};
use crate::output::{self, Usage};
use crate::text;

/// Options of the command.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Sample {
    /// Run folder, checkpoint folder, or safetensors file
    #[arg(value_name = "CHECKPOINT")]
    checkpoint: PathBuf,

    /// Text to go on with; without it a new document begins
    #[arg(value_name = "PROMPT", default_value = "")]
    prompt: String,

    /// Model file or bundled model of a safetensors file that no log.jsonl is beside
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,

    /// Most tokens to write
    #[arg(long, short = 'n', value_name = "N", default_value_t = 200)]
    tokens: usize,

    /// Divides the logits: below 1 likelier tokens gain, 0 always takes the likeliest
    #[arg(long, short, value_name = "X", default_value_t = 0.8, value_parser = temperature)]
    temperature: f64,

    /// Draw among the K likeliest tokens only
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    top_k: Option<u32>,

    /// Draw among the likeliest tokens that together have this probability
    #[arg(long, value_name = "P", default_value_t = 1.0, value_parser = probability)]
    top_p: f64,

    /// Of the random numbers: the same seed writes the same text
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// What runs the program
    #[arg(long, value_enum, default_value_t = Device::Auto)]
    device: Device,

    /// Threads of the cpu device [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,

    /// Print prompt and text as one JSON object
    #[arg(long)]
    pub json: bool,
}

const EXAMPLES: &str = "\
Examples:
  mngc sample runs/demo-001
  mngc sample runs/demo-001 'O Romeo' --temperature 0.9 --top-k 50 --seed 3
  mngc sample runs/demo-001/checkpoint-100 --temperature 0
  mngc sample weights.safetensors --model gpt2-classic

Any model works whose `model` returns logits. Each token is drawn after a whole forward pass over the tokens before it.";

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    prompt: String,
    text: String,
}

impl Sample {
    /// Does it.
    pub fn run(&self) -> Result<ExitCode> {
        let device = device::choose(self.device, None)?;
        let trained = trained::open(&self.checkpoint)?;
        let model = self.compile(&trained)?;
        let values = trained.values(&model.program.module)?;
        let schedule = device.schedule(&model.program)?;
        device.check(device.need(&model.program, &schedule)?)?;
        let threads = self.threads.map(|n| n as usize);
        let mut backend = device.open(&model.program, schedule, 0, threads, !self.json)?;
        train::initialize(backend.as_mut(), &model.program.module, values)?;
        let sampling = Sampling {
            temperature: self.temperature,
            top_k: self.top_k.map(|k| k as usize),
            top_p: self.top_p,
            seed: self.seed,
        };
        let mut show = text::printer(self.json);
        show(&self.prompt)?;
        let (prompt, tokens) = (&self.prompt, self.tokens);
        let step = trained.step.unwrap_or(model.program.recipe.steps);
        let text = text::write(backend.as_mut(), &model.program, step, prompt, tokens, &sampling, &mut show)?;
        show("\n")?;
        if self.json {
            output::print_json(&Report { prompt: prompt.clone(), text })?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn compile(&self, trained: &trained::Trained) -> Result<Model> {
        match (&self.model, &trained.model) {
            (Some(model), _) => load::model(Some(model), None, &CompileOptions::default()),
            (None, Some(kept)) => {
                let sets = kept.set.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
                let micro_sequences = kept.micro_sequences;
                load::kept(
                    "model",
                    &kept.source,
                    &CompileOptions { sets, micro_sequences, ..CompileOptions::default() },
                )
                .with_context(|| format!("the model of {}", trained.path.display()))
            }
            (None, None) => {
                let message = "no log.jsonl is beside the file to say which model it is of: give --model";
                Err(Usage(message.into()).into())
            }
        }
    }
}

fn temperature(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|x: &f64| x.is_finite() && *x >= 0.0);
    number.ok_or_else(|| "a number from 0 on is needed, such as 0.8".into())
}

fn probability(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|x: &f64| (0.0..=1.0).contains(x));
    number.ok_or_else(|| "a number from 0 to 1 is needed, such as 0.95".into())
}
