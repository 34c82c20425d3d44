//! The operations of the graph IR. Each is declared once: formula, axes, dtypes, gradient, behaviour along the token
//! axis, edge cases. Shape rules stand in `typing.rs`, gradients in `autodiff/rules.rs`, axis tracing in `axes.rs`.
//!
//! **Dtypes.** An op computes in f32 (the oracle: f64) and rounds once, to the dtype of its result. Operands of
//! elementwise ops may have different float dtypes; the result's dtype is part of the node.
//!
//! **Shapes.** Operands of an elementwise op have the axes of the result, or rank 0 (then they stand for every element).
//! "Leading axes" of an op are any number of axes before those named; all operands that have them must agree.

use std::fmt;
use std::hash::{Hash, Hasher};

use super::entities::Func;

/// An f64 attribute, compared and hashed by its bits.
#[derive(Clone, Copy)]
pub struct F64(pub f64);

impl PartialEq for F64 {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}
impl Eq for F64 {}
impl Hash for F64 {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state)
    }
}
impl fmt::Debug for F64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}
impl fmt::Display for F64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Defines a field-less enum with its names in the text form.
macro_rules! named_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$vmeta])* $variant,)* }
        impl $name {
            /// All of them, in the order of declaration.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];
            /// The name in the text form.
            pub fn name(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }
            /// The one of that name.
            pub fn from_name(name: &str) -> Option<$name> {
                match name { $($text => Some($name::$variant),)* _ => None }
            }
        }
    };
}

named_enum! {
    /// Elementwise functions of one operand, float → float unless said. Along T: pointwise.
    UnaryOp {
        /// −x (float or i32).
        Neg = "neg",
        /// |x| (float or i32); gradient sign(x), 0 at 0.
        Abs = "abs",
        /// −1, 0 or 1 (float or i32); gradient 0. NaN stays NaN.
        Sign = "sign",
        /// eˣ.
        Exp = "exp",
        /// ln x; −∞ at 0, NaN below.
        Log = "log",
        /// √x; NaN below 0; gradient ½/√x, infinite at 0.
        Sqrt = "sqrt",
        /// 1/√x; ∞ at 0.
        Rsqrt = "rsqrt",
        /// sin x, radians.
        Sin = "sin",
        /// cos x, radians.
        Cos = "cos",
        /// tanh x.
        Tanh = "tanh",
        /// 1/(1 + e⁻ˣ).
        Sigmoid = "sigmoid",
        /// max(x, 0); gradient 0 at 0. NaN stays NaN.
        Relu = "relu",
        /// ½x(1 + tanh(√(2/π)(x + 0.044715x³))), the tanh form of GELU (Hendrycks & Gimpel 2016).
        Gelu = "gelu",
        /// The derivative of [`UnaryOp::Gelu`]; itself without a gradient.
        GeluGrad = "gelu_grad",
        /// x·sigmoid(x).
        Silu = "silu",
        /// The derivative of [`UnaryOp::Silu`]; itself without a gradient.
        SiluGrad = "silu_grad",
        /// x².
        Square = "square",
        /// Largest integer ≤ x; gradient 0.
        Floor = "floor",
        /// Nearest integer, ties to even; gradient 0.
        Round = "round",
        /// Logical not (bool).
        Not = "not",
    }
}

named_enum! {
    /// Elementwise functions of two operands of one kind (both float, both i32, or both bool). Along T: pointwise.
    BinaryOp {
        /// a + b (float, i32).
        Add = "add",
        /// a − b (float, i32).
        Sub = "sub",
        /// a · b (float, i32).
        Mul = "mul",
        /// a / b; floats only. IEEE: 1/0 = ∞, 0/0 = NaN.
        Div = "div",
        /// Quotient rounded down (i32); 0 when b is 0. No gradient.
        IntDiv = "int_div",
        /// Remainder with the sign of b (float, i32); i32: 0 when b is 0. Gradient 1 for a, −⌊a/b⌋ for b.
        Rem = "rem",
        /// aᵇ; floats only. Gradient b·aᵇ⁻¹ for a; aᵇ·ln a for b, 0 where a ≤ 0.
        Pow = "pow",
        /// The larger (float, i32); the gradient goes to a where a ≥ b. NaN if either is.
        Max = "max",
        /// The smaller (float, i32); the gradient goes to a where a ≤ b. NaN if either is.
        Min = "min",
        /// Bitwise on i32, logical on bool.
        And = "and",
        /// Bitwise on i32, logical on bool.
        Or = "or",
        /// Bitwise on i32, logical on bool.
        Xor = "xor",
        /// a·2ᵇ, wrapping (i32, 0 ≤ b < 32, otherwise 0).
        Shl = "shl",
        /// ⌊a/2ᵇ⌋ (i32, arithmetic, 0 ≤ b < 32, otherwise the sign).
        Shr = "shr",
    }
}

