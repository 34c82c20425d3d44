//! Where lines break: the user's line ends, moved where a bracket, a comma or a dropped `;` asks for it.

use super::leaves::{Leaf, mark_code};
use crate::parse::grammar::Rule;

/// Settles how many line ends stand before each leaf (two leave a blank line) and drops each `;` that says no more than
/// a line end.
pub(super) fn settle(mut leaves: Vec<Leaf<'_>>) -> Vec<Leaf<'_>> {
    join(&mut leaves);
    mark_broken(&mut leaves);
    mark_code(&mut leaves);
    let mut leaves = drop_separators(leaves);
    mark_code(&mut leaves);
    break_braces(&mut leaves);
    leaves
}

/// Puts what belongs to the line before it there: commas, `else`, the `{` of a body, the `]` of an empty list.
fn join(leaves: &mut [Leaf<'_>]) {
    for index in 1..leaves.len() {
        let [before, leaf] = &mut leaves[index - 1..=index] else { return };
        if leaf.lines_before == 0 || before.is_comment() {
            continue;
        }
        let joins = match leaf.rule {
            Rule::lbrace => leaf.parent != Rule::record,
            Rule::kw_else => before.rule == Rule::rbrace,
            Rule::comma => !before.is_opener(),
            _ => before.is_opener() && leaf.is_closer(),
        };
        if !joins {
            continue;
        }
        let lines = std::mem::take(&mut leaf.lines_before);
        if leaf.rule == Rule::comma
            && let Some(next) = leaves.get_mut(index + 1)
        {
            hand_on(lines, next);
        }
    }
}

/// Moves line ends behind the leaf before which they stood.
fn hand_on(lines: usize, next: &mut Leaf<'_>) {
    // A comment stays behind the code that it speaks of; its own line end follows.
    let trails = next.is_line_comment() && next.lines_before == 0;
    if !trails && !next.is_closer() {
        next.lines_before = next.lines_before.max(lines);
    }
}

/// Marks the opening brackets that a line end stands directly inside of.
fn mark_broken(leaves: &mut [Leaf<'_>]) {
    let mut open: Vec<usize> = Vec::new();
    for index in 0..leaves.len() {
        let leaf = &leaves[index];
        let (breaks, is_opener, is_closer) = (leaf.lines_before > 0, leaf.is_opener(), leaf.is_closer());
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

fn drop_separators(leaves: Vec<Leaf<'_>>) -> Vec<Leaf<'_>> {
    // Whether each open bracket is broken; a file is like the inside of a broken one.
    let mut broken = vec![true];
    // The line ends of the separators dropped since the last leaf that was kept.
    let mut owed = 0;
    let mut kept: Vec<Leaf<'_>> = Vec::with_capacity(leaves.len());
    for index in 0..leaves.len() {
        let leaf = &leaves[index];
        let in_broken = broken.last() == Some(&true);
        if leaf.rule == Rule::brk && is_idle(&leaves, index, kept.last(), in_broken) {
            owed = owed.max(leaf.lines_before).max(usize::from(in_broken && leaf.lines_before == 0));
            continue;
        }
        let mut leaf = leaf.clone();
        let follows_comment = kept.last().is_some_and(Leaf::is_line_comment);
        if follows_comment {
            leaf.lines_before = leaf.lines_before.max(owed);
        } else {
            hand_on(owed, &mut leaf);
        }
        owed = 0;
        if leaf.is_opener() {
            broken.push(leaf.broken);
        } else if leaf.is_closer() {
            broken.pop();
        }
        kept.push(leaf);
    }
    kept
}

/// Whether the `;` at `index` says no more than the line end or bracket that stands, or will stand, in its place.
fn is_idle(leaves: &[Leaf<'_>], index: usize, before: Option<&Leaf<'_>>, in_broken: bool) -> bool {
    let Some(next) = leaves.get(index + 1).and_then(|after| leaves.get(after.code)) else { return true };
    if next.rule == Rule::rbrace || next.rule == Rule::brk || before.is_none_or(Leaf::is_opener) {
        return true;
    }
    // A sign at the begin of the next line could go on with this statement.
    in_broken && next.text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}

/// Gives the parts of a broken brace lines of their own, and takes blank lines from the edges of all brackets.
fn break_braces(leaves: &mut [Leaf<'_>]) {
    let mut open: Vec<bool> = Vec::new();
    for index in 0..leaves.len() {
        let breaks = |leaf: &Leaf<'_>| leaf.text == "{" && leaf.broken;
        let after_opener = index > 0 && leaves[index - 1].is_opener();
        let after_broken = index > 0 && breaks(&leaves[index - 1]);
        let leaf = &mut leaves[index];
        let closes_broken = leaf.is_closer() && open.last() == Some(&true);
        let trails = leaf.is_line_comment() && leaf.lines_before == 0;
        if (after_broken && !trails) || closes_broken {
            leaf.lines_before = leaf.lines_before.max(1);
        }
        let most = if after_opener || leaf.is_closer() { 1 } else { 2 };
        leaf.lines_before = leaf.lines_before.min(most);
        if leaf.is_opener() {
            open.push(breaks(leaf));
        } else if leaf.is_closer() {
            open.pop();
        }
    }
}
