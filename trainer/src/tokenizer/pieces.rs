//! How a text is cut into pieces, none of which a token crosses.
//!
//! From where it stands the rule takes the first of these that there is:
//! 1. a contraction: `'s`, `'d`, `'m`, `'t`, `'ll`, `'ve`, `'re`;
//! 2. an optional space and a run of letters; or of numbers; or of anything else that is not white space;
//! 3. a run of white space, without its last character where something other than white space follows.
//!
//! So ` two  words` is ` two`, ` `, ` words`. It is written out here because it is looked up for each piece of each
//! text, and because regular expressions with look-ahead give up on long runs of white space.

use regex_syntax::hir::{Class as HirClass, HirKind};

/// The kinds of characters that the rule tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Class {
    Other,
    Letter,
    Number,
    Space,
}

/// The class of every character.
pub struct Classes(Vec<Class>);

impl Classes {
    /// From the Unicode tables of the regular expressions that define the rule.
    pub(super) fn new() -> Classes {
        let mut classes = vec![Class::Other; char::MAX as usize + 1];
        for (pattern, class) in [(r"\p{L}", Class::Letter), (r"\p{N}", Class::Number), (r"\s", Class::Space)] {
            let hir = regex_syntax::parse(pattern).expect("the pattern is a constant");
            let HirKind::Class(HirClass::Unicode(set)) = hir.kind() else { unreachable!("{pattern} is a class") };
            for range in set.ranges() {
                classes[range.start() as usize..=range.end() as usize].fill(class);
            }
        }
        Classes(classes)
    }

    fn of(&self, c: char) -> Class {
        self.0[c as usize]
    }

    /// Bytes of the first piece of a text that is not empty.
    pub(super) fn piece(&self, text: &str) -> usize {
        if let Some(length) = contraction(text.as_bytes()) {
            return length;
        }
        let space = usize::from(text.starts_with(' '));
        let after = &text[space..];
        match after.chars().next().map(|c| self.of(c)) {
            Some(class) if class != Class::Space => space + self.run(after, class),
            _ => self.white_space(text),
        }
    }

    /// Bytes at the start of a text that are of one class.
    fn run(&self, text: &str, class: Class) -> usize {
        text.char_indices().find(|&(_, c)| self.of(c) != class).map_or(text.len(), |(i, _)| i)
    }

    fn white_space(&self, text: &str) -> usize {
        let run = self.run(text, Class::Space);
        let last = text[..run].chars().next_back().map_or(0, char::len_utf8);
        if run == text.len() || run == last { run } else { run - last }
    }

    /// The last place up to `limit` at which a text that may go on can be cut, so that the parts have the same tokens as
    /// the whole; none where there is no such place after the start. `limit` is on a boundary between characters.
    ///
    /// White space always begins a piece where it follows anything else, and a run of letters or of numbers always ends one.
    pub fn last_cut(&self, text: &str, limit: usize) -> Option<usize> {
        // At the end of the text it is not known what follows.
        let mut right = text[limit..].chars().next().map(|c| self.of(c));
        for (i, c) in text[..limit].char_indices().rev() {
            let left = self.of(c);
            let ends = match left {
                Class::Letter | Class::Number => right.is_some_and(|right| right != left),
                Class::Other => right == Some(Class::Space),
                Class::Space => false,
            };
            if ends {
                return Some(i + c.len_utf8());
            }
            right = Some(left);
        }
        None
    }
}

fn contraction(text: &[u8]) -> Option<usize> {
    match text {
        [b'\'', b's' | b'd' | b'm' | b't', ..] => Some(2),
        [b'\'', b'l', b'l', ..] | [b'\'', b'v', b'e', ..] | [b'\'', b'r', b'e', ..] => Some(3),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(text: &str) -> Vec<&str> {
        let classes = Classes::new();
        let mut rest = text;
        let mut pieces = Vec::new();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(classes.piece(rest));
            pieces.push(piece);
            rest = after;
        }
        pieces
    }

    #[test]
    fn pieces_follow_the_rule() {
        assert_eq!(pieces(" two  words"), [" two", " ", " words"]);
        assert_eq!(pieces("I'll'LL"), ["I", "'ll", "'", "LL"]);
        assert_eq!(pieces("a1!b\n\n c \n"), ["a", "1", "!", "b", "\n\n", " c", " \n"]);
        assert_eq!(pieces("x\n\ny"), ["x", "\n", "\n", "y"]);
    }

    #[test]
    fn a_text_without_a_place_to_cut_has_none() {
        let classes = Classes::new();
        assert_eq!(classes.last_cut("aaaa", 2), None);
        assert_eq!(classes.last_cut("a b", 3), Some(1));
        assert_eq!(classes.last_cut("ab ", 2), Some(2));
        assert_eq!(classes.last_cut("ab", 2), None);
        assert_eq!(classes.last_cut("it's", 3), Some(2));
        assert_eq!(classes.last_cut("'s", 1), None);
        assert_eq!(classes.last_cut("a b c", 4), Some(3));
        assert_eq!(classes.last_cut("one two", 3), Some(3));
    }
}
