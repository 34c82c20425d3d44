//! From the kernels of a schedule to CUDA text.
//!
//! A launch of a plan becomes a [`Spec`]: what runs, and on what tensors. [`generate`] turns it into one or more
//! [`Call`]s of CUDA kernels for a [`Device`], which is a plain description; nothing here needs a GPU. Token counts and
//! other sizes that a longer sequence changes are parameters of calls, so that one text serves all of them; lengths of
//! rows and dims of heads are constants of the text.

pub mod attention;
pub mod cache;
pub mod call;
mod compact;
pub mod device;
pub mod dot;
mod entropy;
mod few;
pub mod files;
pub mod folders;
pub mod image;
mod kernel;
mod layout;
pub mod libraries;
pub mod listing;
mod long;
mod lookup;
pub mod loss;
mod nothing;
mod numbers;
pub mod nvrtc;
pub mod pointers;
pub mod prepared;
pub mod program;
mod reduce;
pub mod registry;
pub mod rows;
mod scan;
pub mod spec;
pub mod templates;

pub use call::{Address, Call, Generated, Param, Source};
pub use device::Device;
pub use listing::{Calls, Listing};
pub use registry::generate;
pub use spec::{Operand, Refusal, Spec};
