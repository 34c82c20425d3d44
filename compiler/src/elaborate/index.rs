//! `x[…]` of lists, blocks and tensors.

use mngc_dsl::{Span, ast};

use super::value::{Tensor, Value};
use super::{Elab, Fail, Res, fail, fail_help};
use crate::ir::{DType, Dim, DimRole, Op};

impl Elab {
    /// `base[indices]`.
    pub fn eval_index(&mut self, base: &ast::Expr, indices: &[ast::Expr], span: Span) -> Res<Value> {
        let value = self.eval(base)?;
        match &value {
            Value::List(items) | Value::Tuple(items) => {
                let items = items.clone();
                self.list_index(&items, indices, span)
            }
            Value::Range(a, b) => {
                let items: Vec<Value> = (*a..*b).take(1 << 20).map(|i| Value::num(i as f64)).collect();
                self.list_index(&items, indices, span)
            }
            Value::Block(template) => {
                let [count] = indices else {
                    return fail("index", span, "a block takes one number of copies", "here");
                };
                let n = self.integer(count, "the number of blocks")?;
                if !(0..=100_000).contains(&n) {
                    return fail(
                        "bad-size",
                        count.span,
                        "the number of blocks cannot be meant",
                        format!("this is {n}"),
                    );
                }
                Ok(Value::list(vec![Value::Block(template.clone()); n as usize]))
            }
            Value::Param(_) | Value::Tensor(_) | Value::Fill(..) => self.tensor_index(&value, indices, span),
            Value::Poison => Err(Fail::Silent),
            other => fail_help(
                "not-indexable",
                base.span,
                format!("{} cannot be indexed", other.kind()),
                other.kind(),
                "lists, tuples, tensors and blocks can",
            ),
        }
    }

    fn list_index(&mut self, items: &[Value], indices: &[ast::Expr], span: Span) -> Res<Value> {
        let [index] = indices else {
            return fail("index", span, "a list takes one index", format!("{} given", indices.len()));
        };
        if let Some((low, high)) = range_of(index) {
            let (a, b) = self.bounds(low, high, items.len(), index.span)?;
            return Ok(Value::list(items[a..b].to_vec()));
        }
        let i = self.integer(index, "an index")?;
        let n = items.len() as i64;
        let at = if i < 0 { i + n } else { i };
        match usize::try_from(at).ok().and_then(|at| items.get(at)) {
            Some(Value::Poison) => Err(Fail::Silent),
            Some(value) => Ok(value.clone()),
            None => fail(
                "out-of-range",
                index.span,
                format!("there is no element {i} in a list of {n}"),
                if n == 0 { "the list is empty".to_string() } else { format!("elements are 0 to {}", n - 1) },
            ),
        }
    }

    fn bounds(
        &mut self,
        low: Option<&ast::Expr>,
        high: Option<&ast::Expr>,
        n: usize,
        span: Span,
    ) -> Res<(usize, usize)> {
        let a = low.map_or(Ok(0), |e| self.integer(e, "the start of a range"))?;
        let b = high.map_or(Ok(n as i64), |e| self.integer(e, "the end of a range"))?;
        let from_end = |x: i64| if x < 0 { x + n as i64 } else { x };
        let (from, to) = (from_end(a), from_end(b));
        if 0 <= from && from <= to && to <= n as i64 {
            return Ok((from as usize, to as usize));
        }
        fail("out-of-range", span, format!("the range {a}..{b} does not lie within 0..{n}"), "out of range")
    }

