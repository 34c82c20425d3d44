//! Reads `files/*.ir`: modules in text form, with runs and their results as comments.

use std::path::Path;

use mngc_compiler::ir::{DType, Func, Module, Type};
use mngc_runtime::{Data, Tensor};

/// Names and texts of all files, in order.
pub fn all() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files");
    let paths = std::fs::read_dir(folder).expect("the folder").map(|f| f.expect("a file").path());
    let mut paths: Vec<_> = paths.filter(|path| path.extension().is_some_and(|e| e == "ir")).collect();
    paths.sort();
    let name = |path: &Path| path.file_name().expect("a name").to_string_lossy().into_owned();
    paths.iter().map(|path| (name(path), std::fs::read_to_string(path).expect("a text"))).collect()
}

/// A float as in Rust, and fractions such as `1/3`.
fn float(word: &str) -> f64 {
    let number = |w: &str| w.parse::<f64>().unwrap_or_else(|_| panic!("`{w}` is no number"));
    match word.split_once('/') {
        Some((a, b)) => number(a) / number(b),
        None => number(word),
    }
}

/// The tensor of a type that a text writes down, rounded to its dtype.
pub fn tensor(module: &Module, ty: &Type, text: &str) -> Tensor {
    let words = text.split(|c: char| c.is_whitespace() || "[],".contains(c)).filter(|w| !w.is_empty());
    let data = match ty.dtype {
        DType::F32 | DType::BF16 | DType::F16 => Data::Float(words.map(float).collect()),
        DType::I32 => Data::Int(words.map(|w| w.parse().expect("an i32")).collect()),
        DType::Bool => Data::Bool(words.map(|w| w.parse().expect("true or false")).collect()),
    };
    let sizes = module.dims.sizes(&ty.dims);
    Tensor::new(sizes, data).unwrap_or_else(|e| panic!("{e} in `{text}`")).rounded(ty.dtype)
}

/// `f0(a; b) = c; d` as the function and what stands between the semicolons.
pub fn call(directive: &str) -> (Func, Vec<&str>, Vec<&str>) {
    let (head, rest) = directive.split_once('(').expect("a function and its arguments");
    let (args, expected) = rest.split_once(") =").expect("`) =`");
    let func = Func::from_u32(head.trim().strip_prefix('f').expect("f0").parse().expect("the number of a function"));
    let args = if args.trim().is_empty() { Vec::new() } else { args.split(';').collect() };
    (func, args, expected.split(';').collect())
}
