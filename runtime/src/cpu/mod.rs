//! The CPU backend: executes the launches of a plan at the machine's speed.
//!
//! All memory is taken when the backend is made: slots, one arena for the values of all entries, and what kernels need
//! beside them. Launches run one after another; each splits its work into tasks by sizes alone, and every element is
//! computed by one task from start to end, so that results do not depend on the number of threads, to the bit.
//!
//! The files: `memory` turns addresses into slices; `program` binds launches to memory; `job` is the list of kernels;
//! `check` is what they rely on. `rows`, `registers`, `elementwise`, `fold`, `math` and `convert` run row programs;
//! `dot` and `gemm` products; `loss`, `attention`, `layout` and `index` the rest. `simd` chooses instructions,
//! `context` holds threads.

mod attention;
mod check;
mod context;
mod convert;
mod dot;
mod elementwise;
mod fold;
mod gemm;
mod index;
mod job;
mod layout;
mod loss;
mod math;
mod memory;
mod program;
mod registers;
mod rows;
pub mod simd;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use mngc_compiler::ir::{DType, EntryKey, Module, Slot, SlotData};
use mngc_compiler::schedule::kernel::{DotKernel, Epilogue, Strides};
use mngc_compiler::schedule::{Plan, verify};

use crate::backend::{Backend, KernelTime};
use crate::error::{Error, Result};
use crate::tensor::Tensor;
use context::{Context, Need, Threads};
use memory::{Memory, Region};
use program::{BatchInput, Places, Program};

/// The CPU as a backend.
#[derive(Debug)]
pub struct Cpu {
    module: Arc<Module>,
    seed: u64,
    threads: Threads,
    slots: Vec<Memory>,
    /// Which slots hold something.
    is_set: Vec<bool>,
    arena: Memory,
    programs: BTreeMap<EntryKey, Program>,
    /// Runs and seconds of each launch, where they are asked for.
    times: Option<BTreeMap<EntryKey, Vec<(usize, f64)>>>,
}

impl Cpu {
    /// A backend whose slots are still empty. `module` is a lowered module and `plan` its plan; `threads` counts threads,
    /// one for each core where it is none.
    ///
    /// Fails where the plan does not fit the module, or the system gives no memory or no threads.
    pub fn new(module: impl Into<Arc<Module>>, plan: &Plan, seed: u64, threads: Option<usize>) -> Result<Cpu> {
        let module = module.into();
        verify::plan(&module, plan).map_err(|e| Error::Plan(e.to_string()))?;
        let slots = module.slots.values().map(|slot| Memory::zeroed(module.bytes(&slot.ty)));
        let slots = slots.collect::<Result<Vec<Memory>>>()?;
        let arena = Memory::zeroed(plan.arena)?;
        let mut programs = BTreeMap::new();
        let mut need = Need::default();
        for (&key, entry) in &module.entries {
            let plan = plan.entries.get(&key).ok_or(Error::NoEntry(key))?;
            let program = Program::new(&module, entry, plan, &Places { slots: &slots, arena: &arena })?;
            need = need.max(program.need());
            programs.insert(key, program);
        }
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.unwrap_or(0)).build();
        let threads = Threads::new(pool.map_err(|e| Error::Threads(e.to_string()))?, need)?;
        let is_set = vec![false; slots.len()];
        Ok(Cpu { module, seed, threads, slots, is_set, arena, programs, times: None })
    }

    fn slot_data(&self, slot: Slot) -> Result<&SlotData> {
        self.module.slots.get(slot).ok_or_else(|| Error::NoSlot(slot.to_string()))
    }

    /// A slot's value, whether it holds one or not.
    fn slot_region(&self, slot: Slot) -> Result<Region> {
        let ty = &self.slot_data(slot)?.ty;
        let memory = &self.slots[slot.as_u32() as usize];
        memory
            .region(0, ty.dtype, self.module.dims.elements(&ty.dims))
            .ok_or(Error::OutOfMemory { bytes: memory.bytes() })
    }

    /// What would stop a run before it starts.
    fn check(&self, entry: EntryKey, program: &Program, inputs: &BTreeMap<String, Tensor>) -> Result<()> {
        if let Some(name) = inputs.keys().find(|name| program.inputs.iter().all(|known| known.name != **name)) {
            return Err(Error::UnknownInput { entry, name: name.clone() });
        }
        for &slot in &program.reads {
            if !self.is_set[slot.as_u32() as usize] {
                return Err(Error::SlotUnset(self.slot_data(slot)?.name.clone()));
            }
        }
        for BatchInput { name, dtype, sizes, .. } in &program.inputs {
            let tensor = inputs.get(name).ok_or_else(|| Error::MissingInput { entry, name: name.clone() })?;
            tensor.expect(|| format!("input `{name}`"), *dtype, sizes)?;
        }
        Ok(())
    }
}

