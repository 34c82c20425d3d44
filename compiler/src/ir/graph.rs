//! Storage: graphs in SSA form, and the module that owns graphs, dims, slots, host scalars and entries.

use std::collections::BTreeMap;
use std::sync::Arc;

use cranelift_entity::PrimaryMap;
use mngc_dsl::Span;

use super::entities::{Func, Node, Scalar, Slot, Value};
use super::host::HostExpr;
use super::op::{CallKind, Op};
use super::types::{DType, Dims, Type};

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueDef {
    /// Parameter of the graph, by position.
    Param(usize),
    /// Result of a node, by position.
    Result(Node, usize),
}

/// A tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct ValueData {
    /// Dtype and axes.
    pub ty: Type,
    /// Where it comes from.
    pub def: ValueDef,
}

/// An operation with its operands and results.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeData {
    /// What it does.
    pub op: Op,
    /// Operands.
    pub args: Vec<Value>,
    /// Results.
    pub results: Vec<Value>,
    /// The place in the model file that it comes from. Not part of the text form.
    pub loc: Option<Span>,
}

/// A pure function on tensors. Nodes stand in the order in which they were made, which is a topological order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    /// For people: the block, optimizer or entry that it came from. Not unique.
    pub name: String,
    /// Parameters.
    pub params: Vec<Value>,
    /// Name of each parameter: a relative parameter name (`c_q.weight`), an input (`x`), or a saved value.
    pub param_names: Vec<String>,
    /// Results.
    pub results: Vec<Value>,
    /// Name of each result, empty where it has none.
    pub result_names: Vec<String>,
    /// Operations in order.
    pub nodes: PrimaryMap<Node, NodeData>,
    /// Tensors.
    pub values: PrimaryMap<Value, ValueData>,
    /// A hand-written gradient: takes the parameters, the results and a cotangent for each float result; gives a
    /// cotangent for each float parameter. None: autodiff derives it.
    pub gradient: Option<Func>,
}

impl Graph {
    /// An empty graph.
    pub fn new(name: impl Into<String>) -> Graph {
        Graph { name: name.into(), ..Graph::default() }
    }

    /// Adds a parameter.
    pub fn param(&mut self, name: impl Into<String>, ty: Type) -> Value {
        let value = self.values.push(ValueData { ty, def: ValueDef::Param(self.params.len()) });
        self.params.push(value);
        self.param_names.push(name.into());
        value
    }

    /// Adds a node with results of the given types.
    pub fn push(&mut self, op: Op, args: Vec<Value>, results: Vec<Type>, loc: Option<Span>) -> Node {
        let node = self.nodes.push(NodeData { op, args, results: Vec::new(), loc });
        for (i, ty) in results.into_iter().enumerate() {
            let value = self.values.push(ValueData { ty, def: ValueDef::Result(node, i) });
            self.nodes[node].results.push(value);
        }
        node
    }

    /// Adds a node with one result and gives that.
    pub fn push1(&mut self, op: Op, args: Vec<Value>, result: Type, loc: Option<Span>) -> Value {
        let node = self.push(op, args, vec![result], loc);
        self.nodes[node].results[0]
    }

    /// Adds a result.
    pub fn result(&mut self, name: impl Into<String>, value: Value) {
        self.results.push(value);
        self.result_names.push(name.into());
    }

    /// The type of a value.
    pub fn ty(&self, value: Value) -> &Type {
        &self.values[value].ty
    }

    /// The node that makes a value; none for a parameter.
    pub fn def_node(&self, value: Value) -> Option<Node> {
        match self.values[value].def {
            ValueDef::Param(_) => None,
            ValueDef::Result(node, _) => Some(node),
        }
    }

    /// The constant that a value is, if it is one.
    pub fn constant(&self, value: Value) -> Option<f64> {
        match self.nodes[self.def_node(value)?].op {
            Op::Const(c) => Some(c.0),
            _ => None,
        }
    }

    /// Functions that the graph calls, each once, in order.
    pub fn callees(&self) -> Vec<Func> {
        let mut out = Vec::new();
        for (_, node) in self.nodes.iter() {
            if let Op::Call { func, .. } = node.op
                && !out.contains(&func)
            {
                out.push(func);
            }
        }
        out
    }
}

/// What a slot is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SlotRole {
    /// A parameter of the model.
    Param,
    /// f32 sum of a parameter's gradient over the micro-steps of a step.
    Gradient(Slot),
    /// Optimizer state of a parameter.
    Optimizer(Slot),
    /// State of the model itself.
    State,
    /// A parameter cast to the compute dtype, remade whenever the parameter changes.
    Shadow(Slot),
}

/// Persistent state.
#[derive(Clone, Debug, PartialEq)]
pub struct SlotData {
    /// The dotted name of the parameter; state adds `#name`, a gradient `#grad`, a shadow `#bf16`.
    pub name: String,
    /// What it is for.
    pub role: SlotRole,
    /// Storage dtype and axes: the same in every entry.
    pub ty: Type,
    /// Where it is declared. Not part of the text form.
    pub loc: Option<Span>,
}

