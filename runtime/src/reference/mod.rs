//! The oracle: runs a graph node by node, each op from the formula that it is declared with in `mngc_compiler::ir::op`.
//!
//! Every op computes in f64 from operands that are already rounded, and its result is rounded once, to the dtype that the
//! IR gives it ([`Precision::Rounded`]), or never ([`Precision::F64`]). So the two runs differ by exactly the roundings
//! that the IR declares. Sums have a fixed order: results do not depend on the number of threads.
//!
//! The files: `ops` dispatches; `elementwise`, `layout`, `reduce`, `softmax`, `norm`, `index`, `dot`, `rope`, `attention`,
//! `random` hold the ops, as functions from slices to vectors that know of no rounding; `parallel` splits rows over
//! threads; `backend` keeps slots.
//!
//! # Random numbers
//!
//! Every backend draws the same numbers. Element `index` (row-major, from 0) of a `random` op called `name`, in a run
//! with `seed`, at `step`:
//!
//! 1. `key` = FNV-1a, 64 bits (offset basis 0xcbf29ce484222325, prime 0x100000001b3), over the 8 little-endian bytes of
//!    `seed`, then the UTF-8 bytes of `name`.
//! 2. Philox 4×32-10 (Salmon et al. 2011) with the key words (low half of `key`, high half of `key`) and the counter
//!    words (low half of `index`, high half of `index`, low half of `step`, high half of `step`) gives w0, w1, w2, w3.
//! 3. Uniform on [low, high): u = ⌊w0/2⁸⌋·2⁻²⁴, result low + (high − low)·u.
//! 4. Normal: u = (w0 + 1)·2⁻³², v = w1·2⁻³², result mean + deviation·√(−2 ln u)·cos(2πv) (Box and Muller).
//!
//! Steps 3 and 4 are computed in f64 and rounded once, to the dtype of the result. Rounding may give `high` itself.

mod attention;
mod backend;
mod dot;
mod elementwise;
mod index;
mod layout;
mod norm;
mod ops;
mod parallel;
pub(crate) mod random;
mod reduce;
mod rope;
mod softmax;

pub use backend::Reference;

use mngc_compiler::ir::typing::{self, Stage};
use mngc_compiler::ir::{Func, Graph, Module, Node, NodeData, Op, Type, Value};

use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// What the oracle rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// Each result once, to the dtype that the IR gives it. So are constants, host scalars and slots.
    #[default]
    Rounded,
    /// No float at all. Integers and truth values are exact in both.
    F64,
}

/// Sees every node after it ran: the nodes that are running, calls first and the node itself last, each with the function
/// it stands in; and the node's results.
pub type Observer<'a> = &'a dyn Fn(&[(Func, Node)], &[Tensor]);

/// What an evaluation depends on, besides the graph and its arguments.
#[derive(Clone, Copy, Default)]
pub struct Context<'a> {
    /// What is rounded.
    pub precision: Precision,
    /// Seed of the run, for `random`.
    pub seed: u64,
    /// Index of the step, for `random`.
    pub step: u64,
    /// Looks on.
    pub observer: Option<Observer<'a>>,
}

impl Context<'_> {
    /// Without an observer.
    pub fn new(precision: Precision, seed: u64, step: u64) -> Context<'static> {
        Context { precision, seed, step, observer: None }
    }

    /// Rounds a tensor to a type's dtype, if anything is rounded.
    fn round(&self, tensor: Tensor, ty: &Type) -> Tensor {
        match self.precision {
            Precision::Rounded => tensor.rounded(ty.dtype),
            Precision::F64 => tensor,
        }
    }
}

