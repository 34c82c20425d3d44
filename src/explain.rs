//! What `mngc explain` tells of each launch: its ops with their source lines, what it costs, and why it stands alone.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::Result;
use mngc_compiler::ir::{EntryKey, EntryKind, Module};
use mngc_compiler::schedule::apart::{self, Apart, Why};
use mngc_compiler::schedule::cost::{self, Cost};
use mngc_compiler::schedule::plan::{Launch, Part};
use mngc_dsl::Sources;
use mngc_kernels_gen::listing::{Listing, roofline};
use mngc_kernels_gen::{Device, Generated};
use serde::Serialize;

use crate::kernels::{operations, time};
use crate::load::{Model, Schedule};
use crate::manifest::memory;

/// Columns of a line.
const WIDTH: usize = 100;

/// All launches that were asked for.
#[derive(Debug, Serialize)]
pub struct Explanation {
    model: String,
    /// The card whose figures times are made from.
    device: String,
    launches: Vec<Explained>,
}

/// Launches of an entry that are the same but for what they read and write.
#[derive(Debug, Serialize)]
struct Explained {
    entry: &'static str,
    stage: u32,
    /// Positions in the entry.
    at: Vec<usize>,
    /// The ops that it computes: `dot+relu+square`.
    name: String,
    kernel: &'static str,
    instances: usize,
    /// Types of the results of one instance.
    results: Vec<String>,
    lines: Vec<Line>,
    /// CUDA kernels that it calls, with how often.
    calls: Vec<(String, usize)>,
    /// Of one launch.
    bytes: f64,
    flops: f64,
    roofline_ms: f64,
    /// What takes longer on the device.
    bound: &'static str,
    /// Launches that read its results, and why they are no part of it.
    apart: Vec<ApartInfo>,
}

/// Ops of one line of a model file.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Line {
    /// `file:line`; none for what the compiler adds.
    place: Option<String>,
    /// The line.
    text: String,
    ops: Vec<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct ApartInfo {
    /// Which result it is about, from 1.
    result: usize,
    /// The name of the launch that reads the result; the first of them, if there are several.
    from: String,
    why: String,
    several: bool,
}

impl Explanation {
    /// Of the launches of some entries that `filter` is part of the name, kernel, source line or result of.
    pub fn new(
        model: &Model,
        schedule: &Schedule,
        device: &Device,
        kinds: &[EntryKind],
        filter: Option<&str>,
    ) -> Result<Explanation> {
        let Schedule { module, plan, .. } = schedule;
        let listing = Listing::new(module, plan, device)?;
        let filter = filter.map(str::to_lowercase);
        let mut launches: Vec<Explained> = Vec::new();
        for kind in kinds {
            for (key, calls) in listing.entries.iter().filter(|(key, _)| key.kind == *kind) {
                let Some(entry) = plan.entries.get(key) else { continue };
                let mut reasons: BTreeMap<usize, Vec<&Apart>> = BTreeMap::new();
                let apart = apart::apart(module, entry);
                for apart in &apart {
                    reasons.entry(apart.producer).or_default().push(apart);
                }
                let name = |at: usize| entry.launches.get(at).map_or(String::new(), |launch| launch.name.clone());
                let begin = launches.len();
                for (at, (launch, calls)) in entry.launches.iter().zip(&calls.launches).enumerate() {
                    let reasons = reasons.get(&at).map_or(&[][..], Vec::as_slice);
                    let mut new = Explained::new(module, &model.texts, launch, calls, device, *key);
                    for Apart { result, consumer, why, .. } in reasons {
                        let several = matches!(why, Why::Several(_));
                        let (result, why) = (result + 1, why.to_string());
                        let info = ApartInfo { result, from: name(*consumer), why, several };
                        if !new.apart.contains(&info) {
                            new.apart.push(info);
                        }
                    }
                    match launches[begin..].iter_mut().find(|old| old.is_like(&new)) {
                        Some(old) => old.at.push(at),
                        None => launches.push(Explained { at: vec![at], ..new }),
                    }
                }
            }
        }
        launches.retain(|launch| filter.as_deref().is_none_or(|filter| launch.has(filter)));
        Ok(Explanation { model: model.program.recipe.model.clone(), device: device.name.clone(), launches })
    }

    /// Whether no launch is left.
    pub fn is_empty(&self) -> bool {
        self.launches.is_empty()
    }

    /// The lines for people.
    pub fn text(&self) -> String {
        let mut out = format!("{} with the figures of {}\n", self.model, self.device);
        let mut before = None;
        for launch in &self.launches {
            if before != Some((launch.entry, launch.stage)) {
                let stage = if launch.stage == 0 { String::new() } else { format!(" {}", launch.stage) };
                let _ = writeln!(out, "\n{}{stage}", launch.entry);
                before = Some((launch.entry, launch.stage));
            }
            launch.write(&mut out, &self.device);
        }
        out
    }
}

