//! What the compiler made of a model: for people as a table, for tools as JSON.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use mngc_compiler::ir::{Func, Input, Module, Op, Output, SlotRole};
use mngc_compiler::schedule::plan::{EntryPlan, Launch};
use mngc_compiler::{Program, Recipe};
use mngc_dsl::Span;
use serde::Serialize;

use crate::kernels::Kernels;
use crate::load::{Model, Schedule};
use crate::progress::{count, duration};

/// The plan of a program.
#[derive(Debug, Serialize)]
pub struct Manifest {
    model: String,
    /// The main file.
    file: String,
    set: BTreeMap<String, String>,
    /// BLAKE3 of the program's text form.
    hash: String,
    parameters: u64,
    recipe: RecipeInfo,
    slots: Vec<SlotInfo>,
    entries: Vec<EntryInfo>,
    memory: MemoryInfo,
    /// Kernels for the architecture that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    cuda: Option<Kernels>,
    /// Milliseconds of each part of compiling, in order.
    timings: Vec<(String, f64)>,
}

#[derive(Debug, Serialize)]
struct RecipeInfo {
    steps: u64,
    batch: usize,
    sequence: usize,
    micro_sequences: usize,
    data: Option<String>,
    validation: Option<ValidationInfo>,
}

#[derive(Debug, Serialize)]
struct ValidationInfo {
    tokens: usize,
    every: u64,
    sequence: usize,
    micro_sequences: usize,
    data: Option<String>,
}

#[derive(Debug, Serialize)]
struct SlotInfo {
    name: String,
    role: &'static str,
    dtype: &'static str,
    shape: Vec<usize>,
    bytes: usize,
}

#[derive(Debug, Serialize)]
struct EntryInfo {
    name: &'static str,
    stage: u32,
    inputs: Vec<String>,
    outputs: Vec<String>,
    /// Functions that it runs, itself included.
    functions: usize,
    /// Nodes that run, every call counted anew.
    ops: u64,
    /// Kernels in the order in which they run.
    launches: Vec<LaunchInfo>,
    /// Bytes of memory beside slots and batches.
    arena: usize,
}

#[derive(Debug, Serialize)]
struct LaunchInfo {
    /// The ops that it computes: `dot+relu+square`.
    name: String,
    kernel: &'static str,
    /// Types of the results: `f32[seq, T, dim]`. With several instances, those of the first.
    results: Vec<String>,
    /// How often the kernel runs in this launch, on other tensors each time.
    instances: usize,
    /// The place in the model file, as `file:line`.
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<String>,
}

/// Bytes that a run needs, beside what a device's kernels want for themselves.
#[derive(Debug, Serialize)]
struct MemoryInfo {
    slots: usize,
    /// Shared by all entries: of the largest.
    arena: usize,
}

/// The roles in the order of the table, with the words for them.
const ROLES: [&str; 5] = ["parameter", "gradient", "optimizer", "state", "shadow"];

fn role(role: SlotRole) -> &'static str {
    match role {
        SlotRole::Param => ROLES[0],
        SlotRole::Gradient(_) => ROLES[1],
        SlotRole::Optimizer(_) => ROLES[2],
        SlotRole::State => ROLES[3],
        SlotRole::Shadow(_) => ROLES[4],
    }
}

impl Manifest {
    /// Of a compiled model with its schedule and the settings that it was compiled with.
    pub fn new(model: &Model, schedule: &Schedule, set: &[(String, String)], cuda: Option<Kernels>) -> Manifest {
        let Program { module, recipe, timings } = &model.program;
        let timings = timings.iter().chain(&schedule.timings);
        Manifest {
            model: recipe.model.clone(),
            file: model.sources.first().map(|source| source.name.clone()).unwrap_or_default(),
            set: set.iter().cloned().collect(),
            hash: mngc_trainer::program_hash(module),
            parameters: module.params().map(|(_, slot)| module.dims.elements(&slot.ty.dims) as u64).sum(),
            recipe: recipe_info(recipe),
            slots: slots(module),
            entries: entries(model, schedule),
            memory: MemoryInfo { slots: schedule.plan.slots, arena: schedule.plan.arena },
            cuda,
            timings: timings.map(|(name, seconds)| (name.clone(), seconds * 1e3)).collect(),
        }
    }

    /// The table for people.
    pub fn text(&self, timings: bool) -> String {
        let mut out = String::new();
        self.write_head(&mut out);
        self.write_slots(&mut out);
        self.write_entries(&mut out);
        match &self.cuda {
            Some(kernels) => out += &kernels.text(),
            None => self.write_memory(&mut out),
        }
        if timings {
            self.write_timings(&mut out);
        }
        out
    }

    fn write_head(&self, out: &mut String) {
        let RecipeInfo { steps, batch, sequence, micro_sequences, validation, .. } = &self.recipe;
        let sequences = batch / sequence;
        let _ = writeln!(out, "{} ({}): {} parameters", self.model, self.file, count(self.parameters));
        let _ = writeln!(
            out,
            "{steps} steps of {batch} tokens: {sequences} sequences of {sequence}, {micro_sequences} at a time"
        );
        if let Some(v) = validation {
            let ValidationInfo { tokens, every, sequence, .. } = v;
            let _ = writeln!(out, "validation every {every} steps on {tokens} tokens, in sequences of {sequence}");
        }
    }

    fn write_slots(&self, out: &mut String) {
        let _ = writeln!(out, "\n{:<12} {:>8} {:>12}", "state", "tensors", "bytes");
        for role in ROLES {
            let slots: Vec<&SlotInfo> = self.slots.iter().filter(|slot| slot.role == role).collect();
            let bytes: usize = slots.iter().map(|slot| slot.bytes).sum();
            if !slots.is_empty() {
                let _ = writeln!(out, "{role:<12} {:>8} {:>12}", slots.len(), memory(bytes));
            }
        }
        let bytes = self.slots.iter().map(|slot| slot.bytes).sum();
        let _ = writeln!(out, "{:<12} {:>8} {:>12}", "all", self.slots.len(), memory(bytes));
    }

