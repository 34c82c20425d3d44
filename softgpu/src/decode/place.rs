//! Gives registers and constants their places. Registers whose values are never alive together share one, so that the
//! registers of a warp stay in the cache; the most that are alive at once is the estimate of what hardware would need.

use std::collections::HashMap;

use super::builder::{Builder, Const, Draft};
use super::flow::{Block, blocks};
use crate::program::*;

/// Kernels with more operations × registers than this are placed without sharing (the analysis would take long).
const MAX_WORK: usize = 1 << 31;

/// First and last operation at which a register is alive.
#[derive(Clone, Copy)]
struct Interval {
    from: u32,
    to: u32,
}

pub(crate) fn place(mut b: Builder, name: &str) -> Kernel {
    let blocks = blocks(&b);
    let (intervals, pressure) = intervals(&b, &blocks);
    let (offsets, reg_bytes) = slots(&b.regs, &intervals);
    let (konst, konst_at, relocs) = constants(&b);
    let map = |o: i32| match o {
        NONE => NONE,
        o if o < 0 => !(konst_at[!o as usize] as i32),
        o => offsets[o as usize] as i32,
    };
    let mut lists = Vec::new();
    let mut ops = Vec::with_capacity(b.drafts.len());
    let mut meta = Vec::with_capacity(b.drafts.len());
    for d in b.drafts.drain(..) {
        let mut op = d.op;
        for f in [&mut op.guard, &mut op.d, &mut op.a, &mut op.b, &mut op.c, &mut op.e] {
            *f = map(*f);
        }
        op.l = lists.len() as u32;
        lists.extend(d.list.iter().map(|o| map(*o)));
        ops.push(op);
        meta.push(d.meta);
    }
    Kernel {
        name: name.to_string(),
        ops,
        meta,
        mems: b.mems,
        lists,
        tables: b.tables,
        reg_bytes: reg_bytes.max(64),
        konst,
        relocs,
        specials: b.specials.iter().map(|(s, w, r)| (*s, *w, offsets[*r as usize] as i32)).collect(),
        params: Vec::new(),
        param_bytes: 0,
        shared_bytes: b.shared_bytes,
        dynamic_at: b.shared_bytes.next_multiple_of(b.shared_align),
        local_bytes: b.local_bytes.next_multiple_of(16),
        registers: pressure,
        reqntid: None,
        maxntid: None,
        maxnreg: None,
        grain: b.grain,
        synchronises: b.synchronises,
    }
}

/// Calls `f` for every register that an operation reads (`false`) or writes (`true`).
fn visit(d: &Draft, mut f: impl FnMut(i32, bool)) {
    for (k, o) in [d.op.d, d.op.a, d.op.b, d.op.c, d.op.e].into_iter().enumerate() {
        if o >= 0 {
            f(o, d.writes >> k & 1 == 1);
        }
    }
    if d.op.guard >= 0 {
        f(d.op.guard, false);
    }
    for (k, o) in d.list.iter().enumerate() {
        if *o >= 0 {
            f(*o, k < d.list_writes);
        }
    }
}

/// Where each register is alive, and the most 32-bit hardware registers alive at once.
fn intervals(b: &Builder, blocks: &[Block]) -> (Vec<Option<Interval>>, u32) {
    let n = b.regs.len();
    let words = n.div_ceil(64);
    let mut out: Vec<Option<Interval>> = vec![None; n];
    if words * blocks.len() * 64 > MAX_WORK {
        return (vec![Some(Interval { from: 0, to: b.drafts.len() as u32 }); n], 0);
    }
    // Read before written in the block, and written for certain in it.
    let mut uses = vec![vec![0u64; words]; blocks.len()];
    let mut kills = vec![vec![0u64; words]; blocks.len()];
    for (k, block) in blocks.iter().enumerate() {
        for d in &b.drafts[block.first as usize..block.end as usize] {
            visit(d, |r, write| {
                let (w, bit) = (r as usize / 64, 1u64 << (r % 64));
                if !write && kills[k][w] & bit == 0 {
                    uses[k][w] |= bit;
                }
            });
            visit(d, |r, write| {
                let (w, bit) = (r as usize / 64, 1u64 << (r % 64));
                if write && d.op.guard == NONE {
                    kills[k][w] |= bit;
                } else if write && kills[k][w] & bit == 0 {
                    uses[k][w] |= bit;
                }
            });
        }
    }
    let mut live_in = uses.clone();
    let mut live_out = vec![vec![0u64; words]; blocks.len()];
    let mut changed = true;
    while changed {
        changed = false;
        for k in (0..blocks.len()).rev() {
            for w in 0..words {
                let out = blocks[k].next.iter().fold(0, |x, s| x | live_in[*s as usize][w]);
                let into = uses[k][w] | (out & !kills[k][w]);
                changed |= into != live_in[k][w];
                live_out[k][w] = out;
                live_in[k][w] = into;
            }
        }
    }
    let mut touch = |r: usize, at: u32| {
        let i = out[r].get_or_insert(Interval { from: at, to: at });
        i.from = i.from.min(at);
        i.to = i.to.max(at);
    };
    for (k, block) in blocks.iter().enumerate() {
        for w in 0..words {
            each_bit(live_in[k][w], |bit| touch(w * 64 + bit, block.first));
            each_bit(live_out[k][w], |bit| touch(w * 64 + bit, block.end));
        }
        for at in block.first..block.end {
            visit(&b.drafts[at as usize], |r, _| touch(r as usize, at));
        }
    }
    // Special registers are set before the first operation. A predicate constant reads what it overwrites.
    b.specials.iter().for_each(|(.., r)| touch(*r as usize, 0));
    (out, pressure(b, blocks, &live_out))
}

