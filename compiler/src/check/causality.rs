//! Causality: `logits` at token t depend on no token after t, neither those that a model returns nor those that a
//! `cross_entropy` with its targets learns from.
//!
//! The `tokens` of a model function are followed along their token axis through every node and call. A value is
//! independent of them, or has the token axis in a known place and reads only the past along it, or has leaked: the
//! axis is gone, mixed up, or read ahead. What leaks may still go elsewhere (the loss itself may depend on anything); only
//! what reaches the logits counts. The check is conservative: data that hides the future behind a value
//! (a product with zero) is refused as well.

use std::collections::HashSet;

use cranelift_entity::SecondaryMap;
use mngc_dsl::Span;

use crate::axes::{self, Cause, Origin, Place, Reach, Tracer};
use crate::ir::{Dim, DimRole, Func, Module, Node, Op, ReduceKind, Value};

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
    let Some((params, axis)) = followed(module, func, param, ahead) else { return Ok(()) };
    let Some(reach) = Tracer::new(module).func(func, params).into_iter().nth(result).flatten() else { return Ok(()) };
    match fault(module, &reach, &module.result_types(func)[result].dims) {
        Some(fault) => Err(fault.leak(module, axis, g.def_node(g.results[result]).map(|node| (func, node)))),
        None => Ok(()),
    }
}

/// A `cross_entropy` that learns from logits which have seen what they should predict.
#[derive(Clone, Debug, PartialEq)]
pub struct LossLeak {
    /// What its logits have seen.
    pub leak: Leak,
    /// Whether that came in by the targets.
    pub of_targets: bool,
    /// The place of the `cross_entropy`.
    pub loss: Option<Span>,
}

/// Checks every `cross_entropy` that result `result` of `func` depends on, through calls, and whose targets are made of
/// parameter `targets`: its logits at a token must depend on that token and earlier ones only.
pub fn check_losses(
    module: &Module,
    func: Func,
    tokens: Option<usize>,
    targets: usize,
    result: usize,
) -> Result<(), LossLeak> {
    let nothing = || vec![None; module.funcs[func].params.len()];
    let Some((by_targets, axis)) = followed(module, func, targets, 1) else { return Ok(()) };
    let by_tokens =
        tokens.and_then(|param| followed(module, func, param, 0)).map_or_else(nothing, |(params, _)| params);
    let mut asked = vec![false; module.funcs[func].results.len()];
    asked[result] = true;
    let mut losses = Losses { module, tracer: Tracer::new(module), seen: HashSet::new() };
    losses.visit(func, [by_tokens, by_targets], asked).map_err(|found| LossLeak {
        leak: found.fault.leak(module, axis, Some(found.logits)),
        of_targets: found.of_targets,
        loss: module.funcs[found.loss.0].nodes[found.loss.1].loc,
    })
}

/// How the parameters of a function are reached by one of them, along its token axis, and that axis.
fn followed(module: &Module, func: Func, param: usize, ahead: i64) -> Option<(Vec<Option<Reach>>, Dim)> {
    let g = &module.funcs[func];
    let dims = &g.ty(*g.params.get(param)?).dims;
    let axis = token_axis(module, dims)?;
    let mut params = vec![None; g.params.len()];
    params[param] = Some(Reach::input(axis, ahead));
    Some((params, dims[axis]))
}

fn token_axis(module: &Module, dims: &[Dim]) -> Option<usize> {
    dims.iter().position(|&dim| module.dims.role(dim) == DimRole::Token)
}

/// What is wrong with a value that should look back only.
enum Fault {
    At(Origin),
    Ahead,
    OtherAxis,
}

/// A value with two token axes is read along the first one.
fn fault(module: &Module, reach: &Reach, dims: &[Dim]) -> Option<Fault> {
    match &reach.origin {
        Some(origin) => Some(Fault::At(origin.clone())),
        None if !reach.along.looks_back() => Some(Fault::Ahead),
        None if reach.axis != token_axis(module, dims) => Some(Fault::OtherAxis),
        None => None,
    }
}

impl Fault {
    /// `made` is the node that makes the value.
    fn leak(&self, module: &Module, axis: Dim, made: Option<(Func, Node)>) -> Leak {
        // As the file names it: other lengths of it are `T.2`, `T.3`.
        let axis = module.dims.name(axis).split('.').next().unwrap_or_default();
        match self {
            Fault::At(Origin::Node(place)) => leak(module, place, axis),
            Fault::At(Origin::Param(_)) | Fault::Ahead => {
                Leak { path: Vec::new(), loc: None, reason: format!("is ahead along axis {axis}") }
            }
            Fault::OtherAxis => Leak {
                path: made.into_iter().collect(),
                loc: made.and_then(|(func, node)| module.funcs[func].nodes[node].loc),
                reason: format!("has {axis} on another axis than the first"),
            },
        }
    }
}

/// The losses of a module, each function looked at once for each way of reaching it.
struct Losses<'a> {
    module: &'a Module,
    tracer: Tracer<'a>,
    seen: HashSet<(Func, [Vec<Option<Reach>>; 2], Vec<bool>)>,
}

/// A loss whose logits have a fault.
struct Found {
    fault: Fault,
    of_targets: bool,
    loss: (Func, Node),
    logits: (Func, Node),
}

impl Losses<'_> {
    /// `reaches`: how tokens and targets reach the parameters. `asked`: the results that the loss depends on.
    fn visit(&mut self, func: Func, reaches: [Vec<Option<Reach>>; 2], asked: Vec<bool>) -> Result<(), Found> {
        let key = (func, reaches, asked);
        if self.seen.contains(&key) {
            return Ok(());
        }
        let (_, reaches, asked) = &key;
        let reached = [self.tracer.values(func, &reaches[0]), self.tracer.values(func, &reaches[1])];
        let g = &self.module.funcs[func];
        let mut live: SecondaryMap<Value, bool> = SecondaryMap::new();
        g.results.iter().zip(asked).filter(|(_, asked)| **asked).for_each(|(&v, _)| live[v] = true);
        for (node, data) in g.nodes.iter().rev() {
            if !data.results.iter().any(|&v| live[v]) {
                continue;
            }
            data.args.iter().for_each(|&v| live[v] = true);
            match data.op {
                Op::Call { func: callee, .. } => {
                    let args = reached.each_ref().map(|r| data.args.iter().map(|&v| r[v].clone()).collect::<Vec<_>>());
                    let params = args.each_ref().map(|args| axes::inside(args));
                    let asked = data.results.iter().map(|&v| live[v]).collect();
                    self.visit(callee, params, asked).map_err(|found| {
                        let args = &args[usize::from(found.of_targets)];
                        let fault = match found.fault {
                            Fault::At(origin) => origin.outside((func, node), args).map_or(Fault::Ahead, Fault::At),
                            other => other,
                        };
                        Found { fault, ..found }
                    })?;
                }
                // What is not made of the targets is not what a model is to predict.
                Op::CrossEntropy if reached[1][data.args[1]].is_some() => {
                    let logits = data.args[0];
                    for (reached, of_targets) in reached.iter().zip([false, true]) {
                        let fault = reached[logits].as_ref().and_then(|r| fault(self.module, r, &g.ty(logits).dims));
                        if let Some(fault) = fault {
                            let made = (func, g.def_node(logits).unwrap_or(node));
                            return Err(Found { fault, of_targets, loss: (func, node), logits: made });
                        }
                    }
                }
                _ => {}
            }
        }
        self.seen.insert(key);
        Ok(())
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
