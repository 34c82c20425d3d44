//! From the graph of an entry to launches, on tensors that have no place yet.
//!
//! Nodes become launches in the order in which they stand. What only gives a tensor other axes, or a part of it that
//! lies in one piece, is no launch: its result is a view. A fused call whose graph is not what its kind says is taken
//! apart again, so that everything runs.

use std::collections::HashMap;

use cranelift_entity::{PrimaryMap, entity_impl};
use mngc_dsl::Span;

use super::cluster::{self, Leaf, Output};
use super::kernel::Kernel;
use super::plan::Part;
use super::{loss, matmul};
use crate::ir::{
    self, CallKind, DType, Entry, Fusion, Graph, Input, Module, Node, NodeData, Op, Scalar, Slot, Type, Value,
};

/// A tensor's memory before it has a place.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Storage(u32);
entity_impl!(Storage, "t");

/// Where the bytes of a storage come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The slot's value at the start.
    Slot(Slot),
    /// The host.
    Batch(String),
    /// A host scalar.
    Scalar(Scalar),
    /// The launch of that position.
    Launch(usize),
}

/// A tensor's memory.
#[derive(Clone, Debug)]
pub struct StorageData {
    /// Its size.
    pub bytes: usize,
    /// Where its contents come from.
    pub source: Source,
}

/// A tensor in a storage.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Where.
    pub storage: Storage,
    /// Bytes from its start.
    pub offset: usize,
    /// What.
    pub ty: Type,
}

/// An operand.
#[derive(Clone, Debug, PartialEq)]
pub enum Arg {
    /// A tensor.
    Tensor(Tensor),
    /// A number of rank 0.
    Const(f64, DType),
}

/// A launch without places.
#[derive(Clone, Debug)]
pub struct Step {
    /// For people.
    pub name: String,
    /// What runs.
    pub kernel: Kernel,
    /// Operands.
    pub args: Vec<Arg>,
    /// Results.
    pub results: Vec<Tensor>,
    /// How often it runs: see [`super::plan::Launch::instances`].
    pub instances: usize,
    /// Where it comes from.
    pub loc: Option<Span>,
    /// The ops that it computes.
    pub parts: Vec<Part>,
}

/// The launches of an entry.
pub struct Steps {
    /// Memory.
    pub storages: PrimaryMap<Storage, StorageData>,
    /// In order.
    pub steps: Vec<Step>,
    /// The results of the entry's function.
    pub results: Vec<Arg>,
}

type Env = HashMap<Value, Arg>;

/// The launches of an entry.
pub fn entry(m: &Module, entry: &Entry) -> Steps {
    let g = &m.funcs[entry.func];
    let mut b = Build { m, storages: PrimaryMap::new(), steps: Vec::new() };
    let mut env = Env::new();
    for (input, &param) in entry.inputs.iter().zip(&g.params) {
        let source = match input {
            Input::Slot(slot) => Source::Slot(*slot),
            Input::Batch(name) => Source::Batch(name.clone()),
            Input::Scalar(scalar) => Source::Scalar(*scalar),
        };
        let tensor = b.tensor(g.ty(param).clone(), source);
        env.insert(param, Arg::Tensor(tensor));
    }
    for node in g.nodes.keys() {
        b.node(g, node, &mut env);
    }
    let results = g.results.iter().map(|v| env[v].clone()).collect();
    Steps { storages: b.storages, steps: b.steps, results }
}

struct Build<'a> {
    m: &'a Module,
    storages: PrimaryMap<Storage, StorageData>,
    steps: Vec<Step>,
}

