//! PTX text to syntax tree: no meaning is given here, only shape.

pub mod ast;
pub mod lexer;
mod parse;
mod statement;

pub use parse::parse;
