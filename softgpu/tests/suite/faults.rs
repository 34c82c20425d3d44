//! For each check, a kernel with the fault it must find and the healthy twin in which it must find nothing, in many
//! orders of warps and blocks.

use crate::gpu::{Arg, Gpu};
use crate::nvrtc;
use softgpu::check::{Check, Checks, Kind};
use softgpu::error::LaunchError;

const SEEDS: u64 = 24;

impl Gpu {
    /// Does the same in many orders of warps and blocks.
    fn under_seeds(&mut self, mut f: impl FnMut(&mut Gpu)) {
        for seed in 0..SEEDS {
            self.machine.settings.seed = seed;
            self.machine.settings.workers = 1 + seed as u32 % 3;
            f(self);
        }
    }
}

fn gpu() -> Option<Gpu> {
    let ptx = nvrtc::compile("faults.cu", include_str!("../kernels/faults.cu"), "compute_80")?;
    Some(Gpu::new(&ptx))
}

/// What a kernel's pointers point to.
#[derive(Clone, Copy)]
enum Buffer {
    /// Zeros.
    Zeros(usize),
    /// Nothing was written.
    Empty(usize),
}
use Buffer::{Empty, Zeros};

struct Trial {
    fault: &'static str,
    kind: Kind,
    check: Check,
    grid: u32,
    buffers: &'static [Buffer],
    n: u32,
}

const fn trial(fault: &'static str, kind: Kind, check: Check, grid: u32, buffers: &'static [Buffer], n: u32) -> Trial {
    Trial { fault, kind, check, grid, buffers, n }
}

const B: usize = 128 * 4;

const TRIALS: &[Trial] = &[
    trial("bounds", Kind::OutOfBounds, Check::Bounds, 3, &[Zeros(300 * 4)], 300),
    trial("bounds_read", Kind::OutOfBounds, Check::Bounds, 3, &[Zeros(300 * 4), Empty(300 * 4)], 300),
    trial("alignment", Kind::Misaligned, Check::Alignment, 1, &[Zeros(B)], 5),
    trial("uninitialised", Kind::Uninitialised, Check::Uninitialised, 2, &[Empty(2 * B), Empty(2 * B)], 256),
    trial("uninitialised_shared", Kind::Uninitialised, Check::Uninitialised, 2, &[Empty(2 * B)], 100),
    trial("shared_race", Kind::SharedRace, Check::SharedRaces, 2, &[Empty(2 * B)], 0),
    trial("shared_race_read", Kind::SharedRace, Check::SharedRaces, 2, &[Empty(2 * B)], 0),
    trial("shared_atomic", Kind::SharedRace, Check::SharedRaces, 2, &[Empty(2 * B)], 0),
    trial("global_race", Kind::GlobalRace, Check::GlobalRaces, 8, &[Zeros(4)], 0),
    trial("global_race_read", Kind::GlobalRace, Check::GlobalRaces, 8, &[Zeros(8 * B), Empty(8 * B)], 8 * 128),
    trial("global_halves_read", Kind::GlobalRace, Check::GlobalRaces, 8, &[Zeros(16)], 0),
    trial("last_block", Kind::GlobalRace, Check::GlobalRaces, 8, &[Empty(32), Empty(4), Zeros(4)], 0),
    trial("barrier_divergent", Kind::Divergent, Check::Barriers, 2, &[Empty(2 * B)], 3),
    trial("barrier_other", Kind::Divergent, Check::Barriers, 2, &[Empty(2 * B)], 3),
    trial("async_copy", Kind::AsyncCopy, Check::AsyncCopies, 1, &[Zeros(4 * B), Empty(4 * B)], 0),
    trial("async_group", Kind::AsyncCopy, Check::AsyncCopies, 1, &[Zeros(4 * B), Empty(4 * B)], 0),
    trial("async_barrier", Kind::SharedRace, Check::SharedRaces, 1, &[Zeros(4 * B), Empty(4 * B)], 0),
];

