//! Normalisation of rows, and its gradients.

use super::parallel;

fn mean(x: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = x.len() as f64;
    x.sum::<f64>() / n
}

fn pairs<'a>(a: &'a [f64], b: &'a [f64]) -> impl ExactSizeIterator<Item = f64> + 'a {
    a.iter().zip(b).map(|(a, b)| a * b)
}

/// Makes every row of the result from the rows of one operand.
fn row_op(x: &[f64], row: usize, f: impl Fn(&[f64], &mut [f64]) + Sync) -> Vec<f64> {
    let mut out = vec![0.0; x.len()];
    parallel::rows(&mut out, row, row, |i, y| f(&x[i * row..(i + 1) * row], y));
    out
}

/// Makes every row of the result from the rows of two operands.
fn row_op2(x: &[f64], dy: &[f64], row: usize, f: impl Fn(&[f64], &[f64], &mut [f64]) + Sync) -> Vec<f64> {
    let mut out = vec![0.0; x.len()];
    parallel::rows(&mut out, row, row, |i, dx| f(&x[i * row..(i + 1) * row], &dy[i * row..(i + 1) * row], dx));
    out
}

/// 1/√(mean x² + eps).
fn inverse_rms(x: &[f64], eps: f64) -> f64 {
    1.0 / (mean(pairs(x, x)) + eps).sqrt()
}

/// x / √(mean x² + eps).
pub fn rms_norm(x: &[f64], row: usize, eps: f64) -> Vec<f64> {
    row_op(x, row, |x, y| {
        let r = inverse_rms(x, eps);
        y.iter_mut().zip(x).for_each(|(y, x)| *y = x * r);
    })
}

/// r·dy − x·r³·mean(x·dy).
pub fn rms_norm_grad(x: &[f64], dy: &[f64], row: usize, eps: f64) -> Vec<f64> {
    row_op2(x, dy, row, |x, dy, dx| {
        let r = inverse_rms(x, eps);
        let along = r * r * r * mean(pairs(x, dy));
        dx.iter_mut().zip(x).zip(dy).for_each(|((dx, x), dy)| *dx = r * dy - x * along);
    })
}

/// Writes (x − mean) / √(variance + eps) and gives 1/√(variance + eps).
fn normalise(x: &[f64], eps: f64, y: &mut [f64]) -> f64 {
    let middle = mean(x.iter().copied());
    let r = 1.0 / (mean(x.iter().map(|x| (x - middle) * (x - middle))) + eps).sqrt();
    y.iter_mut().zip(x).for_each(|(y, x)| *y = (x - middle) * r);
    r
}

/// (x − mean) / √(variance + eps).
pub fn layer_norm(x: &[f64], row: usize, eps: f64) -> Vec<f64> {
    row_op(x, row, |x, y| {
        normalise(x, eps, y);
    })
}

/// r·(dy − mean dy − n·mean(n·dy)).
pub fn layer_norm_grad(x: &[f64], dy: &[f64], row: usize, eps: f64) -> Vec<f64> {
    row_op2(x, dy, row, |x, dy, dx| {
        // dx holds n until it is overwritten.
        let r = normalise(x, eps, dx);
        let (level, along) = (mean(dy.iter().copied()), mean(pairs(dx, dy)));
        dx.iter_mut().zip(dy).for_each(|(n, dy)| *n = r * (dy - level - *n * along));
    })
}
