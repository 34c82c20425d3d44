//! What the bundled models become, with no GPU.

mod common;

use std::collections::BTreeMap;

use common::models::{Launched, model, texts};
use mngc_compiler::ir::EntryKind;
use mngc_kernels_gen::Device;

#[test]
fn zz_list() {
    let name = std::env::var("MODEL").unwrap_or("gpt2".into());
    let device = Device::of(90).unwrap();
    let t = std::time::Instant::now();
    let m = model(&name, &[]);
    println!("compiled {:?}", t.elapsed());
    let all = m.launches(&device);
    println!("generated {:?}", t.elapsed());
    for kind in [EntryKind::MicroStep, EntryKind::Update] {
        println!("{} {}", kind.name(), all.iter().filter(|l| l.entry == kind).map(|l| l.calls.calls.len()).sum::<usize>());
    }
    let t = texts(&all);
    println!("{} kernels", t.len());
    std::fs::create_dir_all("/tmp/counts").unwrap();
    let mut uses: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    for l in &all { for c in &l.calls.calls {
        *uses.entry(c.source.name.clone()).or_default().entry(format!("{}:{} x{} g{:?} s{}", l.entry.name(), l.name, l.instances, c.grid, c.shared)).or_default() += 1; } }
    for (n, s) in &t {
        println!("{n}");
        for (u, k) in &uses[n] { println!("      {k} {u}"); }
        std::fs::write(format!("/tmp/counts/{n}.cu"), &s.text).unwrap();
    }
}
