//! `mngc data`: text files of every kind become the shards that they should, and broken ones an error that leaves nothing.

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{fails, mngc, output, shard, stderr, stdout, succeeds, text};
use mngc_trainer::data::encode::{Options, encode};
use proptest::prelude::*;
use serde_json::Value;
use tempfile::TempDir;

const END_OF_TEXT: u16 = 50256;

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn input(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files/data").join(name)
}

fn write(folder: &Path, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, contents).expect("a file");
    path
}

/// Names of everything in a folder, hidden files too.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The files of a folder with their bytes, by name.
fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    names(folder).into_iter().map(|name| (name.clone(), fs::read(folder.join(name)).expect("a file"))).collect()
}

/// The shards that Python made of the golden documents.
fn golden(name: &str) -> Vec<(String, Vec<u8>)> {
    let object: Value = serde_json::from_slice(&fs::read(input(name)).expect("a file")).expect("JSON");
    let tokens = |list: &Value| -> Vec<u16> { serde_json::from_value(list.clone()).expect("tokens") };
    let object = object.as_object().expect("an object");
    let mut shards: Vec<_> = object.iter().map(|(name, list)| (name.clone(), shard(&tokens(list)))).collect();
    shards.sort();
    shards
}

fn encode_golden(file: &str, more: &[&str]) -> Vec<(String, Vec<u8>)> {
    let out = folder();
    let path = input(file);
    let args = ["data", "encode", text(&path), "-o", text(out.path()), "--name", "docs", "--shard-tokens", "700"];
    succeeds(&[&args, more].concat());
    contents(out.path())
}

#[test]
fn every_format_gives_the_shards_that_python_made() {
    let rows = golden("rows.json");
    assert_eq!(rows.len(), 4);
    for file in ["docs.jsonl", "docs.jsonl.gz", "docs.jsonl.zst", "docs.parquet", "required.parquet", "gzip.parquet"] {
        assert!(encode_golden(file, &[]) == rows, "{file}");
    }
    for threads in ["1", "3"] {
        assert!(encode_golden("docs.parquet", &["--threads", threads]) == rows, "{threads} threads");
    }
    assert!(encode_golden("docs.txt", &["--split-on", r"\n=====\n"]) == golden("docs.json"), "docs.txt");
}

/// The rule of Modded-NanoGPT's data/fineweb.py, with another tokenizer: shards of a stream of documents.
fn by_the_rule(documents: &[String], shard_tokens: usize) -> Vec<Vec<u16>> {
    let tokenizer = tiktoken_rs::r50k_base_singleton();
    let mut stream = Vec::new();
    for document in documents {
        stream.push(END_OF_TEXT);
        stream.extend(tokenizer.encode_ordinary(document).into_iter().map(|token| token as u16));
    }
    stream.chunks(shard_tokens).map(<[u16]>::to_vec).collect()
}

/// Encodes inputs and gives the tokens of each shard, in order.
fn shards_of(inputs: &[PathBuf], shard_tokens: usize, threads: usize, split_on: Option<&str>) -> Vec<Vec<u16>> {
    let out = folder();
    let options = Options {
        inputs: inputs.to_vec(),
        folder: out.path().join("shards"),
        name: "a".into(),
        shard_tokens: NonZeroU32::new(shard_tokens as u32).expect("not 0"),
        column: "text".into(),
        split_on: split_on.map(String::from),
        threads: NonZeroUsize::new(threads).expect("not 0"),
        force: false,
    };
    let summary = encode(&options, &mut |progress| assert!(progress.bytes <= progress.total)).expect("shards");
    let read = |(i, written): (usize, &mngc_trainer::data::encode::WrittenShard)| {
        let split = if i == 0 { "val" } else { "train" };
        assert_eq!(written.path, options.folder.join(format!("a_{split}_{i:06}.bin")));
        let bytes = fs::read(&written.path).expect("a shard");
        let (pairs, _) = bytes[1024..].as_chunks::<2>();
        let tokens: Vec<u16> = pairs.iter().map(|&pair| u16::from_le_bytes(pair)).collect();
        assert_eq!(tokens.len() as u64, written.tokens);
        assert!(bytes == shard(&tokens));
        tokens
    };
    let shards: Vec<Vec<u16>> = summary.shards.iter().enumerate().map(read).collect();
    assert_eq!(summary.tokens as usize, shards.iter().map(Vec::len).sum::<usize>());
    shards
}

