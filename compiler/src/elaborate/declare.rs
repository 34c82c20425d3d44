//! `param`, `use` and `state`: what makes slots.

use std::rc::Rc;

use mngc_dsl::{Diagnostic, Span, ast};

use super::stmt::{Flow, misplaced};
use super::value::{Init, Instance, Kind, Template, Value, key_part, signature_of};
use super::{Elab, Fail, Res, fail, fail_help};
use crate::ir::{self, DType, Distribution, F64, Op, Slot, SlotData, SlotRole, Type};

/// The part of the model whose parameters are being declared.
#[derive(Debug)]
pub(crate) struct Owner {
    /// Dotted name before those of its parameters; empty for the model itself.
    pub prefix: String,
    pub slots: Vec<Slot>,
}

/// A state that an optimizer declares.
#[derive(Clone, Debug)]
pub(crate) struct StateDecl {
    pub name: String,
    pub span: Span,
    pub ty: Type,
    pub fill: f64,
}

/// What a model, block or optimizer under elaboration has declared.
#[derive(Debug, Default)]
pub(crate) struct Declared {
    pub owners: Vec<Owner>,
    /// Of the optimizer that runs; none outside of one.
    pub states: Option<Vec<StateDecl>>,
    /// Names of the optimizer that runs: its tensors, hyper-parameters and states, which nothing may hide.
    pub reserved: Vec<(ast::Ident, &'static str)>,
    /// Arguments that the optimizer's function has so far.
    pub arguments: usize,
}

impl Elab {
    pub fn declare_params(&mut self, names: &[ast::Path], ty: &ast::TypeExpr, init: &ast::Expr, span: Span) -> Res<()> {
        let Some(owner) = self.declared.owners.last() else {
            return misplaced(span, "`param` stands in a model or a block");
        };
        let prefix = owner.prefix.clone();
        if ty.or_none {
            return fail("none-here", ty.span, "a parameter cannot be none", "here");
        }
        let dims = self.declared_dims(ty, "an axis of a parameter")?;
        if self.token_position(&dims).is_some() {
            return fail_help(
                "sequence-parameter",
                ty.span,
                "a parameter cannot have the axis T",
                "an axis of the sequence",
                "T differs between training and validation: use a constant",
            );
        }
        let dtype = match &ty.dtype {
            Some(e) => self.dtype(e)?,
            None => self.master,
        };
        if !dtype.is_float() {
            return fail("dtype", ty.span, format!("a parameter is a float, not {dtype}"), "here");
        }
        let data_type = Type::new(dtype, dims);
        for name in names {
            let full = if prefix.is_empty() { name.text.clone() } else { format!("{prefix}.{}", name.text) };
            let slot = self.declare_slot(&full, data_type.clone(), ty.dtype.is_some(), name.span)?;
            if self.declaring {
                self.draw(slot, init)?;
            }
            if let Some(owner) = self.declared.owners.last_mut() {
                owner.slots.push(slot);
            }
            self.bind(&name.text, Value::Param(slot), Kind::Fixed, name.span);
        }
        Ok(())
    }

    fn declare_slot(&mut self, full: &str, ty: Type, typed: bool, span: Span) -> Res<Slot> {
        if !self.declaring {
            return match self.slots.get(full) {
                Some(&(slot, _)) if self.m.slots[slot].ty == ty => Ok(slot),
                _ => fail(
                    "sequence-parameter",
                    span,
                    format!("parameter `{full}` depends on the length of the sequence"),
                    "another one for validation than for training",
                ),
            };
        }
        let clash = |other: &str| {
            other == full
                || other.strip_prefix(full).is_some_and(|r| r.starts_with('.'))
                || full.strip_prefix(other).is_some_and(|r| r.starts_with('.'))
        };
        if let Some((other, &(_, old))) = self.slots.iter().find(|(n, _)| clash(n)) {
            let message = if other == full {
                format!("there are two parameters named `{full}`")
            } else {
                format!("`{full}` and `{other}` cannot both be: one is part of the other's name")
            };
            return Err(Diagnostic::error("duplicate", span, message, "the second").label(old, "the first").into());
        }
        let slot = self.m.slots.push(SlotData { name: full.into(), role: SlotRole::Param, ty, loc: Some(span) });
        self.slots.insert(full.into(), (slot, span));
        self.typed.insert(slot, typed);
        Ok(slot)
    }

