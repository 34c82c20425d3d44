//! PTX that someone broke: whatever is done to a text, reading and decoding it ends with a module or an error.

use proptest::prelude::*;

fn texts() -> Vec<String> {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut names: Vec<_> = std::fs::read_dir(dir).expect("cases").map(|e| e.expect("an entry").path()).collect();
    names.sort();
    names.iter().map(|d| std::fs::read_to_string(d.join("kernel.ptx")).expect("PTX")).collect()
}

/// Pieces that are likely to hurt.
const PIECES: &[&str] = &[
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    ";",
    ",",
    "@",
    "@!%p1 ",
    "|",
    "%r0",
    "%rd1",
    "%tid.x",
    ".reg .b32 %r<99999999>;",
    "0x",
    "0f3F800000",
    "-1",
    "18446744073709551615",
    "bra L;",
    "L:",
    "call.uni f, (a);",
    ".func f() {",
    ".shared .align 1024 .b8 s[4294967295];",
    ".local .b8 l[16777216];",
    ".align 0",
    ".param .b8 p[65537]",
    "mma.sync.aligned",
    "ld.global.v4.b32 {%r0},",
    "\"",
    "/*",
    "//",
    "\n",
    "\u{e9}",
    ".loc 1 2",
    "\0",
    "T: .branchtargets L;",
    "brx.idx %r0, T;",
    "ret;",
    "exit;",
    ".version 9.9",
    ".global .b32 g[3] = {1,2,3,4};",
    ".extern .shared .b8 x[];",
];

#[derive(Clone, Debug)]
enum Change {
    Delete(usize, usize),
    Insert(usize, usize),
    Byte(usize, u8),
    Swap(usize, usize),
    Cut(usize),
    /// A line stands twice.
    Twice(usize),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (any::<usize>(), 1usize..40).prop_map(|(a, n)| Change::Delete(a, n)),
        (any::<usize>(), 0..PIECES.len()).prop_map(|(a, p)| Change::Insert(a, p)),
        (any::<usize>(), any::<u8>()).prop_map(|(a, b)| Change::Byte(a, b)),
        (any::<usize>(), any::<usize>()).prop_map(|(a, b)| Change::Swap(a, b)),
        any::<usize>().prop_map(Change::Cut),
        any::<usize>().prop_map(Change::Twice),
    ]
}

fn apply(text: &mut Vec<u8>, c: &Change) {
    if text.is_empty() {
        return;
    }
    let n = text.len();
    match *c {
        Change::Delete(a, len) => drop(text.drain(a % n..(a % n + len).min(n))),
        Change::Insert(a, p) => drop(text.splice(a % n..a % n, PIECES[p].bytes())),
        Change::Byte(a, b) => text[a % n] = b,
        Change::Swap(a, b) => text.swap(a % n, b % n),
        Change::Cut(a) => text.truncate(a % n),
        Change::Twice(a) => {
            let start = text[..a % n].iter().rposition(|b| *b == b'\n').map_or(0, |p| p + 1);
            let end = text[a % n..].iter().position(|b| *b == b'\n').map_or(n, |p| a % n + p);
            let line = text[start..end.max(start)].to_vec();
            text.splice(start..start, line);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn broken_texts_never_panic(which in 0usize..7, changes in proptest::collection::vec(change(), 1..6)) {
        thread_local!(static TEXTS: Vec<String> = texts());
        let mut text = TEXTS.with(|t| t[which % t.len()].clone().into_bytes());
        changes.iter().for_each(|c| apply(&mut text, c));
        let text = String::from_utf8_lossy(&text);
        if let Err(e) = softgpu::load(&text) {
            prop_assert!(!e.message.is_empty() && e.line > 0);
        }
    }

    /// Short texts of nothing but pieces.
    #[test]
    fn texts_of_pieces_never_panic(pieces in proptest::collection::vec(0..PIECES.len(), 0..30)) {
        let body: String = pieces.iter().map(|p| PIECES[*p]).collect::<Vec<_>>().join(" ");
        let _ = softgpu::load(&format!(".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 p) {{\n{body}\n}}\n"));
        let _ = softgpu::load(&format!(".version 8.0\n.target sm_80\n{body}"));
    }
}
