//! The command line: exit codes, messages, files, and what must never happen whatever it is given.

mod common;

use std::fs;
use std::path::Path;
use std::process::Stdio;

use common::{fails, golden, log, mngc, output, shard, skipped, stderr, stdout, succeeds, text};
use serde_json::Value;
use tempfile::TempDir;

/// A run of the bundled small model that takes a moment: one step of one sequence.
const SMALL: [&str; 14] = [
    "run",
    "gpt2-mini",
    "--set",
    "dim=48",
    "--set",
    "sequence=48",
    "--set",
    "batch=48",
    "--set",
    "validate.tokens=96",
    "--steps",
    "1",
    "--device",
    "reference",
];

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

/// The small run with more arguments.
fn small<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&SMALL[..], more].concat()
}

fn write(folder: &TempDir, name: &str, contents: impl AsRef<[u8]>) -> String {
    let path = folder.path().join(name);
    fs::write(&path, contents).expect("a file");
    text(&path).to_string()
}

/// Runs in another folder and gives exit code and standard error.
fn run_in(folder: &Path, args: &[&str]) -> (Option<i32>, String) {
    let output = mngc(args).current_dir(folder).output().expect("the program starts");
    (output.status.code(), stderr(&output))
}

#[test]
fn help_has_examples_and_goes_to_standard_output() {
    for args in [&["--help"][..], &["run", "--help"], &["compile", "--help"], &["graph", "--help"], &["fmt", "--help"]]
    {
        assert!(succeeds(args).contains("Examples:"), "{args:?}");
    }
    assert!(succeeds(&["--version"]).starts_with("mngc "));
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let wrong: [&[&str]; 11] = [
        &[],
        &["train"],
        &["run", "gpt2", "--stpes", "1"],
        &["run", "gpt2", "--steps", "many"],
        &["run", "gpt2", "--steps", "-1"],
        &["run", "gpt2", "--set", "layers"],
        &["run", "gpt2", "--device", "gpu"],
        &["run", "gpt2", "--oracle", "f128"],
        &["run", "gpt2", "gpt2"],
        &["fmt"],
        &["graph", "gpt2", "--entry", "no_such_entry"],
    ];
    for args in wrong {
        fails(2, args);
    }
}

#[test]
fn a_model_that_is_not_there_is_an_error_with_help() {
    assert!(fails(1, &["run", "gpt2-mimi"]).contains("did you mean `gpt2-mini`?"));
    let unknown = fails(1, &["run", "zzz"]);
    assert!(unknown.contains("gpt2-classic") && unknown.contains("gpt2-mini"), "{unknown}");
    assert!(fails(1, &["run", "models/nope.mng"]).contains("no such file"));
    assert!(fails(1, &["run", "models"]).contains("models: it is no file"));
}

#[test]
fn without_a_model_the_one_file_of_the_folder_is_taken() {
    let folder = folder();
    let (code, none) = run_in(folder.path(), &["compile"]);
    assert!(code == Some(2) && none.contains("no .mng file") && none.contains("gpt2-mini"), "{none}");
    write(&folder, "a.mng", "extend \"gpt2-mini.mng\" {\n}\n");
    let (code, one) = run_in(folder.path(), &["compile"]);
    assert_eq!(code, Some(0), "{one}");
    write(&folder, "b.mng", "");
    let (code, two) = run_in(folder.path(), &["compile"]);
    assert!(code == Some(2) && two.contains("a.mng, b.mng"), "{two}");
}

#[test]
fn a_file_beside_the_model_comes_before_the_bundled_one() {
    let folder = folder();
    write(&folder, "gpt2-mini.mng", "this is no model\n");
    write(&folder, "a.mng", "extend \"gpt2-mini.mng\" {\n}\n");
    let (code, message) = run_in(folder.path(), &["compile", "a.mng"]);
    assert!(code == Some(1) && message.contains("gpt2-mini.mng"), "{message}");
}

#[test]
fn mistakes_of_a_model_are_drawn_and_counted() {
    let folder = folder();
    let path = write(&folder, "a.mng", "const a = \nconst b = 1\n");
    let message = fails(1, &["compile", &path]);
    assert!(message.contains("a.mng:1:") && message.trim_end().ends_with(&format!("error: 1 error in {path}")));
    assert!(!message.contains('\x1b'), "colour without a terminal");
    assert!(fails(1, &["compile", &path, "--color", "always"]).contains('\x1b'));
    let unreadable = write(&folder, "b.mng", [0xff, 0xfe, 0x00]);
    assert!(fails(1, &["compile", &unreadable]).contains("cannot read"));
}

