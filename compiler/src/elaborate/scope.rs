//! Names: bindings of the running function, then what the file declares, then built-ins.

use std::collections::HashMap;

use mngc_dsl::{Diagnostic, Span, ast};

use super::builtins::{self, BUILTINS};
use super::suggest::suggestion;
use super::value::{Binding, Kind, Tag, Template, Value};
use super::{Const, Elab, Fail, Res, fail, fail_help};
use crate::ir::{HostExpr, HostKind};
use std::rc::Rc;

/// Names of one `{ }`.
#[derive(Debug, Default)]
pub(crate) struct Scope {
    pub names: HashMap<String, Binding>,
}

impl Elab {
    /// Binds a name in the innermost scope.
    pub fn bind(&mut self, name: &str, value: Value, kind: Kind, span: Span) {
        if let Some(scope) = self.scopes.last_mut() {
            let made_of = self.read.clone();
            scope.names.insert(name.to_string(), Binding { value, kind, made_of, span });
        }
    }

    /// Runs what binds names: what it reads matters only where those names do.
    pub fn binding_names<T>(&mut self, f: impl FnOnce(&mut Self) -> Res<T>) -> Res<T> {
        let outer = std::mem::take(&mut self.read);
        let result = f(self);
        self.read = outer;
        result
    }

    /// Runs in a scope inside the present ones.
    pub fn scoped<T>(&mut self, f: impl FnOnce(&mut Self) -> Res<T>) -> Res<T> {
        self.scopes.push(Scope::default());
        let result = f(self);
        self.scopes.pop();
        result
    }

    /// The binding of a name in the running function.
    pub fn binding(&mut self, name: &str) -> Option<&mut Binding> {
        self.scopes.iter_mut().rev().find_map(|s| s.names.get_mut(name))
    }

    /// Whether a (dotted) name means something.
    fn knows(&mut self, name: &str) -> bool {
        self.binding(name).is_some()
    }

    /// The value of a name of the running function or of the file; none where there is none of that name.
    pub fn lookup(&mut self, name: &str, span: Span) -> Res<Option<Value>> {
        if let Some(binding) = self.scopes.iter().rev().find_map(|s| s.names.get(name)) {
            self.read.extend(&binding.made_of);
            return match &binding.value {
                Value::Poison => Err(Fail::Silent),
                value => Ok(Some(value.clone())),
            };
        }
        if self.consts.contains_key(name) {
            return self.constant(name, span).map(Some);
        }
        if let Some(f) = self.fns.get(name) {
            return Ok(Some(Value::Fn(f.clone())));
        }
        if let Some(b) = self.blocks.get(name) {
            return Ok(Some(Value::Block(Rc::new(Template { block: b.clone(), args: None }))));
        }
        if name == "step" {
            if self.step {
                return Ok(Some(Value::Host(HostExpr::new(HostKind::Step))));
            }
            let drawing = self.frames.last().is_some_and(|frame| frame.initial);
            return fail_help(
                "step-here",
                span,
                "`step` is known only while training",
                if drawing { "an initial value is drawn before" } else { "not here" },
                match drawing {
                    true => "an initial value is made of numbers and of parameters that are declared before",
                    false => "use it in `train`, in an optimizer, or in a function that they call",
                },
            );
        }
        Ok(builtins::constant(name))
    }

    /// The value of a name, which must exist.
    pub fn resolve(&mut self, name: &str, span: Span) -> Res<Value> {
        if let Some(value) = self.lookup(name, span)? {
            return Ok(value);
        }
        if self.optimizers.contains_key(name) || self.models.contains_key(name) {
            let what = if self.models.contains_key(name) { "a model" } else { "an optimizer" };
            let help = match what {
                "a model" => "a model is trained by `train NAME[T = …] { … }`; parts to be reused are blocks",
                _ => "an optimizer is used by `update … with NAME(…)` in `train`",
            };
            return fail_help(
                "wrong-kind",
                span,
                format!("`{name}` is {}, which has no value", if what == "model" { "a model" } else { "an optimizer" }),
                "used as a value",
                help.to_string(),
            );
        }
        let mut names: Vec<String> = self.scopes.iter().flat_map(|s| s.names.keys().cloned()).collect();
        names.extend(self.consts.keys().cloned());
        names.extend(self.fns.keys().cloned());
        names.extend(self.blocks.keys().cloned());
        names.extend(BUILTINS.iter().map(|b| b.name.to_string()));
        names.extend(builtins::CONSTANTS.iter().map(|s| s.to_string()));
        names.sort();
        let mut d = Diagnostic::error("unknown-name", span, format!("nothing is named `{name}`"), "unknown name");
        d.help = match name {
            "gradients" => Some("`gradients` are known in `train` only; an optimizer has that of its parameter".into()),
            _ => suggestion(name, names.iter()),
        };
        Err(d.into())
    }

