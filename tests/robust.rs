//! What happens to long runs: stops, kills, numbers that are none, full disks, damaged checkpoints. A run that goes on ends
//! with the bits of one that never stopped.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{fails, log, numbers, stderr, succeeds, text};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A model that trains in a moment.
const SMALL: [&str; 10] = [
    "gpt2-mini",
    "--set",
    "dim=24",
    "--set",
    "sequence=16",
    "--set",
    "batch=32",
    "--set",
    "validate.tokens=32",
    "--quiet",
];

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

/// `mngc run` of the small model with so many steps, into a folder.
fn run<'a>(steps: &'a str, out: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["run"];
    args.extend(SMALL);
    args.extend(["--set", steps, "--out", text(out)]);
    args.extend(more);
    args
}

fn weights(run: &Path) -> Vec<u8> {
    fs::read(run.join("final.safetensors")).expect("the parameters")
}

/// The steps of a log, each with its loss.
fn losses(run: &Path) -> Vec<(u64, f64)> {
    let steps = log(run).into_iter().filter(|line| line["event"] == "step");
    steps.map(|line| (line["step"].as_u64().expect("a step"), line["train_loss"].as_f64().expect("a loss"))).collect()
}

/// The steps of the checkpoints in a run folder.
fn checkpoints(run: &Path) -> Vec<u64> {
    let names = fs::read_dir(run).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let mut steps: Vec<u64> =
        names.filter_map(|name| name.to_str()?.strip_prefix("checkpoint-")?.parse().ok()).collect();
    steps.sort_unstable();
    steps
}

/// Starts a run that is to be disturbed.
fn start(args: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mngc"));
    command.args(args).current_dir(env!("CARGO_MANIFEST_DIR"));
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts")
}

#[test]
fn a_run_goes_on_with_the_same_bits() {
    for device in ["cpu", "reference"] {
        let folder = folder();
        let [whole, parts] = ["whole", "parts"].map(|name| folder.path().join(name));
        let device = ["--device", device];
        succeeds(&run("steps=6", &whole, &device));
        succeeds(&run("steps=6", &parts, &[&device[..], &["--steps", "1"]].concat()));
        // The last step is a checkpoint whatever the cadence, and --steps may stop it again.
        assert_eq!(checkpoints(&parts), [1]);
        succeeds(&[&["run", "--resume", text(&parts), "--steps", "4", "--quiet"], &device[..]].concat());
        let last = parts.join("checkpoint-4");
        succeeds(&[&["run", "--resume", text(&last), "--quiet"], &device[..]].concat());
        assert_eq!(losses(&parts), losses(&whole));
        assert_eq!(weights(&parts), weights(&whole));
        let vals = |run: &Path| (numbers(&log(run), "val", "step"), numbers(&log(run), "val", "val_loss"));
        // A run that is cut off validates at its end.
        let (steps, found) = vals(&parts);
        let (all, expected) = vals(&whole);
        assert_eq!((&steps[..], &all[..]), (&[0.0, 1.0, 4.0, 6.0][..], &[0.0, 4.0, 6.0][..]));
        assert_eq!([found[0], found[2], found[3]], expected[..]);
        let resumed: Vec<Value> = log(&parts).into_iter().filter(|line| line["event"] == "resume").collect();
        assert_eq!(resumed.iter().map(|line| &line["step"]).collect::<Vec<_>>(), [1, 4]);
    }
}

#[test]
fn the_last_checkpoints_and_the_best_are_kept() {
    let folder = folder();
    let out = folder.path().join("run");
    succeeds(&run("steps=7", &out, &["--checkpoint-every", "1", "--keep", "2", "--set", "validate.every=1"]));
    let vals = numbers(&log(&out), "val", "val_loss");
    let best = (1..vals.len()).min_by(|&a, &b| vals[a].total_cmp(&vals[b])).expect("a validation") as u64;
    let mut expected = vec![best, 6, 7];
    expected.sort_unstable();
    expected.dedup();
    assert_eq!(checkpoints(&out), expected);
    let manifest = fs::read_to_string(out.join("checkpoint-7/checkpoint.json")).expect("a manifest");
    let manifest: Value = serde_json::from_str(&manifest).expect("JSON");
    assert_eq!((&manifest["schema"], &manifest["step"], &manifest["tokens"]), (&json!(1), &json!(7), &json!(7 * 32)));
    assert!(manifest["may_differ"].as_array().is_some_and(|list| !list.is_empty()));
    let slots = manifest["slots"].as_array().expect("slots");
    assert!(slots.iter().any(|slot| slot["role"] == "optimizer" && slot["dtype"] == "f32"), "{slots:?}");
}

