//! Gradients of random functions of all ops, against central differences in f64.

use mngc_compiler::autodiff::value_and_grad;
use mngc_compiler::ir::typing::Stage;
use mngc_compiler::ir::{
    BinaryOp, Builder, CallKind, DType, Func, Graph, Module, ReduceKind, Value, print, read, verify,
};
use mngc_runtime::{Context, Data, Precision, Tensor, evaluate};
use mngc_testkit::{Case, Config, cases, gradient_check};
use proptest::prelude::*;

const SMOOTH: Config = Config { smooth: true, one_sequence: false };

/// Σ over float results of weights·result, the weights being parameters after those of the function.
fn loss(m: &mut Module, func: Func) -> Func {
    let callee = m.funcs[func].clone();
    let mut g = Graph::new("loss");
    let params: Vec<Value> =
        callee.params.iter().zip(&callee.param_names).map(|(&v, name)| g.param(name, callee.ty(v).clone())).collect();
    let floats: Vec<usize> =
        (0..callee.results.len()).filter(|&i| callee.ty(callee.results[i]).dtype.is_float()).collect();
    let weights: Vec<Value> = floats
        .iter()
        .map(|&i| g.param(format!("weight.{i}"), callee.ty(callee.results[i]).with_dtype(DType::F32)))
        .collect();
    let mut b = Builder::new(m, &mut g, None);
    let results = b.call(func, CallKind::Block, params);
    let mut total = b.constant(0.0, DType::F32);
    for (&i, &weight) in floats.iter().zip(&weights) {
        let product = b.binary(BinaryOp::Mul, results[i], weight, DType::F32);
        let axes: Vec<u8> = (0..b.dims(product).len() as u8).collect();
        let sum = b.reduce(ReduceKind::Sum, product, &axes, DType::F32);
        total = b.binary(BinaryOp::Add, total, sum, DType::F32);
    }
    g.result("loss", total);
    for result in results {
        g.result("", result);
    }
    m.funcs.push(g)
}

fn float_params(case: &Case) -> Vec<usize> {
    let g = case.graph();
    (0..g.params.len()).filter(|&i| g.ty(g.params[i]).dtype.is_float()).collect()
}

fn same_bits(a: &Tensor, b: &Tensor) -> bool {
    match (a.data(), b.data()) {
        (Data::Float(x), Data::Float(y)) => {
            x.len() == y.len() && x.iter().zip(y).all(|(x, y)| x == y || (x.is_nan() && y.is_nan()))
        }
        (x, y) => x == y,
    }
}

fn check(case: &Case) -> Result<(), TestCaseError> {
    let mut m = case.module.clone();
    let loss = loss(&mut m, case.func);
    let wrt = float_params(case);
    let grad = value_and_grad(&mut m, loss, &wrt, 0).map_err(|e| TestCaseError::fail(e.to_string()))?;
    if let Err(errors) = verify::module(&m, Stage::Elaborated) {
        return Err(TestCaseError::fail(format!("{}\n{}", errors[0], print::module(&m))));
    }
    let text = print::module(&m);
    let again = read::module(&text).map_err(|e| TestCaseError::fail(e.to_string()))?;
    prop_assert_eq!(print::module(&again), text.clone());

    let weights = case.cotangents();
    let with_weights = |x: &[Tensor]| [x, &weights[..]].concat();
    let n = m.funcs[loss].results.len();
    for precision in [Precision::F64, Precision::Rounded] {
        let ctx = Context::new(precision, case.seed, 0);
        let run = |func| evaluate(&m, func, with_weights(&case.args), &ctx);
        let (plain, derived) = (run(loss), run(grad));
        let (plain, derived) = (plain.expect("the loss runs"), derived.expect("its gradient runs"));
        for (i, (a, b)) in plain.iter().zip(&derived[..n]).enumerate() {
            prop_assert!(same_bits(a, b), "result {i} changed\n{text}");
        }
    }
    let ctx = Context::new(Precision::F64, case.seed, 0);
    let verdict = gradient_check(
        &case.args,
        |x| Ok(evaluate(&m, loss, with_weights(x), &ctx)?[0].as_floats().expect("a float")[0]),
        |x| Ok(evaluate(&m, grad, with_weights(x), &ctx)?.split_off(n)),
    );
    verdict.map_err(|fault| TestCaseError::fail(format!("{fault}\n{text}")))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]
    #[test]
    fn gradients_of_random_functions_are_their_slopes(case in cases(SMOOTH)) {
        check(&case)?;
    }
}