impl Explained {
    fn new(
        m: &Module,
        texts: &Sources,
        launch: &Launch,
        generated: &Generated,
        device: &Device,
        key: EntryKey,
    ) -> Explained {
        let Cost { flops, bytes } = cost::of(m, launch);
        let seconds = roofline(m, launch, device);
        let (_, results) = launch.each().next().unwrap_or_default();
        let mut calls: Vec<(String, usize)> = Vec::new();
        for call in &generated.calls {
            match calls.iter_mut().find(|(name, _)| *name == call.source.name) {
                Some((_, count)) => *count += 1,
                None => calls.push((call.source.name.clone(), 1)),
            }
        }
        Explained {
            entry: key.kind.name(),
            stage: key.stage,
            at: Vec::new(),
            name: launch.name.clone(),
            kernel: launch.kernel.name(),
            instances: launch.instances,
            results: results.iter().map(|view| m.show(&view.ty)).collect(),
            lines: lines(texts, &launch.parts),
            calls,
            bytes,
            flops,
            roofline_ms: seconds * 1e3,
            bound: if bytes / device.bandwidth >= seconds { "memory" } else { "arithmetic" },
            apart: Vec::new(),
        }
    }

    fn is_like(&self, other: &Explained) -> bool {
        let key = |e: &Explained| (e.name.clone(), e.instances, e.calls.clone(), e.results.clone());
        key(self) == key(other) && self.lines == other.lines && self.apart == other.apart
    }

    fn has(&self, filter: &str) -> bool {
        let places = self.lines.iter().flat_map(|line| [line.place.as_deref().unwrap_or(""), &line.text]);
        let calls = self.calls.iter().map(|(name, _)| name.as_str());
        let results = self.results.iter().map(String::as_str);
        let all = [self.name.as_str(), self.kernel].into_iter().chain(places).chain(calls).chain(results);
        let mut all = all.map(str::to_lowercase);
        all.any(|text| text.contains(filter))
    }

    fn write(&self, out: &mut String, device: &str) {
        let times = match (self.at.len(), self.instances) {
            (1, 1) => String::new(),
            (n, 1) => format!("  in {n} launches"),
            (1, instances) => format!("  with {instances} instances"),
            (n, instances) => format!("  in {n} launches with {instances} instances each"),
        };
        let at = self.at.first().copied().unwrap_or_default();
        let kind = if self.name.starts_with(self.kernel) { String::new() } else { format!(" ({})", self.kernel) };
        let _ = writeln!(out, "\n{at:>4}  {}{kind}{times}", self.name);
        let mut row = |text: String| {
            for line in wrapped(&text, WIDTH - 6) {
                let _ = writeln!(out, "      {line}");
            }
        };
        row(format!("makes {}", self.results.join(", ")));
        for Line { place, text, ops } in &self.lines {
            let place = place.as_deref().unwrap_or("the compiler");
            let head = format!("{place}: {}", ops.join(", "));
            // The line itself where there is room for some of it.
            match WIDTH.checked_sub(6 + head.chars().count() + 4) {
                Some(room) if room >= 12 && !text.is_empty() => row(format!("{head}    {}", cut(text, room))),
                _ => row(head),
            }
        }
        let calls: Vec<String> = self
            .calls
            .iter()
            .map(|(name, count)| if *count == 1 { name.clone() } else { format!("{count} × {name}") })
            .collect();
        if !calls.is_empty() {
            row(format!("calls {}", calls.join(", ")));
        }
        row(format!(
            "{}, {} FLOP: {} on {device}, bound by {}",
            memory(self.bytes as usize),
            operations(self.flops),
            time(self.roofline_ms),
            self.bound,
        ));
        for ApartInfo { result, from, why, several } in &self.apart {
            let which = if self.results.len() > 1 { format!("result {result} ") } else { String::new() };
            match several {
                true => row(format!("{which}kept in memory: {why}")),
                false => row(format!("{which}apart from {from}: {why}")),
            }
        }
    }
}

/// Ops by their lines, in order.
fn lines(texts: &Sources, parts: &[Part]) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for Part { op, loc } in parts {
        let (place, text) = match loc {
            None => (None, String::new()),
            Some(span) => {
                let number = texts.line_column(*span).0;
                let text = texts.text(span.file).lines().nth(number - 1).unwrap_or_default().trim().to_string();
                (Some(format!("{}:{number}", texts.name(span.file))), text)
            }
        };
        match lines.iter_mut().find(|line| line.place == place) {
            Some(line) if line.ops.contains(op) => {}
            Some(line) => line.ops.push(op),
            None => lines.push(Line { place, text, ops: vec![op] }),
        }
    }
    lines
}

/// The beginning of a text.
fn cut(text: &str, room: usize) -> String {
    match text.chars().count() {
        n if n <= room => text.to_string(),
        _ => text.chars().take(room.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// A text in lines of at most so many characters, later ones indented. Broken between words; runs of spaces stay.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_inclusive(' ') {
        let line = lines.last().map_or(0, |line| line.chars().count());
        if line > 2 && line + word.trim_end().chars().count() > width {
            lines.push("  ".to_string());
        }
        if let Some(line) = lines.last_mut() {
            line.push_str(word);
        }
    }
    lines.into_iter().map(|line| line.trim_end().to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_broken_between_words() {
        assert_eq!(wrapped("one two three", 40), ["one two three"]);
        assert_eq!(wrapped("one two three", 8), ["one two", "  three"]);
        assert_eq!(wrapped("one    two", 10), ["one    two"]);
        assert_eq!(wrapped("indivisible", 4), ["indivisible"]);
    }

    #[test]
    fn a_text_is_cut_with_a_mark() {
        assert_eq!(cut("short", 5), "short");
        assert_eq!(cut("longer", 5), "long…");
    }
}
