//! Gradients of elementwise ops. Each is an op of the result's shape, summed up for an operand that stands for every
//! element.

use super::rules::Rule;
use crate::ir::{BinaryOp, CompareOp, DType, Op, ReduceKind, UnaryOp, Value};

/// dy · f′(x), from the result where that is cheaper.
pub(super) fn unary(r: &mut Rule, f: UnaryOp) {
    let dy = r.dy;
    match f {
        UnaryOp::Neg => finish(r, 0, Op::Unary(UnaryOp::Neg), vec![dy]),
        UnaryOp::Abs => {
            let x = r.x(0);
            let sign = r.unary(UnaryOp::Sign, x);
            times(r, dy, sign)
        }
        UnaryOp::Exp => {
            let y = r.y();
            times(r, dy, y)
        }
        UnaryOp::Log => {
            let x = r.x(0);
            finish(r, 0, Op::Binary(BinaryOp::Div), vec![dy, x])
        }
        UnaryOp::Sqrt => {
            let (y, half) = (r.y(), r.number(0.5));
            let slope = r.binary(BinaryOp::Div, half, y);
            times(r, dy, slope)
        }
        UnaryOp::Rsqrt => {
            let (y, half) = (r.y(), r.number(-0.5));
            let square = r.unary(UnaryOp::Square, y);
            let cube = r.binary(BinaryOp::Mul, square, y);
            let slope = r.binary(BinaryOp::Mul, cube, half);
            times(r, dy, slope)
        }
        UnaryOp::Sin => {
            let x = r.x(0);
            let slope = r.unary(UnaryOp::Cos, x);
            times(r, dy, slope)
        }
        UnaryOp::Cos => {
            let x = r.x(0);
            let sin = r.unary(UnaryOp::Sin, x);
            let slope = r.unary(UnaryOp::Neg, sin);
            times(r, dy, slope)
        }
        UnaryOp::Tanh => {
            let (y, one) = (r.y(), r.number(1.0));
            let square = r.unary(UnaryOp::Square, y);
            let slope = r.binary(BinaryOp::Sub, one, square);
            times(r, dy, slope)
        }
        UnaryOp::Sigmoid => {
            let (y, one) = (r.y(), r.number(1.0));
            let rest = r.binary(BinaryOp::Sub, one, y);
            let slope = r.binary(BinaryOp::Mul, y, rest);
            times(r, dy, slope)
        }
        UnaryOp::Relu => {
            let (y, zero) = (r.y(), r.number(0.0));
            let passes = r.b.build().compare(CompareOp::Gt, y, zero);
            finish(r, 0, Op::Select, vec![passes, dy, zero])
        }
        UnaryOp::Gelu | UnaryOp::Silu => {
            let x = r.x(0);
            let slope = r.unary(if f == UnaryOp::Gelu { UnaryOp::GeluGrad } else { UnaryOp::SiluGrad }, x);
            times(r, dy, slope)
        }
        UnaryOp::Square => {
            let (x, two) = (r.x(0), r.number(2.0));
            let slope = r.binary(BinaryOp::Mul, x, two);
            times(r, dy, slope)
        }
        // Zero, or none: activity keeps cotangents away from them.
        UnaryOp::Sign | UnaryOp::Floor | UnaryOp::Round | UnaryOp::Not | UnaryOp::GeluGrad | UnaryOp::SiluGrad => {}
    }
}

/// The contributions for both operands of `f(a, b)`.
pub(super) fn binary(r: &mut Rule, f: BinaryOp) {
    for i in (0..2).filter(|&i| r.wants(i)).collect::<Vec<_>>() {
        if let Some((op, args)) = term(r, f, i) {
            finish(r, i, op, args)
        }
    }
}

