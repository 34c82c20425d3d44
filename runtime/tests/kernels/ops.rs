//! Ops that are no row programs, on a device against the oracle in f64: families of sizes, the same bits in every run, and
//! the same kernels for every number of tokens.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use crate::DEVICE;
use crate::common::{Device, Sums, Way, assert_close, backend, exact, planned, run_on, sums, with_entry};
use mngc_compiler::ir::{DType, F64, Func, Module, Op, ReduceKind, read};
use mngc_compiler::schedule;
use mngc_kernels_gen::nvrtc::{Nvrtc, Options};
use mngc_kernels_gen::{self as kernels_gen, Source, Spec};
use mngc_runtime::{Cuda, Tensor, cuda, tensor::Data};
use mngc_testkit::bits;
use mngc_testkit::kernels::single::{indices, op_on, operands};
use proptest::prelude::*;

/// Runs an op twice, and compares it with itself and with the oracle.
fn check_with(m: &Module, func: Func, args: &[Tensor], way: Way, sums: impl Into<Sums>) {
    let what = format!("{:?}", m.funcs[func].nodes.values().next_back().map(|node| &node.op));
    let mut backend = backend(m, func, way, 2);
    let found = run_on(&mut *backend, args, 3);
    assert_close(m, func, &found, &exact(m, func, args), sums, &what);
    let again = run_on(&mut *backend, args, 3);
    assert!(found.iter().zip(&again).all(|(a, b)| bits(a) == bits(b)), "{what}: other bits in the second run");
}

fn check(op: &Op, args: &[(DType, &[usize])], result: (DType, &[usize]), seed: u64) {
    let (m, func) = op_on(op, args, result);
    let args = operands(&m, func, seed);
    let sums = sums(&m, func, &args);
    check_with(&m, func, &args, Way::Planned, sums);
}

/// The kernels of an op on a device.
fn kernels(op: &Op, args: &[(DType, &[usize])], result: (DType, &[usize]), capability: u32) -> Vec<Arc<Source>> {
    let (m, func) = op_on(op, args, result);
    let (m, plan) = planned(&m, func, Way::Planned);
    let device = kernels_gen::Device::of(capability).expect("a known device");
    let launches = plan.entries.values().flat_map(|entry| &entry.launches);
    let calls = launches.flat_map(|launch| {
        kernels_gen::generate(&Spec::of(&m, launch), &device).unwrap_or_else(|e| panic!("{}: {e}", launch.name)).calls
    });
    calls.map(|call| call.source).collect()
}

/// Sizes of axes: 1, primes, multiples of what a block has, and their neighbours.
fn size() -> impl Strategy<Value = usize> {
    prop_oneof![Just(1), Just(2), Just(7), Just(16), Just(31), Just(32), Just(33), Just(64), Just(97), Just(128)]
}

/// Sizes of three axes, the middle one within a range.
fn three(middle: Range<usize>) -> impl Strategy<Value = [usize; 3]> {
    (size(), middle, size()).prop_map(|(outer, middle, inner)| [outer, middle, inner])
}

fn dtype() -> impl Strategy<Value = DType> {
    prop_oneof![Just(DType::F32), Just(DType::BF16), Just(DType::F16), Just(DType::I32), Just(DType::Bool)]
}

fn number_dtype() -> impl Strategy<Value = DType> {
    prop_oneof![Just(DType::F32), Just(DType::BF16), Just(DType::I32)]
}

