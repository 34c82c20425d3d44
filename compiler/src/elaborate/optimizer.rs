//! Optimizers: the body in the file becomes a function for each kind of parameter that it takes.

use std::rc::Rc;

use mngc_dsl::{Diagnostic, Span, ast};

use super::call::Args;
use super::declare::StateDecl;
use super::frame::Source;
use super::model::Meta;
use super::stmt::Flow;
use super::value::{Kind, Tensor, Value, key_part};
use super::{Elab, Fail, Res, fail, fail_help};
use crate::ir::{self, DType, Op, Type};

/// An optimizer's function for one kind of parameter: `w, g, tensors of the hyper-parameters, states` → `w, states`.
#[derive(Debug)]
pub(crate) struct OptimizerFn {
    pub meta: Meta,
    pub states: Vec<StateDecl>,
    /// Whether it multiplies matrices.
    pub of_matrices: bool,
}

impl Elab {
    /// The function for a parameter of type `w` with these hyper-parameters.
    pub fn optimizer_fn(
        &mut self,
        opt: &Rc<ast::Optimizer>,
        w: &Type,
        hyper: &[(Option<ast::Ident>, Value, Span)],
        span: Span,
    ) -> Res<Rc<OptimizerFn>> {
        let mut key = format!("{:p}", Rc::as_ptr(opt));
        key_part(&format!("{w:?}"), &mut key);
        self.arguments_signature(hyper, &mut key);
        match self.optimizer_fns.get(&key) {
            Some(Some(made)) => return Ok(made.clone()),
            Some(None) => return Err(Fail::Silent),
            None => {}
        }
        let name = format!("optimizer {}", opt.name.text);
        let made = self.calling(&name, span, |s| s.make_optimizer(opt, w, hyper, span));
        let stored = made.as_ref().ok().cloned();
        self.optimizer_fns.insert(key, stored);
        made
    }

    fn make_optimizer(
        &mut self,
        opt: &Rc<ast::Optimizer>,
        w: &Type,
        hyper: &[(Option<ast::Ident>, Value, Span)],
        span: Span,
    ) -> Res<Rc<OptimizerFn>> {
        let [weight, gradient] = opt.tensors.as_slice() else {
            return fail_help(
                "optimizer-tensors",
                opt.name.span,
                format!("an optimizer has two tensors before the `;`, not {}", opt.tensors.len()),
                "here",
                format!("write `optimizer {}(w, g; lr) {{ … }}`: a parameter and its gradient", opt.name.text),
            );
        };
        let outer_types: Vec<Type> = hyper.iter().flat_map(|(_, v, _)| v.tensors()).map(|t| self.ty(t)).collect();
        let mut frame = self.new_frame(&opt.name.text, DType::F32, None);
        let id = frame.id;
        let stored = frame.graph.param(weight.name.text.clone(), w.clone());
        let g = frame.graph.param(gradient.name.text.clone(), w.with_dtype(DType::F32));
        frame.sources.extend([Source::Arg(0), Source::Arg(1)]);
        let mut next = 0;
        let mut list = Vec::with_capacity(hyper.len());
        for (name, value, at) in hyper {
            let value = value.map_tensors(&mut |t| {
                let v = frame.graph.param("hyper", outer_types[next].clone());
                frame.sources.push(Source::Arg(2 + next));
                next += 1;
                Tensor { v, frame: id, storage: t.storage }
            });
            list.push((name.clone(), value, *at));
        }
        self.frames.push(frame);
        let outer_states = self.declared.states.replace(Vec::new());
        let outer_arguments = std::mem::replace(&mut self.declared.arguments, 2 + next);
        let owners = std::mem::take(&mut self.declared.owners);
        let step = std::mem::replace(&mut self.step, true);
        let result = self.isolated(|s| {
            let read = s.build(span)?.cast(stored, DType::F32);
            let value = Value::Tensor(Tensor { v: read, frame: id, storage: Some(w.dtype) });
            s.bind(&weight.name.text, value, Kind::Mutable, weight.name.span);
            s.bind(
                &gradient.name.text,
                Value::Tensor(Tensor { v: g, frame: id, storage: None }),
                Kind::Fixed,
                gradient.name.span,
            );
            s.bind_args(&format!("optimizer {}", opt.name.text), &opt.hyper, Args { list, span })?;
            if let Flow::Return(_) = s.run_here(&opt.body.stmts)? {
                return fail_help(
                    "misplaced",
                    opt.name.span,
                    "an optimizer returns nothing",
                    "this optimizer",
                    "it assigns its parameter: `w = …`",
                );
            }
            s.optimizer_results(opt, read, w)
        });
        self.step = step;
        self.declared.owners = owners;
        self.declared.arguments = outer_arguments;
        let states = std::mem::replace(&mut self.declared.states, outer_states).unwrap_or_default();
        let frame = self.frames.pop().ok_or(Fail::Silent)?;
        let of_matrices = self.has_dot(&frame.graph);
        let meta = self.finish(frame, result?)?;
        let meta = Rc::try_unwrap(meta).map_err(|_| Fail::Silent)?;
        Ok(Rc::new(OptimizerFn { meta, states, of_matrices }))
    }

