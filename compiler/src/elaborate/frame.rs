//! Graphs under construction: what they read from outside becomes a parameter when it is first asked for.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use mngc_dsl::Span;

use super::value::{Instance, Mask, Tensor, Value};
use super::{Elab, Fail, Res, fail, fail_help};
use crate::ir::{self, Builder, DType, Graph, HostExpr, Slot, Type};

/// Where a parameter of a graph comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// A slot.
    Slot(Slot),
    /// A slot of the instance that the graph was made for, by position: instances that are alike share graphs.
    Own(usize),
    /// An argument of the call, by position among its tensors.
    Arg(usize),
    /// A number that the host computes.
    Scalar(Arc<HostExpr>),
}

/// A graph under construction.
#[derive(Debug)]
pub(crate) struct Frame {
    pub id: u32,
    pub graph: Graph,
    /// One for each parameter of the graph.
    pub sources: Vec<Source>,
    known: HashMap<Source, ir::Value>,
    /// Slots as they are computed with, where that is another dtype than they are stored in.
    reads: HashMap<Slot, ir::Value>,
    /// The dtype that values live in.
    pub compute: DType,
    /// The block instance that it is the function of.
    pub instance: Option<Rc<Instance>>,
    /// It draws initial values: a slot is read as what was drawn for it, and there is no step yet.
    pub initial: bool,
}

impl Elab {
    /// A new, empty graph.
    pub fn new_frame(&mut self, name: &str, compute: DType, instance: Option<Rc<Instance>>) -> Frame {
        self.next_frame += 1;
        Frame {
            id: self.next_frame,
            graph: Graph::new(name),
            sources: Vec::new(),
            known: HashMap::new(),
            reads: HashMap::new(),
            compute,
            instance,
            initial: false,
        }
    }

    /// The graph under construction.
    pub fn frame(&mut self, span: Span) -> Res<&mut Frame> {
        match self.frames.last_mut() {
            Some(frame) => Ok(frame),
            None => fail_help(
                "no-tensor-here",
                span,
                "tensors are computed in models, blocks, optimizers and `train` only",
                "not here",
                "a constant is a number, a string, a list or a dtype",
            ),
        }
    }

