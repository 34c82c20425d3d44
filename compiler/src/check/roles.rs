//! What a parameter is to a model: a table whose rows are looked up, or a head whose rows are classes. Found by following
//! those axes back from where they matter, through calls, transposes, casts and whatever else keeps them.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::axes::Tracer;
use crate::ir::{Func, Graph, Module, Op, Value, ValueDef};

/// Which axis is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Rows that indices choose.
    Rows,
    /// Classes that a `cross_entropy` chooses from.
    Classes,
}

/// Parameters of a function, by position, one of whose axes has that role.
pub fn params(module: &Module, func: Func, role: Role) -> BTreeSet<usize> {
    let mut search = Search { module, role, tracer: Tracer::new(module), inside: HashMap::new(), back: HashMap::new() };
    search.inside(func).into_iter().map(|(param, _)| param).collect()
}

/// A parameter and an axis of it.
type Axes = BTreeSet<(usize, usize)>;

struct Search<'a> {
    module: &'a Module,
    role: Role,
    tracer: Tracer<'a>,
    /// What has the role in a function, wherever it ends there.
    inside: HashMap<Func, Axes>,
    /// What becomes an axis of a result.
    back: HashMap<(Func, usize, usize), Axes>,
}

impl Search<'_> {
    fn inside(&mut self, func: Func) -> Axes {
        if let Some(known) = self.inside.get(&func) {
            return known.clone();
        }
        let g = &self.module.funcs[func];
        let mut from: Vec<(Value, usize)> = Vec::new();
        for data in g.nodes.values() {
            match (&data.op, self.role) {
                (Op::Gather, Role::Rows) => from.push((data.args[0], 0)),
                (Op::CrossEntropy, Role::Classes) => from.push((data.args[0], g.ty(data.args[0]).rank() - 1)),
                (Op::Call { func: callee, .. }, _) => {
                    from.extend(self.inside(*callee).into_iter().map(|(param, axis)| (data.args[param], axis)));
                }
                _ => {}
            }
        }
        let found = self.back(g, from);
        self.inside.insert(func, found.clone());
        found
    }

    fn of_result(&mut self, func: Func, result: usize, axis: usize) -> Axes {
        if let Some(known) = self.back.get(&(func, result, axis)) {
            return known.clone();
        }
        let g = &self.module.funcs[func];
        let found = self.back(g, vec![(g.results[result], axis)]);
        self.back.insert((func, result, axis), found.clone());
        found
    }

    /// Parameters whose axes become these, unmixed.
    fn back(&mut self, g: &Graph, mut work: Vec<(Value, usize)>) -> Axes {
        let mut seen: HashSet<(Value, usize)> = HashSet::new();
        let mut found = Axes::new();
        while let Some((value, axis)) = work.pop() {
            if !seen.insert((value, axis)) {
                continue;
            }
            let (node, result) = match g.values[value].def {
                ValueDef::Param(i) => {
                    found.insert((i, axis));
                    continue;
                }
                ValueDef::Result(node, result) => (node, result),
            };
            let data = &g.nodes[node];
            if let Op::Call { func, .. } = data.op {
                work.extend(self.of_result(func, result, axis).into_iter().map(|(i, a)| (data.args[i], a)));
                continue;
            }
            for (i, &arg) in data.args.iter().enumerate() {
                for from in 0..g.ty(arg).rank() {
                    let flows = self.tracer.node(g, data, i, from);
                    if flows.iter().any(|flow| flow.result == result && flow.axis == Some(axis)) {
                        work.push((arg, from));
                    }
                }
            }
        }
        found
    }
}
