//! Plain text files, of any length.

use std::io::Read;
use std::mem;

use super::documents::{JOB_BYTES, Texts, Work};
use super::fault::TextFault;
use super::input::Stream;
use crate::error::Result;
use crate::tokenizer::gpt2;

/// Bytes of the longest run of one kind of characters (letters, digits, white space, others) that is taken. Such a run is
/// encoded in one go, so this is what bounds the memory.
pub const LONGEST_RUN: usize = 1 << 20;

/// Cuts a file into jobs: at the separator into documents, and those where tokens end for certain.
pub struct Text {
    pub stream: Stream,
    split_on: Option<String>,
    /// What was read but not handed out: text, then the start of a character.
    text: String,
    partial: Vec<u8>,
    /// Bytes that were handed out.
    done: u64,
    /// Whether the text that comes next starts a document.
    at_start: bool,
    ended: bool,
}

impl Text {
    /// A stream as documents with `split_on` between them, or as one.
    pub fn new(stream: Stream, split_on: Option<&str>) -> Text {
        let split_on = split_on.filter(|separator| !separator.is_empty()).map(String::from);
        Text { stream, split_on, text: String::new(), partial: Vec::new(), done: 0, at_start: true, ended: false }
    }

    /// The next part of the text; none at the end.
    pub fn next(&mut self) -> Result<Option<Work>> {
        loop {
            if !self.ended {
                self.read()?;
            }
            let texts = self.cut();
            if !texts.is_empty() {
                return Ok(Some(Work::Texts(texts)));
            }
            if self.ended {
                return Ok(None);
            }
            if self.text.len() > LONGEST_RUN {
                return Err(self.stream.fault(TextFault::EndlessRun(self.done)));
            }
        }
    }

    /// Appends the next bytes of the file, as far as they are whole characters.
    fn read(&mut self) -> Result<()> {
        let mut bytes = mem::take(&mut self.partial);
        let limit = (JOB_BYTES - bytes.len()) as u64;
        let n = (&mut self.stream.reader).take(limit).read_to_end(&mut bytes).map_err(self.stream.io())?;
        self.ended = n == 0;
        match str::from_utf8(&bytes) {
            Ok(text) => self.text.push_str(text),
            Err(error) => {
                let (valid, rest) = bytes.split_at(error.valid_up_to());
                self.text.push_str(&String::from_utf8_lossy(valid));
                if self.ended || error.error_len().is_some() {
                    return Err(self.stream.fault(TextFault::NotUtf8(self.done + self.text.len() as u64)));
                }
                self.partial = rest.to_vec();
            }
        }
        Ok(())
    }

    /// Takes out what can be encoded: whole documents, and the start of the last one where it can be cut.
    fn cut(&mut self) -> Texts {
        let text = mem::take(&mut self.text);
        let mut texts = Texts::default();
        let mut rest = text.as_str();
        let separator = self.split_on.take();
        if let Some(separator) = &separator {
            while let Some((document, after)) = rest.split_once(separator.as_str()) {
                self.hand_out(document, &mut texts);
                self.at_start = true;
                rest = after;
            }
        }
        let cut = if self.ended {
            rest.len()
        } else {
            // A separator may have begun at the end of what was read.
            let unsure = separator.as_ref().map_or(0, |separator| separator.len() - 1);
            let limit = rest.floor_char_boundary(rest.len().saturating_sub(unsure));
            gpt2().classes().last_cut(rest, limit).unwrap_or(0)
        };
        self.hand_out(&rest[..cut], &mut texts);
        let rest = &rest[cut..];
        self.done += (text.len() - rest.len()) as u64;
        self.text = rest.to_string();
        self.split_on = separator;
        texts
    }

    /// Hands out text. Documents without any (between two separators) are none.
    fn hand_out(&mut self, text: &str, texts: &mut Texts) {
        if text.is_empty() {
            return;
        }
        if mem::take(&mut self.at_start) {
            texts.start_document();
        }
        texts.push(text);
    }
}
