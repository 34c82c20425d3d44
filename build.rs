//! Lists the model files of `models/`, so that the command line carries them with it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    println!("cargo::rerun-if-changed=models");
    let mut models = BTreeMap::new();
    for entry in fs::read_dir(root.join("models"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "mng") {
            models.insert(path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), path);
        }
    }
    let mut list = String::from("&[\n");
    for (name, path) in models {
        let _ = writeln!(list, "    ({name:?}, include_str!({path:?})),");
    }
    list.push_str("]\n");
    fs::write(out.join("bundled.rs"), list)
}
