//! A launch: its blocks are handed to workers, one for each core; a worker holds several blocks where they wait for
//! one another.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use super::block::Block;
use super::run::{Turn, turn};
use super::stats::Counters;
use super::warp::{Line, Wait};
use super::{Env, Stop};
use crate::check::{Checks, Finding, Kind};
use crate::device::memory::Memory;
use crate::program::{Kernel, Program, Run};

/// Operations that a warp runs before the next has its turn.
const QUANTUM: u32 = 192;
/// Strong reads of a warp without progress anywhere, after which its block gives way to others.
pub const IMPATIENT: u64 = 64;
/// Strong reads of a block's warps without progress anywhere, after which lanes that wait where paths meet go on alone.
const PATIENT: u64 = 1 << 12;
/// Strong reads of a block's warp without progress anywhere, after which nothing more is expected.
const HOPELESS: u64 = 1 << 21;

/// What is launched.
#[derive(Clone)]
pub struct Job {
    /// Blocks along each axis.
    pub grid: [u32; 3],
    /// Threads along each axis.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    /// The parameters, as laid out by the kernel.
    pub params: Vec<u8>,
    /// The constants, with addresses filled in.
    pub konst: Arc<Vec<Line>>,
    /// Chooses the order of blocks and warps; 0 is the plain order.
    pub seed: u64,
    /// Multiprocessors of the device.
    pub sms: u32,
    /// Blocks that the device holds at once.
    pub resident: u32,
    /// Threads of the host; 0 for all cores.
    pub workers: u32,
}

impl Job {
    /// Threads of a block.
    pub fn threads(&self) -> u32 {
        self.block.iter().product()
    }

    /// Blocks of the grid.
    pub fn blocks(&self) -> u32 {
        self.grid.iter().product()
    }
}

impl Kernel {
    /// Bytes of shared memory with `dynamic` bytes of dynamic.
    pub fn total_shared(&self, dynamic: u32) -> u32 {
        if dynamic == 0 { self.shared_bytes } else { self.dynamic_at + dynamic }
    }

    /// The constants with the addresses of variables filled in.
    pub fn constants(&self, address_of: impl Fn(u32) -> u64) -> Vec<Line> {
        let mut out = vec![Line([0; 64]); self.konst.len().div_ceil(64).max(1)];
        for (i, b) in self.konst.iter().enumerate() {
            out[i / 64].0[i % 64] = *b;
        }
        for r in &self.relocs {
            let v = address_of(r.var).wrapping_add(r.addend as u64).to_le_bytes();
            for lane in 0..32 {
                let at = r.at as usize + lane * 8;
                out[at / 64].0[at % 64..at % 64 + 8].copy_from_slice(&v);
            }
        }
        out
    }
}

/// A step of a generator of pseudo-random numbers (splitmix64).
pub fn mix(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// What a launch is known by to the checks between launches.
#[derive(Clone, Copy, Debug, Default)]
pub struct Standing<'a> {
    /// Serial number of its first block.
    pub first_serial: u32,
    /// Serial numbers of earlier operations that nothing orders before it.
    pub unordered: &'a [(u32, u32)],
}

