//! README.md and docs/: every block of code, every command, every path and link is what it says it is.
//!
//! What is done with a block is said by the mark behind its fence:
//!
//! | mark | |
//! |---|---|
//! | `mng`, `mng NAME` | a whole model file: compiles, and is laid out as `mngc fmt` does it. NAME is its file for `sh run` |
//! | `mng-part` | an excerpt of one: parses, and is laid out |
//! | `sh` | commands that exist, with options that they have; they are not run |
//! | `sh run` | the same, and run in order in a folder with the page's files and the data of `tests/golden/noisy` |
//! | `ir …` | read and verified by `compiler/tests/docs.rs` |
//! | `rust FILE` | stands in that file so; a line `…` stands for some that are left out |
//! | `text`, none | a drawing, or what a program printed |

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use common::{mngc, stderr, stdout};

/// A fenced block of a page.
struct Block {
    /// Of its fence, from 1.
    line: usize,
    /// The words behind the fence.
    mark: Vec<String>,
    text: String,
}

struct Page {
    path: PathBuf,
    blocks: Vec<Block>,
    /// The lines outside of blocks, with their numbers.
    prose: Vec<(usize, String)>,
}

impl Page {
    fn of(path: PathBuf, text: &str) -> Page {
        let mut page = Page { path, blocks: Vec::new(), prose: Vec::new() };
        let mut lines = text.lines().zip(1..);
        while let Some((line, number)) = lines.next() {
            match line.strip_prefix("```") {
                Some(mark) => {
                    let body = lines.by_ref().map(|(line, _)| line).take_while(|line| *line != "```");
                    let text = body.flat_map(|line| [line, "\n"]).collect();
                    let mark = mark.split_whitespace().map(String::from).collect();
                    page.blocks.push(Block { line: number, mark, text });
                }
                None => page.prose.push((number, line.to_string())),
            }
        }
        page
    }

    fn place(&self, line: usize) -> String {
        format!("{}:{line}", self.path.display())
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// README.md and every page below docs/, by name relative to the root.
fn pages() -> Vec<Page> {
    fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(root().join(folder)).expect("a folder") {
            let entry = entry.expect("an entry");
            let path = folder.join(entry.file_name());
            if entry.path().is_dir() {
                collect(&path, paths);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                paths.push(path);
            }
        }
    }
    let mut paths = vec![PathBuf::from("README.md")];
    collect(Path::new("docs"), &mut paths);
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(root().join(&path)).expect("a page");
        Page::of(path, &text)
    };
    paths.into_iter().map(read).collect()
}

/// Fails with everything that is wrong.
fn none(faults: Vec<String>) {
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

fn mark(block: &Block) -> Vec<&str> {
    block.mark.iter().map(String::as_str).collect()
}

#[test]
fn every_block_says_what_it_is() {
    let mut faults = Vec::new();
    let mut kinds = BTreeSet::new();
    for page in pages() {
        for block in &page.blocks {
            kinds.extend(block.mark.first().cloned());
            let known = match mark(block)[..] {
                [] | ["text" | "mng" | "mng-part" | "sh" | "ir"] | ["sh", "run"] | ["ir", "after", _] => true,
                ["mng", name] => name.ends_with(".mng"),
                ["rust", _] => true,
                _ => false,
            };
            if !known {
                faults.push(format!("{}: no test knows what to do with {:?}", page.place(block.line), block.mark));
            }
        }
    }
    none(faults);
    let wanted = ["ir", "mng", "mng-part", "rust", "sh"];
    assert!(wanted.iter().all(|kind| kinds.contains(*kind)), "the pages lost their examples: {kinds:?}");
}

#[test]
fn model_files_compile_and_are_laid_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut faults = Vec::new();
    for page in pages() {
        for block in &page.blocks {
            let whole = match mark(block)[..] {
                ["mng", ..] => true,
                ["mng-part"] => false,
                _ => continue,
            };
            let path = folder.path().join("block.mng");
            fs::write(&path, &block.text).expect("a file");
            let commands: &[&[&str]] = &[&["fmt", "--check"], &["compile"]];
            for command in &commands[..1 + usize::from(whole)] {
                let output = mngc(command).arg(&path).output().expect("the program starts");
                if !output.status.success() {
                    let said = stdout(&output) + &stderr(&output);
                    faults.push(format!("{}: {command:?}: {said}", page.place(block.line)));
                }
            }
        }
    }
    none(faults);
}

