//! Folds and other functions of whole rows in registers. Sums run in a fixed number of lanes, whatever the instruction
//! set: their order depends on the length of the row alone.

use mngc_compiler::ir::ReduceKind;

use super::elementwise::{max, min};
use super::math;
use super::simd::{mul_add, vectorised};

/// Sums that run side by side.
const LANES: usize = 32;

/// Folds rows: `step` adds an element to a lane, `join` puts lanes together.
#[inline(always)]
fn lanes<T: Copy>(row: &[f32], start: T, step: impl Fn(T, f32) -> T, join: impl Fn(T, T) -> T) -> T {
    let mut sums = [start; LANES];
    let (chunks, rest) = row.as_chunks::<LANES>();
    for chunk in chunks {
        for (sum, &x) in sums.iter_mut().zip(chunk) {
            *sum = step(*sum, x);
        }
    }
    for (sum, &x) in sums.iter_mut().zip(rest) {
        *sum = step(*sum, x);
    }
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            sums[i] = join(sums[i], sums[i + width]);
        }
        width /= 2;
    }
    sums[0]
}

#[inline(always)]
fn sum(row: &[f32]) -> f32 {
    lanes(row, 0.0, |s, x| s + x, |a, b| a + b)
}

#[inline(always)]
fn sum_of_squares<const FMA: bool>(row: &[f32]) -> f32 {
    lanes(row, 0.0, |s, x| mul_add::<FMA>(x, x, s), |a, b| a + b)
}

#[inline(always)]
fn sum_of_products<const FMA: bool>(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0f32; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for i in 0..LANES {
            sums[i] = mul_add::<FMA>(a[i], b[i], sums[i]);
        }
    }
    for ((sum, &a), &b) in sums.iter_mut().zip(a_rest).zip(b_rest) {
        *sum = mul_add::<FMA>(a, b, *sum);
    }
    lanes(&sums, 0.0, |s, x| s + x, |a, b| a + b)
}

#[inline(always)]
fn largest(row: &[f32]) -> f32 {
    lanes(row, f32::NEG_INFINITY, max, max)
}

vectorised! {
    /// Folds each row of `len`; the result repeated over the row.
    pub fn reduce_rows<FMA>(kind: ReduceKind, dst: &mut [f32], a: &[f32], len: usize) {
        for (dst, a) in dst.chunks_mut(len).zip(a.chunks(len)) {
            dst.fill(match kind {
                ReduceKind::Sum => sum(a),
                ReduceKind::Mean => sum(a) / a.len() as f32,
                ReduceKind::Max => largest(a),
                ReduceKind::Min => lanes(a, f32::INFINITY, min, min),
                // In f64, where squares do not overflow.
                ReduceKind::Norm => {
                    lanes(a, 0f64, |s, x| s + f64::from(x) * f64::from(x), |a, b| a + b).sqrt() as f32
                }
            });
        }
    }
}

/// Folds each row of `len` integers; whether there is such a fold.
pub fn reduce_int_rows(kind: ReduceKind, dst: &mut [i32], a: &[i32], len: usize) -> bool {
    if matches!(kind, ReduceKind::Mean | ReduceKind::Norm) {
        return false;
    }
    for (dst, a) in dst.chunks_mut(len).zip(a.chunks(len)) {
        dst.fill(match kind {
            ReduceKind::Max => a.iter().copied().max().unwrap_or(i32::MIN),
            ReduceKind::Min => a.iter().copied().min().unwrap_or(i32::MAX),
            ReduceKind::Sum | ReduceKind::Mean | ReduceKind::Norm => a.iter().copied().fold(0, i32::wrapping_add),
        });
    }
    true
}

vectorised! {
    /// Folds all elements into a number: the sum for a mean, the sum of squares for a norm, in f64.
    pub fn total<FMA>(kind: ReduceKind, start: f64, a: &[f32]) -> f64 {
        match kind {
            ReduceKind::Sum | ReduceKind::Mean => start + lanes(a, 0f64, |s, x| s + f64::from(x), |a, b| a + b),
            ReduceKind::Norm => start + lanes(a, 0f64, |s, x| s + f64::from(x) * f64::from(x), |a, b| a + b),
            ReduceKind::Max => f64::from(max(start as f32, largest(a))),
            ReduceKind::Min => f64::from(min(start as f32, lanes(a, f32::INFINITY, min, min))),
        }
    }
}

