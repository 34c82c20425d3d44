//! Elements in and out of f32 registers: storage formats, and rounding in registers.

use half::slice::HalfFloatSliceExt;
use mngc_compiler::ir::DType;

use super::memory::Region;
use super::simd::vectorised;

vectorised! {
    /// bf16 to f32.
    fn from_bf16<FMA>(dst: &mut [f32], src: &[u16]) {
        for (dst, &src) in dst.iter_mut().zip(src) {
            *dst = f32::from_bits(u32::from(src) << 16);
        }
    }
}

/// The bits of the nearest bf16, ties to even.
#[inline(always)]
fn bf16_bits(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1));
    // A NaN stays one, whatever its payload.
    (if x.is_nan() { 0x7fc0_0000 } else { rounded } >> 16) as u16
}

vectorised! {
    /// f32 to the nearest bf16.
    fn to_bf16<FMA>(dst: &mut [u16], src: &[f32]) {
        for (dst, &src) in dst.iter_mut().zip(src) {
            *dst = bf16_bits(src);
        }
    }
}

vectorised! {
    /// Every element becomes the nearest value of bf16.
    pub fn round_bf16<FMA>(dst: &mut [f32], src: &[f32]) {
        for (dst, &src) in dst.iter_mut().zip(src) {
            *dst = f32::from_bits(u32::from(bf16_bits(src)) << 16);
        }
    }
}

/// The nearest value of f16.
#[inline(always)]
fn round_f16_one(x: f32) -> f32 {
    // Between subnormals lie 2⁻²⁴, which is the distance of floats near 1.5·2²³·2⁻²⁴ = 0.75.
    let small = ((x + 0.75) - 0.75).copysign(x);
    let bits = x.to_bits();
    let rounded = f32::from_bits(bits.wrapping_add(0xfff + ((bits >> 13) & 1)) & !0x1fff);
    let large = if rounded.abs() >= 65536.0 { f32::INFINITY.copysign(x) } else { rounded };
    let finite = if x.abs() < 6.103_515_6e-5 { small } else { large };
    if x.is_nan() { f32::NAN } else { finite }
}

vectorised! {
    /// Every element becomes the nearest value of f16.
    pub fn round_f16<FMA>(dst: &mut [f32], src: &[f32]) {
        for (dst, &src) in dst.iter_mut().zip(src) {
            *dst = round_f16_one(src);
        }
    }
}

/// Every element becomes the nearest value of a float dtype.
pub fn round_in_place(dtype: DType, values: &mut [f32]) {
    const PIECE: usize = 64;
    let mut copy = [0.0; PIECE];
    for values in values.chunks_mut(PIECE) {
        let copy = &mut copy[..values.len()];
        copy.copy_from_slice(values);
        match dtype {
            DType::BF16 => round_bf16(values, copy),
            DType::F16 => round_f16(values, copy),
            DType::F32 | DType::I32 | DType::Bool => {}
        }
    }
}

/// Reads floats of any dtype, from an element on.
///
/// # Safety
/// As for [`Region::slice`], of that part.
pub unsafe fn load(region: &Region, at: usize, dst: &mut [f32]) {
    let part = region.part(at..at + dst.len());
    // SAFETY: the caller's promise.
    unsafe {
        match region.dtype() {
            DType::F32 => dst.copy_from_slice(part.slice::<f32>()),
            DType::BF16 => from_bf16(dst, part.slice::<u16>()),
            DType::F16 => {
                let bits: &[half::f16] = bytemuck::cast_slice(part.slice::<u16>());
                bits.convert_to_f32_slice(dst);
            }
            DType::I32 => dst.iter_mut().zip(part.slice::<i32>()).for_each(|(dst, &x)| *dst = x as f32),
            DType::Bool => dst.iter_mut().zip(part.slice::<u8>()).for_each(|(dst, &x)| *dst = f32::from(x)),
        }
    }
}

/// Writes floats, each rounded once to the region's float dtype, from an element on.
///
/// # Safety
/// As for [`Region::slice_mut`], of that part.
pub unsafe fn store(region: &Region, at: usize, src: &[f32]) {
    let part = region.part(at..at + src.len());
    // SAFETY: the caller's promise.
    unsafe {
        match region.dtype() {
            DType::F32 => part.slice_mut::<f32>().copy_from_slice(src),
            DType::BF16 => to_bf16(part.slice_mut::<u16>(), src),
            DType::F16 => {
                let bits: &mut [half::f16] = bytemuck::cast_slice_mut(part.slice_mut::<u16>());
                bits.convert_from_f32_slice(src);
            }
            DType::I32 => part.slice_mut::<i32>().iter_mut().zip(src).for_each(|(dst, &x)| *dst = x as i32),
            DType::Bool => part.slice_mut::<u8>().iter_mut().zip(src).for_each(|(dst, &x)| *dst = u8::from(x != 0.0)),
        }
    }
}

/// Reads integers or truth values, from an element on.
///
/// # Safety
/// As for [`Region::slice`], of that part.
pub unsafe fn load_ints(region: &Region, at: usize, dst: &mut [i32]) {
    let part = region.part(at..at + dst.len());
    // SAFETY: the caller's promise.
    unsafe {
        match region.dtype() {
            DType::Bool => dst.iter_mut().zip(part.slice::<u8>()).for_each(|(dst, &x)| *dst = i32::from(x)),
            _ => dst.copy_from_slice(part.slice::<i32>()),
        }
    }
}

/// Writes integers or truth values, from an element on.
///
/// # Safety
/// As for [`Region::slice_mut`], of that part.
pub unsafe fn store_ints(region: &Region, at: usize, src: &[i32]) {
    let part = region.part(at..at + src.len());
    // SAFETY: the caller's promise.
    unsafe {
        match region.dtype() {
            DType::Bool => part.slice_mut::<u8>().iter_mut().zip(src).for_each(|(dst, &x)| *dst = u8::from(x != 0)),
            _ => part.slice_mut::<i32>().copy_from_slice(src),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::round;

    #[test]
    fn registers_round_as_the_oracle_does() {
        let special = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 65504.0, 65519.9, 65520.0, 3e-8, 6e-8];
        let all: Vec<f32> = special.into_iter().chain((0..u32::MAX).step_by(5003).map(f32::from_bits)).collect();
        let mut rounded = vec![0.0; all.len()];
        let same = |a: f32, b: f64| (a.is_nan() && b.is_nan()) || f64::from(a).to_bits() == b.to_bits();
        round_bf16(&mut rounded, &all);
        assert!(all.iter().zip(&rounded).all(|(&x, &y)| same(y, round::round_bf16(f64::from(x)))));
        round_f16(&mut rounded, &all);
        for (&x, &y) in all.iter().zip(&rounded) {
            assert!(same(y, round::round_f16(f64::from(x))), "{x:e} became {y:e}");
        }
    }
}
