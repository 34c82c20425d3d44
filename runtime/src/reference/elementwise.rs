//! Functions of elements of the same place. An operand of one element stands for every element.

use mngc_compiler::ir::{BinaryOp, CompareOp, DType, UnaryOp};

use super::parallel;
use crate::tensor::Data;

/// √(2/π), of GELU.
const GELU_SCALE: f64 = 0.797_884_560_802_865_4;
/// The cubic coefficient of GELU.
const GELU_CUBIC: f64 = 0.044_715;

/// `f(x)`.
pub fn unary(op: UnaryOp, x: &Data) -> Data {
    match x {
        Data::Float(x) => Data::Float(unary_float(op, x)),
        Data::Int(x) => Data::Int(match op {
            UnaryOp::Neg => parallel::map(x, i32::wrapping_neg),
            UnaryOp::Abs => parallel::map(x, i32::wrapping_abs),
            UnaryOp::Sign => parallel::map(x, i32::signum),
            other => unreachable!("{} of i32", other.name()),
        }),
        Data::Bool(x) => Data::Bool(match op {
            UnaryOp::Not => parallel::map(x, |x| !x),
            other => unreachable!("{} of bool", other.name()),
        }),
    }
}

fn unary_float(op: UnaryOp, x: &[f64]) -> Vec<f64> {
    match op {
        UnaryOp::Neg => parallel::map(x, |x| -x),
        UnaryOp::Abs => parallel::map(x, f64::abs),
        UnaryOp::Sign => parallel::map(x, |x| if x == 0.0 || x.is_nan() { x } else { x.signum() }),
        UnaryOp::Exp => parallel::map(x, f64::exp),
        UnaryOp::Log => parallel::map(x, f64::ln),
        UnaryOp::Sqrt => parallel::map(x, f64::sqrt),
        UnaryOp::Rsqrt => parallel::map(x, |x| 1.0 / x.sqrt()),
        UnaryOp::Sin => parallel::map(x, f64::sin),
        UnaryOp::Cos => parallel::map(x, f64::cos),
        UnaryOp::Tanh => parallel::map(x, f64::tanh),
        UnaryOp::Sigmoid => parallel::map(x, sigmoid),
        UnaryOp::Relu => parallel::map(x, |x| if x > 0.0 || x.is_nan() { x } else { 0.0 }),
        UnaryOp::Gelu => parallel::map(x, |x| 0.5 * x * (1.0 + gelu_inner(x).tanh())),
        UnaryOp::GeluGrad => parallel::map(x, |x| {
            let t = gelu_inner(x).tanh();
            0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * GELU_SCALE * (1.0 + 3.0 * GELU_CUBIC * x * x)
        }),
        UnaryOp::Silu => parallel::map(x, |x| x * sigmoid(x)),
        UnaryOp::SiluGrad => parallel::map(x, |x| {
            let s = sigmoid(x);
            s * (1.0 + x * (1.0 - s))
        }),
        UnaryOp::Square => parallel::map(x, |x| x * x),
        UnaryOp::Floor => parallel::map(x, f64::floor),
        UnaryOp::Round => parallel::map(x, f64::round_ties_even),
        UnaryOp::Not => unreachable!("not of floats"),
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn gelu_inner(x: f64) -> f64 {
    GELU_SCALE * (x + GELU_CUBIC * x * x * x)
}

/// `f(a, b)` for n elements.
pub fn binary(op: BinaryOp, a: &Data, b: &Data, n: usize) -> Data {
    match (a, b) {
        (Data::Float(a), Data::Float(b)) => Data::Float(binary_float(op, a, b, n)),
        (Data::Int(a), Data::Int(b)) => Data::Int(binary_int(op, a, b, n)),
        (Data::Bool(a), Data::Bool(b)) => Data::Bool(match op {
            BinaryOp::And => zip(a, b, n, |a, b| a & b),
            BinaryOp::Or => zip(a, b, n, |a, b| a | b),
            BinaryOp::Xor => zip(a, b, n, |a, b| a ^ b),
            other => unreachable!("{} of bool", other.name()),
        }),
        _ => unreachable!("operands of two kinds"),
    }
}

fn binary_float(op: BinaryOp, a: &[f64], b: &[f64], n: usize) -> Vec<f64> {
    match op {
        BinaryOp::Add => zip(a, b, n, |a, b| a + b),
        BinaryOp::Sub => zip(a, b, n, |a, b| a - b),
        BinaryOp::Mul => zip(a, b, n, |a, b| a * b),
        BinaryOp::Div => zip(a, b, n, |a, b| a / b),
        BinaryOp::Rem => zip(a, b, n, |a, b| {
            let r = a % b;
            if r == 0.0 {
                r.copysign(b)
            } else if (r < 0.0) != (b < 0.0) {
                r + b
            } else {
                r
            }
        }),
        BinaryOp::Pow => zip(a, b, n, f64::powf),
        BinaryOp::Max => zip(a, b, n, max),
        BinaryOp::Min => zip(a, b, n, min),
        BinaryOp::IntDiv | BinaryOp::And | BinaryOp::Or | BinaryOp::Xor | BinaryOp::Shl | BinaryOp::Shr => {
            unreachable!("{} of floats", op.name())
        }
    }
}

/// The larger; NaN if either is.
pub fn max(a: f64, b: f64) -> f64 {
    if a >= b || a.is_nan() { a } else { b }
}

/// The smaller; NaN if either is.
pub fn min(a: f64, b: f64) -> f64 {
    if a <= b || a.is_nan() { a } else { b }
}

fn binary_int(op: BinaryOp, a: &[i32], b: &[i32], n: usize) -> Vec<i32> {
    match op {
        BinaryOp::Add => zip(a, b, n, i32::wrapping_add),
        BinaryOp::Sub => zip(a, b, n, i32::wrapping_sub),
        BinaryOp::Mul => zip(a, b, n, i32::wrapping_mul),
        BinaryOp::IntDiv => zip(a, b, n, |a, b| match b {
            0 => 0,
            // Rust rounds towards zero: one less where that was up.
            _ => a.wrapping_div(b) - i32::from(a.wrapping_rem(b) != 0 && (a < 0) != (b < 0)),
        }),
        BinaryOp::Rem => zip(a, b, n, |a, b| match b {
            0 => 0,
            _ => {
                let r = a.wrapping_rem(b);
                if r != 0 && (r < 0) != (b < 0) { r + b } else { r }
            }
        }),
        BinaryOp::Max => zip(a, b, n, i32::max),
        BinaryOp::Min => zip(a, b, n, i32::min),
        BinaryOp::And => zip(a, b, n, |a, b| a & b),
        BinaryOp::Or => zip(a, b, n, |a, b| a | b),
        BinaryOp::Xor => zip(a, b, n, |a, b| a ^ b),
        BinaryOp::Shl => zip(a, b, n, |a, b| if (0..32).contains(&b) { a.wrapping_shl(b as u32) } else { 0 }),
        BinaryOp::Shr => zip(a, b, n, |a, b| if (0..32).contains(&b) { a >> b } else { a >> 31 }),
        BinaryOp::Div | BinaryOp::Pow => unreachable!("{} of i32", op.name()),
    }
}

/// `a ? b` for n elements.
pub fn compare(op: CompareOp, a: &Data, b: &Data, n: usize) -> Vec<bool> {
    fn of<T: Copy + Sync + PartialOrd>(op: CompareOp, a: &[T], b: &[T], n: usize) -> Vec<bool> {
        match op {
            CompareOp::Eq => zip(a, b, n, |a, b| a == b),
            CompareOp::Ne => zip(a, b, n, |a, b| a != b),
            CompareOp::Lt => zip(a, b, n, |a, b| a < b),
            CompareOp::Le => zip(a, b, n, |a, b| a <= b),
            CompareOp::Gt => zip(a, b, n, |a, b| a > b),
            CompareOp::Ge => zip(a, b, n, |a, b| a >= b),
        }
    }
    match (a, b) {
        (Data::Float(a), Data::Float(b)) => of(op, a, b, n),
        (Data::Int(a), Data::Int(b)) => of(op, a, b, n),
        _ => unreachable!("comparison of two kinds, or of bool"),
    }
}

/// a where the condition holds, else b, for n elements.
pub fn select(condition: &Data, a: &Data, b: &Data, n: usize) -> Data {
    fn of<T: Copy + Sync + Send>(c: &[bool], a: &[T], b: &[T], n: usize) -> Vec<T> {
        let step = |len: usize| usize::from(len == n);
        let (sc, sa, sb) = (step(c.len()), step(a.len()), step(b.len()));
        parallel::indices(n, 1, |i| if c[i * sc] { a[i * sa] } else { b[i * sb] })
    }
    let Data::Bool(c) = condition else { unreachable!("a condition is bool") };
    match (a, b) {
        (Data::Float(a), Data::Float(b)) => Data::Float(of(c, a, b, n)),
        (Data::Int(a), Data::Int(b)) => Data::Int(of(c, a, b, n)),
        (Data::Bool(a), Data::Bool(b)) => Data::Bool(of(c, a, b, n)),
        _ => unreachable!("operands of two kinds"),
    }
}

/// To another dtype.
pub fn cast(x: &Data, dtype: DType) -> Data {
    match dtype {
        DType::F32 | DType::BF16 | DType::F16 => Data::Float(match x {
            Data::Float(x) => x.clone(),
            Data::Int(x) => parallel::map(x, f64::from),
            Data::Bool(x) => parallel::map(x, |x| f64::from(u8::from(x))),
        }),
        DType::I32 => Data::Int(match x {
            // `as` truncates, saturates and takes NaN to 0.
            Data::Float(x) => parallel::map(x, |x| x as i32),
            Data::Int(x) => x.clone(),
            Data::Bool(x) => parallel::map(x, i32::from),
        }),
        DType::Bool => Data::Bool(match x {
            Data::Float(x) => parallel::map(x, |x| x != 0.0),
            Data::Int(x) => parallel::map(x, |x| x != 0),
            Data::Bool(x) => x.clone(),
        }),
    }
}

/// `f` of n pairs, either operand being n elements or one that stands for all.
fn zip<T: Copy + Sync, R: Send>(a: &[T], b: &[T], n: usize, f: impl Fn(T, T) -> R + Sync) -> Vec<R> {
    match (a.len() == n, b.len() == n) {
        (true, true) => parallel::zip(a, b, f),
        (true, false) => {
            let b = b[0];
            parallel::map(a, |a| f(a, b))
        }
        (false, _) => {
            let a = a[0];
            parallel::map(b, |b| f(a, b))
        }
    }
}
