//! A step is the same however its batch is divided over micro-steps: losses and gradients of compiled programs.

#[path = "common/compile.rs"]
mod common;

use std::collections::BTreeMap;

use common::{On, program, sets};
use mngc_compiler::CompileOptions;
use mngc_compiler::ir::{EntryKind, SlotRole};
use mngc_runtime::{Precision, Tensor};

const SEQUENCES: usize = 4;

/// Loss and gradients of one step of four sequences, so many of them at a time.
fn step(path: &str, options: &CompileOptions, at_a_time: usize, on: On) -> BTreeMap<String, Vec<f64>> {
    let options = CompileOptions { micro_sequences: Some(at_a_time), ..options.clone() };
    let program = program(path, &options).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((program.recipe.sequences(), program.recipe.micro_sequences), (SEQUENCES, at_a_time));
    let mut backend = on.open(&program, 3);
    backend.run(EntryKind::Init.into(), &BTreeMap::new(), 0).expect("initial values");
    // Zeros would hide half of the gradients.
    let mut state = 1u32;
    for (slot, data) in program.module.params() {
        let sizes = program.module.dims.sizes(&data.ty.dims);
        let values = (0..sizes.iter().product()).map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f64::from(state >> 8) / f64::from(1 << 24) - 0.5
        });
        backend.set_slot(slot, Tensor::floats(sizes, values.collect()).expect("a tensor")).expect("a parameter");
    }
    if program.module.entries.contains_key(&EntryKind::Refresh.into()) {
        backend.run(EntryKind::Refresh.into(), &BTreeMap::new(), 0).expect("shadows");
    }
    let t = program.recipe.sequence;
    let tokens: Vec<i32> = (0..=(SEQUENCES * t) as i32).map(|i| (i * i * 7 + i / 3) % 32).collect();
    let mut loss = 0.0;
    for first in (0..SEQUENCES).step_by(at_a_time) {
        let cut =
            |from: usize| Tensor::ints([at_a_time, t], tokens[from..from + at_a_time * t].to_vec()).expect("tokens");
        let inputs = [("tokens".to_string(), cut(first * t)), ("targets".to_string(), cut(first * t + 1))];
        let out = backend.run(EntryKind::MicroStep.into(), &BTreeMap::from(inputs), 0).expect("a micro-step");
        loss += out["loss"].item().expect("a number");
    }
    let mut found = BTreeMap::from([("loss".to_string(), vec![loss])]);
    for (slot, data) in program.module.slots.iter().filter(|(_, s)| matches!(s.role, SlotRole::Gradient(_))) {
        found.insert(data.name.clone(), backend.slot(slot).expect("a gradient").as_floats().expect("floats").to_vec());
    }
    found
}

fn size(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    size(&a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>())
}

/// How far two ways to compute in f32 may lie apart, in the distance that the rounded oracle has from the exact value.
const MULTIPLE: f64 = 4.0;

/// The loss, and all gradients as one vector: a gradient of one number may lie on the exact value by chance.
fn halves(found: &BTreeMap<String, Vec<f64>>) -> [(&'static str, Vec<f64>); 2] {
    let gradients = found.iter().filter(|(name, _)| *name != "loss").flat_map(|(_, value)| value);
    [("the loss", found["loss"].clone()), ("the gradient", gradients.copied().collect())]
}

fn check(path: &str, options: &CompileOptions) {
    let exact = step(path, options, 1, On::Reference(Precision::F64));
    let rounded = step(path, options, 1, On::Reference(Precision::Rounded));
    for at_a_time in [2, 4] {
        for (name, value) in step(path, options, at_a_time, On::Reference(Precision::F64)) {
            let far = distance(&value, &exact[&name]);
            assert!(far <= 1e-12 * size(&exact[&name]).max(1e-3), "{path}: {name} by {at_a_time}: {far}");
        }
        // In f32 as far from each other as from the exact value, times a few.
        for (name, value) in step(path, options, at_a_time, On::Reference(Precision::Rounded)) {
            let far = distance(&value, &rounded[&name]);
            let bound = bound(&rounded[&name], &exact[&name]);
            assert!(far <= bound, "{path}: {name} by {at_a_time} in f32: {far} over {bound}");
        }
    }
    for at_a_time in [1, 2, 4] {
        let found = halves(&step(path, options, at_a_time, On::Cpu(2)));
        for (((name, value), (_, rounded)), (_, exact)) in found.iter().zip(halves(&rounded)).zip(halves(&exact)) {
            let (far, bound) = (distance(value, &exact), bound(&rounded, &exact));
            assert!(far <= bound, "{path}: {name} by {at_a_time} on the processor: {far} over {bound}");
        }
    }
}

fn bound(rounded: &[f64], exact: &[f64]) -> f64 {
    MULTIPLE * distance(rounded, exact).max(f64::from(f32::EPSILON) * size(exact))
}

#[test]
fn of_the_tiny_model() {
    check("tests/files/base.mng", &CompileOptions::default());
}

#[test]
fn of_gpt2() {
    let small = [("vocab", "32"), ("layers", "2"), ("heads", "2"), ("dim", "16"), ("eot", "31"), ("sequence", "12")];
    let more = [("batch", "48"), ("low", "f32"), ("validate.tokens", "12"), ("steps", "3"), ("warmdown", "1")];
    check("models/gpt2.mng", &sets(&[&small[..], &more].concat()));
}
