//! A block of threads: its shared memory, barriers and warps.

use super::Env;
use super::order::Clock;
use super::shared::SharedCell;
use super::warp::{Wait, Warp};

/// A barrier of a block.
#[derive(Clone, Copy, Default)]
pub struct Barrier {
    /// Threads that have arrived.
    pub arrived: u32,
    /// Threads that it waits for; 0 for all of the block.
    pub expected: u32,
    /// Warps that have arrived, waiting or not.
    pub warps: u32,
    /// What the arrived said, for reductions: all, any, count.
    pub all: bool,
    /// See `all`.
    pub any: bool,
    /// See `all`.
    pub count: u32,
    /// The result of the last reduction, to be read by who was woken.
    pub result: (bool, bool, u32),
}

/// A block.
pub struct Block {
    /// Its index in the grid.
    pub id: [u32; 3],
    /// Its index, linear.
    pub linear: u32,
    /// Its serial number among all blocks of all launches.
    pub serial: u32,
    /// Threads along each axis.
    pub dim: [u32; 3],
    /// Shared memory.
    pub shared: Vec<u128>,
    /// Bytes of shared memory that the kernel declared and the launch gave.
    pub shared_bytes: u32,
    /// What is known of the grains of shared memory.
    pub cells: Vec<SharedCell>,
    /// Local memory of all threads.
    pub local: Vec<u128>,
    /// Which bytes of it were written.
    pub local_written: Vec<u64>,
    /// Its warps.
    pub warps: Vec<Warp>,
    /// Its barriers.
    pub barriers: [Barrier; 16],
    /// Time in the block: goes on at each synchronisation.
    pub now: u32,
    /// Threads that have not ended.
    pub threads: u32,
    /// What is ordered before it in other blocks.
    pub clock: Clock,
    /// What warps released through shared or global addresses.
    pub releases: std::collections::HashMap<u64, Box<[u32; 32]>>,
    /// The allocation that the last accesses hit.
    pub hot: (u64, u64),
    /// Steps that threads elsewhere may have waited for, not yet told to the launch.
    pub progress: u64,
    /// State of the order of warps.
    pub random: u64,
}

impl Block {
    /// A block with memory for this launch.
    pub fn new(env: &Env) -> Block {
        let job = env.job;
        let threads = job.threads();
        let warps = threads.div_ceil(32);
        let shared_bytes = env.kernel.total_shared(job.shared);
        let local = (env.kernel.local_bytes as usize * threads as usize).div_ceil(16);
        let cells = if env.checks == crate::check::Checks::NONE { 0 } else { shared_bytes.div_ceil(env.kernel.grain) };
        let mut b = Block {
            id: [0; 3],
            linear: 0,
            serial: 0,
            dim: job.block,
            shared: vec![0; shared_bytes.div_ceil(16) as usize],
            shared_bytes,
            cells: vec![SharedCell::default(); cells as usize],
            local: vec![0; local],
            local_written: vec![0; (local * 16).div_ceil(64)],
            warps: Vec::with_capacity(warps as usize),
            barriers: Default::default(),
            now: 1,
            threads,
            clock: Clock::default(),
            releases: Default::default(),
            hot: (0, 0),
            progress: 0,
            random: 0,
        };
        for w in 0..warps {
            b.warps.push(Warp::new(env.kernel.reg_bytes, lanes_of(threads, w)));
        }
        b
    }

    /// Begins block `linear` of the grid.
    pub fn start(&mut self, env: &Env, linear: u32) {
        let g = env.job.grid;
        self.linear = linear;
        self.serial = env.first_serial + linear;
        self.id = [linear % g[0], linear / g[0] % g[1], linear / g[0] / g[1]];
        self.cells.fill(SharedCell::default());
        self.local_written.fill(0);
        self.barriers = Default::default();
        self.now = 1;
        self.threads = env.job.threads();
        self.clock = Clock::default();
        self.releases.clear();
        self.random = super::launch::mix(env.job.seed ^ (linear as u64) << 20 | 1);
        for w in 0..self.warps.len() {
            self.warps[w].start(lanes_of(self.threads, w as u32));
            self.specials(env, w);
        }
    }

