//! The kernels of a program for a named architecture: compiled without a GPU, listed, written into a folder.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use mngc_compiler::Recipe;
use mngc_compiler::ir::{EntryKey, EntryKind};
use mngc_kernels_gen::cache::{Cache, Images};
use mngc_kernels_gen::image::{Image, Target, Usage};
use mngc_kernels_gen::listing::{Distinct, Listing, Needs};
use mngc_kernels_gen::nvrtc::{Nvrtc, Options};
use mngc_kernels_gen::{Device, Source};
use mngc_runtime::cuda::CudaError;
use mngc_trainer::files::write_atomically;
use serde::Serialize;

use crate::load::Schedule;
use crate::manifest::memory;
use crate::progress::{self, duration};

/// Registers of a multiprocessor, of which a block has at most all: the same on every architecture since sm_50.
const REGISTERS: usize = 65536;

/// All kernels of a program.
#[derive(Debug, Serialize)]
pub struct Kernels {
    /// As NVRTC names it.
    arch: String,
    /// The card whose figures times are made from.
    device: String,
    nvrtc: String,
    /// Kernels that were compiled now, and those that the cache had.
    compiled: usize,
    found: usize,
    /// Of generating and compiling.
    ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_fault: Option<String>,
    /// What each entry runs.
    entries: Vec<EntryCalls>,
    /// A whole step.
    step: Figures,
    /// Bytes of the device's memory.
    memory: MemoryInfo,
    kernels: Vec<KernelInfo>,
    #[serde(skip)]
    written: Vec<Written>,
}

#[derive(Debug, Serialize)]
struct EntryCalls {
    name: &'static str,
    stage: u32,
    launches: usize,
    /// Calls of CUDA kernels.
    calls: usize,
    /// Different kernels.
    kernels: usize,
    #[serde(flatten)]
    cost: Figures,
}

#[derive(Debug, Serialize)]
struct MemoryInfo {
    slots: usize,
    arena: usize,
    workspace: usize,
    inputs: usize,
    total: usize,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Figures {
    bytes: f64,
    flops: f64,
    roofline_ms: f64,
}

#[derive(Debug, Serialize)]
struct KernelInfo {
    name: String,
    /// What it computes: kind and ops of each launch that it is part of, with how many of them there are.
    launches: Vec<(String, usize)>,
    /// In one run of each entry.
    uses: BTreeMap<String, UseInfo>,
    /// Whether it multiplies matrices.
    is_product: bool,
    threads: u32,
    registers: Option<u32>,
    spill_stores: u32,
    spill_loads: u32,
    stack: u32,
    shared_static: u32,
    shared_dynamic: usize,
    /// Files below the output folder, where there is one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    files: Vec<String>,
    /// In a whole step.
    step: Figures,
}

#[derive(Debug, Serialize)]
struct UseInfo {
    calls: usize,
    #[serde(flatten)]
    cost: Figures,
}

#[derive(Debug)]
struct Written {
    path: String,
    bytes: Vec<u8>,
}

impl Kernels {
    /// Generates and compiles all. `shows`: on a terminal it is seen how far it is. `keeps`: texts and images are wanted.
    pub fn compile(schedule: &Schedule, recipe: &Recipe, target: Target, shows: bool, keeps: bool) -> Result<Kernels> {
        let start = Instant::now();
        let device = Device::of(target.capability);
        let device = device.with_context(|| format!("{target} is no architecture that kernels are made for"))?;
        let nvrtc = Nvrtc::load()?;
        let (m, plan) = (&schedule.module, &schedule.plan);
        let listing = Listing::new(m, plan, &device)?;
        let distinct = listing.kernels(m, plan, &device);
        let sources: Vec<&Source> = distinct.iter().map(|kernel| kernel.source.as_ref()).collect();
        let (cache, progress) = (Cache::of_user(), progress::compiling(shows));
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let all = sources.len();
        let options = Options::default();
        let Images { images, compiled } =
            cache.images(&nvrtc, &sources, target, &options, threads, &|done| progress(done, all))?;
        let ms = start.elapsed().as_secs_f64() * 1e3;

        let mut kernels = Vec::new();
        let mut written = Vec::new();
        for (kernel, image) in distinct.iter().zip(images) {
            let usage = image.usage.unwrap_or_default();
            fits(kernel, usage, &device)?;
            let mut info = KernelInfo::new(kernel, image.usage, recipe);
            if keeps {
                info.files = files(kernel, image, &mut written);
            }
            kernels.push(info);
        }
        kernels.sort_by(|a, b| b.step.roofline_ms.total_cmp(&a.step.roofline_ms));
        let needs = Needs::of(plan, &listing);
        Ok(Kernels {
            arch: target.to_string(),
            device: device.name.clone(),
            nvrtc: nvrtc.version().to_string(),
            compiled,
            found: all - compiled,
            ms,
            cache_fault: cache.fault().map(ToString::to_string),
            entries: entries(schedule, &listing, &distinct),
            step: Figures::sum(kernels.iter().map(|kernel| kernel.step)),
            memory: MemoryInfo {
                slots: needs.slots,
                arena: needs.arena,
                workspace: needs.workspace,
                inputs: needs.inputs,
                total: needs.total(),
            },
            kernels,
            written,
        })
    }