#[test]
fn no_checkpoint_is_written_where_none_is_wanted() {
    let folder = folder();
    let out = folder.path().join("run");
    succeeds(&run("steps=4", &out, &["--checkpoint-every", "0", "--steps", "2"]));
    assert_eq!(checkpoints(&out), [0; 0]);
    let message = fails(1, &["run", "--resume", text(&out)]);
    assert!(message.contains("no checkpoint is in this folder"), "{message}");
}

#[test]
fn an_older_checkpoint_goes_into_a_folder_of_its_own() {
    let folder = folder();
    let [first, second] = ["first", "second"].map(|name| folder.path().join(name));
    succeeds(&run("steps=4", &first, &["--checkpoint-every", "1", "--keep", "9"]));
    let from = first.join("checkpoint-2");
    succeeds(&["run", "--resume", text(&from), "--out", text(&second), "--quiet"]);
    assert_eq!(losses(&second), losses(&first)[2..]);
    assert_eq!(weights(&second), weights(&first));
    // A copy of a checkpoint has no log to go on with.
    let copy = folder.path().join("copy/checkpoint-2");
    fs::create_dir_all(&copy).expect("a folder");
    for file in ["checkpoint.json", "state.safetensors"] {
        fs::copy(from.join(file), copy.join(file)).expect("a copy");
    }
    let message = fails(1, &["run", "--resume", text(&copy)]);
    assert!(message.contains("no log.jsonl is beside the checkpoint: give --out"), "{message}");
}

#[test]
fn what_a_run_was_told_is_remembered_when_it_goes_on() {
    let folder = folder();
    let [whole, parts] = ["whole", "parts"].map(|name| folder.path().join(name));
    let told = ["--micro", "1", "--checkpoint-every", "1", "--keep", "3"];
    succeeds(&run("steps=6", &whole, &told));
    succeeds(&run("steps=6", &parts, &[&told[..], &["--steps", "4"]].concat()));
    succeeds(&["run", "--resume", text(&parts), "--quiet"]);
    assert_eq!(weights(&parts), weights(&whole));
    assert_eq!(checkpoints(&parts), checkpoints(&whole));
    assert!(checkpoints(&parts).len() >= 3, "{:?}", checkpoints(&parts));
    let message = fails(1, &["run", "--resume", text(&parts), "--dump-gradients", "1"]);
    assert!(message.contains("was before the checkpoint"), "{message}");
}

#[test]
fn going_back_puts_later_checkpoints_aside() {
    let folder = folder();
    let out = folder.path().join("run");
    succeeds(&run("steps=6", &out, &["--checkpoint-every", "1", "--keep", "9"]));
    let before = losses(&out);
    let back = out.join("checkpoint-2");
    succeeds(&["run", "--resume", text(&back), "--steps", "3", "--quiet"]);
    assert_eq!(checkpoints(&out), [1, 2, 3]);
    assert!(out.join("abandoned-6/checkpoint.json").is_file());
    succeeds(&["run", "--resume", text(&out), "--quiet"]);
    assert_eq!(losses(&out), before);
}

