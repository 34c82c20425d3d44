//! Operators on values, and elementwise functions of tensors with broadcasting.

use std::rc::Rc;

use mngc_dsl::{Span, ast};

use super::math;
use super::value::{Mask, Tensor, Value};
use super::{Elab, Fail, Res, fail, fail_help};
use crate::ir::{self, BinaryOp, CompareOp, DType, Dim, HostBinary, HostUnary, Op, Type, UnaryOp};

/// An elementwise function.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Elementwise {
    Unary(UnaryOp),
    Binary(BinaryOp),
    Compare(CompareOp),
    Select,
}

impl Elab {
    /// `a op b` of expressions: `and` and `or` look at b only where it matters.
    pub fn eval_binary(&mut self, op: ast::BinaryOp, a: &ast::Expr, b: &ast::Expr, span: Span) -> Res<Value> {
        let left = self.eval(a)?;
        match op {
            ast::BinaryOp::Or => {
                return match left {
                    Value::None | Value::Bool(false) => self.eval(b),
                    Value::Bool(true) | Value::Param(_) | Value::Fill(..) | Value::List(_) | Value::Instance(_) => {
                        Ok(left)
                    }
                    Value::Tensor(t) if self.ty(t).dtype != DType::Bool => Ok(left),
                    Value::Host(_) => self.host_logic(HostBinary::Or, left, b),
                    Value::Tensor(_) => self.bad_logic("or", "|", a.span),
                    other => fail(
                        "not-a-condition",
                        a.span,
                        "`or` joins conditions, or a value that may be none with another",
                        other.kind(),
                    ),
                };
            }
            ast::BinaryOp::And => {
                return match left {
                    Value::Bool(false) => Ok(left),
                    Value::Bool(true) => self.eval(b),
                    Value::Host(_) => self.host_logic(HostBinary::And, left, b),
                    Value::Tensor(_) => self.bad_logic("and", "&", a.span),
                    other => fail("not-a-condition", a.span, "`and` joins conditions", other.kind()),
                };
            }
            _ => {}
        }
        let right = self.eval(b)?;
        self.binary_operator(op, (left, a.span), (right, b.span), span)
    }

    fn host_logic(&mut self, op: HostBinary, left: Value, b: &ast::Expr) -> Res<Value> {
        let right = match self.eval(b)? {
            Value::Bool(x) => Value::num(f64::from(u8::from(x))),
            other => other,
        };
        match (math::host(&left), math::host(&right)) {
            (Some(x), Some(y)) => Ok(math::binary(op, &x, &y)),
            _ => fail("not-a-condition", b.span, format!("`{}` joins conditions", op.name()), right.kind()),
        }
    }

    fn bad_logic(&mut self, word: &str, sign: &str, span: Span) -> Res<Value> {
        fail_help(
            "tensor-condition",
            span,
            format!("`{word}` joins conditions that are known when the file is compiled"),
            "this is a tensor",
            format!("`{sign}` joins two tensors of truth values element by element"),
        )
    }

