//! The formatter: writes a file anew from its own words, signs and comments.
//!
//! It changes only the space between tokens (and drops `;` where the line ends anyway), so it cannot change what a
//! file says. Where a line breaks stays the user's choice; how it is indented and spaced does not.

mod breaks;
mod leaves;
mod spacing;

use crate::diagnostic::{Diagnostic, Sources};
use crate::parse::grammar::Rule;
use crate::parse::{pairs, tree};
use crate::span::FileId;
use leaves::Leaf;

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
    let leaves = breaks::settle(leaves::leaves(sources.text(file), root));
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
}

/// A file is like the inside of a bracket.
const FILE: Group = Group { inside: 0, closing: 0, has_units: true };

#[derive(Default)]
struct Writer {
    out: String,
    groups: Vec<Group>,
    /// Columns that the current line is indented by.
    line_indent: usize,
}

impl Writer {
    fn leaf(&mut self, leaves: &[Leaf<'_>], index: usize) {
        let leaf = &leaves[index];
        match (index.checked_sub(1), leaf.lines_before) {
            (None, _) => {}
            (Some(_), 0) if leaf.is_line_comment() => self.out.push_str(&" ".repeat(BEFORE_COMMENT)),
            (Some(before), 0) => {
                if spacing::space_between(&leaves[before], leaf) {
                    self.out.push(' ');
                }
            }
            (Some(_), lines) => {
                self.out.push_str(&"\n".repeat(lines));
                self.line_indent = self.indent(leaves, index);
                self.out.push_str(&" ".repeat(self.line_indent));
            }
        }
        self.out.push_str(&leaf.canonical_text());
        if leaf.is_opener() {
            let (inside, closing) = (self.line_indent + INDENT, self.line_indent);
            self.groups.push(Group { inside, closing, has_units: leaf.text == "{" });
        } else if leaf.is_closer() {
            self.groups.pop();
        }
    }

    /// Columns of a line that begins with the leaf at `index`.
    fn indent(&self, leaves: &[Leaf<'_>], index: usize) -> usize {
        let group = self.groups.last().unwrap_or(&FILE);
        if leaves[index].is_closer() {
            return group.closing;
        }
        // A comment stands where the code stands that it speaks of.
        let goes_on = leaves.get(leaves[index].code).is_some_and(|code| {
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
