//! `mngc data`: makes token shards of text, and says what is in some.

use std::io::{self, IsTerminal};
use std::num::{NonZeroU32, NonZeroUsize};
use std::panic;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use mngc_trainer::data::encode::{self, Options, Summary};
use mngc_trainer::data::info;
use serde_json::json;

use crate::output;
use crate::progress::duration;

/// Options of the command.
#[derive(Args, Debug)]
pub struct Data {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Encode text files to token shards
    Encode(Encode),
    /// Say what is in token shards, and what is wrong with them
    Info(Info),
}

impl Data {
    /// Whether standard output must hold one JSON object and nothing else.
    pub fn json(&self) -> bool {
        match &self.what {
            What::Encode(encode) => encode.json,
            What::Info(info) => info.json,
        }
    }

    /// Does it.
    pub fn run(&self) -> Result<ExitCode> {
        match &self.what {
            What::Encode(encode) => encode.run(),
            What::Info(info) => info.run(),
        }
    }
}

#[derive(Args, Debug)]
#[command(after_help = ENCODE_EXAMPLES)]
struct Encode {
    /// Files of text: .txt, .jsonl (both also .gz or .zst), .parquet
    #[arg(value_name = "INPUT", required = true)]
    inputs: Vec<PathBuf>,

    /// The folder for the shards
    #[arg(long, short, value_name = "DIR")]
    out: PathBuf,

    /// What the names of the shards begin with [default: the name of the folder]
    #[arg(long, value_name = "NAME", value_parser = file_name)]
    name: Option<String>,

    /// Tokens in each shard but the last; the first shard is for validation
    #[arg(long, value_name = "N", default_value = "100000000", value_parser = shard_tokens)]
    shard_tokens: NonZeroU32,

    /// The column, or the field of each line, that holds the text
    #[arg(long, value_name = "NAME", default_value = "text")]
    column: String,

    /// What stands between two documents of a .txt file (\n, \t, \r and \\ are understood) [default: nothing, a file is
    /// one document]
    #[arg(long, value_name = "TEXT", value_parser = unescape)]
    split_on: Option<String>,

    /// Threads that encode [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,

    /// Replace the shards of that name
    #[arg(long)]
    force: bool,

