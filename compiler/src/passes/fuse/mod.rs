//! Fusion: what one kernel computes becomes one call, whose function is the graph that it stands for.
//!
//! The passes work on flat graphs. Each finds clusters of nodes by structure, whatever order they were written in, and
//! leaves the rest as it is. A cluster may become a call where no path leads out of it and back (`units.rs`) and a
//! backend's kernel can do it (`schedule::cluster` translates every candidate); `outline.rs` moves it out. Fused kernels
//! round less than their graphs: values agree with the f64 run of what stood there before, up to the order of sums.

use crate::ir::Value;
use crate::schedule::cluster::{self, Leaf, Output};
use crate::schedule::rows::RowProgram;
use flow::Flow;

pub mod dot;
mod flow;
pub mod loss;
mod outline;
pub mod pads;
pub mod rows;
pub mod sums;
mod symmetric;
mod units;

/// Most nodes of one cluster: its program should stay within reach of an instruction cache and of people.
pub(crate) const MOST_NODES: usize = 64;

/// Most operands and results of one cluster.
pub(crate) const MOST_TENSORS: usize = 24;

/// Longest tile of a row program, in elements: the least common multiple of its row lengths.
pub(crate) const LONGEST_TILE: usize = 16384;

/// Most elementwise nodes of a cluster that are computed for every element although they have fewer.
const MOST_REPEATED: usize = 8;

/// The program that makes `results` from `inputs`, read as the operands that are told; none where there is no such.
fn program(flow: &Flow, inputs: &[(Value, usize)], results: &[Value]) -> Option<RowProgram> {
    let leaves: Vec<Leaf> = inputs.iter().map(|&(value, operand)| Leaf { value, operand }).collect();
    let outputs: Vec<Output> = results.iter().enumerate().map(|(result, &value)| Output { value, result }).collect();
    cluster::compile(flow.m, flow.g, &leaves, &outputs).ok()
}
