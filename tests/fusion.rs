//! The bundled models after fusion: every entry gives what it gave before, and each pattern that a step has is found.

#[path = "common/compile.rs"]
mod compile;

use std::collections::BTreeMap;

use compile::{program, sets};
use mngc_compiler::Program;
use mngc_compiler::ir::{DType, EntryKey, EntryKind, Input, Module};
use mngc_compiler::schedule::kernel::Kernel;
use mngc_compiler::schedule::plan::EntryPlan;
use mngc_compiler::schedule::{self, Plan};
use mngc_runtime::{Backend, Data, Precision, Reference, Tensor};

/// Models at the size of a test: the name, what is set, the products of their update and the symmetric ones among these.
/// Newton–Schulz takes twelve matrices, with three products in each of five steps; `a @ (a @ x)` has one fewer that is
/// symmetric than `(a @ a) @ x`.
const MODELS: &[(&str, &[(&str, &str)], usize, usize)] = &[
    (
        "gpt2",
        &[("layers", "2"), ("heads", "2"), ("dim", "16"), ("vocab", "40"), ("eot", "39"), ("window", "5")],
        180,
        120,
    ),
    ("gpt2-1.5b", &[("layers", "2"), ("heads", "2"), ("dim", "16"), ("vocab", "40")], 180, 60),
    ("gpt2-classic", &[("layers", "2"), ("heads", "2"), ("dim", "16"), ("vocab", "40")], 0, 0),
];

/// What makes steps short.
const SHORT: &[(&str, &str)] = &[
    ("sequence", "12"),
    ("batch", "24"),
    ("validate.tokens", "24"),
    ("steps", "4"),
    ("warmdown", "1"),
    ("low", "f32"),
];

fn model(name: &str, set: &[(&str, &str)]) -> Program {
    // The schedule of the classic model has other names.
    let short = SHORT.iter().filter(|(key, _)| name != "gpt2-classic" || *key != "warmdown");
    let classic = [("warmup", "1")].into_iter().filter(|_| name == "gpt2-classic");
    let all: Vec<(&str, &str)> = set.iter().chain(short).copied().chain(classic).collect();
    program(&format!("models/{name}.mng"), &sets(&all)).unwrap_or_else(|e| panic!("{e}"))
}

fn lowered(m: &Module) -> Module {
    schedule::lower(m, &mut Vec::new()).unwrap_or_else(|e| panic!("{e}"))
}

fn planned(m: &Module) -> Plan {
    schedule::plan(&lowered(m), &mut Vec::new()).unwrap_or_else(|e| panic!("{e}"))
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

/// Two steps of training, then evaluation: all that the host and the slots see.
fn run(m: &Module) -> Vec<(String, Tensor)> {
    let mut backend = Reference::new(m.clone(), 5, Precision::F64);
    let mut seen = Vec::new();
    let order = [EntryKind::Init, EntryKind::MicroStep, EntryKind::Update, EntryKind::MicroStep, EntryKind::Update];
    for (at, kind) in order.into_iter().chain([EntryKind::Evaluate, EntryKind::Decode]).enumerate() {
        let key = EntryKey::from(kind);
        let found = backend.run(key, &batch(m, key, at as i32), at as u64 / 3).expect("it runs");
        seen.extend(found.into_iter().map(|(name, tensor)| (format!("{at} {name}"), tensor)));
        for (slot, data) in m.slots.iter() {
            seen.push((format!("{at} {}", data.name), backend.slot(slot).expect("it was set")));
        }
    }
    seen
}

#[test]
fn entries_give_what_they_gave() {
    for (name, set, ..) in MODELS {
        let program = model(name, set);
        let before = run(&program.module);
        let after = run(&lowered(&program.module));
        assert_eq!(before.len(), after.len());
        for ((what, expected), (_, found)) in before.iter().zip(&after) {
            let distance = distance(found, expected);
            assert!(distance <= 1e-9, "{name}: {what} is {distance:e} away");
        }
    }
}

/// ‖a − b‖ / ‖b‖, and ‖a‖ where b is 0.
fn distance(a: &Tensor, b: &Tensor) -> f64 {
    let (Data::Float(a), Data::Float(b)) = (a.data(), b.data()) else { return f64::from(u8::from(a != b)) };
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let (difference, size) = (norm(&mut a.iter().zip(b).map(|(a, b)| a - b)), norm(&mut b.iter().copied()));
    if size == 0.0 { difference } else { difference / size }
}

fn count(entry: &EntryPlan, is: impl Fn(&Kernel, &str) -> bool) -> usize {
    entry.launches.iter().filter(|launch| is(&launch.kernel, &launch.name)).count()
}

#[test]
fn patterns_of_a_step_are_found() {
    for (name, set, products, symmetric) in MODELS {
        let program = model(name, set);
        let plan = planned(&program.module);
        let of = |kind: EntryKind| &plan.entries[&EntryKey::from(kind)];
        for kind in [EntryKind::MicroStep, EntryKind::Evaluate] {
            let losses = count(of(kind), |kernel, _| matches!(kernel, Kernel::Loss(_)));
            assert_eq!(losses, 1, "{name}: heads of {}", kind.name());
            let apart = count(of(kind), |kernel, _| kernel.name().starts_with("cross_entropy"));
            assert_eq!(apart, 0, "{name}: cross-entropies on their own in {}", kind.name());
        }
        let found = count(of(EntryKind::Update), |kernel, _| kernel.name() == "symmetric_dot");
        assert_eq!(found, *symmetric, "{name}: symmetric products");
        let found = count(of(EntryKind::Update), |kernel, _| matches!(kernel, Kernel::Dot(_)));
        assert_eq!(found, *products, "{name}: products of the update");
        let alone = count(of(EntryKind::MicroStep), |kernel, name| {
            let activation = ["relu", "gelu", "square", "gelu_grad", "select"];
            matches!(kernel, Kernel::Rows(_)) && name.split('+').any(|op| activation.contains(&op))
        });
        assert_eq!(alone, 0, "{name}: activations outside of products");
    }
}

/// Each parameter's own tensors are read and written by one kernel, or by the last product of its step.
#[test]
fn an_optimizer_takes_one_pass() {
    for (name, set, ..) in MODELS {
        let program = model(name, set);
        let plan = planned(&program.module);
        let update = &plan.entries[&EntryKey::from(EntryKind::Update)];
        let module = &program.module;
        for (slot, data) in module.slots.iter() {
            let written = update.launches.iter().filter(|launch| {
                launch.results.iter().any(|result| {
                    let place = &update.buffers[result.buffer].place;
                    *place == schedule::plan::Place::Slot(slot)
                })
            });
            let large = module.dims.elements(&data.ty.dims) > 1 && data.ty.dtype == DType::F32;
            assert!(!large || written.count() == 1, "{name}: {} is written more than once, or by a copy", data.name);
        }
    }
}
