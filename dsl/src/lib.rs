//! The `.mng` language: text to AST and back, formatter, spanned diagnostics.

pub mod ast;
pub mod diagnostic;
mod fmt;
mod parse;
mod render;
mod shorten;
pub mod span;

pub use diagnostic::{Diagnostic, Severity, Sources};
pub use fmt::format;
pub use parse::parse;
pub use span::{FileId, Span};
