//! From a `.mng` AST to a verified, differentiated graph program. No I/O, no device.

pub mod autodiff;
pub mod axes;
pub mod check;
mod compile;
mod elaborate;
pub mod ir;
pub mod passes;
pub mod program;
pub mod schedule;

pub use compile::{CompileOptions, compile};
pub use elaborate::Load;
pub use program::{Program, Recipe, Validation};
