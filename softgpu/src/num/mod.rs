//! Numbers: formats that Rust lacks, and roundings that it has no name for.

pub mod approx;
pub mod round;

/// The NaN that the machine makes of any invalid f32 operation.
pub const NAN32: f32 = f32::from_bits(0x7fff_ffff);

/// `x`, or the one NaN.
#[inline(always)]
pub fn canon(x: f32) -> f32 {
    // On bits: to the compiler one NaN is as good as another.
    let b = x.to_bits();
    f32::from_bits(if b & 0x7fff_ffff > 0x7f80_0000 { 0x7fff_ffff } else { b })
}

/// `x` with subnormal values flushed to a zero of the same sign.
#[inline(always)]
pub fn ftz(x: f32) -> f32 {
    let b = x.to_bits();
    if b & 0x7f80_0000 == 0 { f32::from_bits(b & 0x8000_0000) } else { x }
}

/// bf16 bits to f32: exact.
#[inline(always)]
pub fn bf16_to_f32(b: u16) -> f32 {
    f32::from_bits((b as u32) << 16)
}

/// f32 to bf16, to nearest even; NaN becomes 0x7fff.
#[inline(always)]
pub fn bf16_from_f32(x: f32) -> u16 {
    let b = x.to_bits();
    let r = b.wrapping_add(0x7fff + (b >> 16 & 1)) >> 16;
    if x.is_nan() { 0x7fff } else { r as u16 }
}

/// f32 to bf16, toward zero.
#[inline(always)]
pub fn bf16_from_f32_rz(x: f32) -> u16 {
    if x.is_nan() { 0x7fff } else { (x.to_bits() >> 16) as u16 }
}

/// f16 bits to f32: exact.
#[inline(always)]
pub const fn f16_to_f32(h: u16) -> f32 {
    let sign = ((h & 0x8000) as u32) << 16;
    let body = (h & 0x7fff) as u32;
    // Scaling by 2^112 moves the exponent's bias and makes subnormal values normal, exactly.
    let scaled = f32::from_bits(body << 13) * f32::from_bits(0x7780_0000);
    let v = if body >= 0x7c00 { f32::from_bits(0x7f80_0000 | body << 13) } else { scaled };
    f32::from_bits(v.to_bits() | sign)
}

/// f32 to f16, to nearest even; NaN becomes 0x7fff.
#[inline(always)]
pub fn f16_from_f32(x: f32) -> u16 {
    small_from_f32::<5, 10>(x, false)
}

/// f32 to f16, toward zero.
#[inline(always)]
pub fn f16_from_f32_rz(x: f32) -> u16 {
    small_from_f32::<5, 10>(x, true)
}

/// f32 to an IEEE-like format of `E` exponent and `M` mantissa bits with infinities; NaN is all ones without the sign.
#[inline(always)]
fn small_from_f32<const E: u32, const M: u32>(x: f32, toward_zero: bool) -> u16 {
    let b = x.to_bits();
    let sign = (b >> 31) as u16;
    let top = (1u32 << (E + M)) - 1;
    let infinity = ((1u32 << E) - 1) << M;
    let magnitude = b & 0x7fff_ffff;
    let out = if magnitude > 0x7f80_0000 {
        return top as u16;
    } else if magnitude == 0x7f80_0000 {
        infinity
    } else {
        let r = magnitude_to_small::<E, M>(magnitude, toward_zero);
        if r >= infinity && toward_zero { infinity - 1 } else { r.min(infinity) }
    };
    sign << (E + M) | out as u16
}

