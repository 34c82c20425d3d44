//! How a run shows on standard error: a bar on a terminal, plain lines elsewhere.

use std::fmt::Write;
use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use mngc_trainer::Event;

use crate::output;

/// Shows the events of one run.
pub enum Progress {
    /// Shows nothing.
    Quiet,
    /// One line an event.
    Lines {
        /// Steps of the run, once it has started.
        steps: u64,
    },
    /// A bar for the steps, with lines above it for validations.
    Bar(ProgressBar),
}

impl Progress {
    /// The one that fits standard error.
    pub fn new(quiet: bool) -> Progress {
        if quiet {
            Progress::Quiet
        } else if io::stderr().is_terminal() {
            Progress::Bar(ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()))
        } else {
            Progress::Lines { steps: 0 }
        }
    }

    /// Shows an event.
    pub fn show(&mut self, event: &Event) {
        match self {
            Progress::Quiet => {}
            Progress::Lines { steps } => {
                if let Event::Start(start) = event {
                    *steps = start.steps;
                }
                if let Some(line) = line(event, *steps) {
                    output::note(&(line + "\n"));
                }
            }
            Progress::Bar(bar) => show_on_bar(bar, event),
        }
    }
}

fn show_on_bar(bar: &ProgressBar, event: &Event) {
    match event {
        Event::Start(start) => {
            bar.println(line(event, start.steps).unwrap_or_default());
            bar.set_length(start.steps);
            // The template is a constant: should it ever be wrong, the plain bar will do.
            let style = ProgressStyle::with_template("{bar:32} {pos}/{len}  {msg}  {elapsed} (eta {eta})");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.enable_steady_tick(Duration::from_millis(500));
        }
        Event::Step { step, train_loss, ms, .. } => {
            bar.set_message(format!("train_loss {train_loss:.4}  {} a step", duration(*ms)));
            bar.set_position(step + 1);
        }
        Event::Val { .. } => bar.println(line(event, bar.length().unwrap_or_default()).unwrap_or_default()),
        Event::End { error: None, .. } => bar.finish(),
        Event::End { .. } => bar.abandon(),
    }
}

/// The line for an event; none for the end, which the command reports itself.
fn line(event: &Event, steps: u64) -> Option<String> {
    match event {
        Event::Start(start) => Some(format!(
            "{}: {} parameters, {steps} steps of {} tokens on {} → {}",
            start.model,
            count(start.parameters),
            start.batch,
            start.device,
            start.folder.display()
        )),
        Event::Step { step, train_loss, ms, scalars, .. } => {
            let mut line = format!("step {step}/{steps}  train_loss {train_loss:.6}");
            for (name, value) in scalars {
                let _ = write!(line, "  {name} {value:.4}");
            }
            Some(format!("{line}  {}", duration(*ms)))
        }
        Event::Val { step, val_loss, ms, .. } => {
            Some(format!("step {step}/{steps}  val_loss {val_loss:.6}  {}", duration(*ms)))
        }
        Event::End { .. } => None,
    }
}

/// Milliseconds for people.
pub fn duration(ms: f64) -> String {
    match ms {
        ms if ms < 10.0 => format!("{ms:.2} ms"),
        ms if ms < 10_000.0 => format!("{ms:.0} ms"),
        ms if ms < 600_000.0 => format!("{:.1} s", ms / 1e3),
        ms => format!("{:.1} min", ms / 60e3),
    }
}

/// A number for people: 124.2M.
pub fn count(n: u64) -> String {
    match n as f64 {
        x if x < 1e4 => n.to_string(),
        x if x < 1e6 => format!("{:.1}k", x / 1e3),
        x if x < 1e9 => format!("{:.1}M", x / 1e6),
        x => format!("{:.2}G", x / 1e9),
    }
}