fn permutation() -> impl Strategy<Value = Vec<u8>> {
    Just(vec![0, 1, 2, 3]).prop_shuffle()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: DEVICE.cases(120), ..ProptestConfig::default() })]

    #[test]
    fn transposes(perm in permutation(), sizes in [1..4usize, 1..12usize, 1..70usize, 1..70usize], dtype in dtype(), seed: u64) {
        if !DEVICE.is_ready() {
            return Ok(());
        }
        let to: Vec<usize> = perm.iter().map(|&axis| sizes[axis as usize]).collect();
        check(&Op::Transpose { perm }, &[(dtype, &sizes)], (dtype, &to), seed);
    }

    #[test]
    fn moves_along_an_axis(
        sizes in three(1..9), axis in 0..3u8, dtype in dtype(), kind in 0..4, by in -40..40i64, seed: u64,
    ) {
        if !DEVICE.is_ready() {
            return Ok(());
        }
        let at = axis as usize;
        let mut to = sizes;
        let far = by.unsigned_abs() as usize;
        let op = match kind {
            0 => Op::Reverse { axis },
            1 => Op::Shift { axis, by },
            2 => {
                to[at] += far + 3;
                Op::Pad { axis, before: far }
            }
            _ => {
                let start = far % sizes[at];
                to[at] = (sizes[at] - start).div_ceil(2);
                Op::Slice { axis, start }
            }
        };
        check(&op, &[(dtype, &sizes)], (dtype, &to), seed);
    }

    #[test]
    fn broadcasts(sizes in three(1..9), kept in 1..7u8, dtype in dtype(), seed: u64) {
        if !DEVICE.is_ready() {
            return Ok(());
        }
        let axes: Vec<u8> = (0..3).filter(|axis| kept & (1 << axis) != 0).collect();
        let from: Vec<usize> = axes.iter().map(|&axis| sizes[axis as usize]).collect();
        check(&Op::Broadcast { axes }, &[(dtype, &from)], (dtype, &sizes), seed);
    }

    #[test]
    fn joins(outer in size(), inner in size(), parts in prop::collection::vec(0..40usize, 1..6), dtype in dtype(), seed: u64) {
        if !DEVICE.is_ready() {
            return Ok(());
        }
        let sizes: Vec<[usize; 3]> = parts.iter().map(|&n| [outer, n, inner]).collect();
        let args: Vec<(DType, &[usize])> = sizes.iter().map(|sizes| (dtype, &sizes[..])).collect();
        check(&Op::Concat { axis: 1 }, &args, (dtype, &[outer, parts.iter().sum(), inner]), seed);
    }

    #[test]
    fn folds(sizes in three(1..9), last in size(), folded in 1..16u8, kind in 0..5usize, dtype in number_dtype(), seed: u64) {
        if !DEVICE.is_ready() {
            return Ok(());
        }
        let kind = ReduceKind::ALL[kind];
        let sizes = [sizes[0], sizes[1], sizes[2].min(16), last];
        let dtype = if matches!(kind, ReduceKind::Mean | ReduceKind::Norm) && dtype == DType::I32 { DType::BF16 } else { dtype };
        let axes: Vec<u8> = (0..4).filter(|axis| folded & (1 << axis) != 0).collect();
        let to: Vec<usize> = (0..4).filter(|axis| folded & (1 << axis) == 0).map(|axis| sizes[axis]).collect();
        let (m, func) = op_on(&Op::Reduce { kind, axes }, &[(dtype, &sizes)], (dtype, &to));
        let args = operands(&m, func, seed);
        // Also those that would be row programs.
        let sums = sums(&m, func, &args);
        check_with(&m, func, &args, Way::Op, sums);
    }

    #[test]
    fn running_sums(sizes in three(1..300), axis in 0..3u8, reverse: bool, dtype in number_dtype(), seed: u64) {
        if !DEVICE.is_ready() {
            return Ok(());
        }
        check(&Op::Cumsum { axis, reverse }, &[(dtype, &sizes)], (dtype, &sizes), seed);
    }

    #[test]
    fn rows_by_index(rows in size(), row in size(), tokens in 0..300usize, dtype in dtype(), seed: u64) {
        if !DEVICE.is_ready() {
            return Ok(());
        }
        let (m, func) = op_on(&Op::Gather, &[(dtype, &[rows, row]), (DType::I32, &[tokens])], (dtype, &[tokens, row]));
        let args = [operands(&m, func, seed).swap_remove(0), indices(tokens, rows, seed)];
        check_with(&m, func, &args, Way::Planned, 1);
    }

    #[test]
    fn sums_by_index(
        rows in size(), row in size(), tokens in prop_oneof![0..300usize, 2040..2060usize], from in 0..2, to in 0..2, seed: u64,
    ) {
        if !DEVICE.is_ready() {
            return Ok(());
        }
        let of = |narrow| if narrow == 1 { DType::BF16 } else { DType::F32 };
        check_scatter(of(from), of(to), [rows, row, tokens], seed);
    }

    #[test]
    fn cross_entropies(n in prop_oneof![1..70usize, Just(1024), Just(5001)], rows in 1..9usize, narrow: bool, gradient: bool, seed: u64) {
        if !DEVICE.is_ready() {
            return Ok(());
        }
        let dtype = if narrow { DType::BF16 } else { DType::F32 };
        let (logits, targets): ([usize; 2], [usize; 1]) = ([rows, n], [rows]);
        let mut types: Vec<(DType, &[usize])> = vec![(dtype, &logits), (DType::I32, &targets)];
        let (op, result): (Op, (DType, &[usize])) = if gradient {
            types.push((DType::F32, &targets));
            (Op::CrossEntropyGrad, (dtype, &logits))
        } else {
            (Op::CrossEntropy, (DType::F32, &targets))
        };
        let (m, func) = op_on(&op, &types, result);
        let mut args = operands(&m, func, seed);
        args[1] = indices(rows, n, seed);
        let sums = sums(&m, func, &args);
        check_with(&m, func, &args, Way::Planned, sums);
    }
}

