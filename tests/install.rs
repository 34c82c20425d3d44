//! `mngc doctor --install`: with a python3 that only seems to be one, and with the real one where there is a network.

#![cfg(unix)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use common::{mngc, skipped, stderr, stdout, text};
use serde_json::Value;
use tempfile::TempDir;

const FILES: [&str; 2] = ["libnvrtc-builtins.so.12.9", "libnvrtc.so.12"];

/// An empty data folder, and a path with a python3 of the test's own or without any.
struct Machine {
    folder: TempDir,
    path: String,
}

impl Machine {
    /// A python3 that is this shell script, in which `$*` are its arguments.
    fn with_python(script: Option<&str>) -> Machine {
        let folder = tempfile::tempdir().expect("a folder");
        let bin = folder.path().join("bin");
        fs::create_dir(&bin).expect("a folder");
        if let Some(script) = script {
            let python = bin.join("python3");
            fs::write(&python, format!("#!/bin/sh\nPATH=/usr/bin:/bin\n{script}")).expect("written");
            fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).expect("executable");
        }
        Machine { path: text(&bin).to_string(), folder }
    }

    /// The real one.
    fn real() -> Machine {
        Machine { path: std::env::var("PATH").unwrap_or_default(), ..Machine::with_python(None) }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn installed(&self) -> PathBuf {
        self.data().join("mngc/nvrtc-12.9.86")
    }

    fn install(&self, more: &[&str]) -> Output {
        let mut command = mngc(&[&["doctor", "--install"], more].concat());
        command.env("PATH", &self.path).env("XDG_DATA_HOME", self.data()).env_remove("MNGC_NVRTC");
        command.output().expect("it starts")
    }

    /// Installing fails, tells this, and leaves no file.
    fn refuses(&self, parts: &[&str]) {
        let output = self.install(&[]);
        let message = stderr(&output);
        assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(1), ""), "{message}");
        for part in parts.iter().chain(&["NVRTC 12.9.86 cannot be put into", text(&self.installed())]) {
            assert!(message.contains(part), "{part}: {message}");
        }
        let left = fs::read_dir(self.installed()).into_iter().flatten().flatten().map(|entry| entry.path());
        assert_eq!(left.collect::<Vec<_>>(), [] as [PathBuf; 0]);
    }
}

/// A python3 whose pip leaves a file in its --dest, and that unpacks any wheel by a command, in which `$3` is the folder.
fn python(unpack: &str) -> String {
    format!(
        "case \"$*\" in
            '-m pip --version') exit 0;;
            '-m pip download '*) while [ \"$1\" != --dest ]; do shift; done; echo wheel >\"$2/nvrtc.whl\";;
            '-c '*) shift 2; set -- - \"$@\"; {unpack};;
            *) exit 9;;
        esac"
    )
}

#[test]
fn what_is_missing_is_told() {
    Machine::with_python(None).refuses(&["python3", "is not on the path", "apt install python3-pip", FILES[1]]);
    Machine::with_python(Some("echo No module named pip >&2; exit 1"))
        .refuses(&["python3 has no pip (No module named pip)", "apt install python3-pip"]);
}

#[test]
fn what_pip_says_is_told() {
    let fails = |said: &str| format!("[ \"$3\" = --version ] && exit 0; echo '{said}' >&2; exit 1");
    let offline = "ERROR: No matching distribution found";
    Machine::with_python(Some(&fails(offline))).refuses(&["is there a network?", offline]);
    let changed = "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE";
    Machine::with_python(Some(&fails(changed))).refuses(&["another file than the one expected", changed]);
}

#[test]
fn a_wheel_that_holds_something_else_is_refused() {
    Machine::with_python(Some("[ \"$2\" = pip ]")).refuses(&["there is none"]);
    Machine::with_python(Some(&python("echo no wheel >&2; exit 1"))).refuses(&["cannot be unpacked: no wheel"]);
    Machine::with_python(Some(&python("exit 0"))).refuses(&["there is no libnvrtc-builtins.so.12.9 in the wheel"]);
    let junk = "echo junk >\"$3/libnvrtc.so.12\"; echo junk >\"$3/libnvrtc-builtins.so.12.9\"";
    Machine::with_python(Some(&python(junk))).refuses(&["what was fetched does not work"]);
}

#[test]
fn a_folder_that_cannot_be_made_is_told() {
    let machine = Machine::with_python(Some(&python("exit 0")));
    fs::write(machine.data(), "a file").expect("written");
    let output = machine.install(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("Not a directory"), "{}", stderr(&output));
}

#[test]
fn the_files_come_once() {
    const TEST: &str = "the_files_come_once";
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share"));
    let there = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).or(home).unwrap_or_default();
    let there = there.join("mngc/nvrtc-12.9.86");
    if !FILES.iter().all(|name| there.join(name).exists()) {
        return skipped(TEST, "there is no NVRTC (softgpu/scripts/fetch-nvrtc.sh fetches it)");
    }
    let copy = format!("cp '{0}/{1}' '{0}/{2}' \"$3\"", text(&there), FILES[0], FILES[1]);
    let machine = Machine::with_python(Some(&python(&copy)));
    let output = machine.install(&["--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("fetching nvidia-cuda-nvrtc-cu12 12.9.86"), "{}", stderr(&output));
    let report: Value = serde_json::from_str(&stdout(&output)).expect("one JSON object");
    assert_eq!(report["nvrtc"]["path"], text(&machine.installed().join(FILES[1])));
    check(&machine);

    // Nothing is fetched again, so no python3 is needed.
    fs::remove_file(Path::new(&machine.path).join("python3")).expect("removed");
    let output = machine.install(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("already in"), "{}", stderr(&output));
    assert!(stdout(&output).contains("12.9 at "), "{}", stdout(&output));

    // A file that is cut is no NVRTC.
    fs::write(machine.installed().join(FILES[1]), "cut").expect("written");
    let output = machine.install(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("is not on the path"), "{}", stderr(&output));
}

#[test]
fn the_package_is_the_one_that_is_expected() {
    let machine = Machine::real();
    let output = machine.install(&[]);
    let message = stderr(&output);
    if output.status.code() == Some(1)
        && ["is there a network?", "python3 has no pip", "python3, whose pip"].iter().any(|why| message.contains(why))
    {
        return skipped("the_package_is_the_one_that_is_expected", "pip fetches nothing here");
    }
    assert_eq!(output.status.code(), Some(0), "{message}");
    check(&machine);
}

/// The two files are there and nothing else.
fn check(machine: &Machine) {
    let entries = fs::read_dir(machine.installed()).expect("the folder");
    let mut names: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
    names.sort();
    assert_eq!(names, FILES);
}
