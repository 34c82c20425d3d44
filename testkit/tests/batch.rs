//! Batching a random function over sequences equals running it once for each.

use mngc_compiler::ir::typing::Stage;
use mngc_compiler::ir::{DimRole, Graph, Module, Op, print, verify};
use mngc_compiler::passes::batch::batch;
use mngc_runtime::{Context, Data, Precision, Tensor, evaluate};
use mngc_testkit::close::within;
use mngc_testkit::{Case, Config, Tolerance, bits, cases, values};
use proptest::prelude::*;

const SEQUENCES: usize = 3;

fn stack(rows: &[Tensor]) -> Tensor {
    let sizes = [&[rows.len()], rows[0].sizes()].concat();
    let data = match rows[0].data() {
        Data::Float(_) => Data::Float(rows.iter().flat_map(|t| t.as_floats().unwrap().to_vec()).collect()),
        Data::Int(_) => Data::Int(rows.iter().flat_map(|t| t.as_ints().unwrap().to_vec()).collect()),
        Data::Bool(_) => Data::Bool(rows.iter().flat_map(|t| t.as_bools().unwrap().to_vec()).collect()),
    };
    Tensor::new(sizes, data).unwrap()
}

/// Whether batching may refuse the function with this message: something that all sequences must share may depend on one.
fn may_be_refused(module: &Module, message: &str) -> bool {
    let refuses = |op: &Op| match op {
        Op::Gather => message.starts_with("a table made from tokens cannot be indexed"),
        Op::ScatterAdd => message.starts_with("a table cannot be made from tokens"),
        Op::Rope { .. } => message == "rope's positions depend on the tokens of a sequence",
        Op::Attention { mask, .. } | Op::AttentionGrad { mask, .. } => {
            mask.window && message == "an attention window depends on the tokens of a sequence"
        }
        _ => false,
    };
    let shared = |g: &Graph| g.nodes.values().any(|node| refuses(&node.op));
    module.funcs.values().any(shared)
}

fn check(case: &Case, mask: u64, config: Config) -> Result<(), TestCaseError> {
    let mut m = case.module.clone();
    let seq = m.dims.intern("seq", SEQUENCES, DimRole::Sequence);
    let is_batched: Vec<bool> = (0..case.args.len()).map(|i| mask >> (i % 64) & 1 == 1).collect();
    let (func, results) = match batch(&mut m, case.func, seq, &is_batched) {
        Ok(made) => made,
        Err(error) => {
            prop_assert!(may_be_refused(&case.module, &error.message), "{error}");
            return Ok(());
        }
    };
    let verdict = verify::module(&m, Stage::Elaborated);
    prop_assert!(verdict.is_ok(), "{}\n{}", verdict.unwrap_err()[0], print::module(&m));

    // One set of arguments for each sequence.
    let sets: Vec<Vec<Tensor>> = (0..SEQUENCES as u64)
        .map(|s| {
            let graph = case.graph();
            let own = |i: usize| {
                let seed = values::hash(case.seed + 1 + s, i as u64);
                values::tensor(&case.module.dims, graph.ty(graph.params[i]), seed, config.smooth)
            };
            (0..case.args.len()).map(|i| if is_batched[i] { own(i) } else { case.args[i].clone() }).collect()
        })
        .collect();
    let together: Vec<Tensor> = (0..case.args.len())
        .map(|i| match is_batched[i] {
            true => stack(&sets.iter().map(|set| set[i].clone()).collect::<Vec<_>>()),
            false => case.args[i].clone(),
        })
        .collect();
    for precision in [Precision::Rounded, Precision::F64] {
        let ctx = Context::new(precision, case.seed, 1);
        let apart: Vec<Vec<Tensor>> = sets.iter().map(|set| case.run(set, &ctx).expect("the function runs")).collect();
        let batched = evaluate(&m, func, together.clone(), &ctx).expect("the batched function runs");
        for (i, result) in batched.iter().enumerate() {
            let each: Vec<Tensor> = apart.iter().map(|results| results[i].clone()).collect();
            if results[i] {
                let each = stack(&each);
                prop_assert_eq!(result.sizes(), each.sizes());
                prop_assert_eq!(bits(result), bits(&each), "result {}\n{}", i, print::graph(&m, func));
            } else {
                prop_assert!(each.iter().all(|one| bits(one) == bits(result)), "result {i} is one for all");
            }
        }
    }
    Ok(())
}

