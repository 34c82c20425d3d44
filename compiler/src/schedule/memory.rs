//! Gives every tensor of an entry a place: the slots' own memory where a new value may take the place of the old one
//! (donation), an operand's place where a kernel allows it, else a range of the arena that is free from the launch that
//! writes it to the last one that reads it.

use std::collections::HashMap;

use cranelift_entity::{EntityRef, PrimaryMap, SecondaryMap};

use super::alias;
use super::build::{Arg, Source, Step, Steps, Storage, StorageData, Tensor};
use super::cluster::{self, Output as Stored};
use super::kernel::Kernel;
use super::plan::{ALIGNMENT, Buffer, BufferData, EntryPlan, Launch, Operand, Place, View};
use crate::ir::{Entry, Graph, Module, Op, Output, Slot, Type};

/// Places for the launches of an entry.
pub fn place(m: &Module, entry: &Entry, steps: Steps) -> EntryPlan {
    let mut p = Placer { m, storages: steps.storages, steps: steps.steps, home: SecondaryMap::new() };
    let outputs = p.outputs(entry, steps.results);
    p.finish(entry, outputs)
}

/// What is asked for when all launches have run.
struct Outputs {
    host: Vec<(String, Tensor)>,
    slots: Vec<(Slot, Storage)>,
}

struct Placer<'a> {
    m: &'a Module,
    storages: PrimaryMap<Storage, StorageData>,
    steps: Vec<Step>,
    /// The slot whose memory a made storage takes.
    home: SecondaryMap<Storage, Option<Slot>>,
}

