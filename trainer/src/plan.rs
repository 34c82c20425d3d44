//! What a run will do, with everything checked that can be before a device is touched.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use mngc_compiler::ir::{EntryKind, Input, Slot, SlotRole, print};
use mngc_compiler::{Program, Recipe, Validation};
use mngc_runtime::Tensor;

use crate::checkpoint::{self, Manifest};
use crate::data::Shards;
use crate::demo;
use crate::error::{CheckpointFault, Error, Result};
use crate::event::{Event, Source, program_hash};
use crate::weights;

/// What a run is asked to do, beside what its model file says.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Names a new run folder: `runs/NAME-001`.
    pub name: String,
    /// The texts that the program was compiled from, for the log.
    pub sources: Vec<Source>,
    /// Settings of the command line, for the log.
    pub set: BTreeMap<String, String>,
    /// Training shards instead of the file's: a path or a glob.
    pub data: Option<String>,
    /// Validation shards instead of the file's: a path or a glob.
    pub val: Option<String>,
    /// Safetensors to start from instead of drawn parameters.
    pub init: Option<PathBuf>,
    /// The run folder; none makes a new one.
    pub out: Option<PathBuf>,
    /// Stops after so many steps; the schedule stays as it is.
    pub steps: Option<u64>,
    /// The seed that the backend was made with.
    pub seed: u64,
    /// As in the log's first line; `f64` where the backend rounds nothing.
    pub precision: String,
    /// Steps whose gradients are written to files.
    pub dump_gradients: Vec<u64>,
    /// Goes on from this checkpoint, or from the last one of this run folder.
    pub resume: Option<PathBuf>,
    /// Steps from one checkpoint to the next, 0 for none; without it, those of the checkpoint that the run goes on from,
    /// or those from one validation to the next.
    pub checkpoint_every: Option<u64>,
    /// Checkpoints that are kept beside the best, at least 1.
    pub keep: usize,
    /// Ends the run after the step that runs, with a checkpoint, once it is set.
    pub stop: Arc<AtomicBool>,
    /// Where the loss is no number, names the op that made it so. Each step is slower.
    pub find_nan: bool,
}

/// A run that is ready to start: data opened and long enough, weights read and fitting.
#[derive(Debug)]
pub struct Plan<'a> {
    /// What runs.
    pub program: &'a Program,
    /// [`program_hash`] of what runs.
    pub program_hash: String,
    /// What was asked for.
    pub options: &'a Options,
    /// Steps that the run makes.
    pub steps: u64,
    /// Training data.
    pub data: Shards,
    /// Validation data with its recipe.
    pub val: Option<(&'a Validation, Shards)>,
    /// What it goes on from.
    pub resume: Option<Resume>,
    /// Values of slots to start from.
    pub values: Option<Vec<(Slot, Tensor)>>,
    /// Steps from one checkpoint to the next; 0 for none.
    pub checkpoint_every: u64,
}

/// A checkpoint that a run goes on from.
#[derive(Debug)]
pub struct Resume {
    /// The checkpoint.
    pub path: PathBuf,
    /// The run folder that it is in.
    pub folder: PathBuf,
    /// What it says of itself.
    pub manifest: Manifest,
}

impl<'a> Plan<'a> {
    /// Opens data and weights and checks them against what the run needs.
    pub fn new(program: &'a Program, options: &'a Options) -> Result<Plan<'a>> {
        let recipe = &program.recipe;
        check_recipe(recipe)?;
        let steps = steps(recipe, options)?;
        check_dumps(program, options, steps)?;
        // A checkpoint of another model is told as such, whatever else would not fit then.
        let program_hash = program_hash(&program.module);
        let read = |path| read_checkpoint(path, program, &program_hash, options, steps);
        let kept = options.resume.as_deref().map(read).transpose()?;
        let (resume, mut values) = kept.unzip();
        let done = resume.as_ref().map_or(0, |resume: &Resume| resume.manifest.step);
        if let Some(step) = options.dump_gradients.iter().find(|&&step| step < done) {
            let message = format!("--dump-gradients {step} was before the checkpoint, which is of step {done}");
            return Err(Error::Option(message));
        }
        let data = open_training(recipe, options, steps)?;
        let val = open_validation(recipe, options)?;
        check_scalars(program, steps)?;
        if let Some(path) = &options.init {
            values = Some(weights::read(path, &program.module)?);
        }
        let by_validation = recipe.validate.as_ref().map_or(0, |validation| validation.every);
        let before = resume.as_ref().map(|resume| resume.manifest.checkpoint_every);
        let checkpoint_every = options.checkpoint_every.or(before).unwrap_or(by_validation);
        Ok(Plan { program, program_hash, options, steps, data, val, resume, values, checkpoint_every })
    }

    /// Tokens of training data that the run reads.
    pub fn tokens_needed(&self) -> u64 {
        tokens_needed(&self.program.recipe, self.steps)
    }

    /// Whether the run validates after so many updates.
    pub fn validates_after(&self, updates: u64) -> bool {
        self.val.as_ref().is_some_and(|(validation, _)| {
            updates == 0 || updates == self.steps || updates.checked_rem(validation.every) == Some(0)
        })
    }
}