fn arguments(g: &mut Gpu, t: &Trial) -> Vec<Arg> {
    let mut args: Vec<Arg> = t
        .buffers
        .iter()
        .map(|b| match *b {
            Zeros(n) => Arg::Ptr(g.upload(&vec![0u8; n])),
            Empty(n) => Arg::Ptr(g.empty(n)),
        })
        .collect();
    args.push(Arg::U32(t.n));
    args
}

#[test]
fn every_fault_is_found_and_no_twin_is_accused() {
    let Some(mut g) = gpu() else { return };
    for t in TRIALS {
        let twin = format!("{}_ok", t.fault);
        for seed in 0..SEEDS {
            g.machine.settings.seed = seed;
            g.machine.settings.workers = 1 + seed as u32 % 3;
            g.machine.settings.checks = Checks::ALL;
            let args = arguments(&mut g, t);
            let f = g.fails(t.fault, t.grid, 128, 0, &args);
            assert_eq!(f.kind, t.kind, "{} with seed {seed}: {f}", t.fault);
            assert!(f.kernel == t.fault && f.line > 0 && f.block.is_some() && f.thread.is_some(), "{f}");
            let (file, line) = f.source.clone().unwrap_or_default();
            assert!(file.ends_with("faults.cu") && line > 0, "{f}");
            let args = arguments(&mut g, t);
            g.run(&twin, t.grid, 128, 0, &args);
        }
        // The check alone finds it, and without the check nothing is said.
        g.machine.settings.seed = 0;
        g.machine.settings.checks = Checks::NONE.with(t.check, true);
        let args = arguments(&mut g, t);
        assert_eq!(g.fails(t.fault, t.grid, 128, 0, &args).kind, t.kind, "{} alone", t.fault);
        if t.kind != Kind::Divergent {
            g.machine.settings.checks = Checks::ALL.with(t.check, false);
            let args = arguments(&mut g, t);
            match g.try_run(t.fault, t.grid, 128, 0, &args) {
                Err(LaunchError::Finding(f)) => assert_ne!(f.kind, t.kind, "{f}"),
                other => drop(other),
            }
        }
    }
}

#[test]
fn findings_say_where_and_who() {
    let Some(mut g) = gpu() else { return };
    let a = g.upload(&[0f32; 300]);
    let f = g.fails("bounds", 3, 128, 0, &[Arg::Ptr(a), Arg::U32(300)]);
    assert_eq!((f.block, f.thread, f.address), (Some([2, 0, 0]), Some([44, 0, 0]), Some(a + 1200)));
    assert!(f.near.as_deref().is_some_and(|n| n.contains("0 bytes after") && n.contains("1200 bytes")), "{f}");
    let a = g.empty(4);
    let f = g.fails("global_race", 8, 128, 0, &[Arg::Ptr(a), Arg::U32(0)]);
    assert!(f.last.as_deref().is_some_and(|l| l.contains("block (") && l.contains("wrote it at PTX line")), "{f}");
}

#[test]
fn shared_bounds_are_those_of_the_launch() {
    let Some(mut g) = gpu() else { return };
    let a = g.empty(B);
    g.under_seeds(|g| {
        let f = g.fails("bounds_shared", 1, 128, 512, &[Arg::Ptr(a), Arg::U32(1)]);
        assert_eq!((f.kind, f.address), (Kind::OutOfBounds, Some(512)), "{f}");
        g.run("bounds_shared", 1, 128, 516, &[Arg::Ptr(a), Arg::U32(1)]);
        g.run("bounds_shared_ok", 1, 128, 512, &[Arg::Ptr(a), Arg::U32(1)]);
    });
}

#[test]
fn memory_that_was_freed_is_named() {
    let Some(mut g) = gpu() else { return };
    g.under_seeds(|g| {
        let a = g.upload(&[0f32; 128]);
        g.run("bounds_ok", 1, 128, 0, &[Arg::Ptr(a), Arg::U32(128)]);
        g.machine.memory.free(a, &[softgpu::device::memory::Purpose::Device]);
        let f = g.fails("bounds_ok", 1, 128, 0, &[Arg::Ptr(a), Arg::U32(128)]);
        assert!(
            f.kind == Kind::UseAfterFree && f.near.as_deref().is_some_and(|n| n.contains("which was freed")),
            "{f}"
        );
    });
}

