//! The gradient of each op, as `ir/op.rs` declares it.
//!
//! A rule reads the cotangent of its node's result, makes a contribution for each operand that gets one, and gives it.
//! What it makes on the way is f32; the op that makes the contribution has the dtype of the operand's cotangent.

use super::backward::Backward;
use super::{AutodiffError, Call, dot, elementwise};
use crate::ir::{BinaryOp, CallKind, CompareOp, DType, Node, NodeData, Op, ReduceKind, Type, UnaryOp, Value};

/// The rule of one node, at work.
pub(super) struct Rule<'r, 'a> {
    pub b: &'r mut Backward<'a>,
    pub data: NodeData,
    /// Cotangent of the first result.
    pub dy: Value,
}

/// Contributes to the cotangents of a node's operands. `call` is the derivative that the node calls, if it does.
pub(super) fn apply(b: &mut Backward, node: Node, call: Option<&Call>) -> Result<(), AutodiffError> {
    let data = b.forward.nodes[node].clone();
    b.loc = data.loc;
    let loc = data.loc;
    let unsupported = |what: &'static str| Err(AutodiffError::Unsupported { what, loc });
    if let (Op::Call { .. }, Some(call)) = (&data.op, call) {
        return called(b, &data, call);
    }
    if let (Op::Attention { .. }, Some(_)) = (&data.op, data.results.get(1).and_then(|&lse| b.cotangent(lse))) {
        return unsupported("the log-sum-exp of attention");
    }
    let Some(dy) = data.results.first().and_then(|&y| b.cotangent(y)) else { return Ok(()) };
    let op = data.op.clone();
    let mut r = Rule { b, data, dy };
    match &op {
        Op::Unary(UnaryOp::GeluGrad | UnaryOp::SiluGrad)
        | Op::SoftmaxGrad
        | Op::RmsNormGrad { .. }
        | Op::LayerNormGrad { .. }
        | Op::AttentionGrad { .. }
        | Op::CrossEntropyGrad => return unsupported(op.name()),
        // Nothing flows into them, or through them.
        Op::Const(_) | Op::Iota { .. } | Op::Random { .. } | Op::Compare(_) | Op::Call { .. } => {}
        Op::Unary(f) => elementwise::unary(&mut r, *f),
        Op::Binary(f) => elementwise::binary(&mut r, *f),
        Op::Select => elementwise::select(&mut r),
        Op::Cast => r.give(0, dy),
        Op::Broadcast { axes } => r.broadcast(axes),
        Op::Reshape => r.move_back(Op::Reshape, 0),
        Op::Transpose { perm } => {
            let mut inverse = vec![0; perm.len()];
            perm.iter().enumerate().for_each(|(i, &p)| inverse[p as usize] = i as u8);
            r.move_back(Op::Transpose { perm: inverse }, 0)
        }
        Op::Slice { axis, start } => r.move_back(Op::Pad { axis: *axis, before: *start }, 0),
        Op::Pad { axis, before } => r.move_back(Op::Slice { axis: *axis, start: *before }, 0),
        Op::Concat { axis } => r.concat(*axis),
        Op::Shift { axis, by } => r.move_back(Op::Shift { axis: *axis, by: by.saturating_neg() }, 0),
        Op::Reverse { axis } => r.move_back(Op::Reverse { axis: *axis }, 0),
        Op::Reduce { kind, axes } => r.reduce(*kind, axes),
        Op::Cumsum { axis, reverse } => r.last(0, Op::Cumsum { axis: *axis, reverse: !reverse }, vec![dy]),
        Op::Softmax => {
            let y = r.y();
            r.last(0, Op::SoftmaxGrad, vec![y, dy])
        }
        Op::Gather => {
            let index = r.x(1);
            r.last(0, Op::ScatterAdd, vec![index, dy])
        }
        Op::ScatterAdd => {
            let index = r.x(0);
            let rows = r.b.build().gather(dy, index);
            r.give(1, rows)
        }
        Op::Dot { batch, contract } => dot::dot(&mut r, batch, contract),
        Op::RmsNorm { eps } => {
            let x = r.x(0);
            r.last(0, Op::RmsNormGrad { eps: *eps }, vec![x, dy])
        }
        Op::LayerNorm { eps } => {
            let x = r.x(0);
            r.last(0, Op::LayerNormGrad { eps: *eps }, vec![x, dy])
        }
        Op::Rope { base, axis, inverse } => {
            let position = r.x(1);
            r.last(0, Op::Rope { base: *base, axis: *axis, inverse: !inverse }, vec![dy, position])
        }
        Op::Attention { mask, scale } => r.attention(Op::AttentionGrad { mask: *mask, scale: *scale }),
        Op::CrossEntropy => {
            let (logits, target) = (r.x(0), r.x(1));
            r.last(0, Op::CrossEntropyGrad, vec![logits, target, dy])
        }
    }
    Ok(())
}

