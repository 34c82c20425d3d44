//! A model as a function of one sequence.

use std::rc::Rc;

use mngc_dsl::{Diagnostic, Span, ast};

use super::declare::Owner;
use super::frame::Source;
use super::ops::is_tensor;
use super::stmt::Flow;
use super::value::{Kind, Tag, Value};
use super::{Elab, Fail, Res, fail, fail_help};
use crate::ir::{DType, Dim, DimRole, Func, ReduceKind, Type};

/// A function of the module, with where its parameters come from and what its results are.
#[derive(Debug)]
pub(crate) struct Meta {
    pub func: Func,
    pub sources: Vec<Source>,
    /// Tensors inside stand for the results in order.
    pub results: Value,
}

/// Inputs of a model, in the order of [`Source::Arg`].
pub(crate) const INPUTS: [&str; 2] = ["tokens", "targets"];

impl Elab {
    /// Makes the function of a model for one length of sequences. Results: `loss` (f32, the mean over T), then `logits`
    /// where the model gives them.
    pub fn instantiate_model(&mut self, model: &Rc<ast::Model>, size: &Value, span: Span) -> Res<Rc<Meta>> {
        let [var] = model.shape_vars.as_slice() else {
            return fail_help(
                "shape-variables",
                model.name.span,
                format!("a model has one shape variable, not {}", model.shape_vars.len()),
                "here",
                format!("write `model {}[T] (tokens: i32[T], targets: i32[T]) {{ … }}`", model.name.text),
            );
        };
        let n = self.dim_of(size, "the length of a sequence", span)?;
        let n = self.m.dims.size(n);
        let axis = self.m.dims.intern(&var.text, n, DimRole::Token);
        let frame = self.new_frame(&model.name.text, self.compute, None);
        let outer = std::mem::replace(&mut self.frames, vec![frame]);
        let step = std::mem::replace(&mut self.step, true);
        self.declared.owners.push(Owner { prefix: String::new(), slots: Vec::new() });
        let result = self.isolated(|s| s.model_body(model, var, axis));
        self.declared.owners.pop();
        self.step = step;
        let frame = std::mem::replace(&mut self.frames, outer).pop().ok_or(Fail::Silent)?;
        let meta = self.finish(frame, result?)?;
        for (i, name) in ["loss", "logits"].iter().enumerate() {
            if let Some(place) = self.m.funcs[meta.func].result_names.get_mut(i) {
                *place = name.to_string();
            }
        }
        Ok(meta)
    }

    fn model_body(&mut self, model: &Rc<ast::Model>, var: &ast::Ident, axis: Dim) -> Res<Value> {
        let size = Value::Num(self.m.dims.size(axis) as f64, Some(Tag::Axis(axis)));
        self.bind(&var.text, size, Kind::Fixed, var.span);
        for (i, input) in model.inputs.iter().enumerate() {
            if let Some(old) = model.inputs[..i].iter().find(|p| p.name.text == input.name.text) {
                let message = format!("model {} has two inputs `{}`", model.name.text, input.name.text);
                let d = Diagnostic::error("duplicate", input.name.span, message, "the second");
                return Err(d.label(old.name.span, "the first").help("leave one out").into());
            }
            let Some(position) = INPUTS.iter().position(|n| *n == input.name.text) else {
                return fail_help(
                    "unknown-input",
                    input.name.span,
                    format!("a model has no input `{}`", input.name.text),
                    "unknown input",
                    "the inputs are `tokens: i32[T]` and `targets: i32[T]`, the token after each",
                );
            };
            let ty = Type::new(DType::I32, [axis]);
            let v = self.outside(Source::Arg(position), &input.name.text, ty, input.name.span)?;
            let t = Value::Tensor(self.staged(v));
            self.bind(&input.name.text, t.clone(), Kind::Fixed, input.name.span);
            if let Some(annotation) = &input.ty {
                self.check_annotation(&input.name, annotation, &t, input.name.span)?;
            }
        }
        let outputs = match self.run_here(&model.body.stmts)? {
            Flow::Return(value) => value,
            Flow::Next => {
                return fail_help(
                    "no-return",
                    model.body.span,
                    format!("model {} returns nothing", model.name.text),
                    "no `return` is reached",
                    "end it with `return { logits, loss: cross_entropy(cast(logits, f32), targets) }`",
                );
            }
        };
        let returned = model.body.stmts.iter().rev().find(|s| matches!(s.kind, ast::StmtKind::Return(_)));
        let at = returned.map_or(model.name.span, |s| s.span);
        let Value::Record(fields) = &outputs else {
            return fail_help(
                "no-loss",
                at,
                format!("model {} returns {}, not a record", model.name.text, outputs.kind()),
                "returned here",
                "write `return { logits, loss: … }`",
            );
        };
        if let Some((name, _)) = fields.iter().find(|(n, _)| n != "loss" && n != "logits") {
            return fail(
                "unknown-output",
                at,
                format!("a model has no output `{name}`: the outputs are `loss` and `logits`"),
                "returned here",
            );
        }
        let field = |name: &str| fields.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
        let Some(loss) = field("loss") else {
            return Err(Diagnostic::error(
                "no-loss",
                at,
                format!("model {} returns no `loss`", model.name.text),
                "returned here",
            )
            .help("write `return { logits, loss: cross_entropy(cast(logits, f32), targets) }`")
            .into());
        };
        let mut results = vec![("loss".to_string(), self.mean_loss(&loss, axis, at)?)];
        if let Some(logits) = field("logits") {
            results.push(("logits".to_string(), self.logits(&logits, axis, at)?));
        }
        Ok(Value::Record(Rc::new(results)))
    }

    fn mean_loss(&mut self, loss: &Value, axis: Dim, span: Span) -> Res<Value> {
        if !is_tensor(loss) && !loss.is_poison() {
            let message = format!("the loss is a float for each token or one for the sequence, not {}", loss.kind());
            return fail("no-loss", span, message, "returned here");
        }
        let t = self.tensor(loss, span)?;
        let ty = self.ty(t);
        let per_token = ty.dims == [axis];
        if !ty.dtype.is_float() || !(per_token || ty.rank() == 0) {
            let message = format!("the loss is a float for each token or one for the sequence, not {}", self.show(&ty));
            return fail("no-loss", span, message, "returned here");
        }
        let mut b = self.build(span)?;
        let v = if per_token { b.reduce(ReduceKind::Mean, t.v, &[0], DType::F32) } else { b.cast(t.v, DType::F32) };
        Ok(Value::Tensor(self.staged(v)))
    }

    fn logits(&mut self, logits: &Value, axis: Dim, span: Span) -> Res<Value> {
        let t = self.tensor(logits, span)?;
        let ty = self.ty(t);
        if !ty.dtype.is_float() || ty.rank() != 2 || ty.dims[0] != axis {
            let message = format!("logits are floats [T, vocab], not {}", self.show(&ty));
            return fail("axes", span, message, "returned here");
        }
        Ok(Value::Tensor(t))
    }
}