/// The gradient that a batched function carries is that of all its sequences: summed for what they share.
fn check_gradients(case: &Case, mask: u64) -> Result<(), TestCaseError> {
    let with_gradient = case.module.funcs.iter().filter_map(|(func, g)| g.gradient.map(|gradient| (func, gradient)));
    for (func, gradient) in with_gradient {
        let mut m = case.module.clone();
        let seq = m.dims.intern("seq", SEQUENCES, DimRole::Sequence);
        let params = m.funcs[func].params.len();
        let is_batched: Vec<bool> = (0..params).map(|i| mask >> i & 1 == 1).collect();
        let (batched, results) =
            batch(&mut m, func, seq, &is_batched).expect("pointwise functions have a batched form");
        let of_batched = m.funcs[batched].gradient.expect("it keeps a gradient");
        // Parameters, results and cotangents: the last two are batched together.
        let graph = &case.module.funcs[gradient];
        let is_batched: Vec<bool> =
            (0..graph.params.len()).map(|i| is_batched.get(i).copied().unwrap_or(results[0])).collect();
        let argument = |s: u64, i: usize| {
            let seed = values::hash(case.seed + if is_batched[i] { s } else { 0 }, i as u64);
            values::tensor(&case.module.dims, graph.ty(graph.params[i]), seed, true)
        };
        let sets: Vec<Vec<Tensor>> =
            (0..SEQUENCES as u64).map(|s| (0..graph.params.len()).map(|i| argument(s, i)).collect()).collect();
        let together = (0..graph.params.len()).map(|i| match is_batched[i] {
            true => stack(&sets.iter().map(|set| set[i].clone()).collect::<Vec<_>>()),
            false => sets[0][i].clone(),
        });
        let ctx = Context::new(Precision::F64, 0, 0);
        let found = evaluate(&m, of_batched, together.collect(), &ctx).expect("the batched gradient runs");
        let apart = sets.iter().map(|set| evaluate(&case.module, gradient, set.clone(), &ctx).expect("it runs"));
        let apart: Vec<Tensor> = apart.map(|results| results[0].clone()).collect();
        // The only float parameter of these functions is the last.
        let want = match (is_batched[params - 1], results[0]) {
            (true, _) => stack(&apart),
            (false, false) => apart[0].clone(),
            (false, true) => {
                let sum = |i| apart.iter().map(|t| t.as_floats().unwrap()[i]).sum();
                Tensor::floats(apart[0].sizes(), (0..apart[0].len()).map(sum).collect::<Vec<f64>>()).unwrap()
            }
        };
        let verdict = within(&found[0], &want, Tolerance { abs: 1e-13, rel: 1e-13 });
        prop_assert!(verdict.is_ok(), "{}\n{}", verdict.unwrap_err(), print::graph(&m, of_batched));
    }
    Ok(())
}

proptest! {
    // A fault that is found becomes a test of its own, with a name.
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_sequence_as_if_it_were_alone(
        case in cases(Config { smooth: false, one_sequence: true }),
        mask in any::<u64>(),
    ) {
        check(&case, mask, Config { smooth: false, one_sequence: true })?;
    }

    #[test]
    fn every_parameter_batched(case in cases(Config { smooth: false, one_sequence: true })) {
        check(&case, u64::MAX, Config { smooth: false, one_sequence: true })?;
    }

    #[test]
    fn gradients_of_all_sequences(
        case in cases(Config { smooth: true, one_sequence: true }),
        mask in any::<u64>(),
    ) {
        check_gradients(&case, mask)?;
    }
}
