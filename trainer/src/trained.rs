//! What a run left: parameters, and the texts of the model that they are of.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use mngc_compiler::ir::{Module, Slot};
use mngc_runtime::Tensor;
use serde::Deserialize;

use crate::checkpoint::{self, Manifest};
use crate::error::{Error, Result};
use crate::event::Source;
use crate::folder::LOG;
use crate::train::FINAL;
use crate::weights;

/// Parameters with the model that they are of.
#[derive(Debug)]
pub struct Trained {
    /// The checkpoint folder, or the safetensors file.
    pub path: PathBuf,
    /// The checkpoint, where it is one.
    pub checkpoint: Option<Manifest>,
    /// What the model was compiled from, where that is known.
    pub model: Option<KeptModel>,
    /// Updates that were made, where that is known.
    pub step: Option<u64>,
}

/// What a model was compiled from.
#[derive(Clone, Debug, Deserialize)]
pub struct KeptModel {
    /// The texts, the main file first.
    pub source: Vec<Source>,
    /// The settings of the command line.
    pub set: BTreeMap<String, String>,
    /// Sequences in a micro-step.
    pub micro_sequences: Option<usize>,
}

/// What a path means: a checkpoint; a run folder, whose `final.safetensors` counts if its run came to its end, and else
/// the last checkpoint; or a safetensors file, whose model is that of the log beside it, if there is one.
pub fn open(path: &Path) -> Result<Trained> {
    let last = path.join(FINAL);
    let (folder, is_file) = if path.is_file() { (path.parent().unwrap_or(Path::new("")), true) } else { (path, false) };
    let log = log(folder)?;
    let ended = log.as_ref().is_some_and(|log| log.ended);
    let is_final = last.is_file() && (ended || checkpoint::find(path).is_err());
    if is_file || is_final {
        let path = if is_file { path.to_path_buf() } else { last };
        let (model, step) = log.map(|log| (log.model, log.step)).unzip();
        return Ok(Trained { path, checkpoint: None, model, step });
    }
    let path = checkpoint::find(path)?;
    let manifest = checkpoint::manifest(&path)?;
    let model = KeptModel {
        source: manifest.source.clone(),
        set: manifest.set.clone(),
        micro_sequences: Some(manifest.micro_sequences),
    };
    Ok(Trained { path, model: Some(model), step: Some(manifest.step), checkpoint: Some(manifest) })
}

impl Trained {
    /// The values of a model's slots: all that a checkpoint has, else the parameters.
    pub fn values(&self, module: &Module) -> Result<Vec<(Slot, Tensor)>> {
        match &self.checkpoint {
            Some(manifest) => checkpoint::load(&self.path, manifest, module),
            None => weights::read(&self.path, module),
        }
    }
}

/// What a log says of its run.
struct Log {
    model: KeptModel,
    /// Updates that were made.
    step: u64,
    /// Whether the run came to its end.
    ended: bool,
}

/// The log of a folder; none where there is none, or something else of that name.
fn log(folder: &Path) -> Result<Option<Log>> {
    #[derive(Deserialize)]
    struct Line {
        event: String,
        step: Option<u64>,
        error: Option<String>,
        #[serde(default)]
        stopped: bool,
    }
    let path = folder.join(LOG);
    let Ok(file) = File::open(&path) else { return Ok(None) };
    let mut log = None;
    for line in BufReader::new(file).lines() {
        let text = line.map_err(Error::io("read", &path))?;
        let Some(log) = &mut log else {
            let Ok(model) = serde_json::from_str(&text) else { return Ok(None) };
            log = Some(Log { model, step: 0, ended: false });
            continue;
        };
        let Ok(line) = serde_json::from_str::<Line>(&text) else { break };
        if line.event == "step" {
            log.step = line.step.map_or(log.step, |step| step + 1);
        }
        log.ended = line.event == "end" && line.error.is_none() && !line.stopped;
    }
    Ok(log)
}
