//! Gives the library the name inside that loaders ask for, and leaves `libcuda.so` and `libcuda.so.1` beside the binaries.

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libcuda.so");
    // OUT_DIR is target/PROFILE/build/PACKAGE-HASH/out.
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default());
    if let Some(profile) = out.ancestors().nth(3) {
        link(&profile.join("libcuda.so"));
        link(&profile.join("libcuda.so.1"));
    }
}

/// A relative link, so that it stays right when the folder is moved. It dangles until the library is built. `cargo build`
/// would leave a library here by itself, `cargo test` would not, and so find an old one; both leave it in `deps`.
#[cfg(unix)]
fn link(at: &Path) {
    let to = Path::new("deps/libcuda.so");
    if std::fs::read_link(at).is_ok_and(|old| old == to) {
        return;
    }
    let _ = std::fs::remove_file(at);
    if let Err(e) = std::os::unix::fs::symlink(to, at) {
        println!("cargo::warning={} could not be made: {e}", at.display());
    }
}

#[cfg(not(unix))]
fn link(_: &Path) {}
