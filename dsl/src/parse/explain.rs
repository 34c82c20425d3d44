//! What the grammar refused, said in the user's words.
//!
//! The grammar knows the furthest place it reached and what it would have taken there. Each function below knows one
//! kind of mistake; the first that recognises its own explains it.

use pest::error::{Error, ErrorVariant, InputLocation};

use super::build::too_deep;
use super::grammar::Rule;
use super::scan::{Token, closer, opener};
use super::words;
use crate::diagnostic::Diagnostic;
use crate::span::{FileId, Span};

/// Explains the grammar's error as one diagnostic.
pub(super) fn explain(file: FileId, text: &str, tokens: &[Token<'_>], error: &Error<Rule>) -> Diagnostic {
    let at = match error.location {
        InputLocation::Pos(at) | InputLocation::Span((at, _)) => at,
    };
    let next = tokens.partition_point(|token| token.end() <= at);
    let expected = match &error.variant {
        ErrorVariant::ParsingError { positives, .. } => positives.as_slice(),
        // The parser itself gives up only where its thread has little stack left.
        ErrorVariant::CustomError { .. } => &[],
    };
    let failure = Failure { file, text, tokens, next, expected };
    if expected.is_empty() {
        return too_deep(failure.place());
    }
    failure.explain()
}

/// The begin of a token that would fill the message; others as they are.
fn shortened(text: &str) -> String {
    const LONGEST: usize = 40;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Where the grammar stopped.
struct Failure<'a> {
    file: FileId,
    text: &'a str,
    tokens: &'a [Token<'a>],
    /// Index of the token that it refused; past the last one at the end of the file.
    next: usize,
    /// What it would have taken.
    expected: &'a [Rule],
}

impl<'a> Failure<'a> {
    fn expects(&self, rule: Rule) -> bool {
        self.expected.contains(&rule)
    }

    /// An expression has just ended, so an operator could follow.
    fn after_value(&self) -> bool {
        self.expects(Rule::add)
    }

