//! Tensor instructions of a warp: `mma.sync`, `ldmatrix`, `stmatrix`, `movmatrix`.
//!
//! Lane l has g = l/4 and t = l%4. Register r of A holds row g + 8(r&1), and of B column g; the elements of a register
//! lie side by side along k.

use super::access::Access;
use super::{Ctx, Flow, Stop};
use crate::num::*;
use crate::program::{MemSpace, Op};

/// How the elements of a matrix are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
#[repr(u8)]
pub enum Element {
    BF16,
    F16,
    TF32,
    E4M3,
    E5M2,
    S8,
    U8,
}

/// All of them, by number.
pub const ELEMENTS: [Element; 7] =
    [Element::BF16, Element::F16, Element::TF32, Element::E4M3, Element::E5M2, Element::S8, Element::U8];

impl Element {
    /// Elements in a register of 32 bits.
    fn packed(self) -> usize {
        match self {
            Element::TF32 => 1,
            Element::BF16 | Element::F16 => 2,
            _ => 4,
        }
    }

    /// Element `i` of a register.
    #[inline(always)]
    fn get(self, r: u32, i: usize) -> f32 {
        match self {
            Element::BF16 => bf16_to_f32((r >> (16 * i)) as u16),
            Element::F16 => f16_to_f32((r >> (16 * i)) as u16),
            Element::TF32 => tf32_read(f32::from_bits(r)),
            Element::E4M3 => e4m3_to_f32((r >> (8 * i)) as u8),
            Element::E5M2 => e5m2_to_f32((r >> (8 * i)) as u8),
            Element::S8 => (r >> (8 * i)) as i8 as f32,
            Element::U8 => (r >> (8 * i)) as u8 as f32,
        }
    }
}

/// The largest k of a shape.
const MAX_K: usize = 32;

/// A, B and the accumulators of one product, as matrices: A by columns, B by rows, so that rows of 8 columns of the
/// result are computed together.
struct Tile {
    a: [[f32; 16]; MAX_K],
    b: [[f32; 8]; MAX_K],
    c: [[f32; 8]; 16],
}

/// C += A·B along k, in its order, with four rows in flight.
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
unsafe fn multiply(t: &mut Tile, k: usize) {
    for i in (0..16).step_by(4) {
        let mut acc: [[f32; 8]; 4] = [t.c[i], t.c[i + 1], t.c[i + 2], t.c[i + 3]];
        for p in 0..k {
            for (r, acc) in acc.iter_mut().enumerate() {
                let x = t.a[p][i + r];
                for j in 0..8 {
                    acc[j] = x.mul_add(t.b[p][j], acc[j]);
                }
            }
        }
        t.c[i..i + 4].copy_from_slice(&acc);
    }
}

fn product(t: &mut Tile, k: usize) {
    // SAFETY: without AVX2 and FMA no module is loaded.
    unsafe { multiply(t, k) }
}

/// How the shape and types of a product stand in `Op::imm`: k, element of A, element of B, 16-bit accumulators.
pub fn mma_code(k: usize, a: Element, b: Element, f16_accumulators: bool) -> i64 {
    k as i64 | (a as i64) << 8 | (b as i64) << 16 | (f16_accumulators as i64) << 24
}

