//! Shared memory: bounds, and races between the warps of a block.
//!
//! For each grain (the smallest access of the kernel) a cell says which warp wrote it last and when, and which warps
//! read it since. Time is that of the block: it goes on at every synchronisation, and each warp knows until when what
//! each other warp did is ordered before it. An access that is later than that is a race.

use super::access::{Access, Places};
use super::{Bits, Ctx, Stop};
use crate::check::{Check, Kind};

/// What is known of a grain of shared memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct SharedCell {
    /// When it was written last; 0: by nothing in this block.
    write_time: u32,
    /// The operation that did.
    write_op: u32,
    /// When it was read last.
    read_time: u32,
    /// The operation that did.
    read_op: u32,
    /// Warps that read it at `read_time`, since the last write.
    readers: u32,
    /// The warp that wrote it.
    writer: u8,
    /// Atomics wrote it, or read it.
    strong: u8,
    /// An asynchronous copy of `writer` is on its way to it.
    pending: bool,
}

const STRONG_WRITE: u8 = 1;
const STRONG_READ: u8 = 2;
const SWAP: u8 = 4;

impl Ctx<'_> {
    /// Checks an access to shared memory and finds its places.
    pub fn shared_places(
        &mut self,
        at: &[u64; 32],
        mask: u32,
        bytes: u32,
        access: Access,
        out: &mut Places,
    ) -> Result<(), Stop> {
        if self.env.counting {
            self.counters.shared(at, mask, bytes);
        }
        let size = self.block.shared_bytes as u64;
        for l in Bits(mask) {
            if at[l] > size || bytes as u64 > size - at[l] {
                let mut f = self.finding(
                    Kind::OutOfBounds,
                    Some(l),
                    format!("{} outside of shared memory", access.told(bytes)),
                );
                f.address = Some(at[l]);
                f.near = Some(format!(
                    "the block has {size} bytes of shared memory, {} of them dynamic",
                    self.env.job.shared
                ));
                return Err(Stop::Finding(Box::new(f)));
            }
            if at[l] & (bytes as u64 - 1) != 0 && bytes.is_power_of_two() && self.checks(Check::Alignment) {
                return self.misaligned(at, mask, bytes, access);
            }
            // SAFETY: within the block's shared memory, by the bounds above.
            out[l] = unsafe { (self.block.shared.as_mut_ptr() as *mut u8).add(at[l] as usize) };
        }
        if !self.block.cells.is_empty() {
            for l in Bits(mask) {
                self.shared_cells(at[l] as u32, bytes, access, l)?;
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn shared_cells(&mut self, at: u32, bytes: u32, access: Access, lane: usize) -> Result<(), Stop> {
        let grain = self.env.kernel.grain;
        let shift = grain.trailing_zeros();
        let (first, last) = (at >> shift, (at + bytes - 1) >> shift);
        let (me, now, pc) = (self.w as u8, self.block.now, self.pc);
        let checks = self.env.checks;
        for i in first as usize..=last as usize {
            let c = self.block.cells[i];
            let seen = &self.block.warps[self.w].seen;
            if c.pending {
                if checks.has(Check::AsyncCopies) {
                    return self.shared_finding(Kind::AsyncCopy, i, lane, bytes, access);
                }
            } else if c.write_time == 0 {
                if access.reads && checks.has(Check::Uninitialised) {
                    return self.shared_finding(Kind::Uninitialised, i, lane, bytes, access);
                }
            } else if c.writer != me
                && c.write_time > seen[c.writer as usize]
                && !(access.strong && c.strong & STRONG_WRITE != 0)
                && (c.strong & SWAP == 0 || access.writes)
                && checks.has(Check::SharedRaces)
            {
                return self.shared_finding(Kind::SharedRace, i, lane, bytes, access);
            }
            let others = c.readers & !(1 << me);
            if access.writes {
                if others != 0
                    && !access.swap
                    && checks.has(Check::SharedRaces)
                    && !(access.strong && c.strong & STRONG_READ != 0)
                {
                    let unseen = Bits(others).any(|r| c.read_time > seen[r]);
                    if unseen {
                        return self.shared_finding(Kind::SharedRace, i, lane, bytes, access);
                    }
                }
                let strong = (access.strong as u8 * STRONG_WRITE) | (access.swap as u8 * SWAP);
                self.block.cells[i] =
                    SharedCell { write_time: now, write_op: pc, writer: me, strong, readers: 0, pending: false, ..c };
            } else {
                let strong = if access.strong { STRONG_READ } else { 0 };
                let cell = &mut self.block.cells[i];
                if c.read_time == now && c.readers != 0 {
                    cell.readers |= 1 << me;
                    cell.strong = c.strong & (STRONG_WRITE | SWAP | strong);
                } else {
                    // Readers of earlier times that nothing orders yet are forgotten: a race may go unseen where warps
                    // meet in changing groups, but none is invented.
                    cell.readers = 1 << me;
                    cell.strong = c.strong & (STRONG_WRITE | SWAP) | strong;
                }
                cell.read_time = now;
                cell.read_op = pc;
            }
        }
        Ok(())
    }

    /// Marks shared memory that an asynchronous copy of this warp is on its way to, or that it has reached.
    pub fn shared_pending(&mut self, at: u32, bytes: u32, lane: usize, arrived: bool) -> Result<(), Stop> {
        if self.block.cells.is_empty() {
            return Ok(());
        }
        if !arrived {
            // The copy writes at any time from now on: it must not race with what came before.
            self.shared_cells(at, bytes, Access::WRITE, lane)?;
        }
        let shift = self.env.kernel.grain.trailing_zeros();
        let now = self.block.now;
        for i in (at >> shift) as usize..=((at + bytes - 1) >> shift) as usize {
            let c = &mut self.block.cells[i];
            c.pending = !arrived;
            if arrived {
                c.write_time = now;
                c.writer = self.w as u8;
                c.readers = 0;
            }
        }
        Ok(())
    }

    #[cold]
    fn shared_finding(&self, kind: Kind, cell: usize, lane: usize, bytes: u32, access: Access) -> Result<(), Stop> {
        let c = self.block.cells[cell];
        let at = cell as u64 * self.env.kernel.grain as u64;
        let told = access.told(bytes);
        let message = match kind {
            Kind::Uninitialised => format!("{told} in shared memory, of which nothing wrote a part"),
            Kind::AsyncCopy => {
                format!("{told} in shared memory that an asynchronous copy is on its way to: its wait is missing")
            }
            _ => format!("{told} in shared memory races with another warp: no barrier is between the two"),
        };
        let mut f = self.finding(kind, Some(lane), message);
        f.address = Some(at);
        f.near = Some(format!("in {} bytes of shared memory", self.block.shared_bytes));
        f.last = match kind {
            Kind::Uninitialised => None,
            _ if c.pending => Some(format!("warp {} copies to it since {}", c.writer, self.line_of(c.write_op))),
            _ => {
                let seen = self.block.warps[self.w].seen;
                let by_write = c.write_time != 0 && c.writer != self.w as u8 && c.write_time > seen[c.writer as usize];
                Some(if by_write {
                    format!("warp {} wrote it at {}", c.writer, self.line_of(c.write_op))
                } else {
                    let r = (c.readers & !(1 << self.w)).trailing_zeros();
                    format!("warp {r} read it at {}", self.line_of(c.read_op))
                })
            }
        };
        Err(Stop::Finding(Box::new(f)))
    }
}
