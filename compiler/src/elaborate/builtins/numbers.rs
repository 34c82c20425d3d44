//! Built-ins on numbers and elementwise ones on tensors.

use std::rc::Rc;

use mngc_dsl::Span;

use super::Given;
use crate::elaborate::declare::finite;
use crate::elaborate::math;
use crate::elaborate::ops::{Elementwise, is_tensor};
use crate::elaborate::value::{Init, Value};
use crate::elaborate::{Elab, Res, fail, fail_help};
use crate::ir::{BinaryOp, CompareOp, DType, HostBinary, HostExpr, HostUnary, UnaryOp};

pub(super) fn unary(e: &mut Elab, g: Given) -> Res<Value> {
    let (x, span) = g.pair(0);
    if let Some(h) = math::host(&x) {
        let num = |x: f64| match math::host(&Value::num(x)) {
            Some(h) => h,
            None => h.clone(),
        };
        let again = |op, v: &Value| math::host(v).map(|h| math::unary(op, &h));
        let result = match HostUnary::from_name(g.name) {
            Some(op) => Some(math::unary(op, &h)),
            None => match g.name {
                "square" => Some(math::binary(HostBinary::Mul, &h, &h)),
                "relu" => Some(math::binary(HostBinary::Max, &h, &num(0.0))),
                "rsqrt" => {
                    let root = again(HostUnary::Sqrt, &x);
                    root.and_then(|r| math::host(&r)).map(|r| math::binary(HostBinary::Div, &num(1.0), &r))
                }
                "sign" => {
                    let positive = math::host(&math::compare(crate::ir::CompareOp::Gt, &h, &num(0.0)).as_number());
                    let negative = math::host(&math::compare(crate::ir::CompareOp::Lt, &h, &num(0.0)).as_number());
                    positive.zip(negative).map(|(p, n)| math::binary(HostBinary::Sub, &p, &n))
                }
                _ => None,
            },
        };
        return match result {
            Some(value) => Ok(value),
            None => fail("not-a-tensor", span, format!("`{}` works on tensors", g.name), x.kind()),
        };
    }
    let Some(op) = UnaryOp::from_name(g.name) else { return Err(crate::elaborate::Fail::Silent) };
    need_tensor(e, &x, span, g.name)?;
    e.elementwise(Elementwise::Unary(op), g.name, &[(x, span)], g.span)
}

fn need_tensor(e: &mut Elab, x: &Value, span: Span, name: &str) -> Res<()> {
    if is_tensor(x) {
        return Ok(());
    }
    let _ = e;
    fail_help(
        "not-a-tensor",
        span,
        format!("`{name}` works on numbers and tensors, not on {}", x.kind()),
        x.kind(),
        if matches!(x, Value::None) {
            "`x or y` gives y where x is none"
        } else {
            "pick an element, or write a comprehension: `[f(x) for x in xs]`"
        },
    )
}

pub(super) fn binary(e: &mut Elab, g: Given) -> Res<Value> {
    let (a, b) = (g.pair(0), g.pair(1));
    if let (Some(x), Some(y)) = (math::host(&a.0), math::host(&b.0)) {
        let whole = |v: &Value, span| match v {
            Value::Num(..) => e.whole(v, "an operand", span).map(Some),
            _ => Ok(None),
        };
        let mut whole = whole;
        let ints = (whole(&a.0, a.1)?, whole(&b.0, b.1)?);
        return match (g.name, ints) {
            ("div", (_, Some(0))) => fail("division-by-zero", b.1, "division by zero", "this is 0"),
            ("div", _) => Ok(math::binary(HostBinary::IntDiv, &x, &y)),
            ("xor", (Some(a), Some(b))) => Ok(Value::num((a ^ b) as f64)),
            ("shl", (Some(a), Some(b))) if (0..32).contains(&b) => Ok(Value::num((a as f64) * 2f64.powi(b as i32))),
            ("shr", (Some(a), Some(b))) if (0..64).contains(&b) => Ok(Value::num((a >> b) as f64)),
            _ => fail(
                "not-whole",
                g.span,
                format!("`{}` works on whole numbers known when the file is compiled", g.name),
                "here",
            ),
        };
    }
    let op = match g.name {
        "div" => BinaryOp::IntDiv,
        "xor" => BinaryOp::Xor,
        "shl" => BinaryOp::Shl,
        _ => BinaryOp::Shr,
    };
    for (value, span) in [&a, &b] {
        if math::host(value).is_none() {
            need_tensor(e, value, *span, g.name)?;
        }
    }
    e.elementwise(Elementwise::Binary(op), g.name, &[a, b], g.span)
}

