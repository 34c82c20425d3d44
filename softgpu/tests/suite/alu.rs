//! Arithmetic, one instruction at a time, against what Rust computes from the definition.

use std::cell::RefCell;

use crate::gpu::{Arg, Gpu};
use proptest::prelude::*;

/// An instruction: its opcode, the types of its operands and result, and what it means on bits.
struct Case {
    op: &'static str,
    from: &'static [u32],
    to: u32,
    f: fn(u64, u64, u64) -> u64,
}

const fn case(op: &'static str, from: &'static [u32], to: u32, f: fn(u64, u64, u64) -> u64) -> Case {
    Case { op, from, to, f }
}

fn f(x: u64) -> f32 {
    f32::from_bits(x as u32)
}

fn bits(x: f32) -> u64 {
    if x.is_nan() { 0x7fff_ffff } else { x.to_bits() as u64 }
}

fn flush(x: f32) -> f32 {
    if x.is_subnormal() { 0.0f32.copysign(x) } else { x }
}

fn i(x: u64) -> i32 {
    x as i32
}

fn u(x: u64) -> u32 {
    x as u32
}

fn h(x: u64) -> half::bf16 {
    half::bf16::from_bits(x as u16)
}

fn hb(x: half::bf16) -> u64 {
    if x.is_nan() { 0x7fff } else { x.to_bits() as u64 }
}

const W: &[u32] = &[32];
const WW: &[u32] = &[32, 32];
const WWW: &[u32] = &[32, 32, 32];
const L: &[u32] = &[64];
const LL: &[u32] = &[64, 64];
const LLL: &[u32] = &[64, 64, 64];
const H: &[u32] = &[16];
const HH: &[u32] = &[16, 16];
const HHH: &[u32] = &[16, 16, 16];

