//! Built-ins that move, count and fold elements.

use mngc_dsl::Span;

use super::Given;
use crate::elaborate::call::Args;
use crate::elaborate::value::{Tensor, Value};
use crate::elaborate::{Elab, Res, fail, fail_help};
use crate::ir::{DType, Dim, DimRole, Op, ReduceKind, Type};

/// The axis parameter, or its default.
fn axis(e: &mut Elab, g: &Given, i: usize, default: i64, dims: &[Dim]) -> Res<u8> {
    let (value, span) = match g.opt(i) {
        Some((v, s)) => (v.clone(), s),
        None => (Value::num(default as f64), g.span),
    };
    e.axis(&value, dims, span)
}

/// Several values, or the elements of one list.
fn spread(rest: &[(Value, Span)]) -> Vec<(Value, Span)> {
    match rest {
        [(Value::List(items) | Value::Tuple(items), span)] => items.iter().map(|v| (v.clone(), *span)).collect(),
        other => other.to_vec(),
    }
}

fn rest(g: &Given, i: usize) -> Vec<(Value, Span)> {
    if g.rest.is_empty() {
        g.opt(i).map(|(v, s)| spread(&[(v.clone(), s)])).unwrap_or_default()
    } else {
        spread(&g.rest)
    }
}

impl Elab {
    /// `x.t`: the last two axes change places.
    pub fn swap_last(&mut self, t: Tensor, span: Span) -> Res<Value> {
        let rank = self.ty(t).rank();
        if rank < 2 {
            let shown = self.show(&self.ty(t));
            return fail("axes", span, "`.t` swaps the last two axes", format!("this is {shown}"));
        }
        let mut perm: Vec<u8> = (0..rank as u8).collect();
        perm.swap(rank - 1, rank - 2);
        let v = self.build(span)?.transpose(t.v, &perm);
        Ok(Value::Tensor(self.staged(v)))
    }

    /// `zeros(2, 3)`, `ones(n)`: a tensor of the compute dtype.
    pub fn filled(&mut self, x: f64, args: Args) -> Res<Value> {
        let list: Vec<(Value, Span)> = args.list.into_iter().map(|(_, v, s)| (v, s)).collect();
        let mut dims = Vec::new();
        for (value, span) in spread(&list) {
            dims.push(self.dim_of(&value, "a size", span)?);
        }
        let dims = self.checked_shape(dims, args.span)?;
        let dtype = self.frame(args.span)?.compute;
        Ok(Value::Fill(Type::new(dtype, dims), x))
    }
}

pub(super) fn full(e: &mut Elab, g: Given) -> Res<Value> {
    let (value, span) = g.get(0);
    let Value::Num(x, _) = value else {
        return fail("not-a-number", span, "`full` takes a number known when the file is compiled", value.kind());
    };
    let x = *x;
    let list = rest(&g, 1).into_iter().map(|(v, s)| (None, v, s)).collect();
    e.filled(x, Args { list, span: g.span })
}

/// `zeros_like(x)`: axes and dtype of x; of a parameter the dtype that it is stored in.
pub(super) fn like(e: &mut Elab, g: Given) -> Res<Value> {
    let (x, span) = g.pair(0);
    let fill = if g.name == "ones_like" { 1.0 } else { 0.0 };
    Ok(match &x {
        Value::Param(slot) => Value::Fill(e.m.slots[*slot].ty.clone(), fill),
        other => {
            let t = e.tensor(other, span)?;
            let ty = e.ty(t);
            Value::Fill(ty.with_dtype(t.storage.unwrap_or(ty.dtype)), fill)
        }
    })
}

/// Positions 0, 1, 2 … as i32.
pub(super) fn arange(e: &mut Elab, g: Given) -> Res<Value> {
    let (n, span) = g.pair(0);
    let dim = e.dim_of(&n, "the length of `arange`", span)?;
    let v = e.build(g.span)?.push1(Op::Iota { axis: 0 }, vec![], Type::new(DType::I32, [dim]));
    Ok(Value::Tensor(e.staged(v)))
}

fn matrix_axis(e: &mut Elab, g: &Given, from_end: usize) -> Res<Value> {
    let (x, span) = g.pair(0);
    let dims = e.dims_of(&x, span)?;
    if dims.len() < 2 {
        let message = format!("`{}` asks for a matrix", g.name);
        return fail("axes", span, message, format!("this is {}", e.show_dims(&dims)));
    }
    Ok(e.size_value(dims[dims.len() - from_end]))
}

pub(super) fn rows(e: &mut Elab, g: Given) -> Res<Value> {
    matrix_axis(e, &g, 2)
}

pub(super) fn cols(e: &mut Elab, g: Given) -> Res<Value> {
    matrix_axis(e, &g, 1)
}

