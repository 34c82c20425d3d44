//! The petgraph view, and drawings of functions.

use mngc_compiler::ir::dot::{self, DotOptions, DrawError};
use mngc_compiler::ir::view::{Vertex, View};
use mngc_compiler::ir::{Func, Module, Value};
use mngc_dsl::Span;

use crate::harness;

/// A model of `layers` calls, small but shaped like a language model.
fn layers(layers: usize) -> (Module, Func) {
    let mut text = String::from(
        "module \"gpt2\"\ndim seq = 2 sequence\ndim T = 8 token\ndim vocab = 16\ndim dim = 4\n\
         func f0 \"Mlp\" (v0 \"x\": bf16[seq, T, dim], v1 \"c_fc.weight\": bf16[16, dim], v2 \"c_proj.weight\": bf16[dim, 16]) {\n\
         v3: bf16[seq, T, 16] = dot v0, v1 {batch = [], contract = [2:1]}\nv4: bf16[seq, T, 16] = relu v3\n\
         v5: bf16[seq, T, 16] = square v4\nv6: bf16[seq, T, dim] = dot v5, v2 {batch = [], contract = [2:1]}\nreturn v6\n}\n\
         func f1 \"Layer\" (v0 \"x\": bf16[seq, T, dim], v1 \"x0\": bf16[seq, T, dim], v2 \"docs\": i32[seq, T], v3 \"lambdas\": bf16[2], \
         v4 \"mlp.c_fc.weight\": bf16[16, dim], v5 \"mlp.c_proj.weight\": bf16[dim, 16]) {\n\
         v6: bf16[1] = slice v3 {axis = 0, start = 0}\nv7: bf16[] = reshape v6\nv8: bf16[seq, T, dim] = mul v0, v7\n\
         v9: bf16[seq, T, dim] = add v8, v1\nv10: bf16[seq, T, 2, 2] = reshape v9\n\
         v11: bf16[seq, T, 2, 2], v12: f32[seq, T, 2] = attention v10, v10, v10, v2 {mask = [causal, documents], scale = 0.12}\n\
         v13: bf16[seq, T, dim] = reshape v11\nv14: bf16[seq, T, dim] = add v9, v13\nv15: bf16[seq, T, dim] = rms_norm v14 {eps = 0.0078125}\n\
         v16: bf16[seq, T, dim] = call v15, v4, v5 {func = f0, kind = block}\nv17: bf16[seq, T, dim] = add v14, v16\nreturn \"x\" v17\n}\n\
         func f2 \"gpt2\" (v0 \"tokens\": i32[seq, T], v1 \"targets\": i32[seq, T], v2 \"transformer.wte.weight\": bf16[vocab, dim], \
         v3 \"lm_head.weight\": f32[vocab, dim]",
    );
    for i in 0..layers {
        for (j, (name, ty)) in
            [("lambdas", "2"), ("mlp.c_fc.weight", "16, dim"), ("mlp.c_proj.weight", "dim, 16")].iter().enumerate()
        {
            text += &format!(", v{} \"transformer.h.{i}.{name}\": bf16[{ty}]", 100 + 10 * i + j);
        }
    }
    text += ") {\nv4: i32[] = const {value = 50256.0}\nv5: bool[seq, T] = eq v0, v4\nv6: i32[seq, T] = cast v5\n\
             v7: i32[seq, T] = cumsum v6 {axis = 1, reverse = false}\nv8: bf16[seq, T, dim] = gather v2, v0\n\
             v1000: bf16[seq, T, dim] = rms_norm v8 {eps = 0.0078125}\n";
    for i in 0..layers {
        let w = 100 + 10 * i;
        text += &format!(
            "v{}: bf16[seq, T, dim] = call v{}, v1000, v7, v{w}, v{}, v{} {{func = f1, kind = block}}\n",
            1001 + i,
            1000 + i,
            w + 1,
            w + 2
        );
    }
    text += &format!(
        "v10: bf16[seq, T, dim] = rms_norm v{} {{eps = 0.0078125}}\nv11: bf16[vocab, dim] = cast v3\n\
         v12: bf16[seq, T, vocab] = dot v10, v11 {{batch = [], contract = [2:1]}}\nv13: f32[] = const {{value = 30.0}}\n\
         v14: bf16[seq, T, vocab] = div v12, v13\nv15: bf16[seq, T, vocab] = tanh v14\nv16: bf16[seq, T, vocab] = mul v15, v13\n\
         v17: f32[seq, T] = cross_entropy v16, v1\nv18: f32[] = reduce v17 {{kind = mean, axes = [0, 1]}}\n\
         return \"logits\" v16, \"loss\" v18\n}}\n",
        1000 + layers
    );
    let m = harness::module(&text);
    let func = m.funcs.keys().next_back().expect("a function");
    (m, func)
}

#[test]
fn dot_files() {
    harness::check("dot", |text| {
        let m = harness::module(text);
        let number = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<usize>().ok());
        let options = DotOptions {
            expand: number("// expand").unwrap_or(0),
            weights: number("// weights") == Some(1),
            place: None,
        };
        vec![dot::to_dot(&m, m.funcs.keys().next_back().expect("a function"), &options)]
    });
}

