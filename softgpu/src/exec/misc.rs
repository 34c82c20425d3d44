//! What stops, waits, or tells the time.

use super::{Bits, Ctx, Flow, Stop};
use crate::check::Kind;
use crate::program::{Op, Width};

/// `trap`.
pub fn trap(ctx: &mut Ctx, _: &Op, mask: u32) -> Result<Flow, Stop> {
    ctx.stop(Kind::Trap, Some(mask.trailing_zeros() as usize), "trap: the kernel stopped itself")
}

/// `nanosleep`: others have their turn.
pub fn sleep(ctx: &mut Ctx, _: &Op, _: u32) -> Result<Flow, Stop> {
    ctx.poll();
    Ok(Flow::Yield)
}

/// `%clock`, `%clock64`, `%globaltimer`: a count of the host's nanoseconds; `imm` is the width.
pub fn clock(ctx: &mut Ctx, op: &Op, mask: u32) -> Result<Flow, Stop> {
    use std::sync::OnceLock;
    use std::time::Instant;
    static START: OnceLock<Instant> = OnceLock::new();
    let t = START.get_or_init(Instant::now).elapsed().as_nanos() as u64;
    if op.imm == Width::W64 as i64 {
        let d = ctx.lanes_mut::<u64>(op.d);
        Bits(mask).for_each(|l| d[l] = t);
    } else {
        let d = ctx.lanes_mut::<u32>(op.d);
        Bits(mask).for_each(|l| d[l] = t as u32);
    }
    Ok(Flow::Next)
}
