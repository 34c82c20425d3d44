//! Text files to token shards.
//!
//! Documents stand in the order of the inputs, each after an end of text, in one stream that is cut into shards of a
//! given size, wherever in a document that falls. The first shard is for validation, the others for training:
//! `NAME_val_000000.bin`, `NAME_train_000001.bin`, …
//!
//! One thread reads and cuts, some encode, the caller's thread writes. Jobs are dealt to the encoders in turn and their
//! results taken in the same turn: that keeps the order. All queues are bounded, and a long document is encoded in parts,
//! so memory does not grow with the input.

mod documents;
mod fault;
mod input;
mod lines;
mod table;
mod text;
mod writer;

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::tokenizer;

use documents::{Encoded, Job};
pub use fault::TextFault;
use input::Inputs;
use writer::Writer;

/// Name of the thread that reads. Where the Parquet library panics on a damaged file it does so there, and the panic
/// becomes an error: a program may want to hide its message.
pub const READER_THREAD: &str = "mngc-reader";

/// Jobs that wait before and after each encoder: enough that none waits for another's longer job.
const QUEUE: usize = 2;

/// What to encode, and where to.
#[derive(Clone, Debug)]
pub struct Options {
    /// Text files: `.txt`, `.jsonl`, each also `.gz` or `.zst`, and `.parquet`.
    pub inputs: Vec<PathBuf>,
    /// Where the shards go. Missing folders are made.
    pub folder: PathBuf,
    /// What the names of the shards begin with.
    pub name: String,
    /// Tokens of each shard but the last.
    pub shard_tokens: NonZeroU32,
    /// The column of a table, or the field of a line's object, that is a document.
    pub column: String,
    /// What stands between two documents of a `.txt` file; without it the file is one document.
    pub split_on: Option<String>,
    /// Threads that encode.
    pub threads: NonZeroUsize,
    /// Whether shards of the same name are replaced.
    pub force: bool,
}

/// How far the work has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the input files that are done.
    pub bytes: u64,
    /// Bytes of all input files.
    pub total: u64,
    /// Tokens so far.
    pub tokens: u64,
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Documents of all inputs.
    pub documents: u64,
    /// Tokens in all shards, with an end of text for each document.
    pub tokens: u64,
    /// Bytes of the documents' text as UTF-8.
    pub text_bytes: u64,
    /// The shards, in order.
    pub shards: Vec<WrittenShard>,
}

/// One file that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WrittenShard {
    /// The file.
    pub path: PathBuf,
    /// Tokens in it.
    pub tokens: u64,
}

/// Encodes text files to token shards. `progress` hears of each job that is done.
///
/// Fails on inputs that cannot be read as what their names say or that have no document, and where there are shards of
/// the same name that are not to be replaced. No shard has its name before all are whole: a failure leaves nothing.
pub fn encode(options: &Options, progress: &mut dyn FnMut(Progress)) -> Result<Summary> {
    let inputs = Inputs::new(options)?;
    let total = inputs.total_bytes();
    let mut writer = Writer::new(options)?;
    let mut summary = Summary::default();
    each_encoded(inputs, options.threads.get(), &mut |encoded| {
        writer.push(&encoded.tokens)?;
        summary.documents += encoded.documents;
        summary.tokens += encoded.tokens.len() as u64;
        summary.text_bytes += encoded.text_bytes;
        progress(Progress { bytes: encoded.input_bytes, total, tokens: summary.tokens });
        Ok(())
    })?;
    summary.shards = writer.finish()?;
    Ok(summary)
}

/// Encodes with some threads and hands the results over in the order of the inputs.
fn each_encoded(inputs: Inputs, threads: usize, take: &mut dyn FnMut(Encoded) -> Result<()>) -> Result<()> {
    thread::scope(|scope| {
        let mut jobs = Vec::new();
        let mut results = Vec::new();
        for _ in 0..threads {
            let (job_sender, job_receiver) = sync_channel(QUEUE);
            let (result_sender, result_receiver) = sync_channel(QUEUE);
            let encoder = thread::Builder::new();
            encoder.spawn_scoped(scope, move || work(&job_receiver, &result_sender)).map_err(Error::Threads)?;
            jobs.push(job_sender);
            results.push(result_receiver);
        }
        let reader = thread::Builder::new().name(READER_THREAD.into());
        reader.spawn_scoped(scope, move || deal(inputs, &jobs)).map_err(Error::Threads)?;
        take_in_turn(&results, take)
        // Where that failed the results are closed now, so every encoder stops at its next one, and the reader then.
    })
}

fn deal(inputs: Inputs, encoders: &[SyncSender<Result<Job>>]) {
    for (job, encoder) in inputs.zip(encoders.iter().cycle()) {
        if encoder.send(job).is_err() {
            return;
        }
    }
}

fn work(jobs: &Receiver<Result<Job>>, results: &SyncSender<Result<Encoded>>) {
    let tokenizer = tokenizer::gpt2();
    for job in jobs {
        if results.send(job.and_then(|job| job.encode(tokenizer))).is_err() {
            return;
        }
    }
}

fn take_in_turn(encoders: &[Receiver<Result<Encoded>>], take: &mut dyn FnMut(Encoded) -> Result<()>) -> Result<()> {
    for encoder in encoders.iter().cycle() {
        match encoder.recv() {
            Ok(encoded) => take(encoded?)?,
            // Jobs are dealt in turn: the first encoder without one marks the end.
            Err(_) => return Ok(()),
        }
    }
    Ok(())
}
