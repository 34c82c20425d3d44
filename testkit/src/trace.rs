//! A record of an evaluation: each node with the tensors that it read and made.

use std::cell::RefCell;
use std::collections::HashMap;

use mngc_compiler::ir::{Func, Module, Node, NodeData, Op, Value, ValueDef};
use mngc_runtime::{Context, Result, Tensor, evaluate};

/// A node other than a call, as it ran.
pub struct Step<'a> {
    /// The function it stands in.
    pub func: Func,
    /// The node.
    pub node: &'a NodeData,
    /// What it read.
    pub args: Vec<Tensor>,
    /// What it made.
    pub results: Vec<Tensor>,
}

/// The values of one running function, found by the calls that lead to it.
type Frame = Vec<(Func, Node)>;

/// Runs a function and records every node of it and of the functions that it calls, in the order of running.
pub fn trace<'a>(module: &'a Module, func: Func, args: &[Tensor], ctx: &Context) -> Result<Vec<Step<'a>>> {
    let made: RefCell<HashMap<(Frame, Value), Tensor>> = RefCell::default();
    let steps = RefCell::new(Vec::new());
    let observer = |path: &[(Func, Node)], results: &[Tensor]| {
        let Some((&(func, node), frame)) = path.split_last() else { return };
        let node = &module.funcs[func].nodes[node];
        let mut made = made.borrow_mut();
        if !matches!(node.op, Op::Call { .. }) {
            let args = node.args.iter().map(|&arg| look_up(module, &made, args, func, frame, arg)).collect();
            steps.borrow_mut().push(Step { func, node, args, results: results.to_vec() });
        }
        for (&value, tensor) in node.results.iter().zip(results) {
            made.insert((frame.to_vec(), value), tensor.clone());
        }
    };
    evaluate(module, func, args.to_vec(), &Context { observer: Some(&observer), ..*ctx })?;
    Ok(steps.into_inner())
}

/// The tensor of a value; a parameter is an operand of the call that leads here.
fn look_up(
    module: &Module,
    made: &HashMap<(Frame, Value), Tensor>,
    args: &[Tensor],
    func: Func,
    frame: &[(Func, Node)],
    value: Value,
) -> Tensor {
    match (module.funcs[func].values[value].def, frame.split_last()) {
        (ValueDef::Result(..), _) => made[&(frame.to_vec(), value)].clone(),
        (ValueDef::Param(i), None) => args[i].clone(),
        (ValueDef::Param(i), Some((&(caller, call), frame))) => {
            let operand = module.funcs[caller].nodes[call].args[i];
            look_up(module, made, args, caller, frame, operand)
        }
    }
}
