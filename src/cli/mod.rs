//! The commands and the options that they share.

mod bench;
mod compile;
mod data;
mod doctor;
mod explain;
mod fmt;
mod graph;
mod run;
mod sample;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, ColorChoice, Parser, Subcommand};
use mngc_compiler::CompileOptions;

use crate::load::{self, Model};

/// A compiler for training small language models: one .mng file says model, optimizer, schedules, data and evaluation.
#[derive(Debug, Parser)]
#[command(name = "mngc", version, propagate_version = true, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,

    /// When to colour messages (NO_COLOR=1 turns colours off as well)
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", help_heading = "Global options")]
    pub color: ColorChoice,
}

const EXAMPLES: &str = "\
Examples:
  mngc run                                 train a small GPT-2 on bundled text, then sample from it
  mngc run gpt2-mini                       train a bundled model
  mngc run my.mng --set layers=4 --steps 10
  mngc sample runs/demo-001 'To be'        text from a trained model
  mngc compile gpt2 --timings              what the compiler makes of it
  mngc compile gpt2 --arch sm_90a          its kernels for a GPU, without one
  mngc explain gpt2 attention              what kernels compute and cost, and why they are apart
  mngc bench step                          how fast gpt2 trains here
  mngc graph gpt2-mini -o gpt2.svg         a picture of the training step
  mngc data encode books/*.txt -o data/books    text to token shards
  mngc doctor                              what this machine has
  mngc fmt *.mng                           format model files";

/// One subcommand each.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train a model
    Run(run::Run),
    /// Write text with a trained model
    Sample(sample::Sample),
    /// Compile a model and show the plan
    Compile(compile::Compile),
    /// Say what each kernel computes, what it costs, and why it is one of its own
    Explain(explain::Explain),
    /// Measure how fast a model trains here
    Bench(bench::Bench),
    /// Draw a program's graph as DOT or SVG
    Graph(graph::Graph),
    /// Encode text to token shards, and look into shards
    Data(data::Data),
    /// Show what this machine has for training, and what to install
    Doctor(doctor::Doctor),
    /// Format model files
    Fmt(fmt::Fmt),
}

impl Command {
    /// Whether standard output must hold one JSON object and nothing else.
    pub fn json(&self) -> bool {
        match self {
            Command::Run(run) => run.json,
            Command::Sample(sample) => sample.json,
            Command::Compile(compile) => compile.json,
            Command::Explain(explain) => explain.json,
            Command::Bench(bench) => bench.json(),
            Command::Data(data) => data.json(),
            Command::Doctor(doctor) => doctor.json,
            Command::Graph(_) | Command::Fmt(_) => false,
        }
    }

    /// Does it. `color`: messages on standard error are coloured.
    pub fn run(&self, color: bool) -> Result<ExitCode> {
        match self {
            Command::Run(run) => run.run(color),
            Command::Sample(sample) => sample.run(),
            Command::Compile(compile) => compile.run(),
            Command::Explain(explain) => explain.run(),
            Command::Bench(bench) => bench.run(),
            Command::Data(data) => data.run(),
            Command::Doctor(doctor) => doctor.run(),
            Command::Graph(graph) => graph.run(),
            Command::Fmt(fmt) => fmt.run(color),
        }
    }
}

/// Which model, with which settings.
#[derive(Args, Debug)]
pub struct ModelArgs {
    /// Model file, or the name of a bundled model; without it the one .mng file of the current folder
    #[arg(value_name = "MODEL")]
    model: Option<String>,

    /// Give a constant or a setting of the model file another value; may be repeated
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = setting)]
    pub set: Vec<(String, String)>,

    /// Sequences in a micro-step, of which a batch has a whole number: fewer need less memory for the same training
    /// [default: as many as have 8192 tokens]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub micro: Option<u32>,
}

impl ModelArgs {
    /// Whether a model is named.
    pub fn is_named(&self) -> bool {
        self.model.is_some()
    }

    /// Finds and compiles it.
    pub fn compile(&self) -> Result<Model> {
        load::model(self.model.as_deref(), None, &self.options(&[]))
    }

    /// As [`ModelArgs::compile`]; where there is none to find, a bundled one.
    pub fn compile_or_bundled(&self, default: &str) -> Result<Model> {
        load::model(self.model.as_deref(), Some(default), &self.options(&[]))
    }

    /// As [`ModelArgs::compile`]; where no model is named, a bundled one with settings of its own, which `--set` overrides.
    pub fn compile_or(&self, model: &str, set: &[(&str, &str)]) -> Result<Model> {
        if self.is_named() { self.compile() } else { load::model(Some(model), None, &self.options(set)) }
    }

    /// What the command line says beside the model, after other settings, which it overrides.
    pub fn options(&self, set: &[(&str, &str)]) -> CompileOptions {
        let before = set.iter().filter(|(name, _)| self.set.iter().all(|(given, _)| given != name));
        let before = before.map(|(name, value)| (name.to_string(), value.to_string()));
        CompileOptions {
            sets: before.chain(self.set.iter().cloned()).collect(),
            micro_sequences: self.micro.map(|n| n as usize),
            ..CompileOptions::default()
        }
    }
}

fn setting(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() && !value.trim().is_empty() => {
            Ok((name.trim().to_string(), value.trim().to_string()))
        }
        _ => Err("write it as NAME=VALUE, such as steps=20 or validate.tokens=8192".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_options_do_not_contradict_each_other() {
        super::Cli::command().debug_assert();
    }

    #[test]
    fn a_setting_has_a_name_and_a_value() {
        assert_eq!(super::setting("a.b = c=d"), Ok(("a.b".into(), "c=d".into())));
        for wrong in ["", "a", "=1", "a=", " = "] {
            assert!(super::setting(wrong).is_err(), "{wrong}");
        }
    }
}
