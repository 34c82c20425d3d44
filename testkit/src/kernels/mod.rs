//! Single kernels as tests run them: functions that become one launch or a few, their operands, and how far a device may be
//! from the oracle. Each family has a file; a [`Check`] is a case of any of them.

pub mod attention;
pub mod calls;
pub mod cluster;
pub mod head;
pub mod product;
pub mod single;

use std::collections::BTreeMap;
use std::fmt;

use mngc_compiler::ir::{DType, Entry, EntryKind, Func, Graph, Input, Module, Op, Output, Stage, Type, Value};
use mngc_compiler::passes;
use mngc_compiler::schedule::kernel::Kernel;
use mngc_compiler::schedule::{self, Plan};
use mngc_runtime::{Context, Precision, Tensor, evaluate};

use crate::close::{Tolerance, largest, within};
use crate::values;

/// How a function comes to the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Through the fusion passes.
    Lowered,
    /// As it stands: fused calls are kernels as the text says.
    Planned,
    /// As it stands, every launch as the op that it was: for functions of one node.
    Op,
}

/// The module with an entry that runs a function.
pub fn with_entry(m: &Module, func: Func) -> Module {
    let mut m = m.clone();
    let g = &m.funcs[func];
    let inputs = (0..g.params.len()).map(|i| Input::Batch(format!("in{i}"))).collect();
    let outputs = (0..g.results.len()).map(|i| Output::Host(format!("out{i}"))).collect();
    let key = EntryKind::Evaluate.into();
    m.entries = BTreeMap::from([(key, Entry { key, func, inputs, outputs })]);
    m
}

/// Arguments under the names of [`with_entry`].
pub fn inputs(args: &[Tensor]) -> BTreeMap<String, Tensor> {
    args.iter().enumerate().map(|(i, arg)| (format!("in{i}"), arg.clone())).collect()
}

/// The module and plan that a way leads to.
pub fn planned(m: &Module, func: Func, way: Way) -> (Module, Plan) {
    let m = with_entry(m, func);
    let m = match way {
        Way::Lowered => {
            let mut m = m;
            passes::run(&mut m, passes::CASTS, Stage::Elaborated, &mut Vec::new()).unwrap_or_else(|e| panic!("{e}"));
            schedule::lower(&m, &mut Vec::new()).unwrap_or_else(|e| panic!("{e}"))
        }
        Way::Planned | Way::Op => m,
    };
    let mut plan = schedule::plan(&m, &mut Vec::new()).unwrap_or_else(|e| panic!("{e}"));
    if way == Way::Op {
        let entry = &m.entries[&EntryKind::Evaluate.into()];
        let node = m.funcs[entry.func].nodes.values().next_back().expect("a node");
        for launch in plan.entries.values_mut().flat_map(|e| &mut e.launches) {
            let is_program = matches!(launch.kernel, Kernel::Rows(_)) && launch.args.len() == node.args.len();
            if is_program && launch.name == node.op.name() {
                launch.kernel = Kernel::Op(node.op.clone());
            }
        }
    }
    (m, plan)
}

/// Runs a function on the oracle in f64, on arguments that are rounded already.
pub fn exact(m: &Module, func: Func, args: &[Tensor]) -> Vec<Tensor> {
    evaluate(m, func, args.to_vec(), &Context::new(Precision::F64, 7, 3)).unwrap_or_else(|e| panic!("{e}"))
}

/// How many terms the sums behind a result have, and what their absolute values sum up to at most.
#[derive(Clone, Copy, Debug)]
pub struct Sums {
    /// Terms of the longest sum.
    pub terms: usize,
    /// Sum of their absolute values; none where the results are as large as their terms.
    pub magnitude: Option<f64>,
}

impl Sums {
    /// The bound for a result of a dtype.
    pub fn bound(self, dtype: DType, wanted: &Tensor) -> Tolerance {
        Tolerance::of(dtype, self.terms, largest(wanted).max(self.magnitude.unwrap_or(0.0)))
    }
}

impl From<usize> for Sums {
    fn from(terms: usize) -> Sums {
        Sums { terms, magnitude: None }
    }
}