/// The gradient of a call is a call of the backward half.
fn called(b: &mut Backward, data: &NodeData, call: &Call) -> Result<(), AutodiffError> {
    let derivative = &call.derivative;
    let mut args: Vec<Value> = derivative.saved.iter().map(|&i| b.need(data.results[i])).collect();
    args.extend(derivative.args.iter().map(|&i| b.need(data.args[i])).collect::<Vec<_>>());
    for (&result, _) in data.results.iter().zip(&call.active).filter(|(_, active)| **active) {
        let ty = b.cotangent_type(result);
        // The mask says that one flows; were there none, zero would be right.
        args.push(b.cotangent(result).unwrap_or_else(|| b.build().full(0.0, ty)));
    }
    let gradients = b.build().call(derivative.backward, CallKind::Block, args);
    let wanted = data.args.iter().zip(&call.wrt).filter(|(_, wanted)| **wanted);
    for ((&arg, _), gradient) in wanted.zip(gradients) {
        b.give(arg, gradient);
    }
    Ok(())
}

impl Rule<'_, '_> {
    /// Whether operand i gets a cotangent.
    pub fn wants(&self, i: usize) -> bool {
        self.b.is_live(self.data.args[i])
    }

    /// Operand i.
    pub fn x(&mut self, i: usize) -> Value {
        self.b.need(self.data.args[i])
    }

    /// The first result.
    pub fn y(&mut self) -> Value {
        self.b.need(self.data.results[0])
    }

    /// The type of operand i.
    pub fn ty(&self, i: usize) -> Type {
        self.b.forward.ty(self.data.args[i]).clone()
    }

    /// The type of the first result.
    pub fn result_ty(&self) -> Type {
        self.b.forward.ty(self.data.results[0]).clone()
    }

    /// The type of the cotangent of operand i.
    pub fn target(&self, i: usize) -> Type {
        self.b.cotangent_type(self.data.args[i])
    }

    /// Contributes a value to the cotangent of operand i.
    pub fn give(&mut self, i: usize, contribution: Value) {
        self.b.give(self.data.args[i], contribution)
    }

    /// Contributes the result of an op that computes in f32 and rounds to the dtype of the cotangent.
    pub fn last(&mut self, i: usize, op: Op, args: Vec<Value>) {
        if self.wants(i) {
            let target = self.target(i);
            let contribution = self.b.build().push1(op, args, target);
            self.give(i, contribution)
        }
    }

    /// A number, f32.
    pub fn number(&mut self, value: f64) -> Value {
        self.b.build().constant(value, DType::F32)
    }

    /// A function of two operands, f32.
    pub fn binary(&mut self, op: BinaryOp, a: Value, b: Value) -> Value {
        self.b.build().binary(op, a, b, DType::F32)
    }

    /// A function of one operand, f32.
    pub fn unary(&mut self, op: UnaryOp, x: Value) -> Value {
        self.b.build().unary(op, x, DType::F32)
    }

    /// Contributes what an op of layout makes of the cotangent.
    fn move_back(&mut self, op: Op, i: usize) {
        if self.wants(i) {
            let ty = self.ty(i).with_dtype(self.b.build().dtype(self.dy));
            let moved = self.b.build().push1(op, vec![self.dy], ty);
            self.give(i, moved)
        }
    }

