//! Memory of a device, and pinned memory of the host.

use std::ffi::c_void;

use cudarc::driver::sys;

use super::driver::{Stream, check};
use super::error::CudaError;

type Result<T> = std::result::Result<T, CudaError>;

/// What is written over memory whose contents have no meaning any more: NaN in every float dtype.
const POISON: u8 = 0xff;

/// An allocation on the device, at a multiple of 256 bytes.
#[derive(Debug)]
pub struct Memory {
    address: sys::CUdeviceptr,
    bytes: usize,
}

impl Memory {
    /// Memory whose contents are undefined. None of 0 bytes is ever asked for from the driver.
    pub fn new(bytes: usize) -> Result<Memory> {
        let mut address = 0;
        if bytes > 0 {
            // SAFETY: a context is current.
            let answer = unsafe { sys::cuMemAlloc_v2(&mut address, bytes) };
            check(&format!("allocating {bytes} bytes"), answer)?;
        }
        Ok(Memory { address, bytes })
    }

    /// Memory full of zeros.
    pub fn zeroed(bytes: usize) -> Result<Memory> {
        let memory = Memory::new(bytes)?;
        if bytes > 0 {
            // In a stream of its own, which the host waits for: other streams do not wait for the default one.
            let stream = Stream::new()?;
            // SAFETY: the memory is ours.
            check("cuMemsetD8Async", unsafe { sys::cuMemsetD8Async(memory.address, 0, bytes, stream.0) })?;
            stream.wait("clearing memory")?;
        }
        Ok(memory)
    }

    /// Where it begins.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Its size.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Copies bytes of the host to its start, and waits.
    pub fn write(&self, bytes: &[u8]) -> Result<()> {
        debug_assert!(bytes.len() <= self.bytes);
        if bytes.is_empty() {
            return Ok(());
        }
        // A plain copy from memory that is not pinned may return before the device has all of it, and other streams do not
        // wait for it: so in a stream of its own.
        let stream = Stream::new()?;
        let (from, count) = (bytes.as_ptr().cast(), bytes.len());
        // SAFETY: it has room for them, and they live until the stream has been waited for.
        check("cuMemcpyHtoDAsync", unsafe { sys::cuMemcpyHtoDAsync_v2(self.address, from, count, stream.0) })?;
        stream.wait("a copy to the device")
    }

    /// All of it for the host.
    pub fn read(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.bytes];
        if self.bytes > 0 {
            // SAFETY: there is room for all of it.
            let answer = unsafe { sys::cuMemcpyDtoH_v2(bytes.as_mut_ptr().cast(), self.address, self.bytes) };
            check("cuMemcpyDtoH", answer)?;
        }
        Ok(bytes)
    }

    /// Queues writing nonsense over it.
    pub fn poison(&self, stream: &Stream) -> Result<()> {
        if self.bytes == 0 {
            return Ok(());
        }
        // SAFETY: the memory is ours.
        check("cuMemsetD8Async", unsafe { sys::cuMemsetD8Async(self.address, POISON, self.bytes, stream.0) })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.bytes > 0 {
            // SAFETY: allocated by `new`.
            unsafe { sys::cuMemFree_v2(self.address) };
        }
    }
}

/// Pinned memory of the host, which devices copy from and to on their own.
#[derive(Debug)]
pub struct Pinned {
    start: *mut u8,
    bytes: usize,
}

impl Pinned {
    /// Memory full of zeros.
    pub fn new(bytes: usize) -> Result<Pinned> {
        let mut start: *mut c_void = std::ptr::null_mut();
        let bytes = bytes.max(1);
        // SAFETY: a context is current.
        check("cuMemHostAlloc", unsafe { sys::cuMemHostAlloc(&mut start, bytes, 0) })?;
        let start = start.cast::<u8>();
        // SAFETY: it has that size.
        unsafe { start.write_bytes(0, bytes) };
        Ok(Pinned { start, bytes })
    }

    /// Its bytes. Nothing that is queued may write them.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: it has that size, and the caller sees to the device.
        unsafe { std::slice::from_raw_parts(self.start, self.bytes) }
    }

    /// Its bytes. Nothing that is queued may read or write them.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: it has that size, and the caller sees to the device.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.bytes) }
    }

    /// Queues a copy of `bytes` from `offset` on to the device.
    pub fn queue_to(&self, offset: usize, bytes: usize, to: u64, stream: &Stream) -> Result<()> {
        debug_assert!(offset + bytes <= self.bytes);
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: both places have that many bytes.
        let answer = unsafe { sys::cuMemcpyHtoDAsync_v2(to, self.start.add(offset).cast(), bytes, stream.0) };
        check("cuMemcpyHtoDAsync", answer)
    }

    /// Queues a copy of `bytes` from the device to `offset` on.
    pub fn queue_from(&self, offset: usize, bytes: usize, from: u64, stream: &Stream) -> Result<()> {
        debug_assert!(offset + bytes <= self.bytes);
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: both places have that many bytes.
        let answer = unsafe { sys::cuMemcpyDtoHAsync_v2(self.start.add(offset).cast(), from, bytes, stream.0) };
        check("cuMemcpyDtoHAsync", answer)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: allocated by `new`.
        unsafe { sys::cuMemFreeHost(self.start.cast()) };
    }
}

/// Queues a copy on the device.
pub fn copy(from: u64, to: u64, bytes: usize, stream: &Stream) -> Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    // SAFETY: the plan has been verified: both places have that many bytes.
    check("cuMemcpyDtoDAsync", unsafe { sys::cuMemcpyDtoDAsync_v2(to, from, bytes, stream.0) })
}
