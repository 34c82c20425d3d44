//! All kernels of a plan: the calls of every launch that a device runs, each kernel once, with what it costs.

use std::collections::BTreeMap;
use std::sync::Arc;

use mngc_compiler::ir::{DType, EntryKey, EntryKind, Module, Op};
use mngc_compiler::schedule::Plan;
use mngc_compiler::schedule::cost::{self, Cost};
use mngc_compiler::schedule::kernel::Kernel;
use mngc_compiler::schedule::plan::{ALIGNMENT, EntryPlan, Launch, Operand, Place};

use crate::call::{Call, Generated, Source};
use crate::device::Device;
use crate::registry::generate;
use crate::spec::{Refusal, Spec};

/// A launch for which there is no kernel.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("entry `{}`, launch {launch} `{name}` on {device}: {why}", entry.kind.name())]
pub struct NoKernel {
    /// The entry.
    pub entry: EntryKey,
    /// The launch, by position.
    pub launch: usize,
    /// Its name: the ops that it computes.
    pub name: String,
    /// The device.
    pub device: String,
    /// Size and limit.
    pub why: Refusal,
}

/// The calls of an entry, before any memory is there.
#[derive(Clone, Debug)]
pub struct Calls {
    /// Of each launch of the plan. A copy has none.
    pub launches: Vec<Generated>,
}

impl Calls {
    /// The calls of an entry on a device.
    pub fn new(m: &Module, plan: &EntryPlan, device: &Device) -> Result<Calls, NoKernel> {
        let launches = plan.launches.iter().enumerate().map(|(at, launch)| {
            if launch.kernel == Kernel::Copy {
                return Ok(Generated::default());
            }
            generate(&Spec::of(m, launch), device).map_err(|why| NoKernel {
                entry: plan.key,
                launch: at,
                name: launch.name.clone(),
                device: device.name.clone(),
                why,
            })
        });
        Ok(Calls { launches: launches.collect::<Result<_, _>>()? })
    }

    /// All calls.
    pub fn all(&self) -> impl Iterator<Item = &Call> {
        self.launches.iter().flat_map(|launch| &launch.calls)
    }

    /// Bytes of workspace that its launches need, one after another.
    pub fn workspace(&self) -> usize {
        self.launches.iter().map(|launch| launch.workspace).max().unwrap_or(0)
    }

    /// Bytes of counters.
    pub fn counters(&self) -> usize {
        self.launches.iter().map(|launch| launch.counters).max().unwrap_or(0)
    }
}

/// The calls of every entry that a device runs.
#[derive(Clone, Debug)]
pub struct Listing {
    /// By entry.
    pub entries: BTreeMap<EntryKey, Calls>,
}

/// One kernel, with the most that any of its calls asks for.
#[derive(Clone, Debug)]
pub struct Distinct {
    /// Its text.
    pub source: Arc<Source>,
    /// Threads of a block.
    pub block: u32,
    /// Dynamic shared memory of a block, bytes.
    pub shared: usize,
    /// What it does in each entry that calls it.
    pub uses: BTreeMap<EntryKey, Use>,
    /// The launches that it is part of: kind and ops, with how many of them there are.
    pub launches: BTreeMap<(&'static str, String), usize>,
}

/// What a kernel does in one run of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Use {
    /// How often it is called.
    pub calls: usize,
    /// Its share of what launches cost.
    pub cost: Cost,
    /// Seconds that this takes at the least: [`roofline`].
    pub seconds: f64,
}

impl Distinct {
    /// Whether it multiplies matrices: products and attention, whose speed is that of the whole step.
    pub fn is_product(&self) -> bool {
        is_product(&self.source.name)
    }
}

fn is_product(name: &str) -> bool {
    ["dot_", "symmetric_dot_", "attention_"].iter().any(|family| name.starts_with(family))
}

impl Listing {
    /// Of a plan on a device.
    pub fn new(m: &Module, plan: &Plan, device: &Device) -> Result<Listing, NoKernel> {
        let entries = plan.entries.iter().filter(|(key, _)| !on_host(key));
        let entries = entries.map(|(&key, entry)| Ok((key, Calls::new(m, entry, device)?)));
        Ok(Listing { entries: entries.collect::<Result<_, _>>()? })
    }

    /// Bytes of workspace that all entries share.
    pub fn workspace(&self) -> usize {
        self.entries.values().map(Calls::workspace).max().unwrap_or(0)
    }

    /// Bytes of counters that all entries share.
    pub fn counters(&self) -> usize {
        self.entries.values().map(Calls::counters).max().unwrap_or(0)
    }

