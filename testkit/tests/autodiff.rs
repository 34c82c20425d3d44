//! Gradients by autodiff: of every op and of random functions, against central differences in f64; at kinks and ties,
//! against values by hand.
//!
//! `files/gradients/smooth.ir` is compared with differences. In `edges.ir`, `// grad f0(1 2; 3): 1 = 4 5; 6` differentiates
//! result 1 of f0 at two arguments and expects a gradient for each float parameter, to the bit in their dtypes.

use std::collections::BTreeSet;
use std::path::Path;

use mngc_compiler::autodiff::value_and_grad;
use mngc_compiler::ir::typing::Stage;
use mngc_compiler::ir::{
    BinaryOp, Builder, CallKind, DType, Func, Graph, Module, ReduceKind, Type, UnaryOp, Value, print, read, verify,
};
use mngc_runtime::{Context, Data, Precision, Tensor, evaluate};
use mngc_testkit::{Case, Config, cases, gradient_check, values};
use proptest::prelude::*;

/// Functions of integers and truth values.
const INTEGER: [BinaryOp; 6] =
    [BinaryOp::IntDiv, BinaryOp::And, BinaryOp::Or, BinaryOp::Xor, BinaryOp::Shl, BinaryOp::Shr];
/// Other ops with a gradient.
const OTHERS: [&str; 22] = [
    "select",
    "cast",
    "broadcast",
    "reshape",
    "transpose",
    "slice",
    "pad",
    "concat",
    "shift",
    "reverse",
    "reduce",
    "cumsum",
    "softmax",
    "gather",
    "scatter_add",
    "dot",
    "rms_norm",
    "layer_norm",
    "rope",
    "attention",
    "cross_entropy",
    "call",
];

const SMOOTH: Config = Config { smooth: true, one_sequence: false };
const ONE_SEQUENCE: Config = Config { smooth: true, one_sequence: true };

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

/// The text and the module of a file.
fn file(name: &str) -> (String, Module) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files/gradients").join(name);
    let text = std::fs::read_to_string(path).expect("a text file");
    let module = read::module(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
    if let Err(errors) = verify::module(&module, Stage::Elaborated) {
        panic!("{name}: {}", errors[0]);
    }
    (text, module)
}

#[test]
fn the_gradient_of_each_op_is_its_slope() {
    let (_, module) = file("smooth.ir");
    for func in module.funcs.keys() {
        let g = &module.funcs[func];
        let params = (1u64..).zip(&g.params);
        let args = params.map(|(i, &v)| values::tensor(&module.dims, g.ty(v), values::hash(9, i), true)).collect();
        let case = Case { module: module.clone(), func, args, seed: 7 };
        if let Err(fault) = check(&case) {
            panic!("{}: {fault}", g.name);
        }
    }
    let seen: BTreeSet<&str> = module.funcs.values().flat_map(|g| g.nodes.values().map(|n| n.op.name())).collect();
    let unary = UnaryOp::ALL.iter().filter(|op| !matches!(op, UnaryOp::Not | UnaryOp::GeluGrad | UnaryOp::SiluGrad));
    let binary = BinaryOp::ALL.iter().filter(|op| !INTEGER.contains(op)).map(|op| op.name());
    let missing: Vec<&str> =
        unary.map(|op| op.name()).chain(binary).chain(OTHERS).filter(|name| !seen.contains(name)).collect();
    assert!(missing.is_empty(), "no function has {missing:?}");
}

fn float(word: &str) -> f64 {
    let number = |w: &str| w.parse::<f64>().unwrap_or_else(|_| panic!("`{w}` is no number"));
    match word.split_once('/') {
        Some((a, b)) => number(a) / number(b),
        None => number(word),
    }
}

fn tensor(module: &Module, ty: &Type, text: &str) -> Tensor {
    let words = text.split(|c: char| c.is_whitespace() || c == ',').filter(|w| !w.is_empty());
    let data = match ty.dtype {
        DType::I32 => Data::Int(words.map(|w| w.parse().expect("an i32")).collect()),
        DType::Bool => Data::Bool(words.map(|w| w.parse().expect("true or false")).collect()),
        _ => Data::Float(words.map(float).collect()),
    };
    Tensor::new(module.dims.sizes(&ty.dims), data).unwrap_or_else(|e| panic!("{e} in `{text}`")).rounded(ty.dtype)
}

/// Runs `f0(1 2; 3): 1 = 4 5; 6`.
fn run_line(module: &Module, line: &str) -> Result<(), String> {
    let (head, rest) = line.split_once('(').expect("a function and its arguments");
    let (args, rest) = rest.split_once("): ").expect("`):`");
    let (result, expected) = rest.split_once(" = ").expect("` = `");
    let func = Func::from_u32(head.strip_prefix('f').expect("f0").parse().expect("the number of a function"));
    let g = &module.funcs[func];
    let args: Vec<&str> = args.split(';').collect();
    assert_eq!(args.len(), g.params.len(), "{line}");
    let args: Vec<Tensor> = g.params.iter().zip(args).map(|(&p, text)| tensor(module, g.ty(p), text)).collect();
    let floats: Vec<usize> = (0..g.params.len()).filter(|&i| g.ty(g.params[i]).dtype.is_float()).collect();

    let mut m = module.clone();
    let result = result.parse().expect("the position of a result");
    let grad = value_and_grad(&mut m, func, &floats, result).map_err(|e| e.to_string())?;
    let types = m.result_types(grad).split_off(g.results.len());
    let found = evaluate(&m, grad, args, &Context::new(Precision::Rounded, 0, 0)).map_err(|e| e.to_string())?;
    let found = &found[g.results.len()..];
    let want: Vec<Tensor> = types.iter().zip(expected.split(';')).map(|(ty, text)| tensor(&m, ty, text)).collect();
    if found.len() == want.len() && found.iter().zip(&want).all(|(a, b)| same_bits(a, b)) {
        return Ok(());
    }
    Err(format!("{line}\n  gives {:?}", found.iter().map(Tensor::data).collect::<Vec<_>>()))
}

#[test]
fn gradients_at_edges_are_those_declared() {
    let (text, module) = file("edges.ir");
    let lines: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("// grad ")).collect();
    let faults: Vec<String> = lines.iter().filter_map(|line| run_line(&module, line).err()).collect();
    assert!(faults.is_empty(), "{} of {} are wrong:\n{}", faults.len(), lines.len(), faults.join("\n"));
    assert!(lines.len() > 40);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]
    #[test]
    fn gradients_of_random_functions_are_their_slopes(case in prop_oneof![cases(SMOOTH), cases(ONE_SEQUENCE)]) {
        check(&case)?;
    }
}
