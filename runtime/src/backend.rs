//! What every backend offers: slots that persist, and entries that run on them.

use std::collections::BTreeMap;

use mngc_compiler::ir::{EntryKey, Slot};
use mngc_compiler::schedule::cost::Cost;

use crate::error::Result;
use crate::tensor::Tensor;

/// An executor of one module. It owns the module's slots, on the host or on a device.
///
/// All calls are synchronous for the caller: what a call returns, and every error of it, is final when it returns.
/// Results depend on the slots, the inputs, the step and the seed that the backend was made with, and on nothing else:
/// not on the number of threads, nor on earlier runs.
pub trait Backend {
    /// The name in `--device` and in logs.
    fn name(&self) -> &'static str;

    /// A copy of a slot's value, on the host, in the logical shape of the slot.
    ///
    /// Fails where the slot does not exist or holds nothing yet.
    fn slot(&self, slot: Slot) -> Result<Tensor>;

    /// Replaces a slot's value. Sizes and kind must be those of the slot; floats are rounded to its dtype. Slots that
    /// depend on this one (shadows) keep their value until the entry `refresh` or `update` runs.
    fn set_slot(&mut self, slot: Slot, value: Tensor) -> Result<()>;

    /// Runs an entry at a step.
    ///
    /// Every slot is read as it was at the start, host scalars are evaluated at `step` and handed over as f32 of rank 0,
    /// `inputs` must be exactly the batch inputs of the entry. Slots are written when everything has been computed: an
    /// error found before the run starts (a missing entry, an unset slot, an input of another shape) changes none of
    /// them. Gives what the entry hands to the host, by name.
    fn run(
        &mut self,
        entry: EntryKey,
        inputs: &BTreeMap<String, Tensor>,
        step: u64,
    ) -> Result<BTreeMap<String, Tensor>>;

    /// What a log says of it beside its name, by name.
    fn details(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    /// Threads that it computes with.
    fn threads(&self) -> usize {
        1
    }

    /// Bytes of tensors that it holds at once: slots, values of an entry, and what kernels need beside them.
    fn memory(&self) -> usize {
        0
    }

    /// Whether kernels are timed from now on, all times being forgotten. Gives false where it cannot.
    fn profile(&mut self, _on: bool) -> bool {
        false
    }

    /// The times of all kernels since [`Backend::profile`], one for each launch of each entry.
    fn times(&self) -> Vec<KernelTime> {
        Vec::new()
    }

    /// Floating-point operations a second that its matrix products reach at most, measured now; none where it cannot.
    fn peak_flops(&self) -> Option<f64> {
        None
    }
}

/// The time of one launch.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelTime {
    /// The entry that it is part of.
    pub entry: EntryKey,
    /// The launch's name.
    pub name: String,
    /// The kind of kernel.
    pub kernel: &'static str,
    /// How often it ran.
    pub runs: usize,
    /// Time of all runs.
    pub seconds: f64,
    /// What one run costs.
    pub cost: Cost,
}
