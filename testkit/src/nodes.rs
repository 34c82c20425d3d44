//! Random nodes: one function for each op, choosing operands from the values that are there, or new parameters.

use mngc_compiler::ir::{
    AttentionMask, BinaryOp, CallKind, CompareOp, DType, Dim, DimRole, Distribution, F64, Func, Fusion, Graph, Module,
    Op, ReduceKind, Type, UnaryOp, Value,
};

use crate::kind::Kind;
use crate::tape::Tape;

/// No tensor has more axes than this, so that chains of broadcasts do not grow without end.
const RANK: usize = 5;
/// Nor more elements.
const ELEMENTS: usize = 512;

/// The axes that a module's tensors are made of.
#[derive(Clone)]
pub struct Axes {
    /// The sequences of a micro-step, where there are any.
    pub sequence: Option<Dim>,
    /// Positions.
    pub token: Dim,
    /// Features, of sizes 1 to 5 and with one size twice.
    pub features: Vec<Dim>,
}

/// What a function is grown with.
pub struct Nodes<'a, 'b> {
    /// Owner of dims and functions.
    pub m: &'a mut Module,
    /// The function.
    pub g: Graph,
    /// Choices.
    pub tape: &'a mut Tape<'b>,
    /// Its axes.
    pub axes: &'a Axes,
    /// Functions that it may call.
    pub callees: &'a [Func],
    /// Only ops with a gradient, used where they are smooth.
    pub smooth: bool,
    /// Values that operands are chosen from.
    pub pool: Vec<Value>,
}

impl Nodes<'_, '_> {
    /// Grows the function by a node of this kind, and by what it needs. Not at all where nothing fits.
    pub fn grow(&mut self, kind: Kind) {
        match kind {
            Kind::Const => self.constant(),
            Kind::Unary => self.unary(),
            Kind::Binary => self.binary(),
            Kind::Compare => {
                let op = self.tape.of(CompareOp::ALL);
                let (a, b, ty) = self.pair(&[DType::F32, DType::BF16, DType::F16, DType::I32]);
                self.emit(Op::Compare(op), vec![a, b], ty.with_dtype(DType::Bool));
            }
            Kind::Select => {
                let (a, b, ty) = self.pair(&DType::ALL);
                let condition = self.exactly(&ty.with_dtype(DType::Bool));
                let dtype = self.same_kind(ty.dtype);
                self.emit(Op::Select, vec![condition, a, b], ty.with_dtype(dtype));
            }
            Kind::Cast => {
                let x = self.any();
                let ty = self.ty(x).with_dtype(self.tape.of(&DType::ALL));
                self.emit(Op::Cast, vec![x], ty);
            }
            Kind::Iota => {
                let ty = Type::new(DType::I32, self.shape_of_rank_1());
                let axis = self.axis(&ty);
                self.emit(Op::Iota { axis }, vec![], ty);
            }
            Kind::Random => self.random(),
            Kind::Broadcast => self.broadcast(),
            Kind::Reshape => self.reshape(),
            Kind::Transpose => {
                let x = self.any();
                let ty = self.ty(x);
                let mut perm: Vec<u8> = (0..ty.rank() as u8).collect();
                self.tape.shuffle(&mut perm);
                let dims: Vec<Dim> = perm.iter().map(|&p| ty.dims[p as usize]).collect();
                self.emit(Op::Transpose { perm }, vec![x], Type::new(ty.dtype, dims));
            }
            Kind::Slice => self.slice(),
            Kind::Pad => self.pad(),
            Kind::Concat => self.concat(),
            Kind::Shift => {
                let x = self.with_axis(|_, _| true);
                let ty = self.ty(x);
                let (axis, by) = (self.axis(&ty), self.tape.of(&[1, -1, 0, 2, -2, 7, i64::MIN]));
                self.emit(Op::Shift { axis, by }, vec![x], ty);
            }
            Kind::Reverse => {
                let x = self.with_axis(|_, _| true);
                let ty = self.ty(x);
                let axis = self.axis(&ty);
                self.emit(Op::Reverse { axis }, vec![x], ty);
            }
            Kind::Reduce => self.reduce(),
            Kind::Cumsum => {
                let x = self.with_axis(|_, ty| ty.dtype != DType::Bool);
                let ty = self.ty(x);
                let (axis, reverse, dtype) = (self.axis(&ty), self.tape.rarely(2), self.same_kind(ty.dtype));
                self.emit(Op::Cumsum { axis, reverse }, vec![x], ty.with_dtype(dtype));
            }
            Kind::Softmax => self.row_op(Op::Softmax),
            Kind::SoftmaxGrad => self.row_op_grad(Op::SoftmaxGrad),
            Kind::RmsNorm => {
                let eps = self.eps();
                self.row_op(Op::RmsNorm { eps });
            }
            Kind::RmsNormGrad => {
                let eps = self.eps();
                self.row_op_grad(Op::RmsNormGrad { eps });
            }
            Kind::LayerNorm => {
                let eps = self.eps();
                self.row_op(Op::LayerNorm { eps });
            }
            Kind::LayerNormGrad => {
                let eps = self.eps();
                self.row_op_grad(Op::LayerNormGrad { eps });
            }
            Kind::Gather => self.gather(),
            Kind::ScatterAdd => {
                let index_dims = self.shape();
                let rest = self.features(1);
                let index = self.ints(&index_dims);
                let rows = self.float_like(&[index_dims, rest.clone()].concat());
                let (dtype, size) = (self.float(), self.feature());
                self.emit(Op::ScatterAdd, vec![index, rows], Type::new(dtype, [vec![size], rest].concat()));
            }
            Kind::Dot => self.dot(),
            Kind::Rope => self.rope(),
            Kind::Attention => {
                let (results, _) = self.attention();
                // No gradient flows through the log-sum-exp.
                self.pool.extend(results.into_iter().take(if self.smooth { 1 } else { 2 }));
            }
            Kind::AttentionGrad => self.attention_grad(),
            Kind::CrossEntropy => {
                let logits = self.row();
                let dims = self.ty(logits).dims[..self.g.ty(logits).rank() - 1].to_vec();
                let target = self.ints(&dims);
                self.emit(Op::CrossEntropy, vec![logits, target], Type::new(DType::F32, dims));
            }
            Kind::CrossEntropyGrad => {
                let logits = self.row();
                let ty = self.ty(logits);
                let dims = ty.dims[..ty.rank() - 1].to_vec();
                let (target, dy) = (self.ints(&dims), self.exactly(&Type::new(DType::F32, dims)));
                let dtype = self.float();
                self.emit(Op::CrossEntropyGrad, vec![logits, target, dy], ty.with_dtype(dtype));
            }
            Kind::Call => self.call(),
        }
    }