/// The op that ends the rule of a binary function for operand i, and its operands. None for functions of i32 and bool.
fn term(r: &mut Rule, f: BinaryOp, i: usize) -> Option<(Op, Vec<Value>)> {
    let dy = r.dy;
    let product = |a: Value, b: Value| (Op::Binary(BinaryOp::Mul), vec![a, b]);
    Some(match (f, i) {
        (BinaryOp::Sub, 1) => (Op::Unary(UnaryOp::Neg), vec![dy]),
        (BinaryOp::Add | BinaryOp::Sub, _) | (BinaryOp::Rem, 0) => (Op::Cast, vec![dy]),
        (BinaryOp::Mul, _) => {
            let other = r.x(1 - i);
            product(dy, other)
        }
        (BinaryOp::Div, 0) => {
            let b = r.x(1);
            (Op::Binary(BinaryOp::Div), vec![dy, b])
        }
        (BinaryOp::Div, _) => {
            let (quotient, b) = (quotient(r), r.x(1));
            let share = r.binary(BinaryOp::Div, dy, b);
            let minus = r.unary(UnaryOp::Neg, quotient);
            product(share, minus)
        }
        (BinaryOp::Rem, _) => {
            let quotient = quotient(r);
            let floor = r.unary(UnaryOp::Floor, quotient);
            let minus = r.unary(UnaryOp::Neg, floor);
            product(dy, minus)
        }
        (BinaryOp::Pow, 0) => {
            // The constant 1 has slope 0 at 0 too, where 0·0⁻¹ is none.
            let (a, b, zero, one) = (r.x(0), r.x(1), r.number(0.0), r.number(1.0));
            let less = r.binary(BinaryOp::Sub, b, one);
            let power = r.binary(BinaryOp::Pow, a, less);
            let slope = r.binary(BinaryOp::Mul, b, power);
            let is_constant = r.b.build().compare(CompareOp::Eq, b, zero);
            let slope = r.b.build().select(is_constant, zero, slope, DType::F32);
            product(dy, slope)
        }
        (BinaryOp::Pow, _) => {
            let (a, y, zero) = (r.x(0), r.y(), r.number(0.0));
            let log = r.unary(UnaryOp::Log, a);
            let slope = r.binary(BinaryOp::Mul, y, log);
            let is_positive = r.b.build().compare(CompareOp::Gt, a, zero);
            let slope = r.b.build().select(is_positive, slope, zero, DType::F32);
            product(dy, slope)
        }
        (BinaryOp::Max | BinaryOp::Min, _) => {
            let (a, b, zero) = (r.x(0), r.x(1), r.number(0.0));
            let compare = if f == BinaryOp::Max { CompareOp::Ge } else { CompareOp::Le };
            let is_first = r.b.build().compare(compare, a, b);
            (Op::Select, if i == 0 { vec![is_first, dy, zero] } else { vec![is_first, zero, dy] })
        }
        (BinaryOp::IntDiv | BinaryOp::And | BinaryOp::Or | BinaryOp::Xor | BinaryOp::Shl | BinaryOp::Shr, _) => {
            return None;
        }
    })
}

/// a / b in f32: the result may be rounded.
fn quotient(r: &mut Rule) -> Value {
    let (a, b) = (r.x(0), r.x(1));
    r.binary(BinaryOp::Div, a, b)
}

/// dy goes to the operand that was taken, zero to the other.
pub(super) fn select(r: &mut Rule) {
    let (condition, zero, dy) = (r.x(0), r.number(0.0), r.dy);
    for i in (1..3).filter(|&i| r.wants(i)).collect::<Vec<_>>() {
        let args = if i == 1 { vec![condition, dy, zero] } else { vec![condition, zero, dy] };
        finish(r, i, Op::Select, args)
    }
}

fn times(r: &mut Rule, dy: Value, slope: Value) {
    finish(r, 0, Op::Binary(BinaryOp::Mul), vec![dy, slope])
}

/// Contributes the result of an op to operand i, one of whose operands is dy. A cast stands for dy itself.
fn finish(r: &mut Rule, i: usize, op: Op, args: Vec<Value>) {
    let result = r.result_ty();
    if r.ty(i).rank() == result.rank() {
        match op {
            Op::Cast => r.give(i, args[0]),
            op => r.last(i, op, args),
        }
        return;
    }
    let axes: Vec<u8> = (0..result.rank() as u8).collect();
    let dtype = r.target(i).dtype;
    let mut b = r.b.build();
    let terms = match op {
        Op::Cast => args[0],
        op => b.push1(op, args, result.with_dtype(DType::F32)),
    };
    let sum = b.reduce(ReduceKind::Sum, terms, &axes, dtype);
    r.give(i, sum)
}
