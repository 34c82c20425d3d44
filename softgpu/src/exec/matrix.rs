//! Tensor instructions of a warp: `mma.sync`, `ldmatrix`, `stmatrix`, `movmatrix`.
//!
//! Lane l has g = l/4 and t = l%4. Register r of A holds row g + 8(r&1), and of B column g; the elements of a register
//! lie side by side along k.

use super::access::Access;
use super::{Ctx, Flow, Stop};
use crate::num::*;
use crate::program::{MemSpace, Op};

/// A format of matrix elements.
pub trait Element: 'static {
    /// Elements in a register of 32 bits.
    const PACKED: usize;
    /// Element `i` of a register.
    fn get(r: u32, i: usize) -> f32;
}

macro_rules! element {
    ($name:ident, $doc:literal, $packed:literal, |$r:ident, $i:ident| $e:expr) => {
        #[doc = $doc]
        pub struct $name;
        impl Element for $name {
            const PACKED: usize = $packed;
            #[inline(always)]
            fn get($r: u32, $i: usize) -> f32 {
                $e
            }
        }
    };
}
element!(Bf16, "bf16.", 2, |r, i| f32::from_bits((r >> (16 * i)) << 16));
element!(F16, "f16.", 2, |r, i| f16_to_f32((r >> (16 * i)) as u16));
element!(Tf32, "tf32: the upper 19 bits of an f32.", 1, |r, _i| tf32_read(f32::from_bits(r)));
element!(E4m3, "fp8 e4m3.", 4, |r, i| E4M3_VALUES[(r >> (8 * i)) as u8 as usize]);
element!(E5m2, "fp8 e5m2.", 4, |r, i| E5M2_VALUES[(r >> (8 * i)) as u8 as usize]);

/// A, B and the accumulators of one product: A (16×K) and C (16×8) by rows, B (K×8) by rows too, so that rows of 8
/// columns of the result are computed together.
struct Tile<const K: usize> {
    a: [[f32; K]; 16],
    b: [[f32; 8]; K],
    c: [[f32; 8]; 16],
}

/// C += A·B along k, in its order, with four rows in flight.
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
unsafe fn multiply<const K: usize>(t: &mut Tile<K>) {
    for i in (0..16).step_by(4) {
        let mut acc: [[f32; 8]; 4] = [t.c[i], t.c[i + 1], t.c[i + 2], t.c[i + 3]];
        for p in 0..K {
            for (r, acc) in acc.iter_mut().enumerate() {
                let x = t.a[i + r][p];
                for j in 0..8 {
                    acc[j] = x.mul_add(t.b[p][j], acc[j]);
                }
            }
        }
        t.c[i..i + 4].copy_from_slice(&acc);
    }
}

/// Spreads a register of A over its 8 rows: lane l holds `P` neighbours of row l/4.
#[inline(always)]
fn spread_a<E: Element, const K: usize>(t: &mut Tile<K>, r: usize, v: &[u32; 32]) {
    let (row, col) = (8 * (r & 1), (r >> 1) * 4 * E::PACKED);
    for g in 0..8 {
        for l in 0..4 {
            for e in 0..E::PACKED {
                t.a[row + g][col + l * E::PACKED + e] = E::get(v[g * 4 + l], e);
            }
        }
    }
}

/// Spreads a register of B over its columns.
#[inline(always)]
fn spread_b<E: Element, const K: usize>(t: &mut Tile<K>, r: usize, v: &[u32; 32]) {
    for l in 0..4 {
        for e in 0..E::PACKED {
            let row = &mut t.b[r * 4 * E::PACKED + l * E::PACKED + e];
            for (g, x) in row.iter_mut().enumerate() {
                *x = E::get(v[g * 4 + l], e);
            }
        }
    }
}

