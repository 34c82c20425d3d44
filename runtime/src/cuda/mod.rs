//! What runs on NVIDIA's GPUs. So far: where its libraries are.

pub mod libraries;
