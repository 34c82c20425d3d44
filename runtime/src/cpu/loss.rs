//! Head, cross-entropy and their gradients, a chunk of rows at a time: never all logits.
//!
//! For each chunk: z by panels of classes; then row by row the logits, the loss, and the gradient of z in the place of z; then dx from slices of classes, added up in order, and dw by panels of classes. Tasks
//! pack what they need of w for themselves: packed whole, it would be as large as w.

use mngc_compiler::ir::DType;
use mngc_compiler::schedule::kernel::{HANDED_ON, LossGradient, LossKernel, PRODUCT, Strides};
use mngc_compiler::schedule::rows::{Access, Instr, RowProgram, Src};

use super::check::{self, ensure};
use super::context::{Context, Need, part, tasks};
use super::dot::{self, Grid};
use super::gemm::{self, Packed, Source, Target};
use super::memory::Region;
use super::rows::{Handed, Rows, Side};
use super::{convert, fold};

/// Logits of a chunk: so many of them at most, but at least [`LEAST_ROWS`] rows.
const CHUNK: usize = 1 << 24;
const LEAST_ROWS: usize = 16;
/// Classes of a panel of logits, at most.
const CLASSES: usize = 768;
/// Classes of a slice of dx, and of a part of it that is packed at once.
const SLICE: usize = 8 * PART;
const PART: usize = 384;
/// Classes and features of a panel of dw, at most.
const PANEL: [usize; 2] = [128, 768];
/// Elements that a gradient program runs on at once.
const TILE: usize = 2048;

/// A loss made ready to run.
#[derive(Debug)]
pub struct Loss {
    kernel: LossKernel,
    logits: Rows,
    gradient: Option<Rows>,
    /// Whether logits are z itself.
    is_plain: bool,
    /// Rows of a chunk.
    chunk: usize,
    layout: Shared,
}

/// Where things begin in the shared memory, in floats.
#[derive(Debug, Default)]
struct Shared {
    z: usize,
    dx: usize,
    dw: usize,
    x: usize,
    end: usize,
}

impl Loss {
    /// Checks a loss against its operands and results.
    pub fn new(kernel: &LossKernel, args: &[Region], results: &[Region]) -> Result<Loss, String> {
        let LossKernel { rows, n, k, .. } = *kernel;
        let [Some(x), Some(w), Some(targets)] = [args.first(), args.get(1), args.get(2)] else {
            return Err("a loss has three operands".into());
        };
        check::matrix("x", Strides { batch: 0, row: k, inner: 1 }, [1, rows, k], x)?;
        check::matrix("w", kernel.w, [1, n, k], w)?;
        ensure(targets.dtype() == DType::I32 && targets.len() == rows, || format!("{rows} targets"))?;
        let f32s = |r: Option<&Region>, len: usize| r.is_some_and(|r| r.dtype() == DType::F32 && r.len() == len);
        ensure(f32s(results.get(kernel.loss), rows), || format!("{rows} losses"))?;
        ensure(n > 0, || "no classes".into())?;
        let fits = |p: &RowProgram| ensure(p.is_elementwise() && p.elements == rows * n, || "not elementwise".into());
        fits(&kernel.logits)?;
        let mut gradient = None;
        if let Some(g) = &kernel.gradient {
            fits(&g.program)?;
            ensure(f32s(args.get(g.dy), rows) || f32s(args.get(g.dy), 1), || format!("{rows} or one dy"))?;
            let holds = |r: usize, len: usize| results.get(r).is_some_and(|r| r.len() == len && r.dtype().is_float());
            ensure(g.dx.is_none_or(|dx| holds(dx, rows * k)), || "dx has the sizes of x".into())?;
            ensure(g.dw.is_none_or(|dw| holds(dw, n * k)), || "dw has the sizes of w".into())?;
            ensure(g.accumulate.is_none_or(|a| f32s(args.get(a), n * k)), || "dw is added to f32".into())?;
            gradient = Some(Rows::new(&g.program, args, results)?);
        }
        let chunk = (CHUNK / n.max(1)).max(LEAST_ROWS);
        let chunk = rows.div_ceil(rows.div_ceil(chunk).max(1)).next_multiple_of(LEAST_ROWS).min(rows.max(1));
        let is_plain = is_plain(&kernel.logits);
        let mut at = 0;
        let mut take = |len: usize| {
            at += len;
            at - len
        };
        let g = kernel.gradient.as_ref();
        let narrow = |r: usize| results[r].dtype() != DType::F32;
        let layout = Shared {
            z: take(chunk * n),
            dx: take(if g.is_some_and(|g| g.dx.is_some()) { n.div_ceil(SLICE) * chunk * k } else { 0 }),
            dw: take(if g.and_then(|g| g.dw).is_some_and(narrow) { n * k } else { 0 }),
            x: take(if g.is_some_and(|g| g.dw.is_some()) { gemm::packed(k, chunk) } else { 0 }),
            end: at,
        };
        let logits = Rows::new(&kernel.logits, args, results)?;
        Ok(Loss { kernel: kernel.clone(), logits, gradient, is_plain, chunk, layout })
    }