const CASES: &[Case] = &[
    case("add.s32", WW, 32, |a, b, _| u(a).wrapping_add(u(b)) as u64),
    case("add.sat.s32", WW, 32, |a, b, _| i(a).saturating_add(i(b)) as u32 as u64),
    case("add.s64", LL, 64, |a, b, _| a.wrapping_add(b)),
    case("add.u16", HH, 16, |a, b, _| (a as u16).wrapping_add(b as u16) as u64),
    case("sub.u32", WW, 32, |a, b, _| u(a).wrapping_sub(u(b)) as u64),
    case("mul.lo.s32", WW, 32, |a, b, _| u(a).wrapping_mul(u(b)) as u64),
    case("mul.hi.u32", WW, 32, |a, b, _| ((a & 0xffff_ffff) * (b & 0xffff_ffff)) >> 32),
    case("mul.hi.s32", WW, 32, |a, b, _| ((i(a) as i64 * i(b) as i64) >> 32) as u32 as u64),
    case("mul.hi.u64", LL, 64, |a, b, _| ((a as u128 * b as u128) >> 64) as u64),
    case("mul.wide.u32", WW, 64, |a, b, _| (a & 0xffff_ffff) * (b & 0xffff_ffff)),
    case("mul.wide.s32", WW, 64, |a, b, _| (i(a) as i64 * i(b) as i64) as u64),
    case("mul.wide.s16", HH, 32, |a, b, _| (a as i16 as i32 * b as i16 as i32) as u32 as u64),
    case("mad.lo.s32", WWW, 32, |a, b, c| u(a).wrapping_mul(u(b)).wrapping_add(u(c)) as u64),
    case("mad.wide.u32", &[32, 32, 64], 64, |a, b, c| ((a & 0xffff_ffff) * (b & 0xffff_ffff)).wrapping_add(c)),
    case("mad.wide.s32", &[32, 32, 64], 64, |a, b, c| (i(a) as i64 * i(b) as i64).wrapping_add(c as i64) as u64),
    case("div.s32", WW, 32, |a, b, _| if i(b) == 0 { 0xffff_ffff } else { i(a).wrapping_div(i(b)) as u32 as u64 }),
    case("div.u32", WW, 32, |a, b, _| u(a).checked_div(u(b)).unwrap_or(!0) as u64),
    case("rem.u64", LL, 64, |a, b, _| a.checked_rem(b).unwrap_or(a)),
    case("rem.s32", WW, 32, |a, b, _| if i(b) == 0 { u(a) as u64 } else { i(a).wrapping_rem(i(b)) as u32 as u64 }),
    case("min.s32", WW, 32, |a, b, _| i(a).min(i(b)) as u32 as u64),
    case("max.u64", LL, 64, |a, b, _| a.max(b)),
    case("abs.s32", W, 32, |a, _, _| i(a).wrapping_abs() as u32 as u64),
    case("neg.s64", L, 64, |a, _, _| a.wrapping_neg()),
    case("sad.u32", WWW, 32, |a, b, c| u(a).abs_diff(u(b)).wrapping_add(u(c)) as u64),
    case("popc.b64", L, 32, |a, _, _| a.count_ones() as u64),
    case("clz.b32", W, 32, |a, _, _| u(a).leading_zeros() as u64),
    case("brev.b32", W, 32, |a, _, _| u(a).reverse_bits() as u64),
    case("bfind.u32", W, 32, |a, _, _| if u(a) == 0 { 0xffff_ffff } else { 31 - u(a).leading_zeros() as u64 }),
    case("bfind.s32", W, 32, |a, _, _| {
        let v = if i(a) < 0 { !u(a) } else { u(a) };
        if v == 0 { 0xffff_ffff } else { 31 - v.leading_zeros() as u64 }
    }),
    case("bfe.u32", WWW, 32, |a, p, n| field(u(a) as u64, 32, p & 255, n & 255, false)),
    case("bfe.s32", WWW, 32, |a, p, n| field(u(a) as u64, 32, p & 255, n & 255, true)),
    case("bfe.u64", &[64, 32, 32], 64, |a, p, n| field(a, 64, p & 255, n & 255, false)),
    case("bfe.s64", &[64, 32, 32], 64, |a, p, n| field(a, 64, p & 255, n & 255, true)),
    case("and.b32", WW, 32, |a, b, _| a & b & 0xffff_ffff),
    case("xor.b64", LL, 64, |a, b, _| a ^ b),
    case("not.b16", H, 16, |a, _, _| !a & 0xffff),
    case("shl.b32", WW, 32, |a, n, _| u(a).checked_shl(u(n)).unwrap_or(0) as u64),
    case("shr.u32", WW, 32, |a, n, _| u(a).checked_shr(u(n)).unwrap_or(0) as u64),
    case("shr.s32", WW, 32, |a, n, _| (i(a) >> u(n).min(31)) as u32 as u64),
    case("shl.b64", &[64, 32], 64, |a, n, _| a.checked_shl(u(n)).unwrap_or(0)),
    case("shf.l.wrap.b32", WWW, 32, |a, b, n| {
        let n = n & 31;
        if n == 0 { b & 0xffff_ffff } else { (u(b) << n | u(a) >> (32 - n)) as u64 }
    }),
    case("shf.r.clamp.b32", WWW, 32, |a, b, n| {
        let n = u(n).min(32) as u64;
        (((b & 0xffff_ffff) << 32 | a & 0xffff_ffff) >> n) & 0xffff_ffff
    }),
    case("prmt.b32", WWW, 32, |a, b, c| {
        let bytes = [u(a).to_le_bytes(), u(b).to_le_bytes()].concat();
        (0..4).fold(0, |r, k| {
            let s = c >> (4 * k) & 15;
            let v = bytes[(s & 7) as usize];
            let v = if s & 8 != 0 { if v & 0x80 != 0 { 0xff } else { 0 } } else { v };
            r | (v as u64) << (8 * k)
        })
    }),
    case("add.f32", WW, 32, |a, b, _| bits(f(a) + f(b))),
    case("add.ftz.f32", WW, 32, |a, b, _| bits(flush(flush(f(a)) + flush(f(b))))),
    case("mul.f32", WW, 32, |a, b, _| bits(f(a) * f(b))),
    case("fma.rn.f32", WWW, 32, |a, b, c| bits(f(a).mul_add(f(b), f(c)))),
    case("fma.rn.sat.f32", WWW, 32, |a, b, c| {
        let r = f(a).mul_add(f(b), f(c));
        (if r > 0.0 { r.min(1.0) } else { 0.0 }).to_bits() as u64
    }),
    case("sub.f64", LL, 64, |a, b, _| (f64::from_bits(a) - f64::from_bits(b)).to_bits()),
    case("fma.rn.f64", LLL, 64, |a, b, c| f64::from_bits(a).mul_add(f64::from_bits(b), f64::from_bits(c)).to_bits()),
    case("div.rn.f32", WW, 32, |a, b, _| bits(f(a) / f(b))),
    case("sqrt.rn.f32", W, 32, |a, _, _| bits(f(a).sqrt())),
    case("rcp.rn.f32", W, 32, |a, _, _| bits(1.0 / f(a))),
    case(
        "min.f32",
        WW,
        32,
        |a, b, _| {
            if f(a) == 0.0 && f(b) == 0.0 { (a | b) & 0xffff_ffff } else { bits(f(a).min(f(b))) }
        },
    ),
    case("max.NaN.f32", WW, 32, |a, b, _| {
        if f(a).is_nan() || f(b).is_nan() {
            0x7fff_ffff
        } else if f(a) == 0.0 && f(b) == 0.0 {
            a & b & 0xffff_ffff
        } else {
            bits(f(a).max(f(b)))
        }
    }),
    case("neg.f32", W, 32, |a, _, _| (a ^ 0x8000_0000) & 0xffff_ffff),
    case("copysign.f32", WW, 32, |a, b, _| f(b).copysign(f(a)).to_bits() as u64),
    case("add.bf16", HH, 16, |a, b, _| hb(half::bf16::from_f64(h(a).to_f64() + h(b).to_f64()))),
    case("mul.bf16", HH, 16, |a, b, _| hb(half::bf16::from_f64(h(a).to_f64() * h(b).to_f64()))),
    case("fma.rn.bf16", HHH, 16, |a, b, c| nearest_bf16(h(a).to_f64() * h(b).to_f64(), h(c).to_f64())),
    case("cvt.s64.s32", W, 64, |a, _, _| i(a) as i64 as u64),
    case("cvt.u32.u16", H, 32, |a, _, _| a & 0xffff),
    case("cvt.s32.s8", W, 32, |a, _, _| a as i8 as i32 as u32 as u64),
    case("cvt.sat.u8.s32", W, 16, |a, _, _| i(a).clamp(0, 255) as u64),
    case("cvt.rzi.s32.f32", W, 32, |a, _, _| f(a) as i32 as u32 as u64),
    case("cvt.rni.s32.f32", W, 32, |a, _, _| f(a).round_ties_even() as i32 as u32 as u64),
    case("cvt.rmi.u32.f32", W, 32, |a, _, _| f(a).floor() as u32 as u64),
    case("cvt.rzi.s64.f32", W, 64, |a, _, _| if f(a).is_nan() { 1 << 63 } else { f(a) as i64 as u64 }),
    case("cvt.rn.f32.s32", W, 32, |a, _, _| bits(i(a) as f32)),
    case("cvt.rn.f32.u64", L, 32, |a, _, _| bits(a as f32)),
    case("cvt.rn.f64.s64", L, 64, |a, _, _| (a as i64 as f64).to_bits()),
    case("cvt.rn.f32.f64", L, 32, |a, _, _| bits(f64::from_bits(a) as f32)),
    case("cvt.rni.f32.f32", W, 32, |a, _, _| bits(f(a).round_ties_even())),
    case("cvt.rn.bf16.f32", W, 16, |a, _, _| hb(half::bf16::from_f32(f(a)))),
    case("cvt.rn.relu.bf16.f32", W, 16, |a, _, _| if f(a) <= 0.0 { 0 } else { hb(half::bf16::from_f32(f(a))) }),
    case("cvt.rn.f16.f32", W, 16, |a, _, _| {
        let x = half::f16::from_f32(f(a));
        if x.is_nan() { 0x7fff } else { x.to_bits() as u64 }
    }),
    case("cvt.rn.bf16x2.f32", WW, 32, |a, b, _| hb(half::bf16::from_f32(f(a))) << 16 | hb(half::bf16::from_f32(f(b)))),
    case("cvt.rna.tf32.f32", W, 32, |a, _, _| {
        if f(a).is_nan() {
            0x7fff_ffff
        } else if f(a).is_infinite() {
            a & 0xffff_ffff
        } else {
            (u(a).wrapping_add(0x1000) & !0x1fff) as u64
        }
    }),
];

