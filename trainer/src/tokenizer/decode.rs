//! Tokens to text, one at a time.

use super::Tokenizer;

/// Turns tokens into text as they come. A character may be spread over several tokens: it is held back until it is whole.
pub struct Decoder<'a> {
    tokenizer: &'a Tokenizer,
    /// The start of a character whose rest is still to come.
    pending: Vec<u8>,
}

impl<'a> Decoder<'a> {
    /// A decoder that has seen nothing.
    pub fn new(tokenizer: &'a Tokenizer) -> Decoder<'a> {
        Decoder { tokenizer, pending: Vec::new() }
    }

    /// The text that is whole after one more token. Bytes that cannot become UTF-8, and tokens that are not in the
    /// vocabulary (models have more rows than tokens), are U+FFFD.
    pub fn push(&mut self, token: u16) -> String {
        let Some(bytes) = self.tokenizer.bytes(token) else {
            return self.finish() + "\u{fffd}";
        };
        self.pending.extend_from_slice(bytes);
        let mut text = String::new();
        let mut whole = 0;
        for chunk in self.pending.utf8_chunks() {
            text.push_str(chunk.valid());
            whole += chunk.valid().len();
            let invalid = chunk.invalid();
            let last = whole + invalid.len() == self.pending.len();
            let unfinished = last && is_start(invalid);
            if !invalid.is_empty() && !unfinished {
                text.push('\u{fffd}');
                whole += invalid.len();
            }
        }
        self.pending.drain(..whole);
        text
    }

    /// What is left at the end: the start of a character that was never completed.
    pub fn finish(&mut self) -> String {
        let rest = String::from_utf8_lossy(&self.pending).into_owned();
        self.pending.clear();
        rest
    }
}

/// Whether bytes that are no UTF-8 could become so if more followed.
fn is_start(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::super::gpt2;
    use super::*;

    fn stream(tokens: &[u16]) -> Vec<String> {
        let mut decoder = Decoder::new(gpt2());
        let mut texts: Vec<String> = tokens.iter().map(|&token| decoder.push(token)).collect();
        texts.push(decoder.finish());
        texts
    }

    fn byte(byte: u8) -> u16 {
        let is_byte = |&token: &u16| gpt2().bytes(token) == Some(&[byte]);
        (0..256).find(is_byte).expect("each byte is a token")
    }

    #[test]
    fn a_character_comes_when_it_is_whole() {
        // U+1F600, f0 9f 98 80, is two tokens.
        assert_eq!(stream(&[47249, 222, 0]), ["", "\u{1f600}", "!", ""]);
    }

    #[test]
    fn what_is_no_utf8_is_replaced() {
        assert_eq!(stream(&[byte(0xff), 0]), ["\u{fffd}", "!", ""]);
        assert_eq!(stream(&[47249]), ["", "\u{fffd}"]);
        assert_eq!(stream(&[47249, 0]), ["", "\u{fffd}!", ""]);
        assert_eq!(stream(&[byte(0xe4), byte(0xb8), byte(0xad)]), ["", "", "\u{4e2d}", ""]);
    }

    #[test]
    fn tokens_beyond_the_vocabulary_are_replaced() {
        assert_eq!(stream(&[50256, 50257, u16::MAX]), ["<|endoftext|>", "\u{fffd}", "\u{fffd}", ""]);
        assert_eq!(stream(&[47249, 50300]), ["", "\u{fffd}\u{fffd}", ""]);
    }
}
