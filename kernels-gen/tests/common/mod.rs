//! What tests that compile have in common.

#![allow(dead_code)] // Each test binary uses its part.

pub mod models;

use std::io::Write;

use mngc_kernels_gen::Source;
use mngc_kernels_gen::image::Target;
use mngc_kernels_gen::nvrtc::{Error, Nvrtc, Options};

/// PTX and machine code.
pub const ALL: Options = Options { ptx_only: false };

/// None, said on standard output, where there is no NVRTC.
pub fn nvrtc() -> Option<Nvrtc> {
    match Nvrtc::load() {
        Ok(nvrtc) => Some(nvrtc),
        Err(Error::Missing(_)) => {
            // Not by a macro: what these print in a test that passes is shown to nobody.
            let test = std::thread::current().name().unwrap_or("a test").to_string();
            let _ = writeln!(
                std::io::stdout(),
                "SKIPPED {test}: there is no NVRTC (softgpu/scripts/fetch-nvrtc.sh fetches it)"
            );
            None
        }
        Err(other) => panic!("{other}"),
    }
}

pub fn target(name: &str) -> Target {
    name.parse().expect("a target")
}

/// Turns 128 numbers around in shared memory.
pub fn reverse(scale: u32) -> Source {
    let text = "extern \"C\" __global__ void __launch_bounds__(128) KERNEL_NAME(float *x) {
        __shared__ float s[128];
        s[threadIdx.x] = x[threadIdx.x];
        __syncthreads();
        x[threadIdx.x] = SCALE * s[127 - threadIdx.x];
    }";
    Source::new("reverse", &text.replace("SCALE", &scale.to_string()))
}
