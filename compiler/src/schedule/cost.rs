//! What a launch costs: floating-point operations and bytes of memory traffic, as a lower bound to compare times with.

use super::kernel::{DotKernel, Kernel, LossKernel};
use super::plan::{Launch, Operand, View};
use super::rows::Instr;
use crate::ir::{Module, Op};

/// What a launch costs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Floating-point operations: a multiply-add counts two, any other function one.
    pub flops: f64,
    /// Bytes of operands and results, each counted once.
    pub bytes: f64,
}

/// The cost of a launch. Half of a symmetric product counts as half; attention as if all were one document, and
/// a window that is not a number as wide as the sequence.
pub fn of(m: &Module, launch: &Launch) -> Cost {
    let views = launch.args.iter().filter_map(|arg| match arg {
        Operand::View(view) => Some(view),
        Operand::Const(..) => None,
    });
    let mut seen: Vec<&View> = Vec::new();
    for view in views.chain(&launch.results) {
        if !seen.contains(&view) {
            seen.push(view);
        }
    }
    let bytes = seen.iter().map(|view| m.bytes(&view.ty) as f64).sum();
    Cost { flops: flops(m, launch), bytes }
}

fn flops(m: &Module, launch: &Launch) -> f64 {
    let instances = launch.instances as f64;
    let elements = |view: &View| m.dims.elements(&view.ty.dims) as f64;
    let results: f64 = launch.results.iter().map(elements).sum();
    match &launch.kernel {
        Kernel::Rows(program) => {
            let computing = |i: &&Instr| !matches!(i, Instr::Load { .. } | Instr::Store { .. } | Instr::Iota { .. });
            instances * program.elements as f64 * program.instrs.iter().filter(computing).count() as f64
        }
        Kernel::Dot(DotKernel { batch, m: rows, n, k, symmetric, .. }) => {
            let all = instances * 2.0 * *batch as f64 * *rows as f64 * *n as f64 * *k as f64;
            if *symmetric { all / 2.0 } else { all }
        }
        Kernel::Loss(LossKernel { rows, n, k, gradient, .. }) => {
            let products =
                1 + gradient.as_ref().map_or(0, |g| usize::from(g.dx.is_some()) + usize::from(g.dw.is_some()));
            2.0 * products as f64 * *rows as f64 * *n as f64 * *k as f64
        }
        Kernel::Op(Op::Attention { mask, .. } | Op::AttentionGrad { mask, .. }) => {
            let Some(Operand::View(q)) = launch.args.first() else { return 0.0 };
            let rank = q.ty.rank();
            let t = q.ty.dims.get(rank.wrapping_sub(3)).map_or(0, |&dim| m.dims.size(dim));
            // Two products forward, five backward.
            let products = if matches!(launch.kernel, Kernel::Op(Op::Attention { .. })) { 2.0 } else { 5.0 };
            // A window that is a tensor may be as wide as the sequence; one that is a number comes last.
            let window = match launch.args.last() {
                Some(Operand::Const(window, _)) if mask.window => *window as usize,
                _ => t,
            };
            2.0 * products * elements(q) * keys(t, window, mask.causal)
        }
        Kernel::Op(op) if op.is_free() => 0.0,
        Kernel::Op(_) => results,
        Kernel::Copy => 0.0,
    }
}

/// Keys that a query of T sees on average within a window, documents apart.
fn keys(t: usize, window: usize, is_causal: bool) -> f64 {
    let (t, w) = (t as f64, window.min(t) as f64);
    if t == 0.0 {
        return 0.0;
    }
    // Of the w positions that end with its own, as many as there are; twice those without its own where both sides count.
    let behind = w - w * (w - 1.0) / (2.0 * t);
    if is_causal { behind } else { (2.0 * behind - 1.0).min(t).max(0.0) }
}

#[cfg(test)]
mod tests {
    use super::keys;

    #[test]
    fn keys_are_counted_as_one_by_one() {
        for t in [1usize, 2, 7, 10] {
            for w in [0usize, 1, 3, 7, 20] {
                for is_causal in [false, true] {
                    let sees = |q: usize, k: usize| q.abs_diff(k) < w && (k <= q || !is_causal);
                    let all = (0..t).flat_map(|q| (0..t).map(move |k| (q, k))).filter(|&(q, k)| sees(q, k)).count();
                    let found = keys(t, w, is_causal) * t as f64;
                    assert!((found - all as f64).abs() < 1e-9, "{t}, {w}, {is_causal}: {found}, not {all}");
                }
            }
        }
    }
}
