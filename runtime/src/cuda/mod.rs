//! What runs on NVIDIA's GPUs. So far: where its libraries are.

pub use mngc_kernels_gen::libraries;
