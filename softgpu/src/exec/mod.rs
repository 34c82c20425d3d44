//! The machine: runs the blocks of a launch on the cores of the host.

pub mod access;
pub mod asynchronous;
pub mod atomic;
pub mod block;
pub mod collective;
mod global;
pub mod lanes;
pub mod launch;
pub mod local;
pub mod matrix;
pub mod misc;
pub mod order;
mod run;
pub mod shared;
pub mod stats;
pub mod sync;
pub mod warp;

use crate::check::{Check, Checks, Finding, Kind};
use crate::device::memory::{Memory, Range};
use crate::program::{Kernel, Program};
use block::Block;
use launch::Job;
use stats::Counters;

/// Generic addresses from here on are in the shared memory of the block.
pub const SHARED_WINDOW: u64 = 0x1000_0000_0000_0000;
/// Generic addresses from here on are in the local memory of the thread.
pub const LOCAL_WINDOW: u64 = 0x2000_0000_0000_0000;
/// Generic addresses from here on are parameters of the kernel.
pub const PARAM_WINDOW: u64 = 0x3000_0000_0000_0000;
/// Size of each of these windows.
pub const WINDOW: u64 = 1 << 32;

/// What follows an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// The next operation.
    Next,
    /// These threads wait; when they are woken they go on at the next operation.
    Park,
    /// These threads wait and try the same operation again.
    Retry,
    /// The next operation, after other warps had their turn (what looks like spinning).
    Yield,
}

/// Why a launch ends before its time.
#[derive(Debug)]
pub enum Stop {
    /// A finding.
    Finding(Box<Finding>),
    /// Another worker found something.
    Cancelled,
}

/// What all blocks of a launch share.
pub struct Env<'a> {
    /// The kernel.
    pub kernel: &'a Kernel,
    /// Its module.
    pub program: &'a Program,
    /// The launch.
    pub job: &'a Job,
    /// What is checked.
    pub checks: Checks,
    /// Device memory.
    pub memory: &'a Memory,
    /// Live ranges of it, sorted.
    pub ranges: &'a [Range],
    /// Serial number of the first block.
    pub first_serial: u32,
    /// Serial numbers from here on may be unordered with this launch.
    pub floor: u32,
    /// Ranges of serial numbers of earlier operations that nothing orders before this one.
    pub unordered: &'a [(u32, u32)],
    /// What blocks released to one another.
    pub releases: order::Releases,
    /// Counts steps of progress that spinning threads may be waiting for.
    pub progress: std::sync::atomic::AtomicU64,
    /// Set when a worker found something.
    pub cancelled: std::sync::atomic::AtomicBool,
    /// Workers that may still make progress.
    pub busy: std::sync::atomic::AtomicU32,
    /// Whether to count more than nothing.
    pub counting: bool,
}

/// One warp at work.
pub struct Ctx<'a> {
    /// What all blocks share.
    pub env: &'a Env<'a>,
    /// Its block.
    pub block: &'a mut Block,
    /// Its number in the block.
    pub w: usize,
    /// Its registers.
    pub regs: *mut u8,
    /// The constants.
    pub konst: *const u8,
    /// The operation being run.
    pub pc: u32,
    /// The node of the warp's tree being run.
    pub node: usize,
    /// Counters of the worker.
    pub counters: &'a mut Counters,
}

impl Ctx<'_> {
    /// The lanes of an operand.
    #[inline(always)]
    pub fn lanes<T: Copy>(&self, o: i32) -> &[T; 32] {
        // SAFETY: offsets come from the decoder, which gave every register and constant its 32 lanes of this width.
        unsafe { &*(lanes::at::<T>(self.regs, self.konst, o) as *const [T; 32]) }
    }

    /// The lanes of a register, to be written.
    #[inline(always)]
    pub fn lanes_mut<T: Copy>(&mut self, o: i32) -> &mut [T; 32] {
        debug_assert!(o >= 0);
        // SAFETY: as above; registers are only written by their own warp.
        unsafe { &mut *(self.regs.add(o as usize) as *mut [T; 32]) }
    }

    /// Operand `i` of the operation's list.
    #[inline(always)]
    pub fn listed(&self, op: &crate::program::Op, i: usize) -> i32 {
        self.env.kernel.lists[op.l as usize + i]
    }

    /// Whether a check is on.
    #[inline(always)]
    pub fn checks(&self, c: Check) -> bool {
        self.env.checks.has(c)
    }

    /// A strong read, or an atomic that changed nothing, that may be waiting for another thread: after many without
    /// progress anywhere, others have their turn.
    pub fn poll(&mut self) -> Flow {
        let progress =
            self.env.progress.load(std::sync::atomic::Ordering::Relaxed) << 20 | self.block.progress & 0xf_ffff;
        let polls = &mut self.block.warps[self.w].polls;
        if polls.1 != progress {
            *polls = (0, progress);
        }
        polls.0 += 1;
        if polls.0 >= launch::IMPATIENT { Flow::Yield } else { Flow::Next }
    }

    /// Lanes of this warp that exist and have not ended.
    pub fn live(&self) -> u32 {
        self.block.warps[self.w].live
    }

    /// A finding at this operation, of a lane.
    #[cold]
    pub fn finding(&self, kind: Kind, lane: Option<usize>, message: String) -> Finding {
        let meta = self.env.kernel.meta[self.pc as usize];
        Finding {
            kind,
            message,
            kernel: self.env.kernel.name.clone(),
            line: meta.line,
            source: self.env.program.source(self.env.kernel, self.pc),
            block: Some(self.block.id),
            thread: lane.map(|l| self.block.thread(self.w * 32 + l)),
            address: None,
            near: None,
            last: None,
        }
    }

    /// [`Ctx::finding`] as an error.
    #[cold]
    pub fn stop<T>(&self, kind: Kind, lane: Option<usize>, message: impl Into<String>) -> Result<T, Stop> {
        Err(Stop::Finding(Box::new(self.finding(kind, lane, message.into()))))
    }

    /// The PTX line of an operation of this kernel, in words.
    pub fn line_of(&self, pc: u32) -> String {
        match self.env.kernel.meta.get(pc as usize) {
            Some(m) => format!("PTX line {}", m.line),
            None => "an unknown line".to_string(),
        }
    }
}

/// The lanes of a mask, in order.
#[derive(Clone, Copy)]
pub struct Bits(pub u32);

impl Iterator for Bits {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let l = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(l)
    }
}
