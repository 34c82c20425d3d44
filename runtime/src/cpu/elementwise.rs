//! Loops over the elements of registers: one function for each instruction, in every variant of its operands.

use mngc_compiler::ir::{BinaryOp, CompareOp, UnaryOp};

use super::math;
use super::simd::vectorised;

/// An operand: one value for each element, or one for all.
#[derive(Clone, Copy)]
pub enum Arg<'a, T> {
    /// One for each.
    Each(&'a [T]),
    /// The same for all.
    One(T),
}

impl<T: Copy> Arg<'_, T> {
    fn at(&self, i: usize) -> T {
        match self {
            Arg::Each(values) => values[i],
            Arg::One(value) => *value,
        }
    }
}

#[inline(always)]
fn map<A: Copy, R>(dst: &mut [R], a: &[A], f: impl Fn(A) -> R) {
    for (dst, &a) in dst.iter_mut().zip(a) {
        *dst = f(a);
    }
}

#[inline(always)]
fn zip<T: Copy, R: Copy>(dst: &mut [R], a: Arg<T>, b: Arg<T>, f: impl Fn(T, T) -> R) {
    match (a, b) {
        (Arg::Each(a), Arg::Each(b)) => {
            for ((dst, &a), &b) in dst.iter_mut().zip(a).zip(b) {
                *dst = f(a, b);
            }
        }
        (Arg::Each(a), Arg::One(b)) => map(dst, a, |a| f(a, b)),
        (Arg::One(a), Arg::Each(b)) => map(dst, b, |b| f(a, b)),
        (Arg::One(a), Arg::One(b)) => dst.fill(f(a, b)),
    }
}

vectorised! {
    /// f(a) of floats.
    pub fn unary<FMA>(op: UnaryOp, dst: &mut [f32], a: &[f32]) {
        match op {
            UnaryOp::Neg => map(dst, a, |x| -x),
            UnaryOp::Abs => map(dst, a, f32::abs),
            UnaryOp::Sign => map(dst, a, |x| if x == 0.0 || x.is_nan() { x } else { 1f32.copysign(x) }),
            UnaryOp::Exp => map(dst, a, math::exp::<FMA>),
            UnaryOp::Log => map(dst, a, math::log::<FMA>),
            UnaryOp::Sqrt => map(dst, a, f32::sqrt),
            UnaryOp::Rsqrt => map(dst, a, |x| 1.0 / x.sqrt()),
            UnaryOp::Sin | UnaryOp::Cos if a.iter().any(|x| x.abs() >= math::FAR) => {
                map(dst, a, |x| if op == UnaryOp::Sin { f64::from(x).sin() as f32 } else { f64::from(x).cos() as f32 });
            }
            UnaryOp::Sin => map(dst, a, |x| math::sin_cos::<FMA>(f64::from(x)).0),
            UnaryOp::Cos => map(dst, a, |x| math::sin_cos::<FMA>(f64::from(x)).1),
            UnaryOp::Tanh => map(dst, a, math::tanh::<FMA>),
            UnaryOp::Sigmoid => map(dst, a, math::sigmoid::<FMA>),
            UnaryOp::Relu => map(dst, a, |x| if x > 0.0 || x.is_nan() { x } else { 0.0 }),
            UnaryOp::Gelu => map(dst, a, math::gelu::<FMA>),
            UnaryOp::GeluGrad => map(dst, a, math::gelu_grad::<FMA>),
            UnaryOp::Silu => map(dst, a, math::silu::<FMA>),
            UnaryOp::SiluGrad => map(dst, a, math::silu_grad::<FMA>),
            UnaryOp::Square => map(dst, a, |x| x * x),
            UnaryOp::Floor => map(dst, a, f32::floor),
            UnaryOp::Round => map(dst, a, f32::round_ties_even),
            // Of truth values only.
            UnaryOp::Not => map(dst, a, |x| if x == 0.0 { 1.0 } else { 0.0 }),
        }
    }
}

/// f(a) of integers or truth values; whether there is such a function.
pub fn unary_ints(op: UnaryOp, dst: &mut [i32], a: &[i32]) -> bool {
    match op {
        UnaryOp::Neg => map(dst, a, i32::wrapping_neg),
        UnaryOp::Abs => map(dst, a, i32::wrapping_abs),
        UnaryOp::Sign => map(dst, a, i32::signum),
        UnaryOp::Not => map(dst, a, |x| i32::from(x == 0)),
        _ => return false,
    }
    true
}

/// The larger; NaN if either is.
#[inline(always)]
pub fn max(a: f32, b: f32) -> f32 {
    if a >= b || a.is_nan() { a } else { b }
}

/// The smaller; NaN if either is.
#[inline(always)]
pub fn min(a: f32, b: f32) -> f32 {
    if a <= b || a.is_nan() { a } else { b }
}

/// Remainder with the sign of b.
fn rem(a: f32, b: f32) -> f32 {
    let r = a % b;
    if r == 0.0 {
        r.copysign(b)
    } else if (r < 0.0) != (b < 0.0) {
        r + b
    } else {
        r
    }
}

/// aᵇ, computed in f64: an error of b·ln a counts b·ln a times.
fn pow(dst: &mut [f32], a: Arg<f32>, b: Arg<f32>) {
    match b {
        Arg::One(2.0) => zip(dst, a, b, |a, _| a * a),
        Arg::One(1.0) => zip(dst, a, b, |a, _| a),
        Arg::One(0.5) => zip(dst, a, b, |a, _| f64::from(a).powf(0.5) as f32),
        _ => zip(dst, a, b, |a, b| f64::from(a).powf(f64::from(b)) as f32),
    }
}