/// The words of a command line: quotes hold words together, `#` begins a comment.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// What is wrong with the words of a command line, if anything is.
fn wrong(words: &[&str]) -> Option<String> {
    match *words {
        [] => None,
        ["cargo", "run", "--release", "--", ref rest @ ..] | ["mngc", ref rest @ ..] => unknown_to_mngc(rest),
        ["cargo", "xtask", task] => {
            let tasks = fs::read_to_string(root().join("xtask/src/main.rs")).expect("a file");
            let known = tasks.contains(&format!("[\"{task}\"] =>"));
            (!known).then(|| format!("xtask has no task {task}"))
        }
        ["cargo", "test", ref rest @ ..] => unknown_test(rest),
        ["cargo", "build", "--release"] => None,
        // Settings for one command.
        ["MNG_BLESS=1", ref rest @ ..] => wrong(rest),
        [first, ..] => Some(format!("`{first}` is not a command that can be checked")),
    }
}

/// Words that `mngc` would refuse. With `--help` behind them it says only what it thinks of them.
fn unknown_to_mngc(words: &[&str]) -> Option<String> {
    let output = mngc(words).arg("--help").output().expect("the program starts");
    (!output.status.success()).then(|| stderr(&output))
}

/// `-p PACKAGE --test NAME`, each of which may be left out.
fn unknown_test(words: &[&str]) -> Option<String> {
    let (package, words) = match *words {
        ["-p", package, ref rest @ ..] => (package, rest),
        ref rest => ("mngc", rest),
    };
    let manifests = ["", "dsl", "compiler", "runtime", "trainer", "testkit", "softgpu", "xtask"];
    let named = format!("[package]\nname = \"{package}\"\n");
    let is_named =
        |folder: &PathBuf| fs::read_to_string(folder.join("Cargo.toml")).is_ok_and(|text| text.contains(&named));
    let Some(folder) = manifests.map(|folder| root().join(folder)).into_iter().find(is_named) else {
        return Some(format!("no package is named {package}"));
    };
    match *words {
        [] => None,
        ["--test", name, ref filter @ ..] if filter.len() <= 1 => {
            let tests = folder.join("tests");
            let exists = tests.join(format!("{name}.rs")).exists() || tests.join(name).join("main.rs").exists();
            (!exists).then(|| format!("{package} has no test {name}"))
        }
        _ => Some("only -p PACKAGE and --test NAME can be checked".into()),
    }
}

