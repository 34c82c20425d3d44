//! Attention and its gradient on a device against the oracle in f64: lengths around the blocks, windows, documents that
//! come back, grouped heads, dtypes, threads.

use crate::DEVICE;
use crate::common::{Way, assert_close, exact, numbers, on_device, sums};
use mngc_compiler::ir::{Func, Module, read};
use mngc_runtime::Tensor;
use mngc_testkit::bits;
use proptest::prelude::*;

#[derive(Clone, Debug)]
struct Case {
    sequences: usize,
    t: usize,
    heads: usize,
    key_heads: usize,
    width: usize,
    causal: bool,
    /// The window, as text, and its dtype.
    window: Option<(f64, &'static str)>,
    /// The length of documents, and how many different numbers they have.
    documents: Option<(usize, usize)>,
    dtype: &'static str,
}

impl Case {
    fn module(&self, gradient: bool) -> (Module, Func) {
        let Case { sequences, t, heads, key_heads, width, dtype, .. } = *self;
        let q = format!("{dtype}[seq, T, {heads}, {width}]");
        let k = format!("{dtype}[seq, T, {key_heads}, {width}]");
        let lse = format!("f32[seq, T, {heads}]");
        let mut params = vec![q.clone(), k.clone(), k.clone()];
        if gradient {
            params.extend([q.clone(), lse.clone(), q.clone()]);
        }
        let mut mask = Vec::new();
        if self.causal {
            mask.push("causal");
        }
        if self.documents.is_some() {
            mask.push("documents");
            params.push("i32[seq, T]".to_string());
        }
        if let Some((_, dtype)) = self.window {
            mask.push("window");
            params.push(format!("{dtype}[]"));
        }
        let n = params.len();
        let listed: Vec<String> = params.iter().enumerate().map(|(i, ty)| format!("v{i}: {ty}")).collect();
        let names: Vec<String> = (0..n).map(|i| format!("v{i}")).collect();
        let (op, results) =
            if gradient { ("attention_grad", vec![q, k.clone(), k]) } else { ("attention", vec![q, lse]) };
        let made: Vec<String> = results.iter().enumerate().map(|(i, ty)| format!("v{}: {ty}", n + i)).collect();
        let returned: Vec<String> = (0..results.len()).map(|i| format!("v{}", n + i)).collect();
        let text = format!(
            "module \"m\"\ndim \"seq\" = {sequences} sequence\ndim \"T\" = {t} token\nfunc f0 \"f\" ({}) {{\n  {} = {op} {} \
             {{mask = [{}], scale = 0.4}}\n  return {}\n}}\n",
            listed.join(", "),
            made.join(", "),
            names.join(", "),
            mask.join(", "),
            returned.join(", ")
        );
        (read::module(&text).unwrap_or_else(|e| panic!("{e}\n{text}")), Func::from_u32(0))
    }

    fn check(&self) {
        let (m, f) = self.module(false);
        let g = &m.funcs[f];
        let mut args: Vec<Tensor> = (0..3).map(|i| numbers(&m, g.ty(g.params[i]), i as u64)).collect();
        let mut masks = Vec::new();
        if let Some((length, numbers)) = self.documents {
            let documents = (0..self.sequences * self.t).map(|i| (i / length % numbers) as i32).collect();
            masks.push(Tensor::ints([self.sequences, self.t], documents).unwrap());
        }
        match self.window {
            Some((window, "i32")) => masks.push(Tensor::ints([], vec![window as i32]).unwrap()),
            Some((window, _)) => masks.push(Tensor::scalar(window)),
            None => {}
        }
        args.extend(masks.iter().cloned());
        self.compare(&m, f, &args);
        let forward = exact(&m, f, &args);
        let (m, f) = self.module(true);
        let g = &m.funcs[f];
        let mut args = args[..3].to_vec();
        args.push(forward[0].clone().rounded(g.ty(g.params[3]).dtype));
        args.push(forward[1].clone().rounded(mngc_compiler::ir::DType::F32));
        args.push(numbers(&m, g.ty(g.params[5]), 9));
        args.extend(masks);
        self.compare(&m, f, &args);
    }

    fn compare(&self, m: &Module, f: Func, args: &[Tensor]) {
        let found = on_device(m, f, args, Way::Planned, 2);
        assert_close(m, f, &found, &exact(m, f, args), sums(m, f, args), &format!("{self:?}"));
        for &threads in DEVICE.others() {
            let again = on_device(m, f, args, Way::Planned, threads);
            let same = found.iter().zip(&again).all(|(a, b)| bits(a) == bits(b));
            assert!(same, "{self:?} with {threads} threads");
        }
    }
}

prop_compose! {
    fn cases()(
        sequences in 1usize..3,
        t in prop_oneof![2 => 1usize..20, 1 => prop::sample::select(vec![127, 128, 129, 200, 257])],
        (heads, key_heads) in prop::sample::select(vec![(1, 1), (2, 1), (4, 2), (3, 3)]),
        width in prop::sample::select(vec![1, 2, 3, 16, 17, 64]),
        causal: bool,
        window in prop::option::of((prop::sample::select(vec![0.0, 1.0, 2.0, 7.9, 64.0, 127.0, 128.0, 129.0, 1e9]), prop::sample::select(vec!["i32", "f32"]))),
        documents in prop::option::of((prop::sample::select(vec![1usize, 3, 50, 128, 1000]), prop::sample::select(vec![2usize, 1000]))),
        dtype in prop::sample::select(vec!["f32", "bf16"]),
    ) -> Case {
        Case { sequences, t, heads, key_heads, width, causal, window, documents, dtype }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: DEVICE.cases(60), ..ProptestConfig::default() })]

    #[test]
    fn attention_of_all_kinds(case in cases()) {
        if !DEVICE.is_ready() {
            return Ok(());
        }
        case.check();
    }
}

#[test]
fn every_length_around_a_block_with_every_window() {
    if !DEVICE.is_ready() {
        return;
    }
    for t in [1usize, 2, 127, 128, 129, 300] {
        for window in [None, Some(0), Some(1), Some(2), Some(t - 1), Some(t), Some(t + 1), Some(10 * t)] {
            for documents in [None, Some((1, 1000)), Some((3, 1000)), Some((100, 2))] {
                let window = window.map(|w| (w as f64, "i32"));
                let (sequences, heads, key_heads) = (1, 2, 1);
                Case { sequences, t, heads, key_heads, width: 8, causal: true, window, documents, dtype: "f32" }
                    .check();
            }
        }
    }
}
