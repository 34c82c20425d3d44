//! Kernels over a sweep of sizes, dtypes and orders of axes, with no GPU: legal on every device, compiled, and in registers;
//! what fits none is refused by name, size and limit.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{ALL, nvrtc, target};
use mngc_compiler::ir::{BinaryOp, DType, Op, ReduceKind};
use mngc_compiler::schedule::kernel::{DotKernel, Epilogue, Kernel, Strides};
use mngc_compiler::schedule::rows::{Access, Instr, Kind, RowProgram, Src};
use mngc_kernels_gen::{Call, Device, Operand, Refusal, Source, Spec, generate};

/// Feature dims: the least, odd ones, those of heads, of models and of vocabularies.
const DIMS: [usize; 9] = [1, 7, 24, 64, 80, 128, 768, 3072, 50_304];
/// Rows, of no tile a multiple.
const ROWS: usize = 9001;
const FLOATS: [DType; 3] = [DType::F32, DType::BF16, DType::F16];

/// A norm of a sum, with the sum of all and those of columns.
fn norm(dtype: DType, dim: usize) -> Spec {
    let elements = ROWS * dim;
    let load = |dst, operand| Instr::Load { dst, operand, access: Access::Full };
    let mut instrs = vec![
        load(0, 0),
        load(1, 1),
        Instr::Binary { op: BinaryOp::Add, dst: 2, a: Src::Reg(0), b: Src::Reg(1) },
        Instr::RmsNorm { dst: 3, a: 2, len: dim, eps: 1e-6 },
        Instr::Store { result: 0, a: Src::Reg(3), access: Access::Full },
        Instr::Total { result: 1, kind: ReduceKind::Sum, a: Src::Reg(2) },
    ];
    let wide = Operand::new(dtype, &[ROWS, dim]);
    let mut results = vec![wide.clone(), Operand::new(DType::F32, &[])];
    if dim <= 1 << 14 {
        instrs.push(Instr::Columns { result: 2, a: Src::Reg(2), period: dim });
        results.push(Operand::new(DType::F32, &[dim]));
    }
    let program = RowProgram { elements, tile: dim, regs: vec![Kind::F32; 4], instrs };
    Spec { kernel: Kernel::Rows(program), args: vec![wide.clone(), wide], results, instances: 1 }
}

/// A product of matrices that lie in either order.
fn product(dtype: DType, [m, n, k]: [usize; 3], [a_inner, b_inner]: [bool; 2], symmetric: bool) -> Spec {
    let order = |long: usize, inner: bool| {
        let (row, inner) = if inner { (k, 1) } else { (1, long) };
        Strides { batch: long * k, row, inner }
    };
    let (a, b) = (order(m, a_inner), order(n, b_inner));
    let kernel = Kernel::Dot(DotKernel { batch: 1, m, n, k, a, b, scale: 1.0, symmetric, epilogue: Epilogue::Store });
    let args = vec![Operand::new(dtype, &[m, k]), Operand::new(dtype, &[n, k])];
    Spec { kernel, args, results: vec![Operand::new(dtype, &[m, n])], instances: 1 }
}

/// An op on one tensor.
fn single(op: Op, dtype: DType, from: &[usize], to: &[usize]) -> Spec {
    let (args, results) = (vec![Operand::new(dtype, from)], vec![Operand::new(dtype, to)]);
    Spec { kernel: Kernel::Op(op), args, results, instances: 1 }
}

/// Everything, for one dtype and dim.
fn specs(dtype: DType, dim: usize) -> Vec<(String, Spec)> {
    let mut all = Vec::new();
    let mut add = |what: &str, spec: Spec| all.push((format!("{what} of {dtype}, {dim}"), spec));
    add("norm", norm(dtype, dim));
    for order in [[true, true], [true, false], [false, true], [false, false]] {
        add("product", product(dtype, [ROWS, dim, 768], order, false));
        add("product over it", product(dtype, [256, 192, dim], order, false));
    }
    if dim <= 3072 {
        add("symmetric product", product(dtype, [dim, dim, 768], [true, true], true));
    }
    let sizes = [5, 40, dim];
    add("transpose", single(Op::Transpose { perm: vec![0, 2, 1] }, dtype, &sizes, &[5, dim, 40]));
    add("transpose", single(Op::Transpose { perm: vec![1, 0, 2] }, dtype, &sizes, &[40, 5, dim]));
    add("sum", single(Op::Reduce { kind: ReduceKind::Sum, axes: vec![1] }, dtype, &sizes, &[5, dim]));
    add("sum", single(Op::Reduce { kind: ReduceKind::Norm, axes: vec![0, 2] }, dtype, &sizes, &[40]));
    add("running sum", single(Op::Cumsum { axis: 1, reverse: true }, dtype, &sizes, &sizes));
    add("running sum", single(Op::Cumsum { axis: 2, reverse: false }, dtype, &sizes, &sizes));
    all
}

