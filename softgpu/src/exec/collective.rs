//! Operations across the lanes of a warp: shuffles, votes, match, reductions.

use super::{Bits, Ctx, Flow, Stop, lanes};
use crate::check::Kind;
use crate::program::{NONE, Op};

/// Lanes that take part, each of which names itself: `None` where some that are named are still elsewhere. Lanes may name
/// different groups, as the parts of a warp do that work on their own.
fn members(ctx: &mut Ctx, o: i32, mask: u32) -> Result<Option<u32>, Stop> {
    let named = *ctx.lanes::<u32>(o);
    let mut all = 0;
    for l in Bits(mask) {
        if named[l] >> l & 1 == 0 {
            let m = format!("lane {l} runs this but its mask 0x{:08x} does not name it", named[l]);
            return ctx.stop(Kind::BadOperand, Some(l), m);
        }
        all |= named[l];
    }
    Ok(ctx.meet(all, mask))
}

/// The groups that lanes name, those of `mask` alone.
fn groups(ctx: &mut Ctx, o: i32, mask: u32) -> impl Iterator<Item = u32> + use<> {
    let named = *ctx.lanes::<u32>(o);
    let mut left = mask;
    std::iter::from_fn(move || {
        let first = Bits(left).next()?;
        let group = Bits(left).filter(|l| named[*l] == named[first]).fold(0, |group, l| group | 1 << l);
        left &= !group;
        Some(group)
    })
}

/// Modes of [`shuffle`].
pub const SHUFFLE_MODES: [&str; 4] = ["idx", "up", "down", "bfly"];

/// `shfl.sync`: value `a`, lane `b`, clamp and segment `c`, members `e`; result `d`, predicate in the list, mode `imm`.
pub fn shuffle(ctx: &mut Ctx, op: &Op, mask: u32) -> Result<Flow, Stop> {
    let Some(mask) = members(ctx, op.e, mask)? else { return Ok(Flow::Retry) };
    let (value, lane, control) = (*ctx.lanes::<u32>(op.a), *ctx.lanes::<u32>(op.b), *ctx.lanes::<u32>(op.c));
    let named = *ctx.lanes::<u32>(op.e);
    let mut valid = 0u32;
    let mut from = [0usize; 32];
    for l in Bits(mask) {
        let (me, b, c) = (l as u32, lane[l] & 31, control[l]);
        let (clamp, segment) = (c & 31, c >> 8 & 31);
        let top = (me & segment) | (clamp & !segment);
        let bottom = me & segment;
        let (j, ok) = match op.imm {
            0 => {
                let j = bottom | (b & !segment);
                (j, j <= top)
            }
            1 => (me.wrapping_sub(b), me as i32 - b as i32 >= top as i32),
            2 => (me + b, me + b <= top),
            _ => (me ^ b, me ^ b <= top),
        };
        from[l] = if ok { j as usize & 31 } else { l };
        valid |= (ok as u32) << l;
        let members = mask & named[l];
        if members >> from[l] & 1 == 0 {
            let m = format!("a shuffle reads lane {}, which does not take part (members 0x{members:08x})", from[l]);
            return ctx.stop(Kind::BadOperand, Some(l), m);
        }
    }
    let d = ctx.lanes_mut::<u32>(op.d);
    for l in Bits(mask) {
        d[l] = value[from[l]];
    }
    let p = ctx.listed(op, 0);
    if p != NONE {
        // SAFETY: the decoder gave a predicate.
        unsafe { lanes::set_pred(ctx.regs, p, valid, mask) };
    }
    Ok(Flow::Next)
}

/// `vote.sync`: predicate `a` (negated where `x`), members `b`, result `d`; `imm`: 0 all, 1 any, 2 uni, 3 ballot.
pub fn vote(ctx: &mut Ctx, op: &Op, mask: u32) -> Result<Flow, Stop> {
    let Some(mask) = members(ctx, op.b, mask)? else { return Ok(Flow::Retry) };
    // SAFETY: the decoder gave predicates.
    let all = unsafe { lanes::pred(ctx.regs, op.a) } ^ if op.x != 0 { !0 } else { 0 };
    for mask in groups(ctx, op.b, mask) {
        let p = all & mask;
        let yes = match op.imm {
            0 => p == mask,
            1 => p != 0,
            2 => p == mask || p == 0,
            _ => {
                let d = ctx.lanes_mut::<u32>(op.d);
                Bits(mask).for_each(|l| d[l] = p);
                continue;
            }
        };
        // SAFETY: as above.
        unsafe { lanes::set_pred(ctx.regs, op.d, if yes { !0 } else { 0 }, mask) };
    }
    Ok(Flow::Next)
}

