//! Packs the demo's text, so that the program can carry it with it.

use std::path::PathBuf;
use std::{env, fs, io};

/// Of zstd: higher ones take seconds and save little.
const LEVEL: i32 = 12;

fn main() -> io::Result<()> {
    let text = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("../data/demo");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    for name in ["train", "val"] {
        let path = text.join(format!("{name}.txt"));
        println!("cargo::rerun-if-changed={}", path.display());
        fs::write(out.join(format!("{name}.txt.zst")), zstd::encode_all(fs::File::open(path)?, LEVEL)?)?;
    }
    Ok(())
}
