//! What can be wrong with a text that is to be encoded.

use super::{lines, text};

/// What is wrong with a text file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TextFault {
    /// An ending that says nothing about what is in the file.
    #[error(
        "what is in it is not known by its name: it must end in .txt, .jsonl (both also with .gz or .zst) or .parquet"
    )]
    Unknown,
    /// A folder or a device.
    #[error("it is not a file")]
    NotAFile,
    /// No document in it.
    #[error("it has no document in it")]
    Empty,
    /// Not UTF-8 at some byte of the (unpacked) text.
    #[error("it is not UTF-8 at byte {0}")]
    NotUtf8(u64),
    /// Something that cannot be cut for encoding.
    #[error("more than {limit} MiB at byte {0} are one run of letters, digits, symbols or white space: this is no text", limit = text::LONGEST_RUN >> 20)]
    EndlessRun(u64),
    /// A line, from 1, that is too long.
    #[error("line {0} is longer than {limit} MiB", limit = lines::LONGEST_LINE >> 20)]
    LongLine(u64),
    /// A line, from 1, that is no JSON object with the text.
    #[error("line {line}: {message}")]
    Line {
        /// The line, from 1.
        line: u64,
        /// What the parser says.
        message: String,
    },
    /// The table has no such column.
    #[error("it has no column `{column}`: it has {}", list(found))]
    NoColumn {
        /// The column that was asked for.
        column: String,
        /// Its columns.
        found: Vec<String>,
    },
    /// The column does not hold one text in each row.
    #[error("column `{column}` holds {found}, not texts")]
    NotTexts {
        /// The column.
        column: String,
        /// What it holds.
        found: String,
    },
    /// A row, from 0, that is null or no UTF-8.
    #[error("row {row} of column `{column}` (from 0) is {what}")]
    Row {
        /// The row, from 0.
        row: u64,
        /// The column.
        column: String,
        /// What it is.
        what: &'static str,
    },
    /// The Parquet library cannot read it.
    #[error("it is no usable Parquet file: {0}")]
    Parquet(String),
}

fn list(names: &[String]) -> String {
    match names {
        [] => "none".into(),
        names => names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "),
    }
}
