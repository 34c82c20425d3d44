//! Files of lines, each a JSON object with a document in one of its fields.

use std::fmt;
use std::io::{BufRead, Read};
use std::path::Path;
use std::sync::Arc;

use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use super::documents::{JOB_BYTES, Work};
use super::fault::TextFault;
use super::input::Stream;
use crate::error::{Error, Result};

/// Bytes of the longest line that is taken: what bounds the memory for a file that has no line ends.
pub const LONGEST_LINE: usize = 64 << 20;

/// Cuts a file into jobs of whole lines.
pub struct Lines {
    pub stream: Stream,
    field: Arc<str>,
    /// Number of the next line, from 1.
    next: u64,
}

impl Lines {
    /// The lines of a stream, whose documents are in `field`.
    pub fn new(stream: Stream, field: &Arc<str>) -> Lines {
        Lines { stream, field: field.clone(), next: 1 }
    }

    /// The next lines, at least one that is not blank; none at the end.
    pub fn next(&mut self) -> Result<Option<Work>> {
        let first = self.next;
        let mut bytes = Vec::new();
        let mut any = false;
        while bytes.len() < JOB_BYTES {
            let start = bytes.len();
            let mut reader = (&mut self.stream.reader).take(LONGEST_LINE as u64 + 1);
            let n = reader.read_until(b'\n', &mut bytes).map_err(self.stream.io())?;
            if n == 0 {
                break;
            }
            if n > LONGEST_LINE {
                return Err(self.stream.fault(TextFault::LongLine(self.next)));
            }
            any |= !is_blank(&bytes[start..]);
            self.next += 1;
        }
        if !any && !bytes.is_empty() {
            return self.next();
        }
        let path = self.stream.path.clone();
        Ok(any.then(|| Work::Lines { path, first, bytes, field: self.field.clone() }))
    }
}

fn is_blank(line: &[u8]) -> bool {
    line.trim_ascii().is_empty()
}

/// Hands over the document of each line that is not blank. `first` is the number of the first line.
pub fn each_document(path: &Path, first: u64, bytes: &[u8], field: &str, mut take: impl FnMut(&str)) -> Result<()> {
    for (line, number) in bytes.split_inclusive(|&byte| byte == b'\n').zip(first..) {
        if !is_blank(line) {
            let text = document(line, field).map_err(|error| {
                // The parser sees one line only: its own line number says nothing.
                let message = error.to_string().replacen(" at line 1 column ", " at column ", 1);
                Error::Text { path: path.to_path_buf(), fault: TextFault::Line { line: number, message } }
            })?;
            take(&text);
        }
    }
    Ok(())
}

fn document(line: &[u8], field: &str) -> serde_json::Result<String> {
    let mut deserializer = serde_json::Deserializer::from_slice(line);
    let text = deserializer.deserialize_map(Field(field))?;
    deserializer.end()?;
    Ok(text)
}

/// Takes the text of one field out of an object.
struct Field<'a>(&'a str);

impl<'de> Visitor<'de> for Field<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "an object with a string `{}`", self.0)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<String, A::Error> {
        let mut text = None;
        // Names may hold escapes, so they are not borrowed from the line.
        while let Some(name) = map.next_key::<String>()? {
            if name == self.0 {
                text = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        text.ok_or_else(|| A::Error::custom(format_args!("the object has no field `{}`", self.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_field_is_taken_and_others_are_passed_over() {
        let of = |line: &str| document(line.as_bytes(), "text").map_err(|error| error.to_string());
        assert_eq!(
            of(r#"{"id": [1, {"text": 2}], "text": "a\n\u00e9\ud83d\ude00", "z": null}"#),
            Ok("a\né\u{1f600}".into())
        );
        assert_eq!(of(r#"{"te\u0078t": ""}"#), Ok(String::new()));
        // As in other readers of JSON.
        assert_eq!(of(r#"{"text": "a", "text": "b"}"#), Ok("b".into()));
        let wrong = [
            (r#"{"a": "b"}"#, "no field `text`"),
            (r#"{"text": null}"#, "invalid type: null, expected a string"),
            (r#"["text"]"#, "expected an object with a string `text`"),
            (r#"{"text": "a"} x"#, "trailing characters"),
            (r#"{"text": "a"#, "EOF while parsing a string"),
            (r#"{"text": "\ud800"}"#, "hex escape"),
        ];
        for (line, message) in wrong {
            let found = of(line).expect_err(line);
            assert!(found.contains(message), "{line}: {found}");
        }
        assert!(document(b"{\"text\": \"\xff\"}", "text").is_err());
    }
}
