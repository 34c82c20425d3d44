//! The head of a model with its cross-entropy, forward and backward.
//!
//! ```text
//! before                                              after
//! v3: f32[T, vocab] = dot v0, v1 {contract = [1:1]}   func f0 "loss" (v0: f32[T, dim], v1: f32[vocab, dim], …) {
//! v4: f32[T, vocab] = tanh v3                           all of it
//! v5: f32[T] = cross_entropy v4, v2                     return v5, v9, v10
//! v6: f32[T, vocab] = cross_entropy_grad v4, v2, dy   }
//! v7: f32[T, vocab] = …                               … call v0, v1, v2, dy {func = f0, kind = loss}
//! v8: f32[T, vocab] = mul v6, v7
//! v9: f32[T, dim] = dot v8, v1 {contract = [1:0]}
//! v10: f32[vocab, dim] = dot v8, v0 {contract = [0:0]}
//! return v5, v9, v10
//! ```
//!
//! Starts at a cross-entropy and goes back to the product z that its logits are made of, by elementwise ops; then takes
//! everything that z leads to. That must be: elementwise ops with numbers and rows repeated along other axes, one
//! cross-entropy, at most one gradient of it for the same logits and targets, and products of one value dz with the two
//! operands of the head, dz·w over the classes and dzᵀ·x over the rows. The addition of dw to an f32 tensor goes along
//! if nothing else reads dw. Nothing but losses, dx and dw may be needed outside: else logits have to be written anyway,
//! and nothing is done. Results stand in that order.
//!
//! Values are the same but for rounding between the ops, and the order of sums where a backend goes by chunks of rows.

use std::collections::BTreeSet;

use super::flow::Flow;
use super::outline::{self, Cluster};
use super::units::Units;
use crate::ir::{BinaryOp, DType, Fusion, Module, Node, Op, Value};

/// Runs the pass.
pub fn run(m: &mut Module) -> Result<usize, String> {
    outline::run(m, |flow, _| {
        let mut units = Units::new(flow);
        let mut clusters = Vec::new();
        for (node, data) in flow.g.nodes.iter() {
            if data.op == Op::CrossEntropy
                && let Some(loss) = Loss::at(flow, node)
            {
                clusters.extend(loss.cluster(&mut units));
            }
        }
        clusters
    })
}

/// A head and all that it leads to.
struct Loss<'a> {
    flow: &'a Flow<'a>,
    head: Node,
    entropy: Node,
    gradient: Option<Node>,
    /// Elementwise nodes between these and the products of the gradient.
    chain: BTreeSet<Node>,
    /// Those of the chain that depend on the gradient of the logits.
    backward: BTreeSet<Node>,
    dots: Vec<Node>,
}

