//! A device that is ready to run: memory, loaded modules, launches. The command and the driver interface stand on it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::check::{Check, Checks};
use crate::device::arena::{LAST_OP, NoAddressSpace, bytes_of, pack, serial_of};
use crate::device::memory::{Memory, OutOfMemory, Purpose, Record};
use crate::device::part::Part;
use crate::error::LaunchError;
use crate::exec::launch::{Job, Standing, launch};
use crate::exec::stats::Counters;
use crate::exec::warp::Line;
use crate::program::Program;

/// Address space of device memory: beyond that of any part, so that freed addresses need not be used again soon.
const ADDRESS_SPACE: u64 = 1 << 38;

/// A module in device memory.
#[derive(Clone)]
pub struct Module {
    /// What it holds.
    pub program: Arc<Program>,
    /// Addresses of its variables; 0 for shared ones.
    pub variables: Vec<u64>,
    /// The constants of each kernel, with these addresses.
    pub constants: Vec<Arc<Vec<Line>>>,
    /// PTX lines of the operations of each kernel.
    pub lines: Vec<Arc<Vec<u32>>>,
}

/// How launches are run.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// What is checked.
    pub checks: Checks,
    /// Chooses the order of blocks and warps.
    pub seed: u64,
    /// Threads of the host; 0 for all cores.
    pub workers: u32,
    /// Counts instructions and accesses.
    pub counting: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { checks: Checks::ALL, seed: 0, workers: 0, counting: false }
    }
}

/// One launch.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Blocks along each axis.
    pub grid: [u32; 3],
    /// Threads along each axis.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    /// Dynamic shared memory that the kernel was allowed.
    pub allowed: u32,
    /// The parameters.
    pub params: Vec<u8>,
    /// The stream's number, 0 for the host.
    pub stream: u32,
    /// Its place in the stream.
    pub clock: u64,
    /// Serial numbers of earlier operations that nothing orders before it.
    pub unordered: Vec<(u32, u32)>,
}

/// Memory and settings.
pub struct Machine {
    /// Memory of all devices.
    pub memory: Memory,
    /// How launches are run.
    pub settings: Settings,
}

impl Machine {
    /// A machine with nothing allocated.
    ///
    /// # Errors
    /// [`NoAddressSpace`] where the system gives no addresses.
    pub fn new(settings: Settings) -> Result<Machine, NoAddressSpace> {
        Ok(Machine { memory: Memory::new(ADDRESS_SPACE)?, settings })
    }

    /// Places the variables of a module in the memory of a device.
    ///
    /// # Errors
    /// [`OutOfMemory`] where they do not fit.
    pub fn load(&mut self, device: u32, limit: u64, program: Arc<Program>) -> Result<Module, OutOfMemory> {
        let mut variables = Vec::with_capacity(program.globals.len());
        for g in &program.globals {
            if g.bytes.is_empty() {
                variables.push(0);
                continue;
            }
            let purpose = if g.constant { Purpose::Constant } else { Purpose::Variable };
            let made = self.memory.allocate(device, g.bytes.len() as u64, limit, purpose, Some(g.name.clone()));
            match made {
                Ok(at) => variables.push(at),
                Err(e) => {
                    self.free_variables(&variables);
                    return Err(e);
                }
            }
        }
        for (g, at) in program.globals.iter().zip(&variables).filter(|(_, at)| **at != 0) {
            let mut bytes = g.bytes.clone();
            for (offset, var, addend) in &g.relocs {
                let v = variables[*var as usize].wrapping_add(*addend as u64).to_le_bytes();
                bytes[*offset as usize..*offset as usize + 8].copy_from_slice(&v);
            }
            // SAFETY: an allocation of this size was just made.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), *at as *mut u8, bytes.len()) };
            self.memory.arena().mark_range(*at, bytes.len() as u64);
        }
        let constants = program.kernels.iter().map(|k| Arc::new(k.constants(|v| variables[v as usize]))).collect();
        let lines = program.kernels.iter().map(|k| Arc::new(k.meta.iter().map(|m| m.line).collect())).collect();
        Ok(Module { program, variables, constants, lines })
    }

    /// Frees the variables of a module.
    pub fn free_variables(&mut self, variables: &[u64]) {
        for at in variables.iter().filter(|a| **a != 0) {
            self.memory.free(*at, &[Purpose::Variable, Purpose::Constant]);
        }
    }

