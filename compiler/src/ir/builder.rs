//! Construction of nodes: each method works out the result's type. Callers hand over operands that fit;
//! a debug build checks every node against `typing.rs`.

use mngc_dsl::Span;

use super::entities::{Dim, Func, Value};
use super::graph::{Graph, Module};
use super::op::{AttentionMask, BinaryOp, CallKind, CompareOp, F64, Op, ReduceKind, UnaryOp};
use super::types::{DType, Type};
use super::typing::{self, Stage};

/// Appends nodes to a graph.
pub struct Builder<'a> {
    /// Owner of dims and functions.
    pub m: &'a mut Module,
    /// The graph that grows.
    pub g: &'a mut Graph,
    /// The place in the model file that new nodes get.
    pub loc: Option<Span>,
}

impl<'a> Builder<'a> {
    /// A builder at the end of `g`.
    pub fn new(m: &'a mut Module, g: &'a mut Graph, loc: Option<Span>) -> Self {
        Builder { m, g, loc }
    }

    /// Type of a value.
    pub fn ty(&self, v: Value) -> Type {
        self.g.ty(v).clone()
    }

    /// Axes of a value.
    pub fn dims(&self, v: Value) -> Vec<Dim> {
        self.g.ty(v).dims.clone()
    }

    /// Dtype of a value.
    pub fn dtype(&self, v: Value) -> DType {
        self.g.ty(v).dtype
    }

    /// Any node.
    pub fn push(&mut self, op: Op, args: Vec<Value>, results: Vec<Type>) -> Vec<Value> {
        if cfg!(debug_assertions) {
            let types: Vec<&Type> = args.iter().map(|&a| self.g.ty(a)).collect();
            let outs: Vec<&Type> = results.iter().collect();
            if let Err(fault) = typing::check(self.m, Stage::Elaborated, &op, &types, &outs) {
                let shown: Vec<String> = types.iter().map(|t| self.m.show(t)).collect();
                panic!("built a wrong {}({}): {fault}", op.name(), shown.join(", "));
            }
        }
        let node = self.g.push(op, args, results, self.loc);
        self.g.nodes[node].results.clone()
    }

    /// A node with one result.
    pub fn push1(&mut self, op: Op, args: Vec<Value>, result: Type) -> Value {
        self.push(op, args, vec![result])[0]
    }

    /// A scalar constant.
    pub fn constant(&mut self, value: f64, dtype: DType) -> Value {
        self.push1(Op::Const(F64(value)), vec![], Type::scalar(dtype))
    }

    /// A tensor full of one constant.
    pub fn full(&mut self, value: f64, ty: Type) -> Value {
        let c = self.constant(value, ty.dtype);
        self.splat(c, &ty.dims)
    }

    /// A scalar repeated over `dims`.
    pub fn splat(&mut self, scalar: Value, dims: &[Dim]) -> Value {
        if dims.is_empty() { scalar } else { self.broadcast(scalar, &[], dims) }
    }

    /// A function of one operand.
    pub fn unary(&mut self, op: UnaryOp, x: Value, dtype: DType) -> Value {
        let ty = self.ty(x).with_dtype(dtype);
        self.push1(Op::Unary(op), vec![x], ty)
    }

    /// A function of two operands.
    pub fn binary(&mut self, op: BinaryOp, a: Value, b: Value, dtype: DType) -> Value {
        let ty = self.wide_shape(&[a, b]).with_dtype(dtype);
        self.push1(Op::Binary(op), vec![a, b], ty)
    }

    /// A comparison.
    pub fn compare(&mut self, op: CompareOp, a: Value, b: Value) -> Value {
        let ty = self.wide_shape(&[a, b]).with_dtype(DType::Bool);
        self.push1(Op::Compare(op), vec![a, b], ty)
    }

    /// `c ? a : b`.
    pub fn select(&mut self, c: Value, a: Value, b: Value, dtype: DType) -> Value {
        let ty = self.wide_shape(&[c, a, b]).with_dtype(dtype);
        self.push1(Op::Select, vec![c, a, b], ty)
    }

    fn wide_shape(&self, args: &[Value]) -> Type {
        let first = args.iter().find(|&&v| self.g.ty(v).rank() > 0).or(args.first());
        first.map(|&v| self.ty(v)).unwrap_or(Type::scalar(DType::F32))
    }

    /// To another dtype; nothing where it has that already.
    pub fn cast(&mut self, x: Value, dtype: DType) -> Value {
        if self.dtype(x) == dtype {
            return x;
        }
        let ty = self.ty(x).with_dtype(dtype);
        self.push1(Op::Cast, vec![x], ty)
    }

    /// Operand axis i becomes axis `axes[i]` of `dims`.
    pub fn broadcast(&mut self, x: Value, axes: &[u8], dims: &[Dim]) -> Value {
        if axes.len() == dims.len() {
            return x;
        }
        let ty = Type::new(self.dtype(x), dims);
        self.push1(Op::Broadcast { axes: axes.to_vec() }, vec![x], ty)
    }

