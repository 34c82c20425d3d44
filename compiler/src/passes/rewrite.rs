//! Rebuilding a graph node by node: what most passes share.
//!
//! A [`Rewrite`] walks an old graph in order and fills a new one, with a map from old values to new ones. A value may
//! be replaced by one whose type only differs in the names of feature axes, except where it is a result of the graph:
//! callers and entries see those types.

use cranelift_entity::packed_option::PackedOption;
use cranelift_entity::{PrimaryMap, SecondaryMap};
use mngc_dsl::Span;

use crate::ir::{Dims, Func, Graph, Module, Node, Op, Type, Value};

/// A graph that is being made from another.
pub struct Rewrite<'a> {
    /// The graph as it was.
    pub old: &'a Graph,
    /// The graph as it becomes.
    pub new: Graph,
    map: SecondaryMap<Value, PackedOption<Value>>,
}

impl<'a> Rewrite<'a> {
    /// Starts with the parameters of `old`.
    pub fn new(old: &'a Graph) -> Self {
        Rewrite::with_params(old, |_| true)
    }

    /// Starts with those parameters of `old` that `keep` names by position.
    pub fn with_params(old: &'a Graph, keep: impl Fn(usize) -> bool) -> Self {
        let mut new = Graph::new(old.name.clone());
        new.gradient = old.gradient;
        let mut map = SecondaryMap::new();
        for (i, (&value, name)) in old.params.iter().zip(&old.param_names).enumerate() {
            if keep(i) {
                map[value] = new.param(name.clone(), old.ty(value).clone()).into();
            }
        }
        Rewrite { old, new, map }
    }

    /// The new value of an old one that has been made. Operands stand before their uses, so walking in order meets
    /// only such; a value that was dropped although something uses it is a fault of the pass, which the verifier shows
    /// as a use before the definition.
    pub fn get(&self, old: Value) -> Value {
        self.map[old].expand().unwrap_or(old)
    }

    /// The new values of a node's operands.
    pub fn args(&self, node: Node) -> Vec<Value> {
        self.old.nodes[node].args.iter().map(|&v| self.get(v)).collect()
    }

    /// From now on `new` stands for `old`.
    pub fn set(&mut self, old: Value, new: Value) {
        self.map[old] = new.into();
    }

    /// Copies a node as it is.
    pub fn copy(&mut self, node: Node) -> Node {
        let args = self.args(node);
        self.emit(node, self.old.nodes[node].op.clone(), args)
    }

    /// A node that takes the place of an old one, with results of the same types.
    pub fn emit(&mut self, node: Node, op: Op, args: Vec<Value>) -> Node {
        let data = &self.old.nodes[node];
        let types = data.results.iter().map(|&v| self.old.ty(v).clone()).collect();
        let new = self.new.push(op, args, types, data.loc);
        for (&from, &to) in data.results.iter().zip(&self.new.nodes[new].results) {
            self.map[from] = to.into();
        }
        new
    }

    /// The new graph, with the results of the old.
    pub fn finish(self) -> Graph {
        self.finish_results(|_| true)
    }

    /// The new graph, with those results that `keep` names by position.
    pub fn finish_results(mut self, keep: impl Fn(usize) -> bool) -> Graph {
        for (i, (&value, name)) in self.old.results.iter().zip(&self.old.result_names).enumerate() {
            if keep(i) {
                let value = self.get(value);
                self.new.result(name.clone(), value);
            }
        }
        self.new
    }
}

/// Gives every graph dense ids in order, parameters first. Text forms of equal modules are then equal.
pub fn renumber(m: &mut Module) {
    for func in m.funcs.keys().collect::<Vec<_>>() {
        let mut r = Rewrite::new(&m.funcs[func]);
        for node in r.old.nodes.keys() {
            r.copy(node);
        }
        m.funcs[func] = r.finish();
    }
}

/// A rewrite of one node with one result: the value that stands for `op(args): ty`, or none where the rule does not
/// apply. New nodes are made with [`Peephole::make`].
pub type Rule = fn(&mut Peephole, &Op, &[Value], &Type) -> Option<Value>;

/// Applies rules to every node of a graph, operands first.
pub struct Peephole<'a> {
    /// Axes of the module.
    pub dims: &'a Dims,
    /// The functions that calls name.
    pub funcs: &'a PrimaryMap<Func, Graph>,
    /// The graph that grows.
    pub new: Graph,
    rules: &'a [Rule],
    loc: Option<Span>,
}