    fn write_entries(&self, out: &mut String) {
        let _ = writeln!(out, "\n{:<12} {:>8} {:>8} {:>12}", "entry", "ops", "launches", "memory");
        for entry in &self.entries {
            let stage = if entry.stage == 0 { String::new() } else { format!(" {}", entry.stage) };
            let name = format!("{}{stage}", entry.name);
            let (kernels, arena) = (entry.launches.len(), memory(entry.arena));
            let _ = writeln!(out, "{name:<12} {:>8} {kernels:>8} {arena:>12}", entry.ops);
        }
    }

    fn write_memory(&self, out: &mut String) {
        let MemoryInfo { slots, arena } = self.memory;
        let all = memory(slots + arena);
        let _ = writeln!(out, "\nmemory needed: {all} ({} of state, {} of values)", memory(slots), memory(arena));
    }

    fn write_timings(&self, out: &mut String) {
        let _ = writeln!(out, "\n{:<24} {:>10}", "compiling", "time");
        for (name, ms) in &self.timings {
            let _ = writeln!(out, "{name:<24} {:>10}", duration(*ms));
        }
        let _ = writeln!(out, "{:<24} {:>10}", "all", duration(self.timings.iter().map(|(_, ms)| ms).sum()));
    }
}

fn recipe_info(recipe: &Recipe) -> RecipeInfo {
    RecipeInfo {
        steps: recipe.steps,
        batch: recipe.batch,
        sequence: recipe.sequence,
        micro_sequences: recipe.micro_sequences,
        data: recipe.data.clone(),
        validation: recipe.validate.as_ref().map(|v| ValidationInfo {
            tokens: v.tokens,
            every: v.every,
            sequence: v.sequence,
            micro_sequences: v.micro_sequences,
            data: v.data.clone(),
        }),
    }
}

fn slots(module: &Module) -> Vec<SlotInfo> {
    let info = |slot: &mngc_compiler::ir::SlotData| SlotInfo {
        name: slot.name.clone(),
        role: role(slot.role),
        dtype: slot.ty.dtype.name(),
        shape: module.dims.sizes(&slot.ty.dims),
        bytes: module.bytes(&slot.ty),
    };
    module.slots.values().map(info).collect()
}

fn entries(model: &Model, schedule: &Schedule) -> Vec<EntryInfo> {
    let (module, plan) = (&model.program.module, &schedule.plan);
    let name = |slot| module.slots[slot].name.clone();
    let mut runs = HashMap::new();
    let info = |entry: &mngc_compiler::ir::Entry| {
        let functions = reachable(module, entry.func);
        EntryInfo {
            name: entry.key.kind.name(),
            stage: entry.key.stage,
            inputs: entry
                .inputs
                .iter()
                .map(|input| match input {
                    Input::Slot(slot) => name(*slot),
                    Input::Batch(name) => name.clone(),
                    Input::Scalar(scalar) => scalar.to_string(),
                })
                .collect(),
            outputs: entry
                .outputs
                .iter()
                .map(|output| match output {
                    Output::Slot(slot) => name(*slot),
                    Output::Host(name) => name.clone(),
                })
                .collect(),
            functions: functions.len(),
            ops: ops(module, entry.func, &mut runs),
            launches: plan.entries.get(&entry.key).map(|e| launches(model, schedule, e)).unwrap_or_default(),
            arena: plan.entries.get(&entry.key).map_or(0, |e| e.arena),
        }
    };
    module.entries.values().map(info).collect()
}

fn launches(model: &Model, schedule: &Schedule, entry: &EntryPlan) -> Vec<LaunchInfo> {
    let place = |span: Span| format!("{}:{}", model.texts.name(span.file), model.texts.line_column(span).0);
    let first = |launch: &Launch| launch.each().next().map_or(Vec::new(), |(_, results)| results.to_vec());
    let info = |launch: &Launch| LaunchInfo {
        name: launch.name.clone(),
        kernel: launch.kernel.name(),
        results: first(launch).iter().map(|view| schedule.module.show(&view.ty)).collect(),
        instances: launch.instances,
        place: launch.loc.map(place),
    };
    entry.launches.iter().map(info).collect()
}

/// A function and all that it calls, each once.
fn reachable(module: &Module, func: Func) -> Vec<Func> {
    let mut found = vec![func];
    let mut next = 0;
    while let Some(&func) = found.get(next) {
        for callee in module.funcs[func].callees() {
            if !found.contains(&callee) {
                found.push(callee);
            }
        }
        next += 1;
    }
    found
}

/// Nodes that one run of a function executes; `known` holds the functions counted before.
fn ops(module: &Module, func: Func, known: &mut HashMap<Func, u64>) -> u64 {
    if let Some(&ops) = known.get(&func) {
        return ops;
    }
    let nodes = module.funcs[func].nodes.values();
    let total = nodes.map(|node| match node.op {
        Op::Call { func, .. } => ops(module, func, known),
        _ => 1,
    });
    let total = total.sum();
    known.insert(func, total);
    total
}

/// Bytes for people, in binary units.
pub fn memory(bytes: usize) -> String {
    match bytes as f64 {
        x if x < 1024.0 => format!("{bytes} B"),
        x if x < 1048576.0 => format!("{:.1} KiB", x / 1024.0),
        x if x < 1073741824.0 => format!("{:.1} MiB", x / 1048576.0),
        x => format!("{:.2} GiB", x / 1073741824.0),
    }
}
