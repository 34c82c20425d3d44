//! Kernels compiled by NVRTC. Without it (softgpu/scripts/fetch-nvrtc.sh fetches it) these tests say that they are skipped.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};

use common::{ALL, nvrtc, reverse, target};
use mngc_kernels_gen::Source;
use mngc_kernels_gen::nvrtc::{Error, Options};

#[test]
fn a_kernel_becomes_ptx_and_machine_code() {
    let Some(nvrtc) = nvrtc() else { return };
    for name in ["sm_80", "sm_86", "sm_90", "sm_90a"] {
        let image = nvrtc.compile(&reverse(3), target(name), &ALL).expect("it compiles");
        assert!(image.ptx.contains(&format!(".target {name}\n")), "{}", image.ptx);
        assert!(image.ptx.contains(&format!(".entry {}(", reverse(3).name)), "{}", image.ptx);
        assert!(image.cubin.expect("machine code").starts_with(b"\x7fELF"));
        let usage = image.usage.expect("a report");
        assert!((1..=255).contains(&usage.registers), "{usage:?}");
        assert_eq!((usage.shared, usage.stack, usage.spills()), (512, 0, false));
        assert_eq!(image.log, "");
    }
}

#[test]
fn ptx_alone_is_that_of_the_whole() {
    let Some(nvrtc) = nvrtc() else { return };
    for name in ["sm_80", "sm_90a"] {
        let whole = nvrtc.compile(&reverse(3), target(name), &ALL).expect("it compiles");
        let ptx = nvrtc.compile(&reverse(3), target(name), &Options { ptx_only: true }).expect("it compiles");
        assert_eq!(ptx.ptx, whole.ptx);
        assert_eq!((ptx.cubin, ptx.usage), (None, None));
    }
}

#[test]
fn spills_are_told() {
    let Some(nvrtc) = nvrtc() else { return };
    // 1024 threads leave 64 registers to each; the loop needs twice as many.
    let text = "extern \"C\" __global__ void __launch_bounds__(1024) KERNEL_NAME(float *x, int n) {
        float a[128];
        #pragma unroll
        for (int i = 0; i < 128; i++) a[i] = x[i * 1024 + threadIdx.x];
        for (int j = 0; j < n; j++) {
            #pragma unroll
            for (int i = 0; i < 128; i++) a[i] = a[i] * a[(i + 1) % 128] + a[(i + 7) % 128];
        }
        #pragma unroll
        for (int i = 0; i < 128; i++) x[i * 1024 + threadIdx.x] = a[i];
    }";
    let image = nvrtc.compile(&Source::new("spill", text), target("sm_80"), &ALL).expect("it compiles");
    let usage = image.usage.expect("a report");
    // 128 numbers in 64 registers: at least 64 of them are elsewhere.
    assert!(usage.spill_stores >= 256 && usage.spill_loads >= 256 && usage.stack >= 256, "{usage:?}");
    assert_eq!(usage.registers, 64);
}

#[test]
fn a_fault_of_a_text_is_told_with_its_line() {
    let Some(nvrtc) = nvrtc() else { return };
    let source = Source::new("wrong", "extern \"C\" __global__ void KERNEL_NAME() {\n    missing();\n}");
    let error = nvrtc.compile(&source, target("sm_90"), &ALL).expect_err("there is no such function");
    let Error::Compile { kernel, log, .. } = &error else { panic!("{error}") };
    assert_eq!(kernel, &source.name);
    assert!(log.contains(&format!("{}.cu(2): error", source.name)), "{log}");
    assert!(error.to_string().contains(nvrtc.path().to_str().expect("a path")), "{error}");

    let zero = Source::new("zero", "// a zero: \0");
    assert!(matches!(nvrtc.compile(&zero, target("sm_90"), &ALL), Err(Error::Failed { .. })));
}

#[test]
fn an_architecture_that_nvrtc_does_not_know_is_refused() {
    let Some(nvrtc) = nvrtc() else { return };
    let error = nvrtc.compile(&reverse(1), target("sm_999"), &ALL).expect_err("not yet");
    assert!(matches!(error, Error::Unsupported { .. }));
    let text = error.to_string();
    assert!(text.contains("sm_999") && text.contains("sm_90") && text.contains(nvrtc.version()), "{text}");

    assert_eq!(nvrtc.target(90), Some(target("sm_90a")));
    assert_eq!(nvrtc.target(80), Some(target("sm_80")));
    assert_eq!(nvrtc.target(75), None);
    let newest = nvrtc.target(999).expect("an older one");
    assert!(!newest.specific && nvrtc.supported().ends_with(&[newest.capability]));
}

#[test]
fn threads_give_the_same_in_the_same_order() {
    let Some(nvrtc) = nvrtc() else { return };
    let sources: Vec<Source> = (0..12).map(reverse).collect();
    let compile = |threads| {
        let (calls, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let progress = |done| {
            calls.fetch_add(1, Ordering::Relaxed);
            most.fetch_max(done, Ordering::Relaxed);
        };
        let images = nvrtc.compile_all(&sources, target("sm_80"), &ALL, threads, &progress).expect("they compile");
        assert_eq!((calls.into_inner(), most.into_inner()), (12, 12));
        images
    };
    let one = compile(1);
    for (image, source) in one.iter().zip(&sources) {
        assert!(image.ptx.contains(&format!(".entry {}(", source.name)));
    }
    assert_eq!(compile(4), one);
    assert_eq!(compile(100), one);

    let none: [Source; 0] = [];
    assert_eq!(nvrtc.compile_all(&none, target("sm_80"), &ALL, 4, &|_| ()), Ok(Vec::new()));
}

#[test]
fn of_several_faults_the_first_is_told() {
    let Some(nvrtc) = nvrtc() else { return };
    let mut sources: Vec<Source> = (0..8).map(reverse).collect();
    for i in [3, 4, 7] {
        sources[i] = Source::new("wrong", &format!("extern \"C\" __global__ void KERNEL_NAME() {{ missing{i}(); }}"));
    }
    for _ in 0..4 {
        let error = nvrtc.compile_all(&sources, target("sm_80"), &ALL, 3, &|_| ()).expect_err("three are wrong");
        assert!(matches!(&error, Error::Compile { kernel, .. } if *kernel == sources[3].name), "{error}");
    }
}
