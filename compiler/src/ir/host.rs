//! Expressions over the step that the host computes: learning rates, momenta, windows.

use std::sync::Arc;

use super::op::{CompareOp, F64};

/// A number known once the step is: computed in f64 on the host before each step.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostExpr {
    /// A constant.
    Num(F64),
    /// The index of the step, from 0.
    Step,
    /// A function of one number.
    Unary(HostUnary, Arc<HostExpr>),
    /// A function of two numbers.
    Binary(HostBinary, Arc<HostExpr>, Arc<HostExpr>),
    /// 1 where the comparison holds, else 0.
    Compare(CompareOp, Arc<HostExpr>, Arc<HostExpr>),
    /// The second where the first is not 0, else the third.
    Select(Arc<HostExpr>, Arc<HostExpr>, Arc<HostExpr>),
}

macro_rules! host_ops {
    ($(#[$meta:meta])* $name:ident ($($arg:ident),*) { $($variant:ident = $text:literal => $body:expr,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs)]
        pub enum $name { $($variant,)* }
        impl $name {
            /// All of them.
            pub const ALL: &'static [$name] = &[$($name::$variant,)*];
            /// The name in the text form.
            pub fn name(self) -> &'static str {
                match self { $($name::$variant => $text,)* }
            }
            /// The one of that name.
            pub fn from_name(name: &str) -> Option<$name> {
                match name { $($text => Some($name::$variant),)* _ => None }
            }
            /// Its value.
            pub fn apply(self $(, $arg: f64)*) -> f64 {
                match self { $($name::$variant => $body,)* }
            }
        }
    };
}

host_ops! {
    /// Host functions of one number.
    HostUnary(x) {
        Neg = "neg" => -x,
        Abs = "abs" => x.abs(),
        Exp = "exp" => x.exp(),
        Log = "log" => x.ln(),
        Sqrt = "sqrt" => x.sqrt(),
        Sin = "sin" => x.sin(),
        Cos = "cos" => x.cos(),
        Tanh = "tanh" => x.tanh(),
        Floor = "floor" => x.floor(),
        Round = "round" => x.round_ties_even(),
        Not = "not" => (x == 0.0) as u8 as f64,
    }
}

host_ops! {
    /// Host functions of two numbers.
    HostBinary(a, b) {
        Add = "add" => a + b,
        Sub = "sub" => a - b,
        Mul = "mul" => a * b,
        Div = "div" => a / b,
        IntDiv = "int_div" => (a / b).floor(),
        Rem = "rem" => a - b * (a / b).floor(),
        Pow = "pow" => a.powf(b),
        Min = "min" => a.min(b),
        Max = "max" => a.max(b),
        And = "and" => (a != 0.0 && b != 0.0) as u8 as f64,
        Or = "or" => (a != 0.0 || b != 0.0) as u8 as f64,
    }
}

impl HostExpr {
    /// A constant.
    pub fn num(value: f64) -> Arc<HostExpr> {
        Arc::new(HostExpr::Num(F64(value)))
    }

    /// Its value at a step.
    pub fn eval(&self, step: u64) -> f64 {
        match self {
            HostExpr::Num(value) => value.0,
            HostExpr::Step => step as f64,
            HostExpr::Unary(op, x) => op.apply(x.eval(step)),
            HostExpr::Binary(op, a, b) => op.apply(a.eval(step), b.eval(step)),
            HostExpr::Compare(op, a, b) => compare(*op, a.eval(step), b.eval(step)) as u8 as f64,
            HostExpr::Select(c, a, b) => {
                if c.eval(step) != 0.0 {
                    a.eval(step)
                } else {
                    b.eval(step)
                }
            }
        }
    }

    /// The value when it does not depend on the step.
    pub fn constant(&self) -> Option<f64> {
        match self {
            HostExpr::Num(value) => Some(value.0),
            _ => None,
        }
    }
}

/// A comparison of two numbers.
pub fn compare(op: CompareOp, a: f64, b: f64) -> bool {
    match op {
        CompareOp::Eq => a == b,
        CompareOp::Ne => a != b,
        CompareOp::Lt => a < b,
        CompareOp::Le => a <= b,
        CompareOp::Gt => a > b,
        CompareOp::Ge => a >= b,
    }
}
