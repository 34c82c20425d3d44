//! The kernels of the bundled models, without a run.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mngc_compiler::ir::{EntryKind, Module};
use mngc_compiler::schedule::Plan;
use mngc_compiler::{CompileOptions, compile, schedule};
use mngc_dsl::{FileId, Sources};
use mngc_kernels_gen::listing::Calls;
use mngc_kernels_gen::{Call, Device, Source};

/// A model's module and what runs of it on a GPU.
pub struct Model {
    pub module: Module,
    pub plan: Plan,
}

/// A bundled model with `--set`s.
pub fn model(name: &str, sets: &[(&str, &str)]) -> Model {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
    let mut sources = Sources::default();
    let mut ids: HashMap<PathBuf, FileId> = HashMap::new();
    let mut open = |path: PathBuf, sources: &mut Sources| -> Result<FileId, String> {
        if let Some(&id) = ids.get(&path) {
            return Ok(id);
        }
        let text = fs::read_to_string(&path).map_err(|error| error.to_string())?;
        let id = sources.add(path.display().to_string(), text);
        ids.insert(path, id);
        Ok(id)
    };
    let main = open(folder.join(format!("{name}.mng")), &mut sources).unwrap_or_else(|e| panic!("{name}: {e}"));
    let mut load = |name: &str, _: FileId, sources: &mut Sources| open(folder.join(name), sources);
    let sets = sets.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let options = CompileOptions { sets, ..CompileOptions::default() };
    let program = compile(&mut sources, main, &mut load, &options).unwrap_or_else(|found| {
        let drawn: Vec<String> = found.iter().map(|diagnostic| diagnostic.render(&sources, false)).collect();
        panic!("{name}: {}", drawn.join("\n"))
    });
    let module = schedule::lower(&program.module, &mut Vec::new()).unwrap_or_else(|e| panic!("{name}: {e}"));
    let plan = schedule::plan_grouped(&module, &mut Vec::new()).unwrap_or_else(|e| panic!("{name}: {e}"));
    Model { module, plan }
}

/// The calls of a launch.
pub struct Launched {
    pub entry: EntryKind,
    /// The ops that it computes.
    pub name: String,
    pub calls: Vec<Call>,
}

impl Model {
    /// Every launch of all entries but `init`, which runs on the host; in the order of entries and launches.
    pub fn launches(&self, device: &Device) -> Vec<Launched> {
        let mut all = Vec::new();
        for (key, entry) in self.plan.entries.iter().filter(|(key, _)| key.kind != EntryKind::Init) {
            let made = Calls::new(&self.module, entry, device).unwrap_or_else(|e| panic!("{e}"));
            for (launch, made) in entry.launches.iter().zip(made.launches) {
                all.push(Launched { entry: key.kind, name: launch.name.clone(), calls: made.calls });
            }
        }
        all
    }
}

/// How many calls an entry has.
pub fn count(launches: &[Launched], entry: EntryKind) -> usize {
    launches.iter().filter(|launched| launched.entry == entry).map(|launched| launched.calls.len()).sum()
}

/// The different texts of some launches, by name.
pub fn texts(launches: &[Launched]) -> BTreeMap<String, Arc<Source>> {
    let calls = launches.iter().flat_map(|launched| &launched.calls);
    calls.map(|call| (call.source.name.clone(), call.source.clone())).collect()
}
