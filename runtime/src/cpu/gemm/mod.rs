//! Matrix products of f32 on one thread: a block of the result from a left operand as it lies and a right operand that
//! is packed before, so that many blocks share the packing.
//!
//! A block walks k in steps that leave a strip of the left operand in the first level of cache and a strip of the right
//! one in the second (Goto & van de Geijn 2008); the innermost tile holds its sums in registers. The order in which an
//! element is summed depends on k alone: not on the block that it is computed in, nor on threads.

mod kernel;
mod pack;

use mngc_compiler::ir::DType;

pub use pack::{Source, transpose};

/// Elements of k between two visits of the result.
const DEPTH: usize = 384;
/// Rows of the left operand that are packed at once.
const ROWS: usize = 128;

/// Columns of a packed strip.
pub fn strip() -> usize {
    kernel::shape().1
}

/// Floats of a packed right operand of n columns.
pub fn packed(n: usize, k: usize) -> usize {
    n.next_multiple_of(strip()) * k
}

/// Floats of scratch memory that [`block`] needs.
pub const SCRATCH: usize = ROWS * DEPTH;

/// Columns that are best packed at once.
pub fn group() -> usize {
    pack::GROUP * strip()
}

/// Packs a right operand, `[n, k]`: strips of columns one after the other.
///
/// # Safety
/// Nobody writes to the operand.
pub unsafe fn pack(dst: &mut [f32], b: Source, n: usize, k: usize) {
    if n > 0 && k > 0 {
        // SAFETY: the caller's promise.
        unsafe { pack::strips(&mut dst[..packed(n, k)], b, n, k) };
    }
}

/// A right operand, packed: element (l, j) of the columns from `first` on.
#[derive(Clone, Copy, Debug)]
pub struct Packed<'a> {
    /// All strips.
    pub strips: &'a [f32],
    /// The first column that is meant, the first of a strip.
    pub first: usize,
}

/// Where a block of the result goes: element (i, j) at i·row + j.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its first element.
    pub start: *mut f32,
    /// Between rows.
    pub row: usize,
}

impl Target {
    /// Of a slice.
    pub fn of(values: &mut [f32], row: usize) -> Target {
        Target { start: values.as_mut_ptr(), row }
    }
}

/// c = scale·a·b, or c += scale·a·b, with a `[m, k]`, b `[k, n]` packed, c `[m, n]`. With k = 0 the product is 0.
///
/// # Safety
/// All elements of c lie in memory, nobody else touches them, and nobody writes to a.
pub unsafe fn block(
    [m, n, k]: [usize; 3],
    scale: f32,
    a: Source,
    b: Packed,
    add: bool,
    c: Target,
    scratch: &mut [f32],
) {
    if m == 0 || n == 0 {
        return;
    }
    let (rows, strip) = kernel::shape();
    let strips = &b.strips[b.first * k..][..n.next_multiple_of(strip) * k];
    if k == 0 && !add {
        for i in 0..m {
            // SAFETY: a row of the result.
            unsafe { std::slice::from_raw_parts_mut(c.start.add(i * c.row), n) }.fill(0.0);
        }
        return;
    }
    if k > 0 {
        let last = a.at(m - 1, k - 1).first;
        assert!(last < a.region.len(), "a block within its operand");
    }
    let is_plain = a.inner == 1 && a.region.dtype() == DType::F32;
    for from in (0..k).step_by(DEPTH) {
        let depth = DEPTH.min(k - from);
        let add = add || from > 0;
        // What is not packed needs no bound on rows.
        let height = if is_plain { m } else { ROWS };
        for top in (0..m).step_by(height) {
            let count = height.min(m - top);
            // SAFETY: the caller's promise.
            let left = unsafe { left(a.at(top, from), count, depth, scratch) };
            for i in (0..count).step_by(rows) {
                let m = rows.min(count - i);
                for j in (0..n).step_by(strip) {
                    let tile = kernel::Tile {
                        k: depth,
                        a: left.at(i),
                        a_row: left.row,
                        a_inner: left.inner,
                        b: strips[j * k + from * strip..][..depth * strip].as_ptr(),
                        scale,
                        add,
                        c: c.start.wrapping_add((top + i) * c.row + j),
                        c_row: c.row,
                    };
                    // SAFETY: the tile lies in its operands and in the block.
                    unsafe { whole_or_part(m, strip.min(n - j), strip, &tile) };
                }
            }
        }
    }
}

