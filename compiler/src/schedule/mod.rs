//! From a module to what a backend executes: kernels in order, and the memory of every tensor.
//!
//! `lower` flattens the entries and runs the fusion passes; `kernel` and `rows` say what a launch runs; `plan` says
//! where tensors lie. The same schedule serves every backend.

pub mod cluster;
pub mod kernel;
mod loss;
mod matmul;
pub mod plan;
pub mod rows;
