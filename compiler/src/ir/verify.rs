//! Invariants of a module. After [`module`] passes, passes and backends may rely on:
//!
//! 1. Every operand is defined before its use, in the same graph; every id that a graph, a slot's role or an entry names exists.
//! 2. Every node has a result and obeys the typing rule of its op (`typing.rs`), for the stage that the module has reached.
//! 3. A graph calls only graphs that stand before it, so calls never recurse.
//! 4. Parameter and result names are as many as parameters and results; results are values of the graph.
//! 5. A hand-written gradient takes parameters, results and float cotangents, and gives float cotangents.
//! 6. A gradient slot is f32 with its parameter's axes; a shadow has its parameter's axes, and a parameter at most one of a dtype;
//!    gradients, shadows and optimizer slots belong to a parameter; slot names are unique, and no slot has a token or sequence axis.
//! 7. An entry binds each parameter and result of its function, with the slot's own type; it reads a slot at most once and writes
//!    it at most once, so that the write may take the read's place (donation); a host scalar is a rank-0 f32. Parameters that are
//!    bound to one batch input have one type, and host outputs have names of their own.
//! 8. Only `init` and `refresh` write shadows without writing their parameter; whoever writes a parameter writes its shadow.
//! 9. The `init` of stage 0 reads nothing that another entry writes: it has no slot inputs, and writes every slot.

use std::collections::{HashMap, HashSet};
use std::fmt;

use cranelift_entity::EntityRef;

use super::entities::{Func, Node, Slot};
use super::graph::{Entry, EntryKind, Graph, Input, Module, Output, SlotRole, ValueDef};
use super::print;
use super::types::{DType, DimRole, Type};
use super::typing::{self, Stage};

/// A broken invariant: a fault of the compiler, or of a hand-written text form.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub struct VerifierError {
    /// The function, where one is concerned.
    pub func: Option<Func>,
    /// The node as printed, where one is concerned.
    pub node: Option<String>,
    /// What is broken.
    pub message: String,
}

impl fmt::Display for VerifierError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(node) = &self.node {
            write!(f, " in `{node}`")?;
        }
        if let Some(func) = self.func {
            write!(f, " of {func}")?;
        }
        Ok(())
    }
}

/// All broken invariants of a module.
pub fn module(m: &Module, stage: Stage) -> Result<(), Vec<VerifierError>> {
    let mut v = Verifier { m, stage, errors: Vec::new() };
    v.slots();
    for (func, g) in m.funcs.iter() {
        v.graph(func, g);
    }
    for entry in m.entries.values() {
        v.entry(entry);
    }
    if v.errors.is_empty() { Ok(()) } else { Err(v.errors) }
}

struct Verifier<'a> {
    m: &'a Module,
    stage: Stage,
    errors: Vec<VerifierError>,
}

