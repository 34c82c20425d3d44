//! From the instructions of a row program to CUDA statements.