fn wrong_line(line: &str) -> Option<String> {
    let words = words(line);
    wrong(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn commands_exist() {
    let mut faults = Vec::new();
    for page in pages() {
        for block in page.blocks.iter().filter(|block| block.mark.first().is_some_and(|mark| mark == "sh")) {
            let lines = block.text.lines().zip(block.line + 1..);
            let wrong =
                lines.filter_map(|(line, number)| Some(format!("{}: {}", page.place(number), wrong_line(line)?)));
            faults.extend(wrong);
        }
        for (line, code) in inline(&page) {
            // `mngc run [MODEL]`: with what may be left out.
            let is_command = |rest: &str| rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '-');
            if code.strip_prefix("mngc ").is_some_and(is_command) {
                let fault = wrong_line(&code.replace(['[', ']'], ""));
                faults.extend(fault.map(|fault| format!("{}: `{code}`: {fault}", page.place(line))));
            }
        }
    }
    none(faults);
}

#[test]
fn commands_that_do_not_exist_are_found() {
    for line in [
        "mngc walk",
        "mngc run --no-such-option",
        "mngc run --steps many",
        "cargo run --release -- sample --top-p 2",
        "cargo xtask nothing",
        "cargo test -p mngc-nothing",
        "MNG_BLESS=1 cargo test -p mngc-compiler --test nothing",
        "rm -rf runs",
    ] {
        assert!(wrong_line(line).is_some(), "{line}");
    }
    let quoted = words("mngc sample a 'To be' --seed 3   # comment's end");
    assert_eq!(quoted, ["mngc", "sample", "a", "To be", "--seed", "3"]);
}

#[test]
fn commands_that_are_shown_with_their_files_work() {
    let mut runs = 0;
    for page in pages() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = Path::new("tests/golden/noisy");
        fs::create_dir_all(folder.path().join(data)).expect("a folder");
        for entry in fs::read_dir(root().join(data)).expect("a folder") {
            let entry = entry.expect("an entry");
            fs::copy(entry.path(), folder.path().join(data).join(entry.file_name())).expect("a copy");
        }
        for block in &page.blocks {
            match mark(block)[..] {
                ["mng", name] => fs::write(folder.path().join(name), &block.text).expect("a file"),
                ["sh", "run"] => {
                    for (line, number) in block.text.lines().zip(block.line + 1..) {
                        let words = words(line);
                        let Some((first, rest)) = words.split_first() else { continue };
                        assert_eq!(first, "mngc", "{}: only mngc is run", page.place(number));
                        let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
                        let output = mngc(&rest).current_dir(folder.path()).output().expect("the program starts");
                        assert!(output.status.success(), "{}: {line}\n{}", page.place(number), stderr(&output));
                        runs += 1;
                    }
                }
                _ => {}
            }
        }
    }
    assert!(runs >= 5, "the pages lost their commands");
}

/// README tells how to test, and that is what decides whether a change lands; it has every command.
#[test]
fn the_readme_is_complete() {
    let pages = pages();
    let readme = pages.iter().find(|page| page.path == Path::new("README.md")).expect("README.md");
    let first = readme.blocks.iter().find(|block| block.mark == ["sh"]).expect("the commands");
    let commands: Vec<Vec<String>> = first.text.lines().map(words).collect();
    let ci = fs::read_to_string(root().join(".ci/run")).expect("a script");
    let test = ci.lines().last().map(words).expect("a command");
    assert_eq!(commands.len(), 2, "{commands:?}");
    assert_eq!(commands[1], test, "README's second command is what .ci/run does");

    let help = common::succeeds(&["--help"]);
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names: Vec<&str> = listed.filter_map(|line| line.split_whitespace().next()).filter(|n| *n != "help").collect();
    assert!(names.len() > 5, "{help}");
    let prose: String = readme.prose.iter().map(|(_, line)| format!("{line}\n")).collect();
    for name in names {
        assert!(prose.contains(&format!("`mngc {name}")), "README does not say what `mngc {name}` does");
    }
}

#[test]
fn excerpts_of_sources_stand_there() {
    let mut faults = Vec::new();
    for page in pages() {
        for block in &page.blocks {
            let ["rust", file] = mark(block)[..] else { continue };
            let source = fs::read_to_string(root().join(file)).unwrap_or_default();
            let source: Vec<&str> = source.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            let lines: Vec<&str> = block.text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
            for part in lines.split(|line| *line == "…").filter(|part| !part.is_empty()) {
                if !source.windows(part.len()).any(|window| window == part) {
                    faults.push(format!("{}: {file} has no\n{}", page.place(block.line), part.join("\n")));
                }
            }
        }
    }
    none(faults);
}

/// What stands between backticks in the prose of a page, with its line.
fn inline(page: &Page) -> Vec<(usize, String)> {
    let code = |(line, text): &(usize, String)| {
        let parts: Vec<_> = text.split('`').skip(1).step_by(2).map(|code| (*line, code.to_string())).collect();
        parts
    };
    page.prose.iter().flat_map(code).collect()
}

