//! Where the axes of an operand go, and how positions along them influence results: the "Along T" words of `ir/op.rs`
//! as code. Causality asks it about tokens; batching and splitting ask it about sequences.
//!
//! [`trace`] answers for one node. A [`Tracer`] answers for whole functions, through calls: it follows one input along
//! every path and joins what arrives. Modules are verified ones.

use std::collections::HashMap;
use std::sync::Arc;

use cranelift_entity::SecondaryMap;

use crate::ir::{AttentionMask, Dim, DimRole, Func, Graph, Module, Node, NodeData, Op, Value};

/// Which positions of an operand a position of the result reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Along {
    /// Position p reads position p.
    Pointwise,
    /// Position p reads position p − n: n > 0 looks back, n < 0 looks ahead.
    Shift(i64),
    /// Position p reads positions ≤ p.
    Prefix,
    /// Position p reads positions ≥ p.
    Suffix,
    /// Any position may read any position.
    Mixes,
}

impl Along {
    /// Whether no position reads a later one.
    pub fn looks_back(self) -> bool {
        match self {
            Along::Pointwise | Along::Prefix => true,
            Along::Shift(n) => n >= 0,
            Along::Suffix | Along::Mixes => false,
        }
    }

    /// Whether no position reads an earlier one.
    pub fn looks_ahead(self) -> bool {
        match self {
            Along::Pointwise | Along::Suffix => true,
            Along::Shift(n) => n <= 0,
            Along::Prefix | Along::Mixes => false,
        }
    }

    /// `self`, then `next` on its result.
    pub fn then(self, next: Along) -> Along {
        use Along::{Mixes, Pointwise, Prefix, Shift, Suffix};
        match (self, next) {
            (Pointwise, other) | (other, Pointwise) => other,
            (Shift(a), Shift(b)) => match a.checked_add(b) {
                Some(0) => Pointwise,
                Some(n) => Shift(n),
                None => Mixes,
            },
            (a, b) if a.looks_back() && b.looks_back() => Prefix,
            (a, b) if a.looks_ahead() && b.looks_ahead() => Suffix,
            _ => Mixes,
        }
    }

    /// What two paths read together.
    pub fn join(self, other: Along) -> Along {
        match (self, other) {
            (a, b) if a == b => a,
            (a, b) if a.looks_back() && b.looks_back() => Along::Prefix,
            (a, b) if a.looks_ahead() && b.looks_ahead() => Along::Suffix,
            _ => Along::Mixes,
        }
    }
}

/// What becomes of an operand's axis in one result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// Result, by position.
    pub result: usize,
    /// The result's axis that it became; none if it is lost: every element may then depend on all of it.
    pub axis: Option<usize>,
    /// What positions of that axis read; `Mixes` where it is lost.
    pub along: Along,
}

/// Where axis `axis` of operand `arg` of a node goes: one flow for each result that the operand influences. An axis
/// that the operand does not have goes nowhere. Calls are traced through; a [`Tracer`] remembers them.
pub fn trace(module: &Module, graph: &Graph, node: &NodeData, arg: usize, axis: usize) -> Vec<Flow> {
    Tracer::new(module).node(graph, node, arg, axis)
}

/// How an input that is followed reaches a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reach {
    /// The value's axis that the input's axis became; none if it is lost.
    pub axis: Option<usize>,
    /// What positions along it read of the input.
    pub along: Along,
    /// Where it stopped looking back only; none as long as it does.
    pub origin: Option<Origin>,
}

impl Reach {
    /// The input itself, followed along `axis`. Its positions stand for positions `ahead` later than their own.
    pub fn input(axis: usize, ahead: i64) -> Reach {
        let along = if ahead == 0 { Along::Pointwise } else { Along::Shift(ahead.saturating_neg()) };
        Reach { axis: Some(axis), along, origin: None }
    }
}

