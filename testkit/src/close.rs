//! How far a result may lie from the oracle's: derived from the dtype of the result and the length of its sums.
//!
//! With u the unit roundoff of a dtype, a backend that accumulates in f32 and rounds once, and an oracle that computes in
//! f64 and rounds once, differ in one element by at most
//!
//! - one rounding each of the result: 2·u(dtype)·|ref|, and half the distance of subnormals each;
//! - the functions on the way (exp, tanh, a division), which may each be some ulp off: [`FUNCTION_ULPS`]·u(f32)·|ref|;
//! - the roundings of a sum of n terms: n·u(f32)·Σ|terms| (Higham, Accuracy and Stability, 2002, equation 4.4).
//!
//! Σ|terms| is unknown where only results are at hand. [`fn@close`] takes the largest element of the reference for it: the
//! n·u bound is for roundings that all go the same way, real ones grow like √n·u, and terms that cancel raise Σ|terms| over
//! the result by about √n, so that the product of both stays within. Where more is known, use [`Tolerance::of`].

use mngc_compiler::ir::DType;
use mngc_runtime::{Data, Tensor};

/// Roundings of f32 that functions may cost an element; those of libm and of CUDA stay below 2 ulp = 4 u each.
pub const FUNCTION_ULPS: f64 = 8.0;

/// Unit roundoff: half the distance of 1 and its upper neighbour. 0 for integers and truth values.
pub fn unit_roundoff(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 2f64.powi(-24),
        DType::BF16 => 2f64.powi(-8),
        DType::F16 => 2f64.powi(-11),
        DType::I32 | DType::Bool => 0.0,
    }
}

/// Distance of subnormal numbers.
fn least(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 2f64.powi(-149),
        DType::BF16 => 2f64.powi(-133),
        DType::F16 => 2f64.powi(-24),
        DType::I32 | DType::Bool => 0.0,
    }
}

/// |out − ref| ≤ abs + rel·|ref|.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// What even a reference of 0 may miss by.
    pub abs: f64,
    /// What may be missed by relative to the reference.
    pub rel: f64,
}

impl Tolerance {
    /// For results of a dtype that sum `terms` terms, whose absolute values sum up to `magnitude` at most.
    pub fn of(dtype: DType, terms: usize, magnitude: f64) -> Tolerance {
        let single = unit_roundoff(DType::F32);
        if !dtype.is_float() {
            return Tolerance { abs: 0.0, rel: 0.0 };
        }
        // A sum of one term has no rounding.
        let sum = terms.saturating_sub(1) as f64 * single * magnitude;
        Tolerance { abs: least(dtype) + sum, rel: 2.0 * unit_roundoff(dtype) + FUNCTION_ULPS * single }
    }

    /// Whether a value may stand for a reference. NaN stands for NaN, an infinity for itself.
    pub fn allows(&self, actual: f64, expected: f64) -> bool {
        if expected.is_finite() && actual.is_finite() {
            (actual - expected).abs() <= self.abs + self.rel * expected.abs()
        } else {
            actual == expected || (actual.is_nan() && expected.is_nan())
        }
    }
}

/// Two tensors that should be close and are not.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Mismatch {
    /// Other sizes, or another kind of elements.
    #[error("{actual} against {expected}")]
    Shape {
        /// What is there.
        actual: String,
        /// What should be.
        expected: String,
    },
    /// An element out of bounds: the worst one.
    #[error("element {index} of {len} is {actual:e}, expected {expected:e}: {ratio:.3} times the bound")]
    Element {
        /// Its place, row-major.
        index: usize,
        /// Number of elements.
        len: usize,
        /// What is there.
        actual: f64,
        /// What should be.
        expected: f64,
        /// Distance over bound.
        ratio: f64,
    },
    /// A whole tensor that is further away than it should be.
    #[error("a distance of {distance:e} over the bound {bound:e}")]
    Distance {
        /// The distance.
        distance: f64,
        /// The bound.
        bound: f64,
    },
}

fn same_shape(actual: &Tensor, expected: &Tensor) -> Result<(), Mismatch> {
    let show = |t: &Tensor| format!("{} {:?}", t.data().kind(), t.sizes());
    if actual.sizes() == expected.sizes() && actual.data().kind() == expected.data().kind() {
        return Ok(());
    }
    Err(Mismatch::Shape { actual: show(actual), expected: show(expected) })
}

fn elements(t: &Tensor) -> Vec<f64> {
    match t.data() {
        Data::Float(v) => v.clone(),
        Data::Int(v) => v.iter().map(|&x| f64::from(x)).collect(),
        Data::Bool(v) => v.iter().map(|&x| f64::from(u8::from(x))).collect(),
    }
}

/// Bits of the elements, all NaNs alike: what must be equal where no rounding differs.
pub fn bits(t: &Tensor) -> Vec<u64> {
    let float = |x: &f64| if x.is_nan() { f64::NAN.to_bits() } else { x.to_bits() };
    match t.data() {
        Data::Float(v) => v.iter().map(float).collect(),
        Data::Int(v) => v.iter().map(|&x| x as u64).collect(),
        Data::Bool(v) => v.iter().map(|&x| x as u64).collect(),
    }
}

/// The largest finite absolute value.
pub fn largest(t: &Tensor) -> f64 {
    elements(t).iter().map(|x| x.abs()).filter(|x| x.is_finite()).fold(0.0, f64::max)
}

