//! Grouped plans of the bundled models: as few launches as a device's graph should have, no copy that ungrouped ones
//! do without, and the same training, bit for bit.

#[path = "common/compile.rs"]
mod compile;

use std::collections::BTreeMap;

use compile::{program, sets};
use mngc_compiler::ir::{EntryKey, EntryKind, Input, Module};
use mngc_compiler::schedule::plan::EntryPlan;
use mngc_compiler::schedule::{self, Plan};
use mngc_runtime::{Backend, Cpu, Data, Tensor};
use mngc_testkit::bits;

/// Models with the launches that micro_step and update may have at full size, and the bytes of all memory.
const MOST: &[(&str, usize, usize, usize)] = &[
    ("gpt2", 310, 120, 40 << 30),
    ("gpt2-classic", 310, 120, 40 << 30),
    ("gpt2-1.5b", 1150, 120, 60 << 30),
    ("demo", 110, 80, 1 << 30),
];

fn lowered(name: &str, set: &[(&str, &str)]) -> Module {
    let program = program(&format!("models/{name}.mng"), &sets(set)).unwrap_or_else(|e| panic!("{e}"));
    schedule::lower(&program.module, &mut Vec::new()).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn plans(m: &Module) -> [Plan; 2] {
    [schedule::plan, schedule::plan_grouped].map(|plan| plan(m, &mut Vec::new()).unwrap_or_else(|e| panic!("{e}")))
}

#[test]
fn a_step_has_few_launches() {
    for &(name, micro_step, update, bytes) in MOST {
        let m = lowered(name, &[]);
        let [apart, grouped] = plans(&m);
        let launches = |kind: EntryKind| grouped.entries[&kind.into()].launches.len();
        assert!(launches(EntryKind::MicroStep) <= micro_step, "{name}: {}", launches(EntryKind::MicroStep));
        assert!(launches(EntryKind::Update) <= update, "{name}: {}", launches(EntryKind::Update));
        assert!(grouped.slots + grouped.arena <= bytes, "{name}: {} bytes", grouped.slots + grouped.arena);
        // What lives longer to run together may not cost an activation.
        let arena = |plan: &Plan| plan.entries[&EntryKind::MicroStep.into()].arena;
        assert!(arena(&grouped) <= arena(&apart) + (16 << 20), "{name}: {} of {}", arena(&grouped), arena(&apart));
        for (key, entry) in &grouped.entries {
            let count = |entry: &EntryPlan| entry.launches.iter().filter(|launch| launch.name == "copy").count();
            let before = count(&apart.entries[key]);
            assert!(count(entry) <= before, "{name}, {key:?}: {} copies, {before} before", count(entry));
        }
    }
}

/// Tokens for the batch inputs of an entry.
fn batch(m: &Module, key: EntryKey, seed: i32) -> BTreeMap<String, Tensor> {
    let entry = &m.entries[&key];
    let graph = &m.funcs[entry.func];
    let mut batch = BTreeMap::new();
    for (input, &param) in entry.inputs.iter().zip(&graph.params) {
        if let Input::Batch(name) = input {
            let sizes = m.dims.sizes(&graph.ty(param).dims);
            let n = sizes.iter().product::<usize>() as i32;
            let tokens = (0..n).map(|i| (i * i * 7 + i * 3 + seed) % 40).collect();
            batch.insert(name.clone(), Tensor::new(sizes, Data::Int(tokens)).expect("as many as the sizes say"));
        }
    }
    batch
}

/// All that the host and the slots see of two steps of training.
fn trained(m: &Module, plan: &Plan) -> Vec<(String, Tensor)> {
    let mut cpu = Cpu::new(m.clone(), plan, 5, Some(2)).unwrap_or_else(|e| panic!("{e}"));
    let mut seen = Vec::new();
    let order = [EntryKind::Init, EntryKind::MicroStep, EntryKind::Update, EntryKind::MicroStep, EntryKind::Update];
    for (at, kind) in order.into_iter().chain([EntryKind::Evaluate, EntryKind::Decode]).enumerate() {
        let key = EntryKey::from(kind);
        let found = cpu.run(key, &batch(m, key, at as i32), at as u64 / 3).expect("it runs");
        seen.extend(found.into_iter().map(|(name, tensor)| (format!("{} {at}: {name}", kind.name()), tensor)));
        for (slot, data) in m.slots.iter() {
            seen.push((format!("{} {at}: {}", kind.name(), data.name), cpu.slot(slot).expect("it was set")));
        }
    }
    seen
}

#[test]
fn groups_train_alike() {
    let small = [("layers", "2"), ("heads", "2"), ("dim", "16"), ("vocab", "40")];
    let short = [("sequence", "12"), ("batch", "24"), ("validate.tokens", "24"), ("steps", "4")];
    let own: [(&str, &[(&str, &str)]); 3] = [
        ("gpt2", &[("eot", "39"), ("window", "5"), ("warmdown", "1")]),
        ("gpt2-1.5b", &[("warmdown", "1")]),
        ("gpt2-classic", &[("warmup", "1")]),
    ];
    for (name, own) in own {
        let set: Vec<(&str, &str)> = small.iter().chain(&short).chain(own).copied().collect();
        let m = lowered(name, &set);
        let [apart, grouped] = plans(&m);
        let launches = |plan: &Plan| plan.entries[&EntryKind::Update.into()].launches.len();
        assert!(launches(&grouped) < launches(&apart), "{name}: {} launches", launches(&grouped));
        let (found, wanted) = (trained(&m, &grouped), trained(&m, &apart));
        assert_eq!(found.len(), wanted.len());
        for ((what, found), (_, wanted)) in found.iter().zip(&wanted) {
            assert!(bits(found) == bits(wanted), "{name}: {what} differs");
        }
    }
}
