//! Global memory: where an access may go, and whether something orders it after the accesses before.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use super::access::Access;
use super::{Bits, Ctx, Stop};
use crate::check::{Check, Finding, Kind};
use crate::device::arena::{Cell, LAST_OP, MANY, STRONG, SWAP, bytes_of, epoch_of, pack, place_of, serial_of};
use crate::program::NOWHERE;

impl Ctx<'_> {
    /// Checks an access of `bytes` a lane to global memory and remembers it.
    pub fn global(&mut self, at: &[u64; 32], mask: u32, bytes: u32, access: Access) -> Result<(), Stop> {
        if self.env.counting {
            self.counters.global(at, mask, bytes);
        }
        let checks = self.env.checks;
        let low = if mask == !0 { at.iter().fold(0, |x, a| x | a) } else { Bits(mask).fold(0, |x, l| x | at[l]) };
        if low & (bytes as u64 - 1) != 0 && bytes.is_power_of_two() && checks.has(Check::Alignment) {
            return self.misaligned(at, mask, bytes, access);
        }
        self.global_bounds(at, mask, bytes, access)?;
        let arena = self.env.memory.arena();
        // Neighbours that lie side by side, which is what good kernels do, are checked as one range.
        let row = mask == !0
            && low & 3 == 0
            && bytes.is_multiple_of(4)
            && (0..32).all(|l| at[l] == at[0] + l as u64 * bytes as u64);
        if checks.has(Check::Uninitialised) && access.reads && !(row && arena.written(at[0], 32 * bytes)) {
            for l in Bits(mask) {
                if !arena.written(at[l], bytes) {
                    return self.unwritten(at[l], bytes, l);
                }
            }
        }
        if access.writes {
            // Also with the check off: copies may be checked later.
            if row { arena.mark(at[0], 32 * bytes) } else { Bits(mask).for_each(|l| arena.mark(at[l], bytes)) }
        }
        if checks.has(Check::GlobalRaces) || checks.has(Check::StreamRaces) {
            if row {
                return self.global_order(at[0], 32 * bytes, bytes, access, 0);
            }
            for l in Bits(mask) {
                self.global_order(at[l], bytes, bytes, access, l)?;
            }
        }
        Ok(())
    }

    fn global_bounds(&mut self, at: &[u64; 32], mask: u32, bytes: u32, access: Access) -> Result<(), Stop> {
        let (mut lo, mut hi) = (u64::MAX, 0u64);
        if mask == !0 {
            lo = at.iter().fold(lo, |x, a| x.min(*a));
            hi = at.iter().fold(hi, |x, a| x.max(*a));
        } else {
            for l in Bits(mask) {
                lo = lo.min(at[l]);
                hi = hi.max(at[l]);
            }
        }
        let (hot_lo, hot_hi) = self.block.hot;
        if lo >= hot_lo && hi.checked_add(bytes as u64).is_some_and(|e| e <= hot_hi) {
            return Ok(());
        }
        if !self.env.checks.has(Check::Bounds) {
            // Never outside of the reserved addresses, whatever is switched off.
            for l in Bits(mask) {
                if !self.env.memory.arena().holds(at[l], bytes as u64) {
                    return self.outside(at[l], bytes, l, access);
                }
            }
            return Ok(());
        }
        for l in Bits(mask) {
            let i = self.env.ranges.partition_point(|r| r.lo <= at[l]);
            let range = i.checked_sub(1).map(|i| self.env.ranges[i]);
            match range {
                Some(r) if at[l] < r.hi && bytes as u64 <= r.hi - at[l] => {
                    if access.writes && r.constant {
                        let mut f =
                            self.finding(Kind::ReadOnly, Some(l), format!("{} to constant memory", access.told(bytes)));
                        f.address = Some(at[l]);
                        f.near = Some(self.env.memory.near(at[l]).0);
                        return Err(Stop::Finding(Box::new(f)));
                    }
                    if !r.constant {
                        self.block.hot = (r.lo, r.hi);
                    }
                    // Other lanes are most often in the same allocation.
                    if lo >= r.lo && hi < r.hi && bytes as u64 <= r.hi - hi {
                        return Ok(());
                    }
                }
                _ => return self.outside(at[l], bytes, l, access),
            }
        }
        Ok(())
    }

    #[cold]
    fn outside<T>(&self, at: u64, bytes: u32, lane: usize, access: Access) -> Result<T, Stop> {
        let (near, freed) = self.env.memory.near(at);
        let kind = if freed { Kind::UseAfterFree } else { Kind::OutOfBounds };
        let what = if freed { "in memory that was freed" } else { "outside of every allocation" };
        let mut f = self.finding(kind, Some(lane), format!("{} {what}", access.told(bytes)));
        f.address = Some(at);
        f.near = Some(near);
        Err(Stop::Finding(Box::new(f)))
    }

    #[cold]
    pub(super) fn misaligned<T>(&self, at: &[u64; 32], mask: u32, bytes: u32, access: Access) -> Result<T, Stop> {
        let bad = |l: &usize| at[*l] & (bytes as u64 - 1) != 0;
        let lane = Bits(mask).find(bad).unwrap_or(0);
        let mut f = self.finding(Kind::Misaligned, Some(lane), format!("{} that is not aligned", access.told(bytes)));
        f.address = Some(at[lane]);
        if self.env.memory.arena().holds(at[lane], 1) {
            f.near = Some(self.env.memory.near(at[lane]).0);
        }
        Err(Stop::Finding(Box::new(f)))
    }

    #[cold]
    fn unwritten(&self, at: u64, bytes: u32, lane: usize) -> Result<(), Stop> {
        let first = self.env.memory.arena().first_unwritten(at, bytes as u64).unwrap_or(at);
        let message = format!("read of {bytes} bytes, of which nothing wrote byte {}", first - at);
        let mut f = self.finding(Kind::Uninitialised, Some(lane), message);
        f.address = Some(first);
        f.near = Some(self.env.memory.near(first).0);
        Err(Stop::Finding(Box::new(f)))
    }

    /// Checks the order of an access against the last write and, for a write, the reads of its words. `bytes` is of one
    /// lane, or of several that follow `lane`, each with `each` bytes.
    fn global_order(&mut self, at: u64, bytes: u32, each: u32, access: Access, lane: usize) -> Result<(), Stop> {
        let me = self.block.serial;
        let floor = self.env.floor;
        let arena = self.env.memory.arena();
        let end = at + bytes as u64;
        let mut word = at & !3;
        let whole = at & 3 == 0 && bytes & 3 == 0;
        let lane_of = |word: u64| lane + ((word - (at & !3)) / each as u64) as usize;
        while word < end {
            let cut = |a: u64| a.max(word).min(word + 4) - word;
            let touched = if whole { 15 } else { ((1u32 << cut(end)) - 1) & !((1u32 << cut(at)) - 1) };
            let cell = arena.cell(word);
            let mine = || pack(me, self.pc, self.w as u32, self.block.clock.epoch, touched, access.strong);
            // What this access does is noted before the others are looked at, so that of two blocks which run at the same
            // time at least one sees the other.
            let writer = if access.writes {
                cell.writer.swap(mine() | if access.swap { SWAP } else { 0 }, AcqRel)
            } else {
                self.note_read(cell, touched, mine());
                cell.writer.load(Acquire)
            };
            let ws = serial_of(writer);
            if ws >= floor
                && ws != me
                && bytes_of(writer) & touched != 0
                && !(access.strong && writer & STRONG != 0)
                && (writer & SWAP == 0 || access.writes)
                && !self.ordered(ws, epoch_of(writer))
            {
                return self.race(at.max(word), each, access, lane_of(word), writer, "wrote");
            }
            if access.writes {
                let reader = cell.reader.load(Relaxed);
                let rs = serial_of(reader);
                let others = rs != me || (reader & MANY != 0 && !self.env.kernel.synchronises);
                if rs >= floor
                    && others
                    && bytes_of(reader) & touched != 0
                    && !(access.strong && reader & STRONG != 0)
                    && !access.swap
                    && !self.ordered(rs, 0)
                {
                    return self.race(at.max(word), each, access, lane_of(word), reader, "read");
                }
            }
            word += 4;
        }
        Ok(())
    }

    /// Remembers a read: the first of this launch, and whether other blocks read the same bytes too. Of bytes that only some
    /// of several readers read nothing is remembered: none of them may be accused of writing what it alone has read.
    #[inline(always)]
    fn note_read(&self, cell: &Cell, touched: u32, mine: u64) {
        const BYTES: u64 = 15 << 1;
        let me = self.block.serial;
        let reader = cell.reader.load(Relaxed);
        let rs = serial_of(reader);
        if rs >= self.env.first_serial && rs != me {
            let both = bytes_of(reader) & touched;
            if reader & MANY == 0 && both != 0 {
                cell.reader.store(reader & !BYTES | MANY | (both as u64) << 1, Relaxed);
            }
        } else if rs < self.env.floor || rs != me {
            cell.reader.store(mine & !MANY, Relaxed);
        } else if reader & MANY == 0 && bytes_of(reader) & touched != touched {
            cell.reader.store(mine & !MANY | (bytes_of(reader) as u64) << 1, Relaxed);
        }
    }

    /// Whether what `serial` did in `epoch` comes before this access.
    fn ordered(&self, serial: u32, epoch: u32) -> bool {
        if serial >= self.env.first_serial {
            return !self.env.checks.has(Check::GlobalRaces)
                || (self.env.kernel.synchronises && self.block.clock.ordered(serial, epoch));
        }
        !self.env.checks.has(Check::StreamRaces)
            || !self.env.unordered.iter().any(|(lo, hi)| *lo <= serial && serial < *hi)
    }

    #[cold]
    fn race(&self, at: u64, bytes: u32, access: Access, lane: usize, other: u64, did: &str) -> Result<(), Stop> {
        let serial = serial_of(other);
        let own = serial >= self.env.first_serial;
        let (kind, what) = if own {
            (Kind::GlobalRace, format!("{} races with another block: nothing orders the two", access.told(bytes)))
        } else {
            (
                Kind::StreamRace,
                format!("{} races with an earlier operation: no wait orders the two", access.told(bytes)),
            )
        };
        let mut f = self.finding(kind, Some(lane), what);
        f.address = Some(at);
        f.near = Some(self.env.memory.near(at).0);
        f.last = Some(self.who(other, did));
        Err(Stop::Finding(Box::new(f)))
    }

    /// Whose word of a cell this is, in words.
    fn who(&self, word: u64, did: &str) -> String {
        let serial = serial_of(word);
        let (op, warp) = place_of(word);
        let op = if op == LAST_OP { NOWHERE } else { op };
        if let Some(linear) = serial.checked_sub(self.env.first_serial) {
            let g = self.env.job.grid;
            let id = [linear % g[0], linear / g[0] % g[1], linear / g[0] / g[1]];
            return format!("block ({}, {}, {}), warp {warp} {did} it at {}", id[0], id[1], id[2], self.line_of(op));
        }
        match self.env.memory.record_of(serial) {
            Some(r) => format!("{} on stream {} {did} it", r.name, r.stream),
            None => format!("an earlier operation {did} it"),
        }
    }

    /// Who wrote an address last, in words; `None` where that is not known.
    pub fn last_writer(&self, at: u64) -> Option<String> {
        let word = self.env.memory.arena().cell(at).writer.load(Relaxed);
        (word != 0).then(|| self.who(word, "wrote"))
    }
}

/// Adds who wrote last to a finding about an address of the arena.
pub(super) fn with_writer(ctx: &Ctx, mut f: Finding) -> Finding {
    if f.last.is_none()
        && let Some(a) = f.address
        && ctx.env.memory.arena().holds(a & !3, 4)
    {
        f.last = ctx.last_writer(a & !3);
    }
    f
}
