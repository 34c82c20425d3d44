//! Reverse-mode automatic differentiation: from a function to one that also gives gradients.
//!
//! **Functions.** [`Autodiff::derivative`] splits the gradient of a function in two: `NAME_fwd` computes the results
//! and what the other needs of the way there, `NAME_bwd` turns cotangents of results into gradients of parameters. A call
//! in the function becomes a call of the callee's `_fwd`, its gradient a call of the callee's `_bwd`; both are made once
//! for each set of wanted parameters and of results with a cotangent, however often they are called.
//! [`value_and_grad`] puts both halves of the outermost function into one graph.
//!
//! **Activity** (`activity.rs`). Only values that depend on a wanted parameter, and that a result with a cotangent
//! depends on, get cotangents. A call with none of them stays the call that it was.
//!
//! **Saved values** (`backward.rs`). `_bwd` repeats free ops ([`Op::is_free`]) and casts of parameters, and takes
//! parameters of the function as arguments; every other value that it reads becomes a result of `_fwd`, unless it is one
//! already.
//!
//! **Dtypes.** The cotangent of a value without a sequence axis is f32, whatever the value's dtype: it sums over all
//! sequences. Others have the dtype of their value. Between, a rule (`rules.rs`, `elementwise.rs`, `dot.rs`) computes in
//! f32; its last op rounds. Contributions of several uses are added from the last use to the first, as the sweep meets
//! them, rounding after each: no more than one of them waits for another.

mod activity;
mod backward;
mod dot;
mod elementwise;
mod rules;

use std::collections::HashMap;

use cranelift_entity::SecondaryMap;
use mngc_dsl::Span;

use crate::ir::{Builder, CallKind, DType, DimRole, Dims, Func, Graph, Module, Node, Op, Type, Value};
use activity::Dependence;
use backward::Backward;

/// Why a function has no gradient.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum AutodiffError {
    /// A gradient was asked for a parameter that is none, or not a float.
    #[error("`{func}` has no float parameter {index}")]
    Parameter {
        /// Name of the function.
        func: String,
        /// Position of the parameter.
        index: usize,
    },
    /// The gradient of a result was asked for that is none, or not a float of rank 0.
    #[error("result {index} of `{func}` is not a float of rank 0")]
    Result {
        /// Name of the function.
        func: String,
        /// Position of the result.
        index: usize,
    },
    /// An op without a gradient stands between the parameters and the result.
    #[error("{what} has no gradient")]
    Unsupported {
        /// The op by its name, or the one of its results.
        what: &'static str,
        /// The place in the model file.
        loc: Option<Span>,
    },
}

/// The two halves of a function's gradient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Derivative {
    /// Parameters of the function → its results, then saved values. The function itself if nothing more is saved.
    pub forward: Func,
    /// Results of `forward` named by `saved`, parameters of the function named by `args`, a cotangent for each result
    /// in the mask → a gradient for each parameter in the mask; zeros where nothing flows.
    pub backward: Func,
    /// Results of `forward` that `backward` takes first, by position.
    pub saved: Vec<usize>,
    /// Parameters that `backward` takes next, by position.
    pub args: Vec<usize>,
}

/// As [`Derivative`], before the halves are functions of the module.
struct Halves {
    forward: Graph,
    backward: Graph,
    saved: Vec<usize>,
    args: Vec<usize>,
}

/// What a derivative is remembered under.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    func: Func,
    wrt: Vec<bool>,
    active: Vec<bool>,
}

/// Makes gradients of a module's functions and remembers those that it has made.
pub struct Autodiff<'m> {
    m: &'m mut Module,
    made: HashMap<Key, Derivative>,
    dependence: Dependence,
}

/// Adds a function that computes what `func` computes and the gradient of one result.
///
/// Its parameters are those of `func`; its results those of `func`, then, for each position in `wrt`, the gradient of
/// the result at `result` (a float of rank 0) for that parameter (a float), called `grad.NAME`, with zeros where
/// nothing flows. A cotangent's dtype is f32 for a parameter without a sequence axis, else the parameter's. On an error,
/// functions that only this one would have called may stay behind in the module.
pub fn value_and_grad(m: &mut Module, func: Func, wrt: &[usize], result: usize) -> Result<Func, AutodiffError> {
    Autodiff::new(m).value_and_grad(func, wrt, result)
}

/// For each parameter of a function, whether a gradient of result `result` can reach it: along floats, by ops that have
/// one.
pub fn reached(m: &Module, func: Func, result: usize) -> Vec<bool> {
    Dependence::default().of_result(m, func, result)
}

impl<'m> Autodiff<'m> {
    /// Nothing made yet.
    pub fn new(m: &'m mut Module) -> Self {
        Autodiff { m, made: HashMap::new(), dependence: Dependence::default() }
    }

