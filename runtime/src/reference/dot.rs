//! Sums of products over paired axes.

use super::{layout, parallel};

/// Rows of the result that are summed side by side.
const ROWS: usize = 4;
/// Columns of the result that are summed side by side: one panel of b.
const COLUMNS: usize = 8;

/// The contraction of a and b over `contract`, walking `batch` together. Result: the batch axes, the free axes of a, the
/// free axes of b. Each element is summed in row-major order of the contracted axes, in the order in which they are named.
pub fn dot(
    a: &[f64],
    a_sizes: &[usize],
    b: &[f64],
    b_sizes: &[usize],
    batch: &[(u8, u8)],
    contract: &[(u8, u8)],
) -> Vec<f64> {
    let side = |pairs: &[(u8, u8)], of_a: bool| -> Vec<usize> {
        pairs.iter().map(|&(i, j)| usize::from(if of_a { i } else { j })).collect()
    };
    let free = |rank: usize, of_a: bool| -> Vec<usize> {
        let used = [side(batch, of_a), side(contract, of_a)].concat();
        (0..rank).filter(|axis| !used.contains(axis)).collect()
    };
    let (a_free, b_free) = (free(a_sizes.len(), true), free(b_sizes.len(), false));
    let count = |sizes: &[usize], axes: &[usize]| axes.iter().map(|&axis| sizes[axis]).product::<usize>();
    let (batches, depth) = (count(a_sizes, &side(batch, true)), count(a_sizes, &side(contract, true)));
    let (m, n) = (count(a_sizes, &a_free), count(b_sizes, &b_free));

    // Both operands as a stack of matrices: a [batches, m, depth], b [batches, depth, n].
    let (sizes, by) = layout::permuted(a_sizes, [side(batch, true), a_free, side(contract, true)].concat());
    let a = layout::view(a, 0, &sizes, &by);
    let (sizes, by) = layout::permuted(b_sizes, [side(batch, false), side(contract, false), b_free].concat());
    let b = layout::view(b, 0, &sizes, &by);

    let mut out = vec![0.0; batches * m * n];
    if out.is_empty() || depth == 0 {
        return out;
    }
    for ((a, b), out) in a.chunks(m * depth).zip(b.chunks(depth * n)).zip(out.chunks_mut(m * n)) {
        matmul(a, b, out, depth, n);
    }
    out
}

/// out [m, n] = a [m, depth] · b [depth, n].
fn matmul(a: &[f64], b: &[f64], out: &mut [f64], depth: usize, n: usize) {
    let panels = pack(b, depth, n);
    // Stands for the rows that the last group lacks.
    let nothing = vec![0.0; depth];
    parallel::rows(out, ROWS * n, ROWS * n * depth, |group, out| {
        let first = group * ROWS;
        let present = out.len() / n;
        let rows: [&[f64]; ROWS] = std::array::from_fn(|r| match r < present {
            true => &a[(first + r) * depth..(first + r + 1) * depth],
            false => &nothing[..],
        });
        for (p, panel) in panels.chunks(depth).enumerate() {
            let sums = tile(rows, panel);
            let columns = p * COLUMNS..n.min((p + 1) * COLUMNS);
            for (r, sums) in sums.iter().take(present).enumerate() {
                out[r * n + columns.start..r * n + columns.end].copy_from_slice(&sums[..columns.len()]);
            }
        }
    });
}

/// b [depth, n] as panels [depth, COLUMNS], the last one filled up with zeros.
fn pack(b: &[f64], depth: usize, n: usize) -> Vec<[f64; COLUMNS]> {
    let mut panels = Vec::with_capacity(n.div_ceil(COLUMNS) * depth);
    for first in (0..n).step_by(COLUMNS) {
        let width = COLUMNS.min(n - first);
        panels.extend(b.chunks(n).map(|row| {
            let mut columns = [0.0; COLUMNS];
            columns[..width].copy_from_slice(&row[first..first + width]);
            columns
        }));
    }
    panels
}

/// A few elements of the result at once: independent sums, each in order of depth.
fn tile(rows: [&[f64]; ROWS], panel: &[[f64; COLUMNS]]) -> [[f64; COLUMNS]; ROWS] {
    let mut sums = [[0.0; COLUMNS]; ROWS];
    let rows = rows.map(|row| &row[..panel.len()]);
    for (k, b) in panel.iter().enumerate() {
        for (sums, row) in sums.iter_mut().zip(rows) {
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum += row[k] * b;
            }
        }
    }
    sums
}
