//! Kernels through the command line: what `mngc compile --arch` writes, what `mngc explain` tells, and what is said where a
//! device, a driver or NVRTC is missing.

mod common;

use std::collections::BTreeSet;
use std::fs;

use common::{fails, log, mngc, output, skipped, stderr, stdout, succeeds, text};
use mngc_runtime::cuda::libraries::Library;
use serde_json::Value;

/// A model of a few kernels, without a precision of its own.
const SMALL: [&str; 8] =
    ["gpt2-mini", "--set", "dim=48", "--set", "sequence=48", "--set", "batch=48", "--set=validate.tokens=96"];

fn small<'a>(command: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&[command], &SMALL[..], more].concat()
}

fn has_nvrtc(test: &str) -> bool {
    let found = Library::Nvrtc.find().is_ok();
    if !found {
        skipped(test, "there is no NVRTC (`mngc doctor --install` fetches it)");
    }
    found
}

/// Runs it with a variable set, expects exit code 1 and gives standard error.
fn fails_with(variable: &str, value: &str, args: &[&str]) -> String {
    let output = mngc(args).env(variable, value).output().expect("the program starts");
    let stderr = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{args:?}\n{}{stderr}", stdout(&output));
    assert!(!stderr.contains("panicked"), "{stderr}");
    stderr
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no count"))
}

#[test]
fn kernels_are_written_as_the_manifest_says() {
    if !has_nvrtc("kernels_are_written_as_the_manifest_says") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("build");
    let first = output(&small("compile", &["--arch", "sm_80", "-o", text(&out)]));
    assert!(first.status.success() && !stderr(&first).contains("warning"), "{}", stderr(&first));
    let table = stdout(&first);
    assert!(table.contains("for sm_80, with the figures of A100 SXM"), "{table}");

    let manifest = fs::read_to_string(out.join("manifest.json")).expect("a manifest");
    let manifest: Value = serde_json::from_str(&manifest).expect("JSON");
    let cuda = &manifest["cuda"];
    let kernels = cuda["kernels"].as_array().expect("kernels");
    let mut named = BTreeSet::new();
    for kernel in kernels {
        let name = kernel["name"].as_str().expect("a name");
        assert!(table.contains(name), "{name} is in the table");
        let files: Vec<&str> = kernel["files"].as_array().expect("files").iter().filter_map(Value::as_str).collect();
        assert_eq!(files, [".cu", ".ptx", ".cubin"].map(|ending| format!("kernels/{name}{ending}")));
        let read = |file: &str| fs::read(out.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        let [cu, ptx, cubin] = [0, 1, 2].map(|i| read(files[i]));
        let (cu, ptx) = (String::from_utf8_lossy(&cu), String::from_utf8_lossy(&ptx));
        assert!(cu.contains(&format!("{name}(")), "{cu}");
        assert!(ptx.contains(".target sm_80") && ptx.contains(&format!(".entry {name}(")), "{name}");
        assert!(cubin.starts_with(b"\x7fELF"), "{name}");
        assert!((1..=255).contains(&number(&kernel["registers"])), "{kernel}");
        named.extend(files.into_iter().map(String::from));
    }
    let written = fs::read_dir(out.join("kernels")).expect("a folder");
    let written: BTreeSet<String> =
        written.map(|file| format!("kernels/{}", file.expect("a file").file_name().to_string_lossy())).collect();
    assert_eq!(written, named);

    for entry in cuda["entries"].as_array().expect("entries") {
        let name = entry["name"].as_str().expect("a name");
        let uses: Vec<&Value> = kernels.iter().map(|kernel| &kernel["uses"][name]).filter(|u| !u.is_null()).collect();
        let sum = |field: &str| uses.iter().map(|u| u[field].as_f64().expect("a number")).sum::<f64>();
        assert_eq!(sum("calls"), number(&entry["calls"]) as f64, "{name}");
        let roofline = entry["roofline_ms"].as_f64().expect("a time");
        assert!((sum("roofline_ms") - roofline).abs() <= 1e-9 * roofline, "{name}");
    }
    let parts = ["slots", "arena", "workspace", "inputs"].map(|part| number(&cuda["memory"][part]));
    assert_eq!(parts.iter().sum::<u64>(), number(&cuda["memory"]["total"]));

    // All of it is in the cache now.
    let again = succeeds(&small("compile", &["--arch", "sm_80", "--json"]));
    let again: Value = serde_json::from_str(&again).expect("JSON");
    assert_eq!((number(&again["cuda"]["compiled"]), number(&again["cuda"]["found"])), (0, kernels.len() as u64));
    assert!(again["cuda"]["kernels"][0].get("files").is_none(), "nothing was written");
}

#[test]
fn architectures_that_are_none_are_refused() {
    for command in ["compile", "explain"] {
        for (arch, why) in [
            ("sm_75", "older than sm_80"),
            ("hopper", "no architecture"),
            ("sm_80a", "without the `a`"),
            ("90", "no architecture"),
        ] {
            let message = fails(2, &[command, "gpt2-mini", "--arch", arch]);
            assert!(message.contains(why), "{arch}: {message}");
        }
    }
    if has_nvrtc("architectures_that_are_none_are_refused") {
        let message = fails(1, &small("compile", &["--arch", "sm_99"]));
        assert!(message.contains("does not know sm_99"), "{message}");
    }
}

#[test]
fn without_nvrtc_it_is_said_how_to_get_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("run");
    let run = small("run", &["--device", "soft", "--out", text(&out)]);
    for args in [small("compile", &["--arch", "sm_90a"]), run] {
        let message = fails_with("MNGC_NVRTC", "/no/such/libnvrtc.so", &args);
        assert!(message.contains("mngc doctor --install") && message.contains("/no/such/libnvrtc.so"), "{message}");
    }
    assert!(!out.exists());
    // Neither the plan nor what is told of it needs NVRTC.
    for command in ["compile", "explain"] {
        let output = mngc(&small(command, &[])).env("MNGC_NVRTC", "/no/such/libnvrtc.so").output();
        assert!(output.expect("it starts").status.success(), "{command}");
    }
}

