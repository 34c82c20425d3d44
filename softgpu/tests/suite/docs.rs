//! The documentation lists every form of every instruction; with MNG_BLESS=1 the list is written anew.

use softgpu::check::CHECKS;
use softgpu::decode::table::TABLE;
use softgpu::device::part::PARTS;

const BEGIN: &str = "<!-- instructions: written by the tests with MNG_BLESS=1 -->\n";
const END: &str = "<!-- end of instructions -->\n";

fn list() -> String {
    let mut out = String::from("| instruction | forms |\n|---|---|\n");
    for e in TABLE {
        let forms: Vec<String> = e.forms.iter().map(|f| format!("`{}`", f.replace('|', "\\|"))).collect();
        out += &format!("| {} | {} |\n", e.name, forms.join("<br>"));
    }
    out
}

#[test]
fn docs_list_what_the_decoder_knows() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/softgpu.md");
    let text = std::fs::read_to_string(&path).expect("docs/softgpu.md");
    let (head, rest) = text.split_once(BEGIN).expect("the begin of the list");
    let (found, tail) = rest.split_once(END).expect("the end of the list");
    if std::env::var_os("MNG_BLESS").is_some() {
        std::fs::write(&path, format!("{head}{BEGIN}{}{END}{tail}", list())).expect("docs can be written");
        return;
    }
    assert!(found == list(), "docs/softgpu.md is out of date: run the tests with MNG_BLESS=1");
    for (_, name) in CHECKS {
        assert!(head.contains(&format!("`{name}`")), "check {name} is not documented");
    }
    for p in PARTS {
        assert!(head.contains(&format!("`{}`", p.id)), "part {} is not documented", p.id);
    }
}