named_enum! {
    /// Elementwise comparisons of two floats or two i32; the result is bool. Along T: pointwise. No gradient.
    CompareOp {
        /// a = b.
        Eq = "eq",
        /// a ≠ b.
        Ne = "ne",
        /// a < b.
        Lt = "lt",
        /// a ≤ b.
        Le = "le",
        /// a > b.
        Gt = "gt",
        /// a ≥ b.
        Ge = "ge",
    }
}

named_enum! {
    /// How [`Op::Reduce`] folds. An empty range gives the neutral element (0, −∞, ∞); the mean of nothing is NaN.
    ReduceKind {
        /// Σx (float, i32). Gradient: dy everywhere.
        Sum = "sum",
        /// Σx / n (float). Gradient: dy/n.
        Mean = "mean",
        /// Largest (float, i32). Gradient: dy to every element equal to the maximum, divided by their number.
        Max = "max",
        /// Smallest (float, i32). Gradient as for the largest.
        Min = "min",
        /// √Σx² (float). Gradient: dy·x/y, 0 where y = 0.
        Norm = "norm",
    }
}

/// How random numbers are distributed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Distribution {
    /// Normal with mean and standard deviation.
    Normal(F64, F64),
    /// Uniform on [low, high).
    Uniform(F64, F64),
}

/// Which keys a query of [`Op::Attention`] sees: those that pass every part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AttentionMask {
    /// Key position ≤ query position.
    pub causal: bool,
    /// Equal document numbers; adds an operand i32 [leading…, T].
    pub documents: bool,
    /// |query − key| < w; adds a rank-0 operand (i32 or float; a float is rounded down). It counts the query itself.
    pub window: bool,
}

/// What a [`Op::Call`] stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CallKind {
    /// A block of the model, or the gradient of one: inlined when fusion needs it.
    Block,
    /// A fused kernel; the function is the graph that it stands for.
    Fused(Fusion),
}

named_enum! {
    /// What is known of the graph that a fused kernel stands for: what its pass has proved, and a backend may rely on.
    /// A fused kernel may keep in f32 what its graph rounds, up to the rounding of its results.
    Fusion {
        /// Elementwise ops over one space of elements, with ops along rows of it and sums over it.
        Rows = "rows",
        /// One `dot`, the scaling of its operands by numbers, and elementwise ops on its result.
        Dot = "dot",
        /// As [`Fusion::Dot`]; the product is a symmetric matrix in exact arithmetic, so that half of it is enough.
        SymmetricDot = "symmetric_dot",
        /// Logits from a `dot`, elementwise ops on them, their cross-entropy and, where asked for, what its gradient is
        /// to the operands of that `dot`: a chunk of rows at a time, never all logits.
        Loss = "loss",
    }
}

impl CallKind {
    /// The name in the text form.
    pub fn name(self) -> &'static str {
        match self {
            CallKind::Block => "block",
            CallKind::Fused(fusion) => fusion.name(),
        }
    }

    /// The one of that name.
    pub fn from_name(name: &str) -> Option<CallKind> {
        if name == "block" { Some(CallKind::Block) } else { Fusion::from_name(name).map(CallKind::Fused) }
    }

    /// Whether it stands for a fused kernel.
    pub fn is_fused(self) -> bool {
        matches!(self, CallKind::Fused(_))
    }
}