    /// New values of the parameter and of every state, as they are stored.
    fn optimizer_results(&mut self, opt: &ast::Optimizer, read: ir::Value, w: &Type) -> Res<Value> {
        let weight = &opt.tensors[0].name;
        for p in opt.hyper.iter().chain(&opt.tensors[1..]) {
            let unused = self.binding(&p.name.text).is_some_and(|b| !b.used && b.span == p.name.span);
            if unused {
                let what = if opt.hyper.iter().any(|h| h.name == p.name) { "hyper-parameter" } else { "gradient" };
                return fail_help(
                    "unused-hyper-parameter",
                    p.name.span,
                    format!("the {what} `{}` of optimizer {} is not used", p.name.text, opt.name.text),
                    "never read",
                    "use it in the body, or remove it here and where the optimizer is called",
                );
            }
        }
        let states = self.declared.states.clone().unwrap_or_default();
        for state in &states {
            let unused = self.binding(&state.name).filter(|b| !b.used).map(|b| b.span);
            if let Some(span) = unused {
                return fail_help(
                    "unused-state",
                    span,
                    format!("the state `{}` of optimizer {} is not used", state.name, opt.name.text),
                    "never read",
                    "use it in the body, or remove it: it takes the memory of a parameter",
                );
            }
        }
        let mut out = vec![self.stored(&weight.text, w, weight.span)?];
        if matches!(out[0], Value::Tensor(t) if t.v == read || self.frames.last().is_some_and(|f| f.graph.def_node(t.v).is_none()))
        {
            return Err(Diagnostic::error(
                "no-update",
                opt.name.span,
                format!("optimizer {} never changes `{}`", opt.name.text, weight.text),
                "this optimizer",
            )
            .help(format!("assign it: `{w} = {w} - lr * …`", w = weight.text))
            .into());
        }
        for state in &states {
            out.push(self.stored(&state.name, &state.ty, opt.name.span)?);
        }
        Ok(Value::list(out))
    }

    /// The value that a name has at the end, rounded to the dtype that it is stored in.
    fn stored(&mut self, name: &str, ty: &Type, span: Span) -> Res<Value> {
        let Some(binding) = self.binding(name) else { return Err(Fail::Silent) };
        let (value, at) = (binding.value.clone(), binding.span);
        let v = match &value {
            Value::Num(x, _) => self.build(span)?.full(*x, ty.clone()),
            Value::Host(h) => {
                let v = self.scalar(h, span)?;
                let mut b = self.build(span)?;
                let v = b.cast(v, ty.dtype);
                b.splat(v, &ty.dims)
            }
            other => {
                let t = self.tensor(other, at)?;
                let actual = self.ty(t);
                if !self.m.dims.same_shape(&actual.dims, &ty.dims) {
                    let message = format!(
                        "`{name}` is {}, and is assigned {}",
                        self.show_dims(&ty.dims),
                        self.show_dims(&actual.dims)
                    );
                    return fail("axes", at, message, "this one");
                }
                let mut b = self.build(span)?;
                let v = b.cast(t.v, ty.dtype);
                b.reshape(v, &ty.dims)
            }
        };
        Ok(Value::Tensor(self.staged(v)))
    }

    fn has_dot(&self, graph: &ir::Graph) -> bool {
        let calls = |func: ir::Func| self.has_dot(&self.m.funcs[func]);
        graph.nodes.values().any(|n| match n.op {
            Op::Dot { .. } => true,
            Op::Call { func, .. } => calls(func),
            _ => false,
        })
    }
}
