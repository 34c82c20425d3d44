//! `--device`: which backend runs a program.

use std::fmt;

use anyhow::{Result, bail};
use clap::ValueEnum;
use mngc_compiler::Program;
use mngc_runtime::{Backend, Precision, Reference};

use crate::output::Usage;

/// What may stand after `--device`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Device {
    /// The fastest one that is there
    Auto,
    /// The processor
    Cpu,
    /// NVIDIA GPUs
    Cuda,
    /// The soft GPU: runs the GPU's own kernels on the processor, with checks
    Soft,
    /// The oracle: slow, with exactly the rounding that the model asks for
    Reference,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_possible_value() {
            Some(value) => f.write_str(value.get_name()),
            None => Ok(()),
        }
    }
}

/// What may stand after `--oracle`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Oracle {
    /// Round nothing: every float is an f64
    F64,
}

/// The backend for a device, its slots still empty.
pub fn open(device: Device, oracle: Option<Oracle>, program: &Program, seed: u64) -> Result<Box<dyn Backend>> {
    match device {
        Device::Auto | Device::Reference => {
            Ok(Box::new(Reference::new(program.module.clone(), seed, precision(oracle))))
        }
        other if oracle.is_some() => {
            let message = format!("--oracle needs --device reference: device {other} computes in its own precision");
            Err(Usage(message).into())
        }
        other => bail!("device {other} is not there yet: this version runs on --device reference"),
    }
}

fn precision(oracle: Option<Oracle>) -> Precision {
    match oracle {
        Some(Oracle::F64) => Precision::F64,
        None => Precision::Rounded,
    }
}

/// The name of a precision in the log.
pub fn precision_name(oracle: Option<Oracle>) -> &'static str {
    match precision(oracle) {
        Precision::F64 => "f64",
        Precision::Rounded => "rounded",
    }
}