#[test]
fn json_is_one_object_alone_on_standard_output_even_for_a_failure() {
    let folder = folder();
    let path = write(&folder, "a.mng", "const a = \n");
    let failed = output(&["compile", &path, "--json"]);
    assert_eq!(failed.status.code(), Some(1));
    let object: Value = serde_json::from_str(&stdout(&failed)).expect("one object");
    assert_eq!(object["diagnostics"][0]["place"]["line"], 1);
    assert!(object["error"].as_str().is_some_and(|e| e.contains("1 error")));

    let plan: Value = serde_json::from_str(&succeeds(&["compile", "gpt2-mini", "--json"])).expect("one object");
    assert_eq!(plan["model"], "gpt2");
    assert_eq!(plan["recipe"]["steps"], 8);

    let out = folder.path().join("run");
    let report = succeeds(&small(&["--json", "--out", text(&out)]));
    let report: Value = serde_json::from_str(&report).expect("one object");
    assert_eq!((report["steps"].as_u64(), report["folder"].as_str()), (Some(1), Some(text(&out))));
    assert!(report["val_loss"].as_f64().is_some_and(|loss| loss > 0.0 && loss < 10.0));
}

#[test]
fn the_plan_and_its_files_agree() {
    let folder = folder();
    let out = folder.path().join("a/b");
    let table = succeeds(&["compile", "gpt2-mini", "--timings", "-o", text(&out)]);
    for part in ["parameter", "micro_step", "compiling"] {
        assert!(table.contains(part), "{table}");
    }
    let manifest = fs::read_to_string(out.join("manifest.json")).expect("a file");
    let manifest: Value = serde_json::from_str(&manifest).expect("JSON");
    let slots = manifest["slots"].as_array().expect("slots");
    let elements = |slot: &&Value| -> u64 {
        let shape = slot["shape"].as_array().expect("a shape");
        shape.iter().map(|size| size.as_u64().expect("a size")).product()
    };
    let parameters: u64 = slots.iter().filter(|slot| slot["role"] == "parameter").map(|slot| elements(&slot)).sum();
    assert_eq!(manifest["parameters"].as_u64(), Some(parameters));
    let entries: Vec<&str> =
        manifest["entries"].as_array().expect("entries").iter().filter_map(|e| e["name"].as_str()).collect();
    for entry in ["init", "micro_step", "update", "evaluate"] {
        assert!(entries.contains(&entry), "{entries:?}");
    }
    let graph = fs::read_to_string(out.join("graph.ir")).expect("a file");
    assert!(mngc_compiler::ir::read::module(&graph).is_ok());
    let again = folder.path().join("again");
    succeeds(&["compile", "models/gpt2-mini.mng", "-o", text(&again)]);
    assert_eq!(fs::read_to_string(again.join("graph.ir")).expect("a file"), graph);
}

#[test]
fn settings_change_the_program_and_unknown_ones_are_refused() {
    let parameters = |args: &[&str]| -> u64 {
        let plan: Value =
            serde_json::from_str(&succeeds(&[&["compile", "gpt2-mini", "--json"], args].concat())).expect("JSON");
        plan["parameters"].as_u64().expect("a number")
    };
    assert!(parameters(&["--set", "layers=4"]) > parameters(&[]));
    assert!(fails(1, &["compile", "gpt2-mini", "--set", "layer=4"]).contains("layer"));
}

#[test]
fn a_run_leaves_its_folder_and_never_touches_another() {
    let folder = folder();
    let model = text(&golden("../../models/gpt2-mini.mng")).to_string();
    let data = text(&golden("noisy/train_*.bin")).to_string();
    let val = text(&golden("noisy/val_*.bin")).to_string();
    let args = [&["run", &model][..], &SMALL[2..], &["--data", &data, "--val", &val]].concat();
    for number in 1..=2 {
        let (code, message) = run_in(folder.path(), &args);
        assert_eq!(code, Some(0), "{message}");
        assert!(message.contains("val_loss") && message.contains("step 0/1"), "{message}");
        let run = folder.path().join(format!("runs/gpt2-mini-00{number}"));
        assert!(run.join("final.safetensors").exists());
        assert_eq!(log(&run)[0]["source"].as_array().map(Vec::len), Some(2));
    }
    let out = folder.path().join("runs/gpt2-mini-001");
    let before = fs::read(out.join("log.jsonl")).expect("a log");
    assert!(fails(1, &small(&["--out", text(&out)])).contains("holds a run already"));
    assert_eq!(fs::read(out.join("log.jsonl")).expect("a log"), before);
}

