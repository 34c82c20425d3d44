//! Tasks of the workspace: `cargo xtask test`, `cargo xtask tidy`.

fn main() {}
