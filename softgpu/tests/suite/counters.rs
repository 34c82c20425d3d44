//! Counters against counts by hand, of one warp.

use crate::gpu::{Arg, Gpu};
use softgpu::exec::stats::Counters;
use softgpu::program::Class;

/// Counts one warp that runs these instructions, with its lane in `%r1`, its lane as 64 bits in `%d1`, global memory of
/// 8 KiB at `%d0`, and shared memory of 8 KiB from 0 on.
fn count(text: &str) -> (Gpu, Counters) {
    let mut g = Gpu::new(&format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 p) {{\n.reg .pred %p<4>;\n.reg .b32 %r<9>;\n\
         .reg .b64 %d<9>;\n.shared .align 16 .b8 s[8192];\nld.param.u64 %d0, [p];\nmov.u32 %r1, %tid.x;\n\
         cvt.u64.u32 %d1, %r1;\nmov.u32 %r4, 0;\nmov.u32 %r5, 0;\nmov.u32 %r6, 0;\nmov.u32 %r7, 0;\n{text}\nret;\n}}\n"
    ));
    g.machine.settings.counting = true;
    let a = g.upload(&[0u32; 2048]);
    let c = g.run("k", 1, 32, 0, &[Arg::Ptr(a)]);
    (g, c)
}

#[test]
fn sectors_of_global_requests() {
    // Bytes between lanes, the access, sectors of 32 bytes.
    for (stride, access, sectors) in [
        (4, "u32 %r2", 4),
        (8, "u32 %r2", 8),
        (32, "u32 %r2", 32),
        (128, "u32 %r2", 32),
        (0, "u32 %r2", 1),
        (16, "v4.u32 {%r4,%r5,%r6,%r7}", 16),
        (2, "u16 %r2", 2),
    ] {
        let kind = access.split(' ').next().unwrap();
        let to = if kind == "u16" { "%r3" } else { access.split_once(' ').unwrap().1 };
        let (_, c) = count(&format!("mad.lo.u64 %d2, %d1, {stride}, %d0;\nld.global.{kind} {to}, [%d2];"));
        let bytes = [("u16", 2), ("u32", 4), ("v4.u32", 16)].iter().find(|(k, _)| *k == kind).unwrap().1;
        let got = (c.global_requests, c.global_sectors, c.global_bytes);
        assert_eq!(got, (1, sectors, 32 * bytes), "{kind} every {stride} bytes");
    }
}

#[test]
fn conflicts_of_shared_banks() {
    // Bytes between lanes, the access, passes beyond the least.
    for (stride, access, conflicts) in [
        (4, "b32 [%r2], %r4", 0),
        (0, "b32 [%r2], %r4", 0),
        (8, "b32 [%r2], %r4", 1),
        (12, "b32 [%r2], %r4", 0),
        (16, "b32 [%r2], %r4", 3),
        (64, "b32 [%r2], %r4", 15),
        (128, "b32 [%r2], %r4", 31),
        (8, "v2.b32 [%r2], {%r4,%r5}", 0),
        (16, "v4.b32 [%r2], {%r4,%r5,%r6,%r7}", 0),
        // Four groups of 8 lanes, each in one bank's column.
        (128, "v4.b32 [%r2], {%r4,%r5,%r6,%r7}", 4 * 7),
    ] {
        let (_, c) = count(&format!("mul.lo.u32 %r2, %r1, {stride};\nst.shared.{access};"));
        assert_eq!((c.shared_requests, c.bank_conflicts), (1, conflicts), "{access} every {stride} bytes");
    }
}

#[test]
fn instructions_by_kind_and_active_lanes() {
    let text = "setp.lt.u32 %p0, %r1, 10;\n@%p0 add.u32 %r2, %r1, 1;\n@!%p0 st.global.u32 [%d0], %r1;\n\
        bar.sync 0;\nshfl.sync.idx.b32 %r3, %r1, 0, 31, -1;";
    let (g, c) = count(text);
    let classes = c.by_class(&g.module.program.kernels[0]);
    let of = |k: Class| classes.iter().find(|c| c.0 == k).map(|c| (c.1, c.2));
    assert_eq!(of(Class::Integer), Some((10, 1)));
    assert_eq!(of(Class::Predicate), Some((32, 1)));
    assert_eq!(of(Class::Global), Some((22, 1)));
    assert_eq!(of(Class::Barrier), Some((32, 1)));
    assert_eq!(of(Class::Warp), Some((32, 1)));
    assert_eq!(of(Class::Tensor), None);
}
