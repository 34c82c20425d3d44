//! Matrix products over a fixed grid of panels, each computed by one thread from start to end.

use mngc_compiler::ir::DType;
use mngc_compiler::schedule::kernel::{DotKernel, Epilogue, Strides};

use super::check::{self, ensure};
use super::context::{Context, Need, part, tasks};
use super::gemm::{Matrix, gemm};
use super::memory::Region;
use super::rows::{Handed, Rows};
use super::{convert, fold};

/// A product made ready to run.
#[derive(Debug)]
pub struct Dot {
    kernel: DotKernel,
    grid: Grid,
    epilogue: Option<Rows>,
    /// Whether panels are computed where they are stored.
    is_direct: bool,
    /// Floats of shared memory for each operand that is not f32 yet.
    converted: [usize; 2],
}

/// Panels of a matrix: rows and columns of a panel, and how many there are of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    rows: usize,
    columns: usize,
    down: usize,
    across: usize,
}

impl Grid {
    /// Panels of almost the same size, `most` at most, for a matrix `[m, n]`.
    pub fn new(m: usize, n: usize, most: [usize; 2]) -> Grid {
        // Whole multiples of what kernels compute at once.
        let even = |n: usize, most: usize| n.div_ceil(n.div_ceil(most).max(1)).next_multiple_of(16);
        let (rows, columns) = (even(m, most[0]), even(n, most[1]));
        Grid { rows, columns, down: m.div_ceil(rows.max(1)), across: n.div_ceil(columns.max(1)) }
    }

    /// Number of panels.
    pub fn panels(&self) -> usize {
        self.down * self.across
    }

    /// First row, first column, rows and columns of a panel of a matrix `[m, n]`.
    pub fn panel(&self, i: usize, m: usize, n: usize) -> (usize, usize, usize, usize) {
        let (top, left) = (i / self.across * self.rows, i % self.across * self.columns);
        (top, left, self.rows.min(m - top), self.columns.min(n - left))
    }
}

/// Rows of a panel at most.
const ROWS: usize = 256;
/// Columns of a panel at most.
const COLUMNS: usize = 768;
/// Side of a panel of a symmetric product at most.
const SQUARE: usize = 256;

impl Dot {
    /// Checks a product against its operands and results.
    pub fn new(kernel: &DotKernel, args: &[Region], results: &[Region]) -> Result<Dot, String> {
        let k = kernel;
        let [Some(a), Some(b)] = [args.first(), args.get(1)] else { return Err("a product has two operands".into()) };
        check::matrix("the first operand", k.a, [k.batch, k.m, k.k], a)?;
        check::matrix("the second operand", k.b, [k.batch, k.n, k.k], b)?;
        ensure(!k.symmetric || k.m == k.n, || "a symmetric product is square".into())?;
        let elements = k.batch * k.m * k.n;
        let only = || match results {
            [result] if result.len() == elements && result.dtype().is_float() => Ok(*result),
            _ => Err(format!("one result of {elements} floats")),
        };
        let epilogue = match &k.epilogue {
            Epilogue::Store => only().map(|_| None)?,
            Epilogue::Accumulate(operand) => {
                let f32s = |r: &Region| r.dtype() == DType::F32 && r.len() == elements;
                let to = args.get(*operand).ok_or("there is nothing to add to")?;
                ensure(f32s(&only()?) && f32s(to), || "sums are of f32".into())?;
                None
            }
            Epilogue::Rows(program) => {
                let fits = program.is_elementwise() && program.elements == elements;
                ensure(fits, || "an epilogue is elementwise on the product".into())?;
                Some(Rows::new(program, args, results)?)
            }
        };
        let converted = [a, b].map(|r| if r.dtype() == DType::F32 { 0 } else { r.len() });
        let is_f32 = results.first().is_some_and(|r| r.dtype() == DType::F32);
        let is_direct = epilogue.is_none() && !k.symmetric && is_f32;
        let grid = Grid::new(k.m, k.n, if k.symmetric { [SQUARE, SQUARE] } else { [ROWS, COLUMNS] });
        Ok(Dot { kernel: kernel.clone(), grid, epilogue, is_direct, converted })
    }

    /// What it needs.
    pub fn need(&self) -> Need {
        let panel = if self.is_direct { 0 } else { self.grid.rows * self.grid.columns };
        let mirrored = if self.kernel.symmetric { panel } else { 0 };
        let program = self.epilogue.as_ref().map_or(0, Rows::words);
        Need { shared: self.converted.iter().sum::<usize>() * 4, scratch: (panel + mirrored + program) * 4 }
    }

    /// Runs it.
    pub fn run(&self, ctx: &Context, args: &[Region], results: &[Region]) {
        let a = as_f32(ctx, &args[0], 0);
        let b = as_f32(ctx, &args[1], self.converted[0]);
        let Grid { down, across, .. } = self.grid;
        let panels = if self.kernel.symmetric { down * (down + 1) / 2 } else { down * across };
        ctx.each(self.kernel.batch * panels, |task| {
            let (batch, panel) = (task / panels.max(1), task % panels.max(1));
            let (i, j) = if self.kernel.symmetric { upper(panel) } else { (panel / across, panel % across) };
            self.panel(ctx, [&a, &b], args, results, batch, i, j);
        });
    }