    fn constant(&mut self) {
        let dtype = self.tape.of(&DType::ALL);
        let mut values = vec![0.0, 1.0, -1.5, 2.0, 0.1, -0.0, 1e-7];
        if !self.smooth {
            values.extend([1e30, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, -3e-310]);
        }
        let value = self.tape.of(&values);
        self.emit(Op::Const(F64(value)), vec![], Type::scalar(dtype));
    }

    fn random(&mut self) {
        let (dtype, dims) = (self.float(), self.shape());
        let distribution = match self.tape.pick(2) {
            0 => Distribution::Uniform(F64(-1.0), F64(1.0)),
            _ => Distribution::Normal(F64(0.5), F64(0.25)),
        };
        let name = self.tape.of(&["noise", "h.0.w", "a \"quoted\" one"]).to_string();
        self.emit(Op::Random { distribution, name }, vec![], Type::new(dtype, dims));
    }

    fn unary(&mut self) {
        let mut op = self.tape.of(UnaryOp::ALL);
        if self.smooth {
            // The gradients of the derivatives are not declared; the functions themselves are smooth too.
            op = match op {
                UnaryOp::GeluGrad => UnaryOp::Gelu,
                UnaryOp::SiluGrad => UnaryOp::Silu,
                op => op,
            };
        }
        let mut x = match op {
            UnaryOp::Not => self.any_of(&[DType::Bool]),
            UnaryOp::Neg | UnaryOp::Abs | UnaryOp::Sign => {
                self.any_of(&[DType::F32, DType::BF16, DType::F16, DType::I32])
            }
            _ => self.any_float(),
        };
        if matches!(op, UnaryOp::Log | UnaryOp::Sqrt | UnaryOp::Rsqrt) {
            x = self.positive(x);
        }
        let ty = self.ty(x);
        let dtype = self.same_kind(ty.dtype);
        self.emit(Op::Unary(op), vec![x], ty.with_dtype(dtype));
    }

