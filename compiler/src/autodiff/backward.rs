//! The backward half of a function while it is made: what it reads of the forward half, and the cotangents so far.

use cranelift_entity::SecondaryMap;
use mngc_dsl::Span;

use super::{Halves, append, cotangent_type, label};
use crate::ir::{BinaryOp, Builder, Graph, Module, Op, Type, Value, ValueDef};

/// What a parameter of the backward half stands for. The order is the order of the parameters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    /// A result of the forward half.
    Saved(usize),
    /// A parameter of the function.
    Arg(usize),
    /// The cotangent of a result of the function.
    Cotangent(usize),
}

/// A backward half that grows. Values of the forward half and of this one are different things of one type: methods say
/// which they mean.
pub(super) struct Backward<'a> {
    /// Owner of both halves.
    pub m: &'a mut Module,
    /// The forward half. Saved values are added to its results.
    pub forward: Graph,
    graph: Graph,
    /// Forward values that get a cotangent.
    live: SecondaryMap<Value, bool>,
    /// Forward values that are made here again rather than passed.
    repeated: SecondaryMap<Value, bool>,
    /// What stands for a forward value here.
    copies: SecondaryMap<Value, Option<Value>>,
    /// Sum of the contributions to a forward value's cotangent.
    cotangents: SecondaryMap<Value, Option<Value>>,
    inputs: Vec<(Source, Value)>,
    /// Where a forward value stands first among the results of the forward half: a search each time would be felt.
    places: SecondaryMap<Value, Option<usize>>,
    /// The place in the model file that new nodes get.
    pub loc: Option<Span>,
}

impl<'a> Backward<'a> {
    /// Nothing made yet. `live` names the forward values whose cotangents are kept.
    pub fn new(m: &'a mut Module, forward: Graph, live: SecondaryMap<Value, bool>) -> Self {
        let repeated = repeated(&forward);
        let mut places = SecondaryMap::new();
        for (place, &result) in forward.results.iter().enumerate().rev() {
            places[result] = Some(place);
        }
        Backward {
            m,
            forward,
            graph: Graph::default(),
            live,
            repeated,
            copies: SecondaryMap::new(),
            cotangents: SecondaryMap::new(),
            inputs: Vec::new(),
            places,
            loc: None,
        }
    }