#[test]
fn every_layer_is_one_box_until_it_is_opened() {
    let (m, func) = layers(12);
    let closed = dot::to_dot(&m, func, &DotOptions::default());
    for i in 0..12 {
        assert_eq!(
            closed.matches(&format!("Layer\\ntransformer.h.{i}\\n")).count(),
            usize::from(i > 0),
            "layer {i} in\n{closed}"
        );
    }
    assert_eq!(closed.matches("reads docs, x0").count(), 11);
    assert!(!closed.contains("attention") && !closed.contains("subgraph"));
    let open = dot::to_dot(&m, func, &DotOptions { expand: 1, ..Default::default() });
    assert_eq!(open.matches("subgraph").count(), 12);
    assert_eq!(open.matches("label=\"attention").count(), 12);
    assert_eq!(open.matches("Mlp\\ntransformer.h.").count(), 12);
    assert_eq!(open.matches("attention\\nreads docs").count(), 11);
    let all = dot::to_dot(&m, func, &DotOptions { expand: 2, ..Default::default() });
    assert_eq!(all.matches("subgraph").count(), 24);
    assert_eq!(all.matches("label=\"relu\"").count(), 12);
}

#[test]
fn svg_holds_every_box_and_every_shape() {
    let (m, func) = layers(12);
    let svg = dot::to_svg(&m, func, &DotOptions::default()).expect("a drawing");
    for text in ["transformer.h.11", "tokens", "cross_entropy", "logits", "bf16[seq, T, vocab]", "eq(·, 50256)"] {
        assert!(svg.contains(text), "{text} in\n{svg}");
    }
    assert_eq!(svg.matches(">Layer<").count(), 12);
    assert_eq!(svg, dot::to_svg(&m, func, &DotOptions::default()).expect("the same drawing"));
}

#[test]
fn no_drawing_of_nothing_or_of_too_much() {
    let m = harness::module("module \"m\"\nfunc f0 \"empty\" () {\n return\n}\n");
    let none = dot::to_svg(&m, Func::from_u32(0), &DotOptions::default());
    assert_eq!(none, Err(DrawError::Empty { name: "empty".into() }));
    let (m, func) = layers(60);
    let much = dot::to_svg(&m, func, &DotOptions { expand: 2, ..Default::default() });
    assert!(matches!(much, Err(DrawError::TooLarge { boxes }) if boxes > dot::SVG_LIMIT), "{much:?}");
}

#[test]
fn places_are_written_as_the_caller_knows_them() {
    let mut m = harness::module("module \"m\"\nfunc f0 \"f\" (v0: f32[]) {\n v1: f32[] = exp v0\n return v1\n}\n");
    let g = &mut m.funcs[Func::from_u32(0)];
    let node = g.nodes.keys().next().expect("a node");
    g.nodes[node].loc = Some(Span { start: 41, end: 42, ..Default::default() });
    let place = |span: Span| format!("gpt2.mng:{}", span.start);
    let text =
        dot::to_dot(&m, Func::from_u32(0), &DotOptions { weights: true, place: Some(&place), ..Default::default() });
    assert!(text.contains("exp\\ngpt2.mng:41"), "{text}");
}

#[test]
fn what_depends_on_what() {
    let m = harness::module(
        "module \"m\"\nfunc f0 \"f\" (v0: f32[], v1: f32[]) {\n v2: f32[] = exp v0\n v3: f32[] = add v2, v1\n v4: f32[] = neg v2\n\
         return v3, v4\n}\n",
    );
    let g = &m.funcs[Func::from_u32(0)];
    let view = View::of(g);
    let nodes: Vec<Vertex> = g.nodes.keys().map(Vertex::Node).collect();
    let value = Value::from_u32;
    assert_eq!(view.graph.edge_count(), 6);
    assert_eq!(view.dependents(g, value(1)), [nodes[1], Vertex::Result(0)]);
    assert_eq!(view.dependents(g, value(0)).len(), 5);
    assert_eq!(view.dependencies(g, value(4)), [Vertex::Param(0), nodes[0], nodes[2]]);
    let levels = view.levels();
    assert_eq!(levels[0], [Vertex::Param(0), Vertex::Param(1)]);
    assert_eq!(levels[1], [nodes[0]]);
    assert_eq!(levels[2], [nodes[1], nodes[2]]);
    assert_eq!(levels[3], [Vertex::Result(0), Vertex::Result(1)]);
}

#[test]
fn other_results_of_a_node_are_not_dependents() {
    let m = harness::module(
        "module \"m\"\ndim T = 3 token\nfunc f0 \"f\" (v0: f32[T, 2, 2]) {\n\
         v1: f32[T, 2, 2], v2: f32[T, 2] = attention v0, v0, v0 {mask = [causal], scale = 1.0}\n\
         v3: f32[T, 2, 2] = exp v1\n v4: f32[T, 2] = exp v2\n return v3, v4\n}\n",
    );
    let g = &m.funcs[Func::from_u32(0)];
    let after: Vec<Vertex> = View::of(g).dependents(g, Value::from_u32(2));
    assert_eq!(after.len(), 2);
    assert_eq!(after[1], Vertex::Result(1));
}
