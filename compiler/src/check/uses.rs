//! What a result depends on, decided on the graph: a name that was read, for a value that nothing asks for, is not a use.

use std::collections::HashMap;

use cranelift_entity::SecondaryMap;

use crate::ir::{Func, Graph, Module, Op, Value};

/// Finds the parameters that results depend on, through calls; remembers every function.
pub struct Uses<'a> {
    module: &'a Module,
    known: HashMap<(Func, usize), Vec<bool>>,
}

impl<'a> Uses<'a> {
    /// Nothing looked at yet.
    pub fn new(module: &'a Module) -> Uses<'a> {
        Uses { module, known: HashMap::new() }
    }

    /// For each parameter of a function, whether result `result` depends on it.
    pub fn of_result(&mut self, func: Func, result: usize) -> Vec<bool> {
        if let Some(known) = self.known.get(&(func, result)) {
            return known.clone();
        }
        let g = &self.module.funcs[func];
        let found = self.of(g, &[g.results[result]]);
        self.known.insert((func, result), found.clone());
        found
    }

    /// For each parameter of a graph, whether one of the values depends on it.
    pub fn of(&mut self, g: &Graph, values: &[Value]) -> Vec<bool> {
        let mut live: SecondaryMap<Value, bool> = SecondaryMap::new();
        values.iter().for_each(|&v| live[v] = true);
        for data in g.nodes.values().rev() {
            let asked = data.results.iter().enumerate().filter(|(_, v)| live[**v]);
            let asked: Vec<usize> = asked.map(|(i, _)| i).collect();
            match data.op {
                Op::Call { func, .. } => {
                    for result in asked {
                        let used = self.of_result(func, result);
                        data.args.iter().zip(used).filter(|(_, used)| *used).for_each(|(&arg, _)| live[arg] = true);
                    }
                }
                _ if asked.is_empty() => {}
                _ => data.args.iter().for_each(|&arg| live[arg] = true),
            }
        }
        g.params.iter().map(|&p| live[p]).collect()
    }
}