vectorised! {
    /// dst += a.
    pub fn add<FMA>(dst: &mut [f32], a: &[f32]) {
        for (dst, &a) in dst.iter_mut().zip(a) {
            *dst += a;
        }
    }
}

vectorised! {
    /// Largest element; −∞ for none, NaN if there is one.
    pub fn maximum<FMA>(a: &[f32]) -> f32 {
        largest(a)
    }
}

vectorised! {
    /// Whether no element is infinite or not a number.
    pub fn is_finite<FMA>(a: &[f32]) -> bool {
        // 0·∞ is not a number, and stays so.
        lanes(a, 0.0, |s, x| s + x * 0.0, |a, b| a + b) == 0.0
    }
}

vectorised! {
    /// Σ aᵢ·bᵢ.
    pub fn inner<FMA>(a: &[f32], b: &[f32]) -> f32 {
        sum_of_products::<FMA>(a, b)
    }
}

vectorised! {
    /// Σ exp(xᵢ − top).
    pub fn sum_of_exp<FMA>(a: &[f32], top: f32) -> f32 {
        lanes(a, 0.0, |s, x| s + math::exp::<FMA>(x - top), |a, b| a + b)
    }
}

vectorised! {
    /// x becomes exp(x·scale − top); gives the sum.
    pub fn exp_in_place<FMA>(x: &mut [f32], scale: f32, top: f32) -> f32 {
        for x in x.iter_mut() {
            *x = math::exp::<FMA>(mul_add::<FMA>(*x, scale, -top));
        }
        sum(x)
    }
}

vectorised! {
    /// dst = exp(a − top)·factor.
    pub fn scaled_exp<FMA>(dst: &mut [f32], a: &[f32], top: f32, factor: f32) {
        for (dst, &a) in dst.iter_mut().zip(a) {
            *dst = math::exp::<FMA>(a - top) * factor;
        }
    }
}

vectorised! {
    /// x *= factor.
    pub fn scale<FMA>(x: &mut [f32], factor: f32) {
        for x in x.iter_mut() {
            *x *= factor;
        }
    }
}

vectorised! {
    /// x = p·(x − along); 0 where p is, whatever x is.
    pub fn times_difference<FMA>(x: &mut [f32], p: &[f32], along: f32) {
        for (x, &p) in x.iter_mut().zip(p) {
            *x = if p == 0.0 { 0.0 } else { p * (*x - along) };
        }
    }
}

vectorised! {
    /// Softmax of each row; zeros for a row of −∞ only.
    pub fn softmax<FMA>(dst: &mut [f32], a: &[f32], len: usize) {
        for (dst, a) in dst.chunks_mut(len).zip(a.chunks(len)) {
            let top = largest(a);
            if top == f32::NEG_INFINITY {
                dst.fill(0.0);
                continue;
            }
            for (dst, &a) in dst.iter_mut().zip(a) {
                *dst = math::exp::<FMA>(a - top);
            }
            let all = sum(dst);
            for dst in dst.iter_mut() {
                *dst /= all;
            }
        }
    }
}

vectorised! {
    /// y·(dy − Σ y·dy) in each row.
    pub fn softmax_grad<FMA>(dst: &mut [f32], y: &[f32], dy: &[f32], len: usize) {
        for ((dst, y), dy) in dst.chunks_mut(len).zip(y.chunks(len)).zip(dy.chunks(len)) {
            let along = sum_of_products::<FMA>(y, dy);
            for ((dst, &y), &dy) in dst.iter_mut().zip(y).zip(dy) {
                *dst = y * (dy - along);
            }
        }
    }
}

vectorised! {
    /// Root-mean-square norm of each row.
    pub fn rms_norm<FMA>(dst: &mut [f32], a: &[f32], len: usize, eps: f32) {
        for (dst, a) in dst.chunks_mut(len).zip(a.chunks(len)) {
            let r = 1.0 / (sum_of_squares::<FMA>(a) / a.len() as f32 + eps).sqrt();
            for (dst, &a) in dst.iter_mut().zip(a) {
                *dst = a * r;
            }
        }
    }
}