    fn binary(&mut self) {
        const FLOATS: [DType; 3] = [DType::F32, DType::BF16, DType::F16];
        const NUMBERS: [DType; 4] = [DType::F32, DType::BF16, DType::F16, DType::I32];
        let op = self.tape.of(BinaryOp::ALL);
        let (mut a, mut b, ty) = match op {
            BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Rem | BinaryOp::Max | BinaryOp::Min => {
                self.pair(&NUMBERS)
            }
            BinaryOp::Div | BinaryOp::Pow => self.pair(&FLOATS),
            BinaryOp::IntDiv | BinaryOp::Shl | BinaryOp::Shr => self.pair(&[DType::I32]),
            BinaryOp::And | BinaryOp::Or | BinaryOp::Xor => self.pair(&[DType::I32, DType::Bool]),
        };
        match op {
            BinaryOp::Div => b = self.positive(b),
            BinaryOp::Rem if ty.dtype.is_float() => b = self.positive(b),
            BinaryOp::Pow => a = self.positive(a),
            _ => {}
        }
        let dtype = self.same_kind(ty.dtype);
        self.emit(Op::Binary(op), vec![a, b], ty.with_dtype(dtype));
    }

    fn small(&self, dims: &[Dim]) -> bool {
        dims.len() <= RANK && self.m.dims.elements(dims) <= ELEMENTS
    }

    fn broadcast(&mut self) {
        let x = self.any();
        let ty = self.ty(x);
        let mut dims: Vec<(Dim, bool)> = ty.dims.iter().map(|&d| (d, true)).collect();
        for _ in 0..1 + self.tape.pick(2) {
            let dim = match self.tape.pick(4) {
                1 => self.axes.token,
                2 => self.axes.sequence.unwrap_or(self.axes.token),
                _ => self.feature(),
            };
            let has_role = self.m.dims.role(dim) != DimRole::Feature;
            if has_role && dims.iter().any(|&(d, _)| d == dim) {
                continue;
            }
            let at = self.tape.pick(dims.len() + 1);
            dims.insert(at, (dim, false));
        }
        let axes = (0u8..).zip(&dims).filter(|(_, (_, kept))| *kept).map(|(i, _)| i).collect();
        let dims: Vec<Dim> = dims.into_iter().map(|(d, _)| d).collect();
        if self.small(&dims) {
            self.emit(Op::Broadcast { axes }, vec![x], Type::new(ty.dtype, dims));
        }
    }

    /// Joins two neighbouring axes of features, or splits one, or adds one of size 1.
    fn reshape(&mut self) {
        let x = self.any();
        let ty = self.ty(x);
        let mut dims = ty.dims.clone();
        let is_feature = |s: &Self, d: Dim| s.m.dims.role(d) == DimRole::Feature;
        let joined = (1..dims.len()).find(|&i| is_feature(self, dims[i - 1]) && is_feature(self, dims[i]));
        match (self.tape.pick(3), joined) {
            (0, Some(i)) => {
                let size = self.m.dims.elements(&dims[i - 1..=i]);
                let dim = self.m.dims.anonymous(size);
                dims.splice(i - 1..=i, [dim]);
            }
            (1, _) => {
                let even = |s: &Self, d: Dim| is_feature(s, d) && s.m.dims.size(d).is_multiple_of(2);
                let Some(i) = (0..dims.len()).find(|&i| even(self, dims[i])) else { return };
                let half = self.m.dims.size(dims[i]) / 2;
                let pair = [self.m.dims.anonymous(half), self.m.dims.anonymous(2)];
                dims.splice(i..=i, pair);
            }
            _ => {
                let one = self.m.dims.anonymous(1);
                let at = self.tape.pick(dims.len() + 1);
                dims.insert(at, one);
            }
        }
        if self.small(&dims) {
            self.emit(Op::Reshape, vec![x], Type::new(ty.dtype, dims));
        }
    }

    fn slice(&mut self) {
        let (x, ty, axis) = self.with_feature();
        let size = self.m.dims.size(ty.dims[axis]);
        let taken = 1 + self.tape.pick(size);
        let start = self.tape.pick(size - taken + 1);
        let mut dims = ty.dims;
        dims[axis] = self.m.dims.anonymous(taken);
        self.emit(Op::Slice { axis: axis as u8, start }, vec![x], Type::new(ty.dtype, dims));
    }

