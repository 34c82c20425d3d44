//! The demo's text, which is part of the program: English of Shakespeare and Milton, with a held-out part.

use std::fs;
use std::path::{Path, PathBuf};

use mngc_runtime::folders;

use crate::data::shard_bytes;
use crate::error::{Error, Result};
use crate::files;
use crate::tokenizer::{END_OF_TEXT, gpt2};

/// What stands between two documents of the bundled files.
const SEPARATOR: &str = "\n<|endoftext|>\n";

/// One bundled file.
struct Text {
    name: &'static str,
    /// UTF-8 text, packed with zstd.
    packed: &'static [u8],
    /// BLAKE3 of the token shard that it gives.
    hash: &'static str,
}

const TRAIN: Text = Text {
    name: "train",
    packed: include_bytes!(concat!(env!("OUT_DIR"), "/train.txt.zst")),
    hash: "387939d08c179ba19022d6cacd7ea481d69306f6bf775e4f100c32364dc2154e",
};

const VAL: Text = Text {
    name: "val",
    packed: include_bytes!(concat!(env!("OUT_DIR"), "/val.txt.zst")),
    hash: "05695478ed9dbfa614f886417cedfea3e5356a135f48adf7e0f07c88082ba0f8",
};

/// Where the token shards of the demo are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demo {
    /// What is trained on.
    pub train: PathBuf,
    /// What is held out.
    pub val: PathBuf,
}

/// The demo's token shards in a cache folder: written at the first use, and again where a file is not what it should be.
///
/// Fails where the folder cannot be written.
pub fn shards(cache: &Path) -> Result<Demo> {
    Ok(Demo { train: shard(cache, &TRAIN)?, val: shard(cache, &VAL)? })
}

/// The shard that a model file's `data = "bundled:demo-train"` or `"bundled:demo-val"` means, written into the cache
/// folder where it is not there; none for other patterns.
pub fn bundled(pattern: &str) -> Result<Option<PathBuf>> {
    let Some(name) = pattern.strip_prefix("bundled:") else { return Ok(None) };
    let text = match name {
        "demo-train" => &TRAIN,
        "demo-val" => &VAL,
        _ => return Err(Error::Option(format!("no bundled data is named `{name}`: demo-train and demo-val are"))),
    };
    let missing = || Error::Option("the demo's data needs a cache folder: set HOME or XDG_CACHE_HOME".into());
    shard(&folders::cache().ok_or_else(missing)?, text).map(Some)
}

fn shard(cache: &Path, text: &Text) -> Result<PathBuf> {
    // Programs with other texts or tokens may use the folder as well.
    let path = cache.join("demo").join(format!("demo_{}_{}.bin", text.name, &text.hash[..12]));
    if fs::read(&path).is_ok_and(|bytes| hash(&bytes) == text.hash) {
        return Ok(path);
    }
    let folder = path.parent().unwrap_or(cache);
    fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    files::write_atomically(&path, &text.shard()?)?;
    Ok(path)
}

fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

impl Text {
    /// The bytes of its token shard.
    fn shard(&self) -> Result<Vec<u8>> {
        let path = || Path::new("the demo's text");
        let bytes = zstd::decode_all(self.packed).map_err(Error::io("read", path()))?;
        let text = String::from_utf8_lossy(&bytes);
        let mut tokens = Vec::new();
        for document in text.trim_end_matches('\n').split(SEPARATOR) {
            tokens.push(END_OF_TEXT);
            gpt2().encode(document, &mut tokens);
        }
        Ok(shard_bytes(&tokens))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shards_are_those_the_program_knows() {
        for text in [TRAIN, VAL] {
            let shard = text.shard().expect("bundled text");
            assert_eq!(hash(&shard), text.hash, "{}", text.name);
        }
    }

    #[test]
    fn a_damaged_shard_is_made_again() {
        let cache = tempfile::tempdir().expect("a folder");
        let first = shards(cache.path()).expect("shards");
        let whole = fs::read(&first.val).expect("a shard");
        fs::write(&first.val, &whole[..2000]).expect("a file");
        assert_eq!(shards(cache.path()).expect("shards"), first);
        assert_eq!(fs::read(&first.val).expect("a shard"), whole);
    }

    #[test]
    fn the_held_out_documents_are_not_in_the_training_text() {
        let text = |text: &Text| String::from_utf8(zstd::decode_all(text.packed).expect("zstd")).expect("UTF-8");
        let (train, val) = (text(&TRAIN), text(&VAL));
        assert!(val.trim_end().split(SEPARATOR).count() > 20);
        for document in val.trim_end().split(SEPARATOR) {
            assert!(!train.contains(document), "{document}");
        }
    }
}
