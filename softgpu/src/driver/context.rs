//! Contexts: primary ones, and others.

use std::ffi::{c_int, c_void};

use super::state::{STACK, with};
use super::status::*;
use super::{device_number, exports, offer, put, queue};

fn make_current(c: usize) {
    STACK.with(|s| {
        let mut s = s.borrow_mut();
        s.pop();
        if c != 0 {
            s.push(c);
        }
    });
}

fn create(out: *mut *mut c_void, flags: u32, device: c_int) -> Result<(), Code> {
    let d = device_number(device)?;
    let c = with(|s| Ok(s.make_context(d as u32, flags)))?;
    STACK.with(|s| s.borrow_mut().push(c));
    unsafe { put(out, c as *mut c_void) }
}

fn release(d: usize, reset: bool) -> Result<(), Code> {
    let end = with(|s| {
        let dev = &mut s.devices[d];
        let Some(c) = dev.primary else { return if reset { Ok(None) } else { Err(ERROR_INVALID_CONTEXT) } };
        dev.retained = dev.retained.saturating_sub(1);
        Ok((dev.retained == 0 || reset).then_some(c))
    })?;
    if let Some(c) = end {
        // Work that is under way ends first; what it found has been told.
        let _ = queue::wait_context(c);
        with(|s| {
            s.drop_context(c);
            s.devices[d].primary = None;
            s.devices[d].retained = 0;
            Ok(())
        })?;
    }
    Ok(())
}

exports! { exported;
    fn cuDevicePrimaryCtxRetain(context: *mut *mut c_void, device: c_int) {
        let d = device_number(device)?;
        let c = with(|s| {
            let c = match s.devices[d].primary {
                Some(c) => c,
                None => {
                    let flags = s.devices[d].flags;
                    s.make_context(d as u32, flags)
                }
            };
            s.devices[d].primary = Some(c);
            s.devices[d].retained += 1;
            Ok(c)
        })?;
        unsafe { put(context, c as *mut c_void) }
    }

    fn cuDevicePrimaryCtxRelease_v2(device: c_int) { release(device_number(device)?, false) }
    fn cuDevicePrimaryCtxRelease(device: c_int) { release(device_number(device)?, false) }
    fn cuDevicePrimaryCtxReset_v2(device: c_int) { release(device_number(device)?, true) }

    fn cuDevicePrimaryCtxGetState(device: c_int, flags: *mut u32, active: *mut c_int) {
        let d = device_number(device)?;
        with(|s| {
            unsafe {
                offer(flags, s.devices[d].flags);
                offer(active, s.devices[d].primary.is_some() as c_int);
            }
            Ok(())
        })
    }

    fn cuDevicePrimaryCtxSetFlags_v2(device: c_int, flags: u32) {
        let d = device_number(device)?;
        with(|s| {
            s.devices[d].flags = flags;
            Ok(())
        })
    }

    fn cuCtxCreate_v2(context: *mut *mut c_void, flags: u32, device: c_int) { create(context, flags, device) }

    fn cuCtxCreate_v3(context: *mut *mut c_void, affinity: *const c_void, count: c_int, flags: u32, device: c_int) {
        create(context, flags, device)
    }

    fn cuCtxCreate_v4(context: *mut *mut c_void, params: *const c_void, flags: u32, device: c_int) {
        create(context, flags, device)
    }

    fn cuCtxDestroy_v2(context: *mut c_void) {
        let c = context as usize;
        with(|s| if s.contexts.contains_key(&c) { Ok(()) } else { Err(ERROR_INVALID_CONTEXT) })?;
        let _ = queue::wait_context(c);
        STACK.with(|s| s.borrow_mut().retain(|x| *x != c));
        with(|s| {
            s.drop_context(c);
            Ok(())
        })
    }

    fn cuCtxGetCurrent(context: *mut *mut c_void) {
        with(|_| Ok(()))?;
        let top = STACK.with(|s| s.borrow().last().copied().unwrap_or(0));
        unsafe { put(context, top as *mut c_void) }
    }

    fn cuCtxSetCurrent(context: *mut c_void) {
        let c = context as usize;
        with(|s| if c == 0 || s.contexts.contains_key(&c) { Ok(()) } else { Err(ERROR_INVALID_CONTEXT) })?;
        make_current(c);
        Ok(())
    }

    fn cuCtxPushCurrent_v2(context: *mut c_void) {
        let c = context as usize;
        with(|s| if s.contexts.contains_key(&c) { Ok(()) } else { Err(ERROR_INVALID_CONTEXT) })?;
        STACK.with(|s| s.borrow_mut().push(c));
        Ok(())
    }

    fn cuCtxPopCurrent_v2(context: *mut *mut c_void) {
        let c = STACK.with(|s| s.borrow_mut().pop()).ok_or(ERROR_INVALID_CONTEXT)?;
        unsafe { offer(context, c as *mut c_void) };
        Ok(())
    }

    fn cuCtxGetDevice(device: *mut c_int) {
        let d = with(|s| s.device())?;
        unsafe { put(device, d as c_int) }
    }

    fn cuCtxGetFlags(flags: *mut u32) {
        let f = with(|s| Ok(s.contexts[&s.current()?].flags))?;
        unsafe { put(flags, f) }
    }

    fn cuCtxSetFlags(flags: u32) {
        with(|s| {
            let c = s.current()?;
            s.contexts.entry(c).and_modify(|c| c.flags = flags);
            Ok(())
        })
    }

    fn cuCtxGetId(context: *mut c_void, id: *mut u64) {
        let c = if context.is_null() { with(|s| s.current())? } else { context as usize };
        unsafe { put(id, c as u64) }
    }

    fn cuCtxSynchronize() {
        let c = with(|s| s.working())?;
        queue::wait_context(c)
    }

    fn cuCtxGetApiVersion(context: *mut c_void, version: *mut u32) { unsafe { put(version, super::VERSION as u32) } }

    fn cuCtxGetStreamPriorityRange(least: *mut c_int, greatest: *mut c_int) {
        unsafe {
            offer(least, 0);
            offer(greatest, -5);
        }
        Ok(())
    }

    fn cuCtxSetLimit(limit: u32, value: usize) {
        with(|s| {
            let c = s.current()?;
            if limit > 7 {
                return Err(ERROR_UNSUPPORTED_LIMIT);
            }
            s.contexts.entry(c).and_modify(|c| {
                c.limits.insert(limit, value);
            });
            Ok(())
        })
    }

    fn cuCtxGetLimit(value: *mut usize, limit: u32) {
        let v = with(|s| {
            let c = s.current()?;
            let default = match limit {
                0 => 1024,
                1 => 1 << 20,
                2 => 8 << 20,
                3..=7 => 0,
                _ => return Err(ERROR_UNSUPPORTED_LIMIT),
            };
            Ok(s.contexts[&c].limits.get(&limit).copied().unwrap_or(default))
        })?;
        unsafe { put(value, v) }
    }

    fn cuCtxGetCacheConfig(config: *mut u32) { unsafe { put(config, 0) } }
    fn cuCtxSetCacheConfig(config: u32) { Ok(()) }
    fn cuCtxGetSharedMemConfig(config: *mut u32) { unsafe { put(config, 1) } }
    fn cuCtxSetSharedMemConfig(config: u32) { Ok(()) }
    fn cuCtxResetPersistingL2Cache() { Ok(()) }
    fn cuCtxEnablePeerAccess(peer: *mut c_void, flags: u32) { Ok(()) }
    fn cuCtxDisablePeerAccess(peer: *mut c_void) { Ok(()) }
}