/// A field of `n` bits from `p` on, as the definition of `bfe` tells it, bit by bit.
fn field(a: u64, width: u64, p: u64, n: u64, signed: bool) -> u64 {
    let bit = |k: u64| a >> k & 1;
    let sign = if signed && n != 0 { bit((p + n - 1).min(width - 1)) } else { 0 };
    (0..width).fold(0, |r, k| r | (if k < n && p + k < width { bit(p + k) } else { sign }) << k)
}

/// The bf16 nearest to p + c, where p is exact: found among the neighbours of a first guess by exact comparison.
fn nearest_bf16(p: f64, c: f64) -> u64 {
    let sum = p + c;
    if !sum.is_finite() {
        return hb(half::bf16::from_f64(sum));
    }
    let bb = sum - p;
    let error = (p - (sum - bb)) + (c - bb);
    // The two neighbours of the magnitude, and which side of their middle it lies on; in the middle the error decides,
    // then the even pattern.
    let t = sum.abs();
    let value = |b: u64| if b == 0x7f80 { 2f64.powi(128) } else { f32::from_bits((b as u32) << 16) as f64 };
    let mut low = (t as f32).min(f32::MAX).to_bits() as u64 >> 16;
    while value(low) > t {
        low -= 1;
    }
    let beyond = (t - (value(low) + value(low + 1)) / 2.0, error * sum.signum());
    let up = beyond.0 > 0.0 || (beyond.0 == 0.0 && (beyond.1 > 0.0 || (beyond.1 == 0.0 && low & 1 == 1)));
    (sum.is_sign_negative() as u64) << 15 | (low + up as u64)
}