#[test]
fn quiet_is_quiet() {
    let folder = folder();
    let output = output(&small(&["--quiet", "--out", text(&folder.path().join("run"))]));
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stderr(&output), "");
    assert!(stdout(&output).contains("val_loss"));
}

#[test]
fn hostile_shards_are_errors_before_the_run() {
    let folder = folder();
    let out = folder.path().join("run");
    let whole = shard(&[1; 200]);
    let header = |word: usize, value: i32| {
        let mut bytes = whole.clone();
        bytes[4 * word..4 * word + 4].copy_from_slice(&value.to_le_bytes());
        bytes
    };
    let cases: [(&str, Vec<u8>, &str); 9] = [
        ("empty.bin", Vec::new(), "too few for the header"),
        ("magic.bin", header(0, 20240521), "no token shard"),
        ("version.bin", header(1, 2), "version 2 of token shards is not known"),
        ("negative.bin", header(2, -1), "the header says -1 tokens"),
        ("lie.bin", header(2, i32::MAX), "the header says 2147483647 tokens, but 200 follow"),
        ("cut.bin", whole[..whole.len() - 1].to_vec(), "cut off"),
        ("long.bin", [&whole[..], &[0, 0]].concat(), "the header says 200 tokens, but 201 follow"),
        ("short.bin", shard(&[1; 48]), "48 tokens of training data"),
        ("token.bin", shard(&[300; 49]), "token 0 is 300, but the model's vocabulary ends at 299"),
    ];
    for (name, bytes, expected) in cases {
        let path = write(&folder, name, bytes);
        let message = fails(1, &small(&["--out", text(&out), "--data", &path]));
        assert!(message.contains(expected), "{name}: {message}");
    }
    let missing = text(&folder.path().join("no_*.bin")).to_string();
    assert!(fails(1, &small(&["--out", text(&out), "--data", &missing])).contains("no file matches"));
    let enough = write(&folder, "enough, with spaces.bin", shard(&[1; 49]));
    assert!(!out.exists(), "a run that cannot start leaves no folder");
    succeeds(&small(&["--out", text(&out), "--data", &enough]));
}

