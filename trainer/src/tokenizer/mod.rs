//! GPT-2's tokens: text to tokens and back.
//!
//! The vocabulary is that of tiktoken's r50k_base, and so are the tokens, one for one. A text is first cut into pieces
//! (see `pieces.rs`); a piece that is a token is looked up, and only the others (one in ten of English text) go through
//! byte-pair merging.

mod decode;
mod pieces;

use std::sync::LazyLock;

use rustc_hash::FxHashMap;
use tiktoken_rs::CoreBPE;

pub use decode::Decoder;
pub use pieces::Classes;

/// Number of tokens of the vocabulary: 50256 of text and the end of text.
pub const VOCABULARY: usize = 50257;

/// `<|endoftext|>`, which stands before each document.
pub const END_OF_TEXT: u16 = 50256;

/// The tokenizer. There is one: [`gpt2`].
pub struct Tokenizer {
    merges: CoreBPE,
    tokens: FxHashMap<Box<[u8]>, u16>,
    bytes: Vec<Box<[u8]>>,
    classes: Classes,
}

static GPT2: LazyLock<Tokenizer> = LazyLock::new(Tokenizer::new);

/// GPT-2's tokenizer, made at the first call, which takes some tens of milliseconds.
pub fn gpt2() -> &'static Tokenizer {
    &GPT2
}

impl Tokenizer {
    fn new() -> Tokenizer {
        // Both are constants of a library: they are there or its tests and ours would fail.
        let merges = tiktoken_rs::r50k_base().expect("the vocabulary is part of the program");
        let bytes_of = |token| merges.decode_bytes(&[token]).expect("the vocabulary has no holes").into_boxed_slice();
        let bytes: Vec<Box<[u8]>> = (0..VOCABULARY as u32).map(bytes_of).collect();
        // The end of text is no piece of a text: written out in one it is ordinary characters.
        let texts = bytes[..usize::from(END_OF_TEXT)].iter().cloned();
        let tokens = texts.zip(0..).collect();
        Tokenizer { merges, tokens, bytes, classes: Classes::new() }
    }

    /// Appends the tokens of a text. `<|endoftext|>` in it is text like any other.
    pub fn encode(&self, text: &str, tokens: &mut Vec<u16>) {
        let mut rest = text;
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(self.classes.piece(rest));
            match self.tokens.get(piece.as_bytes()) {
                Some(&token) => tokens.push(token),
                None => tokens.extend(self.merges.encode_ordinary(piece).into_iter().map(|token| token as u16)),
            }
            rest = after;
        }
    }

    /// The bytes that a token stands for, which need not be UTF-8; none where it is not in the vocabulary.
    pub fn bytes(&self, token: u16) -> Option<&[u8]> {
        self.bytes.get(usize::from(token)).map(AsRef::as_ref)
    }

    /// The text of some tokens, with U+FFFD for what is no UTF-8 and for tokens that are not in the vocabulary.
    pub fn decode(&self, tokens: &[u16]) -> String {
        let mut decoder = Decoder::new(self);
        let mut text: String = tokens.iter().map(|&token| decoder.push(token)).collect();
        text.push_str(&decoder.finish());
        text
    }

    /// The kinds of characters by which texts are cut.
    pub fn classes(&self) -> &Classes {
        &self.classes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(text: &str) -> Vec<u16> {
        let mut tokens = Vec::new();
        gpt2().encode(text, &mut tokens);
        tokens
    }

    fn reference(text: &str) -> Vec<u16> {
        gpt2().merges.encode_ordinary(text).into_iter().map(|token| token as u16).collect()
    }

    #[test]
    fn known_texts_have_their_known_tokens() {
        let known: [(&str, &[u16]); 8] = [
            ("", &[]),
            ("Hello, world!", &[15496, 11, 995, 0]),
            ("hello world", &[31373, 995]),
            (
                "The quick brown fox jumps over the lazy dog.",
                &[464, 2068, 7586, 21831, 18045, 625, 262, 16931, 3290, 13],
            ),
            ("<|endoftext|>", &[27, 91, 437, 1659, 5239, 91, 29]),
            (" \n\n  x", &[220, 628, 220, 2124]),
            ("I'll don't", &[40, 1183, 836, 470]),
            ("\u{1f600}", &[47249, 222]),
        ];
        for (text, tokens) in known {
            assert_eq!(encode(text), tokens, "{text:?}");
        }
    }

    #[test]
    fn every_token_of_text_comes_back() {
        let tokenizer = gpt2();
        assert_eq!(tokenizer.bytes.len(), VOCABULARY);
        assert_eq!(tokenizer.tokens.len(), VOCABULARY - 1);
        assert_eq!(tokenizer.bytes(END_OF_TEXT), Some(&b"<|endoftext|>"[..]));
        assert_eq!(tokenizer.bytes(END_OF_TEXT + 1), None);
    }

    /// The library's own splitting fails on long runs of white space, and its merging must not be slow on long pieces.
    #[test]
    fn long_runs_are_encoded() {
        for piece in ["a", "1", "!", " ", "\n", "'", "é", "\u{4e2d}", "\u{3000}"] {
            let text = piece.repeat(1 << 16) + "x";
            assert_eq!(gpt2().decode(&encode(&text)), text);
        }
    }

    /// Texts dense in what the cutting rule tells apart.
    fn tricky() -> impl Strategy<Value = String> {
        let part = prop_oneof![
            prop::sample::select(vec![
                " ",
                "  ",
                "\n",
                "\r\n",
                "\t",
                "\u{a0}",
                "\u{85}",
                "\u{2028}",
                "\u{3000}",
                "'",
                "'s",
                "'ll",
                "'LL",
                "'re",
                "s",
                "d",
                "ve",
                "é",
                "ß",
                "\u{4e2d}\u{6587}",
                "\u{301}",
                "1",
                "12",
                "½",
                "Ⅷ",
                "٣",
                "!",
                "...",
                "\u{0}",
                "\u{1f468}\u{200d}\u{1f469}",
                "\u{fffd}",
                "<|endoftext|>",
                "ʼ",
                "_",
            ])
            .prop_map(String::from),
            any::<char>().prop_map(String::from),
            "[a-zA-Z]{1,12}",
        ];
        prop::collection::vec(part, 0..40).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn tokens_are_those_of_the_reference(text in tricky()) {
            prop_assert_eq!(encode(&text), reference(&text));
        }

        #[test]
        fn decoding_gives_the_text_back(text in tricky()) {
            prop_assert_eq!(gpt2().decode(&encode(&text)), text);
        }

        /// What lets a long document be encoded in parts.
        #[test]
        fn a_text_may_be_cut_between_pieces(text in tricky(), at in 0usize..200) {
            let limit = text.floor_char_boundary(at.min(text.len()));
            // As by a reader that has come so far and one that has all of it.
            prop_assert!(gpt2().classes().last_cut(&text[..limit], limit) <= gpt2().classes().last_cut(&text, limit));
            if let Some(cut) = gpt2().classes().last_cut(&text, limit) {
                prop_assert!(0 < cut && cut <= limit);
                let parts = [encode(&text[..cut]), encode(&text[cut..])].concat();
                prop_assert_eq!(parts, encode(&text));
            }
        }
    }
}
