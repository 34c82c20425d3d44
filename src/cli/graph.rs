//! `mngc graph`: draws a program's graph.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::ModelArgs;

/// Options of the command.
#[derive(Args, Debug)]
pub struct Graph {
    #[command(flatten)]
    model: ModelArgs,
}

impl Graph {
    /// Does it.
    pub fn run(&self) -> Result<ExitCode> {
        self.model.compile()?;
        Ok(ExitCode::SUCCESS)
    }
}
