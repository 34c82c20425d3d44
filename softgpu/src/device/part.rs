//! The parts that the device can stand for, with their limits, and what of them a launch needs.

use crate::program::Kernel;

/// A part.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// The name that chooses it.
    pub id: &'static str,
    /// The name that the driver gives.
    pub name: &'static str,
    /// Compute capability.
    pub capability: (u32, u32),
    /// Multiprocessors.
    pub sms: u32,
    /// Bytes of device memory.
    pub memory: u64,
    /// Threads of a multiprocessor.
    pub threads_per_sm: u32,
    /// Blocks of a multiprocessor.
    pub blocks_per_sm: u32,
    /// Bytes of shared memory of a multiprocessor.
    pub shared_per_sm: u32,
    /// The most bytes of shared memory of a block, where the kernel asked for more than 48 KiB.
    pub shared_opt_in: u32,
    /// Bytes of the L2 cache.
    pub l2: u32,
    /// Clock in kHz.
    pub clock: u32,
    /// Memory clock in kHz.
    pub memory_clock: u32,
    /// Width of the memory bus in bits.
    pub bus: u32,
}

const GIB: u64 = 1 << 30;

/// All parts.
pub static PARTS: &[Part] = &[
    part(
        "a100",
        "NVIDIA A100-SXM4-80GB",
        (8, 0),
        108,
        79 * GIB,
        (2048, 32, 167_936, 166_912),
        40 << 20,
        (1_410, 1_593, 5120),
    ),
    part(
        "a100-40gb",
        "NVIDIA A100-SXM4-40GB",
        (8, 0),
        108,
        39 * GIB,
        (2048, 32, 167_936, 166_912),
        40 << 20,
        (1_410, 1_215, 5120),
    ),
    part("a10", "NVIDIA A10", (8, 6), 72, 22 * GIB, (1536, 16, 102_400, 101_376), 6 << 20, (1_695, 6_251, 384)),
    part(
        "rtx3090",
        "NVIDIA GeForce RTX 3090",
        (8, 6),
        82,
        24 * GIB,
        (1536, 16, 102_400, 101_376),
        6 << 20,
        (1_695, 9_751, 384),
    ),
    part("l4", "NVIDIA L4", (8, 9), 58, 22 * GIB, (1536, 24, 102_400, 101_376), 48 << 20, (2_040, 6_251, 192)),
    part("l40s", "NVIDIA L40S", (8, 9), 142, 44 * GIB, (1536, 24, 102_400, 101_376), 96 << 20, (2_520, 9_001, 384)),
    part(
        "rtx4090",
        "NVIDIA GeForce RTX 4090",
        (8, 9),
        128,
        24 * GIB,
        (1536, 24, 102_400, 101_376),
        72 << 20,
        (2_520, 10_501, 384),
    ),
    part(
        "h100-pcie",
        "NVIDIA H100 PCIe",
        (9, 0),
        114,
        79 * GIB,
        (2048, 32, 233_472, 232_448),
        50 << 20,
        (1_755, 1_593, 5120),
    ),
    part(
        "h100-sxm",
        "NVIDIA H100 80GB HBM3",
        (9, 0),
        132,
        79 * GIB,
        (2048, 32, 233_472, 232_448),
        50 << 20,
        (1_980, 2_619, 5120),
    ),
    part("h200", "NVIDIA H200", (9, 0), 132, 139 * GIB, (2048, 32, 233_472, 232_448), 50 << 20, (1_980, 3_201, 6144)),
    part("b200", "NVIDIA B200", (10, 0), 148, 178 * GIB, (2048, 32, 233_472, 232_448), 126 << 20, (1_965, 3_996, 7680)),
    part(
        "rtx5090",
        "NVIDIA GeForce RTX 5090",
        (12, 0),
        170,
        31 * GIB,
        (1536, 24, 102_400, 101_376),
        96 << 20,
        (2_407, 14_001, 512),
    ),
];

const fn part(
    id: &'static str,
    name: &'static str,
    capability: (u32, u32),
    sms: u32,
    memory: u64,
    (threads_per_sm, blocks_per_sm, shared_per_sm, shared_opt_in): (u32, u32, u32, u32),
    l2: u32,
    (clock, memory_clock, bus): (u32, u32, u32),
) -> Part {
    Part {
        id,
        name,
        capability,
        sms,
        memory,
        threads_per_sm,
        blocks_per_sm,
        shared_per_sm,
        shared_opt_in,
        l2,
        clock: clock * 1000,
        memory_clock: memory_clock * 1000,
        bus,
    }
}

/// Most threads of a block.
pub const MAX_THREADS: u32 = 1024;
/// Registers of a multiprocessor, and of a block.
pub const REGISTERS: u32 = 65_536;
/// Most registers of a thread.
pub const MAX_REGISTERS: u32 = 255;
/// Shared memory that a block may have without asking.
pub const SHARED_DEFAULT: u32 = 49_152;
/// Shared memory that the system takes of each block.
pub const SHARED_RESERVED: u32 = 1024;

