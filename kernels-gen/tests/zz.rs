mod common;
use common::models::{model, texts};
use mngc_compiler::ir::EntryKind;
use mngc_kernels_gen::Device;
use std::collections::BTreeMap;
#[test]
fn zz_list() {
    let device = Device::of(90).unwrap();
    for name in std::env::var("MODEL").unwrap_or("gpt2 gpt2-classic gpt2-1.5b demo".into()).split(' ') {
    let m = model(name, &[]);
    let all = m.launches(&device);
    for kind in [EntryKind::MicroStep, EntryKind::Update] {
        println!("{} {}", kind.name(), all.iter().filter(|l| l.entry == kind).map(|l| l.calls.calls.len()).sum::<usize>());
    }
    let t = texts(&all);
    println!("{name} {} kernels", t.len());
    let dir = format!("/tmp/counts/{name}"); let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    let mut uses: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    for l in &all { for c in &l.calls.calls {
        *uses.entry(c.source.name.clone()).or_default().entry(format!("{}:{} x{} g{:?} s{}", l.entry.name(), l.name, l.instances, c.grid, c.shared)).or_default() += 1; } }
    for (n, s) in &t {
        println!("{n}");
        for (u, k) in &uses[n] { println!("      {k} {u}"); }
        std::fs::write(format!("{dir}/{n}.cu"), &s.text).unwrap();
    }
    }
}
#[test]
fn zz_compile() {
    let name = std::env::var("MODEL").unwrap_or("gpt2".into());
    let nv = mngc_kernels_gen::nvrtc::Nvrtc::load().unwrap();
    let all = model(&name, &[]).launches(&Device::of(90).unwrap());
    let t = texts(&all);
    let sources: Vec<_> = t.values().map(|s| s.as_ref()).collect();
    let start = std::time::Instant::now();
    let images = nv.compile_all(&sources, common::target("sm_90a"), &common::ALL, 2, &|_| {}).unwrap();
    println!("{:?}", start.elapsed());
    for (s, i) in sources.iter().zip(&images) { println!("{} {:?} {}", s.name, i.usage, i.log); }
}
