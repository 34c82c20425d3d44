//! Operands of products brought into the order in which the innermost tile reads them, as f32.

use mngc_compiler::ir::DType;

use super::kernel;
use crate::cpu::convert;
use crate::cpu::memory::Region;
#[cfg(target_arch = "x86_64")]
use crate::cpu::simd::Level;
use crate::cpu::simd::level;

/// A matrix of floats of any dtype: element (i, l), l along the contracted axis, at first + i·row + l·inner.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// Where.
    pub region: Region,
    /// Its first element.
    pub first: usize,
    /// Between positions of the free axis.
    pub row: usize,
    /// Between positions of the contracted axis.
    pub inner: usize,
}

impl Source {
    /// The part that begins at an element.
    pub fn at(self, i: usize, l: usize) -> Source {
        Source { first: self.first + i * self.row + l * self.inner, ..self }
    }

    /// Its first element, where it is f32.
    pub fn address(&self) -> *const f32 {
        self.region.address(self.first.min(self.region.len()))
    }
}

/// Rows of a square that is turned at once.
const SQUARE: usize = 16;

/// Strips that are packed side by side, so that a row of b is read in long pieces.
pub const GROUP: usize = 8;

/// Packs b, `[n, k]`, as strips `[k, columns of a tile]`, one after the other. Columns that are not there become 0.
///
/// # Safety
/// Nobody writes to the operand.
pub unsafe fn strips(dst: &mut [f32], b: Source, n: usize, k: usize) {
    let width = kernel::shape().1;
    let strips = n.div_ceil(width);
    if !n.is_multiple_of(width) {
        dst[(strips - 1) * width * k..][..width * k].fill(0.0);
    }
    for first in (0..strips).step_by(GROUP) {
        let group = first..strips.min(first + GROUP);
        // SAFETY: the caller's promise.
        unsafe {
            if b.row != 1 {
                for i in group {
                    let strip = &mut dst[i * width * k..][..width * k];
                    turned(strip, width, b.at(i * width, 0), width.min(n - i * width), k);
                }
                continue;
            }
            for l in 0..k {
                for i in group.clone() {
                    let columns = width.min(n - i * width);
                    let to = &mut dst[(i * k + l) * width..][..columns];
                    convert::load(&b.region, b.at(i * width, l).first, to);
                }
            }
        }
    }
}

/// dst\[l, i\] = source(i, l), with `width` elements from one l to the next.
///
/// # Safety
/// Nobody writes to the operand.
pub unsafe fn turned(dst: &mut [f32], width: usize, source: Source, rows: usize, k: usize) {
    let mut copy = [0f32; SQUARE * SQUARE];
    for top in (0..rows).step_by(SQUARE) {
        let height = SQUARE.min(rows - top);
        for left in (0..k).step_by(SQUARE) {
            let length = SQUARE.min(k - left);
            let from = source.at(top, left);
            // SAFETY: the caller's promise; a whole square of f32 in order is read where it lies.
            unsafe {
                let is_plain = source.inner == 1 && source.region.dtype() == DType::F32;
                let is_whole = height == SQUARE && length == SQUARE;
                let to = &mut dst[left * width + top..];
                if is_plain && is_whole {
                    // The last element is within the operand, so all are.
                    let last = from.at(SQUARE - 1, SQUARE - 1).first;
                    assert!(last < source.region.len(), "a square within the operand");
                    turn(from.address(), source.row, to, width);
                    continue;
                }
                for i in 0..height {
                    if source.inner == 1 {
                        convert::load(&source.region, from.at(i, 0).first, &mut copy[i * SQUARE..][..length]);
                        continue;
                    }
                    for l in 0..length {
                        convert::load(&source.region, from.at(i, l).first, &mut copy[i * SQUARE + l..][..1]);
                    }
                }
                if is_whole {
                    turn(copy.as_ptr(), SQUARE, to, width);
                } else {
                    for l in 0..length {
                        for i in 0..height {
                            to[l * width + i] = copy[i * SQUARE + l];
                        }
                    }
                }
            }
        }
    }
}

/// dst\[j, i\] = a\[i, j\] for `rows` and `columns` of a; rows of either lie so far apart.
pub fn transpose(dst: &mut [f32], dst_row: usize, a: &[f32], a_row: usize, [rows, columns]: [usize; 2]) {
    for top in (0..rows).step_by(SQUARE) {
        for left in (0..columns).step_by(SQUARE) {
            let (height, width) = (SQUARE.min(rows - top), SQUARE.min(columns - left));
            if (height, width) == (SQUARE, SQUARE) {
                let from = &a[top * a_row + left..];
                assert!(from.len() >= (SQUARE - 1) * a_row + SQUARE, "a square within the operand");
                // SAFETY: bounds were checked.
                unsafe { turn(from.as_ptr(), a_row, &mut dst[left * dst_row + top..], dst_row) };
                continue;
            }
            for i in top..top + height {
                for j in left..left + width {
                    dst[j * dst_row + i] = a[i * a_row + j];
                }
            }
        }
    }
}

/// Turns a square, from rows `from_row` apart to rows `to_row` apart.
///
/// # Safety
/// All of the source lies in memory, and nobody writes to it.
unsafe fn turn(from: *const f32, from_row: usize, to: &mut [f32], to_row: usize) {
    assert!(to.len() >= (SQUARE - 1) * to_row + SQUARE, "a square within the result");
    // SAFETY: the processor has the instructions of its level; bounds were checked, or are the caller's promise.
    unsafe {
        match level() {
            #[cfg(target_arch = "x86_64")]
            Level::V4 => turn_512(from, from_row, to.as_mut_ptr(), to_row),
            _ => {
                for i in 0..SQUARE {
                    for l in 0..SQUARE {
                        to[l * to_row + i] = *from.add(i * from_row + l);
                    }
                }
            }
        }
    }
}

/// Four rounds of exchanges: of elements, of pairs, of quarters of vectors, of halves.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn turn_512(from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
    use std::arch::x86_64::*;
    let pairs_low = |a, b| _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
    let pairs_high = |a, b| _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
    let mut r = [_mm512_setzero_ps(); SQUARE];
    let mut t = r;
    for (i, r) in r.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        *r = unsafe { _mm512_loadu_ps(from.add(i * from_row)) };
    }
    for i in 0..8 {
        t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    for i in 0..4 {
        r[4 * i] = pairs_low(t[4 * i], t[4 * i + 2]);
        r[4 * i + 1] = pairs_high(t[4 * i], t[4 * i + 2]);
        r[4 * i + 2] = pairs_low(t[4 * i + 1], t[4 * i + 3]);
        r[4 * i + 3] = pairs_high(t[4 * i + 1], t[4 * i + 3]);
    }
    for i in 0..4 {
        t[i] = _mm512_shuffle_f32x4::<0x88>(r[i], r[i + 4]);
        t[i + 4] = _mm512_shuffle_f32x4::<0xdd>(r[i], r[i + 4]);
        t[i + 8] = _mm512_shuffle_f32x4::<0x88>(r[i + 8], r[i + 12]);
        t[i + 12] = _mm512_shuffle_f32x4::<0xdd>(r[i + 8], r[i + 12]);
    }
    for i in 0..8 {
        r[i] = _mm512_shuffle_f32x4::<0x88>(t[i], t[i + 8]);
        r[i + 8] = _mm512_shuffle_f32x4::<0xdd>(t[i], t[i + 8]);
    }
    for (i, r) in r.iter().enumerate() {
        // SAFETY: the caller's promise.
        unsafe { _mm512_storeu_ps(to.add(i * to_row), *r) };
    }
}
