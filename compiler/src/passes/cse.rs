//! Common subexpressions: two nodes that compute the same thing become one.
//!
//! ```text
//! before                              after
//! v1: f32[T] = exp v0                 v1: f32[T] = exp v0
//! v2: f32[T] = exp v0                 v2: f32[T] = add v1, v1
//! v3: f32[T] = add v1, v2
//! ```
//!
//! Two nodes are the same if op, attributes, operands and the exact types of all results are: a cast to another dtype
//! or a constant of another dtype is another value. Graphs are pure, so that holds for calls too, and for `random`,
//! whose numbers are a function of its name. Sums and products are the same with their operands swapped; `max` and
//! `min` are not (of 0 and −0 they take the first). A function's own calls of different but equal functions stay.

use std::collections::HashMap;

use super::rewrite::Rewrite;
use crate::ir::{BinaryOp, CompareOp, Module, Node, Op, Type, Value};

/// Runs the pass.
pub fn run(m: &mut Module) -> Result<usize, String> {
    let mut changes = 0;
    for g in m.funcs.values_mut() {
        let mut r = Rewrite::new(g);
        let mut seen: HashMap<(&Op, Vec<Value>, Vec<&Type>), Node> = HashMap::new();
        for (node, data) in r.old.nodes.iter() {
            let mut args = r.args(node);
            if commutes(&data.op) {
                args.sort_unstable();
            }
            let types = data.results.iter().map(|&v| r.old.ty(v)).collect();
            match seen.get(&(&data.op, args.clone(), types)) {
                Some(&first) => {
                    changes += 1;
                    for (i, &from) in data.results.iter().enumerate() {
                        let to = r.new.nodes[first].results[i];
                        r.set(from, to);
                    }
                }
                None => {
                    let types = data.results.iter().map(|&v| r.old.ty(v)).collect();
                    let new = r.copy(node);
                    seen.insert((&data.op, args, types), new);
                }
            }
        }
        let new = r.finish();
        *g = new;
    }
    Ok(changes)
}

/// Whether swapping the operands gives the same bits.
fn commutes(op: &Op) -> bool {
    match op {
        Op::Binary(f) => {
            matches!(f, BinaryOp::Add | BinaryOp::Mul | BinaryOp::And | BinaryOp::Or | BinaryOp::Xor)
        }
        Op::Compare(f) => matches!(f, CompareOp::Eq | CompareOp::Ne),
        _ => false,
    }
}
