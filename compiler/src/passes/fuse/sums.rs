//! A fold of a fold becomes one, over the axes of both.
//!
//! ```text
//! before                                                      after
//! v1: f32[T, dim] = reduce v0 {kind = sum, axes = [0]}        v1: f32[dim] = reduce v0 {kind = sum, axes = [0, 1]}
//! v2: f32[dim] = reduce v1 {kind = sum, axes = [0]}
//! ```
//!
//! for a fold of the same kind whose result is f32 or i32 and that nothing else reads, where the axes of both are the
//! leading ones, so that one pass over the elements does it: the gradient of what is the same for every token of every
//! sequence. Largest and smallest values are the same to the bit, others but for the order of sums and the rounding between.

use cranelift_entity::SecondaryMap;

use crate::ir::{DType, Graph, Module, Node, NodeData, Op, Value};
use crate::passes::rewrite::Rewrite;

/// Runs the pass.
pub fn run(m: &mut Module) -> Result<usize, String> {
    let mut changes = 0;
    for g in m.funcs.values_mut() {
        let folds = Folds::of(g);
        if folds.count == 0 {
            continue;
        }
        changes += folds.count;
        let mut r = Rewrite::new(g);
        for (node, data) in r.old.nodes.iter() {
            match (&data.op, &folds.whole[node]) {
                _ if folds.joined[node] => {}
                (Op::Reduce { kind, .. }, Some((source, axes))) => {
                    let source = r.get(*source);
                    r.emit(node, Op::Reduce { kind: *kind, axes: axes.clone() }, vec![source]);
                }
                _ => {
                    r.copy(node);
                }
            }
        }
        let new = r.finish();
        *g = new;
    }
    Ok(changes)
}

struct Folds {
    /// Folds that became part of the one that reads them.
    joined: SecondaryMap<Node, bool>,
    /// What each fold folds in the end, and over which of its axes.
    whole: SecondaryMap<Node, Option<(Value, Vec<u8>)>>,
    count: usize,
}

impl Folds {
    fn of(g: &Graph) -> Folds {
        let mut uses: SecondaryMap<Value, usize> = SecondaryMap::new();
        for &value in g.nodes.values().flat_map(|node| &node.args).chain(&g.results) {
            uses[value] += 1;
        }
        let mut folds = Folds { joined: SecondaryMap::new(), whole: SecondaryMap::new(), count: 0 };
        for (node, data) in g.nodes.iter() {
            let Op::Reduce { axes, .. } = &data.op else { continue };
            folds.whole[node] = Some((data.args[0], axes.clone()));
            if uses[data.args[0]] == 1
                && let Some(inner) = g.def_node(data.args[0])
                && let Some(whole) = folds.join(g, inner, data)
            {
                folds.joined[inner] = true;
                folds.whole[node] = Some(whole);
                folds.count += 1;
            }
        }
        folds
    }

    /// What a fold folds together with the one that it reads.
    fn join(&self, g: &Graph, inner: Node, outer: &NodeData) -> Option<(Value, Vec<u8>)> {
        let (Op::Reduce { kind: first, .. }, Op::Reduce { kind, axes }) = (&g.nodes[inner].op, &outer.op) else {
            return None;
        };
        let exact = matches!(g.ty(outer.args[0]).dtype, DType::F32 | DType::I32);
        let (source, folded) = self.whole[inner].as_ref().filter(|_| exact && first == kind)?;
        let kept: Vec<u8> = (0..g.ty(*source).rank() as u8).filter(|axis| !folded.contains(axis)).collect();
        let mut all: Vec<u8> = axes.iter().map(|&axis| kept[axis as usize]).chain(folded.iter().copied()).collect();
        all.sort_unstable();
        let leading = all.iter().enumerate().all(|(i, &axis)| i == axis as usize);
        leading.then_some((*source, all))
    }
}
