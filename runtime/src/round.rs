//! Rounding an f64 to a narrower float, to nearest with ties to even, in one step.
//!
//! Going through f32 on the way to bf16 or f16 would round twice: 1 + 2⁻⁸ + 2⁻⁴⁰ lies above the middle of two bf16
//! values, becomes that middle as f32, and would then go down to 1 instead of up.

use mngc_compiler::ir::DType;

/// To binary32.
pub fn round_f32(x: f64) -> f64 {
    x as f32 as f64
}

/// To bfloat16: 8 significant bits, exponents of f32.
pub fn round_bf16(x: f64) -> f64 {
    // The least normal number is 2⁻¹²⁶, the distance of subnormals 2⁻¹³³, and 2¹²⁸ is past the largest value.
    round_bits::<8>(x, power_of_two(-126), power_of_two(-133), power_of_two(128))
}

/// To binary16: 11 significant bits, exponents −14..15.
pub fn round_f16(x: f64) -> f64 {
    round_bits::<11>(x, power_of_two(-14), power_of_two(-24), power_of_two(16))
}

/// To the nearest value of a float dtype; other dtypes leave it.
pub fn round(dtype: DType, x: f64) -> f64 {
    match dtype {
        DType::F32 => round_f32(x),
        DType::BF16 => round_bf16(x),
        DType::F16 => round_f16(x),
        DType::I32 | DType::Bool => x,
    }
}

/// Rounds every element in place.
pub fn round_all(dtype: DType, values: &mut [f64]) {
    match dtype {
        DType::F32 => values.iter_mut().for_each(|x| *x = round_f32(*x)),
        DType::BF16 => values.iter_mut().for_each(|x| *x = round_bf16(*x)),
        DType::F16 => values.iter_mut().for_each(|x| *x = round_f16(*x)),
        DType::I32 | DType::Bool => {}
    }
}

const fn power_of_two(exponent: i64) -> f64 {
    f64::from_bits(((1023 + exponent) as u64) << 52)
}

/// To `BITS` significant bits, with subnormals `tiny` apart below `least_normal` and infinity from `past_largest` on.
#[inline(always)]
fn round_bits<const BITS: u32>(x: f64, least_normal: f64, tiny: f64, past_largest: f64) -> f64 {
    if x.is_nan() {
        return f64::NAN;
    }
    let rounded = if x.abs() < least_normal {
        // Near 1.5·2⁵² the doubles are 1 apart, so the sum rounds to a multiple of `tiny`; copysign keeps −0.
        let anchor = 1.5 * power_of_two(52) * tiny;
        ((x + anchor) - anchor).copysign(x)
    } else {
        // Adding just under half of the last kept bit carries exactly where the number must go up; the extra 1 for an
        // odd last bit sends ties to even. A carry out of the significand raises the exponent, as it should.
        let dropped = 53 - BITS;
        let bits = x.to_bits();
        let half = (1u64 << (dropped - 1)) - 1 + ((bits >> dropped) & 1);
        f64::from_bits((bits + half) >> dropped << dropped)
    };
    if rounded.abs() >= past_largest { f64::INFINITY.copysign(x) } else { rounded }
}
