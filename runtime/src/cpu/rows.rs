//! Row programs: an interpreter that runs a whole program on one tile after another, from cache.
//!
//! Registers lie in the scratch memory of the thread, a few thousand elements each. Tiles are grouped into tasks by the
//! size of the space alone. Folds over the whole space are made of one partial result for each task, put together in
//! order, so that threads change no bit.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use mngc_compiler::ir::{DType, ReduceKind};
use mngc_compiler::schedule::kernel::{HANDED_ON, LOGITS_GRADIENT, PRODUCT};
use mngc_compiler::schedule::rows::{Access, Instr, Kind, Reg, RowProgram, Src};

use super::context::{Context, Need, part, tasks};
use super::memory::Region;
use super::registers::{self, Registers};
use super::{check, convert, elementwise, fold};

/// Elements that a tile aims at: a handful of registers fit the second level of cache, the busy ones the first.
const TILE: usize = 2048;
/// Partial sums over leading axes: so many rows of them at most.
const COLUMN_TASKS: usize = 32;

/// A program made ready to run.
#[derive(Debug)]
pub struct Rows {
    program: RowProgram,
    /// Elements of a full tile.
    tile: usize,
    tasks: usize,
    /// Inverse wavelengths of each rotary instruction, by position; empty for others.
    frequencies: Vec<Vec<f64>>,
    /// Floats for the angles of one row.
    angles: usize,
    /// Partial folds of the whole space: the bits of an f64 for each task and, by position, instruction.
    totals: Vec<AtomicU64>,
    /// Where the partial sums of each instruction, by position, begin among those of a task; and floats of a task.
    columns: Vec<usize>,
    width: usize,
}

/// Floats beside a rectangle of elements: element (r, c) at first + r·row + c.
#[derive(Clone, Copy, Debug)]
pub struct Side {
    /// Where.
    pub region: Region,
    /// Its first element.
    pub first: usize,
    /// Between rows.
    pub row: usize,
}

impl Side {
    fn at(&self, r: usize, c: usize) -> usize {
        self.first + r * self.row + c
    }
}

/// Operands and results of a rectangle of elements that only an epilogue or a loss has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Handed {
    /// The product.
    pub product: Option<Side>,
    /// The gradient of the logits.
    pub gradient: Option<Side>,
    /// What is handed on.
    pub result: Option<Side>,
}

/// The elements of a tile: `rows` times `columns` of them, `row` apart in the space and one after another in registers.
#[derive(Clone, Copy, Debug)]
struct Span {
    at: usize,
    rows: usize,
    columns: usize,
    row: usize,
    /// Where in the rectangle that runs it begins.
    corner: (usize, usize),
}

impl Span {
    fn len(&self) -> usize {
        self.rows * self.columns
    }
}

/// Where a tile's loads and stores go.
struct Io<'a> {
    args: &'a [Region],
    results: &'a [Region],
    handed: Handed,
    totals: &'a [AtomicU64],
    /// Partial sums over leading axes.
    columns: &'a mut [f32],
}

impl Rows {
    /// Checks a program against its operands and results.
    pub fn new(program: &RowProgram, args: &[Region], results: &[Region]) -> Result<Rows, String> {
        check::rows(program, args, results)?;
        let unit = program.tile;
        let tile = unit * (TILE / unit).max(1);
        let frequency = |i: &Instr| match *i {
            Instr::Rope { len, base, .. } => {
                (0..len / 2).map(|i| base.powf(-2.0 * i as f64 / len as f64)).collect::<Vec<f64>>()
            }
            _ => Vec::new(),
        };
        let frequencies: Vec<Vec<f64>> = program.instrs.iter().map(frequency).collect();
        let angles = 2 * frequencies.iter().map(Vec::len).max().unwrap_or(0);
        let mut columns = Vec::new();
        let (mut width, mut widest) = (0, 0);
        for instr in &program.instrs {
            columns.push(width);
            if let Instr::Columns { period, .. } = instr {
                width += period;
                widest = widest.max(*period);
            }
        }
        let mut count = tasks(program.elements).min(program.elements.div_ceil(tile).max(1));
        if let Some(rows) = program.elements.checked_div(widest) {
            // Adding up partial sums must stay cheap beside making them.
            count = count.min(COLUMN_TASKS).min((rows / 4).max(1));
        }
        let totals = (0..program.instrs.len() * count).map(|_| AtomicU64::new(0)).collect();
        Ok(Rows { program: program.clone(), tile, tasks: count, frequencies, angles, totals, columns, width })
    }

