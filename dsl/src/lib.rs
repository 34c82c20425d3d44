//! mngc-dsl.
