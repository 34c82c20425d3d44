//! The `mngc` command line: dispatch, exit codes, errors.

mod bundled;
mod cli;
mod device;
mod explain;
mod fit;
mod install;
mod kernels;
mod load;
mod manifest;
mod output;
mod progress;
mod screen;
mod signals;
mod text;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let (color, json) = (output::color(cli.color), cli.command.json());
    match cli.command.run(color) {
        Ok(code) => code,
        Err(error) => output::fail(&error, color, json),
    }
}
