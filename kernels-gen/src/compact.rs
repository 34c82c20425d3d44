//! The same launch with only the operands that its programs read, in the order in which they read them, so that launches
//! that differ in nothing else share a kernel.

use mngc_compiler::schedule::kernel::{DotKernel, Epilogue, Kernel};
use mngc_compiler::schedule::rows::{Instr, RowProgram};

use crate::call::Address;
use crate::spec::Spec;

/// The launch, and where each of its operands is among those of the original, for all instances.
pub fn compact(spec: &Spec) -> (Spec, Vec<Address>) {
    let mut order: Vec<usize> = Vec::new();
    let mut number = |operand: usize| match order.iter().position(|&o| o == operand) {
        Some(at) => at,
        None => {
            order.push(operand);
            order.len() - 1
        }
    };
    let given = spec.args.len();
    let kernel = match &spec.kernel {
        Kernel::Rows(program) => Kernel::Rows(renumbered(program, given, &mut number)),
        Kernel::Dot(dot) => {
            // The matrices stay where they are.
            (0..2).for_each(|operand| {
                number(operand);
            });
            let epilogue = match &dot.epilogue {
                Epilogue::Store => Epilogue::Store,
                Epilogue::Accumulate(operand) => Epilogue::Accumulate(number(*operand)),
                Epilogue::Rows(program) => Epilogue::Rows(renumbered(program, given, &mut number)),
            };
            Kernel::Dot(DotKernel { epilogue, ..dot.clone() })
        }
        other => {
            (0..given).for_each(|operand| {
                number(operand);
            });
            other.clone()
        }
    };
    let args = order.iter().filter_map(|&operand| spec.args.get(operand).cloned()).collect();
    let of_instance = |instance: usize| order.iter().map(move |&operand| Address::Arg(instance * given + operand));
    let addresses = (0..spec.instances).flat_map(of_instance).collect();
    (Spec { kernel, args, ..spec.clone() }, addresses)
}

/// Operands beyond the launch's own are numbers of the kernel's, and stay.
fn renumbered(program: &RowProgram, given: usize, number: &mut impl FnMut(usize) -> usize) -> RowProgram {
    let mut program = program.clone();
    for instr in &mut program.instrs {
        if let Instr::Load { operand, .. } = instr
            && *operand < given
        {
            *operand = number(*operand);
        }
    }
    program
}