fn each_bit(mut bits: u64, mut f: impl FnMut(usize)) {
    while bits != 0 {
        f(bits.trailing_zeros() as usize);
        bits &= bits - 1;
    }
}

/// The most hardware registers alive at once. Special registers and addresses of parameters are not counted: hardware
/// reads them where they are needed.
fn pressure(b: &Builder, blocks: &[Block], live_out: &[Vec<u64>]) -> u32 {
    let mut cost: Vec<u32> = b.regs.iter().map(|w| w.hardware()).collect();
    b.specials.iter().for_each(|(.., r)| cost[*r as usize] = 0);
    let mut most = 0;
    for (k, block) in blocks.iter().enumerate() {
        let mut live = live_out[k].clone();
        let mut sum = 0;
        for (w, bits) in live.iter().enumerate() {
            each_bit(*bits, |bit| sum += cost[w * 64 + bit]);
        }
        most = most.max(sum);
        for d in b.drafts[block.first as usize..block.end as usize].iter().rev() {
            visit(d, |r, write| {
                let (w, bit) = (r as usize / 64, 1u64 << (r % 64));
                if write && d.op.guard == NONE && live[w] & bit != 0 {
                    live[w] &= !bit;
                    sum -= cost[r as usize];
                }
            });
            visit(d, |r, write| {
                let (w, bit) = (r as usize / 64, 1u64 << (r % 64));
                if !write && live[w] & bit == 0 {
                    live[w] |= bit;
                    sum += cost[r as usize];
                }
            });
            most = most.max(sum);
        }
    }
    most
}

/// Offsets of registers: a linear scan, one pool for each width.
fn slots(regs: &[Width], intervals: &[Option<Interval>]) -> (Vec<u32>, u32) {
    let mut order: Vec<u32> = (0..regs.len() as u32).filter(|r| intervals[*r as usize].is_some()).collect();
    order.sort_by_key(|r| intervals[*r as usize].map_or(0, |i| i.from));
    let mut offsets = vec![0u32; regs.len()];
    let mut free: HashMap<Width, Vec<u32>> = HashMap::new();
    let mut active: std::collections::BinaryHeap<std::cmp::Reverse<(u32, u32)>> = Default::default();
    let mut top = 0u32;
    for r in order {
        let Some(i) = intervals[r as usize] else { continue };
        while let Some(std::cmp::Reverse((to, old))) = active.peek().copied() {
            if to >= i.from {
                break;
            }
            active.pop();
            free.entry(regs[old as usize]).or_default().push(offsets[old as usize]);
        }
        let w = regs[r as usize];
        offsets[r as usize] = free.entry(w).or_default().pop().unwrap_or_else(|| {
            let at = if w == Width::Pred { top } else { top.next_multiple_of(64) };
            top = at + w.warp_bytes();
            at
        });
        active.push(std::cmp::Reverse((i.to, r)));
    }
    (offsets, top.next_multiple_of(64))
}

/// The constants laid out lane by lane, their offsets, and those that wait for the address of a variable.
fn constants(b: &Builder) -> (Vec<u8>, Vec<u32>, Vec<Reloc>) {
    let dynamic = b.shared_bytes.next_multiple_of(b.shared_align);
    let (mut bytes, mut at, mut relocs) = (Vec::new(), Vec::new(), Vec::new());
    for (w, c) in &b.consts {
        let offset = bytes.len() as u32;
        at.push(offset);
        let v = match c {
            Const::Bits(v) => *v,
            Const::DynamicShared(o) => (dynamic as i64).wrapping_add(*o) as u64,
            Const::Global(var, addend) => {
                relocs.push(Reloc { at: offset, var: *var, addend: *addend });
                0
            }
        };
        let one = [v.to_le_bytes(), [0; 8]].concat();
        for _ in 0..32 {
            bytes.extend_from_slice(&one[..w.bytes() as usize]);
        }
        bytes.resize(bytes.len().next_multiple_of(64), 0);
    }
    (bytes, at, relocs)
}