    fn pad(&mut self) {
        let (x, ty, axis) = self.with_feature();
        let (before, after) = (self.tape.pick(3), self.tape.pick(3));
        let mut dims = ty.dims.clone();
        dims[axis] = self.m.dims.anonymous(before + self.m.dims.size(dims[axis]) + after);
        if self.small(&dims) {
            self.emit(Op::Pad { axis: axis as u8, before }, vec![x], Type::new(ty.dtype, dims));
        }
    }

    fn concat(&mut self) {
        let (first, ty, axis) = self.with_feature();
        let mut args = vec![first];
        let mut total = self.m.dims.size(ty.dims[axis]);
        for _ in 0..self.tape.pick(3) {
            let mut part = ty.clone();
            part.dims[axis] = self.feature();
            total += self.m.dims.size(part.dims[axis]);
            args.push(self.exactly(&part));
        }
        let mut dims = ty.dims;
        dims[axis] = self.m.dims.anonymous(total);
        if self.small(&dims) {
            self.emit(Op::Concat { axis: axis as u8 }, args, Type::new(ty.dtype, dims));
        }
    }

    fn reduce(&mut self) {
        let x = self.with_axis(|_, ty| ty.dtype != DType::Bool);
        let ty = self.ty(x);
        let mut kind = self.tape.of(ReduceKind::ALL);
        if !ty.dtype.is_float() && matches!(kind, ReduceKind::Mean | ReduceKind::Norm) {
            kind = ReduceKind::Sum;
        }
        let first = self.axis(&ty);
        let axes: Vec<u8> = (0..ty.rank() as u8).filter(|&axis| axis == first || self.tape.rarely(3)).collect();
        let kept = (0..ty.rank()).filter(|&i| !axes.contains(&(i as u8)));
        let dims: Vec<Dim> = kept.map(|i| ty.dims[i]).collect();
        let dtype = self.same_kind(ty.dtype);
        self.emit(Op::Reduce { kind, axes }, vec![x], Type::new(dtype, dims));
    }

    fn eps(&mut self) -> F64 {
        F64(self.tape.of(&[0.0078125, 1e-5, 0.5]))
    }

    fn row_op(&mut self, op: Op) {
        let x = self.row();
        let dtype = self.float();
        let ty = self.ty(x).with_dtype(dtype);
        self.emit(op, vec![x], ty);
    }

    fn row_op_grad(&mut self, op: Op) {
        let x = self.row();
        let dy = self.float_like(&self.ty(x).dims);
        let dtype = self.float();
        let ty = self.ty(x).with_dtype(dtype);
        self.emit(op, vec![x, dy], ty);
    }

    fn gather(&mut self) {
        let role = |s: &Self, d: &Dim| s.m.dims.role(*d) != DimRole::Feature;
        let table = self.with_axis(|s, ty| !ty.dims[1..].iter().any(|d| role(s, d)));
        let ty = self.ty(table);
        if ty.dims[1..].iter().any(|d| role(self, d)) {
            // A new parameter, whose rows would bring a second token axis.
            return;
        }
        let index_dims = self.shape();
        let dims = [&index_dims, &ty.dims[1..]].concat();
        if self.small(&dims) {
            let index = self.ints(&index_dims);
            self.emit(Op::Gather, vec![table, index], Type::new(ty.dtype, dims));
        }
    }

    fn dot(&mut self) {
        let a = self.row();
        let ty = self.ty(a);
        let (mut batch, mut contract, mut free) = (Vec::new(), Vec::new(), Vec::new());
        for axis in 0..ty.rank() {
            match self.tape.pick(3) {
                0 => contract.push(axis),
                1 => free.push(axis),
                _ => batch.push(axis),
            }
        }
        // The axes of b: those shared with a, by their place in a, and its own.
        let shared = batch.iter().chain(&contract).map(|&axis| (Some(axis), ty.dims[axis]));
        let mut b_axes: Vec<(Option<usize>, Dim)> = shared.collect();
        b_axes.extend(self.features(1).into_iter().map(|dim| (None, dim)));
        self.tape.shuffle(&mut b_axes);
        let place = |axis: usize| b_axes.iter().position(|&(from, _)| from == Some(axis)).expect("a shared axis") as u8;
        let pairs = |axes: &[usize]| axes.iter().map(|&axis| (axis as u8, place(axis))).collect::<Vec<_>>();
        let op = Op::Dot { batch: pairs(&batch), contract: pairs(&contract) };
        let own = b_axes.iter().filter(|(from, _)| from.is_none()).map(|&(_, dim)| dim);
        let dims: Vec<Dim> = batch.iter().chain(&free).map(|&axis| ty.dims[axis]).chain(own).collect();
        if self.small(&dims) {
            let b = self.float_like(&b_axes.iter().map(|&(_, dim)| dim).collect::<Vec<Dim>>());
            let dtype = self.float();
            self.emit(op, vec![a, b], Type::new(dtype, dims));
        }
    }

