//! `mngc doctor`: what this machine has for training, and what could be installed.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use mngc_runtime::cpu::simd;
use mngc_runtime::cuda::libraries::{self, Found, Library, Missing};
use mngc_runtime::folders;
use mngc_trainer::memory;
use serde::Serialize;

use crate::{install, output};

/// Options of the command.
#[derive(Args, Debug)]
#[command(after_help = "\
Nothing that is missing is needed to train on the processor. MNGC_CUDA_DRIVER, MNGC_NVRTC and MNGC_NCCL name a library to
use instead of the one that would be found.")]
pub struct Doctor {
    /// Print what was found as one JSON object
    #[arg(long)]
    pub json: bool,

    /// Fetch NVRTC, which compiles kernels for GPUs, into the data folder first: 90 MB from PyPI, by python3's pip
    #[arg(long)]
    install: bool,
}

/// What was found.
#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    cores: usize,
    /// Instruction set of the kernels on the processor.
    simd: &'static str,
    /// Bytes that are free; null where unknown.
    memory_free: Option<u64>,
    cache: Option<PathBuf>,
    data: Option<PathBuf>,
    driver: LibraryReport,
    gpus: Vec<GpuReport>,
    nvrtc: LibraryReport,
    nccl: LibraryReport,
}

#[derive(Debug, Default, Serialize)]
struct LibraryReport {
    path: Option<PathBuf>,
    version: Option<String>,
    /// Where it was looked for in vain, with what was wrong there.
    tried: Vec<(PathBuf, String)>,
    /// Why what was found cannot be used.
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<String>,
}

#[derive(Debug, Serialize)]
struct GpuReport {
    name: String,
    memory: u64,
    capability: String,
}

impl Doctor {
    /// Does it.
    pub fn run(&self) -> Result<ExitCode> {
        if self.install {
            let installed = install::nvrtc()?;
            if std::env::var_os(Library::Nvrtc.variable()).is_some_and(|path| !path.is_empty()) {
                output::note(&format!("but {} names the one that is used\n", Library::Nvrtc.variable()));
            } else if let Ok(Found { path, .. }) = Library::Nvrtc.find()
                && path != installed.path
            {
                output::note(&format!("but the one that is used is {}, which is newer\n", path.display()));
            }
        }
        let report = Report::new();
        if self.json {
            output::print_json(&report)?;
        } else {
            output::print(&report.text())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl LibraryReport {
    fn new(found: &Result<Found, Missing>) -> LibraryReport {
        match found {
            Ok(Found { path, version }) => {
                LibraryReport { path: Some(path.clone()), version: Some(version.clone()), ..LibraryReport::default() }
            }
            Err(Missing { tried }) => LibraryReport { tried: tried.clone(), ..LibraryReport::default() },
        }
    }
}

impl Report {
    fn new() -> Report {
        let found = Library::Driver.find();
        let mut driver = LibraryReport::new(&found);
        let gpus = match found.as_ref().ok().map(libraries::gpus) {
            Some(Ok(gpus)) => gpus,
            Some(Err(why)) => {
                driver.fault = Some(why);
                Vec::new()
            }
            None => Vec::new(),
        };
        let gpu = |gpu: libraries::Gpu| GpuReport {
            name: gpu.name,
            memory: gpu.memory,
            capability: format!("{}.{}", gpu.capability.0, gpu.capability.1),
        };
        Report {
            version: env!("CARGO_PKG_VERSION"),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            simd: simd::level().name(),
            memory_free: memory::available(),
            cache: folders::cache(),
            data: folders::data(),
            driver,
            gpus: gpus.into_iter().map(gpu).collect(),
            nvrtc: LibraryReport::new(&Library::Nvrtc.find()),
            nccl: LibraryReport::new(&Library::Nccl.find()),
        }
    }

    fn text(&self) -> String {
        let mut out = String::new();
        let unknown = || "unknown".to_string();
        let folder = |path: &Option<PathBuf>| {
            path.as_ref().map_or_else(|| "none: set HOME".to_string(), |path| path.display().to_string())
        };
        let mut row = |name: &str, text: String| out += &format!("{name:<9} {text}\n");
        row("mngc", self.version.to_string());
        row("cores", self.cores.to_string());
        row("SIMD", self.simd.to_string());
        row("memory", self.memory_free.map_or_else(unknown, |bytes| format!("{} free", memory::shown(bytes))));
        row("cache", folder(&self.cache));
        row("data", folder(&self.data));
        row("driver", shown(&self.driver));
        match &self.gpus[..] {
            [] => row("GPUs", "none".into()),
            gpus => gpus.iter().enumerate().for_each(|(i, gpu)| {
                let memory = memory::shown(gpu.memory);
                row(&format!("GPU {i}"), format!("{}, {memory}, compute capability {}", gpu.name, gpu.capability));
            }),
        }
        row("NVRTC", shown(&self.nvrtc));
        row("NCCL", shown(&self.nccl));
        out + &self.advice()
    }

    /// What to install, with the command.
    fn advice(&self) -> String {
        let mut out = String::from("\nTraining on the processor needs nothing more: mngc run\n");
        if self.driver.path.is_none() {
            out += "Training on a GPU needs NVIDIA's driver. Debian (with non-free): sudo apt install nvidia-driver; \
                    Ubuntu: sudo ubuntu-drivers install\n";
        } else if let Some(fault) = &self.driver.fault {
            let _ = writeln!(
                out,
                "The driver is there, but {fault}: is a GPU there, and is the driver's kernel module loaded?"
            );
        }
        if self.nvrtc.path.is_none() {
            out += "Compiling for GPUs needs NVRTC: mngc doctor --install\n";
        }
        if self.nccl.path.is_none() {
            out += "More than one GPU needs NCCL: python3 -m pip install nvidia-nccl-cu12\n";
        }
        out
    }
}

fn shown(library: &LibraryReport) -> String {
    match (&library.path, &library.version) {
        (Some(path), Some(version)) => format!("{version} at {}", path.display()),
        _ => {
            let tried: Vec<String> =
                library.tried.iter().map(|(path, why)| format!("{} ({why})", path.display())).collect();
            format!("not found; tried {}", tried.join(", "))
        }
    }
}
