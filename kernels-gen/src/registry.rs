//! Which generator makes the kernels of a launch.

use mngc_compiler::ir::Op;
use mngc_compiler::schedule::kernel::Kernel;

use crate::attention;
use crate::call::{Address, Generated};
use crate::device::Device;
use crate::dot;
use crate::loss;
use crate::rows;
use crate::spec::{Refusal, Spec};

/// The calls that do what a launch asks for, on a device; or why there are none.
pub fn generate(spec: &Spec, device: &Device) -> Result<Generated, Refusal> {
    let is_grouped = matches!(spec.kernel, Kernel::Rows(_) | Kernel::Dot(_));
    if spec.instances == 1 || is_grouped {
        return one(spec, device);
    }
    // Other kernels take one instance at a time.
    let single = one(&Spec { instances: 1, ..spec.clone() }, device)?;
    let mut all = Generated::default();
    for instance in 0..spec.instances {
        let args: Vec<Address> = (0..spec.args.len()).map(|i| Address::Arg(instance * spec.args.len() + i)).collect();
        let results = (0..spec.results.len()).map(|i| Address::Result(instance * spec.results.len() + i));
        all.then(single.clone().within(&args, &results.collect::<Vec<Address>>(), 0));
    }
    Ok(all)
}

fn one(spec: &Spec, device: &Device) -> Result<Generated, Refusal> {
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
