//! Causality on small model functions, each leak beside a healthy twin.

use mngc_compiler::check::causality::{Leak, check, check_ahead};
use mngc_compiler::ir::{Func, Module, print};
use mngc_dsl::Span;

use crate::harness;

/// The last function of the module is the model.
fn model(m: &Module) -> Func {
    m.funcs.keys().next_back().expect("a function")
}

fn position(names: &[String], name: &str) -> Option<usize> {
    names.iter().position(|n| n == name)
}

fn leak(m: &Module, result: Result<(), Leak>) -> String {
    let Err(leak) = result else { return "causal".into() };
    let nodes: Vec<String> =
        leak.path.iter().map(|&(func, node)| print::node(m, &m.funcs[func], &m.funcs[func].nodes[node])).collect();
    format!("leak: {}\n  {}", leak.reason, nodes.join("\n  "))
}

#[test]
fn files() {
    harness::check("causality", |text| {
        let m = harness::module(text);
        let func = model(&m);
        let g = &m.funcs[func];
        let logits = position(&g.result_names, "logits").expect("a result named logits");
        let tokens = position(&g.param_names, "tokens").expect("a parameter named tokens");
        let mut out = vec![leak(&m, check(&m, func, tokens, logits))];
        if let Some(targets) = position(&g.param_names, "targets") {
            out.push(format!("targets: {}", leak(&m, check_ahead(&m, func, targets, logits, 1))));
        }
        out
    });
}

#[test]
fn the_place_is_the_innermost_one_known() {
    let text = "module \"m\"\ndim T = 4 token\n\
        func f0 \"inner\" (v0: f32[T]) {\n v1: f32[T] = reverse v0 {axis = 0}\n return v1\n}\n\
        func f1 \"outer\" (v0: f32[T]) {\n v1: f32[T] = call v0 {func = f0, kind = block}\n return v1\n}\n";
    let mut m = harness::module(text);
    let (inner, outer) = (Func::from_u32(0), Func::from_u32(1));
    let span = |start| Span { file: Default::default(), start, end: start + 1 };
    let nodes = [inner, outer].map(|f| m.funcs[f].nodes.keys().next().expect("a node"));
    m.funcs[outer].nodes[nodes[1]].loc = Some(span(1));
    let found = check(&m, outer, 0, 0).unwrap_err();
    assert_eq!(found.path, [(outer, nodes[1]), (inner, nodes[0])]);
    assert_eq!(found.loc, Some(span(1)));
    m.funcs[inner].nodes[nodes[0]].loc = Some(span(2));
    assert_eq!(check(&m, outer, 0, 0).unwrap_err().loc, Some(span(2)));
}
