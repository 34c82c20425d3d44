//! What must pass before a change lands, in the order of what it costs.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{ChildStderr, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use crate::tidy;

/// Runs everything and stops at the first part that fails. Says how many tests ran and which were skipped.
pub fn run(root: &Path) -> Result<()> {
    tidy::run(root)?;
    cargo(root, &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])?;
    fetch(root)?;
    let mut all = tests(root, WORKSPACE, &[])?;
    println!("the soft GPU as an A100");
    let ampere = tests(root, AMPERE, &[("SOFTGPU_PART", "a100".into())])?;
    all.passed += ampere.passed;
    all.suites.extend(ampere.suites.into_iter().map(|(name, seconds)| (format!("{name}, A100"), seconds)));
    cargo(root, &["doc", "--workspace", "--no-deps", "--quiet"])?;
    println!("seconds of each suite of tests:");
    all.suites.sort_by(|a, b| b.1.total_cmp(&a.1));
    all.suites.iter().filter(|suite| suite.1 >= 0.1).for_each(|(name, seconds)| println!("{seconds:8.1}  {name}"));
    println!("{} tests passed, {} skipped", all.passed, all.skipped.len());
    all.skipped.iter().for_each(|name| println!("skipped: {name}"));
    Ok(())
}

/// Puts what tests of the soft GPU run with into the data folder: NVRTC, verified by hash, and NVIDIA's Python packages.
/// Without them (and without a network) these tests say that they were skipped.
fn fetch(root: &Path) -> Result<()> {
    for script in ["softgpu/scripts/fetch-nvrtc.sh", "softgpu/scripts/fetch-python-client.sh"] {
        println!("$ sh {script}");
        let status = Command::new("sh").arg(script).current_dir(root).status().context("cannot start a shell")?;
        if !status.success() {
            println!("{script} failed: tests that need it will be skipped");
        }
    }
    Ok(())
}

/// Runs the tests with other random cases each time, until one fails; says which seed gives its cases again.
pub fn fuzz(root: &Path) -> Result<()> {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?;
    for seed in clock.as_secs().. {
        println!("PROPTEST_RNG_SEED={seed}");
        tests(root, WORKSPACE, &[("PROPTEST_RNG_SEED", seed.to_string())])
            .with_context(|| format!("with PROPTEST_RNG_SEED={seed}"))?;
    }
    Ok(())
}

/// Runs cargo in a folder, with rustdoc's warnings as errors.
pub fn cargo(root: &Path, args: &[&str]) -> Result<()> {
    let status = command(root, args).status().context("cannot start cargo")?;
    if status.success() { Ok(()) } else { bail!("`cargo {}` failed", args.join(" ")) }
}

fn command(root: &Path, args: &[&str]) -> Command {
    println!("$ cargo {}", args.join(" "));
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    command.args(args).current_dir(root).env("RUSTDOCFLAGS", "-D warnings");
    command
}

/// What the tests printed of themselves.
#[derive(Debug, Default, PartialEq)]
struct Tests {
    passed: usize,
    skipped: Vec<String>,
    /// Tests that said that they were skipped and have not ended.
    said: HashSet<String>,
    /// Each binary of tests, with the seconds that it took.
    suites: Vec<(String, f64)>,
}

/// All tests.
const WORKSPACE: &[&str] = &["test", "--workspace", "--no-fail-fast"];
/// The families of kernels, whose texts and tiles differ with the device: once more for sm_80.
const AMPERE: &[&str] =
    &["test", "-p", "mngc-runtime", "--test", "soft", "--", "attention::", "dot::", "loss::", "rows::"];