    /// What it needs.
    pub fn need(&self) -> Need {
        Need { shared: self.tasks * self.width * 4, scratch: self.words() * 4 }
    }

    /// Words of scratch memory.
    pub fn words(&self) -> usize {
        self.program.regs.len() * self.tile + self.angles
    }

    /// Runs it on all elements.
    pub fn run(&self, ctx: &Context, args: &[Region], results: &[Region]) {
        let tiles = self.program.elements.div_ceil(self.tile);
        let instrs = self.program.instrs.len();
        ctx.each(self.tasks, |task| {
            let range = part(tiles, self.tasks, task);
            let end = (range.end * self.tile).min(self.program.elements);
            let totals = &self.totals[task * instrs..][..instrs];
            for (total, instr) in totals.iter().zip(&self.program.instrs) {
                if let Instr::Total { kind, .. } = instr {
                    total.store(neutral(*kind).to_bits(), Relaxed);
                }
            }
            // SAFETY: each task has partial sums of its own.
            let columns = unsafe { ctx.shared(task * self.width, self.width).slice_mut::<f32>() };
            columns.fill(0.0);
            ctx.scratch(|words| {
                let mut at = range.start * self.tile;
                while at < end {
                    let len = self.tile.min(end - at);
                    let span = Span { at, rows: 1, columns: len, row: len, corner: (0, 0) };
                    let handed = Handed::default();
                    self.tile(words, span, &mut Io { args, results, handed, totals, columns });
                    at += len;
                }
            });
        });
        self.finish(ctx, results);
    }

    /// Runs an elementwise program on a rectangle of elements, whose rows lie `row` apart in the space and whose first is
    /// `at`; in the scratch memory given.
    pub fn run_rectangle(
        &self,
        words: &mut [u32],
        at: usize,
        [rows, columns]: [usize; 2],
        row: usize,
        [args, results]: [&[Region]; 2],
        handed: Handed,
    ) {
        let width = columns.min(self.tile);
        let height = (self.tile / width.max(1)).clamp(1, rows.max(1));
        for r in (0..rows).step_by(height) {
            for c in (0..columns).step_by(width.max(1)) {
                let (rows, columns) = (height.min(rows - r), width.min(columns - c));
                let span = Span { at: at + r * row + c, rows, columns, row, corner: (r, c) };
                self.tile(words, span, &mut Io { args, results, handed, totals: &[], columns: &mut [] });
            }
        }
    }

    /// Puts the partial folds of all tasks together.
    fn finish(&self, ctx: &Context, results: &[Region]) {
        let instrs = self.program.instrs.len();
        for (i, instr) in self.program.instrs.iter().enumerate() {
            match *instr {
                Instr::Total { result, kind, a } => {
                    let parts = self.totals.iter().skip(i).step_by(instrs).map(|t| f64::from_bits(t.load(Relaxed)));
                    let is_int = self.kind(a, results[result].dtype()) == Kind::I32;
                    store_total(&results[result], kind, parts, self.program.elements, is_int);
                }
                Instr::Columns { result, period, .. } => {
                    // SAFETY: all tasks are done, and nobody else uses the shared memory now.
                    let all = unsafe { ctx.shared(0, self.tasks * self.width).slice_mut::<f32>() };
                    let (first, others) = all.split_at_mut(self.width);
                    let sums = &mut first[self.columns[i]..][..period];
                    for other in others.chunks(self.width) {
                        fold::add(sums, &other[self.columns[i]..][..period]);
                    }
                    // SAFETY: the result is this launch's alone.
                    unsafe { convert::store(&results[result], 0, sums) };
                }
                _ => {}
            }
        }
    }

    fn kind(&self, src: Src, dtype: DType) -> Kind {
        match src {
            Src::Reg(reg) => self.program.regs[reg],
            Src::Const(_) if dtype.is_float() => Kind::F32,
            Src::Const(_) => Kind::I32,
        }
    }

