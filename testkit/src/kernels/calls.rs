//! Fused calls against the graph that they stand for.
//!
//! How far a kernel may be from that follows from its graph: each node may be off by the bound for its op, and what these
//! errors do together is found by making them, at random, in f64. A kernel rounds at fewer places than its graph does.

use std::collections::HashMap;

use mngc_compiler::ir::{CallKind, DType, Func, Fusion, Graph, Module, NodeData, Op, Type, Value};
use mngc_runtime::{Data, Tensor};

use super::{exact, one_node, sums};
use crate::close::{Tolerance, bits, largest};
use crate::values;

/// Runs with errors: so many that they do not cancel in all, even in one number that two of them meet in.
const SAMPLES: u64 = 20;
/// How many times the largest effect of the errors a kernel may be off.
const MULTIPLE: f64 = 2.0;

/// A tensor with an error in each element, of random sign.
fn off(tensor: &Tensor, tolerance: Tolerance, seed: u64) -> Tensor {
    let Data::Float(floats) = tensor.data() else { return tensor.clone() };
    let off = |(at, &x): (usize, &f64)| {
        let sign = if values::hash(seed, at as u64) & 1 == 0 { 1.0 } else { -1.0 };
        x + sign * (tolerance.abs + tolerance.rel * x.abs())
    };
    Tensor::floats(tensor.sizes(), floats.iter().enumerate().map(off).collect()).expect("the same sizes")
}

/// Whether every number is one, and neither it nor its square leaves the range of the dtype that it is computed in.
fn in_range(tensor: &Tensor, dtype: DType) -> bool {
    let most = if dtype == DType::F16 { 6e4 } else { 1e15 };
    tensor.as_floats().is_none_or(|x| x.iter().all(|x| x.is_finite() && x.abs() < most))
}

/// Results of the graph that a call stands for, with the errors of a sample in every node; none where a number is out of
/// range on the way.
fn with_errors(m: &Module, func: Func, args: &[Tensor], sample: Option<u64>) -> Option<Vec<Tensor>> {
    let g = &m.funcs[func];
    let mut known: HashMap<Value, Tensor> = g.params.iter().copied().zip(args.iter().cloned()).collect();
    for (node, data) in g.nodes.iter() {
        let args: Vec<Tensor> = data.args.iter().map(|v| known[v].clone()).collect();
        let (single, f) = alone(m, g, data);
        for (i, (&value, mut result)) in data.results.iter().zip(exact(&single, f, &args)).enumerate() {
            if let Some(sample) = sample {
                let sums = sums(&single, f, &args);
                let magnitude = sums.magnitude.unwrap_or_else(|| largest(&result));
                let tolerance = Tolerance::of(g.ty(value).dtype, sums.terms, magnitude);
                result = off(&result, tolerance, values::hash(sample, u64::from(node.as_u32()) << 8 | i as u64));
            }
            if !in_range(&result, g.ty(value).dtype) {
                return None;
            }
            known.insert(value, result);
        }
    }
    Some(g.results.iter().map(|v| known[v].clone()).collect())
}

/// The effect of errors on the results. A product that is symmetric in exact arithmetic is mirrored, whatever the
/// rounding of its operands makes of it.
fn samples(m: &Module, func: Func, fusion: Fusion, args: &[Tensor]) -> Option<Vec<Vec<Tensor>>> {
    let g = &m.funcs[func];
    let sample = |sample: u64| {
        let mut args = args.to_vec();
        if fusion == Fusion::SymmetricDot {
            for (i, (arg, &param)) in args.iter_mut().zip(&g.params).enumerate() {
                *arg = off(arg, Tolerance::of(g.ty(param).dtype, 1, 0.0), values::hash(!sample, i as u64));
            }
        }
        with_errors(m, func, &args, Some(sample))
    };
    (0..SAMPLES).map(sample).collect()
}

/// A module whose function is one node of a graph.
pub fn alone(m: &Module, g: &Graph, data: &NodeData) -> (Module, Func) {
    let types = |values: &[Value]| -> Vec<Type> { values.iter().map(|&v| g.ty(v).clone()).collect() };
    one_node(m.clone(), data.op.clone(), types(&data.args), types(&data.results))
}

fn distance(a: &Tensor, b: &Tensor) -> f64 {
    match (a.as_floats(), b.as_floats()) {
        (Some(a), Some(b)) => a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt(),
        _ if bits(a) == bits(b) => 0.0,
        _ => f64::INFINITY,
    }
}

/// Compares results of a fused call with its graph on operands: fails where they are too far off. Gives whether anything
/// was compared: not where results hang on a comparison that rounding decides, or are not finite.
pub fn judge(m: &Module, data: &NodeData, args: &[Tensor], found: &[Tensor]) -> Result<bool, String> {
    let Op::Call { func: body, kind: CallKind::Fused(fusion) } = data.op else { return Err("no fused call".into()) };
    let Some(wanted) = with_errors(m, body, args, None) else { return Ok(false) };
    let Some(samples) = samples(m, body, fusion, args) else { return Ok(false) };
    if found.len() != wanted.len() {
        return Err(format!("{} results, not {}", found.len(), wanted.len()));
    }
    let mut checked = false;
    for (i, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
        let reach = samples.iter().map(|sample| distance(&sample[i], wanted)).max_by(f64::total_cmp).unwrap_or(0.0);
        // Truth values and integers that an error changes.
        if !reach.is_finite() {
            continue;
        }
        let far = distance(found, wanted);
        // A division by what errors may make zero.
        let size = wanted.as_floats().map_or(f64::INFINITY, |x| x.iter().map(|x| x * x).sum::<f64>().sqrt());
        if !far.is_finite() && reach >= size {
            continue;
        }
        checked = true;
        if far > MULTIPLE * reach || far.is_nan() {
            return Err(format!(
                "result {i} is {far:e} off, over {MULTIPLE} times {reach:e}: {found:?}, not {wanted:?}"
            ));
        }
    }
    Ok(checked)
}
