//! The text form of a module. `read.rs` reads it back; printing what was read gives the same text.

use std::fmt::Write;

use super::entities::Func;
use super::graph::{Entry, Graph, Input, Module, NodeData, Output, SlotRole};
use super::host::HostExpr;
use super::op::{AttentionMask, Distribution, Op};
use super::types::{DimRole, Type};

/// A whole module.
pub fn module(m: &Module) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "module {}", quote(&m.name));
    for (_, dim) in m.dims.iter() {
        // A feature axis named by its size needs no declaration, as long as it comes up where it is used.
        let role = if dim.role == DimRole::Feature { String::new() } else { format!(" {}", dim.role.name()) };
        let _ = writeln!(out, "dim {} = {}{role}", quote(&dim.name), dim.size);
    }
    for (id, slot) in m.slots.iter() {
        let role = match slot.role {
            SlotRole::Param => "param".to_string(),
            SlotRole::State => "state".to_string(),
            SlotRole::Gradient(of) => format!("gradient({of})"),
            SlotRole::Optimizer(of) => format!("optimizer({of})"),
            SlotRole::Shadow(of) => format!("shadow({of})"),
        };
        let _ = writeln!(out, "slot {id} {} {role} {}", quote(&slot.name), ty(m, &slot.ty));
    }
    for (id, scalar) in m.scalars.iter() {
        let _ = writeln!(out, "scalar {id} {} = {}", quote(&scalar.name), host(&scalar.expr));
    }
    for func in m.funcs.keys() {
        out.push('\n');
        out.push_str(&graph(m, func));
    }
    if !m.entries.is_empty() {
        out.push('\n');
    }
    for entry in m.entries.values() {
        let _ = writeln!(out, "{}", self::entry(entry));
    }
    out
}

/// One function of a module.
pub fn graph(m: &Module, func: Func) -> String {
    let g = &m.funcs[func];
    let mut out = String::new();
    let params: Vec<String> = g
        .params
        .iter()
        .zip(&g.param_names)
        .map(|(&v, name)| {
            let name = if name.is_empty() { String::new() } else { format!(" {}", quote(name)) };
            format!("{v}{name}: {}", ty(m, g.ty(v)))
        })
        .collect();
    let gradient = g.gradient.map(|f| format!(" gradient {f}")).unwrap_or_default();
    let _ = writeln!(out, "func {func} {}({}){gradient} {{", quote(&g.name), params.join(", "));
    for (_, node) in g.nodes.iter() {
        let _ = writeln!(out, "  {}", self::node(m, g, node));
    }
    let results: Vec<String> = g
        .results
        .iter()
        .zip(&g.result_names)
        .map(|(v, name)| if name.is_empty() { v.to_string() } else { format!("{} {v}", quote(name)) })
        .collect();
    let space = if results.is_empty() { "" } else { " " };
    let _ = writeln!(out, "  return{space}{}\n}}", results.join(", "));
    out
}

/// One node: `v3: f32[T, dim] = add v1, v2`.
pub fn node(m: &Module, g: &Graph, node: &NodeData) -> String {
    let results: Vec<String> = node.results.iter().map(|&v| format!("{v}: {}", ty(m, g.ty(v)))).collect();
    let args: Vec<String> = node.args.iter().map(|v| v.to_string()).collect();
    let attrs = attributes(&node.op);
    let mut out = format!("{} = {}", results.join(", "), node.op.name());
    if !args.is_empty() {
        let _ = write!(out, " {}", args.join(", "));
    }
    if !attrs.is_empty() {
        let _ = write!(out, " {{{attrs}}}");
    }
    out
}

fn entry(e: &Entry) -> String {
    let inputs: Vec<String> = e
        .inputs
        .iter()
        .map(|i| match i {
            Input::Slot(s) => s.to_string(),
            Input::Batch(name) => quote(name),
            Input::Scalar(h) => h.to_string(),
        })
        .collect();
    let outputs: Vec<String> = e
        .outputs
        .iter()
        .map(|o| match o {
            Output::Slot(s) => s.to_string(),
            Output::Host(name) => quote(name),
        })
        .collect();
    let stage = if e.key.stage == 0 { String::new() } else { format!(" stage {}", e.key.stage) };
    format!("entry {}{stage} = {}({}) -> ({})", e.key.kind.name(), e.func, inputs.join(", "), outputs.join(", "))
}

