//! Launches and occupancy.

use std::ffi::{c_int, c_void};

use super::queue::Op;
use super::state::{State, with};
use super::status::*;
use super::{exports, offer, put};
use crate::check::Check;
use crate::machine::Launch;

/// The configuration that `cuLaunchKernelEx` takes.
#[repr(C)]
pub struct Config {
    grid: [u32; 3],
    block: [u32; 3],
    shared: u32,
    stream: *mut c_void,
    attributes: *const Attribute,
    count: u32,
}

/// An attribute of a launch.
#[repr(C)]
pub struct Attribute {
    id: u32,
    pad: [u8; 4],
    value: [u32; 16],
}

/// The parameters of a kernel, collected from the pointers, or the buffer, that a launch gives.
unsafe fn collect(
    s: &State,
    function: usize,
    params: *const *const c_void,
    extra: *const *const c_void,
) -> Result<Vec<u8>, Code> {
    let f = s.functions.get(&function).ok_or(ERROR_INVALID_HANDLE)?;
    let k = &s.modules.get(&f.module).ok_or(ERROR_INVALID_HANDLE)?.module.program.kernels[f.index];
    let mut out = vec![0u8; k.param_bytes as usize];
    if !params.is_null() {
        for (i, p) in k.params.iter().enumerate() {
            // SAFETY: the caller gives a pointer for each parameter, to as many bytes as it has.
            unsafe {
                let from = *params.add(i);
                if from.is_null() {
                    return Err(ERROR_INVALID_VALUE);
                }
                std::ptr::copy_nonoverlapping(
                    from as *const u8,
                    out[p.offset as usize..].as_mut_ptr(),
                    p.size as usize,
                );
            }
        }
    } else if !extra.is_null() {
        // A list of tags and values: 1 the buffer, 2 a pointer to its size, 0 the end.
        let (mut buffer, mut size, mut at) = (std::ptr::null::<u8>(), 0usize, 0);
        // SAFETY: the caller's list ends with 0.
        unsafe {
            while *extra.add(at) as usize != 0 {
                match *extra.add(at) as usize {
                    1 => buffer = *extra.add(at + 1) as *const u8,
                    2 => size = *(*extra.add(at + 1) as *const usize),
                    _ => return Err(ERROR_INVALID_VALUE),
                }
                at += 2;
            }
            if buffer.is_null() || size < out.len() {
                return Err(ERROR_INVALID_VALUE);
            }
            std::ptr::copy_nonoverlapping(buffer, out.as_mut_ptr(), out.len());
        }
    } else if !out.is_empty() {
        return Err(ERROR_INVALID_VALUE);
    }
    Ok(out)
}

/// A launch as an operation, with what can be refused at once refused.
pub(super) unsafe fn kernel_op(
    s: &mut State,
    function: usize,
    grid: [u32; 3],
    block: [u32; 3],
    shared: u32,
    params: *const *const c_void,
    extra: *const *const c_void,
    cooperative: bool,
) -> Result<Op, Code> {
    let params = unsafe { collect(s, function, params, extra)? };
    let f = s.functions.get(&function).ok_or(ERROR_INVALID_HANDLE)?;
    let (module, index, allowed) = (f.module, f.index, f.allowed);
    let device = s.device()? as usize;
    let part = s.devices[device].part;
    let k = &s.modules[&module].module.program.kernels[index];
    if let Some(why) =
        part.over_limits(k, grid, block, shared, allowed).filter(|_| s.machine.settings.checks.has(Check::Limits))
    {
        let code = if why.contains("registers") || why.contains("requires blocks") || why.contains("allows blocks") {
            ERROR_LAUNCH_OUT_OF_RESOURCES
        } else {
            ERROR_INVALID_VALUE
        };
        let name = k.name.clone();
        return Err(s.refuse(code, &format!("kernel {name} cannot be launched: {why}")));
    }
    if cooperative {
        let threads = block.iter().product();
        let most = part.occupancy(k, threads, shared) as u64 * part.sms as u64;
        if grid.iter().map(|g| *g as u64).product::<u64>() > most {
            return Err(ERROR_COOPERATIVE_LAUNCH_TOO_LARGE);
        }
    }
    let launch = Launch { grid, block, shared, allowed, params, stream: 0, clock: 0, unordered: Vec::new() };
    Ok(Op::Kernel { module, index, function, launch })
}

unsafe fn launch(
    function: *mut c_void,
    grid: [u32; 3],
    block: [u32; 3],
    shared: u32,
    stream: *mut c_void,
    params: *const *const c_void,
    extra: *const *const c_void,
    cooperative: bool,
) -> Result<(), Code> {
    with(|s| {
        let h = s.stream(stream)?;
        let op = unsafe { kernel_op(s, function as usize, grid, block, shared, params, extra, cooperative)? };
        s.enqueue(h, op).map(|_| ())
    })
}

