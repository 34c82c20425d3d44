//! How many parameters a model has, and of which kind.

use std::collections::BTreeSet;

use mngc_compiler::ir::{EntryKey, EntryKind, Func, Input, Module, Op, Slot, SlotRole};

/// Elements of a model's parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Of all.
    pub total: u64,
    /// Of those that every token is computed with: all but tables that are only looked up in.
    pub active: u64,
    /// Of the tables that tokens are looked up in, whatever else they are used for.
    pub embedding: u64,
}

/// Counts them by what the forward pass does with each.
pub fn count(module: &Module) -> Counts {
    let mut uses = Uses::default();
    let kinds = [EntryKind::MicroStep, EntryKind::Evaluate, EntryKind::Decode].map(EntryKey::from);
    if let Some(entry) = kinds.iter().rev().find_map(|key| module.entries.get(key)) {
        let slots = entry.inputs.iter().map(|input| match input {
            Input::Slot(slot) => Some(parameter(module, *slot)),
            _ => None,
        });
        uses.follow(module, entry.func, &slots.collect::<Vec<_>>());
    }
    let mut counts = Counts::default();
    for (slot, data) in module.params() {
        let elements = module.dims.elements(&data.ty.dims) as u64;
        let looked_up = uses.looked_up.contains(&slot);
        counts.total += elements;
        counts.embedding += if looked_up { elements } else { 0 };
        counts.active += if looked_up && !uses.computed_with.contains(&slot) { 0 } else { elements };
    }
    counts
}

/// The parameter whose value a slot has.
fn parameter(module: &Module, slot: Slot) -> Slot {
    match module.slots[slot].role {
        SlotRole::Shadow(of) => of,
        _ => slot,
    }
}

#[derive(Default)]
struct Uses {
    looked_up: BTreeSet<Slot>,
    computed_with: BTreeSet<Slot>,
    /// Calls that were followed, with what they were called with.
    known: BTreeSet<(Func, Vec<Option<Slot>>)>,
}

impl Uses {
    /// Every use in a function whose parameters have the values of these slots.
    fn follow(&mut self, module: &Module, func: Func, args: &[Option<Slot>]) {
        if !self.known.insert((func, args.to_vec())) {
            return;
        }
        let g = &module.funcs[func];
        let mut slots: std::collections::HashMap<_, _> =
            g.params.iter().zip(args).filter_map(|(value, slot)| Some((*value, (*slot)?))).collect();
        for node in g.nodes.values() {
            let of = |value| slots.get(value).copied();
            match node.op {
                Op::Call { func, .. } => {
                    let args: Vec<Option<Slot>> = node.args.iter().map(of).collect();
                    self.follow(module, func, &args);
                }
                // The same values, in another dtype or under other axes.
                Op::Cast | Op::Reshape => {
                    if let Some(slot) = node.args.first().and_then(of) {
                        slots.insert(node.results[0], slot);
                    }
                }
                Op::Gather => {
                    self.looked_up.extend(node.args.first().and_then(of));
                    self.computed_with.extend(node.args.get(1).and_then(of));
                }
                _ => self.computed_with.extend(node.args.iter().filter_map(of)),
            }
        }
    }
}