impl Placer<'_> {
    fn made(&mut self, name: &str, kernel: Kernel, args: Vec<Arg>, ty: Type) -> Tensor {
        let source = Source::Launch(self.steps.len());
        let storage = self.storages.push(StorageData { bytes: self.m.bytes(&ty), source });
        let result = Tensor { storage, offset: 0, ty };
        self.steps.push(Step {
            name: name.into(),
            kernel,
            args,
            results: vec![result.clone()],
            instances: 1,
            loc: None,
            parts: Vec::new(),
        });
        result
    }

    /// A number as a tensor.
    fn filled(&mut self, value: f64, ty: Type) -> Tensor {
        let mut g = Graph::new("fill");
        let number = g.push1(Op::Const(crate::ir::F64(value)), vec![], Type::scalar(ty.dtype), None);
        let kernel = match cluster::compile(self.m, &g, &[], &[Stored { value: number, result: 0 }]) {
            Ok(program) => Kernel::Rows(program),
            Err(_) => Kernel::Op(Op::Const(crate::ir::F64(value))),
        };
        self.made("fill", kernel, vec![], ty)
    }

    /// Binds the results: decides which launches write slots in place and adds copies for what cannot be. Gives the
    /// outputs for the host, and what each slot holds at the end.
    fn outputs(&mut self, entry: &Entry, results: Vec<Arg>) -> Outputs {
        let mut tensors: Vec<Tensor> = Vec::new();
        let g = &self.m.funcs[entry.func];
        for (arg, &value) in results.into_iter().zip(&g.results) {
            let ty = g.ty(value).clone();
            tensors.push(match arg {
                Arg::Tensor(tensor) => tensor,
                Arg::Const(value, _) => self.filled(value, ty),
            });
        }
        let input = self.slots_read();
        let last = self.last_uses();
        // What is asked for at the end, other than by the slot that it is for.
        let mut claims: HashMap<Storage, usize> = HashMap::new();
        tensors.iter().for_each(|t| *claims.entry(t.storage).or_default() += 1);
        let mut host = Vec::new();
        let mut slots = Vec::new();
        let mut late: Vec<(Slot, Tensor)> = Vec::new();
        for (output, tensor) in entry.outputs.iter().zip(&tensors) {
            match output {
                Output::Host(name) => host.push((name.clone(), tensor.clone())),
                Output::Slot(slot) => {
                    let old = input.get(slot).copied();
                    let whole = tensor.offset == 0
                        && self.storages[tensor.storage].bytes == self.m.bytes(&self.m.slots[*slot].ty);
                    if old == Some(tensor.storage) && whole {
                        slots.push((*slot, tensor.storage));
                        continue;
                    }
                    if whole && claims[&tensor.storage] == 1 && self.may_donate(tensor.storage, old, &last, &claims) {
                        self.home[tensor.storage] = Some(*slot);
                        slots.push((*slot, tensor.storage));
                    } else {
                        late.push((*slot, tensor.clone()));
                    }
                }
            }
        }
        // First everything that is still to be read from a slot, then the slots.
        for (_, tensor) in host.iter_mut() {
            *tensor = self.outside_of_slots(tensor.clone());
        }
        let late: Vec<(Slot, Tensor)> =
            late.into_iter().map(|(slot, tensor)| (slot, self.outside_of_slots(tensor))).collect();
        for (slot, tensor) in late {
            let ty = self.m.slots[slot].ty.clone();
            let copy = self.made("copy", Kernel::Copy, vec![Arg::Tensor(tensor)], ty);
            self.home[copy.storage] = Some(slot);
            slots.push((slot, copy.storage));
        }
        Outputs { host, slots }
    }

    fn slots_read(&self) -> HashMap<Slot, Storage> {
        let slot = |(storage, data): (Storage, &StorageData)| match data.source {
            Source::Slot(slot) => Some((slot, storage)),
            _ => None,
        };
        self.storages.iter().filter_map(slot).collect()
    }

    fn outside_of_slots(&mut self, tensor: Tensor) -> Tensor {
        if matches!(self.storages[tensor.storage].source, Source::Slot(_)) {
            let ty = tensor.ty.clone();
            return self.made("copy", Kernel::Copy, vec![Arg::Tensor(tensor)], ty);
        }
        tensor
    }

    /// The last launch that reads each storage.
    fn last_uses(&self) -> SecondaryMap<Storage, Option<usize>> {
        let mut last = SecondaryMap::new();
        for (at, step) in self.steps.iter().enumerate() {
            for arg in &step.args {
                if let Arg::Tensor(tensor) = arg {
                    last[tensor.storage] = Some(at);
                }
            }
        }
        last
    }

    /// Whether the launch that makes `new` may write it over `old`, the slot's value at the start.
    fn may_donate(
        &self,
        new: Storage,
        old: Option<Storage>,
        last: &SecondaryMap<Storage, Option<usize>>,
        claims: &HashMap<Storage, usize>,
    ) -> bool {
        let Source::Launch(at) = self.storages[new].source else { return false };
        let Some(old) = old else { return true };
        if claims.contains_key(&old) {
            return false;
        }
        match last[old] {
            None => true,
            Some(read) if read < at => true,
            Some(read) if read == at => self.in_place(at, old, new),
            Some(_) => false,
        }
    }

    /// Whether launch `at` may write `result` where its operand `operand` lies.
    fn in_place(&self, at: usize, operand: Storage, result: Storage) -> bool {
        let step = &self.steps[at];
        let mut args = step.args.iter().enumerate().filter_map(|(i, arg)| match arg {
            Arg::Tensor(tensor) if tensor.storage == operand => Some((i, tensor)),
            _ => None,
        });
        let (Some((arg, tensor)), None) = (args.next(), args.next()) else { return false };
        let Some(r) = step.results.iter().position(|t| t.storage == result) else { return false };
        // Other instances may not have read theirs yet.
        let (args, results) = (step.args.len() / step.instances, step.results.len() / step.instances);
        tensor.offset == 0
            && arg / args == r / results
            && self.storages[operand].bytes == self.storages[result].bytes
            && tensor.ty.dtype.bytes() == step.results[r].ty.dtype.bytes()
            && alias::allows(&step.kernel, arg % args, r % results)
    }

    fn finish(self, entry: &Entry, outputs: Outputs) -> EntryPlan {
        let mut last = self.last_uses();
        let end = self.steps.len();
        outputs.host.iter().for_each(|(_, tensor)| last[tensor.storage] = Some(end));
        let mut buffers: PrimaryMap<Buffer, BufferData> = PrimaryMap::new();
        let mut slots: HashMap<Slot, Buffer> = HashMap::new();
        let mut of: SecondaryMap<Storage, Option<Buffer>> = SecondaryMap::new();
        let mut slot_buffer = |slot: Slot, bytes: usize, buffers: &mut PrimaryMap<Buffer, BufferData>| {
            *slots
                .entry(slot)
                .or_insert_with(|| buffers.push(BufferData { bytes, place: Place::Slot(slot), first: 0, last: end }))
        };
        for (storage, data) in self.storages.iter() {
            let place = match &data.source {
                Source::Slot(slot) => {
                    of[storage] = Some(slot_buffer(*slot, data.bytes, &mut buffers));
                    continue;
                }
                Source::Batch(name) => Place::Batch(name.clone()),
                Source::Scalar(scalar) => Place::Scalar(*scalar),
                Source::Launch(_) => continue,
            };
            of[storage] = Some(buffers.push(BufferData { bytes: data.bytes, place, first: 0, last: end }));
        }
        for (at, step) in self.steps.iter().enumerate() {
            let mut taken: Vec<Buffer> = Vec::new();
            let args = step.args.len() / step.instances;
            for (r, result) in step.results.iter().enumerate() {
                let instance = r * step.instances / step.results.len();
                let own = &step.args[instance * args..][..args];
                let storage = result.storage;
                let until = last[storage].unwrap_or(at);
                if let Some(slot) = self.home[storage] {
                    of[storage] = Some(slot_buffer(slot, self.storages[storage].bytes, &mut buffers));
                    continue;
                }
                let donor = own.iter().find_map(|arg| match arg {
                    Arg::Tensor(t) if last[t.storage] == Some(at) && self.in_place(at, t.storage, storage) => {
                        of[t.storage].filter(|&b| matches!(buffers[b].place, Place::Arena(_)) && !taken.contains(&b))
                    }
                    _ => None,
                });
                of[storage] = Some(match donor {
                    Some(buffer) => {
                        taken.push(buffer);
                        buffers[buffer].last = until;
                        buffer
                    }
                    None => buffers.push(BufferData {
                        bytes: self.storages[storage].bytes,
                        place: Place::Arena(0),
                        first: at,
                        last: until,
                    }),
                });
            }
        }
        let arena = pack(&mut buffers);
        let view = |tensor: &Tensor| View {
            value: tensor.storage.index() as u32,
            buffer: of[tensor.storage].unwrap_or(Buffer::new(0)),
            offset: tensor.offset,
            ty: tensor.ty.clone(),
        };
        let operand = |arg: &Arg| match arg {
            Arg::Tensor(tensor) => Operand::View(view(tensor)),
            Arg::Const(value, dtype) => Operand::Const(*value, *dtype),
        };
        let launches = self.steps.iter().map(|step| Launch {
            name: step.name.clone(),
            kernel: step.kernel.clone(),
            args: step.args.iter().map(operand).collect(),
            results: step.results.iter().map(view).collect(),
            instances: step.instances,
            loc: step.loc,
            parts: step.parts.clone(),
        });
        let launches = launches.collect();
        let host = outputs.host.iter().map(|(name, tensor)| (name.clone(), view(tensor))).collect();
        let slots = outputs.slots.iter().map(|&(slot, storage)| (slot, storage.index() as u32)).collect();
        EntryPlan { key: entry.key, buffers, launches, outputs: host, slots, arena }
    }
}

