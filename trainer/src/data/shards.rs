//! Token shards as one logical stream, through memory maps.
//!
//! A shard is 256 little-endian i32 (20240520, 1, the number of tokens, then anything) and that many little-endian u16
//! tokens. The files that a pattern names, sorted by path, make one stream: a sequence may begin in one file and end in
//! the next.

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::error::{Error, Result, ShardFault};

const MAGIC: i32 = 20240520;
const VERSION: i32 = 1;
/// Bytes before the first token.
pub(super) const HEADER_BYTES: usize = 256 * 4;
const TOKEN_BYTES: usize = 2;

/// The token stream of some shards.
#[derive(Debug)]
pub struct Shards {
    shards: Vec<Shard>,
}

/// One file.
#[derive(Debug)]
pub(super) struct Shard {
    path: PathBuf,
    map: Mmap,
    /// Position of the first token in the stream.
    start: u64,
}

impl Shards {
    /// Opens the files that `pattern` names: one file, or a glob. `what` (`training` data) is for messages.
    ///
    /// Fails on a pattern without files and on any file that is no whole shard.
    pub fn open(what: &'static str, pattern: &str) -> Result<Shards> {
        let mut shards = Vec::new();
        let mut start = 0;
        for path in paths(what, pattern)? {
            let shard = Shard { start, ..Shard::open(&path)? };
            start += shard.len();
            shards.push(shard);
        }
        Ok(Shards { shards })
    }

    /// One file, whatever characters its name has.
    pub fn open_file(path: PathBuf) -> Result<Shards> {
        Ok(Shards { shards: vec![Shard::open(&path)?] })
    }

    /// Tokens in the stream.
    pub fn tokens(&self) -> u64 {
        self.shards.last().map_or(0, |last| last.start + last.len())
    }

    /// The files, in the order of the stream.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.shards.iter().map(|shard| shard.path.as_path())
    }

    /// Fails where a token of the range is not below `vocab`. Reads all of the range.
    pub fn check_tokens(&self, range: Range<u64>, vocab: usize) -> Result<()> {
        if vocab > usize::from(u16::MAX) {
            return Ok(());
        }
        for (shard, first, bytes) in self.pieces(range) {
            // A plain maximum runs at the speed of memory; the place is looked for only where there is one.
            let highest = tokens(bytes).max().unwrap_or(0);
            if usize::from(highest) < vocab {
                continue;
            }
            if let Some((i, token)) = tokens(bytes).enumerate().find(|&(_, token)| usize::from(token) >= vocab) {
                let fault = ShardFault::Token { index: first + i as u64, token, vocab };
                return Err(Error::Shard { path: shard.path.clone(), fault });
            }
        }
        Ok(())
    }

    /// The tokens of a range, fewer where the stream ends before it.
    pub fn read(&self, range: Range<u64>) -> Vec<u16> {
        let mut out = Vec::with_capacity(range.end.saturating_sub(range.start) as usize);
        self.pieces(range).for_each(|(_, _, bytes)| out.extend(tokens(bytes)));
        out
    }

    /// The parts of a range shard by shard: the shard, the first token's position in it, and the tokens' bytes.
    /// A range that ends before it starts has none.
    fn pieces(&self, range: Range<u64>) -> impl Iterator<Item = (&Shard, u64, &[u8])> {
        let range = range.start..range.end.max(range.start);
        let first = self.shards.partition_point(|shard| shard.start + shard.len() <= range.start);
        self.shards[first..].iter().take_while(move |shard| shard.start < range.end).map(move |shard| {
            let from = range.start.saturating_sub(shard.start);
            let to = (range.end - shard.start).min(shard.len());
            let bytes = &shard.map[HEADER_BYTES..];
            (shard, from, &bytes[from as usize * TOKEN_BYTES..to as usize * TOKEN_BYTES])
        })
    }
}

