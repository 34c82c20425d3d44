//! Which generator makes the kernels of a launch.

use mngc_compiler::ir::Op;
use mngc_compiler::schedule::kernel::Kernel;
use mngc_compiler::schedule::rows::RowProgram;
use mngc_compiler::schedule::single;

use crate::attention;
use crate::call::{Address, Generated};
use crate::compact::compact;
use crate::device::Device;
use crate::spec::{Operand, Refusal, Spec};
use crate::{dot, entropy, layout, lookup, loss, numbers, reduce, rows, scan};

/// The calls that do what a launch asks for, on a device; or why there are none.
pub fn generate(spec: &Spec, device: &Device) -> Result<Generated, Refusal> {
    let is_alone = match &spec.kernel {
        Kernel::Loss(_) | Kernel::Copy => true,
        Kernel::Op(op) => matches!(op, Op::Attention { .. } | Op::AttentionGrad { .. }),
        Kernel::Rows(_) | Kernel::Dot(_) => false,
    };
    if spec.instances == 1 || !is_alone {
        let (spec, args) = compact(spec);
        return Ok(one(&spec, device)?.within(&args, &[], 0));
    }
    // These kernels take one instance at a time.
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
        Kernel::Op(_) if spec.results.iter().all(Operand::is_empty) => Ok(Generated::default()),
        // They take a number as it is.
        Kernel::Op(Op::Attention { mask, scale }) => attention::forward(*mask, *scale, spec, device),
        Kernel::Op(Op::AttentionGrad { mask, scale }) => attention::backward(*mask, *scale, spec, device),
        Kernel::Op(op) => match program(op, spec) {
            Some(program) => rows::generate(&program, spec, device),
            None => numbers::with(spec, |spec| whole(op, spec, device)),
        },
    }
}

/// The calls of an op that is no row program.
fn whole(op: &Op, spec: &Spec, device: &Device) -> Result<Generated, Refusal> {
    match op {
        Op::Broadcast { .. } | Op::Reshape | Op::Transpose { .. } | Op::Slice { .. } => layout::generate(op, spec),
        Op::Pad { .. } | Op::Concat { .. } | Op::Shift { .. } | Op::Reverse { .. } => layout::generate(op, spec),
        Op::Reduce { kind, axes } => reduce::generate(*kind, axes, spec, device),
        Op::Cumsum { axis, reverse } => scan::generate(*axis, *reverse, spec, device),
        Op::Gather => lookup::gather(spec),
        Op::ScatterAdd => lookup::scatter_add(spec),
        Op::CrossEntropy => entropy::generate(spec, false),
        Op::CrossEntropyGrad => entropy::generate(spec, true),
        Op::Random { .. } => Err(Refusal("random numbers are drawn by init, which runs on the host".into())),
        Op::Attention { mask, scale } => attention::forward(*mask, *scale, spec, device),
        Op::AttentionGrad { mask, scale } => attention::backward(*mask, *scale, spec, device),
        Op::Const(_) | Op::Iota { .. } | Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select | Op::Cast => {
            Err(unscheduled(op))
        }
        Op::Softmax | Op::SoftmaxGrad | Op::RmsNorm { .. } | Op::RmsNormGrad { .. } => Err(unscheduled(op)),
        Op::LayerNorm { .. } | Op::LayerNormGrad { .. } | Op::Rope { .. } => Err(unscheduled(op)),
        Op::Dot { .. } | Op::Call { .. } => Err(unscheduled(op)),
    }
}

/// A schedule has programs, products or several launches in the place of these.
fn unscheduled(op: &Op) -> Refusal {
    Refusal(format!("{} as an op of its own, which no schedule has", op.name()))
}

/// The row program of an op that is one.
fn program(op: &Op, spec: &Spec) -> Option<RowProgram> {
    let [result] = &spec.results[..] else { return None };
    let args: Vec<_> = spec.args.iter().map(|arg| (arg.dtype, arg.len())).collect();
    single::program(op, &args, result.dtype, &result.sizes)
}

fn missing(kernel: &Kernel) -> Refusal {
    Refusal(format!("there is no kernel for {}", kernel.name()))
}