    /// The longest dotted name of `e` that is bound, with the fields that follow it.
    pub fn dotted<'e>(&mut self, e: &'e ast::Expr) -> Option<(String, Span, Vec<&'e ast::Ident>)> {
        let mut fields = Vec::new();
        let mut at = e;
        while let ast::ExprKind::Field(base, field) = &at.kind {
            fields.push(field);
            at = base;
        }
        let ast::ExprKind::Name(first) = &at.kind else { return None };
        fields.reverse();
        for take in (0..=fields.len()).rev() {
            let mut name = first.clone();
            let mut span = at.span;
            for field in &fields[..take] {
                name = format!("{name}.{}", field.text);
                span = span.to(field.span);
            }
            // A single name may also be of the file or built in: `resolve` finds that.
            if take == 0 || self.knows(&name) {
                return Some((name, span, fields[take..].to_vec()));
            }
        }
        None
    }

    /// The value of a constant, computed when it is first asked for.
    pub fn constant(&mut self, name: &str, span: Span) -> Res<Value> {
        let def = match &self.consts[name] {
            Const::Done(Value::Poison) => return Err(Fail::Silent),
            Const::Done(value) => return Ok(value.clone()),
            Const::Running(of) => {
                let of = *of;
                self.consts.insert(name.to_string(), Const::Done(Value::Poison));
                return Err(Diagnostic::error(
                    "constant-cycle",
                    span,
                    format!("constant `{name}` is defined by itself"),
                    "asked for here",
                )
                .label(of, "while this is being computed")
                .help("one of the constants on the way must have a value of its own")
                .into());
            }
            Const::Waiting(def) => def.clone(),
        };
        self.consts.insert(name.to_string(), Const::Running(def.name.span));
        let step = std::mem::replace(&mut self.step, false);
        let frames = std::mem::take(&mut self.frames);
        let result = self.isolated(|e| e.eval(&def.value));
        self.frames = frames;
        self.step = step;
        let result = self.report(result);
        let value = match result {
            Ok(Value::Num(x, None)) => Value::Num(x, Some(Tag::Named(name.into()))),
            Ok(value) => value,
            Err(fail) => {
                self.consts.insert(name.to_string(), Const::Done(Value::Poison));
                return Err(fail);
            }
        };
        self.consts.insert(name.to_string(), Const::Done(value.clone()));
        Ok(value)
    }

    /// Changes what a name is bound to, which must be allowed.
    pub fn assign(&mut self, name: &ast::Ident, value: Value) -> Res<()> {
        let text = name.text.clone();
        let is_const = self.consts.contains_key(&text);
        let made_of = self.read.clone();
        match self.binding(&text) {
            Some(binding) if binding.kind == Kind::Mutable => {
                binding.value = value;
                binding.made_of = made_of;
                Ok(())
            }
            Some(&mut Binding { value: Value::Param(slot), .. }) => {
                let loc = self.m.slots[slot].loc;
                let d = Diagnostic::error(
                    "not-assignable",
                    name.span,
                    format!("parameter `{text}` cannot be changed here"),
                    "assigned here",
                );
                let d = match loc {
                    Some(loc) => d.label(loc, "declared here"),
                    None => d,
                };
                Err(d.help(format!("only its `update` changes a parameter; `let {text} = …` makes a new value")).into())
            }
            Some(binding) => {
                let made = binding.span;
                Err(Diagnostic::error(
                    "not-assignable",
                    name.span,
                    format!("`{text}` cannot be changed"),
                    "assigned here",
                )
                .label(made, "bound here")
                .help(format!("declare it with `var {text} = …`, or make a new `{text}` with `let`"))
                .into())
            }
            None if is_const => fail_help(
                "not-assignable",
                name.span,
                format!("constant `{text}` cannot be changed"),
                "assigned here",
                format!("make a variable of the function: `var {text} = …`"),
            ),
            None => {
                let names: Vec<String> = self.scopes.iter().flat_map(|s| s.names.keys().cloned()).collect();
                let help = suggestion(&text, names.iter())
                    .unwrap_or_else(|| format!("a new name begins with `let {text} = …` or `var {text} = …`"));
                fail_help("unknown-name", name.span, format!("nothing is named `{text}`"), "cannot be assigned", help)
            }
        }
    }

    /// Binds a pattern to a value; of a `let`, parts that fail are poisoned.
    pub fn destructure(&mut self, pattern: &ast::Pattern, value: Value, kind: Option<Kind>) -> Res<()> {
        match pattern {
            ast::Pattern::Ignore(_) => Ok(()),
            ast::Pattern::Name(name) => {
                self.weigh(&value, name.span)?;
                match kind {
                    Some(kind) => {
                        self.bind(&name.text, value, kind, name.span);
                        Ok(())
                    }
                    None => self.assign(name, value),
                }
            }
            ast::Pattern::Seq(parts, span) => self.spread(parts, value, kind, *span),
        }
    }

    /// Binds several patterns to the elements of a tuple or list.
    pub fn spread(&mut self, parts: &[ast::Pattern], value: Value, kind: Option<Kind>, span: Span) -> Res<()> {
        let items = match &value {
            Value::List(items) | Value::Tuple(items) => items.clone(),
            other => {
                return fail(
                    "not-a-tuple",
                    span,
                    format!("{} names are bound to {}, which has no parts", parts.len(), other.kind()),
                    "needs a list or a tuple",
                );
            }
        };
        if items.len() != parts.len() {
            return fail(
                "wrong-length",
                span,
                format!("{} names for {} values", parts.len(), items.len()),
                format!("made of {}", items.len()),
            );
        }
        for (part, item) in parts.iter().zip(items.iter()) {
            self.destructure(part, item.clone(), kind)?;
        }
        Ok(())
    }

    /// Binds every name of a pattern to nothing usable.
    pub fn poison(&mut self, pattern: &ast::Pattern, kind: Option<Kind>) {
        match pattern {
            ast::Pattern::Ignore(_) => {}
            ast::Pattern::Name(name) => match kind {
                Some(kind) => self.bind(&name.text, Value::Poison, kind, name.span),
                None => {
                    if let Some(binding) = self.binding(&name.text) {
                        binding.value = Value::Poison;
                    } else if !self.consts.contains_key(&name.text) {
                        self.bind(&name.text, Value::Poison, Kind::Mutable, name.span);
                    }
                }
            },
            ast::Pattern::Seq(parts, _) => parts.iter().for_each(|p| self.poison(p, kind)),
        }
    }
}
