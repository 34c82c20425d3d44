//! Kernels of the CUDA backend, on the soft GPU with all its checks, against the oracle.

#[path = "kernels/attention.rs"]
mod attention;
mod common;
#[path = "kernels/dot.rs"]
mod dot;
mod files;
#[path = "kernels/fused.rs"]
mod fused;
#[path = "kernels/loss.rs"]
mod loss;
#[path = "kernels/nodes.rs"]
mod nodes;
#[path = "kernels/files.rs"]
mod of_files;
#[path = "kernels/ops.rs"]
mod ops;
#[path = "kernels/rows.rs"]
mod rows;

/// What runs them.
const DEVICE: common::Device = common::Device::Soft;