/// One kernel for each case: it reads its operands, runs the instruction, writes the result.
fn module() -> String {
    let mut text = String::from(".version 8.8\n.target sm_90\n.address_size 64\n");
    for (k, c) in CASES.iter().enumerate() {
        text += &format!(".visible .entry k{k}(.param .u64 pa, .param .u64 pb, .param .u64 pc, .param .u64 pd) {{\n");
        text += ".reg .b32 %t<4>;\n.reg .b64 %a<8>;\nmov.u32 %t0, %tid.x;\nmov.u32 %t1, %ctaid.x;\nmad.lo.u32 %t0, %t1, 128, %t0;\n";
        let mut operands = Vec::new();
        for (j, w) in c.from.iter().enumerate() {
            let p = ["pa", "pb", "pc"][j];
            text += &format!(
                ".reg .b{w} %x{j};\nld.param.u64 %a{j}, [{p}];\nmad.wide.u32 %a{j}, %t0, {}, %a{j};\nld.global.b{w} %x{j}, [%a{j}];\n",
                8
            );
            operands.push(format!("%x{j}"));
        }
        text += &format!(
            ".reg .b{0} %o;\n{1} %o, {2};\nld.param.u64 %a4, [pd];\nmad.wide.u32 %a4, %t0, 8, %a4;\nst.global.b{0} [%a4], %o;\nret;\n}}\n",
            c.to,
            c.op,
            operands.join(", ")
        );
    }
    text
}

fn check(triples: &[(u64, u64, u64)]) {
    thread_local!(static GPU: RefCell<Gpu> = RefCell::new(Gpu::new(&module())));
    GPU.with(|g| {
        let mut g = g.borrow_mut();
        let n = triples.len();
        let inputs = [0, 1, 2].map(|j| {
            let v: Vec<u64> = triples.iter().map(|t| [t.0, t.1, t.2][j]).collect();
            g.upload(&v)
        });
        for (k, c) in CASES.iter().enumerate() {
            let out = g.upload(&vec![0u64; n]);
            let args = [Arg::Ptr(inputs[0]), Arg::Ptr(inputs[1]), Arg::Ptr(inputs[2]), Arg::Ptr(out)];
            g.run(&format!("k{k}"), n as u32 / 128, 128, 0, &args);
            let got = g.read::<u64>(out, n);
            for (t, got) in triples.iter().zip(got) {
                let cut = |j: usize, v: u64| c.from.get(j).map_or(0, |w| if *w == 64 { v } else { v & ((1 << w) - 1) });
                let want = (c.f)(cut(0, t.0), cut(1, t.1), cut(2, t.2));
                let nan64 = c.to == 64
                    && c.op.ends_with("f64")
                    && f64::from_bits(want).is_nan()
                    && f64::from_bits(got).is_nan();
                assert!(want == got || nan64, "{} of {:#x} {:#x} {:#x}: {got:#x}, not {want:#x}", c.op, t.0, t.1, t.2);
            }
            g.machine.memory.free(out, &[softgpu::device::memory::Purpose::Device]);
        }
        inputs.iter().for_each(|a| drop(g.machine.memory.free(*a, &[softgpu::device::memory::Purpose::Device])));
    });
}

