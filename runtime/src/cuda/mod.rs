//! NVIDIA's GPUs, and the soft GPU behind the same driver interface, as a backend.
//!
//! Everything is made when the backend is: kernels are compiled and loaded and their limits checked, all memory is taken,
//! and each entry is captured as one graph. A run hands scalars and inputs over and launches the graph. Each device has
//! a thread of its own, which holds its context.
//!
//! The files: `driver` is the driver with its contexts, streams and graphs; `memory` allocations; `images` kernels;
//! `program` binds an entry to memory; `rank` is a device with all of this.

mod driver;
mod error;
mod images;
mod memory;
mod program;
mod rank;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use mngc_compiler::ir::{EntryKey, Module, Slot};
use mngc_compiler::schedule::{Plan, verify};
use mngc_kernels_gen::Device;
pub use mngc_kernels_gen::libraries;

pub use driver::Kind;
pub use error::CudaError;
use rank::Rank;

use crate::backend::{Backend, KernelTime};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// Called while kernels are compiled, with how many are done, and of how many.
pub type Progress = Arc<dyn Fn(usize, usize) + Send + Sync>;

/// What a log says of the device and of the kernels on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its name.
    pub device: String,
    /// Compute capability as major · 10 + minor.
    pub capability: u32,
    /// Version of CUDA that the driver has.
    pub driver: String,
    /// Version of NVRTC; none where there are no kernels.
    pub nvrtc: Option<String>,
    /// Kernels that are loaded.
    pub kernels: usize,
    /// How many of them were compiled now; the others were found in the cache.
    pub compiled: usize,
    /// Why compiled kernels are not kept for the next run.
    pub cache_fault: Option<String>,
}

impl Facts {
    /// As a log has them.
    fn named(self) -> BTreeMap<String, String> {
        let Facts { device, capability, driver, nvrtc, kernels, compiled, cache_fault } = self;
        let mut named = BTreeMap::from([
            ("device".to_string(), device),
            ("capability".to_string(), format!("{}.{}", capability / 10, capability % 10)),
            ("driver".to_string(), driver),
            ("kernels".to_string(), kernels.to_string()),
            ("compiled".to_string(), compiled.to_string()),
        ]);
        named.extend(nvrtc.map(|version| ("nvrtc".to_string(), version)));
        named.extend(cache_fault.map(|fault| ("cache_fault".to_string(), fault)));
        named
    }
}

/// A device that is there, before anything is done with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Present {
    /// What kernels are chosen by.
    pub device: Device,
    /// Bytes of its memory that nobody has.
    pub free: usize,
    /// Bytes of its memory.
    pub total: usize,
}

/// The first device of a driver.
pub fn present(kind: Kind) -> Result<Present> {
    open(kind)?;
    let context = driver::Context::new(0)?;
    let (free, total) = context.memory()?;
    Ok(Present { device: context.description.clone(), free, total })
}

/// Loads a driver that has enough devices.
fn open(kind: Kind) -> Result<()> {
    driver::open(kind)?;
    match driver::devices()? {
        found if found < WANTED => Err(CudaError::Devices { wanted: WANTED, found }.into()),
        _ => Ok(()),
    }
}

/// Devices that a program runs on.
const WANTED: usize = 1;

type Task = Box<dyn FnOnce(&mut Rank) + Send>;

/// GPUs as a backend.
#[derive(Debug)]
pub struct Cuda {
    kind: Kind,
    ranks: Vec<Worker>,
}

impl Cuda {
    /// A backend whose slots are still empty. `module` is a lowered module and `plan` its plan.
    ///
    /// Fails where there is no driver or device, a kernel cannot be made, or the device has not enough memory.
    pub fn new(module: impl Into<Arc<Module>>, plan: &Plan, seed: u64, kind: Kind) -> Result<Cuda> {
        Cuda::watched(module, plan, seed, kind, Arc::new(|_, _| {}))
    }

