//! What the tests of the CPU backend share: functions run on it, and compared with the oracle in f64.

#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::BTreeMap;

use mngc_compiler::ir::{Entry, EntryKind, Func, Graph, Input, Module, NodeData, Op, Output, Type, Value};
use mngc_compiler::schedule::kernel::Kernel;
use mngc_compiler::schedule::{self, Plan};
use mngc_runtime::{Backend, Context, Cpu, Precision, Tensor, evaluate};
use mngc_testkit::{Tolerance, close, values};

/// How a function comes to the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Through the fusion passes.
    Lowered,
    /// As it stands: fused calls are kernels as the text says.
    Planned,
    /// As it stands, every launch as the op that it was: for functions of one node.
    Op,
}

/// The module with an entry that runs a function.
pub fn with_entry(m: &Module, func: Func) -> Module {
    let mut m = m.clone();
    let g = &m.funcs[func];
    let inputs = (0..g.params.len()).map(|i| Input::Batch(format!("in{i}"))).collect();
    let outputs = (0..g.results.len()).map(|i| Output::Host(format!("out{i}"))).collect();
    let key = EntryKind::Evaluate.into();
    m.entries = BTreeMap::from([(key, Entry { key, func, inputs, outputs })]);
    m
}

/// The module and plan that a way leads to.
pub fn planned(m: &Module, func: Func, way: Way) -> (Module, Plan) {
    let m = with_entry(m, func);
    let m = match way {
        Way::Lowered => schedule::lower(&m, &mut Vec::new()).unwrap_or_else(|e| panic!("{e}")),
        Way::Planned | Way::Op => m,
    };
    let mut plan = schedule::plan(&m, &mut Vec::new()).unwrap_or_else(|e| panic!("{e}"));
    if way == Way::Op {
        let entry = &m.entries[&EntryKind::Evaluate.into()];
        let node = m.funcs[entry.func].nodes.values().next_back().expect("a node");
        for launch in plan.entries.values_mut().flat_map(|e| &mut e.launches) {
            let is_program = matches!(launch.kernel, Kernel::Rows(_)) && launch.args.len() == node.args.len();
            if is_program && launch.name == node.op.name() {
                launch.kernel = Kernel::Op(node.op.clone());
            }
        }
    }
    (m, plan)
}

/// A backend for a function.
pub fn backend(m: &Module, func: Func, way: Way, threads: usize) -> Cpu {
    let (m, plan) = planned(m, func, way);
    Cpu::new(m, &plan, 7, Some(threads)).unwrap_or_else(|e| panic!("{e}"))
}

/// Runs the entry of [`backend`].
pub fn run_on(backend: &mut Cpu, args: &[Tensor], step: u64) -> Vec<Tensor> {
    let inputs = args.iter().enumerate().map(|(i, arg)| (format!("in{i}"), arg.clone())).collect();
    let mut out = backend.run(EntryKind::Evaluate.into(), &inputs, step).unwrap_or_else(|e| panic!("{e}"));
    (0..out.len()).map(|i| out.remove(&format!("out{i}")).expect("every result")).collect()
}

/// Runs a function on the CPU.
pub fn on_cpu(m: &Module, func: Func, args: &[Tensor], way: Way, threads: usize) -> Vec<Tensor> {
    run_on(&mut backend(m, func, way, threads), args, 3)
}

/// Runs a function on the oracle in f64, on arguments that are rounded already.
pub fn exact(m: &Module, func: Func, args: &[Tensor]) -> Vec<Tensor> {
    evaluate(m, func, args.to_vec(), &Context::new(Precision::F64, 7, 3)).unwrap_or_else(|e| panic!("{e}"))
}

/// Fails unless results are those of the oracle within the bound for sums of `terms` terms.
pub fn assert_close(m: &Module, func: Func, found: &[Tensor], wanted: &[Tensor], terms: usize, what: &str) {
    let g = &m.funcs[func];
    assert_eq!(found.len(), wanted.len(), "{what}");
    for (i, (found, wanted)) in found.iter().zip(wanted).enumerate() {
        if let Err(e) = close(found, wanted, g.ty(g.results[i]).dtype, terms) {
            panic!("{what}: result {i}: {e}");
        }
    }
}

/// Runs a function on the CPU and on the oracle, and compares.
pub fn check(m: &Module, func: Func, args: &[Tensor], way: Way, terms: usize) {
    let found = on_cpu(m, func, args, way, 2);
    assert_close(m, func, &found, &exact(m, func, args), terms, &format!("{way:?}"));
}

/// A module of one function of one node.
pub fn one_node(mut m: Module, op: Op, args: Vec<Type>, results: Vec<Type>) -> (Module, Func) {
    let mut g = Graph::new("f");
    let params: Vec<Value> = args.into_iter().map(|ty| g.param("", ty)).collect();
    let node = g.push(op, params, results, None);
    for value in g.nodes[node].results.clone() {
        g.result("", value);
    }
    let func = m.funcs.push(g);
    (m, func)
}

/// The length of the longest sum in an element of a node's results.
pub fn terms(m: &Module, g: &Graph, node: &NodeData) -> usize {
    let sizes = |i: usize| m.dims.sizes(&g.ty(node.args[i]).dims);
    let last = |i: usize| sizes(i).last().copied().unwrap_or(1);
    match &node.op {
        Op::Reduce { axes, .. } => axes.iter().map(|&axis| sizes(0)[axis as usize]).product(),
        Op::Cumsum { axis, .. } => sizes(0)[*axis as usize],
        Op::Softmax | Op::SoftmaxGrad | Op::CrossEntropy | Op::CrossEntropyGrad => last(0) + 8,
        Op::RmsNorm { .. } | Op::RmsNormGrad { .. } | Op::LayerNorm { .. } | Op::LayerNormGrad { .. } => last(0) + 8,
        Op::ScatterAdd => m.dims.elements(&g.ty(node.args[0]).dims),
        Op::Dot { contract, .. } => contract.iter().map(|pair| sizes(0)[pair.0 as usize]).product(),
        // Scores of `width` terms stand in an exponent; then as many terms as there are keys.
        Op::Attention { .. } | Op::AttentionGrad { .. } => {
            let sizes = sizes(0);
            let n = sizes.len();
            4 * (sizes[n - 3] + sizes[n - 1])
        }
        // Products that cancel.
        Op::Rope { .. } => 4,
        Op::Unary(_) | Op::Binary(_) => 4,
        _ => 1,
    }
}

/// Reproducible numbers on [−1, 1) of a type.
pub fn numbers(m: &Module, ty: &Type, seed: u64) -> Tensor {
    let sizes = m.dims.sizes(&ty.dims);
    let n = sizes.iter().product::<usize>() as u64;
    let floats = (0..n).map(|i| 2.0 * values::unit(seed, i) - 1.0).collect();
    match ty.dtype.is_float() {
        true => Tensor::floats(sizes, floats).expect("as many as the sizes say").rounded(ty.dtype),
        false => values::tensor(&m.dims, ty, seed, true),
    }
}

/// The bound for one element.
pub fn tolerance(ty: &Type, terms: usize, magnitude: f64) -> Tolerance {
    Tolerance::of(ty.dtype, terms, magnitude)
}
