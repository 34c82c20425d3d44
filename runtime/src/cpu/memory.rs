//! Memory of the CPU backend, and the one place where raw addresses become slices.
//!
//! [`Memory`] is an allocation. A [`Region`] is a tensor in one: an address with a dtype and a length, which a launch may
//! read or write. Slots, arena and workspaces live as long as the backend, so that regions are bound once, when the
//! backend is made. What keeps slices of regions apart is the plan, which the backend verifies before it binds anything:
//!
//! - a launch's results overlap neither each other nor its operands, but where its kernel may work in place;
//! - a kernel that works in place reads and writes the same elements in the same task, one after the other;
//! - tasks of one kernel write ranges that do not overlap.

use std::ops::Range;
use std::ptr::NonNull;

use memmap2::MmapMut;
use mngc_compiler::ir::DType;

use crate::error::{Error, Result};

/// From so many bytes on, large pages pay.
#[cfg(target_os = "linux")]
const HUGE: usize = 4 << 20;

/// Zero-initialised memory, aligned as plans ask for.
#[derive(Debug)]
pub struct Memory {
    map: MmapMut,
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: it is plain memory; who may touch which part when is the contract of `Region`'s slices.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// `bytes` zeros.
    pub fn zeroed(bytes: usize) -> Result<Memory> {
        // Pages are aligned more than enough, and are not there before they are touched.
        let mut map = MmapMut::map_anon(bytes.max(1)).map_err(|_| Error::OutOfMemory { bytes })?;
        #[cfg(target_os = "linux")]
        if bytes >= HUGE {
            // Products walk many rows at once: with small pages they wait for addresses. A wish, which may be refused.
            let _ = map.advise(memmap2::Advice::HugePage);
        }
        let start = NonNull::new(map.as_mut_ptr()).ok_or(Error::OutOfMemory { bytes })?;
        Ok(Memory { map, start, bytes })
    }

    /// Its size.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// `len` elements from a byte on; none where they leave the memory or are not aligned.
    pub fn region(&self, offset: usize, dtype: DType, len: usize) -> Option<Region> {
        let end = len.checked_mul(dtype.bytes())?.checked_add(offset)?;
        let fits = end <= self.bytes && offset.is_multiple_of(dtype.bytes());
        // SAFETY: the offset is within the allocation.
        fits.then(|| Region { start: unsafe { self.start.add(offset) }, dtype, len })
    }

    /// All of it as words.
    pub fn words(&mut self) -> &mut [u32] {
        bytemuck::cast_slice_mut(&mut self.map[..self.bytes / 4 * 4])
    }
}

/// What a region may hold.
pub trait Element: Copy + Default + Send + Sync + 'static {
    /// Whether elements of a dtype are stored as this type.
    fn stores(dtype: DType) -> bool;

    /// dst\[j, i\] = a\[i, j\], rows of either lying so far apart.
    fn transpose(dst: &mut [Self], dst_row: usize, a: &[Self], a_row: usize, [rows, columns]: [usize; 2]) {
        for j in 0..columns {
            for (i, to) in dst[j * dst_row..][..rows].iter_mut().enumerate() {
                *to = a[i * a_row + j];
            }
        }
    }
}

impl Element for f32 {
    fn stores(dtype: DType) -> bool {
        dtype == DType::F32
    }

    fn transpose(dst: &mut [f32], dst_row: usize, a: &[f32], a_row: usize, sizes: [usize; 2]) {
        super::gemm::transpose(dst, dst_row, a, a_row, sizes);
    }
}

impl Element for i32 {
    fn stores(dtype: DType) -> bool {
        dtype == DType::I32
    }
}

/// The bits of bf16 and f16.
impl Element for u16 {
    fn stores(dtype: DType) -> bool {
        matches!(dtype, DType::BF16 | DType::F16)
    }
}

