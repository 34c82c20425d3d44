//! Which generator makes the kernels of a launch.

use mngc_compiler::ir::Op;
use mngc_compiler::schedule::kernel::Kernel;

use crate::attention;
use crate::call::Generated;
use crate::device::Device;
use crate::dot;
use crate::loss;
use crate::rows;
use crate::spec::{Refusal, Spec};

/// The calls that do what a launch asks for, on a device; or why there are none.
pub fn generate(spec: &Spec, device: &Device) -> Result<Generated, Refusal> {
    match &spec.kernel {
        Kernel::Rows(program) => rows::generate(program, spec, device),
        Kernel::Dot(dot) => dot::generate(dot, spec, device),
        Kernel::Loss(loss) => loss::generate(loss, spec, device),
        Kernel::Copy => Err(missing(&spec.kernel)),
        Kernel::Op(op) => match op {
            Op::Attention { mask, scale } => attention::forward(*mask, *scale, spec, device),
            Op::AttentionGrad { mask, scale } => attention::backward(*mask, *scale, spec, device),
            _ => Err(missing(&spec.kernel)),
        },
    }
}

fn missing(kernel: &Kernel) -> Refusal {
    Refusal(format!("there is no kernel for {}", kernel.name()))
}