/// Runs a function on arguments, one for each parameter, and gives its results.
///
/// Arguments are rounded to the dtypes of the parameters first. The graph needs no verifying before: a node that breaks
/// its typing rule is an error.
pub fn evaluate(module: &Module, func: Func, args: Vec<Tensor>, ctx: &Context) -> Result<Vec<Tensor>> {
    let graph = module.funcs.get(func).ok_or(Error::NoFunc(func))?;
    if args.len() != graph.params.len() {
        return Err(Error::Arguments { func: graph.name.clone(), expected: graph.params.len(), found: args.len() });
    }
    let mut rounded = Vec::with_capacity(args.len());
    for (i, (arg, &param)) in args.into_iter().zip(&graph.params).enumerate() {
        let ty = graph.ty(param);
        let what = || match graph.param_names.get(i).filter(|name| !name.is_empty()) {
            Some(name) => format!("parameter `{name}` of `{}`", graph.name),
            None => format!("parameter {i} of `{}`", graph.name),
        };
        arg.expect(what, ty.dtype, &module.dims.sizes(&ty.dims))?;
        rounded.push(ctx.round(arg, ty));
    }
    run(module, func, rounded, ctx, &mut Vec::new())
}

/// Runs the nodes in order; `path` holds the calls that lead here.
fn run(
    module: &Module,
    func: Func,
    args: Vec<Tensor>,
    ctx: &Context,
    path: &mut Vec<(Func, Node)>,
) -> Result<Vec<Tensor>> {
    let graph = &module.funcs[func];
    let last_use = last_uses(graph);
    let mut values: Vec<Option<Tensor>> = vec![None; graph.values.len()];
    for (&param, arg) in graph.params.iter().zip(args) {
        values[param.as_u32() as usize] = Some(arg);
    }
    for (node, data) in graph.nodes.iter() {
        let fail = |fault: String| Error::Node { func: graph.name.clone(), node, fault };
        check(module, graph, data).map_err(fail)?;
        let mut operands = Vec::with_capacity(data.args.len());
        for &arg in &data.args {
            let value = values[arg.as_u32() as usize].clone();
            operands.push(value.ok_or_else(|| fail(format!("{arg} is read before it is made")))?);
        }
        // A value lives to its last reader: from here on the operands alone hold it.
        for &arg in data.args.iter().filter(|arg| last_use[arg.as_u32() as usize] == LastUse::At(node)) {
            values[arg.as_u32() as usize] = None;
        }
        path.push((func, node));
        let results = match data.op {
            Op::Call { func: callee, .. } => {
                if callee >= func {
                    return Err(fail(format!("{callee} does not stand before its caller {func}")));
                }
                run(module, callee, operands, ctx, path)?
            }
            _ => ops::apply(module, graph, data, operands, ctx),
        };
        if let Some(observer) = ctx.observer {
            observer(path, &results);
        }
        path.pop();
        for (&value, tensor) in data.results.iter().zip(results) {
            if last_use[value.as_u32() as usize] != LastUse::Never {
                values[value.as_u32() as usize] = Some(tensor);
            }
        }
    }
    let results = graph.results.iter().map(|&v| values.get(v.as_u32() as usize).cloned().flatten());
    results.collect::<Option<_>>().ok_or_else(|| Error::Node {
        func: graph.name.clone(),
        node: Node::from_u32(graph.nodes.len() as u32),
        fault: "a result of the function is never made".into(),
    })
}

/// The last reader of a value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LastUse {
    Never,
    At(Node),
    /// It is a result of the function.
    Caller,
}

fn last_uses(graph: &Graph) -> Vec<LastUse> {
    let mut last = vec![LastUse::Never; graph.values.len()];
    let mut set = |value: Value, by: LastUse| {
        if let Some(slot) = last.get_mut(value.as_u32() as usize) {
            *slot = by;
        }
    };
    for (node, data) in graph.nodes.iter() {
        data.args.iter().for_each(|&arg| set(arg, LastUse::At(node)));
    }
    graph.results.iter().for_each(|&result| set(result, LastUse::Caller));
    last
}

/// The typing rule of a node, so that the ops may rely on it.
fn check(module: &Module, graph: &Graph, data: &NodeData) -> std::result::Result<(), String> {
    let types = |values: &[Value]| -> Option<Vec<&Type>> {
        values.iter().map(|&v| graph.values.get(v).map(|data| &data.ty)).collect()
    };
    let (Some(args), Some(results)) = (types(&data.args), types(&data.results)) else {
        return Err("a value that the graph does not have".into());
    };
    typing::check(module, Stage::Elaborated, &data.op, &args, &results)
}
