//! Whether a space stands between two tokens of one line.

use super::leaves::Leaf;
use crate::parse::grammar::Rule;

/// Whether a space stands between two leaves that follow each other on one line.
pub(super) fn space_between(left: &Leaf<'_>, right: &Leaf<'_>) -> bool {
    if matches!(right.rule, Rule::comma | Rule::semi | Rule::brk | Rule::colon) {
        return false;
    }
    if left.is_opener() || right.is_closer() {
        // Braces stand apart from what they hold, `{ x }`, but not from each other.
        return (left.text == "{" || right.text == "}") && !(left.is_opener() && right.is_closer());
    }
    if left.is_comment() || right.is_comment() {
        return true;
    }
    if matches!(left.rule, Rule::comma | Rule::semi | Rule::brk) {
        return true;
    }
    // Fields and ranges are tight on both sides, a minus sign on its right.
    if matches!(left.rule, Rule::dot | Rule::range | Rule::neg) || matches!(right.rule, Rule::dot | Rule::range) {
        return false;
    }
    match right.text {
        "(" => match right.parent {
            Rule::call => false,
            // `f(x)` and `fn (x)`, `fn[T] (x)`.
            Rule::params | Rule::optimizer => left.rule != Rule::name,
            _ => true,
        },
        "[" => match right.parent {
            Rule::index | Rule::shape_vars | Rule::shape_bindings => false,
            // `: [T]` and `: i32[T]`.
            Rule::type_expr => left.rule == Rule::colon,
            _ => true,
        },
        _ => true,
    }
}