    /// As [`Cuda::new`], telling how far the compilation of kernels is.
    pub fn watched(
        module: impl Into<Arc<Module>>,
        plan: &Plan,
        seed: u64,
        kind: Kind,
        progress: Progress,
    ) -> Result<Cuda> {
        let module = module.into();
        verify::plan(&module, plan).map_err(|e| Error::Plan(e.to_string()))?;
        open(kind)?;
        let ranks = (0..WANTED).map(|ordinal| Worker::start(&module, plan, seed, kind, ordinal, &progress));
        Ok(Cuda { kind, ranks: ranks.collect::<Result<_>>()? })
    }

    /// What a log says of the first device.
    pub fn facts(&self) -> Result<Facts> {
        self.first(|rank| rank.facts())
    }

    fn first<R: Send + 'static>(&self, task: impl FnOnce(&mut Rank) -> Result<R> + Send + 'static) -> Result<R> {
        self.ranks.first().ok_or(CudaError::Gone(0))?.ask(task)
    }
}

/// The thread of a device.
#[derive(Debug)]
struct Worker {
    ordinal: usize,
    tasks: Option<Sender<Task>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts a thread and waits until its device is ready.
    fn start(
        module: &Arc<Module>,
        plan: &Plan,
        seed: u64,
        kind: Kind,
        ordinal: usize,
        progress: &Progress,
    ) -> Result<Worker> {
        let (tasks, inbox) = channel::<Task>();
        let (answer, ready) = channel();
        let (module, plan, progress) = (Arc::clone(module), plan.clone(), Arc::clone(progress));
        let thread = std::thread::Builder::new().name(format!("gpu {ordinal}")).spawn(move || {
            match Rank::new(module, &plan, seed, kind, ordinal, &progress) {
                Ok(mut rank) => {
                    let _ = answer.send(Ok(()));
                    inbox.into_iter().for_each(|task| task(&mut rank));
                }
                Err(error) => drop(answer.send(Err(error))),
            }
        });
        let thread = thread.map_err(|e| Error::Threads(e.to_string()))?;
        ready.recv().map_err(|_| CudaError::Gone(ordinal))??;
        Ok(Worker { ordinal, tasks: Some(tasks), thread: Some(thread) })
    }

    /// Does something in the device's thread and waits for the result.
    fn ask<R: Send + 'static>(&self, task: impl FnOnce(&mut Rank) -> Result<R> + Send + 'static) -> Result<R> {
        let gone = || CudaError::Gone(self.ordinal);
        let (answer, result) = channel();
        let task: Task = Box::new(move |rank| drop(answer.send(task(rank))));
        self.tasks.as_ref().ok_or_else(gone)?.send(task).map_err(|_| gone())?;
        result.recv().map_err(|_| gone())?
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Without a sender the thread's loop ends.
        self.tasks = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Backend for Cuda {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Nvidia => "cuda",
            Kind::Soft => "soft",
        }
    }

    fn details(&self) -> BTreeMap<String, String> {
        self.facts().map(|facts| facts.named()).unwrap_or_default()
    }

    fn slot(&self, slot: Slot) -> Result<Tensor> {
        self.first(move |rank| rank.slot(slot))
    }

    fn set_slot(&mut self, slot: Slot, value: Tensor) -> Result<()> {
        self.first(move |rank| rank.set_slot(slot, &value))
    }

    fn run(
        &mut self,
        entry: EntryKey,
        inputs: &BTreeMap<String, Tensor>,
        step: u64,
    ) -> Result<BTreeMap<String, Tensor>> {
        let inputs = inputs.clone();
        self.first(move |rank| rank.run(entry, &inputs, step))
    }

    fn memory(&self) -> usize {
        self.first(|rank| Ok(rank.memory())).unwrap_or(0)
    }

    fn profile(&mut self, on: bool) -> bool {
        self.first(move |rank| {
            rank.profile(on);
            Ok(())
        })
        .is_ok()
    }

    fn times(&self) -> Vec<KernelTime> {
        self.first(|rank| Ok(rank.times())).unwrap_or_default()
    }
}
