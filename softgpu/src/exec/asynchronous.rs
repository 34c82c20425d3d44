//! `cp.async`: copies from global to shared memory that arrive only when they are waited for, so that a missing wait
//! is seen.

use super::access::Access;
use super::{Bits, Ctx, Flow, Stop};
use crate::check::Check;
use crate::program::{MemSpace, NONE, Op};

/// One copy of one lane that has not arrived.
struct Copy {
    /// Offset in shared memory.
    to: u32,
    bytes: u8,
    lane: u8,
    /// The lane's group.
    group: u32,
    data: [u8; 16],
}

/// The copies of a warp.
#[derive(Default)]
pub struct Copies {
    on_the_way: Vec<Copy>,
    /// Groups that each lane has committed.
    group: [u32; 32],
}

impl Copies {
    /// Forgets all.
    pub fn clear(&mut self) {
        self.on_the_way.clear();
        self.group = [0; 32];
    }
}

/// `cp.async.{ca,cg}.shared.global [a + imm], [list]`: address of the source in the list, the rest of
/// both addresses and the size in `mems[x]`; bytes of the source that are read in `c` (the rest is zero).
pub fn copy(ctx: &mut Ctx, op: &Op, mask: u32) -> Result<Flow, Stop> {
    let m = ctx.env.kernel.mems[op.x as usize];
    let bytes = m.size;
    let to = ctx.addresses(op, m.address);
    let base = ctx.listed(op, 0);
    let from = ctx.lanes::<u64>(base).map(|a| a.wrapping_add(m.offset as u64));
    let source = if op.c == NONE { [bytes; 32] } else { *ctx.lanes::<u32>(op.c) };
    let mut by_size = [0u32; 17];
    for l in Bits(mask) {
        let n = source[l].min(bytes);
        by_size[n as usize] |= 1 << l;
    }
    let read = mask & !by_size[0];
    if Bits(read).any(|l| from[l] & (bytes as u64 - 1) != 0) && ctx.checks(Check::Alignment) {
        return ctx.misaligned(&from, read, bytes, Access::READ);
    }
    for (n, lanes) in by_size.iter().enumerate().skip(1).filter(|(_, m)| **m != 0) {
        // Only the bytes that are read must be there.
        ctx.places(MemSpace::Global, &from, *lanes, n as u32, Access::READ)?;
    }
    // Bounds and alignment of the destination, without what a write would do to its state.
    let size = ctx.block.shared_bytes as u64;
    for l in Bits(mask) {
        if to[l] > size || bytes as u64 > size - to[l] || to[l] & (bytes as u64 - 1) != 0 {
            let mut out = [std::ptr::null_mut(); 32];
            ctx.shared_places(&to, 1 << l, bytes, Access::WRITE, &mut out)?;
            continue;
        }
        ctx.shared_pending(to[l] as u32, bytes, l, false)?;
        let mut data = [0u8; 16];
        let n = source[l].min(bytes) as usize;
        // SAFETY: checked above.
        unsafe { std::ptr::copy_nonoverlapping(from[l] as *const u8, data.as_mut_ptr(), n) };
        let copies = &mut ctx.block.warps[ctx.w].copies;
        let group = copies.group[l];
        copies.on_the_way.push(Copy { to: to[l] as u32, bytes: bytes as u8, lane: l as u8, group, data });
    }
    Ok(Flow::Next)
}

/// `cp.async.commit_group`.
pub fn commit(ctx: &mut Ctx, _: &Op, mask: u32) -> Result<Flow, Stop> {
    let copies = &mut ctx.block.warps[ctx.w].copies;
    Bits(mask).for_each(|l| copies.group[l] += 1);
    Ok(Flow::Next)
}

/// `cp.async.wait_group imm`; negative: `wait_all`.
pub fn wait(ctx: &mut Ctx, op: &Op, mask: u32) -> Result<Flow, Stop> {
    let w = ctx.w;
    let mut all = std::mem::take(&mut ctx.block.warps[w].copies.on_the_way);
    let group = ctx.block.warps[w].copies.group;
    let arrived = |c: &Copy| {
        let l = c.lane as usize;
        mask >> l & 1 == 1 && (op.imm < 0 || c.group as i64 + op.imm < group[l] as i64)
    };
    for c in all.iter().filter(|c| arrived(c)) {
        ctx.shared_pending(c.to, c.bytes as u32, c.lane as usize, true)?;
        // SAFETY: bounds were checked when the copy began.
        unsafe {
            let to = (ctx.block.shared.as_mut_ptr() as *mut u8).add(c.to as usize);
            std::ptr::copy_nonoverlapping(c.data.as_ptr(), to, c.bytes as usize);
        }
    }
    all.retain(|c| !arrived(c));
    ctx.block.warps[w].copies.on_the_way = all;
    Ok(Flow::Next)
}