/// The finite magnitude (f32 bits) in a smaller format, as its bits; it may be beyond the greatest exponent.
#[inline(always)]
fn magnitude_to_small<const E: u32, const M: u32>(magnitude: u32, toward_zero: bool) -> u32 {
    let bias = (1i32 << (E - 1)) - 1;
    let exponent = (magnitude >> 23) as i32 - 127;
    let shift_normal = 23 - M;
    let (mantissa, shift, base) = if exponent >= 1 - bias {
        let e = (exponent + bias) as u32;
        (magnitude & 0x7f_ffff, shift_normal, e << M)
    } else {
        let extra = (1 - bias - exponent) as u32;
        let m = if magnitude >> 23 == 0 { 0 } else { magnitude & 0x7f_ffff | 0x80_0000 };
        (m, (shift_normal + extra).min(31), 0)
    };
    let kept = mantissa >> shift;
    if toward_zero {
        return base + kept;
    }
    let rest = mantissa & ((1 << shift) - 1);
    let half = 1u32 << (shift - 1);
    base + kept + (rest > half || (rest == half && (base + kept) & 1 == 1)) as u32
}

/// f32 to e4m3 (no infinities, greatest 448), to nearest even; greater values become ±448, NaN 0x7f.
#[inline(always)]
pub fn e4m3_from_f32(x: f32) -> u8 {
    if x.is_nan() {
        return 0x7f;
    }
    let sign = (x.to_bits() >> 31) as u8;
    let magnitude = x.to_bits() & 0x7fff_ffff;
    let r = if magnitude >= 0x7f80_0000 { 0x7e } else { magnitude_to_small::<4, 3>(magnitude, false).min(0x7e) };
    sign << 7 | r as u8
}

/// f32 to e5m2, to nearest even; values over the greatest become ±57344, NaN 0x7f.
#[inline(always)]
pub fn e5m2_from_f32(x: f32) -> u8 {
    if x.is_nan() {
        return 0x7f;
    }
    let sign = (x.to_bits() >> 31) as u8;
    let magnitude = x.to_bits() & 0x7fff_ffff;
    let r = if magnitude >= 0x7f80_0000 { 0x7b } else { magnitude_to_small::<5, 2>(magnitude, false).min(0x7b) };
    sign << 7 | r as u8
}

/// e4m3 bits to f32: exact.
#[inline(always)]
pub const fn e4m3_to_f32(b: u8) -> f32 {
    let (e, m) = ((b >> 3 & 15) as i32, (b & 7) as f32);
    let v = if b & 0x7f == 0x7f {
        NAN32
    } else if e == 0 {
        m * f32::from_bits(((127 - 9) as u32) << 23)
    } else {
        (1.0 + m / 8.0) * f32::from_bits(((127 + e - 7) as u32) << 23)
    };
    if b & 0x80 != 0 { -v } else { v }
}

/// e5m2 bits to f32: exact.
#[inline(always)]
pub const fn e5m2_to_f32(b: u8) -> f32 {
    f16_to_f32((b as u16) << 8)
}

const fn table(e4m3: bool) -> [f32; 256] {
    let mut out = [0.0; 256];
    let mut i = 0;
    while i < 256 {
        out[i] = if e4m3 { e4m3_to_f32(i as u8) } else { e5m2_to_f32(i as u8) };
        i += 1;
    }
    out
}

/// All values of e4m3.
pub static E4M3_VALUES: [f32; 256] = table(true);
/// All values of e5m2.
pub static E5M2_VALUES: [f32; 256] = table(false);

/// f32 to tf32, to nearest, ties away from zero: 10 bits of mantissa are kept.
#[inline(always)]
pub fn tf32_rna(x: f32) -> f32 {
    if !x.is_finite() {
        return canon(x);
    }
    f32::from_bits(x.to_bits().wrapping_add(0x1000) & !0x1fff)
}

/// f32 to tf32, to nearest even.
#[inline(always)]
pub fn tf32_rn(x: f32) -> f32 {
    if !x.is_finite() {
        return canon(x);
    }
    let b = x.to_bits();
    f32::from_bits(b.wrapping_add(0xfff + (b >> 13 & 1)) & !0x1fff)
}

/// What the tensor core reads of a tf32 operand: its upper 19 bits.
#[inline(always)]
pub fn tf32_read(x: f32) -> f32 {
    f32::from_bits(x.to_bits() & !0x1fff)
}
