//! The training loop.

pub mod nan;
mod save;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use mngc_compiler::ir::{EntryKind, Module, Slot};
use mngc_runtime::{Backend, Tensor};
use serde::Serialize;

use crate::checkpoint;
use crate::data::{Batch, batch};
use crate::error::{Error, Result};
use crate::event::{Event, Start};
use crate::folder::RunFolder;
use crate::parameters;
use crate::plan::Plan;

pub use save::FINAL;

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The run folder.
    pub folder: PathBuf,
    /// Updates that were made.
    pub steps: u64,
    /// Loss of the last step, before its update.
    pub train_loss: Option<f64>,
    /// Loss of the first validation.
    pub first_val_loss: Option<f64>,
    /// Loss of the last validation.
    pub val_loss: Option<f64>,
    /// Seconds that it took.
    pub seconds: f64,
    /// Whether it was asked to stop before its end.
    pub stopped: bool,
    /// The last checkpoint that it wrote.
    pub checkpoint: Option<PathBuf>,
}

/// Runs a plan on a backend that was made for the plan's program and seed: initial values, steps, validations, files.
///
/// `on_event` sees every event after it was logged. Ends early, with a checkpoint, once the plan's `stop` is set. Stops
/// with an error when the loss is no longer finite. Whatever stops the run once its folder exists is named in the log's
/// last line.
pub fn train(mut plan: Plan, backend: &mut dyn Backend, on_event: &mut dyn FnMut(&Event)) -> Result<Report> {
    let options = plan.options;
    let folder = match (&options.out, &plan.resume) {
        (Some(out), _) => RunFolder::at(out)?,
        (None, Some(resume)) => {
            let folder = RunFolder::resume(&resume.folder, resume.manifest.step)?;
            checkpoint::abandon_later(&resume.folder, resume.manifest.step)?;
            folder
        }
        (None, None) => RunFolder::create(Path::new("runs"), &options.name)?,
    };
    let started = Instant::now();
    let values = plan.values.take();
    let mut run = Run {
        plan: &plan,
        backend,
        on_event,
        folder,
        steps: 0,
        train_loss: None,
        first_val_loss: None,
        val_loss: None,
        val_step: None,
        stopped: false,
        checkpoint: None,
        replay: None,
    };
    let result = run.whole(values);
    let seconds = started.elapsed().as_secs_f64();
    let error = result.as_ref().err().map(|e| explain(e));
    let ended = run.emit(Event::End { steps: run.steps, stopped: run.stopped, seconds, error });
    // The first thing that went wrong is the one to tell.
    result.and(ended)?;
    let Run { folder, steps, train_loss, first_val_loss, val_loss, stopped, checkpoint, .. } = run;
    let (folder, checkpoint) = (folder.path().to_path_buf(), checkpoint.map(|(_, path)| path));
    Ok(Report { folder, steps, train_loss, first_val_loss, val_loss, seconds, stopped, checkpoint })
}

/// An error with its causes.
fn explain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", explain(source)),
        None => error.to_string(),
    }
}

/// Gives every slot its first value, and then some of them others.
pub fn initialize(backend: &mut dyn Backend, module: &Module, values: Vec<(Slot, Tensor)>) -> Result<()> {
    run_entry(backend, EntryKind::Init, &BTreeMap::new(), 0)?;
    if values.is_empty() {
        return Ok(());
    }
    for (slot, tensor) in values {
        let set = backend.set_slot(slot, tensor);
        set.map_err(|source| Error::Slot { name: module.slots[slot].name.clone(), source })?;
    }
    if module.entries.contains_key(&EntryKind::Refresh.into()) {
        run_entry(backend, EntryKind::Refresh, &BTreeMap::new(), 0)?;
    }
    Ok(())
}

fn run_entry(
    backend: &mut dyn Backend,
    entry: EntryKind,
    inputs: &BTreeMap<String, Tensor>,
    step: u64,
) -> Result<BTreeMap<String, Tensor>> {
    backend.run(entry.into(), inputs, step).map_err(|source| Error::Backend { entry, source })
}

struct Run<'a> {
    plan: &'a Plan<'a>,
    backend: &'a mut dyn Backend,
    on_event: &'a mut dyn FnMut(&Event),
    folder: RunFolder,
    /// Updates so far, those before a checkpoint included.
    steps: u64,
    train_loss: Option<f64>,
    first_val_loss: Option<f64>,
    val_loss: Option<f64>,
    /// Updates before that validation.
    val_step: Option<u64>,
    /// Whether it ended because it was asked to.
    stopped: bool,
    /// The last checkpoint in the run folder that is of this run, with its step.
    checkpoint: Option<(u64, PathBuf)>,
    /// The slots as they were before the step that runs, where it may have to be run again.
    replay: Option<Vec<(Slot, Tensor)>>,
}

