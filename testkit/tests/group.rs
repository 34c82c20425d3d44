//! Grouped plans of random modules: sound, bit for bit what ungrouped ones give on the CPU, and the verifier sees
//! instances that are in each other's way.

use std::collections::BTreeMap;

use mngc_compiler::ir::typing::Stage;
use mngc_compiler::ir::{
    CallKind, DType, DimRole, Entry, EntryKey, EntryKind, Graph, Input, Module, Output, SlotData, SlotRole, Type,
    Value, print,
};
use mngc_compiler::passes;
use mngc_compiler::schedule::kernel::Kernel;
use mngc_compiler::schedule::plan::{Launch, Operand, Place, View};
use mngc_compiler::schedule::{self, Plan, verify};
use mngc_runtime::{Backend, Cpu, Tensor};
use mngc_testkit::close::bits;
use mngc_testkit::{Case, Config, cases, values};
use proptest::prelude::*;

/// A module whose one entry runs the function of a case several times, on arguments of which some are the same.
struct Several {
    module: Module,
    key: EntryKey,
    /// Inputs from the host.
    batch: BTreeMap<String, Tensor>,
    /// What slots hold at the start.
    slots: Vec<Tensor>,
}

fn several(case: &Case, times: usize, kind: EntryKind) -> Several {
    let mut m = case.module.clone();
    let callee = m.funcs[case.func].clone();
    let mut g = Graph::new("several");
    let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
    let (mut batch, mut slots) = (BTreeMap::new(), Vec::new());
    let mut given: Vec<Vec<Value>> = Vec::new();
    for time in 0..times {
        // Results that may be the new values of slots whose old ones are arguments.
        let is_state = |ty: &Type| ty.dims.iter().all(|&dim| m.dims.role(dim) == DimRole::Feature);
        let results = callee.results.iter().enumerate().filter(|(_, v)| is_state(callee.ty(**v)));
        let mut results: Vec<usize> = results.map(|(r, _)| r).collect();
        let mut args = Vec::new();
        let mut home = BTreeMap::new();
        for (i, &param) in callee.params.iter().enumerate() {
            let ty = callee.ty(param).clone();
            let chance = values::hash(case.seed, (time * 100 + i) as u64);
            if time > 0 && chance.is_multiple_of(3) {
                args.push(given[time - 1][i]);
                continue;
            }
            args.push(g.param("", ty.clone()));
            let tensor = values::tensor(&m.dims, &ty, case.seed + (time * 1000 + i) as u64, false);
            match results.iter().position(|&r| {
                callee.ty(callee.results[r]).dims == ty.dims && callee.ty(callee.results[r]).dtype == ty.dtype
            }) {
                Some(at) if chance % 3 == 1 => {
                    let data = SlotData { name: format!("slot{}", slots.len()), role: SlotRole::State, ty, loc: None };
                    let slot = m.slots.push(data);
                    home.insert(results.remove(at), slot);
                    slots.push(tensor);
                    inputs.push(Input::Slot(slot));
                }
                _ => {
                    let name = format!("in{time}.{i}");
                    batch.insert(name.clone(), tensor);
                    inputs.push(Input::Batch(name));
                }
            }
        }
        let call = m.call(&mut g, case.func, CallKind::Block, args.clone(), None);
        for (r, value) in call.into_iter().enumerate() {
            g.result("", value);
            outputs.push(match home.get(&r) {
                Some(slot) => Output::Slot(*slot),
                None => Output::Host(format!("out{time}.{r}")),
            });
        }
        given.push(args);
    }
    let (key, func) = (kind.into(), m.funcs.push(g));
    m.entries = BTreeMap::from([(key, Entry { key, func, inputs, outputs })]);
    passes::run(&mut m, passes::CASTS, Stage::Elaborated, &mut Vec::new()).unwrap_or_else(|e| panic!("{e}"));
    let module = schedule::lower(&m, &mut Vec::new()).unwrap_or_else(|e| panic!("{e}"));
    Several { module, key, batch, slots }
}