    /// Each kernel once, by name. What a launch costs is shared in equal parts by its calls that multiply matrices; by
    /// all of its calls where none does.
    pub fn kernels(&self, m: &Module, plan: &Plan, device: &Device) -> Vec<Distinct> {
        let mut found: BTreeMap<&str, Distinct> = BTreeMap::new();
        for (key, calls) in &self.entries {
            let Some(entry) = plan.entries.get(key) else { continue };
            for (launch, generated) in entry.launches.iter().zip(&calls.launches) {
                let (cost, seconds) = (cost::of(m, launch), roofline(m, launch, device));
                let multiply = |call: &&Call| is_product(&call.source.name);
                let products = generated.calls.iter().filter(multiply).count();
                let mut named: Vec<&str> = Vec::new();
                for call in &generated.calls {
                    let name = call.source.name.as_str();
                    let kernel = found.entry(name).or_insert_with(|| Distinct::new(call));
                    kernel.block = kernel.block.max(call.block);
                    kernel.shared = kernel.shared.max(call.shared);
                    if !named.contains(&name) {
                        named.push(name);
                        *kernel.launches.entry((launch.kernel.name(), launch.name.clone())).or_default() += 1;
                    }
                    let of = kernel.uses.entry(*key).or_default();
                    of.calls += 1;
                    let share = match products {
                        0 => 1.0 / generated.calls.len() as f64,
                        n if multiply(&call) => 1.0 / n as f64,
                        _ => 0.0,
                    };
                    of.cost.flops += cost.flops * share;
                    of.cost.bytes += cost.bytes * share;
                    of.seconds += seconds * share;
                }
            }
        }
        found.into_values().collect()
    }
}

impl Distinct {
    fn new(call: &Call) -> Distinct {
        Distinct {
            source: Arc::clone(&call.source),
            block: 0,
            shared: 0,
            uses: BTreeMap::new(),
            launches: BTreeMap::new(),
        }
    }
}

/// Bytes of a device's memory that a program needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Slots.
    pub slots: usize,
    /// Values of the largest entry.
    pub arena: usize,
    /// What kernels want beside operands and results.
    pub workspace: usize,
    /// Inputs and host scalars of all entries, and counters.
    pub inputs: usize,
    /// What replaces the arena where each value has memory of its own, as on the soft GPU.
    pub apart: usize,
}

impl Needs {
    /// What a plan needs with its calls.
    pub fn of(plan: &Plan, listing: &Listing) -> Needs {
        let mut needs =
            Needs { slots: plan.slots, workspace: listing.workspace(), inputs: listing.counters(), ..Needs::default() };
        for entry in listing.entries.keys().filter_map(|key| plan.entries.get(key)) {
            needs.arena = needs.arena.max(entry.arena);
            for data in entry.buffers.values() {
                match data.place {
                    Place::Arena(_) => needs.apart += data.bytes,
                    Place::Batch(_) => needs.inputs += data.bytes,
                    Place::Scalar(_) => needs.inputs += ALIGNMENT,
                    Place::Slot(_) => {}
                }
            }
        }
        needs
    }

    /// All of it on a GPU.
    pub fn total(&self) -> usize {
        self.slots + self.arena + self.workspace + self.inputs
    }

    /// All of it on the soft GPU.
    pub fn total_apart(&self) -> usize {
        self.slots + self.apart + self.workspace + self.inputs
    }
}

/// Seconds that a launch takes at the least: as long as its bytes need from and to memory, or its operations in the units
/// that do them.
pub fn roofline(m: &Module, launch: &Launch, device: &Device) -> f64 {
    let Cost { flops, bytes } = cost::of(m, launch);
    let first = launch.args.iter().find_map(|arg| match arg {
        Operand::View(view) => Some(view.ty.dtype),
        Operand::Const(..) => None,
    });
    let multiplies = match &launch.kernel {
        Kernel::Dot(_) | Kernel::Loss(_) => true,
        Kernel::Op(op) => matches!(op, Op::Attention { .. } | Op::AttentionGrad { .. }),
        Kernel::Rows(_) | Kernel::Copy => false,
    };
    let is_tensor = multiplies && matches!(first, Some(DType::BF16 | DType::F16));
    let peak = if is_tensor { device.tensor_flops } else { device.f32_flops };
    (bytes / device.bandwidth).max(flops / peak)
}

/// Whether an entry runs on the host: it draws random numbers, once.
pub fn on_host(key: &EntryKey) -> bool {
    key.kind == EntryKind::Init
}