    fn binary_operator(&mut self, op: ast::BinaryOp, a: (Value, Span), b: (Value, Span), span: Span) -> Res<Value> {
        use ast::BinaryOp as B;
        if op == B::MatMul {
            let (x, y) = (self.operand(&a.0, a.1, "@")?, self.operand(&b.0, b.1, "@")?);
            return self.matmul(x, y, span);
        }
        if let (Some(x), Some(y)) = (math::host(&a.0), math::host(&b.0)) {
            let op = match op {
                B::Add => HostBinary::Add,
                B::Sub => HostBinary::Sub,
                B::Mul => HostBinary::Mul,
                B::Div => HostBinary::Div,
                B::Rem => HostBinary::Rem,
                B::Pow => HostBinary::Pow,
                B::Eq => return Ok(math::compare(CompareOp::Eq, &x, &y)),
                B::Ne => return Ok(math::compare(CompareOp::Ne, &x, &y)),
                B::Lt => return Ok(math::compare(CompareOp::Lt, &x, &y)),
                B::Le => return Ok(math::compare(CompareOp::Le, &x, &y)),
                B::Gt => return Ok(math::compare(CompareOp::Gt, &x, &y)),
                B::Ge => return Ok(math::compare(CompareOp::Ge, &x, &y)),
                _ => {
                    return fail_help(
                        "operator",
                        span,
                        "`&` and `|` join masks or tensors",
                        "numbers here",
                        "`and` and `or` join conditions",
                    );
                }
            };
            return Ok(math::binary(op, &x, &y));
        }
        if is_tensor(&a.0) || is_tensor(&b.0) {
            if let (B::Eq | B::Ne, true) = (op, matches!(a.0, Value::None) || matches!(b.0, Value::None)) {
                return Ok(Value::Bool(op == B::Ne));
            }
            return self.tensor_operator(op, a, b, span);
        }
        match (op, &a.0, &b.0) {
            (_, Value::Poison, _) | (_, _, Value::Poison) => Err(Fail::Silent),
            (B::BitAnd, Value::Mask(x), Value::Mask(y)) => self.join_masks(x, y, span),
            (B::BitOr, Value::Mask(_), _) => fail_help(
                "operator",
                span,
                "masks are joined by `&` only",
                "`|` of masks",
                "a key must pass every part of a mask",
            ),
            (B::Add, Value::List(x), Value::List(y)) => {
                self.checked_length(x.len() + y.len(), span)?;
                Ok(Value::list([&x[..], &y[..]].concat()))
            }
            (B::Add, Value::Str(x), Value::Str(y)) => {
                self.checked_length(x.len() + y.len(), span)?;
                Ok(Value::Str(format!("{x}{y}").into()))
            }
            (B::Eq | B::Ne, x, y) => match equal(x, y) {
                Some(same) => Ok(Value::Bool(same == (op == B::Eq))),
                None => fail("operator", span, format!("{} and {} cannot be compared", x.kind(), y.kind()), "here"),
            },
            (_, x, y) => {
                let help = if matches!(x, Value::None) || matches!(y, Value::None) {
                    "`x or y` gives y where x is none"
                } else {
                    "operators work on numbers and tensors"
                };
                let message = format!("`{}` does not work on {} and {}", sign(op), x.kind(), y.kind());
                fail_help("operator", span, message, "here", help)
            }
        }
    }

    fn join_masks(&mut self, a: &Mask, b: &Mask, span: Span) -> Res<Value> {
        if a.documents.is_some() && b.documents.is_some() || a.window.is_some() && b.window.is_some() {
            return fail("mask", span, "a mask has one `same(…)` and one `within(…)` at most", "two of a kind");
        }
        Ok(Value::Mask(Rc::new(Mask {
            causal: a.causal || b.causal,
            documents: a.documents.or(b.documents),
            window: a.window.clone().or_else(|| b.window.clone()),
        })))
    }

    fn tensor_operator(&mut self, op: ast::BinaryOp, a: (Value, Span), b: (Value, Span), span: Span) -> Res<Value> {
        use ast::BinaryOp as B;
        let f = match op {
            B::Add => Elementwise::Binary(BinaryOp::Add),
            B::Sub => Elementwise::Binary(BinaryOp::Sub),
            B::Mul => Elementwise::Binary(BinaryOp::Mul),
            B::Div => Elementwise::Binary(BinaryOp::Div),
            B::Rem => Elementwise::Binary(BinaryOp::Rem),
            B::BitAnd => Elementwise::Binary(BinaryOp::And),
            B::BitOr => Elementwise::Binary(BinaryOp::Or),
            B::Pow => match &b.0 {
                Value::Num(2.0, _) => return self.elementwise(Elementwise::Unary(UnaryOp::Square), "^", &[a], span),
                _ => Elementwise::Binary(BinaryOp::Pow),
            },
            B::Eq => Elementwise::Compare(CompareOp::Eq),
            B::Ne => Elementwise::Compare(CompareOp::Ne),
            B::Lt => Elementwise::Compare(CompareOp::Lt),
            B::Le => Elementwise::Compare(CompareOp::Le),
            B::Gt => Elementwise::Compare(CompareOp::Gt),
            B::Ge => Elementwise::Compare(CompareOp::Ge),
            B::Or | B::And | B::MatMul => return fail("operator", span, "not an elementwise operator", "here"),
        };
        self.elementwise(f, sign(op), &[a, b], span)
    }