/// Rows of the left operand as the innermost tile reads them.
struct Left {
    start: *const f32,
    row: usize,
    inner: usize,
    /// Between groups of a tile's rows, where they are packed.
    group: Option<usize>,
}

impl Left {
    /// Row i, the first of a tile.
    fn at(&self, i: usize) -> *const f32 {
        let offset = match self.group {
            Some(group) => i / kernel::shape().0 * group,
            None => i * self.row,
        };
        self.start.wrapping_add(offset)
    }
}

/// Rows of f32 in order stay where they are; narrow ones are converted; others are packed in groups of a tile's rows.
///
/// # Safety
/// Nobody writes to the operand.
unsafe fn left(a: Source, count: usize, depth: usize, scratch: &mut [f32]) -> Left {
    if a.inner == 1 && a.region.dtype() == DType::F32 {
        return Left { start: a.address(), row: a.row, inner: 1, group: None };
    }
    // SAFETY: the caller's promise.
    unsafe {
        if a.inner == 1 {
            for (i, dst) in scratch.chunks_exact_mut(depth).take(count).enumerate() {
                crate::cpu::convert::load(&a.region, a.at(i, 0).first, dst);
            }
            return Left { start: scratch.as_ptr(), row: depth, inner: 1, group: None };
        }
        let rows = kernel::shape().0;
        let size = rows * depth;
        if a.row == 1 {
            let mut line = [0f32; ROWS];
            let line = &mut line[..count];
            for l in 0..depth {
                crate::cpu::convert::load(&a.region, a.at(0, l).first, line);
                for (group, line) in line.chunks(rows).enumerate() {
                    scratch[group * size + l * rows..][..line.len()].copy_from_slice(line);
                }
            }
        } else {
            for (group, dst) in scratch.chunks_exact_mut(size).take(count.div_ceil(rows)).enumerate() {
                let first = group * rows;
                pack::turned(dst, rows, a.at(first, 0), rows.min(count - first), depth);
            }
        }
        Left { start: scratch.as_ptr(), row: 1, inner: rows, group: Some(size) }
    }
}