    /// Stages the initial value of a parameter in the graph of `init`.
    fn draw(&mut self, slot: Slot, init: &ast::Expr) -> Res<()> {
        let Some(frame) = self.init.take() else { return Err(Fail::Silent) };
        let outer = std::mem::replace(&mut self.frames, vec![frame]);
        let step = std::mem::replace(&mut self.step, false);
        let result = self.eval(init).and_then(|value| self.initial(slot, value, init.span));
        self.step = step;
        self.init = self.frames.pop();
        self.frames = outer;
        self.drawn.push((slot, result?));
        Ok(())
    }

    fn initial(&mut self, slot: Slot, value: Value, span: Span) -> Res<ir::Value> {
        let (name, ty) = (self.m.slots[slot].name.clone(), self.m.slots[slot].ty.clone());
        match value {
            Value::Init(Init::Constant(x)) | Value::Num(x, _) => {
                finite(x, "an initial value", span)?;
                Ok(self.build(span)?.full(x, ty))
            }
            Value::Init(Init::Normal(mean, deviation)) => {
                let distribution = Distribution::Normal(F64(mean), F64(deviation));
                Ok(self.build(span)?.push1(Op::Random { distribution, name }, vec![], ty))
            }
            Value::Init(Init::Uniform(low, high)) => {
                let distribution = Distribution::Uniform(F64(low), F64(high));
                Ok(self.build(span)?.push1(Op::Random { distribution, name }, vec![], ty))
            }
            Value::List(_) => {
                let mut numbers = Vec::new();
                let mut sizes = Vec::new();
                flatten(&value, 0, &mut sizes, &mut numbers, span)?;
                numbers.iter().try_for_each(|&x| finite(x, "an initial value", span))?;
                if sizes != self.m.dims.sizes(&ty.dims) {
                    let message = format!("`{name}` is {}, and its initial value has shape {sizes:?}", self.show(&ty));
                    return fail("wrong-length", span, message, "does not fit");
                }
                let one = self.m.dims.anonymous(1);
                let flat = self.m.dims.anonymous(numbers.len());
                let mut b = self.build(span)?;
                let parts: Vec<ir::Value> = numbers.iter().map(|&x| b.full(x, Type::new(ty.dtype, [one]))).collect();
                let row = match parts.as_slice() {
                    [only] => *only,
                    _ => b.push1(Op::Concat { axis: 0 }, parts, Type::new(ty.dtype, [flat])),
                };
                Ok(b.reshape(row, &ty.dims))
            }
            Value::Tensor(_) | Value::Fill(..) | Value::Param(_) => {
                if let Value::Fill(_, x) = value {
                    finite(x, "an initial value", span)?;
                }
                let t = self.tensor(&value, span)?;
                let actual = self.ty(t);
                if !self.m.dims.same_shape(&actual.dims, &ty.dims) {
                    let message =
                        format!("`{name}` is {}, and its initial value {}", self.show(&ty), self.show(&actual));
                    return fail("axes", span, message, "does not fit");
                }
                let mut b = self.build(span)?;
                let cast = b.cast(t.v, ty.dtype);
                Ok(b.reshape(cast, &ty.dims))
            }
            Value::Host(_) => fail_help(
                "depends-on-step",
                span,
                "an initial value is drawn before the first step",
                "this depends on `step`",
                "a number that changes while training stands in the model's body, in an optimizer or in `train`",
            ),
            Value::Poison => Err(Fail::Silent),
            other => fail_help(
                "not-an-init",
                span,
                format!("{} is no initial value", other.kind()),
                other.kind(),
                "zeros, ones, normal(mean, deviation), uniform(bound), a number, a list of numbers or a tensor are",
            ),
        }
    }

    pub fn declare_uses(&mut self, defs: &[ast::UseDef]) -> Res<()> {
        for def in defs {
            let Some(owner) = self.declared.owners.last() else {
                return misplaced(def.name.span, "`use` stands in a model or a block");
            };
            let full = if owner.prefix.is_empty() {
                def.name.text.clone()
            } else {
                format!("{}.{}", owner.prefix, def.name.text)
            };
            let value = self.eval(&def.value)?;
            let value = self.instantiate(value, &full, def.value.span)?;
            self.bind(&def.name.text, value, Kind::Fixed, def.name.span);
        }
        Ok(())
    }

