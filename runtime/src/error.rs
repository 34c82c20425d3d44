//! What can go wrong at run time. Nothing here is a panic: shapes and names may come from files.

use std::fmt;

use mngc_compiler::ir::{EntryKey, Func, Node};

/// The result of anything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a tensor could not be made or a program could not run.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor has other sizes than its place asks for.
    #[error("{what} has sizes {found:?}, but {expected:?} are needed")]
    Sizes {
        /// The tensor's place: a slot, an input, a parameter.
        what: String,
        /// The sizes of the place.
        expected: Vec<usize>,
        /// The sizes of the tensor.
        found: Vec<usize>,
    },
    /// Floats, integers or truth values where another kind is needed.
    #[error("{what} holds {found}, but {expected} is needed")]
    Kind {
        /// The tensor's place.
        what: String,
        /// The kind or dtype of the place.
        expected: String,
        /// The kind of the tensor.
        found: &'static str,
    },
    /// Elements do not fill the sizes.
    #[error("{found} elements for sizes {sizes:?}")]
    Elements {
        /// The sizes.
        sizes: Vec<usize>,
        /// Number of elements given.
        found: usize,
    },
    /// Raw data of the wrong length.
    #[error("{found} bytes of {format} for sizes {sizes:?}")]
    Bytes {
        /// The sizes.
        sizes: Vec<usize>,
        /// Element format of the data.
        format: &'static str,
        /// Number of bytes given.
        found: usize,
    },
    /// The module has no slot with this id.
    #[error("the program has no slot {0}")]
    NoSlot(String),
    /// A slot is read before anything was written to it.
    #[error("slot `{0}` has no value yet: run the init entry or set it")]
    SlotUnset(String),
    /// The module has no such entry.
    #[error("the program has no entry {}", Shown(.0))]
    NoEntry(EntryKey),
    /// An input of the entry was not handed over.
    #[error("entry {} needs the input `{name}`", Shown(entry))]
    MissingInput {
        /// The entry.
        entry: EntryKey,
        /// The input.
        name: String,
    },
    /// An input that the entry does not know.
    #[error("entry {} has no input `{name}`", Shown(entry))]
    UnknownInput {
        /// The entry.
        entry: EntryKey,
        /// The input.
        name: String,
    },
    /// An entry binds its function wrongly: the module was not verified.
    #[error("entry {}: {fault}", Shown(entry))]
    Entry {
        /// The entry.
        entry: EntryKey,
        /// What is wrong with it.
        fault: String,
    },
    /// Memory that the system does not give.
    #[error("no memory for {bytes} bytes")]
    OutOfMemory {
        /// What was asked for.
        bytes: usize,
    },
    /// Threads that the system does not give.
    #[error("no threads: {0}")]
    Threads(String),
    /// A launch that no kernel can run: the plan does not belong to the module, or was not verified.
    #[error("entry {}, launch {launch} `{name}`: {fault}", Shown(entry))]
    Launch {
        /// The entry.
        entry: EntryKey,
        /// Which launch, by position.
        launch: usize,
        /// Its name.
        name: String,
        /// What is wrong with it.
        fault: String,
    },
    /// A plan that does not keep what it promises.
    #[error("{0}")]
    Plan(String),
    /// A GPU cannot be used, or stopped.
    #[error(transparent)]
    Cuda(Box<crate::cuda::CudaError>),
    /// A function id that is not in the module.
    #[error("the program has no function {0}")]
    NoFunc(Func),
    /// Wrong number of arguments to a function.
    #[error("`{func}` takes {expected} arguments, not {found}")]
    Arguments {
        /// Name of the function.
        func: String,
        /// Number of its parameters.
        expected: usize,
        /// Number of arguments given.
        found: usize,
    },
    /// A node breaks the typing rule of its op: the graph was not verified.
    #[error("`{func}`, {node}: {fault}")]
    Node {
        /// Name of the function.
        func: String,
        /// The node.
        node: Node,
        /// What is wrong with it.
        fault: String,
    },
}

impl From<crate::cuda::CudaError> for Error {
    fn from(error: crate::cuda::CudaError) -> Error {
        Error::Cuda(Box::new(error))
    }
}

/// An entry's key in messages.
struct Shown<'a>(&'a EntryKey);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`", self.0.kind.name())?;
        if self.0.stage > 0 { write!(f, " of stage {}", self.0.stage) } else { Ok(()) }
    }
}
