//! Barriers, fences, and the meeting of lanes for warp-wide operations.

use super::warp::Wait;
use super::{Bits, Ctx, Flow, Stop};
use crate::check::{Check, Kind};
use crate::program::{NONE, Op};

impl Ctx<'_> {
    /// Lanes that run a warp-wide operation together. `named` are those that it asks for; the lanes here are `mask`.
    /// `None`: the others are elsewhere still, and these wait.
    pub fn meet(&mut self, named: u32, mask: u32) -> Option<u32> {
        self.meet_and(named, mask, Wait::None, true)
    }

    /// [`Ctx::meet`]; other paths that cannot join this one then wait for `then`, `beyond` the operation or still before
    /// it.
    fn meet_and(&mut self, named: u32, mask: u32, then: Wait, beyond: bool) -> Option<u32> {
        let need = named & self.live();
        if need & !mask == 0 {
            return Some(mask);
        }
        let (pc, me) = (self.pc, self.node);
        let warp = &mut self.block.warps[self.w];
        let here = |n: &super::warp::Node| n.pc == pc && n.children == 0 && matches!(n.wait, Wait::Lanes(_));
        let gathered = warp.nodes.iter().filter(|n| here(n)).fold(mask, |m, n| m | n.mask);
        if need & !gathered != 0 {
            warp.nodes[me].wait = Wait::Lanes(need);
            return None;
        }
        for i in 0..warp.nodes.len() {
            if i != me && here(&warp.nodes[i]) && !warp.join(me, i) {
                warp.nodes[i].wait = then;
                warp.nodes[i].pc = pc + beyond as u32;
            }
        }
        Some(gathered)
    }

    /// [`Ctx::meet`] for `.aligned` operations, which all lanes must run together; `what` names it. Lanes that took
    /// another way for good are waited for: they may end there, or come later.
    ///
    /// # Errors
    /// A finding, where the others are on the other side of a branch that meets further on, or will never come.
    fn meet_aligned(&mut self, what: &str, mask: u32, then: Wait, beyond: bool) -> Result<Option<u32>, Stop> {
        let checked = self.checks(Check::Barriers);
        if checked && self.block.warps[self.w].within_branch(self.node) {
            return self.divergent(what, mask);
        }
        let met = self.meet_and(!0, mask, then, beyond);
        if met.is_none() && checked && !self.block.warps[self.w].others_move() {
            return self.divergent(what, mask);
        }
        Ok(met)
    }

    #[cold]
    fn divergent<T>(&self, what: &str, mask: u32) -> Result<T, Stop> {
        let live = self.live();
        let m = format!("{what} in divergent code: of the warp's live lanes 0x{live:08x} only 0x{mask:08x} are here");
        self.stop(Kind::Divergent, Some((live & !mask).trailing_zeros() as usize), m)
    }

    /// Whether all lanes are here for an `.aligned` warp-wide operation; if not, these wait.
    ///
    /// # Errors
    /// A finding, where the others will not come.
    pub fn aligned(&mut self, mask: u32) -> Result<bool, Stop> {
        if mask == self.live() || !self.checks(Check::Barriers) {
            return Ok(true);
        }
        Ok(self.meet_aligned("a warp-wide operation", mask, Wait::None, true)?.is_some())
    }

    fn operand(&self, o: i32, mask: u32) -> u32 {
        self.lanes::<u32>(o)[mask.trailing_zeros() as usize & 31]
    }
}

/// Flags of a barrier in `Op::imm`.
pub const WAITS: i64 = 1;
/// See [`WAITS`]: all lanes of the warp must come together.
pub const ALIGNED: i64 = 2;
/// See [`WAITS`]: what a reduction does with predicate `c`: 1 and, 2 or, 3 count.
pub const REDUCTION: i64 = 4;