#[test]
fn drivers_that_are_not_there_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("run");
    for (device, variable) in [("soft", "MNGC_SOFT_DRIVER"), ("cuda", "MNGC_CUDA_DRIVER")] {
        let args = small("run", &["--device", device, "--out", text(&out)]);
        let message = fails_with(variable, "/no/such/libcuda.so.1", &args);
        assert!(message.contains("/no/such/libcuda.so.1"), "{device}: {message}");
        fails(2, &[&args[..], &["--oracle", "f64"]].concat());
    }
    assert!(!out.exists());
    // Where the device is not named there is always the processor, and it is said why.
    let args = small("run", &["--steps", "0", "--out", text(&out)]);
    let output = mngc(&args).env("MNGC_CUDA_DRIVER", "/no/such/libcuda.so.1").output().expect("it starts");
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("not used: no CUDA driver"), "{}", stderr(&output));
    assert_eq!(log(&out)[0]["device"], "cpu");
}

#[test]
fn the_soft_gpu_is_named_in_the_log_and_has_limits() {
    if !has_nvrtc("the_soft_gpu_is_named_in_the_log_and_has_limits") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("run");
    let args = small("run", &["--steps", "1", "--device", "soft", "--out", text(&out)]);
    let output = mngc(&args).env("SOFTGPU_PART", "a100").output().expect("it starts");
    assert!(output.status.success(), "{}", stderr(&output));
    let start = &log(&out)[0];
    assert_eq!((&start["device"], &start["backend"]["capability"]), (&Value::from("soft"), &Value::from("8.0")));
    assert_eq!(start["precision"], "f32");
    for field in ["device", "driver", "nvrtc", "kernels", "compiled"] {
        let said = start["backend"][field].as_str().unwrap_or_else(|| panic!("no {field}: {start}"));
        assert!(!said.is_empty() && (field == "compiled" || stderr(&output).contains(said)), "{field}: {said}");
    }
    let mut more = small("run", &["--steps", "1", "--device", "soft", "--micro", "32"]);
    more.iter_mut().filter(|arg| **arg == "batch=48").for_each(|arg| *arg = "batch=1536");
    let message = fails_with("SOFTGPU_MEMORY", "8M", &more);
    assert!(message.contains("are free") && message.contains("--micro "), "{message}");
}

#[test]
fn every_launch_is_explained_on_lines_of_bearable_length() {
    let text = succeeds(&["explain", "demo"]);
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    for part in ["micro_step", "update", "let y = attention(q, k, v", "apart from", "H100 SXM", "bound by"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let all: Value = serde_json::from_str(&succeeds(&["explain", "demo", "--json"])).expect("JSON");
    let launches = all["launches"].as_array().expect("launches");
    for entry in ["micro_step", "update"] {
        let of_entry = launches.iter().filter(|launch| launch["entry"] == entry);
        let mut at: Vec<u64> = of_entry.flat_map(|l| l["at"].as_array().expect("positions")).map(number).collect();
        at.sort_unstable();
        assert!(at.len() > 10 && at.iter().zip(0..).all(|(&at, i)| at == i), "{entry}: {at:?}");
    }
    for launch in launches.iter().filter(|launch| launch["kernel"] != "copy") {
        let lines = launch["lines"].as_array().expect("lines");
        assert!(lines.iter().any(|line| !line["ops"].as_array().expect("ops").is_empty()), "{launch}");
    }

    let some = succeeds(&["explain", "demo", "attention", "--entry", "evaluate"]);
    assert!(some.contains("attention") && !some.contains("micro_step") && !some.contains("(rows)"), "{some}");
    assert!(fails(1, &["explain", "demo", "no such text"]).contains("no launch has `no such text`"));
    fails(2, &["explain", "demo", "--entry", "init"]);
}
