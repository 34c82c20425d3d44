//! `mngc run`: trains a model.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use clap::Args;
use mngc_compiler::ir::EntryKind;
use mngc_compiler::{CompileOptions, Program};
use mngc_dsl::Diagnostic;
use mngc_runtime::Backend;
use mngc_trainer::checkpoint::{self, Manifest};
use mngc_trainer::sample::Sampling;
use mngc_trainer::{Error, Options, Plan, Report, train};
use serde::Serialize;

use super::ModelArgs;
use crate::device::{self, Chosen, Device, Need, Oracle};
use crate::load::{self, Model};
use crate::output::{self, Mistakes};
use crate::progress::{self, Progress};
use crate::screen::Screen;
use crate::{fit, signals, text};

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

    /// Go on from a checkpoint, or from the last one of a run folder, with the same bits as without the stop
    #[arg(long, value_name = "DIR", conflicts_with_all = ["init", "seed"])]
    resume: Option<PathBuf>,

    /// The run folder; without it a new one, runs/MODEL-001, or the one that --resume goes on in
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

    /// Write a checkpoint every N steps, 0 for none [default: as often as the model file validates, or as before]
    #[arg(long, value_name = "N")]
    checkpoint_every: Option<u64>,

    /// Keep the last N checkpoints, and the one with the lowest validation loss
    /// [default: 2, or as before]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    keep: Option<u32>,

    /// Where the loss is no number, name the op that made it so, its line and layer; steps take longer
    #[arg(long)]
    find_nan: bool,

    /// Write a text of N tokens at the end [default: 120 for the demo, else 0]
    #[arg(long, value_name = "N")]
    sample: Option<usize>,

    /// Show no progress
    #[arg(long, short)]
    quiet: bool,

    /// Print the result as one JSON object
    #[arg(long)]
    pub json: bool,
}

const EXAMPLES: &str = "\
Examples:
  mngc run                                                   the demo: a small GPT-2 on bundled text
  mngc run gpt2-mini --set low=f32 --set steps=20 --set batch=576
  mngc run my.mng --data 'data/train_*.bin' --val 'data/val_*.bin' --out runs/first
  mngc run --resume runs/first                               go on where it stopped
  mngc run my.mng --init runs/first/final.safetensors --steps 0     only validate

The run folder gets log.jsonl (an object a line: start, step, val, checkpoint, end), checkpoint-STEP/ and final.safetensors.
Ctrl-C finishes the step and writes a checkpoint.";

/// What `mngc run` trains where there is no model file.
const DEMO: &str = "demo";

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Outcome {
    #[serde(flatten)]
    report: Report,
    #[serde(skip_serializing_if = "Option::is_none")]
    sample: Option<String>,
}

