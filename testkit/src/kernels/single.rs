//! Single ops on tensors of given sizes.

use mngc_compiler::ir::{DType, Func, Module, Op, Type};
use mngc_runtime::{Data, Tensor};

use super::{numbers, one_node};
use crate::values;

/// A module of one op on tensors of these dtypes and sizes.
pub fn op_on(op: &Op, args: &[(DType, &[usize])], result: (DType, &[usize])) -> (Module, Func) {
    let mut m = Module::default();
    let mut ty = |(dtype, sizes): (DType, &[usize])| {
        let dims: Vec<_> = sizes.iter().map(|&size| m.dims.anonymous(size)).collect();
        Type::new(dtype, dims)
    };
    let args = args.iter().map(|&arg| ty(arg)).collect();
    let results = vec![ty(result)];
    one_node(m, op.clone(), args, results)
}

/// Numbers for every operand.
pub fn operands(m: &Module, func: Func, seed: u64) -> Vec<Tensor> {
    let g = &m.funcs[func];
    g.params.iter().zip(seed..).map(|(&p, seed)| numbers(m, g.ty(p), seed)).collect()
}

/// Indices, some of them out of range.
pub fn indices(count: usize, rows: usize, seed: u64) -> Tensor {
    let index = (0..count as u64).map(|i| match values::hash(seed, i) % (rows as u64 + 2) {
        i if i < rows as u64 => i as i32,
        i if i == rows as u64 => -1,
        _ => rows as i32,
    });
    Tensor::new([count], Data::Int(index.collect())).expect("as many as the sizes say")
}