/// Folders that pages leave out in front of a path.
const SHORT: [&str; 8] =
    ["", "src", "compiler/src", "runtime/src", "kernels-gen/src", "trainer/src", "dsl/src", "testkit/src"];

/// `a/{b,c}.rs` as both.
fn expanded(path: &str) -> Vec<String> {
    let parts = path.split_once('{').and_then(|(head, rest)| Some((head, rest.split_once('}')?)));
    match parts {
        Some((head, (list, tail))) => {
            list.split(',').flat_map(|part| expanded(&format!("{head}{}{tail}", part.trim()))).collect()
        }
        None => vec![path.to_string()],
    }
}

/// The names of all files below a folder.
fn names(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        match entry.path().is_dir() {
            true => names(&entry.path(), found),
            false => drop(found.insert(entry.file_name().to_string_lossy().into_owned())),
        }
    }
}

/// Whether some code looks like a path of the repository: folders, and either a file's ending or a slash at the end.
/// What a run or a user makes is none, nor is what has a part in capitals that stands for something.
fn is_path(code: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-{},*".contains(c);
    let theirs = ["/", "runs/", "data/", "build/", "target/"].iter().any(|head| code.starts_with(head));
    let stands_for = code.split(|c: char| !c.is_ascii_alphabetic()).any(|w| w.len() > 1 && w.to_uppercase() == w);
    let last = code.rsplit('/').next().unwrap_or_default();
    let looks_like_one = code.contains('/') && code.chars().all(plain);
    let ends_like_one = last.is_empty() || last.trim_start_matches('.').contains('.');
    looks_like_one && ends_like_one && !theirs && (!stands_for || root().join(code).exists())
}

#[test]
fn paths_exist() {
    let mut faults = Vec::new();
    let mut found = 0;
    let mut sources = BTreeSet::from(["build.rs".to_string()]);
    SHORT[1..].iter().for_each(|folder| names(&root().join(folder), &mut sources));
    for page in pages() {
        let alone = inline(&page).into_iter().filter(|(_, code)| code.ends_with(".rs") && !code.contains('/'));
        let missing = alone.filter(|(_, code)| !sources.contains(code));
        faults.extend(missing.map(|(line, code)| format!("{}: no source is named {code}", page.place(line))));
        for (line, code) in inline(&page).into_iter().filter(|(_, code)| is_path(code)) {
            for path in expanded(&code) {
                found += 1;
                // Of a pattern the folder.
                let path = path.split('*').next().unwrap_or_default();
                let path = if code.contains('*') { path.rsplit_once('/').map_or("", |(head, _)| head) } else { path };
                if !SHORT.iter().any(|folder| root().join(folder).join(path).exists()) {
                    faults.push(format!("{}: there is no {path}", page.place(line)));
                }
            }
        }
    }
    none(faults);
    assert!(found > 50, "only {found} paths were seen");
}

/// The anchors of a page: its headings in small letters, with hyphens for spaces and without other signs.
fn anchors(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(root().join(path)).unwrap_or_default();
    let headings = Page::of(path.to_path_buf(), &text).prose.into_iter().filter(|(_, line)| line.starts_with('#'));
    let anchor = |(_, line): (usize, String)| {
        let title = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        title.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn links_lead_somewhere() {
    let mut faults = Vec::new();
    for page in pages() {
        let folder = page.path.parent().unwrap_or(Path::new(""));
        for (line, text) in &page.prose {
            for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
                let path = if path.is_empty() { page.path.clone() } else { folder.join(path) };
                let has_anchor = anchor.is_empty() || anchors(&path).iter().any(|found| found == anchor);
                let leads = link.starts_with("https://") || (root().join(&path).exists() && has_anchor);
                if !leads {
                    faults.push(format!("{}: there is no {link}", page.place(*line)));
                }
            }
        }
    }
    none(faults);
}