vectorised! {
    /// r·dy − x·r³·mean(x·dy) in each row.
    pub fn rms_norm_grad<FMA>(dst: &mut [f32], x: &[f32], dy: &[f32], len: usize, eps: f32) {
        for ((dst, x), dy) in dst.chunks_mut(len).zip(x.chunks(len)).zip(dy.chunks(len)) {
            let n = x.len() as f32;
            let r = 1.0 / (sum_of_squares::<FMA>(x) / n + eps).sqrt();
            let along = r * r * (sum_of_products::<FMA>(x, dy) / n);
            for ((dst, &x), &dy) in dst.iter_mut().zip(x).zip(dy) {
                *dst = r * (dy - x * along);
            }
        }
    }
}

/// Writes (x − mean)/√(variance + eps) and gives 1/√(variance + eps).
#[inline(always)]
fn normalise<const FMA: bool>(dst: &mut [f32], x: &[f32], eps: f32) -> f32 {
    let n = x.len() as f32;
    let middle = sum(x) / n;
    for (dst, &x) in dst.iter_mut().zip(x) {
        *dst = x - middle;
    }
    let r = 1.0 / (sum_of_squares::<FMA>(dst) / n + eps).sqrt();
    for dst in dst.iter_mut() {
        *dst *= r;
    }
    r
}

vectorised! {
    /// Layer norm of each row.
    pub fn layer_norm<FMA>(dst: &mut [f32], a: &[f32], len: usize, eps: f32) {
        for (dst, a) in dst.chunks_mut(len).zip(a.chunks(len)) {
            normalise::<FMA>(dst, a, eps);
        }
    }
}

vectorised! {
    /// r·(dy − mean dy − n·mean(n·dy)) in each row.
    pub fn layer_norm_grad<FMA>(dst: &mut [f32], x: &[f32], dy: &[f32], len: usize, eps: f32) {
        for ((dst, x), dy) in dst.chunks_mut(len).zip(x.chunks(len)).zip(dy.chunks(len)) {
            let count = x.len() as f32;
            // dst holds n until it is overwritten.
            let r = normalise::<FMA>(dst, x, eps);
            let (level, along) = (sum(dy) / count, sum_of_products::<FMA>(dst, dy) / count);
            for (n, &dy) in dst.iter_mut().zip(dy) {
                *n = r * (dy - level - *n * along);
            }
        }
    }
}

vectorised! {
    /// cos and sin of `position` times each frequency.
    pub fn angles<FMA>(cos: &mut [f32], sin: &mut [f32], position: i32, frequencies: &[f64]) {
        for ((cos, sin), &frequency) in cos.iter_mut().zip(sin).zip(frequencies) {
            (*sin, *cos) = math::sin_cos::<FMA>(f64::from(position) * frequency);
        }
    }
}

vectorised! {
    /// Turns the halves of a row by angles, or back.
    pub fn turn<FMA>(dst: &mut [f32], a: &[f32], cos: &[f32], sin: &[f32], inverse: bool) {
        let half = a.len() / 2;
        let ((a1, a2), (y1, y2)) = (a.split_at(half), dst.split_at_mut(half));
        let sign = if inverse { -1.0 } else { 1.0 };
        let pairs = y1.iter_mut().zip(y2).zip(a1.iter().zip(a2)).zip(cos.iter().zip(sin));
        for (((y1, y2), (&a1, &a2)), (&cos, &sin)) in pairs {
            let sin = sin * sign;
            *y1 = mul_add::<FMA>(a1, cos, a2 * sin);
            *y2 = mul_add::<FMA>(a2, cos, -(a1 * sin));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_every_length() {
        for n in 0..200 {
            let row: Vec<f32> = (0..n).map(|i| i as f32).collect();
            assert_eq!(sum(&row), (n * (n - 1) / 2) as f32, "{n}");
            assert_eq!(maximum(&row), if n == 0 { f32::NEG_INFINITY } else { (n - 1) as f32 });
            assert_eq!(inner(&row, &vec![2.0; n as usize]), (n * (n - 1)) as f32);
        }
    }

    #[test]
    fn a_nan_is_the_largest() {
        for at in 0..70 {
            let mut row = vec![1.0; 70];
            row[at] = f32::NAN;
            assert!(maximum(&row).is_nan());
        }
    }
}