/// Checks every element against the bound of the header; `terms` is the length of the longest sum in one element.
pub fn close(actual: &Tensor, expected: &Tensor, dtype: DType, terms: usize) -> Result<(), Mismatch> {
    within(actual, expected, Tolerance::of(dtype, terms, largest(expected)))
}

/// Checks every element against a tolerance.
pub fn within(actual: &Tensor, expected: &Tensor, tolerance: Tolerance) -> Result<(), Mismatch> {
    same_shape(actual, expected)?;
    let (a, e) = (elements(actual), elements(expected));
    let ratio = |i: usize| {
        let ratio = (a[i] - e[i]).abs() / (tolerance.abs + tolerance.rel * e[i].abs());
        if ratio.is_nan() { f64::INFINITY } else { ratio }
    };
    let bad = (0..a.len()).filter(|&i| !tolerance.allows(a[i], e[i]));
    match bad.max_by(|&i, &j| ratio(i).total_cmp(&ratio(j))) {
        None => Ok(()),
        Some(i) => Err(Mismatch::Element { index: i, len: a.len(), actual: a[i], expected: e[i], ratio: ratio(i) }),
    }
}

/// ‖a − b‖ / ‖b‖ in the Euclidean norm; ‖a‖ where b is 0.
pub fn relative_l2(a: &Tensor, b: &Tensor) -> Result<f64, Mismatch> {
    same_shape(a, b)?;
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let (a, b) = (elements(a), elements(b));
    let distance = norm(&mut a.iter().zip(&b).map(|(a, b)| a - b));
    let size = norm(&mut b.iter().copied());
    Ok(if size == 0.0 { distance } else { distance / size })
}

/// For a long chain: the distance to the f64 run may be a small multiple of the distance that the rounded oracle has.
/// A chain whose rounding happens to cost nothing still gets the bound of one op.
pub fn close_chain(
    actual: &Tensor,
    rounded: &Tensor,
    exact: &Tensor,
    dtype: DType,
    multiple: f64,
) -> Result<(), Mismatch> {
    let bound = multiple * relative_l2(rounded, exact)?.max(Tolerance::of(dtype, 1, 0.0).rel);
    let distance = relative_l2(actual, exact)?;
    if distance <= bound { Ok(()) } else { Err(Mismatch::Distance { distance, bound }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(values: &[f64]) -> Tensor {
        Tensor::floats([values.len()], values.to_vec()).unwrap()
    }

    #[test]
    fn one_ulp_is_close_and_four_are_not() {
        for dtype in [DType::BF16, DType::F16] {
            let ulp = 2.0 * unit_roundoff(dtype);
            assert_eq!(close(&floats(&[1.0 + ulp]), &floats(&[1.0]), dtype, 1), Ok(()));
            assert!(close(&floats(&[1.0 + 2.0 * ulp]), &floats(&[1.0]), dtype, 1).is_err());
        }
        assert!(close(&floats(&[1.0 + 2e-6]), &floats(&[1.0]), DType::F32, 1).is_err());
    }

    #[test]
    fn sums_may_miss_more_and_by_the_size_of_their_terms() {
        let (zero, expected) = (floats(&[1e-5, 8.0]), floats(&[0.0, 8.0]));
        assert!(close(&zero, &expected, DType::F32, 1).is_err());
        assert!(close(&zero, &expected, DType::F32, 10).is_err());
        assert_eq!(close(&zero, &expected, DType::F32, 1000), Ok(()));
    }

    #[test]
    fn what_is_not_finite_must_agree() {
        let all = floats(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0]);
        assert_eq!(close(&all, &all, DType::F32, 1), Ok(()));
        for bad in [[0.0, f64::INFINITY], [f64::NAN, f64::NEG_INFINITY], [f64::NAN, 1.0]] {
            assert!(close(&floats(&bad), &floats(&[f64::NAN, f64::INFINITY]), DType::F32, 1).is_err());
        }
    }

    #[test]
    fn integers_must_be_equal_and_shapes_alike() {
        let ints = |x: i32| Tensor::ints([1], vec![x]).unwrap();
        assert_eq!(close(&ints(3), &ints(3), DType::I32, 5), Ok(()));
        assert!(close(&ints(3), &ints(4), DType::I32, 5).is_err());
        assert!(matches!(close(&ints(3), &floats(&[3.0]), DType::F32, 1), Err(Mismatch::Shape { .. })));
        assert!(matches!(close(&floats(&[]), &floats(&[3.0]), DType::F32, 1), Err(Mismatch::Shape { .. })));
    }

    #[test]
    fn the_worst_element_is_reported() {
        let Err(Mismatch::Element { index, .. }) = close(&floats(&[1.1, 5.0, 1.2]), &floats(&[1.0; 3]), DType::F32, 1)
        else {
            panic!("far from close")
        };
        assert_eq!(index, 1);
    }

    #[test]
    fn chains_are_measured_by_their_own_rounding() {
        let (exact, rounded) = (floats(&[1.0, 2.0]), floats(&[1.0, 2.02]));
        assert_eq!(close_chain(&floats(&[1.02, 2.0]), &rounded, &exact, DType::F32, 2.0), Ok(()));
        assert!(close_chain(&floats(&[1.05, 2.0]), &rounded, &exact, DType::F32, 2.0).is_err());
        assert!(close_chain(&floats(&[f64::NAN, 2.0]), &rounded, &exact, DType::F32, 2.0).is_err());
        assert_eq!(relative_l2(&floats(&[3.0, 4.0]), &floats(&[0.0, 0.0])), Ok(5.0));
    }
}
