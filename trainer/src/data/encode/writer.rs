//! The stream of tokens to shards, which get their names when all of them are whole.

use std::fs::{self, File};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{Options, WrittenShard};
use crate::data::shards;
use crate::error::{Error, Result};
use crate::files;

/// Writes one stream of tokens as shards.
pub struct Writer {
    folder: PathBuf,
    name: String,
    shard_tokens: u64,
    force: bool,
    /// Holds the shards until they are all whole. Like the folders below it goes away with the writer.
    temporary: TempDir,
    made: MadeFolders,
    current: Option<Shard>,
    done: Vec<WrittenShard>,
}

struct Shard {
    path: PathBuf,
    file: BufWriter<File>,
    tokens: u64,
}

impl Writer {
    /// Makes the folder where it is missing.
    ///
    /// Fails where there are shards of that name, unless they are to be replaced.
    pub fn new(options: &Options) -> Result<Writer> {
        let folder = options.folder.clone();
        let made = MadeFolders::make(&folder)?;
        if !options.force && !existing(&folder, &options.name)?.is_empty() {
            return Err(Error::ShardsExist { folder, name: options.name.clone() });
        }
        let temporary =
            tempfile::Builder::new().prefix(".mngc-").tempdir_in(&folder).map_err(Error::io("write to", &folder))?;
        Ok(Writer {
            folder,
            name: options.name.clone(),
            shard_tokens: options.shard_tokens.get().into(),
            force: options.force,
            temporary,
            made,
            current: None,
            done: Vec::new(),
        })
    }

    /// Appends tokens to the stream.
    pub fn push(&mut self, mut tokens: &[u16]) -> Result<()> {
        while !tokens.is_empty() {
            let mut shard = match self.current.take() {
                Some(shard) => shard,
                None => self.start_shard()?,
            };
            let room = usize::try_from(self.shard_tokens - shard.tokens).unwrap_or(usize::MAX);
            let (now, later) = tokens.split_at(room.min(tokens.len()));
            shard.push(now).map_err(Error::io("write", &shard.path))?;
            tokens = later;
            if shard.tokens == self.shard_tokens {
                self.end_shard(shard)?;
            } else {
                self.current = Some(shard);
            }
        }
        Ok(())
    }

    /// Ends the last shard and gives all of them their names.
    pub fn finish(mut self) -> Result<Vec<WrittenShard>> {
        if let Some(shard) = self.current.take() {
            self.end_shard(shard)?;
        }
        if self.force {
            // Shards of an earlier, longer stream would otherwise follow those of this one.
            for old in existing(&self.folder, &self.name)? {
                fs::remove_file(&old).map_err(Error::io("remove", &old))?;
            }
        }
        for shard in &mut self.done {
            let path = self.folder.join(shard.path.file_name().unwrap_or_default());
            fs::rename(&shard.path, &path).map_err(Error::io("write", &path))?;
            shard.path = path;
        }
        files::sync_folder(&self.folder).map_err(Error::io("write to", &self.folder))?;
        self.made.keep();
        Ok(self.done)
    }

    fn start_shard(&self) -> Result<Shard> {
        let index = self.done.len();
        let split = if index == 0 { "val" } else { "train" };
        let path = self.temporary.path().join(format!("{}_{split}_{index:06}.bin", self.name));
        let open = || {
            let mut file = BufWriter::new(File::create_new(&path)?);
            // The number of tokens is written at the end: until then the file is no shard.
            file.write_all(&[0; shards::HEADER_BYTES])?;
            Ok(file)
        };
        let file = open().map_err(Error::io("write", &path))?;
        Ok(Shard { path, file, tokens: 0 })
    }

    fn end_shard(&mut self, shard: Shard) -> Result<()> {
        let Shard { path, file, tokens } = shard;
        let end = || -> io::Result<()> {
            let mut file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&shards::header(tokens))?;
            file.sync_all()
        };
        end().map_err(Error::io("write", &path))?;
        self.done.push(WrittenShard { path, tokens });
        Ok(())
    }
}

impl Shard {
    fn push(&mut self, tokens: &[u16]) -> io::Result<()> {
        self.tokens += tokens.len() as u64;
        for token in tokens {
            self.file.write_all(&token.to_le_bytes())?;
        }
        Ok(())
    }
}

/// The shards of a name that are in a folder.
fn existing(folder: &Path, name: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::io("read", folder))? {
        let entry = entry.map_err(Error::io("read", folder))?;
        if entry.file_name().to_str().is_some_and(|file| is_shard_of(file, name)) {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn is_shard_of(file: &str, name: &str) -> bool {
    let number = file
        .strip_prefix(name)
        .and_then(|rest| rest.strip_suffix(".bin"))
        .and_then(|rest| rest.strip_prefix("_val_").or_else(|| rest.strip_prefix("_train_")));
    number.is_some_and(|number| number.len() >= 6 && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Folders that were made for the shards. They are removed again, if empty, unless kept.
struct MadeFolders(Vec<PathBuf>);

impl MadeFolders {
    fn make(folder: &Path) -> Result<MadeFolders> {
        let missing = folder.ancestors().filter(|path| !path.as_os_str().is_empty());
        let missing: Vec<PathBuf> = missing.take_while(|path| !path.exists()).map(PathBuf::from).collect();
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        Ok(MadeFolders(missing))
    }

    fn keep(&mut self) {
        self.0.clear();
    }
}

impl Drop for MadeFolders {
    fn drop(&mut self) {
        // Inner folders come first. One that is not empty belongs to someone else by now.
        for folder in &self.0 {
            let _ = fs::remove_dir(folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_known_by_their_names() {
        for name in ["a_val_000000.bin", "a_train_000001.bin", "a_train_1234567.bin"] {
            assert!(is_shard_of(name, "a"), "{name}");
        }
        for name in ["a_val_0.bin", "a_val_00000x.bin", "b_val_000000.bin", "a_test_000000.bin", "a_val_000000.bin.bak"]
        {
            assert!(!is_shard_of(name, "a"), "{name}");
        }
    }
}