/// Where a reach stopped looking back only.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Before the function was entered: the reach came in by this parameter.
    Param(usize),
    /// At a node.
    Node(Arc<Place>),
}

/// A node, and what happened there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The calls that lead to the node, outermost first, and the node itself, each with its function.
    pub path: Vec<(Func, Node)>,
    /// What happened.
    pub cause: Cause,
}

/// Why a reach no longer looks back only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Positions read later ones.
    Ahead,
    /// The axis is gone, so that all of the result reads all of it.
    Lost,
    /// Two operands bring the axis to two different axes of the result.
    Crossed,
}

/// Follows inputs through functions; remembers what it found for each function and way of reaching its parameters.
pub struct Tracer<'a> {
    module: &'a Module,
    memo: HashMap<(Func, Vec<Option<Reach>>), Vec<Option<Reach>>>,
}

impl<'a> Tracer<'a> {
    /// A tracer that knows nothing yet.
    pub fn new(module: &'a Module) -> Tracer<'a> {
        Tracer { module, memo: HashMap::new() }
    }

    /// As [`trace`].
    pub fn node(&mut self, graph: &Graph, node: &NodeData, arg: usize, axis: usize) -> Vec<Flow> {
        let Op::Call { func, .. } = node.op else {
            return flows(self.module, graph, node, arg, Some(axis));
        };
        self.param(func, arg, axis)
    }

    /// Where axis `axis` of parameter `param` of a function goes in its results: the join over all paths.
    pub fn param(&mut self, func: Func, param: usize, axis: usize) -> Vec<Flow> {
        let g = &self.module.funcs[func];
        if g.params.get(param).is_none_or(|&p| axis >= g.ty(p).rank()) {
            return Vec::new();
        }
        let mut params = vec![None; g.params.len()];
        params[param] = Some(Reach::input(axis, 0));
        let results = self.func(func, params).into_iter().enumerate();
        results.filter_map(|(result, r)| r.map(|r| Flow { result, axis: r.axis, along: r.along })).collect()
    }

    /// How the results of a function are reached, given how its parameters are; none where they are not.
    pub fn func(&mut self, func: Func, params: Vec<Option<Reach>>) -> Vec<Option<Reach>> {
        let key = (func, params);
        if let Some(known) = self.memo.get(&key) {
            return known.clone();
        }
        let g = &self.module.funcs[func];
        let mut reached: SecondaryMap<Value, Option<Reach>> = SecondaryMap::new();
        for (&param, reach) in g.params.iter().zip(&key.1) {
            reached[param] = reach.clone();
        }
        for (node, data) in g.nodes.iter() {
            if data.args.iter().any(|&arg| reached[arg].is_some()) {
                let args: Vec<Option<Reach>> = data.args.iter().map(|&arg| reached[arg].clone()).collect();
                let results = match data.op {
                    Op::Call { func: callee, .. } => self.call((func, node), callee, args),
                    _ => self.step((func, node), data, &args),
                };
                for (&result, reach) in data.results.iter().zip(results) {
                    reached[result] = reach;
                }
            }
        }
        let results: Vec<Option<Reach>> = g.results.iter().map(|&v| reached[v].clone()).collect();
        self.memo.insert(key, results.clone());
        results
    }

    /// The callee sees only that a reach came in by a parameter, so that equal calls are traced once.
    fn call(&mut self, here: (Func, Node), callee: Func, args: Vec<Option<Reach>>) -> Vec<Option<Reach>> {
        let inside = |(i, arg): (usize, &Option<Reach>)| {
            arg.clone().map(|r| Reach { origin: r.origin.map(|_| Origin::Param(i)), ..r })
        };
        let params = args.iter().enumerate().map(inside).collect();
        let outside = |reach: Reach| {
            let origin = match reach.origin {
                Some(Origin::Param(i)) => args[i].as_ref().and_then(|arg| arg.origin.clone()),
                Some(Origin::Node(place)) => {
                    let path = std::iter::once(here).chain(place.path.iter().copied()).collect();
                    Some(Origin::Node(Arc::new(Place { path, cause: place.cause })))
                }
                None => None,
            };
            Reach { origin, ..reach }
        };
        self.func(callee, params).into_iter().map(|reach| reach.map(outside)).collect()
    }

    fn step(&self, here: (Func, Node), data: &NodeData, args: &[Option<Reach>]) -> Vec<Option<Reach>> {
        let graph = &self.module.funcs[here.0];
        let at = |cause| Origin::Node(Arc::new(Place { path: vec![here], cause }));
        let mut results: Vec<Option<Reach>> = vec![None; data.results.len()];
        for (i, arg) in args.iter().enumerate() {
            let Some(arg) = arg else { continue };
            for flow in flows(self.module, graph, data, i, arg.axis) {
                let mut reach = Reach { axis: flow.axis, along: arg.along.then(flow.along), origin: None };
                if !reach.along.looks_back() {
                    let cause = if flow.axis.is_none() { Cause::Lost } else { Cause::Ahead };
                    reach.origin = arg.origin.clone().or_else(|| Some(at(cause)));
                }
                results[flow.result] = Some(match results[flow.result].take() {
                    None => reach,
                    Some(other) => join(other, reach, || at(Cause::Crossed)),
                });
            }
        }
        results
    }
}

fn join(a: Reach, b: Reach, crossed: impl FnOnce() -> Origin) -> Reach {
    let axis = if a.axis == b.axis { a.axis } else { None };
    let along = if axis.is_none() { Along::Mixes } else { a.along.join(b.along) };
    let origin = if along.looks_back() { None } else { a.origin.or(b.origin).or_else(|| Some(crossed())) };
    Reach { axis, along, origin }
}

/// Flows of a node other than a call. `axis` none asks where an operand goes whose axis is lost already.
fn flows(module: &Module, graph: &Graph, node: &NodeData, arg: usize, axis: Option<usize>) -> Vec<Flow> {
    let Some(&value) = node.args.get(arg) else { return Vec::new() };
    let rank = graph.ty(value).rank();
    let f = Flows { module, graph, node, arg, rank };
    match axis {
        Some(axis) if axis >= rank => Vec::new(),
        Some(axis) => f.of_axis(axis),
        None => (0..node.results.len()).filter(|&r| f.influences(r)).map(|r| lost(r)[0]).collect(),
    }
}

/// A result reads all of the axis everywhere.
fn lost(result: usize) -> Vec<Flow> {
    vec![Flow { result, axis: None, along: Along::Mixes }]
}

/// The only result keeps the axis as `axis`.
fn kept(axis: usize, along: Along) -> Vec<Flow> {
    vec![Flow { result: 0, axis: Some(axis), along }]
}

/// A distance as [`Along`].
fn shifted(by: i64) -> Along {
    if by == 0 { Along::Pointwise } else { Along::Shift(by) }
}

/// One operand of one node.
struct Flows<'a> {
    module: &'a Module,
    graph: &'a Graph,
    node: &'a NodeData,
    arg: usize,
    rank: usize,
}

