//! The address space of device memory, with what the checks remember of every byte.
//!
//! One range of the host's addresses is reserved for all devices; device addresses are host addresses within it. Beside
//! it lie a bit for every byte (was it ever written) and a cell for every four bytes (who wrote and who read last).
//! The system gives pages only where something is touched.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

/// The size of a page for our purposes.
pub const PAGE: u64 = 4096;

/// Who touched four bytes last. See [`pack`].
#[repr(C)]
pub struct Cell {
    /// The last write.
    pub writer: AtomicU64,
    /// The first read since, by this launch.
    pub reader: AtomicU64,
}

/// In a cell's reader: more than one block read.
pub const MANY: u64 = 1 << 5;
/// In a cell: the access was atomic or otherwise strong.
pub const STRONG: u64 = 1;

/// In a cell: the write was a compare-and-swap, which a plain read may precede.
pub const SWAP: u64 = 1 << 16;

/// In a cell: this operation or a later one of the kernel, or none of a kernel.
pub const LAST_OP: u32 = 0x7fff;

/// A cell's word: serial number of the block (or copy), operation, warp, epoch, the bytes touched, whether strong.
#[inline(always)]
pub fn pack(serial: u32, op: u32, warp: u32, epoch: u32, bytes: u32, strong: bool) -> u64 {
    (serial as u64) << 32
        | (op.min(LAST_OP) as u64) << 17
        | ((warp & 31) as u64) << 11
        | (epoch.min(63) as u64) << 5
        | (bytes as u64) << 1
        | strong as u64
}

/// The serial number in a cell's word.
#[inline(always)]
pub fn serial_of(word: u64) -> u32 {
    (word >> 32) as u32
}

/// The operation and warp in a cell's word.
pub fn place_of(word: u64) -> (u32, u32) {
    ((word >> 17) as u32 & LAST_OP, (word >> 11) as u32 & 31)
}

/// The epoch in a cell's word.
pub fn epoch_of(word: u64) -> u32 {
    (word >> 5) as u32 & 63
}

/// The touched bytes in a cell's word.
#[inline(always)]
pub fn bytes_of(word: u64) -> u32 {
    (word >> 1) as u32 & 15
}

/// The reserved address range.
pub struct Arena {
    base: u64,
    size: u64,
    init: *mut u8,
    cells: *mut Cell,
}

// SAFETY: the pointers are to mappings that live as long as the arena and are only used through atomics, or for data
// whose races are the kernel's own.
unsafe impl Send for Arena {}
unsafe impl Sync for Arena {}

/// A range of addresses that could not be reserved.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the system gives no address space for device memory")]
pub struct NoAddressSpace;

fn reserve(size: u64) -> Option<*mut u8> {
    // SAFETY: an anonymous private mapping at an address that the system chooses.
    let p = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            size as usize,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    (p != libc::MAP_FAILED).then_some(p as *mut u8)
}

fn release(p: *mut u8, size: u64) {
    // SAFETY: a mapping of `reserve`, not used any more.
    unsafe { libc::munmap(p as *mut libc::c_void, size as usize) };
}

impl Arena {
    /// Reserves `size` bytes, or as many as the system gives, at least 1 GiB.
    ///
    /// # Errors
    /// [`NoAddressSpace`] where even that is refused.
    pub fn new(size: u64) -> Result<Arena, NoAddressSpace> {
        let mut size = size.next_multiple_of(1 << 30);
        while size >= 1 << 30 {
            if let Some(data) = reserve(size) {
                if let Some(init) = reserve(size / 8) {
                    if let Some(cells) = reserve(size * 4) {
                        return Ok(Arena { base: data as u64, size, init, cells: cells as *mut Cell });
                    }
                    release(init, size / 8);
                }
                release(data, size);
            }
            size /= 2;
        }
        Err(NoAddressSpace)
    }

    /// Its first address.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether `bytes` from `at` on lie in it.
    #[inline(always)]
    pub fn holds(&self, at: u64, bytes: u64) -> bool {
        let o = at.wrapping_sub(self.base);
        o < self.size && bytes <= self.size - o
    }

    /// The cell of the four bytes at an address within the arena.
    #[inline(always)]
    pub fn cell(&self, at: u64) -> &Cell {
        debug_assert!(self.holds(at, 1));
        // SAFETY: there is a cell for every four bytes of the arena, and zeroed memory is a valid cell.
        unsafe { &*self.cells.add(((at - self.base) >> 2) as usize) }
    }

