//! Fetches NVRTC, the one version that all kernels are tested with, from PyPI into the data folder.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail, ensure};
use mngc_runtime::cuda::libraries::{Found, Library};
use mngc_runtime::{files, folders};

use crate::output;

const PACKAGE: &str = "nvidia-cuda-nvrtc-cu12";
const VERSION: &str = "12.9.86";

/// What is kept of a wheel. The second is what [`Library::find`] looks for, so it takes its place last.
const FILES: [&str; 2] = ["libnvrtc-builtins.so.12.9", "libnvrtc.so.12"];

/// Processors that NVIDIA has the package for: name, pip's platform, SHA-256 of the wheel.
const WHEELS: [(&str, &str, &str); 2] = [
    ("x86_64", "manylinux2010_x86_64", "210cf05005a447e29214e9ce50851e83fc5f4358df8b453155d5e1918094dcb4"),
    ("aarch64", "manylinux2014_aarch64", "096d4de6bda726415dfaf3198d4f5c522b8e70139c97feef5cd2ca6d4cd9cead"),
];

/// Takes some files out of a wheel: arguments are the wheel, the folder to put them into, and their names.
const UNPACK: &str = "
import os, shutil, sys, zipfile
wheel, folder, *names = sys.argv[1:]
with zipfile.ZipFile(wheel) as z:
    for member in z.namelist():
        if os.path.basename(member) in names:
            with z.open(member) as f, open(os.path.join(folder, os.path.basename(member)), 'wb') as to:
                shutil.copyfileobj(f, to)
";

/// Puts NVRTC into the data folder, says on standard error what it does, and gives what is there then.
/// Nothing is fetched where it is already there.
pub fn nvrtc() -> Result<Found> {
    let data = folders::data().context("there is no data folder: set HOME or XDG_DATA_HOME")?;
    let folder = data.join(format!("nvrtc-{VERSION}"));
    let library = folder.join(FILES[1]);
    if folder.join(FILES[0]).exists()
        && let Ok(found) = Library::Nvrtc.at(&library)
    {
        output::note(&format!("NVRTC {VERSION} is already in {}\n", folder.display()));
        return Ok(found);
    }
    fetch(&folder).with_context(|| format!("NVRTC {VERSION} cannot be put into {}", folder.display()))?;
    output::note(&format!("NVRTC {VERSION} is in {}\n", folder.display()));
    Library::Nvrtc.at(&library).map_err(anyhow::Error::msg)
}

fn fetch(folder: &Path) -> Result<()> {
    let (os, processor) = (std::env::consts::OS, std::env::consts::ARCH);
    let wheel = WHEELS.iter().find(|wheel| wheel.0 == processor && os == "linux");
    let &(_, platform, hash) = wheel.with_context(|| format!("NVIDIA has none for {os} on {processor}"))?;
    has_pip()?;

    fs::create_dir_all(folder)?;
    // In the same folder, so that files can be renamed; it goes away whatever happens.
    let temporary = tempfile::Builder::new().prefix(files::TEMPORARY).tempdir_in(folder)?;
    let temporary = temporary.path();
    output::note(&format!("fetching {PACKAGE} {VERSION} (90 MB) with pip\n"));
    download(platform, hash, temporary)?;
    unpack(temporary)?;
    let found = Library::Nvrtc.at(&temporary.join(FILES[1])).map_err(anyhow::Error::msg);
    let found = found.context("what was fetched does not work")?;
    ensure!(VERSION.starts_with(&found.version), "what was fetched says that it is version {}", found.version);
    for name in FILES {
        fs::File::open(temporary.join(name))?.sync_all()?;
        fs::rename(temporary.join(name), folder.join(name))?;
    }
    Ok(files::sync_folder(folder)?)
}

fn has_pip() -> Result<()> {
    let output = python(["-m", "pip", "--version"]).output();
    let by_hand = format!(
        "Debian and Ubuntu have both in: sudo apt install python3-pip. By hand: {} and {} of \
         https://pypi.org/project/{PACKAGE}/{VERSION}/#files",
        FILES[0], FILES[1]
    );
    match output {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("python3, whose pip fetches it, is not on the path. {by_hand}")
        }
        Err(error) => Err(error).context("python3 does not start"),
        Ok(output) if !output.status.success() => bail!("python3 has no pip ({}). {by_hand}", said(&output)),
        Ok(_) => Ok(()),
    }
}

/// pip checks the hash, and fails if it is another.
fn download(platform: &str, hash: &str, folder: &Path) -> Result<()> {
    let requirements = folder.join("requirements.txt");
    fs::write(&requirements, format!("{PACKAGE}=={VERSION} --hash=sha256:{hash}\n"))?;
    let mut pip = python(["-m", "pip", "download", "--no-input", "--disable-pip-version-check", "--no-deps"]);
    pip.args(["--require-hashes", "--only-binary", ":all:", "--retries", "2", "--timeout", "20"]);
    pip.args(["--platform", platform, "--dest"]).arg(folder).arg("-r").arg(&requirements);
    // On a terminal pip shows how far it is, on its standard output; ours is for results.
    match io::stderr().is_terminal() {
        true => pip.stdout(Stdio::from(io::stderr())),
        false => pip.arg("--quiet").stdout(Stdio::null()),
    };
    let output = pip.output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = said(&output);
    match said.contains("DO NOT MATCH THE HASHES") {
        true => {
            bail!("what PyPI, or the index that pip uses, has is another file than the one expected. pip says:\n{said}")
        }
        false => bail!("pip could not fetch it; is there a network? pip says:\n{said}"),
    }
}

fn unpack(folder: &Path) -> Result<()> {
    let is_wheel = |path: &PathBuf| path.extension() == Some(OsStr::new("whl"));
    let wheel = fs::read_dir(folder)?.flatten().map(|entry| entry.path()).find(is_wheel);
    let wheel = wheel.context("pip said that it fetched a wheel, but there is none")?;
    let output = python(["-c", UNPACK]).arg(wheel).arg(folder).args(FILES).output()?;
    ensure!(output.status.success(), "the wheel cannot be unpacked: {}", said(&output));
    for name in FILES {
        ensure!(folder.join(name).exists(), "there is no {name} in the wheel");
    }
    Ok(())
}

fn python<const N: usize>(args: [&str; N]) -> Command {
    let mut command = Command::new("python3");
    command.args(args).stdin(Stdio::null());
    command
}

/// What a program said on standard error.
fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_string()
}