    /// The same elements under other axes; nothing where the axes are the same.
    pub fn reshape(&mut self, x: Value, dims: &[Dim]) -> Value {
        if self.g.ty(x).dims == dims {
            return x;
        }
        let ty = Type::new(self.dtype(x), dims);
        self.push1(Op::Reshape, vec![x], ty)
    }

    /// Result axis i is operand axis `perm[i]`.
    pub fn transpose(&mut self, x: Value, perm: &[u8]) -> Value {
        if perm.iter().enumerate().all(|(i, &p)| i == p as usize) {
            return x;
        }
        let from = self.dims(x);
        let dims: Vec<Dim> = perm.iter().map(|&p| from[p as usize]).collect();
        let ty = Type::new(self.dtype(x), dims);
        self.push1(Op::Transpose { perm: perm.to_vec() }, vec![x], ty)
    }

    /// `start..start + size(dim)` along `axis`.
    pub fn slice(&mut self, x: Value, axis: usize, start: usize, dim: Dim) -> Value {
        let mut ty = self.ty(x);
        ty.dims[axis] = dim;
        self.push1(Op::Slice { axis: axis as u8, start }, vec![x], ty)
    }

    /// Zeros around `x` along `axis` up to `dim`.
    pub fn pad(&mut self, x: Value, axis: usize, before: usize, dim: Dim) -> Value {
        let mut ty = self.ty(x);
        ty.dims[axis] = dim;
        self.push1(Op::Pad { axis: axis as u8, before }, vec![x], ty)
    }

    /// Folds axes away.
    pub fn reduce(&mut self, kind: ReduceKind, x: Value, axes: &[u8], dtype: DType) -> Value {
        if axes.is_empty() && matches!(kind, ReduceKind::Sum | ReduceKind::Mean | ReduceKind::Max | ReduceKind::Min) {
            return self.cast(x, dtype);
        }
        if axes.is_empty() {
            return self.unary(UnaryOp::Abs, x, dtype);
        }
        let from = self.dims(x);
        let dims: Vec<Dim> = (0..from.len()).filter(|i| !axes.contains(&(*i as u8))).map(|i| from[i]).collect();
        self.push1(Op::Reduce { kind, axes: axes.to_vec() }, vec![x], Type::new(dtype, dims))
    }

    /// A sum of products.
    pub fn dot(&mut self, a: Value, b: Value, batch: &[(u8, u8)], contract: &[(u8, u8)], dtype: DType) -> Value {
        let (da, db) = (self.dims(a), self.dims(b));
        let mut dims: Vec<Dim> = batch.iter().map(|&(i, _)| da[i as usize]).collect();
        let used = |axis: usize, side: usize| {
            batch.iter().chain(contract).any(|&(i, j)| axis == (if side == 0 { i } else { j }) as usize)
        };
        dims.extend((0..da.len()).filter(|&i| !used(i, 0)).map(|i| da[i]));
        dims.extend((0..db.len()).filter(|&j| !used(j, 1)).map(|j| db[j]));
        let op = Op::Dot { batch: batch.to_vec(), contract: contract.to_vec() };
        self.push1(op, vec![a, b], Type::new(dtype, dims))
    }

    /// Rows of a table.
    pub fn gather(&mut self, table: Value, index: Value) -> Value {
        let mut dims = self.dims(index);
        dims.extend_from_slice(&self.g.ty(table).dims[1..]);
        let ty = Type::new(self.dtype(table), dims);
        self.push1(Op::Gather, vec![table, index], ty)
    }

    /// An op along rows whose result has the first operand's shape.
    pub fn like(&mut self, op: Op, args: Vec<Value>, dtype: DType) -> Value {
        let ty = self.ty(args[0]).with_dtype(dtype);
        self.push1(op, args, ty)
    }

    /// Attention: output and log-sum-exp.
    pub fn attention(&mut self, mask: AttentionMask, scale: f64, args: Vec<Value>) -> (Value, Value) {
        let out = self.ty(args[0]);
        let lse = Type::new(DType::F32, &out.dims[..out.rank() - 1]);
        let r = self.push(Op::Attention { mask, scale: F64(scale) }, args, vec![out, lse]);
        (r[0], r[1])
    }

    /// Losses of rows of logits.
    pub fn cross_entropy(&mut self, logits: Value, target: Value) -> Value {
        let ty = self.ty(target).with_dtype(DType::F32);
        self.push1(Op::CrossEntropy, vec![logits, target], ty)
    }

    /// A call of a function of the module.
    pub fn call(&mut self, func: Func, kind: CallKind, args: Vec<Value>) -> Vec<Value> {
        let types = self.m.result_types(func);
        self.push(Op::Call { func, kind }, args, types)
    }
}
