//! Expressions.

use std::rc::Rc;

use mngc_dsl::{Span, ast};

use super::stmt::Flow;
use super::value::{Kind, Tag, Value};
use super::{Const, Elab, Fail, Res, fail, fail_help};
use ast::ExprKind;

impl Elab {
    /// The value of an expression.
    pub fn eval(&mut self, e: &ast::Expr) -> Res<Value> {
        let value = self.deeper(e.span, |s| s.eval_kind(e))?;
        self.small(value, e.span)
    }

    fn eval_kind(&mut self, e: &ast::Expr) -> Res<Value> {
        match &e.kind {
            ExprKind::Num(x, _) => Ok(Value::num(*x)),
            ExprKind::Str(text) => Ok(Value::Str(text.as_str().into())),
            ExprKind::Bool(b) => Ok(Value::Bool(*b)),
            ExprKind::None => Ok(Value::None),
            ExprKind::Paren(inner) => self.eval(inner),
            ExprKind::Name(_) | ExprKind::Field(..) => self.eval_path(e),
            ExprKind::List(items) => Ok(Value::list(self.eval_all(items)?)),
            ExprKind::Tuple(items) => Ok(Value::Tuple(Rc::new(self.eval_all(items)?))),
            ExprKind::Record(fields) => self.record(fields),
            ExprKind::Comprehension { element, pattern, iter, condition } => {
                self.comprehension(element, pattern, iter, condition.as_deref())
            }
            ExprKind::Unary(op, x) => {
                let value = self.eval(x)?;
                self.unary_operator(*op, value, e.span)
            }
            ExprKind::Binary(op, a, b) => self.eval_binary(*op, a, b, e.span),
            ExprKind::Call(callee, args) => self.eval_call(callee, args, e.span),
            ExprKind::Index(base, indices) => self.eval_index(base, indices, e.span),
            ExprKind::Range(low, high) => self.range(low.as_deref(), high.as_deref(), e.span),
            ExprKind::If { arms, otherwise } => self.eval_if(arms, otherwise.as_ref(), e.span),
        }
    }

    fn eval_all(&mut self, items: &[ast::Expr]) -> Res<Vec<Value>> {
        items.iter().map(|item| self.eval(item)).collect()
    }

    /// A name with fields behind it.
    fn eval_path(&mut self, e: &ast::Expr) -> Res<Value> {
        if let Some((name, span, fields)) = self.dotted(e) {
            let mut value = self.resolve(&name, span).map_err(|fail| self.with_parts(fail, &name, &fields))?;
            for field in fields {
                value = self.field(value, field)?;
            }
            return Ok(value);
        }
        match &e.kind {
            ExprKind::Field(base, field) => {
                let value = self.eval(base)?;
                self.field(value, field)
            }
            _ => self.eval(e),
        }
    }

    /// An unknown first part of a dotted name: what was meant may be a longer name.
    fn with_parts(&mut self, fail: Fail, name: &str, fields: &[&ast::Ident]) -> Fail {
        let Fail::Diag(mut d) = fail else { return fail };
        if d.code == "unknown-name" && !fields.is_empty() {
            let parts: Vec<&str> = fields.iter().map(|f| f.text.as_str()).collect();
            let full = format!("{name}.{}", parts.join("."));
            let names: Vec<String> = self.scopes.iter().flat_map(|s| s.names.keys().cloned()).collect();
            if let Some(help) = super::suggest::suggestion(&full, names.iter()) {
                d.help = Some(help);
            }
            d.message = format!("nothing is named `{full}`, nor `{name}`");
        }
        Fail::Diag(d)
    }