    /// See [`value_and_grad`].
    pub fn value_and_grad(&mut self, func: Func, wrt: &[usize], result: usize) -> Result<Func, AutodiffError> {
        let g = &self.m.funcs[func];
        let is_scalar = |v: &Value| g.ty(*v).rank() == 0 && g.ty(*v).dtype.is_float();
        if !g.results.get(result).is_some_and(is_scalar) {
            return Err(AutodiffError::Result { func: g.name.clone(), index: result });
        }
        let mut wanted = vec![false; g.params.len()];
        for &index in wrt {
            if !g.params.get(index).is_some_and(|&v| g.ty(v).dtype.is_float()) {
                return Err(AutodiffError::Parameter { func: g.name.clone(), index });
            }
            wanted[index] = true;
        }
        let active: Vec<bool> = (0..g.results.len()).map(|i| i == result).collect();
        let seed = cotangent_type(&self.m.dims, g.ty(g.results[result]));
        let halves = self.halves(func, &wanted, &active)?;

        let g = &self.m.funcs[func];
        let mut out = Graph::new(format!("{}_grad", g.name));
        let params: Vec<Value> =
            g.params.iter().zip(&g.param_names).map(|(&v, name)| out.param(name.clone(), g.ty(v).clone())).collect();
        let forward = append(&mut out, &halves.forward, &params);
        let mut args: Vec<Value> = halves.saved.iter().map(|&i| forward[i]).collect();
        args.extend(halves.args.iter().map(|&i| params[i]));
        args.push(Builder::new(self.m, &mut out, None).full(1.0, seed));
        let gradients = append(&mut out, &halves.backward, &args);

        let g = &self.m.funcs[func];
        for (name, &value) in g.result_names.iter().zip(&forward) {
            out.result(name.clone(), value);
        }
        for &index in wrt {
            let place = wanted[..index].iter().filter(|&&w| w).count();
            out.result(halves.backward.result_names[place].clone(), gradients[place]);
        }
        Ok(self.m.funcs.push(out))
    }

    /// The derivative of a function for a mask of its parameters and a mask of its results: those that have a cotangent.
    /// Positions that are no floats count as left out.
    pub fn derivative(&mut self, func: Func, wrt: &[bool], active: &[bool]) -> Result<Derivative, AutodiffError> {
        let g = &self.m.funcs[func];
        let floats = |values: &[Value], mask: &[bool]| -> Vec<bool> {
            let asked = mask.iter().copied().chain(std::iter::repeat(false));
            values.iter().zip(asked).map(|(&v, asked)| asked && g.ty(v).dtype.is_float()).collect()
        };
        let key = Key { func, wrt: floats(&g.params, wrt), active: floats(&g.results, active) };
        if let Some(made) = self.made.get(&key) {
            return Ok(made.clone());
        }
        let halves = self.halves(func, &key.wrt, &key.active)?;
        let forward = if halves.forward == self.m.funcs[func] { func } else { self.push(func, halves.forward, "fwd") };
        let backward = self.push(func, halves.backward, "bwd");
        let derivative = Derivative { forward, backward, saved: halves.saved, args: halves.args };
        self.made.insert(key, derivative.clone());
        Ok(derivative)
    }

    fn push(&mut self, func: Func, mut graph: Graph, suffix: &str) -> Func {
        graph.name = format!("{}_{suffix}", self.m.funcs[func].name);
        graph.gradient = None;
        self.m.funcs.push(graph)
    }

    fn halves(&mut self, func: Func, wrt: &[bool], active: &[bool]) -> Result<Halves, AutodiffError> {
        let g = self.m.funcs[func].clone();
        match g.gradient {
            Some(gradient) => Ok(self.written(g, gradient, wrt, active)),
            None => self.derived(g, wrt, active),
        }
    }

    /// The reverse sweep over a function.
    fn derived(&mut self, g: Graph, wrt: &[bool], active: &[bool]) -> Result<Halves, AutodiffError> {
        let live = self.dependence.activity(self.m, &g, wrt, active);
        let (forward, copies, calls) = self.forward(&g, &live)?;
        let mut live_copies = SecondaryMap::new();
        for value in g.values.keys().filter(|&v| live[v]) {
            live_copies[copies[value]] = true;
        }
        let mut backward = Backward::new(self.m, forward, live_copies);
        for (i, _) in active.iter().enumerate().filter(|(_, a)| **a) {
            let cotangent = backward.cotangent_of_result(i);
            let result = backward.forward.results[i];
            backward.give(result, cotangent);
        }
        for node in g.nodes.keys().rev().filter(|&node| g.nodes[node].args.iter().any(|&v| live[v])) {
            rules::apply(&mut backward, node, calls.get(&node))?;
        }
        Ok(backward.finish(wrt))
    }

