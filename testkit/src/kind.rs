//! Ops without their attributes: what a generator chooses from.

use mngc_compiler::ir::Op;

macro_rules! kinds {
    ($($kind:ident = $pattern:pat,)*) => {
        /// Which op, whatever its attributes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(missing_docs)]
        pub enum Kind { $($kind,)* }

        impl Kind {
            /// All of them, the simplest first.
            pub const ALL: &'static [Kind] = &[$(Kind::$kind,)*];

            /// That of an op. Exhaustive: an op that no generator makes does not compile.
            pub fn of(op: &Op) -> Kind {
                match op { $($pattern => Kind::$kind,)* }
            }
        }
    };
}

kinds! {
    Const = Op::Const(_),
    Unary = Op::Unary(_),
    Binary = Op::Binary(_),
    Compare = Op::Compare(_),
    Select = Op::Select,
    Cast = Op::Cast,
    Iota = Op::Iota { .. },
    Random = Op::Random { .. },
    Broadcast = Op::Broadcast { .. },
    Reshape = Op::Reshape,
    Transpose = Op::Transpose { .. },
    Slice = Op::Slice { .. },
    Pad = Op::Pad { .. },
    Concat = Op::Concat { .. },
    Shift = Op::Shift { .. },
    Reverse = Op::Reverse { .. },
    Reduce = Op::Reduce { .. },
    Cumsum = Op::Cumsum { .. },
    Softmax = Op::Softmax,
    SoftmaxGrad = Op::SoftmaxGrad,
    Gather = Op::Gather,
    ScatterAdd = Op::ScatterAdd,
    Dot = Op::Dot { .. },
    RmsNorm = Op::RmsNorm { .. },
    RmsNormGrad = Op::RmsNormGrad { .. },
    LayerNorm = Op::LayerNorm { .. },
    LayerNormGrad = Op::LayerNormGrad { .. },
    Rope = Op::Rope { .. },
    Attention = Op::Attention { .. },
    AttentionGrad = Op::AttentionGrad { .. },
    CrossEntropy = Op::CrossEntropy,
    CrossEntropyGrad = Op::CrossEntropyGrad,
    Call = Op::Call { .. },
}

impl Kind {
    /// Whether `op.rs` declares a gradient for it. The gradients of the others are of second order.
    pub fn is_differentiable(self) -> bool {
        !matches!(
            self,
            Kind::SoftmaxGrad | Kind::RmsNormGrad | Kind::LayerNormGrad | Kind::AttentionGrad | Kind::CrossEntropyGrad
        )
    }
}
