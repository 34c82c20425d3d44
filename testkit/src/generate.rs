//! Random well-typed modules, with arguments for one of their functions.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use mngc_compiler::ir::{
    BinaryOp, Builder, CompareOp, DType, DimRole, Entry, EntryKey, EntryKind, F64, Func, Graph, HostBinary, HostExpr,
    HostKind, HostUnary, Input, Module, Output, ScalarData, Slot, SlotData, SlotRole, Type, Value, ValueDef, print,
};
use mngc_runtime::{Context, Result, Tensor, evaluate};
use proptest::prelude::*;

use crate::kind::Kind;
use crate::nodes::{Axes, Nodes};
use crate::smooth::is_smooth;
use crate::tape::Tape;
use crate::values;

/// What is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Only ops with a gradient, at points where they are smooth, so that a gradient can be compared with differences;
    /// some result is a float and depends, as a rule, on parameters.
    pub smooth: bool,
    /// No sequence axis: functions as a model file has them.
    pub one_sequence: bool,
}

/// A module, one function of it, and arguments.
#[derive(Clone)]
pub struct Case {
    /// The module. Values are numbered in the order of the text form.
    pub module: Module,
    /// The function, the last of the module. The one entry of the module runs it.
    pub func: Func,
    /// One for each of its parameters.
    pub args: Vec<Tensor>,
    /// The seed of its random numbers.
    pub seed: u64,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", print::module(&self.module))?;
        for (tensor, &param) in self.args.iter().zip(&self.graph().params) {
            writeln!(f, "{param} = {:?} {:?}", tensor.sizes(), tensor.data())?;
        }
        write!(f, "seed {}", self.seed)
    }
}

impl Case {
    /// The function's graph.
    pub fn graph(&self) -> &Graph {
        &self.module.funcs[self.func]
    }

    /// Runs the function on arguments.
    pub fn run(&self, args: &[Tensor], ctx: &Context) -> Result<Vec<Tensor>> {
        evaluate(&self.module, self.func, args.to_vec(), ctx)
    }

    /// A cotangent for each float result: reproducible numbers.
    pub fn cotangents(&self) -> Vec<Tensor> {
        let graph = self.graph();
        let floats = graph.results.iter().map(|&v| graph.ty(v)).filter(|ty| ty.dtype.is_float());
        (1000..).zip(floats).map(|(seed, ty)| values::tensor(&self.module.dims, ty, seed, true)).collect()
    }
}

/// Modules with arguments.
pub fn cases(config: Config) -> impl Strategy<Value = Case> {
    (proptest::collection::vec(any::<u32>(), 0..300), 0u64..1 << 32)
        .prop_map(move |(choices, seed)| case(&choices, seed, config))
}

/// The case of these choices; the elements of its arguments follow from the seed.
pub fn case(choices: &[u32], seed: u64, config: Config) -> Case {
    let mut tape = Tape::new(choices);
    let mut module = Module { name: tape.of(&["case", "a \"case\""]).to_string(), ..Module::default() };
    let axes = axes(&mut module, &mut tape, config);
    let mut callees = Vec::new();
    if tape.pick(3) == 1 {
        callees.push(cube(&mut module, &axes, &mut tape));
    }
    if tape.pick(3) == 1 {
        callees.push(multiple(&mut module, &axes, &mut tape));
    }
    for _ in 0..tape.pick(3) {
        let nodes = 1 + tape.pick(4);
        let func = function(&mut module, &axes, &mut tape, &callees, nodes, seed, config);
        // The text form has no node without a result.
        if !module.funcs[func].results.is_empty() {
            callees.push(func);
        }
    }
    let nodes = 1 + tape.pick(12);
    let func = function(&mut module, &axes, &mut tape, &callees, nodes, seed, config);
    entry(&mut module, func, &mut tape);
    let args = arguments(&module, &module.funcs[func], seed, config);
    Case { module, func, args, seed }
}

fn axes(module: &mut Module, tape: &mut Tape, config: Config) -> Axes {
    let dims = &mut module.dims;
    let token = dims.intern("T", [3, 1, 2, 5][tape.pick(4)], DimRole::Token);
    let sequence = (!config.one_sequence).then(|| dims.intern("seq", 1 + tape.pick(3), DimRole::Sequence));
    // Compatible with `dim` and not the same; an even one second, for rope; one whose name needs quoting.
    let features = vec![
        dims.intern("dim", 3, DimRole::Feature),
        dims.intern("head", [2, 4][tape.pick(2)], DimRole::Feature),
        dims.anonymous(1),
        dims.anonymous(3),
        dims.intern(tape.of(&["4 d", ".d", "h.0-1"]), 5, DimRole::Feature),
    ];
    Axes { sequence, token, features }
}