    /// A copy of a function in which active calls are calls of their derivative's forward half: node for node the same.
    /// Gives the copy, the copy of each value, and the derivatives.
    fn forward(
        &mut self,
        g: &Graph,
        live: &SecondaryMap<Value, bool>,
    ) -> Result<(Graph, SecondaryMap<Value, Value>, HashMap<Node, Call>), AutodiffError> {
        let mut out = Graph::new(g.name.clone());
        let mut copies = SecondaryMap::with_default(Value::from_u32(0));
        let mut calls = HashMap::new();
        for (&param, name) in g.params.iter().zip(&g.param_names) {
            copies[param] = out.param(name.clone(), g.ty(param).clone());
        }
        for (node, data) in g.nodes.iter() {
            let mut op = data.op.clone();
            let mut types: Vec<Type> = data.results.iter().map(|&v| g.ty(v).clone()).collect();
            if let Op::Call { func: callee, kind } = data.op
                && let Some((wrt, active)) = self.dependence.masks(self.m, data, live)
            {
                let derivative = self.derivative(callee, &wrt, &active)?;
                // The results that the call had keep the types that its users saw.
                types.extend(self.m.result_types(derivative.forward).into_iter().skip(data.results.len()));
                let kind = if derivative.forward == callee { kind } else { CallKind::Block };
                op = Op::Call { func: derivative.forward, kind };
                calls.insert(node, Call { derivative, wrt, active });
            }
            let args = data.args.iter().map(|&v| copies[v]).collect();
            let copy = out.push(op, args, types, data.loc);
            for (&from, &to) in data.results.iter().zip(&out.nodes[copy].results) {
                copies[from] = to;
            }
        }
        for (&value, name) in g.results.iter().zip(&g.result_names) {
            out.result(name.clone(), copies[value]);
        }
        Ok((out, copies, calls))
    }

    /// The halves of a function that carries its own gradient: the function, and a call of that.
    fn written(&mut self, g: Graph, gradient: Func, wrt: &[bool], active: &[bool]) -> Halves {
        let mut live = SecondaryMap::new();
        for (&param, &wanted) in g.params.iter().zip(wrt) {
            live[param] = wanted;
        }
        let mut b = Backward::new(self.m, g.clone(), live);
        let mut args: Vec<Value> = g.params.iter().map(|&v| b.need(v)).collect();
        args.extend((0..g.results.len()).map(|i| b.need_result(i)).collect::<Vec<_>>());
        for (i, &result) in g.results.iter().enumerate().filter(|(_, v)| g.ty(**v).dtype.is_float()) {
            let wanted = b.m.funcs[gradient].params[args.len()];
            let wanted = b.m.funcs[gradient].ty(wanted).clone();
            let cotangent = if active[i] {
                let cotangent = b.cotangent_of_result(i);
                b.build().cast(cotangent, wanted.dtype)
            } else {
                b.build().full(0.0, g.ty(result).with_dtype(wanted.dtype))
            };
            args.push(cotangent);
        }
        let gradients = b.build().call(gradient, CallKind::Block, args);
        let floats = g.params.iter().filter(|&&v| g.ty(v).dtype.is_float());
        for (&param, gradient) in floats.zip(gradients) {
            b.give(param, gradient);
        }
        b.finish(wrt)
    }
}

/// A call of a derivative.
struct Call {
    derivative: Derivative,
    wrt: Vec<bool>,
    active: Vec<bool>,
}

/// The type of a value's cotangent.
fn cotangent_type(dims: &Dims, ty: &Type) -> Type {
    if ty.dims.iter().any(|&d| dims.role(d) == DimRole::Sequence) { ty.clone() } else { ty.with_dtype(DType::F32) }
}

/// The name of a parameter or result, or its position where it has none.
fn label(name: &str, position: usize) -> String {
    if name.is_empty() { position.to_string() } else { name.to_string() }
}

/// Repeats the nodes of `from` in `into` with `args` for its parameters, and gives what stands for its results.
fn append(into: &mut Graph, from: &Graph, args: &[Value]) -> Vec<Value> {
    let mut copies = SecondaryMap::with_default(Value::from_u32(0));
    for (&param, &arg) in from.params.iter().zip(args) {
        copies[param] = arg;
    }
    for data in from.nodes.values() {
        let args = data.args.iter().map(|&v| copies[v]).collect();
        let types = data.results.iter().map(|&v| from.ty(v).clone()).collect();
        let node = into.push(data.op.clone(), args, types, data.loc);
        for (&old, &new) in data.results.iter().zip(&into.nodes[node].results) {
            copies[old] = new;
        }
    }
    from.results.iter().map(|&v| copies[v]).collect()
}
