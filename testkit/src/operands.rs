//! Choosing operands for random nodes: values that are there, or new parameters.

use mngc_compiler::ir::typing::{self, Stage};
use mngc_compiler::ir::{BinaryOp, DType, Dim, DimRole, F64, Op, Type, UnaryOp, Value};

use crate::nodes::Nodes;

impl Nodes<'_, '_> {
    pub(crate) fn ty(&self, v: Value) -> Type {
        self.g.ty(v).clone()
    }

    pub(crate) fn push(&mut self, op: Op, args: Vec<Value>, results: Vec<Type>) -> Vec<Value> {
        let types: Vec<&Type> = args.iter().map(|&v| self.g.ty(v)).collect();
        let outs: Vec<&Type> = results.iter().collect();
        if let Err(fault) = typing::check(self.m, Stage::Elaborated, &op, &types, &outs) {
            panic!("the generator made a wrong {op:?} of {types:?}: {fault}");
        }
        let node = self.g.push(op, args, results, None);
        self.g.nodes[node].results.clone()
    }

    /// A node whose result may be chosen later.
    pub(crate) fn emit(&mut self, op: Op, args: Vec<Value>, result: Type) {
        let values = self.push(op, args, vec![result]);
        self.pool.extend(values);
    }

    pub(crate) fn float(&mut self) -> DType {
        self.tape.of(&[DType::F32, DType::F32, DType::BF16, DType::F16])
    }

    pub(crate) fn feature(&mut self) -> Dim {
        let features = self.axes.features.clone();
        self.tape.of(&features)
    }

    pub(crate) fn features(&mut self, most: usize) -> Vec<Dim> {
        (0..self.tape.pick(most + 1)).map(|_| self.feature()).collect()
    }

    /// Sequence and token axes, or one, or neither.
    pub(crate) fn leading(&mut self) -> Vec<Dim> {
        let mut dims = Vec::new();
        if self.tape.pick(3) == 1 {
            dims.extend(self.axes.sequence);
        }
        if self.tape.pick(2) == 1 {
            dims.push(self.axes.token);
        }
        dims
    }

    pub(crate) fn shape(&mut self) -> Vec<Dim> {
        let mut dims = self.leading();
        dims.extend(self.features(2));
        dims
    }

    pub(crate) fn shape_of_rank_1(&mut self) -> Vec<Dim> {
        let mut dims = self.leading();
        dims.push(self.feature());
        dims.extend(self.features(1));
        dims
    }

    pub(crate) fn param(&mut self, ty: Type) -> Value {
        let names = ["", "x", "w.weight", "odd \"name\\", "ü\u{7f}\r\n"];
        let name = self.tape.of(&names);
        let value = self.g.param(name, ty);
        self.pool.push(value);
        value
    }

    /// A value that fits, the newest first.
    pub(crate) fn choose(&mut self, fits: impl Fn(&Self, &Type) -> bool) -> Option<Value> {
        let fitting: Vec<Value> = self.pool.iter().rev().copied().filter(|&v| fits(self, self.g.ty(v))).collect();
        (!fitting.is_empty()).then(|| self.tape.of(&fitting))
    }

    /// A value of these axes whose dtype is allowed, or a new parameter.
    pub(crate) fn like(&mut self, dims: &[Dim], dtype: DType, allowed: impl Fn(DType) -> bool) -> Value {
        let fits = |ty: &Type| allowed(ty.dtype) && self.m.dims.same_shape(&ty.dims, dims);
        let fitting: Vec<Value> = self.pool.iter().rev().copied().filter(|&v| fits(self.g.ty(v))).collect();
        match self.tape.pick(fitting.len() + 1) {
            i if i < fitting.len() => fitting[i],
            _ => self.param(Type::new(dtype, dims)),
        }
    }

    pub(crate) fn float_like(&mut self, dims: &[Dim]) -> Value {
        let dtype = self.float();
        self.like(dims, dtype, DType::is_float)
    }

    pub(crate) fn exactly(&mut self, ty: &Type) -> Value {
        self.like(&ty.dims, ty.dtype, |dtype| dtype == ty.dtype)
    }

    pub(crate) fn ints(&mut self, dims: &[Dim]) -> Value {
        self.exactly(&Type::new(DType::I32, dims))
    }

    /// A value of one of these dtypes, or a new parameter of the first.
    pub(crate) fn any_of(&mut self, dtypes: &[DType]) -> Value {
        match self.choose(|_, ty| dtypes.contains(&ty.dtype)) {
            Some(value) => value,
            None => {
                let dims = self.shape();
                self.param(Type::new(dtypes[0], dims))
            }
        }
    }

    pub(crate) fn any_float(&mut self) -> Value {
        self.any_of(&[DType::F32, DType::BF16, DType::F16])
    }

    pub(crate) fn any(&mut self) -> Value {
        self.any_of(&DType::ALL)
    }

    /// Any value with an axis.
    pub(crate) fn with_axis(&mut self, fits: impl Fn(&Self, &Type) -> bool) -> Value {
        match self.choose(|s, ty| ty.rank() > 0 && fits(s, ty)) {
            Some(value) => value,
            None => {
                let (dtype, dims) = (self.float(), self.shape_of_rank_1());
                self.param(Type::new(dtype, dims))
            }
        }
    }

    pub(crate) fn row(&mut self) -> Value {
        self.with_axis(|_, ty| ty.dtype.is_float())
    }

    /// x² + ½, where an op of smooth mode must not come near 0.
    pub(crate) fn positive(&mut self, x: Value) -> Value {
        if !self.smooth {
            return x;
        }
        let ty = self.ty(x);
        let square = self.push(Op::Unary(UnaryOp::Square), vec![x], vec![ty.clone()])[0];
        let half = self.push(Op::Const(F64(0.5)), vec![], vec![Type::scalar(ty.dtype)])[0];
        self.push(Op::Binary(BinaryOp::Add), vec![square, half], vec![ty])[0]
    }

    /// Two operands of one kind and of one shape, or one of them of rank 0; and the shape.
    pub(crate) fn pair(&mut self, first: &[DType]) -> (Value, Value, Type) {
        let a = self.any_of(first);
        let ty = self.ty(a);
        let dims = if self.tape.rarely(4) { Vec::new() } else { ty.dims.clone() };
        let b = if ty.dtype.is_float() { self.float_like(&dims) } else { self.exactly(&Type::new(ty.dtype, dims)) };
        if self.tape.rarely(2) { (b, a, ty) } else { (a, b, ty) }
    }

    /// The dtype of a result that has the kind of an operand.
    pub(crate) fn same_kind(&mut self, dtype: DType) -> DType {
        if dtype.is_float() { self.float() } else { dtype }
    }

    pub(crate) fn axis(&mut self, ty: &Type) -> u8 {
        self.tape.pick(ty.rank()) as u8
    }

    /// A value with an axis of features, and that axis.
    pub(crate) fn with_feature(&mut self) -> (Value, Type, usize) {
        let is_feature = |s: &Self, d: &Dim| s.m.dims.role(*d) == DimRole::Feature;
        let value = self.with_axis(|s, ty| ty.dims.iter().any(|d| is_feature(s, d)));
        let ty = self.ty(value);
        let axes: Vec<usize> = (0..ty.rank()).filter(|&i| is_feature(self, &ty.dims[i])).collect();
        let axis = self.tape.of(&axes);
        (value, ty, axis)
    }
}
