//! The typing rule of each op: which operand and result types are legal. Builder and verifier both call it.

use super::entities::Dim;
use super::graph::Module;
use super::op::{AttentionMask, BinaryOp, Op, ReduceKind, UnaryOp};
use super::types::{DType, DimRole, Type};

/// How far the graph has come: later stages allow less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// As elaborated: a `dot` may have operands of different float dtypes.
    Elaborated,
    /// After cast placement: operands of a `dot` have one dtype.
    CastsPlaced,
}

/// What is wrong with a node, in one sentence.
pub type Fault = String;

/// Checks a node's operand and result types against the rule of its op.
pub fn check(m: &Module, stage: Stage, op: &Op, args: &[&Type], results: &[&Type]) -> Result<(), Fault> {
    let c = Checker { m, args, results };
    let (nargs, nresults) = arity(m, op, args.len())?;
    if args.len() != nargs {
        return Err(format!("{} takes {nargs} operands, not {}", op.name(), args.len()));
    }
    if results.len() != nresults {
        return Err(format!("{} has {nresults} results, not {}", op.name(), results.len()));
    }
    c.rule(stage, op)
}

/// Numbers of operands and results.
fn arity(m: &Module, op: &Op, given: usize) -> Result<(usize, usize), Fault> {
    Ok(match op {
        Op::Const(_) | Op::Iota { .. } | Op::Random { .. } => (0, 1),
        Op::Unary(_)
        | Op::Cast
        | Op::Broadcast { .. }
        | Op::Reshape
        | Op::Transpose { .. }
        | Op::Slice { .. }
        | Op::Pad { .. }
        | Op::Shift { .. }
        | Op::Reverse { .. }
        | Op::Reduce { .. }
        | Op::Cumsum { .. }
        | Op::Softmax
        | Op::RmsNorm { .. }
        | Op::LayerNorm { .. } => (1, 1),
        Op::Binary(_)
        | Op::Compare(_)
        | Op::SoftmaxGrad
        | Op::Gather
        | Op::ScatterAdd
        | Op::Dot { .. }
        | Op::RmsNormGrad { .. }
        | Op::LayerNormGrad { .. }
        | Op::Rope { .. }
        | Op::CrossEntropy => (2, 1),
        Op::Select | Op::CrossEntropyGrad => (3, 1),
        Op::Concat { .. } => (given.max(1), 1),
        Op::Attention { mask, .. } => (3 + mask.operands(), 2),
        Op::AttentionGrad { mask, .. } => (6 + mask.operands(), 3),
        Op::Call { func, .. } => {
            let callee = m.funcs.get(*func).ok_or("call of a function that does not exist")?;
            (callee.params.len(), callee.results.len())
        }
    })
}

impl AttentionMask {
    /// Operands that the mask adds.
    pub fn operands(self) -> usize {
        self.documents as usize + self.window as usize
    }
}

struct Checker<'a> {
    m: &'a Module,
    args: &'a [&'a Type],
    results: &'a [&'a Type],
}

fn ensure(ok: bool, fault: impl FnOnce() -> String) -> Result<(), Fault> {
    if ok { Ok(()) } else { Err(fault()) }
}

