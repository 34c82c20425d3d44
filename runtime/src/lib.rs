//! mngc-runtime.
