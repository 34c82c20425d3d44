//! What a kernel relies on: checked once, when the backend is made, so that running has no errors.

use mngc_compiler::ir::{BinaryOp, DType, ReduceKind, UnaryOp};
use mngc_compiler::schedule::kernel::{HANDED_ON, LOGITS_GRADIENT, PRODUCT, Strides};
use mngc_compiler::schedule::rows::{Access, Instr, Kind, Reg, RowProgram, Src};

use super::memory::Region;

/// Fails with a message unless something holds.
pub fn ensure(holds: bool, message: impl Fn() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(message()) }
}

/// Elements of an operand that an access to `elements` of a space reaches.
fn reach(access: Access, elements: usize) -> Option<usize> {
    Some(match access {
        Access::Full => elements,
        Access::Row { len: 0 } | Access::Cycle { period: 0 } => return None,
        Access::Middle { inner, period } if inner == 0 || period == 0 => return None,
        Access::Row { len } => elements.div_ceil(len),
        Access::Cycle { period } => period.min(elements),
        Access::Middle { inner, period } => elements.div_ceil(inner).min(period),
        Access::Scalar => elements.min(1),
    })
}

/// Checks a row program against its operands and results: registers, kinds, rows, and that no access leaves its tensor.
pub fn rows(p: &RowProgram, args: &[Region], results: &[Region]) -> Result<(), String> {
    ensure(p.tile > 0 && p.elements.is_multiple_of(p.tile), || "tiles do not divide the space".into())?;
    p.instrs.iter().try_for_each(|instr| {
        let checker = Checker { p, args, results };
        checker.instr(instr).map_err(|fault| format!("{instr:?}: {fault}"))
    })
}

struct Checker<'a> {
    p: &'a RowProgram,
    args: &'a [Region],
    results: &'a [Region],
}

