//! Allocations of device and pinned memory, and who may have touched them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::arena::{Arena, NoAddressSpace, PAGE};

/// Freed allocations that are remembered, to tell a use after free from other strays.
const REMEMBERED: usize = 4096;
/// Launches and copies that are remembered by name.
const RECORDS: usize = 65536;

/// What an allocation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Device memory.
    Device,
    /// Pinned host memory.
    Host,
    /// A variable of a module.
    Variable,
    /// Constant memory.
    Constant,
}

/// One allocation.
#[derive(Clone, Debug)]
pub struct Allocation {
    /// Its address.
    pub base: u64,
    /// Its size in bytes, as asked for.
    pub size: u64,
    /// Its number, counted from 1.
    pub number: u64,
    /// What it is for.
    pub purpose: Purpose,
    /// The device that it counts against.
    pub device: u32,
    /// The variable's name, for one.
    pub name: Option<String>,
}

impl Allocation {
    /// How it is told in findings.
    pub fn describe(&self) -> String {
        let what = match self.purpose {
            Purpose::Device => "allocation",
            Purpose::Host => "pinned host allocation",
            Purpose::Variable => "variable",
            Purpose::Constant => "constant variable",
        };
        let name = self.name.as_ref().map_or(format!("#{}", self.number), Clone::clone);
        format!("{what} {name} of {} bytes at 0x{:x}", self.size, self.base)
    }
}

/// A live range as launches see it.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// First address.
    pub lo: u64,
    /// One past the last.
    pub hi: u64,
    /// Not writable by kernels.
    pub constant: bool,
}

/// A launch or copy that has run, by the serial numbers of its blocks.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its first serial number.
    pub first: u32,
    /// How many it has.
    pub count: u32,
    /// The kernel, or what kind of copy.
    pub name: Arc<str>,
    /// Grid of a kernel; `None` for copies.
    pub grid: Option<[u32; 3]>,
    /// PTX lines of the kernel's operations.
    pub lines: Option<Arc<Vec<u32>>>,
    /// The stream's number, 0 for the host.
    pub stream: u32,
    /// Its place in that stream.
    pub clock: u64,
}

/// Memory of all devices of the process.
pub struct Memory {
    arena: Arena,
    live: BTreeMap<u64, Allocation>,
    freed: VecDeque<Allocation>,
    next: u64,
    count: u64,
    used: Vec<u64>,
    ranges: Option<Arc<Vec<Range>>>,
    serial: u32,
    records: VecDeque<Record>,
}

/// An allocation that could not be made.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("out of device memory")]
pub struct OutOfMemory;

impl Memory {
    /// Memory with an address space of `size` bytes.
    ///
    /// # Errors
    /// [`NoAddressSpace`] where the system refuses the addresses.
    pub fn new(size: u64) -> Result<Memory, NoAddressSpace> {
        let arena = Arena::new(size)?;
        let next = arena.base().next_multiple_of(1 << 21);
        Ok(Memory {
            arena,
            live: BTreeMap::new(),
            freed: VecDeque::new(),
            next,
            count: 0,
            used: Vec::new(),
            ranges: None,
            serial: 1,
            records: VecDeque::new(),
        })
    }

    /// The address space.
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// Bytes allocated on a device.
    pub fn used(&self, device: u32) -> u64 {
        self.used.get(device as usize).copied().unwrap_or(0)
    }

    /// Allocates `size` bytes, of which nothing is written, counted against `limit` bytes of the device.
    ///
    /// # Errors
    /// [`OutOfMemory`] where the device or the address space has no room.
    pub fn allocate(
        &mut self,
        device: u32,
        size: u64,
        limit: u64,
        purpose: Purpose,
        name: Option<String>,
    ) -> Result<u64, OutOfMemory> {
        let d = device as usize;
        self.used.resize(self.used.len().max(d + 1), 0);
        let counted = if purpose == Purpose::Host { 0 } else { size };
        if counted > limit.saturating_sub(self.used[d]) || size > self.arena.size() {
            return Err(OutOfMemory);
        }
        // A page that belongs to no one lies between allocations.
        let span = size.max(1).next_multiple_of(PAGE) + PAGE;
        let base = self.find(span).ok_or(OutOfMemory)?;
        self.arena.forget(base, span - PAGE);
        self.count += 1;
        self.used[d] += counted;
        self.live.insert(base, Allocation { base, size, number: self.count, purpose, device, name });
        self.ranges = None;
        Ok(base)
    }

