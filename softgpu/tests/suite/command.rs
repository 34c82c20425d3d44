//! The `softgpu` command: what it prints and how it exits.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn softgpu(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_softgpu")).args(args).output().expect("the command runs")
}

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

fn json(o: &Output) -> serde_json::Value {
    serde_json::from_slice(&o.stdout).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&o.stdout)))
}

/// A copy of a case whose description is changed.
fn changed(name: &str, file: &str, from: &str, to: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    for f in std::fs::read_dir(cases().join(name)).expect("the case") {
        let f = f.expect("an entry").path();
        std::fs::copy(&f, dir.path().join(f.file_name().expect("a name"))).expect("a copy");
    }
    let path = dir.path().join(file);
    let text = std::fs::read_to_string(&path).expect("text");
    assert!(text.contains(from), "{file} has no {from}");
    std::fs::write(path, text.replacen(from, to, 1)).expect("written");
    dir
}

#[test]
fn a_right_case_exits_with_0_and_counts() {
    let dir = cases().join("matmul_sm80");
    let o = softgpu(&["run", dir.to_str().unwrap(), "--stats", "--json"]);
    assert_eq!(o.status.code(), Some(0), "{}", String::from_utf8_lossy(&o.stderr));
    let v = json(&o);
    assert_eq!(
        (v["ok"].as_bool(), v["kernel"].as_str(), v["part"].as_str()),
        (Some(true), Some("matmul"), Some("a100"))
    );
    // Tiles of 64 x 64 over K of 96, counted by hand: 6 blocks, 2 * 64 * 64 * 96 operations each.
    assert_eq!(v["stats"]["tensor_flops"].as_u64(), Some(6 * 2 * 64 * 64 * 96));
    assert!(v["stats"]["instructions"]["tensor"]["warps"].as_u64() == Some(6 * 64 * 64 * 96 / (16 * 8 * 16)));
    let o = softgpu(&["run", dir.to_str().unwrap()]);
    assert!(o.status.success() && String::from_utf8_lossy(&o.stdout).contains("c: relative error"));
}

#[test]
fn counters_of_memory_are_exact() {
    // 64 rows of 96 floats: each row is read by 3 full warps of the block's 4, as 128 bytes in 4 sectors.
    let o = softgpu(&["run", cases().join("scatter_add").to_str().unwrap(), "--stats", "--json"]);
    let v = json(&o);
    let s = &v["stats"];
    assert_eq!(s["instructions"]["atomic"]["lanes"].as_u64(), Some(64 * 96), "{v}");
    assert_eq!(s["bank_conflicts"].as_u64(), Some(0));
}

#[test]
fn a_wrong_output_exits_with_1() {
    let dir = changed("scatter_add", "case.json", "\"value\": 96", "\"value\": 95");
    let o = softgpu(&["run", dir.path().to_str().unwrap(), "--json"]);
    assert_eq!(o.status.code(), Some(1));
    let v = json(&o);
    assert_eq!((v["ok"].as_bool(), v["outputs"][0]["right"].as_bool()), (Some(false), Some(false)), "{v}");
}

#[test]
fn a_check_that_fires_exits_with_1_and_can_be_switched() {
    // One row more than there is.
    let dir = changed("scatter_add", "case.json", "  64,\n", "  65,\n");
    let dir2 = changed("rms_rows", "case.json", "\"grid\": [\n  8,", "\"grid\": [\n  9,");
    let o = softgpu(&["run", dir2.path().to_str().unwrap(), "--json"]);
    assert_eq!(o.status.code(), Some(1));
    assert_eq!(json(&o)["finding"]["kind"].as_str(), Some("out-of-bounds"));
    let o = softgpu(&["run", dir2.path().to_str().unwrap(), "--check", "-bounds,-uninitialised"]);
    assert_eq!(o.status.code(), Some(0), "{}", String::from_utf8_lossy(&o.stderr));
    drop(dir);
}

#[test]
fn faults_of_the_folder_and_of_usage_are_told_apart() {
    assert_eq!(softgpu(&["run", "/nowhere"]).status.code(), Some(1));
    assert_eq!(softgpu(&["run", "/nowhere", "--check", "bound"]).status.code(), Some(2));
    assert_eq!(softgpu(&["frobnicate"]).status.code(), Some(2));
    let dir = changed("scatter_add", "kernel.ptx", "atom.", "atomm.");
    let o = softgpu(&["run", dir.path().to_str().unwrap()]);
    let text = String::from_utf8_lossy(&o.stderr).into_owned();
    assert!(
        o.status.code() == Some(1) && text.contains("unknown instruction atomm") && text.contains("in scatter_add"),
        "{text}"
    );
}

#[test]
fn info_lists_parts_and_checks() {
    let v = json(&softgpu(&["info", "--json"]));
    assert_eq!(v["checks"].as_array().map(Vec::len), Some(softgpu::check::CHECKS.len()));
    assert!(v["parts"].as_array().is_some_and(|p| p.iter().any(|p| p["id"] == "h100-sxm" && p["sm"] == 90)));
    assert!(String::from_utf8_lossy(&softgpu(&["info"]).stdout).contains("rtx4090"));
}
