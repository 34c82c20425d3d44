//! Copies and fills.

use std::ffi::c_void;

use super::queue::{Copy, Op, Place};
use super::state::{State, with};
use super::status::*;
use super::{exports, queue::wait_stream};

/// A copy of `bytes` in one row.
fn row(to: Place, from: Place, bytes: usize) -> Copy {
    Copy { to, to_pitch: bytes as u64, from, from_pitch: bytes as u64, width: bytes as u64, height: 1 }
}

impl State {
    /// A pointer of the host: one that the device knows is a place of its own.
    fn host_place(&self, p: usize) -> Place {
        if self.machine.memory.arena().holds(p as u64, 1) { Place::Device(p as u64) } else { Place::Host(p) }
    }

    /// Whether a place is pageable memory of the host.
    fn pageable(&self, p: &Place) -> bool {
        matches!(p, Place::Host(_))
    }

    /// Whether a device range may be copied at all: a wrong one is refused when the call is made.
    fn fits(&self, c: &Copy) -> Result<(), Code> {
        for (p, pitch) in [(&c.to, c.to_pitch), (&c.from, c.from_pitch)] {
            if let Place::Device(at) = p {
                let span = pitch * c.height.saturating_sub(1) + c.width;
                let inside = self.machine.memory.at(*at).is_some_and(|a| span <= a.base + a.size - at);
                if span != 0 && !inside {
                    return Err(ERROR_INVALID_VALUE);
                }
            }
        }
        Ok(())
    }
}

/// Makes a copy. `waits`: the call returns when it is done.
fn copy(c: Copy, stream: *mut c_void, waits: bool) -> Result<(), Code> {
    if c.width == 0 || c.height == 0 {
        return with(|s| s.working().map(|_| ()));
    }
    let (h, wait) = with(|s| {
        let h = s.stream(stream)?;
        if let Err(code) = s.fits(&c) {
            let (near, _) = match (&c.to, &c.from) {
                (Place::Device(a), _) | (_, Place::Device(a)) => s.machine.memory.near(*a),
                _ => Default::default(),
            };
            return Err(s.refuse(
                code,
                &format!("a copy of {} bytes that do not lie within one allocation: {near}", c.width * c.height),
            ));
        }
        let capturing = s.streams[&h].capture.is_some();
        if capturing && waits {
            return Err(ERROR_STREAM_CAPTURE_UNSUPPORTED);
        }
        // Pageable memory is read before the call returns, and written when it does.
        let mut c = c;
        if let Place::Host(p) = c.from
            && !capturing
            && !waits
        {
            let bytes = (c.from_pitch * (c.height - 1) + c.width) as usize;
            // SAFETY: the caller answers for its own memory.
            c.from = Place::Staged(unsafe { std::slice::from_raw_parts(p as *const u8, bytes) }.to_vec());
        }
        let wait = !capturing && (waits || s.pageable(&c.to));
        s.enqueue(h, Op::Copy(c))?;
        Ok((h, wait))
    })?;
    if wait { wait_stream(h) } else { Ok(()) }
}

/// The two sides of the structures of 2D and 3D copies.
#[repr(C)]
pub struct Copy2d {
    src_x: usize,
    src_y: usize,
    src_type: u32,
    src_host: usize,
    src_device: u64,
    src_array: usize,
    src_pitch: usize,
    dst_x: usize,
    dst_y: usize,
    dst_type: u32,
    dst_host: usize,
    dst_device: u64,
    dst_array: usize,
    dst_pitch: usize,
    width: usize,
    height: usize,
}

/// The description of a 3D copy.
#[repr(C)]
pub struct Copy3d {
    src: [usize; 4],
    src_type: u32,
    src_host: usize,
    src_device: u64,
    src_array: usize,
    reserved0: usize,
    src_pitch: usize,
    src_height: usize,
    dst: [usize; 4],
    dst_type: u32,
    dst_host: usize,
    dst_device: u64,
    dst_array: usize,
    reserved1: usize,
    dst_pitch: usize,
    dst_height: usize,
    width: usize,
    height: usize,
    depth: usize,
}

