//! Splits PTX text into words, numbers, strings and punctuation, each with its line.

use crate::error::LoadError;

/// One token of PTX.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tok<'a> {
    /// A name, directive or dotted opcode with its modifiers (`%r1`, `.reg`, `ld.global.v4.b32`).
    Word(&'a str),
    /// An integer; a sign is a separate token.
    Int(u64),
    /// A single precision value as bits (`0f3F800000`).
    F32(u32),
    /// A double precision value as bits (`0d…`, or a decimal fraction).
    F64(u64),
    /// A quoted string without its quotes.
    Str(&'a str),
    /// One character of punctuation.
    Punct(char),
    /// The end of the text.
    Eof,
}

/// A token and the line it stands on, counted from 1.
#[derive(Clone, Copy, Debug)]
pub struct Token<'a> {
    /// What it is.
    pub tok: Tok<'a>,
    /// Where it is.
    pub line: u32,
}

fn word_start(c: u8) -> bool {
    c.is_ascii_alphabetic() || matches!(c, b'_' | b'$' | b'%' | b'.')
}

fn word_part(c: u8) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, b'_' | b'$' | b'.' | b'%')
}

/// All tokens of `text`, closed by [`Tok::Eof`].
pub fn lex(text: &str) -> Result<Vec<Token<'_>>, LoadError> {
    let s = text.as_bytes();
    let mut out = Vec::with_capacity(s.len() / 4);
    let (mut i, mut line) = (0, 1u32);
    while i < s.len() {
        let c = s[i];
        match c {
            b'\n' => {
                line += 1;
                i += 1;
            }
            b' ' | b'\t' | b'\r' | 0 => i += 1,
            b'/' if s.get(i + 1) == Some(&b'/') => {
                while i < s.len() && s[i] != b'\n' {
                    i += 1;
                }
            }
            b'/' if s.get(i + 1) == Some(&b'*') => {
                i += 2;
                while i < s.len() && !(s[i] == b'*' && s.get(i + 1) == Some(&b'/')) {
                    line += (s[i] == b'\n') as u32;
                    i += 1;
                }
                i += 2;
            }
            b'"' => {
                let start = i + 1;
                i = start;
                while i < s.len() && s[i] != b'"' {
                    line += (s[i] == b'\n') as u32;
                    i += if s[i] == b'\\' { 2 } else { 1 };
                }
                let body =
                    text.get(start..i).ok_or_else(|| LoadError::at(line, "a string that never ends".to_string()))?;
                out.push(Token { tok: Tok::Str(body), line });
                i += 1;
            }
            b'0'..=b'9' => {
                let start = i;
                i += 1;
                while i < s.len()
                    && (s[i].is_ascii_alphanumeric() || s[i] == b'.' || exponent_sign(&s[start..], i - start))
                {
                    i += 1;
                }
                out.push(Token { tok: number(&text[start..i], line)?, line });
            }
            _ if word_start(c) => {
                let start = i;
                i += 1;
                while i < s.len() {
                    if word_part(s[i]) {
                        i += 1;
                    } else if s[i] == b':' && s.get(i + 1) == Some(&b':') && s.get(i + 2).is_some_and(|c| word_part(*c))
                    {
                        i += 2;
                    } else {
                        break;
                    }
                }
                out.push(Token { tok: Tok::Word(&text[start..i]), line });
            }
            _ if c.is_ascii_graphic() => {
                out.push(Token { tok: Tok::Punct(c as char), line });
                i += 1;
            }
            _ => return Err(LoadError::at(line, format!("a byte that PTX does not have: 0x{c:02x}"))),
        }
    }
    out.push(Token { tok: Tok::Eof, line });
    Ok(out)
}

/// Whether the sign at `at` belongs to a decimal exponent (`1.5e-3`), which hexadecimal literals never have.
fn exponent_sign(s: &[u8], at: usize) -> bool {
    matches!(s[at], b'+' | b'-')
        && matches!(s[at - 1], b'e' | b'E')
        && !(s[0] == b'0' && s.get(1).is_some_and(|c| c.is_ascii_alphabetic()))
        && s[..at].contains(&b'.')
}

fn number<'a>(text: &str, line: u32) -> Result<Tok<'a>, LoadError> {
    let bad = || LoadError::at(line, format!("a number that cannot be read: {text}"));
    let lower = text.to_ascii_lowercase();
    if let Some(hex) = lower.strip_prefix("0f")
        && hex.len() == 8
    {
        return u32::from_str_radix(hex, 16).map(Tok::F32).map_err(|_| bad());
    }
    if let Some(hex) = lower.strip_prefix("0d")
        && hex.len() == 16
    {
        return u64::from_str_radix(hex, 16).map(Tok::F64).map_err(|_| bad());
    }
    if lower.contains('.') {
        return lower.parse::<f64>().map(|v| Tok::F64(v.to_bits())).map_err(|_| bad());
    }
    let digits = lower.strip_suffix('u').unwrap_or(&lower);
    let value = if let Some(hex) = digits.strip_prefix("0x") {
        u64::from_str_radix(hex, 16)
    } else if let Some(bin) = digits.strip_prefix("0b") {
        u64::from_str_radix(bin, 2)
    } else if digits.len() > 1 && digits.starts_with('0') {
        u64::from_str_radix(&digits[1..], 8)
    } else {
        digits.parse::<u64>()
    };
    value.map(Tok::Int).map_err(|_| bad())
}
