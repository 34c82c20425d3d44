//! Causality: `logits` at token t depend on no token after t.
//!
//! The `tokens` of a model function are followed along their token axis through every node and call. A value is
//! independent of them, or has the token axis in a known place and reads only the past along it, or has leaked: the
//! axis is gone, mixed up, or read ahead. What leaks may still go elsewhere (`loss` may depend on anything); only what
//! reaches the result that is asked for counts. The check is conservative: data that hides the future behind a value
//! (a product with zero) is refused as well.

use mngc_dsl::Span;

use crate::axes::{Cause, Origin, Place, Reach, Tracer};
use crate::ir::{DimRole, Func, Module, Node, Op, ReduceKind};

/// The first place where later tokens come in, on a way to the result.
#[derive(Clone, Debug, PartialEq)]
pub struct Leak {
    /// The calls that lead to the place, outermost first, and the node there. Empty if the parameter itself is the result.
    pub path: Vec<(Func, Node)>,
    /// The innermost place in the model file on that path.
    pub loc: Option<Span>,
    /// What the node does, as the end of "this …": `averages over axis T`.
    pub reason: String,
}

/// Checks that result `result` of `func` at a token depends on parameter `param` at that token and earlier ones only. A
/// parameter without a token axis is not of tokens, and passes.
pub fn check(module: &Module, func: Func, param: usize, result: usize) -> Result<(), Leak> {
    check_ahead(module, func, param, result, 0)
}

/// As [`check`] for a parameter whose position t holds token t + `ahead`: 1 for the targets.
pub fn check_ahead(module: &Module, func: Func, param: usize, result: usize, ahead: i64) -> Result<(), Leak> {
    let g = &module.funcs[func];
    let is_token = |dim| module.dims.role(dim) == DimRole::Token;
    let ty = g.params.get(param).map(|&p| g.ty(p));
    let Some(axis) = ty.and_then(|ty| ty.dims.iter().position(|&dim| is_token(dim))) else { return Ok(()) };
    let axis_name = ty.map_or("", |ty| module.dims.name(ty.dims[axis]));

    let mut params = vec![None; g.params.len()];
    params[param] = Some(Reach::input(axis, ahead));
    let Some(reach) = Tracer::new(module).func(func, params).into_iter().nth(result).flatten() else { return Ok(()) };
    match reach.origin {
        Some(Origin::Node(place)) => Err(leak(module, &place, axis_name)),
        _ if !reach.along.looks_back() => {
            Err(Leak { path: Vec::new(), loc: None, reason: format!("is ahead along axis {axis_name}") })
        }
        // A result with two token axes is read along the first one.
        _ if reach.axis != module.result_types(func)[result].dims.iter().position(|&dim| is_token(dim)) => {
            let path: Vec<_> = g.def_node(g.results[result]).map(|node| (func, node)).into_iter().collect();
            let loc = path.first().and_then(|&(_, node)| g.nodes[node].loc);
            Err(Leak { path, loc, reason: format!("has {axis_name} on another axis than the first") })
        }
        _ => Ok(()),
    }
}

fn leak(module: &Module, place: &Place, axis: &str) -> Leak {
    let mut nodes = place.path.iter().map(|&(func, node)| &module.funcs[func].nodes[node]);
    // A call inside a block has a place in the block; nodes that the compiler made have none of their own.
    let loc = nodes.clone().rev().find_map(|node| node.loc);
    let reason = match nodes.next_back() {
        Some(node) => reason(&node.op, place.cause, axis),
        None => String::new(),
    };
    Leak { path: place.path.clone(), loc, reason }
}

fn reason(op: &Op, cause: Cause, axis: &str) -> String {
    match (op, cause) {
        (_, Cause::Crossed) => format!("combines two tensors that have {axis} on different axes"),
        (Op::Reduce { kind, .. }, _) => {
            let verb = match kind {
                ReduceKind::Sum => "sums",
                ReduceKind::Mean => "averages",
                ReduceKind::Max => "takes the maximum",
                ReduceKind::Min => "takes the minimum",
                ReduceKind::Norm => "takes the norm",
            };
            format!("{verb} over axis {axis}")
        }
        (Op::Shift { by, .. }, _) if *by < 0 => format!("looks {} ahead along axis {axis}", by.unsigned_abs()),
        (Op::Reverse { .. }, _) => format!("turns axis {axis} round"),
        (Op::Cumsum { reverse: true, .. }, _) => format!("sums along axis {axis} from the end"),
        (Op::Attention { .. }, Cause::Ahead) => {
            format!("attends to later positions of axis {axis}: its mask is not causal")
        }
        (Op::Softmax | Op::SoftmaxGrad, _) => format!("takes a softmax over axis {axis}"),
        (Op::RmsNorm { .. } | Op::RmsNormGrad { .. } | Op::LayerNorm { .. } | Op::LayerNormGrad { .. }, _) => {
            format!("normalizes over axis {axis}")
        }
        (Op::Dot { .. }, Cause::Lost) => format!("sums products over axis {axis}"),
        (Op::Gather, Cause::Lost) => format!("looks up rows of a table that runs along axis {axis}"),
        (Op::ScatterAdd, Cause::Lost) => format!("adds up rows over axis {axis}"),
        (op, Cause::Lost) => format!("loses axis {axis} in `{}`", op.name()),
        (op, Cause::Ahead) => format!("reads ahead along axis {axis} in `{}`", op.name()),
    }
}
