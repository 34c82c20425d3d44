//! Elementary functions of f32 without branches, so that loops over them become vector code.
//!
//! Each reduces its argument and evaluates a polynomial on what is left (the method and the coefficients are those of
//! Moshier's Cephes library for single precision). Errors against the exact value, in units of the last place, as the
//! tests below find them over the whole range: exp 1, log 1, tanh 2, sin and cos 2, sigmoid 3, silu and gelu 4. NaN gives NaN.
//! Where subnormal numbers stand on the way, so do their few digits.

#![allow(clippy::excessive_precision, reason = "coefficients stand as they were published")]

use super::simd::mul_add;

/// 1.5·2²³: added to a small number, it leaves the nearest integer in the last bits.
const ROUNDER: f32 = 12_582_912.0;

/// c₀xⁿ + c₁xⁿ⁻¹ + … + cₙ.
#[inline(always)]
fn polynomial<const FMA: bool, const N: usize>(x: f32, c: [f32; N]) -> f32 {
    let mut sum = c[0];
    for c in &c[1..] {
        sum = mul_add::<FMA>(sum, x, *c);
    }
    sum
}

/// 2ⁿ for −127 < n < 128.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) << 23) as u32)
}

/// eˣ.
#[inline(always)]
pub fn exp<const FMA: bool>(x: f32) -> f32 {
    // Beyond these the result is 0 or ∞; comparisons are false for NaN, which stays.
    let x = if x < -105.0 { -105.0 } else { x };
    let x = if x > 89.0 { 89.0 } else { x };
    let shifted = mul_add::<FMA>(x, std::f32::consts::LOG2_E, ROUNDER);
    let n = shifted - ROUNDER;
    let exponent = shifted.to_bits().wrapping_sub(ROUNDER.to_bits()) as i32;
    // ln 2 in two parts, the first of few bits so that n times it is exact.
    let r = mul_add::<FMA>(n, -0.693_359_4, x);
    let r = mul_add::<FMA>(n, 2.121_944_4e-4, r);
    let c = [1.987_569_2e-4, 1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
    let p = polynomial::<FMA, 6>(r, c);
    let y = mul_add::<FMA>(p, r * r, r) + 1.0;
    // In two steps: n reaches from −152 to 128.
    let half = exponent >> 1;
    y * power_of_two(half) * power_of_two(exponent.wrapping_sub(half))
}

/// ln x: −∞ at 0, NaN below.
#[inline(always)]
pub fn log<const FMA: bool>(x: f32) -> f32 {
    let is_small = x < f32::MIN_POSITIVE;
    let scaled = if is_small { x * 16_777_216.0 } else { x };
    // The exponent for a significand in [√½, √2).
    let bits = scaled.to_bits() as i32;
    let exponent = bits.wrapping_sub(0x3f35_04f3) >> 23;
    let m = f32::from_bits(bits.wrapping_sub(exponent << 23) as u32);
    let e = exponent.wrapping_sub(if is_small { 24 } else { 0 }) as f32;
    let f = m - 1.0;
    let z = f * f;
    let c = [
        7.037_683_6e-2,
        -1.151_461e-1,
        1.167_699_9e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_8e-1,
        2.000_071_5e-1,
        -2.499_999_4e-1,
        3.333_333_1e-1,
    ];
    let y = f * z * polynomial::<FMA, 9>(f, c);
    let y = mul_add::<FMA>(e, -2.121_944_4e-4, y);
    let y = mul_add::<FMA>(z, -0.5, y);
    let y = mul_add::<FMA>(e, 0.693_359_4, f + y);
    let y = if x == f32::INFINITY { f32::INFINITY } else { y };
    let y = if x == 0.0 { f32::NEG_INFINITY } else { y };
    if x >= 0.0 { y } else { f32::NAN }
}

/// tanh x.
#[inline(always)]
pub fn tanh<const FMA: bool>(x: f32) -> f32 {
    let z = x * x;
    let c = [-5.704_988_7e-3, 2.063_908_9e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328_2e-1];
    let near = mul_add::<FMA>(polynomial::<FMA, 5>(z, c) * z, x, x);
    let far = 1.0 - 2.0 / (exp::<FMA>(2.0 * x.abs()) + 1.0);
    if x.abs() < 0.625 { near } else { far.copysign(x) }
}

/// 1/(1 + e⁻ˣ) and 1/(1 + eˣ), each without cancellation, of x + `more`, `more` being tiny.
#[inline(always)]
fn sigmoids<const FMA: bool>(x: f32, more: f32) -> (f32, f32) {
    let e = exp::<FMA>(-x.abs());
    // e^−|x + more| ≈ e^−|x|·(1 − ±more).
    let e = mul_add::<FMA>(e, -more.copysign(more * x), e);
    let large = 1.0 / (1.0 + e);
    let small = e * large;
    if x >= 0.0 { (large, small) } else { (small, large) }
}

/// 1/(1 + e⁻ˣ).
#[inline(always)]
pub fn sigmoid<const FMA: bool>(x: f32) -> f32 {
    sigmoids::<FMA>(x, 0.0).0
}

/// x·sigmoid(x).
#[inline(always)]
pub fn silu<const FMA: bool>(x: f32) -> f32 {
    x * sigmoid::<FMA>(x)
}

/// s·(1 + x·(1 − s)) with s = sigmoid(x).
#[inline(always)]
pub fn silu_grad<const FMA: bool>(x: f32) -> f32 {
    let (s, rest) = sigmoids::<FMA>(x, 0.0);
    s * mul_add::<FMA>(x, rest, 1.0)
}

/// 2·√(2/π), of GELU.
const GELU_SCALE: f64 = 1.595_769_121_605_730_8;
/// The cubic coefficient of GELU, times the scale.
const GELU_CUBIC: f64 = GELU_SCALE * 0.044_715;

/// The sigmoids of 2u, for ½(1 + tanh u) = sigmoid(2u), u being the inner part of GELU. The inner part is computed in
/// f64: e to the power of it would multiply its rounding.
#[inline(always)]
fn gelu_sigmoids<const FMA: bool>(x: f32) -> (f32, f32) {
    let wide = f64::from(x);
    let inner = wide * (GELU_SCALE + GELU_CUBIC * wide * wide);
    let high = inner as f32;
    // Where it is infinite, its rest is not a number.
    let low = if high.abs() < 1e3 { (inner - f64::from(high)) as f32 } else { 0.0 };
    sigmoids::<FMA>(high, low)
}

/// ½x(1 + tanh(√(2/π)(x + 0.044715x³))).
#[inline(always)]
pub fn gelu<const FMA: bool>(x: f32) -> f32 {
    let s = gelu_sigmoids::<FMA>(x).0;
    // −∞·0 would be NaN here, and in the formula it is.
    x * s
}

/// The derivative of [`gelu`].
#[inline(always)]
pub fn gelu_grad<const FMA: bool>(x: f32) -> f32 {
    let (s, rest) = gelu_sigmoids::<FMA>(x);
    let slope = mul_add::<FMA>(3.0 * GELU_CUBIC as f32 * x, x, GELU_SCALE as f32);
    mul_add::<FMA>(x * s * rest, slope, s)
}

/// Angles from here on are reduced one by one.
pub const FAR: f32 = 1e6;

/// sin and cos of an angle below [`FAR`], reduced in f64.
#[inline(always)]
pub fn sin_cos<const FMA: bool>(x: f64) -> (f32, f32) {
    const ROUNDER: f64 = 6_755_399_441_055_744.0;
    let shifted = x * std::f64::consts::FRAC_2_PI + ROUNDER;
    let n = shifted - ROUNDER;
    let quarter = shifted.to_bits() as u32;
    // π/2 in two parts, the first of 33 bits so that n times it is exact.
    let r = x - n * 1.570_796_326_734_125_6;
    let r = (r - n * 6.077_100_506_506_192e-11) as f32;
    let z = r * r;
    let sin = polynomial::<FMA, 3>(z, [-1.951_529_6e-4, 8.332_161e-3, -1.666_665_5e-1]);
    let sin = mul_add::<FMA>(sin * z, r, r);
    let cos = polynomial::<FMA, 3>(z, [2.443_315_7e-5, -1.388_731_6e-3, 4.166_664_6e-2]);
    let cos = mul_add::<FMA>(cos * z, z, mul_add::<FMA>(z, -0.5, 1.0));
    let (s, c) = if quarter & 1 == 0 { (sin, cos) } else { (cos, sin) };
    let s = if quarter & 2 == 0 { s } else { -s };
    let c = if quarter.wrapping_add(1) & 2 == 0 { c } else { -c };
    (s, c)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Floats of every exponent and sign, and special ones.
    fn floats() -> impl Iterator<Item = f32> {
        let special = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MIN_POSITIVE, 1.0, -1.0];
        special.into_iter().chain((0..u32::MAX).step_by(3001).map(f32::from_bits))
    }

    /// Units of the last place between a value and the exact one.
    fn ulps(actual: f32, exact: f64) -> f64 {
        let nearest = exact as f32;
        if actual == nearest || (actual.is_nan() && exact.is_nan()) {
            return 0.0;
        }
        if !actual.is_finite() || !nearest.is_finite() {
            return f64::INFINITY;
        }
        // Subnormal numbers on the way have fewer digits: results near them are measured by the digits of 2⁻¹¹⁹.
        let exponent = nearest.abs().max(1.5e-36).log2().floor();
        (f64::from(actual) - exact).abs() / f64::from(exponent - 23.0).exp2()
    }

    fn check(name: &str, most: f64, f: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64) {
        let (mut worst, mut at) = (0.0, 0.0);
        for x in floats() {
            let error = ulps(f(x), exact(f64::from(x)));
            if error > worst {
                (worst, at) = (error, x);
            }
        }
        assert!(worst <= most, "{name}({at:e}) is {worst} ulp off: {:e}", f(at));
    }

    fn sigmoid64(x: f64) -> f64 {
        if x >= 0.0 { 1.0 / (1.0 + (-x).exp()) } else { x.exp() / (1.0 + x.exp()) }
    }

    #[test]
    fn errors_are_what_the_header_says() {
        check("exp", 1.0, exp::<true>, f64::exp);
        check("exp", 1.0, exp::<false>, f64::exp);
        check("log", 1.0, log::<true>, f64::ln);
        check("log", 1.0, log::<false>, f64::ln);
        check("tanh", 2.0, tanh::<true>, f64::tanh);
        check("tanh", 2.0, tanh::<false>, f64::tanh);
        check("sigmoid", 3.0, sigmoid::<true>, sigmoid64);
        check("sigmoid", 3.0, sigmoid::<false>, sigmoid64);
        check("silu", 4.0, silu::<true>, |x| x * sigmoid64(x));
        let gelu64 = |x: f64| x * sigmoid64(x * (GELU_SCALE + GELU_CUBIC * x * x));
        check("gelu", 4.0, gelu::<true>, gelu64);
        check("gelu", 4.0, gelu::<false>, gelu64);
    }

    #[test]
    fn angles_of_every_size() {
        for (name, pick) in [("sin", 0), ("cos", 1)] {
            let f = |x: f32| {
                if x.abs() >= FAR {
                    return if pick == 0 { f64::from(x).sin() as f32 } else { f64::from(x).cos() as f32 };
                }
                let (sin, cos) = sin_cos::<true>(f64::from(x));
                if pick == 0 { sin } else { cos }
            };
            check(name, 2.0, f, if pick == 0 { f64::sin } else { f64::cos });
        }
    }

    #[test]
    fn gradients_near_their_zeros() {
        for x in floats().filter(|x| x.abs() < 30.0) {
            let wide = f64::from(x);
            let s = sigmoid64(wide);
            let silu = s * (1.0 + wide * (1.0 - s));
            assert!((f64::from(silu_grad::<true>(x)) - silu).abs() <= 4e-7 * silu.abs().max(0.5), "silu_grad({x})");
            let t = sigmoid64(wide * (GELU_SCALE + GELU_CUBIC * wide * wide));
            let gelu = t + wide * t * (1.0 - t) * (GELU_SCALE + 3.0 * GELU_CUBIC * wide * wide);
            assert!((f64::from(gelu_grad::<true>(x)) - gelu).abs() <= 4e-7 * gelu.abs().max(0.5), "gelu_grad({x})");
        }
    }
}
