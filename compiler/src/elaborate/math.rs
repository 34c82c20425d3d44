//! Arithmetic on numbers: those known now, and those that the host computes for every step.

use std::sync::Arc;

use mngc_dsl::{Diagnostic, Span};

use super::value::Value;
use super::{Elab, Res, fail};
use crate::ir::host::{MAX_DEPTH, MAX_NODES};
use crate::ir::{CompareOp, HostBinary, HostExpr, HostKind, HostUnary};

/// A number as a host expression; none for what is no number.
pub(crate) fn host(value: &Value) -> Option<Arc<HostExpr>> {
    match value {
        Value::Num(x, _) => Some(HostExpr::num(*x)),
        Value::Host(e) => Some(e.clone()),
        _ => None,
    }
}

/// A host expression as a value: a number where it does not depend on the step.
fn folded(kind: HostKind) -> Value {
    match kind {
        HostKind::Num(x) => Value::num(x.0),
        other => Value::Host(HostExpr::new(other)),
    }
}

/// f(a).
pub(crate) fn unary(op: HostUnary, a: &Arc<HostExpr>) -> Value {
    match a.constant() {
        Some(x) => Value::num(op.apply(x)),
        None => folded(HostKind::Unary(op, a.clone())),
    }
}

/// f(a, b).
pub(crate) fn binary(op: HostBinary, a: &Arc<HostExpr>, b: &Arc<HostExpr>) -> Value {
    match (a.constant(), b.constant()) {
        (Some(x), Some(y)) => Value::num(op.apply(x, y)),
        _ => folded(HostKind::Binary(op, a.clone(), b.clone())),
    }
}

/// a ? b.
pub(crate) fn compare(op: CompareOp, a: &Arc<HostExpr>, b: &Arc<HostExpr>) -> Value {
    match (a.constant(), b.constant()) {
        (Some(x), Some(y)) => Value::Bool(crate::ir::host::compare(op, x, y)),
        _ => folded(HostKind::Compare(op, a.clone(), b.clone())),
    }
}

/// c ? a : b on numbers.
pub(crate) fn select(c: &Arc<HostExpr>, a: &Arc<HostExpr>, b: &Arc<HostExpr>) -> Value {
    match c.constant() {
        Some(x) => folded(if x != 0.0 { a } else { b }.kind().clone()),
        None => folded(HostKind::Select(c.clone(), a.clone(), b.clone())),
    }
}

impl Elab {
    /// A value, unless it is a number by the step that takes absurdly long to compute. Whoever makes a chain of numbers asks
    /// after each; expressions do.
    pub fn small(&self, value: Value, span: Span) -> Res<Value> {
        match &value {
            Value::Host(e) if !e.is_small() => {
                let d = Diagnostic::error(
                    "absurd-size",
                    span,
                    "this number takes too many operations in every step",
                    match e.nodes() > MAX_NODES {
                        true => format!("over {MAX_NODES} operations on `step`"),
                        false => format!("over {MAX_DEPTH} operations inside each other"),
                    },
                );
                let help = "say it as a short formula of `step`; a loop that uses a value twice doubles it each time";
                Err(d.help(help).into())
            }
            _ => Ok(value),
        }
    }

    /// `trapezoid(step, steps, warmup, warmdown)` = min(1, (step + 1)/warmup, (steps − step)/warmdown); a length of 0 means
    /// that there is no such part.
    pub fn trapezoid(&mut self, v: [&Value; 4], span: Span) -> Res<Value> {
        let mut parts = Vec::with_capacity(4);
        for (value, name) in v.into_iter().zip(["step", "steps", "warmup", "warmdown"]) {
            match host(value) {
                Some(e) => parts.push(e),
                None => {
                    return fail("not-a-number", span, format!("`{name}` of a trapezoid is a number"), value.kind());
                }
            }
        }
        let known = |i: usize| parts[i].constant();
        if let Some(steps) = known(1) {
            if steps.is_nan() || steps < 1.0 {
                let message = format!("a trapezoid over {steps} steps");
                return super::fail_help(
                    "bad-setting",
                    span,
                    message,
                    "here",
                    "it is over the steps of the run: `trapezoid(step, steps)`",
                );
            }
            for (i, name) in [(2, "warmup"), (3, "warmdown")] {
                if let Some(n) = known(i)
                    && (n > steps || n < 0.0)
                {
                    let what =
                        if n < 0.0 { "is negative".into() } else { format!("is longer than the run of {steps} steps") };
                    let help = if n < 0.0 {
                        format!("0 means that there is no {name}")
                    } else {
                        let third = (steps / 3.0).floor();
                        format!("set both: `--set {name}={third}` for {steps} steps, or `--set steps={n}` and more")
                    };
                    return super::fail_help(
                        "bad-setting",
                        span,
                        format!("a {name} of {n} steps {what}"),
                        format!("{name} = {n}, steps = {steps}"),
                        help,
                    );
                }
            }
        }
        let one = HostExpr::num(1.0);
        let mut result = one.clone();
        let ramps = [(HostBinary::Add, &parts[0], &one, 2), (HostBinary::Sub, &parts[1], &parts[0], 3)];
        for (op, a, b, length) in ramps {
            let length = &parts[length];
            if length.constant() == Some(0.0) {
                continue;
            }
            let above = host(&binary(op, a, b)).unwrap_or_else(|| one.clone());
            let ramp = host(&binary(HostBinary::Div, &above, length)).unwrap_or_else(|| one.clone());
            let ramp = match length.constant() {
                Some(_) => ramp,
                None => host(&select(length, &ramp, &one)).unwrap_or(ramp),
            };
            result = host(&binary(HostBinary::Min, &result, &ramp)).unwrap_or(ramp);
        }
        Ok(match result.constant() {
            Some(x) => Value::num(x),
            None => Value::Host(result),
        })
    }
}