impl<'a> Loss<'a> {
    fn at(flow: &'a Flow<'a>, entropy: Node) -> Option<Loss<'a>> {
        let head = head(flow, entropy)?;
        let (chain, backward) = (BTreeSet::new(), BTreeSet::new());
        let mut loss = Loss { flow, head, entropy, gradient: None, chain, backward, dots: Vec::new() };
        loss.follow()?;
        loss.is_inside(flow.g.nodes[entropy].args[0]).then_some(())?;
        Some(loss)
    }

    /// Whether a value is made by the loss.
    fn is_inside(&self, value: Value) -> bool {
        let def = self.flow.base(value).and_then(|base| self.flow.g.def_node(base));
        let is_one = |def: Node| def == self.head || def == self.entropy || self.gradient == Some(def);
        def.is_some_and(|def| is_one(def) || self.chain.contains(&def))
    }

    /// Takes everything that the product leads to; none if something does not belong to a loss.
    fn follow(&mut self) -> Option<()> {
        let g = self.flow.g;
        let size = self.flow.count(g.nodes[self.head].results[0]);
        let mut work: BTreeSet<Node> = BTreeSet::new();
        self.take(self.head, &mut work)?;
        // Operands stand before their users, so that those inside are known.
        while let Some(node) = work.pop_first() {
            let data = &g.nodes[node];
            match &data.op {
                Op::CrossEntropy if node == self.entropy && !self.is_inside(data.args[1]) => {}
                Op::CrossEntropyGrad if self.gradient.is_none() && data.args[..2] == g.nodes[self.entropy].args[..] => {
                    if self.is_inside(data.args[2]) {
                        return None;
                    }
                    self.gradient = Some(node);
                    self.take(node, &mut work)?;
                }
                Op::Dot { .. } => self.dots.push(node),
                op if op.is_elementwise() && self.flow.count(data.results[0]) == size => {
                    let known = |&value: &Value| self.is_inside(value) || self.flow.count(value) < size;
                    let is_backward = |&value: &Value| {
                        let def = g.def_node(value);
                        def.is_some_and(|def| self.gradient == Some(def) || self.backward.contains(&def))
                    };
                    if !self.flow.operands(node).iter().all(known) {
                        return None;
                    }
                    if self.flow.operands(node).iter().any(is_backward) {
                        self.backward.insert(node);
                    }
                    self.chain.insert(node);
                    self.take(node, &mut work)?;
                }
                _ => return None,
            }
        }
        Some(())
    }

    /// Goes on to the users of what a node gives, which must not be needed elsewhere.
    fn take(&self, node: Node, work: &mut BTreeSet<Node>) -> Option<()> {
        let value = self.flow.g.nodes[node].results[0];
        work.extend(self.flow.users(value));
        (!self.flow.escapes(value)).then_some(())
    }

    /// The products that give dx and dw; none if others are among them.
    fn gradients(&self) -> Option<(Option<Node>, Option<Node>)> {
        let g = self.flow.g;
        let Op::Dot { contract: of_head, .. } = &g.nodes[self.head].op else { return None };
        let [x, w] = g.nodes[self.head].args[..] else { return None };
        let last = g.ty(x).rank() as u8 - 1;
        let classes = 1 - of_head.first()?.1;
        let over_rows: Vec<(u8, u8)> = (0..last).map(|axis| (axis, axis)).collect();
        let (mut dx, mut dw, mut dz) = (None, None, None);
        for &node in &self.dots {
            let Op::Dot { batch, contract } = &g.nodes[node].op else { return None };
            let [a, b] = g.nodes[node].args[..] else { return None };
            let place = match contract[..] {
                [pair] if pair == (last, classes) && b == w => &mut dx,
                _ if *contract == over_rows && b == x => &mut dw,
                _ => return None,
            };
            let made = g.def_node(self.flow.base(a)?)?;
            let is_gradient = self.gradient == Some(made) || self.backward.contains(&made);
            let is_new = place.replace(node).is_none();
            if !batch.is_empty() || !is_gradient || !is_new || dz.is_some_and(|dz| dz != a) || self.is_inside(b) {
                return None;
            }
            dz = Some(a);
        }
        (self.dots.is_empty() == self.gradient.is_none()).then_some((dx, dw))
    }

    /// The node that adds dw to an f32 tensor and is its only reader, and that tensor.
    fn accumulation(&self, dw: Node) -> Option<Node> {
        let g = self.flow.g;
        let value = g.nodes[dw].results[0];
        let &[add] = self.flow.users(value) else { return None };
        let data = &g.nodes[add];
        let other = *self.flow.operands(add).iter().find(|&&v| v != value)?;
        let adds = data.op == Op::Binary(BinaryOp::Add) && self.flow.count(other) == self.flow.count(value);
        let wide = [other, data.results[0]].iter().all(|&v| g.ty(v).dtype == DType::F32);
        (adds && wide && !self.flow.escapes(value)).then_some(add)
    }

    /// Whether the chain from the product to the logits, and from their gradient to that of the product, can be
    /// elementwise programs over the product's elements.
    fn is_elementwise(&self) -> bool {
        let g = self.flow.g;
        let made = |node: Node| (g.nodes[node].results[0], 0);
        let mut read: Vec<(Value, usize)> = [self.head].into_iter().chain(self.gradient).map(made).collect();
        let chain: Vec<Node> = self.chain.iter().copied().collect();
        read.extend(self.flow.inputs(&chain).into_iter().map(|value| (value, 0)));
        let dz = self.dots.first().map(|&dot| g.nodes[dot].args[0]);
        [Some(g.nodes[self.entropy].args[0]), dz].into_iter().flatten().all(|value| {
            let program = super::program(self.flow, &read, &[value]);
            program.is_some_and(|p| p.is_elementwise() && p.elements == self.flow.count(read[0].0))
        })
    }

    fn cluster(self, units: &mut Units) -> Option<Cluster> {
        let (dx, dw) = self.gradients()?;
        if !self.is_elementwise() {
            return None;
        }
        let mut nodes: Vec<Node> = [self.head, self.entropy].into_iter().chain(self.gradient).collect();
        nodes.extend(self.chain.iter().chain(&self.dots));
        let accumulation = dw.and_then(|dw| self.accumulation(dw));
        let with: Vec<Node> = nodes.iter().copied().chain(accumulation).collect();
        let merge = |units: &mut Units, nodes: &[Node]| {
            let set: Vec<usize> = nodes.iter().map(|&node| units.of(node)).collect();
            units.check(&set).map(|merge| units.apply(merge)).is_some()
        };
        let (mut nodes, dw) = if merge(units, &with) {
            (with, accumulation.or(dw))
        } else if merge(units, &nodes) {
            (nodes, dw)
        } else {
            return None;
        };
        nodes.sort_unstable();
        let value = |node: Node| self.flow.g.nodes[node].results[0];
        let results = [Some(self.entropy), dx, dw].into_iter().flatten().map(value).collect();
        Some(Cluster { fusion: Fusion::Loss, nodes, results, fills: Vec::new(), at: self.head })
    }
}

/// The product of rows with one matrix that the logits of a cross-entropy are made of.
fn head(flow: &Flow, entropy: Node) -> Option<Node> {
    let g = flow.g;
    let logits = flow.base(g.nodes[entropy].args[0])?;
    let size = flow.count(logits);
    let (mut value, mut dot) = (logits, None);
    while dot.is_none() {
        let node = g.def_node(value)?;
        match &g.nodes[node].op {
            Op::Dot { .. } => dot = Some(node),
            // Where several operands are tensors of that size, all are made of the one product; `follow` sees to that.
            op if op.is_elementwise() => {
                value = *flow.operands(node).iter().find(|&&operand| flow.count(operand) == size)?;
            }
            _ => return None,
        }
    }
    let data = &g.nodes[dot?];
    let Op::Dot { batch, contract } = &data.op else { return None };
    let (x, w) = (g.ty(data.args[0]), g.ty(data.args[1]));
    let last = x.rank().checked_sub(1)? as u8;
    let is_head = batch.is_empty() && w.rank() == 2 && last > 0 && contract.len() == 1 && contract[0].0 == last;
    is_head.then_some(dot?)
}
