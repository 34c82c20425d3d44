//! Every block of IR in docs/ is legal, and prints as what was read; a block marked `ir after PASS` is what that pass
//! makes of the block before it.

use std::fs;
use std::path::{Path, PathBuf};

use mngc_compiler::ir::typing::Stage;
use mngc_compiler::ir::{Module, print, read, verify};
use mngc_compiler::passes;

/// A block fenced as ```` ```ir ````.
struct Block {
    /// The page and the line of the fence.
    place: String,
    /// The pass that it stands behind.
    after: Option<String>,
    text: String,
}

fn pages(folder: &Path) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            paths.extend(pages(&path));
        } else if path.extension().is_some_and(|extension| extension == "md") {
            paths.push(path);
        }
    }
    paths.sort();
    paths
}

fn blocks(page: &Path) -> Vec<Block> {
    let text = fs::read_to_string(page).expect("a page");
    let mut out = Vec::new();
    let mut lines = text.lines().zip(1..);
    while let Some((line, number)) = lines.next() {
        let Some(mark) = line.strip_prefix("```ir") else { continue };
        let after = mark.strip_prefix(" after ").map(String::from);
        let place = format!("{}:{number}", page.display());
        assert!(after.is_some() || mark.is_empty(), "{place}: an unknown mark");
        let body = lines.by_ref().map(|(line, _)| line).take_while(|line| *line != "```");
        out.push(Block { place, after, text: body.collect::<Vec<_>>().join("\n") });
    }
    out
}

/// The module of a block.
fn legal(Block { place, text, .. }: &Block) -> Module {
    let module = read::module(text).unwrap_or_else(|e| panic!("{place}: {e}"));
    if let Err(errors) = verify::module(&module, Stage::Elaborated) {
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        panic!("{place}: {}", errors.join("\n"));
    }
    let printed = print::module(&module);
    let again = read::module(&printed).unwrap_or_else(|e| panic!("{place}: {e}\n{printed}"));
    assert_eq!(print::module(&again), printed, "{place}");
    module
}

#[test]
fn ir_blocks_are_legal_and_passes_do_what_is_shown() {
    let (mut legal_blocks, mut shown) = (0, 0);
    for page in pages(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")) {
        let mut before: Option<Module> = None;
        for block in blocks(&page) {
            let module = legal(&block);
            legal_blocks += 1;
            if let Some(name) = &block.after {
                let lists = [passes::CLEANUP, passes::CASTS, passes::HOIST, passes::FLATTEN, passes::FUSE];
                let pass = lists.iter().copied().flatten().find(|pass| pass.name == *name);
                let pass = pass.unwrap_or_else(|| panic!("{}: there is no pass {name}", block.place));
                let mut found = before.unwrap_or_else(|| panic!("{}: no block stands before", block.place));
                (pass.run)(&mut found).unwrap_or_else(|e| panic!("{}: {e}", block.place));
                assert_eq!(print::module(&found), print::module(&module), "{}", block.place);
                shown += 1;
            }
            before = Some(module);
        }
    }
    assert!(legal_blocks >= 12 && shown >= 2, "the pages lost their examples: {legal_blocks}, {shown}");
}
