//! Attention and its gradient: masks, windows, documents, grouped heads.

use mngc_compiler::ir::{AttentionMask, DType, F64, Func, Graph, Module, Op, Type, Value};
use mngc_runtime::Tensor;

use super::{exact, numbers};
use crate::close::{largest, unit_roundoff};

/// Multiplies the scores in all cases.
pub const SCALE: f64 = 0.4;

/// One attention, or the gradient of one.
#[derive(Clone, Debug)]
pub struct Case {
    /// Sequences.
    pub sequences: usize,
    /// Positions of each.
    pub t: usize,
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values.
    pub key_heads: usize,
    /// Elements of a head.
    pub width: usize,
    /// Whether a query sees no later key.
    pub causal: bool,
    /// The window, and its dtype; `number` for a constant.
    pub window: Option<(f64, &'static str)>,
    /// The length of documents, and how many different numbers they have.
    pub documents: Option<(usize, usize)>,
    /// Of queries, keys and values.
    pub dtype: &'static str,
}

impl Case {
    /// The dtype as a type.
    fn dtype(&self) -> DType {
        DType::from_name(self.dtype).expect("a dtype")
    }

    fn mask(&self) -> Vec<Tensor> {
        let mut masks = Vec::new();
        if let Some((length, numbers)) = self.documents {
            let documents = (0..self.sequences * self.t).map(|i| (i / length % numbers) as i32).collect();
            masks.push(Tensor::ints([self.sequences, self.t], documents).expect("as many as there are positions"));
        }
        match self.window {
            Some((_, "number")) | None => {}
            Some((window, "i32")) => masks.push(Tensor::ints([], vec![window as i32]).expect("one")),
            Some((window, dtype)) => {
                masks.push(Tensor::scalar(window).rounded(DType::from_name(dtype).expect("a dtype")));
            }
        }
        masks
    }

    /// Operands of the op.
    pub fn forward(&self) -> Vec<Tensor> {
        let (m, f) = module(std::slice::from_ref(self), false);
        let g = &m.funcs[f];
        (0..3).map(|i| numbers(&m, g.ty(g.params[i]), i as u64)).chain(self.mask()).collect()
    }

    /// Operands of its gradient.
    pub fn backward(&self) -> Vec<Tensor> {
        let (m, f) = module(std::slice::from_ref(self), false);
        let mut args = self.forward();
        let results = exact(&m, f, &args);
        args.truncate(3);
        args.push(results[0].clone().rounded(self.dtype()));
        args.push(results[1].clone().rounded(DType::F32));
        let g = &m.funcs[f];
        args.push(numbers(&m, g.ty(g.params[0]), 9));
        args.extend(self.mask());
        args
    }
}

/// A function that does one thing for each case, one after another.
pub fn module(cases: &[Case], gradient: bool) -> (Module, Func) {
    let mut m = Module::default();
    let mut g = Graph::new("f");
    let mut results = Vec::new();
    for case in cases {
        let Case { sequences, t, heads, key_heads, width, .. } = *case;
        let mut ty = |dtype, sizes: &[usize]| -> Type {
            Type::new(dtype, sizes.iter().map(|&n| m.dims.anonymous(n)).collect::<Vec<_>>())
        };
        let q = ty(case.dtype(), &[sequences, t, heads, width]);
        let k = ty(case.dtype(), &[sequences, t, key_heads, width]);
        let lse = ty(DType::F32, &[sequences, t, heads]);
        let mut operands = vec![q.clone(), k.clone(), k.clone()];
        if gradient {
            operands.extend([q.clone(), lse.clone(), q.clone()]);
        }
        if case.documents.is_some() {
            operands.push(ty(DType::I32, &[sequences, t]));
        }
        let mut args: Vec<Value> = operands.into_iter().map(|ty| g.param("", ty)).collect();
        if let Some((window, dtype)) = case.window {
            args.push(match DType::from_name(dtype) {
                Some(dtype) => g.param("", ty(dtype, &[])),
                None => {
                    let node = g.push(Op::Const(F64(window)), vec![], vec![ty(DType::F32, &[])], None);
                    g.nodes[node].results[0]
                }
            });
        }
        let (causal, documents) = (case.causal, case.documents.is_some());
        let (mask, scale) = (AttentionMask { causal, documents, window: case.window.is_some() }, F64(SCALE));
        let (op, made) = if gradient {
            (Op::AttentionGrad { mask, scale }, vec![q, k.clone(), k])
        } else {
            (Op::Attention { mask, scale }, vec![q, lse])
        };
        let node = g.push(op, args, made, None);
        results.extend(g.nodes[node].results.clone());
    }
    results.into_iter().for_each(|value| g.result("", value));
    let func = m.funcs.push(g);
    (m, func)
}

/// What it costs that tensor cores take weights P and their slopes dS rounded: u·Σ|terms| of the product.
///
/// Weights of a query sum up to 1, those of a key to at most the sum of its column; |dS| ≤ P·(|do·v| + |do·o|), and o lies
/// between the v, so that both are at most the product of the lengths of do and v.
pub fn rounded_factors(case: &Case, gradient: bool, result: usize, args: &[Tensor]) -> f64 {
    if case.dtype() == DType::F32 {
        return 0.0;
    }
    let [q, k, v] = [&args[0], &args[1], &args[2]].map(largest);
    let terms = match (gradient, result) {
        (false, 0) => v,
        (false, _) => 0.0,
        (true, result) => {
            let slope = SCALE * 2.0 * longest(&args[5], case.width) * longest(&args[2], case.width);
            match result {
                0 => slope * k,
                1 => slope * q * column(case, args),
                _ => largest(&args[5]) * column(case, args),
            }
        }
    };
    unit_roundoff(case.dtype()) * terms
}

/// The length of the longest row.
fn longest(t: &Tensor, width: usize) -> f64 {
    let rows = t.as_floats().expect("floats").chunks(width);
    rows.map(|row| row.iter().map(|x| x * x).sum::<f64>().sqrt()).fold(0.0, f64::max)
}

/// The largest sum of the weights of a key: dv of cotangents that are 1.
fn column(case: &Case, args: &[Tensor]) -> f64 {
    let (m, f) = module(std::slice::from_ref(case), true);
    let mut args = args.to_vec();
    args[5] = Tensor::floats(args[5].sizes(), vec![1.0; args[5].len()]).expect("the same sizes");
    largest(&exact(&m, f, &args)[2])
}
