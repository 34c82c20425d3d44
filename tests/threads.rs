//! Whole training steps on the processor give the same bits with any number of threads.

#[path = "common/compile.rs"]
mod common;

use std::collections::BTreeMap;

use common::{On, program, sets};
use mngc_compiler::ir::EntryKind;
use mngc_compiler::{CompileOptions, Program};
use mngc_runtime::Tensor;
use mngc_testkit::bits;

const STEPS: u64 = 3;

/// Losses and every slot after some steps of three micro-steps and a validation, to the bit.
fn trained(program: &Program, threads: usize) -> BTreeMap<String, Vec<u64>> {
    let mut backend = On::Cpu(threads).open(program, 5);
    backend.run(EntryKind::Init.into(), &BTreeMap::new(), 0).expect("initial values");
    let recipe = &program.recipe;
    let (sequence, vocab) = (recipe.sequence, recipe.vocab.expect("a vocabulary") as i32);
    let text = |from: usize| (0..sequence).map(|i| ((from + i) * (from + i) + i / 3) as i32 % vocab).collect();
    let input = |from: usize, at_a_time: usize| {
        assert_eq!(at_a_time, 1, "one sequence at a time");
        Tensor::ints([1, sequence], text(from)).expect("tokens")
    };
    let inputs = |from: usize, at_a_time: usize| {
        BTreeMap::from([
            ("tokens".to_string(), input(from, at_a_time)),
            ("targets".to_string(), input(from + 1, at_a_time)),
        ])
    };
    let mut found = BTreeMap::new();
    for step in 0..STEPS {
        for micro in 0..recipe.sequences() {
            let from = (step as usize * recipe.sequences() + micro) * sequence;
            let out =
                backend.run(EntryKind::MicroStep.into(), &inputs(from, recipe.micro_sequences), step).expect("a loss");
            found.insert(format!("loss {step} {micro}"), bits(&out["loss"]));
        }
        let out = backend.run(EntryKind::Update.into(), &BTreeMap::new(), step).expect("an update");
        found.insert(format!("gradient_norm {step}"), bits(&out["gradient_norm"]));
    }
    let validation = recipe.validate.as_ref().expect("a validation");
    let out = backend.run(EntryKind::Evaluate.into(), &inputs(7, validation.micro_sequences), STEPS).expect("a loss");
    found.insert("validation".into(), bits(&out["loss"]));
    for (slot, data) in program.module.slots.iter() {
        found.insert(data.name.clone(), bits(&backend.slot(slot).expect("a value")));
    }
    found
}

fn check(low: &str) {
    let sets = sets(&[("low", low), ("validate.tokens", "sequence")]);
    let options = CompileOptions { micro_sequences: Some(1), ..sets };
    let program = program("models/gpt2-mini.mng", &options).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(program.recipe.sequences(), 3);
    let one = trained(&program, 1);
    assert!(one.len() > 50, "losses and slots");
    for threads in [2, 3, 7] {
        for (name, value) in trained(&program, threads) {
            assert!(value == one[&name], "{low}: {name} is not the same with {threads} threads");
        }
    }
}

#[test]
fn steps_in_f32() {
    check("f32");
}

#[test]
fn steps_in_bf16() {
    check("bf16");
}
