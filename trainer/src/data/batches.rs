//! Sequences of tokens with their targets.

use std::collections::BTreeMap;

use mngc_runtime::{Result, Tensor};

use super::Shards;

/// Inputs and targets of some sequences, i32[sequences, T] each.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// What the model reads.
    pub tokens: Tensor,
    /// What it is to predict: the token after each.
    pub targets: Tensor,
}

impl Batch {
    /// As the inputs of an entry, by name.
    pub fn inputs(self) -> BTreeMap<String, Tensor> {
        BTreeMap::from([("tokens".to_string(), self.tokens), ("targets".to_string(), self.targets)])
    }
}

/// The sequences `first..first + count` of a stream. Sequence j reads tokens [j·T, j·T + T]: its targets are its tokens
/// one further on, so neighbours share one token.
///
/// Fails where the stream ends before.
pub fn batch(shards: &Shards, first: u64, count: usize, sequence: usize) -> Result<Batch> {
    let start = first * sequence as u64;
    let n = count * sequence;
    let stream: Vec<i32> = shards.read(start..start + n as u64 + 1).into_iter().map(i32::from).collect();
    let cut = |from: usize| stream.get(from..from + n).unwrap_or_default().to_vec();
    let sizes = [count, sequence];
    Ok(Batch { tokens: Tensor::ints(sizes, cut(0))?, targets: Tensor::ints(sizes, cut(1))? })
}
