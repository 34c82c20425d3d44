//! Casts before sums of products change nothing but roundings; shadow slots change nothing at all.

use std::collections::BTreeMap;

use mngc_compiler::ir::typing::Stage;
use mngc_compiler::ir::{
    CallKind, DType, DimRole, Entry, EntryKey, EntryKind, Graph, Input, Module, NodeData, Op, Slot, SlotData, SlotRole,
    Type, Value, print, verify,
};
use mngc_compiler::passes::{place_casts, shadow};
use mngc_runtime::{Backend, Context, Precision, Reference, Tensor, evaluate};
use mngc_testkit::generate::case;
use mngc_testkit::{Case, Config, bits, cases, values};
use proptest::prelude::*;

const ANY: Config = Config { smooth: false, one_sequence: false };

/// Entries over the same function, in the order in which they run.
const RUNS: [EntryKind; 4] = [EntryKind::MicroStep, EntryKind::Update, EntryKind::MicroStep, EntryKind::Decode];

fn legal(m: &Module) {
    if let Err(errors) = verify::module(m, Stage::CastsPlaced) {
        panic!("{}\n{}", errors[0], print::module(m));
    }
}

/// Whether a parameter of the model may have this type, and be cast.
fn is_weight(m: &Module, ty: &Type) -> bool {
    ty.dtype == DType::F32 && ty.dims.iter().all(|&d| m.dims.role(d) == DimRole::Feature)
}

/// Lets a function read most of what could be weights through a cast to a low dtype and back.
fn lower(m: &Module, g: &Graph, seed: u64) -> Graph {
    let mut new = Graph { gradient: g.gradient, ..Graph::new(g.name.clone()) };
    let params: Vec<Value> =
        g.params.iter().zip(&g.param_names).map(|(&v, name)| new.param(name.clone(), g.ty(v).clone())).collect();
    let mut map = BTreeMap::new();
    for (i, (&from, &to)) in g.params.iter().zip(&params).enumerate() {
        let ty = g.ty(from);
        let low = [None, None, Some(DType::F16), Some(DType::BF16)][values::hash(seed, i as u64) as usize % 4];
        let value = match low.filter(|_| is_weight(m, ty)) {
            Some(low) => {
                let cast = new.push1(Op::Cast, vec![to], ty.with_dtype(low), None);
                new.push1(Op::Cast, vec![cast], ty.clone(), None)
            }
            None => to,
        };
        map.insert(from, value);
    }
    for node in g.nodes.values() {
        let args = node.args.iter().map(|v| map[v]).collect();
        let made = new.push(node.op.clone(), args, node.results.iter().map(|&v| g.ty(v).clone()).collect(), node.loc);
        map.extend(node.results.iter().copied().zip(new.nodes[made].results.clone()));
    }
    for (v, name) in g.results.iter().zip(&g.result_names) {
        new.result(name.clone(), map[v]);
    }
    new
}

/// A case with many casts of parameters, whose function several entries run; casts are placed, there is no shadow.
fn program(case: &Case) -> Module {
    let mut m = case.module.clone();
    for func in m.funcs.keys() {
        m.funcs[func] = lower(&m, &m.funcs[func], values::hash(case.seed, func.as_u32().into()));
    }
    for slot in m.slots.values_mut() {
        if matches!(slot.role, SlotRole::Shadow(_)) {
            slot.role = SlotRole::State;
        }
    }
    let (_, mut entry) = m.entries.pop_first().expect("an entry");
    for (input, &param) in entry.inputs.iter_mut().zip(&m.funcs[entry.func].params) {
        let ty = m.funcs[entry.func].ty(param);
        if let Input::Batch(name) = input
            && is_weight(&m, ty)
        {
            let slot = SlotData { name: format!("{name} weight"), role: SlotRole::Param, ty: ty.clone(), loc: None };
            *input = Input::Slot(m.slots.push(slot));
        }
    }
    // Step entries reach the function through a call; `update` does so or runs it itself.
    let mut outer = Graph::new("outer");
    let g = &m.funcs[entry.func];
    let args = g.params.iter().zip(&g.param_names).map(|(&v, name)| outer.param(name.clone(), g.ty(v).clone()));
    let args = args.collect();
    let names = g.result_names.clone();
    if !names.is_empty() {
        let results = m.call(&mut outer, entry.func, CallKind::Block, args, None);
        results.into_iter().zip(names).for_each(|(value, name)| outer.result(name, value));
    }
    let (inner, outer) = (entry.func, m.funcs.push(outer));
    for kind in RUNS {
        let key = EntryKey::from(kind);
        // A call has a result.
        let direct = kind == EntryKind::Update && case.seed & 1 == 1 || case.graph().results.is_empty();
        let func = if direct { inner } else { outer };
        m.entries.insert(key, Entry { key, func, ..entry.clone() });
    }
    place_casts::run(&mut m).expect("it runs");
    legal(&m);
    m
}

