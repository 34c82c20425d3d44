//! The CPU as a backend: slots, inputs, host scalars, errors; results that depend on no thread; no memory taken once it runs.

mod common;

/// What runs functions of `common`.
const DEVICE: common::Device = common::Device::Cpu;

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use mngc_compiler::ir::{EntryKey, EntryKind, Module, Stage, read, verify};
use mngc_compiler::schedule::{self, Plan};
use mngc_runtime::{Backend, Cpu, Error, Precision, Reference, Tensor};

/// Counts what is allocated, by all threads.
struct Counting;

static BYTES: AtomicUsize = AtomicUsize::new(0);
static LARGEST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size(), SeqCst);
        LARGEST.fetch_max(layout.size(), SeqCst);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

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

fn planned(text: &str) -> (Module, Plan) {
    let module = read::module(text).unwrap_or_else(|e| panic!("{e}"));
    verify::module(&module, Stage::Elaborated).unwrap_or_else(|e| panic!("{}", e[0]));
    let lowered = schedule::lower(&module, &mut Vec::new()).unwrap();
    let plan = schedule::plan(&lowered, &mut Vec::new()).unwrap();
    (lowered, plan)
}

fn open(seed: u64) -> (Cpu, Module) {
    let (module, plan) = planned(TEXT);
    (Cpu::new(module.clone(), &plan, seed, Some(2)).unwrap(), module)
}

fn filled() -> (Cpu, Module) {
    let (mut cpu, m) = open(1);
    cpu.set_slot(m.slot_by_name("w").unwrap(), Tensor::floats([2], vec![1.0, 2.0]).unwrap()).unwrap();
    cpu.set_slot(m.slot_by_name("w#m").unwrap(), Tensor::floats([2], vec![0.0, 0.5]).unwrap()).unwrap();
    (cpu, m)
}

fn inputs(values: &[f64]) -> BTreeMap<String, Tensor> {
    BTreeMap::from([("x".to_string(), Tensor::floats([values.len()], values.to_vec()).unwrap())])
}

fn slots(cpu: &impl Backend, m: &Module) -> [Vec<f64>; 2] {
    ["w", "w#m"].map(|name| cpu.slot(m.slot_by_name(name).unwrap()).unwrap().as_floats().unwrap().to_vec())
}

#[test]
fn an_entry_reads_slots_inputs_and_scalars_and_writes_slots() {
    let (mut cpu, m) = filled();
    let out = cpu.run(UPDATE.into(), &inputs(&[1.0, 2.0]), 4).unwrap();
    // rate = 0.5, so m += 1.5 and w −= m.
    assert_eq!(slots(&cpu, &m), [vec![-0.5, 0.0], vec![1.5, 2.0]]);
    assert_eq!(out.keys().collect::<Vec<_>>(), ["rate"]);
    assert_eq!(out["rate"].item(), Some(0.5));
}

#[test]
fn every_slot_is_read_as_it_was_at_the_start() {
    let (mut cpu, m) = filled();
    let swap = EntryKey { kind: EntryKind::MicroStep, stage: 3 };
    cpu.run(swap, &BTreeMap::new(), 0).unwrap();
    assert_eq!(slots(&cpu, &m), [vec![0.0, 0.5], vec![1.0, 2.0]]);
}

#[test]
fn random_numbers_are_those_of_the_oracle() {
    for (seed, step) in [(1, 0), (1, 1), (2, 0), (u64::MAX, 7)] {
        let (mut cpu, m) = open(seed);
        cpu.run(EntryKind::Init.into(), &BTreeMap::new(), step).unwrap();
        let mut reference = Reference::new(m.clone(), seed, Precision::Rounded);
        reference.run(EntryKind::Init.into(), &BTreeMap::new(), step).unwrap();
        assert_eq!(slots(&cpu, &m), slots(&reference, &m));
    }
}

