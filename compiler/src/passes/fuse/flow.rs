//! Who needs whom in a graph, for fusion: what costs nothing is looked through.
//!
//! Constants, counters, broadcasts and reshapes are *free*: every kernel that needs one makes its own. So they belong
//! to no cluster, and a value's operands and users are told past them.

use cranelift_entity::SecondaryMap;
use cranelift_entity::packed_option::PackedOption;

use crate::ir::{Graph, Module, Node, Op, Value};

/// Whether kernels make it anew instead of reading it. Such an op has at most one operand.
pub fn is_free(op: &Op) -> bool {
    matches!(op, Op::Const(_) | Op::Iota { .. } | Op::Broadcast { .. } | Op::Reshape)
}

/// Operands and users of the nodes that are not free.
pub struct Flow<'a> {
    /// The module, for sizes of axes.
    pub m: &'a Module,
    /// The graph.
    pub g: &'a Graph,
    base: SecondaryMap<Value, PackedOption<Value>>,
    operands: SecondaryMap<Node, Vec<Value>>,
    users: SecondaryMap<Value, Vec<Node>>,
    escapes: SecondaryMap<Value, bool>,
}

impl<'a> Flow<'a> {
    /// The flow of a graph.
    pub fn of(m: &'a Module, g: &'a Graph) -> Flow<'a> {
        let mut flow = Flow {
            m,
            g,
            base: SecondaryMap::new(),
            operands: SecondaryMap::new(),
            users: SecondaryMap::new(),
            escapes: SecondaryMap::new(),
        };
        for &param in &g.params {
            flow.base[param] = param.into();
        }
        for (node, data) in g.nodes.iter() {
            if is_free(&data.op) {
                let base = data.args.first().and_then(|&arg| flow.base[arg].expand());
                flow.base[data.results[0]] = base.into();
                continue;
            }
            for &result in &data.results {
                flow.base[result] = result.into();
            }
            let mut operands: Vec<Value> = Vec::new();
            for &arg in &data.args {
                if let Some(base) = flow.base[arg].expand()
                    && !operands.contains(&base)
                {
                    operands.push(base);
                    flow.users[base].push(node);
                }
            }
            flow.operands[node] = operands;
        }
        for &result in &g.results {
            if let Some(base) = flow.base[result].expand() {
                flow.escapes[base] = true;
            }
        }
        flow
    }

    /// The value that a value shows, past what is free; none for a constant or a counter.
    pub fn base(&self, value: Value) -> Option<Value> {
        self.base[value].expand()
    }

    /// Values that a node needs: parameters and results of nodes that are not free, each once.
    pub fn operands(&self, node: Node) -> &[Value] {
        &self.operands[node]
    }

    /// Nodes that need a value, each once, in order.
    pub fn users(&self, value: Value) -> &[Node] {
        &self.users[value]
    }

    /// Whether the graph gives the value, or what is free and made of it, as a result.
    pub fn escapes(&self, value: Value) -> bool {
        self.escapes[value]
    }

    /// Whether all that needs a value is among `nodes`.
    pub fn is_inside(&self, value: Value, nodes: &[Node]) -> bool {
        !self.escapes(value) && self.users(value).iter().all(|user| nodes.contains(user))
    }

    /// Results of `nodes` that something else needs, in order of definition; `nodes` are in order.
    pub fn results(&self, nodes: &[Node]) -> Vec<Value> {
        let made = nodes.iter().flat_map(|&node| self.g.nodes[node].results.iter().copied());
        made.filter(|&value| !self.is_inside(value, nodes)).collect()
    }

    /// What `nodes` need of others, each once.
    pub fn inputs(&self, nodes: &[Node]) -> Vec<Value> {
        let mut inputs: Vec<Value> = Vec::new();
        for &node in nodes {
            for &value in self.operands(node) {
                if self.g.def_node(value).is_none_or(|def| !nodes.contains(&def)) && !inputs.contains(&value) {
                    inputs.push(value);
                }
            }
        }
        inputs
    }

    /// Number of elements of a value.
    pub fn count(&self, value: Value) -> usize {
        self.m.dims.elements(&self.g.ty(value).dims)
    }
}