    /// The index of a thread from its linear one.
    pub fn thread(&self, t: usize) -> [u32; 3] {
        let (t, d) = (t as u32, self.dim);
        [t % d[0], t / d[0] % d[1], t / d[0] / d[1]]
    }

    /// A number for choosing the order of warps.
    pub fn roll(&mut self) -> u64 {
        self.random = super::launch::mix(self.random);
        self.random
    }

    /// Whether all its threads have ended.
    pub fn done(&self) -> bool {
        self.threads == 0
    }

    /// Completes a barrier where all that it waits for have come. `w` synchronises the clocks of its warps.
    pub fn try_barrier(&mut self, id: usize) -> bool {
        let b = self.barriers[id];
        let expected = if b.expected == 0 { self.threads } else { b.expected };
        if b.arrived == 0 || b.arrived < expected {
            return false;
        }
        let mut seen = [0u32; 32];
        for w in super::Bits(b.warps) {
            let warp = &self.warps[w];
            for (s, v) in seen.iter_mut().zip(&warp.seen) {
                *s = (*s).max(*v);
            }
        }
        for w in super::Bits(b.warps) {
            seen[w] = self.now;
        }
        self.now += 1;
        self.progress += 1;
        for w in super::Bits(b.warps) {
            let mut woken = false;
            for n in &mut self.warps[w].nodes {
                if n.wait == Wait::Barrier(id as u8) {
                    n.wait = Wait::None;
                    woken = true;
                }
            }
            // Who only arrived is ordered before the others, not they before it.
            if woken {
                for (s, v) in self.warps[w].seen.iter_mut().zip(&seen) {
                    *s = (*s).max(*v);
                }
            }
        }
        let count = b.count;
        self.barriers[id] = Barrier { result: (b.all, b.any, count), ..Barrier::default() };
        true
    }

    /// After threads ended: barriers that waited for them may be complete.
    pub fn recheck_barriers(&mut self) {
        for id in 0..16 {
            if self.barriers[id].arrived != 0 && self.barriers[id].expected == 0 {
                self.try_barrier(id);
            }
        }
    }

    fn specials(&mut self, env: &Env, w: usize) {
        use crate::program::{Special, Width};
        let (job, dim, id) = (env.job, self.dim, self.id);
        let warps = self.warps.len() as u32;
        let shared = (job.shared, self.shared_bytes);
        let sms = job.sms.max(1);
        for (special, width, offset) in &env.kernel.specials {
            for lane in 0..32usize {
                let t = self.thread(w * 32 + lane);
                let bit = 1u32 << lane;
                let v = match *special {
                    Special::Tid(a) => t[a as usize],
                    Special::NTid(a) => dim[a as usize],
                    Special::CtaId(a) => id[a as usize],
                    Special::NCtaId(a) => job.grid[a as usize],
                    Special::ClusterId(a) => id[a as usize],
                    Special::NClusterId(a) => job.grid[a as usize],
                    Special::ClusterCtaId(_) | Special::ClusterCtaRank => 0,
                    Special::ClusterNCtaId(_) | Special::ClusterNCtaRank => 1,
                    Special::LaneId => lane as u32,
                    Special::WarpId => w as u32,
                    Special::NWarpId => warps,
                    Special::SmId => self.linear % sms,
                    Special::NSmId => sms,
                    Special::GridId => 0,
                    Special::LaneMaskEq => bit,
                    Special::LaneMaskLe => bit | (bit - 1),
                    Special::LaneMaskLt => bit - 1,
                    Special::LaneMaskGe => !(bit - 1),
                    Special::LaneMaskGt => !(bit - 1) & !bit,
                    Special::DynamicSharedSize => shared.0,
                    Special::TotalSharedSize => shared.1,
                };
                // SAFETY: the decoder gave the register its 32 lanes of this width.
                unsafe {
                    let p = (self.warps[w].regs.as_mut_ptr() as *mut u8).add(*offset as usize);
                    match width {
                        Width::W16 => *(p as *mut u16).add(lane) = v as u16,
                        Width::W64 => *(p as *mut u64).add(lane) = v as u64,
                        _ => *(p as *mut u32).add(lane) = v,
                    }
                }
            }
        }
    }
}

fn lanes_of(threads: u32, warp: u32) -> u32 {
    match threads - warp * 32 {
        n if n >= 32 => !0,
        n => (1 << n) - 1,
    }
}
