//! Calls: functions of the file are run in place, blocks become calls of graph functions that equal instances share.

use std::rc::Rc;

use mngc_dsl::{Diagnostic, Span, ast};

use super::frame::{Frame, Source};
use super::model::Meta;
use super::stmt::Flow;
use super::suggest::suggestion;
use super::value::{Instance, Kind, Template, Tensor, Value, key_part, signature_of};
use super::{Elab, Fail, Res, fail, fail_help};
use crate::ir::{self, CallKind};

/// Elements of a list, or bytes of a string, before it counts as endless.
const MAX_LIST: usize = 1 << 18;
/// Lists inside each other before they count as endless.
const MAX_NESTING: usize = 100;

/// Evaluated arguments of a call.
#[derive(Debug, Default)]
pub(crate) struct Args {
    pub list: Vec<(Option<ast::Ident>, Value, Span)>,
    /// The whole call.
    pub span: Span,
}

impl Elab {
    /// `callee(args)`.
    pub fn eval_call(&mut self, callee: &ast::Expr, args: &[ast::Arg], span: Span) -> Res<Value> {
        if let ast::ExprKind::Field(base, method) = &callee.kind {
            let named = self.dotted(callee).is_some_and(|(name, _, rest)| rest.is_empty() && name.contains('.'));
            if !named {
                return self.eval_method(base, method, args, span);
            }
        }
        let f = self.eval(callee)?;
        let args = self.eval_args(args, span)?;
        self.call_value(f, args, callee.span)
    }

    /// Calls a value.
    pub fn call_value(&mut self, f: Value, args: Args, span: Span) -> Res<Value> {
        match f {
            Value::Builtin(name) => self.builtin(name, args, span),
            Value::Fn(f) => {
                let name = format!("`{}`", f.name.text);
                let whole = args.span;
                self.calling(&name, whole, |s| s.call_fn(&f, args))
            }
            Value::Instance(instance) => self.call_block(&instance, args),
            Value::Block(template) => self.call_template(&template, args, span),
            // `zeros(3, 4)`: an initial value with a shape.
            Value::Init(super::value::Init::Constant(x)) => self.filled(x, args),
            Value::Poison => Err(Fail::Silent),
            other => {
                let help = match other {
                    Value::Num(..) | Value::Host(_) => "write `*` to multiply",
                    Value::Tensor(_) | Value::Param(_) => "index with `[ ]`, multiply with `*` or `@`",
                    Value::List(_) => "index a list with `[ ]`",
                    _ => "functions, blocks in use and built-ins can be called",
                };
                fail_help("not-callable", span, format!("{} cannot be called", other.kind()), other.kind(), help)
            }
        }
    }

    pub fn eval_args(&mut self, args: &[ast::Arg], span: Span) -> Res<Args> {
        let mut list = Vec::with_capacity(args.len());
        for arg in args {
            list.push((arg.name.clone(), self.eval(&arg.value)?, arg.value.span));
        }
        Ok(Args { list, span })
    }

    /// `base.method(args)`: `push` and `pop` change the list that a name is bound to; others are built-ins.
    fn eval_method(&mut self, base: &ast::Expr, method: &ast::Ident, args: &[ast::Arg], span: Span) -> Res<Value> {
        if let ("push" | "pop", ast::ExprKind::Name(name)) = (method.text.as_str(), &base.kind) {
            let name = ast::Ident { text: name.clone(), span: base.span };
            return self.change_list(&name, method, args, span);
        }
        let value = self.eval(base)?;
        // A function that is a field of a record, or a sub-block of a used block.
        if let Value::Record(_) | Value::Instance(_) = &value {
            let f = self.eval_field(value, method)?;
            let args = self.eval_args(args, span)?;
            return self.call_value(f, args, method.span);
        }
        let mut args = self.eval_args(args, span)?;
        if let Value::Gradients(g) = &value {
            return self.gradients_method(g.clone(), method, args);
        }
        args.list.insert(0, (None, value, base.span));
        match super::builtins::find(&method.text) {
            Some(b) => self.builtin(b.name, args, method.span),
            None if method.text == "t" => fail("not-callable", method.span, "`.t` is written without ( )", "here"),
            None => {
                let names: Vec<&str> = super::builtins::BUILTINS.iter().map(|b| b.name).collect();
                let mut d = Diagnostic::error(
                    "unknown-method",
                    method.span,
                    format!("there is no method `{}`", method.text),
                    "unknown method",
                );
                d.help = suggestion(&method.text, names.iter());
                Err(d.into())
            }
        }
    }

    fn eval_field(&mut self, value: Value, field: &ast::Ident) -> Res<Value> {
        let name = "\u{0}";
        self.scoped(|s| {
            s.bind(name, value, Kind::Fixed, field.span);
            let base = ast::Expr { kind: ast::ExprKind::Name(name.into()), span: field.span };
            s.eval(&ast::Expr { kind: ast::ExprKind::Field(Box::new(base), field.clone()), span: field.span })
        })
    }

