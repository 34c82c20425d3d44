//! Folds of nothing, which are the neutral element of their kind.

use mngc_compiler::ir::ReduceKind;
use mngc_compiler::schedule::rows::{Instr, RowProgram};

use crate::call::Generated;
use crate::layout::{fill, unit};
use crate::numbers::bits;
use crate::pointers::Pointers;
use crate::spec::{Operand, Refusal, Spec};

/// The calls of a row program without elements.
pub fn generate(program: &RowProgram, spec: &Spec) -> Result<Generated, Refusal> {
    let mut calls = Vec::new();
    for (number, result) in spec.results.iter().enumerate().filter(|(_, result)| !result.is_empty()) {
        let fold = program.instrs.iter().find_map(|instr| match *instr {
            Instr::Total { result, kind, .. } if result == number => Some(kind),
            Instr::Columns { result, .. } if result == number => Some(ReduceKind::Sum),
            _ => None,
        });
        let kind = fold.ok_or_else(|| Refusal(format!("result {number} of a program without elements has some")))?;
        calls.push(neutral(kind, spec, number, result)?);
    }
    Ok(Generated { calls, ..Generated::default() })
}

fn neutral(kind: ReduceKind, spec: &Spec, number: usize, result: &Operand) -> Result<crate::call::Call, Refusal> {
    let is_float = result.dtype.is_float();
    let value = match kind {
        ReduceKind::Sum | ReduceKind::Norm => 0.0,
        ReduceKind::Mean => f64::NAN,
        ReduceKind::Max if is_float => f64::NEG_INFINITY,
        ReduceKind::Min if is_float => f64::INFINITY,
        ReduceKind::Max => f64::from(i32::MIN),
        ReduceKind::Min => f64::from(i32::MAX),
    };
    let bytes = result.dtype.bytes();
    let mut to = Pointers::none(spec);
    to.result(&format!("{}* to", unit(bytes)), spec, number);
    fill(to, bytes, bits(result.dtype, value), result.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Param;
    use mngc_compiler::ir::{DType, F64};
    use mngc_compiler::schedule::kernel::Kernel;
    use mngc_compiler::schedule::rows::Src;

    #[test]
    fn the_largest_of_nothing_is_the_least() {
        let a = Src::Const(F64(0.0));
        let instrs = vec![Instr::Total { result: 0, kind: ReduceKind::Max, a }];
        let program = RowProgram { elements: 0, tile: 1, regs: vec![], instrs };
        let results = vec![Operand::new(DType::F32, &[])];
        let spec = Spec { kernel: Kernel::Rows(program.clone()), args: vec![], results, instances: 1 };
        let calls = generate(&program, &spec).expect("a fill").calls;
        assert_eq!(calls[0].params[2..], [Param::U32(f32::NEG_INFINITY.to_bits()), Param::U32(1)]);
    }
}