    /// What it needs.
    pub fn need(&self) -> Need {
        let LossKernel { n, k, .. } = self.kernel;
        let program = self.logits.words().max(self.gradient.as_ref().map_or(0, Rows::words));
        let packed = gemm::packed(n.min(CLASSES), k).max(gemm::packed(k, PART));
        let row = if self.is_plain { 0 } else { n };
        let losses = row + TILE + program;
        Need { shared: self.layout.end * 4, scratch: losses.max(gemm::SCRATCH + packed) * 4 }
    }

    /// Runs it.
    pub fn run(&self, ctx: &Context, args: &[Region], results: &[Region]) {
        for first in (0..self.kernel.rows).step_by(self.chunk.max(1)) {
            let rows = self.chunk.min(self.kernel.rows - first);
            self.products(ctx, first, rows, args);
            self.losses(ctx, first, rows, args, results);
            let Some(g) = &self.kernel.gradient else { continue };
            if let Some(dx) = g.dx {
                self.dx(ctx, &args[1], first, rows, &results[dx]);
            }
            if let Some(dw) = g.dw {
                self.dw(ctx, first, rows, args, &results[dw], g);
            }
        }
        if let Some(LossGradient { dw: Some(dw), .. }) = self.kernel.gradient {
            self.round_dw(ctx, &results[dw]);
        }
    }

    fn z(&self, ctx: &Context) -> Region {
        ctx.shared(self.layout.z, self.chunk * self.kernel.n)
    }

    /// x, rows of features from one on.
    fn x(&self, args: &[Region], first: usize) -> Source {
        Source { region: args[0], first: first * self.kernel.k, row: self.kernel.k, inner: 1 }
    }

    /// z = x·wᵀ of a chunk.
    fn products(&self, ctx: &Context, first: usize, rows: usize, args: &[Region]) {
        let LossKernel { n, k, w: strides, .. } = self.kernel;
        let z = self.z(ctx);
        let w = Source { region: args[1], first: 0, row: strides.row, inner: strides.inner };
        let grid = Grid::new(rows, n, [512, CLASSES]);
        ctx.each(grid.panels(), |task| {
            let (top, left, height, width) = grid.panel(task, rows, n);
            let at = top * n + left;
            ctx.scratch(|words| {
                let (left_packed, words) = words.split_at_mut(gemm::SCRATCH);
                let strips: &mut [f32] = bytemuck::cast_slice_mut(&mut words[..gemm::packed(width, k)]);
                let c = Target { start: z.address(at), row: n };
                // SAFETY: operands were checked, and this panel of z is this task's.
                unsafe {
                    gemm::pack(strips, w.at(left, 0), width, k);
                    let (a, b) = (self.x(args, first + top), Packed { strips, first: 0 });
                    gemm::block([height, width, k], 1.0, a, b, false, c, bytemuck::cast_slice_mut(left_packed));
                }
            });
        });
    }

    /// The logits and the loss of each row of a chunk, and dz in the place of z. A row's logits stay in the cache.
    fn losses(&self, ctx: &Context, first: usize, rows: usize, args: &[Region], results: &[Region]) {
        let n = self.kernel.n;
        let z = self.z(ctx);
        let tasks = tasks(rows * n).min(rows);
        ctx.each(tasks, |task| {
            ctx.scratch(|words| {
                let (logits, words) = words.split_at_mut(if self.is_plain { 0 } else { n });
                let logits: &mut [f32] = bytemuck::cast_slice_mut(logits);
                for row in part(rows, tasks, task) {
                    if !self.is_plain {
                        // SAFETY: the logits are not used beside the region.
                        let result = Some(Side { region: unsafe { Region::of(logits) }, first: 0, row: n });
                        let product = Some(Side { region: z, first: row * n, row: n });
                        let (at, handed) = ((first + row) * n, Handed { product, gradient: None, result });
                        self.logits.run_rectangle(words, at, [1, n], n, [args, results], handed);
                    }
                    // SAFETY: nobody writes the targets, and this row of z is this task's.
                    let (target, z_row) = unsafe {
                        let target = args[2].part(first + row..first + row + 1).slice::<i32>()[0];
                        (target, z.part(row * n..(row + 1) * n).slice::<f32>())
                    };
                    let values = if self.is_plain { z_row } else { &*logits };
                    let entropy = Entropy::of(values, target);
                    // SAFETY: this element is this task's.
                    unsafe { convert::store(&results[self.kernel.loss], first + row, &[entropy.loss]) };
                    self.dz(&entropy, values, words, [first, row], z, [args, results]);
                }
            });
        });
    }