    fn change_list(&mut self, name: &ast::Ident, method: &ast::Ident, args: &[ast::Arg], span: Span) -> Res<Value> {
        let mut args = self.eval_args(args, span)?;
        // Says what is wrong with the name, if anything is.
        let Value::List(items) = self.resolve(&name.text, name.span)? else {
            return fail("not-a-list", name.span, format!("`{}` belongs to lists", method.text), "not a list");
        };
        if self.binding(&name.text).is_none_or(|b| b.kind != Kind::Mutable) {
            self.assign(name, Value::List(items))?;
            return Err(Fail::Silent);
        }
        let push = method.text == "push";
        if push && (args.list.len() != 1 || args.list[0].0.is_some()) {
            return fail("wrong-arguments", span, "`push` takes one value", format!("{} given", args.list.len()));
        }
        if !push && !args.list.is_empty() {
            return fail("wrong-arguments", span, "`pop` takes nothing: it gives the last element", "arguments");
        }
        self.checked_length(items.len() + 1, span)?;
        for (_, value, at) in &args.list {
            self.weigh(value, *at)?;
        }
        drop(items);
        let read = self.read.clone();
        let Some(binding) = self.binding(&name.text) else { return Err(Fail::Silent) };
        binding.made_of.extend(read);
        let Value::List(items) = &mut binding.value else { return Err(Fail::Silent) };
        let items = Rc::make_mut(items);
        if let Some((_, value, _)) = args.list.pop() {
            items.push(value);
            return Ok(Value::None);
        }
        match items.pop() {
            Some(last) => Ok(last),
            None => fail_help(
                "empty-list",
                span,
                format!("`{}` is empty here", name.text),
                "nothing to pop",
                "every `pop` needs a `push` before it: compare the conditions of both",
            ),
        }
    }

    /// Counts what a value holds before it gets a name, so that lists of lists cannot grow without end.
    pub fn weigh(&mut self, value: &Value, span: Span) -> Res<()> {
        let n = value.weight(MAX_LIST, MAX_NESTING);
        self.checked_length(n, span)?;
        self.fuel = self.fuel.saturating_sub(n as u64);
        Ok(())
    }

    /// The length of a list or string, unless no file can mean it.
    pub fn checked_length(&self, n: usize, span: Span) -> Res<()> {
        if n <= MAX_LIST {
            return Ok(());
        }
        let d = Diagnostic::error(
            "endless",
            span,
            format!("a list or string grows over {MAX_LIST} elements, or lists {MAX_NESTING} deep"),
            "grows here",
        )
        .help("check the bounds of the loop that fills it");
        Err(Fail::Fatal(Box::new(d)))
    }

    /// Binds arguments to parameters in the innermost scope.
    pub fn bind_args(&mut self, what: &str, params: &[ast::Param], args: Args) -> Res<()> {
        for (i, param) in params.iter().enumerate() {
            if let Some(first) = params[..i].iter().find(|p| p.name.text == param.name.text) {
                let message = format!("{what} has two parameters named `{}`", param.name.text);
                let d = Diagnostic::error("duplicate", param.name.span, message, "the second");
                return Err(d.label(first.name.span, "the first").help("rename one").into());
            }
        }
        let mut given: Vec<Option<(Value, Span)>> = params.iter().map(|_| None).collect();
        let signature = || {
            let names: Vec<String> = params
                .iter()
                .map(|p| if p.default.is_some() { format!("{} = …", p.name.text) } else { p.name.text.clone() })
                .collect();
            format!("{what} takes ({})", names.join(", "))
        };
        let mut position = 0;
        for (name, value, span) in args.list {
            let index = match &name {
                Some(name) => params.iter().position(|p| p.name.text == name.text),
                None => {
                    position += 1;
                    (position <= params.len()).then(|| position - 1)
                }
            };
            let Some(index) = index else {
                return match name {
                    Some(name) => {
                        let names: Vec<&str> = params.iter().map(|p| p.name.text.as_str()).collect();
                        let help = suggestion(&name.text, names.iter()).unwrap_or_else(signature);
                        let message = format!("{what} has no parameter `{}`", name.text);
                        fail_help("unknown-argument", name.span, message, "unknown", help)
                    }
                    None => fail_help(
                        "too-many-arguments",
                        span,
                        format!("{what} takes {} argument{}", params.len(), if params.len() == 1 { "" } else { "s" }),
                        "one too many",
                        signature(),
                    ),
                };
            };
            if given[index].is_some() {
                let message = format!("`{}` is given twice", params[index].name.text);
                return fail_help("argument-twice", span, message, "the second time", signature());
            }
            given[index] = Some((value, span));
        }
        for (param, given) in params.iter().zip(given) {
            let (value, span) = match (given, &param.default) {
                (Some(pair), _) => pair,
                (None, Some(default)) => (self.eval(default)?, default.span),
                (None, None) => {
                    let message = format!("{what} needs `{}`", param.name.text);
                    return fail_help("missing-argument", args.span, message, "missing here", signature());
                }
            };
            self.weigh(&value, span)?;
            self.bind(&param.name.text, value.clone(), Kind::Fixed, param.name.span);
            if let Some(ty) = &param.ty {
                self.check_annotation(&param.name, ty, &value, span)?;
            }
        }
        Ok(())
    }

