//! Rows by index, sums of rows of equal index, running sums, folds over any axes, random numbers.

use mngc_compiler::ir::{Distribution, ReduceKind};

use super::context::{Context, Need, part, tasks};
use super::layout::strides;
use super::memory::Region;
use super::{convert, elementwise, fold};
use crate::reference::random;

/// A row of a table for each index; zeros for an index out of range.
pub fn gather(ctx: &Context, args: &[Region], result: &Region, rows: usize, row: usize) {
    // SAFETY: no launch of this kind works in place.
    let index = unsafe { args[1].slice::<i32>() };
    let tasks = tasks(result.len()).min(index.len().max(1));
    ctx.each(tasks, |task| {
        for n in part(index.len(), tasks, task) {
            // SAFETY: rows of this task.
            let to = unsafe { result.part(n * row..(n + 1) * row).bytes_mut() };
            match usize::try_from(index[n]) {
                // SAFETY: nobody writes the table.
                Ok(i) if i < rows => to.copy_from_slice(unsafe { args[0].part(i * row..(i + 1) * row).bytes() }),
                _ => to.fill(0),
            }
        }
    });
}

/// Sums of rows of equal index, in the order in which they stand.
#[derive(Debug)]
pub struct ScatterAdd {
    rows: usize,
    row: usize,
    count: usize,
}

impl ScatterAdd {
    /// Into a table of `rows` rows of `row` elements, from `count` rows.
    pub fn new(rows: usize, row: usize, count: usize) -> ScatterAdd {
        ScatterAdd { rows, row, count }
    }

    /// What it needs: the order of the rows, and one row of sums for each thread.
    pub fn need(&self) -> Need {
        Need { shared: 0, scratch: (2 * self.count + 2 * self.row) * 4 }
    }

    /// Runs it. Each task owns a range of the table: it picks what belongs there, sorts it by index, and sums segments.
    pub fn run(&self, ctx: &Context, args: &[Region], result: &Region) {
        let Self { rows, row, count } = *self;
        // SAFETY: no launch of this kind works in place.
        let index = unsafe { args[0].slice::<i32>() };
        let tasks = tasks(count * row).min(rows.max(1));
        ctx.each(tasks, |task| {
            let range = part(rows, tasks, task);
            // SAFETY: rows of this task.
            unsafe { result.part(range.start * row..range.end * row).bytes_mut() }.fill(0);
            ctx.scratch(|words| {
                let (order, sums) = words.split_at_mut(2 * count);
                let order: &mut [[u32; 2]] = order.as_chunks_mut().0;
                let mut found = 0;
                for (n, &i) in index.iter().enumerate() {
                    if usize::try_from(i).is_ok_and(|i| range.contains(&i)) {
                        order[found] = [i as u32, n as u32];
                        found += 1;
                    }
                }
                // Pairs are unequal, so that this order is the one of a stable sort by index.
                order[..found].sort_unstable();
                let sums: &mut [f32] = bytemuck::cast_slice_mut(&mut sums[..2 * row]);
                let (sums, next) = sums.split_at_mut(row);
                for segment in order[..found].chunk_by(|a, b| a[0] == b[0]) {
                    for (k, &[_, n]) in segment.iter().enumerate() {
                        let to = if k == 0 { &mut *sums } else { &mut *next };
                        // SAFETY: nobody writes the operand.
                        unsafe { convert::load(&args[1], n as usize * row, to) };
                        if k > 0 {
                            fold::add(sums, next);
                        }
                    }
                    // SAFETY: a row of this task.
                    unsafe { convert::store(result, segment[0][0] as usize * row, sums) };
                }
            });
        });
    }
}

/// Inclusive running sum along an axis of `n` positions with `inner` elements behind each, from its start or its end.
pub fn cumsum(ctx: &Context, arg: &Region, result: &Region, n: usize, inner: usize, reverse: bool) {
    let lines = arg.len() / n.max(1);
    let tasks = tasks(arg.len()).min(lines.max(1));
    ctx.each(tasks, |task| {
        for line in part(lines, tasks, task) {
            let first = line / inner * n * inner + line % inner;
            let place = |t: usize| first + if reverse { n - 1 - t } else { t } * inner;
            let (mut sum, mut int_sum) = (0f64, 0i32);
            for t in 0..n {
                let at = place(t);
                // SAFETY: nobody writes the operand, and the elements of this line are this task's.
                unsafe {
                    if arg.dtype().is_float() {
                        let mut x = [0f32];
                        convert::load(arg, at, &mut x);
                        sum += f64::from(x[0]);
                        convert::store(result, at, &[sum as f32]);
                    } else {
                        let mut x = [0i32];
                        convert::load_ints(arg, at, &mut x);
                        int_sum = int_sum.wrapping_add(x[0]);
                        convert::store_ints(result, at, &[int_sum]);
                    }
                }
            }
        }
    });
}

