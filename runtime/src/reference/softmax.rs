//! Softmax and cross-entropy over rows.

use super::parallel;

/// Index of a target in a row, if it is in range.
fn in_range(target: i32, row: usize) -> Option<usize> {
    usize::try_from(target).ok().filter(|&t| t < row)
}

/// Largest element; −∞ for none, NaN if there is one.
pub fn largest(x: &[f64]) -> f64 {
    x.iter().copied().fold(f64::NEG_INFINITY, super::elementwise::max)
}

/// ln Σ eˣ, −∞ for a row of −∞ only, ∞ where one element is.
pub fn log_sum_exp(x: &[f64]) -> f64 {
    let top = largest(x);
    if top.is_infinite() {
        return top;
    }
    top + x.iter().map(|x| (x - top).exp()).sum::<f64>().ln()
}

/// eˣ / Σ eˣ; zeros for a row of −∞ only.
fn softmax_row(x: &[f64], y: &mut [f64]) {
    let top = largest(x);
    if top == f64::NEG_INFINITY {
        y.fill(0.0);
        return;
    }
    let mut sum = 0.0;
    for (y, x) in y.iter_mut().zip(x) {
        *y = (x - top).exp();
        sum += *y;
    }
    y.iter_mut().for_each(|y| *y /= sum);
}

/// Softmax over rows of `row` elements.
pub fn softmax(x: &[f64], row: usize) -> Vec<f64> {
    let mut out = vec![0.0; x.len()];
    parallel::rows(&mut out, row, row, |i, y| softmax_row(&x[i * row..(i + 1) * row], y));
    out
}

/// y·(dy − Σ y·dy).
pub fn softmax_grad(y: &[f64], dy: &[f64], row: usize) -> Vec<f64> {
    let mut out = vec![0.0; y.len()];
    parallel::rows(&mut out, row, row, |i, dx| {
        let (y, dy) = (&y[i * row..(i + 1) * row], &dy[i * row..(i + 1) * row]);
        let inner: f64 = y.iter().zip(dy).map(|(y, dy)| y * dy).sum();
        for ((dx, y), dy) in dx.iter_mut().zip(y).zip(dy) {
            *dx = y * (dy - inner);
        }
    });
    out
}

/// logsumexp(logits) − logits\[target\]; 0 where the target is out of range.
pub fn cross_entropy(logits: &[f64], targets: &[i32], row: usize) -> Vec<f64> {
    parallel::indices(targets.len(), row, |i| match in_range(targets[i], row) {
        Some(target) => {
            let x = &logits[i * row..(i + 1) * row];
            log_sum_exp(x) - x[target]
        }
        None => 0.0,
    })
}

/// (softmax(logits) − onehot(target))·dy; 0 where the target is out of range.
pub fn cross_entropy_grad(logits: &[f64], targets: &[i32], dy: &[f64], row: usize) -> Vec<f64> {
    let mut out = vec![0.0; logits.len()];
    parallel::rows(&mut out, row, row, |i, dx| {
        let Some(target) = in_range(targets[i], row) else { return };
        softmax_row(&logits[i * row..(i + 1) * row], dx);
        dx[target] -= 1.0;
        dx.iter_mut().for_each(|dx| *dx *= dy[i]);
    });
    out
}
