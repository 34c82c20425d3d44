//! The run folder and its log.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::event::Event;

const LOG: &str = "log.jsonl";

/// A folder that one run owns, with its log open.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    log: File,
}

impl RunFolder {
    /// A new folder `runs/NAME-001`, or with the first number that is free. Two runs that start at once get two folders.
    pub fn create(runs: &Path, name: &str) -> Result<RunFolder> {
        fs::create_dir_all(runs).map_err(Error::io("create", runs))?;
        let mut number = 1;
        loop {
            let path = runs.join(format!("{name}-{number:03}"));
            match fs::create_dir(&path) {
                Ok(()) => return RunFolder::open(path),
                Err(e) if e.kind() == ErrorKind::AlreadyExists => number += 1,
                Err(e) => return Err(Error::io("create", &path)(e)),
            }
        }
    }

    /// The folder that was asked for, made with its parents where missing. Fails where it holds a run's log already.
    pub fn at(path: &Path) -> Result<RunFolder> {
        fs::create_dir_all(path).map_err(Error::io("create", path))?;
        RunFolder::open(path.to_path_buf())
    }

    fn open(path: PathBuf) -> Result<RunFolder> {
        let file = path.join(LOG);
        // `create_new` decides between two runs that were given one folder.
        match File::options().append(true).create_new(true).open(&file) {
            Ok(log) => Ok(RunFolder { path, log }),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => Err(Error::FolderTaken(path)),
            Err(e) => Err(Error::io("create", &file)(e)),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Adds a line to the log. A number that is not finite becomes null.
    pub fn log(&mut self, event: &Event) -> Result<()> {
        let failed = Error::io("write", &self.path.join(LOG));
        // One write for each line, so that whoever follows the log sees whole lines.
        let line = serde_json::to_vec(event).map_err(std::io::Error::from);
        let written = line.and_then(|mut line| {
            line.push(b'\n');
            self.log.write_all(&line)
        });
        written.map_err(failed)
    }
}
