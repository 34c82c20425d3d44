//! Streams and events.

use std::ffi::{c_int, c_void};

use super::queue::{Op, Vc, run_until, wait_stream};
use super::state::{Event, State, with};
use super::status::*;
use super::{exports, offer, put};

fn create(stream: *mut *mut c_void, flags: u32, priority: c_int) -> Result<(), Code> {
    if flags > 1 {
        return Err(ERROR_INVALID_VALUE);
    }
    let h = with(|s| {
        let c = s.working()?;
        Ok(s.make_stream(c, flags & 1 == 1, priority))
    })?;
    unsafe { put(stream, h as *mut c_void) }
}

fn record(event: *mut c_void, stream: *mut c_void) -> Result<(), Code> {
    with(|s| {
        let h = s.stream(stream)?;
        if !s.events.contains_key(&(event as usize)) {
            return Err(ERROR_INVALID_HANDLE);
        }
        s.enqueue(h, Op::Record(event as usize)).map(|_| ())
    })
}

fn elapsed(ms: *mut f32, start: *mut c_void, end: *mut c_void) -> Result<(), Code> {
    let (a, b) = with(|s| {
        let get = |s: &State, e: *mut c_void| -> Result<Option<u64>, Code> {
            let e = s.events.get(&(e as usize)).ok_or(ERROR_INVALID_HANDLE)?;
            if e.untimed || e.seq == 0 { Err(ERROR_INVALID_HANDLE) } else { Ok(e.time) }
        };
        Ok((get(s, start)?, get(s, end)?))
    })?;
    let (Some(a), Some(b)) = (a, b) else { return Err(ERROR_NOT_READY) };
    unsafe { put(ms, (b as f64 - a as f64) as f32 / 1e6) }
}

/// Whether operation `seq` has run. A program that asks again and again must see progress: from the second time on,
/// what it asks for is run first.
fn poll(seq: u64, asked: bool) -> Result<(), Code> {
    if asked {
        run_until(seq)?;
    }
    with(|s| if s.done >= seq { Ok(()) } else { Err(ERROR_NOT_READY) })
}

fn capture_state(s: &State, stream: *mut c_void) -> Result<Option<usize>, Code> {
    let h = s.stream(stream)?;
    Ok(s.streams[&h].capture)
}

unsafe fn capture_info(
    stream: *mut c_void,
    status: *mut u32,
    id: *mut u64,
    graph: *mut *mut c_void,
) -> Result<(), Code> {
    let c = with(|s| capture_state(s, stream))?;
    unsafe {
        put(status, c.is_some() as u32)?;
        offer(id, c.unwrap_or(0) as u64);
        offer(graph, std::ptr::null_mut());
    }
    Ok(())
}

