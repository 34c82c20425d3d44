//! One device with all that it holds: slots, arena, kernels, captured entries. It lives in a thread of its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use mngc_compiler::ir::{EntryKey, Module, Output, Slot};
use mngc_compiler::schedule::Plan;
use mngc_kernels_gen::Listing;
use mngc_kernels_gen::listing::{Needs, on_host};

use super::driver::{self, Context, Event, Kind, Stream};
use super::error::CudaError;
use super::images::Images;
use super::memory::Memory;
use super::program::{Places, Program};
use super::{Facts, Progress};
use crate::backend::{Backend, KernelTime};
use crate::cpu::Cpu;
use crate::error::{Error, Result};
use crate::tensor::{Format, Tensor};

/// A device. Fields that need the context stand before it, so that they go first.
#[derive(Debug)]
pub struct Rank {
    module: Arc<Module>,
    seed: u64,
    /// Which slots hold something.
    is_set: Vec<bool>,
    /// Entries that run on the host, with their plans.
    host: Plan,
    programs: BTreeMap<EntryKey, Program>,
    /// Runs and seconds of each launch, where they are asked for.
    times: Option<BTreeMap<EntryKey, Vec<(usize, f64)>>>,
    places: Places,
    images: Images,
    compute: Stream,
    copies: Stream,
    handed_over: Event,
    context: Context,
}

impl Rank {
    /// Makes a device ready: compiles and loads every kernel, takes all memory, captures every entry.
    pub fn new(
        module: Arc<Module>,
        plan: &Plan,
        seed: u64,
        kind: Kind,
        ordinal: usize,
        progress: &Progress,
    ) -> Result<Rank> {
        let context = Context::new(ordinal)?;
        let device = &context.description;
        let listing = Listing::new(&module, plan, device).map_err(CudaError::from)?;
        let is_soft = kind == Kind::Soft;
        let (free, total) = context.memory()?;
        let needs = Needs::of(plan, &listing);
        let needed = if is_soft { needs.total_apart() } else { needs.total() };
        if needed > free {
            return Err(CudaError::Memory { needed, free, total }.into());
        }
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let calls = listing.entries.values().flat_map(|calls| calls.all());
        let images = Images::load(calls, kind, device, threads, &**progress)?;
        let slots = module.slots.values().map(|slot| Memory::new(module.bytes(&slot.ty)));
        let places = Places {
            slots: slots.collect::<std::result::Result<_, _>>()?,
            arena: if is_soft { None } else { Some(Memory::new(needs.arena)?) },
            workspace: Memory::new(needs.workspace)?,
            counters: Memory::zeroed(listing.counters())?,
        };
        let (compute, copies) = (Stream::new()?, Stream::new()?);
        let mut programs = BTreeMap::new();
        for (&key, calls) in &listing.entries {
            let entry = module.entries.get(&key).ok_or(Error::NoEntry(key))?;
            let plan = plan.entries.get(&key).ok_or(Error::NoEntry(key))?;
            let mut program = Program::new(&module, entry, plan, calls, &places)?;
            program.capture(&images, &places, &compute)?;
            programs.insert(key, program);
        }
        let mut host = plan.clone();
        host.entries.retain(|key, _| on_host(key));
        host.arena = host.entries.values().map(|entry| entry.arena).max().unwrap_or(0);
        let is_set = vec![false; places.slots.len()];
        let handed_over = Event::new(false)?;
        Ok(Rank {
            module,
            seed,
            is_set,
            host,
            programs,
            times: None,
            places,
            images,
            compute,
            copies,
            handed_over,
            context,
        })
    }

    /// What a log says of it.
    pub fn facts(&self) -> Result<Facts> {
        let Images { nvrtc, compiled, fault, .. } = &self.images;
        Ok(Facts {
            device: self.context.description.name.clone(),
            capability: self.context.description.capability,
            driver: driver::version()?,
            nvrtc: nvrtc.clone(),
            kernels: self.images.len(),
            compiled: *compiled,
            cache_fault: fault.clone(),
        })
    }

    fn slot_memory(&self, slot: Slot) -> Result<&Memory> {
        self.places.slots.get(slot.as_u32() as usize).ok_or_else(|| Error::NoSlot(slot.to_string()))
    }

    /// As [`Backend::slot`].
    pub fn slot(&self, slot: Slot) -> Result<Tensor> {
        let memory = self.slot_memory(slot)?;
        let data = &self.module.slots[slot];
        if !self.is_set[slot.as_u32() as usize] {
            return Err(Error::SlotUnset(data.name.clone()));
        }
        Tensor::from_bytes(self.module.dims.sizes(&data.ty.dims), data.ty.dtype.into(), &memory.read()?)
    }

