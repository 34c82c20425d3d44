//! Matrix products over a fixed grid of panels, each computed by one thread from start to end.

use mngc_compiler::ir::DType;
use mngc_compiler::schedule::kernel::{DotKernel, Epilogue, Strides};

use super::check::{self, ensure};
use super::context::{Context, Need};
use super::gemm::{self, Packed, Source, Target};
use super::memory::Region;
use super::rows::{Handed, Rows, Side};
use super::{convert, fold};

/// A product made ready to run: first the right operand is packed, then panels of the result are computed.
#[derive(Debug)]
pub struct Dot {
    kernel: DotKernel,
    grid: Grid,
    epilogue: Option<Rows>,
    /// Whether panels are computed where they are stored.
    is_direct: bool,
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
        let even =
            |n: usize, most: usize, unit: usize| n.div_ceil(n.div_ceil(most).max(1)).next_multiple_of(unit).max(unit);
        let (rows, columns) = (even(m, most[0], 16), even(n, most[1], gemm::strip()));
        Grid { rows, columns, down: m.div_ceil(rows), across: n.div_ceil(columns) }
    }

    /// Panels on either side of whose diagonal lie as many: for a symmetric matrix `[m, m]`.
    fn square(m: usize) -> Grid {
        // A multiple of every strip.
        const UNIT: usize = 48;
        let side = m.div_ceil(m.div_ceil(SQUARE).max(1)).next_multiple_of(UNIT).max(UNIT);
        Grid { rows: side, columns: side, down: m.div_ceil(side), across: m.div_ceil(side) }
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
const ROWS: usize = 128;
/// Columns of a panel at most.
const COLUMNS: usize = 384;
/// Side of a panel of a symmetric product at most.
const SQUARE: usize = 48;

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
        let is_f32 = results.first().is_some_and(|r| r.dtype() == DType::F32);
        let is_direct = epilogue.is_none() && !k.symmetric && is_f32;
        let grid = if k.symmetric { Grid::square(k.m) } else { Grid::new(k.m, k.n, [ROWS, COLUMNS]) };
        Ok(Dot { kernel: kernel.clone(), grid, epilogue, is_direct })
    }

    /// What it needs.
    pub fn need(&self) -> Need {
        let DotKernel { batch, n, k, symmetric, .. } = self.kernel;
        let panel = if self.is_direct { 0 } else { self.grid.rows * self.grid.columns };
        let mirrored = if symmetric { panel } else { 0 };
        let program = self.epilogue.as_ref().map_or(0, Rows::words);
        Need { shared: batch * gemm::packed(n, k) * 4, scratch: (gemm::SCRATCH + panel + mirrored + program) * 4 }
    }

    /// Runs it.
    pub fn run(&self, ctx: &Context, args: &[Region], results: &[Region]) {
        let DotKernel { batch, n, k, symmetric, .. } = self.kernel;
        let strips = ctx.shared(0, batch * gemm::packed(n, k));
        pack(ctx, source(&args[1], self.kernel.b), [batch, n, k], self.kernel.b.batch, &strips);
        let Grid { down, across, .. } = self.grid;
        let panels = if symmetric { down * (down + 1) / 2 } else { down * across };
        ctx.each(batch * panels, |task| {
            let (batch, panel) = (task / panels, task % panels);
            let (i, j) = if symmetric { upper(panel) } else { (panel / across, panel % across) };
            let size = gemm::packed(n, k);
            // SAFETY: all of it is packed, and nobody writes it any more.
            let strips = unsafe { strips.part(batch * size..(batch + 1) * size).slice::<f32>() };
            self.panel(ctx, strips, [args, results], batch, i, j);
        });
    }

    /// Panel (i, j) of one product.
    fn panel(&self, ctx: &Context, strips: &[f32], io: [&[Region]; 2], batch: usize, i: usize, j: usize) {
        let DotKernel { m, n, k, symmetric, scale, .. } = self.kernel;
        let [args, results] = io;
        let (top, left) = (i * self.grid.rows, j * self.grid.columns);
        let sizes @ [rows, columns, _] = [self.grid.rows.min(m - top), self.grid.columns.min(n - left), k];
        let a = source(&args[0], self.kernel.a);
        let a = Source { first: a.first + batch * self.kernel.a.batch, ..a }.at(top, 0);
        let b = Packed { strips, first: left };
        let first = batch * m * n + top * n + left;
        let scale = scale as f32;
        ctx.scratch(|words| {
            let (packed, rest) = words.split_at_mut(gemm::SCRATCH);
            let packed: &mut [f32] = bytemuck::cast_slice_mut(packed);
            if self.is_direct {
                let add = match self.kernel.epilogue {
                    Epilogue::Accumulate(operand) => {
                        self.bring(&args[operand], &results[0], [rows, columns], first);
                        true
                    }
                    Epilogue::Store | Epilogue::Rows(_) => false,
                };
                let c = Target { start: results[0].address(first), row: n };
                // SAFETY: the operands were checked, and this panel of the result is this task's.
                return unsafe { gemm::block(sizes, scale, a, b, add, c, packed) };
            }
            let (panel, rest) = rest.split_at_mut(self.grid.rows * self.grid.columns);
            let panel: &mut [f32] = &mut bytemuck::cast_slice_mut(panel)[..rows * columns];
            // SAFETY: the operands were checked, and the scratch memory is this task's.
            unsafe { gemm::block(sizes, scale, a, b, false, Target::of(panel, columns), packed) };
            if !symmetric || i == j {
                return self.hand_out(rest, panel, [rows, columns], first, io);
            }
            let (mirrored, rest) = rest.split_at_mut(self.grid.rows * self.grid.columns);
            let mirrored: &mut [f32] = &mut bytemuck::cast_slice_mut(mirrored)[..rows * columns];
            gemm::transpose(mirrored, rows, panel, columns, [rows, columns]);
            self.hand_out(rest, panel, [rows, columns], first, io);
            let first = batch * m * n + left * n + top;
            self.hand_out(rest, mirrored, [columns, rows], first, io);
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
        product: &mut [f32],
        [rows, columns]: [usize; 2],
        first: usize,
        [args, results]: [&[Region]; 2],
    ) {
        let n = self.kernel.n;
        if let Some(program) = &self.epilogue {
            // SAFETY: the panel is not used beside the region.
            let side = Side { region: unsafe { Region::of(product) }, first: 0, row: columns };
            let handed = Handed { product: Some(side), ..Handed::default() };
            return program.run_rectangle(words, first, [rows, columns], n, [args, results], handed);
        }
        let adds = match self.kernel.epilogue {
            Epilogue::Accumulate(operand) => {
                self.bring(&args[operand], &results[0], [rows, columns], first);
                true
            }
            Epilogue::Store | Epilogue::Rows(_) => false,
        };
        for (row, product) in product.chunks(columns).enumerate() {
            let at = first + row * n;
            // SAFETY: this part of the result, and of what it is added to, is this task's.
            unsafe {
                match adds {
                    true => fold::add(results[0].part(at..at + columns).slice_mut::<f32>(), product),
                    false => convert::store(&results[0], at, product),
                }
            }
        }
    }
}

/// An operand as a source of its first matrix.
fn source(region: &Region, s: Strides) -> Source {
    Source { region: *region, first: 0, row: s.row, inner: s.inner }
}

/// Packs right operands `[batch, n, k]`, some strips in each task.
pub fn pack(ctx: &Context, b: Source, [batch, n, k]: [usize; 3], stride: usize, to: &Region) {
    let columns = gemm::group();
    let groups = n.div_ceil(columns);
    ctx.each(batch * groups, |task| {
        let (batch, first) = (task / groups, task % groups * columns);
        let b = Source { first: b.first + batch * stride, ..b }.at(first, 0);
        let n_here = columns.min(n - first);
        let at = batch * gemm::packed(n, k) + first * k;
        // SAFETY: each task writes strips of its own.
        unsafe { gemm::pack(to.part(at..at + gemm::packed(n_here, k)).slice_mut::<f32>(), b, n_here, k) };
    });
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
