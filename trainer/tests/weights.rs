//! Weight files: what fits, and everything that can be wrong with one.

mod common;

use std::path::Path;

use common::{VOCAB, bigram, table, write_weights};
use mngc_runtime::{Format, Tensor};
use mngc_trainer::error::{Error, WeightFault};
use mngc_trainer::weights;
use proptest::prelude::*;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn faults(path: &Path) -> Vec<WeightFault> {
    match weights::read(path, &bigram().module) {
        Err(Error::Weights { faults, .. }) => faults,
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_float_dtype_is_read() {
    let folder = folder();
    let path = folder.path().join("w.safetensors");
    for format in [Format::F64, Format::F32, Format::BF16, Format::F16] {
        let bias = Tensor::scalar(-0.375);
        write_weights(&path, vec![("table", format, table()), ("bias", format, bias.clone())]);
        let read = weights::read(&path, &bigram().module).expect("weights");
        let written = table().to_bytes(format).expect("bytes");
        assert_eq!(read[0].1, Tensor::from_bytes([VOCAB, VOCAB], format, &written).expect("a tensor"));
        assert_eq!(read[1].1, bias);
    }
}

#[test]
fn everything_that_does_not_fit_is_listed() {
    let folder = folder();
    let path = folder.path().join("w.safetensors");
    let wide = Tensor::floats([VOCAB, 8], vec![0.0; VOCAB * 8]).expect("a tensor");
    let tensors =
        vec![("table", Format::F32, wide), ("tabel", Format::F32, table()), ("x.attn.b", Format::F32, table())];
    write_weights(&path, tensors);
    let expected = [
        WeightFault::Shape { name: "table".into(), expected: vec![VOCAB, VOCAB], found: vec![VOCAB, 8] },
        WeightFault::Missing("bias".into()),
        WeightFault::Unknown("tabel".into()),
        WeightFault::Unknown("x.attn.b".into()),
    ];
    assert_eq!(faults(&path), expected);
    let message = weights::read(&path, &bigram().module).expect_err("faults").to_string();
    assert_eq!(message.lines().count(), 5, "{message}");
}

#[test]
fn a_scalar_is_no_list_of_one() {
    let folder = folder();
    let path = folder.path().join("w.safetensors");
    let one = Tensor::floats([1], vec![0.5]).expect("a tensor");
    write_weights(&path, vec![("table", Format::F32, table()), ("bias", Format::F32, one)]);
    assert_eq!(faults(&path), [WeightFault::Shape { name: "bias".into(), expected: vec![], found: vec![1] }]);
}

#[test]
fn values_that_are_not_finite_are_refused_in_the_file_and_in_the_model() {
    let folder = folder();
    let path = folder.path().join("w.safetensors");
    // f64 1e39 is beyond f32, and f32's largest rounds up to infinity in bf16.
    for (value, bias) in [(f64::NAN, 0.0), (f64::NEG_INFINITY, 0.0), (1e39, 0.0), (0.0, f64::from(f32::MAX))] {
        let mut values = table().as_floats().expect("floats").to_vec();
        values[5] = value;
        let broken = Tensor::floats([VOCAB, VOCAB], values).expect("a tensor");
        write_weights(&path, vec![("table", Format::F64, broken), ("bias", Format::F64, Tensor::scalar(bias))]);
        let found = faults(&path);
        let at = |name: &str| found.iter().any(|f| matches!(f, WeightFault::NotFinite { name: n, .. } if n == name));
        assert_eq!(found.len(), 1);
        assert!(at(if bias == 0.0 { "table" } else { "bias" }), "{found:?}");
    }
}

#[test]
fn dtypes_that_are_no_floats_are_refused() {
    let folder = folder();
    let path = folder.path().join("w.safetensors");
    let ints = vec![0u8; 4 * VOCAB * VOCAB];
    let table = TensorView::new(Dtype::I32, vec![VOCAB, VOCAB], &ints).expect("a view");
    let bias = TensorView::new(Dtype::F32, vec![], &[0, 0, 0, 0]).expect("a view");
    let bytes = safetensors::serialize([("table", table), ("bias", bias)], None).expect("bytes");
    std::fs::write(&path, bytes).expect("a file");
    assert_eq!(faults(&path), [WeightFault::DType { name: "table".into(), found: "I32".into() }]);
}

#[test]
fn mask_buffers_of_hugging_face_are_passed_over() {
    let folder = folder();
    let path = folder.path().join("w.safetensors");
    let mask = Tensor::floats([1, 1, 2, 2], vec![1.0; 4]).expect("a tensor");
    write_weights(
        &path,
        vec![
            ("table", Format::F32, table()),
            ("bias", Format::F32, Tensor::scalar(0.0)),
            ("transformer.h.0.attn.bias", Format::F32, mask),
            ("h.0.attn.masked_bias", Format::F32, Tensor::scalar(-1e4)),
        ],
    );
    assert_eq!(weights::read(&path, &bigram().module).expect("weights").len(), 2);
}

#[test]
fn files_that_are_no_safetensors_are_refused() {
    let folder = folder();
    let path = folder.path().join("w.safetensors");
    let bias = Tensor::scalar(0.0);
    write_weights(&path, vec![("table", Format::F32, table()), ("bias", Format::F32, bias)]);
    let whole = std::fs::read(&path).expect("a file");
    let huge = [&u64::MAX.to_le_bytes()[..], &whole[8..]].concat();
    let cases: [&[u8]; 6] = [b"", b"1234567", b"{}", &whole[..whole.len() - 1], &huge, &[&whole[..], &[0]].concat()];
    for bytes in cases {
        std::fs::write(&path, bytes).expect("a file");
        let failed = weights::read(&path, &bigram().module);
        assert!(
            matches!(failed, Err(Error::Safetensors { .. } | Error::Io { .. })),
            "{} bytes: {failed:?}",
            bytes.len()
        );
    }
    assert!(matches!(weights::read(folder.path(), &bigram().module), Err(Error::WeightsFolder { .. })));
    assert!(matches!(weights::read(&folder.path().join("none"), &bigram().module), Err(Error::Io { .. })));
}

#[test]
fn a_file_replaces_another_whole_and_leaves_nothing_else() {
    let folder = folder();
    let path = folder.path().join("w.safetensors");
    for value in [1.0, 2.0] {
        write_weights(&path, vec![("a", Format::F32, Tensor::scalar(value))]);
    }
    let names: Vec<_> =
        std::fs::read_dir(folder.path()).expect("a folder").map(|f| f.expect("a file").file_name()).collect();
    assert_eq!(names, ["w.safetensors"]);
    let missing = folder.path().join("none/w.safetensors");
    assert!(matches!(mngc_trainer::files::write_atomically(&missing, b"x"), Err(Error::Io { action: "write", .. })));
}

#[cfg(unix)]
#[test]
fn a_file_has_the_permissions_of_any_new_file() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder();
    let (ours, plain) = (folder.path().join("ours"), folder.path().join("plain"));
    mngc_trainer::files::write_atomically(&ours, b"x").expect("a file");
    std::fs::write(&plain, b"x").expect("a file");
    let mode = |path: &Path| std::fs::metadata(path).expect("a file").permissions().mode();
    assert_eq!(mode(&ours), mode(&plain));
}

proptest! {
    #[test]
    fn a_damaged_file_never_makes_the_reader_panic(at in 0usize..400, byte in any::<u8>(), cut in 0usize..500) {
        let folder = folder();
        let path = folder.path().join("w.safetensors");
        write_weights(&path, vec![("table", Format::F32, table()), ("bias", Format::F32, Tensor::scalar(0.0))]);
        let mut bytes = std::fs::read(&path).expect("a file");
        let end = bytes.len();
        bytes[at % end] = byte;
        bytes.truncate(end - cut.saturating_sub(300));
        std::fs::write(&path, &bytes).expect("a file");
        let _ = weights::read(&path, &bigram().module);
    }
}