    /// Gives blocks parameters and a name.
    fn instantiate(&mut self, value: Value, prefix: &str, span: Span) -> Res<Value> {
        match value {
            Value::None => Ok(Value::None),
            Value::List(items) => {
                let parts = items.iter().enumerate();
                let parts = parts.map(|(i, v)| self.instantiate(v.clone(), &format!("{prefix}.{i}"), span));
                Ok(Value::list(parts.collect::<Res<_>>()?))
            }
            Value::Block(template) => {
                let name = format!("block {}", template.block.name.text);
                let instance = self.calling(&name, span, |s| s.instance(&template, prefix, span))?;
                if let Some(owner) = self.declared.owners.last_mut() {
                    owner.slots.extend(&instance.slots);
                }
                Ok(Value::Instance(Rc::new(instance)))
            }
            Value::Poison => Err(Fail::Silent),
            other => fail_help(
                "not-a-block",
                span,
                format!("`use` takes a block, not {}", other.kind()),
                other.kind(),
                "a block, `Block[n]` for n of them, or a list of blocks",
            ),
        }
    }

    fn instance(&mut self, template: &Rc<Template>, prefix: &str, span: Span) -> Res<Instance> {
        let block = &template.block;
        let args = match &template.args {
            Some(args) => args.clone(),
            None if block.args.is_empty() => Vec::new(),
            None => {
                let names: Vec<&str> = block.args.iter().map(|a| a.name.text.as_str()).collect();
                return fail_help(
                    "missing-argument",
                    span,
                    format!("block {} needs its arguments", block.name.text),
                    "missing here",
                    format!("write `{}({})`", block.name.text, names.join(", ")),
                );
            }
        };
        let mut signature = format!("{:p}", Rc::as_ptr(block));
        self.declared.owners.push(Owner { prefix: prefix.to_string(), slots: Vec::new() });
        let result = self.isolated(|s| {
            for (name, value) in &args {
                key_part(name, &mut signature);
                value.signature(&|_| String::new(), &mut signature);
                s.bind(name, value.clone(), Kind::Fixed, block.name.span);
            }
            for stmt in &block.members {
                if let ast::StmtKind::Param { .. } | ast::StmtKind::Use(_) | ast::StmtKind::Let(_) = stmt.kind {
                    continue;
                }
                return fail("misplaced", stmt.span, "a block holds `param`, `use`, `let` and one `fn`", "not here");
            }
            if let Flow::Return(_) = s.run_here(&block.members)? {
                return Err(Fail::Silent);
            }
            let scope = s.scopes.pop().unwrap_or_default();
            let mut members: Vec<(String, Value)> = scope.names.into_iter().map(|(n, b)| (n, b.value)).collect();
            members.sort_by(|a, b| a.0.cmp(&b.0));
            Ok(members)
        });
        let owner = self.declared.owners.pop();
        let members = result?;
        for (name, value) in &members {
            key_part(name, &mut signature);
            self.member_signature(value, &mut signature);
        }
        let slots = owner.map(|o| o.slots).unwrap_or_default();
        Ok(Instance { block: block.clone(), prefix: prefix.to_string(), members, slots, signature })
    }

    /// As `Value::signature`, but parameters stand for their types.
    fn member_signature(&self, value: &Value, out: &mut String) {
        match value {
            Value::Param(slot) => {
                out.push('P');
                key_part(&format!("{:?} {:?}", self.m.slots[*slot].ty, self.typed.get(slot)), out);
            }
            Value::Instance(i) => {
                out.push('i');
                key_part(&i.signature, out);
            }
            Value::List(items) => signature_of('L', items, &mut |v, out| self.member_signature(v, out), out),
            Value::Tuple(items) => signature_of('U', items, &mut |v, out| self.member_signature(v, out), out),
            other => other.signature(&|_| String::new(), out),
        }
    }

