//! Gives a function of one sequence an axis of sequences in front.
//!
//! ```text
//! func f0 (v0: f32[T, dim], v1: f32[dim, dim])           func f1 (v0: f32[seq, T, dim], v1: f32[dim, dim])
//!   v2: f32[T, dim] = dot v0, v1 {contract = [1:0]}  →     v2: f32[seq, T, dim] = dot v0, v1 {contract = [2:0]}
//! ```
//!
//! Values that do not depend on what differs between sequences stay without the axis, and are computed once. Row s of a
//! batched result has the value, to the bit, that the function gives for sequence s. Random numbers are not batched:
//! every sequence meets the same ones.

use std::collections::HashMap;

use cranelift_entity::SecondaryMap;
use cranelift_entity::packed_option::PackedOption;
use mngc_dsl::Span;

use crate::ir::{CallKind, Dim, Func, Graph, Module, NodeData, Op, ReduceKind, Type, Value};

/// Something that has no batched form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BatchError {
    /// What is in the way, for the user.
    pub message: String,
    /// The place in the model file, innermost call first.
    pub loc: Option<Span>,
}

/// Makes a function in which the parameters that `batched` marks, by position, have `seq` as a further first axis, and
/// so has every value that depends on them. Gives the function and tells which of its results are batched.
///
/// `func` stays as it is; it and what it calls must not have the axis `seq` yet. A hand-written gradient is batched
/// too: the cotangent of an unbatched parameter is summed over the sequences. With nothing marked, `func` itself is
/// given. Fails at a table or a scatter that differs between sequences, and at rope positions or an attention window
/// that do.
pub fn batch(m: &mut Module, func: Func, seq: Dim, batched: &[bool]) -> Result<(Func, Vec<bool>), BatchError> {
    Batcher { m, seq, made: HashMap::new() }.function(func, batched)
}

struct Batcher<'a> {
    m: &'a mut Module,
    seq: Dim,
    /// By function and mask of its parameters: blocks that are called alike are made once.
    made: HashMap<(Func, Vec<bool>), (Func, Vec<bool>)>,
}

impl Batcher<'_> {
    fn function(&mut self, func: Func, mask: &[bool]) -> Result<(Func, Vec<bool>), BatchError> {
        if !mask.contains(&true) {
            return Ok((func, vec![false; self.m.funcs[func].results.len()]));
        }
        let key = (func, mask.to_vec());
        if let Some(made) = self.made.get(&key) {
            return Ok(made.clone());
        }
        let old = self.m.funcs[func].clone();
        let mut new = self.body(&old, mask)?;
        let results: Vec<bool> = old.results.iter().map(|&v| new.is_batched[v]).collect();
        if let Some(gradient) = old.gradient {
            new.graph.gradient = Some(self.gradient(&old, gradient, mask, &results)?);
        }
        new.results(&old);
        let made = (self.m.funcs.push(new.graph), results);
        self.made.insert(key, made.clone());
        Ok(made)
    }

    /// The parameters and nodes of a function, batched.
    fn body(&mut self, old: &Graph, mask: &[bool]) -> Result<Body, BatchError> {
        let mut body = Body::new(self.seq, old.name.clone());
        for ((&value, name), &is_batched) in old.params.iter().zip(&old.param_names).zip(mask) {
            let ty = body.batched_if(is_batched, old.ty(value));
            let param = body.graph.param(name.clone(), ty);
            body.set(value, param, is_batched);
        }
        for node in old.nodes.values() {
            self.node(&mut body, old, node)?;
        }
        Ok(body)
    }

    fn node(&mut self, body: &mut Body, old: &Graph, node: &NodeData) -> Result<(), BatchError> {
        let mask: Vec<bool> = node.args.iter().map(|&v| body.is_batched[v]).collect();
        if !mask.contains(&true) {
            let args = node.args.iter().map(|&v| body.get(v)).collect();
            body.emit(old, node, node.op.clone(), args, &vec![false; node.results.len()]);
            return Ok(());
        }
        if let Op::Call { func, kind } = node.op {
            return self.call(body, old, node, func, kind, &mask);
        }
        body.lift(old, node, &mask).map_err(|message| BatchError { message, loc: node.loc })
    }

    fn call(
        &mut self,
        body: &mut Body,
        old: &Graph,
        node: &NodeData,
        func: Func,
        kind: CallKind,
        mask: &[bool],
    ) -> Result<(), BatchError> {
        let (func, results) = self.function(func, mask).map_err(|e| BatchError { loc: e.loc.or(node.loc), ..e })?;
        let args = node.args.iter().map(|&v| body.get(v)).collect();
        body.emit(old, node, Op::Call { func, kind }, args, &results);
        Ok(())
    }

    /// The gradient of a batched function: its cotangents must have the axes of the parameters that they belong to.
    fn gradient(&mut self, of: &Graph, gradient: Func, params: &[bool], results: &[bool]) -> Result<Func, BatchError> {
        let is_float = |v: Value| of.ty(v).dtype.is_float();
        let cotangents = of.results.iter().zip(results).filter(|(v, _)| is_float(**v)).map(|(_, &b)| b);
        let mask: Vec<bool> = params.iter().chain(results).copied().chain(cotangents).collect();
        let wanted = of.params.iter().zip(params).filter(|(v, _)| is_float(**v)).map(|(_, &b)| b);

        let old = self.m.funcs[gradient].clone();
        let mut new = self.body(&old, &mask)?;
        for ((&value, name), want) in old.results.iter().zip(&old.result_names).zip(wanted) {
            let fitted = match (new.is_batched[value], want) {
                (true, false) => {
                    let sum = Op::Reduce { kind: ReduceKind::Sum, axes: vec![0] };
                    let x = new.get(value);
                    new.graph.push1(sum, vec![x], old.ty(value).clone(), None)
                }
                (false, true) => new.batched(old.ty(value).rank(), value),
                _ => new.get(value),
            };
            new.graph.result(name.clone(), fitted);
        }
        Ok(self.m.funcs.push(new.graph))
    }
}