pub(super) fn cumsum(e: &mut Elab, g: Given) -> Res<Value> {
    let (x, span) = g.pair(0);
    let t = e.tensor(&x, span)?;
    let ty = e.ty(t);
    let axis = axis(e, &g, 1, 0, &ty.dims)?;
    // Truth values are counted.
    let dtype = if ty.dtype == DType::Bool { DType::I32 } else { ty.dtype };
    let mut b = e.build(g.span)?;
    let x = b.cast(t.v, dtype);
    let v = b.push1(Op::Cumsum { axis, reverse: false }, vec![x], ty.with_dtype(dtype));
    Ok(Value::Tensor(e.staged(v)))
}

/// `shift(x, by, axis = 0)`: y[t] = x[t − by], zeros where that is outside. It does not stop at documents.
pub(super) fn shift(e: &mut Elab, g: Given) -> Res<Value> {
    let (x, span) = g.pair(0);
    let t = e.tensor(&x, span)?;
    let ty = e.ty(t);
    let (by, at) = g.pair(1);
    let by = e.whole(&by, "a shift", at)?;
    let axis = axis(e, &g, 2, 0, &ty.dims)?;
    let v = e.build(g.span)?.push1(Op::Shift { axis, by }, vec![t.v], ty);
    Ok(Value::Tensor(e.staged(v)))
}

pub(super) fn reverse(e: &mut Elab, g: Given) -> Res<Value> {
    let (x, span) = g.pair(0);
    let t = e.tensor(&x, span)?;
    let ty = e.ty(t);
    let axis = axis(e, &g, 1, 0, &ty.dims)?;
    let v = e.build(g.span)?.push1(Op::Reverse { axis }, vec![t.v], ty);
    Ok(Value::Tensor(e.staged(v)))
}

/// `concat([a, b], axis = −1)`.
pub(super) fn concat(e: &mut Elab, g: Given) -> Res<Value> {
    let (list, span) = g.pair(0);
    let (Value::List(items) | Value::Tuple(items)) = &list else {
        return fail("not-a-list", span, "`concat` takes a list of tensors", list.kind());
    };
    let mut tensors = Vec::new();
    for item in items.iter() {
        tensors.push(e.tensor(item, span)?);
    }
    let Some(&first) = tensors.first() else {
        return fail("empty-list", span, "`concat` of nothing", "an empty list");
    };
    let ty = e.ty(first);
    let axis = axis(e, &g, 1, -1, &ty.dims)? as usize;
    let mut total = 0usize;
    let mut dtype = ty.dtype;
    for &t in &tensors {
        let other = e.ty(t);
        let same_kind = other.dtype == dtype || other.dtype.is_float() && dtype.is_float();
        let fits = other.rank() == ty.rank()
            && (0..ty.rank()).all(|i| i == axis || e.m.dims.compatible(other.dims[i], ty.dims[i]));
        if !fits || !same_kind {
            let message = format!("`concat` of {} and {}", e.show(&ty), e.show(&other));
            return fail("axes", span, message, "only the joined axis may differ");
        }
        e.features(other.dims[axis], span)?;
        total = total.saturating_add(e.m.dims.size(other.dims[axis]));
        if dtype.is_float() {
            dtype = dtype.wider(other.dtype);
        }
    }
    let joined = e.dim_of(&Value::num(total as f64), "a joined axis", span)?;
    let mut dims = ty.dims.clone();
    dims[axis] = joined;
    let dims = e.checked_shape(dims, span)?;
    let mut b = e.build(g.span)?;
    let args = tensors.iter().map(|t| b.cast(t.v, dtype)).collect();
    let v = b.push1(Op::Concat { axis: axis as u8 }, args, Type::new(dtype, dims));
    Ok(Value::Tensor(e.staged(v)))
}

/// `split(x, n, axis = −1)`: n equal parts; a list of sizes gives parts of those sizes.
pub(super) fn split(e: &mut Elab, g: Given) -> Res<Value> {
    let (x, span) = g.pair(0);
    let t = e.tensor(&x, span)?;
    let dims = e.ty(t).dims;
    let axis = axis(e, &g, 2, -1, &dims)? as usize;
    e.features(dims[axis], g.span)?;
    let size = e.m.dims.size(dims[axis]) as i64;
    let (n, at) = g.pair(1);
    let sizes: Vec<Value> = match &n {
        Value::List(items) | Value::Tuple(items) => items.to_vec(),
        n => {
            let parts = e.whole(n, "the number of parts", at)?;
            if parts < 1 || size % parts != 0 {
                let message = format!("an axis of {size} cannot be split in {parts} equal parts");
                return fail_help(
                    "divisibility",
                    at,
                    message,
                    "does not divide it",
                    "a list of sizes gives unequal parts",
                );
            }
            // Parts as large as a named axis carry no name: they are other features.
            vec![Value::num((size / parts) as f64); parts as usize]
        }
    };
    let mut parts = Vec::new();
    let mut start = 0;
    for value in &sizes {
        let dim = e.dim_of(value, "a part", at)?;
        let end = start + e.m.dims.size(dim);
        if end as i64 > size || e.m.dims.role(dim) != DimRole::Feature {
            return fail("divisibility", at, format!("the parts are more than the axis of {size}"), "too much");
        }
        let v = e.build(g.span)?.slice(t.v, axis, start, dim);
        parts.push(Value::Tensor(e.staged(v)));
        start = end;
    }
    if start as i64 != size {
        return fail("divisibility", at, format!("the parts are {start} of an axis of {size}"), "too little");
    }
    Ok(Value::list(parts))
}

