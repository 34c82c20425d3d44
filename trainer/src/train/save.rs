//! What a run writes beside its log: checkpoints, gradients, the parameters at its end.

use std::time::Instant;

use mngc_compiler::ir::{Slot, SlotRole};
use mngc_runtime::{Format, Tensor};

use super::{Run, milliseconds};
use crate::checkpoint::{self, Manifest};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::weights::{self, Named};

impl Run<'_> {
    /// By cadence, and at the end where `--steps` cut the schedule off: it can go on from there.
    pub(super) fn checkpoint_if_due(&mut self) -> Result<()> {
        let every = self.plan.checkpoint_every;
        let cut_off = self.steps == self.plan.steps && self.steps < self.plan.program.recipe.steps;
        let unwanted = self.plan.options.checkpoint_every == Some(0);
        let due = every != 0 && self.steps.is_multiple_of(every) || cut_off && !unwanted;
        if due { self.checkpoint() } else { Ok(()) }
    }

    /// Writes a checkpoint, unless the run has just begun with it.
    pub(super) fn checkpoint(&mut self) -> Result<()> {
        if self.checkpoint.as_ref().is_some_and(|(step, _)| *step == self.steps) {
            return Ok(());
        }
        let started = Instant::now();
        let module = &self.plan.program.module;
        let precision = &self.plan.options.precision;
        let slots = checkpoint::slots(module);
        let tensors = slots.map(|(slot, data, _)| self.named(slot, &data.name, checkpoint::format(data, precision)));
        let tensors: Vec<Named> = tensors.collect::<Result<_>>()?;
        // The last update is followed by no loss that would show it, and a checkpoint that is spoilt is none.
        tensors.iter().try_for_each(|t| self.check_finite(&t.name, &t.tensor))?;
        self.folder.sync()?;
        let path = checkpoint::save(self.folder.path(), self.manifest(), tensors)?;
        checkpoint::prune(self.folder.path(), self.plan.options.keep)?;
        self.checkpoint = Some((self.steps, path.clone()));
        self.emit(Event::Checkpoint { step: self.steps, path, ms: milliseconds(started) })
    }

    fn manifest(&self) -> Manifest {
        let (options, recipe) = (self.plan.options, &self.plan.program.recipe);
        let module = &self.plan.program.module;
        Manifest {
            schema: checkpoint::SCHEMA,
            step: self.steps,
            tokens: self.steps * recipe.batch as u64,
            seed: options.seed,
            precision: options.precision.clone(),
            device: self.backend.name().to_string(),
            program_hash: self.plan.program_hash.clone(),
            source: options.sources.clone(),
            set: options.set.clone(),
            name: options.name.clone(),
            micro_sequences: recipe.micro_sequences,
            checkpoint_every: self.plan.checkpoint_every,
            keep: options.keep,
            data: options.data.clone(),
            val: options.val.clone(),
            train_loss: self.train_loss,
            val_loss: self.val_loss,
            val_step: self.val_step,
            slots: checkpoint::entries(module),
            state_hash: String::new(),
            may_differ: checkpoint::MAY_DIFFER.map(String::from).to_vec(),
            version: env!("CARGO_PKG_VERSION").to_string(),
        }
    }

    /// The gradients of the batch mean, in f32 under the names of their parameters.
    pub(super) fn save_gradients(&self, step: u64) -> Result<()> {
        let slots = &self.plan.program.module.slots;
        let tensors = slots.iter().filter_map(|(slot, data)| match data.role {
            SlotRole::Gradient(parameter) => Some(self.named(slot, &slots[parameter].name, Format::F32)),
            _ => None,
        });
        let file = self.folder.file(&format!("gradients-{step}.safetensors"));
        weights::write(&file, tensors.collect::<Result<_>>()?)
    }

    /// The parameters, in the dtypes that they are stored in.
    pub(super) fn save_parameters(&self) -> Result<()> {
        let params = self.plan.program.module.params();
        let tensors = params.map(|(slot, data)| self.named(slot, &data.name, data.ty.dtype.into()));
        let tensors: Vec<Named> = tensors.collect::<Result<_>>()?;
        tensors.iter().try_for_each(|t| self.check_finite(&t.name, &t.tensor))?;
        weights::write(&self.folder.file(FINAL), tensors)
    }

    /// Fails where an update has left a value that is no number.
    pub(super) fn check_finite(&self, name: &str, tensor: &Tensor) -> Result<()> {
        let values = tensor.as_floats().unwrap_or_default();
        match values.iter().find(|x| !x.is_finite()) {
            Some(&value) => Err(self.diverged(format!("a value of `{name}`"), self.steps.saturating_sub(1), value)),
            None => Ok(()),
        }
    }

    /// What a checkpoint would hold, now.
    pub(super) fn slots(&self) -> Result<Vec<(Slot, Tensor)>> {
        let slots = checkpoint::slots(&self.plan.program.module);
        slots.map(|(slot, data, _)| Ok((slot, self.tensor(slot, &data.name)?))).collect()
    }

    fn named(&self, slot: Slot, name: &str, format: Format) -> Result<Named> {
        Ok(Named { name: name.to_string(), format, tensor: self.tensor(slot, name)? })
    }

    fn tensor(&self, slot: Slot, name: &str) -> Result<Tensor> {
        self.backend.slot(slot).map_err(|source| Error::Slot { name: name.to_string(), source })
    }
}

/// The file of the parameters at the end of a run.
pub const FINAL: &str = "final.safetensors";