impl Checker<'_> {
    fn reg(&self, reg: Reg, kind: Kind) -> Result<(), String> {
        ensure(self.p.regs.get(reg) == Some(&kind), || format!("register {reg} is not of {kind:?}"))
    }

    fn src(&self, src: Src, kind: Kind) -> Result<(), String> {
        match src {
            Src::Reg(reg) => self.reg(reg, kind),
            Src::Const(_) => Ok(()),
        }
    }

    fn dst(&self, dst: Reg, sources: &[Src]) -> Result<Kind, String> {
        ensure(!sources.contains(&Src::Reg(dst)), || "the result is a source".into())?;
        self.p.regs.get(dst).copied().ok_or_else(|| format!("there is no register {dst}"))
    }

    fn row(&self, len: usize) -> Result<(), String> {
        ensure(len > 0 && self.p.tile.is_multiple_of(len), || format!("rows of {len} do not divide a tile"))
    }

    fn operand(&self, dst: Kind, operand: usize, access: Access) -> Result<(), String> {
        if operand == PRODUCT || operand == LOGITS_GRADIENT {
            let in_order = access == Access::Full || (access == Access::Scalar && self.p.elements == 1);
            return ensure(dst == Kind::F32 && in_order, || "a product stands as it is".into());
        }
        let region = self.args.get(operand).ok_or("there is no such operand")?;
        let kind = if region.dtype().is_float() { Kind::F32 } else { Kind::I32 };
        ensure(kind == dst, || "a register of another kind".into())?;
        let reach = reach(access, self.p.elements);
        ensure(reach.is_some_and(|reach| reach <= region.len()), || format!("leaves its {} elements", region.len()))
    }

    fn result(&self, result: usize, a: Src, reach: Option<usize>) -> Result<(), String> {
        if result == HANDED_ON {
            return self.src(a, Kind::F32);
        }
        let region = self.results.get(result).ok_or("there is no such result")?;
        self.src(a, if region.dtype().is_float() { Kind::F32 } else { Kind::I32 })?;
        ensure(reach == Some(region.len()), || format!("does not fill its {} elements", region.len()))
    }

    fn instr(&self, instr: &Instr) -> Result<(), String> {
        match *instr {
            Instr::Load { dst, operand, access } => self.operand(self.dst(dst, &[])?, operand, access),
            Instr::Iota { dst, inner, period } => {
                ensure(inner > 0 && period > 0, || "no positions".into())?;
                self.reg(dst, Kind::I32)
            }
            Instr::Unary { op, dst, a } => {
                let kind = self.dst(dst, &[a])?;
                let ints = matches!(op, UnaryOp::Neg | UnaryOp::Abs | UnaryOp::Sign | UnaryOp::Not);
                ensure(kind == Kind::F32 || ints, || "a function of floats".into())?;
                self.src(a, kind)
            }
            Instr::Binary { op, dst, a, b } => {
                let kind = self.dst(dst, &[a, b])?;
                let of_floats = matches!(op, BinaryOp::Div | BinaryOp::Pow);
                let of_ints = matches!(
                    op,
                    BinaryOp::IntDiv | BinaryOp::And | BinaryOp::Or | BinaryOp::Xor | BinaryOp::Shl | BinaryOp::Shr
                );
                let fits = if kind == Kind::F32 { !of_ints } else { !of_floats };
                ensure(fits, || "a function of the other kind".into())?;
                self.src(a, kind)?;
                self.src(b, kind)
            }
            Instr::Compare { kind, dst, a, b, .. } => {
                self.dst(dst, &[a, b])?;
                self.reg(dst, Kind::I32)?;
                self.src(a, kind)?;
                self.src(b, kind)
            }
            Instr::Select { dst, c, a, b } => {
                let kind = self.dst(dst, &[c, a, b])?;
                self.src(c, Kind::I32)?;
                self.src(a, kind)?;
                self.src(b, kind)
            }
            Instr::Cast { dst, a, from, to } => {
                let kind = |dtype: DType| if dtype.is_float() { Kind::F32 } else { Kind::I32 };
                self.dst(dst, &[a])?;
                self.reg(dst, kind(to))?;
                self.src(a, kind(from))
            }
            Instr::RowReduce { kind, dst, a, len } => {
                let of = self.dst(dst, &[Src::Reg(a)])?;
                let floats = matches!(kind, ReduceKind::Mean | ReduceKind::Norm);
                ensure(of == Kind::F32 || !floats, || "a fold of floats".into())?;
                self.reg(a, of)?;
                self.row(len)
            }
            Instr::Softmax { dst, a, len }
            | Instr::RmsNorm { dst, a, len, .. }
            | Instr::LayerNorm { dst, a, len, .. } => self.float_row(dst, &[a], len),
            Instr::SoftmaxGrad { dst, y: a, dy: b, len }
            | Instr::RmsNormGrad { dst, x: a, dy: b, len, .. }
            | Instr::LayerNormGrad { dst, x: a, dy: b, len, .. } => self.float_row(dst, &[a, b], len),
            Instr::Rope { dst, a, position, len, .. } => {
                ensure(len.is_multiple_of(2) && dst != position, || "halves of one length".into())?;
                self.reg(position, Kind::I32)?;
                self.float_row(dst, &[a], len)
            }
            Instr::Store { result, a, access } => {
                if let Access::Row { len } = access {
                    self.row(len)?;
                }
                let stores = matches!(access, Access::Full | Access::Row { .. } | Access::Scalar);
                ensure(stores && (result != HANDED_ON || access == Access::Full), || "no way to store".into())?;
                self.result(result, a, reach(access, self.p.elements))
            }
            Instr::Total { result, a, .. } => {
                ensure(result != HANDED_ON, || "a fold is not handed on".into())?;
                self.result(result, a, Some(1))
            }
            Instr::Columns { result, a, period } => {
                ensure(period > 0 && result != HANDED_ON, || "no columns".into())?;
                self.src(a, Kind::F32)?;
                self.result(result, a, Some(period))
            }
        }
    }

    fn float_row(&self, dst: Reg, sources: &[Reg], len: usize) -> Result<(), String> {
        self.reg(dst, Kind::F32)?;
        for &source in sources {
            ensure(source != dst, || "the result is a source".into())?;
            self.reg(source, Kind::F32)?;
        }
        self.row(len)
    }
}

/// Checks that an operand of a product, `[batch, free, inner]` as strides say, lies within its tensor.
pub fn matrix(what: &str, s: Strides, [batch, free, inner]: [usize; 3], region: &Region) -> Result<(), String> {
    ensure(region.dtype().is_float(), || format!("{what} holds no floats"))?;
    if batch == 0 || free == 0 || inner == 0 {
        return Ok(());
    }
    let last = (batch - 1) * s.batch + (free - 1) * s.row + (inner - 1) * s.inner;
    ensure(last < region.len(), || format!("{what} leaves its {} elements", region.len()))
}
