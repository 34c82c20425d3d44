//! Rotary position embedding.

use super::parallel;

/// Turns (x1, x2) of every head by position·base^(−2i/D), or back. `sizes` are those of x; `position` runs along `axis`.
pub fn rope(x: &[f64], sizes: &[usize], position: &[i32], axis: usize, base: f64, inverse: bool) -> Vec<f64> {
    let head = sizes[sizes.len() - 1];
    let half = head / 2;
    // cos and sin of every position, half of them each.
    let angles: Vec<(f64, f64)> = position
        .iter()
        .flat_map(|&p| {
            (0..half).map(move |i| {
                let angle = f64::from(p) * base.powf(-2.0 * i as f64 / head as f64);
                (angle.cos(), if inverse { -angle.sin() } else { angle.sin() })
            })
        })
        .collect();
    // Heads that follow one another at one position.
    let heads: usize = sizes[axis + 1..sizes.len() - 1].iter().product();
    let mut out = vec![0.0; x.len()];
    parallel::rows(&mut out, head, head, |row, y| {
        let t = row / heads % sizes[axis];
        let (x1, x2) = x[row * head..(row + 1) * head].split_at(half);
        let (y1, y2) = y.split_at_mut(half);
        for (i, (cos, sin)) in angles[t * half..(t + 1) * half].iter().enumerate() {
            y1[i] = x1[i] * cos + x2[i] * sin;
            y2[i] = x2[i] * cos - x1[i] * sin;
        }
    });
    out
}
