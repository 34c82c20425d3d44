//! Which values get a cotangent: those that depend on a wanted parameter, and that a result with a cotangent depends
//! on.

use std::collections::HashMap;
use std::rc::Rc;

use cranelift_entity::SecondaryMap;

use crate::ir::{Func, Graph, Module, NodeData, Op, UnaryOp, Value};

/// For each result of a function, whether it depends on each parameter, along floats and by ops with a gradient.
type Matrix = Rc<Vec<Vec<bool>>>;

/// Remembers what the results of called functions depend on.
#[derive(Default)]
pub(super) struct Dependence {
    made: HashMap<Func, Matrix>,
}

impl Dependence {
    /// The values of `g` that are active for these parameters and results. Others than floats never are.
    pub fn activity(&mut self, m: &Module, g: &Graph, wrt: &[bool], active: &[bool]) -> SecondaryMap<Value, bool> {
        let is_float = |v: Value| g.ty(v).dtype.is_float();
        let mut varied: SecondaryMap<Value, bool> = SecondaryMap::new();
        for (&param, &wanted) in g.params.iter().zip(wrt) {
            varied[param] = wanted && is_float(param);
        }
        let edges: Vec<Vec<(Value, Value)>> = g.nodes.values().map(|data| self.edges(m, g, data)).collect();
        for &(from, to) in edges.iter().flatten() {
            varied[to] |= varied[from];
        }
        let mut useful: SecondaryMap<Value, bool> = SecondaryMap::new();
        for (&result, _) in g.results.iter().zip(active).filter(|(v, a)| **a && is_float(**v)) {
            useful[result] = true;
        }
        for &(from, to) in edges.iter().rev().flatten() {
            useful[from] |= useful[to];
        }
        for value in g.values.keys() {
            varied[value] &= useful[value];
        }
        varied
    }

    /// For a call: the arguments that need a gradient from it, and the results that have a cotangent to give. None if
    /// nothing flows.
    pub fn masks(
        &mut self,
        m: &Module,
        data: &NodeData,
        live: &SecondaryMap<Value, bool>,
    ) -> Option<(Vec<bool>, Vec<bool>)> {
        let Op::Call { func, .. } = data.op else { return None };
        let matrix = self.of(m, func);
        let mut wrt = vec![false; data.args.len()];
        let mut active = vec![false; data.results.len()];
        for (j, _) in data.results.iter().enumerate().filter(|(_, v)| live[**v]) {
            for (i, &arg) in data.args.iter().enumerate() {
                if live[arg] && matrix[j][i] {
                    wrt[i] = true;
                    active[j] = true;
                }
            }
        }
        active.contains(&true).then_some((wrt, active))
    }

    /// Pairs of an operand and a result of a node between which a cotangent flows.
    fn edges(&mut self, m: &Module, g: &Graph, data: &NodeData) -> Vec<(Value, Value)> {
        let matrix = match data.op {
            Op::Call { func, .. } => Some(self.of(m, func)),
            _ => None,
        };
        let mut edges = Vec::new();
        for (i, &arg) in data.args.iter().enumerate().filter(|(_, v)| g.ty(**v).dtype.is_float()) {
            for (j, &result) in data.results.iter().enumerate().filter(|(_, v)| g.ty(**v).dtype.is_float()) {
                let flows = match &matrix {
                    Some(matrix) => matrix[j][i],
                    None => is_differentiable(&data.op, i),
                };
                if flows {
                    edges.push((arg, result));
                }
            }
        }
        edges
    }

    /// For each parameter of a function, whether a cotangent of that result flows to it.
    pub fn of_result(&mut self, m: &Module, func: Func, result: usize) -> Vec<bool> {
        self.of(m, func)[result].clone()
    }

    fn of(&mut self, m: &Module, func: Func) -> Matrix {
        if let Some(made) = self.made.get(&func) {
            return made.clone();
        }
        let g = &m.funcs[func];
        let is_float = |v: &Value| g.ty(*v).dtype.is_float();
        let matrix: Matrix = Rc::new(if g.gradient.is_some() {
            // What a hand-written gradient does need not follow from the body.
            let row: Vec<bool> = g.params.iter().map(is_float).collect();
            g.results.iter().map(|v| if is_float(v) { row.clone() } else { vec![false; row.len()] }).collect()
        } else {
            let nothing = vec![false; g.params.len()];
            let mut sources: SecondaryMap<Value, Vec<bool>> = SecondaryMap::with_default(nothing.clone());
            for (i, &param) in g.params.iter().enumerate().filter(|(_, v)| is_float(v)) {
                sources[param][i] = true;
            }
            for data in g.nodes.values() {
                for (from, to) in self.edges(m, g, data) {
                    let union = sources[from].iter().zip(&sources[to]).map(|(a, b)| a | b).collect();
                    sources[to] = union;
                }
            }
            g.results.iter().map(|&v| sources[v].clone()).collect()
        });
        self.made.insert(func, matrix.clone());
        matrix
    }
}

/// Whether something flows to a float operand of an op. False where the op declares zero; ops that declare no gradient
/// count, because to meet one is an error, not a silent zero.
fn is_differentiable(op: &Op, operand: usize) -> bool {
    match op {
        Op::Unary(UnaryOp::Sign | UnaryOp::Floor | UnaryOp::Round) => false,
        // A window is a float that is rounded down.
        Op::Attention { .. } => operand < 3,
        Op::AttentionGrad { .. } => operand < 6,
        _ => true,
    }
}
