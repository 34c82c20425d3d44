//! `mngc bench`: how fast a training step is, and where its time goes.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use clap::{Args, Subcommand};
use mngc_compiler::Program;
use mngc_compiler::ir::EntryKind;
use mngc_runtime::cuda::Kind;
use mngc_runtime::{Backend, Tensor};
use serde::Serialize;

use super::ModelArgs;
use crate::device::{self, Chosen, Device};
use crate::load::Model;
use crate::manifest::memory;
use crate::output::{self, Usage};
use crate::progress::duration;

/// Options of the command.
#[derive(Args, Debug)]
pub struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Time training steps on random tokens
    Step(Step),
    /// Time each kernel of a training step
    Ops(Ops),
}

#[derive(Args, Debug)]
struct Common {
    #[command(flatten)]
    model: ModelArgs,

    /// What runs the program
    #[arg(long, value_enum, default_value_t = Device::Auto)]
    device: Device,

    /// Threads of the cpu device [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,

    /// Steps that are timed, after one that is not
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,

    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

/// Without MODEL: gpt2 at one sequence of 1024 tokens, in f32.
const DEFAULT: (&str, [(&str, &str); 3]) = ("gpt2", [("sequence", "1024"), ("batch", "1024"), ("low", "f32")]);
/// Without MODEL on a GPU: gpt2 as it is.
const DEFAULT_GPU: &str = "gpt2";

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  mngc bench step                                  gpt2, one sequence of 1024 tokens, f32
  mngc bench step gpt2-mini --device reference
  mngc bench step my.mng --set layers=4 --steps 10 --json

On a GPU, MODEL is gpt2 as it is by default, and each entry is one launch of a captured graph.
tokens_per_second is that of the median step. peak_memory_bytes is the most that the process held.")]
struct Step {
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  mngc bench ops
  mngc bench ops gpt2-classic --set sequence=1024 --set batch=1024 --set low=f32

`of peak` compares a kernel's floating-point operations a second with those of the machine's matrix products. On a GPU
launches are queued one by one, so that they are timed apart, and `of peak` is a share of the roofline that the data sheet of
the family gives.")]
struct Ops {
    #[command(flatten)]
    common: Common,
}

/// What `bench step` measured.
#[derive(Debug, Serialize)]
struct StepReport {
    model: String,
    device: &'static str,
    threads: usize,
    /// Tokens of a step.
    tokens: usize,
    tokens_per_second: f64,
    /// Median of the steps.
    ms: f64,
    /// Each step.
    steps: Vec<f64>,
    peak_memory_bytes: u64,
    /// What the backend holds of a GPU's memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    gpu_memory_bytes: Option<u64>,
    /// The GPU's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    gpu: Option<String>,
    /// Loss of the last step, to see that it trained.
    loss: f64,
}

impl Bench {
    /// Whether standard output must hold one JSON object and nothing else.
    pub fn json(&self) -> bool {
        match &self.what {
            What::Step(step) => step.common.json,
            What::Ops(ops) => ops.common.json,
        }
    }

    /// Does it.
    pub fn run(&self) -> Result<ExitCode> {
        match &self.what {
            What::Step(step) => step.run(),
            What::Ops(ops) => ops.run(),
        }
    }
}

impl Common {
    fn compile(&self, device: &Chosen) -> Result<Model> {
        match device {
            Chosen::Gpu(Kind::Nvidia, _) => self.model.compile_or(DEFAULT_GPU, &[]),
            _ => self.model.compile_or(DEFAULT.0, &DEFAULT.1),
        }
    }