/// Runs a tile; one whose columns are not whole vectors goes through a copy.
///
/// # Safety
/// As for [`kernel::run`], for so many rows and columns.
unsafe fn whole_or_part(m: usize, columns: usize, strip: usize, tile: &kernel::Tile) {
    let lanes = strip / kernel::VECTORS;
    let vectors = columns.div_ceil(lanes);
    // SAFETY: the caller's promise; the copy holds a full tile.
    unsafe {
        if columns.is_multiple_of(lanes) {
            return kernel::run(m, vectors, tile);
        }
        let mut copy = [0f32; kernel::LARGEST];
        let rows = |i: usize| std::slice::from_raw_parts_mut(tile.c.add(i * tile.c_row), columns);
        if tile.add {
            for (i, copy) in copy.chunks_exact_mut(strip).take(m).enumerate() {
                copy[..columns].copy_from_slice(rows(i));
            }
        }
        kernel::run(m, vectors, &kernel::Tile { c: copy.as_mut_ptr(), c_row: strip, ..*tile });
        for (i, copy) in copy.chunks_exact(strip).take(m).enumerate() {
            rows(i).copy_from_slice(&copy[..columns]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::memory::Memory;

    /// Small integers, whose sums are exact in any order.
    fn whole(i: usize) -> f32 {
        ((i * 7919 + 13) % 17) as f32 - 8.0
    }

    fn check([m, n, k]: [usize; 3], turned: [bool; 2]) {
        let memory = Memory::zeroed((m * k + n * k) * 4).unwrap();
        let (a, b) =
            (memory.region(0, DType::F32, m * k).unwrap(), memory.region(m * k * 4, DType::F32, n * k).unwrap());
        // SAFETY: nobody else looks.
        unsafe {
            a.slice_mut::<f32>().iter_mut().enumerate().for_each(|(i, x)| *x = whole(i));
            b.slice_mut::<f32>().iter_mut().enumerate().for_each(|(i, x)| *x = whole(i + 5));
        }
        let source = |region, turned: bool, rows| match turned {
            true => Source { region, first: 0, row: 1, inner: rows },
            false => Source { region, first: 0, row: k, inner: 1 },
        };
        let (a, b) = (source(a, turned[0], m), source(b, turned[1], n));
        let mut strips = vec![f32::NAN; packed(n, k)];
        let mut scratch = vec![f32::NAN; SCRATCH];
        // A border that must stay.
        let row = n + 3;
        let mut c = vec![1000.0; m * row + 1];
        for add in [false, true] {
            // SAFETY: nobody else looks.
            unsafe {
                pack(&mut strips, b, n, k);
                let packed = Packed { strips: &strips, first: 0 };
                block([m, n, k], 0.5, a, packed, add, Target::of(&mut c, row), &mut scratch);
            }
            let times = if add { 2.0 } else { 1.0 };
            for i in 0..m {
                for j in 0..row {
                    let term = |l: usize| {
                        let (x, y) = (i * a.row + l * a.inner, j * b.row + l * b.inner);
                        whole(x) * whole(y + 5)
                    };
                    let wanted = if j < n { 0.5 * times * (0..k).map(term).sum::<f32>() } else { 1000.0 };
                    assert_eq!(c[i * row + j], wanted, "{m}x{n}x{k} {turned:?} {add}: ({i}, {j})");
                }
            }
        }
    }

    #[test]
    fn products_of_every_size_and_order() {
        for turned in [[false, false], [false, true], [true, false], [true, true]] {
            for m in [0, 1, 3, 7, 8, 9, 17] {
                for n in [0, 1, 15, 16, 17, 32, 47, 48, 49, 100] {
                    for k in [0, 1, 2, 15, 16, 17, 33] {
                        check([m, n, k], turned);
                    }
                }
            }
            check([130, 50, DEPTH + 1], turned);
            check([ROWS + 9, 20, 2 * DEPTH + 3], turned);
        }
    }

    #[test]
    fn an_element_does_not_depend_on_its_block() {
        let (m, n, k) = (40, 96, 500);
        let memory = Memory::zeroed((m + n) * k * 4).unwrap();
        let region = memory.region(0, DType::F32, (m + n) * k).unwrap();
        // SAFETY: nobody else looks.
        unsafe {
            region.slice_mut::<f32>().iter_mut().enumerate().for_each(|(i, x)| *x = (i as f32 * 0.37).sin());
        }
        let a = Source { region, first: 0, row: k, inner: 1 };
        let b = a.at(m, 0);
        let (mut strips, mut scratch) = (vec![0.0; packed(n, k)], vec![0.0; SCRATCH]);
        let (mut whole, mut parts) = (vec![0.0; m * n], vec![0.0; m * n]);
        // SAFETY: nobody else looks.
        unsafe {
            pack(&mut strips, b, n, k);
            let packed = Packed { strips: &strips, first: 0 };
            block([m, n, k], 1.0, a, packed, false, Target::of(&mut whole, n), &mut scratch);
            for top in (0..m).step_by(11) {
                for first in (0..n).step_by(strip()) {
                    let sizes = [11.min(m - top), strip().min(n - first), k];
                    let c = Target { start: parts.as_mut_ptr().add(top * n + first), row: n };
                    block(sizes, 1.0, a.at(top, 0), Packed { strips: &strips, first }, false, c, &mut scratch);
                }
            }
        }
        assert_eq!(whole, parts);
    }
}
