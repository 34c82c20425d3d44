//! Row programs as kernels.

use mngc_compiler::schedule::rows::RowProgram;

use crate::call::Generated;
use crate::device::Device;
use crate::spec::{Refusal, Spec};

/// The calls that run a row program.
pub fn generate(_program: &RowProgram, _spec: &Spec, _device: &Device) -> Result<Generated, Refusal> {
    Err(Refusal("there is no kernel for rows".into()))
}