#[test]
fn checkpoints_of_others_are_left_alone() {
    let folder = folder();
    let out = folder.path().join("run");
    let theirs = out.join("checkpoint-1/pytorch_model.bin");
    fs::create_dir_all(out.join("checkpoint-1")).expect("a folder");
    fs::write(&theirs, "weights").expect("a file");
    let message = fails(1, &run("steps=4", &out, &["--checkpoint-every", "1"]));
    assert!(message.contains("holds a run already"), "{message}");
    assert_eq!(fs::read_to_string(&theirs).expect("a file"), "weights");
    // In the folder of a run they are no checkpoints of it.
    let mixed = folder.path().join("mixed");
    succeeds(&run("steps=4", &mixed, &["--checkpoint-every", "1", "--steps", "2"]));
    fs::create_dir(mixed.join("checkpoint-9")).expect("a folder");
    succeeds(&["run", "--resume", text(&mixed), "--quiet"]);
    assert!(mixed.join("checkpoint-9").is_dir());
}

#[test]
fn a_model_of_several_files_goes_on_without_them() {
    let folder = folder();
    let lib = folder.path().join("lib");
    fs::create_dir(&lib).expect("a folder");
    let model = folder.path().join("model.mng");
    fs::write(folder.path().join("sizes.mng"), "const wide = 24\n").expect("a file");
    fs::write(lib.join("more.mng"), "import \"../sizes.mng\"\nconst long = 16\n").expect("a file");
    let body = "import \"sizes.mng\"\nimport \"lib/more.mng\"\nextend \"gpt2-mini.mng\" {\n  const dim = wide, sequence = long\n}\n";
    fs::write(&model, body).expect("a file");
    let out = folder.path().join("run");
    let sizes = ["--set", "batch=32", "--set", "validate.tokens=32", "--steps", "2", "--quiet", "--out", text(&out)];
    succeeds(&[&["run", text(&model)], &sizes[..]].concat());
    for file in [&model, &folder.path().join("sizes.mng"), &lib.join("more.mng")] {
        fs::remove_file(file).expect("a file");
    }
    succeeds(&["run", "--resume", text(&out), "--steps", "3", "--quiet"]);
    succeeds(&["sample", text(&out), "!", "-n", "2"]);
}

