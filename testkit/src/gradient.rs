//! Gradients against central differences, in f64.

use mngc_runtime::{Data, Result, Tensor};

use crate::values;

/// Half the distance of the two points of the coarser difference.
const STEP: f64 = 1.0 / 4096.0;
/// Up to this many elements of a tensor, each is moved alone; of a larger one, random directions are taken.
const ALONE: usize = 8;

/// A slope with an estimate of its error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slope {
    /// The derivative along the direction.
    pub value: f64,
    /// About how far off that is.
    pub error: f64,
}

/// The slope of `f` at `x` along `direction`, by two central differences (Richardson: the error falls with h⁴).
///
/// Tensors of `direction` are floats of the sizes of `x`, none for what stays. f must be smooth within a step of x.
pub fn central_difference(
    mut f: impl FnMut(&[Tensor]) -> Result<f64>,
    x: &[Tensor],
    direction: &[Option<Tensor>],
) -> Result<Slope> {
    let mut difference = |h: f64| -> Result<f64> {
        let above = f(&moved(x, direction, h)?)?;
        let below = f(&moved(x, direction, -h)?)?;
        Ok((above - below) / (2.0 * h))
    };
    let (coarse, fine) = (difference(STEP)?, difference(STEP / 2.0)?);
    let value = (4.0 * fine - coarse) / 3.0;
    Ok(Slope { value, error: (value - fine).abs() })
}

/// x + h·direction.
fn moved(x: &[Tensor], direction: &[Option<Tensor>], h: f64) -> Result<Vec<Tensor>> {
    let one = |(x, d): (&Tensor, &Option<Tensor>)| match (x.as_floats(), d.as_ref().and_then(|d| d.as_floats())) {
        (Some(values), Some(d)) => {
            Tensor::floats(x.sizes(), values.iter().zip(d).map(|(x, d)| x + h * d).collect::<Vec<f64>>())
        }
        _ => Ok(x.clone()),
    };
    x.iter().zip(direction).map(one).collect()
}

/// A gradient that is not the slope.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum GradientFault {
    /// The function or its gradient could not be evaluated.
    #[error(transparent)]
    Run(#[from] mngc_runtime::Error),
    /// Not one gradient for each input, present for floats and absent for others, or of other sizes.
    #[error("the gradient of input {input} is missing, unasked for, or has other sizes")]
    Shape {
        /// Which input.
        input: usize,
    },
    /// Another slope.
    #[error("input {input} along {direction:?}: the gradient gives {gradient:e}, differences give {slope:?}")]
    Slope {
        /// Which input.
        input: usize,
        /// The direction in which it moved.
        direction: Vec<f64>,
        /// The product of gradient and direction.
        gradient: f64,
        /// The difference quotient.
        slope: Slope,
    },
}

/// Compares a gradient with central differences, for each float input alone: every element of a small input, some random
/// directions of a larger one.
///
/// `gradient` gives one tensor for each float of the inputs, in their order. The bound is 10⁻⁶ of ‖gradient‖·‖direction‖ and
/// of the slope, ten times the differences' own error estimate, and what the rounding of f itself may do to a difference.
pub fn gradient_check(
    x: &[Tensor],
    mut f: impl FnMut(&[Tensor]) -> Result<f64>,
    gradient: impl FnOnce(&[Tensor]) -> Result<Vec<Tensor>>,
) -> std::result::Result<(), GradientFault> {
    let level = f(x)?.abs();
    let mut gradients = gradient(x)?.into_iter();
    for (input, tensor) in x.iter().enumerate() {
        if tensor.as_floats().is_none() {
            continue;
        }
        let g = gradients.next().filter(|g| g.sizes() == tensor.sizes());
        let g = g.as_ref().and_then(|g| g.as_floats()).ok_or(GradientFault::Shape { input })?;
        for d in directions(tensor.len(), input as u64) {
            let mut direction: Vec<Option<Tensor>> = vec![None; x.len()];
            direction[input] = Some(Tensor::floats(tensor.sizes(), d.clone())?);
            let slope = central_difference(&mut f, x, &direction)?;
            let along: f64 = g.iter().zip(&d).map(|(g, d)| g * d).sum();
            let size = norm(g) * norm(&d) + slope.value.abs();
            let rounding = 64.0 * f64::EPSILON * (1.0 + level) / STEP;
            let bound = 1e-6 * size + 10.0 * slope.error + rounding;
            let distance = (along - slope.value).abs();
            if distance.is_nan() || distance > bound {
                return Err(GradientFault::Slope { input, direction: d, gradient: along, slope });
            }
        }
    }
    match gradients.next() {
        Some(_) => Err(GradientFault::Shape { input: x.len() }),
        None => Ok(()),
    }
}

