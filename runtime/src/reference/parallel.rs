//! Splitting work over threads. Every element is computed by one thread from start to end, so nothing here changes a
//! result.

use rayon::prelude::*;

/// Below this many elements a second thread costs more than it brings.
const WORTH_IT: usize = 1 << 14;

/// `f` of every element.
pub fn map<A: Copy + Sync, R: Send>(a: &[A], f: impl Fn(A) -> R + Sync) -> Vec<R> {
    if a.len() < WORTH_IT {
        a.iter().map(|&a| f(a)).collect()
    } else {
        a.par_iter().with_min_len(WORTH_IT / 2).map(|&a| f(a)).collect()
    }
}

/// `f` of every pair of elements.
pub fn zip<A: Copy + Sync, B: Copy + Sync, R: Send>(a: &[A], b: &[B], f: impl Fn(A, B) -> R + Sync) -> Vec<R> {
    if a.len() < WORTH_IT {
        a.iter().zip(b).map(|(&a, &b)| f(a, b)).collect()
    } else {
        a.par_iter().zip(b).with_min_len(WORTH_IT / 2).map(|(&a, &b)| f(a, b)).collect()
    }
}

/// `f` of every index; `cost` is about the number of elements that one index touches.
pub fn indices<R: Send>(n: usize, cost: usize, f: impl Fn(usize) -> R + Sync + Send) -> Vec<R> {
    if n.saturating_mul(cost) < WORTH_IT {
        (0..n).map(f).collect()
    } else {
        (0..n).into_par_iter().with_min_len((WORTH_IT / 2).div_ceil(cost.max(1))).map(f).collect()
    }
}

/// Fills rows of `row` elements: `f` gets the number of the row and the row; `cost` is about the number of elements that
/// one row touches.
pub fn rows<R: Send>(out: &mut [R], row: usize, cost: usize, f: impl Fn(usize, &mut [R]) + Sync) {
    if out.is_empty() {
        return;
    }
    let count = out.len().div_ceil(row);
    if count.saturating_mul(cost) < WORTH_IT {
        out.chunks_mut(row).enumerate().for_each(|(i, out)| f(i, out));
    } else {
        let least = (WORTH_IT / 2).div_ceil(cost.max(1));
        out.par_chunks_mut(row).with_min_len(least).enumerate().for_each(|(i, out)| f(i, out));
    }
}
