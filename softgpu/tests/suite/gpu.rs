//! A machine with one module, as tests use it.

use std::sync::Arc;

use softgpu::check::Finding;
use softgpu::device::memory::Purpose;
use softgpu::device::part::{self, Part};
use softgpu::error::LaunchError;
use softgpu::exec::stats::Counters;
use softgpu::machine::{Launch, Machine, Module, Settings};

pub struct Gpu {
    pub machine: Machine,
    pub module: Module,
    pub part: &'static Part,
}

/// An argument of a kernel.
#[derive(Clone, Copy)]
pub enum Arg {
    Ptr(u64),
    U32(u32),
}

impl Gpu {
    pub fn new(ptx: &str) -> Gpu {
        let program = softgpu::load(ptx).unwrap_or_else(|e| panic!("{e}"));
        let part = part::for_capability(program.capability()).expect("a known target");
        let mut machine = Machine::new(Settings::default()).expect("address space");
        let module = machine.load(0, part.memory, Arc::new(program)).expect("room");
        Gpu { machine, module, part }
    }

    /// Memory of `bytes` that nothing has written.
    pub fn empty(&mut self, bytes: usize) -> u64 {
        self.machine.memory.allocate(0, bytes as u64, self.part.memory, Purpose::Device, None).expect("room")
    }

    pub fn upload<T: Copy>(&mut self, values: &[T]) -> u64 {
        let bytes = std::mem::size_of_val(values);
        let at = self.empty(bytes);
        // SAFETY: plain numbers.
        self.machine.write(at, unsafe { std::slice::from_raw_parts(values.as_ptr() as *const u8, bytes) });
        at
    }

    pub fn read<T: Copy + Default>(&self, at: u64, n: usize) -> Vec<T> {
        let mut out = vec![T::default(); n];
        // SAFETY: plain numbers.
        let bytes = unsafe { std::slice::from_raw_parts_mut(out.as_mut_ptr() as *mut u8, n * size_of::<T>()) };
        self.machine.read(at, bytes);
        out
    }

    pub fn try_run(
        &mut self,
        name: &str,
        grid: u32,
        block: u32,
        shared: u32,
        args: &[Arg],
    ) -> Result<Counters, LaunchError> {
        let index = self
            .module
            .program
            .kernels
            .iter()
            .position(|k| k.name == name)
            .unwrap_or_else(|| panic!("no kernel {name}"));
        let kernel = &self.module.program.kernels[index];
        let mut params = vec![0; kernel.param_bytes as usize];
        assert_eq!(args.len(), kernel.params.len(), "arguments of {name}");
        for (p, a) in kernel.params.iter().zip(args) {
            let at = p.offset as usize;
            match a {
                Arg::Ptr(v) => params[at..at + 8].copy_from_slice(&v.to_le_bytes()),
                Arg::U32(v) => params[at..at + 4].copy_from_slice(&v.to_le_bytes()),
            }
        }
        let l = Launch {
            grid: [grid, 1, 1],
            block: [block, 1, 1],
            shared,
            allowed: self.part.shared_opt_in,
            params,
            stream: 0,
            clock: 0,
            unordered: Vec::new(),
        };
        self.machine.launch(self.part, &self.module, index, &l)
    }

    pub fn run(&mut self, name: &str, grid: u32, block: u32, shared: u32, args: &[Arg]) -> Counters {
        self.try_run(name, grid, block, shared, args).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// The finding that must stop a launch.
    pub fn fails(&mut self, name: &str, grid: u32, block: u32, shared: u32, args: &[Arg]) -> Box<Finding> {
        match self.try_run(name, grid, block, shared, args) {
            Err(LaunchError::Finding(f)) => f,
            Err(e) => panic!("{name}: {e}"),
            Ok(_) => panic!("{name} ran to its end"),
        }
    }
}