impl Backend for Cpu {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn slot(&self, slot: Slot) -> Result<Tensor> {
        let data = self.slot_data(slot)?;
        if !self.is_set[slot.as_u32() as usize] {
            return Err(Error::SlotUnset(data.name.clone()));
        }
        // SAFETY: nothing runs between two calls.
        unsafe { program::read(&self.slot_region(slot)?, &self.module.dims.sizes(&data.ty.dims)) }
    }

    fn set_slot(&mut self, slot: Slot, value: Tensor) -> Result<()> {
        let data = self.slot_data(slot)?;
        let sizes = self.module.dims.sizes(&data.ty.dims);
        value.expect(|| format!("slot `{}`", data.name), data.ty.dtype, &sizes)?;
        // SAFETY: nothing runs between two calls.
        unsafe { program::write(&self.slot_region(slot)?, &value) };
        self.is_set[slot.as_u32() as usize] = true;
        Ok(())
    }

    fn run(
        &mut self,
        entry: EntryKey,
        inputs: &BTreeMap<String, Tensor>,
        step: u64,
    ) -> Result<BTreeMap<String, Tensor>> {
        let program = self.programs.get(&entry).ok_or(Error::NoEntry(entry))?;
        self.check(entry, program, inputs)?;
        for BatchInput { name, places, .. } in &program.inputs {
            if let Some(tensor) = inputs.get(name) {
                // SAFETY: nothing runs yet.
                places.iter().for_each(|place| unsafe { program::write(place, tensor) });
            }
        }
        for (scalar, place) in &program.scalars {
            let value = self.module.scalars[*scalar].expr.eval(step);
            // SAFETY: nothing runs yet.
            unsafe { program::write_floats(place, &[value]) };
        }
        let ctx = Context { threads: &self.threads, seed: self.seed, step };
        let times = self.times.as_mut().and_then(|times| times.get_mut(&entry));
        self.threads.install(|| match times {
            None => program.launches.iter().for_each(|launch| launch.job.run(&ctx, &launch.args, &launch.results)),
            Some(times) => {
                for (launch, time) in program.launches.iter().zip(times) {
                    let start = Instant::now();
                    launch.job.run(&ctx, &launch.args, &launch.results);
                    *time = (time.0 + 1, time.1 + start.elapsed().as_secs_f64());
                }
            }
        });
        program.writes.iter().for_each(|slot| self.is_set[slot.as_u32() as usize] = true);
        let mut out = BTreeMap::new();
        for (name, region, sizes) in &program.outputs {
            // SAFETY: nothing runs any more.
            out.insert(name.clone(), unsafe { program::read(region, sizes) }?);
        }
        Ok(out)
    }

    fn threads(&self) -> usize {
        self.threads.count()
    }

    fn memory(&self) -> usize {
        let slots: usize = self.slots.iter().map(Memory::bytes).sum();
        let programs: usize = self.programs.values().map(Program::bytes).sum();
        slots + self.arena.bytes() + programs + self.threads.bytes()
    }

    fn profile(&mut self, on: bool) -> bool {
        let fresh = |program: &Program| vec![(0, 0.0); program.launches.len()];
        self.times = on.then(|| self.programs.iter().map(|(&key, program)| (key, fresh(program))).collect());
        true
    }

    fn times(&self) -> Vec<KernelTime> {
        let mut out = Vec::new();
        for (&entry, times) in self.times.iter().flatten() {
            for (launch, &(runs, seconds)) in self.programs[&entry].launches.iter().zip(times) {
                let (name, kernel, cost) = (launch.name.clone(), launch.kernel, launch.cost);
                out.push(KernelTime { entry, name, kernel, runs, seconds, cost });
            }
        }
        out
    }

    fn peak_flops(&self) -> Option<f64> {
        const SIDE: usize = 1536;
        const RUNS: usize = 5;
        let memory = Memory::zeroed(3 * SIDE * SIDE * 4).ok()?;
        let part = |i: usize| memory.region(i * SIDE * SIDE * 4, DType::F32, SIDE * SIDE);
        let (a, b, c) = (part(0)?, part(1)?, part(2)?);
        let kernel = DotKernel {
            batch: 1,
            m: SIDE,
            n: SIDE,
            k: SIDE,
            a: Strides { batch: 0, row: SIDE, inner: 1 },
            b: Strides { batch: 0, row: 1, inner: SIDE },
            scale: 1.0,
            symmetric: false,
            epilogue: Epilogue::Store,
        };
        let dot = dot::Dot::new(&kernel, &[a, b], &[c]).ok()?;
        // The program's own kernels may need less memory than this one.
        let pool = rayon::ThreadPoolBuilder::new().num_threads(self.threads.count()).build().ok()?;
        let threads = Threads::new(pool, dot.need()).ok()?;
        let ctx = Context { threads: &threads, seed: 0, step: 0 };
        let seconds = (0..RUNS).map(|_| {
            let start = Instant::now();
            threads.install(|| dot.run(&ctx, &[a, b], &[c]));
            start.elapsed().as_secs_f64()
        });
        let best = seconds.fold(f64::INFINITY, f64::min);
        Some(2.0 * (SIDE * SIDE * SIDE) as f64 / best)
    }
}
