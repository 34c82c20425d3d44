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

    /// [`Ctx::meet`]; the other paths then wait for `then`, `beyond` the operation or still before it.
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
        for (i, n) in warp.nodes.iter_mut().enumerate() {
            if i != me && here(n) {
                n.wait = then;
                n.pc = pc + beyond as u32;
            }
        }
        Some(gathered)
    }

    /// For `.aligned` warp-wide operations, which all lanes must run together.
    pub fn aligned(&self, mask: u32) -> Result<(), Stop> {
        let live = self.live();
        if mask != live && self.checks(Check::Barriers) {
            let lane = (live & !mask).trailing_zeros() as usize;
            let m = format!(
                "a warp-wide operation in divergent code: of the warp's live lanes 0x{live:08x} only 0x{mask:08x} are here"
            );
            return self.stop(Kind::Divergent, Some(lane), m);
        }
        Ok(())
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
        if ctx.checks(Check::Barriers) && ctx.block.warps[w].within_branch(ctx.node) {
            return ctx.divergent(id, mask);
        }
        // The others went another way for good. If they end there, the barrier is without them.
        let then = if waits { Wait::Barrier(id as u8) } else { Wait::None };
        match ctx.meet_and(!0, mask, then, reduction == 0) {
            Some(all) => mask = all,
            None if ctx.checks(Check::Barriers) && !ctx.block.warps[w].others_move() => return ctx.divergent(id, mask),
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
    #[cold]
    fn divergent(&self, id: u32, mask: u32) -> Result<Flow, Stop> {
        let live = self.live();
        let m =
            format!("barrier {id} in divergent code: of the warp's live lanes 0x{live:08x} only 0x{mask:08x} are here");
        self.stop(Kind::Divergent, Some((live & !mask).trailing_zeros() as usize), m)
    }

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
    let named = ctx.operand(op.a, mask);
    Ok(if ctx.meet(named, mask).is_some() { Flow::Next } else { Flow::Retry })
}

/// `fence`, `membar`: `imm` is 0 for the block, 1 beyond it.
pub fn fence(ctx: &mut Ctx, op: &Op, _: u32) -> Result<Flow, Stop> {
    ctx.fence(op.imm != 0);
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    Ok(Flow::Next)
}