/// `mma.sync.m16n8kK`: list = D (4, or 2 of f16), A (k·16·bits/1024), B (half as many), C (as D).
pub fn mma(ctx: &mut Ctx, op: &Op, mask: u32) -> Result<Flow, Stop> {
    ctx.aligned(mask)?;
    let k = op.imm as u8 as usize;
    let (ea, eb) = (ELEMENTS[(op.imm >> 8) as u8 as usize], ELEMENTS[(op.imm >> 16) as u8 as usize]);
    let f16 = op.imm >> 24 & 1 == 1;
    let nd = if f16 { 2 } else { 4 };
    let per = ea.packed();
    let na = 16 * k / 32 / per;
    let nb = na / 2;
    let mut t = Tile { a: [[0.0; 16]; MAX_K], b: [[0.0; 8]; MAX_K], c: [[0.0; 8]; 16] };
    for r in 0..na {
        let v = ctx.lanes::<u32>(ctx.listed(op, nd + r));
        let (row, col) = (8 * (r & 1), (r >> 1) * 4 * per);
        for (l, v) in v.iter().enumerate() {
            for e in 0..per {
                t.a[col + (l & 3) * per + e][row + (l >> 2)] = ea.get(*v, e);
            }
        }
    }
    for r in 0..nb {
        let v = ctx.lanes::<u32>(ctx.listed(op, nd + na + r));
        for (l, v) in v.iter().enumerate() {
            for e in 0..per {
                t.b[r * 4 * per + (l & 3) * per + e][l >> 2] = eb.get(*v, e);
            }
        }
    }
    for r in 0..nd {
        let v = ctx.lanes::<u32>(ctx.listed(op, nd + na + nb + r));
        for (l, v) in v.iter().enumerate() {
            let (g, c) = (l >> 2, (l & 3) * 2);
            if f16 {
                t.c[g + 8 * r][c] = f16_to_f32(*v as u16);
                t.c[g + 8 * r][c + 1] = f16_to_f32((*v >> 16) as u16);
            } else {
                t.c[g + 8 * (r >> 1)][c + (r & 1)] = f32::from_bits(*v);
            }
        }
    }
    product(&mut t, k);
    for r in 0..nd {
        let d = ctx.listed(op, r);
        let out: [u32; 32] = std::array::from_fn(|l| {
            let (g, c) = (l >> 2, (l & 3) * 2);
            if f16 {
                f16_from_f32(t.c[g + 8 * r][c]) as u32 | (f16_from_f32(t.c[g + 8 * r][c + 1]) as u32) << 16
            } else {
                canon(t.c[g + 8 * (r >> 1)][c + (r & 1)]).to_bits()
            }
        });
        *ctx.lanes_mut::<u32>(d) = out;
    }
    ctx.counters.tensor_flops += 2 * 16 * 8 * k as u64;
    Ok(Flow::Next)
}

/// `mma.sync.m16n8k32` of 8-bit integers with 32-bit accumulators; the same lists.
pub fn mma_integer(ctx: &mut Ctx, op: &Op, mask: u32) -> Result<Flow, Stop> {
    ctx.aligned(mask)?;
    let k = op.imm as u8 as usize;
    let (ea, eb) = (ELEMENTS[(op.imm >> 8) as u8 as usize], ELEMENTS[(op.imm >> 16) as u8 as usize]);
    let na = 16 * k / 128;
    let nb = na / 2;
    let byte = |e: Element, r: u32, i: usize| e.get(r, i) as i32;
    let mut a = [[0i32; MAX_K]; 16];
    let mut b = [[0i32; MAX_K]; 8];
    for r in 0..na {
        let v = ctx.lanes::<u32>(ctx.listed(op, 4 + r));
        for (l, v) in v.iter().enumerate() {
            for e in 0..4 {
                a[(l >> 2) + 8 * (r & 1)][(r >> 1) * 16 + (l & 3) * 4 + e] = byte(ea, *v, e);
            }
        }
    }
    for r in 0..nb {
        let v = ctx.lanes::<u32>(ctx.listed(op, 4 + na + r));
        for (l, v) in v.iter().enumerate() {
            for e in 0..4 {
                b[l >> 2][r * 16 + (l & 3) * 4 + e] = byte(eb, *v, e);
            }
        }
    }
    let saturate = op.imm >> 25 & 1 == 1;
    for r in 0..4 {
        let c = *ctx.lanes::<u32>(ctx.listed(op, 4 + na + nb + r));
        let d = ctx.listed(op, r);
        let out: [u32; 32] = std::array::from_fn(|l| {
            let (row, col) = ((l >> 2) + 8 * (r >> 1), (l & 3) * 2 + (r & 1));
            let sum: i64 = (0..k).map(|p| a[row][p] as i64 * b[col][p] as i64).sum::<i64>() + c[l] as i32 as i64;
            if saturate { sum.clamp(i32::MIN as i64, i32::MAX as i64) as u32 } else { sum as u32 }
        });
        *ctx.lanes_mut::<u32>(d) = out;
    }
    ctx.counters.tensor_flops += 2 * 16 * 8 * k as u64;
    Ok(Flow::Next)
}

/// Shared addresses of the rows of `count` matrices, taken from the lanes that give them.
fn rows(ctx: &Ctx, op: &Op, count: usize) -> ([u64; 32], u32) {
    let m = ctx.env.kernel.mems[op.x as usize];
    let at = ctx.addresses(op, m.address);
    let mask = if count == 4 { !0 } else { (1u32 << (8 * count)) - 1 };
    (at, mask)
}