/// A backend with the slots of a program that the case has values for.
fn backend(m: &Module, program: &Module, case: &Case, precision: Precision) -> Reference {
    let entry = program.entries.values().next().expect("an entry");
    let mut backend = Reference::new(m.clone(), case.seed, precision);
    for (input, arg) in entry.inputs.iter().zip(&case.args) {
        if let Input::Slot(slot) = input {
            backend.set_slot(*slot, arg.clone()).expect("the slot takes it");
        }
    }
    backend
}

fn check(case: &Case, precision: Precision) -> Result<(), TestCaseError> {
    let before = program(case);
    let mut after = before.clone();
    shadow::run(&mut after).expect("it runs");
    legal(&after);

    let entry = before.entries.values().next().expect("an entry");
    let batch = |(input, arg): (&Input, &Tensor)| match input {
        Input::Batch(name) => Some((name.clone(), arg.clone())),
        _ => None,
    };
    let inputs: BTreeMap<String, Tensor> = entry.inputs.iter().zip(&case.args).filter_map(batch).collect();
    let mut a = backend(&before, &before, case, precision);
    let mut b = backend(&after, &before, case, precision);
    let refresh = EntryKey::from(EntryKind::Refresh);
    if after.entries.contains_key(&refresh) {
        b.run(refresh, &BTreeMap::new(), 0).expect("it runs");
    }
    for (step, kind) in (0..).zip(RUNS) {
        let found = b.run(kind.into(), &inputs, step).expect("it runs");
        let want = a.run(kind.into(), &inputs, step).expect("it runs");
        prop_assert!(found.keys().eq(want.keys()));
        for (name, tensor) in &want {
            prop_assert_eq!(bits(&found[name]), bits(tensor), "{} of\n{}", name, print::module(&after));
        }
        for slot in before.slots.keys() {
            let [a, b] = [&a, &b].map(|backend| backend.slot(slot).ok().map(|t| bits(&t)));
            prop_assert_eq!(a, b, "{} of\n{}", slot, print::module(&after));
        }
        check_fresh(&after, &b, precision)?;
    }
    Ok(())
}

/// Every shadow is what its parameter rounds to.
fn check_fresh(m: &Module, backend: &Reference, precision: Precision) -> Result<(), TestCaseError> {
    for (id, slot) in m.slots.iter() {
        if let SlotRole::Shadow(param) = slot.role {
            let value = |slot: Slot| backend.slot(slot).expect("it is set");
            let want = match precision {
                Precision::Rounded => value(param).rounded(slot.ty.dtype),
                Precision::F64 => value(param),
            };
            prop_assert_eq!(bits(&value(id)), bits(&want), "{} of\n{}", id, print::module(m));
        }
    }
    Ok(())
}

proptest! {
    // A fault that is found becomes a test of its own, with a name.
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn without_rounding_casts_change_nothing(case in cases(ANY)) {
        let mut m = case.module.clone();
        place_casts::run(&mut m).expect("it runs");
        legal(&m);
        let ctx = Context::new(Precision::F64, case.seed, 3);
        let want = case.run(&case.args, &ctx).expect("it runs");
        let found = evaluate(&m, case.func, case.args.clone(), &ctx).expect("it runs");
        for (found, want) in found.iter().zip(&want) {
            prop_assert_eq!(bits(found), bits(want));
        }
    }

    #[test]
    fn shadows_change_nothing(case in cases(ANY)) {
        check(&case, Precision::Rounded)?;
        check(&case, Precision::F64)?;
    }
}

/// Calls in entries' functions to which a shadow is handed.
fn calls_with_shadows(m: &Module) -> usize {
    let is_shadow = |input: &Input| matches!(input, Input::Slot(s) if matches!(m.slots[*s].role, SlotRole::Shadow(_)));
    let calls = m.entries.values().map(|entry| {
        let g = &m.funcs[entry.func];
        let shadows: Vec<Value> =
            g.params.iter().zip(&entry.inputs).filter(|(_, input)| is_shadow(input)).map(|(&v, _)| v).collect();
        let takes_one = |node: &&NodeData| node.args.iter().any(|v| shadows.contains(v));
        g.nodes.values().filter(|node| matches!(node.op, Op::Call { .. })).filter(takes_one).count()
    });
    calls.sum()
}

/// The properties above would also hold for a generator in whose cases no parameter is cast.
#[test]
fn generated_parameters_are_cast() {
    let (mut dots, mut moved, mut shadows, mut calls) = (0, 0, 0, 0);
    for seed in 0..400 {
        let choices: Vec<u32> = (0..300).map(|i| values::hash(seed, i) as u32).collect();
        let case = case(&choices, seed, ANY);
        dots += place_casts::run(&mut case.module.clone()).expect("it runs");
        let mut m = program(&case);
        moved += shadow::run(&mut m).expect("it runs");
        shadows += m.slots.values().filter(|slot| matches!(slot.role, SlotRole::Shadow(_))).count();
        calls += calls_with_shadows(&m);
    }
    let enough = dots >= 50 && moved >= 100 && shadows >= 100 && calls >= 100;
    assert!(enough, "{dots} operands, {moved} casts, {shadows} shadows, {calls} calls that take one");
}