fn side(s: &State, kind: u32, host: usize, device: u64, offset: usize) -> Result<Place, Code> {
    match kind {
        1 => Ok(s.host_place(host + offset)),
        2 => Ok(Place::Device(device + offset as u64)),
        4 => Ok(s.host_place(device as usize + offset)),
        _ => Err(ERROR_NOT_SUPPORTED),
    }
}

fn pitch(p: usize, width: usize) -> u64 {
    (if p == 0 { width } else { p }) as u64
}

unsafe fn copy_2d(c: *const Copy2d, stream: *mut c_void, waits: bool) -> Result<(), Code> {
    let c = unsafe { c.as_ref() }.ok_or(ERROR_INVALID_VALUE)?;
    let made = with(|s| {
        Ok(Copy {
            to: side(s, c.dst_type, c.dst_host, c.dst_device, c.dst_y * c.dst_pitch + c.dst_x)?,
            to_pitch: pitch(c.dst_pitch, c.width),
            from: side(s, c.src_type, c.src_host, c.src_device, c.src_y * c.src_pitch + c.src_x)?,
            from_pitch: pitch(c.src_pitch, c.width),
            width: c.width as u64,
            height: c.height as u64,
        })
    })?;
    copy(made, stream, waits)
}

/// The planes of a 3D copy.
pub(super) unsafe fn planes(c: *const Copy3d) -> Result<Vec<Copy>, Code> {
    let c = unsafe { c.as_ref() }.ok_or(ERROR_INVALID_VALUE)?;
    (0..c.depth)
        .map(|z| {
            let at = |o: &[usize; 4], p: usize, h: usize| ((o[2] + z) * h.max(1) + o[1]) * p + o[0];
            with(|s| {
                Ok(Copy {
                    to: side(s, c.dst_type, c.dst_host, c.dst_device, at(&c.dst, c.dst_pitch, c.dst_height))?,
                    to_pitch: pitch(c.dst_pitch, c.width),
                    from: side(s, c.src_type, c.src_host, c.src_device, at(&c.src, c.src_pitch, c.src_height))?,
                    from_pitch: pitch(c.src_pitch, c.width),
                    width: c.width as u64,
                    height: c.height.max(1) as u64,
                })
            })
        })
        .collect()
}

/// Fills memory. The calls without a stream wait for nothing, as with any driver, but are ordered by the default stream.
fn fill(
    at: u64,
    pitch: usize,
    value: u32,
    size: u32,
    width: usize,
    height: usize,
    stream: *mut c_void,
) -> Result<(), Code> {
    if width == 0 || height == 0 {
        return Ok(());
    }
    with(|s| {
        let h = s.stream(stream)?;
        let (pitch, width, height) = (pitch as u64, width as u64, height as u64);
        let span = pitch * (height - 1) + width * size as u64;
        let inside = s.machine.memory.at(at).is_some_and(|a| span <= a.base + a.size - at);
        if !inside || !at.is_multiple_of(size as u64) {
            let (near, _) = s.machine.memory.near(at);
            return Err(s.refuse(
                ERROR_INVALID_VALUE,
                &format!("a memset of {span} bytes that do not lie within one allocation: {near}"),
            ));
        }
        s.enqueue(h, Op::Fill { at, pitch, value, size, width, height }).map(|_| ())
    })
}

fn null() -> *mut c_void {
    std::ptr::null_mut()
}

fn device(a: u64) -> Place {
    Place::Device(a)
}

fn host(p: *const c_void) -> Result<Place, Code> {
    if p.is_null() { Err(ERROR_INVALID_VALUE) } else { with(|s| Ok(s.host_place(p as usize))) }
}

fn either(a: u64) -> Result<Place, Code> {
    host(a as *const c_void)
}

/// A synchronous copy between host and device also waits where the host's side is pinned.
fn between(to: Place, from: Place, bytes: usize) -> Result<(), Code> {
    copy(row(to, from, bytes), null(), true)
}

