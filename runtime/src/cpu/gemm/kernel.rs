//! The innermost tile of a matrix product: a few rows times three vectors of columns, held in registers over all of k.

use crate::cpu::simd::{Level, level};

/// Vectors of a full tile.
pub const VECTORS: usize = 3;

/// Rows and columns of a full tile on this processor.
pub fn shape() -> (usize, usize) {
    match level() {
        #[cfg(target_arch = "x86_64")]
        Level::V4 => (8, 16 * VECTORS),
        #[cfg(target_arch = "x86_64")]
        Level::V3 => (4, 8 * VECTORS),
        Level::Base => (BASE_ROWS, 4 * VECTORS),
    }
}

/// Where 16 registers are, 12 of them hold sums; where 32 are, 24.
const BASE_ROWS: usize = if cfg!(target_arch = "aarch64") { 8 } else { 4 };

/// Most elements of a full tile.
pub const LARGEST: usize = 8 * 16 * VECTORS;

/// A tile of c = scale·a·b, or c += scale·a·b.
#[derive(Clone, Copy)]
pub struct Tile {
    /// Length of the sums.
    pub k: usize,
    /// a: element (i, l) at i·a_row + l·a_inner.
    pub a: *const f32,
    /// Between rows of a.
    pub a_row: usize,
    /// Between elements of a row of a.
    pub a_inner: usize,
    /// b: packed rows of a full tile's columns.
    pub b: *const f32,
    /// Multiplies the product.
    pub scale: f32,
    /// Whether c is added to.
    pub add: bool,
    /// c: element (i, j) at i·c_row + j.
    pub c: *mut f32,
    /// Between rows of c.
    pub c_row: usize,
}

/// A vector of floats.
trait Vector: Copy {
    const LANES: usize;
    unsafe fn zero() -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn splat(x: f32) -> Self;
    /// self·b + c.
    unsafe fn mul_add(self, b: Self, c: Self) -> Self;
    unsafe fn mul(self, b: Self) -> Self;
    unsafe fn store(self, to: *mut f32);
}

