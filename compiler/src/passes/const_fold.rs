//! Elementwise operations on constants become constants; so do those on constants repeated over a shape.
//!
//! ```text
//! before                                      after
//! v0: f32[] = const {value = 2.0}             v0: f32[] = const {value = 8.0}
//! v1: f32[] = const {value = 4.0}
//! v2: f32[] = mul v0, v1
//! ```
//!
//! **When.** Constants are f64 and the oracle may or may not round them to their dtype, so an operand takes part only if it
//! is a value of its dtype (0.5 is one of f32, 0.1 is not): then both modes compute the same number, and both would treat it
//! as they treat the constant that stands for it now. The result is not rounded here. One cast goes further: a constant
//! goes from f32 to bf16 whenever rounding it twice gives what rounding it once gives. Constants of integers and truth
//! values are brought to one form first.
//!
//! **Which.** Functions that IEEE 754 rounds correctly, and those of integers and truth values. Others (`exp`, `pow`, …)
//! stay: no two libraries agree on their last bit.

use super::rewrite::{Peephole, Rule, peephole};
use crate::ir::{BinaryOp, DType, F64, Module, Op, Type, UnaryOp, Value, host};

/// The rules, for those that run them along with others.
pub const RULES: &[Rule] = &[canonical, elementwise];

/// Runs the pass.
pub fn run(m: &mut Module) -> Result<usize, String> {
    Ok(peephole(m, RULES))
}

/// A constant of an integer or of a truth value is written as the value that it has: −0 as 0, 1.5 as 1, true as 1.
fn canonical(p: &mut Peephole, op: &Op, _: &[Value], ty: &Type) -> Option<Value> {
    let &Op::Const(F64(x)) = op else { return None };
    let value = match ty.dtype {
        DType::F32 | DType::BF16 | DType::F16 => x,
        DType::I32 => f64::from(x as i32),
        DType::Bool => f64::from(u8::from(x != 0.0)),
    };
    (value.to_bits() != x.to_bits()).then(|| p.make(Op::Const(F64(value)), Vec::new(), ty.clone()))
}

fn elementwise(p: &mut Peephole, op: &Op, args: &[Value], ty: &Type) -> Option<Value> {
    if !op.is_elementwise() {
        return None;
    }
    let operands: Vec<(f64, DType)> = args.iter().map(|&v| constant(p, v)).collect::<Option<_>>()?;
    let value = match (op, operands.as_slice()) {
        (Op::Cast, &[x]) => cast(x, ty.dtype)?,
        (_, _) => {
            let exact: Vec<(f64, DType)> =
                operands.iter().map(|&x| Some((value_of(x)?, x.1))).collect::<Option<_>>()?;
            apply(op, &exact)?
        }
    };
    let scalar = p.make(Op::Const(F64(value)), Vec::new(), Type::scalar(ty.dtype));
    Some(p.splat(scalar, ty))
}

/// A constant, or one repeated over a shape.
fn constant(p: &Peephole, value: Value) -> Option<(f64, DType)> {
    let scalar = p.splat_of(value).unwrap_or(value);
    Some((p.new.constant(scalar)?, p.ty(value).dtype))
}

/// The number itself, if it is a value of its dtype.
fn value_of((x, dtype): (f64, DType)) -> Option<f64> {
    let is = match dtype {
        DType::F32 => x.is_nan() || x as f32 as f64 == x,
        DType::BF16 => x.is_nan() || (x as f32 as f64 == x && (x as f32).to_bits() & 0xffff == 0),
        DType::F16 => x.is_nan() || is_f16(x),
        DType::I32 | DType::Bool => true,
    };
    is.then_some(x)
}

/// Multiples of 2⁻²⁴ with 11 significant bits, under 2¹⁶.
fn is_f16(x: f64) -> bool {
    let significant_bits_fit = x.to_bits() & ((1 << 42) - 1) == 0;
    let multiple = x * f64::from(1 << 24);
    x.is_infinite() || (significant_bits_fit && multiple.fract() == 0.0 && x.abs() < 65536.0)
}

fn cast((x, from): (f64, DType), to: DType) -> Option<f64> {
    if let Some(x) = value_of((x, from)) {
        return Some(match to {
            DType::F32 | DType::BF16 | DType::F16 => x,
            DType::I32 => f64::from(x as i32),
            DType::Bool => f64::from(u8::from(x != 0.0)),
        });
    }
    // Rounding to f32 first matters only where that lands in the middle of two bf16 values.
    let middle = (x as f32).to_bits() & 0xffff == 0x8000;
    (from == DType::F32 && to == DType::BF16 && !middle).then_some(x)
}

