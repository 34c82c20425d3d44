//! A CUDA device in software: reads PTX, decodes it once, and runs it on the cores of the host, with checks that
//! hardware does not make. The driver interface over it is in [`driver`]; the command is in `main.rs`.
#![allow(clippy::needless_range_loop)]

pub mod case;
pub mod check;
pub mod decode;
pub mod device;
pub mod driver;
pub mod error;
pub mod exec;
pub mod machine;
pub mod num;
pub mod program;
pub mod ptx;

use error::LoadError;
use program::Program;

/// Reads and decodes a module.
///
/// # Errors
/// [`LoadError`] with the line, and the kernel, of the first thing that is not PTX or not known.
pub fn load(ptx: &str) -> Result<Program, LoadError> {
    if !exec::lanes::fast() {
        return Err(LoadError::at(1, "this machine has no AVX2 and FMA, which the soft GPU needs"));
    }
    decode::decode(&ptx::parse(ptx)?)
}
