//! What a reader would find untidy: formatting, missing headers, long files, forgotten marks, versions outside the root.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::test::cargo;

/// Longest Rust source file, in lines.
const MAX_LINES: usize = 600;

/// Macros of unfinished work.
const UNFINISHED: [&str; 3] = ["todo", "unimplemented", "dbg"];

/// Folders of the root whose files are not ours to tidy.
const OTHERS: [&str; 3] = ["target", "runs", "data"];

/// Prints every fault and fails if there is one.
pub fn run(root: &Path) -> Result<()> {
    let faults = faults(root)?;
    faults.iter().for_each(|fault| eprintln!("{fault}"));
    cargo(root, &["fmt", "--all", "--check"])?;
    match faults.len() {
        0 => Ok(()),
        n => bail!("{n} untidy places"),
    }
}

/// Everything untidy below a folder but formatting, each as `file: what`.
fn faults(root: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    collect(root, true, &mut files)?;
    files.sort();
    let mut faults = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let shown = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        let found = match path.extension() {
            Some(extension) if extension == "rs" => source_faults(&text),
            _ => manifest_faults(&text),
        };
        faults.extend(found.into_iter().map(|fault| format!("{shown}: {fault}")));
    }
    Ok(faults)
}

/// The Rust sources and the manifests below a folder, which is the root (`top`) or lies in it.
fn collect(folder: &Path, top: bool, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if entry.file_type()?.is_dir() {
            let other = name.starts_with('.') || (top && OTHERS.contains(&name.as_str()));
            if !other {
                collect(&path, false, files)?;
            }
        } else if name.ends_with(".rs") || name == "Cargo.toml" {
            files.push(path);
        }
    }
    Ok(())
}

fn source_faults(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    if !text.starts_with("//! ") {
        faults.push("the first line must be `//!` and say what the file is for".to_string());
    }
    let lines = text.lines().count();
    if lines > MAX_LINES {
        faults.push(format!("{lines} lines are more than {MAX_LINES}: split the file"));
    }
    for (i, line) in text.lines().enumerate() {
        let mark = UNFINISHED.iter().find(|name| line.contains(&format!("{name}!(")));
        faults.extend(mark.map(|name| format!("line {}: `{name}!` marks unfinished work", i + 1)));
    }
    faults
}

/// Versions stand in the root manifest, whole; packages take them from there.
fn manifest_faults(text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut section = "";
    let code = |line: &'_ str| line.split('#').next().unwrap_or_default().trim().to_string();
    for (i, line) in text.lines().enumerate() {
        if line.starts_with('[') {
            section = line.trim().trim_matches(['[', ']']);
            continue;
        }
        let line = code(line);
        let at = i + 1;
        if line.is_empty() || !section.ends_with("dependencies") {
            continue;
        }
        if section != "workspace.dependencies" {
            if !line.contains("workspace = true") {
                faults.push(format!("line {at}: take `{line}` from the workspace"));
            }
        } else if !line.contains("path = ") && !is_pinned(&line) {
            faults.push(format!("line {at}: `{line}` needs a whole version"));
        }
    }
    faults
}

/// Whether a dependency names a version of three numbers.
fn is_pinned(line: &str) -> bool {
    line.split('"').any(|part| {
        let numbers: Vec<&str> = part.trim_start_matches('=').split('.').collect();
        numbers.len() == 3 && numbers.iter().all(|number| number.parse::<u32>().is_ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_is_tidy() {
        let faults = faults(&crate::root()).expect("readable files");
        assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    }

    #[test]
    fn untidy_sources_are_found() {
        assert!(source_faults("//! What it is.\nfn f() {}\n").is_empty());
        assert_eq!(source_faults("fn f() {}\n").len(), 1);
        assert_eq!(source_faults(&format!("//! {}", "x\n".repeat(MAX_LINES + 1))).len(), 1);
        for name in UNFINISHED {
            assert_eq!(source_faults(&format!("//! x\nfn f() {{ {name}!(1) }}\n")).len(), 1, "{name}");
        }
    }

    #[test]
    fn untidy_manifests_are_found() {
        let ok = "[package]\nversion = \"1\"\n[dependencies]\na.workspace = true\nb = { workspace = true }\n";
        assert!(manifest_faults(ok).is_empty());
        assert_eq!(manifest_faults("[dev-dependencies]\na = \"1.2.3\"\n").len(), 1);
        let root = "[workspace.dependencies]\na = \"1.2.3\"  # why\nb = { version = \"0.8.3\", features = [\"x\"] }\nc = { path = \"c\" }\n";
        assert!(manifest_faults(root).is_empty());
        for wrong in ["a = \"1\"", "a = \"1.2\"", "a = \"*\"", "a = { git = \"https://example.org/a\" }"] {
            assert_eq!(manifest_faults(&format!("[workspace.dependencies]\n{wrong}\n")).len(), 1, "{wrong}");
        }
    }
}
