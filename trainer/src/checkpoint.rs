//! Checkpoints: everything that a run needs to go on as if it had never stopped.
//!
//! `checkpoint-STEP/` in the run folder holds two files. `checkpoint.json` is a [`Manifest`]; `state.safetensors` holds
//! every slot that outlives a step, under its name, in the dtype that it is stored in. Gradients (zero between steps) and
//! shadows (remade from their parameters) are left out. Random numbers are a function of seed, name and step, and data of
//! the step: neither has a state of its own.
//!
//! A checkpoint appears whole: it is written under another name, synced to disk and renamed. What a stopped program left
//! half-written is removed by the next one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use mngc_compiler::ir::{Module, Slot, SlotData, SlotRole};
use mngc_runtime::{Format, Tensor};
use serde::{Deserialize, Serialize};

use crate::error::{CheckpointFault, Error, Result};
use crate::event::Source;
use crate::files;
use crate::weights::{self, Named};

/// The version of the form that checkpoints have.
pub const SCHEMA: u32 = 1;

/// What may be otherwise when a run goes on, without another result.
pub const MAY_DIFFER: [&str; 6] = [
    "the place of the data, if it holds the same tokens",
    "the number of threads",
    "--steps and the cadence of checkpoints",
    "whether gradients are dumped and progress is shown",
    "the version of mngc, unless its notes say that results change",
    "the device: losses then agree within rounding, not to the bit",
];

const MANIFEST: &str = "checkpoint.json";
const STATE: &str = "state.safetensors";
const PREFIX: &str = "checkpoint-";
/// Of a folder that is still being written.
const UNFINISHED: &str = ".unfinished-";

/// What a checkpoint says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`SCHEMA`] of the program that wrote it.
    pub schema: u32,
    /// Updates that were made.
    pub step: u64,
    /// Tokens of training data that were read: where the next step begins.
    pub tokens: u64,
    /// Seed of all random numbers.
    pub seed: u64,
    /// As in the log's first line.
    pub precision: String,
    /// As in the log's first line.
    pub device: String,
    /// [`program_hash`](crate::program_hash) of the module.
    pub program_hash: String,
    /// The texts that it was compiled from, the main file first.
    pub source: Vec<Source>,
    /// The settings of the command line.
    pub set: BTreeMap<String, String>,
    /// Name of the model, for new run folders.
    pub name: String,
    /// Sequences of a micro-step.
    pub micro_sequences: usize,
    /// Steps from one checkpoint to the next; 0 for none.
    pub checkpoint_every: u64,
    /// Checkpoints that are kept beside the best.
    pub keep: usize,
    /// `--data`, if it was given.
    pub data: Option<String>,
    /// `--val`, if it was given.
    pub val: Option<String>,
    /// Loss of the last step, before its update.
    pub train_loss: Option<f64>,
    /// Loss of the last validation.
    pub val_loss: Option<f64>,
    /// Updates before that validation.
    pub val_step: Option<u64>,
    /// The slots in `state.safetensors`.
    pub slots: Vec<SlotEntry>,
    /// BLAKE3 of `state.safetensors`, hexadecimal.
    pub state_hash: String,
    /// [`MAY_DIFFER`] of the program that wrote it, for whoever reads it.
    pub may_differ: Vec<String>,
    /// Version of the program that wrote it.
    pub version: String,
}

/// A slot of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotEntry {
    /// Its name.
    pub name: String,
    /// `param`, `optimizer` or `state`.
    pub role: String,
    /// As in model files.
    pub dtype: String,
    /// Sizes of its axes.
    pub shape: Vec<usize>,
}

/// The slots that a checkpoint holds.
pub fn slots(module: &Module) -> impl Iterator<Item = (Slot, &SlotData, &'static str)> {
    module.slots.iter().filter_map(|(slot, data)| match data.role {
        SlotRole::Param => Some((slot, data, "param")),
        SlotRole::Optimizer(_) => Some((slot, data, "optimizer")),
        SlotRole::State => Some((slot, data, "state")),
        SlotRole::Gradient(_) | SlotRole::Shadow(_) => None,
    })
}

