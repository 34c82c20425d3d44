//! Gives the library the name inside that loaders ask for, and leaves `libcuda.so.1` beside `libcuda.so`.

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libcuda.so.1");
    // OUT_DIR is target/PROFILE/build/PACKAGE-HASH/out.
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default());
    if let Some(profile) = out.ancestors().nth(3) {
        link(&profile.join("libcuda.so.1"));
    }
}

/// A relative link: it stays right when the folder is moved, and dangles until the library is built.
#[cfg(unix)]
fn link(at: &Path) {
    if std::fs::symlink_metadata(at).is_ok() {
        return;
    }
    if let Err(e) = std::os::unix::fs::symlink("libcuda.so", at) {
        println!("cargo::warning=libcuda.so.1 could not be made: {e}");
    }
}

#[cfg(not(unix))]
fn link(_: &Path) {}