    /// `-x`, `not x`.
    pub fn unary_operator(&mut self, op: ast::UnaryOp, x: Value, span: Span) -> Res<Value> {
        match (op, &x) {
            (_, Value::Poison) => Err(Fail::Silent),
            (ast::UnaryOp::Not, Value::Bool(b)) => Ok(Value::Bool(!b)),
            (ast::UnaryOp::Not, Value::None) => Ok(Value::Bool(true)),
            (ast::UnaryOp::Not, Value::Host(e)) => Ok(math::unary(HostUnary::Not, e)),
            (ast::UnaryOp::Neg, Value::Num(..) | Value::Host(_)) => match math::host(&x) {
                Some(e) => Ok(math::unary(HostUnary::Neg, &e)),
                None => Err(Fail::Silent),
            },
            (_, x) if is_tensor(x) => {
                let f = if op == ast::UnaryOp::Neg { UnaryOp::Neg } else { UnaryOp::Not };
                let name = if op == ast::UnaryOp::Neg { "-" } else { "not" };
                self.elementwise(Elementwise::Unary(f), name, &[(x.clone(), span)], span)
            }
            (_, x) => {
                let sign = if op == ast::UnaryOp::Neg { "-" } else { "not" };
                fail("operator", span, format!("`{sign}` does not work on {}", x.kind()), x.kind())
            }
        }
    }

    /// An operand that must be a tensor.
    fn operand(&mut self, value: &Value, span: Span, what: &str) -> Res<Tensor> {
        match value {
            Value::Num(..) | Value::Host(_) => fail_help(
                "not-a-tensor",
                span,
                format!("`{what}` multiplies matrices, and this is {}", value.kind()),
                value.kind(),
                "`*` multiplies by a number",
            ),
            other => self.tensor(other, span),
        }
    }

    /// An elementwise function of tensors and numbers, at least one of them a tensor. Numbers have no dtype of their own.
    pub fn elementwise(&mut self, f: Elementwise, name: &str, args: &[(Value, Span)], span: Span) -> Res<Value> {
        let mut staged: Vec<Option<(Tensor, Type)>> = Vec::with_capacity(args.len());
        for (value, at) in args {
            staged.push(match value {
                Value::Num(..) | Value::Host(_) | Value::Bool(_) => None,
                other => {
                    let t = self.tensor(other, *at)?;
                    let ty = self.ty(t);
                    Some((t, ty))
                }
            });
        }
        // The condition of `where` has a kind of its own.
        let first = usize::from(matches!(f, Elementwise::Select));
        let mut dtype: Option<DType> = None;
        for ((_, ty), (_, at)) in staged.iter().zip(args).skip(first).filter_map(|(s, a)| s.as_ref().map(|s| (s, a))) {
            dtype = Some(match dtype {
                None => ty.dtype,
                Some(d) if d.is_float() && ty.dtype.is_float() => d.wider(ty.dtype),
                Some(d) if d == ty.dtype => d,
                Some(d) => {
                    return fail_help(
                        "dtype",
                        *at,
                        format!("`{name}` of {d} and {}", ty.dtype),
                        format!("this is {}", self.show(ty)),
                        "`cast(x, dtype)` turns one into the other",
                    );
                }
            });
        }
        let dtype = match dtype {
            Some(d) => d,
            // Numbers chosen by a tensor of truth values.
            None => self.frame(span)?.compute,
        };
        self.check_kind(f, name, dtype, span)?;
        let mut values = Vec::with_capacity(args.len());
        for (i, ((value, at), t)) in args.iter().zip(&staged).enumerate() {
            values.push(match t {
                Some((t, ty)) => {
                    if i < first && ty.dtype != DType::Bool {
                        return fail_help(
                            "dtype",
                            *at,
                            "the condition of `where` is a tensor of truth values",
                            format!("this is {}", self.show(ty)),
                            "a comparison makes one: `x > 0`",
                        );
                    }
                    t.v
                }
                None => self.number(value, if i < first { DType::Bool } else { dtype }, *at)?,
            });
        }
        let values = self.align(&values, name, span)?;
        let wide = values.iter().find(|v| self.rank(**v) > 0).or(values.first()).copied().ok_or(Fail::Silent)?;
        let shape = self.ty(self.staged_ref(wide)).dims;
        let shape = self.checked_shape(shape, span)?;
        let (op, out) = match f {
            Elementwise::Unary(f) => (Op::Unary(f), dtype),
            Elementwise::Binary(f) => (Op::Binary(f), dtype),
            Elementwise::Compare(f) => (Op::Compare(f), DType::Bool),
            Elementwise::Select => (Op::Select, dtype),
        };
        let v = self.build(span)?.push1(op, values, Type::new(out, shape));
        Ok(Value::Tensor(self.staged(v)))
    }

