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

/// The cost of a launch. Half of a symmetric product counts as half; attention as if every mask but the causal one let
/// everything through.
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
            let keys = q.ty.dims.get(rank.wrapping_sub(3)).map_or(0, |&dim| m.dims.size(dim)) as f64;
            // Two products forward, five backward.
            let products = if matches!(launch.kernel, Kernel::Op(Op::Attention { .. })) { 2.0 } else { 5.0 };
            2.0 * products * elements(q) * keys * if mask.causal { 0.5 } else { 1.0 }
        }
        Kernel::Op(op) if op.is_free() => 0.0,
        Kernel::Op(_) => results,
        Kernel::Copy => 0.0,
    }
}
