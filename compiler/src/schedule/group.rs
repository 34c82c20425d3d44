//! Launches of one kernel on other tensors, none of which needs what another makes, become one launch with several
//! instances: a device pays for starting a launch as much as a small one takes to run.
//!
//! ```text
//!   a1 = norm(x1)  b1 = a1·a1ᵀ  a2 = norm(x2)  b2 = a2·a2ᵀ
//! ⟶ a1, a2 = norm(x1), norm(x2)  b1, b2 = a1·a1ᵀ, a2·a2ᵀ
//! ```
//!
//! Launches are taken in order; in init, refresh and update, where no activation is at stake, one step of all chains
//! after the other. One joins the first group that it may join by moving up to that group's place: all that it needs is
//! there by then. Else the last group that may move down to it: nobody has read what that one made. Else it begins a
//! group. Moving up makes results live longer, moving down operands; in the other entries a launch therefore moves only
//! over a few others, or with next to no memory.
//!
//! A launch that writes over a slot's value in place stays behind all that read it, so that grouping costs no copies.

use std::collections::HashMap;

use cranelift_entity::PrimaryMap;

use super::build::{Arg, Source, Step, Steps, Storage, StorageData, Tensor};
use super::kernel::Kernel;
use super::plan::{ALIGNMENT, Part};
use crate::ir::{DType, Entry, EntryKind, Module, Op, Output, Slot};

/// Whether launches of this kernel may be instances of one: what is small, or comes in numbers.
pub fn may_group(kernel: &Kernel) -> bool {
    matches!(kernel, Kernel::Rows(_) | Kernel::Dot(_) | Kernel::Op(Op::Transpose { .. }))
}

/// So many launches a launch may move over, whatever memory it takes.
const NEAR: usize = 12;

/// So many bytes may live longer, however far a launch moves.
const SMALL: usize = 64 << 10;

/// Bytes of the arena that the results of one group may take. More of them would not make a device any busier.
const MOST: usize = 1 << 30;

/// The launches of an entry in groups.
pub fn group(m: &Module, entry: &Entry, steps: Steps) -> Steps {
    let free = matches!(entry.key.kind, EntryKind::Init | EntryKind::Refresh | EntryKind::Update);
    let written = written(entry, &steps);
    let mut g = Grouper {
        m,
        steps: &steps.steps,
        storages: &steps.storages,
        written: &written,
        free,
        groups: Vec::new(),
        group_of: vec![0; steps.steps.len()],
        classes: Vec::new(),
    };
    let needs = needs(&steps, &written);
    for at in order(&needs, free) {
        g.add(at, &needs[at]);
    }
    let order = g.groups.into_iter().map(|group| group.members).filter(|members| !members.is_empty());
    let order: Vec<Vec<usize>> = order.collect();
    merged(steps, &order)
}

/// The slot that each storage becomes the value of.
fn written(entry: &Entry, steps: &Steps) -> HashMap<Storage, Slot> {
    let pairs = entry.outputs.iter().zip(&steps.results);
    let slot = |(output, result): (&Output, &Arg)| match (output, result) {
        (Output::Slot(slot), Arg::Tensor(tensor)) => Some((tensor.storage, *slot)),
        _ => None,
    };
    pairs.filter_map(slot).collect()
}

/// For each launch those that must stay before it: what makes its operands, and, if it writes a slot's value, all
/// earlier readers of the value before.
fn needs(steps: &Steps, written: &HashMap<Storage, Slot>) -> Vec<Vec<usize>> {
    let mut readers: HashMap<Slot, Vec<usize>> = HashMap::new();
    let mut all = Vec::new();
    for (at, step) in steps.steps.iter().enumerate() {
        let mut needs = Vec::new();
        for tensor in tensors(step) {
            match steps.storages[tensor.storage].source {
                Source::Launch(maker) => needs.push(maker),
                Source::Slot(slot) => readers.entry(slot).or_default().push(at),
                Source::Batch(_) | Source::Scalar(_) => {}
            }
        }
        for slot in step.results.iter().filter_map(|result| written.get(&result.storage)) {
            needs.extend(readers.get(slot).into_iter().flatten().filter(|&&reader| reader != at));
        }
        all.push(needs);
    }
    all
}

/// The order in which launches are taken: as they stand, or, where memory is free, step by step of all chains at once.
fn order(needs: &[Vec<usize>], free: bool) -> Vec<usize> {
    let mut order: Vec<usize> = (0..needs.len()).collect();
    if free {
        let mut depth = vec![0; needs.len()];
        for (at, needs) in needs.iter().enumerate() {
            depth[at] = needs.iter().map(|&need| depth[need] + 1).max().unwrap_or(0);
        }
        order.sort_by_key(|&at| depth[at]);
    }
    order
}

fn tensors(step: &Step) -> impl Iterator<Item = &Tensor> {
    step.args.iter().filter_map(|arg| match arg {
        Arg::Tensor(tensor) => Some(tensor),
        Arg::Const(..) => None,
    })
}

/// Launches that will be one. Groups stand in the order in which they run.
struct Group {
    /// By position; none where the group moved down and is another one now.
    members: Vec<usize>,
    /// The member at whose place the group stands.
    anchor: usize,
    /// Whether a launch that stands behind it needs it.
    needed: bool,
    /// What its results take of the arena.
    bytes: usize,
}

/// All that instances have in common.
#[derive(Clone, Debug, PartialEq)]
enum Alike {
    /// A tensor: its dtype, elements, and how its address is aligned; of a transposition its sizes too.
    Tensor { dtype: DType, elements: usize, offset: usize, sizes: Vec<usize> },
    /// A number, by its bits.
    Const(u64, DType),
}

