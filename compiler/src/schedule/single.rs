//! Ops that are row programs of one instruction: for backends that are handed the op.

use super::cluster::kind;
use super::rows::{Access, Instr, Kind, RowProgram, Src};
use crate::ir::{DType, Op};

/// The program of an op on operands of these dtypes and numbers of elements, whose one result has that dtype and those
/// sizes; none where it is of another kind. A constant is none: it is an operand wherever it is used.
pub fn program(op: &Op, args: &[(DType, usize)], result: DType, sizes: &[usize]) -> Option<RowProgram> {
    let elements = sizes.iter().product();
    let len = sizes.last().copied().unwrap_or(1);
    let mut regs: Vec<Kind> = args.iter().map(|arg| kind(arg.0)).collect();
    let dst = regs.len();
    regs.push(kind(result));
    let src = Src::Reg;
    let instr = match op {
        Op::Iota { axis } => {
            let inner = sizes[*axis as usize + 1..].iter().product::<usize>().max(1);
            Instr::Iota { dst, inner, period: sizes[*axis as usize].max(1) }
        }
        Op::Unary(op) => Instr::Unary { op: *op, dst, a: src(0) },
        Op::Binary(op) => Instr::Binary { op: *op, dst, a: src(0), b: src(1) },
        Op::Compare(op) => Instr::Compare { op: *op, kind: regs[0], dst, a: src(0), b: src(1) },
        Op::Select => Instr::Select { dst, c: src(0), a: src(1), b: src(2) },
        Op::Cast => Instr::Cast { dst, a: src(0), from: args.first()?.0, to: result },
        Op::Softmax => Instr::Softmax { dst, a: 0, len },
        Op::SoftmaxGrad => Instr::SoftmaxGrad { dst, y: 0, dy: 1, len },
        Op::RmsNorm { eps } => Instr::RmsNorm { dst, a: 0, len, eps: eps.0 },
        Op::RmsNormGrad { eps } => Instr::RmsNormGrad { dst, x: 0, dy: 1, len, eps: eps.0 },
        Op::LayerNorm { eps } => Instr::LayerNorm { dst, a: 0, len, eps: eps.0 },
        Op::LayerNormGrad { eps } => Instr::LayerNormGrad { dst, x: 0, dy: 1, len, eps: eps.0 },
        Op::Rope { base, inverse, .. } => Instr::Rope { dst, a: 0, position: 1, len, base: base.0, inverse: *inverse },
        _ => return None,
    };
    let tile = match instr {
        Instr::Iota { .. } | Instr::Unary { .. } | Instr::Binary { .. } | Instr::Compare { .. } => 1,
        Instr::Select { .. } | Instr::Cast { .. } => 1,
        _ => len.max(1),
    };
    let mut instrs = Vec::new();
    for (dst, arg) in args.iter().enumerate() {
        let access = match op {
            Op::Rope { axis, .. } if dst == 1 => {
                let inner = sizes[*axis as usize + 1..].iter().product::<usize>().max(1);
                Access::Middle { inner, period: sizes[*axis as usize].max(1) }
            }
            _ if arg.1 == 1 && elements != 1 => Access::Scalar,
            _ => Access::Full,
        };
        instrs.push(Instr::Load { dst, operand: dst, access });
    }
    instrs.push(instr);
    instrs.push(Instr::Store { result: 0, a: src(dst), access: Access::Full });
    Some(RowProgram { elements, tile, regs, instrs })
}
