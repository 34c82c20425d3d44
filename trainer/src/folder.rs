//! The run folder and its log.

use std::fs::{self, File, TryLockError};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::event::Event;

/// The log in a run folder.
pub const LOG: &str = "log.jsonl";

/// Locked by the run that writes into the folder; the system unlocks it whatever ends the run.
const LOCK: &str = ".lock";

/// A folder that one run owns, with its log open.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    log: File,
    _lock: File,
}

impl RunFolder {
    /// A new folder `runs/NAME-001`, or with the first number that is free. Two runs that start at once get two folders.
    pub fn create(runs: &Path, name: &str) -> Result<RunFolder> {
        fs::create_dir_all(runs).map_err(Error::io("create", runs))?;
        let mut number = 1;
        loop {
            let path = runs.join(format!("{name}-{number:03}"));
            match fs::create_dir(&path) {
                Ok(()) => return RunFolder::begin(path),
                Err(e) if e.kind() == ErrorKind::AlreadyExists => number += 1,
                Err(e) => return Err(Error::io("create", &path)(e)),
            }
        }
    }

    /// The folder that was asked for, made with its parents where missing. Fails where it holds a run's log already.
    pub fn at(path: &Path) -> Result<RunFolder> {
        fs::create_dir_all(path).map_err(Error::io("create", path))?;
        RunFolder::begin(path.to_path_buf())
    }

    /// The folder of an earlier run, which goes on after so many updates. What its log says of later ones is removed.
    pub fn resume(path: &Path, step: u64) -> Result<RunFolder> {
        let file = path.join(LOG);
        let lock = lock(path)?;
        let failed = Error::io("open", &file);
        let log = File::options().read(true).append(true).open(&file);
        let log = log.and_then(|log| {
            log.set_len(kept(&log, step)?)?;
            Ok(log)
        });
        Ok(RunFolder { path: path.to_path_buf(), log: log.map_err(failed)?, _lock: lock })
    }

    fn begin(path: PathBuf) -> Result<RunFolder> {
        let lock = lock(&path)?;
        // Whoever wrote checkpoints here, they are not this run's to replace.
        let entries = fs::read_dir(&path).map_err(Error::io("read", &path))?;
        if entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("checkpoint-")) {
            return Err(Error::FolderTaken(path));
        }
        let file = path.join(LOG);
        // `create_new` decides between two runs that were given one folder.
        match File::options().append(true).create_new(true).open(&file) {
            Ok(log) => Ok(RunFolder { path, log, _lock: lock }),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => Err(Error::FolderTaken(path)),
            Err(e) => Err(Error::io("create", &file)(e)),
        }
    }

    /// Waits until the log is on disk.
    pub fn sync(&self) -> Result<()> {
        self.log.sync_data().map_err(Error::io("write", &self.path.join(LOG)))
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

fn lock(folder: &Path) -> Result<File> {
    let file = folder.join(LOCK);
    let lock =
        File::options().write(true).create(true).truncate(false).open(&file).map_err(Error::io("create", &file))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(Error::FolderBusy(folder.to_path_buf())),
        Err(TryLockError::Error(e)) => Err(Error::io("lock", &file)(e)),
    }
}

/// Bytes of a log up to its first line that is of later than `step` updates, of an end, or cut off.
fn kept(log: &File, step: u64) -> std::io::Result<u64> {
    #[derive(Deserialize)]
    struct Line {
        event: String,
        step: Option<u64>,
    }
    let mut reader = BufReader::new(log);
    let mut bytes = 0;
    let mut text = Vec::new();
    loop {
        text.clear();
        let length = reader.read_until(b'\n', &mut text)?;
        let line = text.strip_suffix(b"\n").and_then(|line| serde_json::from_slice::<Line>(line).ok());
        let stays = line.is_some_and(|line| match line.event.as_str() {
            "start" | "resume" => true,
            // The step with an index has made one update more.
            "step" => line.step.is_some_and(|index| index < step),
            "end" => false,
            _ => line.step.is_none_or(|updates| updates <= step),
        });
        if length == 0 || !stays {
            return Ok(bytes);
        }
        bytes += length as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_kept_up_to_a_checkpoint() {
        let folder = tempfile::tempdir().expect("a folder");
        let lines = [
            r#"{"event":"start"}"#,
            r#"{"event":"val","step":0}"#,
            r#"{"event":"step","step":0}"#,
            r#"{"event":"step","step":1}"#,
            r#"{"event":"val","step":2}"#,
            r#"{"event":"checkpoint","step":2}"#,
            r#"{"event":"step","step":2}"#,
            r#"{"event":"st"#,
        ];
        let file = folder.path().join(LOG);
        for (step, kept) in [(0, 2), (1, 3), (2, 6), (3, 7), (9, 7)] {
            fs::write(&file, lines.join("\n")).expect("a file");
            drop(RunFolder::resume(folder.path(), step).expect("a folder"));
            let text = fs::read_to_string(&file).expect("a file");
            assert_eq!(text.lines().collect::<Vec<_>>(), lines[..kept], "{step}");
        }
    }

    #[test]
    fn two_runs_do_not_share_a_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = RunFolder::at(folder.path()).expect("a folder");
        assert!(matches!(RunFolder::at(folder.path()), Err(Error::FolderBusy(_))));
        assert!(matches!(RunFolder::resume(folder.path(), 0), Err(Error::FolderBusy(_))));
        drop(first);
        assert!(matches!(RunFolder::at(folder.path()), Err(Error::FolderTaken(_))));
        assert!(RunFolder::resume(folder.path(), 0).is_ok());
    }
}
