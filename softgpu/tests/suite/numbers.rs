//! Formats of numbers, against another implementation or by looking at every value.

use softgpu::num::*;

#[test]
fn every_f16_survives_the_way_to_f32_and_back() {
    for h in 0..=u16::MAX {
        let x = f16_to_f32(h);
        assert!(x.is_nan() == half::f16::from_bits(h).is_nan());
        if !x.is_nan() {
            assert_eq!(x.to_bits(), half::f16::from_bits(h).to_f32().to_bits());
            assert_eq!(f16_from_f32(x), h);
            assert_eq!(f16_from_f32_rz(x), h);
        }
    }
}

#[test]
fn rounding_to_16_bits_agrees_with_half() {
    // Around every boundary: each 16-bit pattern as upper bits, with lower bits that round down, tie and round up.
    for hi in 0..=u16::MAX as u32 {
        for lo in [0, 1, 0xfff, 0x1000, 0x1001, 0x7fff, 0x8000, 0x8001, 0xffff] {
            let x = f32::from_bits(hi << 16 | lo);
            if x.is_nan() {
                assert_eq!((bf16_from_f32(x), f16_from_f32(x)), (0x7fff, 0x7fff));
                continue;
            }
            assert_eq!(bf16_from_f32(x), half::bf16::from_f32(x).to_bits(), "{x:e}");
            assert_eq!(f16_from_f32(x), half::f16::from_f32(x).to_bits(), "{x:e}");
        }
    }
}

/// The nearest of all values of an 8-bit format, ties to the even pattern, found by looking at each.
fn nearest(x: f32, decode: fn(u8) -> f32, greatest: u8) -> u8 {
    // Beyond the greatest value all distances would round to the same.
    let m = x.abs().min(1e6);
    let mut best = 0u8;
    for c in 0..=greatest {
        let (d, e) = ((decode(c) as f64 - m as f64).abs(), (decode(best) as f64 - m as f64).abs());
        if d < e || (d == e && c & 1 == 0) {
            best = c;
        }
    }
    if x.is_sign_negative() { best | 0x80 } else { best }
}

#[test]
fn every_fp8_is_the_nearest() {
    for hi in (0..=u16::MAX as u32).step_by(3) {
        let x = f32::from_bits(hi << 16 | hi & 0xfff);
        if x.is_nan() {
            assert_eq!((e4m3_from_f32(x), e5m2_from_f32(x)), (0x7f, 0x7f));
            continue;
        }
        assert_eq!(e4m3_from_f32(x), nearest(x, e4m3_to_f32, 0x7e), "{x:e}");
        assert_eq!(e5m2_from_f32(x), nearest(x, e5m2_to_f32, 0x7b), "{x:e}");
    }
    for c in 0..=255u8 {
        let (a, b) = (e4m3_to_f32(c), e5m2_to_f32(c));
        assert!(a.is_nan() || e4m3_from_f32(a) == c);
        assert!(!b.is_finite() || e5m2_from_f32(b) == c);
    }
}
