//! Mutated sources: whatever is done to a file, the parser answers with a tree or with diagnostics that can be drawn,
//! and the formatter keeps what the file says.

#[path = "support/tree.rs"]
mod tree;

use std::fs;
use std::path::Path;

use mngc_dsl::ast::File;
use mngc_dsl::{Diagnostic, FileId, Sources, format, parse};
use proptest::prelude::*;
use proptest::sample::Index;

/// All files of the data tests, wrong ones too: mutating those reaches other messages.
fn samples() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files");
    let mut samples = Vec::new();
    for folder in ["good", "wrong"] {
        for entry in fs::read_dir(root.join(folder)).expect("the data files") {
            let path = entry.expect("a readable folder").path();
            if path.extension().is_some_and(|extension| extension == "mng") {
                samples.push(fs::read_to_string(path).expect("a readable file"));
            }
        }
    }
    samples.sort();
    assert!(samples.len() > 100, "only {} samples", samples.len());
    samples
}

/// Cuts a text into words, numbers, spaces and single other characters.
fn pieces(text: &str) -> Vec<&str> {
    let kind = |c: char| match c {
        c if c.is_ascii_alphanumeric() || c == '_' => 0,
        ' ' => 1,
        _ => 2,
    };
    let mut pieces = Vec::new();
    let mut start = 0;
    let mut before = None;
    for (at, c) in text.char_indices() {
        if before.is_some_and(|before| before != kind(c) || before == 2) {
            pieces.push(&text[start..at]);
            start = at;
        }
        before = Some(kind(c));
    }
    pieces.push(&text[start..]);
    pieces
}

/// Pieces that mutations put in: what ends, opens and joins things, and words that begin them.
const INSERTED: [&str; 40] = [
    "\n", ";", ",", "(", ")", "[", "]", "{", "}", "\"", "//", "/*", "*/", "=", "==", "-", "+", ".", "..", ":", "@",
    "if", "else", "for", "in", "let", "fn", "param", "update", "validate", "with", "init", "none", "not", "return",
    "日本", "\u{FEFF}", "\r", "//!", "1.5",
];