    /// A shape variable stands for an axis of some parameter.
    fn shape_vars_bound(&mut self, vars: &[ast::Ident], params: &[ast::Param]) -> Res<()> {
        for var in vars {
            let names = |p: &ast::Param| {
                p.ty.iter().flat_map(|ty| &ty.dims).any(|e| matches!(&e.kind, ast::ExprKind::Name(n) if *n == var.text))
            };
            if !params.iter().any(names) {
                let message = format!("`{}` stands for an axis, and no parameter has it", var.text);
                let first = params.first().map_or("x", |p| p.name.text.as_str());
                let help = format!("say which axis it is: `({first}: [{}, …])`", var.text);
                return fail_help("unbound", var.span, message, "declared here", help);
            }
        }
        Ok(())
    }

    /// Runs a function of the file in place.
    fn call_fn(&mut self, f: &Rc<ast::Function>, args: Args) -> Res<Value> {
        let what = format!("`{}`", f.name.text);
        self.undeclaring(|s| {
            s.isolated(|s| {
                s.shape_vars_bound(&f.shape_vars, &f.params)?;
                s.shape_vars(&f.shape_vars);
                s.bind_args(&what, &f.params, args)?;
                match s.run(&f.body)? {
                    Flow::Return(value) => Ok(value),
                    Flow::Next => Ok(Value::None),
                }
            })
        })
    }

    /// Runs what may declare neither parameters nor states: they belong to blocks, models and optimizers alone.
    fn undeclaring<T>(&mut self, f: impl FnOnce(&mut Self) -> Res<T>) -> Res<T> {
        let owners = std::mem::take(&mut self.declared.owners);
        let states = self.declared.states.take();
        let result = f(self);
        self.declared.owners = owners;
        self.declared.states = states;
        result
    }

    /// Declares shape variables, to be bound by the first axis that they stand for.
    pub fn shape_vars(&mut self, vars: &[ast::Ident]) {
        for var in vars {
            self.bind(&var.text, Value::None, Kind::Fixed, var.span);
        }
    }

    /// A block with its compile-time arguments.
    fn call_template(&mut self, template: &Rc<Template>, args: Args, span: Span) -> Res<Value> {
        let block = &template.block;
        let name = &block.name.text;
        if template.args.is_some() || block.args.is_empty() {
            let compile_time = args.list.iter().all(|(_, value, _)| matches!(value, Value::Num(..)));
            let (title, help) = match compile_time && !self.declared.owners.is_empty() {
                true => (
                    format!("block {name} takes no arguments"),
                    format!("write `use part: {name}` or `use part: {name}[n]`, or declare `block {name}(i) {{ … }}`"),
                ),
                false => (
                    format!("block {name} is called before it is used"),
                    format!("write `use part: {name}` first, then `part(…)`; `use` gives it parameters and a name"),
                ),
            };
            return fail_help("not-used", span, title, "a block, not yet a part of the model", help);
        }
        self.isolated(|s| {
            s.bind_args(&format!("block {name}"), &block.args, args)?;
            let scope = s.scopes.pop().unwrap_or_default();
            let args = block
                .args
                .iter()
                .filter_map(|p| scope.names.get(&p.name.text).map(|b| (p.name.text.clone(), b.value.clone())));
            Ok(Value::Block(Rc::new(Template { block: block.clone(), args: Some(args.collect()) })))
        })
    }

    /// Calls the function of a used block.
    pub fn call_block(&mut self, instance: &Rc<Instance>, args: Args) -> Res<Value> {
        let span = args.span;
        let mut given = Vec::with_capacity(args.list.len());
        for (name, value, at) in args.list {
            given.push((name, self.materialise(&value, at)?, at));
        }
        let outer: Vec<Tensor> = given.iter().flat_map(|(_, v, _)| v.tensors()).collect();
        for &t in &outer {
            self.tensor(&Value::Tensor(t), span)?;
        }
        let compute = self.frame(span)?.compute;
        let mut key = format!("{compute}");
        key_part(&instance.signature, &mut key);
        self.arguments_signature(&given, &mut key);
        let meta = match self.memo.get(&key) {
            Some(Some(meta)) => meta.clone(),
            Some(None) => return Err(Fail::Silent),
            None => {
                let name = format!("block {}", instance.block.name.text);
                let made = self.calling(&name, span, |s| s.block_function(instance, given, span));
                let meta = match made {
                    Ok(meta) => meta,
                    Err(fail) => {
                        self.memo.insert(key, None);
                        return Err(fail);
                    }
                };
                self.memo.insert(key, Some(meta.clone()));
                meta
            }
        };
        self.call_meta(&meta, Some(instance), &outer, span)
    }