/// The checkpoint with its slots, where it is one of this program that the run can go on from.
fn read_checkpoint(
    path: &Path,
    program: &Program,
    program_hash: &str,
    options: &Options,
    steps: u64,
) -> Result<(Resume, Vec<(Slot, Tensor)>)> {
    let path = checkpoint::find(path)?;
    let manifest = checkpoint::manifest(&path)?;
    let fail = |fault| Error::Checkpoint { path: path.clone(), fault };
    if manifest.program_hash != program_hash {
        return Err(fail(CheckpointFault::Program));
    }
    if manifest.tokens != manifest.step.saturating_mul(program.recipe.batch as u64) {
        let message = format!("{} tokens are not those of {} steps", manifest.tokens, manifest.step);
        return Err(fail(CheckpointFault::Manifest(message)));
    }
    if manifest.step > steps {
        return Err(fail(CheckpointFault::Ended { step: manifest.step, steps }));
    }
    let folder = checkpoint::run_folder(&path)?;
    if options.out.is_none() && !folder.join(crate::folder::LOG).is_file() {
        return Err(fail(CheckpointFault::NoLog));
    }
    let values = checkpoint::load(&path, &manifest, &program.module)?;
    Ok((Resume { path, folder, manifest }, values))
}

/// The divisions that the loop relies on.
fn check_recipe(recipe: &Recipe) -> Result<()> {
    let whole = |what: &str, tokens: usize, sequence: usize, micro: usize| {
        let fits = sequence > 0 && micro > 0 && tokens > 0 && tokens.is_multiple_of(sequence);
        if fits && (tokens / sequence).is_multiple_of(micro) {
            return Ok(());
        }
        Err(Error::Recipe(format!("{what} of {tokens} tokens do not divide into runs of {micro} × {sequence} tokens")))
    };
    whole("batches", recipe.batch, recipe.sequence, recipe.micro_sequences)?;
    if let Some(v) = &recipe.validate {
        whole("validations", v.tokens, v.sequence, v.micro_sequences)?;
    }
    let reserved = recipe.logged.iter().find(|(name, _)| Event::STEP_FIELDS.contains(&name.as_str()));
    match reserved {
        Some((name, _)) => Err(Error::Recipe(format!("`{name}` is a field of the log: give the value another name"))),
        None => Ok(()),
    }
}

fn steps(recipe: &Recipe, options: &Options) -> Result<u64> {
    match options.steps {
        Some(steps) if steps > recipe.steps => Err(Error::Option(format!(
            "--steps {steps} is more than the schedule has ({}): make the schedule longer with --set steps={steps}",
            recipe.steps
        ))),
        Some(steps) => Ok(steps),
        None => Ok(recipe.steps),
    }
}

fn check_dumps(program: &Program, options: &Options, steps: u64) -> Result<()> {
    if let Some(step) = options.dump_gradients.iter().find(|&&step| step >= steps) {
        let message = format!("--dump-gradients {step} is never reached: this run has {steps} steps, counted from 0");
        return Err(Error::Option(message));
    }
    let has_gradients = program.module.slots.values().any(|slot| matches!(slot.role, SlotRole::Gradient(_)));
    if !options.dump_gradients.is_empty() && !has_gradients {
        return Err(Error::Option("--dump-gradients: the program keeps no gradients".into()));
    }
    Ok(())
}