/// Gives buffers of the arena their offsets, the largest first, each in the smallest gap among those that are alive
/// together with it. Gives the size of the arena.
fn pack(buffers: &mut PrimaryMap<Buffer, BufferData>) -> usize {
    let mut order: Vec<Buffer> = buffers.keys().filter(|&b| matches!(buffers[b].place, Place::Arena(_))).collect();
    order.sort_by_key(|&b| (std::cmp::Reverse(buffers[b].bytes), buffers[b].first, b));
    let mut placed: Vec<(usize, usize, Buffer)> = Vec::new();
    let mut arena = 0;
    for b in order {
        let BufferData { bytes, first, last, .. } = buffers[b];
        let size = bytes.max(1).next_multiple_of(ALIGNMENT);
        let mut best: Option<(usize, usize)> = None;
        let mut at = 0;
        // In order of offset, as they are kept.
        for &(start, stop, other) in &placed {
            let other = &buffers[other];
            if other.last < first || last < other.first {
                continue;
            }
            if start >= at + size && best.is_none_or(|(gap, _)| start - at < gap) {
                best = Some((start - at, at));
            }
            at = at.max(stop);
        }
        let offset = best.map_or(at, |(_, offset)| offset);
        buffers[b].place = Place::Arena(offset);
        arena = arena.max(offset + size);
        let position = placed.partition_point(|&(start, stop, _)| (start, stop) < (offset, offset + size));
        placed.insert(position, (offset, offset + size, b));
    }
    arena
}
