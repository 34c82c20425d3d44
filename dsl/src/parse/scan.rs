//! A first look at a file's words and signs, before the grammar runs: refuses what belongs to other languages, and
//! nesting that would overflow the stack of a recursive parser.

use pest::Parser;

use super::grammar::{Grammar, Rule};
use crate::diagnostic::Diagnostic;
use crate::span::{FileId, Span};

/// How many brackets may stand inside one another. Each takes the recursive parser some twenty calls.
pub(super) const MAX_BRACKETS: usize = 100;

/// About this many words and signs are refused at once: more are noise, most often one unclosed quote.
const MAX_ERRORS: usize = 10;

/// One word or sign.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'i> {
    /// What it is: `word`, `sign`, `number`, `string`, `brk` (a line end or `;`), or one of the refused kinds.
    pub(super) rule: Rule,
    pub(super) text: &'i str,
    pub(super) start: usize,
}

impl Token<'_> {
    /// One past its last byte.
    pub(super) fn end(&self) -> usize {
        self.start + self.text.len()
    }

    pub(super) fn span(&self, file: FileId) -> Span {
        Span::new(file, self.start, self.end())
    }

    pub(super) fn is_line_end(&self) -> bool {
        self.text == "\n"
    }
}

/// The words and signs of a text without its comments.
pub(super) fn tokens(text: &str) -> Vec<Token<'_>> {
    // Its last alternative takes any character, so that the rule takes any text.
    let Ok(mut pairs) = Grammar::parse(Rule::tokens, text) else { return Vec::new() };
    let Some(root) = pairs.next() else { return Vec::new() };
    root.into_inner()
        .filter(|pair| !matches!(pair.as_rule(), Rule::COMMENT | Rule::EOI))
        .map(|pair| Token { rule: pair.as_rule(), text: pair.as_str(), start: pair.as_span().start() })
        .collect()
}

/// The opening bracket that a closing one belongs to.
pub(crate) fn opener(closer: &str) -> Option<&'static str> {
    Some(match closer {
        ")" => "(",
        "]" => "[",
        "}" => "{",
        _ => return None,
    })
}

/// The closing bracket that an opening one asks for.
pub(crate) fn closer(opener: &str) -> Option<&'static str> {
    Some(match opener {
        "(" => ")",
        "[" => "]",
        "{" => "}",
        _ => return None,
    })
}

