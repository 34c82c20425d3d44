//! Numbers as operands of kernels that know tensors alone: each gets a place in the workspace.

use crate::call::{Address, Generated};
use crate::layout;
use crate::pointers::{Pointers, rounded};
use crate::spec::{Operand, Refusal, Spec};
use mngc_compiler::ir::DType;
use mngc_compiler::schedule::plan::ALIGNMENT;

/// The calls for a spec whose operands that are numbers have been made tensors.
pub fn with(spec: &Spec, generate: impl Fn(&Spec) -> Result<Generated, Refusal>) -> Result<Generated, Refusal> {
    let numbers: Vec<(usize, &Operand)> =
        spec.args.iter().enumerate().filter(|(_, arg)| arg.constant.is_some()).collect();
    if numbers.is_empty() {
        return generate(spec);
    }
    let mut tensors = spec.clone();
    tensors.args.iter_mut().for_each(|arg| arg.constant = None);
    let generated = generate(&tensors)?;
    let start = generated.workspace.next_multiple_of(ALIGNMENT);
    let given = spec.args.len();
    let place = |i: usize| match numbers.iter().position(|(arg, _)| *arg == i % given) {
        Some(number) => Address::Work(start + number * ALIGNMENT),
        None => Address::Arg(i),
    };
    let args: Vec<Address> = (0..spec.instances * given).map(place).collect();
    let mut generated = generated.within(&args, &[], 0);
    for (number, (_, arg)) in numbers.iter().enumerate() {
        let bytes = arg.dtype.bytes();
        let one = Spec { instances: 1, ..spec.clone() };
        let mut to = Pointers::none(&one);
        to.work(&format!("{}* to", layout::unit(bytes)), start + number * ALIGNMENT, 0);
        generated.calls.insert(0, layout::fill(to, bytes, bits(arg.dtype, arg.constant.unwrap_or(0.0)), 1)?);
    }
    generated.workspace = start + numbers.len() * ALIGNMENT;
    Ok(generated)
}

/// The bits of a number as an element of a dtype.
pub fn bits(dtype: DType, value: f64) -> u32 {
    let value = rounded(dtype, value);
    match dtype {
        DType::F32 => (value as f32).to_bits(),
        DType::BF16 => u32::from(half::bf16::from_f64(value).to_bits()),
        DType::F16 => u32::from(half::f16::from_f64(value).to_bits()),
        DType::I32 => value as i32 as u32,
        DType::Bool => u32::from(value != 0.0),
    }
}
