//! Words, strings and signs of the text form.

use super::read::ReadError;

/// A part of a line.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// A name, an id or a number.
    Word(String),
    /// What stands between quotes.
    Str(String),
    /// Anything else.
    Sym(char),
}

/// The parts of a text, each with its line from 1. Comments run from `//` to the end of the line.
pub(super) fn tokenize(text: &str) -> Result<Vec<(usize, Token)>, ReadError> {
    let mut out = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let chars: Vec<char> = line.chars().collect();
        let mut at = 0;
        while at < chars.len() {
            let c = chars[at];
            let start = at;
            if c.is_whitespace() {
                at += 1;
            } else if c == '/' && chars.get(at + 1) == Some(&'/') {
                break;
            } else if c == '"' {
                at += 1;
                let mut value = String::new();
                loop {
                    match chars.get(at) {
                        None => return Err(ReadError { line: i + 1, message: "unclosed string".into() }),
                        Some('"') => break,
                        Some('\\') => {
                            let (escaped, length) = unescape(&chars[at + 1..])
                                .ok_or_else(|| ReadError { line: i + 1, message: "an unknown escape".into() })?;
                            value.push(escaped);
                            at += 1 + length;
                        }
                        Some(&c) => {
                            value.push(c);
                            at += 1;
                        }
                    }
                }
                at += 1;
                out.push((i + 1, Token::Str(value)));
            } else if c.is_alphanumeric() || c == '_' || c == '-' && chars.get(at + 1) != Some(&'>') {
                // A sign belongs to a number wherever it stands: `-1.5`, `1e-7`, `-inf`.
                while at < chars.len() {
                    let c = chars[at];
                    let sign = c == '-'
                        && (at == start
                            || (matches!(chars[at - 1], 'e' | 'E')
                                && chars[start].is_ascii_digit() | (chars[start] == '-')));
                    if c.is_alphanumeric() || c == '_' || c == '.' || sign {
                        at += 1;
                    } else {
                        break;
                    }
                }
                out.push((i + 1, Token::Word(chars[start..at].iter().collect())));
            } else {
                out.push((i + 1, Token::Sym(c)));
                at += 1;
            }
        }
    }
    Ok(out)
}

/// The character that an escape stands for, as `Debug` of a string writes it, and the length of what follows the `\`.
fn unescape(chars: &[char]) -> Option<(char, usize)> {
    Some((
        match chars.first()? {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            '0' => '\0',
            'u' if chars.get(1) == Some(&'{') => {
                let end = chars.iter().position(|&c| c == '}')?;
                let digits: String = chars.get(2..end)?.iter().collect();
                return Some((char::from_u32(u32::from_str_radix(&digits, 16).ok()?)?, end + 1));
            }
            &c @ ('"' | '\\' | '\'') => c,
            _ => return None,
        },
        1,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_string_reads_back() {
        for text in ["", "a \"b\" \\", "\r\n\t\0", "ü\u{7f}\u{301}'", "// no comment", "\u{10ffff}"] {
            let tokens = tokenize(&format!("{text:?} x")).unwrap();
            assert_eq!(tokens, [(1, Token::Str(text.into())), (1, Token::Word("x".into()))]);
        }
    }

    #[test]
    fn wrong_escapes_are_errors() {
        for text in [r#""\x41""#, r#""\u{110000}""#, r#""\u{""#, r#""\u""#, "\"\\", "\"a"] {
            assert!(tokenize(text).is_err(), "{text}");
        }
    }
}