impl Run<'_> {
    fn whole(&mut self, values: Option<Vec<(Slot, Tensor)>>) -> Result<()> {
        let start = Box::new(self.start());
        match &self.plan.resume {
            Some(resume) => {
                self.steps = resume.manifest.step;
                (self.val_loss, self.val_step) = (resume.manifest.val_loss, resume.manifest.val_step);
                if self.plan.options.out.is_none() {
                    self.checkpoint = Some((self.steps, resume.path.clone()));
                }
                let (step, checkpoint) = (self.steps, resume.path.clone());
                self.emit(Event::Resume { step, checkpoint, start })?;
            }
            None => self.emit(Event::Start(start))?,
        }
        initialize(self.backend, &self.plan.program.module, values.unwrap_or_default())?;
        let mut done = self.keep_for_replay();
        if self.plan.resume.is_none() {
            done = done.and_then(|()| self.validate_if_due());
        }
        self.located(done)?;
        while self.steps < self.plan.steps {
            if self.plan.options.stop.load(Ordering::Relaxed) {
                self.stopped = true;
                return self.checkpoint();
            }
            let done = self.keep_for_replay();
            let done = done
                .and_then(|()| self.step())
                .and_then(|()| self.validate_if_due())
                .and_then(|()| self.checkpoint_if_due());
            self.located(done)?;
        }
        let done = self.save_parameters();
        self.located(done)
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
        let counts = parameters::count(module);
        Start {
            model: recipe.model.clone(),
            source: options.sources.clone(),
            set: options.set.clone(),
            program_hash: self.plan.program_hash.clone(),
            device: self.backend.name().to_string(),
            backend: self.backend.details(),
            precision: options.precision.clone(),
            seed: options.seed,
            steps: *steps,
            schedule_steps: recipe.steps,
            batch: recipe.batch,
            sequence: recipe.sequence,
            micro_sequences: recipe.micro_sequences,
            parameters: counts.total,
            active_parameters: counts.active,
            embedding_parameters: counts.embedding,
            tokens_needed: self.plan.tokens_needed(),
            tokens_found: data.tokens(),
            data: paths(data),
            val: val.as_ref().map(|(_, shards)| paths(shards)).unwrap_or_default(),
            init: options.init.clone(),
            version: env!("CARGO_PKG_VERSION").to_string(),
            time: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs()),
            folder: self.folder.path().to_path_buf(),
        }
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
        self.finite("train_loss", step, train_loss)
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
        (self.val_loss, self.val_step) = (Some(val_loss), Some(step));
        self.first_val_loss = self.first_val_loss.or(self.val_loss);
        self.emit(Event::Val { step, val_loss, ms: milliseconds(started), tokens: validation.tokens as u64 })?;
        self.finite("val_loss", step, val_loss)
    }

    fn loss(&mut self, entry: EntryKind, batch: Batch, step: u64) -> Result<f64> {
        let outputs = self.run(entry, batch.inputs(), step)?;
        outputs.get("loss").and_then(Tensor::item).ok_or(Error::NoOutput { entry, name: "loss" })
    }

    fn run(
        &mut self,
        entry: EntryKind,
        inputs: BTreeMap<String, Tensor>,
        step: u64,
    ) -> Result<BTreeMap<String, Tensor>> {
        run_entry(self.backend, entry, &inputs, step)
    }

    /// Keeps the slots for [`nan::locate`]. Where one is spoilt, those before the step that spoilt it stay.
    fn keep_for_replay(&mut self) -> Result<()> {
        if self.plan.options.find_nan {
            let slots = self.slots()?;
            for (slot, tensor) in slots.iter().filter(|_| self.replay.is_some()) {
                let name = &self.plan.program.module.slots[*slot].name;
                self.check_finite(name, tensor)?;
            }
            self.replay = Some(slots);
        }
        Ok(())
    }

    /// In place of a number that is none, where it came from, if that was asked for.
    fn located(&self, done: Result<()>) -> Result<()> {
        match (done, &self.replay) {
            (Err(error @ Error::NotFinite { .. }), Some(slots)) => match nan::locate(self.plan, slots, &error) {
                Ok(Some(origin)) => Err(Error::Origin(Box::new(origin))),
                // The error that was to be explained says more than why it cannot be.
                Ok(None) | Err(_) => Err(error),
            },
            (done, _) => done,
        }
    }

    /// Fails where a number is none, with what can be done about it.
    fn finite(&self, what: &str, step: u64, value: f64) -> Result<()> {
        if value.is_finite() { Ok(()) } else { Err(self.diverged(what.into(), step, value)) }
    }

    fn diverged(&self, what: String, step: u64, value: f64) -> Error {
        let resumed = self.plan.resume.as_ref().map(|resume| &resume.path);
        let from = self.checkpoint.as_ref().map(|(_, path)| path).or(resumed);
        // In a folder of its own, the search does not cut a log that belongs to another run.
        let elsewhere = if self.checkpoint.is_none() { " --out NEW_FOLDER" } else { "" };
        let checkpoint = from.map(|path| {
            let path = shown(path);
            format!("`mngc run --resume {path} --find-nan{elsewhere}` finds where; the checkpoint itself is sound")
        });
        let again = || "the same command with --find-nan, into another folder, finds where".to_string();
        Error::NotFinite { what, step, value, checkpoint: checkpoint.or_else(|| Some(again())) }
    }
}

/// A path as an argument of a shell command.
pub fn shown(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || "/._-+=:@%,".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}