#[test]
fn parts_of_a_word_by_different_writers_are_no_race() {
    let Some(mut g) = gpu() else { return };
    for seed in 0..SEEDS {
        g.machine.settings.seed = seed;
        let (a, b) = (g.empty(B), g.empty(64));
        g.run("shared_bytes_ok", 1, 128, 0, &[Arg::Ptr(a), Arg::U32(0)]);
        g.run("global_halves_ok", 32, 32, 0, &[Arg::Ptr(b), Arg::U32(0)]);
        let c = g.empty(B);
        g.run("constants_ok", 1, 128, 0, &[Arg::Ptr(c), Arg::U32(0)]);
        assert_eq!(g.read::<f32>(c, 4), [1.0, 2.0, 3.0, 4.0]);
    }
}

#[test]
fn deadlocks_are_found_and_told() {
    let Some(mut g) = gpu() else { return };
    for seed in 0..SEEDS {
        g.machine.settings.seed = seed;
        let a = g.empty(B);
        let f = g.fails("deadlock", 1, 128, 0, &[Arg::Ptr(a), Arg::U32(0)]);
        assert!(f.kind == Kind::Deadlock && f.message.contains("warp 2") && f.message.contains("barrier 1"), "{f}");
        g.run("deadlock_ok", 1, 128, 0, &[Arg::Ptr(a), Arg::U32(0)]);
        let flag = g.upload(&[0u32]);
        g.run("spin_ok", 1, 128, 0, &[Arg::Ptr(flag), Arg::U32(7)]);
        g.run("spin_lane_ok", 1, 32, 0, &[Arg::Ptr(flag), Arg::U32(8)]);
    }
    let flag = g.upload(&[0u32]);
    let f = g.fails("spin", 2, 128, 0, &[Arg::Ptr(flag), Arg::U32(7)]);
    assert!(f.kind == Kind::Deadlock && f.message.contains("again and again"), "{f}");
    let f = g.fails("spin_plain", 2, 128, 0, &[Arg::Ptr(flag), Arg::U32(7)]);
    assert!(f.kind == Kind::Deadlock && f.message.contains("for ever"), "{f}");
    g.run("spin_plain", 2, 128, 0, &[Arg::Ptr(flag), Arg::U32(0)]);
}

#[test]
fn blocks_that_wait_for_later_blocks_make_progress() {
    let Some(mut g) = gpu() else { return };
    for seed in 0..6 {
        g.machine.settings.seed = seed;
        g.machine.settings.workers = 1 + seed as u32 % 2;
        let (a, flag) = (g.empty(64 * 4), g.upload(&[0u32; 64]));
        g.run("chain_ok", 64, 32, 0, &[Arg::Ptr(a), Arg::Ptr(flag), Arg::U32(0)]);
        assert_eq!(g.read::<f32>(a, 64)[63], 64.0);
    }
}

#[test]
fn a_trap_stops_the_kernel() {
    let Some(mut g) = gpu() else { return };
    let a = g.empty(2 * B);
    g.under_seeds(|g| {
        let f = g.fails("trap", 2, 128, 0, &[Arg::Ptr(a), Arg::U32(130)]);
        assert_eq!((f.kind, f.block, f.thread), (Kind::Trap, Some([1, 0, 0]), Some([2, 0, 0])), "{f}");
        g.run("trap_ok", 2, 128, 0, &[Arg::Ptr(a), Arg::U32(1000)]);
    });
}