    /// Show no progress
    #[arg(long, short)]
    quiet: bool,

    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

const ENCODE_EXAMPLES: &str = "\
Examples:
  mngc data encode books/*.txt -o data/books --shard-tokens 1000000
  mngc data encode stories.txt -o data/stories --split-on '<|endoftext|>'
  mngc data encode fineweb/*.parquet -o data/fineweb10B --name fineweb
  mngc data encode comments.jsonl.zst --column body -o data/comments

Tokens are those of GPT-2, an <|endoftext|> before each document. The first shard, NAME_val_000000.bin, is for
validation; NAME_train_000001.bin and those after it are for training.";

impl Encode {
    fn run(&self) -> Result<ExitCode> {
        let threads = self.threads.and_then(|n| NonZeroUsize::new(n.into()));
        let options = Options {
            inputs: self.inputs.clone(),
            folder: self.out.clone(),
            name: self.name.clone().unwrap_or_else(|| folder_name(&self.out)),
            shard_tokens: self.shard_tokens,
            column: self.column.clone(),
            split_on: self.split_on.clone(),
            threads: threads.or_else(|| thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN),
            force: self.force,
        };
        hide_panics_of_the_reader();
        let bar = bar(self.quiet);
        let start = Instant::now();
        let encoded = encode::encode(&options, &mut |progress| {
            bar.set_length(progress.total);
            bar.set_position(progress.bytes);
        });
        bar.finish_and_clear();
        let summary = encoded?;
        let seconds = start.elapsed().as_secs_f64();
        if self.json {
            let mut object = serde_json::to_value(&summary)?;
            object["seconds"] = json!(seconds);
            output::print_json(&object)?;
        } else {
            output::print(&encode_text(&summary, &self.out, seconds))?;
        }
        if summary.shards.len() == 1 {
            let advice = format!(
                "note: all {} tokens are in one shard, which is for validation: --shard-tokens N cuts off fewer for it\n",
                summary.tokens
            );
            output::note(&advice);
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A damaged Parquet file may make its library panic. That is reported as an error of the file; what the panic says itself
/// would only look like a fault of the program.
fn hide_panics_of_the_reader() {
    let show = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if thread::current().name() != Some(encode::READER_THREAD) {
            show(info);
        }
    }));
}

/// Shows bytes of the inputs on a terminal, nothing elsewhere.
fn bar(quiet: bool) -> ProgressBar {
    if quiet || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    // The template is a constant: should it ever be wrong, the plain bar will do.
    let style = ProgressStyle::with_template("{bar:32} {bytes}/{total_bytes}  {bytes_per_sec}  {elapsed} (eta {eta})");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

fn encode_text(summary: &Summary, folder: &Path, seconds: f64) -> String {
    let megabytes = summary.text_bytes as f64 / 1e6;
    format!(
        "{} documents, {megabytes:.1} MB of text, {} tokens in {} ({:.1} MB/s)\n{} shards in {}\n",
        summary.documents,
        summary.tokens,
        duration(seconds * 1e3),
        megabytes / seconds.max(1e-9),
        summary.shards.len(),
        folder.display()
    )
}

#[derive(Args, Debug)]
#[command(after_help = INFO_EXAMPLES)]
struct Info {
    /// Shards, or patterns of their names
    #[arg(value_name = "GLOB", required = true)]
    shards: Vec<String>,

    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

const INFO_EXAMPLES: &str = "\
Examples:
  mngc data info 'data/books/*_train_*.bin'
  mngc data info data/books/books_val_000000.bin --json

Exit code 1 says that something is wrong with a shard.";

impl Info {
    fn run(&self) -> Result<ExitCode> {
        let info = info::info(&self.shards)?;
        if self.json {
            output::print_json(&info)?;
        } else {
            output::print(&info_text(&info))?;
        }
        let sound = info.shards.iter().all(|shard| shard.problems.is_empty());
        Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn info_text(info: &info::Info) -> String {
    let mut text = String::new();
    for shard in &info.shards {
        text += &format!("{}: {} tokens, {} documents\n", shard.path.display(), shard.tokens, shard.documents);
        if !shard.first_words.is_empty() {
            text += &format!("  {}…\n", shard.first_words);
        }
        for problem in &shard.problems {
            text += &format!("  problem: {problem}\n");
        }
    }
    text += &format!("{} shards: {} tokens, {} documents\n", info.shards.len(), info.tokens, info.documents);
    if let Some(lengths) = &info.lengths {
        text += &format!(
            "tokens of a document: {} at least, {} in the middle, {:.1} on average, {} at most\n",
            lengths.min, lengths.median, lengths.mean, lengths.max
        );
    }
    text
}

/// `data/books` names its shards `books_…`.
fn folder_name(folder: &Path) -> String {
    let absolute = std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf());
    absolute.file_name().map_or_else(|| "tokens".into(), |name| name.to_string_lossy().into_owned())
}

fn file_name(text: &str) -> Result<String, String> {
    let mut parts = Path::new(text).components();
    match (parts.next(), parts.next()) {
        (Some(std::path::Component::Normal(name)), None) if name == text => Ok(text.into()),
        _ => Err("a part of a file name is needed, without folders".into()),
    }
}

fn shard_tokens(text: &str) -> Result<NonZeroU32, String> {
    // The header of a shard counts with 31 bits.
    let number = text.parse().ok().filter(|&n: &u32| n <= i32::MAX as u32);
    number.and_then(NonZeroU32::new).ok_or_else(|| format!("a number from 1 to {} is needed", i32::MAX))
}

fn unescape(text: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        out.push(match chars.next() {
            Some('n') => '\n',
            Some('t') => '\t',
            Some('r') => '\r',
            Some('\\') => '\\',
            _ => return Err("a backslash stands before n, t, r or another backslash".into()),
        });
    }
    if out.is_empty() { Err("at least one character is needed".into()) } else { Ok(out) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_may_have_escapes() {
        assert_eq!(unescape(r"\n\n--\t\\n"), Ok("\n\n--\t\\n".into()));
        for wrong in ["", "\\", "a\\", "\\x"] {
            assert!(unescape(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn shards_are_named_after_their_folder() {
        assert_eq!(folder_name(Path::new("data/my books/")), "my books");
        assert_eq!(folder_name(Path::new("/")), "tokens");
        assert!(file_name("a b").is_ok());
        for wrong in ["", ".", "..", "a/b", "/a", "a/"] {
            assert!(file_name(wrong).is_err(), "{wrong}");
        }
    }
}