    /// A builder at the end of the backward half.
    pub fn build(&mut self) -> Builder<'_> {
        Builder::new(self.m, &mut self.graph, self.loc)
    }

    /// Whether a forward value gets a cotangent.
    pub fn is_live(&self, forward: Value) -> bool {
        self.live[forward]
    }

    /// The cotangent of a forward value as far as it is summed up.
    pub fn cotangent(&self, forward: Value) -> Option<Value> {
        self.cotangents[forward]
    }

    /// The type of a forward value's cotangent.
    pub fn cotangent_type(&self, forward: Value) -> Type {
        cotangent_type(&self.m.dims, self.forward.ty(forward))
    }

    /// The parameter for the cotangent of a result of the function.
    pub fn cotangent_of_result(&mut self, index: usize) -> Value {
        let ty = self.cotangent_type(self.forward.results[index]);
        let name = format!("d.{}", label(&self.forward.result_names[index], index));
        self.input(Source::Cotangent(index), name, ty)
    }

    fn input(&mut self, source: Source, name: String, ty: Type) -> Value {
        let value = self.graph.param(name, ty);
        self.inputs.push((source, value));
        value
    }

    /// The value that stands for a forward value: a parameter for one that is passed or saved, else a repeated node.
    pub fn need(&mut self, forward: Value) -> Value {
        // Free ops may be chained to any length: no recursion.
        let mut pending = vec![forward];
        while let Some(&value) = pending.last() {
            if self.copies[value].is_none() {
                let missing = self.missing(value);
                if !missing.is_empty() {
                    pending.extend(missing);
                    continue;
                }
                self.copies[value] = Some(self.copy(value));
            }
            pending.pop();
        }
        self.copies[forward].expect("made above")
    }

    /// Forward values that must be here before `value` can be copied.
    fn missing(&self, value: Value) -> Vec<Value> {
        match self.forward.values[value].def {
            ValueDef::Result(node, _) if self.repeated[value] => {
                let args = &self.forward.nodes[node].args;
                args.iter().copied().filter(|&arg| self.copies[arg].is_none()).collect()
            }
            _ => Vec::new(),
        }
    }

    fn copy(&mut self, value: Value) -> Value {
        let ty = self.forward.ty(value).clone();
        match self.forward.values[value].def {
            ValueDef::Param(i) => self.input(Source::Arg(i), self.forward.param_names[i].clone(), ty),
            ValueDef::Result(node, _) if self.repeated[value] => {
                let data = &self.forward.nodes[node];
                let args = data.args.iter().map(|&arg| self.copies[arg].expect("copied before")).collect();
                self.graph.push1(data.op.clone(), args, ty, data.loc)
            }
            ValueDef::Result(..) => {
                let place = self.places[value].unwrap_or(self.forward.results.len());
                if place == self.forward.results.len() {
                    self.forward.result("", value);
                    self.places[value] = Some(place);
                }
                self.saved(place)
            }
        }
    }

    /// The value that stands for a result of the function, without anything but that being saved.
    pub fn need_result(&mut self, index: usize) -> Value {
        let forward = self.forward.results[index];
        match (self.copies[forward], self.forward.values[forward].def) {
            (Some(copy), _) => copy,
            (None, ValueDef::Param(_)) => self.need(forward),
            (None, ValueDef::Result(..)) => {
                let copy = self.saved(index);
                self.copies[forward] = Some(copy);
                copy
            }
        }
    }

    fn saved(&mut self, place: usize) -> Value {
        let name = match self.forward.result_names[place].as_str() {
            "" => format!("saved.{place}"),
            name => name.to_string(),
        };
        let ty = self.forward.ty(self.forward.results[place]).clone();
        self.input(Source::Saved(place), name, ty)
    }

    /// Adds a value, rounded to the dtype of cotangents, to the cotangent of a forward value, if that gets one.
    pub fn give(&mut self, forward: Value, contribution: Value) {
        if !self.live[forward] {
            return;
        }
        let ty = self.cotangent_type(forward);
        let before = self.cotangents[forward];
        let mut b = self.build();
        let contribution = b.cast(contribution, ty.dtype);
        let sum = match before {
            Some(before) => b.push1(Op::Binary(BinaryOp::Add), vec![before, contribution], ty),
            // Feature axes of one size may have different names; those of the value are what a reader expects.
            None => b.reshape(contribution, &ty.dims),
        };
        self.cotangents[forward] = Some(sum);
    }

    /// Both halves, the backward one with the gradients of the wanted parameters as its results.
    pub fn finish(mut self, wrt: &[bool]) -> Halves {
        let mut results = Vec::new();
        for (i, _) in wrt.iter().enumerate().filter(|(_, wanted)| **wanted) {
            let param = self.forward.params[i];
            let ty = self.cotangent_type(param);
            let gradient = self.cotangents[param].unwrap_or_else(|| self.build().full(0.0, ty));
            results.push((format!("grad.{}", label(&self.forward.param_names[i], i)), gradient));
        }
        for (name, value) in results {
            self.graph.result(name, value);
        }
        // Inputs were met in the order of the sweep.
        let mut order: Vec<usize> = (0..self.inputs.len()).collect();
        order.sort_by_key(|&i| self.inputs[i].0);
        let mut backward = Graph::default();
        let mut args = vec![Value::from_u32(0); order.len()];
        for i in order.iter().copied() {
            let ty = self.graph.ty(self.inputs[i].1).clone();
            args[i] = backward.param(self.graph.param_names[i].clone(), ty);
        }
        let values = append(&mut backward, &self.graph, &args);
        for (name, value) in self.graph.result_names.drain(..).zip(values) {
            backward.result(name, value);
        }
        let mut halves = Halves { forward: self.forward, backward, saved: Vec::new(), args: Vec::new() };
        for i in order {
            match self.inputs[i].0 {
                Source::Saved(place) => halves.saved.push(place),
                Source::Arg(param) => halves.args.push(param),
                Source::Cotangent(_) => {}
            }
        }
        halves
    }
}

/// Values that are repeated rather than saved: results of free ops, and casts of what needs no saving. Those are weights
/// above all, whose casts a later pass shares between all that read them.
fn repeated(forward: &Graph) -> SecondaryMap<Value, bool> {
    let (mut repeated, mut at_hand) = (SecondaryMap::new(), SecondaryMap::new());
    for &param in &forward.params {
        at_hand[param] = true;
    }
    for data in forward.nodes.values() {
        let is_near = data.args.iter().all(|&arg| at_hand[arg]);
        for &result in &data.results {
            at_hand[result] = is_near && (data.op.is_free() || data.op == Op::Cast);
            repeated[result] = at_hand[result] || data.op.is_free();
        }
    }
    repeated
}