/// `min(a, b, …)`, `max(a, b, …)`.
pub(super) fn extreme(e: &mut Elab, g: Given) -> Res<Value> {
    let (host, tensor) = match g.name {
        "min" => (HostBinary::Min, BinaryOp::Min),
        _ => (HostBinary::Max, BinaryOp::Max),
    };
    let mut all = vec![g.pair(0)];
    all.extend(if g.rest.is_empty() { vec![g.pair(1)] } else { g.rest.clone() });
    let mut best = all[0].clone();
    for next in &all[1..] {
        let value = match (math::host(&best.0), math::host(&next.0)) {
            (Some(x), Some(y)) => e.small(math::binary(host, &x, &y), g.span)?,
            _ => {
                for (value, span) in [&best, next] {
                    if math::host(value).is_none() {
                        need_tensor(e, value, *span, g.name)?;
                    }
                }
                e.elementwise(Elementwise::Binary(tensor), g.name, &[best.clone(), next.clone()], g.span)?
            }
        };
        best = (value, g.span);
    }
    Ok(best.0)
}

/// `where(condition, a, b)`.
pub(super) fn choose(e: &mut Elab, g: Given) -> Res<Value> {
    let (c, span) = g.pair(0);
    let (a, b) = (g.pair(1), g.pair(2));
    match &c {
        Value::Bool(true) => return Ok(a.0),
        Value::Bool(false) => return Ok(b.0),
        Value::Host(h) => {
            return match (math::host(&a.0), math::host(&b.0)) {
                (Some(x), Some(y)) => Ok(math::select(h, &x, &y)),
                _ => {
                    // A tensor chosen by the step: the condition becomes a scalar of the kernel.
                    let flag = e.scalar(h, span)?;
                    let mut builder = e.build(span)?;
                    let zero = builder.constant(0.0, DType::F32);
                    let flag = builder.compare(crate::ir::CompareOp::Ne, flag, zero);
                    let flag = Value::Tensor(e.staged(flag));
                    e.elementwise(Elementwise::Select, "where", &[(flag, span), a, b], g.span)
                }
            };
        }
        c if is_tensor(c) => {}
        other => {
            return fail(
                "not-a-condition",
                span,
                "the condition of `where` is true or false",
                format!("this is {}", other.kind()),
            );
        }
    }
    for (value, span) in [&a, &b] {
        if math::host(value).is_none() && !matches!(value, Value::Bool(_)) {
            need_tensor(e, value, *span, g.name)?;
        }
    }
    e.elementwise(Elementwise::Select, "where", &[(c, span), a, b], g.span)
}

pub(super) fn cast(e: &mut Elab, g: Given) -> Res<Value> {
    let (x, span) = g.pair(0);
    let (d, at) = g.get(1);
    let dtype = e.as_dtype(d, at)?;
    // Numbers have no dtype: only what it can hold of them counts.
    let number = |v: f64| match dtype {
        DType::I32 => Value::num(v.trunc()),
        DType::Bool => Value::Bool(v != 0.0),
        _ => Value::num(v),
    };
    match &x {
        Value::Num(v, _) => return Ok(number(*v)),
        Value::Bool(b) => return Ok(number(f64::from(u8::from(*b)))),
        Value::Host(h) => {
            return Ok(match dtype {
                DType::I32 => math::unary(HostUnary::Trunc, h),
                DType::Bool => math::compare(CompareOp::Ne, h, &HostExpr::num(0.0)),
                _ => x,
            });
        }
        // A slot that is cast is read as it is stored: one rounding, not two.
        Value::Param(slot) => {
            let v = e.slot_value(*slot, span)?;
            let v = e.build(span)?.cast(v, dtype);
            return Ok(Value::Tensor(e.staged(v)));
        }
        _ => need_tensor(e, &x, span, "cast")?,
    }
    let t = e.tensor(&x, span)?;
    let v = e.build(g.span)?.cast(t.v, dtype);
    Ok(Value::Tensor(e.staged(v)))
}

