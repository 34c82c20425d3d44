//! Memory: plain, stream-ordered, pinned and managed, and what is known of a pointer.

use std::ffi::{c_int, c_void};

use super::queue::{self, Op};
use super::state::{State, with};
use super::status::*;
use super::{exports, offer, put};
use crate::device::memory::Purpose;

impl State {
    /// The pool of a device.
    pub fn pool_of(&mut self, device: u32) -> usize {
        if let Some((h, _)) = self.pools.iter().find(|(_, d)| **d == device) {
            return *h;
        }
        let h = self.fresh();
        self.pools.insert(h, device);
        h
    }

    fn allocate(&mut self, bytes: usize, purpose: Purpose) -> Result<u64, Code> {
        self.working()?;
        let d = self.device()?;
        if bytes == 0 {
            return Err(ERROR_INVALID_VALUE);
        }
        let limit = self.devices[d as usize].memory;
        self.machine.memory.allocate(d, bytes as u64, limit, purpose, None).map_err(|_| ERROR_OUT_OF_MEMORY)
    }

    /// Stream-ordered allocation: the address is good at once, what is written there follows the stream.
    fn allocate_in(&mut self, bytes: usize, stream: *mut c_void) -> Result<u64, Code> {
        let s = self.stream(stream)?;
        if self.streams[&s].capture.is_some() {
            return Err(
                self.refuse(ERROR_STREAM_CAPTURE_UNSUPPORTED, "allocations in a captured stream are not supported")
            );
        }
        self.allocate(bytes, Purpose::Device)
    }
}

/// Frees memory after the work that was queued.
fn free(at: u64, purposes: &[Purpose]) -> Result<(), Code> {
    if at == 0 {
        return Ok(());
    }
    let (known, seq) = with(|s| {
        Ok((s.machine.memory.at(at).is_some_and(|a| a.base == at && purposes.contains(&a.purpose)), s.queued))
    })?;
    if !known {
        return Err(ERROR_INVALID_VALUE);
    }
    queue::run_until(seq)?;
    with(|s| s.machine.memory.free(at, purposes).map(|_| ()).ok_or(ERROR_INVALID_VALUE))
}