#[test]
fn warp_operations_whose_lanes_never_come_are_found() {
    let Some(mut g) = gpu() else { return };
    let a = g.empty(B);
    g.under_seeds(|g| {
        let f = g.fails("shuffle", 1, 128, 0, &[Arg::Ptr(a), Arg::U32(8)]);
        assert!(matches!(f.kind, Kind::Deadlock | Kind::Divergent | Kind::BadOperand), "{f}");
        g.run("shuffle_ok", 1, 128, 0, &[Arg::Ptr(a), Arg::U32(8)]);
        g.run("early_exit_ok", 1, 128, 0, &[Arg::Ptr(a), Arg::U32(20)]);
        assert!(g.read::<u32>(a, 128).iter().enumerate().all(|(t, x)| *x == if t & 31 < 20 { 20 } else { 7 }));
    });
}

#[test]
fn launches_over_the_limits_are_refused() {
    let Some(mut g) = gpu() else { return };
    let a = g.empty(8192);
    let args = [Arg::Ptr(a), Arg::U32(0)];
    let refused = |r: Result<_, LaunchError>, what: &str| match r {
        Err(LaunchError::Limits { message, .. }) => assert!(message.contains(what), "{message}"),
        other => panic!("{what}: {:?}", other.map(|_| ())),
    };
    refused(g.try_run("trap_ok", 1, 1025, 0, &args), "1025 threads");
    refused(g.try_run("trap_ok", 0, 32, 0, &args), "empty");
    refused(g.try_run("bounds_shared_ok", 1, 32, 200_000, &args), "shared memory");
    g.run("bounds_shared_ok", 1, 32, 100_000, &args);
}

/// A kernel in PTX, for what compilers do not write.
fn body(text: &str) -> Gpu {
    Gpu::new(&format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 p, .param .u32 n) {{\n\
         .reg .pred %p<4>;\n.reg .b32 %r<8>;\n.reg .b64 %d<8>;\n.local .align 8 .b8 l[16];\nld.param.u64 %d0, [p];\nld.param.u32 %r0, [n];\n{text}\nret;\n}}\n"
    ))
}

#[test]
fn local_memory_is_checked() {
    // Offset n of 16 bytes: read back what was written there.
    let text = "cvt.u64.u32 %d1, %r0;\nmov.u64 %d2, l;\nadd.u64 %d2, %d2, %d1;\nst.local.u32 [%d2], 5;\nld.local.u32 %r1, [%d2];\nst.global.u32 [%d0], %r1;";
    let mut g = body(text);
    let a = g.empty(4);
    g.under_seeds(|g| {
        g.run("k", 1, 1, 0, &[Arg::Ptr(a), Arg::U32(12)]);
        assert_eq!(g.read::<u32>(a, 1), [5]);
        assert_eq!(g.fails("k", 1, 1, 0, &[Arg::Ptr(a), Arg::U32(16)]).kind, Kind::OutOfBounds);
        assert_eq!(g.fails("k", 1, 1, 0, &[Arg::Ptr(a), Arg::U32(2)]).kind, Kind::Misaligned);
    });
    for (second, right) in [("%r0", true), ("", false)] {
        let write = if right { format!("st.local.u32 [l+4], {second};\n") } else { String::new() };
        let text = "ld.local.v2.u32 {%r1, %r2}, [l];\nst.global.u32 [%d0], %r2;";
        let mut g = body(&format!("st.local.u32 [l], %r0;\n{write}{text}"));
        let a = g.empty(4);
        g.under_seeds(|g| match g.try_run("k", 1, 1, 0, &[Arg::Ptr(a), Arg::U32(0)]) {
            Err(LaunchError::Finding(f)) => assert!(!right && f.kind == Kind::Uninitialised, "{f}"),
            other => assert!(right, "{:?}", other.map(|_| ())),
        });
    }
}

