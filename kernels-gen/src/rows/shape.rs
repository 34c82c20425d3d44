//! How the elements of a row are dealt out to threads.

use mngc_compiler::schedule::rows::{Access, Instr, RowProgram};

use crate::spec::{Refusal, Spec};

/// Threads of a block whose teams are smaller.
const THREADS: usize = 256;
/// Threads of the largest team.
pub const LARGEST_TEAM: usize = 1024;
/// Values that a thread should hold in registers at most.
pub const HELD: usize = 128;

/// How the elements of a row are dealt out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Elements of a row.
    pub len: usize,
    /// Rotary embeddings pair the first half of a row with the second: 2 parts, so that a thread has both; else 1.
    pub parts: usize,
    /// Neighbours in a thread.
    pub vec: usize,
    /// Threads of a team, a power of two.
    pub team: usize,
    /// Runs of neighbours in a thread and part.
    pub runs: usize,
}

impl Shape {
    pub fn new(program: &RowProgram, spec: &Spec) -> Result<Shape, Refusal> {
        let len = row(program);
        let widest = widest(program, spec);
        let is_flat = len == 1;
        if is_flat {
            // Without rows, a row is what one thread moves.
            let vec = powers(widest).find(|vec| program.elements.is_multiple_of(*vec)).unwrap_or(1);
            return Ok(Shape { len: vec, parts: 1, vec, team: 1, runs: 1 });
        }
        let rope = program.instrs.iter().any(|i| matches!(i, Instr::Rope { len: l, .. } if *l == len));
        let parts = if rope { 2 } else { 1 };
        let part = len / parts;
        let vec = powers(widest).find(|vec| part.is_multiple_of(*vec)).unwrap_or(1);
        let chunks = part / vec;
        // Neighbours of a warp first, then more of the block while registers would not hold the rest.
        let mut team = 1;
        while team < 32 && team * 2 <= chunks {
            team *= 2;
        }
        let held = |team: usize| parts * chunks.div_ceil(team) * vec * program.regs.len();
        while team < LARGEST_TEAM && team * 2 <= chunks && held(team) > HELD {
            team *= 2;
        }
        Ok(Shape { len, parts, vec, team, runs: chunks.div_ceil(team) })
    }

    pub fn threads(&self) -> usize {
        if self.team > 32 { self.team } else { THREADS }
    }

    pub fn teams(&self) -> usize {
        self.threads() / self.team
    }

    pub fn is_exact(&self) -> bool {
        self.parts * self.runs * self.team * self.vec == self.len
    }
}

/// Elements of a row: of what is folded along rows, and of what is folded along columns.
pub fn row(program: &RowProgram) -> usize {
    program.instrs.iter().fold(program.tile, |len, instr| match instr {
        Instr::Columns { period, .. } => lcm(len, *period),
        _ => len,
    })
}

fn lcm(a: usize, b: usize) -> usize {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    a / x * b
}

/// Powers of two from `most` down.
pub(crate) fn powers(most: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(most), |n| (*n > 1).then_some(n / 2))
}

/// Elements of 16 bytes of the narrowest tensor that is walked along, 8 at most.
pub(crate) fn widest(program: &RowProgram, spec: &Spec) -> usize {
    let operand = |i: &Instr| match *i {
        Instr::Load { operand, access: Access::Full, .. } => spec.args.get(operand),
        Instr::Store { result, access: Access::Full, .. } => spec.results.get(result),
        _ => None,
    };
    let narrowest = program.instrs.iter().filter_map(operand).map(|o| o.dtype.bytes()).min().unwrap_or(4);
    (16 / narrowest).min(8)
}
