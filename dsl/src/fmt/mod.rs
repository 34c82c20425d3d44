//! The formatter: writes a file anew from its own words, signs and comments.
//!
//! It changes only the space between tokens (and drops `;` where the line ends anyway), so it cannot change what a
//! file says. Where a line breaks stays the user's choice; how it is indented and spaced does not.

mod leaves;
mod spacing;

use crate::diagnostic::{Diagnostic, Sources};
use crate::parse::grammar::Rule;
use crate::parse::{pairs, tree};
use crate::span::FileId;
use leaves::{Leaf, leaves};

/// Columns that each level of nesting is indented by.
const INDENT: usize = 2;

/// Spaces before a comment that ends a line of code.
const BEFORE_COMMENT: usize = 2;

/// Formats one file: two spaces a level, one way to space, single blank lines, every comment kept.
///
/// Formatting what it returns changes nothing more. Fails as [`crate::parse`] does on a text that is no file.
pub fn format(sources: &Sources, file: FileId) -> Result<String, Vec<Diagnostic>> {
    let root = pairs(sources, file)?;
    // Some mistakes show only when the tree is built; a file with one of them is not formatted either.
    tree(sources, file, root.clone())?;
    let leaves = leaves(sources.text(file), root);
    let mut writer = Writer::default();
    for index in 0..leaves.len() {
        writer.leaf(&leaves, index);
    }
    Ok(writer.finish())
}

/// An open bracket of the text being written.
struct Group {
    /// Columns of a line that begins inside it.
    inside: usize,
    /// Columns of a line that begins with its closing bracket.
    closing: usize,
    /// Whether it holds statements or the like: a line that does not begin one is indented further.
    has_units: bool,
    /// Whether its parts stand on lines of their own.
    broken: bool,
}

/// A file is like the inside of a broken bracket.
const FILE: Group = Group { inside: 0, closing: 0, has_units: true, broken: true };

#[derive(Default)]
struct Writer {
    out: String,
    groups: Vec<Group>,
    /// Columns that the current line is indented by.
    line_indent: usize,
    /// A line end that is still to come: one that stood before a comma, or a `;` that was dropped.
    owed_break: bool,
}

impl Writer {
    fn leaf(&mut self, leaves: &[Leaf<'_>], index: usize) {
        let leaf = &leaves[index];
        if leaf.rule == Rule::brk && self.drops_separator(leaves, index) {
            self.owed_break |= self.group().broken;
            return;
        }
        match self.lines_before(leaves, index) {
            _ if self.out.is_empty() => {}
            0 if leaf.is_line_comment() => self.out.push_str(&" ".repeat(BEFORE_COMMENT)),
            0 => {
                if index > 0 && spacing::space_between(&leaves[index - 1], leaf) {
                    self.out.push(' ');
                }
            }
            lines => {
                self.out.push_str(&"\n".repeat(lines));
                self.line_indent = self.indent(leaves, index);
                self.out.push_str(&" ".repeat(self.line_indent));
            }
        }
        self.out.push_str(&leaf.canonical_text());
        if leaf.is_opener() {
            self.groups.push(Group {
                inside: self.line_indent + INDENT,
                closing: self.line_indent,
                has_units: leaf.text == "{",
                broken: leaf.broken,
            });
        } else if leaf.is_closer() {
            self.groups.pop();
        }
    }

    fn group(&self) -> &Group {
        self.groups.last().unwrap_or(&FILE)
    }

    /// Whether the `;` at `index` says no more than the line end that stands, or will stand, in its place.
    fn drops_separator(&self, leaves: &[Leaf<'_>], index: usize) -> bool {
        let Some(next) = leaves.get(index + 1).and_then(|after| leaves.get(after.code)) else { return true };
        if next.rule == Rule::rbrace || next.rule == Rule::brk || index > 0 && leaves[index - 1].is_opener() {
            return true;
        }
        // A sign at the begin of the next line could go on with this statement.
        self.group().broken && next.text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
    }

    /// How many line ends to write before the leaf at `index`: two leave a blank line.
    fn lines_before(&mut self, leaves: &[Leaf<'_>], index: usize) -> usize {
        let leaf = &leaves[index];
        let Some(before) = index.checked_sub(1).map(|before| &leaves[before]) else { return 0 };
        let mut lines = leaf.lines_before.min(2);
        if lines > 0 && leaf.joins(before) {
            // A comma hands its line end on to what follows it.
            self.owed_break |= leaf.rule == Rule::comma;
            return 0;
        }
        if leaf.is_line_comment() && lines == 0 {
            return 0;
        }
        let after_opener = before.is_opener();
        let forced =
            if after_opener { before.forces_breaks() } else { leaf.is_closer() && self.closes_broken_braces() };
        if forced && !(after_opener && leaf.is_closer()) || std::mem::take(&mut self.owed_break) && !leaf.is_closer() {
            lines = lines.max(1);
        }
        self.owed_break = false;
        // No blank line at the begin or the end of anything in brackets; none in empty ones at all.
        match (after_opener, leaf.is_closer()) {
            (true, true) => 0,
            (true, false) | (false, true) => lines.min(1),
            (false, false) => lines,
        }
    }

    fn closes_broken_braces(&self) -> bool {
        self.group().has_units && self.group().broken
    }

    /// Columns of a line that begins with the leaf at `index`.
    fn indent(&self, leaves: &[Leaf<'_>], index: usize) -> usize {
        let group = self.group();
        if leaves[index].is_closer() {
            return group.closing;
        }
        // A comment stands where the code stands that it speaks of.
        let code = leaves.get(leaves[index].code);
        let goes_on = code.is_some_and(|code| {
            group.has_units
                && !code.starts_unit
                && !code.is_closer()
                && !matches!(code.rule, Rule::kw_else | Rule::lbrace | Rule::brk)
        });
        group.inside + if goes_on { INDENT } else { 0 }
    }

    fn finish(mut self) -> String {
        if !self.out.is_empty() {
            self.out.push('\n');
        }
        self.out
    }
}
