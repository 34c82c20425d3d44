//! What is checked of a program before any device is touched.

pub mod causality;