    /// The part of a function's key that its arguments are.
    pub fn arguments_signature(&self, args: &[(Option<ast::Ident>, Value, Span)], out: &mut String) {
        let each = &mut |(name, value, _): &(Option<ast::Ident>, Value, Span), out: &mut String| {
            key_part(name.as_ref().map_or("", |n| &n.text), out);
            value.signature(&|t| format!("{:?}", self.ty(t)), out);
        };
        signature_of('A', args, each, out);
    }

    /// Stages the call of a function that was made before.
    pub fn call_meta(
        &mut self,
        meta: &Meta,
        instance: Option<&Rc<Instance>>,
        outer: &[Tensor],
        span: Span,
    ) -> Res<Value> {
        let mut args = Vec::with_capacity(meta.sources.len());
        for source in &meta.sources {
            args.push(match source {
                Source::Slot(slot) => self.slot_value(*slot, span)?,
                Source::Own(n) => {
                    let slot = instance.and_then(|i| i.slots.get(*n)).copied().ok_or(Fail::Silent)?;
                    self.slot_value(slot, span)?
                }
                Source::Arg(n) => outer.get(*n).ok_or(Fail::Silent)?.v,
                Source::Scalar(expr) => self.scalar(expr, span)?,
            });
        }
        let results = self.build(span)?.call(meta.func, CallKind::Block, args);
        let mut next = 0;
        Ok(meta.results.map_tensors(&mut |t| {
            let v = results[next];
            next += 1;
            Tensor { v, frame: self.frames.last().map_or(0, |f| f.id), storage: t.storage }
        }))
    }

    fn block_function(
        &mut self,
        instance: &Rc<Instance>,
        given: Vec<(Option<ast::Ident>, Value, Span)>,
        span: Span,
    ) -> Res<Rc<Meta>> {
        let block = &instance.block;
        let outer_types: Vec<ir::Type> = given.iter().flat_map(|(_, v, _)| v.tensors()).map(|t| self.ty(t)).collect();
        let compute = self.frame(span)?.compute;
        let mut frame = self.new_frame(&block.name.text, compute, Some(instance.clone()));
        let id = frame.id;
        let mut next = 0;
        let mut list = Vec::with_capacity(given.len());
        for (i, (name, value, at)) in given.into_iter().enumerate() {
            let label = match &name {
                Some(name) => name.text.clone(),
                None => block.function.params.get(i).map_or_else(|| "arg".to_string(), |p| p.name.text.clone()),
            };
            let value = value.map_tensors(&mut |t| {
                let v = frame.graph.param(label.clone(), outer_types[next].clone());
                frame.sources.push(Source::Arg(next));
                next += 1;
                Tensor { v, frame: id, storage: t.storage }
            });
            list.push((name, value, at));
        }
        self.frames.push(frame);
        let run = |s: &mut Self| {
            for (name, value) in &instance.members {
                s.bind(name, value.clone(), Kind::Fixed, block.name.span);
            }
            s.scopes.push(Default::default());
            s.shape_vars_bound(&block.function.shape_vars, &block.function.params)?;
            s.shape_vars(&block.function.shape_vars);
            s.bind_args(&format!("block {}", block.name.text), &block.function.params, Args { list, span })?;
            let value = match s.run(&block.function.body)? {
                Flow::Return(value) => value,
                Flow::Next => {
                    return fail_help(
                        "no-return",
                        block.function.body.span,
                        format!("the function of block {} returns nothing", block.name.text),
                        "no `return` is reached",
                        "end it with `return …`",
                    );
                }
            };
            s.materialise(&value, block.function.body.span)
        };
        let result = self.undeclaring(|s| s.isolated(run));
        let frame = self.frames.pop().ok_or(Fail::Silent)?;
        self.finish(frame, result?)
    }

    /// Ends a graph whose results are the tensors of a value.
    pub fn finish(&mut self, mut frame: Frame, value: Value) -> Res<Rc<Meta>> {
        for t in value.tensors() {
            frame.graph.result("", t.v);
        }
        let func = self.m.funcs.push(frame.graph);
        Ok(Rc::new(Meta { func, sources: frame.sources, results: value }))
    }
}
