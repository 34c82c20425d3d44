//! What the bundled models become, with no GPU: few kernels and calls, the same for every number of tokens, compiled without
//! a warning, and, for the demo, texts to read.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use common::models::{Launched, count, model, texts};
use common::{ALL, nvrtc, target};
use mngc_compiler::ir::EntryKind;
use mngc_kernels_gen::image::Image;
use mngc_kernels_gen::{Device, Source, templates};

/// Models with the kernels that they may have at full size, and the calls of micro_step and update.
const MOST: [(&str, usize, usize, usize); 4] =
    [("gpt2", 60, 350, 150), ("gpt2-classic", 60, 350, 150), ("gpt2-1.5b", 60, 1200, 150), ("demo", 70, 150, 100)];

fn hopper() -> Device {
    Device::of(90).expect("a known capability")
}

#[test]
fn a_step_has_few_kernels_and_calls() {
    for (name, kernels, micro_step, update) in MOST {
        let launches = model(name, &[]).launches(&hopper());
        let found = texts(&launches).len();
        assert!(found <= kernels, "{name}: {found} kernels");
        for (entry, most) in [(EntryKind::MicroStep, micro_step), (EntryKind::Update, update)] {
            let calls = count(&launches, entry);
            assert!((1..=most).contains(&calls), "{name}: {calls} calls in {}", entry.name());
        }
    }
}

/// The images of some sources; none where there is no NVRTC.
fn compiled(sources: &[&Source], arch: &str) -> Option<Vec<Image>> {
    let nvrtc = nvrtc()?;
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    Some(nvrtc.compile_all(sources, target(arch), &ALL, threads, &|_| {}).unwrap_or_else(|e| panic!("{e}")))
}

#[test]
fn all_of_gpt2_compiles_without_a_warning_and_products_stay_in_registers() {
    let texts = texts(&model("gpt2", &[]).launches(&hopper()));
    let sources: Vec<&Source> = texts.values().map(AsRef::as_ref).collect();
    let Some(images) = compiled(&sources, "sm_90a") else { return };
    for (source, image) in sources.iter().zip(images) {
        assert_eq!(image.log, "", "{}", source.name);
        let usage = image.usage.expect("a report");
        assert!(!usage.spills(), "{}: {usage:?}", source.name);
        let is_large = ["dot", "symmetric_dot", "attention"].iter().any(|family| source.name.starts_with(family));
        assert!(!is_large || usage.stack == 0, "{}: {usage:?}", source.name);
    }
}

/// The texts of gpt2's micro_step for a length of its sequences, by name.
fn of_length(sequence: &str, batch: &str) -> BTreeSet<String> {
    let sets = [("sequence", sequence), ("batch", batch), ("validate.tokens", batch)];
    let mut launches = model("gpt2", &sets).launches(&hopper());
    launches.retain(|launched| launched.entry == EntryKind::MicroStep);
    texts(&launches).into_keys().collect()
}

/// Sequences of 1000 tokens fill no tile.
#[test]
fn the_length_of_sequences_is_in_no_text() {
    let found = of_length("4096", "524288");
    for (sequence, batch) in [("1024", "524288"), ("1000", "512000")] {
        let of_other = of_length(sequence, batch);
        let differ: Vec<&String> = found.symmetric_difference(&of_other).collect();
        assert!(differ.is_empty(), "{sequence}: {differ:?}");
    }
}

/// Texts of training and evaluation, each named by its family and the ops of the first launch that has it.
fn named(launches: &[Launched]) -> BTreeMap<String, String> {
    let mut seen = BTreeSet::new();
    let mut files = BTreeMap::new();
    let order = [EntryKind::MicroStep, EntryKind::Update, EntryKind::Evaluate];
    for launched in order.iter().flat_map(|entry| launches.iter().filter(|launched| launched.entry == *entry)) {
        for call in launched.calls.iter().filter(|call| seen.insert(call.source.name.clone())) {
            let name = &call.source.name;
            let family = name.rsplit_once('_').map_or(name.as_str(), |(family, _)| family);
            let ops = launched.name.replace("+…", "").replace('+', "-");
            let stem = if family == "few" { family.to_string() } else { format!("{family}-{ops}") };
            let mut file = format!("{stem}.cu");
            for number in 2.. {
                if !files.contains_key(&file) {
                    break;
                }
                file = format!("{stem}-{number}.cu");
            }
            let text = templates::own(&call.source.text).replace(name.as_str(), "KERNEL_NAME");
            files.insert(file, text.trim_end().to_string() + "\n");
        }
    }
    files
}

/// `MNG_BLESS=1` writes the files anew.
#[test]
fn the_kernels_of_the_demo_are_those_that_were_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files/demo");
    let files = named(&model("demo", &[]).launches(&hopper()));
    if std::env::var_os("MNG_BLESS").is_some() {
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("a folder");
        files.iter().for_each(|(name, text)| fs::write(folder.join(name), text).expect("it is written"));
    }
    let there = fs::read_dir(&folder).expect("the folder").map(|entry| entry.expect("a file").file_name());
    let there: BTreeSet<String> = there.map(|name| name.to_string_lossy().into_owned()).collect();
    let wanted: BTreeSet<String> = files.keys().cloned().collect();
    assert_eq!(there, wanted, "run with MNG_BLESS=1 and read what changed");
    for (name, text) in &files {
        let read = fs::read_to_string(folder.join(name)).expect("a text");
        let line = read.lines().zip(text.lines()).position(|(a, b)| a != b).map_or(0, |line| line + 1);
        assert!(read == *text, "{name}, line {line}: run with MNG_BLESS=1 and read what changed");
    }
}

#[test]
fn the_kernels_of_the_demo_compile_without_a_warning() {
    let texts = texts(&model("demo", &[]).launches(&hopper()));
    let sources: Vec<&Source> = texts.values().map(AsRef::as_ref).collect();
    let Some(images) = compiled(&sources, "sm_90a") else { return };
    for (source, image) in sources.iter().zip(images) {
        assert_eq!(image.log, "", "{}", source.name);
        // What holds a long row in a whole block may be a few registers short.
        let is_full = source.text.contains("THREADS = 1024");
        assert!(is_full || !image.usage.expect("a report").spills(), "{}: {:?}", source.name, image.usage);
    }
}
