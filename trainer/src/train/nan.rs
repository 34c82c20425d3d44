//! Finds where numbers stop being numbers: runs entries on the reference and looks at every result.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fmt;

use mngc_compiler::ir::{EntryKey, EntryKind, Func, Input, Module, Node, Op, Slot, SlotRole, Value};
use mngc_dsl::Span;
use mngc_runtime::{Precision, Reference, Tensor};

use super::initialize;
use crate::data::batch;
use crate::error::{Error, Result};
use crate::plan::Plan;

/// The first op whose result is not finite.
#[derive(Clone, Debug, PartialEq)]
pub struct Origin {
    /// What ran.
    pub entry: EntryKey,
    /// The step.
    pub step: u64,
    /// The op's name.
    pub op: &'static str,
    /// The function that it stands in: a block of the model, or the entry itself.
    pub function: String,
    /// What the parameters of that function have in common: `transformer.h.3.mlp`. Empty where it has none.
    pub layer: String,
    /// The place in the model file.
    pub loc: Option<Span>,
    /// Which element of the result, row-major.
    pub index: usize,
    /// Elements of the result that are not finite, and all of them.
    pub count: (usize, usize),
    /// The value: NaN or an infinity.
    pub value: f64,
    /// Where an infinity came up before this NaN.
    pub before: Option<Box<Origin>>,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Origin { step, op, function, layer, index, count: (bad, all), value, .. } = self;
        let what = if value.is_nan() { "NaN".to_string() } else { value.to_string() };
        write!(f, "the first {what} is a result of `{op}` in `{function}`")?;
        if !layer.is_empty() {
            write!(f, " of layer `{layer}`")?;
        }
        write!(f, ", in {} of step {step}: {bad} of {all} elements are not finite", self.entry.kind.name())?;
        write!(f, ", the first at index {index}")
    }
}

/// What a run of an entry showed.
#[derive(Debug, Default)]
struct Findings {
    /// The first infinity. It may be meant, as in a mask.
    infinity: Option<Origin>,
    /// The first NaN.
    nan: Option<Origin>,
}

/// Runs a step again on the reference, from the slots before it, with the validation that may follow. Gives the origin
/// of the numbers that are none, if the reference has some.
pub(super) fn locate(plan: &Plan, slots: &[(Slot, Tensor)], error: &Error) -> Result<Option<Origin>> {
    let Plan { program, options, .. } = plan;
    let Error::NotFinite { what, step, .. } = error else { return Ok(None) };
    let precision = if options.precision == "f64" { Precision::F64 } else { Precision::Rounded };
    let mut reference = Reference::new(program.module.clone(), options.seed, precision);
    initialize(&mut reference, &program.module, slots.to_vec())?;
    // A validation counts the updates before it, everything else the step that it is part of.
    let updates = if what == "val_loss" { *step } else { step + 1 };
    match updates.checked_sub(1).map(|step| replay_step(plan, &mut reference, step)).transpose()? {
        Some(Some(origin)) => Ok(Some(origin)),
        _ => replay_validation(plan, &mut reference, updates),
    }
}

fn replay_step(plan: &Plan, reference: &mut Reference, step: u64) -> Result<Option<Origin>> {
    let recipe = &plan.program.recipe;
    for micro_step in 0..recipe.micro_steps() {
        let first = step * recipe.sequences() as u64 + (micro_step * recipe.micro_sequences) as u64;
        let inputs = batch(&plan.data, first, recipe.micro_sequences, recipe.sequence)?.inputs();
        if let Some(origin) = run(reference, EntryKind::MicroStep, &inputs, step)? {
            return Ok(Some(origin));
        }
    }
    run(reference, EntryKind::Update, &BTreeMap::new(), step)
}

fn replay_validation(plan: &Plan, reference: &mut Reference, updates: u64) -> Result<Option<Origin>> {
    let due = plan.val.as_ref().filter(|_| plan.validates_after(updates));
    let Some((validation, shards)) = due else { return Ok(None) };
    for first in (0..validation.tokens / validation.sequence).step_by(validation.micro_sequences) {
        let inputs = batch(shards, first as u64, validation.micro_sequences, validation.sequence)?.inputs();
        if let Some(origin) = run(reference, EntryKind::Evaluate, &inputs, updates)? {
            return Ok(Some(origin));
        }
    }
    Ok(None)
}

/// The first element that is not finite, with how many there are.
fn not_finite(tensor: &Tensor) -> Option<(usize, f64, usize)> {
    let floats = tensor.as_floats()?;
    let index = floats.iter().position(|x| !x.is_finite())?;
    Some((index, floats[index], floats.iter().filter(|x| !x.is_finite()).count()))
}

