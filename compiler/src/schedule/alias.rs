//! Which result of a kernel may lie where an operand lies.

use super::kernel::{DotKernel, Epilogue, Kernel, LossKernel};
use super::rows::{Access, Instr, RowProgram};

/// Whether a kernel may write result `result` to the very bytes of operand `arg`, which no other operand shares: every
/// element of the operand is read for the last time before the element of the result in its place is written.
pub fn allows(kernel: &Kernel, arg: usize, result: usize) -> bool {
    match kernel {
        Kernel::Rows(program) => in_place(program, arg, result),
        Kernel::Dot(DotKernel { epilogue, symmetric, .. }) => match epilogue {
            Epilogue::Store => false,
            Epilogue::Accumulate(operand) => *operand == arg,
            // Half of a symmetric product is mirrored to places that others may still have to read.
            Epilogue::Rows(program) => !symmetric && arg >= 2 && in_place(program, arg, result),
        },
        Kernel::Loss(LossKernel { gradient, .. }) => {
            gradient.as_ref().is_some_and(|g| g.accumulate == Some(arg) && g.dw == Some(result))
        }
        Kernel::Op(_) | Kernel::Copy => false,
    }
}

fn in_place(program: &RowProgram, arg: usize, wanted: usize) -> bool {
    // The one element of a space is its first too, and a number is stored where it was read.
    let own = |access: Access| access == Access::Full || (access == Access::Scalar && program.elements == 1);
    program.instrs.iter().all(|instr| match instr {
        Instr::Load { operand, access, .. } if *operand == arg => own(*access),
        Instr::Store { result, access, .. } if *result == wanted => own(*access),
        Instr::Total { result, .. } | Instr::Columns { result, .. } => *result != wanted,
        _ => true,
    })
}