    #[inline(always)]
    fn init_byte(&self, at: u64) -> &AtomicU8 {
        debug_assert!(self.holds(at, 1));
        // SAFETY: there is a bit for every byte of the arena.
        unsafe { &*(self.init.add(((at - self.base) >> 3) as usize) as *const AtomicU8) }
    }

    /// Whether all `bytes` from `at` on were written; both within the arena.
    #[inline(always)]
    pub fn written(&self, at: u64, bytes: u32) -> bool {
        let (mut at, mut left) = (at, bytes);
        while left != 0 {
            if at & 63 == 0 && left >= 64 {
                // SAFETY: 8 bytes of the bitmap, aligned.
                let word = unsafe { &*(self.init.add(((at - self.base) >> 3) as usize) as *const AtomicU64) };
                if word.load(Relaxed) != !0 {
                    return false;
                }
                at += 64;
                left -= 64;
                continue;
            }
            let shift = (at & 7) as u32;
            let n = left.min(8 - shift);
            let mask = (((1u32 << n) - 1) << shift) as u8;
            if self.init_byte(at).load(Relaxed) & mask != mask {
                return false;
            }
            at += n as u64;
            left -= n;
        }
        true
    }

    /// The first of `bytes` from `at` on that nothing wrote.
    pub fn first_unwritten(&self, at: u64, bytes: u64) -> Option<u64> {
        let mut a = at;
        while a < at + bytes {
            if a & 7 == 0 && a + 8 <= at + bytes && self.init_byte(a).load(Relaxed) == 0xff {
                a += 8;
            } else if self.written(a, 1) {
                a += 1;
            } else {
                return Some(a);
            }
        }
        None
    }

    /// Remembers that `bytes` from `at` on were written.
    #[inline(always)]
    pub fn mark(&self, at: u64, bytes: u32) {
        let (mut at, mut left) = (at, bytes);
        while left != 0 {
            let shift = (at & 7) as u32;
            let n = left.min(8 - shift);
            let mask = (((1u32 << n) - 1) << shift) as u8;
            let cell = self.init_byte(at);
            if cell.load(Relaxed) & mask != mask {
                cell.fetch_or(mask, Relaxed);
            }
            at += n as u64;
            left -= n;
        }
    }

    /// [`Arena::mark`] for long ranges.
    pub fn mark_range(&self, at: u64, bytes: u64) {
        let end = at + bytes;
        let (a, b) = (at.next_multiple_of(8).min(end), (end & !7).max(at));
        if a < b {
            self.mark(at, (a - at) as u32);
            // SAFETY: the bits of [a, b), whole bytes of the bitmap.
            unsafe {
                std::ptr::write_bytes(self.init.add(((a - self.base) >> 3) as usize), 0xff, ((b - a) >> 3) as usize)
            };
            self.mark(b, (end - b) as u32);
        } else {
            self.mark(at, bytes as u32);
        }
    }

    /// Copies what is known of written bytes from one range to another.
    pub fn copy_marks(&self, from: u64, to: u64, bytes: u64) {
        if self.first_unwritten(from, bytes).is_none() {
            return self.mark_range(to, bytes);
        }
        for i in 0..bytes {
            let cell = self.init_byte(to + i);
            let bit = 1u8 << ((to + i) & 7);
            if self.written(from + i, 1) {
                cell.fetch_or(bit, Relaxed);
            } else {
                cell.fetch_and(!bit, Relaxed);
            }
        }
    }

    /// Gives the pages of a range of whole pages back, with all that is remembered of them.
    pub fn forget(&self, at: u64, bytes: u64) {
        debug_assert!(at.is_multiple_of(PAGE) && bytes.is_multiple_of(PAGE));
        let o = at - self.base;
        let drop = |p: *mut u8, from: u64, size: u64| {
            let (a, b) = (from.next_multiple_of(PAGE).min(from + size), (from + size) & !(PAGE - 1));
            // SAFETY: ranges of our own mappings; whole pages read as zeros after.
            unsafe {
                if a < b {
                    libc::madvise(p.add(a as usize) as *mut libc::c_void, (b - a) as usize, libc::MADV_DONTNEED);
                    std::ptr::write_bytes(p.add(from as usize), 0, (a - from) as usize);
                    std::ptr::write_bytes(p.add(b as usize), 0, (from + size - b) as usize);
                } else {
                    std::ptr::write_bytes(p.add(from as usize), 0, size as usize);
                }
            }
        };
        drop(self.base as *mut u8, o, bytes);
        drop(self.init, o / 8, bytes / 8);
        drop(self.cells as *mut u8, o * 4, bytes * 4);
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        release(self.base as *mut u8, self.size);
        release(self.init, self.size / 8);
        release(self.cells as *mut u8, self.size * 4);
    }
}