/// The entries of these slots.
pub fn entries(module: &Module) -> Vec<SlotEntry> {
    let entry = |(_, data, role): (Slot, &SlotData, &'static str)| SlotEntry {
        name: data.name.clone(),
        role: role.into(),
        dtype: data.ty.dtype.name().into(),
        shape: module.dims.sizes(&data.ty.dims),
    };
    slots(module).map(entry).collect()
}

/// Writes `checkpoint-STEP/` into a run folder, in place of one of that step. Fills in the manifest's hash.
pub fn save(folder: &Path, mut manifest: Manifest, tensors: Vec<Named>) -> Result<PathBuf> {
    let unfinished = folder.join(format!("{UNFINISHED}{}", manifest.step));
    let path = folder.join(format!("{PREFIX}{}", manifest.step));
    remove(&unfinished)?;
    fs::create_dir(&unfinished).map_err(Error::io("create", &unfinished))?;
    let written = (|| {
        let state = unfinished.join(STATE);
        weights::write(&state, tensors)?;
        manifest.state_hash = hash(&state)?;
        let text = serde_json::to_vec_pretty(&manifest).map_err(std::io::Error::from);
        let text = text.map_err(Error::io("write", &unfinished))?;
        files::write_atomically(&unfinished.join(MANIFEST), &text)?;
        retire(&path)?;
        fs::rename(&unfinished, &path).map_err(Error::io("rename", &unfinished))?;
        files::sync_folder(folder).map_err(Error::io("sync", folder))
    })();
    if written.is_err() {
        // The error to tell is the first one; what cannot be removed now is removed by the next run.
        let _ = fs::remove_dir_all(&unfinished);
    }
    written.map(|()| path)
}

fn remove(path: &Path) -> Result<()> {
    match if path.is_file() { fs::remove_file(path) } else { fs::remove_dir_all(path) } {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path)(e)),
        _ => Ok(()),
    }
}

/// Removes a checkpoint, which is whole or gone at any moment.
fn retire(path: &Path) -> Result<()> {
    let Some(name) = path.file_name().filter(|_| path.exists()) else { return Ok(()) };
    let retired = path.with_file_name(format!("{UNFINISHED}{}", name.to_string_lossy()));
    remove(&retired)?;
    fs::rename(path, &retired).map_err(Error::io("rename", path))?;
    remove(&retired)
}

/// Renames the checkpoints of a folder that are of later steps to `abandoned-STEP`: the run goes another way from here.
pub fn abandon_later(folder: &Path, step: u64) -> Result<()> {
    for (at, path) in list(folder)?.0.split_off(&(step + 1)) {
        let abandoned = folder.join(format!("abandoned-{at}"));
        remove(&abandoned)?;
        fs::rename(&path, &abandoned).map_err(Error::io("rename", &path))?;
    }
    Ok(())
}

/// Bytes that writing or reading a checkpoint needs: all its slots at once, as f64.
pub fn memory(module: &Module) -> u64 {
    slots(module).map(|(_, data, _)| module.dims.elements(&data.ty.dims) as u64 * 8).sum()
}

fn hash(path: &Path) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    let file = File::open(path).map_err(Error::io("read", path))?;
    hasher.update_reader(file).map_err(Error::io("read", path))?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// The checkpoints of a run folder by step, and what was left half-written.
fn list(folder: &Path) -> Result<(BTreeMap<u64, PathBuf>, Vec<PathBuf>)> {
    let (mut whole, mut unfinished) = (BTreeMap::new(), Vec::new());
    for entry in fs::read_dir(folder).map_err(Error::io("read", folder))? {
        let entry = entry.map_err(Error::io("read", folder))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let step = name.strip_prefix(PREFIX).and_then(|step| step.parse().ok());
        if name.starts_with(UNFINISHED) || name.starts_with(files::TEMPORARY) {
            unfinished.push(entry.path());
        } else if let Some(step) = step.filter(|_| entry.path().join(MANIFEST).is_file()) {
            whole.insert(step, entry.path());
        }
    }
    Ok((whole, unfinished))
}

