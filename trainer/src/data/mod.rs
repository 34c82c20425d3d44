//! Tokens: shards on disk as one stream, and the batches cut from it.

mod batches;
mod shards;

pub use batches::{Batch, batch};
pub use shards::Shards;