exports! { exported;
    fn cuMemAlloc_v2(address: *mut u64, bytes: usize) {
        let a = with(|s| s.allocate(bytes, Purpose::Device))?;
        unsafe { put(address, a) }
    }

    fn cuMemAllocPitch_v2(address: *mut u64, pitch: *mut usize, width: usize, height: usize, element: u32) {
        let p = width.next_multiple_of(512);
        let a = with(|s| s.allocate(p * height, Purpose::Device))?;
        unsafe {
            put(pitch, p)?;
            put(address, a)
        }
    }

    fn cuMemAllocManaged(address: *mut u64, bytes: usize, flags: u32) {
        let a = with(|s| s.allocate(bytes, Purpose::Device))?;
        // The host writes such memory without telling the driver.
        with(|s| {
            s.machine.memory.arena().mark_range(a, bytes as u64);
            Ok(())
        })?;
        unsafe { put(address, a) }
    }

    fn cuMemFree_v2(address: u64) { free(address, &[Purpose::Device]) }

    fn cuMemAllocAsync(address: *mut u64, bytes: usize, stream: *mut c_void) {
        let a = with(|s| s.allocate_in(bytes, stream))?;
        unsafe { put(address, a) }
    }

    fn cuMemAllocFromPoolAsync(address: *mut u64, bytes: usize, pool: *mut c_void, stream: *mut c_void) {
        let a = with(|s| s.allocate_in(bytes, stream))?;
        unsafe { put(address, a) }
    }

    fn cuMemFreeAsync(address: u64, stream: *mut c_void) {
        with(|s| {
            let st = s.stream(stream)?;
            if !s.machine.memory.at(address).is_some_and(|a| a.base == address && a.purpose == Purpose::Device) {
                return Err(ERROR_INVALID_VALUE);
            }
            s.enqueue(st, Op::Free(address)).map(|_| ())
        })
    }

    fn cuMemHostAlloc(pointer: *mut *mut c_void, bytes: usize, flags: u32) {
        let a = host(bytes)?;
        unsafe { put(pointer, a as *mut c_void) }
    }

    fn cuMemAllocHost_v2(pointer: *mut *mut c_void, bytes: usize) {
        let a = host(bytes)?;
        unsafe { put(pointer, a as *mut c_void) }
    }

    fn cuMemFreeHost(pointer: *mut c_void) { free(pointer as u64, &[Purpose::Host]) }

    fn cuMemHostGetDevicePointer_v2(address: *mut u64, pointer: *mut c_void, flags: u32) {
        let known = with(|s| Ok(s.machine.memory.at(pointer as u64).is_some_and(|a| a.purpose == Purpose::Host)))?;
        if !known {
            return Err(ERROR_INVALID_VALUE);
        }
        unsafe { put(address, pointer as u64) }
    }

    fn cuMemHostGetFlags(flags: *mut u32, pointer: *mut c_void) { unsafe { put(flags, 2) } }

    fn cuMemHostRegister_v2(pointer: *mut c_void, bytes: usize, flags: u32) {
        with(|s| Err(s.refuse(ERROR_NOT_SUPPORTED, "memory of the host cannot be registered: allocate it pinned (cuMemHostAlloc)")))
    }

    fn cuMemHostUnregister(pointer: *mut c_void) { Err(ERROR_NOT_SUPPORTED) }

    fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) {
        with(|s| {
            s.working()?;
            let d = s.device()?;
            let all = s.devices[d as usize].memory;
            unsafe {
                offer(free, (all - s.machine.memory.used(d).min(all)) as usize);
                offer(total, all as usize);
            }
            Ok(())
        })
    }

    fn cuMemGetAddressRange_v2(base: *mut u64, size: *mut usize, address: u64) {
        with(|s| {
            let a = s.machine.memory.at(address).ok_or(ERROR_NOT_FOUND)?;
            unsafe {
                offer(base, a.base);
                offer(size, a.size as usize);
            }
            Ok(())
        })
    }

    fn cuPointerGetAttribute(data: *mut c_void, which: u32, address: u64) {
        with(|s| unsafe { pointer_attribute(s, data, which, address) })
    }

    fn cuPointerGetAttributes(count: u32, which: *const u32, data: *mut *mut c_void, address: u64) {
        with(|s| {
            for i in 0..count as usize {
                // SAFETY: the caller gave `count` of each.
                unsafe {
                    let _ = pointer_attribute(s, *data.add(i), *which.add(i), address);
                }
            }
            Ok(())
        })
    }

    fn cuPointerSetAttribute(value: *const c_void, which: u32, address: u64) { Ok(()) }

    fn cuMemPoolCreate(pool: *mut *mut c_void, properties: *const c_void) {
        let h = with(|s| {
            let d = s.device().unwrap_or(0);
            let h = s.fresh();
            s.pools.insert(h, d);
            Ok(h)
        })?;
        unsafe { put(pool, h as *mut c_void) }
    }

    fn cuMemPoolDestroy(pool: *mut c_void) {
        with(|s| s.pools.remove(&(pool as usize)).map(|_| ()).ok_or(ERROR_INVALID_VALUE))
    }

    fn cuMemPoolTrimTo(pool: *mut c_void, keep: usize) { Ok(()) }
    fn cuMemPoolSetAttribute(pool: *mut c_void, which: u32, value: *mut c_void) { Ok(()) }
    fn cuMemPoolSetAccess(pool: *mut c_void, map: *const c_void, count: usize) { Ok(()) }

    fn cuMemPoolGetAttribute(pool: *mut c_void, which: u32, value: *mut c_void) {
        // The first three are switches of 32 bits, the others amounts of 64.
        if which <= 3 { unsafe { put(value as *mut c_int, 1) } } else { unsafe { put(value as *mut u64, 0) } }
    }

    fn cuMemPrefetchAsync_v2(address: u64, bytes: usize, location: u64, flags: u32, stream: *mut c_void) { Ok(()) }
    fn cuMemAdvise_v2(address: u64, bytes: usize, advice: u32, location: u64) { Ok(()) }
}

/// Pinned memory counts as written: the host writes it without telling the driver.
fn host(bytes: usize) -> Result<u64, Code> {
    with(|s| {
        let a = s.allocate(bytes, Purpose::Host)?;
        s.machine.memory.arena().mark_range(a, bytes as u64);
        Ok(a)
    })
}

unsafe fn pointer_attribute(s: &State, data: *mut c_void, which: u32, address: u64) -> Result<(), Code> {
    let a = s.machine.memory.at(address);
    let context = s.current().unwrap_or(0);
    unsafe {
        match (which, a) {
            (1, Some(_)) => put(data as *mut usize, context),
            (2, Some(a)) => put(data as *mut u32, if a.purpose == Purpose::Host { 1 } else { 2 }),
            (3, Some(_)) => put(data as *mut u64, address),
            (4, Some(a)) if a.purpose == Purpose::Host => put(data as *mut u64, address),
            (7, Some(a)) => put(data as *mut u64, a.number),
            (8 | 6 | 10, Some(_)) => put(data as *mut u32, 0),
            (9, Some(a)) => put(data as *mut u32, a.device),
            (11, Some(a)) => put(data as *mut u64, a.base),
            (12, Some(a)) => put(data as *mut usize, a.size as usize),
            (13, Some(_)) => put(data as *mut u32, 1),
            (15..=17, Some(_)) => put(data as *mut u64, 0),
            _ => {
                offer(data as *mut u32, 0);
                Err(ERROR_INVALID_VALUE)
            }
        }
    }
}