/// A fold over any axes.
#[derive(Debug)]
pub struct Reduce {
    kind: ReduceKind,
    /// Size and stride of the axes that stay, and of those that are folded.
    kept: Vec<(usize, usize)>,
    folded: Vec<(usize, usize)>,
}

impl Reduce {
    /// Of an operand of these sizes.
    pub fn new(kind: ReduceKind, sizes: &[usize], axes: &[u8]) -> Reduce {
        let all = sizes.iter().zip(strides(sizes)).map(|(&size, by)| (size, by as usize)).enumerate();
        let (folded, kept): (Vec<_>, Vec<_>) = all.partition(|(axis, _)| axes.contains(&(*axis as u8)));
        let plain = |axes: Vec<(usize, (usize, usize))>| axes.into_iter().map(|(_, axis)| axis).collect();
        Reduce { kind, kept: plain(kept), folded: plain(folded) }
    }

    /// Runs it: elements are folded in row-major order, floats in f64.
    pub fn run(&self, ctx: &Context, arg: &Region, result: &Region) {
        let count: usize = self.folded.iter().map(|axis| axis.0).product();
        let tasks = tasks(result.len().max(arg.len())).min(result.len().max(1));
        ctx.each(tasks, |task| {
            for i in part(result.len(), tasks, task) {
                let base = offset(&self.kept, i);
                // SAFETY: nobody writes the operand, and this element of the result is this task's.
                unsafe {
                    if arg.dtype().is_float() {
                        let values = (0..count).map(|k| {
                            let mut x = [0f32];
                            convert::load(arg, base + offset(&self.folded, k), &mut x);
                            x[0]
                        });
                        convert::store(result, i, &[fold_floats(self.kind, values, count)]);
                    } else {
                        let values = (0..count).map(|k| {
                            let mut x = [0i32];
                            convert::load_ints(arg, base + offset(&self.folded, k), &mut x);
                            x[0]
                        });
                        convert::store_ints(result, i, &[fold_ints(self.kind, values)]);
                    }
                }
            }
        });
    }
}

/// Where element i of axes lies.
fn offset(axes: &[(usize, usize)], mut i: usize) -> usize {
    let mut at = 0;
    for &(size, by) in axes.iter().rev() {
        at += i % size * by;
        i /= size;
    }
    at
}

fn fold_floats(kind: ReduceKind, values: impl Iterator<Item = f32>, count: usize) -> f32 {
    let sum = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, |sum, x| sum + x);
    match kind {
        ReduceKind::Sum => sum(&mut values.map(f64::from)) as f32,
        ReduceKind::Mean => (sum(&mut values.map(f64::from)) / count as f64) as f32,
        ReduceKind::Norm => sum(&mut values.map(|x| f64::from(x) * f64::from(x))).sqrt() as f32,
        ReduceKind::Max => values.fold(f32::NEG_INFINITY, elementwise::max),
        ReduceKind::Min => values.fold(f32::INFINITY, elementwise::min),
    }
}

fn fold_ints(kind: ReduceKind, values: impl Iterator<Item = i32>) -> i32 {
    match kind {
        ReduceKind::Max => values.max().unwrap_or(i32::MIN),
        ReduceKind::Min => values.min().unwrap_or(i32::MAX),
        ReduceKind::Sum | ReduceKind::Mean | ReduceKind::Norm => values.fold(0, i32::wrapping_add),
    }
}

/// Draws the numbers of a stream.
pub fn random(ctx: &Context, distribution: Distribution, name: &str, result: &Region) {
    let stream = random::Stream::new(distribution, ctx.seed, name, ctx.step);
    let tasks = tasks(result.len());
    ctx.each(tasks, |task| {
        const PIECE: usize = 256;
        let mut piece = [0f32; PIECE];
        let range = part(result.len(), tasks, task);
        for from in range.clone().step_by(PIECE) {
            let n = PIECE.min(range.end - from);
            for (i, x) in piece[..n].iter_mut().enumerate() {
                *x = crate::round::round(result.dtype(), stream.number(from + i)) as f32;
            }
            // SAFETY: each task writes a part of its own.
            unsafe { convert::store(result, from, &piece[..n]) };
        }
    });
}
