//! Pinned memory that the host writes while work that uses it waits in a queue. The host writes there without telling the
//! driver, so what the memory held is kept when the work is queued and compared when it runs.

use std::sync::atomic::Ordering::Relaxed;

use super::queue::{Copy, Op, Place};
use super::state::State;
use super::status::Code;
use crate::check::{Check, Kind};
use crate::device::arena::serial_of;
use crate::device::memory::Purpose;

/// Work that uses more pinned memory than this, in bytes, is not watched.
const MOST: u64 = 64 << 20;

/// Pinned memory at the moment when work with it was queued.
pub struct Before {
    /// Addresses, and what was there.
    ranges: Vec<(u64, Vec<u8>)>,
    /// Serial number that the next operation had.
    serial: u32,
    /// Host functions that had run: these may write too.
    functions: u64,
}

impl State {
    /// Whether an address is in pinned memory.
    pub(super) fn is_pinned(&self, at: u64) -> bool {
        self.machine.memory.at(at).is_some_and(|a| a.purpose == Purpose::Host)
    }

    /// What pinned memory holds that an operation may read: the source of a copy, the allocations that a kernel is given
    /// pointers into. `None` where there is none, or nothing checks it.
    pub(super) fn pinned_before(&self, op: &Op) -> Option<Before> {
        if !self.machine.settings.checks.has(Check::StreamRaces) {
            return None;
        }
        let ranges: Vec<(u64, u64)> = match op {
            Op::Copy(Copy { from: Place::Device(at), from_pitch, width, height, .. }) if self.is_pinned(*at) => {
                (0..*height).map(|row| (at + row * from_pitch, *width)).collect()
            }
            Op::Kernel { launch, .. } => {
                let words = launch.params.chunks_exact(8).map(|b| b.iter().rev().fold(0, |v, x| v << 8 | *x as u64));
                let mut held: Vec<(u64, u64)> = words
                    .filter_map(|v| self.machine.memory.at(v))
                    .filter(|a| a.purpose == Purpose::Host)
                    .map(|a| (a.base, a.size))
                    .collect();
                held.sort_unstable();
                held.dedup();
                held
            }
            _ => Vec::new(),
        };
        let total: u64 = ranges.iter().map(|r| r.1).sum();
        if total == 0 || total > MOST || !ranges.iter().all(|r| self.lives(r.0, r.1)) {
            return None;
        }
        // SAFETY: within live allocations.
        let held = |at: u64, n: u64| unsafe { std::slice::from_raw_parts(at as *const u8, n as usize) }.to_vec();
        let ranges = ranges.into_iter().map(|(at, n)| (at, held(at, n))).collect();
        Some(Before { ranges, serial: self.machine.memory.next_serial(), functions: self.functions_run })
    }

    fn lives(&self, at: u64, bytes: u64) -> bool {
        self.machine.memory.at(at).is_some_and(|a| bytes <= a.base + a.size - at)
    }

    /// Words of pinned memory that the host changed since: they differ, and no operation that ran wrote them.
    pub(super) fn changed_by_host(&self, before: Option<&Before>) -> Vec<u64> {
        let Some(b) = before.filter(|b| b.functions == self.functions_run) else { return Vec::new() };
        let mut out = Vec::new();
        for (at, old) in b.ranges.iter().filter(|(at, old)| self.lives(*at, old.len() as u64)) {
            // SAFETY: within a live allocation.
            let new = unsafe { std::slice::from_raw_parts(*at as *const u8, old.len()) };
            if old == new {
                continue;
            }
            let bytes = old.iter().zip(new).enumerate().filter(|(_, (x, y))| x != y);
            let mut words: Vec<u64> = bytes.map(|(i, _)| (at + i as u64) & !3).collect();
            words.dedup();
            words.retain(|w| serial_of(self.machine.memory.arena().cell(*w).writer.load(Relaxed)) < b.serial);
            out.extend(words);
        }
        out
    }

    /// Reports where the launch that ran last touched a word that the host changed before.
    pub(super) fn touched_by_last(&mut self, changed: &[u64]) -> Result<(), Code> {
        let Some(r) = self.machine.memory.records().next_back().cloned() else { return Ok(()) };
        let arena = self.machine.memory.arena();
        let own = |word: u64| serial_of(word).wrapping_sub(r.first) < r.count;
        let touched = |at: &&u64| {
            let cell = arena.cell(**at);
            own(cell.writer.load(Relaxed)) || own(cell.reader.load(Relaxed))
        };
        match changed.iter().find(touched) {
            Some(at) => self.too_early(&r.name, *at),
            None => Ok(()),
        }
    }

    /// Reports a write of the host to memory that queued work uses.
    pub(super) fn too_early(&mut self, name: &str, at: u64) -> Result<(), Code> {
        let near = self.machine.memory.near(at).0;
        let m = "the host wrote to pinned memory that queued work uses, before that had run".to_string();
        self.stop(Kind::StreamRace, name, m, at, near, None)
    }
}