    fn tensor_index(&mut self, value: &Value, indices: &[ast::Expr], span: Span) -> Res<Value> {
        // Rows of a table by a tensor of ids.
        if let [index] = indices
            && range_of(index).is_none()
        {
            let chosen = self.eval(index)?;
            if let Value::Tensor(_) | Value::Param(_) | Value::Fill(..) = chosen {
                return self.gather(value, &chosen, index.span, span);
            }
        }
        let table = self.tensor(value, span)?;
        let mut t = table;
        let dims = self.ty(t).dims;
        if indices.len() > dims.len() {
            return fail(
                "index",
                span,
                format!("{} indices for {}", indices.len(), self.show_dims(&dims)),
                format!("a tensor of {} axes", dims.len()),
            );
        }
        // Axes that are indexed by a number vanish: `at` counts those that are left.
        let mut at = 0;
        for (index, &dim) in indices.iter().zip(&dims) {
            let n = self.m.dims.size(dim);
            match range_of(index) {
                Some((None, None)) => at += 1,
                Some((low, high)) => {
                    let (a, b) = self.bounds(low, high, n, index.span)?;
                    if a == b {
                        return fail(
                            "bad-size",
                            index.span,
                            "this range is empty",
                            "an axis has at least one position",
                        );
                    }
                    if (a, b) != (0, n) {
                        self.features(dim, index.span)?;
                        let part = self.m.dims.anonymous(b - a);
                        let v = self.build(span)?.slice(t.v, at, a, part);
                        t = self.staged(v);
                    }
                    at += 1;
                }
                None => {
                    self.features(dim, index.span)?;
                    let i = self.integer(index, "an index")?;
                    let from = if i < 0 { i + n as i64 } else { i };
                    if !(0..n as i64).contains(&from) {
                        return fail(
                            "out-of-range",
                            index.span,
                            format!("there is no position {i} along an axis of {n}"),
                            format!("positions are 0 to {}", n - 1),
                        );
                    }
                    let one = self.m.dims.anonymous(1);
                    let mut b = self.build(span)?;
                    let cut = b.slice(t.v, at, from as usize, one);
                    let mut left = b.dims(cut);
                    left.remove(at);
                    let v = b.reshape(cut, &left);
                    t = self.staged(v);
                }
            }
        }
        t.storage = table.storage;
        Ok(Value::Tensor(t))
    }

    /// An axis that may be cut: not T.
    pub fn features(&mut self, dim: Dim, span: Span) -> Res<()> {
        if self.m.dims.role(dim) == DimRole::Feature {
            return Ok(());
        }
        fail_help(
            "cuts-sequence",
            span,
            format!("the axis {} cannot be cut: a model is written for every position at once", self.m.dims.name(dim)),
            "an index along the sequence",
            "to look at earlier positions use `shift(x, n)`, attention or `cumsum`",
        )
    }

    fn gather(&mut self, table: &Value, index: &Value, at: Span, span: Span) -> Res<Value> {
        let index = self.tensor(index, at)?;
        let ty = self.ty(index);
        if ty.dtype != DType::I32 {
            return fail_help(
                "dtype",
                at,
                format!("an index is i32, not {}", ty.dtype),
                format!("this is {}", self.show(&ty)),
                "`cast(x, i32)` makes whole numbers of a float",
            );
        }
        let table = self.tensor(table, span)?;
        let dims = self.ty(table).dims;
        if dims.is_empty() {
            return fail("index", span, "a scalar has no rows", "rank 0");
        }
        let graph = &self.frame(span)?.graph;
        let counts = graph.def_node(index.v).is_some_and(|node| matches!(graph.nodes[node].op, Op::Iota { .. }));
        let (rows, most) = (self.m.dims.size(dims[0]), ty.dims.iter().map(|&d| self.m.dims.size(d)).max().unwrap_or(0));
        if counts && most > rows {
            return fail_help(
                "out-of-range",
                at,
                format!("the positions 0 to {} are looked up in a table of {rows} rows", most - 1),
                format!("this is {}", self.show(&ty)),
                "the table needs a row for each position: declare its first axis as long as the longest sequence",
            );
        }
        let shape = self.checked_shape([&ty.dims[..], &dims[1..]].concat(), span)?;
        let v = self.build(span)?.gather(table.v, index.v);
        debug_assert_eq!(shape.len(), dims.len() - 1 + ty.rank());
        Ok(Value::Tensor(Tensor { storage: table.storage, ..self.staged(v) }))
    }
}

/// The ends of a range that is written as an index.
fn range_of(e: &ast::Expr) -> Option<(Option<&ast::Expr>, Option<&ast::Expr>)> {
    match &e.kind {
        ast::ExprKind::Range(low, high) => Some((low.as_deref(), high.as_deref())),
        _ => None,
    }
}