/// `ldmatrix.m8n8.b16`: `mems[x].count` matrices, transposed where `c`'s place in `mems[x].signed` says so.
pub fn load_matrix(ctx: &mut Ctx, op: &Op, mask: u32) -> Result<Flow, Stop> {
    ctx.aligned(mask)?;
    let m = ctx.env.kernel.mems[op.x as usize];
    let count = m.count as usize;
    let (at, giving) = rows(ctx, op, count);
    let at = ctx.shared_addresses(m.space, at, giving)?;
    let places = ctx.places(MemSpace::Shared, &at, giving, 16, Access::READ)?;
    for i in 0..count {
        let mut cells = [[0u16; 8]; 8];
        for (r, row) in cells.iter_mut().enumerate() {
            // SAFETY: 16 bytes were checked at each row's place.
            *row = unsafe { (places[8 * i + r] as *const [u16; 8]).read_unaligned() };
        }
        let d = ctx.listed(op, i);
        let out: [u32; 32] = std::array::from_fn(|l| {
            let (g, t) = (l >> 2, (l & 3) * 2);
            let (lo, hi) = if m.signed { (cells[t][g], cells[t + 1][g]) } else { (cells[g][t], cells[g][t + 1]) };
            lo as u32 | (hi as u32) << 16
        });
        *ctx.lanes_mut::<u32>(d) = out;
    }
    Ok(Flow::Next)
}

/// `stmatrix.m8n8.b16`: the way back.
pub fn store_matrix(ctx: &mut Ctx, op: &Op, mask: u32) -> Result<Flow, Stop> {
    ctx.aligned(mask)?;
    let m = ctx.env.kernel.mems[op.x as usize];
    let count = m.count as usize;
    let (at, giving) = rows(ctx, op, count);
    let at = ctx.shared_addresses(m.space, at, giving)?;
    let places = ctx.places(MemSpace::Shared, &at, giving, 16, Access::WRITE)?;
    for i in 0..count {
        let v = *ctx.lanes::<u32>(ctx.listed(op, i));
        let mut cells = [[0u16; 8]; 8];
        for (l, v) in v.iter().enumerate() {
            let (g, t) = (l >> 2, (l & 3) * 2);
            let (lo, hi) = (*v as u16, (*v >> 16) as u16);
            if m.signed {
                (cells[t][g], cells[t + 1][g]) = (lo, hi);
            } else {
                (cells[g][t], cells[g][t + 1]) = (lo, hi);
            }
        }
        for (r, row) in cells.iter().enumerate() {
            // SAFETY: 16 bytes were checked at each row's place.
            unsafe { (places[8 * i + r] as *mut [u16; 8]).write_unaligned(*row) };
        }
    }
    ctx.block.progress += 1;
    Ok(Flow::Next)
}

/// `movmatrix.trans.m8n8.b16`: transposes a matrix held in registers.
pub fn move_matrix(ctx: &mut Ctx, op: &Op, mask: u32) -> Result<Flow, Stop> {
    ctx.aligned(mask)?;
    let v = *ctx.lanes::<u32>(op.a);
    let cell = |row: usize, col: usize| (v[row * 4 + col / 2] >> (16 * (col & 1))) as u16;
    let out: [u32; 32] = std::array::from_fn(|l| {
        let (g, t) = (l >> 2, (l & 3) * 2);
        cell(t, g) as u32 | (cell(t + 1, g) as u32) << 16
    });
    *ctx.lanes_mut::<u32>(op.d) = out;
    Ok(Flow::Next)
}

impl Ctx<'_> {
    /// Shared addresses of an instruction that takes generic ones too.
    fn shared_addresses(&self, space: MemSpace, at: [u64; 32], mask: u32) -> Result<[u64; 32], Stop> {
        if space != MemSpace::Generic {
            return Ok(at);
        }
        if let Some(l) = super::Bits(mask).find(|l| at[*l].wrapping_sub(super::SHARED_WINDOW) >= super::WINDOW) {
            return self.stop(crate::check::Kind::OutOfBounds, Some(l), format!("0x{:x} is not in shared memory", at[l]));
        }
        Ok(at.map(|a| a.wrapping_sub(super::SHARED_WINDOW)))
    }
}