/// The part of this id.
pub fn by_id(id: &str) -> Option<&'static Part> {
    PARTS.iter().find(|p| p.id == id)
}

/// The part that stands for a target (`90` for sm_90): the first of its capability in the usual choice.
pub fn for_capability(capability: u32) -> Option<&'static Part> {
    by_id(match capability {
        0..=80 => "a100",
        81..=86 => "rtx3090",
        87..=89 => "rtx4090",
        90 => "h100-sxm",
        100..=109 => "b200",
        120..=129 => "rtx5090",
        _ => return None,
    })
}

impl Part {
    /// Compute capability as 10 × major + minor.
    pub fn number(&self) -> u32 {
        self.capability.0 * 10 + self.capability.1
    }

    /// Why code for `target` (`sm_90a`) does not run here, if so.
    pub fn refuses(&self, target: &str) -> Option<String> {
        let n = crate::program::capability(target).unwrap_or(0);
        let exact = target.ends_with(['a', 'f']);
        let fits = if exact { n == self.number() } else { n <= self.number() };
        (!fits).then(|| format!("code for {target} does not run on {} (sm_{})", self.name, self.number()))
    }

    /// Registers that a thread of the kernel takes here: the estimate, within what the kernel allows itself. The
    /// compiler spills where it must, so an estimate over the limit of one thread is that limit.
    pub fn registers(&self, k: &Kernel) -> u32 {
        let mut r = (k.registers + 8).min(MAX_REGISTERS);
        if let Some(most) = k.maxnreg {
            r = r.min(most.max(16));
        }
        let threads = k.reqntid.map(|t| t.iter().map(|x| *x as u64).product()).or(k.maxntid);
        if let Some(t) = threads {
            // Code compiled for blocks of a known size fits them.
            let warps = (t as u32).min(MAX_THREADS).div_ceil(32).max(1);
            r = r.min((REGISTERS / (warps * 32)) & !7);
        }
        r.max(16)
    }

    /// Why a launch is over a limit, if it is. `allowed` is the dynamic shared memory that the kernel was allowed.
    pub fn over_limits(
        &self,
        k: &Kernel,
        grid: [u32; 3],
        block: [u32; 3],
        shared: u32,
        allowed: u32,
    ) -> Option<String> {
        let threads: u64 = block.iter().map(|d| *d as u64).product();
        if grid.contains(&0) || block.contains(&0) {
            return Some(format!("a grid of {grid:?} blocks of {block:?} threads is empty"));
        }
        if grid[1] > 65_535 || grid[2] > 65_535 || grid[0] > i32::MAX as u32 {
            return Some(format!("the grid {grid:?} is over (2147483647, 65535, 65535)"));
        }
        if grid.iter().map(|g| *g as u64).product::<u64>() > u32::MAX as u64 {
            return Some(format!(
                "the grid {grid:?} has more than 4294967295 blocks, which is a limit of this machine"
            ));
        }
        if block[0] > 1024 || block[1] > 1024 || block[2] > 64 || threads > MAX_THREADS as u64 {
            return Some(format!(
                "a block of {block:?} has {threads} threads: at most (1024, 1024, 64) and 1024 in all"
            ));
        }
        if let Some(r) = k.reqntid
            && r != block
        {
            return Some(format!("the kernel requires blocks of {r:?} threads, not {block:?}"));
        }
        if let Some(m) = k.maxntid
            && threads > m
        {
            return Some(format!("the kernel allows blocks of {m} threads, not {threads}"));
        }
        let total = k.total_shared(shared);
        if shared > allowed {
            return Some(format!("{shared} bytes of dynamic shared memory: the kernel is allowed {allowed}"));
        }
        if total > self.shared_opt_in {
            return Some(format!("{total} bytes of shared memory: {} has {} a block", self.name, self.shared_opt_in));
        }
        // The compiler may do with fewer than the estimate, so only what is well beyond is refused.
        let r = self.registers(k) * 4 / 5;
        let warps = (threads as u32).div_ceil(32);
        if r.next_multiple_of(8) * 32 * warps > REGISTERS {
            return Some(format!("{threads} threads of at least {r} registers: a block has {REGISTERS}"));
        }
        None
    }

    /// Blocks of a kernel that a multiprocessor holds at once.
    pub fn occupancy(&self, k: &Kernel, threads: u32, shared: u32) -> u32 {
        if threads == 0 || threads > MAX_THREADS {
            return 0;
        }
        let warps = threads.div_ceil(32);
        let by_threads = self.threads_per_sm / (warps * 32);
        let per_warp = (self.registers(k) * 32).next_multiple_of(256);
        let by_registers = REGISTERS / (per_warp * warps.next_multiple_of(4).max(4)).max(1);
        let by_registers = by_registers.max((REGISTERS / per_warp / warps).min(by_registers.max(1)));
        let used = (k.total_shared(shared) + SHARED_RESERVED).next_multiple_of(128);
        let by_shared = self.shared_per_sm / used;
        self.blocks_per_sm.min(by_threads).min(by_registers).min(by_shared)
    }
}
