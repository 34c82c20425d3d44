//! Gradients as values of `train`: their slots, norms and clipping.

use std::rc::Rc;

use mngc_dsl::{Span, ast};

use super::call::Args;
use super::value::{Gradients, Value};
use super::{Elab, Fail, Res, fail, fail_help, math};
use crate::ir::{self, BinaryOp, DType, ReduceKind, Slot, SlotData, SlotRole, Type};

impl Elab {
    /// One f32 slot for each parameter.
    pub fn gradient_slots(&mut self, params: &[Slot]) -> Vec<Slot> {
        let slot = |&p: &Slot| {
            let data = &self.m.slots[p];
            let (name, ty, loc) = (format!("{}#grad", data.name), data.ty.with_dtype(DType::F32), data.loc);
            self.m.slots.push(SlotData { name, role: SlotRole::Gradient(p), ty, loc })
        };
        params.iter().map(slot).collect()
    }

    /// √Σ g² over all gradients, f32.
    pub fn global_norm(&mut self, list: &[(Slot, ir::Value)], span: Span) -> Res<ir::Value> {
        let mut b = self.build(span)?;
        let mut sums = Vec::new();
        for &(_, g) in list {
            let square = b.unary(ir::UnaryOp::Square, g, DType::F32);
            let axes: Vec<u8> = (0..b.dims(g).len() as u8).collect();
            sums.push(b.reduce(ReduceKind::Sum, square, &axes, DType::F32));
        }
        // One sum of all of them: a chain would hang each on the one before, and on whatever it is fused with.
        let total = match sums[..] {
            [] => b.constant(0.0, DType::F32),
            [one] => one,
            _ => {
                let one = b.m.dims.anonymous(1);
                let all = b.m.dims.anonymous(sums.len());
                let sums = sums.into_iter().map(|sum| b.reshape(sum, &[one])).collect();
                let joined = b.push1(ir::Op::Concat { axis: 0 }, sums, ir::Type::new(DType::F32, [all]));
                b.reduce(ReduceKind::Sum, joined, &[0], DType::F32)
            }
        };
        Ok(b.unary(ir::UnaryOp::Sqrt, total, DType::F32))
    }

    /// `gradients.norm()`, `gradients.clip_norm(c)`.
    pub fn gradients_method(&mut self, g: Gradients, method: &ast::Ident, args: Args) -> Res<Value> {
        let span = args.span;
        match (method.text.as_str(), args.list.as_slice()) {
            ("norm", []) => {
                let v = self.global_norm(&g.0, span)?;
                Ok(Value::Tensor(self.staged(v)))
            }
            ("clip_norm", [(_, limit, at)]) => {
                let Some(limit) = math::host(limit) else {
                    return fail("not-a-number", *at, "the norm to clip to is a number", limit.kind());
                };
                if let Some(x) = limit.constant()
                    && (x.is_nan() || x <= 0.0)
                {
                    let is = if x.is_nan() { "not a number".to_string() } else { x.to_string() };
                    let help = "1 is usual; `gradients` that are not clipped need no line";
                    return fail_help("bad-size", *at, "the norm to clip to is above 0", format!("this is {is}"), help);
                }
                // PyTorch's clip_grad_norm_: g · min(1, limit / (norm + 1e-6)).
                let norm = self.global_norm(&g.0, span)?;
                let limit = self.scalar(&limit, span)?;
                let mut b = self.build(span)?;
                let tiny = b.constant(1e-6, DType::F32);
                let above = b.binary(BinaryOp::Add, norm, tiny, DType::F32);
                let ratio = b.binary(BinaryOp::Div, limit, above, DType::F32);
                let one = b.constant(1.0, DType::F32);
                let factor = b.binary(BinaryOp::Min, one, ratio, DType::F32);
                let clipped = g.0.iter().map(|&(slot, v)| (slot, b.binary(BinaryOp::Mul, v, factor, DType::F32)));
                Ok(Value::Gradients(Gradients(Rc::new(clipped.collect()))))
            }
            ("norm" | "clip_norm", _) => fail_help(
                "wrong-arguments",
                span,
                format!("`{}` with {} arguments", method.text, args.list.len()),
                "here",
                "`gradients.norm()`, `gradients.clip_norm(limit)`",
            ),
            (other, _) => fail_help(
                "unknown-method",
                method.span,
                format!("gradients have no method `{other}`"),
                "unknown",
                "they have norm() and clip_norm(limit)",
            ),
        }
    }

    /// An initial value that is one number everywhere.
    pub fn draw_fill(&mut self, slot: Slot, fill: f64) -> Res<()> {
        let ty: Type = self.m.slots[slot].ty.clone();
        let init = self.init.as_mut().ok_or(Fail::Silent)?;
        let v = ir::Builder::new(&mut self.m, &mut init.graph, None).full(fill, ty);
        self.drawn.push((slot, v));
        Ok(())
    }
}
