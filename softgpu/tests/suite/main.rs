//! The tests of the machine in one binary.
#![allow(clippy::print_stderr, clippy::print_stdout)]

mod approximations;
mod cases;
mod faults;
mod gpu;
mod numbers;
mod nvrtc;
mod rounding;
mod table;
mod units;
