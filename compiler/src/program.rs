//! What compiling gives: the module with its entries, and what the host must know to run them.

use crate::ir::{Module, Scalar};

/// A compiled training program.
#[derive(Clone, Debug)]
pub struct Program {
    /// Everything that is computed.
    pub module: Module,
    /// How the host runs it.
    pub recipe: Recipe,
    /// Names and seconds of the parts of compiling, in order.
    pub timings: Vec<(String, f64)>,
}

/// The host's part of a `train` block.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// The model's name.
    pub model: String,
    /// Steps of the schedule.
    pub steps: u64,
    /// Tokens in one step, whatever the devices.
    pub batch: usize,
    /// Tokens in a training sequence: T.
    pub sequence: usize,
    /// Sequences that one `micro_step` takes; a divisor of `batch / sequence`.
    pub micro_sequences: usize,
    /// Glob of the training shards.
    pub data: Option<String>,
    /// Validation, where the file asks for it.
    pub validate: Option<Validation>,
    /// Rows of the table that `tokens` look up, or classes that `targets` are among, if fewer: every token must be below.
    pub vocab: Option<usize>,
    /// Host scalars that the log shows by name.
    pub logged: Vec<(String, Scalar)>,
}

/// A `validate` block.
#[derive(Clone, Debug, PartialEq)]
pub struct Validation {
    /// Glob of the validation shards.
    pub data: Option<String>,
    /// Tokens that are read, from the start of the shards.
    pub tokens: usize,
    /// Steps between two validations.
    pub every: u64,
    /// Tokens in a validation sequence.
    pub sequence: usize,
    /// Sequences that one `evaluate` takes; a divisor of `tokens / sequence`.
    pub micro_sequences: usize,
}

impl Recipe {
    /// Sequences in one step.
    pub fn sequences(&self) -> usize {
        self.batch / self.sequence
    }

    /// Runs of `micro_step` in one step.
    pub fn micro_steps(&self) -> usize {
        self.sequences() / self.micro_sequences
    }
}