    fn staged_ref(&self, v: ir::Value) -> Tensor {
        Tensor { v, frame: self.frames.last().map_or(0, |f| f.id), storage: None }
    }

    fn rank(&self, v: ir::Value) -> usize {
        self.ty(self.staged_ref(v)).rank()
    }

    /// Whether a function takes this dtype.
    fn check_kind(&mut self, f: Elementwise, name: &str, dtype: DType, span: Span) -> Res<()> {
        use BinaryOp as B;
        use UnaryOp as U;
        let (float, int, boolean) = match f {
            Elementwise::Unary(U::Not) => (false, false, true),
            Elementwise::Unary(U::Neg | U::Abs | U::Sign) => (true, true, false),
            Elementwise::Unary(_) => (true, false, false),
            Elementwise::Binary(B::Add | B::Sub | B::Mul | B::Max | B::Min | B::Rem) => (true, true, false),
            Elementwise::Binary(B::Div | B::Pow) => (true, false, false),
            Elementwise::Binary(B::IntDiv | B::Shl | B::Shr) => (false, true, false),
            Elementwise::Binary(B::And | B::Or | B::Xor) => (false, true, true),
            Elementwise::Compare(_) => (true, true, false),
            Elementwise::Select => (true, true, true),
        };
        let ok = match dtype {
            DType::I32 => int,
            DType::Bool => boolean,
            _ => float,
        };
        if ok {
            return Ok(());
        }
        let help = match (name, dtype) {
            ("/", DType::I32) => "`div(a, b)` divides whole numbers, `cast(x, f32)` makes floats of them",
            (_, DType::I32) => "`cast(x, f32)` makes floats of whole numbers",
            _ if boolean && !int => "a comparison such as `x > 0` makes truth values",
            (_, DType::Bool) => "`where(x, 1, 0)` makes numbers of truth values",
            ("not" | "&" | "|" | "xor", _) => "a comparison makes truth values, `x > 0`; `cast(x, i32)` whole numbers",
            _ => "`cast(x, i32)` makes whole numbers of floats",
        };
        fail_help("dtype", span, format!("`{name}` does not work on {dtype}"), format!("{dtype} here"), help)
    }

    /// A number beside tensors of a dtype.
    fn number(&mut self, value: &Value, dtype: DType, span: Span) -> Res<ir::Value> {
        match (value, dtype) {
            (Value::Bool(b), DType::Bool) => Ok(self.build(span)?.constant(f64::from(u8::from(*b)), DType::Bool)),
            (Value::Num(x, _), DType::I32) => {
                if x.fract() == 0.0 && x.abs() <= f64::from(i32::MAX) {
                    return Ok(self.build(span)?.constant(*x, DType::I32));
                }
                fail_help(
                    "dtype",
                    span,
                    format!("{x} beside a tensor of i32"),
                    "no i32",
                    "`cast(x, f32)` makes floats of whole numbers",
                )
            }
            (Value::Num(x, _), d) if d.is_float() => Ok(self.build(span)?.constant(*x, DType::F32)),
            (Value::Host(e), d) if d.is_float() => {
                let e = e.clone();
                self.scalar(&e, span)
            }
            (other, d) => fail("dtype", span, format!("{} beside a tensor of {d}", other.kind()), "does not fit"),
        }
    }