fn norm(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn directions(n: usize, seed: u64) -> Vec<Vec<f64>> {
    if n <= ALONE {
        return (0..n).map(|i| (0..n).map(|j| f64::from(u8::from(i == j))).collect()).collect();
    }
    let random = |seed: u64| (0..n as u64).map(|i| 2.0 * values::unit(seed, i) - 1.0).collect();
    (0..4).map(|i| random(4 * seed + i)).collect()
}

/// Σ weights·results over all float results: a scalar whose cotangent is `weights`.
pub fn weighted_sum(results: &[Tensor], weights: &[Tensor]) -> f64 {
    let floats = results.iter().filter_map(|t| t.as_floats());
    let inner = |(x, w): (&[f64], &Tensor)| match w.data() {
        Data::Float(w) => x.iter().zip(w).map(|(x, w)| x * w).sum(),
        Data::Int(_) | Data::Bool(_) => 0.0,
    };
    floats.zip(weights).map(inner).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(values: &[f64]) -> Tensor {
        Tensor::floats([values.len()], values.to_vec()).unwrap()
    }

    /// sin(x₀)·x₁ + Σ y².
    fn f(x: &[Tensor]) -> Result<f64> {
        let (a, y) = (x[0].as_floats().unwrap(), x[2].as_floats().unwrap());
        Ok(a[0].sin() * a[1] + y.iter().map(|y| y * y).sum::<f64>())
    }

    fn point() -> Vec<Tensor> {
        vec![floats(&[0.3, 2.0]), Tensor::ints([1], vec![7]).unwrap(), floats(&[0.5; 20])]
    }

    #[test]
    fn a_difference_is_the_slope() {
        let direction = [Some(floats(&[1.0, 0.0])), None, None];
        let slope = central_difference(f, &point(), &direction).unwrap();
        assert!((slope.value - 2.0 * 0.3f64.cos()).abs() < 1e-11, "{slope:?}");
        assert!(slope.error < 1e-7);
    }

    #[test]
    fn the_right_gradient_passes_and_wrong_ones_do_not() {
        let gradient = |a: [f64; 2], y: f64| move |_: &[Tensor]| Ok(vec![floats(&a), floats(&[y; 20])]);
        let right = [2.0 * 0.3f64.cos(), 0.3f64.sin()];
        assert_eq!(gradient_check(&point(), f, gradient(right, 1.0)), Ok(()));
        let slightly = [right[0] * 1.00001, right[1]];
        for (a, y) in [(slightly, 1.0), ([right[0], f64::NAN], 1.0), (right, 1.0001), ([right[1], right[0]], 1.0)] {
            let fault = gradient_check(&point(), f, gradient(a, y));
            assert!(matches!(fault, Err(GradientFault::Slope { .. })), "{a:?} {y}: {fault:?}");
        }
    }

    #[test]
    fn gradients_must_be_there_and_of_the_right_shape() {
        for gradients in [vec![], vec![floats(&[1.0]), floats(&[1.0; 20])], vec![floats(&[0.0; 2]); 3]] {
            let fault = gradient_check(&point(), f, |_| Ok(gradients.clone()));
            assert!(matches!(fault, Err(GradientFault::Shape { .. } | GradientFault::Slope { .. })), "{fault:?}");
        }
    }
}