/// Runs a launch to its end.
///
/// # Errors
/// The finding that stopped it; of several, that of the first block.
pub fn launch(
    program: &Program,
    kernel: &Kernel,
    job: &Job,
    checks: Checks,
    memory: &mut Memory,
    standing: Standing,
    counting: bool,
) -> Result<Counters, Box<Finding>> {
    let ranges = memory.ranges();
    let env = Env {
        kernel,
        program,
        job,
        checks,
        memory,
        ranges: &ranges,
        first_serial: standing.first_serial,
        floor: standing.unordered.iter().map(|u| u.0).min().unwrap_or(u32::MAX).min(standing.first_serial),
        unordered: standing.unordered,
        releases: Mutex::new(HashMap::new()),
        progress: AtomicU64::new(0),
        cancelled: AtomicBool::new(false),
        counting,
        busy: AtomicU32::new(0),
    };
    let total = job.blocks();
    let next = AtomicU32::new(0);
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
    let wanted = if job.workers == 0 { cores } else { job.workers };
    let workers = wanted.min(total).max(1);
    let resident = (job.resident.max(1) / workers).max(1);
    env.busy.store(workers, Relaxed);
    let found: Mutex<Option<(u32, Box<Finding>)>> = Mutex::new(None);
    let totals = Mutex::new(Counters::default());
    let work = || {
        let mut counters = if counting { Counters::new(kernel) } else { Counters::default() };
        let mut worker =
            Worker { env: &env, next: &next, total, resident, blocks: Vec::new(), spare: Vec::new(), idle: false };
        let end = worker.run(&mut counters);
        if !worker.idle {
            env.busy.fetch_sub(1, Relaxed);
        }
        if let Err((linear, Stop::Finding(f))) = end {
            env.cancelled.store(true, Relaxed);
            if let Ok(mut slot) = found.lock()
                && slot.as_ref().is_none_or(|(l, _)| linear < *l)
            {
                *slot = Some((linear, f));
            }
        }
        if let Ok(mut t) = totals.lock() {
            t.merge(&counters);
        }
    };
    if workers == 1 {
        work();
    } else {
        std::thread::scope(|s| {
            for _ in 1..workers {
                s.spawn(work);
            }
            work();
        });
    }
    match found.into_inner() {
        Ok(Some((_, f))) => Err(f),
        _ => Ok(totals.into_inner().unwrap_or_default()),
    }
}

struct Worker<'a> {
    env: &'a Env<'a>,
    next: &'a AtomicU32,
    total: u32,
    resident: u32,
    blocks: Vec<Block>,
    spare: Vec<Block>,
    /// Sees no hope of progress in its own blocks.
    idle: bool,
}

impl Worker<'_> {
    fn run(&mut self, counters: &mut Counters) -> Result<(), (u32, Stop)> {
        let mut current = 0;
        loop {
            if self.blocks.is_empty() && !self.take() {
                return Ok(());
            }
            current %= self.blocks.len();
            let linear = self.blocks[current].linear;
            let state = step(self.env, &mut self.blocks[current], counters).map_err(|e| (linear, e))?;
            match state {
                State::Done => {
                    let b = self.blocks.swap_remove(current);
                    self.spare.push(b);
                }
                State::Ready => self.set_idle(false),
                State::Stuck => {
                    // Blocks that wait for others need them to run: take another, or go round.
                    if self.blocks.len() >= self.resident as usize || !self.take() {
                        current += 1;
                        let hopeless = |w: &super::warp::Warp| w.done() || w.polls.0 > HOPELESS || !any(w);
                        let idle = self.blocks.iter().all(|b| b.warps.iter().all(hopeless));
                        if idle && self.env.busy.load(Relaxed) == !self.idle as u32 {
                            let f = deadlock(self.env, &self.blocks[current % self.blocks.len()]);
                            return Err((linear, Stop::Finding(f)));
                        }
                        self.set_idle(idle);
                        if self.blocks.len() == 1 {
                            std::thread::yield_now();
                        }
                    } else {
                        current = self.blocks.len() - 1;
                    }
                }
            }
            // With a seed, blocks of a worker are mixed.
            if self.env.job.seed != 0 {
                let roll = self.blocks.first_mut().map_or(0, |b| b.roll());
                if roll & 7 == 0 && self.blocks.len() < (self.resident as usize).min(4) {
                    self.take();
                }
                current = roll as usize >> 8;
            }
        }
    }

    fn set_idle(&mut self, idle: bool) {
        if idle != self.idle {
            self.idle = idle;
            if idle {
                self.env.busy.fetch_sub(1, Relaxed)
            } else {
                self.env.busy.fetch_add(1, Relaxed)
            };
        }
    }

    /// Begins another block of the grid; false where none is left.
    fn take(&mut self) -> bool {
        let at = self.next.fetch_add(1, Relaxed);
        if at >= self.total {
            self.next.store(self.total, Relaxed);
            return false;
        }
        let linear = if self.env.job.seed == 0 { at } else { shuffled(at, self.total, self.env.job.seed) };
        let mut b = self.spare.pop().unwrap_or_else(|| Block::new(self.env));
        b.start(self.env, linear);
        self.blocks.push(b);
        true
    }
}

/// Whether a warp has a path that can run.
fn any(w: &super::warp::Warp) -> bool {
    (0..w.nodes.len()).any(|n| w.runnable(n))
}

