//! Removes what nobody asks for, across calls.
//!
//! ```text
//! before                                            after
//! func f0 "f"(v0: f32[], v1: f32[]) {               func f0 "f"(v0: f32[]) {
//!   v2: f32[] = exp v0                                v1: f32[] = exp v0
//!   v3: f32[] = log v1                                return v1
//!   return v2, v3                                   }
//! }
//! … v4: f32[], v5: f32[] = call v0, v1 {f0}         … v2: f32[] = call v0 {f0}       (v5 has no use)
//! ```
//!
//! - A node stays if a result of it is asked for.
//! - A result of a function stays if a call that stays asks for it; a parameter, if something that stays reads it.
//! - An entry keeps every result and every batch input: that is what the host knows of it. A slot or a host scalar that
//!   nothing reads is not bound any more.
//! - A function stays if an entry reaches it by calls or as a hand-written gradient. Ids are then renumbered.
//!
//! Signatures stay as they are for functions with a hand-written gradient and for those gradients (autodiff pairs them
//! by position), for bodies of fused calls (a kernel was made for them), and everywhere in a module without entries,
//! where nothing says who is going to call what; no function is removed from such a module.

use cranelift_entity::{PrimaryMap, SecondaryMap, packed_option::PackedOption};

use super::rewrite::Rewrite;
use crate::ir::{CallKind, Func, Graph, Input, Module, Node, Op, Value, ValueDef};

/// Runs the pass.
pub fn run(m: &mut Module) -> Result<usize, String> {
    let live = Liveness::of(m);
    let mut changes = 0;

    let mut ids: SecondaryMap<Func, PackedOption<Func>> = SecondaryMap::new();
    let mut funcs: PrimaryMap<Func, Graph> = PrimaryMap::new();
    for (func, old) in m.funcs.iter() {
        if !live.reached[func] {
            changes += 1;
            continue;
        }
        let mut r = Rewrite::with_params(old, |i| live.param(func, old, i));
        // What a function calls stands before it, so that it has its new id and its new signature already.
        r.new.gradient = old.gradient.and_then(|f| ids[f].expand());
        for (node, data) in old.nodes.iter() {
            if !data.results.iter().any(|&v| live.values[func][v]) {
                changes += 1;
                continue;
            }
            let Op::Call { func: callee, kind } = data.op else {
                r.copy(node);
                continue;
            };
            let kept_results: Vec<Value> = positions(&data.results, |i| live.result(m, callee, i));
            let kept_args: Vec<Value> = positions(&data.args, |i| live.param(callee, &m.funcs[callee], i));
            let args = kept_args.iter().map(|&v| r.get(v)).collect();
            let types = kept_results.iter().map(|&v| old.ty(v).clone()).collect();
            let callee = ids[callee].expand().ok_or_else(|| format!("{node} calls {callee}, which was removed"))?;
            let new = r.new.push(Op::Call { func: callee, kind }, args, types, data.loc);
            let made = r.new.nodes[new].results.clone();
            for (from, to) in kept_results.into_iter().zip(made) {
                r.set(from, to);
            }
        }
        let new = r.finish_results(|i| live.result(m, func, i));
        changes += old.params.len() - new.params.len() + old.results.len() - new.results.len();
        ids[func] = funcs.push(new).into();
    }

    for entry in m.entries.values_mut() {
        let old = &m.funcs[entry.func];
        let mut i = 0;
        entry.inputs.retain(|_| {
            i += 1;
            live.param(entry.func, old, i - 1)
        });
        entry.func = ids[entry.func].expand().ok_or("an entry lost its function")?;
    }
    m.funcs = funcs;
    Ok(changes)
}

fn positions(values: &[Value], keep: impl Fn(usize) -> bool) -> Vec<Value> {
    values.iter().enumerate().filter(|(i, _)| keep(*i)).map(|(_, &v)| v).collect()
}

