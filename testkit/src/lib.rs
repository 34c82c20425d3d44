//! What tests of several crates share: random well-typed modules with inputs ([`cases`]), bounds on what rounding may do
//! ([`fn@close`]), and central differences for gradients ([`gradient_check`]).
//!
//! It is a library of tests: where its own rules are broken it panics.

pub mod close;
pub mod generate;
pub mod gradient;
pub mod kernels;
pub mod kind;
mod nodes;
mod operands;
pub mod smooth;
pub mod steps;
mod tape;
pub mod trace;
pub mod values;

pub use close::{Mismatch, Tolerance, bits, close, close_chain, relative_l2};
pub use generate::{Case, Config, cases};
pub use gradient::{GradientFault, central_difference, gradient_check};
