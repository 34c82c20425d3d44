//! Devices and their attributes.

use std::ffi::{c_char, c_int, c_void};

use super::state::with;
use super::status::*;
use super::{device_number, exports, put};
use crate::device::part::{self, Part};

/// An attribute by its number in the driver's documentation.
fn attribute(p: &Part, which: u32, ordinal: usize) -> Option<i64> {
    Some(match which {
        1 => part::MAX_THREADS as i64,
        2 | 3 => 1024,
        4 => 64,
        5 => i32::MAX as i64,
        6 | 7 => 65_535,
        8 => part::SHARED_DEFAULT as i64,
        9 => 65_536,
        10 => 32,
        11 => i32::MAX as i64,
        12 | 82 => part::REGISTERS as i64,
        13 => p.clock as i64,
        14 => 512,
        16 => p.sms as i64,
        33 => ordinal as i64 + 1,
        36 => p.memory_clock as i64,
        37 => p.bus as i64,
        38 => p.l2 as i64,
        39 => p.threads_per_sm as i64,
        40 => 3,
        75 => p.capability.0 as i64,
        76 => p.capability.1 as i64,
        81 => p.shared_per_sm as i64,
        87 => 64,
        97 => p.shared_opt_in as i64,
        106 => p.blocks_per_sm as i64,
        108 => p.l2 as i64 / 2,
        109 => 128 << 20,
        111 => part::SHARED_RESERVED as i64,
        // What the device can: overlap, mapped host memory, concurrent kernels, unified addresses, priorities, L1
        // caches, cooperative launch, memory pools.
        15 | 19 | 31 | 41 | 78 | 79 | 80 | 95 | 115 => 1,
        // Which shapes of textures there are, and everything else that numbers here name: nothing.
        17 | 18 | 20..=30 | 32 | 34 | 35 | 42..=74 | 77 | 83..=86 | 88..=94 | 96 | 98..=105 | 107 | 110 | 112..=114 => {
            0
        }
        116..=160 => 0,
        _ => return None,
    })
}

exports! { exported;
    fn cuDeviceGetCount(count: *mut c_int) {
        with(|s| unsafe { put(count, s.devices.len() as c_int) })
    }

    fn cuDeviceGet(device: *mut c_int, ordinal: c_int) {
        device_number(ordinal)?;
        unsafe { put(device, ordinal) }
    }

    fn cuDeviceGetName(name: *mut c_char, size: c_int, device: c_int) {
        let d = device_number(device)?;
        if name.is_null() || size < 1 {
            return Err(ERROR_INVALID_VALUE);
        }
        with(|s| {
            let text = s.devices[d].part.name.as_bytes();
            let n = text.len().min(size as usize - 1);
            // SAFETY: the caller gave `size` bytes.
            unsafe {
                std::ptr::copy_nonoverlapping(text.as_ptr() as *const c_char, name, n);
                *name.add(n) = 0;
            }
            Ok(())
        })
    }

    fn cuDeviceGetUuid(uuid: *mut [u8; 16], device: c_int) {
        let d = device_number(device)?;
        let mut id = *b"softgpu-device-0";
        id[15] = d as u8;
        unsafe { put(uuid, id) }
    }

    fn cuDeviceGetUuid_v2(uuid: *mut [u8; 16], device: c_int) {
        let d = device_number(device)?;
        let mut id = *b"softgpu-device-0";
        id[15] = d as u8;
        unsafe { put(uuid, id) }
    }

    fn cuDeviceTotalMem_v2(bytes: *mut usize, device: c_int) {
        let d = device_number(device)?;
        with(|s| unsafe { put(bytes, s.devices[d].memory as usize) })
    }

    fn cuDeviceGetAttribute(value: *mut c_int, which: u32, device: c_int) {
        let d = device_number(device)?;
        let v = with(|s| attribute(s.devices[d].part, which, d).ok_or(ERROR_INVALID_VALUE))?;
        unsafe { put(value, v as c_int) }
    }

    fn cuDeviceGetPCIBusId(text: *mut c_char, size: c_int, device: c_int) {
        let d = device_number(device)?;
        let id = format!("0000:{:02x}:00.0\0", d + 1);
        if text.is_null() || (size as usize) < id.len() {
            return Err(ERROR_INVALID_VALUE);
        }
        // SAFETY: the caller gave `size` bytes.
        unsafe { std::ptr::copy_nonoverlapping(id.as_ptr() as *const c_char, text, id.len()) };
        Ok(())
    }

    fn cuDeviceCanAccessPeer(can: *mut c_int, device: c_int, peer: c_int) {
        let (a, b) = (device_number(device)?, device_number(peer)?);
        unsafe { put(can, (a != b) as c_int) }
    }

    fn cuDeviceGetP2PAttribute(value: *mut c_int, which: u32, device: c_int, peer: c_int) {
        let (a, b) = (device_number(device)?, device_number(peer)?);
        if a == b {
            return Err(ERROR_INVALID_DEVICE);
        }
        unsafe { put(value, matches!(which, 2 | 3) as c_int) }
    }

    fn cuDeviceGetDefaultMemPool(pool: *mut *mut c_void, device: c_int) {
        let d = device_number(device)?;
        let h = with(|s| Ok(s.pool_of(d as u32)))?;
        unsafe { put(pool, h as *mut c_void) }
    }

    fn cuDeviceGetMemPool(pool: *mut *mut c_void, device: c_int) {
        let d = device_number(device)?;
        let h = with(|s| Ok(s.pool_of(d as u32)))?;
        unsafe { put(pool, h as *mut c_void) }
    }

    fn cuDeviceSetMemPool(device: c_int, pool: *mut c_void) {
        device_number(device)?;
        Ok(())
    }
}
