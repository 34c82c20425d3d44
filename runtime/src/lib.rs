//! Tensors on the host and the backends that execute a compiled program.
//!
//! [`mod@reference`] is the oracle: it runs any graph of the IR node by node in f64, rounding where the IR says so. The other
//! backends are compared with it. All of them stand behind [`Backend`].

pub mod backend;
pub mod cpu;
pub mod cuda;
pub mod error;
pub mod reference;
pub mod round;
pub mod tensor;

pub use backend::{Backend, KernelTime};
pub use cpu::Cpu;
pub use cuda::Cuda;
pub use error::{Error, Result};
pub use mngc_kernels_gen::{files, folders};
pub use reference::{Context, Precision, Reference, evaluate};
pub use tensor::{Data, Format, Tensor};