fn calls(what: &str, spec: &Spec, device: &Device) -> Vec<Call> {
    let made = generate(spec, device).unwrap_or_else(|e| panic!("{what} on {}: {e}", device.name));
    assert!(!made.calls.is_empty(), "{what}: no calls");
    made.calls
}

#[test]
fn every_size_has_kernels_that_every_device_can_run() {
    for capability in Device::capabilities() {
        let device = Device::of(capability).expect("a known capability");
        for (what, spec) in FLOATS.iter().flat_map(|&dtype| DIMS.iter().flat_map(move |&dim| specs(dtype, dim))) {
            for call in calls(&what, &spec, &device) {
                assert!(call.shared <= device.shared_per_block, "{what} on {}: {} bytes", device.name, call.shared);
                assert!(call.block >= 32 && call.block <= 1024 && call.block.is_multiple_of(32), "{what}");
                let [x, y, z] = call.grid;
                assert!(
                    x > 0 && x < 1 << 31 && y > 0 && y < 1 << 16 && z > 0 && z < 1 << 16,
                    "{what}: {:?}",
                    call.grid
                );
            }
        }
    }
}

/// The shared memory, dynamic, and the threads that calls of a text have at most.
type Texts = BTreeMap<String, (Arc<Source>, usize, u32)>;

/// Registers of a multiprocessor, which warps get in units of so many.
const REGISTERS: u32 = 65_536;
const UNIT: u32 = 256;

/// Texts of a sweep compile for a capability, and a block of each fits a multiprocessor.
fn check(capability: u32) {
    let Some(nvrtc) = nvrtc() else { return };
    let device = Device::of(capability).expect("a known capability");
    let mut texts = Texts::new();
    let sweep = [(DType::BF16, 7), (DType::BF16, 80), (DType::BF16, 768), (DType::F32, 50_304)];
    for (what, spec) in sweep.iter().flat_map(|&(dtype, dim)| specs(dtype, dim)) {
        for call in calls(&what, &spec, &device) {
            let text = texts.entry(call.source.name.clone()).or_insert((call.source.clone(), 0, 0));
            (text.1, text.2) = (text.1.max(call.shared), text.2.max(call.block));
        }
    }
    let sources: Vec<&Source> = texts.values().map(|text| text.0.as_ref()).collect();
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let images = nvrtc.compile_all(&sources, target(&format!("sm_{capability}")), &ALL, threads, &|_| {});
    for ((name, (_, shared, threads)), image) in texts.iter().zip(images.expect("they compile")) {
        let usage = image.usage.expect("a report");
        let what = format!("{name} on sm_{capability}: {usage:?}");
        assert_eq!(image.log, "", "{what}");
        assert!((usage.registers * 32).next_multiple_of(UNIT) * (threads / 32) <= REGISTERS, "{what}");
        assert!(shared + usage.shared as usize <= device.shared_per_block, "{what}: {shared} bytes");
        assert!(!name.contains("dot") || !usage.spills() && usage.stack == 0, "{what}");
    }
}

#[test]
fn kernels_fit_sm_80() {
    check(80);
}

#[test]
fn kernels_fit_sm_86() {
    check(86);
}

#[test]
fn kernels_fit_sm_90() {
    check(90);
}

#[test]
#[ignore = "slow; `cargo test -p mngc-kernels-gen --test legal -- --ignored`"]
fn kernels_fit_the_other_devices() {
    [89, 100, 120].into_iter().for_each(check);
}

#[test]
fn what_fits_no_block_is_refused_by_name_size_and_limit() {
    let small = Device { name: "a small one".into(), shared_per_block: 2048, ..Device::of(80).expect("known") };
    let refusal = |spec: &Spec| match generate(spec, &small) {
        Err(Refusal(text)) => text,
        Ok(made) => panic!("{} calls", made.calls.len()),
    };
    for dtype in [DType::F32, DType::BF16] {
        let text = refusal(&product(dtype, [512, 320, 96], [true, false], false));
        assert!(text.starts_with("dot of 512 x 320 x 96") && text.contains("2048 bytes"), "{text}");
    }
    let text = refusal(&norm(DType::F32, 768));
    assert!(text.starts_with("rows of 768") && text.contains("has 2048"), "{text}");
}
