//! What a run left: parameters, and the texts of the model that they are of.

use std::collections::BTreeMap;
use std::fs::{self, File};
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
}

/// What a model was compiled from.
#[derive(Clone, Debug, Deserialize)]
pub struct KeptModel {
    /// The texts, the main file first.
    pub source: Vec<Source>,
    /// The settings of the command line.
    pub set: BTreeMap<String, String>,
}

/// What a path means: a checkpoint; a run folder, of whose `final.safetensors` and last checkpoint the newer counts; or a
/// safetensors file, whose model is that of the log beside it, if there is one.
pub fn open(path: &Path) -> Result<Trained> {
    let last = path.join(FINAL);
    let written = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).ok();
    // A run that went on from its end has not come to its new one yet.
    let went_on = checkpoint::find(path).is_ok_and(|checkpoint| written(&checkpoint) > written(&last));
    if path.is_dir() && last.is_file() && !went_on {
        return Ok(Trained { model: log(path)?, path: last, checkpoint: None });
    }
    if path.is_file() {
        let folder = path.parent().unwrap_or(Path::new(""));
        return Ok(Trained { path: path.to_path_buf(), checkpoint: None, model: log(folder)? });
    }
    let path = checkpoint::find(path)?;
    let manifest = checkpoint::manifest(&path)?;
    let model = KeptModel { source: manifest.source.clone(), set: manifest.set.clone() };
    Ok(Trained { path, model: Some(model), checkpoint: Some(manifest) })
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

/// The model of the run that a log is of.
fn log(folder: &Path) -> Result<Option<KeptModel>> {
    let path = folder.join(LOG);
    if !fs::exists(&path).map_err(Error::io("read", &path))? {
        return Ok(None);
    }
    let mut line = String::new();
    let file = File::open(&path).map_err(Error::io("read", &path))?;
    BufReader::new(file).read_line(&mut line).map_err(Error::io("read", &path))?;
    serde_json::from_str(&line).map(Some).map_err(|e| Error::io("read", &path)(e.into()))
}