/// x³ with a gradient of its own, 3·x²·dy.
fn cube(m: &mut Module, axes: &Axes, tape: &mut Tape) -> Func {
    let ty = Type::new(DType::F32, [axes.token, axes.features[tape.pick(axes.features.len())]]);
    let mut grad = Graph::new("cube.gradient");
    let [x, _y, dy] = ["x", "y", "dy"].map(|name| grad.param(name, ty.clone()));
    let mut b = Builder::new(m, &mut grad, None);
    let square = b.binary(BinaryOp::Mul, x, x, DType::F32);
    let slope = b.binary(BinaryOp::Mul, square, dy, DType::F32);
    let three = b.constant(3.0, DType::F32);
    let dx = b.binary(BinaryOp::Mul, slope, three, DType::F32);
    grad.result("dx", dx);
    let grad = m.funcs.push(canonical(&grad));
    let mut g = Graph::new("cube");
    let x = g.param("x", ty);
    let mut b = Builder::new(m, &mut g, None);
    let square = b.binary(BinaryOp::Mul, x, x, DType::F32);
    let y = b.binary(BinaryOp::Mul, square, x, DType::F32);
    g.result("y", y);
    g.gradient = Some(grad);
    m.funcs.push(canonical(&g))
}

/// n·x for an integer n, which has no gradient, with a gradient of its own, n·dy.
fn multiple(m: &mut Module, axes: &Axes, tape: &mut Tape) -> Func {
    let ty = Type::new(DType::F32, [axes.features[tape.pick(axes.features.len())]]);
    let mut build = |gradient: Option<Func>| {
        let is_gradient = gradient.is_none();
        let mut g = Graph::new(if is_gradient { "multiple.gradient" } else { "multiple" });
        let n = g.param("n", Type::scalar(DType::I32));
        let mut x = g.param("x", ty.clone());
        if is_gradient {
            g.param("y", ty.clone());
            x = g.param("dy", ty.clone());
        }
        let mut b = Builder::new(m, &mut g, None);
        let n = b.cast(n, DType::F32);
        let y = b.binary(BinaryOp::Mul, x, n, DType::F32);
        g.result("", y);
        g.gradient = gradient;
        m.funcs.push(canonical(&g))
    };
    let gradient = build(None);
    build(Some(gradient))
}

/// Adds a function of about this many nodes.
fn function(
    module: &mut Module,
    axes: &Axes,
    tape: &mut Tape,
    callees: &[Func],
    count: usize,
    seed: u64,
    config: Config,
) -> Func {
    let name = tape.of(&["f", "transformer.h", "f \"g\""]);
    let mut nodes =
        Nodes { m: module, g: Graph::new(name), tape, axes, callees, smooth: config.smooth, pool: Vec::new() };
    let kinds: Vec<Kind> =
        Kind::ALL.iter().copied().filter(|kind| !config.smooth || kind.is_differentiable()).collect();
    for _ in 0..count {
        let before = (nodes.g.clone(), nodes.pool.clone());
        let kind = nodes.tape.of(&kinds);
        nodes.grow(kind);
        if config.smooth && !smooth_so_far(nodes.m, &nodes.g, seed, config) {
            (nodes.g, nodes.pool) = before;
        }
    }
    let mut g = nodes.g;
    let pool = nodes.pool;
    results(&mut g, &pool, tape, config);
    module.funcs.push(canonical(&g))
}

fn smooth_so_far(module: &Module, graph: &Graph, seed: u64, config: Config) -> bool {
    let mut trial = module.clone();
    let func = trial.funcs.push(graph.clone());
    let args = arguments(&trial, graph, seed, config);
    is_smooth(&trial, func, &args, seed, 0).expect("a generated function runs")
}

fn arguments(module: &Module, graph: &Graph, seed: u64, config: Config) -> Vec<Tensor> {
    let params = (0u64..).zip(&graph.params);
    params.map(|(i, &v)| values::tensor(&module.dims, graph.ty(v), values::hash(seed, i), config.smooth)).collect()
}

/// Makes results of what nothing reads, and sometimes of more.
fn results(g: &mut Graph, pool: &[Value], tape: &mut Tape, config: Config) {
    let fits = |v: &Value| !config.smooth || g.ty(*v).dtype.is_float();
    let is_read = |v: &Value| g.nodes.values().any(|node| node.args.contains(v));
    let is_made = |v: &Value| g.def_node(*v).is_some();
    let pool: Vec<Value> = pool.iter().copied().filter(fits).collect();
    let unread: Vec<Value> = pool.iter().copied().filter(|v| is_made(v) && !is_read(v)).collect();
    let mut chosen: Vec<Value> = unread.iter().rev().take(4).copied().collect();
    if !pool.is_empty() && (chosen.is_empty() || tape.rarely(5)) {
        // Perhaps a parameter, or the same once more.
        chosen.push(tape.of(&pool));
    }
    if chosen.is_empty() && config.smooth {
        chosen.push(g.param("x", Type::scalar(DType::F32)));
    }
    for value in chosen {
        let name = tape.of(&["", "y", "loss"]);
        g.result(name, value);
    }
}

