//! The program on the soft GPU: what it prepares it finds again without NVRTC, and a changed bit is found.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};

use mngc_kernels_gen::libraries::Library;
use serde_json::Value;

/// Every so many of the cases: few, of several families.
const EVERY: &str = "45";

fn gpu_check(folder: &Path, args: &[&str], has_nvrtc: bool) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gpu-check"));
    command.arg(args[0]).arg(folder.join("cases")).args(&args[1..]).args(["--every", EVERY]);
    command.env("MNGC_IMAGES", folder.join("images")).env("XDG_CACHE_HOME", folder.join("cache"));
    if !has_nvrtc {
        command.env("MNGC_NVRTC", "/nowhere/libnvrtc.so");
    }
    command.output().expect("it starts")
}

/// The reports of a run, and its exit code.
fn run(folder: &Path, more: &[&str]) -> (Vec<Value>, Option<i32>) {
    let output = gpu_check(folder, &[&["run", "--device", "soft"], more].concat(), false);
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    (text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect(), output.status.code())
}

#[test]
fn a_changed_bit_is_found() {
    if Library::Nvrtc.find().is_err() {
        let why = "there is no NVRTC (`mngc doctor --install` fetches it)";
        let _ = writeln!(std::io::stdout(), "SKIPPED a_changed_bit_is_found: {why}");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let output = gpu_check(folder, &["prepare"], true);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));

    let (reports, code) = run(folder, &[]);
    assert!(code == Some(0) && reports.len() >= 4, "{code:?} {reports:?}");
    for report in &reports {
        assert!(report["fault"].is_null() && report["equal"] == report["elements"], "{report}");
    }
    // Both kinds are there; the first case moves numbers only.
    assert_eq!(reports[0]["defined"], true);
    let rounded = reports.iter().find(|report| report["defined"] == false).expect("a case with rounding");
    assert_eq!(run(folder, &["--from", "1"]).0.len(), reports.len() - 1);

    let path = folder.join("cases/results.bin");
    let results = fs::read(&path).expect("results");
    let mut changed = results.clone();
    changed[0] ^= 1;
    fs::write(&path, &changed).expect("written");
    let (reports, code) = run(folder, &[]);
    assert_eq!(code, Some(1));
    assert!(reports[0]["fault"].as_str().is_some_and(|fault| fault.contains("other bits")), "{}", reports[0]);
    assert!(reports[1..].iter().all(|report| report["fault"].is_null()));

    // Where PTX leaves bits open the oracle says whether others are right: they are, for the device has not changed.
    changed.iter_mut().for_each(|byte| *byte ^= 1);
    fs::write(&path, &changed).expect("written");
    let (reports, code) = run(folder, &[]);
    let again = reports.iter().find(|report| report["name"] == rounded["name"]).expect("the same cases");
    assert!(code == Some(1) && again["fault"].is_null() && again["equal"] != again["elements"], "{again}");

    // Cut off: nothing is believed.
    fs::write(&path, &results[..results.len() / 2]).expect("written");
    let (reports, code) = run(folder, &[]);
    let last = reports.last().expect("reports");
    assert!(code == Some(1) && last["fault"].as_str().is_some_and(|fault| fault.contains("cut off")), "{last}");
}

#[test]
fn words_that_it_does_not_know_are_refused() {
    for args in [&["frobnicate"][..], &["run"], &["run", "DIR", "--device", "tpu"], &["run", "DIR", "--from"], &[]] {
        let output = Command::new(env!("CARGO_BIN_EXE_gpu-check")).args(args).output().expect("it starts");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("--help"), "{args:?}");
    }
}