/// Groups of launches that could be one, were there no dependencies.
struct Class {
    /// A launch of it.
    first: usize,
    alike: Vec<Alike>,
    /// In order.
    groups: Vec<usize>,
}

struct Grouper<'a> {
    m: &'a Module,
    steps: &'a [Step],
    storages: &'a PrimaryMap<Storage, StorageData>,
    written: &'a HashMap<Storage, Slot>,
    free: bool,
    groups: Vec<Group>,
    /// Of each launch so far.
    group_of: Vec<usize>,
    classes: Vec<Class>,
}

impl Grouper<'_> {
    fn add(&mut self, at: usize, needs: &[usize]) {
        let bytes = self.made(at);
        let class = may_group(&self.steps[at].kernel).then(|| self.class(at));
        let candidates = class.map_or(Vec::new(), |class| self.classes[class].groups.clone());
        let fits = |g: &&usize| self.groups[**g].bytes + bytes <= MOST;
        let up = candidates.iter().filter(fits).find(|&&g| self.may_rise(at, needs, g));
        let down = candidates.iter().rev().filter(fits).find(|&&g| self.may_sink(at, needs, g));
        let joined = match (up, down) {
            (Some(&g), _) => {
                self.groups[g].members.push(at);
                self.groups[g].bytes += bytes;
                g
            }
            (None, down) => {
                let mut group = Group { members: Vec::new(), anchor: at, needed: false, bytes };
                let new = self.groups.len();
                if let Some(&old) = down {
                    group.members = std::mem::take(&mut self.groups[old].members);
                    group.bytes += self.groups[old].bytes;
                    group.members.iter().for_each(|&member| self.group_of[member] = new);
                }
                group.members.push(at);
                self.groups.push(group);
                if let Some(class) = class {
                    self.classes[class].groups.retain(|&g| Some(&g) != down);
                    self.classes[class].groups.push(new);
                }
                new
            }
        };
        self.group_of[at] = joined;
        for &need in needs {
            self.groups[self.group_of[need]].needed = true;
        }
    }

    /// Whether a launch may move up into a group.
    fn may_rise(&self, at: usize, needs: &[usize], group: usize) -> bool {
        let ready = needs.iter().all(|&need| self.group_of[need] < group);
        let lives_longer = || self.steps[at].results.iter().map(|r| self.storages[r.storage].bytes).sum::<usize>();
        ready && (self.free || at - self.groups[group].anchor <= NEAR || lives_longer() <= SMALL)
    }

    /// Whether a group may move down to a launch.
    fn may_sink(&self, at: usize, needs: &[usize], group: usize) -> bool {
        let Group { members, needed, .. } = &self.groups[group];
        let sinks = |&member: &usize| self.free || at - member <= NEAR || self.taken(member) <= SMALL;
        !needed && needs.iter().all(|&need| self.group_of[need] != group) && members.iter().all(sinks)
    }

    /// Bytes that a launch reads of what others made.
    fn taken(&self, at: usize) -> usize {
        let data = tensors(&self.steps[at]).map(|tensor| &self.storages[tensor.storage]);
        data.filter(|data| matches!(data.source, Source::Launch(_))).map(|data| data.bytes).sum()
    }

    /// Bytes that a launch makes beside the values of slots.
    fn made(&self, at: usize) -> usize {
        let results = self.steps[at].results.iter().map(|result| result.storage);
        results.filter(|storage| !self.written.contains_key(storage)).map(|storage| self.storages[storage].bytes).sum()
    }

    fn class(&mut self, at: usize) -> usize {
        let alike = self.alike(&self.steps[at]);
        let kernel = &self.steps[at].kernel;
        let same = |class: &Class| class.alike == alike && self.steps[class.first].kernel == *kernel;
        self.classes.iter().position(same).unwrap_or_else(|| {
            self.classes.push(Class { first: at, alike, groups: Vec::new() });
            self.classes.len() - 1
        })
    }

    fn alike(&self, step: &Step) -> Vec<Alike> {
        let tensor = |tensor: &Tensor| {
            let sizes = self.m.dims.sizes(&tensor.ty.dims);
            let elements = sizes.iter().product();
            let by_sizes = matches!(step.kernel, Kernel::Op(_));
            let sizes = if by_sizes { sizes } else { Vec::new() };
            Alike::Tensor { dtype: tensor.ty.dtype, elements, offset: tensor.offset % ALIGNMENT, sizes }
        };
        let args = step.args.iter().map(|arg| match arg {
            Arg::Tensor(of) => tensor(of),
            Arg::Const(value, dtype) => Alike::Const(value.to_bits(), *dtype),
        });
        args.chain(step.results.iter().map(tensor)).collect()
    }
}

/// The launches that groups are.
fn merged(steps: Steps, order: &[Vec<usize>]) -> Steps {
    let Steps { mut storages, steps, results } = steps;
    let mut place = vec![0; steps.len()];
    let mut out = Vec::new();
    for (to, members) in order.iter().enumerate() {
        let mut members = members.iter().inspect(|&&at| place[at] = to).map(|&at| &steps[at]);
        let Some(first) = members.next() else { continue };
        let mut step = first.clone();
        for other in members {
            step.args.extend(other.args.iter().cloned());
            step.results.extend(other.results.iter().cloned());
            step.instances += other.instances;
            let new = other.parts.iter().filter(|part| !step.parts.contains(part));
            let new: Vec<Part> = new.copied().collect();
            step.parts.extend(new);
        }
        out.push(step);
    }
    for data in storages.values_mut() {
        if let Source::Launch(at) = &mut data.source {
            *at = place[*at];
        }
    }
    Steps { storages, steps: out, results }
}