    /// A new name in an optimizer that would hide one of its own.
    pub fn not_reserved(&self, name: &ast::Ident) -> Res<()> {
        if self.declared.states.is_none() {
            return Ok(());
        }
        let Some((old, what)) = self.declared.reserved.iter().find(|(n, _)| n.text == name.text) else { return Ok(()) };
        let message = format!("`{}` is {what} of this optimizer already", name.text);
        let help = match *what {
            "the parameter" => {
                format!("to update it, assign it: `{} = …`; another value needs another name", name.text)
            }
            "a state" => format!("to change it, assign it: `{} = …`; another value needs another name", name.text),
            _ => "give the new value another name".to_string(),
        };
        let d = Diagnostic::error("duplicate", name.span, message, "hides it");
        Err(d.label(old.span, "declared here").help(help).into())
    }

    pub fn declare_states(&mut self, defs: &[ast::ConstDef], span: Span) -> Res<()> {
        if self.declared.states.is_none() {
            if self.declared.owners.is_empty() {
                return misplaced(span, "`state` stands in an optimizer");
            }
            return fail_help(
                "not-yet",
                span,
                "a model cannot have a state of its own yet",
                "not supported",
                "`state` stands in an optimizer; what a model keeps are its parameters",
            );
        }
        for def in defs {
            let value = self.eval(&def.value)?;
            let (ty, fill) = match value {
                Value::Fill(ty, x) => (ty, x),
                Value::Num(x, _) => (Type::scalar(DType::F32), x),
                Value::Poison => return Err(Fail::Silent),
                other => {
                    return fail_help(
                        "not-a-state",
                        def.value.span,
                        format!("a state begins as a tensor of equal numbers, not as {}", other.kind()),
                        other.kind(),
                        "`zeros_like(w)`, `zeros(rows(w))`, `full(1, cols(w))` or a number",
                    );
                }
            };
            finite(fill, "the first value of a state", def.value.span)?;
            self.not_reserved(&def.name)?;
            if let Some(old) = self.binding(&def.name.text).map(|b| b.span) {
                let message = format!("the state `{}` has the name of another value", def.name.text);
                let d = Diagnostic::error("duplicate", def.name.span, message, "the second").label(old, "the first");
                return Err(d.help("rename one").into());
            }
            self.declared.reserved.push((def.name.clone(), "a state"));
            let states = self.declared.states.get_or_insert_default();
            states.push(StateDecl { name: def.name.text.clone(), span: def.name.span, ty: ty.clone(), fill });
            let source = super::frame::Source::Arg(self.declared.arguments);
            self.declared.arguments += 1;
            let v = self.outside(source, &def.name.text, ty.clone(), def.name.span)?;
            // Optimizers compute in f32.
            let v = if ty.dtype.is_float() { self.build(def.name.span)?.cast(v, DType::F32) } else { v };
            let mut t = self.staged(v);
            t.storage = Some(ty.dtype);
            self.bind(&def.name.text, Value::Tensor(t), Kind::Mutable, def.name.span);
        }
        Ok(())
    }
}

/// A number that a run begins or goes on with: one that is none spoils all that it touches.
pub(crate) fn finite(x: f64, what: &str, span: Span) -> Res<()> {
    if x.is_finite() {
        return Ok(());
    }
    let help = match x.is_nan() {
        true => "0 / 0, inf - inf and roots or logarithms of negative numbers give no number",
        false => "a division by 0 and an overflow give inf",
    };
    fail_help("not-finite", span, format!("{what} must be a finite number"), format!("this is {}", shown(x)), help)
}

/// A number as a file writes it.
fn shown(x: f64) -> String {
    if x.is_nan() { "not a number".to_string() } else { x.to_string() }
}

/// The numbers of nested lists, and their shape.
fn flatten(value: &Value, depth: usize, sizes: &mut Vec<usize>, out: &mut Vec<f64>, span: Span) -> Res<()> {
    match value {
        Value::Num(x, _) if depth == sizes.len() => {
            out.push(*x);
            Ok(())
        }
        Value::List(items) | Value::Tuple(items) => {
            if depth == sizes.len() && out.is_empty() {
                sizes.push(items.len());
            }
            if sizes.get(depth) != Some(&items.len()) {
                return fail("wrong-length", span, "the lists of an initial value have different lengths", "ragged");
            }
            items.iter().try_for_each(|v| flatten(v, depth + 1, sizes, out, span))
        }
        other => fail("not-an-init", span, "an initial value is made of numbers", other.kind()),
    }
}
