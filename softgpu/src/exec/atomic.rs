//! Atomic operations: read, modify and write of one element a lane, atomic between all blocks.

use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering::SeqCst};

use super::access::Access;
use super::{Bits, Ctx, Flow, Stop};
use crate::num::{bf16_from_f32, bf16_to_f32, canon, f16_from_f32, f16_to_f32, ftz};
use crate::program::{MemSpace, Op, Width};

/// What an atomic does to its element; the number is `Op::e` of the operation's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
#[repr(u8)]
pub enum Rmw {
    Exchange,
    CompareSwap,
    Add,
    AddF32,
    AddF32Ftz,
    AddF64,
    AddF16,
    AddBF16,
    AddF16x2,
    AddBF16x2,
    And,
    Or,
    Xor,
    MinU,
    MaxU,
    MinS,
    MaxS,
    Inc,
    Dec,
    MinF16,
    MaxF16,
    MinBF16,
    MaxBF16,
}

/// All of them, by number.
pub const RMWS: [Rmw; 23] = [
    Rmw::Exchange,
    Rmw::CompareSwap,
    Rmw::Add,
    Rmw::AddF32,
    Rmw::AddF32Ftz,
    Rmw::AddF64,
    Rmw::AddF16,
    Rmw::AddBF16,
    Rmw::AddF16x2,
    Rmw::AddBF16x2,
    Rmw::And,
    Rmw::Or,
    Rmw::Xor,
    Rmw::MinU,
    Rmw::MaxU,
    Rmw::MinS,
    Rmw::MaxS,
    Rmw::Inc,
    Rmw::Dec,
    Rmw::MinF16,
    Rmw::MaxF16,
    Rmw::MinBF16,
    Rmw::MaxBF16,
];

fn f16x2(old: u64, b: u64, f: impl Fn(u16, u16) -> u16) -> u64 {
    f(old as u16, b as u16) as u64 | (f((old >> 16) as u16, (b >> 16) as u16) as u64) << 16
}

fn add16(a: u16, b: u16) -> u16 {
    f16_from_f32(f16_to_f32(a) + f16_to_f32(b))
}

fn addb16(a: u16, b: u16) -> u16 {
    bf16_from_f32(bf16_to_f32(a) + bf16_to_f32(b))
}

/// The new value of an element of `bytes`.
fn apply(rmw: Rmw, old: u64, b: u64, c: u64, bytes: u32) -> u64 {
    let f = |x: u64| f32::from_bits(x as u32);
    let sign = |x: u64| if bytes == 4 { x as i32 as i64 } else { x as i64 };
    match rmw {
        Rmw::Exchange => b,
        Rmw::CompareSwap => {
            if old == b {
                c
            } else {
                old
            }
        }
        Rmw::Add => old.wrapping_add(b),
        Rmw::AddF32 => canon(f(old) + f(b)).to_bits() as u64,
        Rmw::AddF32Ftz => ftz(canon(ftz(f(old)) + ftz(f(b)))).to_bits() as u64,
        Rmw::AddF64 => (f64::from_bits(old) + f64::from_bits(b)).to_bits(),
        Rmw::AddF16 => add16(old as u16, b as u16) as u64,
        Rmw::AddBF16 => addb16(old as u16, b as u16) as u64,
        Rmw::AddF16x2 => f16x2(old, b, add16),
        Rmw::AddBF16x2 => f16x2(old, b, addb16),
        Rmw::And => old & b,
        Rmw::Or => old | b,
        Rmw::Xor => old ^ b,
        Rmw::MinU => old.min(b),
        Rmw::MaxU => old.max(b),
        Rmw::MinS => {
            if sign(b) < sign(old) {
                b
            } else {
                old
            }
        }
        Rmw::MaxS => {
            if sign(b) > sign(old) {
                b
            } else {
                old
            }
        }
        Rmw::Inc => {
            if old >= b {
                0
            } else {
                old + 1
            }
        }
        Rmw::Dec => {
            if old == 0 || old > b {
                b
            } else {
                old - 1
            }
        }
        Rmw::MinF16 => f16_from_f32(f16_to_f32(old as u16).min(f16_to_f32(b as u16))) as u64,
        Rmw::MaxF16 => f16_from_f32(f16_to_f32(old as u16).max(f16_to_f32(b as u16))) as u64,
        Rmw::MinBF16 => bf16_from_f32(bf16_to_f32(old as u16).min(bf16_to_f32(b as u16))) as u64,
        Rmw::MaxBF16 => bf16_from_f32(bf16_to_f32(old as u16).max(bf16_to_f32(b as u16))) as u64,
    }
}

