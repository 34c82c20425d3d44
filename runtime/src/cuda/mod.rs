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
pub use mngc_kernels_gen::libraries;

pub use driver::Kind;
pub use error::CudaError;
use rank::Rank;

use crate::backend::{Backend, KernelTime};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

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
        let module = module.into();
        verify::plan(&module, plan).map_err(|e| Error::Plan(e.to_string()))?;
        driver::open(kind)?;
        let (wanted, found) = (1, driver::devices()?);
        if found < wanted {
            return Err(CudaError::Devices { wanted, found }.into());
        }
        let ranks = (0..wanted).map(|ordinal| Worker::start(&module, plan, seed, kind, ordinal));
        Ok(Cuda { kind, ranks: ranks.collect::<Result<_>>()? })
    }

    /// The name of the first device.
    pub fn device(&self) -> Result<String> {
        self.first(|rank| Ok(rank.device().to_string()))
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
    fn start(module: &Arc<Module>, plan: &Plan, seed: u64, kind: Kind, ordinal: usize) -> Result<Worker> {
        let (tasks, inbox) = channel::<Task>();
        let (answer, ready) = channel();
        let (module, plan) = (Arc::clone(module), plan.clone());
        let thread = std::thread::Builder::new().name(format!("gpu {ordinal}")).spawn(move || {
            match Rank::new(module, &plan, seed, kind, ordinal) {
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