    /// A builder at the end of the graph under construction.
    pub fn build(&mut self, span: Span) -> Res<Builder<'_>> {
        self.frame(span)?;
        let frame = self.frames.last_mut().ok_or(Fail::Silent)?;
        Ok(Builder::new(&mut self.m, &mut frame.graph, Some(span)))
    }

    /// A value of the graph under construction, as a tensor.
    pub fn staged(&mut self, v: ir::Value) -> Tensor {
        let frame = self.frames.last().map_or(0, |f| f.id);
        Tensor { v, frame, storage: None }
    }

    /// The type of a tensor of the graph under construction.
    pub fn ty(&self, t: Tensor) -> Type {
        match self.frames.last() {
            Some(frame) => frame.graph.ty(t.v).clone(),
            None => Type::scalar(DType::F32),
        }
    }

    /// The graph's parameter for something outside, added when it is new.
    pub fn outside(&mut self, source: Source, name: &str, ty: Type, span: Span) -> Res<ir::Value> {
        let frame = self.frame(span)?;
        if let Some(&v) = frame.known.get(&source) {
            return Ok(v);
        }
        let v = frame.graph.param(name, ty);
        frame.sources.push(source.clone());
        frame.known.insert(source, v);
        Ok(v)
    }

    /// A slot as it is stored.
    pub fn slot_value(&mut self, slot: Slot, span: Span) -> Res<ir::Value> {
        let data = &self.m.slots[slot];
        let (full, ty) = (data.name.clone(), data.ty.clone());
        if self.frame(span)?.initial {
            // One that is missing could not be drawn, which was reported.
            let drawn = self.drawn.iter().find(|(s, _)| *s == slot).map(|(_, v)| *v);
            return drawn.ok_or(Fail::Silent);
        }
        let frame = self.frame(span)?;
        let own = frame.instance.as_ref().and_then(|i| i.slots.iter().position(|&s| s == slot).map(|n| (n, i.clone())));
        match own {
            Some((n, instance)) => {
                let name = full.strip_prefix(&format!("{}.", instance.prefix)).unwrap_or(&full).to_string();
                self.outside(Source::Own(n), &name, ty, span)
            }
            None => self.outside(Source::Slot(slot), &full, ty, span),
        }
    }

    /// A slot as it is computed with: one whose declaration gave no dtype is read in the compute dtype.
    pub fn read(&mut self, slot: Slot, span: Span) -> Res<Tensor> {
        let v = self.slot_value(slot, span)?;
        let storage = self.m.slots[slot].ty.dtype;
        let typed = self.typed.get(&slot).copied().unwrap_or(true);
        let frame = self.frame(span)?;
        let (compute, id) = (frame.compute, frame.id);
        if typed || storage == compute {
            return Ok(Tensor { v, frame: id, storage: Some(storage) });
        }
        if let Some(&v) = frame.reads.get(&slot) {
            return Ok(Tensor { v, frame: id, storage: Some(storage) });
        }
        let cast = self.build(span)?.cast(v, compute);
        self.frame(span)?.reads.insert(slot, cast);
        Ok(Tensor { v: cast, frame: id, storage: Some(storage) })
    }

    /// A host number as a rank-0 f32.
    pub fn scalar(&mut self, expr: &Arc<HostExpr>, span: Span) -> Res<ir::Value> {
        if let Some(x) = expr.constant() {
            return Ok(self.build(span)?.constant(x, DType::F32));
        }
        if self.frame(span)?.initial {
            return fail_help(
                "depends-on-step",
                span,
                "an initial value is drawn before the first step",
                "this depends on `step`",
                "a number that changes while training stands in the model's body, in an optimizer or in `train`",
            );
        }
        self.outside(Source::Scalar(expr.clone()), "scalar", Type::scalar(DType::F32), span)
    }

    /// A value as a tensor: parameters are read, fills are made; numbers are not tensors.
    pub fn tensor(&mut self, value: &Value, span: Span) -> Res<Tensor> {
        match value {
            Value::Tensor(t) => {
                let here = self.frame(span)?.id;
                if t.frame == here {
                    Ok(*t)
                } else {
                    fail_help(
                        "foreign-tensor",
                        span,
                        "this tensor belongs to another function",
                        "cannot be used here",
                        match self.frame(span)?.initial {
                            true => "an initial value is made of numbers and of parameters that are declared before",
                            false => "hand it over as an argument",
                        },
                    )
                }
            }
            Value::Param(slot) => self.read(*slot, span),
            Value::Fill(ty, x) => {
                let v = self.build(span)?.full(*x, ty.clone());
                let mut t = self.staged(v);
                t.storage = Some(ty.dtype);
                Ok(t)
            }
            Value::Poison => Err(Fail::Silent),
            Value::None => {
                let help = "`x or y` gives y where x is none; `if x == none { … }` asks";
                fail_help("not-a-tensor", span, "a tensor is needed, not none", "none", help)
            }
            other => fail("not-a-tensor", span, format!("a tensor is needed, not {}", other.kind()), other.kind()),
        }
    }

    /// Everything inside that stands for a tensor, made one of the graph under construction.
    pub fn materialise(&mut self, value: &Value, span: Span) -> Res<Value> {
        Ok(match value {
            Value::Param(_) | Value::Fill(..) => Value::Tensor(self.tensor(value, span)?),
            Value::List(items) => Value::list(self.materialise_all(items, span)?),
            Value::Tuple(items) => Value::Tuple(Rc::new(self.materialise_all(items, span)?)),
            Value::Record(fields) => {
                let fields = fields.iter().map(|(n, v)| Ok((n.clone(), self.materialise(v, span)?)));
                Value::Record(Rc::new(fields.collect::<Res<_>>()?))
            }
            Value::Mask(mask) => {
                let window = match &mask.window {
                    Some(w) => Some(Box::new(self.materialise(w, span)?)),
                    None => None,
                };
                Value::Mask(Rc::new(Mask { causal: mask.causal, documents: mask.documents, window }))
            }
            other => other.clone(),
        })
    }

    fn materialise_all(&mut self, items: &[Value], span: Span) -> Res<Vec<Value>> {
        items.iter().map(|v| self.materialise(v, span)).collect()
    }
}
