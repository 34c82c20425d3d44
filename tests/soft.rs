//! Training on the soft GPU against the CPU, through the command line.

mod common;

use std::path::Path;

use common::{log, numbers, shard, skipped, succeeds, text};
use mngc_runtime::cuda::libraries::Library;

/// Documents of tokens that mostly follow from the one before, so that there is something to learn.
fn tokens(count: usize, vocab: u32) -> Vec<u16> {
    let (mut tokens, mut state, mut at) = (Vec::new(), 1u32, 1u32);
    let mut random = |below: u32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 16) % below
    };
    while tokens.len() < count {
        if tokens.len() % 97 == 0 {
            tokens.push((vocab - 1) as u16);
        }
        at = (5 * at + random(4)) % (vocab - 1);
        tokens.push(at as u16);
    }
    tokens.truncate(count);
    tokens
}

fn losses(out: &Path, device: &str, low: &str) -> Vec<f64> {
    let data = out.with_extension("bin");
    std::fs::write(&data, shard(&tokens(2000, 2048))).expect("it can be written");
    let low = format!("low={low}");
    let sets = ["vocab=2048", "eot=2047", "steps=3", "warmdown=2", "batch=256", "validate.tokens=256", &low];
    let mut args = vec!["run", "models/demo.mng", "--quiet", "--device", device, "--out", text(out)];
    args.extend(["--data", text(&data), "--val", text(&data)]);
    args.extend(sets.iter().flat_map(|set| ["--set", set]));
    succeeds(&args);
    let log = log(out);
    let found = [numbers(&log, "step", "train_loss"), numbers(&log, "val", "val_loss")].concat();
    assert_eq!(found.len(), 5);
    found
}

/// The demo's architecture for three steps: the same losses on both devices, in f32 to a few roundings, in bf16 but for
/// what rounding at other places does.
#[test]
fn the_demo_trains_as_on_the_cpu() {
    if Library::Nvrtc.find().is_err() {
        return skipped("the_demo_trains_as_on_the_cpu", "there is no NVRTC (`mngc doctor --install` fetches it)");
    }
    let folder = tempfile::tempdir().expect("a folder");
    for (low, bound) in [("f32", 1e-5), ("bf16", 1e-3)] {
        let run = |device: &str| losses(&folder.path().join(format!("{device}-{low}")), device, low);
        let (cpu, soft) = (run("cpu"), run("soft"));
        for (cpu, soft) in cpu.iter().zip(&soft) {
            assert!((cpu - soft).abs() <= bound * cpu.abs(), "{low}: {soft} on the soft GPU, {cpu} on the CPU");
        }
        assert!(soft[2] < soft[0], "it learns: {soft:?}");
    }
}
