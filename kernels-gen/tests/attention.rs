//! Attention's kernels without a GPU: legal on every device, the same text for every length, and in registers.

mod common;

use common::{ALL, nvrtc, target};
use mngc_compiler::ir::{AttentionMask, DType, F64, Op};
use mngc_compiler::schedule::kernel::Kernel;
use mngc_kernels_gen::{Call, Device, Generated, Operand, Refusal, Source, Spec, generate};

const MASK: AttentionMask = AttentionMask { causal: true, documents: true, window: true };

/// A launch of attention with all masks, or of its gradient.
fn spec(dtype: DType, [batch, t, heads, key_heads, dim]: [usize; 5], gradient: bool) -> Spec {
    let q = Operand::new(dtype, &[batch, t, heads, dim]);
    let k = Operand::new(dtype, &[batch, t, key_heads, dim]);
    let lse = Operand::new(DType::F32, &[batch, t, heads]);
    let mut args = vec![q.clone(), k.clone(), k.clone()];
    if gradient {
        args.extend([q.clone(), lse.clone(), q.clone()]);
    }
    args.extend([Operand::new(DType::I32, &[batch, t]), Operand::new(DType::F32, &[])]);
    let (mask, scale) = (MASK, F64(0.125));
    let (op, results) = match gradient {
        true => (Op::AttentionGrad { mask, scale }, vec![q, k.clone(), k]),
        false => (Op::Attention { mask, scale }, vec![q, lse]),
    };
    Spec { kernel: Kernel::Op(op), args, results, instances: 1 }
}

fn calls(dtype: DType, dim: usize, capability: u32) -> Vec<Call> {
    let device = Device::of(capability).expect("a known capability");
    let of = |gradient| -> Vec<Call> {
        let spec = spec(dtype, [1, 1000, 6, 6, dim], gradient);
        generate(&spec, &device).unwrap_or_else(|e| panic!("{dtype} {dim} sm_{capability}: {e}")).calls
    };
    [of(false), of(true)].concat()
}

#[test]
fn every_head_has_a_kernel_on_every_device() {
    for capability in Device::capabilities() {
        let limit = Device::of(capability).expect("a known capability").shared_per_block;
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            for dim in [1, 2, 3, 6, 17].into_iter().chain((8..=256).step_by(8)) {
                for call in calls(dtype, dim, capability) {
                    assert!(call.shared < limit, "{} on sm_{capability}: {} bytes", call.source.name, call.shared);
                    assert!([128, 256].contains(&call.block), "{}: {} threads", call.source.name, call.block);
                    let cores = call.source.text.contains("mma.sync");
                    assert_eq!(cores, dtype != DType::F32, "{} on sm_{capability}", call.source.name);
                }
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name_and_size() {
    let device = Device::of(86).expect("known");
    let refusal = |gradient| generate(&spec(DType::BF16, [1, 64, 1, 1, 2000], gradient), &device).err();
    for (gradient, op) in [(false, "attention "), (true, "attention_grad ")] {
        let Some(Refusal(text)) = refusal(gradient) else { panic!("a kernel for heads of 2000") };
        assert!(text.starts_with(op) && text.contains("2000") && text.contains("101376 bytes"), "{text}");
    }
}

#[test]
fn the_number_of_tokens_is_not_in_the_text() {
    let device = Device::of(90).expect("known");
    for dtype in [DType::F32, DType::BF16] {
        for gradient in [false, true] {
            let made = |batch, t| generate(&spec(dtype, [batch, t, 4, 2, 64], gradient), &device).expect("a kernel");
            let names = |g: &Generated| g.calls.iter().map(|call| call.source.name.clone()).collect::<Vec<_>>();
            let (short, long) = (made(1, 1), made(7, 65_537));
            assert_eq!(names(&short), names(&long));
            assert_eq!(names(&short).len(), 1 + usize::from(gradient));
            assert!(short.calls.iter().zip(&long.calls).all(|(a, b)| a.grid[0] < b.grid[0] && a.shared == b.shared));
        }
    }
    let nothing = generate(&spec(DType::F32, [3, 0, 4, 2, 64], true), &device).expect("nothing to do");
    assert_eq!(nothing, Generated::default());
}

/// The texts of all tiles for a capability compile, and leave nothing in local memory.
fn check_registers(capability: u32, dims: &[(DType, usize)]) {
    let Some(nvrtc) = nvrtc() else { return };
    let device = Device::of(capability).expect("known");
    let calls: Vec<Call> = dims.iter().flat_map(|&(dtype, dim)| calls(dtype, dim, capability)).collect();
    let sources: Vec<&Source> = calls.iter().map(|call| call.source.as_ref()).collect();
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let images = nvrtc.compile_all(&sources, target(&format!("sm_{capability}")), &ALL, threads, &|_| {});
    for (call, image) in calls.iter().zip(images.expect("they compile")) {
        let (name, usage) = (&call.source.name, image.usage.expect("a report"));
        assert!(!usage.spills() && usage.stack == 0, "{name} on sm_{capability}: {usage:?}");
        assert!(usage.registers * call.block <= 65536, "{name} on sm_{capability}: {usage:?}");
        let shared = call.shared + usage.shared as usize;
        assert!(shared <= device.shared_per_block, "{name} on sm_{capability}: {shared} bytes");
    }
}

#[test]
fn nothing_spills() {
    let low = [64, 128, 256].map(|dim| (DType::BF16, dim));
    check_registers(86, &low);
    check_registers(90, &low);
    check_registers(120, &[(DType::F16, 128)]);
    check_registers(80, &[(DType::F32, 64), (DType::F32, 128), (DType::F32, 256)]);
}

#[test]
#[ignore = "minutes; `cargo test -p mngc-kernels-gen --test attention -- --ignored`"]
fn nothing_spills_anywhere() {
    for capability in Device::capabilities() {
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            let dims: Vec<_> =
                [1, 8, 24, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256].map(|dim| (dtype, dim)).into();
            check_registers(capability, &dims);
        }
    }
}