/// Values in which boundaries are frequent.
fn value() -> impl Strategy<Value = u64> {
    let edges = [
        0,
        1,
        31,
        32,
        33,
        63,
        64,
        0x7f,
        0x80,
        0xff,
        0x7fff,
        0x8000,
        0xffff,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        0x3f80_0000,
        0xbf80_0000,
        0x7f80_0000,
        0xff80_0000,
        0x7fc0_0000,
        0x0040_0000,
        1 << 63,
        !0,
    ];
    prop_oneof![
        2 => any::<u64>(),
        1 => proptest::sample::select(edges.to_vec()),
        1 => 0u64..200,
        1 => (-100f32..100.0).prop_map(|x| x.to_bits() as u64),
        1 => (-100f64..100.0).prop_map(|x| x.to_bits()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn instructions_agree_with_their_definitions(t in proptest::collection::vec((value(), value(), value()), 256)) {
        check(&t);
    }
}

/// Conversions to and from 16 and 8 bits, for every pattern of the short side.
#[test]
fn every_pattern_of_the_short_formats_converts() {
    let ptx = ".version 8.8\n.target sm_90\n.address_size 64\n.visible .entry k(.param .u64 p) {\n\
        .reg .b32 %r<8>;\n.reg .b64 %a<2>;\n.reg .b16 %h<8>;\n.reg .f32 %f<8>;\n\
        mov.u32 %r0, %tid.x;\nmov.u32 %r1, %ctaid.x;\nmad.lo.u32 %r0, %r1, 256, %r0;\ncvt.u16.u32 %h0, %r0;\n\
        cvt.f32.bf16 %f0, %h0;\ncvt.f32.f16 %f1, %h0;\ncvt.rn.f16x2.e4m3x2 %r2, %h0;\ncvt.rn.f16x2.e5m2x2 %r3, %h0;\n\
        mov.b32 %r4, {%h0, %h0};\ncvt.rn.satfinite.e4m3x2.f16x2 %h1, %r4;\ncvt.rn.satfinite.e5m2x2.f16x2 %h2, %r4;\nmov.b32 %r5, {%h1, %h2};\n\
        ld.param.u64 %a0, [p];\nmad.wide.u32 %a0, %r0, 20, %a0;\n\
        st.global.f32 [%a0], %f0;\nst.global.f32 [%a0+4], %f1;\nst.global.b32 [%a0+8], %r2;\nst.global.b32 [%a0+12], %r3;\nst.global.b32 [%a0+16], %r5;\nret;\n}\n";
    let mut g = Gpu::new(ptx);
    let out = g.empty(65536 * 20);
    g.run("k", 256, 256, 0, &[Arg::Ptr(out)]);
    let got = g.read::<u32>(out, 65536 * 5);
    let same = |a: u32, b: f32| if b.is_nan() { f32::from_bits(a).is_nan() } else { a == b.to_bits() };
    for (x, r) in got.chunks(5).enumerate() {
        let x = x as u16;
        assert!(
            same(r[0], half::bf16::from_bits(x).to_f32()) && same(r[1], half::f16::from_bits(x).to_f32()),
            "{x:#x}"
        );
        // fp8: exponent and mantissa read as the formats define them.
        for (k, byte) in x.to_le_bytes().into_iter().enumerate() {
            let sign = if byte & 0x80 != 0 { -1.0 } else { 1.0 };
            let (e, m) = ((byte >> 3 & 15) as i32, (byte & 7) as f32);
            let e4m3 = if e == 0 { sign * m * 2f32.powi(-9) } else { sign * (1.0 + m / 8.0) * 2f32.powi(e - 7) };
            let half_bits = half::f16::from_bits((r[2] >> (16 * k)) as u16);
            assert!(if byte & 0x7f == 0x7f { half_bits.is_nan() } else { half_bits.to_f32() == e4m3 }, "{byte:#x}");
            let e5m2 = half::f16::from_bits((byte as u16) << 8);
            let got = half::f16::from_bits((r[3] >> (16 * k)) as u16);
            assert!(got == e5m2 || (got.is_nan() && e5m2.is_nan()), "{byte:#x}");
        }
        let value = half::f16::from_bits(x);
        if !value.is_nan() {
            // The nearest e4m3 is no farther than its neighbours.
            let c = r[4] as u8;
            let decode = |c: u8| softgpu::num::e4m3_to_f32(c);
            let d = |c: u8| (decode(c) - value.to_f32().clamp(-448.0, 448.0)).abs();
            assert!(d(c) <= d(c ^ 1) || decode(c ^ 1).is_nan(), "{x:#x} to {c:#x}");
            assert_eq!(c & 0x80 != 0, value.is_sign_negative());
        }
    }
}