    /// Panel (i, j) of one product.
    fn panel(
        &self,
        ctx: &Context,
        [a, b]: [&Region; 2],
        args: &[Region],
        results: &[Region],
        batch: usize,
        i: usize,
        j: usize,
    ) {
        let DotKernel { m, n, k, symmetric, scale, .. } = self.kernel;
        let (top, left) = (i * self.grid.rows, j * self.grid.columns);
        let sizes @ [rows, columns, _] = [self.grid.rows.min(m - top), self.grid.columns.min(n - left), k];
        let start = |r: &Region, s: Strides, at: usize| {
            let first = (batch * s.batch + at * s.row).min(r.len());
            Matrix { start: r.address(first), row: s.row, column: s.inner }
        };
        let (a, b) = (start(a, self.kernel.a, top), start(b, self.kernel.b, left).transposed());
        let first = batch * m * n + top * n + left;
        let scale = scale as f32;
        if self.is_direct {
            let result = &results[0];
            let add = match self.kernel.epilogue {
                Epilogue::Accumulate(operand) => {
                    self.bring(&args[operand], result, [rows, columns], first);
                    true
                }
                Epilogue::Store | Epilogue::Rows(_) => false,
            };
            let c = Matrix { start: result.address(first), row: n, column: 1 };
            // SAFETY: the operands were checked, and this panel of the result is this task's.
            return unsafe { gemm(sizes, scale, a, b, add, c) };
        }
        ctx.scratch(|words| {
            let (panel, rest) = words.split_at_mut(self.grid.rows * self.grid.columns);
            let panel: &mut [f32] = bytemuck::cast_slice_mut(panel);
            // SAFETY: the operands were checked, and the scratch memory is this task's.
            unsafe { gemm(sizes, scale, a, b, false, Matrix::of_mut(panel, columns, 1)) };
            let product = &panel[..rows * columns];
            if !symmetric || i == j {
                return self.hand_out(rest, product, [rows, columns], first, args, results);
            }
            let (mirrored, rest) = rest.split_at_mut(self.grid.rows * self.grid.columns);
            let mirrored: &mut [f32] = &mut bytemuck::cast_slice_mut(mirrored)[..rows * columns];
            fold::transpose(mirrored, product, rows, columns);
            self.hand_out(rest, product, [rows, columns], first, args, results);
            let first = batch * m * n + left * n + top;
            self.hand_out(rest, mirrored, [columns, rows], first, args, results);
        });
    }

    /// Copies what a panel is added to, unless it is there.
    fn bring(&self, from: &Region, to: &Region, [rows, columns]: [usize; 2], first: usize) {
        if from.same_place(to) {
            return;
        }
        for row in 0..rows {
            let at = first + row * self.kernel.n;
            // SAFETY: this part of the result is one task's, and no operand.
            unsafe { convert::load(from, at, to.part(at..at + columns).slice_mut::<f32>()) };
        }
    }

    /// Stores a panel, whose first element stands at `first` of the result.
    fn hand_out(
        &self,
        words: &mut [u32],
        product: &[f32],
        [rows, columns]: [usize; 2],
        first: usize,
        args: &[Region],
        results: &[Region],
    ) {
        let n = self.kernel.n;
        // Whole rows lie in one piece.
        let (pieces, len) = if columns == n { (1, rows * columns) } else { (rows, columns) };
        if let Epilogue::Accumulate(operand) = self.kernel.epilogue {
            self.bring(&args[operand], &results[0], [rows, columns], first);
        }
        for piece in 0..pieces {
            let product = &product[piece * len..][..len];
            let at = first + piece * n;
            match (&self.epilogue, &self.kernel.epilogue) {
                (Some(program), _) => {
                    let handed = &mut Handed { product, ..Handed::default() };
                    program.run_range(words, at, len, args, results, handed);
                }
                (None, Epilogue::Accumulate(_)) => {
                    // SAFETY: this part of the result, and of what it is added to, is this task's.
                    unsafe { fold::add(results[0].part(at..at + len).slice_mut::<f32>(), product) };
                }
                // SAFETY: this part of the result is this task's.
                (None, _) => unsafe { convert::store(&results[0], at, product) },
            }
        }
    }
}

/// Row and column of a panel on or above the diagonal.
fn upper(panel: usize) -> (usize, usize) {
    let mut column = 0;
    let mut before = 0;
    while before + column < panel {
        before += column + 1;
        column += 1;
    }
    (panel - before, column)
}

/// An operand as f32: itself, or a copy in the shared memory behind `before` floats.
pub fn as_f32(ctx: &Context, region: &Region, before: usize) -> Region {
    if region.dtype() == DType::F32 {
        return *region;
    }
    let copy = ctx.shared(before, region.len());
    let tasks = tasks(region.len());
    ctx.each(tasks, |task| {
        let range = part(region.len(), tasks, task);
        // SAFETY: each task writes a part of its own.
        unsafe { convert::load(region, range.start, copy.part(range.clone()).slice_mut::<f32>()) };
    });
    copy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_cover_the_upper_triangle_once() {
        for side in 1..8 {
            let panels: Vec<_> = (0..side * (side + 1) / 2).map(upper).collect();
            let mut wanted: Vec<_> = (0..side).flat_map(|j| (0..=j).map(move |i| (i, j))).collect();
            wanted.sort_by_key(|&(i, j)| (j, i));
            assert_eq!(panels, wanted);
        }
    }

    #[test]
    fn grids_cover_everything() {
        for m in [0, 1, 15, 16, 17, 255, 256, 257, 768, 1024, 3072, 50304] {
            for n in [0, 1, 31, 767, 768, 769, 3072] {
                let grid = Grid::new(m, n, [ROWS, COLUMNS]);
                assert!(grid.rows * grid.down >= m && grid.columns * grid.across >= n, "{m} {n}: {grid:?}");
                assert!(m == 0 || grid.rows * (grid.down - 1) < m, "{m} {n}: {grid:?}");
                assert!(n == 0 || grid.columns * (grid.across - 1) < n, "{m} {n}: {grid:?}");
            }
        }
    }
}