    /// Addresses that were not used lately, so that stale pointers find nothing.
    fn find(&mut self, span: u64) -> Option<u64> {
        let end = self.arena.base() + self.arena.size();
        if span <= end - self.next {
            let at = self.next;
            self.next += span;
            return Some(at);
        }
        let mut from = self.arena.base().next_multiple_of(PAGE);
        for a in self.live.values() {
            if a.base.saturating_sub(from) >= span {
                return Some(from);
            }
            from = (a.base + a.size.max(1)).next_multiple_of(PAGE) + PAGE;
        }
        (end.saturating_sub(from) >= span).then_some(from)
    }

    /// Frees the allocation at `base`; `None` where there is none of these purposes.
    pub fn free(&mut self, base: u64, purposes: &[Purpose]) -> Option<Allocation> {
        if !self.live.get(&base).is_some_and(|a| purposes.contains(&a.purpose)) {
            return None;
        }
        let a = self.live.remove(&base)?;
        if a.purpose != Purpose::Host {
            self.used[a.device as usize] -= a.size;
        }
        self.arena.forget(base, a.size.max(1).next_multiple_of(PAGE));
        self.freed.push_back(a.clone());
        if self.freed.len() > REMEMBERED {
            self.freed.pop_front();
        }
        self.ranges = None;
        Some(a)
    }

    /// The live allocation that holds an address.
    pub fn at(&self, address: u64) -> Option<&Allocation> {
        let (_, a) = self.live.range(..=address).next_back()?;
        (address - a.base < a.size.max(1)).then_some(a)
    }

    /// The live ranges, sorted.
    pub fn ranges(&mut self) -> Arc<Vec<Range>> {
        let live = &self.live;
        let fresh = || {
            let range =
                |a: &Allocation| Range { lo: a.base, hi: a.base + a.size, constant: a.purpose == Purpose::Constant };
            Arc::new(live.values().map(range).collect())
        };
        self.ranges.get_or_insert_with(fresh).clone()
    }

    /// The allocation near an address in words, and whether the address lies in one that was freed.
    pub fn near(&self, address: u64) -> (String, bool) {
        if let Some(a) = self.at(address) {
            return (format!("{} bytes into {}", address - a.base, a.describe()), false);
        }
        let gone = self.freed.iter().rev().find(|a| address.wrapping_sub(a.base) < a.size.max(1));
        if let Some(a) = gone {
            return (format!("{} bytes into {}, which was freed", address - a.base, a.describe()), true);
        }
        let below = self.live.range(..=address).next_back().map(|(_, a)| (address - (a.base + a.size), a, "after"));
        let above = self.live.range(address..).next().map(|(_, a)| (a.base - address, a, "before"));
        let nearest = [below, above].into_iter().flatten().min_by_key(|(d, ..)| *d);
        match nearest {
            Some((d, a, side)) => (format!("{d} bytes {side} {}", a.describe()), false),
            None => ("nothing is allocated".to_string(), false),
        }
    }

    /// Hands out serial numbers for the blocks of a launch (or one for a copy) and remembers whose they are.
    pub fn record(&mut self, mut r: Record) -> u32 {
        if self.serial.checked_add(r.count).is_none() {
            // After four thousand million blocks the numbers start anew; what is known of old accesses is dropped.
            let spans: Vec<(u64, u64)> = self.live.values().map(|a| (a.base, a.size)).collect();
            for (base, size) in spans {
                for at in (base..base + size).step_by(4) {
                    let c = self.arena.cell(at);
                    c.writer.store(0, std::sync::atomic::Ordering::Relaxed);
                    c.reader.store(0, std::sync::atomic::Ordering::Relaxed);
                }
            }
            self.records.clear();
            self.serial = 1;
        }
        r.first = self.serial;
        self.serial += r.count;
        self.records.push_back(r);
        if self.records.len() > RECORDS {
            self.records.pop_front();
        }
        self.serial - self.records.back().map_or(0, |r| r.count)
    }

    /// The serial number that the next record has.
    pub fn next_serial(&self) -> u32 {
        self.serial
    }

    /// Whose a serial number is.
    pub fn record_of(&self, serial: u32) -> Option<&Record> {
        let i = self.records.partition_point(|r| r.first <= serial).checked_sub(1)?;
        self.records.get(i).filter(|r| serial - r.first < r.count)
    }

    /// The records, oldest first.
    pub fn records(&self) -> impl DoubleEndedIterator<Item = &Record> {
        self.records.iter()
    }
}
