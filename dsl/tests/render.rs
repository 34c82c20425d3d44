//! Diagnostics as drawn text: places in two files, tabs, wide characters, the end of a file, any span at all.

use mngc_dsl::{Diagnostic, FileId, Severity, Sources, Span};
use proptest::prelude::*;

/// The span of the first `needle` of a file.
fn find(sources: &Sources, file: FileId, needle: &str) -> Span {
    let start = sources.text(file).find(needle).expect("the needle");
    Span::new(file, start, start + needle.len())
}

#[test]
fn two_files_each_once_with_the_main_place_first() {
    let mut sources = Sources::default();
    let lib = sources.add("größe.mng", "// ä 日本\nconst größe = 1\nconst rows = 2\n");
    let main = sources.add("main.mng", "import \"größe.mng\"\n\n\tconst /* 日本 */ rows = 3\nconst b = rows\n");
    let diagnostic = Diagnostic::error("twice", find(&sources, main, "rows"), "`rows` is there twice", "again")
        .label(find(&sources, main, "import"), "imported here")
        .label(find(&sources, lib, "rows"), "first")
        .help("rename one")
        .note("names of imported files are visible");
    let expected = "\
[twice] Error: `rows` is there twice
   ╭─[ main.mng:3:17 ]
   │
 1 │ import \"größe.mng\"
   │ ───┬──
   │    ╰──── imported here
   │
 3 │     const /* 日本 */ rows = 3
   │                      ──┬─
   │                        ╰─── again
   │
   ├─[ größe.mng:3:7 ]
   │
 3 │ const rows = 2
   │       ──┬─
   │         ╰─── first
   │
   │ Help: rename one
   │
   │ Note: names of imported files are visible
───╯
";
    let drawn = diagnostic.render(&sources, false);
    assert_eq!(drawn, expected, "\n{drawn}");
}

#[test]
fn the_end_of_a_file_has_a_place() {
    for (text, line) in [("", "1:1"), ("a", "1:2"), ("a\n", "1:3"), ("ä\n\n", "2:2")] {
        let mut sources = Sources::default();
        let file = sources.add("x.mng", text);
        let end = Span::new(file, text.len(), text.len());
        let drawn = Diagnostic::error("end", end, "too early", "the file ends here").render(&sources, false);
        assert!(drawn.contains("the file ends here"), "{drawn}");
        assert!(drawn.contains(&format!("x.mng:{line}")), "{drawn}");
    }
}

#[test]
fn colours_only_when_asked_for() {
    let mut sources = Sources::default();
    let file = sources.add("x.mng", "const a = 1\n");
    let mut diagnostic = Diagnostic::error("code", find(&sources, file, "a"), "message", "label").help("help");
    for severity in [Severity::Error, Severity::Warning] {
        diagnostic.severity = severity;
        assert!(diagnostic.render(&sources, true).contains("\u{1b}["));
        assert!(!diagnostic.render(&sources, false).contains('\u{1b}'));
    }
    assert!(diagnostic.render(&sources, false).starts_with("[code] Warning: message\n"));
}

#[test]
fn a_message_without_a_place_is_still_a_message() {
    let mut diagnostic = Diagnostic::error("code", Span::default(), "message\u{1b}", "label").help("help").note("note");
    diagnostic.labels.clear();
    let drawn = diagnostic.render(&Sources::default(), false);
    assert_eq!(drawn, "[code] Error: message\u{FFFD}\n  Help: help\n  Note: note\n");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Spans outside a text or within a character are mistakes of this program: they must not hide the message.
    #[test]
    fn any_span_can_be_drawn(
        texts in prop::array::uniform2("[a ä日\t\r\n\u{2028}\u{0}]{0,40}"),
        places in prop::collection::vec((0..2u32, 0..150u32, 0..150u32), 1..4),
    ) {
        let mut sources = Sources::default();
        for (index, text) in texts.iter().enumerate() {
            sources.add(format!("{index}.mng"), text.as_str());
        }
        let spans: Vec<_> = places.iter().map(|(file, start, end)| Span { file: FileId(*file), start: *start, end: *end }).collect();
        let mut diagnostic = Diagnostic::error("code", spans[0], "message", "label 0");
        for (index, span) in spans.iter().enumerate().skip(1) {
            diagnostic = diagnostic.label(*span, format!("label {index}"));
        }
        let drawn = diagnostic.render(&sources, false);
        for index in 0..spans.len() {
            let label = format!("label {index}");
            prop_assert!(drawn.contains(&label), "{}", drawn);
        }
    }
}

/// A line of 100,000 characters is cut around what the message speaks of; line and column are those of the file.
#[test]
fn long_lines_are_cut() {
    let mut sources = Sources::default();
    let text =
        format!("const a = 1\nconst b = [{}wrong, {}1]\nconst c = 1\n", "1, ".repeat(16_000), "ä, ".repeat(17_000));
    let file = sources.add("x.mng", &*text);
    let wrong = find(&sources, file, "wrong");
    let name = "wrong".repeat(1000);
    let diagnostic = Diagnostic::error("unknown-name", wrong, format!("nothing is named `{name}`"), "unknown name")
        .label(find(&sources, file, "c = 1"), "another");
    let drawn = diagnostic.render(&sources, false);
    let header = format!("x.mng:2:{} ]", "const b = [".len() + 48_000 + 1);
    assert!(drawn.contains(&header), "{drawn}");
    assert!(drawn.contains("…") && drawn.contains("1, wrong, ä, "), "{drawn}");
    assert!(drawn.len() < 2000 && drawn.lines().all(|line| line.chars().count() < 250), "{drawn}");
    // The label stands below its word still.
    let lines: Vec<Vec<char>> = drawn.lines().map(|line| line.chars().collect()).collect();
    let at = |line: &[char], word: &str| line.windows(word.len()).position(|w| w.iter().copied().eq(word.chars()));
    let (row, column) = lines
        .iter()
        .enumerate()
        .filter(|(i, _)| *i > 1)
        .find_map(|(i, l)| Some((i, at(l, "wrong,")?)))
        .expect("the word");
    assert_eq!(lines[row + 1][column..column + 5].iter().collect::<String>(), "──┬──", "{drawn}");
}

/// A span over much of a long line shows where it begins and where it ends.
#[test]
fn long_spans_are_cut_in_the_middle() {
    let mut sources = Sources::default();
    let file = sources.add("x.mng", format!("f({})", "x".repeat(100_000)));
    let span = Span::new(file, 2, 100_002);
    let drawn = Diagnostic::error("long", span, "too long", "this").render(&sources, false);
    assert!(
        drawn.contains("x.mng:1:3 ]") && drawn.contains("f(xxx") && drawn.contains("x…x") && drawn.contains("xxx)"),
        "{drawn}"
    );
    assert!(drawn.lines().all(|line| line.chars().count() < 250), "{drawn}");
}
