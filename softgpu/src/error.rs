//! Errors of loading and of launching.

use thiserror::Error;

use crate::check::Finding;

/// A module that cannot be loaded: where and why.
#[derive(Clone, Debug, Error, PartialEq)]
#[error("PTX line {line}{}: {message}", kernel.as_ref().map(|k| format!(", in {k}")).unwrap_or_default())]
pub struct LoadError {
    /// The PTX line, counted from 1.
    pub line: u32,
    /// The kernel or function that it stands in.
    pub kernel: Option<String>,
    /// What is wrong.
    pub message: String,
}

impl LoadError {
    /// An error at a line.
    pub fn at(line: u32, message: impl Into<String>) -> LoadError {
        LoadError { line, kernel: None, message: message.into() }
    }

    /// The same error, said to be in `kernel`.
    pub fn within(mut self, kernel: &str) -> LoadError {
        self.kernel.get_or_insert_with(|| kernel.to_string());
        self
    }
}

/// A launch that did not run to its end.
#[derive(Clone, Debug, Error)]
pub enum LaunchError {
    /// Asks for more than the device has, or for something that no device takes.
    #[error("kernel {kernel} cannot be launched: {message}")]
    Limits {
        /// The kernel.
        kernel: String,
        /// What is over which limit.
        message: String,
    },
    /// A check stopped it.
    #[error("{0}")]
    Finding(Box<Finding>),
}
