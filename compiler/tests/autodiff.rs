//! Derived functions, as text: `tests/files/autodiff/*.ir`.
//!
//! Each case differentiates its last function. `// wrt 0 2` names the parameters (all floats if it stands nowhere) and
//! `// result 1` the result (0). Expected are the functions that were added, or the error.

#[path = "cases/harness.rs"]
mod harness;

use mngc_compiler::autodiff::{Autodiff, AutodiffError, value_and_grad};
use mngc_compiler::ir::typing::Stage;
use mngc_compiler::ir::{Builder, DType, Func, Graph, Module, Op, ReduceKind, Type, UnaryOp, print, read, verify};
use mngc_dsl::Span;

fn numbers(text: &str, directive: &str) -> Option<Vec<usize>> {
    let line = text.lines().find_map(|line| line.strip_prefix(directive))?;
    Some(line.split_whitespace().map(|word| word.parse().expect("a position")).collect())
}

fn floats(m: &Module, func: Func) -> Vec<usize> {
    let g = &m.funcs[func];
    (0..g.params.len()).filter(|&i| g.ty(g.params[i]).dtype.is_float()).collect()
}

fn last(m: &Module) -> Func {
    m.funcs.keys().next_back().expect("a function")
}

/// What differentiation adds to a module.
fn added(m: &Module, before: usize) -> Vec<String> {
    if let Err(errors) = verify::module(m, Stage::Elaborated) {
        panic!("{}\n{}", errors[0], print::module(m));
    }
    let text = print::module(m);
    assert_eq!(print::module(&read::module(&text).expect("the text reads back")), text);
    m.funcs.keys().skip(before).map(|func| print::graph(m, func)).collect()
}

#[test]
fn files() {
    harness::check("autodiff", |text| {
        let mut m = harness::module(text);
        let (func, before) = (last(&m), m.funcs.len());
        let wrt = numbers(text, "// wrt").unwrap_or_else(|| floats(&m, func));
        let result = numbers(text, "// result").map_or(0, |numbers| numbers[0]);
        match value_and_grad(&mut m, func, &wrt, result) {
            Ok(_) => added(&m, before),
            Err(error) => vec![format!("error: {error}")],
        }
    });
}

#[test]
fn an_error_says_where() {
    let mut m = harness::module("module \"m\"\nfunc f0 \"f\" (v0: f32[]) { v1: f32[] = silu_grad v0 return v1 }");
    let loc = Some(Span::default());
    for graph in m.funcs.values_mut() {
        graph.nodes.values_mut().for_each(|node| node.loc = loc);
    }
    let func = last(&m);
    assert_eq!(value_and_grad(&mut m, func, &[0], 0), Err(AutodiffError::Unsupported { what: "silu_grad", loc }));
}

#[test]
fn nodes_carry_the_place_of_what_they_differentiate() {
    let mut m = harness::module("module \"m\"\nfunc f0 \"f\" (v0: f32[]) { v1: f32[] = sin v0 return v1 }");
    let loc = Some(Span::default());
    for graph in m.funcs.values_mut() {
        graph.nodes.values_mut().for_each(|node| node.loc = loc);
    }
    let func = last(&m);
    let grad = value_and_grad(&mut m, func, &[0], 0).expect("a gradient");
    let names: Vec<&str> =
        m.funcs[grad].nodes.values().filter(|node| node.loc == loc).map(|node| node.op.name()).collect();
    assert_eq!(names, ["sin", "cos", "mul"]);
}

#[test]
fn derivatives_are_remembered_by_what_matters() {
    let mut m = harness::module(
        "module \"m\"\nfunc f0 \"f\" (v0: f32[], v1: i32[]) { v2: f32[] = sin v0 v3: f32[] = exp v0 return v2, v3, v1 }",
    );
    let func = last(&m);
    let mut autodiff = Autodiff::new(&mut m);
    let mut derivative = |wrt: &[bool], active: &[bool]| autodiff.derivative(func, wrt, active).expect("a derivative");
    let one = derivative(&[true, false], &[true, false, false]);
    // Integers have no gradient: to ask for one changes nothing. A short mask leaves the rest out.
    assert_eq!(derivative(&[true, true], &[true, false, true]), one);
    assert_eq!(derivative(&[true], &[true]), one);
    let other = derivative(&[true, false], &[false, true, false]);
    assert_ne!(other.backward, one.backward);
    assert_eq!((one.forward, other.forward), (func, func));
    assert_eq!((one.saved.as_slice(), one.args.as_slice()), ([].as_slice(), [0].as_slice()));
    assert_eq!((other.saved.as_slice(), other.args.as_slice()), ([1].as_slice(), [].as_slice()));
    // Nothing with a cotangent: zeros.
    let nothing = derivative(&[true], &[]);
    assert_eq!((nothing.saved.len(), nothing.args.len()), (0, 0));
    assert_eq!(m.result_types(nothing.backward), m.result_types(one.backward));
    assert_eq!(m.funcs.len(), 4);
}

#[test]
fn long_chains_need_no_stack() {
    let mut m = Module::default();
    let d = m.dims.anonymous(2);
    let ty = Type::new(DType::F32, [d, d]);
    let mut g = Graph::new("f");
    let mut x = g.param("x", ty.clone());
    for _ in 0..50_000 {
        x = g.push1(Op::Transpose { perm: vec![1, 0] }, vec![x], ty.clone(), None);
    }
    let mut b = Builder::new(&mut m, &mut g, None);
    let y = b.unary(UnaryOp::Square, x, DType::F32);
    let loss = b.reduce(ReduceKind::Sum, y, &[0, 1], DType::F32);
    g.result("loss", loss);
    let func = m.funcs.push(g);
    let derivative = Autodiff::new(&mut m).derivative(func, &[true], &[true]).expect("a derivative");
    // Transposed there, in the repetition and on the way back.
    assert!(m.funcs[derivative.backward].nodes.len() > 100_000);
    assert_eq!(derivative.saved, []);
}
