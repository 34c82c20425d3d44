//! The oracle as a backend: slots, inputs, host scalars, errors; tensors that do not fit.

use std::collections::BTreeMap;

use mngc_compiler::ir::{EntryKey, EntryKind, Module, read, verify};
use mngc_runtime::{Backend, Error, Format, Precision, Reference, Tensor};

const TEXT: &str = r#"
module "counter"
dim T = 2 token
slot s0 "w" param bf16[2]
slot s1 "w#m" optimizer(s0) f32[2]
scalar h0 "rate" = (div (add step 1.0) 10.0)

func f0 "init" () {
  v0: bf16[2] = random {uniform = [1.0, 2.0], name = "w"}
  v1: f32[] = const {value = 0.0}
  v2: f32[2] = broadcast v1 {axes = []}
  return v0, v2
}
func f1 "update" (v0: bf16[2], v1: f32[2], v2: f32[], v3: f32[T]) {
  v4: f32[] = reduce v3 {kind = sum, axes = [0]}
  v5: f32[] = mul v4, v2
  v6: f32[2] = add v1, v5
  v7: bf16[2] = sub v0, v6
  return v7, v6, v2
}
func f2 "swap" (v0: bf16[2], v1: f32[2]) {
  v2: bf16[2] = cast v1
  v3: f32[2] = cast v0
  return v2, v3
}
entry init = f0() -> (s0, s1)
entry micro_step stage 3 = f2(s0, s1) -> (s0, s1)
entry update = f1(s0, s1, h0, "x") -> (s0, s1, "rate")
"#;

const UPDATE: EntryKind = EntryKind::Update;

fn module() -> Module {
    let module = read::module(TEXT).unwrap();
    verify::module(&module, mngc_compiler::ir::Stage::Elaborated).unwrap();
    module
}

fn reference(precision: Precision) -> Reference {
    let mut backend = Reference::new(module(), 1, precision);
    let slot = |name: &str| backend.module().slot_by_name(name).unwrap();
    let (w, m) = (slot("w"), slot("w#m"));
    backend.set_slot(w, Tensor::floats([2], vec![1.0, 2.0]).unwrap()).unwrap();
    backend.set_slot(m, Tensor::floats([2], vec![0.0, 0.5]).unwrap()).unwrap();
    backend
}

fn inputs(values: &[f64]) -> BTreeMap<String, Tensor> {
    BTreeMap::from([("x".to_string(), Tensor::floats([values.len()], values.to_vec()).unwrap())])
}

fn slots(backend: &Reference) -> [Vec<f64>; 2] {
    ["w", "w#m"].map(|name| {
        let slot = backend.module().slot_by_name(name).unwrap();
        backend.slot(slot).unwrap().as_floats().unwrap().to_vec()
    })
}

#[test]
fn an_entry_reads_slots_inputs_and_scalars_and_writes_slots() {
    let mut backend = reference(Precision::Rounded);
    let out = backend.run(UPDATE.into(), &inputs(&[1.0, 2.0]), 4).unwrap();
    // rate = 0.5, so m += 1.5 and w −= m.
    assert_eq!(slots(&backend), [vec![-0.5, 0.0], vec![1.5, 2.0]]);
    assert_eq!(out.keys().collect::<Vec<_>>(), ["rate"]);
    assert_eq!(out["rate"].item(), Some(0.5));
}

#[test]
fn precision_decides_what_is_rounded() {
    let rate = |precision| reference(precision).run(UPDATE.into(), &inputs(&[0.0, 0.0]), 0).unwrap()["rate"].item();
    assert_eq!(rate(Precision::Rounded), Some(f64::from(0.1f32)));
    assert_eq!(rate(Precision::F64), Some(0.1));
    for (precision, kept) in [(Precision::Rounded, f64::from(0.1f32)), (Precision::F64, 0.1)] {
        let mut backend = reference(precision);
        let m = backend.module().slot_by_name("w#m").unwrap();
        backend.set_slot(m, Tensor::floats([2], vec![0.1, 0.0]).unwrap()).unwrap();
        assert_eq!(slots(&backend)[1], [kept, 0.0]);
    }
}