impl Flows<'_> {
    fn dims(&self, value: Value) -> &[Dim] {
        &self.graph.ty(value).dims
    }

    fn arg_rank(&self, i: usize) -> usize {
        self.dims(self.node.args[i]).len()
    }

    fn size(&self, value: Value, axis: usize) -> usize {
        self.module.dims.size(self.dims(value)[axis])
    }

    /// Whether result `r` depends on the operand at all.
    fn influences(&self, r: usize) -> bool {
        match self.node.op {
            // The log-sum-exp is made of scores only.
            Op::Attention { .. } => !(self.arg == 2 && r == 1),
            // dv = pᵀ·do: neither v nor o stands in it.
            Op::AttentionGrad { .. } => !(matches!(self.arg, 2 | 3) && r == 2),
            _ => true,
        }
    }

    /// The operand has `axis`.
    fn of_axis(&self, axis: usize) -> Vec<Flow> {
        let last = axis + 1 == self.rank;
        match &self.node.op {
            Op::Const(_) | Op::Iota { .. } | Op::Random { .. } | Op::Call { .. } => Vec::new(),
            Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select | Op::Cast => kept(axis, Along::Pointwise),
            Op::Broadcast { axes } => kept(axes[axis] as usize, Along::Pointwise),
            Op::Reshape => self.reshape(axis),
            Op::Transpose { perm } => match perm.iter().position(|&p| p as usize == axis) {
                Some(to) => kept(to, Along::Pointwise),
                None => lost(0),
            },
            Op::Slice { axis: cut, start } if *cut as usize == axis => kept(axis, shifted(-(*start as i64))),
            Op::Pad { axis: grown, before } if *grown as usize == axis => kept(axis, shifted(*before as i64)),
            Op::Concat { axis: joined } if *joined as usize == axis => {
                let before: usize = self.node.args[..self.arg].iter().map(|&v| self.size(v, axis)).sum();
                kept(axis, shifted(before as i64))
            }
            Op::Shift { axis: moved, by } if *moved as usize == axis => kept(axis, shifted(*by)),
            Op::Reverse { axis: turned } if *turned as usize == axis => kept(axis, Along::Mixes),
            Op::Cumsum { axis: summed, reverse } if *summed as usize == axis => {
                kept(axis, if *reverse { Along::Suffix } else { Along::Prefix })
            }
            Op::Slice { .. }
            | Op::Pad { .. }
            | Op::Concat { .. }
            | Op::Shift { .. }
            | Op::Reverse { .. }
            | Op::Cumsum { .. } => kept(axis, Along::Pointwise),
            Op::Reduce { axes, .. } if axes.contains(&(axis as u8)) => lost(0),
            Op::Reduce { axes, .. } => {
                kept(axis - axes.iter().filter(|&&a| (a as usize) < axis).count(), Along::Pointwise)
            }
            Op::Softmax
            | Op::SoftmaxGrad
            | Op::RmsNorm { .. }
            | Op::RmsNormGrad { .. }
            | Op::LayerNorm { .. }
            | Op::LayerNormGrad { .. } => kept(axis, if last { Along::Mixes } else { Along::Pointwise }),
            Op::Gather => match (self.arg, axis) {
                (0, 0) => lost(0),
                (0, _) => kept(self.arg_rank(1) + axis - 1, Along::Pointwise),
                _ => kept(axis, Along::Pointwise),
            },
            Op::ScatterAdd => match axis.checked_sub(self.arg_rank(0)) {
                None => lost(0),
                Some(rest) => kept(rest + 1, Along::Pointwise),
            },
            Op::Dot { batch, contract } => self.dot(axis, batch, contract),
            // Elements of a head turn in pairs.
            Op::Rope { .. } if self.arg == 0 => kept(axis, if last { Along::Mixes } else { Along::Pointwise }),
            Op::Rope { axis: along, .. } => kept(*along as usize, Along::Pointwise),
            Op::Attention { mask, .. } => self.attention(axis, *mask),
            Op::AttentionGrad { mask, .. } => self.attention_grad(axis, *mask),
            Op::CrossEntropy if self.arg == 0 && last => lost(0),
            Op::CrossEntropyGrad if self.arg == 0 && last => kept(axis, Along::Mixes),
            Op::CrossEntropy | Op::CrossEntropyGrad => kept(axis, Along::Pointwise),
        }
    }

    /// An axis survives where an axis of its size has as many elements before it.
    fn reshape(&self, axis: usize) -> Vec<Flow> {
        let dims = &self.module.dims;
        let from = self.dims(self.node.args[0]);
        let to = self.dims(self.node.results[0]);
        let before = dims.elements(&from[..axis]);
        let feature = dims.role(from[axis]) == DimRole::Feature;
        let same = |&j: &usize| {
            dims.elements(&to[..j]) == before
                && if feature { dims.size(to[j]) == dims.size(from[axis]) } else { to[j] == from[axis] }
        };
        match (0..to.len()).find(same) {
            Some(j) => kept(j, Along::Pointwise),
            None => lost(0),
        }
    }

    fn dot(&self, axis: usize, batch: &[(u8, u8)], contract: &[(u8, u8)]) -> Vec<Flow> {
        let side = |pair: &(u8, u8)| if self.arg == 0 { pair.0 as usize } else { pair.1 as usize };
        if contract.iter().any(|pair| side(pair) == axis) {
            return lost(0);
        }
        if let Some(place) = batch.iter().position(|pair| side(pair) == axis) {
            return kept(place, Along::Pointwise);
        }
        let paired = |i: usize| batch.iter().chain(contract).any(|pair| side(pair) == i);
        let earlier = (0..axis).filter(|&i| !paired(i)).count();
        let free_of_a = self.arg_rank(0) - batch.len() - contract.len();
        kept(batch.len() + earlier + if self.arg == 0 { 0 } else { free_of_a }, Along::Pointwise)
    }

    /// Along the head axis: groups of query heads share a key head.
    fn heads(&self, along_keys: bool, result_keys: bool) -> Along {
        let (q, k) = (self.node.args[0], self.node.args[1]);
        let axis = self.arg_rank(0) - 2;
        let grouped = self.size(q, axis) != self.size(k, axis);
        if grouped && along_keys != result_keys { Along::Mixes } else { Along::Pointwise }
    }

    fn attention(&self, axis: usize, mask: AttentionMask) -> Vec<Flow> {
        let n = self.arg_rank(0);
        let (token, head, feature) = (n - 3, n - 2, n - 1);
        let of_keys = matches!(self.arg, 1 | 2);
        let flow = |result: usize| {
            let (axis, along) = match axis {
                a if a < token => (Some(a), Along::Pointwise),
                a if a == token && self.arg == 0 => (Some(a), Along::Pointwise),
                a if a == token && mask.causal => (Some(a), Along::Prefix),
                a if a == token => (Some(a), Along::Mixes),
                a if a == head => (Some(a), self.heads(of_keys, false)),
                a if a == feature && self.arg == 2 => (Some(a), Along::Pointwise),
                _ => (None, Along::Mixes),
            };
            Flow { result, axis, along }
        };
        (0..2).filter(|&r| self.influences(r)).map(flow).collect()
    }

    /// With p = exp(s − lse) and ds = p·(do·vᵀ − Σ o·do): dq = ds·k, dk = dsᵀ·q, dv = pᵀ·do. Rows run along queries, so
    /// what is of queries reaches dk and dv from the keys' position on, and what is of keys reaches dq up to it.
    fn attention_grad(&self, axis: usize, mask: AttentionMask) -> Vec<Flow> {
        let n = self.arg_rank(0);
        let (token, head) = (n - 3, n - 2);
        let of_keys = matches!(self.arg, 1 | 2);
        let documents = self.arg >= 6;
        let flow = |result: usize| {
            let to_keys = result > 0;
            let (axis, along) = match axis {
                a if a < token => (Some(a), Along::Pointwise),
                a if a == token && of_keys == to_keys && !documents => (Some(a), Along::Pointwise),
                a if a == token && !mask.causal => (Some(a), Along::Mixes),
                a if a == token => (Some(a), if to_keys { Along::Suffix } else { Along::Prefix }),
                a if a == head => (Some(a), self.heads(of_keys, to_keys)),
                a if self.arg == 5 && result == 2 => (Some(a), Along::Pointwise),
                _ => (None, Along::Mixes),
            };
            Flow { result, axis, along }
        };
        (0..3).filter(|&r| self.influences(r)).map(flow).collect()
    }
}
