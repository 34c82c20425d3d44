//! Clusters of elementwise ops, ops along rows and sums, over one space of elements.
//!
//! ```text
//! before                                             after
//! v2: f32[T, dim] = add v0, v1                       func f0 "rows" (v0: f32[T, dim], v1: f32[T, dim]) {
//! v3: f32[T, dim] = rms_norm v2 {eps = 1e-6}           v2: f32[T, dim] = add v0, v1
//! v4: f32[T, dim] = square v2                          v3: f32[T, dim] = rms_norm v2 {eps = 1e-6}
//! v5: f32[] = reduce v4 {kind = sum, axes = [0, 1]}    v4: f32[T, dim] = square v2
//! return v2, v3, v5                                    v5: f32[] = reduce v4 {kind = sum, axes = [0, 1]}
//!                                                      return v2, v3, v5
//!                                                    }
//!                                                    … call v0, v1 {func = f0, kind = rows}
//! ```
//!
//! Nodes join their producers and users, others that read the same values, and others that prepare operands of one
//! attention or take its gradients further; of all such pairs the nearest first, as what stands together is alive together
//! anyway. What the row program of the cluster cannot be
//! (`schedule::cluster`) is not joined: a sum over everything is a result only, and all rows fit one tile.
//! A tensor of constants that replaces a slot joins the last cluster that reads the slot: the gradient that is cleared.
//!
//! Values are the same but for rounding between the ops of a cluster.

use super::flow::Flow;
use super::outline::{self, Cluster};
use super::units::{Unit, Units};
use super::{LONGEST_TILE, MOST_NODES, MOST_REPEATED, MOST_TENSORS};
use crate::ir::{Func, Fusion, Graph, Input, Module, Node, Op, Output, Value};

/// Runs the pass.
pub fn run(m: &mut Module) -> Result<usize, String> {
    let donated: Vec<(Func, Vec<Option<Value>>)> = m.entries.values().map(|e| (e.func, donated(m, e))).collect();
    outline::run(m, |flow, func| {
        let donated = donated.iter().find(|(f, _)| *f == func).map_or(&[][..], |(_, d)| d);
        Rows { flow, units: Units::new(flow) }.clusters(donated)
    })
}

/// For each result of an entry's function, the parameter whose slot it takes.
fn donated(m: &Module, entry: &crate::ir::Entry) -> Vec<Option<Value>> {
    let read = |output: &Output| {
        let Output::Slot(slot) = output else { return None };
        let at = entry.inputs.iter().position(|input| *input == Input::Slot(*slot))?;
        Some(m.funcs[entry.func].params[at])
    };
    entry.outputs.iter().map(read).collect()
}

/// Whether an op can be part of a cluster.
fn is_row_op(op: &Op) -> bool {
    op.is_elementwise()
        || matches!(op, Op::Softmax | Op::RmsNorm { .. } | Op::LayerNorm { .. } | Op::Rope { .. } | Op::Reduce { .. })
        || matches!(op, Op::SoftmaxGrad | Op::RmsNormGrad { .. } | Op::LayerNormGrad { .. })
}

struct Rows<'a> {
    flow: &'a Flow<'a>,
    units: Units<'a>,
}

