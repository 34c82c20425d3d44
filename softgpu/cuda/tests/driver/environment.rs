//! What the environment of a process decides, and clients in processes of their own.

use std::path::PathBuf;
use std::process::{Command, Output};

use super::*;

/// Runs one test of this binary again, in another environment.
fn again(test: &str, variables: &[(&str, &str)]) -> Output {
    let exe = std::env::current_exe().expect("a test has a path");
    let mut c = Command::new(exe);
    c.args(["--exact", test, "--nocapture"]).envs(variables.iter().copied()).env("SOFTGPU_TEST_AGAIN", "1");
    c.output().expect("the test runs")
}

fn is_again() -> bool {
    std::env::var_os("SOFTGPU_TEST_AGAIN").is_some()
}

/// Prints what it finds, for the tests below.
#[test]
fn probe() {
    if !is_again() {
        return;
    }
    library();
    // SAFETY: as the driver documents these calls.
    unsafe {
        let init = sys::cuInit(0);
        let (mut count, mut bytes, mut name) = (0, 0, [0 as c_char; 64]);
        if init == CUresult::CUDA_SUCCESS {
            ok(sys::cuDeviceGetCount(&mut count));
            ok(sys::cuDeviceTotalMem_v2(&mut bytes, count - 1));
            ok(sys::cuDeviceGetName(name.as_mut_ptr(), 64, 0));
        }
        let name = CStr::from_ptr(name.as_ptr()).to_string_lossy().into_owned();
        let mut text = format!("probe: {} {count} {bytes} {name}", init as u32);
        if init == CUresult::CUDA_SUCCESS {
            // What one thread does beyond its allocation, and with memory that nothing wrote.
            let ctx = CudaContext::new(count as usize - 1).expect("a context");
            let stream = ctx.default_stream();
            let ptx = ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 p) {\n.reg .b64 %d<2>;\n\
                .reg .b32 %r<2>;\nld.param.u64 %d0, [p];\nld.global.u32 %r0, [%d0];\nst.global.u32 [%d0+4], %r0;\nret;\n}\n";
            let f = ctx.load_module(Ptx::from_src(ptx)).expect("a module").load_function("k").expect("a kernel");
            let mut at = stream.alloc::<u32>(1).expect("memory");
            let mut b = stream.launch_builder(&f);
            b.arg(&mut at);
            b.launch(LaunchConfig { grid_dim: (1, 1, 1), block_dim: (1, 1, 1), shared_mem_bytes: 0 })
                .expect("a launch");
            text += &format!(" {}", code(stream.synchronize()) as u32);
            let report: serde_json::Value = serde_json::from_str(&last_report()).unwrap_or_default();
            text += &format!(" {}", report["kind"].as_str().unwrap_or("nothing"));
        }
        eprintln!("{text}");
    }
}

fn probed(variables: &[(&str, &str)]) -> String {
    let out = again("environment::probe", variables);
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    let line = text.lines().find(|l| l.starts_with("probe: ")).unwrap_or_else(|| panic!("{text}"));
    line["probe: ".len()..].to_string()
}

#[test]
fn variables_choose_part_devices_memory_and_checks() {
    assert_eq!(probed(&[]), format!("0 1 {} NVIDIA H100 80GB HBM3 719 uninitialised", 79u64 << 30));
    let set = [("SOFTGPU_PART", "rtx4090"), ("SOFTGPU_DEVICES", "3"), ("SOFTGPU_MEMORY", "512M")];
    assert_eq!(probed(&set), format!("0 3 {} NVIDIA GeForce RTX 4090 719 uninitialised", 512 << 20));
    assert!(probed(&[("SOFTGPU_CHECKS", "-uninitialised")]).ends_with(" 700 out-of-bounds"));
    assert!(probed(&[("SOFTGPU_CHECKS", "alignment,barriers")]).ends_with(" 0 nothing"));
    assert!(probed(&[("SOFTGPU_CHECKS", "none")]).ends_with(" 0 nothing"));
}

#[test]
fn settings_that_mean_nothing_are_refused() {
    for (name, value) in [
        ("SOFTGPU_PART", "gtx"),
        ("SOFTGPU_DEVICES", "0"),
        ("SOFTGPU_MEMORY", "much"),
        ("SOFTGPU_CHECKS", "bound"),
        ("SOFTGPU_SEED", "-"),
        ("SOFTGPU_THREADS", "x"),
    ] {
        assert!(!probed(&[(name, value)]).starts_with("0 "), "{name}={value}");
    }
}

/// Races between streams and with the host are found, and their healthy twins not accused, in other orders too.
#[test]
fn stream_races_are_found_under_many_seeds() {
    if is_again() || nvrtc::folder().is_none() {
        return;
    }
    for seed in 1..7 {
        for test in [
            "streams_that_wait_for_each_other_are_in_order_and_others_are_reported",
            "the_host_must_wait_for_what_it_reads",
            "branches_of_a_graph_without_an_edge_are_reported",
            "calls::memory_is_freed_in_the_order_of_streams",
        ] {
            let out = again(test, &[("SOFTGPU_SEED", &seed.to_string())]);
            let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
            assert!(out.status.success() && text.contains("1 passed"), "{text}");
        }
    }
}

/// Runs a script of `tests/python` under NVIDIA's Python packages, which open the driver by its name. Their own example
/// is a file beside them.
fn python(script: &str, example: Option<&str>) -> Option<String> {
    let data = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from);
    let data = data.or(std::env::home_dir().map(|h| h.join(".local/share"))).expect("a data folder");
    let folder = data.join("mngc/cuda-python");
    let argument = example.map(|e| folder.join(e));
    if !folder.join("done").exists() || argument.as_ref().is_some_and(|a| !a.exists()) {
        nvrtc::skipped("softgpu/scripts/fetch-python-client.sh has not been run, or could not fetch all");
        return None;
    }
    let nvrtc = nvrtc::folder()?;
    let exe = std::env::current_exe().expect("a test has a path");
    let libraries = exe.ancestors().nth(2).expect("target/PROFILE/deps/TEST");
    let scripts = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/python");
    let out = Command::new(folder.join("bin/python"))
        .arg(scripts.join(script))
        .args(argument)
        .env("LD_LIBRARY_PATH", format!("{}:{}", libraries.display(), nvrtc.display()))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("SOFTGPU_PART", "a100")
        .output()
        .expect("Python runs");
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{stdout}{stderr}");
    Some(stdout.into_owned())
}

#[test]
fn python_packages_of_the_vendor_run() {
    let Some(said) = python("client.py", None) else { return };
    assert_eq!(said.trim(), "blended 10007 values on NVIDIA A100-SXM4-80GB");
}

#[test]
fn the_vector_addition_of_the_vendors_packages_runs() {
    let Some(said) = python("example.py", Some("vector_add.py")) else { return };
    assert_eq!(said.trim(), "done!");
}
