//! The machine's approximate functions, each at least as exact as the error that NVIDIA documents for it.

use super::{NAN32, canon, ftz};

/// `2^x`, relative error under 2^-22.5; subnormal results are made.
#[inline(always)]
pub fn ex2(x: f32) -> f32 {
    if x.is_nan() {
        return NAN32;
    }
    let x = x.clamp(-200.0, 200.0);
    let whole = (x + 12_582_912.0) - 12_582_912.0;
    let t = (x - whole) * std::f32::consts::LN_2;
    // exp(t) for |t| ≤ ln2/2: the series to t^7 is exact to 2^-29 there.
    let mut p = 1.0 / 5040.0f32;
    p = p.mul_add(t, 1.0 / 720.0);
    p = p.mul_add(t, 1.0 / 120.0);
    p = p.mul_add(t, 1.0 / 24.0);
    p = p.mul_add(t, 1.0 / 6.0);
    p = p.mul_add(t, 0.5);
    p = p.mul_add(t, 1.0);
    p = p.mul_add(t, 1.0);
    // Two factors, so that neither exponent leaves the normal range.
    let n = whole as i32;
    let half = n >> 1;
    let power = |e: i32| f32::from_bits(((e + 127) as u32) << 23);
    p * power(half) * power(n - half)
}

/// `1 / sqrt(x)`.
#[inline(always)]
pub fn rsqrt(x: f32) -> f32 {
    canon((1.0 / (x as f64).sqrt()) as f32)
}

/// `1 / x`.
#[inline(always)]
pub fn rcp(x: f32) -> f32 {
    canon(1.0 / x)
}

/// `a / b` with the range of div.approx: |b| from 2^126 up gives a zero.
#[inline(always)]
pub fn div(a: f32, b: f32) -> f32 {
    if b.abs() > f32::from_bits(0x7e80_0000) && b.is_finite() && a.is_finite() {
        return if a.is_sign_negative() != b.is_sign_negative() { -0.0 } else { 0.0 };
    }
    canon(a / b)
}

/// `log2(x)`; subnormal inputs are read as they are.
#[inline(always)]
pub fn lg2(x: f32) -> f32 {
    canon(x.log2())
}

/// `tanh(x)`.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    canon(x.tanh())
}

/// `sin(x)`.
#[inline(always)]
pub fn sin(x: f32) -> f32 {
    canon(x.sin())
}

/// `cos(x)`.
#[inline(always)]
pub fn cos(x: f32) -> f32 {
    canon(x.cos())
}

/// `2^x` with subnormal inputs and results flushed.
#[inline(always)]
pub fn ex2_ftz(x: f32) -> f32 {
    ftz(ex2(ftz(x)))
}