    /// Runs all instructions on a tile.
    fn tile(&self, words: &mut [u32], span: Span, io: &mut Io) {
        let (words, angles) = words.split_at_mut(self.program.regs.len() * self.tile);
        let mut regs = Registers { words, stride: self.tile, len: span.len() };
        for (i, instr) in self.program.instrs.iter().enumerate() {
            match *instr {
                Instr::Load { dst, operand, access } => self.load(&mut regs, &span, io, dst, operand, access),
                Instr::Store { result, a, access } => self.store(&regs, &span, io, result, a, access),
                Instr::Iota { dst, inner, period } => {
                    for (r, dst) in regs.ints_mut(dst).chunks_mut(span.columns).enumerate() {
                        registers::iota(dst, span.at + r * span.row, inner, period);
                    }
                }
                Instr::Total { kind, a, result } => {
                    let kind_of = self.kind(a, io.results[result].dtype());
                    let before = f64::from_bits(io.totals[i].load(Relaxed));
                    io.totals[i].store(regs.total(kind, a, kind_of, before).to_bits(), Relaxed);
                }
                Instr::Columns { a, period, .. } => {
                    regs.columns(a, span.at, period, &mut io.columns[self.columns[i]..][..period]);
                }
                Instr::Rope { dst, a, position, len, inverse, .. } => {
                    let angles: &mut [f32] = bytemuck::cast_slice_mut(&mut angles[..self.angles]);
                    regs.rope(dst, a, position, len, inverse, &self.frequencies[i], angles);
                }
                ref other => regs.run(other, &self.program.regs),
            }
        }
    }

    fn load(&self, regs: &mut Registers, span: &Span, io: &Io, dst: Reg, operand: usize, access: Access) {
        let side = match operand {
            PRODUCT => io.handed.product,
            LOGITS_GRADIENT => io.handed.gradient,
            _ => None,
        };
        if let Some(side) = side {
            for (r, dst) in regs.floats_mut(dst).chunks_mut(span.columns).enumerate() {
                // SAFETY: this part of the rectangle is this task's.
                unsafe { convert::load(&side.region, side.at(span.corner.0 + r, span.corner.1), dst) };
            }
            return;
        }
        let Some(region) = io.args.get(operand) else { return };
        let is_float = self.program.regs[dst] == Kind::F32;
        for r in 0..span.rows {
            let at = span.at + r * span.row;
            let part = r * span.columns..(r + 1) * span.columns;
            // SAFETY: nobody writes this part of the operand but, after this, the task itself.
            if is_float {
                let dst = &mut regs.floats_mut(dst)[part];
                spread(access, at, dst, |from, dst| unsafe { convert::load(region, from, dst) });
            } else {
                let dst = &mut regs.ints_mut(dst)[part];
                spread(access, at, dst, |from, dst| unsafe { convert::load_ints(region, from, dst) });
            }
        }
    }

    fn store(&self, regs: &Registers, span: &Span, io: &Io, result: usize, a: Src, access: Access) {
        if result == HANDED_ON {
            let Some(side) = io.handed.result else { return };
            for r in 0..span.rows {
                let to = side.at(span.corner.0 + r, span.corner.1);
                // SAFETY: this part of the rectangle is this task's.
                unsafe {
                    match a {
                        Src::Reg(reg) => {
                            convert::store(&side.region, to, &regs.floats(reg)[r * span.columns..][..span.columns])
                        }
                        Src::Const(c) => Pieces::new(to, 1, span.columns)
                            .fill(c.0 as f32, |to, values| convert::store(&side.region, to, values)),
                    }
                }
            }
            return;
        }
        let region = &io.results[result];
        let is_float = self.kind(a, region.dtype()) == Kind::F32;
        for r in 0..span.rows {
            let at = span.at + r * span.row;
            // The elements of the result that these make, and how far apart their first elements lie in the space.
            let (first, step) = match access {
                Access::Row { len } => (at / len, len),
                Access::Scalar if at == 0 => (0, span.columns),
                Access::Scalar => return,
                Access::Full | Access::Cycle { .. } | Access::Middle { .. } => (at, 1),
            };
            let part = r * span.columns..(r + 1) * span.columns;
            let pieces = Pieces::new(first, step, span.columns);
            // SAFETY: this part of the result is written by this task alone, in its turn.
            unsafe {
                match a {
                    Src::Reg(reg) if is_float && step == 1 => convert::store(region, at, &regs.floats(reg)[part]),
                    Src::Reg(reg) if is_float => {
                        pieces.each(&regs.floats(reg)[part], 0.0, |to, values| convert::store(region, to, values));
                    }
                    Src::Reg(reg) if step == 1 => convert::store_ints(region, at, &regs.ints(reg)[part]),
                    Src::Reg(reg) => {
                        pieces.each(&regs.ints(reg)[part], 0, |to, values| convert::store_ints(region, to, values));
                    }
                    Src::Const(c) if is_float => {
                        pieces.fill(c.0 as f32, |to, values| convert::store(region, to, values));
                    }
                    Src::Const(c) => pieces.fill(c.0 as i32, |to, values| convert::store_ints(region, to, values)),
                }
            }
        }
    }
}

