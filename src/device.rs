//! `--device`: which backend runs a program.

use std::fmt;

use anyhow::{Result, bail};
use clap::ValueEnum;
use mngc_compiler::Program;
use mngc_runtime::{Backend, Cpu, Precision, Reference};
use mngc_trainer::memory;

use crate::load::Schedule;
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

/// A device that is there, with what it needs to be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chosen {
    /// The processor.
    Cpu,
    /// The oracle.
    Reference(Precision),
}

/// The device that the options ask for, before anything is loaded or compiled for it.
pub fn choose(device: Device, oracle: Option<Oracle>) -> Result<Chosen> {
    match (device, oracle) {
        (Device::Auto | Device::Cpu, None) => Ok(Chosen::Cpu),
        (Device::Reference, None) => Ok(Chosen::Reference(Precision::Rounded)),
        (Device::Auto | Device::Reference, Some(Oracle::F64)) => Ok(Chosen::Reference(Precision::F64)),
        (other, Some(_)) => {
            let message = format!("--oracle needs --device reference: device {other} computes in its own precision");
            Err(Usage(message).into())
        }
        (other, None) => bail!("device {other} is not there yet: this version runs on --device cpu and reference"),
    }
}

impl Chosen {
    /// The backend of a program, its slots still empty.
    pub fn open(self, program: &Program, seed: u64, threads: Option<usize>) -> Result<Box<dyn Backend>> {
        self.open_scheduled(program, Schedule::of(program)?, seed, threads)
    }

    /// As [`Chosen::open`], with the program's schedule.
    pub fn open_scheduled(
        self,
        program: &Program,
        Schedule { module, plan, .. }: Schedule,
        seed: u64,
        threads: Option<usize>,
    ) -> Result<Box<dyn Backend>> {
        Ok(match self {
            Chosen::Cpu => Box::new(Cpu::new(module, &plan, seed, threads)?),
            Chosen::Reference(precision) => Box::new(Reference::new(program.module.clone(), seed, precision)),
        })
    }

    /// Bytes that a run of a program needs.
    pub fn memory(self, program: &Program, schedule: &Schedule) -> u64 {
        match self {
            Chosen::Cpu => (schedule.plan.slots + schedule.plan.arena) as u64,
            Chosen::Reference(_) => memory::least(&program.module),
        }
    }

    /// What the log says of its precision.
    pub fn precision(self) -> &'static str {
        match self {
            Chosen::Cpu => "f32",
            Chosen::Reference(Precision::F64) => "f64",
            Chosen::Reference(Precision::Rounded) => "rounded",
        }
    }
}