    /// `value.name` where it is no call.
    fn field(&mut self, value: Value, field: &ast::Ident) -> Res<Value> {
        let span = field.span;
        match &value {
            Value::Record(fields) => match fields.iter().find(|(n, _)| *n == field.text) {
                Some((_, value)) => Ok(value.clone()),
                None => {
                    let names: Vec<&String> = fields.iter().map(|(n, _)| n).collect();
                    let help = super::suggest::suggestion(&field.text, names.iter()).unwrap_or_else(|| {
                        format!("it has {}", names.iter().map(|n| n.as_str()).collect::<Vec<_>>().join(", "))
                    });
                    fail_help(
                        "unknown-field",
                        span,
                        format!("the record has no field `{}`", field.text),
                        "unknown field",
                        help,
                    )
                }
            },
            Value::Tensor(_) | Value::Param(_) | Value::Fill(..) => match field.text.as_str() {
                "t" => {
                    let t = self.tensor(&value, span)?;
                    self.swap_last(t, span)
                }
                "shape" => {
                    let dims = self.dims_of(&value, span)?;
                    Ok(Value::list(dims.into_iter().map(|d| self.size_value(d)).collect()))
                }
                "rank" => Ok(Value::num(self.dims_of(&value, span)?.len() as f64)),
                "dtype" => {
                    let t = self.tensor(&value, span)?;
                    Ok(Value::DType(self.ty(t).dtype))
                }
                other => fail_help(
                    "unknown-field",
                    span,
                    format!("a tensor has no field `{other}`"),
                    "unknown field",
                    "a tensor has .t, .shape, .rank, .dtype, and every built-in function as a method with ( )",
                ),
            },
            Value::Instance(instance) => match instance.members.iter().find(|(n, _)| *n == field.text) {
                Some((_, member)) => Ok(member.clone()),
                // A dotted member: the rest of its name follows.
                None => {
                    let start = format!("{}.", field.text);
                    let fields: Vec<(String, Value)> = instance
                        .members
                        .iter()
                        .filter_map(|(n, v)| n.strip_prefix(&start).map(|n| (n.to_string(), v.clone())))
                        .collect();
                    if fields.is_empty() {
                        let names: Vec<&String> = instance.members.iter().map(|(n, _)| n).collect();
                        let help = super::suggest::suggestion(&field.text, names.iter()).unwrap_or_else(|| {
                            format!("it has {}", names.iter().map(|n| n.as_str()).collect::<Vec<_>>().join(", "))
                        });
                        return fail_help(
                            "unknown-field",
                            span,
                            format!("block {} has no member `{}`", instance.block.name.text, field.text),
                            "unknown member",
                            help,
                        );
                    }
                    Ok(dotted_record(fields))
                }
            },
            Value::Poison => Err(Fail::Silent),
            other => {
                fail("unknown-field", span, format!("{} has no field `{}`", other.kind(), field.text), "no such field")
            }
        }
    }

    fn record(&mut self, fields: &[(ast::Ident, Option<ast::Expr>)]) -> Res<Value> {
        let mut out: Vec<(String, Value)> = Vec::new();
        for (name, value) in fields {
            if out.iter().any(|(n, _)| *n == name.text) {
                return fail(
                    "duplicate",
                    name.span,
                    format!("the record has two fields `{}`", name.text),
                    "the second",
                );
            }
            let value = match value {
                Some(e) => self.eval(e)?,
                None => self.resolve(&name.text, name.span)?,
            };
            out.push((name.text.clone(), value));
        }
        Ok(Value::Record(Rc::new(out)))
    }

    fn comprehension(
        &mut self,
        element: &ast::Expr,
        pattern: &ast::Pattern,
        iter: &ast::Expr,
        condition: Option<&ast::Expr>,
    ) -> Res<Value> {
        let items = self.walk(iter)?;
        let mut out = Vec::new();
        for item in items {
            let value = self.scoped(|s| {
                s.destructure(pattern, item, Some(Kind::Fixed))?;
                if let Some(condition) = condition {
                    let value = s.eval(condition)?;
                    if !s.truth(&value, condition.span)? {
                        return Ok(None);
                    }
                }
                s.eval(element).map(Some)
            })?;
            out.extend(value);
        }
        Ok(Value::list(out))
    }

    /// The elements that a loop walks.
    pub fn walk(&mut self, iter: &ast::Expr) -> Res<Box<dyn Iterator<Item = Value>>> {
        match self.eval(iter)? {
            Value::Range(a, b) => Ok(Box::new((a..b).map(|i| Value::num(i as f64)))),
            Value::List(items) | Value::Tuple(items) => Ok(Box::new((0..items.len()).map(move |i| items[i].clone()))),
            Value::Poison => Err(Fail::Silent),
            other => {
                let help = match other {
                    Value::Num(..) => "walk a range: `for i in 0..n`",
                    _ => "a range `0..n`, a list or a tuple can be walked",
                };
                fail_help("not-iterable", iter.span, format!("{} cannot be walked", other.kind()), other.kind(), help)
            }
        }
    }

    fn range(&mut self, low: Option<&ast::Expr>, high: Option<&ast::Expr>, span: Span) -> Res<Value> {
        let (Some(low), Some(high)) = (low, high) else {
            return fail("open-range", span, "a range without both ends stands in an index only", "an end is missing");
        };
        let a = self.integer(low, "the start of a range")?;
        let b = self.integer(high, "the end of a range")?;
        if b < a {
            let message = format!("the range {a}..{b} ends before it starts");
            let help = format!("`{a}..{a}` is empty; `[{} - i for i in {b}..{a}]` counts down", a + b - 1);
            return fail_help("empty-range", span, message, format!("{a} to {b}"), help);
        }
        Ok(Value::Range(a, b))
    }