/// Fills a tile from an operand: `load` reads elements in one piece.
fn spread<T: Copy>(access: Access, at: usize, dst: &mut [T], load: impl Fn(usize, &mut [T])) {
    let repeat = |inner: usize, period: usize, dst: &mut [T]| {
        let mut done = 0;
        while done < dst.len() {
            let i = at + done;
            let run = (inner - i % inner).min(dst.len() - done);
            let run = &mut dst[done..done + run];
            load(i / inner % period, &mut run[..1]);
            let value = run[0];
            run.fill(value);
            done += run.len();
        }
    };
    match access {
        Access::Full => load(at, dst),
        Access::Scalar => repeat(usize::MAX, 1, dst),
        Access::Row { len } => repeat(len, usize::MAX, dst),
        Access::Middle { inner, period } => repeat(inner, period, dst),
        Access::Cycle { period } => {
            let mut done = 0;
            while done < dst.len() {
                let from = (at + done) % period;
                let run = (period - from).min(dst.len() - done);
                load(from, &mut dst[done..done + run]);
                done += run;
            }
        }
    }
}

/// Elements that a tile stores: every `step`th of it, from `first` of the result on.
struct Pieces {
    first: usize,
    step: usize,
    count: usize,
}

impl Pieces {
    const SIZE: usize = 64;

    fn new(first: usize, step: usize, len: usize) -> Pieces {
        Pieces { first, step, count: len.div_ceil(step) }
    }

    fn each<T: Copy>(&self, values: &[T], zero: T, store: impl Fn(usize, &[T])) {
        let mut piece = [zero; Pieces::SIZE];
        for done in (0..self.count).step_by(Pieces::SIZE) {
            let n = Pieces::SIZE.min(self.count - done);
            for (i, to) in piece[..n].iter_mut().enumerate() {
                *to = values[(done + i) * self.step];
            }
            store(self.first + done, &piece[..n]);
        }
    }

    fn fill<T: Copy>(&self, value: T, store: impl Fn(usize, &[T])) {
        let piece = [value; Pieces::SIZE];
        for done in (0..self.count).step_by(Pieces::SIZE) {
            store(self.first + done, &piece[..Pieces::SIZE.min(self.count - done)]);
        }
    }
}

/// What a fold over the whole space starts from.
fn neutral(kind: ReduceKind) -> f64 {
    match kind {
        ReduceKind::Sum | ReduceKind::Mean | ReduceKind::Norm => 0.0,
        ReduceKind::Max => f64::NEG_INFINITY,
        ReduceKind::Min => f64::INFINITY,
    }
}

/// Writes the fold of partial folds.
fn store_total(to: &Region, kind: ReduceKind, parts: impl Iterator<Item = f64>, elements: usize, is_int: bool) {
    if is_int {
        // Sums of i32 wrap; every part of one is exact.
        let value = match kind {
            ReduceKind::Max => parts.fold(f64::from(i32::MIN), f64::max) as i32,
            ReduceKind::Min => parts.fold(f64::from(i32::MAX), f64::min) as i32,
            _ => parts.fold(0, |sum: i32, part| sum.wrapping_add(part as i32)),
        };
        // SAFETY: the result is this launch's alone.
        return unsafe { convert::store_ints(to, 0, &[value]) };
    }
    let value = match kind {
        ReduceKind::Sum => parts.sum::<f64>(),
        ReduceKind::Mean => parts.sum::<f64>() / elements as f64,
        ReduceKind::Norm => parts.sum::<f64>().sqrt(),
        ReduceKind::Max => f64::from(parts.fold(f32::NEG_INFINITY, |a, b| elementwise::max(a, b as f32))),
        ReduceKind::Min => f64::from(parts.fold(f32::INFINITY, |a, b| elementwise::min(a, b as f32))),
    };
    // SAFETY: the result is this launch's alone.
    unsafe { convert::store(to, 0, &[value as f32]) };
}