    /// Writes each kernel's text, PTX and machine code into a folder.
    pub fn write(&self, folder: &Path) -> Result<()> {
        for Written { path, bytes } in &self.written {
            let path: PathBuf = folder.join(path);
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
            }
            write_atomically(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    /// Names of products and attention whose registers run out, which makes whole steps slow.
    pub fn spilling(&self) -> impl Iterator<Item = &str> {
        let spills = |kernel: &&KernelInfo| kernel.is_product && kernel.spill_stores + kernel.spill_loads > 0;
        self.kernels.iter().filter(spills).map(|kernel| kernel.name.as_str())
    }

    /// The tables for people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let Kernels { arch, device, nvrtc, compiled, found, ms, .. } = self;
        let _ = writeln!(out, "\nfor {arch}, with the figures of {device}, by NVRTC {nvrtc}");
        let _ = writeln!(
            out,
            "\n{:<12} {:>8} {:>8} {:>8} {:>10} {:>10} {:>10}",
            "entry", "launches", "calls", "kernels", "bytes", "FLOP", "roofline"
        );
        for EntryCalls { name, stage, launches, calls, kernels, cost } in &self.entries {
            let stage = if *stage == 0 { String::new() } else { format!(" {stage}") };
            let name = format!("{name}{stage}");
            let _ = writeln!(out, "{name:<12} {launches:>8} {calls:>8} {kernels:>8} {}", cost.columns());
        }
        let _ = writeln!(
            out,
            "\nkernels, calls in micro_step/update/elsewhere; bytes, operations and time are those of a step\n\n\
             {:<38} {:>9} {:>4} {:>6} {:>9} {:>9} {:>8} {:>9}",
            "kernel", "calls", "regs", "spills", "shared", "bytes", "FLOP", "roofline"
        );
        for kernel in &self.kernels {
            kernel.row(&mut out);
        }
        let time = time(self.step.roofline_ms);
        let _ = writeln!(out, "\na step takes {time} at the roofline of {device}, documents apart");
        let MemoryInfo { slots, arena, workspace, inputs, total } = self.memory;
        let [slots, arena, workspace, inputs, total] = [slots, arena, workspace, inputs, total].map(memory);
        let _ = writeln!(
            out,
            "memory needed: {total} ({slots} of state, {arena} of values, {workspace} of workspace, {inputs} of inputs)"
        );
        let all = self.kernels.len();
        let _ = writeln!(out, "{all} kernels in {}: {compiled} compiled, {found} found in the cache", duration(*ms));
        if let Some(fault) = &self.cache_fault {
            let _ = writeln!(out, "{fault}");
        }
        out
    }
}

/// Fails where no block of the kernel can run on the device.
fn fits(kernel: &Distinct, usage: Usage, device: &Device) -> Result<()> {
    let shared = (usage.shared as usize + kernel.shared, device.shared_per_block, "bytes of shared memory a block");
    let registers = (usage.registers as usize * kernel.block as usize, REGISTERS, "registers a block");
    for (needed, limit, what) in [shared, registers] {
        if needed > limit {
            let launches: Vec<&str> = kernel.launches.keys().map(|(_, name)| name.as_str()).collect();
            let kernel = kernel.source.name.clone();
            bail!("{} ({})", CudaError::Limit { kernel, what, needed, limit }, launches.join(", "));
        }
    }
    Ok(())
}

/// The files of a kernel, by their paths below the folder.
fn files(kernel: &Distinct, image: Image, written: &mut Vec<Written>) -> Vec<String> {
    let name = &kernel.source.name;
    let mut files = vec![("cu", kernel.source.text.clone().into_bytes()), ("ptx", image.ptx.into_bytes())];
    files.extend(image.cubin.map(|cubin| ("cubin", cubin)));
    let mut paths = Vec::new();
    for (ending, bytes) in files {
        let path = format!("kernels/{name}.{ending}");
        paths.push(path.clone());
        written.push(Written { path, bytes });
    }
    paths
}

fn entries(schedule: &Schedule, listing: &Listing, distinct: &[Distinct]) -> Vec<EntryCalls> {
    let info = |(key, calls): (&EntryKey, &mngc_kernels_gen::Calls)| {
        let here: Vec<_> = distinct.iter().filter_map(|kernel| kernel.uses.get(key)).collect();
        EntryCalls {
            name: key.kind.name(),
            stage: key.stage,
            launches: schedule.plan.entries.get(key).map_or(0, |entry| entry.launches.len()),
            calls: calls.all().count(),
            kernels: here.len(),
            cost: Figures::sum(here.into_iter().map(Figures::of)),
        }
    };
    listing.entries.iter().map(info).collect()
}

/// How often an entry runs in a step.
fn runs(key: &EntryKey, recipe: &Recipe) -> usize {
    match key.kind {
        EntryKind::MicroStep => recipe.micro_steps(),
        EntryKind::Update => 1,
        _ => 0,
    }
}

impl Figures {
    fn of(of: &mngc_kernels_gen::listing::Use) -> Figures {
        Figures { bytes: of.cost.bytes, flops: of.cost.flops, roofline_ms: of.seconds * 1e3 }
    }

