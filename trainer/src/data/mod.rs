//! Tokens: texts encoded to shards on disk, the shards as one stream, and the batches cut from it.

mod batches;
pub mod encode;
pub mod info;
mod shards;

pub use batches::{Batch, batch};
pub use shards::Shards;
pub(crate) use shards::shard_bytes;
