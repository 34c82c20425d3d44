//! A small program in text form, shards and weight files for the tests of the trainer.

#![allow(dead_code)] // Each test binary uses its part.

use std::path::{Path, PathBuf};

use mngc_compiler::ir::typing::Stage;
use mngc_compiler::ir::{Scalar, read, verify};
use mngc_compiler::{Program, Recipe, Validation};
use mngc_runtime::{Format, Tensor};
use mngc_trainer::Options;
use mngc_trainer::weights::{self, Named};

pub const VOCAB: usize = 7;

/// `files/bigram.ir` as a program of 5 steps of 4 × 3 tokens, validated on 4 × 3 tokens every 2 steps.
pub fn bigram() -> Program {
    let module = read::module(include_str!("../files/bigram.ir")).expect("the text of a module");
    verify::module(&module, Stage::Elaborated).expect("a legal module");
    let recipe = Recipe {
        model: "bigram".into(),
        steps: 5,
        batch: 12,
        sequence: 3,
        micro_sequences: 2,
        data: None,
        validate: Some(Validation { data: None, tokens: 12, every: 2, sequence: 3, micro_sequences: 2 }),
        vocab: Some(VOCAB),
        logged: vec![("lr".into(), Scalar::from_u32(0))],
    };
    Program { module, recipe, timings: Vec::new() }
}

/// Tokens that look like nothing in particular.
pub fn tokens(n: usize, salt: u32) -> Vec<u16> {
    let mix = |i: u32| (i.wrapping_mul(2654435761) ^ salt.wrapping_mul(40503)).rotate_left(13) >> 7;
    (0..n as u32).map(|i| (mix(i) % VOCAB as u32) as u16).collect()
}

/// The bytes of a shard.
pub fn shard(tokens: &[u16]) -> Vec<u8> {
    let mut header = [0i32; 256];
    header[..3].copy_from_slice(&[20240520, 1, tokens.len() as i32]);
    let mut bytes: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.extend(tokens.iter().flat_map(|token| token.to_le_bytes()));
    bytes
}

/// A folder with training shards `train_0.bin`, `train_1.bin`, … of the given lengths and 13 tokens in `val_0.bin`.
pub struct Data {
    pub folder: tempfile::TempDir,
    pub train: Vec<u16>,
    pub val: Vec<u16>,
}

impl Data {
    pub fn new(lengths: &[usize]) -> Data {
        let folder = tempfile::tempdir().expect("a folder");
        let train = tokens(lengths.iter().sum(), 1);
        let val = tokens(13, 2);
        let mut rest = &train[..];
        for (i, &n) in lengths.iter().enumerate() {
            std::fs::write(folder.path().join(format!("train_{i}.bin")), shard(&rest[..n])).expect("a shard");
            rest = &rest[n..];
        }
        std::fs::write(folder.path().join("val_0.bin"), shard(&val)).expect("a shard");
        Data { folder, train, val }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Options of a run on this data into `out` of its folder.
    pub fn options(&self) -> Options {
        let text = |path: PathBuf| path.to_str().expect("a UTF-8 path").to_string();
        Options {
            name: "bigram".into(),
            data: Some(text(self.path("train_*.bin"))),
            val: Some(text(self.path("val_*.bin"))),
            out: Some(self.path("out")),
            precision: "rounded".into(),
            ..Options::default()
        }
    }
}

/// Writes a weight file.
pub fn write_weights(path: &Path, tensors: Vec<(&str, Format, Tensor)>) {
    let named = tensors.into_iter().map(|(name, format, tensor)| Named { name: name.into(), format, tensor });
    weights::write(path, named.collect()).expect("a weight file");
}

/// A table whose values look like nothing in particular.
pub fn table() -> Tensor {
    let values = (0..VOCAB * VOCAB).map(|i| ((i * 37 % 101) as f64 - 50.0) / 30.0).map(|x| f64::from(x as f32));
    Tensor::floats([VOCAB, VOCAB], values.collect()).expect("a table")
}