/// A function that is being made.
struct Body {
    seq: Dim,
    graph: Graph,
    loc: Option<Span>,
    /// By value of the old function.
    map: SecondaryMap<Value, PackedOption<Value>>,
    is_batched: SecondaryMap<Value, bool>,
    /// Unbatched values that had to be repeated for every sequence.
    repeated: HashMap<Value, Value>,
}

impl Body {
    fn new(seq: Dim, name: String) -> Body {
        Body {
            seq,
            graph: Graph::new(name),
            loc: None,
            map: SecondaryMap::new(),
            is_batched: SecondaryMap::new(),
            repeated: HashMap::new(),
        }
    }

    /// The new value of an old one. The verifier has seen that operands stand before their uses.
    fn get(&self, old: Value) -> Value {
        self.map[old].expect("operands stand before their uses")
    }

    fn set(&mut self, old: Value, new: Value, is_batched: bool) {
        self.map[old] = new.into();
        self.is_batched[old] = is_batched;
    }

    fn batched_if(&self, is_batched: bool, ty: &Type) -> Type {
        let front = is_batched.then_some(self.seq);
        Type { dtype: ty.dtype, dims: front.into_iter().chain(ty.dims.iter().copied()).collect() }
    }

    /// Adds the node that stands for an old one; `results` says which of its results are batched.
    fn emit(&mut self, old: &Graph, node: &NodeData, op: Op, args: Vec<Value>, results: &[bool]) {
        let types = node.results.iter().zip(results).map(|(&v, &b)| self.batched_if(b, old.ty(v))).collect();
        let new = self.graph.push(op, args, types, node.loc);
        for ((&value, &is_batched), i) in node.results.iter().zip(results).zip(0..) {
            self.set(value, self.graph.nodes[new].results[i], is_batched);
        }
    }

    fn results(&mut self, old: &Graph) {
        for (&value, name) in old.results.iter().zip(&old.result_names) {
            self.graph.result(name.clone(), self.get(value));
        }
    }

    /// An old value of rank `rank` in the shape of a batched one: repeated for every sequence where it is not batched.
    fn batched(&mut self, rank: usize, old: Value) -> Value {
        let value = self.get(old);
        if self.is_batched[old] {
            return value;
        }
        if let Some(&repeated) = self.repeated.get(&old) {
            return repeated;
        }
        let ty = self.batched_if(true, self.graph.ty(value));
        let axes = (0..rank).map(|axis| axis as u8 + 1).collect();
        let repeated = self.graph.push1(Op::Broadcast { axes }, vec![value], ty, self.loc);
        self.repeated.insert(old, repeated);
        repeated
    }

    fn all_batched(&mut self, old: &Graph, args: &[Value]) -> Vec<Value> {
        args.iter().map(|&v| self.batched(old.ty(v).rank(), v)).collect()
    }

    /// Operands of an elementwise op, one of which is batched: the batched result's axes, or rank 0.
    fn elementwise(&mut self, old: &Graph, node: &NodeData) -> Vec<Value> {
        let out = self.batched_if(true, old.ty(node.results[0]));
        let mut args = Vec::with_capacity(node.args.len());
        for &arg in &node.args {
            let rank = old.ty(arg).rank();
            args.push(match (rank, self.is_batched[arg]) {
                (0, false) => self.get(arg),
                // One number for each sequence beside tensors: it stands for every element of its sequence.
                (0, true) if out.rank() > 1 => {
                    let value = self.get(arg);
                    let ty = out.with_dtype(self.graph.ty(value).dtype);
                    self.graph.push1(Op::Broadcast { axes: vec![0] }, vec![value], ty, self.loc)
                }
                _ => self.batched(rank, arg),
            });
        }
        args
    }

