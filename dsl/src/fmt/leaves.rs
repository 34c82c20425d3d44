//! The tokens and comments of a file in order, each with what the formatter asks of its place in the grammar.

use std::borrow::Cow;

use pest::iterators::Pair;

use crate::parse::grammar::Rule;
use crate::parse::scan;

/// One token or comment.
#[derive(Debug)]
pub(super) struct Leaf<'i> {
    pub(super) rule: Rule,
    /// The rule that it is a direct part of.
    pub(super) parent: Rule,
    pub(super) text: &'i str,
    /// Line ends between it and what stands before it.
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

    /// Whether it stands on the line of `before` though the user put it on the next.
    pub(super) fn joins(&self, before: &Leaf<'_>) -> bool {
        if before.is_comment() {
            return false;
        }
        match self.rule {
            Rule::lbrace => self.parent != Rule::record,
            Rule::kw_else => before.rule == Rule::rbrace,
            Rule::comma => !before.is_opener(),
            _ => false,
        }
    }

    /// Whether a line must end behind this opening bracket, and another before its closing one.
    pub(super) fn forces_breaks(&self) -> bool {
        self.text == "{" && self.broken
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
    let mut leaves = collector.leaves;
    mark_broken(&mut leaves);
    mark_code(&mut leaves);
    leaves
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

/// Marks the opening brackets that a line end stands directly inside of.
fn mark_broken(leaves: &mut [Leaf<'_>]) {
    let mut open: Vec<usize> = Vec::new();
    for index in 0..leaves.len() {
        let leaf = &leaves[index];
        let joins = index > 0 && leaf.rule != Rule::comma && leaf.joins(&leaves[index - 1]);
        let empty = leaf.is_closer() && index > 0 && leaves[index - 1].is_opener();
        let breaks = leaf.lines_before > 0 && !joins && !empty;
        let (is_opener, is_closer) = (leaf.is_opener(), leaf.is_closer());
        if let Some(&group) = open.last()
            && breaks
        {
            leaves[group].broken = true;
        }
        if is_opener {
            open.push(index);
        } else if is_closer {
            open.pop();
        }
    }
}

fn mark_code(leaves: &mut [Leaf<'_>]) {
    let mut code = leaves.len();
    for (index, leaf) in leaves.iter_mut().enumerate().rev() {
        if !leaf.is_comment() {
            code = index;
        }
        leaf.code = code;
    }
}
