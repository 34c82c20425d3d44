//! Attention and its gradient on a device against the oracle in f64: head dims, lengths around the tiles, windows, documents
//! that come back, grouped heads, dtypes, threads.

use mngc_runtime::Tensor;
use mngc_testkit::bits;
use mngc_testkit::close::within;
use mngc_testkit::kernels::attention::{Case, module, rounded_factors};
use proptest::prelude::*;

use crate::DEVICE;
use crate::common::{Device, Way, exact, on_device, sums};

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
                let mut bound = sums.bound(dtype, wanted);
                if DEVICE == Device::Soft {
                    bound.abs += rounded_factors(case, gradient, i, args);
                }
                let fault = within(found.next().expect("all results"), wanted, bound).err();
                assert!(fault.is_none(), "{case:?}: gradient {gradient}, result {i}: {fault:?}");
            }
        }
    }
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
