//! The oracle as a backend: slots on the host, entries run by the interpreter.

use std::collections::BTreeMap;
use std::sync::Arc;

use mngc_compiler::ir::{Entry, EntryKey, Graph, Input, Module, Output, Slot, SlotData, Type};

use super::{Context, Observer, Precision, evaluate};
use crate::backend::Backend;
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// The oracle with its slots.
#[derive(Clone, Debug)]
pub struct Reference {
    module: Arc<Module>,
    seed: u64,
    precision: Precision,
    slots: BTreeMap<Slot, Tensor>,
}

impl Reference {
    /// An oracle whose slots are still empty.
    pub fn new(module: impl Into<Arc<Module>>, seed: u64, precision: Precision) -> Reference {
        Reference { module: module.into(), seed, precision, slots: BTreeMap::new() }
    }

    /// The module that it runs.
    pub fn module(&self) -> &Module {
        &self.module
    }

    /// As [`Backend::run`], with somebody who looks on.
    pub fn run_observed(
        &mut self,
        entry: EntryKey,
        inputs: &BTreeMap<String, Tensor>,
        step: u64,
        observer: Option<Observer>,
    ) -> Result<BTreeMap<String, Tensor>> {
        let module = Arc::clone(&self.module);
        let bound = module.entries.get(&entry).ok_or(Error::NoEntry(entry))?;
        let graph = module.funcs.get(bound.func).ok_or(Error::NoFunc(bound.func))?;
        self.check_binding(bound, graph, inputs)?;
        let bindings = bound.inputs.iter().zip(&graph.params);
        let args = bindings.map(|(input, &param)| self.argument(entry, input, graph.ty(param), inputs, step));
        let args = args.collect::<Result<Vec<Tensor>>>()?;
        let ctx = Context { precision: self.precision, seed: self.seed, step, observer };
        let results = evaluate(&module, bound.func, args, &ctx)?;
        let mut out = BTreeMap::new();
        for (output, tensor) in bound.outputs.iter().zip(results) {
            match output {
                Output::Slot(slot) => drop(self.slots.insert(*slot, tensor)),
                Output::Host(name) => drop(out.insert(name.clone(), tensor)),
            }
        }
        Ok(out)
    }

    /// What the verifier would find wrong with an entry, as far as slots could be spoilt by it; and unknown inputs.
    fn check_binding(&self, entry: &Entry, graph: &Graph, inputs: &BTreeMap<String, Tensor>) -> Result<()> {
        let fault = |fault: String| Error::Entry { entry: entry.key, fault };
        if entry.inputs.len() != graph.params.len() || entry.outputs.len() != graph.results.len() {
            return Err(fault("not every parameter and result of the function is bound".into()));
        }
        for (output, &result) in entry.outputs.iter().zip(&graph.results) {
            if let Output::Slot(slot) = output {
                let found = graph.values.get(result).map(|value| &value.ty);
                if found != Some(&self.slot_data(*slot)?.ty) {
                    return Err(fault(format!("{result} is written to {slot}, which has another type")));
                }
            }
        }
        let known = |name: &String| entry.inputs.iter().any(|i| matches!(i, Input::Batch(n) if n == name));
        match inputs.keys().find(|name| !known(name)) {
            Some(name) => Err(Error::UnknownInput { entry: entry.key, name: name.clone() }),
            None => Ok(()),
        }
    }

    /// The value of a parameter of an entry's function.
    fn argument(
        &self,
        entry: EntryKey,
        input: &Input,
        ty: &Type,
        inputs: &BTreeMap<String, Tensor>,
        step: u64,
    ) -> Result<Tensor> {
        match input {
            Input::Slot(slot) => self.slot(*slot),
            Input::Batch(name) => {
                let tensor = inputs.get(name).ok_or_else(|| Error::MissingInput { entry, name: name.clone() })?;
                tensor.expect(|| format!("input `{name}`"), ty.dtype, &self.module.dims.sizes(&ty.dims))?;
                Ok(tensor.clone())
            }
            Input::Scalar(scalar) => {
                let data = self.module.scalars.get(*scalar);
                let data = data.ok_or_else(|| Error::Entry { entry, fault: format!("{scalar} does not exist") })?;
                Ok(Tensor::scalar(data.expr.eval(step)))
            }
        }
    }

    fn slot_data(&self, slot: Slot) -> Result<&SlotData> {
        self.module.slots.get(slot).ok_or_else(|| Error::NoSlot(slot.to_string()))
    }
}

impl Backend for Reference {
    fn name(&self) -> &'static str {
        "reference"
    }

    fn slot(&self, slot: Slot) -> Result<Tensor> {
        let data = self.slot_data(slot)?;
        self.slots.get(&slot).cloned().ok_or_else(|| Error::SlotUnset(data.name.clone()))
    }

    fn set_slot(&mut self, slot: Slot, value: Tensor) -> Result<()> {
        let data = self.slot_data(slot)?;
        let sizes = self.module.dims.sizes(&data.ty.dims);
        value.expect(|| format!("slot `{}`", data.name), data.ty.dtype, &sizes)?;
        let value = Context::new(self.precision, self.seed, 0).round(value, &data.ty);
        self.slots.insert(slot, value);
        Ok(())
    }

    fn run(
        &mut self,
        entry: EntryKey,
        inputs: &BTreeMap<String, Tensor>,
        step: u64,
    ) -> Result<BTreeMap<String, Tensor>> {
        self.run_observed(entry, inputs, step, None)
    }
}
