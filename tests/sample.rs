//! `mngc sample`, and `mngc run` with no argument.

mod common;

use std::path::{Path, PathBuf};

use common::{fails, log, succeeds, text};
use mngc_compiler::CompileOptions;
use mngc_runtime::{Precision, Reference};
use mngc_trainer::sample::{Generator, Sampling};
use mngc_trainer::train::initialize;
use serde_json::Value;
use tempfile::TempDir;

#[path = "common/compile.rs"]
mod compile;

/// Trains a small model and gives its run folder.
fn trained(folder: &TempDir, more: &[&str]) -> PathBuf {
    let out = folder.path().join("run");
    let small = ["run", "gpt2-mini", "--set", "dim=24", "--set", "sequence=24", "--set", "batch=48", "--quiet"];
    let rest = ["--set", "validate.tokens=48", "--set", "steps=4", "--out", text(&out)];
    succeeds(&[&small[..], &rest, more].concat());
    out
}

fn sample(args: &[&str]) -> Value {
    serde_json::from_str(&succeeds(&[&["sample", "--json"], args].concat())).expect("JSON")
}

/// Greedy sampling, whatever stands behind the text so far in the context, is what one full forward pass over exactly the
/// tokens so far says.
#[test]
fn greedy_sampling_equals_the_full_forward_pass() {
    let program = |sequence: &str| {
        let sets = [("dim", "24"), ("sequence", sequence), ("batch", sequence), ("validate.tokens", sequence)];
        let options: CompileOptions = compile::sets(&sets);
        compile::program("models/gpt2-mini.mng", &options).expect("a program")
    };
    let long = program("16");
    let open = |program: &mngc_compiler::Program| {
        let mut reference = Reference::new(program.module.clone(), 5, Precision::F64);
        initialize(&mut reference, &program.module, Vec::new()).expect("values");
        // Projections start as zeros: other values in their place.
        for (slot, data) in program.module.params() {
            let n = program.module.dims.elements(&data.ty.dims);
            let seed = data.name.bytes().fold(7u64, |h, b| h.wrapping_mul(31).wrapping_add(u64::from(b)));
            let floats = (0..n).map(|i| ((i as f64 + seed as f64 % 97.0) * 0.7).sin() * 0.3).collect();
            let tensor =
                mngc_runtime::Tensor::floats(program.module.dims.sizes(&data.ty.dims), floats).expect("a tensor");
            mngc_runtime::Backend::set_slot(&mut reference, slot, tensor).expect("a slot");
        }
        reference
    };
    let mut backend = open(&long);
    let mut generator = Generator::new(&mut backend, &long, 0, vec![3, 1, 4]).expect("a generator");
    let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
    for n in 4..12 {
        let before = generator.tokens().to_vec();
        let token = generator.draw(&greedy).expect("a token");
        let exact = program(&(n - 1).to_string());
        let mut backend = open(&exact);
        let mut one = Generator::new(&mut backend, &exact, 0, before.clone()).expect("a generator");
        let logits = one.logits().expect("logits");
        let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).expect("a token");
        assert_eq!(token, best as i32, "after {before:?}");
    }
}

