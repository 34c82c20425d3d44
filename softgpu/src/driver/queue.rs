//! Streams: operations wait in one queue, in the order of the calls, and run when the host waits for one of them. The
//! order that streams and events give is kept as vector clocks, so that two operations that nothing orders are known
//! for what they are, whatever the order in which they ran.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::OnceLock;
use std::time::Instant;

use super::pinned::Before;
use super::state::{State, lock, with};
use super::status::*;
use crate::check::{Check, Finding, Kind};
use crate::device::memory::{Purpose, Record};
use crate::error::LaunchError;
use crate::machine::Launch;

/// Stream → its last operation that is ordered before.
pub type Vc = BTreeMap<u32, u64>;

/// Adds what `b` knows to `a`.
pub fn join(a: &mut Vc, b: &Vc) {
    for (k, v) in b {
        let e = a.entry(*k).or_insert(0);
        *e = (*e).max(*v);
    }
}

/// One side of a copy.
#[derive(Clone, Debug)]
pub enum Place {
    /// Device or pinned memory.
    Device(u64),
    /// Memory of the host that the device does not know.
    Host(usize),
    /// Bytes taken when the call was made.
    Staged(Vec<u8>),
}

/// A copy of `height` rows of `width` bytes.
#[derive(Clone, Debug)]
pub struct Copy {
    /// To.
    pub to: Place,
    /// Bytes from row to row of `to`.
    pub to_pitch: u64,
    /// From.
    pub from: Place,
    /// Bytes from row to row of `from`.
    pub from_pitch: u64,
    /// Bytes of a row.
    pub width: u64,
    /// Rows.
    pub height: u64,
}

/// What is done in a stream.
#[derive(Clone, Debug)]
pub enum Op {
    /// A launch of a function.
    Kernel {
        /// Its module.
        module: usize,
        /// Its number in the module.
        index: usize,
        /// The handle it was launched by.
        function: usize,
        /// How.
        launch: Launch,
    },
    /// A copy.
    Copy(Copy),
    /// Fills rows with a pattern of 1, 2 or 4 bytes.
    Fill {
        /// Where.
        at: u64,
        /// Bytes from row to row.
        pitch: u64,
        /// The pattern.
        value: u32,
        /// Its bytes.
        size: u32,
        /// Elements of a row.
        width: u64,
        /// Rows.
        height: u64,
    },
    /// Records an event.
    Record(usize),
    /// Frees memory.
    Free(u64),
    /// Calls a function of the host.
    Host(usize, usize),
    /// Nothing: a wait, or an empty node.
    Empty,
}

/// An operation in the queue.
pub struct Queued {
    /// Its number.
    pub seq: u64,
    /// Its context.
    pub context: usize,
    /// Its stream.
    pub stream: u32,
    /// Its place there.
    pub clock: u64,
    /// What is ordered before it.
    pub vc: Vc,
    /// What it does.
    pub op: Op,
    /// What pinned memory that it uses held when it was queued.
    pub pinned: Option<Before>,
}

/// Nanoseconds since the driver's first use.
pub fn now() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

impl State {
    /// What is ordered before the next operation of a stream, the rules of the default stream included.
    fn before(&self, stream: usize) -> Vc {
        let s = &self.streams[&stream];
        let mut vc = s.vc.clone();
        join(&mut vc, &self.host);
        let default = self.contexts[&s.context].default_stream;
        if stream == default {
            for o in self.streams.values().filter(|o| o.context == s.context && !o.nonblocking) {
                join(&mut vc, &o.vc);
            }
        } else if !s.nonblocking {
            join(&mut vc, &self.streams[&default].vc);
        }
        vc
    }

    /// Queues an operation at the end of a stream; returns its number.
    pub fn enqueue(&mut self, stream: usize, op: Op) -> Result<u64, Code> {
        if self.streams[&stream].capture.is_some() {
            return self.capture(stream, op).map(|_| 0);
        }
        let vc = self.before(stream);
        let number = self.streams[&stream].number;
        let (seq, after) = self.enqueue_after(self.streams[&stream].context, number, vc, op);
        if let Some(s) = self.streams.get_mut(&stream) {
            s.vc = after;
            s.last = seq;
        }
        Ok(seq)
    }