/// Keeps the last `keep` checkpoints and the one with the least validation loss; removes the others, and what was left
/// half-written.
pub fn prune(folder: &Path, keep: usize) -> Result<()> {
    let (whole, unfinished) = list(folder)?;
    let old = whole.len().saturating_sub(keep.max(1));
    // A loss of an earlier validation is that of other parameters.
    let fresh = |path: &Path| manifest(path).ok().filter(|m| m.val_step == Some(m.step));
    let loss = |path: &Path| fresh(path).and_then(|m| m.val_loss).filter(|loss| loss.is_finite());
    let losses = whole.values().filter_map(|path| loss(path).map(|loss| (loss, path)));
    let best = losses.min_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, path)| path);
    let outdated = whole.values().take(old).filter(|path| Some(*path) != best);
    outdated.map(|path| retire(path)).chain(unfinished.iter().map(|path| remove(path))).collect()
}

/// The checkpoint that a path means: itself, or the last one of a run folder.
pub fn find(path: &Path) -> Result<PathBuf> {
    if path.join(MANIFEST).is_file() {
        return Ok(path.to_path_buf());
    }
    if !path.is_dir() {
        let fault = CheckpointFault::NoFolder;
        return Err(Error::Checkpoint { path: path.to_path_buf(), fault });
    }
    let (whole, _) = list(path)?;
    let last = whole.into_values().next_back();
    last.ok_or_else(|| Error::Checkpoint { path: path.to_path_buf(), fault: CheckpointFault::None })
}

/// The run folder that a checkpoint is in.
pub fn run_folder(checkpoint: &Path) -> Result<PathBuf> {
    let whole = fs::canonicalize(checkpoint).map_err(Error::io("read", checkpoint))?;
    // As it was written where possible: messages show it.
    let folder = checkpoint.parent().filter(|folder| !folder.as_os_str().is_empty() && folder.file_name().is_some());
    Ok(folder.or(whole.parent()).unwrap_or(Path::new("/")).to_path_buf())
}

/// What a checkpoint says of itself.
pub fn manifest(path: &Path) -> Result<Manifest> {
    let file = path.join(MANIFEST);
    let fail = |fault| Error::Checkpoint { path: path.to_path_buf(), fault };
    let text = fs::read(&file).map_err(Error::io("read", &file))?;
    #[derive(Deserialize)]
    struct Version {
        schema: u32,
    }
    let version: Version = serde_json::from_slice(&text).map_err(|e| fail(CheckpointFault::Manifest(e.to_string())))?;
    if version.schema != SCHEMA {
        return Err(fail(CheckpointFault::Schema(version.schema)));
    }
    serde_json::from_slice(&text).map_err(|e| fail(CheckpointFault::Manifest(e.to_string())))
}

/// The slots of a checkpoint, which must be those of the module.
pub fn load(path: &Path, manifest: &Manifest, module: &Module) -> Result<Vec<(Slot, Tensor)>> {
    let file = path.join(STATE);
    let fail = |fault| Error::Checkpoint { path: path.to_path_buf(), fault };
    let found = hash(&file)?;
    if found != manifest.state_hash {
        return Err(fail(CheckpointFault::Hash));
    }
    weights::read_slots(&file, module, slots(module).map(|(slot, data, _)| (slot, data)), &[])
}

/// The format that a slot is written in: its own, or f64 where nothing was rounded.
pub fn format(data: &SlotData, precision: &str) -> Format {
    if precision == "f64" && data.ty.dtype.is_float() { Format::F64 } else { data.ty.dtype.into() }
}