#[derive(Clone, Debug)]
enum Mutation {
    Delete(Index),
    Duplicate(Index),
    Swap(Index, Index),
    Insert(Index, Index),
    Copy(Index, Index),
    Cut(Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let index = any::<Index>;
    prop_oneof![
        4 => index().prop_map(Mutation::Delete),
        2 => index().prop_map(Mutation::Duplicate),
        2 => (index(), index()).prop_map(|(a, b)| Mutation::Swap(a, b)),
        4 => (index(), index()).prop_map(|(a, b)| Mutation::Insert(a, b)),
        2 => (index(), index()).prop_map(|(a, b)| Mutation::Copy(a, b)),
        1 => index().prop_map(Mutation::Cut),
    ]
}

fn mutate(text: &str, mutations: &[Mutation]) -> String {
    let mut pieces: Vec<_> = pieces(text);
    for mutation in mutations {
        let count = pieces.len();
        if count == 0 {
            break;
        }
        match mutation {
            Mutation::Delete(at) => {
                pieces.remove(at.index(count));
            }
            Mutation::Duplicate(at) => pieces.insert(at.index(count), pieces[at.index(count)]),
            Mutation::Swap(a, b) => pieces.swap(a.index(count), b.index(count)),
            Mutation::Insert(at, what) => pieces.insert(at.index(count), INSERTED[what.index(INSERTED.len())]),
            Mutation::Copy(from, to) => pieces.insert(to.index(count), pieces[from.index(count)]),
            Mutation::Cut(at) => pieces.truncate(at.index(count)),
        }
    }
    pieces.concat()
}

fn mutant() -> impl Strategy<Value = String> {
    (prop::sample::select(samples()), prop::collection::vec(mutation(), 0..6))
        .prop_map(|(text, mutations)| mutate(&text, &mutations))
}

/// Fails unless every diagnostic speaks of this text in whole characters and can be drawn.
fn check_diagnostics(sources: &Sources, file: FileId, errors: &[Diagnostic]) -> Result<(), TestCaseError> {
    prop_assert!(!errors.is_empty());
    let text = sources.text(file);
    for error in errors {
        prop_assert!(!error.labels.is_empty(), "{error:?}");
        for (span, label) in &error.labels {
            let (start, end) = (span.start as usize, span.end as usize);
            prop_assert!(span.file == file && start <= end && end <= text.len(), "{error:?}");
            prop_assert!(text.is_char_boundary(start) && text.is_char_boundary(end), "{error:?}");
            prop_assert!(!label.is_empty() && !error.message.is_empty(), "{error:?}");
        }
        let drawn = error.render(sources, false);
        prop_assert!(drawn.contains(error.code) && drawn.ends_with('\n'), "{drawn}");
        prop_assert!(!drawn.contains("kw_") && !drawn.contains('\u{1b}'), "{drawn}");
    }
    Ok(())
}

/// Fails unless every span of a tree covers tokens of this text from end to end, and that of a name just its text.
///
/// Read from the tree's debug form, in which no span can be forgotten.
fn check_spans(parsed: &File, text: &str) -> Result<(), TestCaseError> {
    let debug = format!("{parsed:?}");
    let mut parts = debug.split("span: ");
    let mut before = parts.next().unwrap_or_default();
    for part in parts {
        let range = part.split_once(|c: char| !c.is_ascii_digit() && c != '.').map_or(part, |(range, _)| range);
        let (start, end) = range.split_once("..").expect("a range");
        let (start, end): (usize, usize) = (start.parse().expect("a number"), end.parse().expect("a number"));
        let slice = text.get(start..end);
        prop_assert!(slice.is_some_and(|slice| !slice.is_empty()), "{start}..{end} of {text:?}");
        let slice = slice.unwrap_or_default();
        prop_assert!(slice.trim() == slice && !slice.ends_with("*/"), "{slice:?} of {text:?}");
        // `Ident { text: "x", span: 0..1 }`
        if let Some((_, name)) = before.strip_suffix("\", ").and_then(|before| before.rsplit_once("Ident { text: \"")) {
            prop_assert_eq!(slice, name, "{}", text);
        }
        before = part;
    }
    Ok(())
}

/// The comments of a text, without the spaces at the ends of their lines.
///
/// Written apart from the grammar so that a comment that the grammar loses is missed.
fn comments(text: &str) -> Vec<String> {
    let mut comments = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some(inner) = rest.strip_prefix("/*") {
            inner.find("*/").map_or(rest.len(), |end| end + 4)
        } else if c == '"' {
            let mut escaped = false;
            let end = rest[1..].find(|c| {
                let closes = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                closes
            });
            rest = &rest[end.map_or(rest.len(), |end| end + 2)..];
            continue;
        } else {
            rest = &rest[c.len_utf8()..];
            continue;
        };
        comments.push(rest[..length].split('\n').map(str::trim_end).collect::<Vec<_>>().join("\n"));
        rest = &rest[length..];
    }
    comments
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutants_parse_or_explain(text in mutant()) {
        let mut sources = Sources::default();
        let file = sources.add("mutant.mng", text.as_str());
        match parse(&sources, file) {
            Err(errors) => {
                check_diagnostics(&sources, file, &errors)?;
                prop_assert_eq!(format(&sources, file), Err(errors));
            }
            Ok(parsed) => {
                check_spans(&parsed, &text)?;
                let formatted = format(&sources, file).expect("what parses can be formatted");
                let again = sources.add("formatted.mng", formatted.as_str());
                let reparsed = parse(&sources, again);
                prop_assert!(reparsed.is_ok(), "formatted to what is no file:\n{}", formatted);
                prop_assert_eq!(tree::tree(&reparsed.expect("checked")), tree::tree(&parsed), "{}", &formatted);
                prop_assert_eq!(comments(&formatted), comments(&text), "{}", &formatted);
                let twice = format(&sources, again).expect("it parses");
                prop_assert_eq!(&twice, &formatted, "formatting twice is not formatting once");
                for line in formatted.lines() {
                    prop_assert!(line.trim_end() == line, "space at the end of {:?}", line);
                }
            }
        }
    }

    #[test]
    fn mutated_bytes_parse_or_explain(
        text in prop::sample::select(samples()),
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = text.into_bytes();
        for (at, byte) in changes {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        let mut sources = Sources::default();
        let file = sources.add("mutant.mng", String::from_utf8_lossy(&bytes));
        if let Err(errors) = parse(&sources, file) {
            check_diagnostics(&sources, file, &errors)?;
        }
    }

    #[test]
    fn any_text_parses_or_is_explained(text in "\\PC{0,80}|[-+*/%@^=<>!&|.,:;(){}\\[\\]\"a1 \n]{0,80}") {
        let mut sources = Sources::default();
        let file = sources.add("any.mng", text);
        if let Err(errors) = parse(&sources, file) {
            check_diagnostics(&sources, file, &errors)?;
        }
    }
}