/// Waits until a run has made its first step.
#[cfg(unix)]
fn wait_for_a_step(run: &Path) {
    for _ in 0..600 {
        let text = fs::read_to_string(run.join("log.jsonl")).unwrap_or_default();
        if text.contains("\"event\":\"step\"") {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("no step in 30 seconds");
}

#[cfg(unix)]
#[test]
fn signals_end_a_run_with_a_checkpoint() {
    for signal in ["-INT", "-TERM"] {
        let folder = folder();
        let [whole, stopped] = ["whole", "stopped"].map(|name| folder.path().join(name));
        let steps = "steps=150";
        succeeds(&run(steps, &whole, &[]));
        let child = start(&run(steps, &stopped, &[]));
        wait_for_a_step(&stopped);
        let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().expect("kill");
        assert!(sent.success());
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let end = log(&stopped).pop().expect("a line");
        if end["stopped"] == false {
            // A machine that is fast enough to be done in the meantime shows nothing.
            common::skipped("signals_end_a_run_with_a_checkpoint", "the run was faster than the signal");
            return;
        }
        assert_eq!((&end["event"], &end["error"]), (&json!("end"), &Value::Null));
        assert_eq!(checkpoints(&stopped).last().copied(), end["steps"].as_u64());
        assert!(common::stdout(&output).contains("mngc run --resume"));
        succeeds(&["run", "--resume", text(&stopped), "--quiet"]);
        assert_eq!(losses(&stopped), losses(&whole));
        assert_eq!(weights(&stopped), weights(&whole));
    }
}

#[cfg(unix)]
#[test]
fn a_run_survives_being_killed_at_any_moment() {
    let folder = folder();
    let [whole, killed] = ["whole", "killed"].map(|name| folder.path().join(name));
    let steps = "steps=200";
    let often = ["--checkpoint-every", "1"];
    succeeds(&run(steps, &whole, &often));
    let mut random = 1u64;
    let mut kills = 0;
    while kills < 50 {
        if killed.join("final.safetensors").exists() || killed.exists() && checkpoints(&killed).is_empty() {
            fs::remove_dir_all(&killed).expect("a folder");
        }
        let args = match killed.exists() {
            true => [&["run", "--resume", text(&killed), "--quiet"][..], &often].concat(),
            false => run(steps, &killed, &often),
        };
        let mut child = start(&args);
        // Knuth's MMIX generator.
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        std::thread::sleep(Duration::from_millis((random >> 33) % 250));
        // A run that is done by then is not killed, and counts as none.
        if child.try_wait().expect("a child").is_none() {
            child.kill().expect("it is killed");
            kills += 1;
        }
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.code().is_none_or(|code| code == 0), "{}", stderr(&output));
    }
    if !killed.join("final.safetensors").exists() {
        if !killed.exists() || checkpoints(&killed).is_empty() {
            // It was killed before its first checkpoint.
            let _ = fs::remove_dir_all(&killed);
            succeeds(&run(steps, &killed, &often));
        } else {
            succeeds(&[&["run", "--resume", text(&killed), "--quiet"][..], &often].concat());
        }
    }
    assert_eq!(losses(&killed), losses(&whole));
    assert_eq!(weights(&killed), weights(&whole));
    let left = fs::read_dir(&killed).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let left: Vec<String> = left.filter_map(|name| name.into_string().ok()).collect();
    assert!(left.iter().all(|name| !name.contains("unfinished")), "{left:?}");
}

#[cfg(unix)]
#[test]
fn two_runs_do_not_share_a_folder() {
    let folder = folder();
    let [out, data] = ["run", "data.bin"].map(|name| folder.path().join(name));
    let tokens: Vec<u16> = (0..32001u32).map(|i| (i * i % 299) as u16).collect();
    fs::write(&data, common::shard(&tokens)).expect("a shard");
    let long = ["--data", text(&data), "--checkpoint-every", "1"];
    let mut first = start(&run("steps=1000", &out, &long));
    wait_for_a_step(&out);
    let message = fails(1, &run("steps=1000", &out, &long));
    assert!(message.contains("another run is using"), "{message}");
    while checkpoints(&out).is_empty() {
        std::thread::sleep(Duration::from_millis(20));
    }
    let message = fails(1, &["run", "--resume", text(&out)]);
    assert!(message.contains("another run is using"), "{message}");
    first.kill().expect("it is killed");
    first.wait().expect("it ends");
    let message = fails(1, &run("steps=1000", &out, &long));
    assert!(message.contains("holds a run already"), "{message}");
}

/// As on a full disk: no file may have more than some blocks.
#[cfg(unix)]
#[test]
fn a_full_disk_loses_nothing_that_was_written() {
    let folder = folder();
    let out = folder.path().join("run");
    succeeds(&run("steps=8", &out, &["--checkpoint-every", "2", "--steps", "4"]));
    let before = (checkpoints(&out), fs::read(out.join("checkpoint-4/state.safetensors")).expect("a state"));
    let command = format!(
        "trap '' XFSZ; ulimit -f 40; exec '{}' run --resume '{}' --checkpoint-every 2 --quiet",
        env!("CARGO_BIN_EXE_mngc"),
        out.display()
    );
    let output = Command::new("sh").args(["-c", &command]).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let output = output.expect("a shell");
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("cannot write"), "{}", stderr(&output));
    assert_eq!((checkpoints(&out), fs::read(out.join("checkpoint-4/state.safetensors")).expect("a state")), before);
    let names = fs::read_dir(&out).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    assert!(names.into_iter().all(|name| !name.to_string_lossy().contains("unfinished")));
    // With room again it goes on.
    succeeds(&["run", "--resume", text(&out), "--quiet"]);
    assert_eq!(losses(&out).len(), 8);
}

/// A model whose loss is infinite from some step on: the scale of a layer's values grows.
fn diverging(folder: &TempDir) -> PathBuf {
    let path = folder.path().join("diverging.mng");
    let text = r#"extend "gpt2-mini.mng" {
  const dim = 24, sequence = 16
  block Mlp {
    param c_fc.weight: [4 * dim, dim] init uniform(1 / sqrt(dim))
    param c_proj.weight: [dim, 4 * dim] init zeros
    fn[T] (x: [T, dim]) {
      let h = log(square(linear(x, c_fc.weight)) - max(0, step - 2) * 1000)
      return linear(h, c_proj.weight)
    }
  }
  train {
    steps = 6
    batch = 32
    validate { tokens = 32, every = 1 }
  }
}
"#;
    fs::write(&path, text).expect("a file");
    path
}

