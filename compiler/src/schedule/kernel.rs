//! What a launch runs, as a backend needs to know it.

use super::rows::RowProgram;
use crate::ir::Op;

/// What a launch runs.
#[derive(Clone, Debug, PartialEq)]
pub enum Kernel {
    /// A fused cluster.
    Rows(RowProgram),
    /// A matrix product.
    Dot(DotKernel),
    /// Head, cross-entropy and their gradients by chunks of rows.
    Loss(LossKernel),
    /// A single op on whole tensors, as the types of its operands and results say.
    Op(Op),
    /// result = operand, bytes as they are.
    Copy,
}

impl Kernel {
    /// The kind of kernel, for people.
    pub fn name(&self) -> &'static str {
        match self {
            Kernel::Rows(_) => "rows",
            Kernel::Dot(DotKernel { symmetric: false, .. }) => "dot",
            Kernel::Dot(DotKernel { symmetric: true, .. }) => "symmetric_dot",
            Kernel::Loss(_) => "loss",
            Kernel::Op(op) => op.name(),
            Kernel::Copy => "copy",
        }
    }
}

/// How an operand of a product lies in memory, in elements: element (b, i, k) at b·batch + i·row + k·inner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strides {
    /// Between matrices.
    pub batch: usize,
    /// Between positions of the free axis.
    pub row: usize,
    /// Between positions of the contracted axis.
    pub inner: usize,
}

/// `scale · Σₖ a[b, i, k] · bᵀ[b, j, k]`, then an epilogue. The first two operands of the launch are a and b. The product
/// is row-major `[batch, m, n]` in f32.
#[derive(Clone, Debug, PartialEq)]
pub struct DotKernel {
    /// Products.
    pub batch: usize,
    /// Rows of the result.
    pub m: usize,
    /// Columns of the result.
    pub n: usize,
    /// Length of the sums.
    pub k: usize,
    /// How the first operand lies.
    pub a: Strides,
    /// How the second operand lies; `row` counts columns of the result.
    pub b: Strides,
    /// Multiplies the product.
    pub scale: f64,
    /// m = n, and the product equals its transpose in exact arithmetic.
    pub symmetric: bool,
    /// What becomes of the product.
    pub epilogue: Epilogue,
}

/// What becomes of a product before it is stored.
#[derive(Clone, Debug, PartialEq)]
pub enum Epilogue {
    /// Rounded and stored as the only result.
    Store,
    /// Added to the f32 operand of that position and stored as the only, f32, result, which may lie in that operand's place.
    Accumulate(usize),
    /// An elementwise program over the product's elements; the product is its operand number [`PRODUCT`].
    Rows(RowProgram),
}

/// The operand number that stands for the product in an epilogue, and for the logits' product in a loss.
pub const PRODUCT: usize = usize::MAX;

/// The operand number that stands for the gradient of the logits in a loss.
pub const LOGITS_GRADIENT: usize = usize::MAX - 1;

/// The result number that stands for what a program hands to the next part of a loss.
pub const HANDED_ON: usize = usize::MAX;

/// Of operands x `[rows, k]`, w `[n, k]` (as `strides` say) and i32 targets `[rows]`: z = x·wᵀ, logits = `logits`(z),
/// loss = logsumexp(logits) − logits\[target\] for each row (0 where the target is outside 0..n); and with `gradient`:
/// dlogits = (softmax(logits) − onehot(target))·dy, 0 where the target is outside; dz = `gradient`(z, dlogits);
/// dx = dz·w, dw = Σ over rows of dzᵀ·x, added to `accumulate` if there is one.
///
/// Programs are elementwise over `[rows, n]` and made for all rows; a backend runs ranges of them.
#[derive(Clone, Debug, PartialEq)]
pub struct LossKernel {
    /// Rows: tokens.
    pub rows: usize,
    /// Classes.
    pub n: usize,
    /// Features.
    pub k: usize,
    /// How w lies (operand 1): `row` between classes, `inner` between features. x (operand 0) is row-major, targets
    /// are operand 2.
    pub w: Strides,
    /// From [`PRODUCT`] to [`HANDED_ON`]: the logits.
    pub logits: RowProgram,
    /// The gradient, where it is asked for.
    pub gradient: Option<LossGradient>,
    /// Which result of the launch the losses are, f32 `[rows]`.
    pub loss: usize,
}

/// The backward half of a [`LossKernel`].
#[derive(Clone, Debug, PartialEq)]
pub struct LossGradient {
    /// The operand dy: f32 `[rows]`, or one number.
    pub dy: usize,
    /// From [`PRODUCT`] and [`LOGITS_GRADIENT`] to [`HANDED_ON`]: the gradient of the product.
    pub program: RowProgram,
    /// Which result dx is, `[rows, k]`; none where nothing asks for it.
    pub dx: Option<usize>,
    /// Which result dw is, row-major `[n, k]`, f32 or rounded; none where nothing asks for it.
    pub dw: Option<usize>,
    /// The f32 operand that dw is added to; dw may lie in its place.
    pub accumulate: Option<usize>,
}