    /// Queues an operation with a known order; returns its number and what is ordered before what follows it.
    pub fn enqueue_after(&mut self, context: usize, stream: u32, vc: Vc, op: Op) -> (u64, Vc) {
        self.queued += 1;
        let seq = self.queued;
        let clock = self.clocks.entry(stream).or_insert(0);
        *clock += 1;
        let clock = *clock;
        let mut after = vc.clone();
        after.insert(stream, clock);
        if let Op::Record(e) = op
            && let Some(e) = self.events.get_mut(&e)
        {
            e.vc = after.clone();
            e.seq = seq;
            e.time = None;
            e.asked = false;
            e.captured = None;
        }
        let pinned = self.pinned_before(&op);
        self.queue.push_back(Queued { seq, context, stream, clock, vc, op, pinned });
        (seq, after)
    }

    /// Serial numbers of operations that have run and that nothing orders before one with this clock.
    fn unordered(&self, stream: u32, vc: &Vc) -> Vec<(u32, u32)> {
        if !self.machine.settings.checks.has(Check::StreamRaces) {
            return Vec::new();
        }
        let mut out = Vec::new();
        for (s, ops) in self.unsettled.iter().filter(|(s, _)| **s != stream) {
            let seen = vc.get(s).copied().unwrap_or(0);
            out.extend(ops.iter().rev().take_while(|(c, ..)| *c > seen).map(|(_, first, n)| (*first, first + n)));
        }
        out
    }

    /// Runs one operation.
    fn execute(&mut self, q: Queued) {
        self.done = q.seq;
        if self.contexts.get(&q.context).is_none_or(|c| c.error.is_some()) {
            return;
        }
        let unordered = self.unordered(q.stream, &q.vc);
        let changed = self.changed_by_host(q.pinned.as_ref());
        let result = match q.op {
            Op::Copy(_) if !changed.is_empty() => self.too_early("copy", changed[0]),
            Op::Kernel { module, index, launch, .. } => self
                .run_kernel(q.context, module, index, launch, q.stream, q.clock, unordered)
                .and_then(|()| self.touched_by_last(&changed)),
            Op::Copy(c) => self.run_copy(&c, q.stream, q.clock, &unordered),
            Op::Fill { at, pitch, value, size, width, height } => {
                self.run_fill(at, pitch, value, size, width, height, q.stream, q.clock, &unordered)
            }
            Op::Record(e) => {
                if let Some(e) = self.events.get_mut(&e).filter(|e| e.seq == q.seq) {
                    e.time = Some(now());
                }
                Ok(())
            }
            Op::Free(at) => self.run_free(at, q.stream, q.clock, &unordered),
            Op::Host(..) | Op::Empty => Ok(()),
        };
        if let (Err(code), Some(c)) = (result, self.contexts.get_mut(&q.context)) {
            c.error = Some(code);
        }
    }

    fn run_kernel(
        &mut self,
        context: usize,
        module: usize,
        index: usize,
        launch: Launch,
        stream: u32,
        clock: u64,
        unordered: Vec<(u32, u32)>,
    ) -> Result<(), Code> {
        let part = self.devices[self.contexts[&context].device as usize].part;
        let Some(m) = self.modules.get(&module).map(|l| l.module.clone()) else { return Err(ERROR_INVALID_HANDLE) };
        let launch = Launch { stream, clock, unordered, ..launch };
        let result = self.machine.launch(part, &m, index, &launch);
        self.remember(stream, clock);
        match result {
            Ok(_) => Ok(()),
            Err(LaunchError::Limits { kernel, message }) => {
                Err(self.refuse(ERROR_INVALID_VALUE, &format!("kernel {kernel} cannot be launched: {message}")))
            }
            Err(LaunchError::Finding(f)) => {
                self.report(&f);
                Err(code_of(f.kind))
            }
        }
    }

    /// Takes note of the operation that ran last.
    fn remember(&mut self, stream: u32, clock: u64) {
        if let Some(r) = self.machine.memory.records().next_back() {
            let entry = (clock, r.first, r.count);
            // The serial numbers began anew, and all cells with them.
            if self.unsettled.values().filter_map(|ops| ops.back()).any(|(_, first, _)| *first > entry.1) {
                self.unsettled.clear();
            }
            self.unsettled.entry(stream).or_default().push_back(entry);
        }
    }