impl Peephole<'_> {
    /// The value of `op(args)`, simplified as far as the rules go.
    pub fn make(&mut self, op: Op, args: Vec<Value>, ty: Type) -> Value {
        for rule in self.rules {
            if let Some(value) = rule(self, &op, &args, &ty) {
                return value;
            }
        }
        self.new.push1(op, args, ty, self.loc)
    }

    /// The operation that makes a value, with its operands; none for a parameter.
    pub fn def(&self, value: Value) -> Option<(&Op, &[Value])> {
        let node = &self.new.nodes[self.new.def_node(value)?];
        Some((&node.op, &node.args))
    }

    /// The operand of the node that makes `value`, if that is an operation that `is` accepts and takes one operand.
    pub fn operand_if(&self, value: Value, is: impl FnOnce(&Op) -> bool) -> Option<Value> {
        match self.def(value)? {
            (op, [x]) if is(op) => Some(*x),
            _ => None,
        }
    }

    /// Type of a value.
    pub fn ty(&self, value: Value) -> &Type {
        self.new.ty(value)
    }

    /// Number of positions along an axis of a type.
    pub fn size(&self, ty: &Type, axis: u8) -> usize {
        self.dims.size(ty.dims[axis as usize])
    }

    /// A scalar repeated over the axes of `ty`; the scalar itself where there are none.
    pub fn splat(&mut self, scalar: Value, ty: &Type) -> Value {
        if ty.rank() == 0 {
            return scalar;
        }
        self.make(Op::Broadcast { axes: Vec::new() }, vec![scalar], ty.clone())
    }

    /// The scalar that a value repeats over its axes.
    pub fn splat_of(&self, value: Value) -> Option<Value> {
        self.operand_if(value, |op| matches!(op, Op::Broadcast { axes } if axes.is_empty()))
    }

    /// Whether `value` may stand where a value of type `ty` stood.
    pub fn fits(&self, value: Value, ty: &Type) -> bool {
        let have = self.new.ty(value);
        have.dtype == ty.dtype && self.dims.same_shape(&have.dims, &ty.dims)
    }
}

/// Applies rules to every function of a module and gives the number of nodes that changed.
pub fn peephole(m: &mut Module, rules: &[Rule]) -> usize {
    let mut changes = 0;
    for func in m.funcs.keys().collect::<Vec<_>>() {
        let old = &m.funcs[func];
        let mut is_result = SecondaryMap::<Value, bool>::new();
        for &value in &old.results {
            is_result[value] = true;
        }
        let r = Rewrite::new(old);
        let (mut map, new) = (r.map, r.new);
        let mut p = Peephole { dims: &m.dims, funcs: &m.funcs, new, rules, loc: None };
        for (_, node) in old.nodes.iter() {
            let args: Vec<Value> = node.args.iter().map(|&v| map[v].expand().unwrap_or(v)).collect();
            p.loc = node.loc;
            if let [result] = node.results[..] {
                let ty = old.ty(result);
                let before = p.new.nodes.len();
                let found = rules.iter().find_map(|rule| rule(&mut p, &node.op, &args, ty));
                debug_assert!(found.is_some() || before == p.new.nodes.len(), "a rule left nodes and gave up");
                debug_assert!(found.is_none_or(|v| p.fits(v, ty)), "a rule changed the type of {}", node.op.name());
                // A result of the graph keeps the names of its axes: where they differ, a reshape is all that stays.
                let found = match found {
                    Some(value) if p.new.ty(value) == ty || !is_result[result] => Some(value),
                    Some(value) if node.op == Op::Reshape && args == [value] => None,
                    Some(value) => Some(p.new.push1(Op::Reshape, vec![value], ty.clone(), node.loc)),
                    None => None,
                };
                if let Some(value) = found {
                    map[result] = value.into();
                    changes += 1;
                    continue;
                }
            }
            let types = node.results.iter().map(|&v| old.ty(v).clone()).collect();
            let copy = p.new.push(node.op.clone(), args, types, node.loc);
            for (&from, &to) in node.results.iter().zip(&p.new.nodes[copy].results) {
                map[from] = to.into();
            }
        }
        let new = Rewrite { old, new: p.new, map }.finish();
        m.funcs[func] = new;
    }
    changes
}