/// Runs tests, passing on what they print. A run without any test is a failure: nothing was checked. Random cases are
/// drawn by .cargo/config.toml's seed unless the environment has another.
fn tests(root: &Path, args: &[&str], environment: &[(&str, String)]) -> Result<Tests> {
    let mut command = command(root, args);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("cannot start cargo")?;
    // What cargo runs next is said on the other stream.
    let names = child.stderr.take().map(names);
    let mut tests = Tests::default();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line.context("cannot read what the tests print")?;
            println!("{line}");
            tests.read(&line);
            if let (Some(seconds), Some(names)) = (seconds(&line), &names) {
                let name = names.recv_timeout(Duration::from_secs(1)).unwrap_or_else(|_| "more of it".into());
                tests.suites.push((name, seconds));
            }
        }
    }
    if !child.wait().context("cannot wait for cargo")?.success() {
        bail!("tests failed");
    }
    if tests.passed == 0 {
        bail!("no test ran");
    }
    Ok(tests)
}

/// Passes on what cargo says, and gives the names of the suites that it starts.
fn names(stderr: ChildStderr) -> Receiver<String> {
    let (send, names) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            eprintln!("{line}");
            if let Some(name) = suite(&line) {
                let _ = send.send(name);
            }
        }
    });
    names
}

/// The suite that a line of cargo says it starts: `Running tests/a.rs (target/…/a-0123)`, `Doc-tests b`.
fn suite(line: &str) -> Option<String> {
    let line = line.trim();
    if let Some(of) = line.strip_prefix("Doc-tests ") {
        return Some(format!("examples of {of}"));
    }
    let (source, binary) = line.strip_prefix("Running ")?.split_once(" (")?;
    let file = binary.trim_end_matches(')').rsplit('/').next()?;
    let name = file.rsplit_once('-').map_or(file, |(name, _)| name);
    Some(format!("{name}, {}", source.trim_start_matches("unittests ")))
}

/// The seconds at the end of a suite's last line.
fn seconds(line: &str) -> Option<f64> {
    let (_, time) = line.strip_prefix("test result: ")?.rsplit_once("finished in ")?;
    time.trim_end_matches('s').parse().ok()
}

impl Tests {
    /// Takes one line of output: `test NAME ... ok`, `test NAME ... ignored, why`, `SKIPPED NAME: why`. The last is said
    /// by a test that finds out by itself that it cannot run, and that is then told to be ok.
    fn read(&mut self, line: &str) {
        if let Some((name, why)) = line.strip_prefix("SKIPPED ").and_then(|rest| rest.split_once(": ")) {
            self.skipped.push(format!("{name} ({why})"));
            self.said.insert(name.to_string());
            return;
        }
        let Some((name, outcome)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) else {
            return;
        };
        if outcome == "ok" {
            self.passed += !self.said.remove(name.trim()) as usize;
        } else if outcome.starts_with("ignored") {
            self.skipped.push(format!("{} ({outcome})", name.trim()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Tests, seconds, suite};

    #[test]
    fn outcomes_are_read_from_what_the_tests_print() {
        let mut tests = Tests::default();
        let lines = ["running 5 tests", "test a::b ... ok", "test c ... ignored, needs a GPU", "test d   ... ok"];
        lines.iter().for_each(|line| tests.read(line));
        tests.read("SKIPPED e: there is no NVRTC: none");
        tests.read("test e ... ok");
        tests.read("test result: ok. 3 passed; 0 failed; 1 ignored");
        let skipped = vec!["c (ignored, needs a GPU)".into(), "e (there is no NVRTC: none)".into()];
        assert_eq!(tests, Tests { passed: 2, skipped, ..Tests::default() });
    }

    #[test]
    fn suites_and_their_times_are_read_from_what_cargo_prints() {
        let name = suite("     Running tests/soft.rs (/t/debug/deps/soft-0c1d)");
        assert_eq!(name.as_deref(), Some("soft, tests/soft.rs"));
        let name = suite("     Running unittests src/lib.rs (/t/debug/deps/mngc_dsl-0c1d)");
        assert_eq!(name.as_deref(), Some("mngc_dsl, src/lib.rs"));
        assert_eq!(suite("   Doc-tests mngc_dsl").as_deref(), Some("examples of mngc_dsl"));
        assert_eq!(suite("   Compiling mngc v0.1.0"), None);
        let end = "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.50s";
        assert_eq!(seconds(end), Some(1.5));
        assert_eq!(seconds("test a ... ok"), None);
    }
}