#[test]
fn errors_say_what_is_wrong_and_change_nothing() {
    let (mut cpu, m) = filled();
    let before = slots(&cpu, &m);
    let mut fails = |entry: EntryKey, inputs: BTreeMap<String, Tensor>| {
        cpu.run(entry, &inputs, 0).expect_err("an error").to_string()
    };
    assert_eq!(fails(EntryKind::Decode.into(), BTreeMap::new()), "the program has no entry `decode`");
    let stage = EntryKey { kind: UPDATE, stage: 2 };
    assert_eq!(fails(stage, BTreeMap::new()), "the program has no entry `update` of stage 2");
    assert_eq!(fails(UPDATE.into(), BTreeMap::new()), "entry `update` needs the input `x`");
    let mut two = inputs(&[1.0, 2.0]);
    two.insert("y".into(), Tensor::scalar(0.0));
    assert_eq!(fails(UPDATE.into(), two), "entry `update` has no input `y`");
    assert_eq!(fails(UPDATE.into(), inputs(&[1.0])), "input `x` has sizes [1], but [2] are needed");
    let ints = BTreeMap::from([("x".to_string(), Tensor::ints([2], vec![1, 2]).unwrap())]);
    assert_eq!(fails(UPDATE.into(), ints), "input `x` holds i32, but f32 is needed");
    assert_eq!(slots(&cpu, &m), before);
}

#[test]
fn slots_are_checked() {
    let (mut cpu, m) = open(1);
    let (w, other) = (m.slot_by_name("w").unwrap(), m.slot_by_name("w#m").unwrap());
    assert_eq!(cpu.slot(w), Err(Error::SlotUnset("w".into())));
    assert!(matches!(cpu.run(UPDATE.into(), &inputs(&[1.0, 2.0]), 0), Err(Error::SlotUnset(_))));
    assert!(matches!(cpu.set_slot(w, Tensor::scalar(1.0)), Err(Error::Sizes { .. })));
    assert!(matches!(cpu.set_slot(w, Tensor::ints([2], vec![1, 2]).unwrap()), Err(Error::Kind { .. })));
    // Rounded to bf16, and alone: the other slot is still empty.
    cpu.set_slot(w, Tensor::floats([2], vec![1.003, -2.0]).unwrap()).unwrap();
    assert_eq!(cpu.slot(w).unwrap().as_floats().unwrap(), [1.0, -2.0]);
    assert_eq!(cpu.slot(other), Err(Error::SlotUnset("w#m".into())));
    assert!(matches!(cpu.run(UPDATE.into(), &inputs(&[1.0, 2.0]), 0), Err(Error::SlotUnset(_))));
    let nowhere = mngc_compiler::ir::Slot::from_u32(9);
    assert!(matches!(cpu.slot(nowhere), Err(Error::NoSlot(_))));
    assert!(matches!(cpu.set_slot(nowhere, Tensor::scalar(1.0)), Err(Error::NoSlot(_))));
}

#[test]
fn a_plan_of_another_module_is_an_error() {
    let (module, plan) = planned(TEXT);
    assert!(Cpu::new(module.clone(), &Plan::default(), 0, None).is_err());
    let mut broken = plan.clone();
    for launch in broken.entries.values_mut().flat_map(|entry| &mut entry.launches) {
        launch.args.clear();
    }
    assert!(matches!(Cpu::new(module, &broken, 0, None), Err(Error::Launch { .. })));
}

#[test]
fn kernels_are_timed_where_that_is_asked_for() {
    let (mut cpu, _) = filled();
    assert!(cpu.times().is_empty());
    assert!(cpu.profile(true));
    for _ in 0..3 {
        cpu.run(UPDATE.into(), &inputs(&[1.0, 2.0]), 4).unwrap();
    }
    let times = cpu.times();
    let update: Vec<_> = times.iter().filter(|t| t.entry == UPDATE.into()).collect();
    assert!(!update.is_empty() && update.iter().all(|t| t.runs == 3 && t.seconds > 0.0), "{times:?}");
    assert!(times.iter().filter(|t| t.entry != UPDATE.into()).all(|t| t.runs == 0));
    assert!(cpu.profile(false) && cpu.times().is_empty());
    assert_eq!(cpu.threads(), 2);
    // Two slots of two elements at least.
    assert!(cpu.memory() >= 12);
}