    /// The gradient of a row of z, in its place.
    fn dz(
        &self,
        entropy: &Entropy,
        logits: &[f32],
        words: &mut [u32],
        [first, row]: [usize; 2],
        z: Region,
        [args, results]: [&[Region]; 2],
    ) {
        let (Some(g), Some(program)) = (&self.kernel.gradient, &self.gradient) else { return };
        let n = self.kernel.n;
        let dy = &args[g.dy];
        let mut factor = [0.0];
        // SAFETY: nobody writes the operand.
        unsafe { convert::load(dy, if dy.len() == 1 { 0 } else { first + row }, &mut factor) };
        let (gradient, words) = words.split_at_mut(TILE);
        let gradient: &mut [f32] = bytemuck::cast_slice_mut(gradient);
        for at in (0..n).step_by(TILE) {
            let len = TILE.min(n - at);
            let gradient = &mut gradient[..len];
            entropy.gradient(gradient, &logits[at..at + len], at, factor[0]);
            // SAFETY: the gradient is not used beside the region.
            let gradient = Side { region: unsafe { Region::of(gradient) }, first: 0, row: len };
            let z = Side { region: z, first: row * n + at, row: n };
            let handed = Handed { product: Some(z), gradient: Some(gradient), result: Some(z) };
            let at = (first + row) * n + at;
            program.run_rectangle(words, at, [1, len], n, [args, results], handed);
        }
    }

    /// dx = dz·w of a chunk.
    fn dx(&self, ctx: &Context, w: &Region, first: usize, rows: usize, result: &Region) {
        let LossKernel { n, k, w: strides, .. } = self.kernel;
        let z = self.z(ctx);
        let slices = n.div_ceil(SLICE);
        let partial = ctx.shared(self.layout.dx, slices * self.chunk * k);
        // Features are the free axis here, classes the contracted one.
        let w = Source { region: *w, first: 0, row: strides.inner, inner: strides.row };
        let grid = Grid::new(rows, k, [512, 768]);
        ctx.each(slices * grid.panels(), |task| {
            let (slice, panel) = (task / grid.panels(), task % grid.panels());
            let (top, left, height, width) = grid.panel(panel, rows, k);
            let c = Target { start: partial.address((slice * rows + top) * k + left), row: k };
            ctx.scratch(|words| {
                let (left_packed, strips) = words.split_at_mut(gemm::SCRATCH);
                let left_packed: &mut [f32] = bytemuck::cast_slice_mut(left_packed);
                let strips: &mut [f32] = bytemuck::cast_slice_mut(strips);
                for from in (slice * SLICE..n.min((slice + 1) * SLICE)).step_by(PART) {
                    let depth = PART.min(n - from);
                    let a = Source { region: z, first: top * n + from, row: n, inner: 1 };
                    let strips = &mut strips[..gemm::packed(width, depth)];
                    // SAFETY: operands were checked, and this panel of the partial sums is this task's.
                    unsafe {
                        gemm::pack(strips, w.at(left, from), width, depth);
                        let (b, add) = (Packed { strips, first: 0 }, from > slice * SLICE);
                        gemm::block([height, width, depth], 1.0, a, b, add, c, left_packed);
                    }
                }
            });
        });
        let tasks = tasks(rows * k);
        ctx.each(tasks, |task| {
            let range = part(rows * k, tasks, task);
            // SAFETY: the range of each slice is this task's, and that of the result.
            unsafe {
                let piece = |slice: usize| partial.part(slice * rows * k + range.start..slice * rows * k + range.end);
                let sums = piece(0).slice_mut::<f32>();
                (1..slices).for_each(|slice| fold::add(sums, piece(slice).slice::<f32>()));
                convert::store(result, first * k + range.start, sums);
            }
        });
    }