    fn rope(&mut self) {
        let even = |s: &Self, ty: &Type| ty.dims.last().is_some_and(|&d| s.m.dims.size(d).is_multiple_of(2));
        let chosen = self.choose(|s, ty| ty.dtype.is_float() && ty.rank() >= 2 && even(s, ty));
        let x = chosen.unwrap_or_else(|| {
            let dims = [self.leading(), vec![self.feature(), self.axes.features[1]]].concat();
            let dtype = self.float();
            self.param(Type::new(dtype, dims))
        });
        let ty = self.ty(x);
        let token = ty.dims.iter().position(|&d| d == self.axes.token).filter(|&i| i + 1 < ty.rank());
        let axis = token.unwrap_or_else(|| self.tape.pick(ty.rank() - 1));
        let position = self.ints(&ty.dims[axis..=axis]);
        let op = Op::Rope { base: F64(self.tape.of(&[10000.0, 3.0])), axis: axis as u8, inverse: self.tape.rarely(2) };
        let dtype = self.float();
        self.emit(op, vec![x, position], ty.with_dtype(dtype));
    }

    /// Pushes attention; gives its results and its operands.
    fn attention(&mut self) -> (Vec<Value>, Vec<Value>) {
        let mut lead = Vec::new();
        if self.tape.rarely(2) {
            lead.extend(self.axes.sequence);
        }
        lead.push(self.axes.token);
        let (groups, shared) = (1 + self.tape.pick(2), 1 + self.tape.pick(3));
        let [key_heads, heads] = [groups, groups * shared].map(|n| self.m.dims.anonymous(n));
        let width = self.feature();
        let query = [lead.clone(), vec![heads, width]].concat();
        let key = [lead.clone(), vec![key_heads, width]].concat();
        let mut args = vec![self.float_like(&query), self.float_like(&key), self.float_like(&key)];
        let [causal, documents, window] = [(); 3].map(|_| self.tape.pick(3) != 2);
        if documents {
            args.push(self.ints(&lead));
        }
        if window {
            let dtype = self.tape.of(&[DType::I32, DType::F32]);
            args.push(self.exactly(&Type::scalar(dtype)));
        }
        let op = Op::Attention {
            mask: AttentionMask { causal, documents, window },
            scale: F64(self.tape.of(&[1.0, 0.25, -2.0])),
        };
        let out = Type::new(self.float(), query);
        let lse = Type::new(DType::F32, &out.dims[..out.rank() - 1]);
        (self.push(op, args.clone(), vec![out, lse]), args)
    }

    fn attention_grad(&mut self) {
        let (results, mut args) = self.attention();
        let mask_operands = args.split_off(3);
        let Some((&Op::Attention { mask, scale }, _)) =
            self.g.nodes.values().last().map(|node| (&node.op, &node.results))
        else {
            unreachable!("attention was just pushed")
        };
        let d_o = self.float_like(&self.ty(results[0]).dims);
        let types = [0, 1, 2].map(|i| {
            let dtype = self.float();
            self.ty(args[i]).with_dtype(dtype)
        });
        args.extend([results[0], results[1], d_o]);
        args.extend(mask_operands);
        let values = self.push(Op::AttentionGrad { mask, scale }, args, types.to_vec());
        self.pool.extend(values);
    }

    fn call(&mut self) {
        if self.callees.is_empty() {
            return;
        }
        let func = self.tape.of(self.callees);
        let kind = self.tape.of(&[CallKind::Block, CallKind::Fused(Fusion::Rows)]);
        let callee = &self.m.funcs[func];
        let params: Vec<Type> = callee.params.iter().map(|&v| callee.ty(v).clone()).collect();
        let args = params.iter().map(|ty| self.exactly(ty)).collect();
        let results = self.m.result_types(func);
        let values = self.push(Op::Call { func, kind }, args, results);
        self.pool.extend(values);
    }
}