    fn sum(all: impl Iterator<Item = Figures>) -> Figures {
        all.fold(Figures::default(), |a, b| Figures {
            bytes: a.bytes + b.bytes,
            flops: a.flops + b.flops,
            roofline_ms: a.roofline_ms + b.roofline_ms,
        })
    }

    fn times(self, n: usize) -> Figures {
        let Figures { bytes, flops, roofline_ms } = self;
        let n = n as f64;
        Figures { bytes: bytes * n, flops: flops * n, roofline_ms: roofline_ms * n }
    }

    fn columns(&self) -> String {
        let Figures { bytes, flops, roofline_ms } = *self;
        format!("{:>10} {:>10} {:>10}", memory(bytes as usize), operations(flops), time(roofline_ms))
    }
}

impl KernelInfo {
    fn new(kernel: &Distinct, usage: Option<Usage>, recipe: &Recipe) -> KernelInfo {
        let Usage { registers, spill_stores, spill_loads, stack, shared } = usage.unwrap_or_default();
        let launch = |((kind, ops), count): (&(&'static str, String), &usize)| {
            let name = if ops.starts_with(kind) { ops.clone() } else { format!("{kind} {ops}") };
            (name, *count)
        };
        let of = |(key, of): (&EntryKey, &mngc_kernels_gen::listing::Use)| {
            let stage = if key.stage == 0 { String::new() } else { format!(" {}", key.stage) };
            (format!("{}{stage}", key.kind.name()), UseInfo { calls: of.calls, cost: Figures::of(of) })
        };
        KernelInfo {
            name: kernel.source.name.clone(),
            launches: kernel.launches.iter().map(launch).collect(),
            uses: kernel.uses.iter().map(of).collect(),
            is_product: kernel.is_product(),
            threads: kernel.block,
            registers: usage.map(|_| registers),
            spill_stores,
            spill_loads,
            stack,
            shared_static: shared,
            shared_dynamic: kernel.shared,
            files: Vec::new(),
            step: Figures::sum(kernel.uses.iter().map(|(key, of)| Figures::of(of).times(runs(key, recipe)))),
        }
    }

    fn row(&self, out: &mut String) {
        let calls = |kinds: &[EntryKind]| -> usize {
            let of_kind = |name: &str| kinds.iter().any(|kind| name.split(' ').next() == Some(kind.name()));
            self.uses.iter().filter(|(name, _)| of_kind(name)).map(|(_, of)| of.calls).sum()
        };
        let (micro, update) = (calls(&[EntryKind::MicroStep]), calls(&[EntryKind::Update]));
        let calls = format!("{micro}/{update}/{}", calls(&EntryKind::ALL) - micro - update);
        let registers = self.registers.map_or("?".to_string(), |n| n.to_string());
        let spills = match self.spill_stores + self.spill_loads {
            0 => "-".to_string(),
            bytes => format!("{bytes} B"),
        };
        let shared = memory(self.shared_static as usize + self.shared_dynamic);
        let Figures { bytes, flops, roofline_ms } = self.step;
        let _ = writeln!(
            out,
            "{:<38} {calls:>9} {registers:>4} {spills:>6} {shared:>9} {:>9} {:>8} {:>9}",
            self.name,
            memory(bytes as usize),
            operations(flops),
            time(roofline_ms),
        );
        const SHOWN: usize = 3;
        for (what, count) in self.launches.iter().take(SHOWN) {
            let _ = writeln!(out, "    {count} × {what}");
        }
        if self.launches.len() > SHOWN {
            let _ = writeln!(out, "    and {} more", self.launches.len() - SHOWN);
        }
    }
}

/// Milliseconds for people, short ones in microseconds.
pub fn time(ms: f64) -> String {
    if ms > 0.0 && ms < 1.0 { format!("{:.1} µs", ms * 1e3) } else { duration(ms) }
}

/// Floating-point operations for people: 1.23T.
pub fn operations(flops: f64) -> String {
    match flops {
        x if x < 1e3 => format!("{x:.0}"),
        x if x < 1e6 => format!("{:.1}k", x / 1e3),
        x if x < 1e9 => format!("{:.1}M", x / 1e6),
        x if x < 1e12 => format!("{:.1}G", x / 1e9),
        x => format!("{:.2}T", x / 1e12),
    }
}