fn lines(documents: &[String]) -> String {
    documents.iter().map(|document| serde_json::json!({ "text": document }).to_string() + "\n").collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn documents_become_the_shards_of_the_rule(
        documents in prop::collection::vec("([a-z' ]{0,30}|\\PC{0,12}|[ \n]{0,4}){0,4}", 1..12),
        cut in 0usize..12,
        shard_tokens in 1usize..60,
        threads in 1usize..4,
    ) {
        let folder = folder();
        let (first, second) = documents.split_at(cut.clamp(1, documents.len()));
        let mut inputs = vec![write(folder.path(), "a b.jsonl", lines(first))];
        if !second.is_empty() {
            inputs.push(write(folder.path(), "c.jsonl", lines(second)));
        }
        prop_assert_eq!(shards_of(&inputs, shard_tokens, threads, None), by_the_rule(&documents, shard_tokens));
    }
}

/// English words, and now and then what is not.
fn long_text(bytes: usize) -> String {
    let words = [
        "the",
        "house",
        "of",
        "Ælfric",
        "1066",
        "it's",
        "—",
        "\n\n",
        "antidisestablishmentarianism",
        "日本語",
        "  ",
        "!?",
    ];
    let mut text = String::new();
    let mut state = 7u64;
    while text.len() < bytes {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        text += words[(state >> 33) as usize % words.len()];
        text += if (state >> 40).is_multiple_of(5) { "" } else { " " };
    }
    text
}

#[test]
fn a_long_document_is_encoded_in_parts_and_no_token_changes() {
    let folder = folder();
    let document = long_text(1_500_000);
    let path = write(folder.path(), "long.txt", &document);
    let whole = by_the_rule(&[document], 100_000);
    assert!(whole.len() > 3);
    for threads in [1, 3] {
        assert!(shards_of(std::slice::from_ref(&path), 100_000, threads, None) == whole, "{threads} threads");
    }
}

#[test]
fn separators_are_found_wherever_reading_stops() {
    let folder = folder();
    let separator = "\n<|endoftext|>\n";
    let text = long_text(1_200_000);
    let mut documents = Vec::new();
    let mut rest = text.as_str();
    // Documents just shorter and longer than what is read at once, and so that every part of a separator meets that border.
    for i in 0..40 {
        let length = if i % 10 == 0 { (256 << 10) - 10 * i } else { 500 + 7 * i };
        let (document, after) = rest.split_at(rest.floor_char_boundary(length.min(rest.len() / 2)));
        documents.push(document.to_string());
        rest = after;
    }
    let path = write(folder.path(), "a.txt", documents.join(separator) + separator + separator);
    assert!(shards_of(&[path], 1 << 20, 2, Some(separator)) == by_the_rule(&documents, 1 << 20));
}

#[test]
fn a_text_file_without_a_separator_is_one_document() {
    let folder = folder();
    let document = "One.\n\nTwo.\r\n\n<|endoftext|>\n";
    let path = write(folder.path(), "a.TXT", document);
    assert_eq!(shards_of(&[path], 1000, 1, None), by_the_rule(&[document.into()], 1000));
}