fn several_cases() -> impl Strategy<Value = Several> {
    let kind = prop_oneof![Just(EntryKind::Update), Just(EntryKind::MicroStep)];
    (cases(Config::default()), 2usize..5, kind).prop_map(|(case, times, kind)| several(&case, times, kind))
}

impl std::fmt::Debug for Several {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&print::module(&self.module))
    }
}

impl Several {
    fn grouped(&self) -> Plan {
        schedule::plan_grouped(&self.module, &mut Vec::new()).unwrap_or_else(|e| panic!("{e}\n{self:?}"))
    }

    /// Two runs, so that slots are read after they were written: what the host gets, and what slots hold.
    fn run(&self, plan: &Plan) -> Vec<Vec<u64>> {
        let mut cpu = Cpu::new(self.module.clone(), plan, 5, Some(1)).unwrap_or_else(|e| panic!("{e}\n{self:?}"));
        let slots: Vec<_> = self.module.slots.iter().filter(|(_, data)| data.name.starts_with("slot")).collect();
        for ((slot, _), tensor) in slots.iter().zip(&self.slots) {
            cpu.set_slot(*slot, tensor.clone()).expect("a tensor of the slot's type");
        }
        let mut seen = Vec::new();
        for step in 0..2 {
            let out = cpu.run(self.key, &self.batch, step).unwrap_or_else(|e| panic!("{e}\n{self:?}"));
            seen.extend(out.values().map(bits));
            seen.extend(slots.iter().map(|(slot, _)| bits(&cpu.slot(*slot).expect("it is set"))));
        }
        seen
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn groups_give_the_same_bits(several in several_cases()) {
        let apart = schedule::plan(&several.module, &mut Vec::new()).unwrap_or_else(|e| panic!("{e}"));
        let grouped = several.grouped();
        prop_assert_eq!(several.run(&grouped), several.run(&apart), "{:?}", several);
    }

    /// A result of one instance where another reads or writes.
    #[test]
    fn instances_in_each_others_way_are_found(several in several_cases()) {
        let mut plan = several.grouped();
        let m = &several.module;
        let entry = plan.entries.values_mut().next().expect("an entry");
        let mut found = Vec::new();
        for (at, launch) in entry.launches.iter().enumerate().filter(|(_, launch)| launch.instances > 1) {
            let mut each = launch.each();
            let (Some((first, _)), Some((_, second))) = (each.next(), each.next()) else { continue };
            for arg in first {
                let Operand::View(read) = arg else { continue };
                let moved = second.iter().filter(|made| m.bytes(&made.ty) > 0 && m.bytes(&made.ty) == m.bytes(&read.ty));
                let in_arena = |made: &&View| matches!(entry.buffers[made.buffer].place, Place::Arena(_));
                found.extend(moved.filter(in_arena).map(|made| (at, made.buffer, read.clone())));
            }
        }
        let Some((at, buffer, read)) = found.pop() else { return Ok(()) };
        for view in entry.launches[at].results.iter_mut().filter(|view| view.buffer == buffer) {
            (view.buffer, view.offset) = (read.buffer, read.offset);
        }
        prop_assert!(verify::plan(m, &plan).is_err(), "launch {at} writes over {read:?} of another instance");
    }

    #[test]
    fn unlike_instances_are_found(several in several_cases(), spoil in 0..SPOIL.len()) {
        let mut plan = several.grouped();
        let entry = plan.entries.values_mut().next().expect("an entry");
        let group = entry.launches.iter_mut().find(|launch| launch.instances > 1 && !launch.args.is_empty());
        let Some(launch) = group else { return Ok(()) };
        SPOIL[spoil](launch);
        prop_assert!(verify::plan(&several.module, &plan).is_err(), "fault {spoil} is not seen");
    }
}

/// What makes a launch of several instances none.
const SPOIL: [fn(&mut Launch); 5] = [
    |launch| launch.instances = 0,
    |launch| launch.instances += launch.args.len() + launch.results.len(),
    |launch| drop(launch.results.pop()),
    |launch| launch.args[0] = Operand::Const(1.5, DType::F32),
    |launch| launch.kernel = Kernel::Copy,
];
