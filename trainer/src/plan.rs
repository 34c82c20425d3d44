//! What a run will do, with everything checked that can be before a device is touched.

use std::collections::BTreeMap;
use std::path::PathBuf;

use mngc_compiler::ir::{EntryKind, Input, Slot, SlotRole, print};
use mngc_compiler::{Program, Recipe, Validation};
use mngc_runtime::Tensor;

use crate::data::Shards;
use crate::error::{Error, Result};
use crate::event::{Event, Source};
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
    /// `f64` where the backend rounds nothing, else `rounded`: for the log.
    pub precision: String,
    /// Steps whose gradients are written to files.
    pub dump_gradients: Vec<u64>,
}

/// A run that is ready to start: data opened and long enough, weights read and fitting.
#[derive(Debug)]
pub struct Plan<'a> {
    /// What runs.
    pub program: &'a Program,
    /// What was asked for.
    pub options: &'a Options,
    /// Steps that the run makes.
    pub steps: u64,
    /// Training data.
    pub data: Shards,
    /// Validation data with its recipe.
    pub val: Option<(&'a Validation, Shards)>,
    /// Parameters to start from.
    pub weights: Option<Vec<(Slot, Tensor)>>,
}

impl<'a> Plan<'a> {
    /// Opens data and weights and checks them against what the run needs.
    pub fn new(program: &'a Program, options: &'a Options) -> Result<Plan<'a>> {
        let recipe = &program.recipe;
        check_recipe(recipe)?;
        let steps = steps(recipe, options)?;
        check_dumps(program, options, steps)?;
        let data = open_training(recipe, options, steps)?;
        let val = open_validation(recipe, options)?;
        check_scalars(program, steps)?;
        let weights = options.init.as_deref().map(|path| weights::read(path, &program.module)).transpose()?;
        Ok(Plan { program, options, steps, data, val, weights })
    }

    /// Whether the run validates after so many updates.
    pub fn validates_after(&self, updates: u64) -> bool {
        self.val.as_ref().is_some_and(|(validation, _)| {
            updates == 0 || updates == self.steps || updates.checked_rem(validation.every) == Some(0)
        })
    }
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

fn open_training(recipe: &Recipe, options: &Options, steps: u64) -> Result<Shards> {
    let pattern = options.data.as_ref().or(recipe.data.as_ref());
    let pattern = pattern.ok_or(Error::NoData { what: "training", option: "--data" })?;
    let needed = steps.saturating_mul(recipe.batch as u64).saturating_add(1);
    open(&Need {
        what: "training",
        pattern,
        tokens: needed,
        vocab: recipe.vocab,
        reason: format!("{steps} steps × {} tokens + 1", recipe.batch),
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
}

fn open(need: &Need) -> Result<Shards> {
    let shards = Shards::open(need.what, need.pattern)?;
    if shards.tokens() < need.tokens {
        return Err(Error::TooFewTokens {
            what: need.what,
            pattern: need.pattern.to_string(),
            found: shards.tokens(),
            needed: need.tokens,
            reason: need.reason.clone(),
        });
    }
    if let Some(vocab) = need.vocab {
        shards.check_tokens(0..need.tokens, vocab)?;
    }
    Ok(shards)
}
