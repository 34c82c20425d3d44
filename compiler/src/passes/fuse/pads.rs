//! A sum of padded tensors that fill one another's gaps becomes a concatenation: the gradient of slices.
//!
//! ```text
//! before                                              after
//! v2: f32[T, 4] = pad v0 {axis = 1, before = 0}       v2: f32[T, 4] = concat v0, v1 {axis = 1}
//! v3: f32[T, 4] = pad v1 {axis = 1, before = 2}
//! v4: f32[T, 4] = add v2, v3
//! ```
//!
//! for any number of parts, added in any order, that lie beside one another and leave nothing between; nothing else may
//! read the padded ones or the sums on the way. Values are the same to the bit, but that −0 stays −0.

use cranelift_entity::SecondaryMap;

use crate::ir::{BinaryOp, Graph, Module, Node, Op, Value};
use crate::passes::rewrite::Rewrite;

/// Runs the pass.
pub fn run(m: &mut Module) -> Result<usize, String> {
    let mut changes = 0;
    for func in m.funcs.keys().collect::<Vec<_>>() {
        let sums = whole(m, &m.funcs[func]);
        if sums.is_empty() {
            continue;
        }
        changes += sums.len();
        let mut inside: SecondaryMap<Node, bool> = SecondaryMap::new();
        let mut concats: SecondaryMap<Node, Option<(u8, Vec<Value>)>> = SecondaryMap::new();
        for (node, sum) in sums {
            sum.nodes.iter().for_each(|&node| inside[node] = true);
            concats[node] = Some((sum.axis, sum.parts.into_iter().map(|part| part.value).collect()));
        }
        let mut r = Rewrite::new(&m.funcs[func]);
        for node in r.old.nodes.keys() {
            match &concats[node] {
                Some((axis, parts)) => {
                    let parts = parts.iter().map(|&part| r.get(part)).collect();
                    r.emit(node, Op::Concat { axis: *axis }, parts);
                }
                None if inside[node] => {}
                None => drop(r.copy(node)),
            }
        }
        m.funcs[func] = r.finish();
    }
    Ok(changes)
}

/// Positions `start..end` of an axis, taken from a tensor.
#[derive(Clone, Copy)]
struct Part {
    start: usize,
    end: usize,
    value: Value,
}

/// A sum of padded tensors.
#[derive(Clone)]
struct Sum {
    axis: u8,
    /// In order, none upon another.
    parts: Vec<Part>,
    /// The nodes that pad and add them.
    nodes: Vec<Node>,
}

/// Sums without a gap, by the node that makes them.
fn whole(m: &Module, g: &Graph) -> Vec<(Node, Sum)> {
    let mut uses: SecondaryMap<Value, usize> = SecondaryMap::new();
    for &value in g.nodes.values().flat_map(|node| &node.args).chain(&g.results) {
        uses[value] += 1;
    }
    let mut sums: SecondaryMap<Value, Option<Sum>> = SecondaryMap::new();
    let mut whole = Vec::new();
    for (node, data) in g.nodes.iter() {
        match (&data.op, &data.args[..]) {
            (&Op::Pad { axis, before }, &[value]) => {
                let end = before + m.dims.size(g.ty(value).dims[axis as usize]);
                let parts = vec![Part { start: before, end, value }];
                sums[data.results[0]] = Some(Sum { axis, parts, nodes: vec![node] });
            }
            (Op::Binary(BinaryOp::Add), &[a, b]) if uses[a] == 1 && uses[b] == 1 => {
                let result = data.results[0];
                let same = [a, b].iter().all(|&v| g.ty(v).dtype == g.ty(result).dtype);
                let (Some(x), Some(y)) = (sums[a].take(), sums[b].take()) else { continue };
                let Some(sum) = joined(x, y, node).filter(|_| same) else { continue };
                let size = m.dims.size(g.ty(result).dims[sum.axis as usize]);
                match sum.gaps(size) {
                    0 => whole.push((node, sum)),
                    _ => sums[result] = Some(sum),
                }
            }
            _ => {}
        }
    }
    whole
}

/// The sum of two sums of which no part lies upon another.
fn joined(mut x: Sum, y: Sum, node: Node) -> Option<Sum> {
    x.parts.extend(&y.parts);
    x.parts.sort_by_key(|part| (part.start, part.end));
    x.nodes.extend(&y.nodes);
    x.nodes.push(node);
    let apart = x.parts.windows(2).all(|pair| pair[0].end <= pair[1].start);
    (x.axis == y.axis && apart).then_some(x)
}

impl Sum {
    /// Positions out of `size` that no part has.
    fn gaps(&self, size: usize) -> usize {
        size - self.parts.iter().map(|part| part.end - part.start).sum::<usize>()
    }
}
