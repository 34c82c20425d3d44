//! What is checked of a program before any device is touched.

pub mod causality;
pub mod roles;
pub mod uses;