    /// Brings tensors to one shape: axes are matched from the last one, an axis of size 1 is repeated. Scalars stay.
    pub fn align(&mut self, values: &[ir::Value], name: &str, span: Span) -> Res<Vec<ir::Value>> {
        let shapes: Vec<Vec<Dim>> = values.iter().map(|&v| self.ty(self.staged_ref(v)).dims).collect();
        let rank = shapes.iter().map(Vec::len).max().unwrap_or(0);
        let mut out: Vec<Option<Dim>> = vec![None; rank];
        for shape in &shapes {
            for (i, &d) in shape.iter().rev().enumerate() {
                let place = &mut out[rank - 1 - i];
                *place = Some(match *place {
                    None => d,
                    Some(old) if self.m.dims.compatible(old, d) => self.better(old, d),
                    Some(old) if self.m.dims.size(d) == 1 && self.m.dims.role(d) == ir::DimRole::Feature => old,
                    Some(old) if self.m.dims.size(old) == 1 && self.m.dims.role(old) == ir::DimRole::Feature => d,
                    Some(_) => return self.mismatch(&shapes, name, span),
                });
            }
        }
        let dims: Vec<Dim> = out.into_iter().flatten().collect();
        let mut aligned = Vec::with_capacity(values.len());
        for (&v, shape) in values.iter().zip(&shapes) {
            aligned.push(if shape.is_empty() { v } else { self.spread_to(v, shape, &dims, span)? });
        }
        Ok(aligned)
    }

    /// Of two compatible axes the one with a name.
    fn better(&self, a: Dim, b: Dim) -> Dim {
        let bare = |d: Dim| self.m.dims.name(d).starts_with(|c: char| c.is_ascii_digit());
        if bare(a) && !bare(b) { b } else { a }
    }

    fn mismatch<T>(&mut self, shapes: &[Vec<Dim>], name: &str, span: Span) -> Res<T> {
        let shown: Vec<String> = shapes.iter().filter(|s| !s.is_empty()).map(|s| self.show_dims(s)).collect();
        let token = |s: &Vec<Dim>| self.token_position(s) == Some(s.len().saturating_sub(1));
        let help = if shapes.iter().any(|s| s.len() == 1 && token(s)) {
            "axes are matched from the last one: to scale each position write `x * s.reshape(T, 1)`"
        } else {
            "axes are matched from the last one; an axis of size 1 is repeated"
        };
        fail_help(
            "axes",
            span,
            format!("the axes of `{name}` do not fit: {}", shown.join(" and ")),
            "these shapes",
            help,
        )
    }

    /// A tensor repeated to a wider shape.
    fn spread_to(&mut self, v: ir::Value, shape: &[Dim], dims: &[Dim], span: Span) -> Res<ir::Value> {
        if self.m.dims.same_shape(shape, dims) {
            return Ok(v);
        }
        let before = dims.len() - shape.len();
        let kept: Vec<usize> =
            (0..shape.len()).filter(|&i| self.m.dims.compatible(shape[i], dims[before + i])).collect();
        let left: Vec<Dim> = kept.iter().map(|&i| shape[i]).collect();
        let axes: Vec<u8> = kept.iter().map(|&i| (before + i) as u8).collect();
        let dims = self.checked_shape(dims.to_vec(), span)?;
        let mut b = self.build(span)?;
        let flat = b.reshape(v, &left);
        Ok(b.broadcast(flat, &axes, &dims))
    }
}

/// Whether a value is a tensor.
pub(crate) fn is_tensor(value: &Value) -> bool {
    matches!(value, Value::Tensor(_) | Value::Param(_) | Value::Fill(..))
}

/// Whether two compile-time values are equal; none where that has no meaning.
fn equal(a: &Value, b: &Value) -> Option<bool> {
    Some(match (a, b) {
        (Value::Num(x, _), Value::Num(y, _)) => x == y,
        (Value::Bool(x), Value::Bool(y)) => x == y,
        (Value::Str(x), Value::Str(y)) => x == y,
        (Value::DType(x), Value::DType(y)) => x == y,
        (Value::None, Value::None) => true,
        (Value::None, _) | (_, Value::None) => false,
        (Value::List(x) | Value::Tuple(x), Value::List(y) | Value::Tuple(y)) => {
            x.len() == y.len() && x.iter().zip(y.iter()).all(|(x, y)| equal(x, y) == Some(true))
        }
        _ => return None,
    })
}

/// An operator as it is written.
fn sign(op: ast::BinaryOp) -> &'static str {
    use ast::BinaryOp as B;
    match op {
        B::Or => "or",
        B::And => "and",
        B::Eq => "==",
        B::Ne => "!=",
        B::Lt => "<",
        B::Le => "<=",
        B::Gt => ">",
        B::Ge => ">=",
        B::BitOr => "|",
        B::BitAnd => "&",
        B::Add => "+",
        B::Sub => "-",
        B::Mul => "*",
        B::Div => "/",
        B::Rem => "%",
        B::MatMul => "@",
        B::Pow => "^",
    }
}
