//! Compiles kernels for the device that is checked: machine code, and PTX for the soft GPU.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use mngc_compiler::ir::Module;
use mngc_compiler::schedule::{self, Plan};
use mngc_compiler::{CompileOptions, compile};
use mngc_dsl::{FileId, Sources};
use mngc_kernels_gen::image::Target;
use mngc_kernels_gen::nvrtc::{Nvrtc, Options};
use mngc_kernels_gen::prepared::{self, Prepared};
use mngc_kernels_gen::{Calls, Device, Listing, Source};

use crate::complain;

/// What is compiled for: H100 and H200.
const CAPABILITY: u32 = 90;

/// The kernels of a plan on that device.
pub fn sources(m: &Module, plan: &Plan) -> Result<BTreeSet<Arc<Source>>> {
    let device = Device::of(CAPABILITY).context("a device that is not known")?;
    let listing = Listing::new(m, plan, &device)?;
    Ok(listing.entries.values().flat_map(Calls::all).map(|call| Arc::clone(&call.source)).collect())
}

/// Kernels that have been compiled, by name.
pub struct Compiled {
    ptx: BTreeMap<String, String>,
}

impl Compiled {
    /// Compiles what is not there yet, and puts it into the folder that `MNGC_IMAGES` names.
    pub fn new(sources: &BTreeSet<Arc<Source>>) -> Result<Compiled> {
        let folder = std::env::var_os(prepared::VARIABLE).map(PathBuf::from);
        let folder = folder.with_context(|| format!("{} names no folder for images", prepared::VARIABLE))?;
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let (prepared, target) = (Prepared::at(&folder), Target::of_device(CAPABILITY));
        let (nvrtc, options) = (Nvrtc::load()?, Options::default());
        let is_new = |source: &&Arc<Source>| prepared.get(source, target).is_none_or(|image| image.cubin.is_none());
        let new: Vec<&Source> = sources.iter().filter(is_new).map(Arc::as_ref).collect();
        complain(&format!(
            "{} kernels, {} of them new, for {target} by NVRTC {}",
            sources.len(),
            new.len(),
            nvrtc.version()
        ));
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        for part in new.chunks(64) {
            let images = nvrtc.compile_all(part, target, &options, threads, &|_| {})?;
            for (source, image) in part.iter().zip(&images) {
                prepared.put(source, target, image)?;
            }
        }
        let ptx = |source: &Arc<Source>| Some((source.name.clone(), prepared.get(source, target)?.ptx));
        Ok(Compiled { ptx: sources.iter().filter_map(ptx).collect() })
    }

    /// The PTX of a kernel.
    pub fn ptx(&self, source: &Source) -> Option<&str> {
        self.ptx.get(&source.name).map(String::as_str)
    }
}

/// Compiles the kernels of a model file's training step.
pub fn of_model(path: &Path, set: &[(String, String)]) -> Result<ExitCode> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut texts = Sources::default();
    let main = texts.add(path.display().to_string(), text);
    let folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
    let mut load = |name: &str, _: FileId, texts: &mut Sources| {
        let path = folder.join(name);
        let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(texts.add(path.display().to_string(), text))
    };
    let options = CompileOptions { sets: set.to_vec(), ..CompileOptions::default() };
    let program = compile(&mut texts, main, &mut load, &options).map_err(|diagnostics| {
        anyhow!(diagnostics.iter().map(|diagnostic| diagnostic.render(&texts, false)).collect::<String>())
    })?;
    let module = schedule::lower(&program.module, &mut Vec::new())?;
    let plan = schedule::plan_grouped(&module, &mut Vec::new())?;
    Compiled::new(&sources(&module, &plan)?)?;
    Ok(ExitCode::SUCCESS)
}