/// A layer with every kind of kernel that a training step has. A second run takes less memory than any of its tensors has.
/// Its product is larger than any of the program.
#[test]
fn the_peak_is_measured_whatever_the_program_needs() {
    let (cpu, _) = open(1);
    assert!(cpu.peak_flops().is_some_and(|flops| flops > 1e6));
}

#[test]
fn running_takes_no_memory() {
    const TEXT: &str = r#"
module "layer"
dim seq = 2 sequence
dim T = 128 token
slot s0 "table" param f32[1000, 64]
slot s1 "table#grad" gradient(s0) f32[1000, 64]
func f0 "loss" (v0: f32[seq, T, 64], v1: f32[1000, 64], v2: i32[seq, T], v3: f32[seq, T], v4: f32[1000, 64]) {
  v5: f32[seq, T, 1000] = dot v0, v1 {batch = [], contract = [2:1]}
  v6: f32[seq, T] = cross_entropy v5, v2
  v7: f32[seq, T, 1000] = cross_entropy_grad v5, v2, v3
  v8: f32[seq, T, 64] = dot v7, v1 {batch = [], contract = [2:0]}
  v9: f32[1000, 64] = dot v7, v0 {batch = [], contract = [0:0, 1:1]}
  v10: f32[1000, 64] = add v4, v9
  return v6, v8, v10
}
func f1 "step" (v0: f32[1000, 64], v1: f32[1000, 64], v2: i32[seq, T]) {
  v3: f32[seq, T, 64] = gather v0, v2
  v4: f32[seq, T, 64] = rms_norm v3 {eps = 1e-6}
  v5: f32[seq, T, 4, 16] = reshape v4
  v6: f32[seq, T, 4, 16], v7: f32[seq, T, 4] = attention v5, v5, v5 {mask = [causal], scale = 0.25}
  v8: f32[seq, T, 4, 16], v9: f32[seq, T, 4, 16], v10: f32[seq, T, 4, 16] = attention_grad v5, v5, v5, v6, v7, v6 {mask = [causal], scale = 0.25}
  v11: f32[seq, T, 64] = reshape v8
  v12: f32[seq, T] = reduce v11 {kind = mean, axes = [2]}
  v13: f32[seq, T], v14: f32[seq, T, 64], v15: f32[1000, 64] = call v11, v0, v2, v12, v1 {func = f0, kind = loss}
  v16: f32[1000, 64] = scatter_add v2, v14
  v17: f32[1000, 64] = add v15, v16
  v18: f32[64, seq, T] = transpose v14 {perm = [2, 0, 1]}
  v19: f32[64] = reduce v18 {kind = max, axes = [1, 2]}
  v20: f32[1000, 64] = broadcast v19 {axes = [1]}
  v21: f32[1000, 64] = add v17, v20
  v22: f32[seq] = reduce v13 {kind = sum, axes = [1]}
  v23: f32[] = reduce v22 {kind = sum, axes = [0]}
  return v23, v21
}
entry micro_step = f1(s0, s1, "tokens") -> ("loss", s1)
"#;
    let m = read::module(TEXT).unwrap_or_else(|e| panic!("{e}"));
    let plan = schedule::plan(&m, &mut Vec::new()).unwrap();
    let mut cpu = Cpu::new(m.clone(), &plan, 0, Some(3)).unwrap();
    for (slot, data) in m.slots.iter() {
        cpu.set_slot(slot, common::numbers(&m, &data.ty, 5)).unwrap();
    }
    let tokens = (0..256).map(|i| i * 37 % 1000).collect();
    let inputs = BTreeMap::from([("tokens".to_string(), Tensor::ints([2, 128], tokens).unwrap())]);
    cpu.run(EntryKind::MicroStep.into(), &inputs, 0).unwrap();
    // Other tests of this file run beside this one: the least of several runs is what it takes itself.
    let mut least = (usize::MAX, usize::MAX);
    for step in 1..20 {
        BYTES.store(0, SeqCst);
        LARGEST.store(0, SeqCst);
        cpu.run(EntryKind::MicroStep.into(), &inputs, step).unwrap();
        least = least.min((BYTES.load(SeqCst), LARGEST.load(SeqCst)));
    }
    assert!(least.0 < 8192 && least.1 < 4096, "{} bytes are taken, {} at once", least.0, least.1);
}