macro_rules! vector {
    ($type:ty, $lanes:literal, $zero:path, $load:path, $splat:path, $mul:path, $store:path, $mul_add:expr) => {
        #[allow(unused_unsafe, reason = "some instructions are there on every processor of a target")]
        impl Vector for $type {
            const LANES: usize = $lanes;
            #[inline(always)]
            unsafe fn zero() -> Self {
                // SAFETY: the caller's instructions are there.
                unsafe { $zero() }
            }
            #[inline(always)]
            unsafe fn load(from: *const f32) -> Self {
                // SAFETY: as above, and the memory is the caller's promise.
                unsafe { $load(from) }
            }
            #[inline(always)]
            unsafe fn splat(x: f32) -> Self {
                // SAFETY: as above.
                unsafe { $splat(x) }
            }
            #[inline(always)]
            unsafe fn mul_add(self, b: Self, c: Self) -> Self {
                // SAFETY: as above.
                #[allow(clippy::redundant_closure_call, reason = "operands stand in another order elsewhere")]
                unsafe {
                    $mul_add(self, b, c)
                }
            }
            #[inline(always)]
            unsafe fn mul(self, b: Self) -> Self {
                // SAFETY: as above.
                unsafe { $mul(self, b) }
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut f32) {
                // SAFETY: as above.
                unsafe { $store(to, self) }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Vector;
    use std::arch::x86_64::*;

    vector!(
        __m512,
        16,
        _mm512_setzero_ps,
        _mm512_loadu_ps,
        _mm512_set1_ps,
        _mm512_mul_ps,
        _mm512_storeu_ps,
        _mm512_fmadd_ps
    );
    vector!(
        __m256,
        8,
        _mm256_setzero_ps,
        _mm256_loadu_ps,
        _mm256_set1_ps,
        _mm256_mul_ps,
        _mm256_storeu_ps,
        _mm256_fmadd_ps
    );
    vector!(
        __m128,
        4,
        _mm_setzero_ps,
        _mm_loadu_ps,
        _mm_set1_ps,
        _mm_mul_ps,
        _mm_storeu_ps,
        |a: __m128, b: __m128, c: __m128| _mm_add_ps(_mm_mul_ps(a, b), c)
    );

    #[target_feature(enable = "avx512f,fma")]
    pub unsafe fn v4(m: usize, vectors: usize, tile: &super::Tile) {
        // SAFETY: the instructions are there; the rest is the caller's promise.
        unsafe { super::of_rows::<__m512>(m, vectors, tile) }
    }

    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn v3(m: usize, vectors: usize, tile: &super::Tile) {
        // SAFETY: as above.
        unsafe { super::of_rows::<__m256>(m, vectors, tile) }
    }

    pub unsafe fn base(m: usize, vectors: usize, tile: &super::Tile) {
        // SAFETY: as above.
        unsafe { super::of_rows::<__m128>(m, vectors, tile) }
    }
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use super::Vector;
    use std::arch::aarch64::*;

    unsafe fn zero() -> float32x4_t {
        // SAFETY: every processor of the target has it.
        unsafe { vdupq_n_f32(0.0) }
    }

    vector!(
        float32x4_t,
        4,
        zero,
        vld1q_f32,
        vdupq_n_f32,
        vmulq_f32,
        vst1q_f32,
        |a: float32x4_t, b: float32x4_t, c: float32x4_t| vfmaq_f32(c, a, b)
    );

    pub unsafe fn base(m: usize, vectors: usize, tile: &super::Tile) {
        // SAFETY: the caller's promise.
        unsafe { super::of_rows::<float32x4_t>(m, vectors, tile) }
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod plain {
    use super::Vector;

    #[derive(Clone, Copy)]
    struct Plain([f32; 4]);

    impl Vector for Plain {
        const LANES: usize = 4;
        unsafe fn zero() -> Self {
            Plain([0.0; 4])
        }
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: the caller's promise.
            Plain(unsafe { from.cast::<[f32; 4]>().read() })
        }
        unsafe fn splat(x: f32) -> Self {
            Plain([x; 4])
        }
        unsafe fn mul_add(self, b: Self, c: Self) -> Self {
            Plain(std::array::from_fn(|i| self.0[i] * b.0[i] + c.0[i]))
        }
        unsafe fn mul(self, b: Self) -> Self {
            Plain(std::array::from_fn(|i| self.0[i] * b.0[i]))
        }
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: the caller's promise.
            unsafe { to.cast::<[f32; 4]>().write(self.0) }
        }
    }

    pub unsafe fn base(m: usize, vectors: usize, tile: &super::Tile) {
        // SAFETY: the caller's promise.
        unsafe { super::of_rows::<Plain>(m, vectors, tile) }
    }
}

/// Runs a tile of `m` rows, at most those of [`shape`], and so many vectors, at most [`VECTORS`].
///
/// # Safety
/// All elements that it names lie in memory, and nobody else touches c.
pub unsafe fn run(m: usize, vectors: usize, tile: &Tile) {
    // SAFETY: the processor has the instructions of its level; the rest is the caller's promise.
    unsafe {
        match level() {
            #[cfg(target_arch = "x86_64")]
            Level::V4 => x86::v4(m, vectors, tile),
            #[cfg(target_arch = "x86_64")]
            Level::V3 => x86::v3(m, vectors, tile),
            #[cfg(target_arch = "x86_64")]
            Level::Base => x86::base(m, vectors, tile),
            #[cfg(target_arch = "aarch64")]
            Level::Base => arm::base(m, vectors, tile),
            #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
            Level::Base => plain::base(m, vectors, tile),
        }
    }
}

/// Sizes become constants, so that sums stay in registers.
#[inline(always)]
unsafe fn of_rows<V: Vector>(m: usize, vectors: usize, tile: &Tile) {
    // SAFETY: the caller's promise.
    unsafe {
        match m {
            1 => of_vectors::<V, 1>(vectors, tile),
            2 => of_vectors::<V, 2>(vectors, tile),
            3 => of_vectors::<V, 3>(vectors, tile),
            4 => of_vectors::<V, 4>(vectors, tile),
            5 => of_vectors::<V, 5>(vectors, tile),
            6 => of_vectors::<V, 6>(vectors, tile),
            7 => of_vectors::<V, 7>(vectors, tile),
            _ => of_vectors::<V, 8>(vectors, tile),
        }
    }
}

#[inline(always)]
unsafe fn of_vectors<V: Vector, const M: usize>(vectors: usize, tile: &Tile) {
    // SAFETY: the caller's promise.
    unsafe {
        match vectors {
            1 => of_size::<V, M, 1>(tile),
            2 => of_size::<V, M, 2>(tile),
            _ => of_size::<V, M, 3>(tile),
        }
    }
}

#[inline(always)]
unsafe fn of_size<V: Vector, const M: usize, const N: usize>(tile: &Tile) {
    let Tile { k, mut a, a_row, a_inner, mut b, scale, add, c, c_row } = *tile;
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[V::zero(); N]; M];
        for _ in 0..k {
            let mut columns = [V::zero(); N];
            for (j, column) in columns.iter_mut().enumerate() {
                *column = V::load(b.add(j * V::LANES));
            }
            for (i, sums) in sums.iter_mut().enumerate() {
                let x = V::splat(*a.add(i * a_row));
                for (sum, column) in sums.iter_mut().zip(columns) {
                    *sum = x.mul_add(column, *sum);
                }
            }
            a = a.wrapping_add(a_inner);
            b = b.wrapping_add(VECTORS * V::LANES);
        }
        let scale = V::splat(scale);
        for (i, sums) in sums.iter().enumerate() {
            for (j, sum) in sums.iter().enumerate() {
                let to = c.add(i * c_row + j * V::LANES);
                if add { sum.mul_add(scale, V::load(to)).store(to) } else { sum.mul(scale).store(to) }
            }
        }
    }
}
