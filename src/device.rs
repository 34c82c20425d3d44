//! `--device`: which backend runs a program, and whether it has the memory.

use std::fmt;

use anyhow::Result;
use clap::ValueEnum;
use mngc_compiler::Program;
use mngc_compiler::ir::{DType, Module};
use mngc_kernels_gen::libraries::Library;
use mngc_kernels_gen::listing::{Listing, Needs};
use mngc_kernels_gen::nvrtc;
use mngc_kernels_gen::prepared::Prepared;
use mngc_runtime::cuda::{self, Kind, Present};
use mngc_runtime::{Backend, Cpu, Cuda, Precision, Reference};
use mngc_trainer::{Error, check_memory, memory};

use crate::load::Schedule;
use crate::output::Usage;
use crate::progress;

/// What may stand after `--device`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Device {
    /// The fastest one that is there
    Auto,
    /// The processor
    Cpu,
    /// An NVIDIA GPU, sm_80 or newer
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
#[derive(Clone, Debug, PartialEq)]
pub enum Chosen {
    /// The processor.
    Cpu {
        /// Why no GPU was taken, where one was looked for.
        instead: Option<String>,
    },
    /// The oracle.
    Reference(Precision),
    /// A GPU.
    Gpu(Kind, Present),
}

/// The device that the options ask for, before anything is loaded or compiled for it.
pub fn choose(device: Device, oracle: Option<Oracle>) -> Result<Chosen> {
    match (device, oracle) {
        (Device::Auto, None) => Ok(automatic()),
        (Device::Cpu, None) => Ok(Chosen::Cpu { instead: None }),
        (Device::Cuda, None) => gpu(Kind::Nvidia),
        (Device::Soft, None) => gpu(Kind::Soft),
        (Device::Reference, None) => Ok(Chosen::Reference(Precision::Rounded)),
        (Device::Auto | Device::Reference, Some(Oracle::F64)) => Ok(Chosen::Reference(Precision::F64)),
        (other, Some(_)) => {
            let message = format!("--oracle needs --device reference: device {other} computes in its own precision");
            Err(Usage(message).into())
        }
    }
}

fn gpu(kind: Kind) -> Result<Chosen> {
    let present = cuda::present(kind)?;
    compiler()?;
    Ok(Chosen::Gpu(kind, present))
}

/// Fails where there is nothing to have kernels from: neither NVRTC nor a folder of compiled ones.
fn compiler() -> Result<(), nvrtc::Error> {
    match Prepared::of_user().is_there() {
        true => Ok(()),
        false => Library::Nvrtc.find().map(|_| ()).map_err(nvrtc::Error::Missing),
    }
}

/// A GPU where all is there that it needs, else the processor.
fn automatic() -> Chosen {
    let instead = match cuda::present(Kind::Nvidia) {
        Ok(present) if Library::Nvrtc.find().is_ok() => return Chosen::Gpu(Kind::Nvidia, present),
        Ok(present) => {
            format!(
                "{} is there, but no NVRTC, which compiles kernels: run `mngc doctor --install`",
                present.device.name
            )
        }
        // Most machines have none, and the places that were tried are no news.
        Err(_) if Library::Driver.find().is_err() => "no CUDA driver".to_string(),
        Err(error) => error.to_string(),
    };
    Chosen::Cpu { instead: Some(instead) }
}

/// Bytes that a run needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// Of the GPU's own memory.
    pub gpu: u64,
    /// Of the machine's memory.
    pub host: u64,
}

impl Chosen {
    /// The schedule of a program for this device: starting a launch costs a GPU more than it costs a processor.
    pub fn schedule(&self, program: &Program) -> Result<Schedule> {
        match self {
            Chosen::Gpu(..) => Schedule::grouped(program),
            Chosen::Cpu { .. } | Chosen::Reference(_) => Schedule::of(program),
        }
    }

    /// The backend of a program with its schedule, slots still empty. `shows`: on a terminal the compilation of kernels
    /// is seen.
    pub fn open(
        &self,
        program: &Program,
        Schedule { module, plan, .. }: Schedule,
        seed: u64,
        threads: Option<usize>,
        shows: bool,
    ) -> Result<Box<dyn Backend>> {
        Ok(match self {
            Chosen::Cpu { .. } => Box::new(Cpu::new(module, &plan, seed, threads)?),
            Chosen::Reference(precision) => Box::new(Reference::new(program.module.clone(), seed, *precision)),
            Chosen::Gpu(kind, _) => Box::new(Cuda::watched(module, &plan, seed, *kind, progress::compiling(shows))?),
        })
    }

    /// What a run of a program needs. Fails where the device has no kernel for a launch.
    pub fn need(&self, program: &Program, schedule: &Schedule) -> Result<Need> {
        Ok(match self {
            Chosen::Cpu { .. } => Need { gpu: 0, host: (schedule.plan.slots + schedule.plan.arena) as u64 },
            Chosen::Reference(_) => Need { gpu: 0, host: memory::least(&program.module) },
            Chosen::Gpu(kind, present) => {
                let listing = Listing::new(&schedule.module, &schedule.plan, &present.device)?;
                let needs = Needs::of(&schedule.plan, &listing);
                match kind {
                    // `init` runs on the host, with all slots there.
                    Kind::Nvidia => Need { gpu: needs.total() as u64, host: schedule.plan.slots as u64 },
                    // Its memory is the machine's, but no more than the part has that it stands for.
                    Kind::Soft => Need { gpu: needs.total_apart() as u64, host: needs.total_apart() as u64 },
                }
            }
        })
    }

    /// Fails where there is less memory than is needed.
    pub fn check(&self, need: Need) -> Result<(), Error> {
        if let Chosen::Gpu(_, Present { free, .. }) = self
            && need.gpu > *free as u64
        {
            return Err(Error::Memory { needed: need.gpu, available: *free as u64 });
        }
        check_memory(need.host)
    }

    /// Bytes that are free where the program's values will be, as far as that is known.
    pub fn free(&self) -> Option<u64> {
        match self {
            Chosen::Gpu(_, present) => Some(present.free as u64),
            Chosen::Cpu { .. } | Chosen::Reference(_) => memory::available(),
        }
    }

    /// The GPU that it is.
    pub fn gpu(&self) -> Option<&mngc_kernels_gen::Device> {
        match self {
            Chosen::Gpu(_, present) => Some(&present.device),
            Chosen::Cpu { .. } | Chosen::Reference(_) => None,
        }
    }

    /// Why it is no GPU, where one was looked for.
    pub fn instead(&self) -> Option<&str> {
        match self {
            Chosen::Cpu { instead } => instead.as_deref(),
            Chosen::Reference(_) | Chosen::Gpu(..) => None,
        }
    }

    /// What the log says of its precision: on GPUs that of matrix products, the narrowest of the module.
    pub fn precision(&self, module: &Module) -> &'static str {
        match self {
            Chosen::Cpu { .. } => "f32",
            Chosen::Reference(Precision::F64) => "f64",
            Chosen::Reference(Precision::Rounded) => "rounded",
            Chosen::Gpu(..) => {
                let has = |dtype| module.funcs.values().any(|g| g.values.values().any(|value| value.ty.dtype == dtype));
                [DType::BF16, DType::F16].into_iter().find(|&dtype| has(dtype)).unwrap_or(DType::F32).name()
            }
        }
    }
}