/// An operation. Operands are named in the order in which they stand.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    // ── sources ──────────────────────────────────────────────────────────────────────────────────────────────────────
    /// A scalar constant of any dtype: `const {value = 0.5}`. Rounded to its dtype; beside bf16 tensors it is f32, so that a
    /// number of the file is not rounded to theirs.
    Const(F64),
    /// i32: the position along `axis`, for any shape.
    Iota {
        /// The axis that is counted.
        axis: u8,
    },
    /// Counter-based random numbers (Philox 4×32-10), a function of the run's seed, the step, `name` and the flat index.
    Random {
        /// Their distribution.
        distribution: Distribution,
        /// Key of the stream.
        name: String,
    },

    // ── elementwise ──────────────────────────────────────────────────────────────────────────────────────────────────
    /// `f(x)`.
    Unary(UnaryOp),
    /// `f(a, b)`.
    Binary(BinaryOp),
    /// `a ? b`.
    Compare(CompareOp),
    /// `condition (bool), a, b`: a where true, else b; a and b of one kind. Gradient: dy masked.
    Select,
    /// To the dtype of the result. Float → i32 truncates and saturates (NaN gives 0), float → bool is x ≠ 0,
    /// f32 → bf16/f16 rounds to nearest even. Gradient between floats: the cotangent, cast.
    Cast,

    // ── layout: values are moved, never changed ──────────────────────────────────────────────────────────────────────
    /// Operand axis i becomes result axis `axes[i]` (strictly increasing); other result axes repeat. Gradient: sum.
    Broadcast {
        /// Result axis of each operand axis.
        axes: Vec<u8>,
    },
    /// Same elements in row-major order under other axes. A Token or Sequence axis stays an axis of its own and keeps
    /// the number of elements before it. Gradient: reshape back.
    Reshape,
    /// Result axis i is operand axis `perm[i]`. Gradient: the inverse.
    Transpose {
        /// Operand axis of each result axis.
        perm: Vec<u8>,
    },
    /// `start..start + n` along `axis`, n from the result. Gradient: pad with zeros.
    Slice {
        /// The axis that is cut; not a Token axis.
        axis: u8,
        /// First position taken.
        start: usize,
    },
    /// Zeros along `axis`: `before` of them, the operand, then the rest of the result. Gradient: slice.
    Pad {
        /// The axis that grows; not a Token axis.
        axis: u8,
        /// Zeros before the operand.
        before: usize,
    },
    /// Operands one after another along `axis`. Gradient: slices.
    Concat {
        /// The axis that is joined; not a Token axis.
        axis: u8,
    },
    /// y\[t\] = x\[t − by\] along `axis`, 0 where t − by is outside. Value semantics; ignores documents.
    /// Along T: by ≥ 0 looks back, by < 0 looks ahead. Gradient: shift by −by.
    Shift {
        /// The axis that is moved along.
        axis: u8,
        /// How far, towards higher positions.
        by: i64,
    },
    /// y\[i\] = x\[n − 1 − i\] along `axis`. Along T: everything depends on everything. Gradient: itself.
    Reverse {
        /// The axis that is turned round.
        axis: u8,
    },

    // ── along axes ───────────────────────────────────────────────────────────────────────────────────────────────────
    /// Folds `axes` (increasing) away, in f32. Along T: a folded T axis depends on all of it.
    Reduce {
        /// How.
        kind: ReduceKind,
        /// The axes that vanish.
        axes: Vec<u8>,
    },
    /// Inclusive running sum along `axis` (float, i32). Along T: prefix (`reverse`: suffix). Gradient: the other way.
    Cumsum {
        /// The axis that is summed along.
        axis: u8,
        /// From the last position to the first.
        reverse: bool,
    },
    /// Softmax over the last axis, shifted by its maximum. A row of −∞ only gives zeros.
    Softmax,
    /// `y, dy`: y·(dy − Σ y·dy) over the last axis.
    SoftmaxGrad,

    // ── indexing ─────────────────────────────────────────────────────────────────────────────────────────────────────
    /// `table [V, rest…], index i32 [any…]` → `[any…, rest…]`: rows of the table. An index outside 0..V gives zeros.
    /// Gradient for the table: [`Op::ScatterAdd`].
    Gather,
    /// `index i32 [any…], rows [any…, rest…]` → `[V, rest…]`: sums the rows of equal index, in f32; skips indices outside 0..V.
    /// Gradient for the rows: gather.
    ScatterAdd,

    // ── contraction ──────────────────────────────────────────────────────────────────────────────────────────────────
    /// Sum of products over the `contract` axes, accumulated in f32; `batch` axes are walked together. Result: the batch
    /// axes, then the free axes of a, then those of b. Operands of one dtype after cast placement. Gradient: two dots.
    /// Along T: a contracted T axis depends on all of it.
    Dot {
        /// Pairs (axis of a, axis of b) walked together.
        batch: Vec<(u8, u8)>,
        /// Pairs (axis of a, axis of b) summed over.
        contract: Vec<(u8, u8)>,
    },

    // ── of models ────────────────────────────────────────────────────────────────────────────────────────────────────
    /// x / √(mean x² + eps) over the last axis (Zhang & Sennrich 2019, without gain). A zero row stays zero if eps > 0.
    RmsNorm {
        /// Added to the mean square.
        eps: F64,
    },
    /// `x, dy` → dx: with r = 1/√(mean x² + eps), r·dy − x·r³·mean(x·dy).
    RmsNormGrad {
        /// As in the forward op.
        eps: F64,
    },
    /// (x − mean) / √(variance + eps) over the last axis, the variance being biased (Ba et al. 2016, without gain and bias).
    LayerNorm {
        /// Added to the variance.
        eps: F64,
    },
    /// `x, dy` → dx: with r = 1/√(variance + eps) and n the forward result, r·(dy − mean dy − n·mean(n·dy)).
    LayerNormGrad {
        /// As in the forward op.
        eps: F64,
    },
    /// `x [leading…, T, heads…, D], position i32 [T]`: rotary embedding, split halves (Su et al. 2021). With angle
    /// θ = position·base^(−2i/D) for i < D/2: y1 = x1·cos θ + x2·sin θ, y2 = x2·cos θ − x1·sin θ. D is even.
    /// `inverse` turns by −θ and is the gradient. Along T: pointwise.
    Rope {
        /// Base of the wavelengths.
        base: F64,
        /// The axis of x that `position` runs along.
        axis: u8,
        /// Turn the other way.
        inverse: bool,
    },
    /// `q [leading…, T, H, D], k, v [leading…, T, G, D]`, then `documents` and `window` as the mask asks; G divides H, and
    /// query head h reads key head ⌊h·G/H⌋.
    /// Results: softmax(q·kᵀ·scale over the visible keys)·v in the dtype of the result, and the log-sum-exp of the
    /// scaled scores, f32 [leading…, T, H]. A query that sees nothing gives zeros and −∞.
    /// Along T: a causal mask makes it a prefix, otherwise everything depends on everything.
    Attention {
        /// Which keys are visible.
        mask: AttentionMask,
        /// Multiplies the scores.
        scale: F64,
    },
    /// `q, k, v, o, lse, do`, then `documents` and `window` → `dq, dk, dv`.
    AttentionGrad {
        /// As in the forward op.
        mask: AttentionMask,
        /// As in the forward op.
        scale: F64,
    },
    /// `logits [leading…, V], target i32 [leading…]` → f32 [leading…]: logsumexp(logits) − logits\[target\].
    /// A target outside 0..V is ignored: loss 0, no gradient. Along T: pointwise.
    CrossEntropy,
    /// `logits, target, dy f32 [leading…]` → (softmax(logits) − onehot(target))·dy, in the dtype of the result.
    CrossEntropyGrad,

    // ── structure ────────────────────────────────────────────────────────────────────────────────────────────────────
    /// Runs a function of the module on the operands. The function may carry its own gradient.
    Call {
        /// What runs.
        func: Func,
        /// What the call stands for.
        kind: CallKind,
    },
}