    fn open(&self, model: &Model, device: &Chosen) -> Result<Box<dyn Backend>> {
        let schedule = device.schedule(&model.program)?;
        device.check(device.need(&model.program, &schedule)?)?;
        device.open(&model.program, schedule, 0, self.threads.map(|n| n as usize), !self.json)
    }
}

/// Steps of a program on random tokens.
struct Runner<'a> {
    program: &'a Program,
    backend: Box<dyn Backend>,
    step: u64,
    random: u64,
}

impl<'a> Runner<'a> {
    fn new(program: &'a Program, backend: Box<dyn Backend>) -> Result<Runner<'a>> {
        let mut runner = Runner { program, backend, step: 0, random: 1 };
        runner.backend.run(EntryKind::Init.into(), &BTreeMap::new(), 0)?;
        Ok(runner)
    }

    /// One step; gives its milliseconds and its loss.
    fn step(&mut self) -> Result<(f64, f64)> {
        let recipe = &self.program.recipe;
        let mut loss = 0.0;
        let mut ms = 0.0;
        for _ in 0..recipe.micro_steps() {
            let inputs =
                BTreeMap::from([("tokens".to_string(), self.tokens()?), ("targets".to_string(), self.tokens()?)]);
            let start = Instant::now();
            let outputs = self.backend.run(EntryKind::MicroStep.into(), &inputs, self.step)?;
            ms += start.elapsed().as_secs_f64() * 1e3;
            loss += outputs.get("loss").and_then(Tensor::item).context("the program gives no loss")?;
        }
        let start = Instant::now();
        self.backend.run(EntryKind::Update.into(), &BTreeMap::new(), self.step)?;
        ms += start.elapsed().as_secs_f64() * 1e3;
        self.step += 1;
        Ok((ms, loss))
    }

    fn tokens(&mut self) -> Result<Tensor> {
        let recipe = &self.program.recipe;
        let vocab = recipe.vocab.unwrap_or(256) as u64;
        let sizes = vec![recipe.micro_sequences, recipe.sequence];
        let tokens = (0..recipe.micro_sequences * recipe.sequence).map(|_| {
            // Knuth's MMIX generator: what is drawn only has to differ.
            self.random = self.random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((self.random >> 33) % vocab) as i32
        });
        Ok(Tensor::ints(sizes, tokens.collect())?)
    }
}

impl Step {
    fn run(&self) -> Result<ExitCode> {
        let Common { steps, json, .. } = self.common;
        let chosen = device::choose(self.common.device, None)?;
        let model = self.common.compile(&chosen)?;
        let backend = self.common.open(&model, &chosen)?;
        let (device, threads) = (backend.name(), backend.threads());
        let gpu = chosen.gpu().map(|device| device.name.clone());
        let mut runner = Runner::new(&model.program, backend)?;
        runner.step()?;
        let mut times = Vec::new();
        let mut loss = 0.0;
        for _ in 0..steps {
            let (ms, found) = runner.step()?;
            times.push(ms);
            loss = found;
        }
        let tokens = model.program.recipe.batch;
        let ms = median(&times);
        let report = StepReport {
            model: model.program.recipe.model.clone(),
            device,
            threads,
            tokens,
            tokens_per_second: tokens as f64 / ms * 1e3,
            ms,
            steps: times,
            peak_memory_bytes: peak_memory().unwrap_or(runner.backend.memory() as u64),
            gpu_memory_bytes: gpu.as_ref().map(|_| runner.backend.memory() as u64),
            gpu,
            loss,
        };
        if json {
            output::print_json(&report)?;
        } else {
            output::print(&format!(
                "{} on {}: {:.1} tokens/s, {} a step of {tokens} tokens (median of {steps}), {} of memory\n",
                report.model,
                place(device, threads, report.gpu.as_deref()),
                report.tokens_per_second,
                duration(ms),
                memory(report.gpu_memory_bytes.unwrap_or(report.peak_memory_bytes) as usize),
            ))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Time of the kernels of one kind and name in one entry.
#[derive(Debug, Serialize)]
struct OpReport {
    entry: &'static str,
    name: String,
    kernel: &'static str,
    /// Launches in a step.
    launches: usize,
    /// Milliseconds in a step.
    ms: f64,
    /// Share of the step's time.
    share: f64,
    gflops_per_second: f64,
    gigabytes_per_second: f64,
    /// Share of the peak of matrix products; on a GPU the larger of this and the share of its memory's bandwidth.
    of_peak: f64,
}

#[derive(Debug, Serialize)]
struct OpsReport {
    model: String,
    device: &'static str,
    threads: usize,
    /// What the device's matrix products reach at most: measured, or of a GPU's data sheet.
    peak_gflops_per_second: f64,
    /// The GPU's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    gpu: Option<String>,
    ms: f64,
    kernels: Vec<OpReport>,
}

impl Ops {
    fn run(&self) -> Result<ExitCode> {
        let chosen = device::choose(self.common.device, None)?;
        let model = self.common.compile(&chosen)?;
        let mut backend = self.common.open(&model, &chosen)?;
        if !backend.profile(true) {
            return Err(Usage(format!("device {} does not time its kernels", backend.name())).into());
        }
        let (device, threads) = (backend.name(), backend.threads());
        let sheet = chosen.gpu().map(|gpu| match chosen.precision(&model.program.module) {
            "f32" => (gpu.f32_flops, gpu.bandwidth),
            _ => (gpu.tensor_flops, gpu.bandwidth),
        });
        let measured = || backend.peak_flops().map(|peak| (peak, f64::INFINITY));
        let peaks = sheet.or_else(measured).ok_or_else(|| anyhow!("device {device} does not know its peak"))?;
        let (peak, bandwidth) = peaks;
        let mut runner = Runner::new(&model.program, backend)?;
        runner.step()?;
        runner.backend.profile(true);
        for _ in 0..self.common.steps {
            runner.step()?;
        }
        let steps = self.common.steps as f64;
        let mut groups: BTreeMap<(EntryKind, String, &'static str), (usize, f64, f64, f64)> = BTreeMap::new();
        for time in runner.backend.times() {
            let group = groups.entry((time.entry.kind, time.name.clone(), time.kernel)).or_default();
            group.0 += time.runs;
            group.1 += time.seconds;
            group.2 += time.cost.flops * time.runs as f64;
            group.3 += time.cost.bytes * time.runs as f64;
        }
        let all: f64 = groups.values().map(|group| group.1).sum();
        let mut kernels: Vec<OpReport> = groups
            .into_iter()
            .filter(|(_, group)| group.0 > 0)
            .map(|((entry, name, kernel), (launches, seconds, flops, bytes))| OpReport {
                entry: entry.name(),
                name,
                kernel,
                launches: (launches as f64 / steps).round() as usize,
                ms: seconds / steps * 1e3,
                share: seconds / all,
                gflops_per_second: flops / seconds / 1e9,
                gigabytes_per_second: bytes / seconds / 1e9,
                of_peak: (flops / peak).max(bytes / bandwidth) / seconds,
            })
            .collect();
        kernels.sort_by(|a, b| b.ms.total_cmp(&a.ms));
        let report = OpsReport {
            model: model.program.recipe.model.clone(),
            device,
            threads,
            peak_gflops_per_second: peak / 1e9,
            gpu: chosen.gpu().map(|device| device.name.clone()),
            ms: all / steps * 1e3,
            kernels,
        };
        if self.common.json {
            output::print_json(&report)?;
        } else {
            output::print(&report.text())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl OpsReport {
    fn text(&self) -> String {
        let OpsReport { model, device, threads, peak_gflops_per_second: peak, ms, gpu, .. } = self;
        let place = place(device, *threads, gpu.as_deref());
        let mut out = format!(
            "{model} on {place}: {} a step; matrix products reach {peak:.0} GFLOP/s\n\n\
             {:<11} {:<44} {:>8} {:>10} {:>6} {:>8} {:>7} {:>8}\n",
            duration(*ms),
            "entry",
            "kernel",
            "launches",
            "time",
            "share",
            "GFLOP/s",
            "GB/s",
            "of peak"
        );
        for k in &self.kernels {
            let mut name = k.name.clone();
            if !name.starts_with(k.kernel) {
                name = format!("{name} ({})", k.kernel);
            }
            out += &format!(
                "{:<11} {name:<44} {:>8} {:>10} {:>5.1}% {:>8.1} {:>7.1} {:>7.1}%\n",
                k.entry,
                k.launches,
                duration(k.ms),
                k.share * 100.0,
                k.gflops_per_second,
                k.gigabytes_per_second,
                k.of_peak * 100.0,
            );
        }
        out
    }
}

/// What ran, for people.
fn place(device: &str, threads: usize, gpu: Option<&str>) -> String {
    match gpu {
        Some(name) => format!("{device} ({name})"),
        None => format!("{device} with {threads} threads"),
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// The most memory that this process ever held, where the system tells.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
