//! What can go wrong in a run. Every message says what to do where that is known.

use std::path::{Path, PathBuf};

use mngc_compiler::ir::EntryKind;

use crate::data::encode::TextFault;
use crate::memory;

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
    #[error("{found} tokens of {what} data match `{pattern}`, but {needed} are needed ({reason})")]
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
    },
    /// Sizes of the recipe that do not divide each other: the compiler should have refused them.
    #[error("the recipe cannot be run: {0}")]
    Recipe(String),
    /// An option that cannot be meant.
    #[error("{0}")]
    Option(String),
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
    #[error(
        "the run needs {} of memory or more, and {} are free: a smaller batch, sequence or model needs less",
        memory::shown(*needed), memory::shown(*available)
    )]
    Memory {
        /// Bytes that the run needs at least.
        needed: u64,
        /// Bytes that are free.
        available: u64,
    },
    /// The training has broken down; its parameters will not come back from there.
    #[error("{what} of step {step} is {value}: the training has diverged")]
    NotFinite {
        /// `train_loss`, `val_loss`, or a parameter.
        what: String,
        /// The step.
        step: u64,
        /// What it is.
        value: f64,
    },
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

fn list(faults: &[WeightFault]) -> String {
    faults.iter().map(|fault| format!("  {fault}")).collect::<Vec<_>>().join("\n")
}
