//! How a run shows on standard error: a bar on a terminal, plain lines elsewhere.

use std::fmt::Write;
use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use mngc_runtime::cuda;
use mngc_trainer::Event;

use crate::output;
use crate::screen::Screen;

/// Shows the events of one run.
pub struct Progress {
    /// What to show before the first step; none shows nothing at all.
    screen: Option<Screen>,
    /// A bar for the steps, with lines above it, on a terminal.
    bar: Option<ProgressBar>,
    /// Steps of the run, once it has started.
    steps: u64,
    rates: Rates,
}

impl Progress {
    /// The one that fits standard error. Without a screen nothing is shown.
    pub fn new(screen: Option<Screen>) -> Progress {
        let terminal = screen.is_some() && io::stderr().is_terminal();
        let bar = terminal.then(|| ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()));
        Progress { screen, bar, steps: 0, rates: Rates::default() }
    }

    /// Shows an event.
    pub fn show(&mut self, event: &Event) {
        let Some(screen) = &self.screen else { return };
        match event {
            Event::Start(start) | Event::Resume { start, .. } => {
                output::note(&screen.text(start));
                self.steps = start.steps;
                if let Some(bar) = &self.bar {
                    begin(bar, start.steps);
                    if let Event::Resume { step, .. } = event {
                        bar.set_position(*step);
                    }
                }
            }
            Event::Step { step, train_loss, ms, tokens, scalars } => {
                self.rates.add(*train_loss, *ms);
                match &self.bar {
                    Some(bar) => {
                        bar.set_message(self.rates.text(*tokens, self.steps - (step + 1)));
                        bar.set_position(step + 1);
                    }
                    None => {
                        let mut line = format!("step {step}/{}  train_loss {train_loss:.6}", self.steps);
                        for (name, value) in scalars {
                            let _ = write!(line, "  {name} {value:.4}");
                        }
                        output::note(&format!("{line}  {}\n", duration(*ms)));
                    }
                }
            }
            Event::Val { step, val_loss, ms, .. } => {
                self.line(&format!("step {step}/{}  val_loss {val_loss:.6}  {}", self.steps, duration(*ms)));
            }
            Event::Checkpoint { path, .. } if self.bar.is_none() => {
                self.line(&format!("checkpoint {}", path.display()));
            }
            Event::Checkpoint { .. } => {}
            Event::End { stopped, error, .. } => match &self.bar {
                Some(bar) if *stopped || error.is_some() => bar.abandon(),
                Some(bar) => bar.finish(),
                None => {}
            },
        }
    }

    /// A line that stays.
    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => output::note(&format!("{text}\n")),
        }
    }
}

fn begin(bar: &ProgressBar, steps: u64) {
    bar.set_length(steps);
    // The template is a constant: should it ever be wrong, the plain bar will do.
    let style = ProgressStyle::with_template("{bar:32} {pos}/{len}  {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(500));
}

/// Shows on a terminal how many kernels are compiled, if it is to be seen.
pub fn compiling(shows: bool) -> cuda::Progress {
    let bar = (shows && io::stderr().is_terminal()).then(|| {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("compiling {pos} of {len} kernels");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar
    });
    Arc::new(move |done, all| {
        let Some(bar) = &bar else { return };
        bar.set_length(all as u64);
        bar.set_position(done as u64);
        if done == all {
            bar.finish_and_clear();
        }
    })
}

/// Loss and time of late steps, smoothed: each step weighs 0.9 of the next.
#[derive(Debug, Default)]
struct Rates {
    weight: f64,
    loss: f64,
    ms: f64,
}

impl Rates {
    fn add(&mut self, loss: f64, ms: f64) {
        let add = |sum: &mut f64, x: f64| *sum = 0.9 * *sum + 0.1 * x;
        add(&mut self.weight, 1.0);
        add(&mut self.loss, loss);
        add(&mut self.ms, ms);
    }

    fn text(&self, tokens: u64, left: u64) -> String {
        let (loss, ms) = (self.loss / self.weight, self.ms / self.weight);
        let rate = count((tokens as f64 / ms * 1e3).round() as u64);
        format!("train_loss {loss:.4}  {rate} tokens/s  {} left", wait(left as f64 * ms / 1e3))
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

/// A time to wait, for people: `2 min 40 s`.
pub fn wait(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_counts_are_short() {
        let waits = [0.2, 59.4, 59.6, 160.0, 3599.0, 3661.0, 90000.0].map(wait);
        assert_eq!(waits, ["0 s", "59 s", "1 min 0 s", "2 min 40 s", "59 min 59 s", "1 h 1 min", "25 h 0 min"]);
        assert_eq!([9999, 12345, 124_200_000, 1_500_000_000].map(count), ["9999", "12.3k", "124.2M", "1.50G"]);
    }

    #[test]
    fn late_steps_weigh_most_and_one_step_weighs_all() {
        let mut rates = Rates::default();
        rates.add(5.0, 100.0);
        assert_eq!(rates.text(1000, 60), "train_loss 5.0000  10.0k tokens/s  6 s left");
        (0..200).for_each(|_| rates.add(2.0, 50.0));
        assert_eq!(rates.text(1000, 0), "train_loss 2.0000  20.0k tokens/s  0 s left");
    }
}
