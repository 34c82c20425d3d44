//! Ops that move elements: every one is a few copies from strided places to strided places, whatever the elements are.

use mngc_compiler::ir::Op;

use super::context::{Context, part, tasks};
use super::memory::{Element, Region};

/// A copy: element (i, j, …) of `sizes` goes from `from` + i·from_by\[0\] + … to `to` + i·to_by\[0\] + …, in elements.
#[derive(Clone, Debug, PartialEq)]
struct Copy {
    operand: usize,
    sizes: Vec<usize>,
    from: usize,
    from_by: Vec<isize>,
    to: usize,
    to_by: Vec<isize>,
}

/// An op that moves elements, made ready to run.
#[derive(Debug)]
pub struct Layout {
    /// Whether some elements of the result come from nowhere and are 0.
    has_gaps: bool,
    copies: Vec<Copy>,
}

/// Distance in memory of neighbours along each axis of a row-major tensor.
pub fn strides(sizes: &[usize]) -> Vec<isize> {
    let mut out = vec![1isize; sizes.len()];
    for i in (1..sizes.len()).rev() {
        out[i - 1] = out[i] * sizes[i] as isize;
    }
    out
}

impl Layout {
    /// The copies of an op; none where it is of another kind. `args` and `out` are the sizes of operands and result.
    pub fn new(op: &Op, args: &[Vec<usize>], out: &[usize]) -> Option<Layout> {
        let to_by = strides(out);
        let whole = |from: usize, from_by: Vec<isize>| Layout {
            has_gaps: false,
            copies: vec![Copy { operand: 0, sizes: out.to_vec(), from, from_by, to: 0, to_by: to_by.clone() }],
        };
        // Of `count` positions along an axis, from one place to another.
        let along = |operand: usize, axis: usize, from: usize, to: usize, count: usize| {
            let from_by = strides(&args[operand]);
            let mut sizes = out.to_vec();
            sizes[axis] = count;
            let (from, to) = (from * from_by[axis] as usize, to * to_by[axis] as usize);
            Copy { operand, sizes, from, from_by, to, to_by: to_by.clone() }
        };
        let first = args.first();
        Some(match op {
            Op::Reshape => whole(0, to_by.clone()),
            Op::Broadcast { axes } => {
                let mut by = vec![0; out.len()];
                for (&axis, stride) in axes.iter().zip(strides(first?)) {
                    by[axis as usize] = stride;
                }
                whole(0, by)
            }
            Op::Transpose { perm } => {
                let by = strides(first?);
                whole(0, perm.iter().map(|&axis| by[axis as usize]).collect())
            }
            Op::Slice { axis, start } => {
                let by = strides(first?);
                whole(start * by[*axis as usize] as usize, by)
            }
            Op::Reverse { axis } => {
                let mut by = strides(first?);
                let axis = *axis as usize;
                let last = by[axis] as usize * out[axis].saturating_sub(1);
                by[axis] = -by[axis];
                whole(last, by)
            }
            Op::Pad { axis, before } => {
                let axis = *axis as usize;
                let count = first?[axis];
                Layout { has_gaps: count < out[axis], copies: vec![along(0, axis, 0, *before, count)] }
            }
            Op::Shift { axis, by } => {
                let axis = *axis as usize;
                let n = out[axis];
                let distance = usize::try_from(by.unsigned_abs()).unwrap_or(usize::MAX).min(n);
                let (from, to) = if *by >= 0 { (0, distance) } else { (distance, 0) };
                Layout { has_gaps: distance > 0, copies: vec![along(0, axis, from, to, n - distance)] }
            }
            Op::Concat { axis } => {
                let axis = *axis as usize;
                let mut at = 0;
                let copies = args.iter().enumerate().map(|(operand, sizes)| {
                    at += sizes[axis];
                    along(operand, axis, 0, at - sizes[axis], sizes[axis])
                });
                Layout { has_gaps: false, copies: copies.collect() }
            }
            _ => return None,
        })
    }

    /// Runs it.
    pub fn run(&self, ctx: &Context, args: &[Region], result: &Region) {
        if self.has_gaps {
            let tasks = tasks(result.len());
            ctx.each(tasks, |task| {
                // SAFETY: each task writes a part of its own.
                unsafe { result.part(part(result.len(), tasks, task)).bytes_mut() }.fill(0);
            });
        }
        for copy in &self.copies {
            match result.dtype().bytes() {
                1 => copy.run::<u8>(ctx, &args[copy.operand], result),
                2 => copy.run::<u16>(ctx, &args[copy.operand], result),
                _ if result.dtype().is_float() => copy.run::<f32>(ctx, &args[copy.operand], result),
                _ => copy.run::<i32>(ctx, &args[copy.operand], result),
            }
        }
    }
}

