//! Trains a compiled program: token shards, the training loop, validation, weight files, the run folder.
//!
//! [`train`](train()) does a whole run on any [`Backend`](mngc_runtime::Backend). Whatever could stop a run (data that is missing or
//! too short, weights that do not fit) is found before step 0. Everything that happens is an [`Event`], written to the
//! run folder's `log.jsonl` and handed to the caller, who may show it.

pub mod checkpoint;
pub mod data;
pub mod demo;
pub mod error;
pub mod event;
pub mod files;
pub mod folder;
pub mod memory;
pub mod parameters;
pub mod plan;
pub mod sample;
pub mod tokenizer;
pub mod train;
pub mod trained;
pub mod weights;

pub use data::Shards;
pub use error::{Error, Result};
pub use event::{Event, Source, program_hash};
pub use folder::RunFolder;
pub use memory::check_memory;
pub use plan::{Options, Plan};
pub use train::{Report, train};
pub use trained::{KeptModel, Trained};