    /// As [`Backend::set_slot`].
    pub fn set_slot(&mut self, slot: Slot, value: &Tensor) -> Result<()> {
        let memory = self.slot_memory(slot)?;
        let data = &self.module.slots[slot];
        let sizes = self.module.dims.sizes(&data.ty.dims);
        value.expect(|| format!("slot `{}`", data.name), data.ty.dtype, &sizes)?;
        memory.write(&value.to_bytes(Format::from(data.ty.dtype))?)?;
        self.is_set[slot.as_u32() as usize] = true;
        Ok(())
    }

    /// As [`Backend::run`].
    pub fn run(
        &mut self,
        key: EntryKey,
        inputs: &BTreeMap<String, Tensor>,
        step: u64,
    ) -> Result<BTreeMap<String, Tensor>> {
        if on_host(&key) {
            return self.run_on_host(key, inputs, step);
        }
        let program = self.programs.get_mut(&key).ok_or(Error::NoEntry(key))?;
        if let Some(name) = inputs.keys().find(|name| program.inputs.iter().all(|known| known.name != **name)) {
            return Err(Error::UnknownInput { entry: key, name: name.clone() });
        }
        for &slot in &program.reads {
            if !self.is_set[slot.as_u32() as usize] {
                return Err(Error::SlotUnset(self.module.slots[slot].name.clone()));
            }
        }
        for input in &program.inputs {
            let name = &input.name;
            let tensor = inputs.get(name).ok_or_else(|| Error::MissingInput { entry: key, name: name.clone() })?;
            tensor.expect(|| format!("input `{name}`"), input.dtype, &input.sizes)?;
        }
        program.hand_over(&self.module, inputs, step, &self.copies)?;
        self.handed_over.record(&self.copies)?;
        self.compute.wait_for(&self.handed_over)?;
        match self.times.as_mut().and_then(|times| times.get_mut(&key)) {
            None => {
                program.launch(&self.compute)?;
                self.compute.wait(key.kind.name())?;
            }
            Some(times) => {
                let mut moments = Vec::new();
                program.queue(&self.images, &self.places, &self.compute, |_| {
                    let moment = Event::new(true)?;
                    moment.record(&self.compute)?;
                    moments.push(moment);
                    Ok(())
                })?;
                self.compute.wait(key.kind.name())?;
                for (time, pair) in times.iter_mut().zip(moments.windows(2)) {
                    *time = (time.0 + 1, time.1 + pair[1].seconds_since(&pair[0])?);
                }
            }
        }
        for slot in &program.writes {
            self.is_set[slot.as_u32() as usize] = true;
        }
        program.returned()
    }

    /// Runs an entry that draws random numbers on the host, so that they are the same on every device.
    fn run_on_host(
        &mut self,
        key: EntryKey,
        inputs: &BTreeMap<String, Tensor>,
        step: u64,
    ) -> Result<BTreeMap<String, Tensor>> {
        let mut module = (*self.module).clone();
        module.entries.retain(|other, _| *other == key);
        let outputs = &self.module.entries.get(&key).ok_or(Error::NoEntry(key))?.outputs;
        let slot = |output: &Output| if let Output::Slot(slot) = output { Some(*slot) } else { None };
        let writes: Vec<Slot> = outputs.iter().filter_map(slot).collect();
        let mut cpu = Cpu::new(module, &self.host, self.seed, None)?;
        let out = cpu.run(key, inputs, step)?;
        for slot in writes {
            self.set_slot(slot, &cpu.slot(slot)?)?;
        }
        Ok(out)
    }

    /// Bytes of device memory that it holds.
    pub fn memory(&self) -> usize {
        let Places { slots, arena, workspace, counters } = &self.places;
        let shared = slots.iter().chain(arena).chain([workspace, counters]).map(Memory::bytes).sum::<usize>();
        shared + self.programs.values().map(Program::bytes).sum::<usize>()
    }

    /// As [`Backend::profile`].
    pub fn profile(&mut self, on: bool) {
        let fresh = |program: &Program| vec![(0, 0.0); program.launches.len()];
        self.times = on.then(|| self.programs.iter().map(|(&key, program)| (key, fresh(program))).collect());
    }

    /// As [`Backend::times`].
    pub fn times(&self) -> Vec<KernelTime> {
        let mut out = Vec::new();
        for (&entry, times) in self.times.iter().flatten() {
            for (launch, &(runs, seconds)) in self.programs[&entry].launches.iter().zip(times) {
                let (name, kernel, cost) = (launch.name.clone(), launch.kernel, launch.cost);
                out.push(KernelTime { entry, name, kernel, runs, seconds, cost });
            }
        }
        out
    }
}