#[test]
fn a_loss_that_is_none_stops_the_run_and_can_be_traced() {
    let folder = folder();
    let model = diverging(&folder);
    let out = folder.path().join("run");
    let message = fails(1, &["run", text(&model), "--out", text(&out), "--quiet"]);
    assert!(message.contains("is NaN: the training has diverged"), "{message}");
    assert!(message.contains("--find-nan"), "{message}");
    let end = log(&out).pop().expect("a line");
    assert!(end["error"].as_str().is_some_and(|error| error.contains("diverged")), "{end}");
    let last = *checkpoints(&out).last().expect("a sound checkpoint");
    assert!(last <= 3, "{last}");
    let message = fails(1, &["run", "--resume", text(&out), "--find-nan", "--quiet"]);
    for part in ["the first NaN is a result of `log`", "layer `transformer.h.0.mlp`", "of step 3", "diverging.mng:7"] {
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[test]
fn a_model_that_begins_with_nan_is_traced_before_the_first_step() {
    let folder = folder();
    let model = diverging(&folder);
    let broken = fs::read_to_string(&model).expect("a file").replace("max(0, step - 2) * 1000", "1000");
    fs::write(&model, broken).expect("a file");
    let out = folder.path().join("run");
    let message = fails(1, &["run", text(&model), "--out", text(&out), "--quiet"]);
    assert!(message.contains("val_loss of step 0 is NaN"), "{message}");
    let out = folder.path().join("again");
    let message = fails(1, &["run", text(&model), "--out", text(&out), "--find-nan", "--quiet"]);
    assert!(
        message.contains("the first NaN is a result of `log`") && message.contains("evaluate of step 0"),
        "{message}"
    );
}

/// The loss is a number at the step that spoils the parameters, and nothing looks at them until later.
#[test]
fn a_gradient_that_is_none_is_traced_to_its_step() {
    let folder = folder();
    let model = diverging(&folder);
    let broken = fs::read_to_string(&model)
        .expect("a file")
        .replace("log(square(linear(x, c_fc.weight)) - max(0, step - 2) * 1000)", "sqrt(0 * linear(x, c_fc.weight))");
    let broken = broken.replace("every = 1", "every = 4").replace("init zeros", "init ones");
    fs::write(&model, broken).expect("a file");
    let out = folder.path().join("run");
    let message = fails(1, &["run", text(&model), "--out", text(&out), "--find-nan", "--quiet"]);
    assert!(message.contains("in micro_step of step 0") && message.contains("diverging.mng:7"), "{message}");
}

#[test]
fn an_update_that_breaks_the_parameters_is_traced_too() {
    let folder = folder();
    let out = folder.path().join("run");
    let broken = ["--set", "lr_embed=1e39", "--set", "warmdown=0"];
    let message = fails(1, &run("steps=4", &out, &[&broken[..], &["--find-nan"]].concat()));
    assert!(message.contains("the first "), "{message}");
    assert!(message.contains("in update of step 0"), "{message}");
    assert_eq!(checkpoints(&out), [0; 0]);
}

/// Changes the tensors of a checkpoint, and its hash with them.
fn forge(checkpoint: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let state = checkpoint.join("state.safetensors");
    let mut bytes = fs::read(&state).expect("a state");
    change(&mut bytes);
    let path = checkpoint.join("checkpoint.json");
    let mut manifest: Value = serde_json::from_str(&fs::read_to_string(&path).expect("a manifest")).expect("JSON");
    manifest["state_hash"] = json!(blake3::hash(&bytes).to_hex().to_string());
    fs::write(&path, manifest.to_string()).expect("a file");
    fs::write(&state, bytes).expect("a file");
}

/// Replaces text of the same length in the header of a safetensors file.
fn replace(bytes: &mut [u8], from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).expect("the text is there");
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
}

#[test]
fn hostile_checkpoints_are_errors_before_the_run() {
    let folder = folder();
    let out = folder.path().join("run");
    succeeds(&run("steps=4", &out, &["--steps", "2"]));
    let good = out.join("checkpoint-2");
    type Damage = Box<dyn Fn(&Path)>;
    let state = |f: fn(&mut Vec<u8>)| -> Damage { Box::new(move |at| forge(at, f)) };
    let manifest = |name: &'static str, value: Value| -> Damage {
        Box::new(move |at| {
            let path = at.join("checkpoint.json");
            let mut manifest: Value = serde_json::from_str(&fs::read_to_string(&path).expect("text")).expect("JSON");
            manifest[name] = value.clone();
            fs::write(path, manifest.to_string()).expect("a file");
        })
    };
    let cases: Vec<(Damage, &str)> = vec![
        (
            Box::new(|at| fs::write(at.join("checkpoint.json"), "{").expect("a file")),
            "checkpoint.json cannot be understood",
        ),
        (manifest("schema", json!(99)), "the checkpoint has schema 99"),
        (manifest("schema", json!("x")), "checkpoint.json cannot be understood"),
        (manifest("step", json!(-1)), "checkpoint.json cannot be understood"),
        (manifest("tokens", json!(1)), "1 tokens are not those of 2 steps"),
        (manifest("program_hash", json!("0")), "the checkpoint is of another program"),
        (manifest("source", json!([])), "the run kept no text"),
        (Box::new(|at| fs::remove_file(at.join("state.safetensors")).expect("a file")), "state.safetensors"),
        (Box::new(|at| fs::write(at.join("state.safetensors"), "").expect("a file")), "state.safetensors is damaged"),
        (state(|bytes| bytes.truncate(100)), "no usable safetensors file"),
        (state(|bytes| bytes.clear()), "no usable safetensors file"),
        (state(|bytes| bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes())), "no usable safetensors file"),
        (state(|bytes| replace(bytes, "lm_head.weight\"", "lm_heat.weight\"")), "`lm_head.weight` is missing"),
        (state(|bytes| replace(bytes, "[300,24]", "[24,300]")), "has shape [24, 300], but the model's has [300, 24]"),
        (
            state(|bytes| {
                let end = bytes.len() - 4;
                bytes[end..].copy_from_slice(&f32::NAN.to_le_bytes());
            }),
            "which is not finite",
        ),
    ];
    for (i, (damage, expected)) in cases.into_iter().enumerate() {
        let at = folder.path().join(format!("damaged {i}/checkpoint-2"));
        fs::create_dir_all(&at).expect("a folder");
        for file in ["checkpoint.json", "state.safetensors"] {
            fs::copy(good.join(file), at.join(file)).expect("a copy");
        }
        fs::copy(out.join("log.jsonl"), at.join("../log.jsonl")).expect("a copy");
        damage(&at);
        let log = fs::read(at.join("../log.jsonl")).expect("a log");
        let message = fails(1, &["run", "--resume", text(&at)]);
        assert!(message.contains(expected), "{expected}: {message}");
        assert_eq!(message.matches("error:").count(), 1, "{message}");
        assert_eq!(fs::read(at.join("../log.jsonl")).expect("a log"), log, "{expected}");
    }
    // Another model, and settings that change what is computed.
    let message = fails(1, &["run", "gpt2-classic", "--resume", text(&out)]);
    assert!(message.contains("the checkpoint is of another program"), "{message}");
    let message = fails(1, &["run", "--resume", text(&out), "--set", "lr_head=0.5"]);
    assert!(message.contains("the checkpoint is of another program"), "{message}");
    let message = fails(1, &["run", "--resume", text(&out), "--steps", "1"]);
    assert!(message.contains("the checkpoint is of step 2, and the run ends at step 1"), "{message}");
    let message = fails(1, &["run", "--resume", "no/such/folder"]);
    assert!(message.contains("there is no such folder"), "{message}");
    fails(2, &["run", "--resume", text(&out), "--init", "x"]);
    fails(2, &["run", "--resume", text(&out), "--seed", "1"]);
}
