//! Random graphs of what training steps are made of: products, norms, residuals, heads, sums and the like over few
//! shapes, so that fusion finds much to do and much that it must not.

use mngc_compiler::ir::{
    BinaryOp, Builder, CompareOp, DType, Dim, DimRole, F64, Graph, Module, Op, ReduceKind, Type, UnaryOp, Value,
};

use crate::{Case, values};

/// Sizes of the axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Sequences.
    pub seq: usize,
    /// Positions of a sequence.
    pub t: usize,
    /// Heads of a row.
    pub heads: usize,
    /// Elements of a head.
    pub half: usize,
    /// Another length of rows.
    pub wide: usize,
    /// Classes.
    pub vocab: usize,
}

/// Small ones.
pub const SMALL: Sizes = Sizes { seq: 2, t: 3, heads: 2, half: 2, wide: 6, vocab: 5 };

/// The case of these choices.
pub fn case(choices: &[u32], seed: u64, sizes: Sizes) -> Case {
    let mut m = Module::default();
    let mut dim = |name: &str, size: usize, role| m.dims.intern(name, size, role);
    let seq = dim("seq", sizes.seq, DimRole::Sequence);
    let t = dim("T", sizes.t, DimRole::Token);
    let features = [
        ("dim", sizes.heads * sizes.half),
        ("wide", sizes.wide),
        ("vocab", sizes.vocab),
        ("heads", sizes.heads),
        ("half", sizes.half),
    ];
    let [dim, wide, vocab, heads, half] = features.map(|(name, size)| dim(name, size, DimRole::Feature));
    let mut g = Graph::new("step");
    let dtype = if choices.len().is_multiple_of(2) { DType::F32 } else { DType::BF16 };
    let mut param = |name: &str, dtype: DType, dims: &[Dim]| g.param(name, Type::new(dtype, dims));
    let targets = param("targets", DType::I32, &[seq, t]);
    let mut pool = vec![
        param("x", dtype, &[seq, t, dim]),
        param("y", dtype, &[seq, t, dim]),
        param("z", dtype, &[seq, t, wide]),
        param("gain", dtype, &[dim]),
        param("dy", DType::F32, &[seq, t]),
        param("lambda", DType::F32, &[]),
        param("square", dtype, &[dim, dim]),
        param("square_gradient", DType::F32, &[dim, dim]),
    ];
    let square = param("w", dtype, &[dim, dim]);
    let wide_weight = param("wide_weight", dtype, &[wide, dim]);
    let head = param("head", dtype, &[vocab, dim]);
    let head_gradient = param("head_gradient", DType::F32, &[vocab, dim]);
    pool.push(param("wide_gradient", DType::F32, &[wide, dim]));
    let mut steps = Steps {
        b: Builder::new(&mut m, &mut g, None),
        choices: choices.iter().copied(),
        pool,
        dtype,
        full: vec![seq, t, dim],
        split: vec![seq, t, heads, half],
        wide: vec![seq, t, wide],
        square,
        wide_weight,
    };
    let mut losses = 0;
    while let Some(choice) = steps.choices.next() {
        if choice % 16 == 15 && losses < 2 {
            losses += 1;
            steps.loss(head, head_gradient, targets);
        } else {
            steps.step(choice as usize % 15);
        }
    }
    let (pool, keep) = (steps.pool.clone(), choices.first().copied().unwrap_or(0));
    for (i, value) in pool.into_iter().enumerate() {
        let made = g.def_node(value).is_some();
        let read = g.nodes.values().any(|node| node.args.contains(&value));
        if made && !read || values::hash(u64::from(keep), i as u64).is_multiple_of(6) {
            g.result("", value);
        }
    }
    if g.results.is_empty() {
        g.result("", square);
    }
    let args = (0u64..).zip(&g.params);
    let args = args.map(|(i, &v)| values::tensor(&m.dims, g.ty(v), values::hash(seed, i), false)).collect();
    let func = m.funcs.push(g);
    Case { module: m, func, args, seed }
}

struct Steps<'a> {
    b: Builder<'a>,
    choices: std::iter::Copied<std::slice::Iter<'a, u32>>,
    pool: Vec<Value>,
    dtype: DType,
    full: Vec<Dim>,
    split: Vec<Dim>,
    wide: Vec<Dim>,
    square: Value,
    wide_weight: Value,
}

