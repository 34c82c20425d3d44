//! Expressions over the step that the host computes: learning rates, momenta, windows.

use std::sync::Arc;

use super::op::{CompareOp, F64};

/// A number known once the step is: computed in f64 on the host before each step.
///
/// Parts may be shared, but count as often as they stand: a walk takes [`HostExpr::nodes`] steps and goes
/// [`HostExpr::depth`] deep. Programs keep both within [`MAX_NODES`] and [`MAX_DEPTH`], so that every walk is short.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostExpr {
    kind: HostKind,
    nodes: usize,
    depth: usize,
}

/// Operations of one host scalar.
pub const MAX_NODES: usize = 4096;
/// Operations inside each other of one host scalar.
pub const MAX_DEPTH: usize = 1000;

/// What a [`HostExpr`] is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostKind {
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
        Trunc = "trunc" => x.trunc(),
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
    /// An expression.
    pub fn new(kind: HostKind) -> Arc<HostExpr> {
        let parts: &[&Arc<HostExpr>] = match &kind {
            HostKind::Num(_) | HostKind::Step => &[],
            HostKind::Unary(_, x) => &[x],
            HostKind::Binary(_, a, b) | HostKind::Compare(_, a, b) => &[a, b],
            HostKind::Select(c, a, b) => &[c, a, b],
        };
        let nodes = parts.iter().fold(1usize, |n, part| n.saturating_add(part.nodes));
        let depth = 1 + parts.iter().map(|part| part.depth).max().unwrap_or(0);
        Arc::new(HostExpr { kind, nodes, depth })
    }

    /// A constant.
    pub fn num(value: f64) -> Arc<HostExpr> {
        HostExpr::new(HostKind::Num(F64(value)))
    }

    /// What it is.
    pub fn kind(&self) -> &HostKind {
        &self.kind
    }

    /// Operations, constants and `step`s of the whole expression, each counted as often as it stands in it; saturates.
    pub fn nodes(&self) -> usize {
        self.nodes
    }

    /// Operations inside each other, the innermost constant or `step` included.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Whether a program may hold it.
    pub fn is_small(&self) -> bool {
        self.nodes <= MAX_NODES && self.depth <= MAX_DEPTH
    }

    /// Whether it is 1 or 0 as something holds or not: a comparison, or conditions joined.
    pub fn is_condition(&self) -> bool {
        match &self.kind {
            HostKind::Compare(..)
            | HostKind::Unary(HostUnary::Not, _)
            | HostKind::Binary(HostBinary::And | HostBinary::Or, ..) => true,
            HostKind::Num(_) | HostKind::Step | HostKind::Unary(..) | HostKind::Binary(..) | HostKind::Select(..) => {
                false
            }
        }
    }

    /// Its value at a step.
    pub fn eval(&self, step: u64) -> f64 {
        match &self.kind {
            HostKind::Num(value) => value.0,
            HostKind::Step => step as f64,
            HostKind::Unary(op, x) => op.apply(x.eval(step)),
            HostKind::Binary(op, a, b) => op.apply(a.eval(step), b.eval(step)),
            HostKind::Compare(op, a, b) => compare(*op, a.eval(step), b.eval(step)) as u8 as f64,
            HostKind::Select(c, a, b) => {
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
        match self.kind {
            HostKind::Num(value) => Some(value.0),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_parts_count_as_often_as_they_stand() {
        let mut e = HostExpr::new(HostKind::Step);
        for depth in 2..=12 {
            e = HostExpr::new(HostKind::Binary(HostBinary::Add, e.clone(), e));
            assert_eq!((e.nodes(), e.depth()), ((1 << depth) - 1, depth));
        }
        assert!(e.is_small());
        let e = HostExpr::new(HostKind::Unary(
            HostUnary::Neg,
            HostExpr::new(HostKind::Binary(HostBinary::Add, e.clone(), e)),
        ));
        assert!(!e.is_small(), "{} nodes", e.nodes());
    }

    #[test]
    fn the_count_saturates() {
        let mut e = HostExpr::new(HostKind::Step);
        for _ in 0..100 {
            e = HostExpr::new(HostKind::Binary(HostBinary::Mul, e.clone(), e));
        }
        assert_eq!(e.nodes(), usize::MAX);
    }
}
