//! Rules on elementwise operations.

use crate::ir::{BinaryOp, DType, Op, Type, UnaryOp, Value};
use crate::passes::rewrite::Peephole;

/// `cast x` of x's own dtype → x; `cast (cast x)` → `cast x` where the dtype between holds every value of x's.
pub fn cast_of_cast(p: &mut Peephole, op: &Op, args: &[Value], ty: &Type) -> Option<Value> {
    let (Op::Cast, &[x]) = (op, args) else { return None };
    if p.ty(x).dtype == ty.dtype {
        return Some(x);
    }
    let source = p.operand_if(x, |op| *op == Op::Cast)?;
    holds(p.ty(x).dtype, p.ty(source).dtype).then(|| p.make(Op::Cast, vec![source], ty.clone()))
}

/// Whether every value of dtype `small` is one of `large`, and casts on to the same value of any third dtype.
fn holds(large: DType, small: DType) -> bool {
    match small {
        DType::Bool => true,
        DType::BF16 | DType::F16 => large == DType::F32 || large == small,
        DType::F32 | DType::I32 => large == small,
    }
}

/// `neg (neg x)` → x and `not (not x)` → x, all of one dtype.
pub fn double_negation(p: &mut Peephole, op: &Op, args: &[Value], ty: &Type) -> Option<Value> {
    let (Op::Unary(UnaryOp::Neg | UnaryOp::Not), &[x]) = (op, args) else { return None };
    let source = p.operand_if(x, |inner| inner == op)?;
    (p.ty(x).dtype == ty.dtype && p.fits(source, ty)).then_some(source)
}

/// `x · 1`, `x / 1`, `x + −0`, `x − 0`, `x ^ 1` → x in the dtype of the result; and their kin on i32 and bool.
pub fn neutral_element(p: &mut Peephole, op: &Op, args: &[Value], ty: &Type) -> Option<Value> {
    let (Op::Binary(f), &[a, b]) = (op, args) else { return None };
    let neutral = neutral(*f, p.ty(a).dtype)?.to_bits();
    let is_neutral = |p: &Peephole, v| constant(p, v).is_some_and(|x| x.to_bits() == neutral);
    if is_neutral(p, b) {
        Some(in_place_of(p, a, ty))
    } else if is_neutral(p, a) && commutes(*f) {
        Some(in_place_of(p, b, ty))
    } else {
        None
    }
}

/// What changes nothing as the second operand.
fn neutral(f: BinaryOp, dtype: DType) -> Option<f64> {
    match (f, dtype) {
        (BinaryOp::Mul | BinaryOp::Div | BinaryOp::Pow | BinaryOp::IntDiv, _) => Some(1.0),
        // +0 would turn −0 into 0.
        (BinaryOp::Add, dtype) if dtype.is_float() => Some(-0.0),
        (BinaryOp::Add | BinaryOp::Sub | BinaryOp::Shl | BinaryOp::Shr | BinaryOp::Or | BinaryOp::Xor, _) => Some(0.0),
        (BinaryOp::And, DType::Bool) => Some(1.0),
        (BinaryOp::And, _) => Some(-1.0),
        (BinaryOp::Rem | BinaryOp::Max | BinaryOp::Min, _) => None,
    }
}

fn commutes(f: BinaryOp) -> bool {
    matches!(f, BinaryOp::Mul | BinaryOp::Add | BinaryOp::Or | BinaryOp::Xor | BinaryOp::And)
}

/// `select true, a, b` → a; `select false, a, b` → b; each in the dtype of the result.
pub fn known_choice(p: &mut Peephole, op: &Op, args: &[Value], ty: &Type) -> Option<Value> {
    let (Op::Select, &[condition, a, b]) = (op, args) else { return None };
    let chosen = if constant(p, condition)? != 0.0 { a } else { b };
    Some(in_place_of(p, chosen, ty))
}

/// An operand that only repeats a scalar → the scalar, which stands for every element anyway. Where all operands do,
/// the operation is done once and its result repeated.
pub fn repeated_scalars(p: &mut Peephole, op: &Op, args: &[Value], ty: &Type) -> Option<Value> {
    if !op.is_elementwise() || ty.rank() == 0 {
        return None;
    }
    let scalars: Vec<Option<Value>> = args.iter().map(|&v| p.splat_of(v)).collect();
    if scalars.iter().all(Option::is_none) {
        return None;
    }
    let args: Vec<Value> = args.iter().zip(&scalars).map(|(&v, s)| s.unwrap_or(v)).collect();
    if args.iter().any(|&v| p.ty(v).rank() > 0) {
        return Some(p.make(op.clone(), args, ty.clone()));
    }
    let once = p.make(op.clone(), args, Type::scalar(ty.dtype));
    Some(p.splat(once, ty))
}

/// The number that every element of a value is.
fn constant(p: &Peephole, value: Value) -> Option<f64> {
    p.new.constant(p.splat_of(value).unwrap_or(value))
}

/// An operand as the result: in its dtype, over its axes. One rounding, as the operation itself would do.
fn in_place_of(p: &mut Peephole, operand: Value, ty: &Type) -> Value {
    let own = p.ty(operand).clone();
    let value = if own.dtype == ty.dtype { operand } else { p.make(Op::Cast, vec![operand], own.with_dtype(ty.dtype)) };
    if own.rank() == ty.rank() { value } else { p.splat(value, ty) }
}
