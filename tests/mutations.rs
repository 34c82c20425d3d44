//! Mutated model files: whatever a text is, compiling gives a program or diagnostics, never a panic.

#[path = "common/compile.rs"]
mod common;

use std::fs;
use std::sync::OnceLock;

use common::{Files, root};
use mngc_compiler::CompileOptions;
use mngc_dsl::Sources;
use proptest::prelude::*;

/// Small models whose text is mutated.
const SEEDS: [&str; 4] = ["models/gpt2.mng", "models/gpt2-classic.mng", "models/gpt2-1.5b.mng", "tests/files/base.mng"];

/// Words that mutations put in: names and numbers from everywhere in the language.
const WORDS: [&str; 48] = [
    "0",
    "1",
    "-1",
    "1e18",
    "0.5",
    "1e400",
    "none",
    "true",
    "step",
    "T",
    "tokens",
    "targets",
    "x",
    "w",
    "g",
    "[1, 2]",
    "[]",
    "(1, 2)",
    "\"text\"",
    "{ a: 1 }",
    "f32",
    "bf16",
    "i32",
    "zeros",
    "causal",
    "within(0)",
    "zeros_like(w)",
    "arange(T)",
    "softmax",
    "norm(w)",
    "x.t",
    "x[0]",
    "w[0..1]",
    "shift(x, -1)",
    "reverse(x)",
    "concat([x, x])",
    "split(x, 2)",
    "cumsum(tokens)",
    "attention(x, x, x)",
    "linear(x, x)",
    "0..3",
    "1e9..1e12",
    "len(x)",
    "rows(x)",
    "where(1, 2, 3)",
    "gradients",
    "normal(0, 1)",
    "muon",
];

/// A text in words, spaces and signs.
fn tokens(text: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let kind = |c: char| {
        if c.is_alphanumeric() || c == '_' || c == '.' {
            0
        } else if c.is_whitespace() {
            1
        } else {
            2
        }
    };
    for c in text.chars() {
        match out.last_mut() {
            Some(last) if kind(c) < 2 && last.chars().last().is_some_and(|l| kind(l) == kind(c)) => last.push(c),
            _ => out.push(c.to_string()),
        }
    }
    out
}

fn seeds() -> &'static Vec<Vec<String>> {
    static SEEDED: OnceLock<Vec<Vec<String>>> = OnceLock::new();
    let read = |path: &&str| tokens(&fs::read_to_string(root().join(path)).expect("a model"));
    SEEDED.get_or_init(|| SEEDS.iter().map(read).collect())
}

#[derive(Clone, Debug)]
enum Mutation {
    Delete(prop::sample::Index, usize),
    Swap(prop::sample::Index, prop::sample::Index),
    Copy(prop::sample::Index, prop::sample::Index, usize),
    Word(prop::sample::Index, usize),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        (at(), 1..4usize).prop_map(|(i, n)| Mutation::Delete(i, n)),
        (at(), at()).prop_map(|(i, j)| Mutation::Swap(i, j)),
        (at(), at(), 1..12usize).prop_map(|(i, j, n)| Mutation::Copy(i, j, n)),
        (at(), 0..WORDS.len()).prop_map(|(i, w)| Mutation::Word(i, w)),
    ]
}

fn apply(text: &mut Vec<String>, mutation: &Mutation) {
    if text.is_empty() {
        return;
    }
    // Words are hit, not the spaces between them: more mutants parse.
    let words: Vec<usize> = (0..text.len()).filter(|&i| !text[i].trim().is_empty()).collect();
    let pick = |i: &prop::sample::Index| words[i.index(words.len())];
    match mutation {
        Mutation::Delete(i, n) => {
            let i = pick(i);
            text.drain(i..(i + n).min(text.len()));
        }
        Mutation::Swap(i, j) => text.swap(pick(i), pick(j)),
        Mutation::Copy(i, j, n) => {
            let (i, j) = (pick(i), pick(j));
            let part = text[i..(i + n).min(text.len())].to_vec();
            text.splice(j..j, part);
        }
        Mutation::Word(i, w) => text[pick(i)] = WORDS[*w].into(),
    }
}

/// Whether it compiled. Panics of the compiler's thread arrive as diagnostics with code `internal`.
fn compiles(text: String) -> bool {
    let (mut sources, mut files) = (Sources::default(), Files::new(root().to_path_buf()));
    let main = files.add(root().join("models/mutant.mng"), "mutant.mng", text, &mut sources);
    match files.compile(main, &mut sources, &CompileOptions::default()) {
        Ok(_) => true,
        Err(diagnostics) => {
            assert!(!diagnostics.is_empty(), "refused without a word");
            for d in &diagnostics {
                assert_ne!(d.code, "internal", "{}", common::draw(&sources, &diagnostics));
                for (span, _) in &d.labels {
                    assert!(sources.text(span.file).get(span.start as usize..span.end as usize).is_some(), "{d:?}");
                }
            }
            assert!(!common::draw(&sources, &diagnostics).is_empty());
            false
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn mutants_never_panic(seed in 0..SEEDS.len(), mutations in prop::collection::vec(mutation(), 1..5)) {
        let mut text = seeds()[seed].clone();
        mutations.iter().for_each(|m| apply(&mut text, m));
        compiles(text.concat());
    }
}

/// `PROPTEST_CASES` asks for more.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(300)
}

#[test]
fn seeds_compile() {
    for (seed, path) in seeds().iter().zip(SEEDS) {
        assert!(compiles(seed.concat()), "{path}");
    }
}
