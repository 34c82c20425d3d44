//! What is in token shards: counts, documents, first words, and what is wrong with them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::shards::{self, Shard};
use crate::error::Result;
use crate::tokenizer::{END_OF_TEXT, VOCABULARY, gpt2};

/// Tokens that are shown of each shard.
const FIRST_TOKENS: usize = 24;

/// What is known about some shards.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Info {
    /// Tokens in all shards.
    pub tokens: u64,
    /// Documents in all shards, each of which an end of text begins.
    pub documents: u64,
    /// How long the documents are; none where there is no document.
    pub lengths: Option<Lengths>,
    /// File by file.
    pub shards: Vec<ShardInfo>,
}

/// Tokens of documents, without the end of text that begins each.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Lengths {
    /// Of the shortest document.
    pub min: u64,
    /// Of the one in the middle; the shorter of two.
    pub median: u64,
    /// Of all documents on average.
    pub mean: f64,
    /// Of the longest document.
    pub max: u64,
}

/// What is known about one file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ShardInfo {
    /// The file.
    pub path: PathBuf,
    /// Tokens in it; 0 where it is no shard.
    pub tokens: u64,
    /// Documents that start in it.
    pub documents: u64,
    /// The text it begins with, on one line.
    pub first_words: String,
    /// What is wrong with it; nothing if all is well.
    pub problems: Vec<String>,
}

/// Reads the shards that some patterns name, all of each. Files with faults are told of and left out of the counts.
///
/// The shards of one pattern are taken as one stream, so a document may go on from one to the next.
/// Fails where a pattern names no file or a file cannot be read at all.
pub fn info(patterns: &[String]) -> Result<Info> {
    let mut info = Info::default();
    let mut documents = Documents::default();
    for pattern in patterns {
        for path in shards::paths("token", pattern)? {
            info.shards.push(shard(&path, &mut documents)?);
        }
        documents.end();
    }
    info.tokens = info.shards.iter().map(|shard| shard.tokens).sum();
    info.documents = info.shards.iter().map(|shard| shard.documents).sum();
    info.lengths = documents.lengths();
    Ok(info)
}

fn shard(path: &Path, documents: &mut Documents) -> Result<ShardInfo> {
    let mut info = ShardInfo { path: path.to_path_buf(), ..ShardInfo::default() };
    let shard = match Shard::open(path) {
        Ok(shard) => shard,
        Err(crate::Error::Shard { fault, .. }) => {
            info.problems.push(fault.to_string());
            // What comes before and after it is not one document.
            documents.end();
            return Ok(info);
        }
        Err(error) => return Err(error),
    };
    let mut unknown: Option<(u64, u16)> = None;
    for (i, token) in (0..).zip(shard.tokens()) {
        info.documents += u64::from(token == END_OF_TEXT);
        documents.push(token);
        if usize::from(token) >= VOCABULARY {
            unknown.get_or_insert((i, token));
        }
    }
    info.tokens = shard.len();
    if info.tokens == 0 {
        info.problems.push("it has no tokens".into());
    }
    if let Some((i, token)) = unknown {
        let last = VOCABULARY - 1;
        info.problems.push(format!("token {i} is {token}, but the vocabulary of GPT-2 ends at {last}"));
    }
    let first: Vec<u16> = shard.tokens().filter(|&token| token != END_OF_TEXT).take(FIRST_TOKENS).collect();
    info.first_words = gpt2().decode(&first).split_whitespace().collect::<Vec<_>>().join(" ");
    Ok(info)
}

/// Counts how long documents are.
#[derive(Default)]
struct Documents {
    /// How many documents there are of each length: far fewer than documents.
    counts: BTreeMap<u64, u64>,
    /// The length so far of the document at hand; none before the first.
    current: Option<u64>,
}

impl Documents {
    fn push(&mut self, token: u16) {
        if token == END_OF_TEXT {
            self.end();
            self.current = Some(0);
        } else if let Some(length) = &mut self.current {
            *length += 1;
        }
    }

    fn end(&mut self) {
        if let Some(length) = self.current.take() {
            *self.counts.entry(length).or_default() += 1;
        }
    }

    fn lengths(&self) -> Option<Lengths> {
        let documents: u64 = self.counts.values().sum();
        let tokens: u64 = self.counts.iter().map(|(length, count)| length * count).sum();
        let mut shorter = 0;
        let median = self.counts.iter().find_map(|(&length, count)| {
            shorter += count;
            (2 * shorter >= documents).then_some(length)
        })?;
        let (&min, _) = self.counts.first_key_value()?;
        let (&max, _) = self.counts.last_key_value()?;
        Some(Lengths { min, median, mean: tokens as f64 / documents as f64, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(tokens: &[u16]) -> Option<Lengths> {
        let mut documents = Documents::default();
        tokens.iter().for_each(|&token| documents.push(token));
        documents.end();
        documents.lengths()
    }

    #[test]
    fn lengths_are_those_of_documents_that_begin() {
        const E: u16 = END_OF_TEXT;
        assert_eq!(lengths(&[]), None);
        assert_eq!(lengths(&[1, 2]), None);
        let three = Some(Lengths { min: 0, median: 1, mean: 4.0 / 3.0, max: 3 });
        assert_eq!(lengths(&[7, E, 1, 2, 3, E, E, 4]), three);
        assert_eq!(lengths(&[E, 1, 2, E, 1]).map(|lengths| lengths.median), Some(1));
    }
}
