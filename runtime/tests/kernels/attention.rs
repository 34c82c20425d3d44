//! Attention and its gradient on a device against the oracle in f64: head dims, lengths around the tiles, windows, documents
//! that come back, grouped heads, dtypes, threads.

use mngc_compiler::ir::{AttentionMask, DType, F64, Func, Graph, Module, Op, Type, Value};
use mngc_runtime::Tensor;
use mngc_testkit::close::{largest, unit_roundoff, within};
use mngc_testkit::{Tolerance, bits};
use proptest::prelude::*;

use crate::DEVICE;
use crate::common::{Device, Way, exact, numbers, on_device, sums};

/// Multiplies the scores in all cases.
const SCALE: f64 = 0.4;

/// One attention, or the gradient of one.
#[derive(Clone, Debug)]
struct Case {
    sequences: usize,
    t: usize,
    heads: usize,
    key_heads: usize,
    width: usize,
    causal: bool,
    /// The window, and its dtype; `number` for a constant.
    window: Option<(f64, &'static str)>,
    /// The length of documents, and how many different numbers they have.
    documents: Option<(usize, usize)>,
    dtype: &'static str,
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
    fn forward(&self) -> Vec<Tensor> {
        let (m, f) = module(std::slice::from_ref(self), false);
        let g = &m.funcs[f];
        (0..3).map(|i| numbers(&m, g.ty(g.params[i]), i as u64)).chain(self.mask()).collect()
    }

    /// Operands of its gradient.
    fn backward(&self) -> Vec<Tensor> {
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
fn module(cases: &[Case], gradient: bool) -> (Module, Func) {
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

/// Runs all cases as one program, so that those of one text share their kernels, and compares; the same with other numbers
/// of threads.
fn check(cases: &[Case]) {
    if !DEVICE.is_ready() {
        return;
    }
    for gradient in [false, true] {
        let operands = |case: &Case| if gradient { case.backward() } else { case.forward() };
        let args: Vec<Vec<Tensor>> = cases.iter().map(operands).collect();
        let (m, f) = module(cases, gradient);
        let found = on_device(&m, f, &args.concat(), Way::Planned, 2);
        for &threads in DEVICE.others() {
            let again = on_device(&m, f, &args.concat(), Way::Planned, threads);
            let same = found.iter().zip(&again).all(|(a, b)| bits(a) == bits(b));
            assert!(same, "{cases:?} with {threads} threads");
        }
        let mut found = found.iter();
        for (case, args) in cases.iter().zip(&args) {
            let (m, f) = module(std::slice::from_ref(case), gradient);
            let sums = sums(&m, f, args);
            for (i, wanted) in exact(&m, f, args).iter().enumerate() {
                let dtype = m.funcs[f].ty(m.funcs[f].results[i]).dtype;
                let size = largest(wanted).max(sums.magnitude.unwrap_or(0.0));
                let mut bound = Tolerance::of(dtype, sums.terms, size);
                bound.abs += rounded_factors(case, gradient, i, args);
                let fault = within(found.next().expect("all results"), wanted, bound).err();
                assert!(fault.is_none(), "{case:?}: gradient {gradient}, result {i}: {fault:?}");
            }
        }
    }
}

/// What it costs that tensor cores take weights P and their slopes dS rounded: u·Σ|terms| of the product.
///
/// Weights of a query sum up to 1, those of a key to at most the sum of its column; |dS| ≤ P·(|do·v| + |do·o|), and o lies
/// between the v, so that both are at most the product of the lengths of do and v.
fn rounded_factors(case: &Case, gradient: bool, result: usize, args: &[Tensor]) -> f64 {
    if case.dtype() == DType::F32 || DEVICE == Device::Cpu {
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

prop_compose! {
    fn cases()(
        sequences in 1usize..3,
        t in prop_oneof![1usize..20, 20usize..200, prop::sample::select(vec![63, 64, 65, 127, 128, 129, 251])],
        (heads, key_heads) in prop::sample::select(vec![(1, 1), (2, 1), (4, 2), (3, 3)]),
        width in prop::sample::select(vec![1, 3, 6, 8, 12, 16, 17, 24, 64, 80, 128]),
        causal: bool,
        window in prop::option::of((prop::sample::select(vec![-3.0, 0.0, 1.0, 2.0, 7.9, 64.0, 127.0, 128.0, 129.0, 1e9]), prop::sample::select(vec!["i32", "f32", "bf16", "number"]))),
        documents in prop::option::of((prop::sample::select(vec![1usize, 3, 50, 128, 1000]), prop::sample::select(vec![2usize, 1000]))),
        dtype in prop::sample::select(vec!["f32", "bf16", "f16"]),
    ) -> Case {
        Case { sequences, t, heads, key_heads, width, causal, window, documents, dtype }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: DEVICE.cases(60), ..ProptestConfig::default() })]

    #[test]
    fn attention_of_all_kinds(case in cases()) {
        check(&[case]);
    }
}

const PLAIN: Case = Case {
    sequences: 1,
    t: 70,
    heads: 2,
    key_heads: 1,
    width: 16,
    causal: true,
    window: None,
    documents: None,
    dtype: "bf16",
};

/// Every residue of the tiles' sizes.
#[test]
fn every_length() {
    let lengths = |range: std::ops::RangeInclusive<usize>, dtype| -> Vec<Case> {
        range.map(|t| Case { t, width: 8, documents: Some((t / 3 + 1, 1000)), dtype, ..PLAIN }).collect()
    };
    check(&lengths(1..=129, "bf16"));
    check(&lengths(1..=65, "f32"));
}

/// Lengths around the blocks of the CPU, and windows around the lengths.
#[test]
fn every_length_around_a_block_with_every_window() {
    for documents in [None, Some((1, 1000)), Some((3, 1000)), Some((100, 2))] {
        let mut cases = Vec::new();
        for t in [1usize, 2, 127, 128, 129, 300] {
            for window in [None, Some(0), Some(1), Some(2), Some(t - 1), Some(t), Some(t + 1), Some(10 * t)] {
                let window = window.map(|w| (w as f64, "i32"));
                cases.push(Case { t, width: 8, window, documents, dtype: "f32", ..PLAIN });
            }
        }
        check(&cases);
    }
}

/// The window is read when the kernel runs: one text for all of them.
#[test]
fn every_window() {
    for dtype in ["f32", "bf16"] {
        let windows = [-1e9, 0.0, 0.9, 1.0, 2.0, 63.0, 64.0, 65.0, 128.0, 129.0, 299.0, 300.0, 301.0, 1e9, 1e30];
        let cases = windows.map(|window| Case { t: 300, width: 8, window: Some((window, "f32")), dtype, ..PLAIN });
        check(&cases);
    }
}

/// Documents that come back, and more tiles than a block looks at together.
#[test]
fn many_documents() {
    for (dtype, t) in [("f32", 2200), ("bf16", 4300)] {
        for documents in [(45, 1000), (45, 3)] {
            let causal = documents.1 == 3;
            check(&[Case { t, causal, heads: 1, width: 1, documents: Some(documents), dtype, ..PLAIN }]);
        }
    }
}

/// Large heads: where tensor cores have registers for them, and where f32 must do.
#[test]
fn large_heads() {
    for width in [192, 256, 300] {
        check(&[Case { t: 40, width, ..PLAIN }]);
    }
    check(&[Case { t: 40, width: 256, dtype: "f32", ..PLAIN }]);
}