    /// Runs kernel `index` of a module to its end.
    ///
    /// # Errors
    /// [`LaunchError`]: over a limit of the part, or a finding.
    pub fn launch(&mut self, part: &Part, module: &Module, index: usize, l: &Launch) -> Result<Counters, LaunchError> {
        let kernel = &module.program.kernels[index];
        let limits = |message: String| LaunchError::Limits { kernel: kernel.name.clone(), message };
        if let Some(m) = part.refuses(&module.program.target) {
            return Err(limits(m));
        }
        if let Some(m) = part.over_limits(kernel, l.grid, l.block, l.shared, l.allowed) {
            // What the machine itself cannot run is refused with the check off, too.
            let threads: u64 = l.block.iter().map(|d| *d as u64).product();
            let blocks: u64 = l.grid.iter().map(|d| *d as u64).product();
            if self.settings.checks.has(Check::Limits)
                || threads == 0
                || threads > 1024
                || blocks == 0
                || blocks >> 32 != 0
            {
                return Err(limits(m));
            }
        }
        if l.params.len() < kernel.param_bytes as usize {
            return Err(limits(format!("{} bytes of parameters, not {}", l.params.len(), kernel.param_bytes)));
        }
        let threads = l.block.iter().product();
        let job = Job {
            grid: l.grid,
            block: l.block,
            shared: l.shared,
            params: l.params.clone(),
            konst: module.constants[index].clone(),
            seed: self.settings.seed,
            sms: part.sms,
            resident: part.occupancy(kernel, threads, l.shared).max(1) * part.sms,
            workers: self.settings.workers,
        };
        let first_serial = self.memory.record(Record {
            first: 0,
            count: job.blocks(),
            name: kernel.name.as_str().into(),
            grid: Some(l.grid),
            lines: Some(module.lines[index].clone()),
            stream: l.stream,
            clock: l.clock,
        });
        let standing = Standing { first_serial, unordered: &l.unordered };
        let Settings { checks, counting, .. } = self.settings;
        launch(&module.program, kernel, &job, checks, &mut self.memory, standing, counting)
            .map_err(LaunchError::Finding)
    }

    /// Checks that nothing of `unordered` touched a range in a way that races with this access by `serial`, and
    /// remembers it. Returns an address and whose access it races with.
    pub fn touch(
        &mut self,
        at: u64,
        bytes: u64,
        write: bool,
        serial: u32,
        unordered: &[(u32, u32)],
    ) -> Option<(u64, u32)> {
        let arena = self.memory.arena();
        let foreign = |word: u64| {
            let s = serial_of(word);
            unordered.iter().any(|(lo, hi)| *lo <= s && s < *hi)
        };
        let mut word = at & !3;
        while word < at + bytes {
            let cut = |a: u64| a.max(word).min(word + 4) - word;
            let touched = ((1u32 << cut(at + bytes)) - 1) & !((1u32 << cut(at)) - 1);
            let cell = arena.cell(word);
            let (w, r) = (cell.writer.load(Relaxed), cell.reader.load(Relaxed));
            if bytes_of(w) & touched != 0 && foreign(w) {
                return Some((word, serial_of(w)));
            }
            if write && bytes_of(r) & touched != 0 && foreign(r) {
                return Some((word, serial_of(r)));
            }
            let mine = pack(serial, LAST_OP, 0, 0, touched, false);
            if write {
                cell.writer.store(mine, Relaxed)
            } else {
                cell.reader.store(mine, Relaxed)
            }
            word += 4;
        }
        None
    }

    /// Writes host bytes to device memory, outside of any stream.
    ///
    /// # Panics
    /// Where the range is not within the address space: callers check it against an allocation.
    pub fn write(&mut self, at: u64, bytes: &[u8]) {
        assert!(self.memory.arena().holds(at, bytes.len() as u64));
        // SAFETY: within the arena.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), at as *mut u8, bytes.len()) };
        self.memory.arena().mark_range(at, bytes.len() as u64);
    }

    /// Reads device memory, outside of any stream.
    ///
    /// # Panics
    /// As [`Machine::write`].
    pub fn read(&self, at: u64, bytes: &mut [u8]) {
        assert!(self.memory.arena().holds(at, bytes.len() as u64));
        // SAFETY: within the arena.
        unsafe { std::ptr::copy_nonoverlapping(at as *const u8, bytes.as_mut_ptr(), bytes.len()) };
    }
}
