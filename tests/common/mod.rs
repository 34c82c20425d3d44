//! Runs the program and reads what it leaves.

#![allow(dead_code)] // Each test binary uses its part.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;

use assert_cmd::Command;
use safetensors::SafeTensors;
use serde_json::Value;

/// The program, in the repository's root.
pub fn mngc(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mngc"));
    command.args(args).current_dir(env!("CARGO_MANIFEST_DIR")).env_remove("NO_COLOR");
    command
}

/// Says that a test does not run here: `cargo xtask test` counts it as skipped.
#[allow(clippy::print_stdout)]
pub fn skipped(test: &str, why: &str) {
    println!("SKIPPED {test}: {why}");
}

/// Runs it and gives what came of it.
pub fn output(args: &[&str]) -> Output {
    mngc(args).output().expect("the program starts")
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

/// Runs it, expects success and gives standard output.
pub fn succeeds(args: &[&str]) -> String {
    let output = output(args);
    assert_eq!(output.status.code(), Some(0), "{args:?}\n{}", stderr(&output));
    stdout(&output)
}

/// Runs it, expects this exit code and gives standard error.
pub fn fails(code: i32, args: &[&str]) -> String {
    let output = output(args);
    let stderr = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{args:?}\n{}{stderr}", stdout(&output));
    assert!(!stderr.contains("panicked"), "{stderr}");
    stderr
}

pub fn golden(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file)
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

/// The lines of a run folder's log.
pub fn log(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("log.jsonl")).expect("a log");
    text.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect()
}

/// A number of every event of a kind.
pub fn numbers(log: &[Value], event: &str, field: &str) -> Vec<f64> {
    let events = log.iter().filter(|line| line["event"] == event);
    events.map(|line| line[field].as_f64().unwrap_or_else(|| panic!("no {field} in {line}"))).collect()
}

/// The tensors of an f32 safetensors file.
pub fn tensors(path: &Path) -> BTreeMap<String, Vec<f64>> {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let floats = |view: &safetensors::tensor::TensorView| {
        assert_eq!(view.dtype(), safetensors::Dtype::F32);
        let (chunks, _) = view.data().as_chunks::<4>();
        chunks.iter().map(|&chunk| f64::from(f32::from_le_bytes(chunk))).collect()
    };
    file.iter().map(|(name, view)| (name.to_string(), floats(&view))).collect()
}

/// The bytes of a token shard.
pub fn shard(tokens: &[u16]) -> Vec<u8> {
    let mut header = [0i32; 256];
    header[..3].copy_from_slice(&[20240520, 1, tokens.len() as i32]);
    let mut bytes: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.extend(tokens.iter().flat_map(|token| token.to_le_bytes()));
    bytes
}
