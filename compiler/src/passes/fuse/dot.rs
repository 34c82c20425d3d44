//! Products with what happens to their result, and with the numbers that multiply their operands.
//!
//! ```text
//! before                                                    after
//! v2: f32[T, wide] = dot v0, v1 {contract = [1:1]}          func f0 "dot" (v0: f32[T, dim], v1: f32[wide, dim]) {
//! v3: f32[T, wide] = relu v2                                  v2: f32[T, wide] = dot v0, v1 {contract = [1:1]}
//! v4: f32[T, wide] = square v3                                v3: f32[T, wide] = relu v2
//! return v3, v4                                               v4: f32[T, wide] = square v3
//!                                                             return v3, v4
//!                                                           }
//!                                                           … call v0, v1 {func = f0, kind = dot}
//! ```
//!
//! Into a product goes
//! - what multiplies or negates an operand by constants, if nothing else reads that;
//! - each elementwise op on the product over all its elements, and on what such ops give; other operands may be full
//!   tensors, repeated ones (a bias) and numbers. One that leads to a row op by elementwise steps stays with that
//!   (`rows.rs`), unless the value that it reads need not be stored then;
//! - elementwise ops that only these read, if the kernel reads no more tensors than before (the mask of a gradient).
//!
//! Products are looked at from the last to the first: what two could take belongs to the later one, whose other operands
//! are there then. A product that is symmetric (`symmetric.rs`) becomes a call even alone.
//!
//! Values are the same but for rounding between the ops of a cluster and for the order of multiplications by constants.

use cranelift_entity::SecondaryMap;

use super::flow::Flow;
use super::outline::{self, Cluster};
use super::symmetric;
use super::units::{Unit, Units};
use super::{MOST_NODES, MOST_TENSORS};
use crate::ir::{BinaryOp, Fusion, Module, Node, Op, UnaryOp, Value};
use crate::schedule::kernel::PRODUCT;
use crate::schedule::rows::{Access, Instr};

/// Runs the pass. What waited for a row op that another product took since belongs to its own product after all: it looks
/// until it finds nothing.
pub fn run(m: &mut Module) -> Result<usize, String> {
    let mut count = 0;
    loop {
        match once(m)? {
            0 => return Ok(count),
            found => count += found,
        }
    }
}

fn once(m: &mut Module) -> Result<usize, String> {
    outline::run(m, |flow, _| {
        let mut products = Products::of(flow);
        let dots = flow.g.nodes.iter().filter(|(_, data)| matches!(data.op, Op::Dot { .. })).map(|(node, _)| node);
        let mut clusters: Vec<Cluster> = Vec::new();
        for dot in dots.rev() {
            clusters.extend(products.cluster(dot));
        }
        clusters
    })
}

struct Products<'a> {
    flow: &'a Flow<'a>,
    units: Units<'a>,
    symmetric: SecondaryMap<Node, bool>,
    leads_to_rows: SecondaryMap<Node, bool>,
    taken: SecondaryMap<Node, bool>,
}

