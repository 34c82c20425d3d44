//! The training loop.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use mngc_compiler::ir::{EntryKind, Slot, SlotRole};
use mngc_runtime::{Backend, Format, Tensor};
use serde::Serialize;

use crate::data::{Batch, batch};
use crate::error::{Error, Result};
use crate::event::{Event, Start, program_hash};
use crate::folder::RunFolder;
use crate::plan::Plan;
use crate::weights::{self, Named};

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The run folder.
    pub folder: PathBuf,
    /// Updates that were made.
    pub steps: u64,
    /// Loss of the last step, before its update.
    pub train_loss: Option<f64>,
    /// Loss of the last validation.
    pub val_loss: Option<f64>,
    /// Seconds that it took.
    pub seconds: f64,
}

/// Runs a plan on a backend that was made for the plan's program and seed: initial values, steps, validations, files.
///
/// `on_event` sees every event after it was logged. Stops with an error when the loss is no longer finite. Whatever
/// stops the run once its folder exists is named in the log's last line.
pub fn train(mut plan: Plan, backend: &mut dyn Backend, on_event: &mut dyn FnMut(&Event)) -> Result<Report> {
    let options = plan.options;
    let folder = match &options.out {
        Some(out) => RunFolder::at(out)?,
        None => RunFolder::create(Path::new("runs"), &options.name)?,
    };
    let started = Instant::now();
    let weights = plan.weights.take();
    let mut run = Run { plan: &plan, backend, on_event, folder, steps: 0, train_loss: None, val_loss: None };
    let result = run.whole(weights);
    let seconds = started.elapsed().as_secs_f64();
    let error = result.as_ref().err().map(|e| explain(e));
    let ended = run.emit(Event::End { steps: run.steps, seconds, error });
    // The first thing that went wrong is the one to tell.
    result.and(ended)?;
    let Run { folder, steps, train_loss, val_loss, .. } = run;
    Ok(Report { folder: folder.path().to_path_buf(), steps, train_loss, val_loss, seconds })
}

/// An error with its causes.
fn explain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", explain(source)),
        None => error.to_string(),
    }
}

struct Run<'a> {
    plan: &'a Plan<'a>,
    backend: &'a mut dyn Backend,
    on_event: &'a mut dyn FnMut(&Event),
    folder: RunFolder,
    /// Updates so far.
    steps: u64,
    train_loss: Option<f64>,
    val_loss: Option<f64>,
}

