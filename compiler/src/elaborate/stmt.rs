//! Statements of functions, blocks, models and optimizers.

use std::rc::Rc;

use mngc_dsl::{Span, ast};

use super::value::{Kind, Value};
use super::{Elab, Fail, Res, fail, fail_help};
use ast::StmtKind;

/// How a statement ends.
#[derive(Debug)]
pub(crate) enum Flow {
    Next,
    Return(Value),
}

impl Elab {
    /// Runs a body in a scope of its own. A statement that fails is reported, and the next one runs.
    pub fn run(&mut self, body: &ast::Body) -> Res<Flow> {
        self.scoped(|s| s.run_here(&body.stmts))
    }

    /// Runs statements in the present scope.
    pub fn run_here(&mut self, stmts: &[ast::Stmt]) -> Res<Flow> {
        let mut failed = false;
        for stmt in stmts {
            let result = self.exec(stmt);
            match self.report(result) {
                Ok(Flow::Next) => {}
                Ok(flow) => return Ok(flow),
                Err(Fail::Fatal(d)) => return Err(Fail::Fatal(d)),
                Err(_) => {
                    failed = true;
                    self.poison_names(stmt);
                    if matches!(stmt.kind, StmtKind::Return(_)) {
                        return Err(Fail::Silent);
                    }
                }
            }
        }
        if failed { Err(Fail::Silent) } else { Ok(Flow::Next) }
    }

    fn poison_names(&mut self, stmt: &ast::Stmt) {
        match &stmt.kind {
            StmtKind::Let(bindings) | StmtKind::Var(bindings) => {
                let kind = if matches!(stmt.kind, StmtKind::Let(_)) { Kind::Fixed } else { Kind::Mutable };
                for target in bindings.iter().flat_map(|b| &b.targets) {
                    if self
                        .scopes
                        .last()
                        .is_none_or(|s| !idents_in(target).iter().all(|n| s.names.contains_key(&n.text)))
                    {
                        self.poison(target, Some(kind));
                    }
                }
            }
            StmtKind::Assign { targets, .. } => targets.iter().for_each(|t| self.poison(t, None)),
            StmtKind::State(defs) => {
                for d in defs {
                    self.bind(&d.name.text, Value::Poison, Kind::Mutable, d.name.span);
                }
            }
            StmtKind::Param { names, .. } => {
                for n in names {
                    if self.binding(&n.text).is_none() {
                        self.bind(&n.text, Value::Poison, Kind::Fixed, n.span);
                    }
                }
            }
            StmtKind::Use(defs) => {
                for d in defs {
                    if self.binding(&d.name.text).is_none() {
                        self.bind(&d.name.text, Value::Poison, Kind::Fixed, d.name.span);
                    }
                }
            }
            // What a failed loop or branch would have assigned is not known any more.
            StmtKind::For { body, .. } => body.stmts.iter().for_each(|s| self.poison_names(s)),
            StmtKind::If { arms, otherwise } => {
                let bodies = arms.iter().map(|(_, b)| b).chain(otherwise);
                let stmts: Vec<&ast::Stmt> = bodies.flat_map(|b| &b.stmts).collect();
                stmts.into_iter().for_each(|s| {
                    if matches!(s.kind, StmtKind::Assign { .. } | StmtKind::If { .. } | StmtKind::For { .. }) {
                        self.poison_names(s)
                    }
                });
            }
            _ => {}
        }
    }

    /// Runs one statement.
    pub fn exec(&mut self, stmt: &ast::Stmt) -> Res<Flow> {
        self.deeper(stmt.span, |s| s.exec_kind(stmt))
    }

    fn exec_kind(&mut self, stmt: &ast::Stmt) -> Res<Flow> {
        match &stmt.kind {
            StmtKind::Let(bindings) => self.bindings(bindings, Kind::Fixed)?,
            StmtKind::Var(bindings) => self.bindings(bindings, Kind::Mutable)?,
            StmtKind::Assign { targets, value } => self.binding_names(|s| {
                let v = s.eval(value)?;
                match targets.as_slice() {
                    [one] => s.destructure(one, v, None),
                    many => s.spread(many, v, None, value.span),
                }
            })?,
            StmtKind::Return(values) => {
                let mut out = Vec::with_capacity(values.len());
                for value in values {
                    out.push(self.eval(value)?);
                }
                return Ok(Flow::Return(match out.len() {
                    0 => Value::None,
                    1 => out.remove(0),
                    _ => Value::Tuple(Rc::new(out)),
                }));
            }
            StmtKind::For { pattern, iter, body } => {
                for item in self.walk(iter)? {
                    let flow = self.scoped(|s| {
                        s.destructure(pattern, item, Some(Kind::Fixed))?;
                        s.run(body)
                    })?;
                    if let Flow::Return(value) = flow {
                        return Ok(Flow::Return(value));
                    }
                    // Counts even an empty body.
                    self.deeper(stmt.span, |_| Ok(()))?;
                }
            }
            StmtKind::If { arms, otherwise } => {
                for (condition, body) in arms {
                    let value = self.eval(condition)?;
                    if self.truth(&value, condition.span)? {
                        return self.run(body);
                    }
                }
                if let Some(body) = otherwise {
                    return self.run(body);
                }
            }
            StmtKind::Expr(e) => {
                let value = self.eval(e)?;
                if matches!(value, Value::Tensor(_) | Value::Num(..) | Value::Host(_) | Value::Param(_)) {
                    return fail_help(
                        "unused-value",
                        e.span,
                        "this value is not used",
                        value.kind(),
                        "bind it with `let`, or return it",
                    );
                }
            }
            StmtKind::Param { names, ty, init } => self.declare_params(names, ty, init, stmt.span)?,
            StmtKind::Use(defs) => self.declare_uses(defs)?,
            StmtKind::State(defs) => self.declare_states(defs, stmt.span)?,
            StmtKind::Update { .. } | StmtKind::Validate(_) => {
                return misplaced(stmt.span, "`update` and `validate` stand in `train`");
            }
        }
        Ok(Flow::Next)
    }

    fn bindings(&mut self, bindings: &[ast::Binding], kind: Kind) -> Res<()> {
        let mut first = Ok(());
        for binding in bindings {
            let result = self.binding_names(|s| {
                let v = s.eval(&binding.value)?;
                binding.targets.iter().flat_map(idents_in).try_for_each(|name| s.not_reserved(name))?;
                match binding.targets.as_slice() {
                    [one] => s.destructure(one, v, Some(kind)),
                    many => s.spread(many, v, Some(kind), binding.value.span),
                }
            });
            let result = self.report(result);
            if let Err(fail) = result {
                binding.targets.iter().for_each(|t| self.poison(t, Some(kind)));
                if matches!(fail, Fail::Fatal(_)) || first.is_ok() {
                    first = Err(fail);
                }
                if matches!(first, Err(Fail::Fatal(_))) {
                    return first;
                }
            }
        }
        first
    }
}

/// A statement where it has no meaning.
pub(crate) fn misplaced<T>(span: Span, message: &str) -> Res<T> {
    fail("misplaced", span, message, "not here")
}

/// Every name of a pattern, in order.
pub(crate) fn idents_in(pattern: &ast::Pattern) -> Vec<&ast::Ident> {
    match pattern {
        ast::Pattern::Name(n) => vec![n],
        ast::Pattern::Ignore(_) => vec![],
        ast::Pattern::Seq(parts, _) => parts.iter().flat_map(idents_in).collect(),
    }
}
