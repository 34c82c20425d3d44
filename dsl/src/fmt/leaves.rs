//! The tokens and comments of a file in order, each with what the formatter asks of its place in the grammar.

use std::borrow::Cow;

use pest::iterators::Pair;

use crate::parse::grammar::Rule;
use crate::parse::scan;

/// One token or comment.
#[derive(Clone, Debug)]
pub(super) struct Leaf<'i> {
    pub(super) rule: Rule,
    /// The rule that it is a direct part of.
    pub(super) parent: Rule,
    pub(super) text: &'i str,
    /// Line ends between it and what stands before it: the user's, then those that are written.
    pub(super) lines_before: usize,
    /// Whether a declaration, statement, setting or field begins with it.
    pub(super) starts_unit: bool,
    /// For an opening bracket: whether a line ends directly inside it.
    pub(super) broken: bool,
    /// Index of the first leaf from here on that is no comment; past the last leaf when there is none.
    pub(super) code: usize,
}

impl<'i> Leaf<'i> {
    pub(super) fn is_opener(&self) -> bool {
        scan::closer(self.text).is_some()
    }

    pub(super) fn is_closer(&self) -> bool {
        scan::opener(self.text).is_some()
    }

    pub(super) fn is_comment(&self) -> bool {
        self.rule == Rule::COMMENT
    }

    /// A comment that ends with its line.
    pub(super) fn is_line_comment(&self) -> bool {
        self.is_comment() && self.text.starts_with("//")
    }

    /// The text without what no reader sees: spaces at the ends of a comment's lines.
    pub(super) fn canonical_text(&self) -> Cow<'i, str> {
        if !self.is_comment() {
            return Cow::Borrowed(self.text);
        }
        let lines: Vec<_> = self.text.split('\n').map(str::trim_end).collect();
        Cow::Owned(lines.join("\n"))
    }
}

/// The leaves of a whole file.
pub(super) fn leaves<'i>(text: &'i str, root: Pair<'i, Rule>) -> Vec<Leaf<'i>> {
    let mut collector = Collector { text, end: 0, leaves: Vec::new() };
    collector.visit(root, Rule::file, false);
    collector.leaves
}

/// Tells each leaf where the code stands that it belongs to or precedes.
pub(super) fn mark_code(leaves: &mut [Leaf<'_>]) {
    let mut code = leaves.len();
    for (index, leaf) in leaves.iter_mut().enumerate().rev() {
        if !leaf.is_comment() {
            code = index;
        }
        leaf.code = code;
    }
}

struct Collector<'i> {
    text: &'i str,
    /// Where the last leaf ended.
    end: usize,
    leaves: Vec<Leaf<'i>>,
}

impl<'i> Collector<'i> {
    fn visit(&mut self, pair: Pair<'i, Rule>, parent: Rule, starts_unit: bool) {
        let rule = pair.as_rule();
        let (start, text) = (pair.as_span().start(), pair.as_str());
        let mut inner = pair.into_inner().peekable();
        if inner.peek().is_none() {
            self.leaf(rule, parent, start, text, starts_unit);
            return;
        }
        let mut starts_unit = starts_unit || is_unit(rule, parent);
        for part in inner {
            let is_comment = part.as_rule() == Rule::COMMENT;
            self.visit(part, rule, starts_unit && !is_comment);
            starts_unit &= is_comment;
        }
    }

    fn leaf(&mut self, rule: Rule, parent: Rule, start: usize, text: &'i str, starts_unit: bool) {
        // Rules that match nothing make pairs too, and line ends are counted, not kept.
        if text.trim().is_empty() {
            return;
        }
        let lines_before = self.text[self.end..start].matches('\n').count();
        self.end = start + text.len();
        self.leaves.push(Leaf { rule, parent, text, lines_before, starts_unit, broken: false, code: 0 });
    }
}

/// Whether a rule makes what begins a line of its own in a body.
fn is_unit(rule: Rule, parent: Rule) -> bool {
    match rule {
        Rule::item | Rule::stmt | Rule::record_field => true,
        Rule::function => parent == Rule::block || parent == Rule::members,
        Rule::setting => parent == Rule::settings,
        _ => false,
    }
}