impl Steps<'_> {
    fn pick(&mut self, n: usize) -> usize {
        self.choices.next().map_or(0, |choice| choice as usize % n.max(1))
    }

    /// A value that fits, a late one rather than an early one.
    fn any(&mut self, fits: impl Fn(&Type) -> bool) -> Option<Value> {
        let fitting: Vec<Value> = self.pool.iter().rev().copied().filter(|&v| fits(self.b.g.ty(v))).collect();
        let n = fitting.len();
        let among = if self.pick(3) == 0 { n } else { n.min(3) };
        let i = self.pick(among);
        fitting.get(i).copied()
    }

    fn of(&mut self, dims: &[Dim]) -> Option<Value> {
        let dims = dims.to_vec();
        self.any(|ty| ty.dims == dims)
    }

    fn step(&mut self, kind: usize) {
        if let Some(value) = self.make(kind) {
            self.pool.push(value);
        }
    }

    fn make(&mut self, kind: usize) -> Option<Value> {
        let (full, split, wide, dtype) = (self.full.clone(), self.split.clone(), self.wide.clone(), self.dtype);
        let seq_t = full[..2].to_vec();
        match kind {
            0 => {
                let x = self.any(|_| true)?;
                let op = [UnaryOp::Relu, UnaryOp::Square, UnaryOp::Tanh, UnaryOp::Neg, UnaryOp::Gelu][self.pick(5)];
                let dtype = self.b.dtype(x);
                Some(self.b.unary(op, x, dtype))
            }
            1 | 2 => {
                let x = self.any(|_| true)?;
                let ty = self.b.ty(x);
                let other = match self.pick(4) {
                    0 => self.any(|ty| ty.rank() == 0)?,
                    1 => {
                        let c = [2.0, 0.5, -1.0][self.pick(3)];
                        self.b.constant(c, DType::F32)
                    }
                    _ => self.of(&ty.dims)?,
                };
                let op = [BinaryOp::Add, BinaryOp::Mul, BinaryOp::Sub, BinaryOp::Div][self.pick(4)];
                let (a, b) = if self.pick(2) == 0 { (x, other) } else { (other, x) };
                Some(self.b.binary(op, a, b, ty.dtype))
            }
            3 => {
                let x = self.of(&full)?;
                let (w, by) = (self.square, self.pick(2) as u8);
                let x = self.b.cast(x, dtype);
                Some(self.b.dot(x, w, &[], &[(2, by)], dtype))
            }
            4 => {
                let x = self.of(&full)?;
                let x = self.b.cast(x, dtype);
                Some(self.b.dot(x, self.wide_weight, &[], &[(2, 1)], dtype))
            }
            5 => {
                let x = self.of(&wide)?;
                let x = self.b.cast(x, dtype);
                Some(self.b.dot(x, self.wide_weight, &[], &[(2, 0)], dtype))
            }
            6 => {
                let dims = [&full, &split][self.pick(2)].clone();
                let (x, dy, eps) = (self.of(&dims)?, self.of(&dims)?, F64(1e-3));
                Some(match self.pick(6) {
                    0 => self.b.like(Op::RmsNorm { eps }, vec![x], dtype),
                    1 => self.b.like(Op::LayerNorm { eps }, vec![x], dtype),
                    2 => self.b.like(Op::Softmax, vec![x], dtype),
                    3 => self.b.like(Op::SoftmaxGrad, vec![x, dy], dtype),
                    4 => self.b.like(Op::LayerNormGrad { eps }, vec![x, dy], dtype),
                    _ => self.b.like(Op::RmsNormGrad { eps }, vec![x, dy], dtype),
                })
            }
            7 => {
                let (dims, axes): (Vec<Dim>, Vec<u8>) = match self.pick(3) {
                    0 => (vec![full[2]], vec![2]),
                    1 => (seq_t, vec![0, 1]),
                    _ => (vec![full[1], full[2]], vec![1, 2]),
                };
                let x = self.of(&dims)?;
                Some(self.b.broadcast(x, &axes, &full))
            }
            8 => {
                let x = self.of(&full)?;
                let kind = [ReduceKind::Sum, ReduceKind::Sum, ReduceKind::Mean, ReduceKind::Max, ReduceKind::Norm];
                let kind = kind[self.pick(5)];
                let axes: &[u8] = [&[2][..], &[0, 1], &[0, 1, 2], &[0]][self.pick(4)];
                Some(self.b.reduce(kind, x, axes, DType::F32))
            }
            9 => {
                if self.pick(2) == 0 {
                    let x = self.of(&full)?;
                    return Some(self.b.reshape(x, &split));
                }
                let x = self.of(&split)?;
                if self.pick(2) == 0 {
                    return Some(self.b.reshape(x, &full));
                }
                if !self.b.m.dims.size(split[3]).is_multiple_of(2) {
                    return None;
                }
                let position = self.b.push1(Op::Iota { axis: 0 }, vec![], Type::new(DType::I32, [full[1]]));
                let rope = Op::Rope { base: F64(10.0), axis: 1, inverse: self.pick(2) == 0 };
                Some(self.b.like(rope, vec![x, position], dtype))
            }
            10 => {
                let (x, dz) = (self.of(&full)?, self.of(&full)?);
                let (x, dz) = (self.b.cast(x, dtype), self.b.cast(dz, dtype));
                Some(self.b.dot(dz, x, &[], &[(0, 0), (1, 1)], DType::F32))
            }
            11 => {
                let matrix = [full[2], full[2]];
                let (x, y) = (self.of(&matrix)?, self.of(&matrix)?);
                let (x, y) = (self.b.cast(x, dtype), self.b.cast(y, dtype));
                let y = if self.pick(2) == 0 { x } else { y };
                let axes = (self.pick(2) as u8, self.pick(2) as u8);
                Some(self.b.dot(x, y, &[], &[axes], dtype))
            }
            12 => {
                let x = self.of(&full)?;
                let dtype = self.b.dtype(x);
                Some(self.b.like(Op::Cumsum { axis: 1, reverse: false }, vec![x], dtype))
            }
            13 => {
                let x = self.any(|ty| ty.rank() > 0)?;
                let y = self.of(&self.b.dims(x))?;
                let zero = self.b.constant(0.0, DType::F32);
                let mask = self.b.compare(CompareOp::Gt, x, zero);
                Some(self.b.select(mask, y, zero, dtype))
            }
            _ => {
                let x = self.any(|_| true)?;
                let to = if self.b.dtype(x) == DType::F32 { DType::BF16 } else { DType::F32 };
                Some(self.b.cast(x, to))
            }
        }
    }

    /// A head with its gradient, or something that looks like one.
    fn loss(&mut self, head: Value, head_gradient: Value, targets: Value) {
        let full = self.full.clone();
        let Some(x) = self.of(&full) else { return };
        let (x, dtype) = (self.b.cast(x, self.dtype), self.dtype);
        let z = self.b.dot(x, head, &[], &[(2, 1)], dtype);
        let (cap, capped) = (self.b.constant(3.0, DType::F32), self.pick(2) == 0);
        let mut tanh = z;
        let mut logits = z;
        if capped {
            let scaled = self.b.binary(BinaryOp::Div, z, cap, dtype);
            tanh = self.b.unary(UnaryOp::Tanh, scaled, dtype);
            logits = self.b.binary(BinaryOp::Mul, tanh, cap, dtype);
        }
        let losses = self.b.cross_entropy(logits, targets);
        self.pool.push(losses);
        let variant = self.pick(6);
        if variant == 0 {
            return;
        }
        let dy = if variant == 1 { losses } else { self.of(&full[..2]).unwrap_or(losses) };
        let dy = self.b.cast(dy, DType::F32);
        let mut dz = self.b.like(Op::CrossEntropyGrad, vec![logits, targets, dy], dtype);
        if capped {
            let one = self.b.constant(1.0, DType::F32);
            let square = self.b.unary(UnaryOp::Square, tanh, dtype);
            let slope = self.b.binary(BinaryOp::Sub, one, square, dtype);
            dz = self.b.binary(BinaryOp::Mul, dz, slope, dtype);
        }
        let dx = self.b.dot(dz, head, &[], &[(2, 0)], dtype);
        self.pool.push(dx);
        if variant > 2 {
            let dw = self.b.dot(dz, x, &[], &[(0, 0), (1, 1)], DType::F32);
            let sum = self.b.binary(BinaryOp::Add, head_gradient, dw, DType::F32);
            self.pool.push(sum);
        }
        if variant == 3 {
            self.pool.push(logits);
        }
    }
}
