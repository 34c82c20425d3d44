//! Which products are symmetric matrices in exact arithmetic.
//!
//! ```text
//! v1: f32[n, n] = dot v0, v0 {contract = [1:1]}     symmetric: x·xᵀ
//! v2: f32[n, n] = mul v1, 2.0                       symmetric, a polynomial in v1
//! v3: f32[n, n] = dot v2, v1 {contract = [1:0]}     symmetric: polynomials in one matrix commute
//! v4: f32[n, n] = add v2, v3                        symmetric, a polynomial in v1
//! ```
//!
//! Every symmetric matrix is known as a polynomial, without constant term, in one symmetric matrix, its root. Numbers,
//! signs, casts between floats and other names of axes keep that; sums do where the roots are equal. Other elementwise
//! ops on symmetric matrices give one that is its own root. A matrix may have batch axes before its own two, and x·xᵀ may
//! sum over any axes of x.

use cranelift_entity::SecondaryMap;
use cranelift_entity::packed_option::PackedOption;

use super::flow::Flow;
use crate::ir::{BinaryOp, Node, NodeData, Op, UnaryOp, Value};

/// Which `dot` nodes are symmetric as a matrix of the free axes of their operands.
pub fn products(flow: &Flow) -> SecondaryMap<Node, bool> {
    let mut s = Symmetric { flow, root: SecondaryMap::new() };
    let mut symmetric = SecondaryMap::new();
    for (node, data) in flow.g.nodes.iter() {
        let [result] = data.results[..] else { continue };
        let root = s.root_of(data, result);
        s.root[result] = root.into();
        symmetric[node] = match (&data.op, &data.args[..]) {
            (Op::Dot { batch, contract }, &[a, b]) => root.is_some() || s.is_gram(batch, contract, a, b),
            _ => false,
        };
    }
    symmetric
}

struct Symmetric<'a> {
    flow: &'a Flow<'a>,
    root: SecondaryMap<Value, PackedOption<Value>>,
}

impl Symmetric<'_> {
    fn root_of(&self, data: &NodeData, result: Value) -> Option<Value> {
        let g = self.flow.g;
        let root = |v: Value| self.root[v].expand();
        let is_number = |v: Value| g.ty(v).rank() == 0;
        match (&data.op, &data.args[..]) {
            (Op::Dot { batch, contract }, &[a, b]) => self.product(batch, contract, a, b, result),
            (Op::Cast, &[x]) if g.ty(x).dtype.is_float() && g.ty(result).dtype.is_float() => root(x),
            (Op::Unary(UnaryOp::Neg), &[x]) => root(x),
            (Op::Reshape, &[x]) if self.same_sizes(x, result) => root(x),
            (Op::Transpose { perm }, &[x]) => {
                let (rows, batch) = (perm.len().checked_sub(2)?, perm.len() - 2);
                let keeps_batch = perm[..batch].iter().enumerate().all(|(i, &p)| i == p as usize);
                (keeps_batch && perm[rows..].iter().all(|&p| p as usize >= rows)).then(|| root(x))?
            }
            (Op::Binary(BinaryOp::Mul), &[x, c]) if is_number(c) && root(x).is_some() => root(x),
            (Op::Binary(BinaryOp::Mul), &[c, x]) if is_number(c) && root(x).is_some() => root(x),
            (Op::Binary(BinaryOp::Div), &[x, c]) if is_number(c) && root(x).is_some() => root(x),
            (Op::Binary(BinaryOp::Add | BinaryOp::Sub), &[x, y]) if root(x).is_some() && root(x) == root(y) => root(x),
            (op, args) if op.is_elementwise() => {
                let all = args.iter().all(|&v| is_number(v) || root(v).is_some());
                (all && !is_number(result)).then_some(result)
            }
            _ => None,
        }
    }

    /// The root of a product of two matrices.
    fn product(&self, batch: &[(u8, u8)], contract: &[(u8, u8)], a: Value, b: Value, result: Value) -> Option<Value> {
        let rank = self.flow.g.ty(a).rank();
        if self.is_gram(batch, contract, a, b) && rank == batch.len() + contract.len() + 1 {
            // A polynomial in a's own root, if it has one: a square.
            let square = rank == batch.len() + 2 && is_leading(batch);
            return self.root[a]
                .expand()
                .filter(|&root| square && self.root[b].expand() == Some(root))
                .or(Some(result));
        }
        let matrices = is_leading(batch) && contract.len() == 1 && rank == batch.len() + 2;
        let root = self.root[a].expand()?;
        (matrices && self.root[b].expand() == Some(root)).then_some(root)
    }

    /// Whether a product is one of a tensor with itself, but for numbers, along the same axes.
    fn is_gram(&self, batch: &[(u8, u8)], contract: &[(u8, u8)], a: Value, b: Value) -> bool {
        let is_matrix = self.flow.g.ty(a).rank() > batch.len() + contract.len();
        is_matrix && batch.iter().chain(contract).all(|(i, j)| i == j) && self.scaled(a) == self.scaled(b)
    }

    /// What a value is but for numbers that multiply it and its dtype.
    fn scaled(&self, mut value: Value) -> Value {
        let g = self.flow.g;
        while let Some(node) = g.def_node(value) {
            let data = &g.nodes[node];
            let is_number = |v: Value| g.ty(v).rank() == 0;
            value = match (&data.op, &data.args[..]) {
                (Op::Binary(BinaryOp::Mul | BinaryOp::Div), &[x, c]) if is_number(c) => x,
                (Op::Binary(BinaryOp::Mul), &[c, x]) if is_number(c) => x,
                (Op::Unary(UnaryOp::Neg), &[x]) => x,
                (Op::Cast, &[x]) if g.ty(x).dtype.is_float() => x,
                (Op::Reshape, &[x]) if self.same_sizes(x, value) => x,
                _ => break,
            };
        }
        value
    }

    fn same_sizes(&self, a: Value, b: Value) -> bool {
        let dims = &self.flow.m.dims;
        dims.sizes(&self.flow.g.ty(a).dims) == dims.sizes(&self.flow.g.ty(b).dims)
    }
}

/// Whether batch axes are the first of both operands, in order.
fn is_leading(batch: &[(u8, u8)]) -> bool {
    batch.iter().enumerate().all(|(i, &(x, y))| x == y && x as usize == i)
}
