//! Folds and running sums along axes, in row-major order of what is folded.

use mngc_compiler::ir::ReduceKind;

use super::elementwise::{max, min};
use super::layout;
use super::parallel;
use crate::tensor::Data;

/// Folds `axes` away.
pub fn reduce(kind: ReduceKind, x: &Data, sizes: &[usize], axes: &[u8]) -> Data {
    let folded = |axis: &usize| axes.contains(&(*axis as u8));
    // The folded axes go last: then each result is the fold of one row.
    let kept = (0..sizes.len()).filter(|axis| !folded(axis));
    let (order, by) = layout::permuted(sizes, kept.clone().chain((0..sizes.len()).filter(folded)));
    let n: usize = kept.map(|axis| sizes[axis]).product();
    let row: usize = axes.iter().map(|&axis| sizes[axis as usize]).product();
    match x {
        Data::Float(x) => {
            let x = layout::view(x, 0, &order, &by);
            Data::Float(parallel::indices(n, row, |i| fold(kind, &x[i * row..(i + 1) * row])))
        }
        Data::Int(x) => {
            let x = layout::view(x, 0, &order, &by);
            Data::Int(parallel::indices(n, row, |i| fold_int(kind, &x[i * row..(i + 1) * row])))
        }
        Data::Bool(_) => unreachable!("reduction of bool"),
    }
}

/// Σx, +0 for nothing (the sum of the standard library starts from −0).
fn sum(x: impl Iterator<Item = f64>) -> f64 {
    x.fold(0.0, |sum, x| sum + x)
}

fn fold(kind: ReduceKind, row: &[f64]) -> f64 {
    match kind {
        ReduceKind::Sum => sum(row.iter().copied()),
        ReduceKind::Mean => sum(row.iter().copied()) / row.len() as f64,
        ReduceKind::Max => row.iter().copied().fold(f64::NEG_INFINITY, max),
        ReduceKind::Min => row.iter().copied().fold(f64::INFINITY, min),
        ReduceKind::Norm => sum(row.iter().map(|x| x * x)).sqrt(),
    }
}

fn fold_int(kind: ReduceKind, row: &[i32]) -> i32 {
    match kind {
        ReduceKind::Sum => row.iter().copied().fold(0, i32::wrapping_add),
        ReduceKind::Max => row.iter().copied().max().unwrap_or(i32::MIN),
        ReduceKind::Min => row.iter().copied().min().unwrap_or(i32::MAX),
        ReduceKind::Mean | ReduceKind::Norm => unreachable!("{} of i32", kind.name()),
    }
}

/// Inclusive running sum along an axis, from its start or from its end.
pub fn cumsum(x: &Data, sizes: &[usize], axis: usize, reverse: bool) -> Data {
    fn of<T: Copy>(x: &[T], sizes: &[usize], axis: usize, reverse: bool, add: impl Fn(T, T) -> T) -> Vec<T> {
        let mut y = x.to_vec();
        let inner: usize = sizes[axis + 1..].iter().product();
        let block = sizes[axis] * inner;
        if block == 0 {
            return y;
        }
        for block in y.chunks_mut(block) {
            for t in 1..sizes[axis] {
                let (to, from) = if reverse { (sizes[axis] - 1 - t, sizes[axis] - t) } else { (t, t - 1) };
                for i in 0..inner {
                    block[to * inner + i] = add(block[from * inner + i], block[to * inner + i]);
                }
            }
        }
        y
    }
    match x {
        Data::Float(x) => Data::Float(of(x, sizes, axis, reverse, |a, b| a + b)),
        Data::Int(x) => Data::Int(of(x, sizes, axis, reverse, i32::wrapping_add)),
        Data::Bool(_) => unreachable!("running sum of bool"),
    }
}