    /// Checks and takes note of ranges that a copy or fill reads and writes.
    fn touch(
        &mut self,
        name: &str,
        stream: u32,
        clock: u64,
        unordered: &[(u32, u32)],
        ranges: &[(u64, u64, bool)],
    ) -> Result<(), Code> {
        for (at, bytes, _) in ranges {
            let fits = self.machine.memory.at(*at).is_some_and(|a| *bytes <= a.base + a.size - at);
            if !fits && *bytes != 0 {
                let (near, freed) = self.machine.memory.near(*at);
                let kind = if freed { Kind::UseAfterFree } else { Kind::OutOfBounds };
                return self.stop(
                    kind,
                    name,
                    format!("{bytes} bytes that are not within one allocation"),
                    *at,
                    near,
                    None,
                );
            }
        }
        if !self.machine.settings.checks.has(Check::StreamRaces) {
            return Ok(());
        }
        let serial = self.machine.memory.record(Record {
            first: 0,
            count: 1,
            name: name.into(),
            grid: None,
            lines: None,
            stream,
            clock,
        });
        self.remember(stream, clock);
        // With one stream and no other, nothing can be out of order but the host.
        let alone = self.unsettled.len() < 2 && self.streams.len() < 3;
        for (at, bytes, write) in ranges {
            if alone && !self.is_pinned(*at) {
                continue;
            }
            if let Some((address, other)) = self.machine.touch(*at, *bytes, *write, serial, unordered) {
                let near = self.machine.memory.near(address).0;
                let did = self
                    .machine
                    .memory
                    .record_of(other)
                    .map(|r| format!("{} on stream {} did the other", r.name, r.stream));
                let what = if *write { "write" } else { "read" };
                let m = format!("a {what} that no wait orders after an operation of another stream or of the host");
                return self.stop(Kind::StreamRace, name, m, address, near, did);
            }
        }
        Ok(())
    }

    pub(super) fn stop(
        &mut self,
        kind: Kind,
        name: &str,
        message: String,
        at: u64,
        near: String,
        last: Option<String>,
    ) -> Result<(), Code> {
        let f = Finding {
            kind,
            message,
            kernel: name.to_string(),
            line: 0,
            source: None,
            block: None,
            thread: None,
            address: Some(at),
            near: Some(near),
            last,
        };
        self.report(&f);
        Err(code_of(kind))
    }

    fn run_copy(&mut self, c: &Copy, stream: u32, clock: u64, unordered: &[(u32, u32)]) -> Result<(), Code> {
        let mut ranges = Vec::new();
        for row in 0..c.height {
            if let Place::Device(a) = c.from {
                ranges.push((a + row * c.from_pitch, c.width, false));
            }
            if let Place::Device(a) = c.to {
                ranges.push((a + row * c.to_pitch, c.width, true));
            }
        }
        self.touch("copy", stream, clock, unordered, &ranges)?;
        for row in 0..c.height {
            let width = c.width as usize;
            let from = match &c.from {
                Place::Device(a) => (a + row * c.from_pitch) as *const u8,
                Place::Host(p) => (*p as u64 + row * c.from_pitch) as *const u8,
                Place::Staged(b) => b[(row * c.from_pitch) as usize..][..width].as_ptr(),
            };
            let to = match c.to {
                Place::Device(a) => (a + row * c.to_pitch) as *mut u8,
                Place::Host(p) => (p as u64 + row * c.to_pitch) as *mut u8,
                Place::Staged(_) => return Err(ERROR_INVALID_VALUE),
            };
            // SAFETY: device ranges were checked; for its own memory the caller answers, as with any driver.
            unsafe { std::ptr::copy(from, to, width) };
            if let Place::Device(t) = c.to {
                let t = t + row * c.to_pitch;
                match c.from {
                    Place::Device(f) => self.machine.memory.arena().copy_marks(f + row * c.from_pitch, t, c.width),
                    _ => self.machine.memory.arena().mark_range(t, c.width),
                }
            }
        }
        Ok(())
    }

    fn run_fill(
        &mut self,
        at: u64,
        pitch: u64,
        value: u32,
        size: u32,
        width: u64,
        height: u64,
        stream: u32,
        clock: u64,
        unordered: &[(u32, u32)],
    ) -> Result<(), Code> {
        let bytes = width * size as u64;
        let ranges: Vec<_> = (0..height).map(|r| (at + r * pitch, bytes, true)).collect();
        self.touch("memset", stream, clock, unordered, &ranges)?;
        let pattern = value.to_le_bytes();
        for (start, bytes, _) in ranges {
            // SAFETY: the range was checked.
            let row = unsafe { std::slice::from_raw_parts_mut(start as *mut u8, bytes as usize) };
            row.chunks_exact_mut(size as usize).for_each(|c| c.copy_from_slice(&pattern[..size as usize]));
            self.machine.memory.arena().mark_range(start, bytes);
        }
        Ok(())
    }