/// A permutation of the blocks: multiplication by a number prime to their count, and a shift.
fn shuffled(at: u32, total: u32, seed: u64) -> u32 {
    let gcd = |mut a: u64, mut b: u64| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    let n = total as u64;
    let mut step = mix(seed) % n.max(1);
    while gcd(step, n) != 1 {
        step += 1;
    }
    ((at as u64 * step + mix(seed ^ 0x55) % n) % n) as u32
}

/// What a block can do after its warps had a turn.
enum State {
    Ready,
    Stuck,
    Done,
}

/// Gives every warp of a block a turn.
fn step(env: &Env, block: &mut Block, counters: &mut Counters) -> Result<State, Stop> {
    let n = block.warps.len();
    let (offset, seeded) = if env.job.seed == 0 { (0, false) } else { (block.roll() as usize % n, true) };
    let (mut ready, mut spinning) = (false, false);
    for k in 0..n {
        let w = (k + offset) % n;
        let quantum = if seeded { 1 + (block.roll() % QUANTUM as u64) as u32 } else { QUANTUM };
        let t = if env.counting {
            turn::<true>(env, block, w, quantum, counters)?
        } else {
            turn::<false>(env, block, w, quantum, counters)?
        };
        ready |= t == Turn::Ready;
        spinning |= t == Turn::Spinning;
    }
    if std::mem::take(&mut block.progress) != 0 {
        env.progress.fetch_add(1, Relaxed);
    }
    if env.cancelled.load(Relaxed) {
        return Err(Stop::Cancelled);
    }
    if block.done() {
        return Ok(State::Done);
    }
    // A barrier may have been completed after the warps that wait there had their turn.
    let can = block.warps.iter().any(|w| !w.done() && any(w));
    let stuck = !ready && spinning && all_impatient(block);
    let patient = |w: &super::warp::Warp| w.done() || !any(w) || w.polls.0 >= PATIENT;
    if (!can || stuck && block.warps.iter().all(patient)) && block.warps.iter_mut().fold(false, |p, w| w.part() | p) {
        return Ok(State::Ready);
    }
    if !can {
        return Err(Stop::Finding(deadlock(env, block)));
    }
    Ok(if stuck { State::Stuck } else { State::Ready })
}

fn all_impatient(block: &Block) -> bool {
    block.warps.iter().filter(|w| !w.done() && any(w)).all(|w| w.polls.0 >= IMPATIENT)
}

/// Whether an operation is a jump to itself.
fn is_endless(env: &Env, pc: u32) -> bool {
    env.kernel.ops.get(pc as usize).is_some_and(|op| matches!(op.run, Run::Branch) && op.x == pc)
}

/// A deadlock, with what each warp waits for.
#[cold]
fn deadlock(env: &Env, block: &Block) -> Box<Finding> {
    let line = |pc: u32| env.kernel.meta.get(pc as usize).map_or(0, |m| m.line);
    let mut text = String::from("deadlock: no thread of the block can go on");
    let mut first = None;
    for (i, w) in block.warps.iter().enumerate().filter(|(_, w)| !w.done()) {
        for n in w.waiting() {
            let pc = if matches!(n.wait, Wait::Barrier(_)) { n.pc.saturating_sub(1) } else { n.pc };
            first.get_or_insert(pc);
            let at = line(pc);
            let what = match n.wait {
                Wait::None if is_endless(env, pc) => "jumps to itself for ever".to_string(),
                Wait::None => "reads the same again and again".to_string(),
                Wait::Barrier(id) => {
                    let b = block.barriers[id as usize];
                    let expected = if b.expected == 0 { block.threads } else { b.expected };
                    format!("waits at barrier {id}, where {} of {expected} threads have arrived", b.arrived)
                }
                Wait::Lanes(need) => format!("waits for lanes 0x{:08x} of its warp", need & !n.mask),
            };
            text += &format!("\n    warp {i}, lanes 0x{:08x}, PTX line {at}: {what}", n.mask);
        }
    }
    Box::new(Finding {
        kind: Kind::Deadlock,
        message: text,
        kernel: env.kernel.name.clone(),
        line: first.map_or(0, line),
        source: first.and_then(|pc| env.program.source(env.kernel, pc)),
        block: Some(block.id),
        thread: None,
        address: None,
        near: None,
        last: None,
    })
}