    /// Says what a number is that cannot be meant. A constant is blamed once: its other uses stay silent.
    pub fn blame(&mut self, value: &Value) -> String {
        match value {
            Value::Num(x, Some(Tag::Named(name))) => {
                self.consts.insert(name.to_string(), Const::Done(Value::Poison));
                format!("`{name}` is {x}")
            }
            Value::Num(x, _) => format!("this is {x}"),
            other => format!("this is {}", other.kind()),
        }
    }

    /// An expression that must be a whole number.
    pub fn integer(&mut self, e: &ast::Expr, what: &str) -> Res<i64> {
        let value = self.eval(e)?;
        self.whole(&value, what, e.span)
    }

    /// A value that must be a whole number.
    pub fn whole(&mut self, value: &Value, what: &str, span: Span) -> Res<i64> {
        match value {
            Value::Num(x, _) if x.fract() == 0.0 && x.abs() < 9e15 => Ok(*x as i64),
            Value::Num(x, _) => {
                let label = self.blame(value);
                if x.is_finite() && x.fract() == 0.0 {
                    return fail("absurd-size", span, format!("{what} cannot be that large"), label);
                }
                let message = format!("{what} must be a whole number");
                if !x.is_finite() {
                    return fail("not-whole", span, message, label);
                }
                fail_help("not-whole", span, message, label, "`div(a, b)` divides to a whole number; `/` is real")
            }
            Value::Host(_) => fail_help(
                "depends-on-step",
                span,
                format!("{what} must be known when the file is compiled"),
                "this depends on `step`",
                "shapes and loops never change while training; numbers such as a learning rate may",
            ),
            Value::Poison => Err(Fail::Silent),
            other => {
                fail("not-whole", span, format!("{what} must be a whole number"), format!("this is {}", other.kind()))
            }
        }
    }

    /// A value that must be true or false.
    pub fn truth(&mut self, value: &Value, span: Span) -> Res<bool> {
        match value {
            Value::Bool(b) => Ok(*b),
            Value::Host(_) => fail_help(
                "depends-on-step",
                span,
                "a condition must be known when the file is compiled",
                "this depends on `step`",
                "choose between two numbers with `where(condition, a, b)`",
            ),
            Value::Tensor(_) | Value::Fill(..) | Value::Param(_) => fail_help(
                "tensor-condition",
                span,
                "a condition must be known when the file is compiled",
                "this is a tensor",
                "choose element by element with `where(condition, a, b)`",
            ),
            Value::Poison => Err(Fail::Silent),
            Value::None => fail_help(
                "not-a-condition",
                span,
                "a condition is true or false",
                "this is none",
                "compare: `x == none`",
            ),
            other => fail("not-a-condition", span, "a condition is true or false", format!("this is {}", other.kind())),
        }
    }

    fn eval_if(&mut self, arms: &[(ast::Expr, ast::Body)], otherwise: Option<&ast::Body>, span: Span) -> Res<Value> {
        // Whatever the condition: another setting would bring the gap out.
        let Some(otherwise) = otherwise else {
            return fail_help(
                "no-else",
                span,
                "an `if` that is used as a value needs an `else`",
                "no value where the condition is false",
                "add `else { … }`",
            );
        };
        for (condition, body) in arms {
            let value = self.eval(condition)?;
            if self.truth(&value, condition.span)? {
                return self.value_of(body);
            }
        }
        self.value_of(otherwise)
    }

    /// The value of a body: that of its last statement.
    fn value_of(&mut self, body: &ast::Body) -> Res<Value> {
        self.scoped(|s| {
            let Some((last, before)) = body.stmts.split_last() else {
                return fail("no-value", body.span, "this body gives no value", "empty");
            };
            for stmt in before {
                if let Flow::Return(_) = s.exec(stmt)? {
                    return fail("misplaced", stmt.span, "`return` cannot stand inside an expression", "here");
                }
            }
            match &last.kind {
                ast::StmtKind::Expr(e) => s.eval(e),
                _ => fail("no-value", last.span, "the last line of this body must be an expression", "gives no value"),
            }
        })
    }
}

/// A record of dotted names, nested at the first dot where that is needed.
fn dotted_record(fields: Vec<(String, Value)>) -> Value {
    let mut out: Vec<(String, Value)> = Vec::new();
    for (name, value) in &fields {
        match name.split_once('.') {
            None => out.push((name.clone(), value.clone())),
            Some((first, _)) if !out.iter().any(|(n, _)| n == first) => {
                let start = format!("{first}.");
                let inner =
                    fields.iter().filter_map(|(n, v)| n.strip_prefix(&start).map(|n| (n.to_string(), v.clone())));
                out.push((first.to_string(), dotted_record(inner.collect())));
            }
            Some(_) => {}
        }
    }
    Value::Record(Rc::new(out))
}