/// A module of one function of one node.
pub fn one_node(mut m: Module, op: Op, args: Vec<Type>, results: Vec<Type>) -> (Module, Func) {
    let mut g = Graph::new("f");
    let params: Vec<Value> = args.into_iter().map(|ty| g.param("", ty)).collect();
    let node = g.push(op, params, results, None);
    for value in g.nodes[node].results.clone() {
        g.result("", value);
    }
    let func = m.funcs.push(g);
    (m, func)
}

/// The sums behind the results of a node on these operands.
pub fn sums(m: &Module, func: Func, args: &[Tensor]) -> Sums {
    let g = &m.funcs[func];
    let op = &g.nodes.values().next_back().expect("a node").op;
    let sizes = |i: usize| args[i].sizes();
    let row = || sizes(0).last().copied().unwrap_or(1);
    let most = |i: usize| largest(&args[i]);
    let of = |terms: usize, magnitude: f64| Sums { terms, magnitude: Some(magnitude) };
    // The same sum of absolute values.
    let absolute = |terms: usize| {
        let absolute = |t: &Tensor| match t.as_floats() {
            Some(values) => {
                Tensor::floats(t.sizes(), values.iter().map(|x| x.abs()).collect()).expect("the same sizes")
            }
            None => t.clone(),
        };
        let results = exact(m, func, &args.iter().map(absolute).collect::<Vec<_>>());
        of(terms, results.iter().map(largest).fold(0.0, f64::max))
    };
    match op {
        Op::Reduce { axes, .. } => absolute(axes.iter().map(|&axis| sizes(0)[axis as usize]).product()),
        Op::Cumsum { axis, .. } => absolute(sizes(0)[*axis as usize]),
        Op::Dot { contract, .. } => absolute(contract.iter().map(|pair| sizes(0)[pair.0 as usize]).product()),
        Op::ScatterAdd => absolute(args[0].len()),
        Op::Softmax => Sums::from(row() + 8),
        Op::SoftmaxGrad => of(row() + 8, most(0) * most(1) * row() as f64),
        Op::CrossEntropy => of(row() + 8, 2.0 * most(0) + 1.0),
        Op::CrossEntropyGrad => of(row() + 8, most(2)),
        Op::RmsNorm { .. } => Sums::from(row() + 8),
        // A row is divided by its size, which is at least √eps, and its elements then are √row at most.
        Op::RmsNormGrad { eps } => of(row() + 8, (1.0 + (row() as f64).sqrt()) * most(1) / inverse(args, eps.0, false)),
        // Nearly equal elements cancel when the mean goes: their roundings are divided by what is left, and so is what
        // this changes in the division itself, of which an element is √row at most.
        Op::LayerNorm { eps } => of(row() + 8, (1.0 + (row() as f64).sqrt()) * most(0) / inverse(args, eps.0, true)),
        // With n elements of at most X, cotangents of at most D and s the size of the row around its mean, to first order:
        // the mean is off by n·u·X, y = (x − mean)/s, at most √n, by (n + 1)·u·X/s + √n·((n + 3)·u + u·X/s), mean(dy·y), at
        // most D, by D·u·(2n + 3 + (n + 2)·X/s), s by (n + 2)·u + u·X/s of itself. The sum of what these do to
        // (dy − mean(dy) − y·mean(dy·y))/s stays below u·D/s·(1 + X/s)·(4·n·√n + 3n + 12·√n + 12), which is at most
        // (n + 7)·(4·√n + 3) times the rest.
        Op::LayerNormGrad { eps } => {
            let size = inverse(args, eps.0, true);
            of(row() + 8, (3.0 + 4.0 * (row() as f64).sqrt()) * (1.0 + most(0) / size) * most(1) / size)
        }
        Op::Rope { .. } => of(4, 2.0 * most(0)),
        Op::Attention { scale, .. } | Op::AttentionGrad { scale, .. } => {
            let [t, heads, width] = [3, 2, 1].map(|back| sizes(0)[sizes(0).len() - back]);
            let score = 1.0 + scale.0.abs() * width as f64 * most(0) * most(1);
            let magnitude = match op {
                Op::Attention { .. } => score * most(2).max(1.0),
                _ => {
                    let dv = (t * heads) as f64 * most(5);
                    score * dv * (1.0 + 2.0 * scale.0.abs() * width as f64 * most(2) * most(0).max(most(1)))
                }
            };
            of(t + width + 8, magnitude)
        }
        // Gradients of activations cancel near their zeros.
        Op::Unary(_) => of(4, 1.0),
        _ => Sums::from(1),
    }
}

