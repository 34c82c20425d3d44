//! What happens in a run. Each event is one line of `log.jsonl`, in exactly this form.

use std::collections::BTreeMap;
use std::path::PathBuf;

use mngc_compiler::ir::{Module, print};
use serde::{Deserialize, Serialize};

/// Something that happened, with its place in the run.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    /// The first line: what runs, on what.
    Start(Box<Start>),
    /// A run goes on from a checkpoint: what runs from here.
    Resume {
        /// Updates that were made before.
        step: u64,
        /// The checkpoint.
        checkpoint: PathBuf,
        /// As in the first line.
        #[serde(flatten)]
        start: Box<Start>,
    },
    /// A step is done: the parameters have been updated.
    Step {
        /// Index from 0.
        step: u64,
        /// Mean loss over the whole batch, before this update.
        train_loss: f64,
        /// Milliseconds of the step, without validation.
        ms: f64,
        /// Tokens of the step's batch.
        tokens: u64,
        /// The model file's host scalars and what `update` hands out (`gradient_norm`), by name.
        #[serde(flatten)]
        scalars: BTreeMap<String, f64>,
    },
    /// A validation.
    Val {
        /// Number of updates before it.
        step: u64,
        /// Mean loss over the validation tokens.
        val_loss: f64,
        /// Milliseconds that it took.
        ms: f64,
        /// Tokens that it read.
        tokens: u64,
    },
    /// A checkpoint is on disk.
    Checkpoint {
        /// Updates before it.
        step: u64,
        /// Its folder.
        path: PathBuf,
        /// Milliseconds that it took.
        ms: f64,
    },
    /// The last line of a run that was not cut off.
    End {
        /// Updates that were made.
        steps: u64,
        /// Whether the run was asked to stop before its end.
        stopped: bool,
        /// Seconds since the start.
        seconds: f64,
        /// Why the run stopped early; null for a whole one.
        error: Option<String>,
    },
}

impl Event {
    /// Names that a step's own fields have: no host scalar may be logged under them.
    pub const STEP_FIELDS: [&str; 5] = ["event", "step", "train_loss", "ms", "tokens"];
}

/// What runs, on what.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Start {
    /// The model's name.
    pub model: String,
    /// The texts that it was compiled from, the main file first.
    pub source: Vec<Source>,
    /// The settings of the command line.
    pub set: BTreeMap<String, String>,
    /// [`program_hash`] of the compiled module.
    pub program_hash: String,
    /// Name of the backend.
    pub device: String,
    /// What the backend says of itself, by name: a GPU's `device`, `driver`, `nvrtc`, `kernels`, `compiled`, and
    /// `cache_fault` where compiled kernels could not be kept.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub backend: BTreeMap<String, String>,
    /// `f64` where nothing is rounded, `rounded` where all is that the model says; else the dtype of matrix products.
    pub precision: String,
    /// The seed of all random numbers.
    pub seed: u64,
    /// Steps that this run makes.
    pub steps: u64,
    /// Steps of the schedule.
    pub schedule_steps: u64,
    /// Tokens in a step.
    pub batch: usize,
    /// Tokens in a sequence.
    pub sequence: usize,
    /// Sequences in a micro-step.
    pub micro_sequences: usize,
    /// Elements of all parameters.
    pub parameters: u64,
    /// Elements of the parameters that every token is computed with.
    pub active_parameters: u64,
    /// Elements of the tables that tokens are looked up in.
    pub embedding_parameters: u64,
    /// Tokens of training data that the run reads.
    pub tokens_needed: u64,
    /// Tokens of training data that are there.
    pub tokens_found: u64,
    /// Training shards in order.
    pub data: Vec<PathBuf>,
    /// Validation shards in order.
    pub val: Vec<PathBuf>,
    /// The file that the parameters were read from.
    pub init: Option<PathBuf>,
    /// Version of this program.
    pub version: String,
    /// Seconds since 1970 began.
    pub time: u64,
    /// The run folder.
    pub folder: PathBuf,
}

/// BLAKE3 of a module's text form, hexadecimal: what a program computes, whatever its source looked like.
pub fn program_hash(module: &Module) -> String {
    blake3::hash(print::module(module).as_bytes()).to_hex().to_string()
}

/// A text that the program was compiled from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// The name that messages show.
    pub name: String,
    /// BLAKE3 of the text, hexadecimal.
    pub hash: String,
    /// The whole text.
    pub text: String,
}

impl Source {
    /// A source with its hash.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Source {
        let text = text.into();
        Source { name: name.into(), hash: blake3::hash(text.as_bytes()).to_hex().to_string(), text }
    }
}
