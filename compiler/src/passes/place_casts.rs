//! Gives the operands of every sum of products one dtype.
//!
//! ```text
//!                                                        v2: bf16[dim, dim] = cast v1
//! v2: bf16[T, dim] = dot v0, v1 {contract = [1:0]}   →   v3: bf16[T, dim] = dot v0, v2 {contract = [1:0]}
//! ```
//!
//! for v0 in bf16 and v1 in f32: operands that differ are cast to the dtype of the result. A value is cast once in a
//! function. Runs after sequences got
//! their axis and before autodiff, so that gradients pass through the casts.
//!
//! Operands are rounded that were not before: this pass decides how a file's products are computed.

use std::collections::HashMap;

use super::rewrite::Rewrite;
use crate::ir::{DType, Module, Op, Value};

/// Casts operands of `dot` and gives the number of those that had to be cast; operands of every `dot` have one dtype
/// after it.
pub fn run(m: &mut Module) -> Result<usize, String> {
    let mut placed = 0;
    for func in m.funcs.keys().collect::<Vec<_>>() {
        let mut r = Rewrite::new(&m.funcs[func]);
        // Casts that stand in the new graph, those of the file among them.
        let mut casts: HashMap<(Value, DType), Value> = HashMap::new();
        for (node, data) in r.old.nodes.iter() {
            let mut args = r.args(node);
            if let Op::Dot { .. } = data.op {
                let dtypes = [args[0], args[1]].map(|v| r.new.ty(v).dtype);
                let target = common(dtypes, r.old.ty(data.results[0]).dtype);
                for arg in &mut args {
                    let ty = r.new.ty(*arg).with_dtype(target);
                    if *r.new.ty(*arg) != ty {
                        placed += 1;
                        let make = || r.new.push1(Op::Cast, vec![*arg], ty, data.loc);
                        *arg = *casts.entry((*arg, target)).or_insert_with(make);
                    }
                }
            }
            let new = r.emit(node, data.op.clone(), args);
            if let Op::Cast = data.op {
                let data = &r.new.nodes[new];
                let key = (data.args[0], r.new.ty(data.results[0]).dtype);
                casts.entry(key).or_insert(data.results[0]);
            }
        }
        let new = r.finish();
        m.funcs[func] = new;
    }
    Ok(placed)
}

/// The dtype that both operands get, from theirs and that of the result: elaboration gave the result the one that values
/// live in (`precision.compute`) where they differ.
fn common([a, b]: [DType; 2], result: DType) -> DType {
    if a == b { a } else { result }
}
