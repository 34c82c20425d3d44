//! Algebraic identities. Each holds to the bit in both modes of the oracle, NaN, infinities and −0 included; identities that
//! only hold for real numbers (x + 0 = x of −0, x·0 = 0 of NaN, x² for `pow`) are left out.
//!
//! ```text
//! before                                              after
//! v1: bf16[T] = cast v0          (v0: bf16[T])        v4: f32[T] = cast v0
//! v2: f32[] = const {value = 1.0}
//! v3: f32[T] = broadcast v2 {axes = []}
//! v4: f32[T] = mul v1, v3
//! ```
//!
//! The rules, operands first: those of `const_fold`, as each kind makes work for the other; `arithmetic` (casts, neutral elements, choices that are known, scalars that are repeated for
//! an elementwise operation), `layout` (moves that do nothing, moves of moves, moves of repeated scalars), `contraction`
//! (a transposed operand of a dot). Operands that lose their last use stay for `dce`.

mod arithmetic;
mod contraction;
mod layout;

use super::const_fold;
use super::rewrite::{Rule, peephole};
use crate::ir::Module;

/// The rules in the order in which they are tried, after those of `const_fold`.
const RULES: &[Rule] = &[
    arithmetic::cast_of_cast,
    arithmetic::double_negation,
    arithmetic::neutral_element,
    arithmetic::known_choice,
    arithmetic::repeated_scalars,
    layout::broadcast,
    layout::reshape,
    layout::transpose,
    layout::slice,
    layout::pad,
    layout::concat,
    layout::shift,
    layout::reverse,
    contraction::transposed_operand,
];

/// Runs the pass.
pub fn run(m: &mut Module) -> Result<usize, String> {
    Ok(peephole(m, &[const_fold::RULES, RULES].concat()))
}