    /// A free that follows a stream, after which no other stream may use the memory.
    fn run_free(&mut self, at: u64, stream: u32, clock: u64, unordered: &[(u32, u32)]) -> Result<(), Code> {
        let size = self.machine.memory.at(at).map_or(0, |a| a.size);
        self.touch("free", stream, clock, unordered, &[(at, size, true)])?;
        self.machine.memory.free(at, &[Purpose::Device]).map(|_| ()).ok_or(ERROR_INVALID_VALUE)
    }

    /// The host knows that what this clock holds has happened.
    pub fn host_knows(&mut self, vc: &Vc) {
        join(&mut self.host, vc);
        if self.queue.is_empty() {
            for (s, ops) in &mut self.unsettled {
                let seen = self.host.get(s).copied().unwrap_or(0);
                while ops.front().is_some_and(|(c, ..)| *c <= seen) {
                    ops.pop_front();
                }
            }
            self.unsettled.retain(|_, ops| !ops.is_empty());
        }
    }
}

/// The driver's result for a finding.
pub fn code_of(kind: Kind) -> Code {
    match kind {
        Kind::OutOfBounds | Kind::UseAfterFree | Kind::ReadOnly => ERROR_ILLEGAL_ADDRESS,
        Kind::Misaligned => ERROR_MISALIGNED_ADDRESS,
        Kind::Deadlock => ERROR_LAUNCH_TIMEOUT,
        Kind::BadOperand => ERROR_ILLEGAL_INSTRUCTION,
        _ => ERROR_LAUNCH_FAILED,
    }
}

/// Runs the queue up to operation `seq`.
pub fn run_until(seq: u64) -> Result<(), Code> {
    loop {
        let mut guard = lock();
        let s = guard.as_mut().ok_or(ERROR_NOT_INITIALIZED)?;
        if s.done >= seq && !s.in_host_function {
            return Ok(());
        }
        if s.in_host_function {
            drop(guard);
            std::thread::yield_now();
            continue;
        }
        let Some(q) = s.queue.pop_front() else { return Ok(()) };
        if let Op::Host(f, data) = q.op {
            s.in_host_function = true;
            drop(guard);
            // SAFETY: the caller of cuLaunchHostFunc gave a function of this type.
            unsafe {
                let f = std::mem::transmute::<usize, unsafe extern "C" fn(*mut c_void)>(f);
                f(data as *mut c_void);
            }
            with(|s| {
                s.in_host_function = false;
                s.functions_run += 1;
                s.done = q.seq;
                Ok(())
            })?;
            continue;
        }
        s.execute(q);
    }
}

/// Waits for a stream: runs what it needs, and tells the host's clock.
pub fn wait_stream(h: usize) -> Result<(), Code> {
    let (seq, context) = with(|s| {
        let st = s.streams.get(&h).ok_or(ERROR_INVALID_HANDLE)?;
        if st.capture.is_some() {
            return Err(ERROR_STREAM_CAPTURE_UNSUPPORTED);
        }
        let default = s.contexts[&st.context].default_stream;
        // Waiting for the default stream is waiting for all streams that it waits for.
        let all = s.streams.values().filter(|o| h == default && o.context == st.context && !o.nonblocking);
        Ok((all.map(|o| o.last).max().unwrap_or(0).max(st.last), st.context))
    })?;
    run_until(seq)?;
    with(|s| {
        let Some(st) = s.streams.get(&h) else { return Ok(()) };
        let default = s.contexts.get(&st.context).map_or(0, |c| c.default_stream);
        let mut vc = st.vc.clone();
        for o in s.streams.values().filter(|o| h == default && o.context == st.context && !o.nonblocking) {
            join(&mut vc, &o.vc);
        }
        s.host_knows(&vc);
        s.contexts.get(&context).and_then(|c| c.error).map_or(Ok(()), Err)
    })
}

/// Waits for all streams of a context.
pub fn wait_context(c: usize) -> Result<(), Code> {
    with(|s| {
        let capturing = s.streams.values().any(|st| st.context == c && st.capture.is_some());
        if capturing { Err(ERROR_STREAM_CAPTURE_UNSUPPORTED) } else { Ok(()) }
    })?;
    let seq = with(|s| Ok(s.queued))?;
    run_until(seq)?;
    with(|s| {
        let mut vc = Vc::new();
        s.streams.values().filter(|st| st.context == c).for_each(|st| join(&mut vc, &st.vc));
        s.host_knows(&vc);
        s.contexts.get(&c).and_then(|c| c.error).map_or(Ok(()), Err)
    })
}