impl Rows<'_> {
    fn clusters(mut self, donated: &[Option<Value>]) -> Vec<Cluster> {
        let mut pairs = [self.vertical(), self.horizontal(), self.around_attention()].concat();
        pairs.sort_by_key(|(a, b)| b.as_u32().abs_diff(a.as_u32()));
        for (a, b) in pairs {
            self.join(self.units.of(a), self.units.of(b));
        }
        let mut fills = self.fills(donated);
        let units: Vec<Unit> = self.units.ids().collect();
        units.into_iter().filter_map(|unit| self.cluster(unit, fills[unit].take())).collect()
    }

    fn g(&self) -> &Graph {
        self.flow.g
    }

    fn is_row_node(&self, node: Node) -> bool {
        is_row_op(&self.g().nodes[node].op)
    }

    /// Elements of the space that a node works on.
    fn space(&self, node: Node) -> usize {
        let results = &self.g().nodes[node].results;
        let values = self.flow.operands(node).iter().chain(results);
        values.map(|&v| self.flow.count(v)).max().unwrap_or(1)
    }

    /// Producers and users.
    fn vertical(&self) -> Vec<(Node, Node)> {
        let g = self.g();
        let users = g.nodes.keys().filter(|&node| self.is_row_node(node));
        let pairs = users.flat_map(|user| {
            let defs = self.flow.operands(user).iter().filter_map(|&value| g.def_node(value));
            defs.filter(|&def| self.is_row_node(def)).map(move |def| (def, user))
        });
        pairs.collect()
    }

    /// Readers of one value, over a space of its size.
    fn horizontal(&self) -> Vec<(Node, Node)> {
        let mut pairs = Vec::new();
        for value in self.g().values.keys().filter(|&value| self.flow.count(value) > 1) {
            let fits = |&node: &Node| self.is_row_node(node) && self.space(node) == self.flow.count(value);
            let readers: Vec<Node> = self.flow.users(value).iter().copied().filter(fits).collect();
            pairs.extend(readers.windows(2).map(|pair| (pair[0], pair[1])));
        }
        pairs
    }

    /// Makers of the operands of an attention, and users of what it gives.
    fn around_attention(&self) -> Vec<(Node, Node)> {
        let g = self.g();
        let mut pairs = Vec::new();
        for (node, data) in g.nodes.iter() {
            if !matches!(data.op, Op::Attention { .. } | Op::AttentionGrad { .. }) {
                continue;
            }
            let size = self.flow.count(data.results[0]);
            let makers = self.flow.operands(node).iter().filter_map(|&value| g.def_node(value));
            let users = data.results.iter().flat_map(|&value| self.flow.users(value).iter().copied());
            for list in [makers.collect::<Vec<_>>(), users.collect()] {
                let list: Vec<Node> =
                    list.into_iter().filter(|&n| self.is_row_node(n) && self.space(n) == size).collect();
                pairs.extend(list.windows(2).map(|pair| (pair[0], pair[1])));
            }
        }
        pairs
    }

    /// Makes one unit of two, if that can be one kernel.
    fn join(&mut self, a: Unit, b: Unit) {
        if a == b {
            return;
        }
        let nodes = self.units.union(a, b);
        if nodes.len() > MOST_NODES || self.repeated(&nodes) > MOST_REPEATED {
            return;
        }
        if let Some(merge) = self.units.check(&[a, b])
            && self.is_program(&nodes)
        {
            self.units.apply(merge);
        }
    }

    /// Nodes whose result has fewer elements than the space, sums apart.
    fn repeated(&self, nodes: &[Node]) -> usize {
        let space = nodes.iter().map(|&node| self.space(node)).max().unwrap_or(1);
        let count = |node: &&Node| {
            let data = &self.g().nodes[**node];
            !matches!(data.op, Op::Reduce { .. }) && self.flow.count(data.results[0]) < space
        };
        nodes.iter().filter(count).count()
    }

    /// Whether nodes can be one row program of bearable size.
    fn is_program(&self, nodes: &[Node]) -> bool {
        let (inputs, results) = (self.flow.inputs(nodes), self.flow.results(nodes));
        if inputs.len() + results.len() > MOST_TENSORS {
            return false;
        }
        let read: Vec<(Value, usize)> = inputs.iter().enumerate().map(|(operand, &value)| (value, operand)).collect();
        super::program(self.flow, &read, &results).is_some_and(|program| program.tile <= LONGEST_TILE)
    }

    /// Results of the graph that are tensors of a constant and replace a slot that is read: for each unit, which it gives
    /// beside its own.
    fn fills(&self, donated: &[Option<Value>]) -> SecondaryUnits {
        let mut fills: SecondaryUnits = vec![None; self.units.len()];
        for (i, slot) in donated.iter().enumerate() {
            let Some(slot) = *slot else { continue };
            let value = self.g().results[i];
            if self.flow.base(value).is_some() || self.flow.escapes(slot) {
                continue;
            }
            let readers = self.flow.users(slot).iter().map(|&node| self.units.of(node));
            let Some(last) = readers.max_by_key(|&unit| self.units.position(unit)) else { continue };
            let nodes = self.units.members(last);
            let space = nodes.iter().map(|&node| self.space(node)).max();
            if nodes.iter().all(|&node| self.is_row_node(node)) && space == Some(self.flow.count(value)) {
                fills[last].get_or_insert_default().push(i);
            }
        }
        fills
    }

    /// The cluster of a unit, if it is more than what a kernel of its own does anyway.
    fn cluster(&self, unit: Unit, fills: Option<Vec<usize>>) -> Option<Cluster> {
        let nodes = self.units.members(unit);
        let fills = fills.unwrap_or_default();
        let one = *nodes.first()?;
        if !self.is_row_node(one) || nodes.len() == 1 && fills.is_empty() && !self.repeats_operand(one) {
            return None;
        }
        if nodes.len() == 1 && !self.is_program(nodes) {
            return None;
        }
        let results = self.flow.results(nodes);
        // Where its first tensor is made: what it only sums up can wait until then.
        let tensors = results.iter().filter(|&&value| self.flow.count(value) > 1);
        let at = tensors.filter_map(|&value| self.g().def_node(value)).min().unwrap_or(one);
        Some(Cluster { fusion: Fusion::Rows, nodes: nodes.to_vec(), results, fills, at })
    }

    /// Whether an operand would have to be written out because a broadcast or a counter makes it.
    fn repeats_operand(&self, node: Node) -> bool {
        let g = self.g();
        g.nodes[node].args.iter().any(|&arg| {
            let mut value = arg;
            while let Some(def) = g.def_node(value) {
                match g.nodes[def].op {
                    Op::Broadcast { .. } | Op::Iota { .. } => return true,
                    Op::Reshape => value = g.nodes[def].args[0],
                    _ => return false,
                }
            }
            false
        })
    }
}

/// Something for each unit.
type SecondaryUnits = Vec<Option<Vec<usize>>>;