#[test]
fn hostile_weights_are_errors_before_the_run() {
    let folder = folder();
    let out = folder.path().join("run");
    // A file of this header and so many bytes of tensors.
    let file = |header: &str, tensors: usize| {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(vec![0; tensors]);
        bytes
    };
    let tensor = |shape: &str, start: u64, end: u64| {
        format!(r#"{{"dtype":"F32","shape":{shape},"data_offsets":[{start},{end}]}}"#)
    };
    let two = |a: String, b: String| format!(r#"{{"a":{a},"b":{b}}}"#);
    let one = |a: String| format!(r#"{{"lm_head.weight":{a}}}"#);
    let whole = fs::read(golden("noisy/init.safetensors")).expect("weights");
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("empty", Vec::new()),
        ("text", b"this is no weight file".to_vec()),
        ("huge_header", vec![255; 64]),
        ("open_brace", b"\x01\0\0\0\0\0\0\0{".to_vec()),
        ("header_beyond", file(&one(tensor("[2]", 0, 8)), 0)),
        ("overlap", file(&two(tensor("[2]", 0, 8), tensor("[2]", 4, 12)), 12)),
        ("hole", file(&two(tensor("[2]", 0, 8), tensor("[2]", 16, 24)), 24)),
        ("backwards", file(&one(tensor("[2]", 8, 0)), 8)),
        ("shape_lies", file(&one(tensor("[3]", 0, 8)), 8)),
        ("shape_overflows", file(&one(tensor("[4611686018427387904,8]", 0, 8)), 8)),
        ("shape_is_nan", file(&one(tensor("[NaN]", 0, 8)), 8)),
        ("shape_is_negative", file(&one(tensor("[-2]", 0, 8)), 8)),
        ("not_utf8", file(&one(tensor("[2]", 0, 8)), 8).into_iter().map(|b| if b == b'h' { 255 } else { b }).collect()),
        ("cut", whole[..whole.len() - 1].to_vec()),
        ("cut_header", whole[..100].to_vec()),
    ];
    for (name, bytes) in cases {
        let path = write(&folder, name, bytes);
        let message = fails(1, &small(&["--out", text(&out), "--init", &path]));
        assert!(message.contains("no usable safetensors file"), "{name}: {message}");
        assert_eq!(message.matches("error:").count(), 1, "{name}: {message}");
    }
    let other = golden("classic/init.safetensors");
    let message = fails(1, &small(&["--out", text(&out), "--init", text(&other)]));
    for part in ["`lm_head.weight` is missing", "`transformer.wpe.weight` is no parameter of the model", "has shape"] {
        assert!(message.contains(part), "{message}");
    }
    let message = fails(1, &small(&["--out", text(&out), "--init", text(folder.path())]));
    let expected = format!("{} is a folder: weights are one safetensors file", text(folder.path()));
    assert!(message.contains(&expected) && message.contains("`final.safetensors`"), "{message}");
    assert!(!out.exists());
}

#[test]
fn a_run_goes_on_from_its_own_weights() {
    let folder = folder();
    let (first, second) = (folder.path().join("first"), folder.path().join("second"));
    succeeds(&small(&["--out", text(&first)]));
    let weights = first.join("final.safetensors");
    let args = small(&["--out", text(&second), "--init", text(&weights)]);
    let steps = args.iter().position(|arg| *arg == "1").expect("--steps 1");
    let args = [&args[..steps], &["0"], &args[steps + 1..]].concat();
    succeeds(&args);
    let losses = |folder: &Path| common::numbers(&log(folder), "val", "val_loss");
    assert_eq!(losses(&first)[1], losses(&second)[0]);
    assert_eq!(losses(&second).len(), 1);
}

#[test]
fn a_folder_that_cannot_be_made_is_an_error() {
    let folder = folder();
    let file = write(&folder, "file", "");
    assert!(fails(1, &small(&["--out", &format!("{file}/run")])).contains("cannot create"));
    assert!(fails(1, &["compile", "gpt2-mini", "-o", &format!("{file}/out")]).contains("cannot create"));
}

#[test]
fn a_reader_that_stops_early_is_no_failure() {
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_mngc"))
        .args(["compile", "gpt2-mini"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("an end");
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
}

#[test]
fn the_bundled_models_are_formatted() {
    let models = fs::read_dir(golden("../../models")).expect("a folder");
    let paths: Vec<String> = models.map(|file| text(&file.expect("a file").path()).to_string()).collect();
    assert!(paths.len() >= 4);
    let args: Vec<&str> = ["fmt", "--check"].into_iter().chain(paths.iter().map(String::as_str)).collect();
    assert_eq!(succeeds(&args), "");
}

#[test]
fn fmt_changes_only_what_needs_it_and_check_changes_nothing() {
    let folder = folder();
    let untidy = "const a=1\n";
    let (a, b) = (write(&folder, "a.mng", untidy), write(&folder, "b.mng", "const a = 1\n"));
    let check = output(&["fmt", "--check", &a, &b]);
    assert_eq!((check.status.code(), stdout(&check)), (Some(1), format!("{a}\n")));
    assert_eq!(fs::read_to_string(&a).expect("a file"), untidy);
    assert_eq!(succeeds(&["fmt", &a, &b]), "");
    assert_eq!(fs::read_to_string(&a).expect("a file"), "const a = 1\n");
    succeeds(&["fmt", "--check", &a, &b]);
    let piped = mngc(&["fmt", "-"]).write_stdin(untidy).output().expect("the program starts");
    assert_eq!((piped.status.code(), stdout(&piped)), (Some(0), "const a = 1\n".to_string()));
}

#[test]
fn fmt_goes_on_after_a_file_with_mistakes() {
    let folder = folder();
    let (wrong, untidy) = (write(&folder, "a.mng", "const = 1\n"), write(&folder, "b.mng", "const a=1\n"));
    let message = fails(1, &["fmt", &wrong, &untidy, "none.mng"]);
    assert!(message.contains("a.mng:1:") && message.contains("cannot read none.mng"), "{message}");
    assert_eq!(fs::read_to_string(&wrong).expect("a file"), "const = 1\n");
    assert_eq!(fs::read_to_string(&untidy).expect("a file"), "const a = 1\n");
}

#[test]
fn graphs_are_drawn_as_dot_and_svg() {
    let folder = folder();
    assert!(succeeds(&["graph", "gpt2-mini"]).starts_with("digraph"));
    assert!(succeeds(&["graph", "gpt2-mini", "--entry", "evaluate", "--expand", "1"]).starts_with("digraph"));
    let (dot, svg) = (folder.path().join("a/g.dot"), folder.path().join("a/g.svg"));
    succeeds(&["graph", "gpt2-mini", "-o", text(&dot)]);
    let no_graphviz = folder.path().join("none");
    for path in [None, Some(&no_graphviz)] {
        let mut command = common::mngc(&["graph", "gpt2-mini", "--entry", "evaluate", "-o", text(&svg)]);
        if let Some(path) = path {
            command.env("PATH", path);
        }
        command.assert().success();
        assert!(fs::read_to_string(&svg).expect("a file").contains("transformer.h.0"));
    }
    assert!(fs::read_to_string(&dot).expect("a file").starts_with("digraph"));
    assert!(fs::read_to_string(&svg).expect("a file").contains("<svg"));
    assert!(fails(2, &["graph", "gpt2-mini", "-o", "g.png"]).contains(".dot or .svg"));
}

/// The tiny model of tests/files with one part replaced, and the arguments that run it on tokens below 32.
fn tiny(folder: &TempDir, from: &str, to: &str) -> Vec<String> {
    let base = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files/base.mng")).expect("a model");
    assert!(base.contains(from), "{from}");
    let model = write(folder, "tiny.mng", base.replace(from, to));
    let tokens: Vec<u16> = (0..400).map(|i| i * 7 % 32).collect();
    let (data, val) = (write(folder, "train.bin", shard(&tokens)), write(folder, "val.bin", shard(&tokens)));
    let out = folder.path().join("out");
    let args = ["run", &model, "--data", &data, "--val", &val, "--out", text(&out), "--quiet", "--device", "reference"];
    args.map(str::to_string).to_vec()
}

/// Expects that it fails before there is a run folder, and gives standard error.
fn fails_early(folder: &TempDir, args: &[String]) -> String {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let message = fails(1, &args);
    assert!(!folder.path().join("out").exists(), "{message}");
    message
}

#[test]
fn tokens_beyond_the_classes_are_found_before_step_0() {
    let folder = folder();
    let args = tiny(&folder, "param head.weight: [vocab, dim]", "param head.weight: [20, dim]");
    let message = fails_early(&folder, &args);
    assert!(message.contains("token 3 is 21, but the model's vocabulary ends at 19"), "{message}");
}

#[test]
fn numbers_of_the_step_are_finite_or_the_run_does_not_start() {
    let folder = folder();
    let args = tiny(
        &folder,
        "update others with sgd(lr = 0.1)",
        "let rate = 1 / (7 - step)\n  update others with sgd(lr = rate)",
    );
    let message = fails_early(&folder, &args);
    assert!(message.contains("`rate` is inf at step 7 of the run"), "{message}");
    let short: Vec<&str> = args.iter().map(String::as_str).chain(["--steps", "7"]).collect();
    succeeds(&short);
}

#[test]
fn a_last_update_that_breaks_the_parameters_is_a_failure() {
    let folder = folder();
    let args = tiny(
        &folder,
        "update others with sgd(lr = 0.1)\n  validate { data = \"val_*.bin\", tokens = 4 * sequence, every = 5 }",
        "update others with sgd(lr = where(step == 9, 1e308, 0.1))",
    );
    let args: Vec<&str> =
        args.iter().map(String::as_str).filter(|a| *a != "--val" && !a.ends_with("val.bin")).collect();
    let message = fails(1, &args);
    assert!(message.contains("a value of `wte.weight` of step 9 is"), "{message}");
    let out = folder.path().join("out");
    assert!(!out.join("final.safetensors").exists());
    let log = log(&out);
    assert!(log[log.len() - 1]["error"].as_str().is_some_and(|e| e.contains("wte.weight")), "{log:?}");
}

#[test]
fn memory_that_is_not_there_is_one_error_with_both_numbers() {
    let folder = folder();
    let args = tiny(&folder, "dim = 16", "dim = 400000");
    let message = fails_early(&folder, &args);
    assert!(message.contains("TiB of memory, and "), "{message}");
    assert!(message.ends_with("a smaller model or sequence needs less\n"), "{message}");
    assert!(message.lines().count() == 1, "{message}");
}

/// What a run needs, and what would fit, as its message says.
#[test]
fn a_run_that_is_too_large_is_told_what_fits() {
    let free = mngc_trainer::memory::available().map_or(0, |bytes| bytes >> 30);
    if !(10..40).contains(&free) {
        skipped("a_run_that_is_too_large_is_told_what_fits", "it is made for 10 to 40 GiB of free memory");
        return;
    }
    let folder = folder();
    let out = folder.path().join("run");
    let large = ["run", "demo", "--set", "dim=1024", "--set", "layers=8", "--set", "steps=1", "--set", "warmdown=0"];
    let run = |more: &[&str]| fails(1, &[&large[..], &["--out", text(&out)], more].concat());
    // Of eight sequences at once fewer fit, which changes nothing else.
    let message = run(&["--set", "sequence=8192", "--set", "batch=65536", "--micro", "8"]);
    assert!(message.contains("--micro ") && message.contains(" fits, for the same training"), "{message}");
    let long = ["sequence=65536", "batch=65536", "validate.tokens=65536"].map(|set| ["--set", set]);
    let message = run(long.as_flattened());
    assert!(message.contains("--micro 1 --set sequence=") && message.contains(" fits: shorter"), "{message}");
    assert!(!out.exists());
}

#[test]
fn what_is_no_model_file_is_not_read() {
    let folder = folder();
    let huge = folder.path().join("huge.mng");
    fs::File::create(&huge).expect("a file").set_len(17 << 20).expect("a hole");
    for (path, why) in
        [(text(&huge), "over 16 MiB"), ("/dev/zero", "it is no file"), (text(folder.path()), "it is no file")]
    {
        let model = write(&folder, "importing.mng", format!("import {path:?}\n"));
        let message = fails(1, &["compile", &model]);
        assert!(message.contains(why), "{message}");
    }
    let message = fails(1, &["compile", text(&huge)]);
    assert!(message.contains("over 16 MiB"), "{message}");
}

#[test]
fn a_setting_of_two_values_is_a_mistake() {
    let message = fails(1, &["compile", "gpt2-mini", "--set", "layers=2", "--set", "layers=3"]);
    assert!(message.contains("--set layers is given twice: as `2` and as `3`"), "{message}");
    succeeds(&["compile", "gpt2-mini", "--set", "layers=2", "--set", "layers=2"]);
    let message = fails(1, &["compile", "gpt2-mini", "--set", "no_such_name_at_all=2"]);
    assert!(message.contains("precision.compute, precision.master"), "{message}");
}

#[test]
fn a_setting_is_shown_as_it_was_given() {
    let message = fails(1, &["compile", "gpt2-mini", "--set", "steps=-1"]);
    assert!(message.contains("1 │ --set steps=-1"), "{message}");
    let message = fails(1, &["compile", "gpt2-mini", "--set", "dim=1 1"]);
    assert!(message.contains("1 │ --set dim=1 1") && message.contains("`1 1` is no value"), "{message}");
    fails(1, &["compile", "gpt2-mini", "--set", "dim=48\nconst more = 1"]);
}

#[test]
fn doctor_says_what_is_there_and_what_to_install() {
    let run = |variable: &str, value: &str, args: &[&str]| {
        let output = mngc(&[&["doctor"], args].concat()).env(variable, value).output().expect("it starts");
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stdout(&output)
    };
    let text = run("MNGC_NVRTC", "/no/such/libnvrtc.so", &[]);
    for part in ["cores ", "SIMD ", "memory ", "/no/such/libnvrtc.so (no such file)", "mngc doctor --install"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let report: Value = serde_json::from_str(&run("MNGC_NCCL", "libc.so.6", &["--json"])).expect("JSON");
    assert!(report["cores"].as_u64().is_some_and(|cores| cores > 0));
    assert!(report["nccl"]["tried"][0][1].as_str().is_some_and(|why| why.contains("ncclGetVersion")), "{report}");
    // The soft GPU's library is a driver with devices.
    let driver = Path::new(env!("CARGO_BIN_EXE_mngc")).with_file_name("libcuda.so");
    if !driver.exists() {
        skipped("doctor_says_what_is_there_and_what_to_install", "the soft GPU's driver has not been built");
        return;
    }
    let report: Value =
        serde_json::from_str(&run("MNGC_CUDA_DRIVER", common::text(&driver), &["--json"])).expect("JSON");
    assert!(report["gpus"][0]["capability"].as_str().is_some_and(|c| c.contains('.')), "{report}");
}