/// The least √(mean of squares + eps) of a row, around its mean or around 0.
fn inverse(args: &[Tensor], eps: f64, is_centred: bool) -> f64 {
    let x = args[0].as_floats().expect("floats");
    let row = args[0].sizes().last().copied().unwrap_or(1).max(1);
    let size = |x: &[f64]| {
        let n = x.len() as f64;
        let middle = if is_centred { x.iter().sum::<f64>() / n } else { 0.0 };
        (x.iter().map(|x| (x - middle).powi(2)).sum::<f64>() / n + eps).sqrt()
    };
    x.chunks(row).map(size).fold(f64::INFINITY, f64::min)
}

/// Reproducible numbers on [−1, 1) of a type.
pub fn numbers(m: &Module, ty: &Type, seed: u64) -> Tensor {
    let sizes = m.dims.sizes(&ty.dims);
    let n = sizes.iter().product::<usize>() as u64;
    let floats = (0..n).map(|i| 2.0 * values::unit(seed, i) - 1.0).collect();
    match ty.dtype.is_float() {
        true => Tensor::floats(sizes, floats).expect("as many as the sizes say").rounded(ty.dtype),
        false => values::tensor(&m.dims, ty, seed, true),
    }
}

/// What says whether results are right.
type Judge = Box<dyn Fn(&[Tensor]) -> Result<(), String> + Send + Sync>;

/// One function on some operands.
pub struct Check {
    /// The module.
    pub module: Module,
    /// The function.
    pub func: Func,
    /// How it comes to a backend.
    pub way: Way,
    /// Its operands.
    pub args: Vec<Tensor>,
    judge: Judge,
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check").field("func", &self.func).field("way", &self.way).finish_non_exhaustive()
    }
}

impl Check {
    /// Results may be off by the bound for sums, and by a number beside for each of them; both are asked for when results
    /// are judged.
    pub fn new(
        module: Module,
        func: Func,
        way: Way,
        args: Vec<Tensor>,
        bound: impl Fn(&Module, &[Tensor]) -> (Sums, Vec<f64>) + Send + Sync + 'static,
    ) -> Check {
        let (m, a) = (module.clone(), args.clone());
        let judge = move |found: &[Tensor]| {
            let g = &m.funcs[func];
            let (wanted, (sums, beside)) = (exact(&m, func, &a), bound(&m, &a));
            if found.len() != wanted.len() {
                return Err(format!("{} results, not {}", found.len(), wanted.len()));
            }
            for (i, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
                let mut bound = sums.bound(g.ty(g.results[i]).dtype, wanted);
                bound.abs += beside.get(i).copied().unwrap_or(0.0);
                within(found, wanted, bound).map_err(|e| format!("result {i}: {e}"))?;
            }
            Ok(())
        };
        Check { module, func, way, args, judge: Box::new(judge) }
    }

    /// A function of one node.
    pub fn of_op(module: Module, func: Func, way: Way, args: Vec<Tensor>) -> Check {
        Check::new(module, func, way, args, move |m, args| (sums(m, func, args), Vec::new()))
    }

    /// A fused call, judged as [`calls::judge`] does.
    pub fn of_call(module: Module, func: Func, args: Vec<Tensor>) -> Check {
        let (m, a) = (module.clone(), args.clone());
        let judge = move |found: &[Tensor]| {
            let node = m.funcs[func].nodes.values().next_back().ok_or("the function has no node")?;
            calls::judge(&m, node, &a, found).map(|_| ())
        };
        Check { module, func, way: Way::Planned, args, judge: Box::new(judge) }
    }

    /// Compares results with the oracle's.
    pub fn judge(&self, found: &[Tensor]) -> Result<(), String> {
        (self.judge)(found)
    }
}