    /// The text of the refused token: a line end reads `\n`, the end of the file is empty.
    fn found(&self) -> &'a str {
        self.tokens.get(self.next).map_or("", |token| token.text)
    }

    fn at_end(&self) -> bool {
        matches!(self.found(), "" | "\n" | ";")
    }

    /// The last token before the refused one, line ends left out.
    fn before(&self) -> Option<&'a Token<'a>> {
        self.tokens[..self.next].iter().rfind(|token| !token.is_line_end())
    }

    fn before_text(&self) -> &'a str {
        self.before().map_or("", |token| token.text)
    }

    /// Whether a line ends between the refused token and the one before it.
    fn on_new_line(&self) -> bool {
        self.next.checked_sub(1).is_some_and(|last| self.tokens[last].is_line_end())
    }

    /// The place of the refused token; just behind the text before it when a line or the file ends there.
    fn place(&self) -> Span {
        match self.tokens.get(self.next) {
            Some(token) if !token.is_line_end() => token.span(self.file),
            _ => {
                let end = self.before().map_or(self.text.len(), |token| token.end());
                Span::new(self.file, end, end)
            }
        }
    }

    fn before_place(&self) -> Span {
        self.before().map_or_else(|| self.place(), |token| token.span(self.file))
    }

    /// The refused token in words.
    fn found_words(&self) -> String {
        match self.found() {
            "" => "the end of the file".to_owned(),
            "\n" => "the end of the line".to_owned(),
            text => format!("`{}`", shortened(text)),
        }
    }

    fn error(&self, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error("syntax", self.place(), message, format!("found {}", self.found_words()))
    }

    /// The brackets that are open before token `index`, the innermost last.
    fn open_brackets(&self, index: usize) -> Vec<&'a Token<'a>> {
        let mut open: Vec<&Token<'_>> = Vec::new();
        for token in &self.tokens[..index] {
            if closer(token.text).is_some() {
                open.push(token);
            } else if opener(token.text).is_some() {
                open.pop();
            }
        }
        open
    }

    /// The innermost bracket that is open at the refused token.
    fn open_bracket(&self) -> Option<&'a Token<'a>> {
        self.open_brackets(self.next).pop()
    }

    /// Whether the innermost bracket is one inside which a line may end anywhere.
    fn in_brackets(&self) -> bool {
        self.open_bracket().is_some_and(|bracket| bracket.text != "{")
    }

    /// How far the line of a token is indented, in bytes.
    fn indent_of(&self, token: &Token<'_>) -> usize {
        let line_start = self.text[..token.start].rfind('\n').map_or(0, |end| end + 1);
        let line = &self.text[line_start..];
        line.len() - line.trim_start_matches([' ', '\t']).len()
    }

    /// The first token of the statement, setting or declaration that token `index` belongs to.
    fn statement_start(&self, index: usize) -> usize {
        let mut depth = 0usize;
        for (i, token) in self.tokens[..index].iter().enumerate().rev() {
            match token.text {
                ")" | "]" | "}" => depth += 1,
                "(" | "[" if depth == 0 => {}
                "{" if depth == 0 => return i + 1,
                "(" | "[" | "{" => depth -= 1,
                "\n" | ";" if depth == 0 => return i + 1,
                _ => {}
            }
        }
        0
    }

    fn line_of(&self, token: &Token<'_>) -> usize {
        self.text[..token.start].matches('\n').count() + 1
    }

    fn explain(&self) -> Diagnostic {
        self.word_of_another_language()
            .or_else(|| self.condition_after_value())
            .or_else(|| self.record_field())
            .or_else(|| self.equals_sign())
            .or_else(|| self.colon())
            .or_else(|| self.reserved_name())
            .or_else(|| self.missing_value())
            .or_else(|| self.unopened_bracket())
            .or_else(|| self.unclosed_bracket())
            .or_else(|| self.misplaced_keyword())
            .or_else(|| self.missing_body())
            .or_else(|| self.missing_part_of_declaration())
            .or_else(|| self.unfinished_selector())
            .or_else(|| self.two_values_in_brackets())
            .or_else(|| self.two_statements())
            .unwrap_or_else(|| self.anything_else())
    }

    // ---- the mistakes ----

    fn word_of_another_language(&self) -> Option<Diagnostic> {
        // A line that begins inside brackets shows that one is not closed, whatever its first word.
        let refused = self.tokens.get(self.next).filter(|_| !(self.in_brackets() && self.on_new_line()));
        [refused, self.before()].into_iter().flatten().filter(|token| token.rule == Rule::word).find_map(|token| {
            let help = words::foreign(token.text)?;
            let message = format!("`{}` is not a word of this language", token.text);
            Some(Diagnostic::error("foreign-word", token.span(self.file), message, "read as a name here").help(help))
        })
    }

    /// `a if c else b`.
    fn condition_after_value(&self) -> Option<Diagnostic> {
        (self.found() == "if" && self.after_value() && !self.on_new_line()).then(|| {
            self.error("a value is already complete before this `if`")
                .help("a choice is written `if c { a } else { b }`, its condition first")
        })
    }

    /// `{ a = 1 }` and `{ "a": 1 }`.
    fn record_field(&self) -> Option<Diagnostic> {
        let equals = self.found() == "=" && self.expects(Rule::colon);
        let quoted = self.found().starts_with('"') && self.expects(Rule::name);
        ((equals || quoted) && self.expects(Rule::rbrace))
            .then(|| self.error("fields of a record are plain names with a `:` behind").help("write `{ name: value }`"))
    }

    fn equals_sign(&self) -> Option<Diagnostic> {
        if self.found() != "=" || !self.after_value() {
            return None;
        }
        let start = self.statement_start(self.next);
        if start == self.next && !self.in_brackets() {
            return Some(
                self.error("a line cannot begin with `=`").help("put it on the line of the name that it binds"),
            );
        }
        let first = self.tokens[start..].first().map_or("", |token| token.text);
        if self.in_brackets() || words::RESERVED.contains(&first) || self.expects(Rule::lbrace) {
            return Some(
                self.error("`=` here; write `==` to compare")
                    .help("`=` binds a name or an argument; `==` asks whether two values are equal"),
            );
        }
        let target = Span::new(self.file, self.tokens[start].start, self.before()?.end());
        Some(
            Diagnostic::error("assign-target", target, "only names can be assigned", "no name")
                .label(self.place(), "assigned here")
                .help("values never change in place: make a new one and bind it to a name"),
        )
    }

    fn colon(&self) -> Option<Diagnostic> {
        if self.found() != ":" {
            return None;
        }
        let bracket = self.open_bracket().map_or("", |bracket| bracket.text);
        let binding = format!("write `{} = …`: a name has the type of its value", self.before_text());
        let (message, help) = if self.expects(Rule::lbrace) {
            ("a body stands in braces", "write `{` here and `}` at its end")
        } else if self.after_value() && bracket == "[" {
            ("a range is written with `..`", "write `a..b`; `..` alone is a whole axis")
        } else if self.after_value() && bracket == "(" {
            ("an argument by name is written with `=`", "write `name = value`")
        } else if self.expects(Rule::eq) && !self.after_value() {
            ("expected `=`", binding.as_str())
        } else {
            return None;
        };
        Some(self.error(message).help(help))
    }

    /// A reserved word where only a name can stand.
    fn reserved_name(&self) -> Option<Diagnostic> {
        let wants_name = [Rule::name, Rule::pattern, Rule::path, Rule::group].iter().any(|rule| self.expects(*rule));
        let wants_value = self.expects(Rule::expr) || self.expects(Rule::number);
        let word = self.found();
        (wants_name && !wants_value && words::RESERVED.contains(&word) && !self.on_new_line()).then(|| {
            let message = format!("`{word}` is a word of the language and cannot be a name");
            Diagnostic::error("reserved-word", self.place(), message, "a name was expected here")
                .help(format!("call it otherwise, `{word}_` for instance"))
        })
    }

    fn missing_value(&self) -> Option<Diagnostic> {
        if self.expects(Rule::word) && self.before_text() == "." {
            let error =
                Diagnostic::error("syntax", self.before_place(), "expected a name after `.`", "nothing follows it");
            let number = self.tokens[..self.next].iter().rev().nth(1).is_some_and(|token| token.rule == Rule::number);
            return Some(if number { error.help("a number ends with a digit: `1.0` or `1`") } else { error });
        }
        let wants = [Rule::expr, Rule::arg, Rule::number, Rule::index_item];
        // `return` may stand alone, an empty `( )` too: what follows them is another mistake.
        if !wants.iter().any(|rule| self.expects(*rule)) || self.before_text() == "return" {
            return None;
        }
        let (before, found) = (self.before_text(), self.found());
        if closer(before).is_some() && !self.at_end() && words::RESERVED.contains(&found) {
            return None;
        }
        if found == "." {
            return Some(self.error("expected a value, found `.`").help("a number begins with a digit: `0.5`"));
        }
        let needs_one = !matches!(before, "(" | "[" | "{" | ",");
        if needs_one && (self.at_end() || self.on_new_line() || opener(found).is_some() || found == ",") {
            let message = format!("`{before}` needs a value after it");
            return Some(Diagnostic::error("missing-value", self.before_place(), message, "nothing follows it"));
        }
        if needs_one && self.tokens.get(self.next).is_some_and(|token| token.rule == Rule::sign) {
            let message = format!("`{before}` needs a value after it, found `{found}`");
            let error = Diagnostic::error("missing-value", self.place(), message, "no value begins like this");
            return Some(match found {
                "+" => error.help("a number needs no `+` before it"),
                "=" => error.help("write `==` to compare"),
                _ => error,
            });
        }
        let closes = self.open_bracket().and_then(|bracket| closer(bracket.text));
        if self.at_end() || opener(found).is_some() || closes.is_some() && self.on_new_line() {
            return None;
        }
        let mut error = self.error(format!("expected a value, found {}", self.found_words()));
        if found == "_" {
            error = error.help("`_` drops a value, so it has none: give it a name");
        } else if words::RESERVED.contains(&found) {
            error = error.help(format!("`{found}` is a word of the language: it cannot be a name"));
        }
        Some(error)
    }

    /// A keyword that begins something which cannot stand here.
    fn misplaced_keyword(&self) -> Option<Diagnostic> {
        let word = self.found();
        let at_item = [Rule::file, Rule::items, Rule::item].iter().any(|rule| self.expects(*rule));
        let at_stmt = [Rule::stmt, Rule::body, Rule::members].iter().any(|rule| self.expects(*rule));
        let (message, help) = match word {
            "else" if at_item || at_stmt => {
                ("this `else` has no `if`", "`else` follows the `}` of an `if`: `if c { a } else { b }`")
            }
            "let" | "var" if at_item => ("`let` and `var` stand in bodies", "write `const` at the top of a file"),
            "param" | "use" | "state" if at_item => {
                ("parameters stand in a `block` or a `model`", "put it inside the braces of one")
            }
            "const" if at_stmt => ("`const` stands at the top of a file", "write `let` in a body"),
            "fn" if at_stmt => ("a function stands at the top of a file", "functions are not nested: move it out"),
            _ if at_item && !word.is_empty() && opener(word).is_none() => (
                "expected a declaration",
                "a file is made of `import`, `extend`, `const`, `precision`, `block`, `model`, `fn`, `optimizer` and `train`",
            ),
            _ => return None,
        };
        Some(self.error(message).help(help))
    }

    fn unopened_bracket(&self) -> Option<Diagnostic> {
        let found = self.found();
        let open = opener(found)?;
        // Inside `(` and `[`, and where an outer bracket fits, the inner one was forgotten.
        let brackets = self.open_brackets(self.next);
        let fits = brackets.iter().any(|bracket| bracket.text == open)
            || brackets.last().is_some_and(|bracket| bracket.text != "{");
        (!fits).then(|| {
            Diagnostic::error(
                "unopened-bracket",
                self.place(),
                format!("this `{found}` closes nothing"),
                format!("no `{open}` is open here"),
            )
            .help("remove it, or open one before it")
        })
    }

    fn unclosed_bracket(&self) -> Option<Diagnostic> {
        let bracket = self.open_bracket()?;
        let (opened, closes) = (bracket.text, closer(bracket.text)?);
        let found = self.found();
        let outer_closes = found.is_empty() || (opener(found).is_some() && found != closes);
        let missing = match closes {
            // A declaration no deeper than what it stands in: the brace before it was forgotten.
            "}" => {
                let begins_item = words::BEGIN_ITEM.contains(&found) && self.on_new_line();
                let token = self.tokens.get(self.next);
                begins_item && token.is_some_and(|token| self.indent_of(token) <= self.indent_of(bracket))
            }
            _ => found == "{" || self.on_new_line() || words::BEGIN_STATEMENT.contains(&found),
        };
        let expects = match closes {
            ")" => self.expects(Rule::rparen),
            "]" => self.expects(Rule::rbracket),
            _ => [Rule::rbrace, Rule::members, Rule::items, Rule::body].iter().any(|rule| self.expects(*rule)),
        };
        if !expects || !(outer_closes || missing) {
            return None;
        }
        let message = format!("expected `{closes}` to close the `{opened}` at line {}", self.line_of(bracket));
        let label = match found {
            "" => "the file ends here".to_owned(),
            _ => format!("expected `{closes}` before this"),
        };
        Some(
            Diagnostic::error("unclosed-bracket", self.place(), message, label)
                .label(bracket.span(self.file), format!("this `{opened}` is not closed")),
        )
    }

    fn missing_body(&self) -> Option<Diagnostic> {
        if !self.expects(Rule::lbrace) && !self.expects(Rule::settings) {
            return None;
        }
        if self.expects(Rule::comma) && self.before_text() != "validate" {
            return None;
        }
        let (before, found) = (shortened(self.before_text()), self.found_words());
        let error = self.error(format!("expected `{{` after `{before}`, found {found}"));
        Some(error.help("what belongs to it stands in braces: `{ … }`"))
    }

    fn missing_part_of_declaration(&self) -> Option<Diagnostic> {
        if self.after_value() {
            return None;
        }
        let before = self.before_text();
        let (wanted, help) = if self.expects(Rule::kw_init) {
            ("`init` and an initial value", "write `init zeros`, `init normal(0, 0.02)` or the like after the type")
        } else if self.expects(Rule::lbracket) && self.expects(Rule::dot) {
            ("`[` and the axes of the type", "a scalar is written with empty brackets: `i32[]`")
        } else if self.expects(Rule::kw_none) {
            ("`none`", "a type ends with `| none` where a value may be missing")
        } else if self.expects(Rule::colon) && self.expects(Rule::dot) {
            ("`:`", "write `param name: [dim] init zeros` or `use name: Block`")
        } else if self.expects(Rule::kw_in) && self.expects(Rule::kw_with) {
            return None;
        } else if self.expects(Rule::kw_in) && self.found() == "," {
            ("`in`", "write `for (a, b) in pairs` to take a pair apart")
        } else if self.expects(Rule::kw_in) {
            ("`in`", "a loop is written `for x in xs { … }`")
        } else if self.expects(Rule::eq) && self.expects(Rule::rparen) {
            return None;
        } else if self.expects(Rule::eq) && self.found() == "." {
            ("`=`", "a name that is bound has no dots: dotted names belong to `param` and `use`")
        } else if self.expects(Rule::eq) && before != "]" {
            ("`=` and a value", "write `name = value`")
        } else if self.expects(Rule::string) {
            ("a file name", "write it in double quotes: `\"gpt2.mng\"`")
        } else if self.expects(Rule::lparen) && self.expects(Rule::lbracket) {
            ("`(`", "the inputs stand in parentheses, `()` when there are none")
        } else if self.expects(Rule::lparen) {
            ("`(`", "write `()` when there is nothing to give")
        } else {
            return None;
        };
        let (before, found) = (shortened(before), self.found_words());
        Some(self.error(format!("expected {wanted} after `{before}`, found {found}")).help(help))
    }

    fn unfinished_selector(&self) -> Option<Diagnostic> {
        (self.expects(Rule::kw_with) && !self.after_value()).then(|| {
            if self.before_text() == "with" {
                return self
                    .error("nothing stands between `update` and `with`")
                    .help("say which parameters: `update others with …`, `update matrices in transformer.h with …`");
            }
            self.error(format!("expected `with` and an optimizer, found {}", self.found_words()))
                .help("write `update matrices in transformer.h with muon(lr = 0.04)`")
        })
    }

    fn two_values_in_brackets(&self) -> Option<Diagnostic> {
        let closes = closer(self.open_bracket()?.text)?;
        let expects = match closes {
            ")" => self.expects(Rule::rparen),
            "]" => self.expects(Rule::rbracket),
            _ => self.expects(Rule::rbrace) && !self.expects(Rule::brk),
        };
        (expects && (self.expects(Rule::comma) || self.after_value())).then(|| {
            let found = self.found_words();
            self.error(format!("expected `,` or `{closes}`, found {found}"))
                .help("values are separated by commas; put an operator between them if they are one")
        })
    }

    /// Something stands behind a complete statement or declaration.
    fn two_statements(&self) -> Option<Diagnostic> {
        let complete = self.expects(Rule::brk) && !self.expects(Rule::stmt) && !self.expects(Rule::item);
        (complete && !self.at_end()).then(|| {
            self.error(format!("expected the end of the line, found {}", self.found_words()))
                .help("begin a new line, or put an operator or a comma before it")
        })
    }

    fn anything_else(&self) -> Diagnostic {
        let mut wanted: Vec<&str> = Vec::new();
        for name in self.expected.iter().filter_map(|rule| words::name_of(*rule)) {
            if !wanted.contains(&name) {
                wanted.push(name);
            }
        }
        let found = self.found_words();
        self.error(match wanted.as_slice() {
            [] => format!("{found} cannot stand here"),
            [one] => format!("expected {one}, found {found}"),
            [most @ .., last] => format!("expected {} or {last}, found {found}", most.join(", ")),
        })
    }
}