impl Build<'_> {
    fn tensor(&mut self, ty: Type, source: Source) -> Tensor {
        let storage = self.storages.push(StorageData { bytes: self.m.bytes(&ty), source });
        Tensor { storage, offset: 0, ty }
    }

    /// Adds a launch and gives its results.
    fn launch(
        &mut self,
        name: String,
        kernel: Kernel,
        args: Vec<Arg>,
        types: Vec<Type>,
        loc: Option<Span>,
    ) -> Vec<Tensor> {
        let at = self.steps.len();
        let results: Vec<Tensor> = types.into_iter().map(|ty| self.tensor(ty, Source::Launch(at))).collect();
        let parts = match &kernel {
            Kernel::Op(op) => vec![Part { op: op.name(), loc }],
            _ => Vec::new(),
        };
        self.steps.push(Step { name, kernel, args, results: results.clone(), instances: 1, loc, parts });
        results
    }

    /// Says what the last launch computes.
    fn computes(&mut self, parts: Vec<Part>) {
        if let Some(step) = self.steps.last_mut() {
            step.parts = parts;
        }
    }

    fn node(&mut self, g: &Graph, node: Node, env: &mut Env) {
        let data = &g.nodes[node];
        if let Some(view) = self.view(g, data, env) {
            env.insert(data.results[0], view);
            return;
        }
        if let Op::Call { func, kind } = data.op {
            let args: Vec<Arg> = data.args.iter().map(|v| env[v].clone()).collect();
            self.call(&self.m.funcs[func], kind, args, g, node, env);
            return;
        }
        let args: Vec<Arg> = data.args.iter().map(|v| env[v].clone()).collect();
        let types: Vec<Type> = data.results.iter().map(|&v| g.ty(v).clone()).collect();
        let name = data.op.name().to_string();
        let results = match self.single(g, node) {
            Single::Dot(product) => {
                let args = self.product_args(&product, &args, false, data.loc);
                self.launch(name, Kernel::Dot(product.kernel), args, types, data.loc)
            }
            Single::Kernel(kernel) => self.launch(name, kernel, args, types, data.loc),
        };
        self.computes(vec![Part { op: data.op.name(), loc: data.loc }]);
        for (&value, tensor) in data.results.iter().zip(results) {
            env.insert(value, Arg::Tensor(tensor));
        }
    }

    /// What is no launch.
    fn view(&self, g: &Graph, data: &NodeData, env: &Env) -> Option<Arg> {
        let ty = g.ty(*data.results.first()?);
        let operand = || match env.get(data.args.first()?)? {
            Arg::Tensor(tensor) => Some(tensor),
            Arg::Const(..) => None,
        };
        match &data.op {
            Op::Const(c) => Some(Arg::Const(c.0, ty.dtype)),
            Op::Reshape => match env.get(data.args.first()?)? {
                Arg::Const(..) if ty.rank() > 0 => None,
                Arg::Const(value, dtype) => Some(Arg::Const(*value, *dtype)),
                Arg::Tensor(tensor) => Some(Arg::Tensor(Tensor { ty: ty.clone(), ..tensor.clone() })),
            },
            Op::Slice { axis, start } => {
                let tensor = operand()?;
                let sizes = self.m.dims.sizes(&tensor.ty.dims);
                let (before, behind) = sizes.split_at(*axis as usize);
                let inner: usize = behind[1..].iter().product();
                let offset = tensor.offset + start * inner * ty.dtype.bytes();
                let in_one_piece = before.iter().product::<usize>() == 1;
                in_one_piece.then(|| Arg::Tensor(Tensor { offset, ty: ty.clone(), ..tensor.clone() }))
            }
            Op::Cast | Op::Broadcast { .. } | Op::Transpose { .. } if data.args.len() == 1 => {
                let tensor = operand()?;
                let same = tensor.ty.dtype == ty.dtype && self.m.bytes(&tensor.ty) == self.m.bytes(ty);
                let in_order = match &data.op {
                    Op::Transpose { perm } => {
                        let sizes = self.m.dims.sizes(&tensor.ty.dims);
                        perm.iter().filter(|&&axis| sizes[axis as usize] != 1).is_sorted()
                    }
                    _ => true,
                };
                (same && in_order).then(|| Arg::Tensor(Tensor { ty: ty.clone(), ..tensor.clone() }))
            }
            _ => None,
        }
    }

    fn single(&self, g: &Graph, node: Node) -> Single {
        let data = &g.nodes[node];
        if let Op::Dot { .. } = data.op
            && let Ok(product) = matmul::plain(self.m, g, node)
        {
            return Single::Dot(product);
        }
        let mut leaves: Vec<Leaf> = Vec::new();
        for (operand, &value) in data.args.iter().enumerate() {
            if leaves.iter().all(|leaf| leaf.value != value) {
                leaves.push(Leaf { value, operand });
            }
        }
        let outputs: Vec<Output> =
            data.results.iter().enumerate().map(|(result, &value)| Output { value, result }).collect();
        match cluster::compile(self.m, g, &leaves, &outputs) {
            Ok(program) => Single::Kernel(Kernel::Rows(program)),
            Err(_) => Single::Kernel(Kernel::Op(data.op.clone())),
        }
    }

    /// Operands of a product: a and b, brought into order where they do not lie so, then all of `args` if an epilogue
    /// may ask for them.
    fn product_args(&mut self, product: &matmul::Matmul, args: &[Arg], all: bool, loc: Option<Span>) -> Vec<Arg> {
        let mut out = Vec::new();
        for (&operand, perm) in product.operands.iter().zip(&product.transpose) {
            let arg = args[operand].clone();
            out.push(match (perm, arg) {
                (Some(perm), Arg::Tensor(tensor)) => {
                    let dims: Vec<ir::Dim> = perm.iter().map(|&axis| tensor.ty.dims[axis as usize]).collect();
                    let ty = Type::new(tensor.ty.dtype, dims);
                    let kernel = Kernel::Op(Op::Transpose { perm: perm.clone() });
                    let moved = self.launch("transpose".into(), kernel, vec![Arg::Tensor(tensor)], vec![ty], loc);
                    moved.into_iter().next().map_or_else(|| args[operand].clone(), Arg::Tensor)
                }
                (_, arg) => arg,
            });
        }
        if all {
            out.extend(args.iter().cloned());
        }
        out
    }

    fn call(&mut self, callee: &Graph, kind: CallKind, args: Vec<Arg>, g: &Graph, node: Node, env: &mut Env) {
        let data = &g.nodes[node];
        let types: Vec<Type> = data.results.iter().map(|&v| g.ty(v).clone()).collect();
        let loc = data.loc.or_else(|| callee.nodes.values().find_map(|n| n.loc));
        let name = summary(callee);
        let launched = match kind {
            CallKind::Fused(Fusion::Rows) => {
                let leaves = callee.params.iter().enumerate().map(|(operand, &value)| Leaf { value, operand });
                let outputs = callee.results.iter().enumerate().map(|(result, &value)| Output { value, result });
                let program =
                    cluster::compile(self.m, callee, &leaves.collect::<Vec<_>>(), &outputs.collect::<Vec<_>>());
                program.ok().map(|program| self.launch(name, Kernel::Rows(program), args.clone(), types, loc))
            }
            CallKind::Fused(fusion @ (Fusion::Dot | Fusion::SymmetricDot)) => {
                matmul::fused(self.m, callee, fusion).ok().map(|product| {
                    let args = self.product_args(&product, &args, true, loc);
                    self.launch(name, Kernel::Dot(product.kernel), args, types, loc)
                })
            }
            CallKind::Fused(Fusion::Loss) => loss::fused(self.m, callee).ok().map(|loss| {
                let head = loss.operands.iter().map(|&i| args[i].clone());
                let args = head.chain(args.iter().cloned()).collect();
                self.launch(name, Kernel::Loss(loss.kernel), args, types, loc)
            }),
            CallKind::Block => None,
        };
        match launched {
            Some(results) => {
                self.computes(parts(callee));
                for (&value, tensor) in data.results.iter().zip(results) {
                    env.insert(value, Arg::Tensor(tensor));
                }
            }
            None => {
                let mut inner: Env = callee.params.iter().copied().zip(args).collect();
                for node in callee.nodes.keys() {
                    self.node(callee, node, &mut inner);
                }
                for (&value, result) in data.results.iter().zip(&callee.results) {
                    let mut arg = inner[result].clone();
                    if let Arg::Tensor(tensor) = &mut arg {
                        tensor.ty = g.ty(value).clone();
                    }
                    env.insert(value, arg);
                }
            }
        }
    }
}

/// The ops of a graph that are not free, alike ones once.
fn parts(g: &Graph) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for node in g.nodes.values().filter(|node| !node.op.is_free()) {
        let part = Part { op: node.op.name(), loc: node.loc };
        if !parts.contains(&part) {
            parts.push(part);
        }
    }
    parts
}

enum Single {
    Dot(matmul::Matmul),
    Kernel(Kernel),
}

/// The ops of a graph for people: `dot+relu+square`.
fn summary(g: &Graph) -> String {
    const MOST: usize = 5;
    let mut names: Vec<&str> = Vec::new();
    for node in g.nodes.values() {
        let name = node.op.name();
        if !node.op.is_free() && !names.contains(&name) {
            names.push(name);
        }
    }
    if names.is_empty() {
        names.extend(g.nodes.values().map(|n| n.op.name()).filter(|name| *name != "const").take(1));
    }
    let more = if names.len() > MOST { "+…" } else { "" };
    names.truncate(MOST);
    format!("{}{more}", names.join("+"))
}