/// What the words and signs alone are refused for.
pub(super) fn check(file: FileId, tokens: &[Token<'_>]) -> Vec<Diagnostic> {
    let mut errors: Vec<Diagnostic> = Vec::new();
    for line in tokens.split(Token::is_line_end) {
        let mut wrong: Vec<_> = line.iter().filter_map(|token| check_token(file, token)).collect();
        // One character of another alphabet seldom comes alone.
        wrong.dedup_by(|next, error| next.code == "unknown-character" && error.code == next.code);
        errors.extend(wrong);
        if errors.len() >= MAX_ERRORS {
            break;
        }
    }
    if errors.is_empty() {
        errors.extend(check_nesting(file, tokens));
    }
    errors
}

fn check_token(file: FileId, token: &Token<'_>) -> Option<Diagnostic> {
    let span = token.span(file);
    let text = token.text;
    Some(match token.rule {
        Rule::open_string => {
            Diagnostic::error("open-string", span, "this string is not closed", "the line ends before its `\"`")
                .help("close it with `\"` on the same line; a line end inside a string is written `\\n`")
        }
        Rule::open_comment => {
            let span = Span::new(file, token.start, token.start + "/*".len());
            Diagnostic::error("open-comment", span, "this comment is not closed", "the file ends before its `*/`")
                .help("close it with `*/`; a comment to the end of the line begins with `//`")
        }
        Rule::bad_number => {
            Diagnostic::error("bad-number", span, format!("`{text}` is no number"), "letters in a number")
                .help("numbers are written `12`, `0.5`, `1e-8` or `10_000`; a name begins with a letter")
        }
        Rule::foreign => {
            let error = Diagnostic::error("unknown-operator", span, format!("there is no operator `{text}`"), "here");
            error.help(foreign_help(text))
        }
        Rule::stray => {
            let c = text.chars().next().unwrap_or_default();
            let error = Diagnostic::error(
                "unknown-character",
                span,
                match c.is_control() {
                    true => format!("the control character {:#04x} means nothing here", u32::from(c)),
                    false => format!("`{c}` means nothing here"),
                },
                "not part of the language",
            );
            error.help(stray_help(c))
        }
        Rule::word => {
            let ours = match text {
                "True" => "true",
                "False" => "false",
                "None" => "none",
                _ => return None,
            };
            Diagnostic::error("foreign-word", span, format!("`{text}` is written `{ours}`"), "capitals matter")
                .help(format!("write `{ours}`"))
        }
        _ => return None,
    })
}

fn foreign_help(operator: &str) -> String {
    let fixed = match operator {
        "===" => "write `==`",
        "!==" | "<>" => "write `!=`",
        "&&" => "write `and`",
        "||" => "write `or`",
        "**" => "write `^` for a power",
        ":=" => "write `let x = …` for a new name, `x = …` to change a `var`",
        "::" => "write `.` between the parts of a name, `:` before a type",
        "->" => "a function says nothing of what it returns: leave the arrow and the type out",
        "=>" => "a body stands in `{ }`; `>=` is the comparison",
        "++" => "write `x = x + 1`",
        "..." => "write `..` for a range or for whole axes in an index",
        _ => {
            let plain = operator.trim_end_matches('=');
            return format!("write `x = x {plain} …`");
        }
    };
    fixed.to_owned()
}

fn stray_help(c: char) -> String {
    let fixed = match c {
        '#' => "comments begin with `//`",
        '\'' | '“' | '”' | '‘' | '’' | '«' | '»' | '`' => {
            "strings stand in straight double quotes: `\"text\"`"
        }
        '!' => "write `not x`, or `!=` to compare",
        '?' => "write `if c { a } else { b }`, or `a or b` for a value that may be `none`",
        '\\' => {
            "no sign is needed to go on in the next line: break inside brackets, or begin the line with an operator"
        }
        '−' | '–' | '—' => "write the minus of the keyboard: `-`",
        '×' | '·' | '⋅' => "write `*`, or `@` for a matrix product",
        '÷' => "write `/`",
        '≤' => "write `<=`",
        '≥' => "write `>=`",
        '≠' => "write `!=`",
        '√' => "write `sqrt(x)`",
        '…' => "write `..` for a range",
        '~' => "write `not x`",
        '\u{A0}' | '\u{2000}'..='\u{200B}' | '\u{202F}' | '\u{3000}' => {
            "this is a space of another kind: write a plain one"
        }
        c if c.is_alphanumeric() => "names are made of the letters `a` to `z`, digits and `_`",
        _ => "remove it",
    };
    fixed.to_owned()
}

/// Refuses text whose brackets, and conditions in conditions, stand too deep in one another.
fn check_nesting(file: FileId, tokens: &[Token<'_>]) -> Option<Diagnostic> {
    let mut open: Vec<&str> = Vec::new();
    for token in tokens {
        match token.text {
            // The condition of an `if` lasts to the `{` of its body, and may begin with another `if`.
            "if" => open.push("if"),
            "{" => {
                open.pop_if(|last| *last == "if");
                open.push("{");
            }
            "(" | "[" => open.push(token.text),
            ")" | "]" | "}" => while open.pop().is_some_and(|last| Some(last) != opener(token.text)) {},
            _ => {}
        }
        if open.len() > MAX_BRACKETS {
            return Some(
                Diagnostic::error(
                    "too-deep",
                    token.span(file),
                    format!("more than {MAX_BRACKETS} brackets stand inside one another"),
                    "the first that is too deep",
                )
                .help("give parts of it names with `let`, or move them into functions"),
            );
        }
    }
    None
}