/// The same graph with values numbered as the text form has them: parameters, then results of nodes.
pub fn canonical(from: &Graph) -> Graph {
    let mut to = Graph::new(from.name.clone());
    to.gradient = from.gradient;
    let mut map = BTreeMap::new();
    for (&param, name) in from.params.iter().zip(&from.param_names) {
        map.insert(param, to.param(name.clone(), from.ty(param).clone()));
    }
    for node in from.nodes.values() {
        let args = node.args.iter().map(|arg| map[arg]).collect();
        let types = node.results.iter().map(|&v| from.ty(v).clone()).collect();
        let new = to.push(node.op.clone(), args, types, node.loc);
        map.extend(node.results.iter().copied().zip(to.nodes[new].results.clone()));
    }
    for (value, name) in from.results.iter().zip(&from.result_names) {
        to.result(name.clone(), map[value]);
    }
    to
}

/// Binds a function to slots, host scalars and batch inputs.
fn entry(m: &mut Module, func: Func, tape: &mut Tape) {
    let graph = m.funcs[func].clone();
    let stored = |m: &Module, ty: &Type| ty.dims.iter().all(|&d| m.dims.role(d) == DimRole::Feature);
    let mut inputs = Vec::new();
    for (i, &param) in graph.params.iter().enumerate() {
        let ty = graph.ty(param).clone();
        inputs.push(match tape.pick(3) {
            1 if stored(m, &ty) => Input::Slot(slot(m, ty, tape)),
            2 if ty == Type::scalar(DType::F32) => {
                let name = tape.of(&["", "lr"]).to_string();
                Input::Scalar(m.scalars.push(ScalarData { name, expr: host(tape, 3) }))
            }
            _ => Input::Batch(format!("x{i}")),
        });
    }
    let mut outputs: Vec<Output> = Vec::new();
    for (i, &result) in graph.results.iter().enumerate() {
        let free = |slot: &Slot| !outputs.contains(&Output::Slot(*slot));
        // A shadow must be written with its parameter: both are only read here.
        let shadowed = |slot: Slot| {
            let shadow = matches!(m.slots[slot].role, SlotRole::Shadow(_));
            shadow || m.slots.values().any(|s| s.role == SlotRole::Shadow(slot))
        };
        let fitting = m.slots.iter().filter(|(_, s)| s.ty == *graph.ty(result)).map(|(id, _)| id);
        let fitting: Vec<Slot> = fitting.filter(|&id| free(&id) && !shadowed(id)).collect();
        outputs.push(match fitting.is_empty() || tape.rarely(3) {
            false => Output::Slot(tape.of(&fitting)),
            true => Output::Host(format!("y{i}")),
        });
    }
    debug_assert!(graph.params.iter().all(|&v| matches!(graph.values[v].def, ValueDef::Param(_))));
    // The init of stage 0 would have to write every slot.
    let kind = tape.of(&EntryKind::ALL);
    let key = EntryKey { kind, stage: u32::from(kind == EntryKind::Init) + tape.pick(3) as u32 };
    m.entries.insert(key, Entry { key, func, inputs, outputs });
}

fn slot(m: &mut Module, ty: Type, tape: &mut Tape) -> Slot {
    let name = format!("s{}{}", m.slots.len(), tape.of(&["", ".weight", "#m", " \"\\"]));
    let owners = m.slots.iter().filter(|(_, s)| s.role == SlotRole::Param && s.ty.dims == ty.dims);
    let owner = owners.map(|(id, _)| id).next();
    let role = match (tape.pick(6), owner) {
        (1, _) => SlotRole::State,
        (2, Some(of)) => SlotRole::Optimizer(of),
        (3, Some(of)) if ty.dtype == DType::F32 => SlotRole::Gradient(of),
        (4, Some(of)) => SlotRole::Shadow(of),
        _ => SlotRole::Param,
    };
    m.slots.push(SlotData { name, role, ty, loc: None })
}

fn host(tape: &mut Tape, depth: usize) -> Arc<HostExpr> {
    let kinds = if depth == 0 { 2 } else { 6 };
    HostExpr::new(match tape.pick(kinds) {
        0 => HostKind::Num(F64(tape.of(&[0.1, -2.0, 1e-30, 3.0, f64::INFINITY]))),
        1 => HostKind::Step,
        2 => HostKind::Unary(tape.of(HostUnary::ALL), host(tape, depth - 1)),
        3 => HostKind::Binary(tape.of(HostBinary::ALL), host(tape, depth - 1), host(tape, depth - 1)),
        4 => HostKind::Compare(tape.of(CompareOp::ALL), host(tape, depth - 1), host(tape, depth - 1)),
        _ => HostKind::Select(host(tape, depth - 1), host(tape, depth - 1), host(tape, depth - 1)),
    })
}
