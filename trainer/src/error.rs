//! What can go wrong in a run. Every message says what to do where that is known.

use std::path::{Path, PathBuf};

use mngc_compiler::ir::EntryKind;

use crate::checkpoint;
use crate::data::encode::TextFault;
use crate::memory;
use crate::train::nan::Origin;

/// The result of anything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a run could not start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be used.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried: `read`, `write`, `create`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A pattern of file names that means nothing.
    #[error("`{pattern}` is no pattern of file names")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// Why not.
        source: glob::PatternError,
    },
    /// No file has a name that fits the pattern.
    #[error("no file matches `{pattern}` ({what} data): paths are relative to the current folder")]
    NoShards {
        /// `training` or `validation`.
        what: &'static str,
        /// The pattern.
        pattern: String,
    },
    /// Neither the model file nor the command names any data.
    #[error("no {what} data: set `data` in the model file or give {option} GLOB")]
    NoData {
        /// `training` or `validation`.
        what: &'static str,
        /// The option that would name it.
        option: &'static str,
    },
    /// A file that is no token shard.
    #[error("{}: {fault}", path.display())]
    Shard {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: ShardFault,
    },
    /// A text file that cannot be encoded.
    #[error("{}: {fault}", path.display())]
    Text {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: TextFault,
    },
    /// The system gives no more threads.
    #[error("cannot start a thread")]
    Threads(#[source] std::io::Error),
    /// Shards that would be overwritten.
    #[error("{} holds shards named {name}_… already: choose another folder or name, or replace them with --force", folder.display())]
    ShardsExist {
        /// The folder.
        folder: PathBuf,
        /// What their names begin with.
        name: String,
    },
    /// The shards hold fewer tokens than the run reads.
    #[error("{found} tokens of {what} data match `{pattern}`, but {needed} are needed ({reason}){}", colon(advice))]
    TooFewTokens {
        /// `training` or `validation`.
        what: &'static str,
        /// The pattern.
        pattern: String,
        /// Tokens in all shards.
        found: u64,
        /// Tokens that the run reads.
        needed: u64,
        /// How the number comes about.
        reason: String,
        /// The nearest that would work.
        advice: Option<String>,
    },
    /// Sizes of the recipe that do not divide each other: the compiler should have refused them.
    #[error("the recipe cannot be run: {0}")]
    Recipe(String),
    /// An option that cannot be meant.
    #[error("{0}")]
    Option(String),
    /// A folder where a file of weights belongs.
    #[error("{} is a folder: weights are one safetensors file, such as the `final.safetensors` of a run", path.display())]
    WeightsFolder {
        /// The folder.
        path: PathBuf,
    },
    /// A safetensors file that cannot be read or written.
    #[error("{} is no usable safetensors file", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: safetensors::SafeTensorError,
    },
    /// Weights that do not fit the model.
    #[error("{} does not fit the model:\n{}", path.display(), list(faults))]
    Weights {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong with it, never empty.
        faults: Vec<WeightFault>,
    },
    /// The run folder holds a run already.
    #[error("{} holds a run already: choose another folder or remove it", .0.display())]
    FolderTaken(PathBuf),
    /// Another run writes into the folder.
    #[error("another run is using {}: wait for its end, or give --out another folder", .0.display())]
    FolderBusy(PathBuf),
    /// A checkpoint that this run cannot go on from.
    #[error("{}: {fault}", path.display())]
    Checkpoint {
        /// The checkpoint, or the run folder that was searched for one.
        path: PathBuf,
        /// What is wrong with it.
        fault: CheckpointFault,
    },
    /// Where numbers stopped being numbers, found by `find_nan`.
    #[error("{0}")]
    Origin(Box<Origin>),
    /// The backend failed.
    #[error("entry `{}` failed", entry.name())]
    Backend {
        /// What ran.
        entry: EntryKind,
        /// Why it failed.
        source: mngc_runtime::Error,
    },
    /// A slot could not be read or written.
    #[error("cannot reach the slot `{name}`")]
    Slot {
        /// Its name.
        name: String,
        /// Why not.
        source: mngc_runtime::Error,
    },
    /// A model that cannot be sampled from.
    #[error("the model returns no `logits`: sampling draws from them")]
    NoLogits,
    /// A tensor could not be made.
    #[error(transparent)]
    Tensor(#[from] mngc_runtime::Error),
    /// An entry does not hand out what the trainer needs of it.
    #[error("entry `{}` gives no number `{name}`", entry.name())]
    NoOutput {
        /// The entry.
        entry: EntryKind,
        /// The output.
        name: &'static str,
    },
    /// A host scalar that is no number at some step of the run.
    #[error("`{name}` is {value} at step {step} of the run: every number that depends on the step must stay finite")]
    Scalar {
        /// Its name in the model file, or its formula.
        name: String,
        /// The first such step.
        step: u64,
        /// What it is there.
        value: f64,
    },
    /// The machine is too small for the run.
    #[error("the run needs {} of memory, and {} are free", memory::shown(*needed), memory::shown(*available))]
    Memory {
        /// Bytes that the run needs at least.
        needed: u64,
        /// Bytes that are free.
        available: u64,
    },
    /// The training has broken down; its parameters will not come back from there.
    #[error("{what} of step {step} is {value}: the training has diverged{}", colon(checkpoint))]
    NotFinite {
        /// `train_loss`, `val_loss`, or a parameter.
        what: String,
        /// The step.
        step: u64,
        /// What it is.
        value: f64,
        /// What can be done with the last checkpoint before.
        checkpoint: Option<String>,
    },
}

