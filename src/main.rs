//! The `mngc` command line.

fn main() {}