/// A host scalar.
#[derive(Clone, Debug, PartialEq)]
pub struct ScalarData {
    /// The name that the log shows it under; empty for one that only kernels need.
    pub name: String,
    /// Its formula.
    pub expr: Arc<HostExpr>,
}

/// The entries of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EntryKind {
    /// Draws the initial value of slots from the seed: of all before the first step, and, in a later stage, of those that
    /// begin with it, before its first step.
    Init,
    /// Remakes every shadow slot: after slots were read from a file.
    Refresh,
    /// Forward and backward of some sequences; adds to the gradient slots.
    MicroStep,
    /// Optimizers; clears the gradient slots.
    Update,
    /// Forward of some sequences.
    Evaluate,
    /// Forward of one sequence; gives logits.
    Decode,
}

impl EntryKind {
    /// All of them.
    pub const ALL: [EntryKind; 6] = [
        EntryKind::Init,
        EntryKind::Refresh,
        EntryKind::MicroStep,
        EntryKind::Update,
        EntryKind::Evaluate,
        EntryKind::Decode,
    ];

    /// The name in the text form.
    pub fn name(self) -> &'static str {
        match self {
            EntryKind::Init => "init",
            EntryKind::Refresh => "refresh",
            EntryKind::MicroStep => "micro_step",
            EntryKind::Update => "update",
            EntryKind::Evaluate => "evaluate",
            EntryKind::Decode => "decode",
        }
    }
}

/// An entry of one stage of the run. A run without stages has stage 0 only; stages share every slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryKey {
    /// What the entry does.
    pub kind: EntryKind,
    /// The stage whose sizes and recipe it was made for.
    pub stage: u32,
}

impl From<EntryKind> for EntryKey {
    /// The entry of stage 0.
    fn from(kind: EntryKind) -> EntryKey {
        EntryKey { kind, stage: 0 }
    }
}

/// Where a parameter of an entry's function comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// The slot's value at the start of the entry.
    Slot(Slot),
    /// Handed over by the host under this name: `tokens`, `targets`.
    Batch(String),
    /// A host scalar of this step, as a rank-0 f32.
    Scalar(Scalar),
}

/// Where a result of an entry's function goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Becomes the slot's value when the entry ends.
    Slot(Slot),
    /// Handed to the host under this name: `loss`, `logits`, `gradient_norm`.
    Host(String),
}

/// A function bound to slots and the host: what a backend runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Which.
    pub key: EntryKey,
    /// What runs.
    pub func: Func,
    /// One for each parameter.
    pub inputs: Vec<Input>,
    /// One for each result.
    pub outputs: Vec<Output>,
}

/// Everything that a program computes.
#[derive(Clone, Debug, Default)]
pub struct Module {
    /// For people.
    pub name: String,
    /// Axes.
    pub dims: Dims,
    /// Graphs; a graph calls only graphs that stand before it.
    pub funcs: PrimaryMap<Func, Graph>,
    /// Persistent state.
    pub slots: PrimaryMap<Slot, SlotData>,
    /// Host scalars.
    pub scalars: PrimaryMap<Scalar, ScalarData>,
    /// Entries by kind and stage.
    pub entries: BTreeMap<EntryKey, Entry>,
}

impl Module {
    /// The dtype and shape of a call's results.
    pub fn result_types(&self, func: Func) -> Vec<Type> {
        let graph = &self.funcs[func];
        graph.results.iter().map(|&v| graph.ty(v).clone()).collect()
    }

    /// Adds a call of `func` to `graph` and gives its results.
    pub fn call(
        &self,
        graph: &mut Graph,
        func: Func,
        kind: CallKind,
        args: Vec<Value>,
        loc: Option<Span>,
    ) -> Vec<Value> {
        let node = graph.push(Op::Call { func, kind }, args, self.result_types(func), loc);
        graph.nodes[node].results.clone()
    }

    /// The slot of that name.
    pub fn slot_by_name(&self, name: &str) -> Option<Slot> {
        self.slots.iter().find(|(_, s)| s.name == name).map(|(id, _)| id)
    }

    /// Parameters of the model in order of declaration.
    pub fn params(&self) -> impl Iterator<Item = (Slot, &SlotData)> {
        self.slots.iter().filter(|(_, s)| s.role == SlotRole::Param)
    }

    /// Bytes of one value of a type.
    pub fn bytes(&self, ty: &Type) -> usize {
        self.dims.elements(&ty.dims) * ty.dtype.bytes()
    }

    /// A type as the text form has it: `bf16[seq, T, dim]`.
    pub fn show(&self, ty: &Type) -> String {
        let dims: Vec<&str> = ty.dims.iter().map(|&d| self.dims.name(d)).collect();
        format!("{}[{}]", ty.dtype, dims.join(", "))
    }

    /// A rank-0 type.
    pub fn scalar_type(dtype: DType) -> Type {
        Type::scalar(dtype)
    }
}