impl Run {
    /// Does it. `color`: messages are coloured.
    pub fn run(&self, color: bool) -> Result<ExitCode> {
        let device = device::choose(self.device, self.oracle)?;
        let kept = self.resume.as_deref().map(|path| checkpoint::manifest(&checkpoint::find(path)?)).transpose()?;
        let model = self.compile(kept.as_ref())?;
        let options = self.options(&model, kept, device.precision(&model.program.module));
        let tokens = self.sample_tokens(&model)?;
        let plan = Plan::new(&model.program, &options)?;
        let schedule = device.schedule(&model.program)?;
        let need = with_checkpoint(&model.program, device.need(&model.program, &schedule)?);
        self.check_memory(need, &plan, &model, &device)?;
        let seed = options.seed;
        let screen = (!self.quiet).then(|| Screen::new(&plan, &schedule, need, &device));
        let threads = self.threads.map(|n| n as usize);
        let mut backend = device.open(&model.program, schedule, seed, threads, !self.quiet)?;
        let screen = screen.map(|screen| screen.on(backend.as_ref()));
        let training = Arc::new(AtomicBool::new(true));
        signals::set_on_stop(options.stop.clone(), training.clone())?;
        let mut progress = Progress::new(screen);
        let report = train(plan, backend.as_mut(), &mut |event| progress.show(event));
        training.store(false, Ordering::Relaxed);
        let report = report.map_err(|error| located(error, &model))?;
        if !self.json {
            output::print(&summary(&report, color))?;
        }
        let tokens = if options.stop.load(Ordering::Relaxed) { 0 } else { tokens };
        let sample = self.sample(&model, backend.as_mut(), report.steps, tokens)?;
        if self.json {
            output::print_json(&Outcome { report, sample })?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The model that is asked for; to go on, the one of the checkpoint unless another is named.
    fn compile(&self, kept: Option<&Manifest>) -> Result<Model> {
        match kept {
            Some(kept) if !self.model.is_named() => {
                let mut options = self.model.options(&[]);
                options.sets.splice(0..0, kept.set.clone());
                options.micro_sequences = options.micro_sequences.or(Some(kept.micro_sequences));
                load::kept(&kept.name, &kept.source, &options)
            }
            Some(_) => self.model.compile(),
            None => self.model.compile_or_bundled(DEMO),
        }
    }

    fn options(&self, model: &Model, kept: Option<Manifest>, precision: &str) -> Options {
        let given: BTreeMap<String, String> = self.model.set.iter().cloned().collect();
        let mut set = kept.as_ref().filter(|_| !self.model.is_named()).map(|kept| kept.set.clone()).unwrap_or_default();
        set.extend(given);
        let keep = self.keep.map(|n| n as usize).or(kept.as_ref().map(|kept| kept.keep)).unwrap_or(2);
        let (data, val, seed) = kept.map_or((None, None, self.seed), |kept| (kept.data, kept.val, kept.seed));
        Options {
            name: model.name.clone(),
            sources: model.sources.clone(),
            set,
            data: self.data.clone().or(data),
            val: self.val.clone().or(val),
            init: self.init.clone(),
            out: self.out.clone(),
            steps: self.steps,
            seed,
            precision: precision.to_string(),
            dump_gradients: self.dump_gradients.clone(),
            resume: self.resume.clone(),
            checkpoint_every: self.checkpoint_every,
            keep,
            stop: Arc::default(),
            find_nan: self.find_nan,
        }
    }

    /// Fails where the machine has less memory than the run needs, with what would fit.
    fn check_memory(&self, need: Need, plan: &Plan, model: &Model, device: &Chosen) -> Result<()> {
        // The checkpoint that it goes on from is in memory already, and its settings cannot change.
        if plan.resume.is_some() {
            let host = need.host.saturating_sub(checkpoint::memory(&model.program.module));
            return Ok(device.check(Need { host, ..need })?);
        }
        device.check(need).map_err(|error| {
            let again = |options: &CompileOptions| {
                load::kept(&model.name, &model.sources, options).ok().map(|model| model.program)
            };
            fit::advise(error, device, &model.program, &self.model.options(&[]), &again, &with_checkpoint)
        })
    }

    /// Tokens of the text at the end. Fails where the model cannot write any.
    fn sample_tokens(&self, model: &Model) -> Result<usize> {
        let is_demo = model.sources.first().is_some_and(|source| source.name == format!("bundled:{DEMO}.mng"));
        let tokens = self.sample.unwrap_or(if is_demo { 120 } else { 0 });
        let writes = model.program.module.entries.contains_key(&EntryKind::Decode.into());
        if tokens > 0 && !writes { Err(Error::NoLogits.into()) } else { Ok(tokens) }
    }

    /// The text at the end, shown as it comes.
    fn sample(&self, model: &Model, backend: &mut dyn Backend, step: u64, tokens: usize) -> Result<Option<String>> {
        if tokens == 0 {
            return Ok(None);
        }
        let sampling = Sampling { temperature: 0.8, top_k: Some(50), ..Sampling::default() };
        let mut show = text::printer(self.json);
        show("\n")?;
        let text = text::write(backend, &model.program, step, "", tokens, &sampling, &mut show)?;
        show("\n")?;
        Ok(Some(text))
    }
}

/// What a run needs that writes checkpoints: it holds a whole one on the host.
fn with_checkpoint(program: &Program, need: Need) -> Need {
    Need { host: need.host + checkpoint::memory(&program.module), ..need }
}

/// An error with its place in the model file, where it has one.
fn located(error: Error, model: &Model) -> anyhow::Error {
    let Error::Origin(origin) = &error else { return error.into() };
    let Some(span) = origin.loc else { return error.into() };
    let what = if origin.value.is_nan() { "NaN comes from here" } else { "infinity comes from here" };
    let mut diagnostic = Diagnostic::error("not-finite", span, origin.to_string(), what);
    if let Some(before) = &origin.before {
        if let Some(span) = before.loc {
            diagnostic = diagnostic.label(span, "an infinity came up here before");
        }
        diagnostic = diagnostic.note(before.to_string());
    }
    Mistakes { sources: model.texts.clone(), diagnostics: vec![diagnostic] }.into()
}

fn summary(report: &Report, color: bool) -> String {
    let mut losses = Vec::new();
    losses.extend(report.train_loss.map(|loss| format!("train_loss {loss:.6}")));
    losses.extend(report.val_loss.map(|loss| match report.first_val_loss {
        Some(first) if first != loss => format!("val_loss {first:.6} → {}", bold(&format!("{loss:.6}"), color)),
        _ => format!("val_loss {loss:.6}"),
    }));
    let time = progress::duration(report.seconds * 1e3);
    let stopped = if report.stopped { "stopped after " } else { "" };
    let head = format!("{stopped}{} steps in {time}", report.steps);
    let mut out = format!("{head}  {}\n{}\n", losses.join("  "), report.folder.display());
    if report.stopped {
        let _ = writeln!(out, "go on with: mngc run --resume {}", train::shown(&report.folder));
    }
    out
}

fn bold(text: &str, color: bool) -> String {
    if color { format!("\x1b[1m{text}\x1b[0m") } else { text.to_string() }
}
