//! The tests of the machine in one binary.
#![allow(clippy::print_stderr, clippy::print_stdout)]

mod alu;
mod approximations;
mod cases;
mod command;
mod control;
mod counters;
mod docs;
mod faults;
mod gpu;
mod groups;
mod mutations;
mod numbers;
mod nvrtc;
mod rounding;
mod table;
mod units;
