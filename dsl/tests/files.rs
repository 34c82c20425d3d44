//! One test a data file: good files against their tree and their formatted text, wrong ones against their messages.
//!
//! `MNG_BLESS=1 cargo test -p mngc-dsl` writes the expected files anew; read the difference before keeping it.

#[path = "support/tree.rs"]
mod tree;

use std::fs;
use std::path::{Path, PathBuf};

use libtest_mimic::{Arguments, Failed, Trial};
use mngc_dsl::{FileId, Sources, format, parse};

fn main() {
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    for (folder, test) in [("good", good as fn(&Path) -> Result<(), Failed>), ("wrong", wrong)] {
        for file in mng_files(folder) {
            let name = format!("{folder}/{}", file.file_stem().unwrap_or_default().to_string_lossy());
            trials.push(Trial::test(name, move || test(&file)));
        }
    }
    libtest_mimic::run(&arguments, trials).exit();
}

fn mng_files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files").join(folder);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.expect("a readable folder").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "mng"));
    files.sort();
    files
}

/// The file alone in its sources, under its bare name.
fn open(path: &Path) -> Result<(Sources, FileId), Failed> {
    let mut sources = Sources::default();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let file = sources.add(name, fs::read_to_string(path)?);
    Ok((sources, file))
}

/// Compares with the expected file beside `path`, or writes it when blessing.
fn compare(path: &Path, extension: &str, actual: &str) -> Result<(), Failed> {
    let expected_path = path.with_extension(extension);
    if std::env::var_os("MNG_BLESS").is_some_and(|value| value == "1") {
        return Ok(fs::write(expected_path, actual)?);
    }
    let expected = fs::read_to_string(&expected_path)
        .map_err(|error| format!("{}: {error}; MNG_BLESS=1 writes it", expected_path.display()))?;
    if expected == actual {
        return Ok(());
    }
    Err(format!("{} differs\n---- expected\n{expected}---- actual\n{actual}", expected_path.display()).into())
}

fn good(path: &Path) -> Result<(), Failed> {
    let (mut sources, file) = open(path)?;
    let render = |sources: &Sources, errors: Vec<mngc_dsl::Diagnostic>| -> Failed {
        errors.iter().map(|error| error.render(sources, false)).collect::<String>().into()
    };
    let parsed = parse(&sources, file).map_err(|errors| render(&sources, errors))?;
    let parsed = tree::tree(&parsed);
    compare(path, "ast", &parsed)?;

    let formatted = format(&sources, file).map_err(|errors| render(&sources, errors))?;
    compare(path, "fmt", &formatted)?;
    let again = sources.add("formatted", formatted.as_str());
    let reparsed = parse(&sources, again).map_err(|errors| render(&sources, errors))?;
    if tree::tree(&reparsed) != parsed {
        return Err("formatting changed what the file says".into());
    }
    if format(&sources, again).map_err(|errors| render(&sources, errors))? != formatted {
        return Err("formatting twice is not formatting once".into());
    }
    Ok(())
}

fn wrong(path: &Path) -> Result<(), Failed> {
    let (sources, file) = open(path)?;
    match parse(&sources, file) {
        Ok(_) => Err("the file is accepted".into()),
        Err(errors) => {
            let rendered: Vec<_> = errors.iter().map(|error| error.render(&sources, false)).collect();
            compare(path, "diag", &rendered.join("\n"))
        }
    }
}