/// `match.sync`: value `a` of 4 or 8 bytes (`x`), members `b`, result `d`, predicate `c`; `imm`: 0 any, 1 all.
pub fn matching(ctx: &mut Ctx, op: &Op, mask: u32) -> Result<Flow, Stop> {
    let Some(mask) = members(ctx, op.b, mask)? else { return Ok(Flow::Retry) };
    let value: [u64; 32] = if op.x == 8 { *ctx.lanes::<u64>(op.a) } else { ctx.lanes::<u32>(op.a).map(u64::from) };
    for mask in groups(ctx, op.b, mask) {
        let same = |l: usize| Bits(mask).filter(|k| value[*k] == value[l]).fold(0u32, |m, k| m | 1 << k);
        let groups: [u32; 32] = std::array::from_fn(|l| if mask >> l & 1 == 1 { same(l) } else { 0 });
        let all = Bits(mask).all(|l| groups[l] == mask);
        let one = op.imm == 1;
        let d = ctx.lanes_mut::<u32>(op.d);
        for l in Bits(mask) {
            d[l] = match one {
                true if all => mask,
                true => 0,
                false => groups[l],
            };
        }
        if op.c != NONE {
            // SAFETY: the decoder gave a predicate.
            unsafe { lanes::set_pred(ctx.regs, op.c, if all { !0 } else { 0 }, mask) };
        }
    }
    Ok(Flow::Next)
}

/// Kinds of [`reduce`].
pub const REDUCTIONS: [&str; 6] = ["add", "min", "max", "and", "or", "xor"];

/// `redux.sync`: value `a`, members `b`, result `d`; `imm` is the kind, `x` whether it is signed.
pub fn reduce(ctx: &mut Ctx, op: &Op, mask: u32) -> Result<Flow, Stop> {
    let Some(mask) = members(ctx, op.b, mask)? else { return Ok(Flow::Retry) };
    let value = *ctx.lanes::<u32>(op.a);
    let signed = op.x != 0;
    let two = |a: u32, b: u32| match op.imm {
        0 => a.wrapping_add(b),
        1 if signed => (a as i32).min(b as i32) as u32,
        1 => a.min(b),
        2 if signed => (a as i32).max(b as i32) as u32,
        2 => a.max(b),
        3 => a & b,
        4 => a | b,
        _ => a ^ b,
    };
    for mask in groups(ctx, op.b, mask) {
        let r = Bits(mask).map(|l| value[l]).reduce(two).unwrap_or(0);
        let d = ctx.lanes_mut::<u32>(op.d);
        Bits(mask).for_each(|l| d[l] = r);
    }
    Ok(Flow::Next)
}

/// `activemask`: the lanes that run this together.
pub fn active(ctx: &mut Ctx, op: &Op, mask: u32) -> Result<Flow, Stop> {
    let d = ctx.lanes_mut::<u32>(op.d);
    Bits(mask).for_each(|l| d[l] = mask);
    Ok(Flow::Next)
}

/// `elect.sync`: members `b`, leader's lane `d`, whether it is this one `c`.
pub fn elect(ctx: &mut Ctx, op: &Op, mask: u32) -> Result<Flow, Stop> {
    let Some(mask) = members(ctx, op.b, mask)? else { return Ok(Flow::Retry) };
    for mask in groups(ctx, op.b, mask) {
        let leader = mask.trailing_zeros();
        if op.d != NONE {
            let d = ctx.lanes_mut::<u32>(op.d);
            Bits(mask).for_each(|l| d[l] = leader);
        }
        // SAFETY: the decoder gave a predicate.
        unsafe { lanes::set_pred(ctx.regs, op.c, 1 << leader, mask) };
    }
    Ok(Flow::Next)
}