macro_rules! swap_loop {
    ($atomic:ty, $int:ty, $place:expr, $f:expr) => {{
        // SAFETY: the place was checked, alignment included (always, for atomics).
        let a = unsafe { <$atomic>::from_ptr($place as *mut $int) };
        let mut old = a.load(SeqCst);
        loop {
            let new = $f(old as u64) as $int;
            match a.compare_exchange_weak(old, new, SeqCst, SeqCst) {
                Ok(_) => break (old as u64, new as u64),
                Err(o) => old = o,
            }
        }
    }};
}

/// Does it at a place; returns old and new value.
fn at_place(rmw: Rmw, place: *mut u8, bytes: u32, b: u64, c: u64) -> (u64, u64) {
    let f = |old: u64| apply(rmw, old, b, c, bytes);
    match bytes {
        2 => swap_loop!(AtomicU16, u16, place, f),
        4 => swap_loop!(AtomicU32, u32, place, f),
        _ => swap_loop!(AtomicU64, u64, place, f),
    }
}

/// Most elements of a vector.
const MAX_ELEMENTS: usize = 8;

/// An atomic: `mems[x]`, address `a + imm`, kind `Rmw` in `op.imm`'s place of the list: list = results (`count`, or
/// [`crate::program::NONE`]), then operand b (`count`), then operand c (`count`, of a compare-and-swap).
pub fn atomic(ctx: &mut Ctx, op: &Op, mask: u32) -> Result<Flow, Stop> {
    let m = ctx.env.kernel.mems[op.x as usize];
    // The kind stands in the upper bits of the immediate, the offset of the address in the lower.
    let rmw = RMWS[(op.imm >> 56) as u8 as usize % RMWS.len()];
    let offset = Op { imm: op.imm << 8 >> 8, ..*op };
    let at = ctx.addresses(&offset, m.address);
    let unaligned = Bits(mask).any(|l| at[l] & (m.size as u64 - 1) != 0);
    if unaligned {
        return ctx.misaligned(&at, mask, m.size, Access::ATOMIC);
    }
    let access = Access { swap: rmw == Rmw::CompareSwap, ..Access::ATOMIC };
    let places = ctx.places(m.space, &at, mask, m.size * m.count, access)?;
    if m.order.strong && ctx.env.kernel.synchronises {
        for l in Bits(mask) {
            let (key, beyond) = ctx.sync_key(m.space, at[l]);
            ctx.publish(key, m.order, beyond);
        }
    }
    let count = m.count as usize;
    let mut changed = false;
    for l in Bits(mask) {
        // Sums of f32 in global memory flush subnormal values, those in shared memory do not.
        let in_global = rmw == Rmw::AddF32 && ctx.sync_key(m.space, at[l]).1;
        let rmw = if in_global { Rmw::AddF32Ftz } else { rmw };
        // All operands before any result: they may be the same registers in another order.
        let mut old = [0u64; MAX_ELEMENTS];
        for (i, old) in old.iter_mut().enumerate().take(count) {
            let b = value(ctx, ctx.listed(op, count + i), m.width, l);
            let c = if rmw == Rmw::CompareSwap { value(ctx, ctx.listed(op, 2 * count + i), m.width, l) } else { b };
            // SAFETY: within the access that was checked.
            let place = unsafe { places[l].add(i * m.size as usize) };
            let (before, after) = at_place(rmw, place, m.size, b, c);
            changed |= before != after;
            *old = before;
        }
        for (i, old) in old.into_iter().enumerate().take(count) {
            match (ctx.listed(op, i), m.width) {
                (d, _) if d < 0 => {}
                (d, Width::W16) => ctx.lanes_mut::<u16>(d)[l] = old as u16,
                (d, Width::W32) => ctx.lanes_mut::<u32>(d)[l] = old as u32,
                (d, _) => ctx.lanes_mut::<u64>(d)[l] = old,
            }
        }
    }
    if ctx.env.kernel.synchronises {
        for l in Bits(mask) {
            let (key, beyond) = ctx.sync_key(m.space, at[l]);
            ctx.observe(key, m.order, beyond);
        }
    }
    if changed {
        ctx.block.progress += 1;
        return Ok(Flow::Next);
    }
    Ok(if m.space == MemSpace::Local { Flow::Next } else { ctx.poll() })
}

fn value(ctx: &Ctx, o: i32, w: Width, l: usize) -> u64 {
    match w {
        Width::W16 => ctx.lanes::<u16>(o)[l] as u64,
        Width::W32 => ctx.lanes::<u32>(o)[l] as u64,
        _ => ctx.lanes::<u64>(o)[l],
    }
}
