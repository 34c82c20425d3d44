//! Optimizers: the body in the file becomes a function for each kind of parameter that it takes.

use std::collections::BTreeSet;
use std::rc::Rc;

use mngc_dsl::{Diagnostic, Span, ast};

use super::call::Args;
use super::declare::StateDecl;
use super::frame::Source;
use super::model::Meta;
use super::stmt::Flow;
use super::value::{Kind, Tensor, Value, key_part};
use super::{Elab, Fail, Res, fail, fail_help};
use crate::check::uses::Uses;
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
        let named = |list: &[ast::Param], what| list.iter().map(move |p| (p.name.clone(), what)).collect::<Vec<_>>();
        let reserved = [
            named(&opt.tensors[..1], "the parameter"),
            named(&opt.tensors[1..], "the gradient"),
            named(&opt.hyper, "a hyper-parameter"),
        ]
        .concat();
        for (i, (name, what)) in reserved.iter().enumerate() {
            if let Some((old, other)) = reserved[..i].iter().find(|(n, _)| n.text == name.text) {
                let message = format!("{what} of optimizer {} has the name of {other}", opt.name.text);
                let d = Diagnostic::error("duplicate", name.span, message, "the second").label(old.span, "the first");
                return Err(d.help("rename one").into());
            }
        }
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
        let outer_reserved = std::mem::replace(&mut self.declared.reserved, reserved);
        let outer_arguments = std::mem::replace(&mut self.declared.arguments, 2 + next);
        let owners = std::mem::take(&mut self.declared.owners);
        let step = std::mem::replace(&mut self.step, true);
        let outer_read = std::mem::take(&mut self.read);
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
            for (i, p) in opt.hyper.iter().enumerate() {
                if let Some(binding) = s.binding(&p.name.text) {
                    binding.made_of = BTreeSet::from([i]);
                }
            }
            if let Flow::Return(_) = s.run_here(&opt.body.stmts)? {
                return fail_help(
                    "misplaced",
                    opt.name.span,
                    "an optimizer returns nothing",
                    "this optimizer",
                    "it assigns its parameter: `w = …`",
                );
            }
            s.optimizer_results(opt, stored, read, w)
        });
        self.step = step;
        self.read = outer_read;
        self.declared.owners = owners;
        self.declared.arguments = outer_arguments;
        self.declared.reserved = outer_reserved;
        let states = std::mem::replace(&mut self.declared.states, outer_states).unwrap_or_default();
        let frame = self.frames.pop().ok_or(Fail::Silent)?;
        let of_matrices = self.has_dot(&frame.graph);
        let meta = self.finish(frame, result?)?;
        let meta = Rc::try_unwrap(meta).map_err(|_| Fail::Silent)?;
        Ok(Rc::new(OptimizerFn { meta, states, of_matrices }))
    }

    /// New values of the parameter and of every state, as they are stored.
    fn optimizer_results(&mut self, opt: &ast::Optimizer, before: ir::Value, read: ir::Value, w: &Type) -> Res<Value> {
        let weight = &opt.tensors[0].name;
        let states = self.declared.states.clone().unwrap_or_default();
        let unchanged = self.binding(&weight.text).is_some_and(|b| matches!(b.value, Value::Tensor(t) if t.v == read));
        let mut out = vec![self.stored(&weight.text, w, weight.span)?];
        if unchanged || matches!(out[0], Value::Tensor(t) if t.v == before) {
            return Err(Diagnostic::error(
                "no-update",
                opt.name.span,
                format!("optimizer {} never changes `{}`", opt.name.text, weight.text),
                "this optimizer",
            )
            .help(format!("assign it: `{w} = {w} - lr * …`", w = weight.text))
            .into());
        }
        self.hyper_parameters_matter(opt, &states)?;
        for state in &states {
            out.push(self.stored(&state.name, &state.ty, opt.name.span)?);
        }
        self.states_matter(opt, &states, &out)?;
        Ok(Value::list(out))
    }

    /// The parameter depends on every hyper-parameter: as a value, or as what was decided by it.
    fn hyper_parameters_matter(&mut self, opt: &ast::Optimizer, states: &[StateDecl]) -> Res<()> {
        let mut used = self.read.clone();
        for name in std::iter::once(&opt.tensors[0].name.text).chain(states.iter().map(|state| &state.name)) {
            used.extend(self.binding(name).iter().flat_map(|b| &b.made_of));
        }
        match opt.hyper.iter().enumerate().find(|(i, _)| !used.contains(i)) {
            None => Ok(()),
            Some((_, p)) => fail_help(
                "unused-hyper-parameter",
                p.name.span,
                format!("the hyper-parameter `{}` of optimizer {} is not used", p.name.text, opt.name.text),
                "the parameter does not depend on it",
                "use it in the body, or remove it here and where the optimizer is called",
            ),
        }
    }

    /// Every state changes, and the parameter depends on it: by itself or by way of other states. So does the gradient.
    fn states_matter(&mut self, opt: &ast::Optimizer, states: &[StateDecl], results: &[Value]) -> Res<()> {
        let frame = self.frames.last().ok_or(Fail::Silent)?;
        let value = |v: &Value| if let Value::Tensor(t) = v { Some(t.v) } else { None };
        let results: Vec<ir::Value> = results.iter().filter_map(value).collect();
        // Arguments: the parameter, its gradient, tensors of the hyper-parameters, then the states in order.
        let first = self.declared.arguments - states.len();
        let place = |arg: usize| frame.sources.iter().position(|s| *s == Source::Arg(arg));
        let mut uses = Uses::new(&self.m);
        let mut asked = vec![results[0]];
        let used = loop {
            let used = uses.of(&frame.graph, &asked);
            let states =
                (0..states.len()).filter(|&i| place(first + i).is_some_and(|p| used[p])).map(|i| results[1 + i]);
            let next: Vec<ir::Value> = std::iter::once(results[0]).chain(states).collect();
            if next.len() == asked.len() {
                break used;
            }
            asked = next;
        };
        let used = |arg: usize| place(arg).is_some_and(|p| used[p]);
        for (i, state) in states.iter().enumerate() {
            let unchanged = place(first + i).is_some_and(|p| results[1 + i] == frame.graph.params[p]);
            let (what, label, help) = match (used(first + i), unchanged) {
                (false, _) => (
                    "is not used",
                    "the parameter does not depend on it",
                    "use it in the body, or remove it: it takes the memory of a parameter".to_string(),
                ),
                (true, true) => (
                    "never changes",
                    "never assigned",
                    format!("assign it, `{0} = …`, or write its value where it is read", state.name),
                ),
                (true, false) => continue,
            };
            let message = format!("the state `{}` of optimizer {} {what}", state.name, opt.name.text);
            return fail_help("unused-state", state.span, message, label, help);
        }
        if !used(1) {
            let gradient = &opt.tensors[1].name;
            return fail_help(
                "unused-hyper-parameter",
                gradient.span,
                format!("the gradient `{}` of optimizer {} is not used", gradient.text, opt.name.text),
                "the parameter does not depend on it",
                "use it in the body: without it nothing is learnt",
            );
        }
        Ok(())
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