exports! { exported;
    fn cuLaunchKernel(
        function: *mut c_void, gx: u32, gy: u32, gz: u32, bx: u32, by: u32, bz: u32, shared: u32, stream: *mut c_void,
        params: *const *const c_void, extra: *const *const c_void,
    ) {
        unsafe { launch(function, [gx, gy, gz], [bx, by, bz], shared, stream, params, extra, false) }
    }

    fn cuLaunchCooperativeKernel(
        function: *mut c_void, gx: u32, gy: u32, gz: u32, bx: u32, by: u32, bz: u32, shared: u32, stream: *mut c_void,
        params: *const *const c_void,
    ) {
        unsafe { launch(function, [gx, gy, gz], [bx, by, bz], shared, stream, params, std::ptr::null(), true) }
    }

    fn cuLaunchKernelEx(config: *const Config, function: *mut c_void, params: *const *const c_void, extra: *const *const c_void) {
        let c = unsafe { config.as_ref() }.ok_or(ERROR_INVALID_VALUE)?;
        let mut cooperative = false;
        for i in 0..c.count as usize {
            // SAFETY: the caller gave `count` attributes.
            let a = unsafe { &*c.attributes.add(i) };
            match a.id {
                2 => cooperative = a.value[0] != 0,
                4 if a.value[..3] != [1, 1, 1] => {
                    return with(|s| Err(s.refuse(ERROR_NOT_SUPPORTED, "clusters of more than one block are not supported yet")));
                }
                // Priorities, memory domains, programmatic launches: hints to an order that is kept anyway.
                _ => {}
            }
        }
        unsafe { launch(function, c.grid, c.block, c.shared, c.stream, params, extra, cooperative) }
    }

    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(blocks: *mut c_int, function: *mut c_void, threads: c_int, shared: usize) {
        let n = with(|s| occupancy(s, function as usize, threads as u32, shared as u32))?;
        unsafe { put(blocks, n as c_int) }
    }

    fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        blocks: *mut c_int, function: *mut c_void, threads: c_int, shared: usize, flags: u32,
    ) {
        let n = with(|s| occupancy(s, function as usize, threads as u32, shared as u32))?;
        unsafe { put(blocks, n as c_int) }
    }

    fn cuOccupancyAvailableDynamicSMemPerBlock(bytes: *mut usize, function: *mut c_void, blocks: c_int, threads: c_int) {
        let n = with(|s| {
            let mut best = 0;
            let most = s.devices[s.device()? as usize].part.shared_opt_in;
            for shared in (0..=most).step_by(128) {
                if occupancy(s, function as usize, threads as u32, shared)? >= blocks as u32 {
                    best = shared;
                }
            }
            Ok(best)
        })?;
        unsafe { put(bytes, n as usize) }
    }

    fn cuOccupancyMaxPotentialBlockSize(
        grid: *mut c_int, block: *mut c_int, function: *mut c_void, size: *mut c_void, shared: usize, limit: c_int,
    ) {
        potential(grid, block, function, size, shared, limit)
    }

    fn cuOccupancyMaxPotentialBlockSizeWithFlags(
        grid: *mut c_int, block: *mut c_int, function: *mut c_void, size: *mut c_void, shared: usize, limit: c_int, flags: u32,
    ) {
        potential(grid, block, function, size, shared, limit)
    }

    fn cuOccupancyMaxActiveClusters(clusters: *mut c_int, function: *mut c_void, config: *const Config) { Err(ERROR_NOT_SUPPORTED) }
    fn cuOccupancyMaxPotentialClusterSize(size: *mut c_int, function: *mut c_void, config: *const Config) {
        unsafe { put(size, 1) }
    }
}

fn occupancy(s: &State, function: usize, threads: u32, shared: u32) -> Result<u32, Code> {
    let f = s.functions.get(&function).ok_or(ERROR_INVALID_HANDLE)?;
    let k = &s.modules[&f.module].module.program.kernels[f.index];
    let part = s.devices[s.device()? as usize].part;
    if threads == 0 {
        return Err(ERROR_INVALID_VALUE);
    }
    Ok(part.occupancy(k, threads, shared))
}

fn potential(
    grid: *mut c_int,
    block: *mut c_int,
    function: *mut c_void,
    size: *mut c_void,
    shared: usize,
    limit: c_int,
) -> Result<(), Code> {
    let most = if limit <= 0 { 1024 } else { limit.min(1024) } as u32;
    let (mut best, mut threads) = (0, 0);
    for t in (32..=most).rev().step_by(32) {
        let t = t / 32 * 32;
        let dynamic = if size.is_null() {
            shared
        } else {
            // SAFETY: the caller gave a function from block size to shared memory.
            unsafe { std::mem::transmute::<*mut c_void, extern "C" fn(c_int) -> usize>(size)(t as c_int) }
        };
        let n = with(|s| occupancy(s, function as usize, t, dynamic as u32))? * t;
        if n > best {
            (best, threads) = (n, t);
        }
    }
    let sms = with(|s| Ok(s.devices[s.device()? as usize].part.sms))?;
    unsafe {
        offer(grid, (best.checked_div(threads).unwrap_or(0) * sms) as c_int);
        put(block, threads as c_int)
    }
}