/// A type: `bf16[seq, T, dim]`.
pub fn ty(m: &Module, ty: &Type) -> String {
    let dims: Vec<String> = ty.dims.iter().map(|&d| dim_name(m.dims.name(d))).collect();
    format!("{}[{}]", ty.dtype, dims.join(", "))
}

fn is_word(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('.')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.')
}

fn dim_name(name: &str) -> String {
    if is_word(name) { name.to_string() } else { quote(name) }
}

/// A quoted string with `"` and `\` escaped.
pub fn quote(text: &str) -> String {
    format!("{text:?}")
}

/// A host expression as an s-expression.
pub fn host(e: &HostExpr) -> String {
    match e {
        HostExpr::Num(v) => v.to_string(),
        HostExpr::Step => "step".to_string(),
        HostExpr::Unary(op, x) => format!("({} {})", op.name(), host(x)),
        HostExpr::Binary(op, a, b) => format!("({} {} {})", op.name(), host(a), host(b)),
        HostExpr::Compare(op, a, b) => format!("({} {} {})", op.name(), host(a), host(b)),
        HostExpr::Select(c, a, b) => format!("(select {} {} {})", host(c), host(a), host(b)),
    }
}

fn mask(mask: &AttentionMask) -> String {
    let parts = [(mask.causal, "causal"), (mask.documents, "documents"), (mask.window, "window")];
    let names: Vec<&str> = parts.iter().filter(|p| p.0).map(|p| p.1).collect();
    format!("mask = [{}]", names.join(", "))
}

fn pairs(pairs: &[(u8, u8)]) -> String {
    let shown: Vec<String> = pairs.iter().map(|(i, j)| format!("{i}:{j}")).collect();
    format!("[{}]", shown.join(", "))
}

fn attributes(op: &Op) -> String {
    match op {
        Op::Const(v) => format!("value = {v}"),
        Op::Iota { axis } => format!("axis = {axis}"),
        Op::Random { distribution, name } => {
            let d = match distribution {
                Distribution::Normal(mean, std) => format!("normal = [{mean}, {std}]"),
                Distribution::Uniform(low, high) => format!("uniform = [{low}, {high}]"),
            };
            format!("{d}, name = {}", quote(name))
        }
        Op::Broadcast { axes } => format!("axes = {axes:?}"),
        Op::Transpose { perm } => format!("perm = {perm:?}"),
        Op::Slice { axis, start } => format!("axis = {axis}, start = {start}"),
        Op::Pad { axis, before } => format!("axis = {axis}, before = {before}"),
        Op::Concat { axis } | Op::Reverse { axis } => format!("axis = {axis}"),
        Op::Shift { axis, by } => format!("axis = {axis}, by = {by}"),
        Op::Reduce { kind, axes } => format!("kind = {}, axes = {axes:?}", kind.name()),
        Op::Cumsum { axis, reverse } => format!("axis = {axis}, reverse = {reverse}"),
        Op::Dot { batch, contract } => format!("batch = {}, contract = {}", pairs(batch), pairs(contract)),
        Op::RmsNorm { eps } | Op::RmsNormGrad { eps } | Op::LayerNorm { eps } | Op::LayerNormGrad { eps } => {
            format!("eps = {eps}")
        }
        Op::Rope { base, axis, inverse } => format!("base = {base}, axis = {axis}, inverse = {inverse}"),
        Op::Attention { mask: m, scale } | Op::AttentionGrad { mask: m, scale } => {
            format!("{}, scale = {scale}", mask(m))
        }
        Op::Call { func, kind } => {
            format!("func = {func}, kind = {}", kind.name())
        }
        Op::Unary(_)
        | Op::Binary(_)
        | Op::Compare(_)
        | Op::Select
        | Op::Cast
        | Op::Reshape
        | Op::Softmax
        | Op::SoftmaxGrad
        | Op::Gather
        | Op::ScatterAdd
        | Op::CrossEntropy
        | Op::CrossEntropyGrad => String::new(),
    }
}
