//! What can go wrong with a GPU. Each message says what was asked for and what would help.

use std::path::PathBuf;

use mngc_kernels_gen::listing::NoKernel;
use mngc_kernels_gen::{libraries, nvrtc};

/// Why a GPU cannot be used, or stopped.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CudaError {
    /// No driver.
    #[error("no CUDA driver: {}", shown(.0))]
    NoDriver(libraries::Missing),
    /// The soft GPU's driver is not beside the program.
    #[error(
        "the soft GPU's driver is not there: looked for {}; `cargo build --release --workspace` makes it",
        listed(.0)
    )]
    NoSoftDriver(Vec<PathBuf>),
    /// Another driver than the one that was asked for is in this process.
    #[error("this process has loaded {found}, so {wanted} cannot be used in it")]
    OtherDriver {
        /// The driver that is there.
        found: String,
        /// The one that was asked for.
        wanted: String,
    },
    /// Fewer devices than asked for.
    #[error("asked for {wanted} GPUs, and this machine has {found}")]
    Devices {
        /// How many were asked for.
        wanted: usize,
        /// How many there are.
        found: usize,
    },
    /// A device that is too old.
    #[error("{name} has compute capability {}.{}; 8.0 is the oldest that has bf16", capability / 10, capability % 10)]
    Old {
        /// Its name.
        name: String,
        /// Major · 10 + minor.
        capability: u32,
    },
    /// The driver refused a call, or a kernel failed.
    #[error("{call}: {name}, {text}{}", report.as_ref().map(|r| format!("\n{r}")).unwrap_or_default())]
    Call {
        /// What was asked for.
        call: String,
        /// The error's name.
        name: String,
        /// What it means.
        text: String,
        /// What the soft GPU found.
        report: Option<String>,
    },
    /// Memory that the device does not have.
    #[error("the GPU has {free} bytes free of {total}, and {needed} are needed")]
    Memory {
        /// Bytes that were asked for.
        needed: usize,
        /// Bytes that nobody has.
        free: usize,
        /// Bytes of the device.
        total: usize,
    },
    /// A launch for which there is no kernel.
    #[error(transparent)]
    NoKernel(#[from] NoKernel),
    /// A kernel that needs more than the device has.
    #[error("kernel {kernel} needs {needed} {what}, and the device has {limit}")]
    Limit {
        /// The kernel.
        kernel: String,
        /// What it needs.
        what: &'static str,
        /// How much of it.
        needed: usize,
        /// How much there is.
        limit: usize,
    },
    /// NVRTC is missing or refused a kernel.
    #[error(transparent)]
    Nvrtc(#[from] nvrtc::Error),
    /// A thread that ended before its time.
    #[error("the thread of GPU {0} has ended")]
    Gone(usize),
}

fn shown(missing: &libraries::Missing) -> String {
    let tried: Vec<String> = missing.tried.iter().map(|(path, why)| format!("{} ({why})", path.display())).collect();
    format!("tried {}; it comes with NVIDIA's display driver", tried.join(", "))
}

fn listed(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}
