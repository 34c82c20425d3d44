//! Built-ins of models: products, norms, attention, losses.

use std::rc::Rc;

use mngc_dsl::Span;

use super::Given;
use crate::elaborate::declare::finite;
use crate::elaborate::math;
use crate::elaborate::ops::Elementwise;
use crate::elaborate::value::{Mask, Tensor, Value};
use crate::elaborate::{Elab, Res, fail, fail_help};
use crate::ir::{AttentionMask, BinaryOp, DType, F64, Op, Type};

impl Elab {
    /// Adds two values elementwise.
    pub fn add(&mut self, a: (Value, Span), b: (Value, Span), span: Span) -> Res<Value> {
        if let (Some(x), Some(y)) = (math::host(&a.0), math::host(&b.0)) {
            return self.small(math::binary(crate::ir::HostBinary::Add, &x, &y), span);
        }
        self.elementwise(Elementwise::Binary(BinaryOp::Add), "+", &[a, b], span)
    }

    /// The dtype of a product: that of both operands, else the one that values live in.
    fn product_dtype(&mut self, a: &Type, b: &Type, what: &str, span: Span) -> Res<DType> {
        for ty in [a, b] {
            if !ty.dtype.is_float() {
                let shown = self.show(ty);
                return fail_help(
                    "dtype",
                    span,
                    format!("`{what}` multiplies floats, not {}", ty.dtype),
                    shown,
                    "`cast(x, f32)` makes floats; a table is indexed with `[ ]`",
                );
            }
        }
        if a.dtype == b.dtype { Ok(a.dtype) } else { Ok(self.frame(span)?.compute) }
    }

    /// `a @ b`: rows of a by columns of b; axes before the last two are walked together.
    pub fn matmul(&mut self, a: Tensor, b: Tensor, span: Span) -> Res<Value> {
        let (ta, tb) = (self.ty(a), self.ty(b));
        let dtype = self.product_dtype(&ta, &tb, "@", span)?;
        let (ra, rb) = (ta.rank(), tb.rank());
        let fits = ra >= 1 && rb >= 1 && {
            let inner = if rb == 1 { tb.dims[0] } else { tb.dims[rb - 2] };
            self.m.dims.compatible(ta.dims[ra - 1], inner)
        };
        let batch_axes = rb.saturating_sub(2);
        let batches = fits
            && (batch_axes == 0 || ra == rb && (0..batch_axes).all(|i| self.m.dims.compatible(ta.dims[i], tb.dims[i])));
        if !batches {
            let message = format!("`@` of {} and {}", self.show_dims(&ta.dims), self.show_dims(&tb.dims));
            let help = if rb == 2 && ra >= 1 && self.m.dims.compatible(ta.dims[ra - 1], tb.dims[1]) {
                "the last axis of the left side meets the first of a matrix: transpose it with `.t`, or use `linear(x, w)`"
            } else {
                "the last axis of the left side meets the last but one of the right side"
            };
            return fail_help("axes", span, message, "these axes do not meet", help);
        }
        let batch: Vec<(u8, u8)> = (0..batch_axes as u8).map(|i| (i, i)).collect();
        let contract = [(ra as u8 - 1, if rb == 1 { 0 } else { rb as u8 - 2 })];
        self.product(a, b, &batch, &contract, dtype, span)
    }

    fn product(
        &mut self,
        a: Tensor,
        b: Tensor,
        batch: &[(u8, u8)],
        contract: &[(u8, u8)],
        dtype: DType,
        span: Span,
    ) -> Res<Value> {
        let v = self.build(span)?.dot(a.v, b.v, batch, contract, dtype);
        let t = self.staged(v);
        let dims = self.ty(t).dims;
        self.checked_shape(dims, span)?;
        Ok(Value::Tensor(t))
    }
}

/// `linear(x, weight, bias)`: x·weightᵀ (+ bias), the weight being [out, in].
pub(super) fn linear(e: &mut Elab, g: Given) -> Res<Value> {
    let ((x, xs), (w, ws)) = (g.pair(0), g.pair(1));
    let (x, w) = (e.tensor(&x, xs)?, e.tensor(&w, ws)?);
    let (tx, tw) = (e.ty(x), e.ty(w));
    let dtype = e.product_dtype(&tx, &tw, "linear", g.span)?;
    if tw.rank() != 2 || tx.rank() < 1 || !e.m.dims.compatible(tx.dims[tx.rank() - 1], tw.dims[1]) {
        let message = format!("`linear` of {} with a weight {}", e.show_dims(&tx.dims), e.show_dims(&tw.dims));
        let transposed = tw.rank() == 2 && tx.rank() >= 1 && e.m.dims.compatible(tx.dims[tx.rank() - 1], tw.dims[0]);
        let help = if transposed {
            "a weight is [out, in]: hand over `w.t`, or write `x @ w`"
        } else {
            "a weight is [out, in], and `in` is the last axis of x"
        };
        return fail_help("axes", g.span, message, "these axes do not meet", help);
    }
    let product = e.product(x, w, &[], &[(tx.rank() as u8 - 1, 1)], dtype, g.span)?;
    match g.opt(2) {
        None | Some((Value::None, _)) => Ok(product),
        Some((bias, span)) => {
            let bias = bias.clone();
            e.add((product, g.span), (bias, span), g.span)
        }
    }
}

