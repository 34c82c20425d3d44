//! From the MODEL of a command to a compiled program: finds the files, reads them, hands them to the compiler.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::{fs, io};

use anyhow::{Context, Result, anyhow};
use mngc_compiler::ir::Module;
use mngc_compiler::schedule::{self, Plan};
use mngc_compiler::{CompileOptions, Program, compile};
use mngc_dsl::{FileId, Sources};
use mngc_trainer::Source;

use crate::bundled;
use crate::output::{Mistakes, Usage};

/// A program with what it was made from.
#[derive(Debug)]
pub struct Model {
    /// The name of its file, without `.mng`.
    pub name: String,
    /// Every text that it was made from, the main file first.
    pub sources: Vec<Source>,
    /// The same texts, as places in the program point into them.
    pub texts: Sources,
    /// The program.
    pub program: Program,
}

/// A program as backends run it.
#[derive(Debug)]
pub struct Schedule {
    /// The program's module, fused.
    pub module: Module,
    /// What runs, and where tensors lie.
    pub plan: Plan,
    /// Seconds of each part of making it, in order.
    pub timings: Vec<(String, f64)>,
}

impl Schedule {
    /// Of a program.
    pub fn of(program: &Program) -> Result<Schedule> {
        Schedule::planned(program, schedule::plan)
    }

    /// Of a program, with like launches in groups: for GPUs.
    pub fn grouped(program: &Program) -> Result<Schedule> {
        Schedule::planned(program, schedule::plan_grouped)
    }

    fn planned(
        program: &Program,
        plan: impl Fn(&Module, &mut Vec<(String, f64)>) -> Result<Plan, schedule::ScheduleError>,
    ) -> Result<Schedule> {
        let mut timings = Vec::new();
        let module = schedule::lower(&program.module, &mut timings).context(FAULT)?;
        let plan = plan(&module, &mut timings).context(FAULT)?;
        Ok(Schedule { module, plan, timings })
    }
}

const FAULT: &str = "this is a fault of mngc, not of the model: please report it, with the file";

/// Compiles a MODEL: a path, the name of a bundled model, or (none) the one `.mng` file of the current folder. Where that
/// has none, the bundled model `default`, if there is one.
pub fn model(model: Option<&str>, default: Option<&str>, options: &CompileOptions) -> Result<Model> {
    let origin = match model {
        Some(model) => find(model)?,
        None => the_only_one(default)?,
    };
    compile_files(Files::default(), origin, options)
}

/// Compiles texts that were kept from an earlier run, the main one first, under the model's name.
pub fn kept(name: &str, texts: &[Source], options: &CompileOptions) -> Result<Model> {
    let main = texts.first().context("the run kept no text of its model")?;
    let origin = Origin::of(&main.name);
    let kept = texts.iter().map(|source| (source.name.clone(), source.text.clone())).collect();
    let model = compile_files(Files { kept: Some(kept), ..Files::default() }, origin, options)?;
    Ok(Model { name: name.to_string(), ..model })
}

fn compile_files(mut files: Files, origin: Origin, options: &CompileOptions) -> Result<Model> {
    let mut sources = Sources::default();
    let main = files.add(origin.clone(), &mut sources).with_context(|| format!("cannot read {}", origin.show()))?;
    let mut load = |path: &str, from: FileId, sources: &mut Sources| files.load(path, from, sources);
    match compile(&mut sources, main, &mut load, options) {
        Ok(program) => {
            let read = files.origins.iter().map(|(id, _)| Source::new(sources.name(*id), sources.text(*id)));
            Ok(Model { name: origin.stem(), sources: read.collect(), texts: sources, program })
        }
        Err(diagnostics) => Err(Mistakes { sources, diagnostics }.into()),
    }
}

/// Where a text comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Origin {
    /// A file, as it was named.
    File(PathBuf),
    /// A bundled model, by name.
    Bundled(String),
}

impl Origin {
    /// The one that is shown so.
    fn of(shown: &str) -> Origin {
        let bundled = shown.strip_prefix("bundled:").and_then(|name| name.strip_suffix(".mng"));
        bundled.map_or_else(|| Origin::File(shown.into()), |name| Origin::Bundled(name.to_string()))
    }

    /// The name that messages show.
    fn show(&self) -> String {
        match self {
            Origin::File(path) => path.display().to_string(),
            Origin::Bundled(name) => format!("bundled:{name}.mng"),
        }
    }

    fn stem(&self) -> String {
        match self {
            Origin::File(path) => path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            Origin::Bundled(name) => name.clone(),
        }
    }

    fn read(&self) -> io::Result<String> {
        match self {
            Origin::File(path) => read_file(path),
            Origin::Bundled(name) => {
                let missing = || io::Error::new(io::ErrorKind::NotFound, "no bundled model has this name");
                bundled::text(name).map(str::to_string).ok_or_else(missing)
            }
        }
    }
}

/// The files read so far, in that order. A file is read once however it is named: that is how the compiler sees import cycles.
#[derive(Default)]
struct Files {
    origins: Vec<(FileId, Origin)>,
    ids: HashMap<Origin, FileId>,
    /// Texts by the names that messages show, instead of those on disk.
    kept: Option<HashMap<String, String>>,
}