impl Op {
    /// The name in the text form.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Const(_) => "const",
            Op::Iota { .. } => "iota",
            Op::Random { .. } => "random",
            Op::Unary(op) => op.name(),
            Op::Binary(op) => op.name(),
            Op::Compare(op) => op.name(),
            Op::Select => "select",
            Op::Cast => "cast",
            Op::Broadcast { .. } => "broadcast",
            Op::Reshape => "reshape",
            Op::Transpose { .. } => "transpose",
            Op::Slice { .. } => "slice",
            Op::Pad { .. } => "pad",
            Op::Concat { .. } => "concat",
            Op::Shift { .. } => "shift",
            Op::Reverse { .. } => "reverse",
            Op::Reduce { .. } => "reduce",
            Op::Cumsum { .. } => "cumsum",
            Op::Softmax => "softmax",
            Op::SoftmaxGrad => "softmax_grad",
            Op::Gather => "gather",
            Op::ScatterAdd => "scatter_add",
            Op::Dot { .. } => "dot",
            Op::RmsNorm { .. } => "rms_norm",
            Op::RmsNormGrad { .. } => "rms_norm_grad",
            Op::LayerNorm { .. } => "layer_norm",
            Op::LayerNormGrad { .. } => "layer_norm_grad",
            Op::Rope { .. } => "rope",
            Op::Attention { .. } => "attention",
            Op::AttentionGrad { .. } => "attention_grad",
            Op::CrossEntropy => "cross_entropy",
            Op::CrossEntropyGrad => "cross_entropy_grad",
            Op::Call { .. } => "call",
        }
    }

    /// Whether each result element is a function of the operand elements of the same place.
    pub fn is_elementwise(&self) -> bool {
        matches!(self, Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select | Op::Cast)
    }

    /// Whether it only moves values or makes them from nothing: cheaper to repeat than to keep.
    pub fn is_free(&self) -> bool {
        matches!(
            self,
            Op::Const(_)
                | Op::Iota { .. }
                | Op::Broadcast { .. }
                | Op::Reshape
                | Op::Transpose { .. }
                | Op::Slice { .. }
                | Op::Pad { .. }
        )
    }
}
