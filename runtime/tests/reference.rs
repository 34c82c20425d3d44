//! Runs `files/*.ir` on the oracle: modules in text form, with runs and their hand-computed results as comments.
//!
//! `// run f0(1 2 3; true) = 4; -inf 5` runs f0 on two arguments and expects two results; `// fail f0(…) = text` expects an
//! error that contains the text. Elements stand in row-major order; brackets and commas in them are for the reader's eye.
//! What is expected is rounded to the dtype of the result, and then every bit must agree (zeros of either sign are equal,
//! and so are NaNs). So an expectation needs more digits than its dtype has, no exact last one.

use std::collections::BTreeSet;
use std::path::Path;

use mngc_compiler::ir::typing::Stage;
use mngc_compiler::ir::{BinaryOp, CompareOp, DType, Func, Module, Type, UnaryOp, read, verify};
use mngc_runtime::{Context, Data, Precision, Tensor, evaluate};

/// A float as in Rust, and fractions such as `1/3`.
fn float(word: &str) -> f64 {
    let number = |w: &str| w.parse::<f64>().unwrap_or_else(|_| panic!("`{w}` is no number"));
    match word.split_once('/') {
        Some((a, b)) => number(a) / number(b),
        None => number(word),
    }
}

fn tensor(module: &Module, ty: &Type, text: &str) -> Tensor {
    let words = text.split(|c: char| c.is_whitespace() || "[],".contains(c)).filter(|w| !w.is_empty());
    let data = match ty.dtype {
        DType::F32 | DType::BF16 | DType::F16 => Data::Float(words.map(float).collect()),
        DType::I32 => Data::Int(words.map(|w| w.parse().expect("an i32")).collect()),
        DType::Bool => Data::Bool(words.map(|w| w.parse().expect("true or false")).collect()),
    };
    let sizes = module.dims.sizes(&ty.dims);
    Tensor::new(sizes, data).unwrap_or_else(|e| panic!("{e} in `{text}`")).rounded(ty.dtype)
}

fn agree(a: &Tensor, b: &Tensor) -> bool {
    match (a.data(), b.data()) {
        (Data::Float(a), Data::Float(b)) => a.iter().zip(b).all(|(a, b)| a == b || (a.is_nan() && b.is_nan())),
        (a, b) => a == b,
    }
}

/// `f0(a; b) = c; d` as the function and what stands between the semicolons.
fn call(directive: &str) -> (Func, Vec<&str>, Vec<&str>) {
    let (head, rest) = directive.split_once('(').expect("a function and its arguments");
    let (args, expected) = rest.split_once(") =").expect("`) =`");
    let func = Func::from_u32(head.trim().strip_prefix('f').expect("f0").parse().expect("the number of a function"));
    let args = if args.trim().is_empty() { Vec::new() } else { args.split(';').collect() };
    (func, args, expected.split(';').collect())
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
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files");
    let mut faults = Vec::new();
    let mut runs = 0;
    let mut seen = BTreeSet::new();
    let mut files: Vec<_> = std::fs::read_dir(folder).expect("the folder").map(|f| f.expect("a file").path()).collect();
    files.sort();
    for path in files {
        let text = std::fs::read_to_string(&path).expect("a text");
        let name = path.file_name().expect("a name").to_string_lossy();
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
