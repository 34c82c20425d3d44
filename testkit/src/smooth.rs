//! Whether a function is smooth where it is evaluated: only there do central differences say anything about a gradient.

use mngc_compiler::ir::{BinaryOp, DType, Func, Module, Op, ReduceKind, UnaryOp};
use mngc_runtime::{Context, Precision, Result, Tensor};

use crate::trace::{Step, trace};

/// How far an operand must be from a kink or a step.
pub const MARGIN: f64 = 0.02;
/// How far an operand must be from where an op is infinitely steep.
pub const POLE: f64 = 0.1;
/// The largest value that may come up.
pub const LARGEST: f64 = 1e3;

/// Whether every node runs at a point where it is smooth, and nothing becomes large.
pub fn is_smooth(module: &Module, func: Func, args: &[Tensor], seed: u64, step: u64) -> Result<bool> {
    let steps = trace(module, func, args, &Context::new(Precision::F64, seed, step))?;
    Ok(steps.iter().all(|step| is_smooth_at(step, module)))
}

fn floats(tensor: &Tensor) -> &[f64] {
    tensor.as_floats().unwrap_or(&[])
}

/// Distance to the nearest integer.
fn from_integer(x: f64) -> f64 {
    (x - x.round_ties_even()).abs()
}

fn is_smooth_at(step: &Step, module: &Module) -> bool {
    let moderate = |t: &Tensor| floats(t).iter().all(|x| x.abs() <= LARGEST);
    step.results.iter().all(moderate) && no_kink(step, module)
}

fn no_kink(step: &Step, module: &Module) -> bool {
    let a = &step.args;
    // Of one operand, or of both at each place; integers never move.
    let all = |fine: &dyn Fn(f64) -> bool| floats(&a[0]).iter().all(|&x| fine(x));
    let both = |fine: &dyn Fn(f64, f64) -> bool| {
        let (x, y) = (floats(&a[0]), floats(&a[1]));
        let n = x.len().max(y.len());
        (0..n).all(|i| fine(x[i % x.len()], y[i % y.len()]))
    };
    match &step.node.op {
        Op::Unary(op) => match op {
            UnaryOp::Abs | UnaryOp::Sign | UnaryOp::Relu => all(&|x| x.abs() >= MARGIN),
            UnaryOp::Log | UnaryOp::Sqrt | UnaryOp::Rsqrt => all(&|x| x >= POLE),
            UnaryOp::Floor => all(&|x| from_integer(x) >= MARGIN),
            UnaryOp::Round => all(&|x| from_integer(x + 0.5) >= MARGIN),
            UnaryOp::Neg
            | UnaryOp::Exp
            | UnaryOp::Sin
            | UnaryOp::Cos
            | UnaryOp::Tanh
            | UnaryOp::Sigmoid
            | UnaryOp::Gelu
            | UnaryOp::GeluGrad
            | UnaryOp::Silu
            | UnaryOp::SiluGrad
            | UnaryOp::Square
            | UnaryOp::Not => true,
        },
        Op::Binary(op) => match op {
            BinaryOp::Div => both(&|_, y| y.abs() >= POLE),
            BinaryOp::Rem => both(&|x, y| y.abs() >= POLE && from_integer(x / y) >= MARGIN),
            BinaryOp::Pow => both(&|x, _| x >= POLE),
            BinaryOp::Max | BinaryOp::Min => both(&|x, y| (x - y).abs() >= MARGIN),
            BinaryOp::Add
            | BinaryOp::Sub
            | BinaryOp::Mul
            | BinaryOp::IntDiv
            | BinaryOp::And
            | BinaryOp::Or
            | BinaryOp::Xor
            | BinaryOp::Shl
            | BinaryOp::Shr => true,
        },
        Op::Compare(_) => both(&|x, y| (x - y).abs() >= MARGIN),
        Op::Cast => match module.funcs[step.func].ty(step.node.results[0]).dtype {
            DType::I32 => all(&|x| from_integer(x) >= MARGIN),
            DType::Bool => all(&|x| x.abs() >= MARGIN),
            DType::F32 | DType::BF16 | DType::F16 => true,
        },
        Op::Reduce { kind: ReduceKind::Max, axes } => groups(&a[0], axes).iter().all(|g| has_gap(g, 1.0)),
        Op::Reduce { kind: ReduceKind::Min, axes } => groups(&a[0], axes).iter().all(|g| has_gap(g, -1.0)),
        Op::Reduce { kind: ReduceKind::Norm, .. } => floats(&step.results[0]).iter().all(|&x| x >= POLE),
        Op::RmsNorm { eps } | Op::RmsNormGrad { eps } => {
            rows(&a[0]).all(|row| row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64 + eps.0 >= POLE)
        }
        Op::LayerNorm { eps } | Op::LayerNormGrad { eps } => rows(&a[0]).all(|row| {
            let mean = row.iter().sum::<f64>() / row.len() as f64;
            row.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / row.len() as f64 + eps.0 >= POLE
        }),
        // The window is the last operand, and rounded down.
        Op::Attention { mask, .. } | Op::AttentionGrad { mask, .. } => {
            !mask.window || a.last().is_none_or(|w| floats(w).iter().all(|&x| from_integer(x) >= MARGIN))
        }
        Op::Reduce { kind: ReduceKind::Sum | ReduceKind::Mean, .. }
        | Op::Const(_)
        | Op::Iota { .. }
        | Op::Random { .. }
        | Op::Select
        | Op::Broadcast { .. }
        | Op::Reshape
        | Op::Transpose { .. }
        | Op::Slice { .. }
        | Op::Pad { .. }
        | Op::Concat { .. }
        | Op::Shift { .. }
        | Op::Reverse { .. }
        | Op::Cumsum { .. }
        | Op::Softmax
        | Op::SoftmaxGrad
        | Op::Gather
        | Op::ScatterAdd
        | Op::Dot { .. }
        | Op::Rope { .. }
        | Op::CrossEntropy
        | Op::CrossEntropyGrad
        | Op::Call { .. } => true,
    }
}

fn rows(x: &Tensor) -> impl Iterator<Item = &[f64]> {
    floats(x).chunks(x.sizes().last().copied().unwrap_or(1).max(1))
}

/// The elements that fold into each result.
fn groups(x: &Tensor, axes: &[u8]) -> Vec<Vec<f64>> {
    let mut out = std::collections::BTreeMap::<Vec<usize>, Vec<f64>>::new();
    for (index, &value) in floats(x).iter().enumerate() {
        let mut rest = index;
        let mut place = vec![0; x.rank()];
        for axis in (0..x.rank()).rev() {
            place[axis] = if axes.contains(&(axis as u8)) { 0 } else { rest % x.sizes()[axis] };
            rest /= x.sizes()[axis];
        }
        out.entry(place).or_default().push(value);
    }
    out.into_values().collect()
}

/// Whether the largest (of the signed values) stands clear of the second.
fn has_gap(group: &[f64], sign: f64) -> bool {
    let mut sorted: Vec<f64> = group.iter().map(|x| sign * x).collect();
    sorted.sort_by(|a, b| b.total_cmp(a));
    sorted.len() < 2 || sorted[0] - sorted[1] >= MARGIN
}