    /// A node other than a call, some operand of which is batched; so are then all results.
    fn lift(&mut self, old: &Graph, node: &NodeData, mask: &[bool]) -> Result<(), String> {
        self.loc = node.loc;
        let (op, args) = match &node.op {
            Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select | Op::Cast => {
                (node.op.clone(), self.elementwise(old, node))
            }
            Op::Gather if mask[0] => {
                return Err("a table made from tokens cannot be indexed: every sequence would have its own".into());
            }
            Op::ScatterAdd => {
                return Err("a table cannot be made from tokens: every sequence would have its own".into());
            }
            Op::Rope { .. } if mask[1] => return Err("rope's positions depend on the tokens of a sequence".into()),
            Op::Attention { mask: m, .. } | Op::AttentionGrad { mask: m, .. } => {
                let (inputs, window) = node.args.split_at(node.args.len() - m.window as usize);
                if window.iter().any(|&v| self.is_batched[v]) {
                    return Err("an attention window depends on the tokens of a sequence".into());
                }
                let mut args = self.all_batched(old, inputs);
                args.extend(window.iter().map(|&v| self.get(v)));
                (node.op.clone(), args)
            }
            Op::Dot { batch, contract } => {
                self.dot(old, node, batch, contract, mask);
                return Ok(());
            }
            // The index differs, the table does not; the same for positions of rope, which this leaves alone.
            Op::Gather | Op::Rope { .. } => (moved(&node.op), node.args.iter().map(|&v| self.get(v)).collect()),
            op => (moved(op), self.all_batched(old, &node.args)),
        };
        self.emit(old, node, op, args, &vec![true; node.results.len()]);
        Ok(())
    }

    /// A sum of products. The result's first axes are the walked ones, then those of a: the axis of sequences is
    /// brought before them where it is not walked itself.
    fn dot(&mut self, old: &Graph, node: &NodeData, batch: &[(u8, u8)], contract: &[(u8, u8)], mask: &[bool]) {
        let (by_a, by_b) = (mask[0] as u8, mask[1] as u8);
        let shift =
            |pairs: &[(u8, u8)]| -> Vec<(u8, u8)> { pairs.iter().map(|&(i, j)| (i + by_a, j + by_b)).collect() };
        let (mut batch, contract) = (shift(batch), shift(contract));
        let args: Vec<Value> = node.args.iter().map(|&v| self.get(v)).collect();
        let free_of_a = old.ty(node.args[0]).rank() - batch.len() - contract.len();
        let front = match (mask[0], mask[1]) {
            (true, true) => {
                batch.insert(0, (0, 0));
                0
            }
            (true, false) => batch.len(),
            _ => batch.len() + free_of_a,
        };
        let op = Op::Dot { batch, contract };
        if front == 0 {
            return self.emit(old, node, op, args, &[true]);
        }
        let out = self.batched_if(true, old.ty(node.results[0]));
        let mut dims = out.dims.clone();
        dims[..=front].rotate_left(1);
        let product = self.graph.push1(op, args, Type::new(out.dtype, dims), node.loc);
        let mut perm: Vec<u8> = (0..out.rank()).map(|axis| axis as u8).collect();
        perm[..=front].rotate_right(1);
        self.emit(old, node, Op::Transpose { perm }, vec![product], &[true]);
    }
}

/// An op whose operands got a further first axis: axes that it names stand one place later.
fn moved(op: &Op) -> Op {
    let mut op = op.clone();
    match &mut op {
        Op::Slice { axis, .. }
        | Op::Pad { axis, .. }
        | Op::Concat { axis }
        | Op::Shift { axis, .. }
        | Op::Reverse { axis }
        | Op::Cumsum { axis, .. }
        | Op::Rope { axis, .. } => *axis += 1,
        Op::Reduce { axes, .. } => axes.iter_mut().for_each(|axis| *axis += 1),
        Op::Broadcast { axes } => {
            axes.iter_mut().for_each(|axis| *axis += 1);
            axes.insert(0, 0);
        }
        Op::Transpose { perm } => {
            perm.iter_mut().for_each(|axis| *axis += 1);
            perm.insert(0, 0);
        }
        // Along the last axis, or with any leading axes.
        Op::Reshape
        | Op::Softmax
        | Op::SoftmaxGrad
        | Op::RmsNorm { .. }
        | Op::RmsNormGrad { .. }
        | Op::LayerNorm { .. }
        | Op::LayerNormGrad { .. }
        | Op::Gather
        | Op::CrossEntropy
        | Op::CrossEntropyGrad => {}
        // Name no axis, or are not moved: `lift` has a rule for each.
        Op::Const(_)
        | Op::Iota { .. }
        | Op::Random { .. }
        | Op::Unary(_)
        | Op::Binary(_)
        | Op::Compare(_)
        | Op::Select
        | Op::Cast
        | Op::ScatterAdd
        | Op::Dot { .. }
        | Op::Attention { .. }
        | Op::AttentionGrad { .. }
        | Op::Call { .. } => {}
    }
    op
}