/// Every number that depends on the step is finite at every step of the run.
fn check_scalars(program: &Program, steps: u64) -> Result<()> {
    let module = &program.module;
    for (id, scalar) in module.scalars.iter() {
        // Validation after the last update runs at a step of its own.
        let validates =
            module.entries.get(&EntryKind::Evaluate.into()).is_some_and(|e| e.inputs.contains(&Input::Scalar(id)));
        let end = steps.saturating_add(u64::from(validates));
        let bad = (0..end).map(|step| (step, scalar.expr.eval(step))).find(|(_, value)| !value.is_finite());
        if let Some((step, value)) = bad {
            let logged = program.recipe.logged.iter().find(|(_, logged)| *logged == id).map(|(name, _)| name);
            let named = logged.or(Some(&scalar.name)).filter(|name| !name.is_empty()).cloned();
            let name = named.unwrap_or_else(|| shortened(print::host(&scalar.expr)));
            return Err(Error::Scalar { name, step, value });
        }
    }
    Ok(())
}

/// A formula that fits in a line.
fn shortened(formula: String) -> String {
    match formula.char_indices().nth(80) {
        Some((end, _)) => format!("{} …", &formula[..end]),
        None => formula,
    }
}

fn tokens_needed(recipe: &Recipe, steps: u64) -> u64 {
    steps.saturating_mul(recipe.batch as u64).saturating_add(1)
}

fn open_training(recipe: &Recipe, options: &Options, steps: u64) -> Result<Shards> {
    let pattern = options.data.as_ref().or(recipe.data.as_ref());
    let pattern = pattern.ok_or(Error::NoData { what: "training", option: "--data" })?;
    open(&Need {
        what: "training",
        pattern,
        tokens: tokens_needed(recipe, steps),
        vocab: recipe.vocab,
        reason: format!("{steps} steps × {} tokens + 1", recipe.batch),
        advice: &|found| {
            let enough = found.saturating_sub(1) / recipe.batch as u64;
            match enough {
                0 => None,
                _ => Some(format!("they are enough for --steps {enough}, or for --set steps={enough}")),
            }
        },
    })
}

fn open_validation<'a>(recipe: &'a Recipe, options: &Options) -> Result<Option<(&'a Validation, Shards)>> {
    let Some(validation) = &recipe.validate else {
        return match &options.val {
            Some(_) => Err(Error::Option("--val: the model file's `train` has no `validate` block".into())),
            None => Ok(None),
        };
    };
    let pattern = options.val.as_ref().or(validation.data.as_ref());
    let pattern = pattern.ok_or(Error::NoData { what: "validation", option: "--val" })?;
    let shards = open(&Need {
        what: "validation",
        pattern,
        tokens: (validation.tokens as u64).saturating_add(1),
        vocab: recipe.vocab,
        reason: format!("{} tokens + 1", validation.tokens),
        advice: &|found| {
            let run = validation.sequence * validation.micro_sequences;
            let enough = found.saturating_sub(1) / run as u64 * run as u64;
            (enough > 0).then(|| format!("they are enough for --set validate.tokens={enough}"))
        },
    })?;
    Ok(Some((validation, shards)))
}

/// Data that a run reads, and what of it.
struct Need<'a> {
    what: &'static str,
    pattern: &'a str,
    tokens: u64,
    vocab: Option<usize>,
    reason: String,
    /// What so many tokens are enough for.
    advice: &'a dyn Fn(u64) -> Option<String>,
}

fn open(need: &Need) -> Result<Shards> {
    let shards = match demo::bundled(need.pattern)? {
        Some(path) => Shards::open_file(path)?,
        None => Shards::open(need.what, need.pattern)?,
    };
    if shards.tokens() < need.tokens {
        return Err(Error::TooFewTokens {
            what: need.what,
            pattern: need.pattern.to_string(),
            found: shards.tokens(),
            needed: need.tokens,
            reason: need.reason.clone(),
            advice: (need.advice)(shards.tokens()),
        });
    }
    if let Some(vocab) = need.vocab {
        shards.check_tokens(0..need.tokens, vocab)?;
    }
    Ok(shards)
}