fn check_scatter(from: DType, to: DType, [rows, row, tokens]: [usize; 3], seed: u64) {
    let args: [(DType, &[usize]); 2] = [(DType::I32, &[tokens]), (from, &[tokens, row])];
    let (m, func) = op_on(&Op::ScatterAdd, &args, (to, &[rows, row]));
    let args = [indices(tokens, rows, seed), operands(&m, func, seed).swap_remove(1)];
    let sums = sums(&m, func, &args);
    check_with(&m, func, &args, Way::Planned, sums);
}

/// As many tokens as a training step has.
#[test]
fn many_tokens() {
    if !DEVICE.is_ready() {
        return;
    }
    const T: usize = 65536;
    for reverse in [false, true] {
        check(&Op::Cumsum { axis: 0, reverse }, &[(DType::I32, &[T])], (DType::I32, &[T]), 1);
        check(&Op::Cumsum { axis: 0, reverse }, &[(DType::F32, &[T, 3])], (DType::F32, &[T, 3]), 2);
    }
    check(&Op::Cumsum { axis: 1, reverse: false }, &[(DType::F32, &[2, T + 1])], (DType::F32, &[2, T + 1]), 3);
    check_scatter(DType::F32, DType::F32, [503, 4, T], 4);
    for kind in [ReduceKind::Max, ReduceKind::Mean] {
        let op = Op::Reduce { kind, axes: vec![0] };
        check(&op, &[(DType::BF16, &[T, 3])], (DType::BF16, &[3]), 5);
        let op = Op::Reduce { kind, axes: vec![1] };
        check(&op, &[(DType::F32, &[2, 3 * T])], (DType::F32, &[2]), 6);
    }
    check(&Op::Shift { axis: 0, by: 1 }, &[(DType::I32, &[T])], (DType::I32, &[T]), 7);
}

/// Rows that no block holds.
#[test]
fn rows_longer_than_a_block_holds() {
    if !DEVICE.is_ready() {
        return;
    }
    const N: usize = (1 << 17) + 5;
    let eps = F64(1e-3);
    let ops = [
        (Op::Softmax, 1),
        (Op::SoftmaxGrad, 2),
        (Op::RmsNorm { eps }, 1),
        (Op::RmsNormGrad { eps }, 2),
        (Op::LayerNorm { eps }, 1),
        (Op::LayerNormGrad { eps }, 2),
    ];
    for (op, operands) in ops {
        check(&op, &vec![(DType::F32, &[2, N][..]); operands], (DType::F32, &[2, N]), 1);
    }
    let sum = Op::Reduce { kind: ReduceKind::Sum, axes: vec![0] };
    check(&sum, &[(DType::BF16, &[3, 2 * N])], (DType::F32, &[2 * N]), 2);
}