impl Run<'_> {
    fn whole(&mut self, weights: Option<Vec<(Slot, Tensor)>>) -> Result<()> {
        self.emit(Event::Start(Box::new(self.start())))?;
        self.initialize(weights)?;
        self.validate_if_due()?;
        while self.steps < self.plan.steps {
            self.step()?;
            self.validate_if_due()?;
        }
        self.save_parameters()
    }

    fn emit(&mut self, event: Event) -> Result<()> {
        self.folder.log(&event)?;
        (self.on_event)(&event);
        Ok(())
    }

    fn start(&self) -> Start {
        let Plan { program, options, steps, data, val, .. } = self.plan;
        let (module, recipe) = (&program.module, &program.recipe);
        let paths = |shards: &crate::Shards| shards.paths().map(Path::to_path_buf).collect::<Vec<_>>();
        let elements = |dims: &[_]| module.dims.elements(dims) as u64;
        Start {
            model: recipe.model.clone(),
            source: options.sources.clone(),
            set: options.set.clone(),
            program_hash: program_hash(module),
            device: self.backend.name().to_string(),
            precision: options.precision.clone(),
            seed: options.seed,
            steps: *steps,
            schedule_steps: recipe.steps,
            batch: recipe.batch,
            sequence: recipe.sequence,
            parameters: module.params().map(|(_, slot)| elements(&slot.ty.dims)).sum(),
            data: paths(data),
            val: val.as_ref().map(|(_, shards)| paths(shards)).unwrap_or_default(),
            init: options.init.clone(),
            version: env!("CARGO_PKG_VERSION").to_string(),
            time: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs()),
            folder: self.folder.path().to_path_buf(),
        }
    }

    /// Gives every slot its first value. Takes the weights, so that only the backend has them from here on.
    fn initialize(&mut self, weights: Option<Vec<(Slot, Tensor)>>) -> Result<()> {
        self.run(EntryKind::Init, BTreeMap::new(), 0)?;
        let Some(weights) = weights else { return Ok(()) };
        let module = &self.plan.program.module;
        for (slot, tensor) in weights {
            let name = || module.slots[slot].name.clone();
            let set = self.backend.set_slot(slot, tensor);
            set.map_err(|source| Error::Slot { name: name(), source })?;
        }
        if module.entries.contains_key(&EntryKind::Refresh.into()) {
            self.run(EntryKind::Refresh, BTreeMap::new(), 0)?;
        }
        Ok(())
    }

    /// Forward and backward over the whole batch, then the update.
    fn step(&mut self) -> Result<()> {
        let started = Instant::now();
        let recipe = &self.plan.program.recipe;
        let step = self.steps;
        let first = step * recipe.sequences() as u64;
        let mut train_loss = 0.0;
        for micro_step in 0..recipe.micro_steps() {
            let first = first + (micro_step * recipe.micro_sequences) as u64;
            let batch = batch(&self.plan.data, first, recipe.micro_sequences, recipe.sequence)?;
            // Each micro-step's loss is its share of the batch's mean already.
            train_loss += self.loss(EntryKind::MicroStep, batch, step)?;
        }
        if self.plan.options.dump_gradients.contains(&step) {
            self.save_gradients(step)?;
        }
        let outputs = self.run(EntryKind::Update, BTreeMap::new(), step)?;
        self.steps += 1;
        self.train_loss = Some(train_loss);
        let scalars = self.scalars(step, outputs);
        let ms = milliseconds(started);
        self.emit(Event::Step { step, train_loss, ms, tokens: recipe.batch as u64, scalars })?;
        finite("train_loss", step, train_loss)
    }

    /// What the log shows of a step beside its loss.
    fn scalars(&self, step: u64, outputs: BTreeMap<String, Tensor>) -> BTreeMap<String, f64> {
        let program = self.plan.program;
        let logged = program.recipe.logged.iter();
        let host = logged.map(|(name, scalar)| (name.clone(), program.module.scalars[*scalar].expr.eval(step)));
        let device = outputs.into_iter().filter_map(|(name, tensor)| Some((name, tensor.item()?)));
        host.chain(device).filter(|(name, _)| !Event::STEP_FIELDS.contains(&name.as_str())).collect()
    }

    fn validate_if_due(&mut self) -> Result<()> {
        if !self.plan.validates_after(self.steps) {
            return Ok(());
        }
        let Some((validation, shards)) = &self.plan.val else { return Ok(()) };
        let started = Instant::now();
        let step = self.steps;
        let sequences = validation.tokens / validation.sequence;
        let mut sum = 0.0;
        for first in (0..sequences).step_by(validation.micro_sequences) {
            let batch = batch(shards, first as u64, validation.micro_sequences, validation.sequence)?;
            sum += self.loss(EntryKind::Evaluate, batch, step)?;
        }
        // The runs have equally many sequences, so that the mean of their means is the mean of all.
        let val_loss = sum / (sequences / validation.micro_sequences) as f64;
        self.val_loss = Some(val_loss);
        self.emit(Event::Val { step, val_loss, ms: milliseconds(started), tokens: validation.tokens as u64 })?;
        finite("val_loss", step, val_loss)
    }

    fn loss(&mut self, entry: EntryKind, batch: Batch, step: u64) -> Result<f64> {
        let inputs = BTreeMap::from([("tokens".to_string(), batch.tokens), ("targets".to_string(), batch.targets)]);
        let outputs = self.run(entry, inputs, step)?;
        outputs.get("loss").and_then(Tensor::item).ok_or(Error::NoOutput { entry, name: "loss" })
    }

    fn run(
        &mut self,
        entry: EntryKind,
        inputs: BTreeMap<String, Tensor>,
        step: u64,
    ) -> Result<BTreeMap<String, Tensor>> {
        self.backend.run(entry.into(), &inputs, step).map_err(|source| Error::Backend { entry, source })
    }

    /// The gradients of the batch mean, in f32 under the names of their parameters.
    fn save_gradients(&self, step: u64) -> Result<()> {
        let slots = &self.plan.program.module.slots;
        let tensors = slots.iter().filter_map(|(slot, data)| match data.role {
            SlotRole::Gradient(parameter) => Some(self.named(slot, &slots[parameter].name, Format::F32)),
            _ => None,
        });
        let file = self.folder.file(&format!("gradients-{step}.safetensors"));
        weights::write(&file, tensors.collect::<Result<_>>()?)
    }

    /// The parameters, in the dtypes that they are stored in.
    fn save_parameters(&self) -> Result<()> {
        let params = self.plan.program.module.params();
        let tensors = params.map(|(slot, data)| self.named(slot, &data.name, data.ty.dtype.into()));
        let tensors: Vec<Named> = tensors.collect::<Result<_>>()?;
        // The last update is followed by no loss that would show it.
        for Named { name, tensor, .. } in &tensors {
            let values = tensor.as_floats().unwrap_or_default();
            if let Some(&value) = values.iter().find(|x| !x.is_finite()) {
                let what = format!("a value of parameter `{name}`");
                return Err(Error::NotFinite { what, step: self.steps.saturating_sub(1), value });
            }
        }
        weights::write(&self.folder.file("final.safetensors"), tensors)
    }

    fn named(&self, slot: Slot, name: &str, format: Format) -> Result<Named> {
        let tensor = self.backend.slot(slot);
        let tensor =
            tensor.map_err(|source| Error::Slot { name: self.plan.program.module.slots[slot].name.clone(), source })?;
        Ok(Named { name: name.to_string(), format, tensor })
    }
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn finite(what: &str, step: u64, value: f64) -> Result<()> {
    if value.is_finite() { Ok(()) } else { Err(Error::NotFinite { what: what.into(), step, value }) }
}
