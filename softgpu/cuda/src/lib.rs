//! `libcuda.so.1`: the driver interface of the soft GPU, as loaders look for it. All of it is in [`softgpu::driver`].

pub use softgpu::driver::{softgpu_last_report, softgpu_version};