#[test]
fn constants_and_parameters_are_not_written() {
    let text = ".version 8.0\n.target sm_80\n.address_size 64\n.const .align 4 .b32 c[2] = {1, 2};\n\
        .visible .entry k(.param .u64 p) {\n.reg .b64 %d<4>;\nmov.u64 %d1, c;\nst.u32 [%d1+4], 7;\nret;\n}\n\
        .visible .entry q(.param .u64 p) {\n.reg .b64 %d<4>;\nmov.b64 %d1, p;\ncvta.param.u64 %d1, %d1;\nst.u32 [%d1], 7;\nret;\n}\n";
    let mut g = Gpu::new(text);
    g.under_seeds(|g| {
        for name in ["k", "q"] {
            assert_eq!(g.fails(name, 1, 1, 0, &[Arg::Ptr(0)]).kind, Kind::ReadOnly, "{name}");
        }
    });
}

#[test]
fn kernels_of_too_many_registers_are_refused_for_large_blocks() {
    // 128 values that are all alive at once.
    let mut text = String::from(".reg .b32 %v<128>;\n");
    (0..128).for_each(|i| text += &format!("ld.volatile.global.u32 %v{i}, [%d0+{}];\n", 4 * i));
    (0..128).for_each(|i| text += &format!("st.volatile.global.u32 [%d0+{}], %v{};\n", 4 * i, 127 - i));
    let mut g = body(&text);
    let a = g.upload(&[1u32; 128]);
    match g.try_run("k", 1, 1024, 0, &[Arg::Ptr(a), Arg::U32(0)]) {
        Err(LaunchError::Limits { message, .. }) => assert!(message.contains("registers"), "{message}"),
        other => panic!("{:?}", other.map(|_| ())),
    }
    g.run("k", 1, 256, 0, &[Arg::Ptr(a), Arg::U32(0)]);
}

#[test]
fn guarded_barriers_keep_no_other_lanes() {
    // The lower half of each warp waits, the upper half arrives.
    let text = "mov.u32 %r1, %tid.x;\nand.b32 %r2, %r1, 31;\nsetp.lt.u32 %p0, %r2, 16;\n@%p0 barrier.sync 1, 64;\n\
        @!%p0 barrier.arrive 1, 64;\nmul.wide.u32 %d1, %r1, 4;\nadd.u64 %d1, %d1, %d0;\nst.global.u32 [%d1], %r1;";
    let mut g = body(text);
    g.under_seeds(|g| {
        let a = g.empty(256);
        g.run("k", 1, 64, 0, &[Arg::Ptr(a), Arg::U32(0)]);
        assert_eq!(g.read::<u32>(a, 64), (0..64).collect::<Vec<_>>());
    });
}

#[test]
fn sources_of_asynchronous_copies_are_aligned_to_their_size() {
    let text = "cvt.u64.u32 %d1, %r0;\nadd.u64 %d1, %d1, %d0;\nmov.u32 %r1, 0;\nmov.u32 %r2, 8;\n\
        cp.async.cg.shared.global [%r1], [%d1], 16, %r2;\ncp.async.wait_all;";
    let mut g = Gpu::new(&format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 p, .param .u32 n) {{\n\
         .reg .b32 %r<8>;\n.reg .b64 %d<8>;\n.shared .align 16 .b8 s[16];\nld.param.u64 %d0, [p];\nld.param.u32 %r0, [n];\n{text}\nret;\n}}\n"
    ));
    let a = g.upload(&[0u8; 64]);
    assert_eq!(g.fails("k", 1, 1, 0, &[Arg::Ptr(a), Arg::U32(8)]).kind, Kind::Misaligned);
    g.run("k", 1, 1, 0, &[Arg::Ptr(a), Arg::U32(16)]);
}

#[test]
fn lanes_that_went_on_alone_come_together_again() {
    let Some(mut g) = gpu() else { return };
    g.under_seeds(|g| {
        for barrier in 0..4 {
            let (flag, out) = (g.upload(&[0u32; 3]), g.empty(2 * 64 * 4));
            g.run("wait_then_product_ok", 2, 64, 0, &[Arg::Ptr(flag), Arg::Ptr(out), Arg::U32(barrier)]);
            assert!(g.read::<f32>(out, 128).iter().all(|x| *x == 1.0));
        }
    });
}