impl Copy {
    fn run<T: Element>(&self, ctx: &Context, from: &Region, to: &Region) {
        let rank = self.sizes.len();
        let elements: usize = self.sizes.iter().product();
        if elements == 0 {
            return;
        }
        // The last two axes are one block; a rank below 2 has them with one position.
        let size = |back: usize| if back < rank { self.sizes[rank - 1 - back] } else { 1 };
        let by = |strides: &[isize], back: usize| if back < rank { strides[rank - 1 - back] } else { 0 };
        let (rows, columns) = (size(1), size(0));
        let outer = &self.sizes[..rank.saturating_sub(2)];
        let blocks: usize = outer.iter().product();
        // Tasks split blocks, or the rows of them where these are few.
        let tasks = tasks(elements).min(blocks * rows);
        let split_rows = blocks < tasks;
        // SAFETY: no launch that moves elements works in place.
        let source = unsafe { from.slice::<T>() };
        let pieces = if split_rows { blocks * tasks } else { tasks };
        ctx.each(pieces, |task| {
            let (blocks, rows) = match split_rows {
                true => (task / tasks..task / tasks + 1, part(rows, tasks, task % tasks)),
                false => (part(blocks, tasks, task), 0..rows),
            };
            for block in blocks {
                let (mut f, mut t, mut rest) = (self.from as isize, self.to as isize, block);
                for (axis, &size) in outer.iter().enumerate().rev() {
                    let i = (rest % size) as isize;
                    rest /= size;
                    f += i * self.from_by[axis];
                    t += i * self.to_by[axis];
                }
                let strides = [by(&self.from_by, 1), by(&self.from_by, 0), by(&self.to_by, 1), by(&self.to_by, 0)];
                // SAFETY: elements of this block, which no other task writes.
                unsafe { block_copy(source, f, to, t, rows.clone(), columns, strides) };
            }
        });
    }
}

/// Copies a block of rows. Blocks that exchange their axes are walked in squares, for the sake of cache lines.
///
/// # Safety
/// Nobody else touches the elements of the result.
unsafe fn block_copy<T: Element>(
    source: &[T],
    from: isize,
    to: &Region,
    at: isize,
    rows: std::ops::Range<usize>,
    columns: usize,
    [from_row, from_column, to_row, to_column]: [isize; 4],
) {
    const SQUARE: usize = 32;
    if to_column == 1 && (from_column == 1 || from_column == 0 || columns < SQUARE) {
        for i in rows {
            let (f, t) = (from + i as isize * from_row, (at + i as isize * to_row) as usize);
            // SAFETY: the caller's promise.
            let to = unsafe { to.part(t..t + columns).slice_mut::<T>() };
            match from_column {
                1 => to.copy_from_slice(&source[f as usize..f as usize + columns]),
                0 => to.fill(source[f as usize]),
                _ => to.iter_mut().enumerate().for_each(|(j, x)| *x = source[(f + j as isize * from_column) as usize]),
            }
        }
        return;
    }
    if from_row == 1 && from_column > 1 && to_column == 1 && to_row == columns as isize {
        for top in rows.clone().step_by(SQUARE) {
            let height = SQUARE.min(rows.end - top);
            let first = (at + top as isize * to_row) as usize;
            // SAFETY: the caller's promise: whole rows of the result.
            let to = unsafe { to.part(first..first + height * columns).slice_mut::<T>() };
            let source = &source[(from + top as isize) as usize..];
            T::transpose(to, columns, source, from_column as usize, [columns, height]);
        }
        return;
    }
    for left in (0..columns).step_by(SQUARE) {
        let right = columns.min(left + SQUARE);
        for i in rows.clone() {
            let f = from + i as isize * from_row;
            if to_column == 1 {
                let t = (at + i as isize * to_row) as usize;
                // SAFETY: the caller's promise.
                let to = unsafe { to.part(t + left..t + right).slice_mut::<T>() };
                for (x, j) in to.iter_mut().zip(left..) {
                    *x = source[(f + j as isize * from_column) as usize];
                }
                continue;
            }
            for j in left..right {
                let t = (at + i as isize * to_row + j as isize * to_column) as usize;
                // SAFETY: the caller's promise.
                let to = unsafe { to.part(t..t + 1).slice_mut::<T>() };
                to[0] = source[(f + j as isize * from_column) as usize];
            }
        }
    }
}