fn apply(op: &Op, args: &[(f64, DType)]) -> Option<f64> {
    let truth = |x: bool| f64::from(u8::from(x));
    match (op, args) {
        (Op::Unary(f), &[(x, dtype)]) if dtype.is_float() => unary(*f, x),
        (Op::Unary(UnaryOp::Not), &[(x, DType::Bool)]) => Some(truth(x == 0.0)),
        (Op::Unary(f), &[(x, DType::I32)]) => int_unary(*f, x as i32).map(f64::from),
        (Op::Binary(f), &[(a, dtype), (b, _)]) if dtype.is_float() => binary(*f, a, b),
        (Op::Binary(f), &[(a, DType::I32), (b, _)]) => int_binary(*f, a as i32, b as i32).map(f64::from),
        (Op::Binary(f), &[(a, DType::Bool), (b, _)]) => bool_binary(*f, a != 0.0, b != 0.0).map(truth),
        (Op::Compare(f), &[(a, _), (b, _)]) => Some(truth(host::compare(*f, a, b))),
        (Op::Select, &[(c, _), (a, _), (b, _)]) => Some(if c != 0.0 { a } else { b }),
        _ => None,
    }
}

fn unary(f: UnaryOp, x: f64) -> Option<f64> {
    Some(match f {
        UnaryOp::Neg => -x,
        UnaryOp::Abs => x.abs(),
        UnaryOp::Sign if x == 0.0 || x.is_nan() => x,
        UnaryOp::Sign => x.signum(),
        UnaryOp::Sqrt => x.sqrt(),
        UnaryOp::Relu if x > 0.0 || x.is_nan() => x,
        UnaryOp::Relu => 0.0,
        UnaryOp::Square => x * x,
        UnaryOp::Floor => x.floor(),
        UnaryOp::Round => x.round_ties_even(),
        _ => return None,
    })
}

fn int_unary(f: UnaryOp, x: i32) -> Option<i32> {
    Some(match f {
        UnaryOp::Neg => x.wrapping_neg(),
        UnaryOp::Abs => x.wrapping_abs(),
        UnaryOp::Sign => x.signum(),
        _ => return None,
    })
}

fn binary(f: BinaryOp, a: f64, b: f64) -> Option<f64> {
    Some(match f {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div => a / b,
        BinaryOp::Max => {
            if a >= b || a.is_nan() {
                a
            } else {
                b
            }
        }
        BinaryOp::Min => {
            if a <= b || a.is_nan() {
                a
            } else {
                b
            }
        }
        _ => return None,
    })
}

fn int_binary(f: BinaryOp, a: i32, b: i32) -> Option<i32> {
    Some(match f {
        BinaryOp::Add => a.wrapping_add(b),
        BinaryOp::Sub => a.wrapping_sub(b),
        BinaryOp::Mul => a.wrapping_mul(b),
        BinaryOp::Max => a.max(b),
        BinaryOp::Min => a.min(b),
        BinaryOp::And => a & b,
        BinaryOp::Or => a | b,
        BinaryOp::Xor => a ^ b,
        BinaryOp::IntDiv | BinaryOp::Rem if b == 0 => 0,
        BinaryOp::IntDiv => {
            // Rust rounds towards zero: one less where that was up.
            let up = a.wrapping_rem(b) != 0 && (a < 0) != (b < 0);
            a.wrapping_div(b) - i32::from(up)
        }
        BinaryOp::Rem => match a.wrapping_rem(b) {
            r if r != 0 && (r < 0) != (b < 0) => r + b,
            r => r,
        },
        BinaryOp::Shl if (0..32).contains(&b) => a.wrapping_shl(b as u32),
        BinaryOp::Shl => 0,
        BinaryOp::Shr => a >> if (0..32).contains(&b) { b } else { 31 },
        BinaryOp::Div | BinaryOp::Pow => return None,
    })
}

fn bool_binary(f: BinaryOp, a: bool, b: bool) -> Option<bool> {
    Some(match f {
        BinaryOp::And => a & b,
        BinaryOp::Or => a | b,
        BinaryOp::Xor => a ^ b,
        _ => return None,
    })
}