/// One product; registers are given in the order of the operands. With f16 accumulators (`H`) there are two for D and C.
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
unsafe fn product<A: Element, B: Element, const K: usize, const H: bool>(
    regs: *mut u8,
    konst: *const u8,
    list: &[i32],
) {
    // SAFETY: operands come from the decoder.
    let get = |i: usize| unsafe { &*(super::lanes::at::<u32>(regs, konst, list[i]) as *const [u32; 32]) };
    let nd = if H { 2 } else { 4 };
    let na = 16 * K / 32 / A::PACKED;
    let nb = na / 2;
    let mut t = Tile { a: [[0.0; K]; 16], b: [[0.0; 8]; K], c: [[0.0; 8]; 16] };
    (0..na).for_each(|r| spread_a::<A, K>(&mut t, r, get(nd + r)));
    (0..nb).for_each(|r| spread_b::<B, K>(&mut t, r, get(nd + na + r)));
    // Lane l holds two neighbours of C in a row: in order of lanes these are the matrix itself.
    for half in 0..2 {
        let rows = t.c[8 * half..8 * half + 8].as_flattened_mut();
        if H {
            let v = get(nd + na + nb + half);
            for l in 0..32 {
                rows[2 * l] = f16_to_f32(v[l] as u16);
                rows[2 * l + 1] = f16_to_f32((v[l] >> 16) as u16);
            }
        } else {
            let (v, w) = (get(nd + na + nb + 2 * half), get(nd + na + nb + 2 * half + 1));
            for l in 0..32 {
                rows[2 * l] = f32::from_bits(v[l]);
                rows[2 * l + 1] = f32::from_bits(w[l]);
            }
        }
    }
    // SAFETY: the same features; below, places of registers from the decoder.
    unsafe {
        multiply(&mut t);
        for half in 0..2 {
            let rows = t.c[8 * half..8 * half + 8].as_flattened();
            if H {
                let d = &mut *super::lanes::at::<u32>(regs, konst, list[half]);
                for l in 0..32 {
                    d[l] = f16_from_f32(rows[2 * l]) as u32 | (f16_from_f32(rows[2 * l + 1]) as u32) << 16;
                }
            } else {
                let d = &mut *super::lanes::at::<f32>(regs, konst, list[2 * half]);
                (0..32).for_each(|l| d[l] = canon(rows[2 * l]));
                let d = &mut *super::lanes::at::<f32>(regs, konst, list[2 * half + 1]);
                (0..32).for_each(|l| d[l] = canon(rows[2 * l + 1]));
            }
        }
    }
}

/// `mma.sync.m16n8kK`: list = D, A, B, C.
pub fn mma<A: Element, B: Element, const K: usize, const H: bool>(
    ctx: &mut Ctx,
    op: &Op,
    mask: u32,
) -> Result<Flow, Stop> {
    if !ctx.aligned(mask)? {
        return Ok(Flow::Retry);
    }
    let list = &ctx.env.kernel.lists[op.l as usize..];
    // SAFETY: without AVX2 and FMA no module is loaded; operands come from the decoder.
    unsafe { product::<A, B, K, H>(ctx.regs, ctx.konst, list) };
    ctx.counters.tensor_flops += 2 * 16 * 8 * K as u64;
    Ok(Flow::Next)
}

/// How an integer product stands in `Op::imm`: k, whether A and B are signed, whether the sum saturates.
pub fn integer_code(k: usize, a_signed: bool, b_signed: bool, saturate: bool) -> i64 {
    k as i64 | (a_signed as i64) << 8 | (b_signed as i64) << 9 | (saturate as i64) << 10
}

/// `mma.sync.m16n8k32` of 8-bit integers with 32-bit accumulators; the same lists.
pub fn mma_integer(ctx: &mut Ctx, op: &Op, mask: u32) -> Result<Flow, Stop> {
    if !ctx.aligned(mask)? {
        return Ok(Flow::Retry);
    }
    let k = op.imm as u8 as usize;
    let (ea, eb) = (op.imm >> 8 & 1 == 1, op.imm >> 9 & 1 == 1);
    let na = 16 * k / 128;
    let nb = na / 2;
    let byte = |signed: bool, r: u32, i: usize| {
        let x = (r >> (8 * i)) as u8;
        if signed { x as i8 as i32 } else { x as i32 }
    };
    let mut a = [[0i32; 32]; 16];
    let mut b = [[0i32; 32]; 8];
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
    let saturate = op.imm >> 10 & 1 == 1;
    // All of C before any of D: they may be the same registers in another order.
    let c: [[u32; 32]; 4] = std::array::from_fn(|r| *ctx.lanes::<u32>(ctx.listed(op, 4 + na + nb + r)));
    for (r, c) in c.iter().enumerate() {
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
    if !ctx.aligned(mask)? {
        return Ok(Flow::Retry);
    }
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
    if !ctx.aligned(mask)? {
        return Ok(Flow::Retry);
    }
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
    if !ctx.aligned(mask)? {
        return Ok(Flow::Retry);
    }
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
            return self.stop(
                crate::check::Kind::OutOfBounds,
                Some(l),
                format!("0x{:x} is not in shared memory", at[l]),
            );
        }
        Ok(at.map(|a| a.wrapping_sub(super::SHARED_WINDOW)))
    }
}