exports! { exported;
    fn cuStreamCreate(stream: *mut *mut c_void, flags: u32) { create(stream, flags, 0) }
    fn cuStreamCreateWithPriority(stream: *mut *mut c_void, flags: u32, priority: c_int) { create(stream, flags, priority) }

    fn cuStreamDestroy_v2(stream: *mut c_void) {
        with(|s| {
            let h = stream as usize;
            let st = s.streams.get(&h).ok_or(ERROR_INVALID_HANDLE)?;
            if let Some(c) = st.capture.and_then(|c| s.captures.get_mut(&c)) {
                c.invalid = true;
            }
            // What is queued still runs.
            s.streams.remove(&h);
            Ok(())
        })
    }

    fn cuStreamSynchronize(stream: *mut c_void) {
        let h = with(|s| s.stream(stream))?;
        wait_stream(h)
    }

    fn cuStreamQuery(stream: *mut c_void) {
        let (h, seq) = with(|s| {
            let h = s.stream(stream)?;
            Ok((h, s.streams[&h].last))
        })?;
        // The first time some of the work is left for later, so that a program which does not wait is seen.
        let before = with(|s| Ok(s.done))?;
        if before < seq {
            let step = with(|s| Ok(s.done + 1))?;
            run_until(step)?;
            return Err(ERROR_NOT_READY);
        }
        wait_stream(h)
    }

    fn cuStreamWaitEvent(stream: *mut c_void, event: *mut c_void, flags: u32) {
        with(|s| {
            let h = s.stream(stream)?;
            s.wait_event(h, event as usize)
        })
    }

    fn cuStreamGetFlags(stream: *mut c_void, flags: *mut u32) {
        let f = with(|s| {
            let h = s.stream(stream)?;
            Ok(s.streams[&h].nonblocking as u32)
        })?;
        unsafe { put(flags, f) }
    }

    fn cuStreamGetPriority(stream: *mut c_void, priority: *mut c_int) {
        let p = with(|s| {
            let h = s.stream(stream)?;
            Ok(s.streams[&h].priority)
        })?;
        unsafe { put(priority, p) }
    }

    fn cuStreamGetId(stream: *mut c_void, id: *mut u64) {
        let n = with(|s| {
            let h = s.stream(stream)?;
            Ok(s.streams[&h].number)
        })?;
        unsafe { put(id, n as u64) }
    }

    fn cuStreamGetCtx(stream: *mut c_void, context: *mut *mut c_void) {
        let c = with(|s| {
            let h = s.stream(stream)?;
            Ok(s.streams[&h].context)
        })?;
        unsafe { put(context, c as *mut c_void) }
    }

    fn cuStreamGetDevice(stream: *mut c_void, device: *mut c_int) {
        let d = with(|s| {
            let h = s.stream(stream)?;
            Ok(s.contexts[&s.streams[&h].context].device)
        })?;
        unsafe { put(device, d as c_int) }
    }

    fn cuStreamAttachMemAsync(stream: *mut c_void, address: u64, bytes: usize, flags: u32) { Ok(()) }

    fn cuLaunchHostFunc(stream: *mut c_void, function: *mut c_void, data: *mut c_void) {
        with(|s| {
            let h = s.stream(stream)?;
            s.enqueue(h, Op::Host(function as usize, data as usize)).map(|_| ())
        })
    }

    fn cuEventCreate(event: *mut *mut c_void, flags: u32) {
        let h = with(|s| {
            let context = s.working()?;
            let h = s.fresh();
            let e = Event { context, untimed: flags & 2 != 0, vc: Vc::new(), seq: 0, time: None, asked: false, captured: None };
            s.events.insert(h, e);
            Ok(h)
        })?;
        unsafe { put(event, h as *mut c_void) }
    }

    fn cuEventDestroy_v2(event: *mut c_void) {
        with(|s| s.events.remove(&(event as usize)).map(|_| ()).ok_or(ERROR_INVALID_HANDLE))
    }

    fn cuEventRecord(event: *mut c_void, stream: *mut c_void) { record(event, stream) }
    fn cuEventRecordWithFlags(event: *mut c_void, stream: *mut c_void, flags: u32) { record(event, stream) }

    fn cuEventSynchronize(event: *mut c_void) {
        let seq = with(|s| {
            let e = s.events.get(&(event as usize)).ok_or(ERROR_INVALID_HANDLE)?;
            if e.captured.is_some() { Err(ERROR_CAPTURED_EVENT) } else { Ok(e.seq) }
        })?;
        run_until(seq)?;
        with(|s| {
            let Some(e) = s.events.get(&(event as usize)) else { return Ok(()) };
            let (vc, c) = (e.vc.clone(), e.context);
            s.host_knows(&vc);
            s.contexts.get(&c).and_then(|c| c.error).map_or(Ok(()), Err)
        })
    }

    fn cuEventQuery(event: *mut c_void) {
        let (seq, asked) = with(|s| {
            let e = s.events.get_mut(&(event as usize)).ok_or(ERROR_INVALID_HANDLE)?;
            if e.captured.is_some() {
                return Err(ERROR_CAPTURED_EVENT);
            }
            Ok((e.seq, std::mem::replace(&mut e.asked, true)))
        })?;
        poll(seq, asked)?;
        with(|s| {
            let Some(e) = s.events.get(&(event as usize)) else { return Ok(()) };
            let (vc, c) = (e.vc.clone(), e.context);
            s.host_knows(&vc);
            s.contexts.get(&c).and_then(|c| c.error).map_or(Ok(()), Err)
        })
    }

    fn cuEventElapsedTime(ms: *mut f32, start: *mut c_void, end: *mut c_void) { elapsed(ms, start, end) }
    fn cuEventElapsedTime_v2(ms: *mut f32, start: *mut c_void, end: *mut c_void) { elapsed(ms, start, end) }

    fn cuStreamBeginCapture_v2(stream: *mut c_void, mode: u32) {
        with(|s| {
            let h = s.stream(stream)?;
            s.begin_capture(h)
        })
    }

    fn cuStreamEndCapture(stream: *mut c_void, graph: *mut *mut c_void) {
        let g = with(|s| {
            let h = s.stream(stream)?;
            s.end_capture(h)
        })?;
        unsafe { put(graph, g as *mut c_void) }
    }

    fn cuStreamIsCapturing(stream: *mut c_void, status: *mut u32) {
        let c = with(|s| capture_state(s, stream))?;
        unsafe { put(status, c.is_some() as u32) }
    }

    fn cuStreamGetCaptureInfo_v2(
        stream: *mut c_void, status: *mut u32, id: *mut u64, graph: *mut *mut c_void, deps: *mut *const c_void, count: *mut usize,
    ) {
        unsafe { capture_info(stream, status, id, graph) }
    }

    fn cuStreamGetCaptureInfo_v3(
        stream: *mut c_void, status: *mut u32, id: *mut u64, graph: *mut *mut c_void, deps: *mut *const c_void,
        edges: *mut *const c_void, count: *mut usize,
    ) {
        unsafe { capture_info(stream, status, id, graph) }
    }

    fn cuThreadExchangeStreamCaptureMode(mode: *mut u32) { Ok(()) }
}
