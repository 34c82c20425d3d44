//! What a launch did, counted.

use crate::program::{CLASSES, Class, Kernel};

/// Counts of one worker, merged at the end.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Lanes that ran each operation.
    pub lanes: Vec<u64>,
    /// Times that each operation ran for a warp.
    pub warps: Vec<u64>,
    /// Requests of warps to global memory.
    pub global_requests: u64,
    /// Sectors of 32 bytes that they touched.
    pub global_sectors: u64,
    /// Bytes that they asked for.
    pub global_bytes: u64,
    /// Requests of warps to shared memory.
    pub shared_requests: u64,
    /// Passes over the banks that they needed beyond the least.
    pub bank_conflicts: u64,
    /// Floating-point operations of tensor instructions.
    pub tensor_flops: u64,
    /// Operations run by warps, whatever they are.
    pub steps: u64,
}

impl Counters {
    /// Counters for this kernel.
    pub fn new(kernel: &Kernel) -> Counters {
        Counters { lanes: vec![0; kernel.ops.len()], warps: vec![0; kernel.ops.len()], ..Counters::default() }
    }

    /// Adds those of another worker.
    pub fn merge(&mut self, o: &Counters) {
        self.lanes.resize(self.lanes.len().max(o.lanes.len()), 0);
        self.warps.resize(self.warps.len().max(o.warps.len()), 0);
        self.lanes.iter_mut().zip(&o.lanes).for_each(|(a, b)| *a += b);
        self.warps.iter_mut().zip(&o.warps).for_each(|(a, b)| *a += b);
        self.global_requests += o.global_requests;
        self.global_sectors += o.global_sectors;
        self.global_bytes += o.global_bytes;
        self.shared_requests += o.shared_requests;
        self.bank_conflicts += o.bank_conflicts;
        self.tensor_flops += o.tensor_flops;
        self.steps += o.steps;
    }

    /// Lane and warp instructions of each kind, kinds that did not occur left out.
    pub fn by_class(&self, kernel: &Kernel) -> Vec<(Class, u64, u64)> {
        let mut out = CLASSES.map(|c| (c, 0u64, 0u64));
        for (at, m) in kernel.meta.iter().enumerate().filter(|(_, m)| m.first) {
            out[m.class as usize].1 += self.lanes.get(at).copied().unwrap_or(0);
            out[m.class as usize].2 += self.warps.get(at).copied().unwrap_or(0);
        }
        out.into_iter().filter(|o| o.2 != 0).collect()
    }

    /// A request of a warp to global memory.
    pub fn global(&mut self, addresses: &[u64; 32], mask: u32, bytes: u32) {
        let mut sectors: Vec<u64> =
            super::Bits(mask).flat_map(|l| addresses[l] >> 5..=(addresses[l] + bytes.max(1) as u64 - 1) >> 5).collect();
        sectors.sort_unstable();
        sectors.dedup();
        self.global_requests += 1;
        self.global_sectors += sectors.len() as u64;
        self.global_bytes += mask.count_ones() as u64 * bytes as u64;
    }

    /// A request of a warp to shared memory: `bytes` from each offset. Accesses of 8 and 16 bytes go in 2 and 4 parts.
    pub fn shared(&mut self, offsets: &[u64; 32], mask: u32, bytes: u32) {
        let parts = (bytes / 4).clamp(1, 4);
        let group = 32 / parts;
        self.shared_requests += 1;
        for p in 0..parts {
            let lanes = mask & ((((1u64 << group) - 1) << (p * group)) as u32);
            let mut words: Vec<u64> = super::Bits(lanes)
                .flat_map(|l| offsets[l] >> 2..=(offsets[l] + bytes.max(1) as u64 - 1) >> 2)
                .collect();
            words.sort_unstable();
            words.dedup();
            let mut banks = [0u32; 32];
            words.iter().for_each(|w| banks[(*w & 31) as usize] += 1);
            self.bank_conflicts += banks.iter().max().map_or(0, |m| m.saturating_sub(1)) as u64;
        }
    }
}
