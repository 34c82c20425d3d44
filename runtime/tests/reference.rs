//! Runs `files/*.ir` on the oracle: modules in text form, with runs and their hand-computed results as comments.
//!
//! `// run f0(1 2 3; true) = 4; -inf 5` runs f0 on two arguments and expects two results; `// fail f0(…) = text` expects an
//! error that contains the text. Elements stand in row-major order; brackets and commas in them are for the reader's eye.
//! What is expected is rounded to the dtype of the result, and then every bit must agree (zeros of either sign are equal,
//! and so are NaNs). So an expectation needs more digits than its dtype has, no exact last one.

mod files;

use std::collections::BTreeSet;

use files::{call, tensor};
use mngc_compiler::ir::typing::Stage;
use mngc_compiler::ir::{BinaryOp, CompareOp, Module, UnaryOp, read, verify};
use mngc_runtime::{Context, Data, Precision, Tensor, evaluate};

fn agree(a: &Tensor, b: &Tensor) -> bool {
    match (a.data(), b.data()) {
        (Data::Float(a), Data::Float(b)) => a.iter().zip(b).all(|(a, b)| a == b || (a.is_nan() && b.is_nan())),
        (a, b) => a == b,
    }
}

fn run_line(module: &Module, line: &str) -> Result<(), String> {
    let (fails, directive) = match (line.strip_prefix("// run "), line.strip_prefix("// fail ")) {
        (Some(rest), _) => (false, rest),
        (_, Some(rest)) => (true, rest),
        _ => return Ok(()),
    };
    let (func, args, expected) = call(directive);
    let graph = &module.funcs[func];
    let args = graph.params.iter().zip(&args).map(|(&p, text)| tensor(module, graph.ty(p), text)).collect();
    let found = evaluate(module, func, args, &Context::new(Precision::Rounded, 0, 0));
    match found {
        Err(e) if fails && e.to_string().contains(expected[0].trim()) => Ok(()),
        Err(e) => Err(format!("{line}\n  {e}")),
        Ok(_) if fails => Err(format!("{line}\n  does not fail")),
        Ok(found) if found.len() != expected.len() => Err(format!("{line}\n  gives {} results", found.len())),
        Ok(found) => {
            let want: Vec<Tensor> =
                graph.results.iter().zip(&expected).map(|(&r, text)| tensor(module, graph.ty(r), text)).collect();
            match found.iter().zip(&want).all(|(a, b)| agree(a, b)) {
                true => Ok(()),
                false => Err(format!("{line}\n  gives {:?}", found.iter().map(Tensor::data).collect::<Vec<_>>())),
            }
        }
    }
}

#[test]
fn files_give_what_they_say() {
    let mut faults = Vec::new();
    let mut runs = 0;
    let mut seen = BTreeSet::new();
    for (name, text) in files::all() {
        let module = read::module(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        if let Err(errors) = verify::module(&module, Stage::Elaborated) {
            panic!("{name}: {}", errors[0]);
        }
        seen.extend(module.funcs.values().flat_map(|g| g.nodes.values().map(|node| node.op.name())));
        for line in text.lines() {
            runs += usize::from(line.starts_with("// run ") || line.starts_with("// fail "));
            if let Err(fault) = run_line(&module, line) {
                faults.push(format!("{name}: {fault}"));
            }
        }
    }
    assert!(faults.is_empty(), "{} of {runs} runs are wrong:\n{}", faults.len(), faults.join("\n"));
    let unary = UnaryOp::ALL.iter().map(|op| op.name());
    let others = BinaryOp::ALL.iter().map(|op| op.name()).chain(CompareOp::ALL.iter().map(|op| op.name()));
    let missing: Vec<&str> = unary.chain(others).filter(|name| !seen.contains(name)).collect();
    assert!(missing.is_empty(), "no file runs {missing:?}");
}
