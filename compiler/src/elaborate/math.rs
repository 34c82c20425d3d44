//! Arithmetic on numbers: those known now, and those that the host computes for every step.

use std::sync::Arc;

use mngc_dsl::Span;

use super::value::Value;
use super::{Elab, Res, fail};
use crate::ir::{CompareOp, HostBinary, HostExpr, HostUnary};

/// A number as a host expression; none for what is no number.
pub(crate) fn host(value: &Value) -> Option<Arc<HostExpr>> {
    match value {
        Value::Num(x, _) => Some(HostExpr::num(*x)),
        Value::Host(e) => Some(e.clone()),
        _ => None,
    }
}

/// A host expression as a value: a number where it does not depend on the step.
fn folded(e: HostExpr) -> Value {
    match e {
        HostExpr::Num(x) => Value::num(x.0),
        other => Value::Host(Arc::new(other)),
    }
}

/// f(a).
pub(crate) fn unary(op: HostUnary, a: &Arc<HostExpr>) -> Value {
    match **a {
        HostExpr::Num(x) => Value::num(op.apply(x.0)),
        _ => folded(HostExpr::Unary(op, a.clone())),
    }
}

/// f(a, b).
pub(crate) fn binary(op: HostBinary, a: &Arc<HostExpr>, b: &Arc<HostExpr>) -> Value {
    match (&**a, &**b) {
        (HostExpr::Num(x), HostExpr::Num(y)) => Value::num(op.apply(x.0, y.0)),
        _ => folded(HostExpr::Binary(op, a.clone(), b.clone())),
    }
}

/// a ? b.
pub(crate) fn compare(op: CompareOp, a: &Arc<HostExpr>, b: &Arc<HostExpr>) -> Value {
    match (&**a, &**b) {
        (HostExpr::Num(x), HostExpr::Num(y)) => Value::Bool(crate::ir::host::compare(op, x.0, y.0)),
        _ => folded(HostExpr::Compare(op, a.clone(), b.clone())),
    }
}

/// c ? a : b on numbers.
pub(crate) fn select(c: &Arc<HostExpr>, a: &Arc<HostExpr>, b: &Arc<HostExpr>) -> Value {
    match **c {
        HostExpr::Num(x) => folded(HostExpr::clone(if x.0 != 0.0 { a } else { b })),
        _ => folded(HostExpr::Select(c.clone(), a.clone(), b.clone())),
    }
}

impl Elab {
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