impl Verifier<'_> {
    fn fault(&mut self, func: Option<Func>, node: Option<String>, message: impl Into<String>) {
        self.errors.push(VerifierError { func, node, message: message.into() });
    }

    fn slots(&mut self) {
        let mut names = HashSet::new();
        let mut shadows = HashSet::new();
        for (id, slot) in self.m.slots.iter() {
            if let SlotRole::Shadow(of) = slot.role
                && !shadows.insert((of, slot.ty.dtype))
            {
                self.fault(None, None, format!("{id} is a second shadow of {of} as {}", slot.ty.dtype));
            }
            if !names.insert(&slot.name) {
                self.fault(None, None, format!("two slots are named {}", slot.name));
            }
            if slot.ty.dims.iter().any(|&d| self.m.dims.role(d) != DimRole::Feature) {
                self.fault(None, None, format!("{id} has an axis that is not of features"));
            }
            let (of, same_axes, f32_only) = match slot.role {
                SlotRole::Param | SlotRole::State => continue,
                SlotRole::Gradient(of) => (of, true, true),
                SlotRole::Shadow(of) => (of, true, false),
                SlotRole::Optimizer(of) => (of, false, false),
            };
            match self.m.slots.get(of) {
                Some(param) => {
                    if param.role != SlotRole::Param {
                        self.fault(None, None, format!("{id} belongs to {of}, which is no parameter"));
                    }
                    if same_axes && param.ty.dims != slot.ty.dims || (f32_only && slot.ty.dtype != DType::F32) {
                        self.fault(None, None, format!("{id} does not have the shape of {of} or is not f32"));
                    }
                }
                None => self.fault(None, None, format!("{id} belongs to {of}, which does not exist")),
            }
        }
    }

    fn graph(&mut self, func: Func, g: &Graph) {
        if g.param_names.len() != g.params.len() || g.result_names.len() != g.results.len() {
            self.fault(Some(func), None, "names do not match parameters or results");
        }
        for (i, &p) in g.params.iter().enumerate() {
            if g.values.get(p).map(|v| v.def) != Some(ValueDef::Param(i)) {
                self.fault(Some(func), None, format!("{p} is not parameter {i}"));
            }
        }
        for (node, data) in g.nodes.iter() {
            self.node(func, g, node, data);
        }
        for &r in &g.results {
            if g.values.get(r).is_none() {
                self.fault(Some(func), None, format!("result {r} does not exist"));
            }
        }
        if let Some(gradient) = g.gradient {
            self.gradient(func, g, gradient);
        }
    }

    fn node(&mut self, func: Func, g: &Graph, node: Node, data: &super::graph::NodeData) {
        for &arg in &data.args {
            let fine = match g.values.get(arg).map(|v| v.def) {
                Some(ValueDef::Param(_)) => true,
                Some(ValueDef::Result(def, _)) => def.index() < node.index(),
                None => false,
            };
            if !fine {
                self.fault(Some(func), None, format!("{node} uses {arg} before it is defined"));
                return;
            }
        }
        if data.results.is_empty() {
            self.fault(Some(func), None, format!("{node} has no result"));
            return;
        }
        for (i, &r) in data.results.iter().enumerate() {
            if g.values.get(r).map(|v| v.def) != Some(ValueDef::Result(node, i)) {
                self.fault(Some(func), None, format!("{r} is not result {i} of {node}"));
                return;
            }
        }
        if let super::op::Op::Call { func: callee, .. } = data.op
            && callee.index() >= func.index()
        {
            self.fault(Some(func), None, format!("{node} calls {callee}, which does not stand before it"));
            return;
        }
        let args: Vec<&Type> = data.args.iter().map(|&a| g.ty(a)).collect();
        let results: Vec<&Type> = data.results.iter().map(|&r| g.ty(r)).collect();
        if let Err(message) = typing::check(self.m, self.stage, &data.op, &args, &results) {
            self.fault(Some(func), Some(print::node(self.m, g, data)), message);
        }
    }

    fn gradient(&mut self, func: Func, g: &Graph, gradient: Func) {
        if gradient.index() >= func.index() {
            self.fault(Some(func), None, format!("gradient {gradient} does not stand before it"));
            return;
        }
        let grad = &self.m.funcs[gradient];
        let is_float = |v: &super::Value| g.ty(*v).dtype.is_float();
        let cotangents = g.results.iter().filter(|v| is_float(v));
        let want: Vec<&Type> = g.params.iter().chain(&g.results).chain(cotangents).map(|&v| g.ty(v)).collect();
        let got: Vec<&Type> = grad.params.iter().map(|&v| grad.ty(v)).collect();
        let float_params: Vec<&Type> = g.params.iter().filter(|v| is_float(v)).map(|&v| g.ty(v)).collect();
        let results: Vec<&Type> = grad.results.iter().map(|&v| grad.ty(v)).collect();
        let dims = |t: &[&Type]| t.iter().map(|t| t.dims.clone()).collect::<Vec<_>>();
        if dims(&want) != dims(&got) || dims(&float_params) != dims(&results) {
            self.fault(Some(func), None, format!("{gradient} does not have the shape of its gradient"));
        }
    }

    fn entry(&mut self, e: &Entry) {
        let Some(g) = self.m.funcs.get(e.func) else {
            self.fault(None, None, format!("entry {} runs {}, which does not exist", e.key.kind.name(), e.func));
            return;
        };
        let name = e.key.kind.name();
        if e.inputs.len() != g.params.len() || e.outputs.len() != g.results.len() {
            self.fault(Some(e.func), None, format!("entry {name} does not bind every parameter and result"));
            return;
        }
        let first = e.key == EntryKind::Init.into();
        let mut read = HashSet::new();
        let mut batch: HashMap<&str, &Type> = HashMap::new();
        for (input, &p) in e.inputs.iter().zip(&g.params) {
            let fine = match input {
                Input::Slot(s) => {
                    !first && self.m.slots.get(*s).is_some_and(|slot| slot.ty == *g.ty(p)) && read.insert(*s)
                }
                Input::Scalar(h) => self.m.scalars.get(*h).is_some() && *g.ty(p) == Type::scalar(DType::F32),
                Input::Batch(name) => batch.insert(name, g.ty(p)).is_none_or(|other| other == g.ty(p)),
            };
            if !fine {
                self.fault(
                    Some(e.func),
                    None,
                    format!("entry {name} binds {p} to {input:?} of another type, or twice"),
                );
            }
        }
        let mut written: HashSet<Slot> = HashSet::new();
        let mut handed: HashSet<&str> = HashSet::new();
        for (output, &r) in e.outputs.iter().zip(&g.results) {
            if let Output::Host(host) = output
                && !handed.insert(host)
            {
                self.fault(Some(e.func), None, format!("entry {name} hands out two results as `{host}`"));
            }
            if let Output::Slot(s) = output
                && !(self.m.slots.get(*s).is_some_and(|slot| slot.ty == *g.ty(r)) && written.insert(*s))
            {
                self.fault(Some(e.func), None, format!("entry {name} writes {r} to {s} of another type, or twice"));
            }
        }
        for (id, slot) in self.m.slots.iter() {
            if let SlotRole::Shadow(of) = slot.role
                && written.contains(&of)
                && !written.contains(&id)
            {
                self.fault(Some(e.func), None, format!("entry {name} writes {of} and leaves its shadow {id} stale"));
            }
            if let SlotRole::Shadow(of) = slot.role
                && written.contains(&id)
                && !written.contains(&of)
                && !matches!(e.key.kind, EntryKind::Init | EntryKind::Refresh)
            {
                self.fault(Some(e.func), None, format!("entry {name} writes the shadow {id} and not {of}"));
            }
            if first && !written.contains(&id) {
                self.fault(Some(e.func), None, format!("entry {name} leaves {id} without a value"));
            }
        }
    }
}