/// 0 or 1.
impl Element for u8 {
    fn stores(dtype: DType) -> bool {
        dtype == DType::Bool
    }
}

/// A tensor in memory that outlives it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Region {
    start: NonNull<u8>,
    dtype: DType,
    len: usize,
}

// SAFETY: an address; its slices are handed out by unsafe functions.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// A slice of scratch memory, for code that works on regions.
    ///
    /// # Safety
    /// The slice outlives the region, and is not used beside it.
    pub unsafe fn of(values: &mut [f32]) -> Region {
        Region { start: NonNull::from(&mut *values).cast(), dtype: DType::F32, len: values.len() }
    }

    /// What it holds.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether both begin at the same byte.
    pub fn same_place(&self, other: &Region) -> bool {
        self.start == other.start
    }

    /// The address of an f32 element, for kernels that write parts of rows.
    pub fn address(&self, at: usize) -> *mut f32 {
        assert!(at <= self.len && self.dtype == DType::F32, "an element of f32 within the tensor");
        // SAFETY: within the tensor, or right behind it.
        unsafe { self.start.as_ptr().cast::<f32>().add(at) }
    }

    /// A part of it.
    pub fn part(&self, range: Range<usize>) -> Region {
        assert!(range.start <= range.end && range.end <= self.len, "a part within the tensor");
        // SAFETY: within the tensor.
        let start = unsafe { self.start.add(range.start * self.dtype.bytes()) };
        Region { start, dtype: self.dtype, len: range.len() }
    }

    /// Its elements.
    ///
    /// # Safety
    /// Its memory lives, and nobody writes to it while the slice is used.
    pub unsafe fn slice<'a, T: Element>(&self) -> &'a [T] {
        assert!(T::stores(self.dtype), "elements of {}", self.dtype);
        // SAFETY: `Memory::region` checked bounds and alignment; the rest is the caller's promise.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.len) }
    }

    /// Its elements, to be written.
    ///
    /// # Safety
    /// Its memory lives, and nobody else reads or writes it while the slice is used.
    pub unsafe fn slice_mut<'a, T: Element>(&self) -> &'a mut [T] {
        assert!(T::stores(self.dtype), "elements of {}", self.dtype);
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.len) }
    }

    /// Its bytes.
    ///
    /// # Safety
    /// As for [`Region::slice`].
    pub unsafe fn bytes<'a>(&self) -> &'a [u8] {
        // SAFETY: as above; any element is bytes.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len * self.dtype.bytes()) }
    }

    /// Its bytes, to be written.
    ///
    /// # Safety
    /// As for [`Region::slice_mut`].
    pub unsafe fn bytes_mut<'a>(&self) -> &'a mut [u8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len * self.dtype.bytes()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_stay_within_their_memory() {
        let memory = Memory::zeroed(10).unwrap();
        assert!(memory.region(0, DType::F32, 2).is_some());
        assert!(memory.region(0, DType::F32, 3).is_none());
        assert!(memory.region(2, DType::F32, 2).is_none(), "not aligned");
        assert!(memory.region(8, DType::Bool, 2).is_some());
        assert!(memory.region(4, DType::F32, usize::MAX).is_none());
    }

    #[test]
    fn memory_is_zero_and_kept() {
        let mut memory = Memory::zeroed(12).unwrap();
        assert_eq!(memory.words(), [0; 3]);
        let region = memory.region(4, DType::F32, 2).unwrap();
        // SAFETY: nobody else looks.
        unsafe { region.slice_mut::<f32>() }.copy_from_slice(&[1.0, 2.0]);
        // SAFETY: nobody writes.
        assert_eq!(unsafe { region.part(1..2).slice::<f32>() }, [2.0]);
        assert_eq!(memory.words()[1], 1f32.to_bits());
    }

    #[test]
    fn too_much_memory_is_an_error() {
        assert!(matches!(Memory::zeroed(usize::MAX), Err(Error::OutOfMemory { .. })));
    }
}
