//! mngc-compiler.
