//! The registers of a tile, and the instructions that only look at registers.

use mngc_compiler::ir::{DType, ReduceKind};
use mngc_compiler::schedule::rows::{Instr, Kind, Reg, Src};

use super::elementwise::{self, Arg};
use super::{convert, fold};

/// The vector registers of a tile: words of f32 or i32.
pub struct Registers<'a> {
    /// All of them, one after another.
    pub words: &'a mut [u32],
    /// Words from one to the next.
    pub stride: usize,
    /// Words in use.
    pub len: usize,
}

/// All registers but one.
struct Others<'a> {
    before: &'a [u32],
    behind: &'a [u32],
    without: Reg,
    stride: usize,
    len: usize,
}

impl Others<'_> {
    fn words(&self, reg: Reg) -> &[u32] {
        let from = if reg < self.without {
            &self.before[reg * self.stride..]
        } else {
            &self.behind[(reg - self.without - 1) * self.stride..]
        };
        &from[..self.len]
    }

    fn floats(&self, reg: Reg) -> &[f32] {
        bytemuck::cast_slice(self.words(reg))
    }

    fn ints(&self, reg: Reg) -> &[i32] {
        bytemuck::cast_slice(self.words(reg))
    }

    fn float(&self, src: Src) -> Arg<'_, f32> {
        match src {
            Src::Reg(reg) => Arg::Each(self.floats(reg)),
            Src::Const(c) => Arg::One(c.0 as f32),
        }
    }

    fn int(&self, src: Src) -> Arg<'_, i32> {
        match src {
            Src::Reg(reg) => Arg::Each(self.ints(reg)),
            Src::Const(c) => Arg::One(c.0 as i32),
        }
    }

    fn word(&self, src: Src, kind: Kind) -> Arg<'_, u32> {
        match (src, kind) {
            (Src::Reg(reg), _) => Arg::Each(self.words(reg)),
            (Src::Const(c), Kind::F32) => Arg::One((c.0 as f32).to_bits()),
            (Src::Const(c), Kind::I32) => Arg::One(c.0 as i32 as u32),
        }
    }
}

