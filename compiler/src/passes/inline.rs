//! Puts the body of a function in the place of its call.
//!
//! ```text
//! before                                            after
//! func f0 "f"(v0: f32[T]) {                         func f0 "f"(v0: f32[T]) { … }
//!   v1: f32[T] = exp v0
//!   return v1
//! }
//! … v2: f32[T] = call v1 {func = f0, kind = block}  … v2: f32[T] = exp v1
//! ```
//!
//! Values are the same to the bit. The function stays: `dce` removes it when nothing calls it any more. Functions with a
//! hand-written gradient stay calls unless the policy takes them too, because the gradient belongs to the call: after
//! autodiff nothing asks for it.

use super::rewrite::Rewrite;
use crate::ir::{Func, Graph, Module, Node, Op, Value};

/// Which calls are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Fused calls, or calls of blocks.
    pub fused: bool,
    /// Only bodies of at most so many nodes, counted after their own calls were replaced.
    pub max_nodes: usize,
    /// Also functions with a hand-written gradient.
    pub with_gradient: bool,
}

/// Replaces every call of a block.
pub fn blocks(m: &mut Module) -> Result<usize, String> {
    run(m, Policy { fused: false, max_nodes: usize::MAX, with_gradient: true })
}

/// Replaces calls of blocks so small that a call says no more than the body.
pub fn small_blocks(m: &mut Module) -> Result<usize, String> {
    run(m, Policy { fused: false, max_nodes: 4, with_gradient: false })
}

/// Replaces fused calls by the graphs that they stand for.
pub fn fused(m: &mut Module) -> Result<usize, String> {
    run(m, Policy { fused: true, max_nodes: usize::MAX, with_gradient: true })
}

/// Replaces the calls that the policy names. A function is finished before its callers are looked at, as it stands
/// before them.
pub fn run(m: &mut Module, policy: Policy) -> Result<usize, String> {
    let mut changes = 0;
    for func in m.funcs.keys().collect::<Vec<Func>>() {
        let old = &m.funcs[func];
        let mut r = Rewrite::new(old);
        for (node, data) in old.nodes.iter() {
            match data.op {
                Op::Call { func: callee, kind }
                    if kind.is_fused() == policy.fused && policy.takes(&m.funcs[callee]) =>
                {
                    changes += 1;
                    splice(&mut r, node, &m.funcs[callee]);
                }
                _ => {
                    r.copy(node);
                }
            }
        }
        keep_result_types(&mut r);
        let new = r.finish();
        m.funcs[func] = new;
    }
    Ok(changes)
}

impl Policy {
    fn takes(&self, callee: &Graph) -> bool {
        callee.nodes.len() <= self.max_nodes && (self.with_gradient || callee.gradient.is_none())
    }
}

fn splice(r: &mut Rewrite, call: Node, callee: &Graph) {
    let args = r.args(call);
    let mut inner = Rewrite::new(callee);
    std::mem::swap(&mut inner.new, &mut r.new);
    for (&param, arg) in callee.params.iter().zip(args) {
        inner.set(param, arg);
    }
    for node in callee.nodes.keys() {
        inner.copy(node);
    }
    std::mem::swap(&mut inner.new, &mut r.new);
    let results: Vec<Value> = callee.results.iter().map(|&v| inner.get(v)).collect();
    for (&from, to) in r.old.nodes[call].results.iter().zip(results) {
        r.set(from, to);
    }
}

/// A callee may name feature axes otherwise than its caller; results keep the names that they had.
fn keep_result_types(r: &mut Rewrite) {
    for &result in &r.old.results {
        let (have, want) = (r.get(result), r.old.ty(result).clone());
        if *r.new.ty(have) != want {
            let renamed = r.new.push1(Op::Reshape, vec![have], want, None);
            r.set(result, renamed);
        }
    }
}
