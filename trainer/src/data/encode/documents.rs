//! Parts of the documents, and what encoding makes of them.

use std::path::Path;
use std::sync::Arc;

use super::lines;
use crate::error::Result;
use crate::tokenizer::{END_OF_TEXT, Tokenizer};

/// Bytes of text in a job: enough that handing it over costs nothing, little enough that many fit in memory.
pub const JOB_BYTES: usize = 256 << 10;

/// One piece of work for an encoder.
pub struct Job {
    /// Bytes of the input files, in order, that are done with it.
    pub input_bytes: u64,
    /// What to encode.
    pub work: Work,
}

/// What an encoder is given.
pub enum Work {
    /// Texts.
    Texts(Texts),
    /// Whole lines that hold JSON objects: encoders parse them, since that takes as long as encoding.
    Lines {
        /// The file.
        path: Arc<Path>,
        /// Number of the first line, from 1.
        first: u64,
        /// The lines.
        bytes: Vec<u8>,
        /// The field that holds a document.
        field: Arc<str>,
    },
}

/// The end of a document that began earlier, then whole documents, then the start of one that goes on: any may be missing.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Texts {
    /// The texts, one after another.
    text: String,
    /// Where documents start.
    starts: Vec<usize>,
}

/// What became of a job.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// As in the job.
    pub input_bytes: u64,
    /// Documents that start in it.
    pub documents: u64,
    /// Bytes of text.
    pub text_bytes: u64,
    /// Its tokens, an end of text before each document's.
    pub tokens: Vec<u16>,
}

impl Texts {
    /// Whether there is nothing to encode.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty() && self.starts.is_empty()
    }

    /// Bytes of text.
    pub fn len(&self) -> usize {
        self.text.len()
    }

    /// From here on it is another document.
    pub fn start_document(&mut self) {
        self.starts.push(self.text.len());
    }

    /// Appends text to the document that was started last.
    pub fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }
}

impl Job {
    /// The tokens of it.
    pub fn encode(self, tokenizer: &Tokenizer) -> Result<Encoded> {
        let mut encoded = Encoded { input_bytes: self.input_bytes, ..Encoded::default() };
        match self.work {
            Work::Texts(texts) => encoded.texts(&texts, tokenizer),
            Work::Lines { path, first, bytes, field } => {
                lines::each_document(&path, first, &bytes, &field, |text| {
                    encoded.start_document();
                    encoded.text(text, tokenizer);
                })?;
            }
        }
        Ok(encoded)
    }
}

impl Encoded {
    fn texts(&mut self, texts: &Texts, tokenizer: &Tokenizer) {
        let mut from = 0;
        for &start in &texts.starts {
            self.text(&texts.text[from..start], tokenizer);
            self.start_document();
            from = start;
        }
        self.text(&texts.text[from..], tokenizer);
    }

    fn start_document(&mut self) {
        self.documents += 1;
        self.tokens.push(END_OF_TEXT);
    }

    fn text(&mut self, text: &str, tokenizer: &Tokenizer) {
        self.text_bytes += text.len() as u64;
        tokenizer.encode(text, &mut self.tokens);
    }
}