impl Checker<'_> {
    fn same(&self, what: &str, a: &[Dim], b: &[Dim]) -> Result<(), Fault> {
        ensure(self.m.dims.same_shape(a, b), || {
            format!(
                "{what}: {} against {}",
                self.m.show(&Type::new(DType::F32, a)),
                self.m.show(&Type::new(DType::F32, b))
            )
        })
    }

    fn float(&self, ty: &Type) -> Result<(), Fault> {
        ensure(ty.dtype.is_float(), || format!("a float is needed, not {}", self.m.show(ty)))
    }

    fn dtype(&self, ty: &Type, dtype: DType) -> Result<(), Fault> {
        ensure(ty.dtype == dtype, || format!("{dtype} is needed, not {}", self.m.show(ty)))
    }

    fn axis(&self, ty: &Type, axis: u8) -> Result<Dim, Fault> {
        ty.dims.get(axis as usize).copied().ok_or_else(|| format!("axis {axis} of a tensor of rank {}", ty.rank()))
    }

    fn feature_axis(&self, ty: &Type, axis: u8) -> Result<Dim, Fault> {
        let dim = self.axis(ty, axis)?;
        ensure(self.m.dims.role(dim) == DimRole::Feature, || {
            format!("axis {} is not an axis of features", self.m.dims.name(dim))
        })?;
        Ok(dim)
    }

    /// An operand of an elementwise op: the result's axes, or rank 0.
    fn elementwise_shape(&self) -> Result<(), Fault> {
        let out = self.results[0];
        for arg in self.args.iter().filter(|a| a.rank() > 0) {
            self.same("operand and result of an elementwise op", &arg.dims, &out.dims)?;
        }
        ensure(self.args.iter().any(|a| a.rank() == out.rank()), || {
            "an elementwise op needs an operand of the result's shape".into()
        })
    }

    fn one_kind(&self, a: &Type, b: &Type) -> Result<(), Fault> {
        ensure(a.dtype == b.dtype || (a.dtype.is_float() && b.dtype.is_float()), || {
            format!("operands of two kinds: {} and {}", a.dtype, b.dtype)
        })
    }

    /// The operand with one axis replaced must be the result.
    fn except_axis(&self, a: &Type, b: &Type, axis: u8) -> Result<(), Fault> {
        let axis = axis as usize;
        ensure(a.rank() == b.rank() && axis < a.rank(), || {
            format!("axis {axis} or ranks {} and {}", a.rank(), b.rank())
        })?;
        for i in (0..a.rank()).filter(|&i| i != axis) {
            self.same("axes other than the one changed", &a.dims[i..=i], &b.dims[i..=i])?;
        }
        Ok(())
    }

    fn size(&self, ty: &Type, axis: u8) -> usize {
        self.m.dims.size(ty.dims[axis as usize])
    }

    fn rule(&self, stage: Stage, op: &Op) -> Result<(), Fault> {
        let (a, r) = (self.args, self.results);
        match op {
            Op::Const(_) => ensure(r[0].rank() == 0, || "a constant has rank 0".into()),
            Op::Iota { axis } => {
                self.dtype(r[0], DType::I32)?;
                self.axis(r[0], *axis).map(drop)
            }
            Op::Random { .. } => self.float(r[0]),
            Op::Unary(f) => {
                self.elementwise_shape()?;
                match f {
                    UnaryOp::Not => {
                        self.dtype(a[0], DType::Bool)?;
                        self.dtype(r[0], DType::Bool)
                    }
                    UnaryOp::Neg | UnaryOp::Abs | UnaryOp::Sign if a[0].dtype == DType::I32 => {
                        self.dtype(r[0], DType::I32)
                    }
                    _ => {
                        self.float(a[0])?;
                        self.float(r[0])
                    }
                }
            }
            Op::Binary(f) => {
                self.elementwise_shape()?;
                self.one_kind(a[0], a[1])?;
                self.one_kind(a[0], r[0])?;
                let dtype = a[0].dtype;
                let legal = match f {
                    BinaryOp::Add | BinaryOp::Sub | BinaryOp::Mul | BinaryOp::Rem | BinaryOp::Max | BinaryOp::Min => {
                        dtype != DType::Bool
                    }
                    BinaryOp::Div | BinaryOp::Pow => dtype.is_float(),
                    BinaryOp::IntDiv | BinaryOp::Shl | BinaryOp::Shr => dtype == DType::I32,
                    BinaryOp::And | BinaryOp::Or | BinaryOp::Xor => !dtype.is_float(),
                };
                ensure(legal, || format!("{} of {dtype}", f.name()))
            }
            Op::Compare(_) => {
                self.elementwise_shape()?;
                self.one_kind(a[0], a[1])?;
                ensure(a[0].dtype != DType::Bool, || "comparison of bool".into())?;
                self.dtype(r[0], DType::Bool)
            }
            Op::Select => {
                self.elementwise_shape()?;
                self.dtype(a[0], DType::Bool)?;
                self.one_kind(a[1], a[2])?;
                self.one_kind(a[1], r[0])
            }
            Op::Cast => self.same("cast", &a[0].dims, &r[0].dims),
            Op::Broadcast { axes } => {
                self.dtype(r[0], a[0].dtype)?;
                ensure(axes.len() == a[0].rank() && axes.windows(2).all(|w| w[0] < w[1]), || {
                    format!("broadcast axes {axes:?} of a rank-{} operand", a[0].rank())
                })?;
                for (i, &axis) in axes.iter().enumerate() {
                    let dim = self.axis(r[0], axis)?;
                    self.same("broadcast", &a[0].dims[i..=i], &[dim])?;
                }
                Ok(())
            }
            Op::Reshape => {
                self.dtype(r[0], a[0].dtype)?;
                self.reshape(&a[0].dims, &r[0].dims)
            }
            Op::Transpose { perm } => {
                self.dtype(r[0], a[0].dtype)?;
                let mut sorted = perm.clone();
                sorted.sort_unstable();
                ensure(
                    sorted.len() == a[0].rank() && sorted.iter().enumerate().all(|(i, &p)| i == p as usize),
                    || format!("{perm:?} is no permutation of {} axes", a[0].rank()),
                )?;
                let dims: Vec<Dim> = perm.iter().map(|&p| a[0].dims[p as usize]).collect();
                self.same("transpose", &dims, &r[0].dims)
            }
            Op::Slice { axis, start } => {
                self.dtype(r[0], a[0].dtype)?;
                self.except_axis(a[0], r[0], *axis)?;
                self.feature_axis(a[0], *axis)?;
                ensure(start.saturating_add(self.size(r[0], *axis)) <= self.size(a[0], *axis), || {
                    format!("slice from {start} of {} out of {}", self.size(r[0], *axis), self.size(a[0], *axis))
                })
            }
            Op::Pad { axis, before } => {
                self.dtype(r[0], a[0].dtype)?;
                self.except_axis(a[0], r[0], *axis)?;
                self.feature_axis(a[0], *axis)?;
                ensure(before.saturating_add(self.size(a[0], *axis)) <= self.size(r[0], *axis), || {
                    format!("{before} + {} over {}", self.size(a[0], *axis), self.size(r[0], *axis))
                })
            }
            Op::Concat { axis } => {
                let mut total = 0;
                for arg in a {
                    self.dtype(arg, r[0].dtype)?;
                    self.except_axis(arg, r[0], *axis)?;
                    self.feature_axis(arg, *axis)?;
                    total += self.size(arg, *axis);
                }
                ensure(total == self.size(r[0], *axis), || format!("{total} joined against {}", self.size(r[0], *axis)))
            }
            Op::Shift { axis, .. } | Op::Reverse { axis } => {
                self.axis(a[0], *axis)?;
                self.dtype(r[0], a[0].dtype)?;
                self.same("result", &a[0].dims, &r[0].dims)
            }
            Op::Cumsum { axis, .. } => {
                self.axis(a[0], *axis)?;
                self.one_kind(a[0], r[0])?;
                ensure(a[0].dtype != DType::Bool, || "running sum of bool".into())?;
                self.same("result", &a[0].dims, &r[0].dims)
            }
            Op::Reduce { kind, axes } => {
                ensure(!axes.is_empty() && axes.windows(2).all(|w| w[0] < w[1]), || format!("reduced axes {axes:?}"))?;
                for &axis in axes {
                    self.axis(a[0], axis)?;
                }
                self.one_kind(a[0], r[0])?;
                ensure(a[0].dtype != DType::Bool, || "reduction of bool".into())?;
                if matches!(kind, ReduceKind::Mean | ReduceKind::Norm) {
                    self.float(a[0])?;
                }
                let kept: Vec<Dim> = a[0]
                    .dims
                    .iter()
                    .enumerate()
                    .filter(|(i, _)| !axes.contains(&(*i as u8)))
                    .map(|(_, &d)| d)
                    .collect();
                self.same("reduce", &kept, &r[0].dims)
            }
            Op::Softmax | Op::RmsNorm { .. } | Op::LayerNorm { .. } => self.row_op(&[a[0]], r[0]),
            Op::SoftmaxGrad | Op::RmsNormGrad { .. } | Op::LayerNormGrad { .. } => self.row_op(&[a[0], a[1]], r[0]),
            Op::Gather => {
                self.dtype(a[1], DType::I32)?;
                self.dtype(r[0], a[0].dtype)?;
                ensure(a[0].rank() > 0, || "a table needs an axis".into())?;
                let dims: Vec<Dim> = a[1].dims.iter().chain(&a[0].dims[1..]).copied().collect();
                self.same("gather", &dims, &r[0].dims)
            }
            Op::ScatterAdd => {
                self.dtype(a[0], DType::I32)?;
                self.float(a[1])?;
                self.float(r[0])?;
                ensure(r[0].rank() > 0, || "a table needs an axis".into())?;
                let dims: Vec<Dim> = a[0].dims.iter().chain(&r[0].dims[1..]).copied().collect();
                self.same("scatter_add", &dims, &a[1].dims)
            }
            Op::Dot { batch, contract } => self.dot(stage, batch, contract),
            Op::Rope { axis, .. } => {
                self.float(a[0])?;
                self.float(r[0])?;
                self.same("rope", &a[0].dims, &r[0].dims)?;
                self.dtype(a[1], DType::I32)?;
                let dim = self.axis(a[0], *axis)?;
                self.same("positions", &a[1].dims, &[dim])?;
                ensure((*axis as usize) + 1 < a[0].rank(), || "rope along the last axis".into())?;
                ensure(self.size(a[0], a[0].rank() as u8 - 1).is_multiple_of(2), || "rope of an odd head size".into())
            }
            Op::Attention { mask, .. } => {
                self.attention(*mask, &a[3..])?;
                self.float(r[0])?;
                self.same("attention", &a[0].dims, &r[0].dims)?;
                self.dtype(r[1], DType::F32)?;
                self.same("log-sum-exp", &a[0].dims[..a[0].rank() - 1], &r[1].dims)
            }
            Op::AttentionGrad { mask, .. } => {
                self.attention(*mask, &a[6..])?;
                self.same("o", &a[0].dims, &a[3].dims)?;
                self.same("do", &a[0].dims, &a[5].dims)?;
                self.dtype(a[4], DType::F32)?;
                self.same("log-sum-exp", &a[0].dims[..a[0].rank() - 1], &a[4].dims)?;
                for i in 0..3 {
                    self.float(r[i])?;
                    self.same("gradient", &a[i].dims, &r[i].dims)?;
                }
                Ok(())
            }
            Op::CrossEntropy => {
                self.logits(a[0], a[1])?;
                self.dtype(r[0], DType::F32)?;
                self.same("losses", &a[1].dims, &r[0].dims)
            }
            Op::CrossEntropyGrad => {
                self.logits(a[0], a[1])?;
                self.dtype(a[2], DType::F32)?;
                self.same("cotangent", &a[1].dims, &a[2].dims)?;
                self.float(r[0])?;
                self.same("result", &a[0].dims, &r[0].dims)
            }
            Op::Call { func, .. } => {
                let callee = &self.m.funcs[*func];
                let pairs = callee.params.iter().zip(a).chain(callee.results.iter().zip(r));
                for (&value, ty) in pairs {
                    let want = callee.ty(value);
                    self.dtype(ty, want.dtype)?;
                    self.same("call", &want.dims, &ty.dims)?;
                }
                Ok(())
            }
        }
    }

    fn row_op(&self, args: &[&Type], result: &Type) -> Result<(), Fault> {
        ensure(result.rank() > 0, || "an op along the last axis needs one".into())?;
        self.float(result)?;
        for arg in args {
            self.float(arg)?;
            self.same("row op", &arg.dims, &result.dims)?;
        }
        Ok(())
    }

    fn logits(&self, logits: &Type, target: &Type) -> Result<(), Fault> {
        self.float(logits)?;
        self.dtype(target, DType::I32)?;
        ensure(logits.rank() > 0, || "logits need an axis".into())?;
        self.same("logits and targets", &logits.dims[..logits.rank() - 1], &target.dims)
    }

    /// Axes with an identity must survive, in order, with the same number of elements before them.
    fn reshape(&self, from: &[Dim], to: &[Dim]) -> Result<(), Fault> {
        let dims = &self.m.dims;
        ensure(dims.elements(from) == dims.elements(to), || {
            format!("reshape of {} elements to {}", dims.elements(from), dims.elements(to))
        })?;
        let fixed = |shape: &[Dim]| -> Vec<(Dim, usize)> {
            let mut before = 1;
            let mut out = Vec::new();
            for &d in shape {
                if dims.role(d) != DimRole::Feature {
                    out.push((d, before));
                }
                before *= dims.size(d);
            }
            out
        };
        ensure(fixed(from) == fixed(to), || "reshape would break up a token or sequence axis".into())
    }

    fn dot(&self, stage: Stage, batch: &[(u8, u8)], contract: &[(u8, u8)]) -> Result<(), Fault> {
        let (a, b, r) = (self.args[0], self.args[1], self.results[0]);
        self.float(a)?;
        self.float(b)?;
        self.float(r)?;
        if stage >= Stage::CastsPlaced {
            self.dtype(b, a.dtype)?;
        }
        let mut dims = Vec::new();
        let mut used = [vec![false; a.rank()], vec![false; b.rank()]];
        for &(i, j) in batch.iter().chain(contract) {
            let (da, db) = (self.axis(a, i)?, self.axis(b, j)?);
            self.same("paired axes of a dot", &[da], &[db])?;
            for (side, axis) in [(0, i), (1, j)] {
                ensure(!used[side][axis as usize], || format!("axis {axis} of a dot stands twice"))?;
                used[side][axis as usize] = true;
            }
        }
        dims.extend(batch.iter().map(|&(i, _)| a.dims[i as usize]));
        dims.extend((0..a.rank()).filter(|&i| !used[0][i]).map(|i| a.dims[i]));
        dims.extend((0..b.rank()).filter(|&i| !used[1][i]).map(|i| b.dims[i]));
        self.same("dot", &dims, &r.dims)
    }

    fn attention(&self, mask: AttentionMask, extra: &[&Type]) -> Result<(), Fault> {
        let (q, k, v) = (self.args[0], self.args[1], self.args[2]);
        for ty in [q, k, v] {
            self.float(ty)?;
        }
        let n = q.rank();
        ensure(n >= 3, || "attention needs axes T, heads, head size".into())?;
        self.same("k and v", &k.dims, &v.dims)?;
        ensure(k.rank() == n, || "q and k of different rank".into())?;
        self.same("q and k before the heads", &q.dims[..n - 2], &k.dims[..n - 2])?;
        self.same("head sizes of q and k", &q.dims[n - 1..], &k.dims[n - 1..])?;
        let (h, g) = (self.m.dims.size(q.dims[n - 2]), self.m.dims.size(k.dims[n - 2]));
        ensure(g > 0 && h.is_multiple_of(g), || format!("{h} query heads over {g} key heads"))?;
        let mut extra = extra.iter();
        if mask.documents {
            let docs = extra.next().ok_or("the mask lacks its documents")?;
            self.dtype(docs, DType::I32)?;
            self.same("documents", &q.dims[..n - 2], &docs.dims)?;
        }
        if mask.window {
            let window = extra.next().ok_or("the mask lacks its window")?;
            ensure(window.rank() == 0 && window.dtype != DType::Bool, || "a window is one number".into())?;
        }
        Ok(())
    }
}