pub(super) fn transpose(e: &mut Elab, g: Given) -> Res<Value> {
    let (x, span) = g.pair(0);
    let t = e.tensor(&x, span)?;
    let dims = e.ty(t).dims;
    let mut perm = Vec::new();
    for (value, at) in rest(&g, 1) {
        perm.push(e.axis(&value, &dims, at)?);
    }
    let mut sorted = perm.clone();
    sorted.sort_unstable();
    if sorted.len() != dims.len() || sorted.iter().enumerate().any(|(i, &p)| i != p as usize) {
        let message = format!("`transpose` needs each of the {} axes once", dims.len());
        return fail("axes", g.span, message, format!("axes of {}", e.show_dims(&dims)));
    }
    let v = e.build(g.span)?.transpose(t.v, &perm);
    Ok(Value::Tensor(e.staged(v)))
}

pub(super) fn reshape(e: &mut Elab, g: Given) -> Res<Value> {
    let (x, span) = g.pair(0);
    let t = e.tensor(&x, span)?;
    let from = e.ty(t).dims;
    let mut to = Vec::new();
    for (value, at) in rest(&g, 1) {
        to.push(e.dim_of(&value, "a size", at)?);
    }
    let to = e.checked_shape(to, g.span)?;
    let (n, m) = (e.m.dims.elements(&from), e.m.dims.elements(&to));
    if n != m {
        let message = format!("{} cannot become {}: {n} elements are not {m}", e.show_dims(&from), e.show_dims(&to));
        let help = match (to.split_last(), n) {
            (Some((&last, before)), n) if before.len() >= 2 => {
                let rest = e.m.dims.elements(before);
                if n % rest == 0 {
                    format!("the last size would have to be {}, not {}", n / rest, e.m.dims.size(last))
                } else {
                    let row = n / from.first().map_or(1, |&d| e.m.dims.size(d));
                    let part = rest / to.first().map_or(1, |&d| e.m.dims.size(d));
                    format!("{row} is not a multiple of {part}: choose a size that {part} divides")
                }
            }
            _ => "the product of the sizes must stay".to_string(),
        };
        return fail_help("divisibility", g.span, message, "here", help);
    }
    let fixed = |dims: &[Dim]| -> Vec<(Dim, usize)> {
        let at = |i: usize| (dims[i], e.m.dims.elements(&dims[..i]));
        (0..dims.len()).filter(|&i| e.m.dims.role(dims[i]) != DimRole::Feature).map(at).collect()
    };
    if fixed(&from) != fixed(&to) {
        let message = format!("{} cannot become {}", e.show_dims(&from), e.show_dims(&to));
        return fail_help(
            "axes",
            g.span,
            message,
            "breaks up the sequence",
            "the axis T must stay an axis of its own, with the same axes before it",
        );
    }
    let v = e.build(g.span)?.reshape(t.v, &to);
    Ok(Value::Tensor(Tensor { storage: t.storage, ..e.staged(v) }))
}

/// `sum`, `mean`, `amax`, `amin`, `norm` over some axes, or over all.
pub(super) fn reduce(e: &mut Elab, g: Given) -> Res<Value> {
    let (x, span) = g.pair(0);
    if let Value::List(items) = &x
        && g.name == "sum"
    {
        let mut total = (Value::num(0.0), span);
        for (i, item) in items.iter().enumerate() {
            let next = (item.clone(), span);
            total = if i == 0 { next } else { (e.add(total, next, g.span)?, span) };
        }
        return Ok(total.0);
    }
    let t = e.tensor(&x, span)?;
    let ty = e.ty(t);
    let mut axes = Vec::new();
    for (value, at) in rest(&g, 1) {
        let axis = e.axis(&value, &ty.dims, at)?;
        if axes.contains(&axis) {
            let message = format!("`{}` names axis {axis} of {} twice", g.name, e.show_dims(&ty.dims));
            return fail_help("axes", at, message, "the second time", "leave one out");
        }
        axes.push(axis);
    }
    if axes.is_empty() {
        axes = (0..ty.rank() as u8).collect();
    }
    axes.sort_unstable();
    let kind = match g.name {
        "sum" => ReduceKind::Sum,
        "mean" => ReduceKind::Mean,
        "amax" => ReduceKind::Max,
        "amin" => ReduceKind::Min,
        _ => ReduceKind::Norm,
    };
    let counts = matches!(kind, ReduceKind::Sum | ReduceKind::Max | ReduceKind::Min);
    if ty.dtype == DType::Bool || !counts && !ty.dtype.is_float() {
        let message = format!("`{}` does not work on {}", g.name, ty.dtype);
        return fail_help("dtype", span, message, format!("this is {}", e.show(&ty)), "`cast(x, f32)` makes floats");
    }
    let v = e.build(g.span)?.reduce(kind, t.v, &axes, ty.dtype);
    Ok(Value::Tensor(e.staged(v)))
}
