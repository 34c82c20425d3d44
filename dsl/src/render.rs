//! Diagnostics as text for a terminal: the lines that they speak of, with the labels drawn below.

use std::collections::HashMap;
use std::ops::Range;

use ariadne::{Color, Config, IndexType, Label, Report, ReportKind};

use crate::diagnostic::{Diagnostic, Severity, Sources};
use crate::shorten::{Shortened, brief};
use crate::span::{FileId, Span};

/// Colour of the places that explain the main one.
const SECONDARY: Color = Color::Blue;

/// A place as the drawing library takes it: the file's name and a range of characters (its ranges of bytes fail in
/// lines that hold other characters than ASCII).
type Place = (String, Range<usize>);

impl Diagnostic {
    /// Draws the message as text of several lines, ending with a line end; `color` adds terminal colours.
    ///
    /// `sources` must hold the files that the labels point into.
    pub fn render(&self, sources: &Sources, color: bool) -> String {
        let (kind, main_color) = match self.severity {
            Severity::Error => (ReportKind::Error, Color::Red),
            Severity::Warning => (ReportKind::Warning, Color::Yellow),
        };
        let Some((main, _)) = self.labels.first() else { return self.render_plain() };
        let texts = self.shortened(sources);
        let place = |span: Span| -> Place {
            let (range, text) = (characters(sources, span), &texts[&span.file]);
            (sources.name(span.file).to_owned(), text.position(range.start)..text.position(range.end))
        };
        let mut report = Report::build(kind, place(*main))
            .with_config(Config::default().with_color(color).with_index_type(IndexType::Char))
            .with_code(self.code)
            .with_message(brief(visible(&self.message)));
        // In the order of the text, the main file first: the library draws a file anew when labels go back in it.
        let mut labels: Vec<_> = self.labels.iter().enumerate().collect();
        labels.sort_by_key(|(_, (span, _))| (span.file != main.file, span.file, span.start));
        for (order, (index, (span, text))) in labels.into_iter().enumerate() {
            let label_color = if index == 0 { main_color } else { SECONDARY };
            let label = Label::new(place(*span)).with_color(label_color).with_order(order as i32);
            report.add_label(label.with_message(brief(visible(text))));
        }
        if let Some(help) = &self.help {
            report.add_help(brief(visible(help)));
        }
        for note in &self.notes {
            report.add_note(brief(visible(note)));
        }
        let shown = texts.iter().map(|(&file, text)| (sources.name(file).to_owned(), text.text.clone()));
        let mut drawn = Vec::new();
        if report.finish().write(ariadne::sources(shown), &mut drawn).is_err() {
            return self.render_plain();
        }
        let mut drawn = String::from_utf8_lossy(&drawn).into_owned();
        for (span, _) in &self.labels {
            drawn = with_true_column(drawn, sources, *span, &texts[&span.file]);
        }
        drawn.lines().flat_map(|line| [line.trim_end(), "\n"]).collect()
    }

    /// The texts that the labels point into, as a terminal shows them, with long lines cut.
    fn shortened(&self, sources: &Sources) -> HashMap<FileId, Shortened> {
        let mut edges: HashMap<FileId, Vec<usize>> = HashMap::new();
        for (span, _) in &self.labels {
            let range = characters(sources, *span);
            edges.entry(span.file).or_default().extend([range.start, range.end]);
        }
        let shorten =
            |(file, edges): (FileId, Vec<usize>)| (file, Shortened::new(&visible(sources.text(file)), &edges));
        edges.into_iter().map(shorten).collect()
    }

    /// The message without any source text.
    fn render_plain(&self) -> String {
        let severity = match self.severity {
            Severity::Error => "Error",
            Severity::Warning => "Warning",
        };
        let mut text = format!("[{}] {severity}: {}\n", self.code, brief(visible(&self.message)));
        if let Some(help) = &self.help {
            text.push_str(&format!("  Help: {}\n", brief(visible(help))));
        }
        for note in &self.notes {
            text.push_str(&format!("  Note: {}\n", brief(visible(note))));
        }
        text
    }
}

/// The drawing with a place's true line and column where it has those of the cut text.
fn with_true_column(drawn: String, sources: &Sources, span: Span, shortened: &Shortened) -> String {
    let start = characters(sources, span).start;
    let at = shortened.position(start);
    if at == start {
        return drawn;
    }
    let line_start = |text: &str, at: usize| {
        text.chars().take(at).enumerate().filter(|(_, c)| *c == '\n').last().map_or(0, |(i, _)| i + 1)
    };
    let text = sources.text(span.file);
    let line = text.chars().take(start).filter(|c| *c == '\n').count() + 1;
    let column = |start: usize| format!("{}:{line}:{start} ]", sources.name(span.file));
    let wrong = column(at - line_start(&shortened.text, at) + 1);
    drawn.replacen(&wrong, &column(start - line_start(text, start) + 1), 1)
}

/// The characters that a span covers. A span outside its text or in the middle of a character is rounded into it.
fn characters(sources: &Sources, span: Span) -> Range<usize> {
    let text = sources.text(span.file);
    let start = text.floor_char_boundary(span.start as usize);
    let end = text.ceil_char_boundary(span.end as usize).max(start);
    let start_char = text[..start].chars().count();
    start_char..start_char + text[start..end].chars().count()
}

/// A text that a terminal shows and does not obey, with as many characters: control characters are replaced, and of the
/// ends of lines that Unicode knows only the line feed remains.
fn visible(text: &str) -> String {
    let show = |c: char| match c {
        '\n' | '\t' => c,
        '\r' => ' ',
        '\u{2028}' | '\u{2029}' => char::REPLACEMENT_CHARACTER,
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    text.chars().map(show).collect()
}