pub(super) fn trapezoid(e: &mut Elab, g: Given) -> Res<Value> {
    let zero = Value::num(0.0);
    let part = |i: usize| g.opt(i).map_or(&zero, |(v, _)| v);
    e.trapezoid([part(0), part(1), part(2), part(3)], g.span)
}

pub(super) fn assert(e: &mut Elab, g: Given) -> Res<Value> {
    let (c, span) = g.get(0);
    if e.truth(c, span)? {
        return Ok(Value::None);
    }
    let message = match g.opt(1) {
        Some((Value::Str(text), _)) => text.to_string(),
        _ => "this does not hold".to_string(),
    };
    fail("assert", span, message, "asserted here")
}

pub(super) fn len(e: &mut Elab, g: Given) -> Res<Value> {
    let (x, span) = g.pair(0);
    match &x {
        Value::List(items) | Value::Tuple(items) => Ok(Value::num(items.len() as f64)),
        Value::Range(a, b) => Ok(Value::num((b - a).max(0) as f64)),
        Value::Str(text) => Ok(Value::num(text.chars().count() as f64)),
        x if is_tensor(x) => match e.dims_of(x, span)?.first() {
            Some(&d) => Ok(e.size_value(d)),
            None => fail("no-axis", span, "a scalar has no length", "rank 0"),
        },
        other => fail("no-length", span, format!("{} has no length", other.kind()), other.kind()),
    }
}

fn items(value: &Value, span: Span) -> Res<Vec<Value>> {
    match value {
        Value::List(items) | Value::Tuple(items) => Ok(items.to_vec()),
        Value::Range(a, b) if b - a < 1 << 20 => Ok((*a..*b).map(|i| Value::num(i as f64)).collect()),
        other => fail("not-iterable", span, format!("{} cannot be walked", other.kind()), other.kind()),
    }
}

pub(super) fn enumerate(_: &mut Elab, g: Given) -> Res<Value> {
    let (x, span) = g.get(0);
    let pairs = items(x, span)?.into_iter().enumerate();
    Ok(Value::list(pairs.map(|(i, v)| Value::Tuple(Rc::new(vec![Value::num(i as f64), v]))).collect()))
}

pub(super) fn zip(_: &mut Elab, g: Given) -> Res<Value> {
    let mut lists = vec![g.pair(0)];
    lists.extend(if g.rest.is_empty() { vec![g.pair(1)] } else { g.rest.clone() });
    let lists = lists.iter().map(|(v, s)| items(v, *s).map(|l| (l, *s))).collect::<Res<Vec<_>>>()?;
    let n = lists[0].0.len();
    if let Some((other, span)) = lists.iter().find(|(l, _)| l.len() != n) {
        return fail(
            "wrong-length",
            *span,
            format!("`zip` of {n} and {} elements", other.len()),
            "not as long as the first",
        );
    }
    Ok(Value::list((0..n).map(|i| Value::Tuple(Rc::new(lists.iter().map(|(l, _)| l[i].clone()).collect()))).collect()))
}

/// `uniform(bound)`, `uniform(low, high)`, `normal(mean, deviation)`.
pub(super) fn distribution(_: &mut Elab, g: Given) -> Res<Value> {
    let number = |i: usize| match g.get(i) {
        (Value::Num(x, _), span) => finite(*x, &format!("what `{}` draws from", g.name), span).map(|()| *x),
        (other, span) => fail(
            "not-a-number",
            span,
            format!("`{}` takes numbers known when the file is compiled", g.name),
            other.kind(),
        ),
    };
    let first = number(0)?;
    if g.name == "normal" {
        let deviation = number(1)?;
        if deviation < 0.0 {
            return fail(
                "bad-size",
                g.get(1).1,
                "a standard deviation is not negative",
                format!("this is {deviation}"),
            );
        }
        return Ok(Value::Init(Init::Normal(first, deviation)));
    }
    let (low, high) = if g.opt(1).is_some() { (first, number(1)?) } else { (-first, first) };
    if low > high {
        let message = format!("an empty range: {low} to {high}");
        return fail_help("bad-size", g.span, message, "the lower end comes first", "`uniform(b)` draws from −b to b");
    }
    Ok(Value::Init(Init::Uniform(low, high)))
}