/// What somebody asks for. Found from the roots by a worklist, so that functions that only keep each other's results
/// alive fall away too.
struct Liveness {
    reached: SecondaryMap<Func, bool>,
    /// Whose signature stays.
    pinned: SecondaryMap<Func, bool>,
    values: SecondaryMap<Func, SecondaryMap<Value, bool>>,
    /// Results asked for from outside the function: by position, as two results may be one value.
    results: SecondaryMap<Func, Vec<bool>>,
    work: Vec<(Func, Value)>,
}

impl Liveness {
    fn of(m: &Module) -> Liveness {
        let mut callers: SecondaryMap<Func, Vec<(Func, Node)>> = SecondaryMap::new();
        for (func, g) in m.funcs.iter() {
            for (node, data) in g.nodes.iter() {
                if let Op::Call { func: callee, .. } = data.op {
                    callers[callee].push((func, node));
                }
            }
        }

        let mut live = Liveness {
            reached: SecondaryMap::new(),
            pinned: SecondaryMap::new(),
            values: SecondaryMap::new(),
            results: SecondaryMap::new(),
            work: Vec::new(),
        };
        if m.entries.is_empty() {
            for func in m.funcs.keys() {
                live.pin(m, func);
            }
        }
        for entry in m.entries.values() {
            live.reach(m, entry.func);
            for i in 0..m.funcs[entry.func].results.len() {
                live.ask(m, entry.func, i);
            }
            for (input, &param) in entry.inputs.iter().zip(&m.funcs[entry.func].params) {
                if matches!(input, Input::Batch(_)) {
                    live.mark(entry.func, param);
                }
            }
        }
        while let Some((func, value)) = live.work.pop() {
            match m.funcs[func].values[value].def {
                ValueDef::Param(i) => {
                    for &(caller, node) in &callers[func] {
                        let data = &m.funcs[caller].nodes[node];
                        if data.results.iter().any(|&v| live.values[caller][v]) {
                            live.mark(caller, data.args[i]);
                        }
                    }
                }
                ValueDef::Result(node, i) => {
                    let data = &m.funcs[func].nodes[node];
                    if let Op::Call { func: callee, kind } = data.op {
                        match kind {
                            CallKind::Fused(_) => live.pin(m, callee),
                            CallKind::Block => live.reach(m, callee),
                        }
                        live.ask(m, callee, i);
                        for (j, &arg) in data.args.iter().enumerate() {
                            if live.param(callee, &m.funcs[callee], j) {
                                live.mark(func, arg);
                            }
                        }
                    } else {
                        for &arg in &data.args {
                            live.mark(func, arg);
                        }
                    }
                }
            }
        }
        live
    }

    /// Whether parameter `i` of a function stays.
    fn param(&self, func: Func, g: &Graph, i: usize) -> bool {
        self.values[func][g.params[i]]
    }

    /// Whether result `i` of a function stays.
    fn result(&self, m: &Module, func: Func, i: usize) -> bool {
        debug_assert!(i < m.funcs[func].results.len());
        self.results[func].get(i).copied().unwrap_or(false)
    }

    fn reach(&mut self, m: &Module, func: Func) {
        if std::mem::replace(&mut self.reached[func], true) {
            return;
        }
        let g = &m.funcs[func];
        self.results[func] = vec![false; g.results.len()];
        if let Some(gradient) = g.gradient {
            self.pin(m, func);
            self.pin(m, gradient);
        }
    }

    fn pin(&mut self, m: &Module, func: Func) {
        self.reach(m, func);
        if std::mem::replace(&mut self.pinned[func], true) {
            return;
        }
        let g = &m.funcs[func];
        for i in 0..g.results.len() {
            self.ask(m, func, i);
        }
        for &p in &g.params {
            self.mark(func, p);
        }
    }

    fn ask(&mut self, m: &Module, func: Func, i: usize) {
        self.results[func][i] = true;
        self.mark(func, m.funcs[func].results[i]);
    }

    fn mark(&mut self, func: Func, value: Value) {
        if !std::mem::replace(&mut self.values[func][value], true) {
            self.work.push((func, value));
        }
    }
}
