//! Types, numbers and ops as CUDA expressions.

use mngc_compiler::ir::{BinaryOp, CompareOp, DType, UnaryOp};
use mngc_compiler::schedule::rows::Kind;

/// A float as CUDA text, exactly.
pub fn float(x: f64) -> String {
    let x = x as f32;
    if x.is_nan() {
        "(INF - INF)".into()
    } else if x.is_infinite() {
        if x > 0.0 { "INF".into() } else { "-INF".into() }
    } else {
        format!("{x:?}f")
    }
}

/// The type of an element in memory.
pub fn element(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 => "float",
        DType::BF16 => "bf16",
        DType::F16 => "f16",
        DType::I32 => "int",
        DType::Bool => "u8",
    }
}

/// The type of a register.
pub fn register(kind: Kind) -> &'static str {
    match kind {
        Kind::F32 => "float",
        Kind::I32 => "int",
    }
}

/// An op of one operand.
pub(crate) fn unary(op: UnaryOp, kind: Kind, a: &str) -> String {
    let call = |name: &str| format!("{name}({a})");
    match (op, kind) {
        (UnaryOp::Neg, Kind::F32) if a.starts_with('-') => format!("-({a})"),
        (UnaryOp::Neg, Kind::F32) => format!("-{a}"),
        (UnaryOp::Neg, Kind::I32) => call("i_neg"),
        (UnaryOp::Abs, Kind::F32) => call("fabsf"),
        (UnaryOp::Abs, Kind::I32) => call("i_abs"),
        (UnaryOp::Sign, Kind::F32) => call("f_sign"),
        (UnaryOp::Sign, Kind::I32) => call("i_sign"),
        (UnaryOp::Exp, _) => call("expf"),
        (UnaryOp::Log, _) => call("logf"),
        (UnaryOp::Sqrt, _) => call("sqrtf"),
        (UnaryOp::Rsqrt, _) => format!("1.0f / sqrtf({a})"),
        (UnaryOp::Sin, _) => call("sinf"),
        (UnaryOp::Cos, _) => call("cosf"),
        (UnaryOp::Tanh, _) => call("tanhf"),
        (UnaryOp::Sigmoid, _) => call("f_sigmoid"),
        (UnaryOp::Relu, _) => call("f_relu"),
        (UnaryOp::Gelu, _) => call("f_gelu"),
        (UnaryOp::GeluGrad, _) => call("f_gelu_grad"),
        (UnaryOp::Silu, _) => format!("{a} * f_sigmoid({a})"),
        (UnaryOp::SiluGrad, _) => call("f_silu_grad"),
        (UnaryOp::Square, _) => format!("{a} * {a}"),
        (UnaryOp::Floor, _) => call("floorf"),
        (UnaryOp::Round, _) => call("rintf"),
        (UnaryOp::Not, _) => format!("!{a}"),
    }
}

/// An op of two operands.
pub(crate) fn binary(op: BinaryOp, kind: Kind, a: &str, b: &str) -> String {
    let infix = |sign: &str| format!("{a} {sign} {b}");
    let call = |name: &str| format!("{}_{name}({a}, {b})", if kind == Kind::F32 { "f" } else { "i" });
    match (op, kind) {
        (BinaryOp::Add, Kind::F32) => infix("+"),
        (BinaryOp::Sub, Kind::F32) => infix("-"),
        (BinaryOp::Mul, Kind::F32) => infix("*"),
        (BinaryOp::Div, _) => infix("/"),
        (BinaryOp::Add, Kind::I32) => call("add"),
        (BinaryOp::Sub, Kind::I32) => call("sub"),
        (BinaryOp::Mul, Kind::I32) => call("mul"),
        (BinaryOp::IntDiv, _) => call("div"),
        (BinaryOp::Rem, _) => call("rem"),
        (BinaryOp::Pow, _) => format!("powf({a}, {b})"),
        (BinaryOp::Max, _) => call("max"),
        (BinaryOp::Min, _) => call("min"),
        (BinaryOp::And, _) => infix("&"),
        (BinaryOp::Or, _) => infix("|"),
        (BinaryOp::Xor, _) => infix("^"),
        (BinaryOp::Shl, _) => call("shl"),
        (BinaryOp::Shr, _) => call("shr"),
    }
}

/// The sign of a comparison.
pub(crate) fn compare(op: CompareOp) -> &'static str {
    match op {
        CompareOp::Eq => "==",
        CompareOp::Ne => "!=",
        CompareOp::Lt => "<",
        CompareOp::Le => "<=",
        CompareOp::Gt => ">",
        CompareOp::Ge => ">=",
    }
}

/// A cast.
pub(crate) fn cast(from: DType, to: DType, a: &str) -> String {
    match (from.is_float(), to) {
        (true, DType::F32) | (false, DType::I32) => a.to_string(),
        (true, DType::I32) => format!("f_to_i32({a})"),
        (_, DType::Bool) => format!("{a} != 0"),
        (false, DType::F32) => format!("(float){a}"),
        (true, DType::BF16 | DType::F16) => format!("rounded<{}>({a})", element(to)),
        (false, DType::BF16 | DType::F16) => format!("rounded<{}>((float){a})", element(to)),
    }
}