impl Files {
    fn add(&mut self, origin: Origin, sources: &mut Sources) -> io::Result<FileId> {
        let key = match &origin {
            Origin::File(path) if self.kept.is_none() => Origin::File(fs::canonicalize(path)?),
            _ => origin.clone(),
        };
        if let Some(&id) = self.ids.get(&key) {
            return Ok(id);
        }
        let missing = || io::Error::new(io::ErrorKind::NotFound, "the run did not keep it");
        let text = match &self.kept {
            Some(kept) => kept.get(&origin.show()).cloned().ok_or_else(missing)?,
            None => origin.read()?,
        };
        let id = sources.add(origin.show(), text);
        self.origins.push((id, origin));
        self.ids.insert(key, id);
        Ok(id)
    }

    /// What `import "path"` and `extend "path"` in the file `from` mean: a file beside it, else the bundled model.
    fn load(&mut self, path: &str, from: FileId, sources: &mut Sources) -> Result<FileId, String> {
        let bundled = path.strip_suffix(".mng").filter(|name| bundled::text(name).is_some());
        let bundled = bundled.map(|name| Origin::Bundled(name.to_string()));
        let from = self.origins.iter().find(|(id, _)| *id == from).map(|(_, origin)| origin);
        let origin = match (from, bundled) {
            (Some(Origin::Bundled(_)), Some(bundled)) => bundled,
            (Some(Origin::Bundled(_)), None) => return Err(format!("no bundled model is named {path:?}")),
            (Some(Origin::File(file)), bundled) => {
                let beside = folded(&file.parent().unwrap_or(Path::new("")).join(path));
                let exists = match &self.kept {
                    Some(kept) => kept.contains_key(&beside.display().to_string()),
                    None => beside.exists(),
                };
                bundled.filter(|_| !exists).unwrap_or(Origin::File(beside))
            }
            (None, _) => return Err("the file that asks for it is unknown".into()),
        };
        let shown = origin.show();
        self.add(origin, sources).map_err(|e| format!("cannot read {shown}: {e}"))
    }
}

/// A path without `.` and without `folder/..`: one spelling for each file, as long as no link is in the way.
fn folded(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        let last_is_name = matches!(out.components().next_back(), Some(Component::Normal(_)));
        match part {
            Component::CurDir => {}
            Component::ParentDir if last_is_name => drop(out.pop()),
            part => out.push(part),
        }
    }
    out
}

/// More bytes than a model file can mean.
const LARGEST: u64 = 16 << 20;

/// A text, unless it is no file (a device may have no end) or cannot be a model.
fn read_file(path: &Path) -> io::Result<String> {
    let metadata = fs::metadata(path)?;
    let refuse = |why: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    if !metadata.is_file() {
        return refuse("it is no file");
    }
    if metadata.len() > LARGEST {
        return refuse("it is over 16 MiB, more than a model file can mean");
    }
    fs::read_to_string(path)
}

fn find(model: &str) -> Result<Origin> {
    let path = Path::new(model);
    if path.is_file() {
        return Ok(Origin::File(path.to_path_buf()));
    }
    if bundled::text(model).is_some() {
        return Ok(Origin::Bundled(model.to_string()));
    }
    let looks_like_a_path = path.components().count() > 1 || path.extension().is_some_and(|e| e == "mng");
    if looks_like_a_path || path.exists() {
        let reason = if path.exists() { "it is no file" } else { "there is no such file" };
        return Err(anyhow!("cannot read {model}: {reason}"));
    }
    let mut names: Vec<(f64, String)> = bundled::names()
        .map(str::to_string)
        .chain(files_here().unwrap_or_default().iter().map(|path| path.display().to_string()))
        .map(|name| (strsim::jaro_winkler(model, name.trim_end_matches(".mng")), name))
        .filter(|(likeness, _)| *likeness > 0.8)
        .collect();
    names.sort_by(|a, b| b.0.total_cmp(&a.0));
    let help = match names.first() {
        Some((_, name)) => format!("did you mean `{name}`?"),
        None => known(),
    };
    Err(anyhow!("`{model}` is neither a file nor a bundled model: {help}"))
}

/// With no MODEL: the one `.mng` file of the current folder, else a bundled model.
fn the_only_one(default: Option<&str>) -> Result<Origin> {
    let mut found = files_here().context("cannot list the current folder")?;
    match (found.len(), default) {
        (1, _) => Ok(Origin::File(found.remove(0))),
        (0, Some(default)) => Ok(Origin::Bundled(default.to_string())),
        (0, None) => {
            Err(Usage(format!("no MODEL given, and no .mng file is in the current folder: {}", known())).into())
        }
        (_, _) => {
            let names: Vec<String> = found.iter().map(|path| path.display().to_string()).collect();
            Err(Usage(format!("no MODEL given, and the current folder has several: {}", names.join(", "))).into())
        }
    }
}

fn known() -> String {
    format!("bundled models are {}", bundled::names().collect::<Vec<_>>().join(", "))
}

/// The `.mng` files of the current folder, by name.
fn files_here() -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(".")? {
        let name = PathBuf::from(entry?.file_name());
        if name.extension().is_some_and(|extension| extension == "mng") && name.is_file() {
            found.push(name);
        }
    }
    found.sort();
    Ok(found)
}