/// `bar`, `barrier`: id in `a`, thread count in `b` if any, predicate of a reduction in `c`, its result in `d`.
pub fn barrier(ctx: &mut Ctx, op: &Op, mask: u32) -> Result<Flow, Stop> {
    let waits = op.imm & WAITS != 0;
    let reduction = op.imm / REDUCTION;
    let w = ctx.w;
    let id = ctx.operand(op.a, mask);
    let lane = mask.trailing_zeros() as usize;
    if id > 15 {
        return ctx.stop(Kind::BadOperand, Some(lane), format!("barrier {id}: there are 16"));
    }
    let count = if op.b == NONE { 0 } else { ctx.operand(op.b, mask) };
    if count % 32 != 0 || (op.b != NONE && count == 0) || count > ctx.env.job.threads().next_multiple_of(32) {
        return ctx.stop(Kind::BadOperand, Some(lane), format!("barrier {id} with {count} threads"));
    }
    let all = ctx.env.job.threads().next_multiple_of(32);
    let aligned = op.imm & ALIGNED != 0;
    if reduction != 0 && ctx.reduced(op, mask) {
        return Ok(Flow::Next);
    }
    let mut mask = mask;
    if aligned && mask != ctx.live() {
        let then = if waits { Wait::Barrier(id as u8) } else { Wait::None };
        match ctx.meet_aligned(&format!("barrier {id}"), mask, then, reduction == 0)? {
            Some(all) => mask = all,
            None => return Ok(Flow::Retry),
        }
    }
    let b = &mut ctx.block.barriers[id as usize];
    if b.arrived == 0 {
        b.expected = count;
        b.all = true;
    } else if [b.expected, count] == [0, all] || [b.expected, count] == [all, 0] {
        // All threads of the block, said in numbers.
        b.expected = all;
    } else if b.expected != count {
        let m = format!("barrier {id} with {count} threads, where others wait for {} threads (0: all)", b.expected);
        return ctx.stop(Kind::BadOperand, Some(lane), m);
    }
    // With a count, a warp stands for 32 threads, even if some of them are missing.
    b.arrived += if count != 0 && aligned { 32 } else { mask.count_ones() };
    b.warps |= 1 << w;
    if reduction != 0 {
        // SAFETY: the decoder gave a predicate.
        let p = unsafe { super::lanes::pred(ctx.regs, op.c) } ^ if op.x != 0 { !0 } else { 0 };
        b.all &= p & mask == mask;
        b.any |= p & mask != 0;
        b.count += (p & mask).count_ones();
        ctx.block.warps[w].reducing |= mask;
    }
    if waits {
        ctx.block.warps[w].nodes[ctx.node].wait = Wait::Barrier(id as u8);
    }
    ctx.block.try_barrier(id as usize);
    if reduction != 0 {
        // Comes back to this operation for its result.
        return Ok(Flow::Retry);
    }
    Ok(if waits { Flow::Park } else { Flow::Next })
}

impl Ctx<'_> {
    /// The second visit of a reduction: the barrier is complete, its result is taken.
    fn reduced(&mut self, op: &Op, mask: u32) -> bool {
        let w = self.w;
        if self.block.warps[w].reducing & mask != mask {
            return false;
        }
        self.block.warps[w].reducing &= !mask;
        let id = self.operand(op.a, mask) as usize & 15;
        let (all, any, count) = self.block.barriers[id].result;
        match op.imm / REDUCTION {
            // SAFETY: the decoder gave a predicate.
            1 => unsafe { super::lanes::set_pred(self.regs, op.d, if all { !0 } else { 0 }, mask) },
            2 => unsafe { super::lanes::set_pred(self.regs, op.d, if any { !0 } else { 0 }, mask) },
            _ => Bits(mask).for_each(|l| self.lanes_mut::<u32>(op.d)[l] = count),
        }
        true
    }
}

/// `bar.warp.sync`: lanes in `a`.
pub fn warp_sync(ctx: &mut Ctx, op: &Op, mask: u32) -> Result<Flow, Stop> {
    // Lanes may name different groups; all of them meet here.
    let named = *ctx.lanes::<u32>(op.a);
    let named = Bits(mask).fold(0, |all, l| all | named[l]);
    Ok(if ctx.meet(named, mask).is_some() { Flow::Next } else { Flow::Retry })
}

/// `fence`, `membar`: `imm` is 0 for the block, 1 beyond it.
pub fn fence(ctx: &mut Ctx, op: &Op, _: u32) -> Result<Flow, Stop> {
    ctx.fence(op.imm != 0);
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    Ok(Flow::Next)
}