vectorised! {
    /// f(a, b) of floats; whether there is such a function.
    pub fn binary<FMA>(op: BinaryOp, dst: &mut [f32], a: Arg<f32>, b: Arg<f32>) -> bool {
        match op {
            BinaryOp::Add => zip(dst, a, b, |a, b| a + b),
            BinaryOp::Sub => zip(dst, a, b, |a, b| a - b),
            BinaryOp::Mul => zip(dst, a, b, |a, b| a * b),
            BinaryOp::Div => zip(dst, a, b, |a, b| a / b),
            BinaryOp::Max => zip(dst, a, b, max),
            BinaryOp::Min => zip(dst, a, b, min),
            BinaryOp::Rem => zip(dst, a, b, rem),
            BinaryOp::Pow => pow(dst, a, b),
            BinaryOp::IntDiv | BinaryOp::And | BinaryOp::Or | BinaryOp::Xor | BinaryOp::Shl | BinaryOp::Shr => {
                return false;
            }
        }
        true
    }
}

/// Quotient rounded down; 0 when b is 0.
fn int_div(a: i32, b: i32) -> i32 {
    match b {
        0 => 0,
        // Rust rounds towards zero: one less where that was up.
        _ => a.wrapping_div(b) - i32::from(a.wrapping_rem(b) != 0 && (a < 0) != (b < 0)),
    }
}

/// Remainder with the sign of b; 0 when b is 0.
fn int_rem(a: i32, b: i32) -> i32 {
    match b {
        0 => 0,
        _ => {
            let r = a.wrapping_rem(b);
            if r != 0 && (r < 0) != (b < 0) { r + b } else { r }
        }
    }
}

/// f(a, b) of integers or truth values; whether there is such a function.
pub fn binary_ints(op: BinaryOp, dst: &mut [i32], a: Arg<i32>, b: Arg<i32>) -> bool {
    match op {
        BinaryOp::Add => zip(dst, a, b, i32::wrapping_add),
        BinaryOp::Sub => zip(dst, a, b, i32::wrapping_sub),
        BinaryOp::Mul => zip(dst, a, b, i32::wrapping_mul),
        BinaryOp::IntDiv => zip(dst, a, b, int_div),
        BinaryOp::Rem => zip(dst, a, b, int_rem),
        BinaryOp::Max => zip(dst, a, b, i32::max),
        BinaryOp::Min => zip(dst, a, b, i32::min),
        BinaryOp::And => zip(dst, a, b, |a, b| a & b),
        BinaryOp::Or => zip(dst, a, b, |a, b| a | b),
        BinaryOp::Xor => zip(dst, a, b, |a, b| a ^ b),
        BinaryOp::Shl => zip(dst, a, b, |a, b| if (0..32).contains(&b) { a.wrapping_shl(b as u32) } else { 0 }),
        BinaryOp::Shr => zip(dst, a, b, |a, b| if (0..32).contains(&b) { a >> b } else { a >> 31 }),
        BinaryOp::Div | BinaryOp::Pow => return false,
    }
    true
}

#[inline(always)]
fn compare_all<T: Copy + PartialOrd>(op: CompareOp, dst: &mut [i32], a: Arg<T>, b: Arg<T>) {
    match op {
        CompareOp::Eq => zip(dst, a, b, |a, b| i32::from(a == b)),
        CompareOp::Ne => zip(dst, a, b, |a, b| i32::from(a != b)),
        CompareOp::Lt => zip(dst, a, b, |a, b| i32::from(a < b)),
        CompareOp::Le => zip(dst, a, b, |a, b| i32::from(a <= b)),
        CompareOp::Gt => zip(dst, a, b, |a, b| i32::from(a > b)),
        CompareOp::Ge => zip(dst, a, b, |a, b| i32::from(a >= b)),
    }
}

vectorised! {
    /// a ? b of floats.
    pub fn compare<FMA>(op: CompareOp, dst: &mut [i32], a: Arg<f32>, b: Arg<f32>) {
        compare_all(op, dst, a, b);
    }
}

vectorised! {
    /// a ? b of integers.
    pub fn compare_ints<FMA>(op: CompareOp, dst: &mut [i32], a: Arg<i32>, b: Arg<i32>) {
        compare_all(op, dst, a, b);
    }
}

vectorised! {
    /// a where c ≠ 0, else b; words of either kind.
    pub fn select<FMA>(dst: &mut [u32], c: Arg<i32>, a: Arg<u32>, b: Arg<u32>) {
        match (c, a, b) {
            (Arg::Each(c), Arg::Each(a), Arg::Each(b)) => {
                for (((dst, &c), &a), &b) in dst.iter_mut().zip(c).zip(a).zip(b) {
                    *dst = if c != 0 { a } else { b };
                }
            }
            (Arg::Each(c), Arg::Each(a), Arg::One(b)) => {
                for ((dst, &c), &a) in dst.iter_mut().zip(c).zip(a) {
                    *dst = if c != 0 { a } else { b };
                }
            }
            _ => {
                for (i, dst) in dst.iter_mut().enumerate() {
                    *dst = if c.at(i) != 0 { a.at(i) } else { b.at(i) };
                }
            }
        }
    }
}

vectorised! {
    /// Integers, or truth values, as floats.
    pub fn to_floats<FMA>(dst: &mut [f32], a: &[i32]) {
        map(dst, a, |x| x as f32);
    }
}

vectorised! {
    /// Floats as integers: truncated and saturated, NaN being 0.
    pub fn to_ints<FMA>(dst: &mut [i32], a: &[f32]) {
        map(dst, a, |x| x as i32);
    }
}

vectorised! {
    /// Whether a float is not 0.
    pub fn to_bools<FMA>(dst: &mut [i32], a: &[f32]) {
        map(dst, a, |x| i32::from(x != 0.0));
    }
}
