//! Row programs: what a fused cluster of elementwise ops does to the elements of its space, a tile at a time.
//!
//! A space has N elements in row-major order, whatever axes they belong to. A program is a list of instructions on vector
//! registers, each as long as a tile; a backend runs the whole list on one tile after another (on the CPU: from cache), or
//! writes it out as the body of a kernel. A value with fewer elements than the space stands repeated in its register: a
//! row's mean once for each element of the row. So instructions need no broadcasts, and layout is the business of loads
//! and stores alone.
//!
//! A tile is a multiple of [`RowProgram::tile`] elements, which every row length of the program divides; the last one may
//! not be shorter, as N is a multiple of it too.
//!
//! Registers are f32 or i32; bool is 0 or 1 in i32. Float instructions compute in f32, stores round once.

use crate::ir::{BinaryOp, CompareOp, DType, F64, ReduceKind, UnaryOp};

/// A vector register, by position.
pub type Reg = usize;

/// What a register holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Floats of any dtype.
    F32,
    /// i32, or bool as 0 and 1.
    I32,
}

/// Where element i of the space stands in an operand or result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// At i.
    Full,
    /// At ⌊i / len⌋: one for each row of `len`.
    Row {
        /// Elements of a row.
        len: usize,
    },
    /// At i mod period: the same for each row.
    Cycle {
        /// Elements of a row.
        period: usize,
    },
    /// At ⌊i / inner⌋ mod period: along an axis in the middle.
    Middle {
        /// Elements behind one position of the axis.
        inner: usize,
        /// Positions of the axis.
        period: usize,
    },
    /// At 0: a number.
    Scalar,
}

/// An operand of an instruction: a register, or a number that is the same for every element.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Src {
    /// A register.
    Reg(Reg),
    /// A constant, already rounded to its dtype; exact for i32.
    Const(F64),
}

/// One instruction. `dst` is never one of the sources. A float source of an f32 register may be a constant of any dtype.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the fields are the letters of each formula; `len` is the number of elements of a row")]
pub enum Instr {
    /// dst\[i\] = operand\[access(i)\], converted to the register's kind without loss.
    Load { dst: Reg, operand: usize, access: Access },
    /// dst\[i\] = ⌊i / inner⌋ mod period, i from the beginning of the space.
    Iota { dst: Reg, inner: usize, period: usize },
    /// Elementwise, as in [`crate::ir::Op`]; the kind is that of `dst`.
    Unary { op: UnaryOp, dst: Reg, a: Src },
    /// Elementwise; the kind is that of `dst`.
    Binary { op: BinaryOp, dst: Reg, a: Src, b: Src },
    /// 0 or 1; `kind` is that of the operands.
    Compare { op: CompareOp, kind: Kind, dst: Reg, a: Src, b: Src },
    /// a where c ≠ 0, else b.
    Select { dst: Reg, c: Src, a: Src, b: Src },
    /// To another dtype: float → i32 truncates and saturates, float → bool is x ≠ 0, to a narrower float rounds to nearest even.
    Cast { dst: Reg, a: Src, from: DType, to: DType },
    /// Folds each row of `len`; the result repeated over the row.
    RowReduce { kind: ReduceKind, dst: Reg, a: Reg, len: usize },
    /// Softmax of each row.
    Softmax { dst: Reg, a: Reg, len: usize },
    /// y·(dy − Σ y·dy) in each row.
    SoftmaxGrad { dst: Reg, y: Reg, dy: Reg, len: usize },
    /// Root-mean-square norm of each row.
    RmsNorm { dst: Reg, a: Reg, len: usize, eps: f64 },
    /// Its gradient.
    RmsNormGrad { dst: Reg, x: Reg, dy: Reg, len: usize, eps: f64 },
    /// Layer norm of each row.
    LayerNorm { dst: Reg, a: Reg, len: usize, eps: f64 },
    /// Its gradient.
    LayerNormGrad { dst: Reg, x: Reg, dy: Reg, len: usize, eps: f64 },
    /// Rotary embedding of each row of `len` (even), split halves; `position` is an i32 register, the same along a row.
    Rope { dst: Reg, a: Reg, position: Reg, len: usize, base: f64, inverse: bool },
    /// result\[access(i)\] = a, rounded to the result's dtype. `Full`; `Row`, which takes the first of each row; or `Scalar`,
    /// which takes the first element of the space.
    Store { result: usize, a: Src, access: Access },
    /// Folds all elements of the space into a result of one element.
    Total { result: usize, kind: ReduceKind, a: Src },
    /// result\[j\] = Σ over all i ≡ j (mod period) of a\[i\]: a sum over leading axes, in f32.
    Columns { result: usize, a: Src, period: usize },
}

/// A fused cluster as instructions.
#[derive(Clone, Debug, PartialEq)]
pub struct RowProgram {
    /// Elements of the space.
    pub elements: usize,
    /// A tile is a multiple of so many elements.
    pub tile: usize,
    /// What each register holds.
    pub regs: Vec<Kind>,
    /// Instructions in order: all loads of an element come before any store that may take an operand's place.
    pub instrs: Vec<Instr>,
}

impl RowProgram {
    /// Whether it is elementwise: any range of elements may be run on its own.
    pub fn is_elementwise(&self) -> bool {
        self.tile == 1 && !self.instrs.iter().any(|i| matches!(i, Instr::Total { .. } | Instr::Columns { .. }))
    }
}
