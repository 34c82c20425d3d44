//! What the tests of kernels share: functions run on a device, and compared with the oracle in f64.

#![allow(dead_code, unused_imports, reason = "each test file uses a part")]

use std::io::Write;

use mngc_compiler::ir::{DType, EntryKind, Func, Module, Type};
use mngc_runtime::{Backend, Cpu, Cuda, Tensor, cuda};
use mngc_testkit::Tolerance;
use mngc_testkit::close::within;
pub use mngc_testkit::kernels::{Sums, Way, exact, inputs, numbers, one_node, planned, sums, with_entry};

/// What runs the tests of a file: each test binary has one, as `DEVICE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The CPU backend.
    Cpu,
    /// The CUDA backend on the soft GPU, all of whose checks are on.
    Soft,
}

impl Device {
    /// How many random cases to run where the CPU runs `n`: every one of the soft GPU compiles kernels.
    pub const fn cases(self, n: u32) -> u32 {
        match self {
            Device::Cpu => n,
            Device::Soft => n.div_ceil(6),
        }
    }

    /// Numbers of threads with which the results must be the same to the bit.
    pub fn others(self) -> &'static [usize] {
        match self {
            Device::Cpu => &[1, 3, 7],
            Device::Soft => &[],
        }
    }

    /// Whether the product of a loss is kept in the dtype of its operands.
    pub fn rounds_heads(self) -> bool {
        self == Device::Soft
    }

    /// How many f32 roundings of a sum one rounding of its terms to their dtype is worth: tensor cores take what a
    /// kernel has made on the way (weights of attention) in the dtype of their operands.
    pub fn rounded_terms(self, dtype: DType) -> usize {
        match (self, dtype) {
            (Device::Soft, DType::BF16) => 1 << 16,
            (Device::Soft, DType::F16) => 1 << 13,
            _ => 0,
        }
    }

    /// Whether it is there; if not, says that the test is skipped.
    pub fn is_ready(self) -> bool {
        if self == Device::Cpu {
            return true;
        }
        let missing = mngc_runtime::cuda::libraries::Library::Nvrtc.find().err();
        if missing.is_some() {
            let test = std::thread::current().name().unwrap_or("a test").to_string();
            // Not by a macro: what these print in a test that passes is shown to nobody.
            let _ =
                writeln!(std::io::stdout(), "SKIPPED {test}: there is no NVRTC (`mngc doctor --install` fetches it)");
        }
        missing.is_none()
    }
}

/// A backend for a function.
pub fn backend(m: &Module, func: Func, way: Way, threads: usize) -> Box<dyn Backend> {
    let (m, plan) = planned(m, func, way);
    match crate::DEVICE {
        Device::Cpu => Box::new(Cpu::new(m, &plan, 7, Some(threads)).unwrap_or_else(|e| panic!("{e}"))),
        Device::Soft => Box::new(Cuda::new(m, &plan, 7, cuda::Kind::Soft).unwrap_or_else(|e| panic!("{e}"))),
    }
}

/// Runs the entry of [`backend`].
pub fn run_on(backend: &mut dyn Backend, args: &[Tensor], step: u64) -> Vec<Tensor> {
    let mut out = backend.run(EntryKind::Evaluate.into(), &inputs(args), step).unwrap_or_else(|e| panic!("{e}"));
    (0..out.len()).map(|i| out.remove(&format!("out{i}")).expect("every result")).collect()
}

/// Runs a function on the device.
pub fn on_device(m: &Module, func: Func, args: &[Tensor], way: Way, threads: usize) -> Vec<Tensor> {
    run_on(&mut *backend(m, func, way, threads), args, 3)
}

/// Fails unless results are those of the oracle within the bound for sums.
pub fn assert_close(m: &Module, func: Func, found: &[Tensor], wanted: &[Tensor], sums: impl Into<Sums>, what: &str) {
    let g = &m.funcs[func];
    let sums = sums.into();
    assert_eq!(found.len(), wanted.len(), "{what}");
    for (i, (found, wanted)) in found.iter().zip(wanted).enumerate() {
        if let Err(e) = within(found, wanted, sums.bound(g.ty(g.results[i]).dtype, wanted)) {
            panic!("{what}: result {i}: {e}");
        }
    }
}

/// Runs a function on the device and on the oracle, and compares.
pub fn check(m: &Module, func: Func, args: &[Tensor], way: Way, sums: impl Into<Sums>) {
    let found = on_device(m, func, args, way, 2);
    assert_close(m, func, &found, &exact(m, func, args), sums, &format!("{way:?}"));
}

/// The bound for one element.
pub fn tolerance(ty: &Type, terms: usize, magnitude: f64) -> Tolerance {
    Tolerance::of(ty.dtype, terms, magnitude)
}