impl<'a> Products<'a> {
    fn of(flow: &'a Flow<'a>) -> Products<'a> {
        Products {
            flow,
            units: Units::new(flow),
            symmetric: symmetric::products(flow),
            leads_to_rows: leads_to_rows(flow),
            taken: SecondaryMap::new(),
        }
    }

    fn cluster(&mut self, dot: Node) -> Option<Cluster> {
        let product = self.flow.g.nodes[dot].results[0];
        if !self.flow.g.ty(product).dtype.is_float() || self.flow.count(product) < 2 {
            return None;
        }
        let mut nodes = vec![dot];
        self.take_scales(dot, &mut nodes);
        let factors = nodes.clone();
        while self.grow(product, &factors, &mut nodes) {}
        let symmetric = self.symmetric[dot];
        if nodes.len() == 1 && !symmetric {
            return None;
        }
        for &node in &nodes {
            self.taken[node] = true;
        }
        let fusion = if symmetric { Fusion::SymmetricDot } else { Fusion::Dot };
        Some(Cluster { fusion, results: self.flow.results(&nodes), nodes, fills: Vec::new(), at: dot })
    }

    /// Takes multiplications of the operands by constants.
    fn take_scales(&mut self, dot: Node, nodes: &mut Vec<Node>) {
        for i in 0..2 {
            let mut value = self.flow.g.nodes[dot].args[i];
            while let Some((node, source)) = self.scaled(value)
                && !self.taken[node]
                && self.flow.is_inside(value, nodes)
                && self.merge(nodes, &[node])
            {
                value = source;
            }
        }
    }

    /// The node that makes a value by multiplying another with a number, and that other.
    fn scaled(&self, value: Value) -> Option<(Node, Value)> {
        let g = self.flow.g;
        let node = g.def_node(value)?;
        let source = match (&g.nodes[node].op, &g.nodes[node].args[..]) {
            (Op::Binary(BinaryOp::Mul), &[x, c]) if g.constant(c).is_some() => x,
            (Op::Binary(BinaryOp::Mul), &[c, x]) if g.constant(c).is_some() => x,
            (Op::Binary(BinaryOp::Div), &[x, c]) if g.constant(c).is_some() => x,
            (Op::Unary(UnaryOp::Neg), &[x]) => x,
            _ => return None,
        };
        let is_tensor = g.ty(source).dims == g.ty(value).dims && self.flow.base(source) == Some(source);
        (g.ty(source).dtype.is_float() && is_tensor).then_some((node, source))
    }

    /// Takes one round of users of the product and of producers for these; whether there were any. What the product itself
    /// is made by, `factors`, gets none.
    fn grow(&mut self, product: Value, factors: &[Node], nodes: &mut Vec<Node>) -> bool {
        let before = nodes.len();
        let g = self.flow.g;
        let made = nodes.iter().flat_map(|&node| g.nodes[node].results.iter().copied());
        let mut users: Vec<Node> = made.flat_map(|value| self.flow.users(value).iter().copied()).collect();
        users.sort_unstable();
        users.dedup();
        for user in users {
            if self.is_candidate(product, user, nodes)
                && (!self.leads_to_rows[user] || self.saves_a_store(user, nodes))
                && self.is_epilogue(product, nodes, &[user])
            {
                self.merge(nodes, &[user]);
            }
        }
        for value in self.flow.inputs(nodes) {
            let cone = self.cone(product, value, factors, nodes);
            // All that only the cluster would read, or its last step alone.
            for part in [&cone[..], &cone[..1.min(cone.len())]] {
                let fits = !part.is_empty()
                    && self.reads_no_more(value, part, nodes)
                    && self.is_epilogue(product, nodes, part);
                if fits && self.merge(nodes, part) {
                    break;
                }
            }
        }
        nodes.len() > before
    }

    fn is_candidate(&self, product: Value, node: Node, nodes: &[Node]) -> bool {
        let data = &self.flow.g.nodes[node];
        data.op.is_elementwise()
            && !self.taken[node]
            && !nodes.contains(&node)
            && self.flow.count(data.results[0]) == self.flow.count(product)
    }

    /// Elementwise nodes that lead to a value and that only the epilogue would read: the last one first.
    fn cone(&self, product: Value, value: Value, factors: &[Node], nodes: &[Node]) -> Vec<Node> {
        let mut with = nodes.to_vec();
        let mut work = vec![value];
        while let Some(value) = work.pop() {
            if let Some(node) = self.flow.g.def_node(value)
                && with.len() < MOST_NODES
                && self.is_candidate(product, node, &with)
                && self.flow.is_inside(value, &with)
                && !self.flow.users(value).iter().any(|user| factors.contains(user))
            {
                with.push(node);
                work.extend(self.flow.operands(node));
            }
        }
        with.split_off(nodes.len())
    }

    /// Whether a value of the cluster has no other reader than the cluster and `user`.
    fn saves_a_store(&self, user: Node, nodes: &[Node]) -> bool {
        let with = [nodes, &[user]].concat();
        let made = |value: &Value| self.flow.g.def_node(*value).is_some_and(|def| nodes.contains(&def));
        self.flow.operands(user).iter().any(|value| made(value) && self.flow.is_inside(*value, &with))
    }

    /// Whether at most one tensor that `part` reads is new to the cluster: it takes the place of `value`, which `part` makes.
    fn reads_no_more(&self, value: Value, part: &[Node], nodes: &[Node]) -> bool {
        let known: Vec<Value> = self.flow.inputs(nodes).into_iter().filter(|&input| input != value).collect();
        let made = |value: Value| self.flow.g.def_node(value).is_some_and(|def| nodes.contains(&def));
        let is_new = |value: &Value| self.flow.count(*value) > 1 && !known.contains(value) && !made(*value);
        self.flow.inputs(part).into_iter().filter(is_new).count() <= 1
    }

    /// Whether the cluster with more nodes is a product with an elementwise epilogue.
    fn is_epilogue(&self, product: Value, nodes: &[Node], more: &[Node]) -> bool {
        let mut with = [nodes, more].concat();
        with.sort_unstable();
        let (inputs, results) = (self.flow.inputs(&with), self.flow.results(&with));
        if with.len() > MOST_NODES || inputs.len() + results.len() > MOST_TENSORS {
            return false;
        }
        let mut read = vec![(product, PRODUCT)];
        read.extend(inputs.iter().enumerate().map(|(operand, &value)| (value, operand)));
        super::program(self.flow, &read, &results).is_some_and(|program| {
            let repeats =
                |i: &Instr| matches!(i, Instr::Load { operand: PRODUCT, access, .. } if *access != Access::Full);
            program.is_elementwise()
                && program.elements == self.flow.count(product)
                && !program.instrs.iter().any(repeats)
        })
    }

    /// Adds nodes where no path leads out of the cluster and back.
    fn merge(&mut self, nodes: &mut Vec<Node>, more: &[Node]) -> bool {
        let set: Vec<Unit> = nodes[..1].iter().chain(more).map(|&node| self.units.of(node)).collect();
        let Some(merge) = self.units.check(&set) else { return false };
        self.units.apply(merge);
        nodes.extend_from_slice(more);
        nodes.sort_unstable();
        true
    }
}

/// Nodes from which elementwise steps lead to an op along rows or to a sum.
fn leads_to_rows(flow: &Flow) -> SecondaryMap<Node, bool> {
    let mut leads = SecondaryMap::new();
    for (node, data) in flow.g.nodes.iter().rev() {
        leads[node] = match data.op {
            Op::Softmax | Op::SoftmaxGrad | Op::RmsNorm { .. } | Op::RmsNormGrad { .. } => true,
            Op::LayerNorm { .. } | Op::LayerNormGrad { .. } | Op::Rope { .. } | Op::Reduce { .. } => true,
            ref op if op.is_elementwise() => flow.users(data.results[0]).iter().any(|&user| leads[user]),
            _ => false,
        };
    }
    leads
}