impl Shard {
    /// A file as a stream of its own. Fails where it is no whole shard.
    pub(super) fn open(path: &Path) -> Result<Shard> {
        Ok(Shard { path: path.to_path_buf(), map: map(path)?, start: 0 })
    }

    /// Tokens in the file.
    pub(super) fn len(&self) -> u64 {
        ((self.map.len() - HEADER_BYTES) / TOKEN_BYTES) as u64
    }

    /// All of them.
    pub(super) fn tokens(&self) -> impl Iterator<Item = u16> {
        tokens(&self.map[HEADER_BYTES..])
    }
}

/// The header of a shard of so many tokens, below 2^31.
pub(super) fn header(tokens: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    for (word, value) in header.chunks_exact_mut(4).zip([MAGIC, VERSION, tokens as i32]) {
        word.copy_from_slice(&value.to_le_bytes());
    }
    header
}

/// The bytes of a shard of these tokens.
pub(crate) fn shard_bytes(tokens: &[u16]) -> Vec<u8> {
    let mut bytes = header(tokens.len() as u64).to_vec();
    bytes.extend(tokens.iter().flat_map(|token| token.to_le_bytes()));
    bytes
}

fn tokens(bytes: &[u8]) -> impl Iterator<Item = u16> {
    let (pairs, _) = bytes.as_chunks::<TOKEN_BYTES>();
    pairs.iter().map(|&pair| u16::from_le_bytes(pair))
}

/// The files that a pattern names, sorted: one file, or a glob. `what` is for messages.
pub(super) fn paths(what: &'static str, pattern: &str) -> Result<Vec<PathBuf>> {
    // A file whose name has a bracket or a star in it is still that file.
    if Path::new(pattern).is_file() {
        return Ok(vec![pattern.into()]);
    }
    let found = glob::glob(pattern).map_err(|source| Error::Pattern { pattern: pattern.into(), source })?;
    let mut paths = Vec::new();
    for path in found {
        paths.push(path.map_err(|e| {
            let path = e.path().to_path_buf();
            Error::Io { action: "read", path, source: e.into() }
        })?);
    }
    paths.sort();
    if paths.is_empty() { Err(Error::NoShards { what, pattern: pattern.into() }) } else { Ok(paths) }
}

/// Maps a file after looking at its header and size.
fn map(path: &Path) -> Result<Mmap> {
    let fail = |fault| Err(Error::Shard { path: path.to_path_buf(), fault });
    let file = File::open(path).map_err(Error::io("read", path))?;
    let metadata = file.metadata().map_err(Error::io("read", path))?;
    if !metadata.is_file() {
        return fail(ShardFault::NotAFile);
    }
    if metadata.len() < HEADER_BYTES as u64 {
        return fail(ShardFault::Short(metadata.len()));
    }
    // SAFETY: the map is read only, and what is read from it is checked as plain numbers. Like every reader of memory
    // maps this trusts that nobody cuts the file while it is open.
    let map = unsafe { Mmap::map(&file) }.map_err(Error::io("read", path))?;
    match fault(&map) {
        Some(fault) => fail(fault),
        None => Ok(map),
    }
}

/// What is wrong with the bytes of a shard that has room for a header.
fn fault(bytes: &[u8]) -> Option<ShardFault> {
    let (words, _) = bytes[..HEADER_BYTES].as_chunks::<4>();
    let [magic, version, count] = [0, 1, 2].map(|i| i32::from_le_bytes(words[i]));
    let rest = (bytes.len() - HEADER_BYTES) as u64;
    if magic != MAGIC {
        return Some(ShardFault::Magic(magic));
    }
    if version != VERSION {
        return Some(ShardFault::Version(version));
    }
    let Ok(header) = u64::try_from(count) else {
        return Some(ShardFault::Negative(count));
    };
    if !rest.is_multiple_of(TOKEN_BYTES as u64) {
        return Some(ShardFault::OddBytes(rest));
    }
    let found = rest / TOKEN_BYTES as u64;
    (header != found).then_some(ShardFault::Count { header, found })
}
