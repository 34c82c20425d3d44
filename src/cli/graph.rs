//! `mngc graph`: draws a program's graph.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use clap::builder::PossibleValuesParser;
use mngc_compiler::ir::EntryKind;
use mngc_compiler::ir::dot::{self, DotOptions};
use mngc_dsl::Span;
use mngc_trainer::files::write_atomically;

use super::ModelArgs;
use crate::load::Model;
use crate::output::{self, Usage};

/// Options of the command.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Graph {
    #[command(flatten)]
    model: ModelArgs,

    /// The entry to draw
    #[arg(long, value_name = "ENTRY", default_value = "micro_step", value_parser = entries())]
    entry: String,

    /// Open the blocks down to this depth; the others are one box each
    #[arg(long, value_name = "N", default_value_t = 0)]
    expand: usize,

    /// Draw weights and numbers as boxes of their own
    #[arg(long)]
    weights: bool,

    /// Write to this file, as its ending says (.dot or .svg); without it DOT goes to standard output.
    /// Graphviz lays an SVG out where `dot` is installed; else a library does that is made for small graphs
    #[arg(short, value_name = "FILE")]
    output: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  mngc graph gpt2-mini -o step.svg
  mngc graph gpt2-mini --entry evaluate --expand 1 -o evaluate.svg
  mngc graph gpt2-mini | dot -Tpdf > step.pdf";

/// What a drawing can be written as.
enum Format {
    Dot,
    Svg,
}

fn entries() -> PossibleValuesParser {
    PossibleValuesParser::new(EntryKind::ALL.map(EntryKind::name))
}

impl Graph {
    /// Does it.
    pub fn run(&self) -> Result<ExitCode> {
        let format = self.output.as_deref().map_or(Ok(Format::Dot), format)?;
        let Model { program, texts, .. } = self.model.compile()?;
        let module = program.module;
        let entry = module.entries.values().find(|entry| entry.key.kind.name() == self.entry);
        let entry = entry.ok_or_else(|| anyhow!("the program has no entry {}", self.entry))?;
        let place = |span: Span| format!("{}:{}", texts.name(span.file), texts.line_column(span).0);
        let options = DotOptions { expand: self.expand, weights: self.weights, place: Some(&place) };
        let text = match format {
            Format::Dot => dot::to_dot(&module, entry.func, &options),
            Format::Svg => match graphviz(dot::to_dot(&module, entry.func, &options))? {
                Some(svg) => svg,
                None => dot::to_svg(&module, entry.func, &options)?,
            },
        };
        match &self.output {
            Some(path) => write(path, &text)?,
            None => output::print(&text)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The drawing that Graphviz makes of a text in DOT; nothing where it is not installed.
fn graphviz(text: String) -> Result<Option<String>> {
    let started = Command::new("dot").arg("-Tsvg").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = match started {
        Ok(child) => child,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).context("cannot start Graphviz' `dot`"),
    };
    // It begins to write before it has read all.
    let mut pipe = child.stdin.take().context("`dot` takes no input")?;
    let writer = thread::spawn(move || pipe.write_all(text.as_bytes()));
    let output = child.wait_with_output().context("cannot read what `dot` draws")?;
    let written = writer.join().map_err(|_| anyhow!("cannot hand the graph to `dot`"))?;
    if !output.status.success() {
        bail!("`dot -Tsvg` failed ({})", output.status);
    }
    written.context("cannot hand the graph to `dot`")?;
    Ok(Some(String::from_utf8(output.stdout).context("`dot` drew no UTF-8")?))
}

fn format(path: &Path) -> Result<Format> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("dot" | "gv") => Ok(Format::Dot),
        Some("svg") => Ok(Format::Svg),
        _ => Err(Usage(format!("-o {}: name a file that ends in .dot or .svg", path.display())).into()),
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    Ok(write_atomically(path, text.as_bytes())?)
}