impl Registers<'_> {
    fn words(&self, reg: Reg) -> &[u32] {
        &self.words[reg * self.stride..][..self.len]
    }

    /// A register of floats.
    pub fn floats(&self, reg: Reg) -> &[f32] {
        bytemuck::cast_slice(self.words(reg))
    }

    /// A register of integers.
    pub fn ints(&self, reg: Reg) -> &[i32] {
        bytemuck::cast_slice(self.words(reg))
    }

    fn split(&mut self, dst: Reg) -> (&mut [u32], Others<'_>) {
        let (stride, len) = (self.stride, self.len);
        let (before, rest) = self.words.split_at_mut(dst * stride);
        let (dst_words, behind) = rest.split_at_mut(stride);
        (&mut dst_words[..len], Others { before, behind, without: dst, stride, len })
    }

    /// A register of floats to be written.
    pub fn floats_mut(&mut self, dst: Reg) -> &mut [f32] {
        bytemuck::cast_slice_mut(self.split(dst).0)
    }

    /// A register of integers to be written.
    pub fn ints_mut(&mut self, dst: Reg) -> &mut [i32] {
        bytemuck::cast_slice_mut(self.split(dst).0)
    }

    fn float_result(&mut self, dst: Reg) -> (&mut [f32], Others<'_>) {
        let (words, others) = self.split(dst);
        (bytemuck::cast_slice_mut(words), others)
    }

    fn int_result(&mut self, dst: Reg) -> (&mut [i32], Others<'_>) {
        let (words, others) = self.split(dst);
        (bytemuck::cast_slice_mut(words), others)
    }

    /// Runs an instruction that reads and writes registers only. Others, and what [`super::check`] refuses, do nothing.
    pub fn run(&mut self, instr: &Instr, kinds: &[Kind]) {
        match *instr {
            Instr::Unary { op, dst, a } if kinds[dst] == Kind::F32 => {
                let (dst, others) = self.float_result(dst);
                of_one(dst, others.float(a), |dst, a| elementwise::unary(op, dst, a));
            }
            Instr::Unary { op, dst, a } => {
                let (dst, others) = self.int_result(dst);
                of_one(dst, others.int(a), |dst, a| {
                    elementwise::unary_ints(op, dst, a);
                });
            }
            Instr::Binary { op, dst, a, b } if kinds[dst] == Kind::F32 => {
                let (dst, others) = self.float_result(dst);
                elementwise::binary(op, dst, others.float(a), others.float(b));
            }
            Instr::Binary { op, dst, a, b } => {
                let (dst, others) = self.int_result(dst);
                elementwise::binary_ints(op, dst, others.int(a), others.int(b));
            }
            Instr::Compare { op, kind: Kind::F32, dst, a, b } => {
                let (dst, others) = self.int_result(dst);
                elementwise::compare(op, dst, others.float(a), others.float(b));
            }
            Instr::Compare { op, kind: Kind::I32, dst, a, b } => {
                let (dst, others) = self.int_result(dst);
                elementwise::compare_ints(op, dst, others.int(a), others.int(b));
            }
            Instr::Select { dst, c, a, b } => {
                let kind = kinds[dst];
                let (dst, others) = self.split(dst);
                elementwise::select(dst, others.int(c), others.word(a, kind), others.word(b, kind));
            }
            Instr::Cast { dst, a, from, to } => self.cast(dst, a, from, to),
            Instr::RowReduce { kind, dst, a, len } if kinds[dst] == Kind::F32 => {
                let (dst, others) = self.float_result(dst);
                fold::reduce_rows(kind, dst, others.floats(a), len);
            }
            Instr::RowReduce { kind, dst, a, len } => {
                let (dst, others) = self.int_result(dst);
                fold::reduce_int_rows(kind, dst, others.ints(a), len);
            }
            Instr::Softmax { dst, a, len } => {
                let (dst, others) = self.float_result(dst);
                fold::softmax(dst, others.floats(a), len);
            }
            Instr::SoftmaxGrad { dst, y, dy, len } => {
                let (dst, others) = self.float_result(dst);
                fold::softmax_grad(dst, others.floats(y), others.floats(dy), len);
            }
            Instr::RmsNorm { dst, a, len, eps } => {
                let (dst, others) = self.float_result(dst);
                fold::rms_norm(dst, others.floats(a), len, eps as f32);
            }
            Instr::RmsNormGrad { dst, x, dy, len, eps } => {
                let (dst, others) = self.float_result(dst);
                fold::rms_norm_grad(dst, others.floats(x), others.floats(dy), len, eps as f32);
            }
            Instr::LayerNorm { dst, a, len, eps } => {
                let (dst, others) = self.float_result(dst);
                fold::layer_norm(dst, others.floats(a), len, eps as f32);
            }
            Instr::LayerNormGrad { dst, x, dy, len, eps } => {
                let (dst, others) = self.float_result(dst);
                fold::layer_norm_grad(dst, others.floats(x), others.floats(dy), len, eps as f32);
            }
            Instr::Load { .. }
            | Instr::Iota { .. }
            | Instr::Store { .. }
            | Instr::Total { .. }
            | Instr::Columns { .. }
            | Instr::Rope { .. } => {}
        }
    }

    fn cast(&mut self, dst: Reg, a: Src, from: DType, to: DType) {
        if to.is_float() {
            let (dst, others) = self.float_result(dst);
            if from.is_float() {
                of_one(dst, others.float(a), |dst, a| match to {
                    DType::BF16 => convert::round_bf16(dst, a),
                    DType::F16 => convert::round_f16(dst, a),
                    _ => dst.copy_from_slice(a),
                });
            } else {
                of_one(dst, others.int(a), elementwise::to_floats);
                convert::round_in_place(to, dst);
            }
            return;
        }
        let (dst, others) = self.int_result(dst);
        match (from.is_float(), to == DType::Bool) {
            (true, true) => of_one(dst, others.float(a), elementwise::to_bools),
            (true, false) => of_one(dst, others.float(a), elementwise::to_ints),
            (false, true) => of_one(dst, others.int(a), |dst, a| {
                dst.iter_mut().zip(a).for_each(|(dst, &a)| *dst = i32::from(a != 0));
            }),
            (false, false) => of_one(dst, others.int(a), |dst, a| dst.copy_from_slice(a)),
        }
    }

    /// A fold of the whole space, continued over this tile; integers are exact in f64, and their sum wraps.
    pub fn total(&self, kind: ReduceKind, a: Src, of: Kind, before: f64) -> f64 {
        let count = self.len as f64;
        match (a, of) {
            (Src::Reg(reg), Kind::F32) => fold::total(kind, before, self.floats(reg)),
            (Src::Reg(reg), Kind::I32) => {
                let values = self.ints(reg).iter().copied();
                match kind {
                    ReduceKind::Max => values.map(f64::from).fold(before, f64::max),
                    ReduceKind::Min => values.map(f64::from).fold(before, f64::min),
                    _ => f64::from(values.fold(before as i32, i32::wrapping_add)),
                }
            }
            (Src::Const(c), _) => match kind {
                ReduceKind::Max => before.max(c.0),
                ReduceKind::Min => before.min(c.0),
                ReduceKind::Norm => before + count * c.0 * c.0,
                ReduceKind::Sum | ReduceKind::Mean => before + count * c.0,
            },
        }
    }

    /// Adds the tile, whose first element is `at`, to sums over leading axes.
    pub fn columns(&self, a: Src, at: usize, period: usize, sums: &mut [f32]) {
        let mut done = 0;
        while done < self.len {
            let column = (at + done) % period;
            let run = (period - column).min(self.len - done);
            let sums = &mut sums[column..column + run];
            match a {
                Src::Reg(reg) => fold::add(sums, &self.floats(reg)[done..done + run]),
                Src::Const(c) => sums.iter_mut().for_each(|sum| *sum += c.0 as f32),
            }
            done += run;
        }
    }

    /// Rotary embedding; `angles` holds cos and sin of one row.
    pub fn rope(
        &mut self,
        dst: Reg,
        a: Reg,
        position: Reg,
        len: usize,
        inverse: bool,
        frequencies: &[f64],
        angles: &mut [f32],
    ) {
        let (dst, others) = self.float_result(dst);
        let (a, positions) = (others.floats(a), others.ints(position));
        let (cos, sin) = angles.split_at_mut(angles.len() / 2);
        let (cos, sin) = (&mut cos[..len / 2], &mut sin[..len / 2]);
        // Heads of one position follow one another.
        let mut known = None;
        for ((dst, a), positions) in dst.chunks_mut(len).zip(a.chunks(len)).zip(positions.chunks(len)) {
            if known != Some(positions[0]) {
                known = Some(positions[0]);
                fold::angles(cos, sin, positions[0], frequencies);
            }
            fold::turn(dst, a, cos, sin, inverse);
        }
    }
}

/// Runs a loop over one operand; once only where it is one number.
fn of_one<A: Copy, R: Copy + Default>(dst: &mut [R], a: Arg<A>, f: impl Fn(&mut [R], &[A])) {
    match a {
        Arg::Each(a) => f(dst, a),
        Arg::One(a) => {
            let mut one = [R::default()];
            f(&mut one, &[a]);
            dst.fill(one[0]);
        }
    }
}

/// ⌊i / inner⌋ mod period, from element `at` on.
pub fn iota(dst: &mut [i32], at: usize, inner: usize, period: usize) {
    let mut done = 0;
    while done < dst.len() {
        let i = at + done;
        let run = (inner - i % inner).min(dst.len() - done);
        dst[done..done + run].fill((i / inner % period) as i32);
        done += run;
    }
}