#[test]
fn a_text_depends_on_checkpoint_prompt_and_seed_alone() {
    let folder = folder();
    let run = trained(&folder, &["--steps", "2"]);
    let checkpoint = run.join("checkpoint-2");
    let file = run.join("final.safetensors");
    let args = |path: &Path| -> Value { sample(&[text(path), "!", "-n", "9", "--seed", "3"]) };
    let first = args(&run);
    assert_eq!(first["prompt"], "!");
    assert_eq!(args(&run), first);
    // The last update is both in the checkpoint and in the parameters at the end.
    assert_eq!((args(&checkpoint), args(&file)), (first.clone(), first.clone()));
    let texts: Vec<Value> = (0..8).map(|seed| sample(&[text(&run), "!", "--seed", &seed.to_string()])).collect();
    assert!(texts.iter().any(|other| *other != texts[0]), "{texts:?}");
    let greedy = |device: &str| sample(&[text(&run), "!", "-n", "9", "--temperature", "0", "--device", device]);
    assert_eq!(greedy("cpu"), greedy("reference"));
    assert_eq!(sample(&[text(&run), "!", "-n", "9", "--top-k", "1"]), greedy("cpu"));
    // Streamed, the text is the same, after its prompt.
    let plain = succeeds(&["sample", text(&run), "!", "-n", "9", "--seed", "3"]);
    assert_eq!(plain, format!("!{}\n", first["text"].as_str().expect("a text")));
    // A run that went on, and was stopped before its end, is sampled where it is now.
    succeeds(&["run", "--resume", text(&run), "--steps", "3", "--quiet"]);
    std::fs::write(&file, "").expect("a file");
    let log = std::fs::read_to_string(run.join("log.jsonl")).expect("a log");
    let cut: Vec<&str> = log.lines().filter(|line| !line.contains(r#""event":"end""#)).collect();
    std::fs::write(run.join("log.jsonl"), cut.join("\n")).expect("a file");
    assert_eq!(args(&run), args(&run.join("checkpoint-3")));
}

/// A model that is another one at step 0 than after its steps.
#[test]
fn a_model_that_depends_on_the_step_is_sampled_at_its_step() {
    let folder = folder();
    let model = folder.path().join("stepped.mng");
    let text_of = |factor: &str| {
        format!(
            r#"extend "gpt2-mini.mng" {{
  const dim = 24, sequence = 16
  block Mlp {{
    param c_fc.weight: [4 * dim, dim] init uniform(1 / sqrt(dim))
    param c_proj.weight: [dim, 4 * dim] init uniform(1 / sqrt(dim))
    fn[T] (x: [T, dim]) {{ return {factor} * linear(square(relu(linear(x, c_fc.weight))), c_proj.weight) }}
  }}
  train {{
    steps = 4
    batch = 32
    validate {{ tokens = 32, every = 2 }}
  }}
}}
"#
        )
    };
    std::fs::write(&model, text_of("(1 + 1000 * max(0, 4 - step))")).expect("a file");
    let run = folder.path().join("run");
    succeeds(&["run", text(&model), "--out", text(&run), "--quiet"]);
    let plain = folder.path().join("plain.mng");
    std::fs::write(&plain, text_of("1")).expect("a file");
    let bare = folder.path().join("bare.safetensors");
    std::fs::copy(run.join("final.safetensors"), &bare).expect("a copy");
    let greedy = ["!", "-n", "12", "--temperature", "0"];
    let expected = sample(&[&[text(&bare), "--model", text(&plain)], &greedy[..]].concat());
    assert_eq!(sample(&[&[text(&run)], &greedy[..]].concat()), expected);
    assert_eq!(sample(&[&[text(&run.join("checkpoint-4"))], &greedy[..]].concat()), expected);
    assert_eq!(sample(&[&[text(&bare), "--model", text(&model)], &greedy[..]].concat()), expected);
}

#[test]
fn what_cannot_be_sampled_is_one_error() {
    let folder = folder();
    let run = trained(&folder, &[]);
    let message = fails(1, &["sample", text(&run), "Zebra"]);
    assert!(message.contains("the model's vocabulary ends at 299"), "{message}");
    let message = fails(1, &["sample", "no/such/folder"]);
    assert!(message.contains("there is no such folder"), "{message}");
    let message = fails(1, &["sample", text(folder.path())]);
    assert!(message.contains("no checkpoint is in this folder"), "{message}");
    let bare = folder.path().join("bare.safetensors");
    std::fs::copy(run.join("final.safetensors"), &bare).expect("a copy");
    let message = fails(2, &["sample", text(&bare), "!"]);
    assert!(message.contains("give --model"), "{message}");
    let message = fails(1, &["sample", text(&bare), "!", "--model", "gpt2-mini"]);
    assert!(message.contains("does not fit the model"), "{message}");
    for wrong in
        [["--temperature", "-1"], ["--temperature", "x"], ["--top-p", "1.5"], ["--top-k", "0"], ["--seed", "-1"]]
    {
        fails(2, &[&["sample", text(&run)], &wrong[..]].concat());
    }
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

/// With no argument and no model file in the folder, the demo runs; here for one step.
#[test]
fn without_a_model_the_demo_runs_and_writes_a_text() {
    let folder = folder();
    let mut command = common::mngc(&["run", "--steps", "1", "--sample", "4", "--set", "validate.tokens=256"]);
    let output = command.current_dir(folder.path()).env("XDG_CACHE_HOME", folder.path()).output().expect("it starts");
    let (out, err) = (common::stdout(&output), common::stderr(&output));
    assert_eq!(output.status.code(), Some(0), "{err}");
    let run = folder.path().join("runs/demo-001");
    for part in ["parameters", "tokens needed", "memory", "threads", "  time ", "runs/demo-001"] {
        assert!(err.contains(part), "{part}: {err}");
    }
    assert!(out.contains("1 steps in") && out.contains(" → "), "{out}");
    assert!(out.trim_end().lines().count() > 2, "{out}");
    let start = log(&run).remove(0);
    let total = start["parameters"].as_u64().expect("a number");
    let (active, embedding) = (start["active_parameters"].as_u64(), start["embedding_parameters"].as_u64());
    assert_eq!(active.zip(embedding).map(|(a, b)| a + b), Some(total), "{start}");
    assert!(folder.path().join("mngc/demo").is_dir());
}