    /// Repeats a value without the reduced axes over them.
    fn spread(&mut self, value: Value, reduced: &[u8]) -> Value {
        let dims = self.ty(0).dims;
        let kept: Vec<u8> = (0..dims.len() as u8).filter(|axis| !reduced.contains(axis)).collect();
        self.b.build().broadcast(value, &kept, &dims)
    }

    fn broadcast(&mut self, axes: &[u8]) {
        let repeated: Vec<u8> = (0..self.result_ty().rank() as u8).filter(|axis| !axes.contains(axis)).collect();
        let (dy, dtype) = (self.dy, self.target(0).dtype);
        let sum = self.b.build().reduce(ReduceKind::Sum, dy, &repeated, dtype);
        self.give(0, sum)
    }

    fn concat(&mut self, axis: u8) {
        let mut start = 0;
        for i in 0..self.data.args.len() {
            self.move_back(Op::Slice { axis, start }, i);
            start += self.b.m.dims.size(self.ty(i).dims[axis as usize]);
        }
    }

    fn reduce(&mut self, kind: ReduceKind, axes: &[u8]) {
        let dtype = self.target(0).dtype;
        match kind {
            ReduceKind::Sum => {
                let dy = self.b.build().cast(self.dy, dtype);
                let dx = self.spread(dy, axes);
                self.give(0, dx)
            }
            ReduceKind::Mean => {
                let dims = self.ty(0).dims;
                let n: usize = axes.iter().map(|&axis| self.b.m.dims.size(dims[axis as usize])).product();
                let n = self.number(n as f64);
                let share = self.b.build().binary(BinaryOp::Div, self.dy, n, dtype);
                let dx = self.spread(share, axes);
                self.give(0, dx)
            }
            ReduceKind::Max | ReduceKind::Min => self.extremum(kind, axes),
            ReduceKind::Norm => {
                let (x, y) = (self.x(0), self.y());
                let (zero, ratio) = (self.number(0.0), self.binary(BinaryOp::Div, self.dy, y));
                let is_zero = self.b.build().compare(CompareOp::Eq, y, zero);
                let ratio = self.b.build().select(is_zero, zero, ratio, DType::F32);
                let ratio = self.spread(ratio, axes);
                self.last(0, Op::Binary(BinaryOp::Mul), vec![x, ratio])
            }
        }
    }

    /// Every element that equals the largest has its share.
    fn extremum(&mut self, kind: ReduceKind, axes: &[u8]) {
        let x = self.x(0);
        let (own, result) = (self.ty(0).dtype, self.result_ty().dtype);
        // A result of lower precision than the operand may equal no element.
        let y =
            if result == own || result == DType::F32 { self.y() } else { self.b.build().reduce(kind, x, axes, own) };
        let y = self.spread(y, axes);
        let (zero, one) = (self.number(0.0), self.number(1.0));
        let mut b = self.b.build();
        let is_extreme = b.compare(CompareOp::Eq, x, y);
        let ones = b.select(is_extreme, one, zero, DType::F32);
        let count = b.reduce(ReduceKind::Sum, ones, axes, DType::F32);
        let share = b.binary(BinaryOp::Div, self.dy, count, DType::F32);
        let share = self.spread(share, axes);
        self.last(0, Op::Select, vec![is_extreme, share, zero])
    }

    fn attention(&mut self, op: Op) {
        let o_and_lse: Vec<Value> = self.data.results.iter().map(|&v| self.b.need(v)).collect();
        let mut args: Vec<Value> = (0..self.data.args.len()).map(|i| self.x(i)).collect();
        args.splice(3..3, o_and_lse.into_iter().chain([self.dy]));
        let types = (0..3).map(|i| self.target(i)).collect();
        let gradients = self.b.build().push(op, args, types);
        for (i, gradient) in gradients.into_iter().enumerate() {
            self.give(i, gradient)
        }
    }
}