/// Transposes of equal sizes, a tile at a time and by strides, are instances of one launch.
#[test]
fn transposes_in_a_group() {
    if DEVICE == Device::Cpu || !DEVICE.is_ready() {
        return;
    }
    for (sizes, perm, to) in [("37, 70", "1, 0", "70, 37"), ("5, 3, 64", "1, 0, 2", "3, 5, 64")] {
        let params: Vec<String> = (0..3).map(|i| format!("v{i}: bf16[{sizes}]")).collect();
        let nodes: Vec<String> =
            (0..3).map(|i| format!("  v{}: bf16[{to}] = transpose v{i} {{perm = [{perm}]}}\n", i + 3)).collect();
        let text = format!(
            "module \"m\"\nfunc f0 \"f\" ({}) {{\n{}  return v3, v4, v5\n}}\n",
            params.join(", "),
            nodes.concat()
        );
        let m = read::module(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let func = Func::from_u32(0);
        let args = operands(&m, func, 1);
        let with_entry = with_entry(&m, func);
        let plan = schedule::plan_grouped(&with_entry, &mut Vec::new()).unwrap_or_else(|e| panic!("{e}"));
        assert!(plan.entries.values().all(|entry| entry.launches.iter().all(|launch| launch.instances == 3)));
        let mut backend = Cuda::new(with_entry, &plan, 7, cuda::Kind::Soft).unwrap_or_else(|e| panic!("{e}"));
        let found = run_on(&mut backend, &args, 3);
        assert_close(&m, func, &found, &exact(&m, func, &args), 1, &text);
    }
}

/// A fold of nothing is the neutral element, of a sum by index of nothing zeros.
#[test]
fn folds_of_nothing() {
    if !DEVICE.is_ready() {
        return;
    }
    for &kind in ReduceKind::ALL {
        for axes in [vec![1], vec![0, 1], vec![0, 1, 2]] {
            let sizes = [3, 0, 5];
            let to: Vec<usize> = (0..3).filter(|axis| !axes.contains(axis)).map(|axis| sizes[axis as usize]).collect();
            let op = Op::Reduce { kind, axes };
            check(&op, &[(DType::F32, &sizes)], (DType::F32, &to), 1);
        }
    }
    let op = Op::Reduce { kind: ReduceKind::Max, axes: vec![0] };
    check(&op, &[(DType::I32, &[0, 3])], (DType::I32, &[3]), 1);
    check(&Op::Pad { axis: 1, before: 2 }, &[(DType::BF16, &[3, 0])], (DType::BF16, &[3, 5]), 1);
    check(&Op::Gather, &[(DType::BF16, &[0, 3]), (DType::I32, &[4])], (DType::BF16, &[4, 3]), 1);
}

/// Rows that are −∞, or have an ∞ or NaN.
#[test]
fn cross_entropies_of_infinities() {
    if !DEVICE.is_ready() {
        return;
    }
    let inf = f64::INFINITY;
    let logits = vec![-inf, -inf, -inf, 1.0, inf, 2.0, inf, 0.0, 1.0, f64::NAN, 0.0, 1.0, -inf, 0.5, 1.0];
    for gradient in [false, true] {
        let mut types: Vec<(DType, &[usize])> = vec![(DType::F32, &[5, 3]), (DType::I32, &[5])];
        let mut args = vec![
            Tensor::floats([5, 3], logits.clone()).expect("fifteen"),
            Tensor::new([5], Data::Int(vec![0, 1, 1, 2, 0])).expect("five"),
        ];
        let mut result: (DType, &[usize]) = (DType::F32, &[5]);
        if gradient {
            types.push((DType::F32, &[5]));
            args.push(Tensor::floats([5], vec![1.0, 2.0, 3.0, 4.0, 0.5]).expect("five"));
            result = (DType::F32, &[5, 3]);
        }
        let op = if gradient { Op::CrossEntropyGrad } else { Op::CrossEntropy };
        let (m, func) = op_on(&op, &types, result);
        check_with(&m, func, &args, Way::Planned, Sums { terms: 8, magnitude: Some(4.0) });
    }
}

/// The kernels of every family, for so many tokens.
fn families(t: usize, capability: u32) -> Vec<Vec<Arc<Source>>> {
    let (f, b, i) = (DType::F32, DType::BF16, DType::I32);
    let of = |op: Op, args: &[(DType, &[usize])], result: (DType, &[usize])| kernels(&op, args, result, capability);
    let reduce = |kind, axes: &[u8]| Op::Reduce { kind, axes: axes.to_vec() };
    vec![
        of(Op::Transpose { perm: vec![1, 0] }, &[(f, &[t, 64])], (f, &[64, t])),
        of(Op::Transpose { perm: vec![1, 0, 2] }, &[(b, &[t, 6, 64])], (b, &[6, t, 64])),
        of(Op::Shift { axis: 0, by: 1 }, &[(f, &[t, 64])], (f, &[t, 64])),
        of(Op::Slice { axis: 1, start: 8 }, &[(f, &[t, 64])], (f, &[t, 16])),
        of(Op::Concat { axis: 1 }, &[(b, &[t, 64]), (b, &[t, 8])], (b, &[t, 72])),
        of(reduce(ReduceKind::Max, &[0]), &[(f, &[t, 64])], (f, &[64])),
        of(reduce(ReduceKind::Sum, &[1]), &[(b, &[4, t, 64])], (b, &[4, 64])),
        of(Op::Cumsum { axis: 0, reverse: false }, &[(i, &[t])], (i, &[t])),
        of(Op::Cumsum { axis: 0, reverse: true }, &[(f, &[t, 64])], (f, &[t, 64])),
        of(Op::Gather, &[(b, &[50304, 768]), (i, &[t])], (b, &[t, 768])),
        of(Op::ScatterAdd, &[(i, &[t]), (b, &[t, 768])], (f, &[50304, 768])),
        of(Op::CrossEntropy, &[(b, &[t, 50257]), (i, &[t])], (f, &[t])),
        of(Op::CrossEntropyGrad, &[(f, &[t, 50304]), (i, &[t]), (f, &[t])], (f, &[t, 50304])),
    ]
}

/// Tokens are parameters: any number of them has the same kernels.
#[test]
fn other_numbers_of_tokens_have_the_same_kernels() {
    assert_eq!(families(65536, 90), families(24576, 90));
    assert!(families(65536, 90).iter().all(|kernels| !kernels.is_empty() && kernels.len() <= 4));
}

/// No kernel keeps registers in memory, on the oldest device and on a newer one.
#[test]
fn registers_suffice() {
    if DEVICE == Device::Cpu || !DEVICE.is_ready() {
        return;
    }
    let nvrtc = Nvrtc::load().unwrap_or_else(|e| panic!("{e}"));
    for capability in [80, 90] {
        let target = nvrtc.target(capability).expect("a known target");
        let sources: BTreeSet<Arc<Source>> = families(65536, capability).into_iter().flatten().collect();
        let sources: Vec<Arc<Source>> = sources.into_iter().collect();
        for source in &sources {
            let image = nvrtc.compile(source, target, &Options { ptx_only: false }).unwrap_or_else(|e| panic!("{e}"));
            let usage = image.usage.expect("machine code");
            assert!(!usage.spills() && usage.stack == 0, "{}: {usage:?}", source.name);
        }
    }
}