fn row_tensor(e: &mut Elab, g: &Given) -> Res<(Tensor, Type)> {
    let (x, span) = g.pair(0);
    let t = e.tensor(&x, span)?;
    let ty = e.ty(t);
    if !ty.dtype.is_float() {
        let message = format!("`{}` works on floats, not on {}", g.name, ty.dtype);
        return fail_help("dtype", span, message, format!("this is {}", e.show(&ty)), "`cast(x, f32)` makes floats");
    }
    if ty.rank() == 0 {
        return fail(
            "axes",
            span,
            format!("`{}` works along the last axis", g.name),
            format!("this is {}", e.show(&ty)),
        );
    }
    Ok((t, ty))
}

pub(super) fn softmax(e: &mut Elab, g: Given) -> Res<Value> {
    let (t, ty) = row_tensor(e, &g)?;
    let v = e.build(g.span)?.push1(Op::Softmax, vec![t.v], ty);
    Ok(Value::Tensor(e.staged(v)))
}

/// `rms_norm(x, eps)`, `layer_norm(x, eps)` over the last axis.
pub(super) fn norm(e: &mut Elab, g: Given) -> Res<Value> {
    let (t, ty) = row_tensor(e, &g)?;
    let (eps, span) = g.get(1);
    let Value::Num(eps, _) = eps else {
        return fail(
            "not-a-number",
            span,
            format!("the eps of `{}` is a number known when the file is compiled", g.name),
            eps.kind(),
        );
    };
    if *eps < 0.0 || !eps.is_finite() {
        return fail("bad-size", span, "eps is not negative", format!("this is {eps}"));
    }
    let eps = F64(*eps);
    let op = if g.name == "rms_norm" { Op::RmsNorm { eps } } else { Op::LayerNorm { eps } };
    let v = e.build(g.span)?.push1(op, vec![t.v], ty);
    Ok(Value::Tensor(e.staged(v)))
}

/// `rope(x, base = 10000)` of [T, heads, head_dim].
pub(super) fn rope(e: &mut Elab, g: Given) -> Res<Value> {
    let (t, ty) = row_tensor(e, &g)?;
    let span = g.get(0).1;
    let Some(axis) = e.token_position(&ty.dims).filter(|&a| a + 1 < ty.rank()) else {
        let message = format!("`rope` needs the axis T before the heads, not {}", e.show_dims(&ty.dims));
        return fail_help(
            "axes",
            span,
            message,
            "no axis T here",
            "its operand is [T, heads, head_dim]: call it after `reshape`",
        );
    };
    let head = e.m.dims.size(ty.dims[ty.rank() - 1]);
    if !head.is_multiple_of(2) {
        let message = format!("`rope` turns pairs: a head of {head} is odd");
        return fail_help("divisibility", span, message, e.show(&ty), "choose an even head size");
    }
    let base = match g.opt(1) {
        None => 10000.0,
        Some((Value::Num(x, _), _)) if *x > 0.0 && x.is_finite() => *x,
        Some((Value::Num(x, _), at)) => {
            return fail("bad-size", at, "the base of `rope` is a positive number", format!("this is {x}"));
        }
        Some((other, at)) => return fail("not-a-number", at, "the base of `rope` is a positive number", other.kind()),
    };
    let dim = ty.dims[axis];
    let mut b = e.build(g.span)?;
    let position = b.push1(Op::Iota { axis: 0 }, vec![], Type::new(DType::I32, [dim]));
    let op = Op::Rope { base: F64(base), axis: axis as u8, inverse: false };
    let v = b.push1(op, vec![t.v, position], ty);
    Ok(Value::Tensor(e.staged(v)))
}

/// `same(documents)`: keys of the query's own document.
pub(super) fn same(e: &mut Elab, g: Given) -> Res<Value> {
    let (x, span) = g.pair(0);
    let t = e.tensor(&x, span)?;
    let ty = e.ty(t);
    if ty.dtype != DType::I32 || ty.rank() != 1 || e.token_position(&ty.dims).is_none() {
        return fail_help(
            "axes",
            span,
            "`same` takes the document number of each token, i32[T]",
            format!("this is {}", e.show(&ty)),
            "`cumsum(tokens == eot)` numbers documents",
        );
    }
    Ok(Value::Mask(Rc::new(Mask { documents: Some(t), ..Mask::default() })))
}