exports! { exported;
    fn cuMemcpyHtoD_v2(to: u64, from: *const c_void, bytes: usize) {
        if bytes == 0 { return Ok(()); }
        between(device(to), host(from)?, bytes)
    }
    fn cuMemcpyDtoH_v2(to: *mut c_void, from: u64, bytes: usize) {
        if bytes == 0 { return Ok(()); }
        between(host(to)?, device(from), bytes)
    }
    fn cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize) { copy(row(device(to), device(from), bytes), null(), false) }
    fn cuMemcpy(to: u64, from: u64, bytes: usize) { between(either(to)?, either(from)?, bytes) }
    fn cuMemcpyPeer(to: u64, to_context: *mut c_void, from: u64, from_context: *mut c_void, bytes: usize) {
        between(device(to), device(from), bytes)
    }
    fn cuMemcpyHtoDAsync_v2(to: u64, from: *const c_void, bytes: usize, stream: *mut c_void) {
        if bytes == 0 { return Ok(()); }
        copy(row(device(to), host(from)?, bytes), stream, false)
    }
    fn cuMemcpyDtoHAsync_v2(to: *mut c_void, from: u64, bytes: usize, stream: *mut c_void) {
        if bytes == 0 { return Ok(()); }
        copy(row(host(to)?, device(from), bytes), stream, false)
    }
    fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: *mut c_void) {
        copy(row(device(to), device(from), bytes), stream, false)
    }
    fn cuMemcpyAsync(to: u64, from: u64, bytes: usize, stream: *mut c_void) {
        if bytes == 0 { return Ok(()); }
        copy(row(either(to)?, either(from)?, bytes), stream, false)
    }
    fn cuMemcpyPeerAsync(to: u64, to_context: *mut c_void, from: u64, from_context: *mut c_void, bytes: usize, stream: *mut c_void) {
        copy(row(device(to), device(from), bytes), stream, false)
    }
    fn cuMemcpy2D_v2(c: *const Copy2d) { unsafe { copy_2d(c, null(), true) } }
    fn cuMemcpy2DUnaligned_v2(c: *const Copy2d) { unsafe { copy_2d(c, null(), true) } }
    fn cuMemcpy2DAsync_v2(c: *const Copy2d, stream: *mut c_void) { unsafe { copy_2d(c, stream, false) } }
    fn cuMemcpy3D_v2(c: *const Copy3d) {
        for p in unsafe { planes(c)? } {
            copy(p, null(), true)?;
        }
        Ok(())
    }
    fn cuMemcpy3DAsync_v2(c: *const Copy3d, stream: *mut c_void) {
        for p in unsafe { planes(c)? } {
            copy(p, stream, false)?;
        }
        Ok(())
    }
    fn cuMemsetD8_v2(at: u64, value: u8, count: usize) { fill(at, count, value as u32, 1, count, 1, null()) }
    fn cuMemsetD16_v2(at: u64, value: u16, count: usize) { fill(at, count * 2, value as u32, 2, count, 1, null()) }
    fn cuMemsetD32_v2(at: u64, value: u32, count: usize) { fill(at, count * 4, value, 4, count, 1, null()) }
    fn cuMemsetD8Async(at: u64, value: u8, count: usize, stream: *mut c_void) { fill(at, count, value as u32, 1, count, 1, stream) }
    fn cuMemsetD16Async(at: u64, value: u16, count: usize, stream: *mut c_void) { fill(at, count * 2, value as u32, 2, count, 1, stream) }
    fn cuMemsetD32Async(at: u64, value: u32, count: usize, stream: *mut c_void) { fill(at, count * 4, value, 4, count, 1, stream) }
    fn cuMemsetD2D8_v2(at: u64, pitch: usize, value: u8, width: usize, height: usize) { fill(at, pitch, value as u32, 1, width, height, null()) }
    fn cuMemsetD2D16_v2(at: u64, pitch: usize, value: u16, width: usize, height: usize) { fill(at, pitch, value as u32, 2, width, height, null()) }
    fn cuMemsetD2D32_v2(at: u64, pitch: usize, value: u32, width: usize, height: usize) { fill(at, pitch, value, 4, width, height, null()) }
    fn cuMemsetD2D8Async(at: u64, pitch: usize, value: u8, width: usize, height: usize, stream: *mut c_void) { fill(at, pitch, value as u32, 1, width, height, stream) }
    fn cuMemsetD2D16Async(at: u64, pitch: usize, value: u16, width: usize, height: usize, stream: *mut c_void) { fill(at, pitch, value as u32, 2, width, height, stream) }
    fn cuMemsetD2D32Async(at: u64, pitch: usize, value: u32, width: usize, height: usize, stream: *mut c_void) { fill(at, pitch, value, 4, width, height, stream) }
}
