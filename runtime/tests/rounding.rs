//! Rounding to f32, bf16 and f16: every value of the narrow format, every middle of two neighbours and what lies just
//! beside it.

use half::{bf16, f16};
use mngc_compiler::ir::DType;
use mngc_runtime::round::{round, round_bf16, round_f16, round_f32};
use mngc_runtime::{Data, Format, Tensor};
use proptest::prelude::*;

/// Checks all neighbours among the finite positive values of a 16-bit format, `value` giving the value of a bit pattern.
fn check_all(round: fn(f64) -> f64, value: fn(u16) -> f64, infinity: u16) {
    for bits in 0..infinity {
        let here = value(bits);
        // Where the next value would be infinity, the middle is that of the number that would follow.
        let next = if bits + 1 == infinity { 2.0 * here - value(bits - 1) } else { value(bits + 1) };
        let middle = (here + next) / 2.0;
        let after = if bits + 1 == infinity { f64::INFINITY } else { next };
        let even = if bits % 2 == 0 { here } else { after };
        for sign in [1.0, -1.0] {
            assert_eq!(round(sign * here), sign * here, "{bits:#x}");
            assert_eq!(round(sign * middle), sign * even, "the middle above {bits:#x}");
            assert_eq!(round(sign * middle.next_up()), sign * after, "above the middle above {bits:#x}");
            assert_eq!(round(sign * middle.next_down()), sign * here, "below the middle above {bits:#x}");
        }
    }
}

#[test]
fn bf16_everywhere() {
    check_all(round_bf16, |bits| bf16::from_bits(bits).to_f64(), 0x7f80);
}

#[test]
fn f16_everywhere() {
    check_all(round_f16, |bits| f16::from_bits(bits).to_f64(), 0x7c00);
}

#[test]
fn signs_infinities_and_nan_survive() {
    for f in [round_f32, round_bf16, round_f16] {
        assert!(f(f64::NAN).is_nan());
        assert_eq!(f(f64::INFINITY), f64::INFINITY);
        assert_eq!(f(f64::MIN), f64::NEG_INFINITY);
        for tiny in [-0.0, -1e-300] {
            assert_eq!(f(tiny).to_bits(), (-0.0f64).to_bits());
        }
    }
}

#[test]
fn f32_ties_subnormals_and_overflow() {
    let ulp = f64::from(f32::EPSILON);
    assert_eq!(round_f32(1.0 + ulp / 2.0), 1.0);
    assert_eq!(round_f32(1.0 + 1.5 * ulp), 1.0 + 2.0 * ulp);
    assert_eq!(round_f32(0.1), f64::from(0.1f32));
    let least = f64::from(f32::from_bits(1));
    assert_eq!(round_f32(least / 2.0), 0.0);
    assert_eq!(round_f32((least / 2.0).next_up()), least);
    assert_eq!(round_f32(3.402_823_567_797_336e38), f64::from(f32::MAX));
    assert_eq!(round_f32(3.402_823_567_797_337e38), f64::INFINITY);
}

#[test]
fn one_rounding_not_two() {
    let x = 1.0 + 2f64.powi(-8) + 2f64.powi(-40);
    assert_eq!(round_bf16(x), 1.0 + 2f64.powi(-7));
    assert_eq!(round_bf16(round_f32(x)), 1.0, "by way of f32 it would go down");
}

#[test]
fn other_dtypes_are_left_alone() {
    assert_eq!(round(DType::I32, 0.3), 0.3);
    assert_eq!(Tensor::ints([2], vec![3, 4]).unwrap().rounded(DType::F32).as_ints(), Some(&[3, 4][..]));
}

proptest! {
    #[test]
    fn rounding_is_monotonic_and_idempotent(a in any::<f64>(), b in any::<f64>()) {
        for dtype in [DType::F32, DType::BF16, DType::F16] {
            let (x, y) = (round(dtype, a), round(dtype, b));
            prop_assert_eq!(round(dtype, x).to_bits(), x.to_bits());
            if a <= b {
                prop_assert!(x <= y);
            }
        }
    }

    #[test]
    fn bytes_and_back(values in prop::collection::vec(any::<f64>(), 0..9)) {
        let t = Tensor::floats([values.len()], values).unwrap();
        for (dtype, format) in [(DType::F32, Format::F32), (DType::BF16, Format::BF16), (DType::F16, Format::F16)] {
            let bytes = t.to_bytes(format).unwrap();
            prop_assert_eq!(bytes.len(), t.len() * format.bytes());
            let back = Tensor::from_bytes(t.sizes(), format, &bytes).unwrap();
            prop_assert_eq!(bits(&back), bits(&t.clone().rounded(dtype)));
        }
        let bytes = t.to_bytes(Format::F64).unwrap();
        prop_assert_eq!(bits(&Tensor::from_bytes(t.sizes(), Format::F64, &bytes).unwrap()), bits(&t));
    }
}

/// Bits of the floats, all NaNs alike.
fn bits(t: &Tensor) -> Vec<u64> {
    let Data::Float(v) = t.data() else { panic!("floats") };
    v.iter().map(|x| if x.is_nan() { f64::NAN.to_bits() } else { x.to_bits() }).collect()
}