/// `within(w)`: the last w keys, the query's own included.
pub(super) fn within(e: &mut Elab, g: Given) -> Res<Value> {
    let (w, span) = g.pair(0);
    let ok = match &w {
        Value::Num(x, _) => *x >= 1.0,
        Value::Host(_) => true,
        Value::Tensor(t) => e.ty(*t).rank() == 0,
        _ => false,
    };
    if !ok {
        let is = if let Value::Num(x, _) = w { format!("this is {x}") } else { w.kind().to_string() };
        return fail_help(
            "bad-size",
            span,
            "a window is a number of at least 1",
            is,
            "`within(1)` sees the token itself only",
        );
    }
    Ok(Value::Mask(Rc::new(Mask { window: Some(Box::new(w)), ..Mask::default() })))
}

/// `attention(q, k, v, mask = none, scale = 1/√head_dim)` of [T, heads, head_dim].
pub(super) fn attention(e: &mut Elab, g: Given) -> Res<Value> {
    let mut args = Vec::new();
    let mut types = Vec::new();
    for i in 0..3 {
        let (value, span) = g.pair(i);
        let t = e.tensor(&value, span)?;
        args.push(t.v);
        types.push((e.ty(t), span));
    }
    let (q, k, v) = (&types[0].0, &types[1].0, &types[2].0);
    for (ty, span) in &types {
        if ty.rank() != 3 || !ty.dtype.is_float() || e.token_position(&ty.dims) != Some(0) {
            let message = format!("`attention` takes [T, heads, head_dim], not {}", e.show(ty));
            return fail_help("axes", *span, message, "here", "split the last axis: `x.reshape(T, heads, head_dim)`");
        }
    }
    let (heads, groups) = (e.m.dims.size(q.dims[1]), e.m.dims.size(k.dims[1]));
    let fits = e.m.dims.same_shape(&k.dims, &v.dims)
        && e.m.dims.compatible(q.dims[0], k.dims[0])
        && e.m.dims.compatible(q.dims[2], k.dims[2])
        && heads.is_multiple_of(groups);
    if !fits {
        let message = format!(
            "the axes of `attention` do not fit: q {}, k {}, v {}",
            e.show_dims(&q.dims),
            e.show_dims(&k.dims),
            e.show_dims(&v.dims)
        );
        return fail_help("axes", g.span, message, "here", "k and v have one shape; their heads divide those of q");
    }
    let mut mask = AttentionMask::default();
    match g.opt(3) {
        None | Some((Value::None, _)) => {}
        Some((Value::Mask(m), span)) => {
            let m = m.clone();
            mask.causal = m.causal;
            if let Some(docs) = m.documents {
                mask.documents = true;
                args.push(e.tensor(&Value::Tensor(docs), span)?.v);
            }
            if let Some(w) = &m.window {
                mask.window = true;
                args.push(match &**w {
                    Value::Tensor(_) => e.tensor(w, span)?.v,
                    other => match math::host(other) {
                        Some(h) => e.scalar(&h, span)?,
                        None => return fail("mask", span, "a window is a number", other.kind()),
                    },
                });
            }
        }
        Some((other, span)) => {
            return fail_help(
                "mask",
                span,
                "a mask is made of `causal`, `same(…)` and `within(…)`",
                other.kind(),
                "join parts with `&`",
            );
        }
    }
    let scale = match g.opt(4) {
        None | Some((Value::None, _)) => 1.0 / (e.m.dims.size(q.dims[2]) as f64).sqrt(),
        Some((Value::Num(x, _), span)) => {
            finite(*x, "the scale of `attention`", span)?;
            *x
        }
        Some((other, span)) => {
            return fail(
                "not-a-number",
                span,
                "the scale of `attention` is a number known when the file is compiled",
                other.kind(),
            );
        }
    };
    let (o, _) = e.build(g.span)?.attention(mask, scale, args);
    Ok(Value::Tensor(e.staged(o)))
}

/// `cross_entropy(logits, targets)`: a loss for each position, f32[T].
pub(super) fn cross_entropy(e: &mut Elab, g: Given) -> Res<Value> {
    let ((l, ls), (t, ts)) = (g.pair(0), g.pair(1));
    let (l, t) = (e.tensor(&l, ls)?, e.tensor(&t, ts)?);
    let (tl, tt) = (e.ty(l), e.ty(t));
    if tt.dtype != DType::I32 {
        return fail("dtype", ts, format!("targets are i32, not {}", tt.dtype), format!("this is {}", e.show(&tt)));
    }
    if !tl.dtype.is_float() || tl.rank() != tt.rank() + 1 || !e.m.dims.same_shape(&tl.dims[..tl.rank() - 1], &tt.dims) {
        let message = format!("`cross_entropy` of logits {} with targets {}", e.show(&tl), e.show(&tt));
        return fail_help("axes", g.span, message, "these axes do not fit", "logits are [T, vocab], targets i32[T]");
    }
    let v = e.build(g.span)?.cross_entropy(l.v, t.v);
    Ok(Value::Tensor(e.staged(v)))
}
