//! Compiles model files for tests, without the command line.

#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use mngc_compiler::{CompileOptions, Program, compile, schedule};
use mngc_dsl::{Diagnostic, FileId, Sources};
use mngc_runtime::{Backend, Cpu, Precision, Reference};

/// The repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Reads files once each, however they are named. `shown` is the folder that messages leave out.
pub struct Files {
    pub shown: PathBuf,
    paths: HashMap<FileId, PathBuf>,
    ids: HashMap<PathBuf, FileId>,
}

impl Files {
    pub fn new(shown: PathBuf) -> Files {
        Files { shown, paths: HashMap::new(), ids: HashMap::new() }
    }

    pub fn open(&mut self, path: &Path, sources: &mut Sources) -> Result<FileId, String> {
        let path = path.canonicalize().map_err(|_| "there is no such file".to_string())?;
        if let Some(&id) = self.ids.get(&path) {
            return Ok(id);
        }
        let text = fs::read_to_string(&path).map_err(|error| error.to_string())?;
        let root = self.shown.canonicalize().map_err(|error| error.to_string())?;
        let shown = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        Ok(self.add(path, &shown, text, sources))
    }

    /// A text that stands in place of a file.
    pub fn add(&mut self, path: PathBuf, shown: &str, text: String, sources: &mut Sources) -> FileId {
        let id = sources.add(shown, text);
        self.paths.insert(id, path.clone());
        self.ids.insert(path, id);
        id
    }

    pub fn compile(
        &mut self,
        main: FileId,
        sources: &mut Sources,
        options: &CompileOptions,
    ) -> Result<Program, Vec<Diagnostic>> {
        let mut load = |name: &str, from: FileId, sources: &mut Sources| {
            let beside = self.paths[&from].with_file_name(name);
            self.open(&beside, sources)
        };
        compile(sources, main, &mut load, options)
    }
}

/// Compiles a file of the repository; the error is what the user would read.
pub fn program(path: &str, options: &CompileOptions) -> Result<Program, String> {
    let (mut sources, mut files) = (Sources::default(), Files::new(root().to_path_buf()));
    let main = files.open(&root().join(path), &mut sources)?;
    files.compile(main, &mut sources, options).map_err(|diagnostics| draw(&sources, &diagnostics))
}

/// Diagnostics as the terminal shows them, without colour.
pub fn draw(sources: &Sources, diagnostics: &[Diagnostic]) -> String {
    let drawn: Vec<String> = diagnostics.iter().map(|diagnostic| diagnostic.render(sources, false)).collect();
    drawn.join("\n")
}

/// Options with `--set`s.
pub fn sets(list: &[(&str, &str)]) -> CompileOptions {
    let sets = list.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    CompileOptions { sets, ..CompileOptions::default() }
}

/// What a compiled program runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    Reference(Precision),
    /// With so many threads.
    Cpu(usize),
}

impl On {
    /// The backend, its slots still empty.
    pub fn open(self, program: &Program, seed: u64) -> Box<dyn Backend> {
        match self {
            On::Reference(precision) => Box::new(Reference::new(program.module.clone(), seed, precision)),
            On::Cpu(threads) => {
                let module = schedule::lower(&program.module, &mut Vec::new()).unwrap_or_else(|e| panic!("{e}"));
                let plan = schedule::plan(&module, &mut Vec::new()).unwrap_or_else(|e| panic!("{e}"));
                Box::new(Cpu::new(module, &plan, seed, Some(threads)).unwrap_or_else(|e| panic!("{e}")))
            }
        }
    }
}