#[test]
fn every_slot_is_read_as_it_was_at_the_start() {
    let mut backend = reference(Precision::Rounded);
    let swap = EntryKey { kind: EntryKind::MicroStep, stage: 3 };
    backend.run(swap, &BTreeMap::new(), 0).unwrap();
    assert_eq!(slots(&backend), [vec![0.0, 0.5], vec![1.0, 2.0]]);
}

#[test]
fn random_numbers_depend_on_seed_and_step_only() {
    let draw = |seed, step| {
        let mut backend = Reference::new(module(), seed, Precision::Rounded);
        backend.run(EntryKind::Init.into(), &BTreeMap::new(), step).unwrap();
        slots(&backend)
    };
    assert_eq!(draw(1, 0), draw(1, 0));
    assert_ne!(draw(1, 0), draw(2, 0));
    assert_ne!(draw(1, 0), draw(1, 1));
    assert!(draw(1, 0)[0].iter().all(|x| (1.0..=2.0).contains(x)));
    assert_eq!(draw(1, 0)[1], [0.0, 0.0]);
}

#[test]
fn errors_say_what_is_wrong_and_change_nothing() {
    let mut backend = reference(Precision::Rounded);
    let before = slots(&backend);
    let mut fails = |entry: EntryKey, inputs: BTreeMap<String, Tensor>| {
        backend.run(entry, &inputs, 0).expect_err("an error").to_string()
    };
    assert_eq!(fails(EntryKind::Decode.into(), BTreeMap::new()), "the program has no entry `decode`");
    let stage = EntryKey { kind: UPDATE, stage: 2 };
    assert_eq!(fails(stage, BTreeMap::new()), "the program has no entry `update` of stage 2");
    assert_eq!(fails(UPDATE.into(), BTreeMap::new()), "entry `update` needs the input `x`");
    let mut two = inputs(&[1.0, 2.0]);
    two.insert("y".into(), Tensor::scalar(0.0));
    assert_eq!(fails(UPDATE.into(), two), "entry `update` has no input `y`");
    let size = fails(UPDATE.into(), inputs(&[1.0]));
    assert_eq!(size, "input `x` has sizes [1], but [2] are needed");
    let ints = BTreeMap::from([("x".to_string(), Tensor::ints([2], vec![1, 2]).unwrap())]);
    assert_eq!(fails(UPDATE.into(), ints), "input `x` holds i32, but f32 is needed");
    assert_eq!(slots(&backend), before);
}

#[test]
fn slots_are_checked() {
    let mut backend = Reference::new(module(), 1, Precision::Rounded);
    let w = backend.module().slot_by_name("w").unwrap();
    assert_eq!(backend.slot(w), Err(Error::SlotUnset("w".into())));
    assert_eq!(backend.slot(w).unwrap_err().to_string(), "slot `w` has no value yet: run the init entry or set it");
    assert!(matches!(backend.run(UPDATE.into(), &inputs(&[1.0, 2.0]), 0), Err(Error::SlotUnset(_))));
    assert!(matches!(backend.set_slot(w, Tensor::scalar(1.0)), Err(Error::Sizes { .. })));
    assert!(matches!(backend.set_slot(w, Tensor::ints([2], vec![1, 2]).unwrap()), Err(Error::Kind { .. })));
    let other = mngc_compiler::ir::Slot::from_u32(9);
    assert_eq!(backend.slot(other), Err(Error::NoSlot("s9".into())));
    assert_eq!(backend.set_slot(other, Tensor::scalar(1.0)), Err(Error::NoSlot("s9".into())));
}

#[test]
fn tensors_that_do_not_fit_are_errors() {
    assert!(matches!(Tensor::floats([2, 2], vec![1.0]), Err(Error::Elements { .. })));
    assert!(matches!(Tensor::zeros(mngc_compiler::ir::DType::F32, [usize::MAX, 2]), Err(Error::Elements { .. })));
    assert!(matches!(Tensor::from_bytes([2], Format::F32, &[0; 7]), Err(Error::Bytes { .. })));
    assert!(matches!(Tensor::from_bytes([usize::MAX], Format::F32, &[]), Err(Error::Bytes { .. })));
    assert!(matches!(Tensor::scalar(1.0).to_bytes(Format::I32), Err(Error::Kind { .. })));
    assert!(matches!(Tensor::scalar(1.0).reshaped([2]), Err(Error::Elements { .. })));
    assert_eq!(Tensor::scalar(1.0).reshaped([1, 1]).unwrap().sizes(), [1, 1]);
}