/// What is wrong with a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointFault {
    /// Not there.
    #[error("there is no such folder")]
    NoFolder,
    /// A folder without any.
    #[error("no checkpoint is in this folder")]
    None,
    /// `checkpoint.json` is not what it should be.
    #[error("checkpoint.json cannot be understood: {0}")]
    Manifest(String),
    /// Written by a program of another time.
    #[error("the checkpoint has schema {0}, but this version of mngc reads schema {schema}", schema = checkpoint::SCHEMA)]
    Schema(u32),
    /// The tensors changed since they were written.
    #[error("state.safetensors is damaged: its contents do not have the hash that checkpoint.json gives")]
    Hash,
    /// The model, or a setting that changes what is computed, is another one.
    #[error(
        "the checkpoint is of another program than the model file and settings give now: leave MODEL and --set out to \
         go on with those that it was made with"
    )]
    Program,
    /// The schedule ends before it.
    #[error("the checkpoint is of step {step}, and the run ends at step {steps}")]
    Ended {
        /// Updates that were made.
        step: u64,
        /// Steps of the run.
        steps: u64,
    },
    /// A copy without the log that it belongs to.
    #[error("no log.jsonl is beside the checkpoint: give --out a new run folder")]
    NoLog,
}

/// What is wrong with a token shard.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShardFault {
    /// A folder or a device.
    #[error("it is not a file")]
    NotAFile,
    /// Shorter than its header.
    #[error("{0} bytes are too few for the header of a token shard (1024 bytes)")]
    Short(u64),
    /// Another kind of file.
    #[error("it starts with {0} instead of 20240520: it is no token shard")]
    Magic(i32),
    /// A token shard of another version.
    #[error("version {0} of token shards is not known, only version 1 is")]
    Version(i32),
    /// A number of tokens below 0.
    #[error("the header says {0} tokens")]
    Negative(i32),
    /// Half a token at the end.
    #[error("{0} bytes follow the header: tokens have 2 bytes each, so the file is cut off")]
    OddBytes(u64),
    /// Header and size do not agree.
    #[error("the header says {header} tokens, but {found} follow it")]
    Count {
        /// What the header says.
        header: u64,
        /// What is there.
        found: u64,
    },
    /// A token that the model has no row for.
    #[error("token {index} is {token}, but the model's vocabulary ends at {}", vocab - 1)]
    Token {
        /// Position in the file, from 0.
        index: u64,
        /// The token.
        token: u16,
        /// Rows of the embedding.
        vocab: usize,
    },
}

/// What is wrong with one tensor of a weight file.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum WeightFault {
    /// A parameter that the file does not have.
    #[error("`{0}` is missing")]
    Missing(String),
    /// A tensor that the model does not have.
    #[error("`{0}` is no parameter of the model")]
    Unknown(String),
    /// Another shape.
    #[error("`{name}` has shape {found:?}, but the model's has {expected:?}")]
    Shape {
        /// The parameter.
        name: String,
        /// The model's shape.
        expected: Vec<usize>,
        /// The file's shape.
        found: Vec<usize>,
    },
    /// Not a float dtype that is read.
    #[error("`{name}` has dtype {found}: f64, f32, bf16 and f16 are read")]
    DType {
        /// The parameter.
        name: String,
        /// The file's dtype.
        found: String,
    },
    /// NaN or infinity, in the file or when rounded to the parameter's dtype.
    #[error("`{name}` has {value} at element {index}, which is not finite in {dtype}")]
    NotFinite {
        /// The parameter.
        name: String,
        /// Row-major index from 0.
        index: usize,
        /// The file's value.
        value: f64,
        /// Dtype of the parameter.
        dtype: &'static str,
    },
}

impl Error {
    /// For `map_err` on file operations.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error + use<> {
        let path = path.to_path_buf();
        move |source| Error::Io { action, path, source }
    }
}

fn colon(advice: &Option<String>) -> String {
    advice.as_ref().map(|advice| format!(": {advice}")).unwrap_or_default()
}

fn list(faults: &[WeightFault]) -> String {
    faults.iter().map(|fault| format!("  {fault}")).collect::<Vec<_>>().join("\n")
}