/// Runs an entry and looks on. Infinities alone count where they reach a result of the entry.
fn run(
    backend: &mut Reference,
    kind: EntryKind,
    inputs: &BTreeMap<String, Tensor>,
    step: u64,
) -> Result<Option<Origin>> {
    let entry = EntryKey::from(kind);
    let module = backend.module().clone();
    let names = Names::new(&module, entry);
    let findings = RefCell::new(Findings::default());
    let reached = RefCell::new(false);
    let look = |path: &[(Func, Node)], results: &[Tensor]| {
        let Some(&(func, node)) = path.last() else { return };
        let data = &module.funcs[func].nodes[node];
        let outputs = &module.funcs[func].results;
        let mut bad =
            results.iter().zip(&data.results).filter_map(|(tensor, value)| Some((not_finite(tensor)?, tensor, value)));
        if path.len() == 1 && bad.clone().any(|(_, _, value)| outputs.contains(value)) {
            *reached.borrow_mut() = true;
        }
        if matches!(data.op, Op::Call { .. } | Op::Const { .. }) {
            return;
        }
        let Some(((index, value, count), tensor, _)) = bad.next() else { return };
        let mut found = findings.borrow_mut();
        let nan = tensor.as_floats().and_then(|floats| floats.iter().position(|x| x.is_nan()));
        let place = if nan.is_some() { &mut found.nan } else { &mut found.infinity };
        if place.is_none() {
            *place = Some(Origin {
                entry,
                step,
                op: data.op.name(),
                function: module.funcs[func].name.clone(),
                layer: names.layer(path),
                loc: data.loc.or_else(|| path.iter().rev().find_map(|&(f, n)| module.funcs[f].nodes[n].loc)),
                index: nan.unwrap_or(index),
                count: (count, tensor.len()),
                value: if nan.is_some() { f64::NAN } else { value },
                before: None,
            });
        }
        // What comes after a NaN was not there before it.
        if let Findings { nan: Some(nan), infinity } = &mut *found
            && nan.before.is_none()
        {
            nan.before = infinity.take().map(Box::new);
        }
    };
    let observed = backend.run_observed(entry, inputs, step, Some(&look));
    observed.map_err(|source| Error::Backend { entry: kind, source })?;
    let Findings { nan, infinity } = findings.into_inner();
    Ok(nan.or(infinity.filter(|_| reached.into_inner())))
}

/// Which parameters a function reads, along the calls that lead to it.
struct Names<'a> {
    module: &'a Module,
    /// Slots of the entry's parameters.
    slots: HashMap<Value, String>,
}

impl<'a> Names<'a> {
    fn new(module: &'a Module, key: EntryKey) -> Names<'a> {
        let Some(entry) = module.entries.get(&key) else { return Names { module, slots: HashMap::new() } };
        let slot = |(input, &param): (&Input, &Value)| match input {
            Input::Slot(slot) => match module.slots[*slot].role {
                SlotRole::Param | SlotRole::State => Some((param, module.slots[*slot].name.clone())),
                SlotRole::Shadow(of) | SlotRole::Gradient(of) | SlotRole::Optimizer(of) => {
                    Some((param, module.slots[of].name.clone()))
                }
            },
            _ => None,
        };
        let slots = entry.inputs.iter().zip(&module.funcs[entry.func].params).filter_map(slot).collect();
        Names { module, slots }
    }

    /// What the parameters have in common that the innermost function of a path is called with.
    fn layer(&self, path: &[(Func, Node)]) -> String {
        let mut known = self.slots.clone();
        for &(func, node) in path {
            let data = &self.module.funcs[func].nodes[node];
            let Op::Call { func: callee, .. } = data.op else { break };
            let params = &self.module.funcs[callee].params;
            let name = |(param, arg): (&Value, &Value)| known.get(arg).map(|name| (*param, name.clone()));
            known = params.iter().zip(&data.args).filter_map(name).collect();
        }
        if path.len() <= 1 {
            // In the entry itself, the parameters that the op reads.
            let args = path.first().map(|&(func, node)| &self.module.funcs[func].nodes[node].args);
            known.retain(|value, _| args.is_some_and(|args| args.contains(value)));
        }
        common_prefix(known.values())
    }
}

/// The dotted prefix that all names share.
fn common_prefix<'a>(mut names: impl Iterator<Item = &'a String>) -> String {
    let Some(first) = names.next() else { return String::new() };
    let mut parts: Vec<&str> = first.split('.').collect();
    for name in names {
        let same = parts.iter().zip(name.split('.')).take_while(|(a, b)| **a == *b).count();
        parts.truncate(same);
    }
    parts.join(".")
}

#[cfg(test)]
mod tests {
    use super::common_prefix;

    #[test]
    fn names_have_whole_parts_in_common() {
        let prefix = |names: &[&str]| common_prefix(names.iter().map(|n| n.to_string()).collect::<Vec<_>>().iter());
        assert_eq!(prefix(&["h.1.attn.c_q", "h.1.attn.c_k"]), "h.1.attn");
        assert_eq!(prefix(&["h.1.a", "h.10.a"]), "h");
        assert_eq!(prefix(&["a.b"]), "a.b");
        assert_eq!(prefix(&[]), "");
    }
}
