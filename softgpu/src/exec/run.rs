//! The inner loop: operations of one path of one warp.

use super::block::Block;
use super::lanes;
use super::stats::Counters;
use super::warp::Wait;
use super::{Ctx, Env, Flow, Stop};
use crate::program::{NONE, NOWHERE, Run};

/// How a turn of a warp ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It can go on.
    Ready,
    /// It seems to spin, waiting for other warps.
    Spinning,
    /// All its paths wait.
    Waiting,
    /// All its threads have ended.
    Done,
}

/// Runs warp `w` for at most `quantum` operations.
pub fn turn<const COUNT: bool>(
    env: &Env,
    block: &mut Block,
    w: usize,
    quantum: u32,
    counters: &mut Counters,
) -> Result<Turn, Stop> {
    let ops = env.kernel.ops.as_slice();
    let konst = env.job.konst.as_ptr() as *const u8;
    let warp = &mut block.warps[w];
    if warp.done() {
        return Ok(Turn::Done);
    }
    let regs = warp.regs.as_mut_ptr() as *mut u8;
    // Diverged paths take turns.
    if !warp.turn() {
        return Ok(Turn::Waiting);
    }
    let mut n = warp.current;
    let mut node = warp.nodes[n];
    let mut left = quantum;
    loop {
        if node.pc == node.meet {
            block.warps[w].nodes[n] = node;
            if !block.warps[w].retire(n) {
                return Ok(if block.warps[w].done() { Turn::Done } else { Turn::Waiting });
            }
            n = block.warps[w].current;
            node = block.warps[w].nodes[n];
            continue;
        }
        if left == 0 {
            block.warps[w].nodes[n] = node;
            counters.steps += quantum as u64;
            return Ok(Turn::Ready);
        }
        left -= 1;
        let pc = node.pc as usize;
        let op = &ops[pc];
        // SAFETY: operands come from the decoder, which gave them their places in this warp's registers.
        let mask =
            if op.guard == NONE { node.mask } else { node.mask & (unsafe { lanes::pred(regs, op.guard) } ^ op.flip) };
        if COUNT {
            counters.lanes[pc] += mask.count_ones() as u64;
            counters.warps[pc] += 1;
        }
        match op.run {
            Run::Alu(f) => {
                if mask != 0 {
                    // SAFETY: as above.
                    unsafe { f(regs, konst, op, mask) };
                }
                node.pc += 1;
            }
            Run::Sys(f) => {
                if mask == 0 {
                    node.pc += 1;
                    continue;
                }
                block.warps[w].nodes[n] = node;
                let mut ctx = Ctx { env, block, w, regs, konst, pc: node.pc, node: n, counters };
                let flow = f(&mut ctx, op, mask)?;
                match flow {
                    Flow::Next => {
                        // Other paths may have joined this one.
                        node.mask = block.warps[w].nodes[n].mask;
                        node.pc += 1;
                    }
                    Flow::Yield => {
                        block.warps[w].nodes[n].pc += 1;
                        counters.steps += (quantum - left) as u64;
                        return Ok(Turn::Spinning);
                    }
                    Flow::Park | Flow::Retry => {
                        if flow == Flow::Park {
                            block.warps[w].nodes[n].pc += 1;
                        }
                        if !block.warps[w].turn() {
                            counters.steps += (quantum - left) as u64;
                            return Ok(Turn::Waiting);
                        }
                        n = block.warps[w].current;
                        node = block.warps[w].nodes[n];
                    }
                }
            }
            Run::Branch => {
                if mask == node.mask {
                    if op.x == node.pc {
                        // A loop of nothing, which no one can end: what a compiler makes of waiting for a plain read.
                        block.warps[w].nodes[n] = node;
                        Ctx { env, block, w, regs, konst, pc: node.pc, node: n, counters }.poll();
                        return Ok(Turn::Spinning);
                    }
                    node.pc = op.x;
                } else if mask == 0 {
                    node.pc += 1;
                } else {
                    let (taken, other) = ((op.x, mask), (node.pc + 1, node.mask & !mask));
                    block.warps[w].nodes[n] = node;
                    n = block.warps[w].split(n, taken, other, op.imm as u32);
                    block.warps[w].current = n;
                    node = block.warps[w].nodes[n];
                }
            }
            Run::BranchIndex => {
                block.warps[w].nodes[n] = node;
                let index = unsafe { &*lanes::at::<u32>(regs, konst, op.a) };
                n = indexed(env, block, w, n, index, op.x as usize, op.imm as u32);
                node = block.warps[w].nodes[n];
            }
            Run::Exit => {
                block.threads -= mask.count_ones();
                let warp = &mut block.warps[w];
                warp.live &= !mask;
                node.mask &= !mask;
                node.pc += 1;
                warp.nodes[n] = node;
                // Who waits for these lanes waits no longer.
                for other in warp.nodes.iter_mut().filter(|o| matches!(o.wait, Wait::Lanes(_))) {
                    other.wait = Wait::None;
                }
                env.progress.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let more = node.mask != 0 || warp.retire(n);
                block.recheck_barriers();
                if !more {
                    let warp = &mut block.warps[w];
                    counters.steps += (quantum - left) as u64;
                    return Ok(if warp.done() { Turn::Done } else { Turn::Waiting });
                }
                n = block.warps[w].current;
                node = block.warps[w].nodes[n];
            }
            Run::Nop => node.pc += 1,
        }
    }
}

/// A branch through a table: one path for each target that a lane takes. Indices beyond the table take the last target.
fn indexed(env: &Env, block: &mut Block, w: usize, n: usize, index: &[u32; 32], table: usize, meet: u32) -> usize {
    let targets = &env.kernel.tables[table];
    let node = block.warps[w].nodes[n];
    let mut rest = node.mask;
    let mut at = n;
    while rest != 0 {
        let target = |l: usize| targets[(index[l] as usize).min(targets.len() - 1)];
        let pc = target(rest.trailing_zeros() as usize);
        let same = super::Bits(rest).filter(|l| target(*l) == pc).fold(0, |m, l| m | 1u32 << l);
        rest &= !same;
        if rest == 0 {
            block.warps[w].nodes[at].pc = pc;
            block.warps[w].nodes[at].mask = same;
        } else {
            // The second path holds what is left; it is split further on.
            let first = block.warps[w].split(at, (NOWHERE - 1, rest), (pc, same), meet);
            at = first;
        }
    }
    block.warps[w].current = at;
    at
}