/// A broken input, and what must be said of it.
fn broken(folder: &Path) -> Vec<(PathBuf, Vec<&'static str>)> {
    let mut gz = fs::read(input("docs.jsonl.gz")).expect("a file");
    let mut zst = fs::read(input("docs.jsonl.zst")).expect("a file");
    let mut parquet = fs::read(input("docs.parquet")).expect("a file");
    let (cut_gz, cut_zst, cut_parquet) = (gz[..1500].to_vec(), zst[..1500].to_vec(), parquet[..9000].to_vec());
    gz[700] ^= 0x10;
    zst[700] ^= 0x10;
    let middle = parquet.len() / 3;
    parquet[middle..middle + 200].fill(0xa5);
    let cases: Vec<(&str, Vec<u8>, Vec<&str>)> = vec![
        ("empty.txt", vec![], vec!["has no document"]),
        ("empty.jsonl", vec![], vec!["has no document"]),
        ("blank.jsonl", b"\n \n\n".to_vec(), vec!["has no document"]),
        ("empty.jsonl.gz", vec![], vec!["cannot read"]),
        ("empty.parquet", vec![], vec!["no usable Parquet file"]),
        ("utf8.txt", b"abc \xff def".to_vec(), vec!["not UTF-8 at byte 4"]),
        ("cut utf8.txt", b"abc \xe2\x82".to_vec(), vec!["not UTF-8 at byte 4"]),
        ("utf8.jsonl", b"{\"text\": \"a\"}\n{\"text\": \"\xff\"}\n".to_vec(), vec!["line 2", "unicode"]),
        ("json.jsonl", b"{\"text\": \"a\"}\n\n{\"text\": \"b\"\n".to_vec(), vec!["line 3", "EOF"]),
        ("field.jsonl", b"{\"text\": \"a\"}\n{\"body\": \"b\"}\n".to_vec(), vec!["line 2", "no field `text`"]),
        ("null.jsonl", b"{\"text\": null}\n".to_vec(), vec!["line 1", "null"]),
        ("list.jsonl", b"[\"text\"]\n".to_vec(), vec!["line 1", "an object with a string `text`"]),
        ("zeros.txt", vec![0; 3 << 20], vec!["this is no text"]),
        ("bits.jsonl.gz", gz, vec!["cannot read"]),
        ("cut.jsonl.gz", cut_gz, vec!["cannot read"]),
        ("bits.jsonl.zst", zst, vec![""]),
        ("cut.jsonl.zst", cut_zst, vec!["cannot read"]),
        ("plain.jsonl.zst", b"{\"text\": \"a\"}\n".to_vec(), vec!["cannot read"]),
        ("bits.parquet", parquet, vec![""]),
        ("cut.parquet", cut_parquet, vec!["no usable Parquet file"]),
        ("text.parquet", b"some text".to_vec(), vec!["no usable Parquet file"]),
        ("a.json", b"{}".to_vec(), vec![".jsonl", ".parquet"]),
        ("a", b"a".to_vec(), vec![".txt"]),
    ];
    let file = |(name, bytes, said): (&str, Vec<u8>, Vec<&'static str>)| (write(folder, name, bytes), said);
    cases.into_iter().map(file).collect()
}

#[test]
fn a_broken_input_is_one_error_and_leaves_nothing() {
    let folder = folder();
    let good = write(folder.path(), "good.txt", "A good text. ".repeat(1000));
    let mut cases = broken(folder.path());
    cases.push((folder.path().join("not there.txt"), vec!["cannot read"]));
    cases.push((input("nulls.parquet"), vec!["row 1", "null"]));
    cases.push((input("bytes.parquet"), vec!["row 1", "not UTF-8"]));
    cases.push((input("empty.parquet"), vec!["has no document"]));
    fs::create_dir(folder.path().join("folder.txt")).expect("a folder");
    cases.push((folder.path().join("folder.txt"), vec!["not a file"]));
    let out = folder.path().join("new folder/shards");
    for (path, said) in cases {
        // Shards of the good text are on disk by the time that the bad one is read.
        let message =
            fails(1, &["data", "encode", text(&good), text(&path), "-o", text(&out), "--shard-tokens", "100"]);
        for part in said {
            assert!(message.contains(part), "{}: {message}", path.display());
        }
        assert_eq!(message.lines().count(), 1, "{message}");
        let name = path.file_name().expect("a name").to_string_lossy();
        assert!(message.contains(&*name), "{name}: {message}");
        assert!(!out.parent().expect("a folder").exists(), "{name} left something");
    }
}

#[test]
fn a_column_that_is_not_there_or_holds_no_texts_is_named() {
    let out = folder();
    let nulls = input("nulls.parquet");
    let column = |name: &str| fails(1, &["data", "encode", text(&nulls), "-o", text(out.path()), "--column", name]);
    let missing = column("body");
    assert!(missing.contains("no column `body`") && missing.contains("`text`, `n`"), "{missing}");
    assert!(column("n").contains("holds INT64"));
    assert!(column("lists.list.element").contains("holds lists of BYTE_ARRAY"));
    assert!(names(out.path()).is_empty());
    let other = write(out.path(), "a.jsonl", "{\"body\": \"x\", \"text\": 1}\n");
    succeeds(&["data", "encode", text(&other), "-o", text(&out.path().join("o")), "--column", "body"]);
}

/// The Parquet library has places where it panics on such files.
#[test]
fn damaged_parquet_files_never_stop_the_program() {
    let folder = folder();
    let whole = fs::read(input("docs.parquet")).expect("a file");
    let out = folder.path().join("shards");
    // Where it did: an index of pages, a column's place, an encoding.
    for (at, mask) in [(385, 0x80), (11181, 0x80), (12603, 0x01), (12800, 0xff), (4, 0xff), (whole.len() - 9, 0x7f)] {
        let mut bytes = whole.clone();
        bytes[at] ^= mask;
        let path = write(folder.path(), "a.parquet", bytes);
        let result = output(&["data", "encode", text(&path), "-o", text(&out), "--force"]);
        let message = stderr(&result);
        assert!(!message.contains("panicked"), "byte {at}: {message}");
        match result.status.code() {
            Some(0) => {}
            Some(1) => assert!(message.contains("a.parquet"), "byte {at}: {message}"),
            code => panic!("byte {at}: {code:?} {message}"),
        }
    }
}

#[test]
fn shards_are_replaced_only_by_force_and_then_all_of_them() {
    let folder = folder();
    let input = write(folder.path(), "a.txt", "one two three four five six seven eight nine ten");
    let out = folder.path().join("the shards");
    let run = |more: &[&'static str]| {
        [&["data", "encode", text(&input), "-o", text(&out), "--shard-tokens"][..], more].concat()
    };
    succeeds(&run(&["2"]));
    assert_eq!(names(&out).len(), 6);
    assert_eq!(names(&out)[5], "the shards_val_000000.bin");
    write(&out, "the shards_val_notes.bin", "mine");
    let before = contents(&out);
    let message = fails(1, &run(&["20"]));
    assert!(message.contains("--force"), "{message}");
    assert!(contents(&out) == before);
    // A failure with --force leaves the old ones as well.
    let bad = write(folder.path(), "bad.txt", b"\xff");
    fails(1, &["data", "encode", text(&input), text(&bad), "-o", text(&out), "--force"]);
    assert!(contents(&out) == before);
    succeeds(&run(&["8", "--force"]));
    assert_eq!(names(&out), ["the shards_train_000001.bin", "the shards_val_000000.bin", "the shards_val_notes.bin"]);
    // Another name is another stream.
    succeeds(&run(&["20", "--name", "other"]));
    assert_eq!(names(&out).len(), 4);
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error() {
    let folder = folder();
    let input = write(folder.path(), "a.txt", "text");
    let message = fails(1, &["data", "encode", text(&input), "-o", text(&input.join("x"))]);
    assert!(message.contains("cannot create"), "{message}");
    if cfg!(target_os = "linux") {
        // Permissions do not stop the superuser; this file system does.
        fails(1, &["data", "encode", text(&input), "-o", "/proc/mngc"]);
    }
}

#[cfg(unix)]
#[test]
fn a_read_only_folder_stays_as_it_is() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder();
    let input = write(folder.path(), "a.txt", "text");
    let out = folder.path().join("out");
    fs::create_dir(&out).expect("a folder");
    fs::set_permissions(&out, fs::Permissions::from_mode(0o555)).expect("permissions");
    if File::create(out.join("probe")).is_ok() {
        return; // The superuser may write everywhere.
    }
    let message = fails(1, &["data", "encode", text(&input), "-o", text(&out)]);
    assert!(message.contains("cannot write to") && message.contains("out"), "{message}");
    assert!(names(&out).is_empty());
}

/// As on a full disk: the system refuses to let a file grow.
#[cfg(target_os = "linux")]
#[test]
fn shards_that_cannot_be_finished_leave_nothing() {
    let folder = folder();
    let input = write(folder.path(), "a.txt", "some text ".repeat(20_000));
    let out = folder.path().join("out");
    let command = format!(
        "trap '' XFSZ; ulimit -f 32; exec '{}' data encode '{}' -o '{}' --shard-tokens 15000",
        env!("CARGO_BIN_EXE_mngc"),
        text(&input),
        text(&out)
    );
    let result = Command::new("sh").args(["-c", &command]).output().expect("a shell");
    let message = stderr(&result);
    assert_eq!(result.status.code(), Some(1), "{message}");
    assert!(message.contains("cannot write") && message.contains("too large"), "{message}");
    assert!(!out.exists());
}

/// Memory must not grow with the input: 128 MiB of text, in one document and in many, from files of some kilobytes.
#[cfg(target_os = "linux")]
#[test]
fn memory_does_not_grow_with_the_input() {
    const TEXT: usize = 128 << 20;
    const MOST_KIB: u64 = 64 << 10;
    let folder = folder();
    // The longest words go fastest.
    let words = " responsibilities".repeat(4096);
    let line = format!("{{\"text\": \"{words}\"}}\n");
    for (name, part) in [("one.txt.zst", words.as_str()), ("many.jsonl.zst", &line)] {
        let path = folder.path().join(name);
        let mut packed = zstd::Encoder::new(File::create(&path).expect("a file"), 1).expect("zstd");
        for _ in 0..TEXT / part.len() {
            packed.write_all(part.as_bytes()).expect("zstd");
        }
        packed.finish().expect("zstd");
        let out = folder.path().join("out");
        let mut command = Command::new(env!("CARGO_BIN_EXE_mngc"));
        command.args(["data", "encode", text(&path), "-o", text(&out), "--force", "--threads", "4"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts");
        let status = format!("/proc/{}/status", child.id());
        let mut peak = 0;
        while child.try_wait().expect("a child").is_none() {
            let text = fs::read_to_string(&status).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
            peak = peak.max(kib.unwrap_or(0));
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert!(child.wait().expect("a child").success(), "{name}");
        assert!(0 < peak && peak < MOST_KIB, "{name}: {peak} KiB");
    }
}

#[test]
fn the_summary_says_what_was_done() {
    let folder = folder();
    let input = write(folder.path(), "a.jsonl", lines(&["Hello, world!".into(), "hello world".into()]));
    let out = folder.path().join("out");
    let result = output(&["data", "encode", text(&input), "-o", text(&out), "--json"]);
    let object: Value = serde_json::from_str(&stdout(&result)).expect("one object");
    assert_eq!((&object["documents"], &object["tokens"], &object["text_bytes"]), (&2.into(), &8.into(), &24.into()));
    assert_eq!(object["shards"][0]["tokens"], 8);
    // All in the shard for validation: nothing is left to train on.
    assert!(stderr(&result).contains("--shard-tokens"), "{}", stderr(&result));
    let bytes = fs::read(out.join("out_val_000000.bin")).expect("a shard");
    assert!(bytes == shard(&[END_OF_TEXT, 15496, 11, 995, 0, END_OF_TEXT, 31373, 995]));

    let failed = output(&["data", "encode", text(&input), "-o", text(&out), "--json"]);
    let object: Value = serde_json::from_str(&stdout(&failed)).expect("one object");
    assert!(failed.status.code() == Some(1) && object["error"].is_string());
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let wrong: [&[&str]; 9] = [
        &["data"],
        &["data", "encode"],
        &["data", "encode", "a.txt"],
        &["data", "encode", "a.txt", "-o", "o", "--shard-tokens", "0"],
        &["data", "encode", "a.txt", "-o", "o", "--shard-tokens", "2147483648"],
        &["data", "encode", "a.txt", "-o", "o", "--threads", "0"],
        &["data", "encode", "a.txt", "-o", "o", "--name", "a/b"],
        &["data", "encode", "a.txt", "-o", "o", "--split-on", "\\x"],
        &["data", "info"],
    ];
    for args in wrong {
        fails(2, args);
    }
}

#[test]
fn info_counts_tokens_and_documents() {
    let folder = folder();
    let path = folder.path();
    // " Hello, world!" goes on in the second file.
    write(path, "x_train_000001.bin", shard(&[END_OF_TEXT, 31373, 995, END_OF_TEXT, 15496, 11]));
    write(path, "x_train_000002.bin", shard(&[995, 0, END_OF_TEXT]));
    let pattern = format!("{}/x_train_*.bin", text(path));
    let info: Value = serde_json::from_str(&succeeds(&["data", "info", &pattern, "--json"])).expect("one object");
    assert_eq!((&info["tokens"], &info["documents"]), (&9.into(), &3.into()));
    assert_eq!(info["lengths"], serde_json::json!({ "min": 0, "median": 2, "mean": 2.0, "max": 4 }));
    assert_eq!(info["shards"][0]["first_words"], "hello worldHello,");
    assert_eq!(info["shards"][1]["documents"], 1);
    let shown = succeeds(&["data", "info", &pattern]);
    assert!(shown.contains("2 shards: 9 tokens, 3 documents"), "{shown}");
}

#[test]
fn info_names_what_is_wrong_and_goes_on() {
    let folder = folder();
    let path = folder.path();
    let good = shard(&[END_OF_TEXT, 31373]);
    let patched = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let faulty: [(&str, Vec<u8>, &str); 9] = [
        ("magic", patched(0, 1), "no token shard"),
        ("version", patched(4, 2), "version 2"),
        ("count", patched(8, 3), "says 3 tokens, but 2"),
        ("negative", patched(11, 0x80), "tokens"),
        ("odd", [&good[..], &[0]].concat(), "cut off"),
        ("cut", good[..good.len() - 2].to_vec(), "says 2 tokens, but 1"),
        ("short", good[..100].to_vec(), "too few for the header"),
        ("token", shard(&[END_OF_TEXT, 50257]), "token 1 is 50257"),
        ("none", shard(&[]), "has no tokens"),
    ];
    write(path, "good.bin", &good);
    for (name, bytes, _) in &faulty {
        write(path, &format!("{name}.bin"), bytes);
    }
    let result = output(&["data", "info", &format!("{}/*.bin", text(path)), "--json"]);
    assert_eq!(result.status.code(), Some(1), "{}", stderr(&result));
    let info: Value = serde_json::from_str(&stdout(&result)).expect("one object");
    let shards = info["shards"].as_array().expect("a list");
    assert_eq!(shards.len(), 10);
    for shard in shards {
        let name = Path::new(shard["path"].as_str().expect("a path")).file_stem().expect("a name").to_string_lossy();
        let problems = shard["problems"].as_array().expect("a list");
        match faulty.iter().find(|(faulty, ..)| *faulty == name) {
            Some((_, _, said)) => {
                assert!(problems[0].as_str().is_some_and(|p| p.contains(said)), "{name}: {problems:?}")
            }
            None => assert!(problems.is_empty(), "{name}: {problems:?}"),
        }
    }
    assert!(fails(1, &["data", "info", "no/such_*.bin"]).contains("no file matches"));
    let shown = mngc(&["data", "info", &format!("{}/magic.bin", text(path))]).output().expect("the program starts");
    assert!(stdout(&shown).contains("problem: it starts with"));
}