    /// dw += dzᵀ·x of a chunk.
    fn dw(&self, ctx: &Context, first: usize, rows: usize, args: &[Region], result: &Region, g: &LossGradient) {
        let LossKernel { n, k, .. } = self.kernel;
        let z = self.z(ctx);
        let to = if result.dtype() == DType::F32 { *result } else { ctx.shared(self.layout.dw, n * k) };
        let before = g.accumulate.map(|operand| args[operand]).filter(|before| !before.same_place(&to));
        // Features are the free axis here, rows the contracted one.
        let x = Source { row: 1, inner: k, ..self.x(args, first) };
        let strips = ctx.shared(self.layout.x, gemm::packed(k, rows));
        dot::pack(ctx, x, [1, k, rows], 0, &strips);
        let grid = Grid::new(n, k, PANEL);
        ctx.each(grid.panels(), |task| {
            let (top, left, height, width) = grid.panel(task, n, k);
            if let Some(before) = before.filter(|_| first == 0) {
                for row in top..top + height {
                    let at = row * k + left;
                    // SAFETY: this panel is this task's.
                    unsafe { convert::load(&before, at, to.part(at..at + width).slice_mut::<f32>()) };
                }
            }
            let a = Source { region: z, first: top, row: 1, inner: n };
            let c = Target { start: to.address(top * k + left), row: k };
            let add = first > 0 || g.accumulate.is_some();
            ctx.scratch(|words| {
                let left_packed: &mut [f32] = bytemuck::cast_slice_mut(words);
                // SAFETY: operands were checked, x is packed, and this panel is this task's.
                unsafe {
                    let b = Packed { strips: strips.slice::<f32>(), first: left };
                    gemm::block([height, width, rows], 1.0, a, b, add, c, left_packed);
                }
            });
        });
    }

    /// Rounds the sums of dw to its dtype.
    fn round_dw(&self, ctx: &Context, result: &Region) {
        let len = self.kernel.n * self.kernel.k;
        if result.dtype() == DType::F32 || self.kernel.rows == 0 {
            return;
        }
        let sums = ctx.shared(self.layout.dw, len);
        let tasks = tasks(len);
        ctx.each(tasks, |task| {
            let range = part(len, tasks, task);
            // SAFETY: each task writes a part of its own.
            unsafe { convert::store(result, range.start, sums.part(range.clone()).slice::<f32>()) };
        });
    }
}

/// Whether a program hands on the product as it is.
fn is_plain(p: &RowProgram) -> bool {
    matches!(p.instrs[..], [
        Instr::Load { dst, operand: PRODUCT, .. },
        Instr::Store { result: HANDED_ON, a: Src::Reg(reg), access: Access::Full },
    ] if dst == reg)
}

/// The cross-entropy of one row.
#[derive(Clone, Copy, Debug)]
pub struct Entropy {
    /// logsumexp(logits) − logits\[target\]; 0 where the target is out of range.
    pub loss: f32,
    top: f32,
    sum: f32,
    target: Option<usize>,
}

impl Entropy {
    /// Of a row of logits.
    pub fn of(logits: &[f32], target: i32) -> Entropy {
        let Some(target) = usize::try_from(target).ok().filter(|&t| t < logits.len()) else {
            return Entropy { loss: 0.0, top: 0.0, sum: 1.0, target: None };
        };
        let top = fold::maximum(logits);
        if top.is_infinite() {
            return Entropy { loss: top - logits[target], top, sum: 1.0, target: Some(target) };
        }
        let sum = fold::sum_of_exp(logits, top);
        Entropy { loss: (top - logits[target]) + (f64::from(sum)).ln() as f32, top, sum, target: Some(target) }
    }

    /// (softmax(logits) − onehot(target))·dy for a part of the row, which begins at column `at`.
    pub fn gradient(&self, dst: &mut [f32], logits: &[f32], at: usize, dy: f32) {
        let Some(target) = self.target else { return dst.fill(0.0) };
        match self.top {
            f32::NEG_INFINITY => dst.fill(0.0),
            f32::INFINITY => dst.fill(f32::NAN),
            top => fold::scaled_exp(dst, logits, top, 1.0 / self.sum),
        }
        if let Some(dst) = target.checked_sub(at).and_then(|i| dst.get_mut(i)) {
            *dst -= 1.0;
        }
        fold::scale(dst, dy);
    }
}

/// Cross-entropy of whole logits `[rows, n]`, or, with `dy`, its gradient.
pub fn cross_entropy(ctx: &Context, args: &[Region], result: &Region, n: usize, wants_gradient: bool) {
    // SAFETY: no launch of this kind works in place.
    let targets = unsafe { args[1].slice::<i32>() };
    let tasks = tasks(args[0].len()).min(targets.len().max(1));
    ctx.each(tasks, |task| {
        ctx.scratch(|words| {
            let (logits, gradient) = bytemuck::cast_slice_mut::<u32, f32>(words).split_at_mut(n);
            for row in part(targets.len(), tasks, task) {
                // SAFETY: nobody writes operands, and this row of the result is this task's.
                unsafe {
                    convert::load(&args[0], row * n, logits);
                    let entropy = Entropy::of(logits, targets[row]);
                    if !wants_gradient {
                        convert::store(result, row, &[entropy.loss]);
                        continue;
                    }
                    let mut dy = [0.0];
                    convert::load(&args[2], row, &mut dy);
                    let gradient = &mut gradient[..n];
                    entropy.gradient(gradient, logits, 0, dy[0]);
                    convert::store(result, row * n, gradient);
                }
            }
        });
    });
}
