//! Which optimizer takes which parameter, and what it does to it.

use std::collections::HashMap;
use std::rc::Rc;

use mngc_dsl::{Diagnostic, Span, ast};

use super::declare::finite;
use super::frame::Source;
use super::model::Meta;
use super::suggest::suggestion;
use super::value::{Tensor, Value};
use super::{Elab, Fail, Res, fail, fail_help};
use crate::check::roles::{self, Role};
use crate::ir::{self, Output, Slot, SlotData, SlotRole};
use ast::Selector;

/// An `update` statement with its arguments evaluated.
pub(crate) struct Update {
    slots: Vec<Slot>,
    others: bool,
    optimizer: Rc<ast::Optimizer>,
    args: Vec<(Option<ast::Ident>, Value, Span)>,
    gradients: Rc<Vec<(Slot, ir::Value)>>,
    pub span: Span,
}

impl Elab {
    /// An `update` statement.
    pub fn update(
        &mut self,
        selectors: &[Selector],
        optimizer: &ast::Ident,
        args: &[ast::Arg],
        span: Span,
    ) -> Res<Update> {
        let Some(opt) = self.optimizers.get(&optimizer.text).cloned() else {
            let names: Vec<String> = self.optimizers.keys().cloned().collect();
            let mut d = Diagnostic::error(
                "unknown-name",
                optimizer.span,
                format!("there is no optimizer `{}`", optimizer.text),
                "unknown optimizer",
            );
            d.help = suggestion(&optimizer.text, names.iter())
                .or_else(|| Some("declare it: `optimizer NAME(w, g; lr) { … }`".into()));
            return Err(d.into());
        };
        let args = self.eval_args(args, span)?.list;
        for (name, value, at) in &args {
            let name = name.as_ref().map_or("a hyper-parameter".to_string(), |n| format!("`{}`", n.text));
            match value {
                Value::Num(x, _) => finite(*x, &name, *at)?,
                Value::Host(h) if h.is_condition() => {
                    let help = "`where(condition, a, b)` chooses between two numbers";
                    let message = format!("{name} is true or false by the step, not a number");
                    return fail_help("not-a-number", *at, message, "a condition", help);
                }
                _ => {}
            }
        }
        let gradients = match self.binding("gradients").map(|b| b.value.clone()) {
            Some(Value::Gradients(g)) => g.0,
            Some(Value::Poison) | None => return Err(Fail::Silent),
            Some(other) => {
                return fail("not-gradients", span, format!("`gradients` was made {}", other.kind()), "used here");
            }
        };
        let mut slots = Vec::new();
        let mut others = false;
        for selector in selectors {
            match selector {
                Selector::Others(_) => others = true,
                Selector::Path(path) => slots.extend(self.select(None, Some(path), path.span)?),
                Selector::Kind { kind, path } => slots.extend(self.select(Some(kind), path.as_ref(), kind.span)?),
            }
        }
        Ok(Update { slots, others, optimizer: opt, args, gradients, span })
    }

    /// Parameters under a path, of one rank where a kind is named.
    fn select(&mut self, kind: Option<&ast::Ident>, path: Option<&ast::Path>, span: Span) -> Res<Vec<Slot>> {
        let under = |name: &str| match path {
            None => true,
            Some(p) => name == p.text || name.strip_prefix(&p.text).is_some_and(|r| r.starts_with('.')),
        };
        let below: Vec<(Slot, usize)> =
            self.m.params().filter(|(_, s)| under(&s.name)).map(|(id, s)| (id, s.ty.rank())).collect();
        if let (true, Some(p)) = (below.is_empty(), path) {
            let mut names: Vec<String> = Vec::new();
            for (_, s) in self.m.params() {
                // Every prefix of a name is a group that could have been meant.
                let ends = s.name.match_indices('.').map(|(i, _)| i).chain([s.name.len()]);
                names.extend(ends.map(|end| s.name[..end].to_string()));
            }
            names.sort();
            names.dedup();
            let help = suggestion(&p.text, names.iter()).unwrap_or_else(|| {
                let tops: Vec<&str> = names.iter().filter(|n| !n.contains('.')).map(String::as_str).collect();
                format!("at the top there are {}", tops.join(", "))
            });
            return fail_help(
                "unknown-parameter",
                p.span,
                format!("no parameter is named `{}` or stands under it", p.text),
                "matches nothing",
                help,
            );
        }
        let rank = match kind.map(|k| k.text.as_str()) {
            None | Some("parameters") => None,
            Some("matrices") => Some(2),
            Some("vectors") => Some(1),
            Some("scalars") => Some(0),
            Some(other) => {
                return fail_help(
                    "unknown-name",
                    span,
                    format!("`{other}` is no kind of parameter"),
                    "unknown",
                    "the kinds are matrices, vectors, scalars and parameters",
                );
            }
        };
        let chosen: Vec<Slot> =
            below.iter().filter(|(_, r)| rank.is_none_or(|want| want == *r)).map(|(s, _)| *s).collect();
        if chosen.is_empty() {
            let place = path.map_or("the model".to_string(), |p| format!("`{}`", p.text));
            let kind = kind.map_or("parameters", |k| k.text.as_str());
            return fail_help(
                "empty-group",
                span,
                format!("there are no {kind} in {place}"),
                "an empty group",
                "remove this `update`, or name another group",
            );
        }
        Ok(chosen)
    }

    /// Stages every update; each parameter must be taken once.
    pub fn apply_updates(
        &mut self,
        mut updates: Vec<Update>,
        params: &[Slot],
        span: Span,
        outputs: &mut Vec<Output>,
        values: &mut Vec<ir::Value>,
    ) -> Res<()> {
        let mut taken: HashMap<Slot, Span> = HashMap::new();
        for update in &updates {
            for &slot in &update.slots {
                if let Some(old) = taken.insert(slot, update.span) {
                    let name = self.m.slots[slot].name.clone();
                    let d = Diagnostic::error(
                        "double-update",
                        update.span,
                        format!("two updates take `{name}`"),
                        "the second",
                    )
                    .label(old, "the first")
                    .help("every parameter belongs to one `update`; `others` are those that no other names");
                    self.push(d)?;
                }
            }
        }
        if let [first, second, ..] = updates.iter().filter(|u| u.others).map(|u| u.span).collect::<Vec<_>>()[..] {
            let d = Diagnostic::error("double-update", second, "two updates take `others`", "the second")
                .label(first, "the first");
            self.push(d)?;
            return Err(Fail::Silent);
        }
        let rest: Vec<Slot> = params.iter().copied().filter(|s| !taken.contains_key(s)).collect();
        match updates.iter_mut().find(|u| u.others) {
            Some(update) if rest.is_empty() && update.slots.is_empty() => {
                let d = Diagnostic::error(
                    "empty-group",
                    update.span,
                    "no parameter is left for `others`",
                    "an empty group",
                );
                self.push(d.help("every parameter is named by another `update`: remove this one"))?;
            }
            Some(update) => update.slots.extend(rest),
            None if rest.is_empty() => {}
            None => {
                let names: Vec<String> = rest.iter().take(4).map(|&s| format!("`{}`", self.m.slots[s].name)).collect();
                let more = if rest.len() > 4 { format!(" and {} more", rest.len() - 4) } else { String::new() };
                let d = Diagnostic::error(
                    "no-update",
                    span,
                    format!("no update takes {}{more}", names.join(", ")),
                    "this recipe",
                );
                self.push(d.help("add `update others with OPTIMIZER(…)`"))?;
            }
        }
        if !self.diags.is_empty() {
            return Err(Fail::Silent);
        }
        for update in updates {
            for &slot in &update.slots {
                let done = self.apply(&update, slot, outputs, values);
                match self.report(done) {
                    Err(Fail::Fatal(d)) => return Err(Fail::Fatal(d)),
                    Ok(()) => {}
                    // One mistake of an optimizer is enough.
                    Err(_) => break,
                }
            }
        }
        Ok(())
    }

    /// Rows of embeddings and heads are independent of each other: an optimizer that mixes them is a mistake.
    fn not_for_matrices(&self, optimizer: &str, data: &SlotData, slot: Slot, span: Span) -> Res<()> {
        let (what, why) = if self.tables.contains(&slot) {
            ("an embedding", "its rows are looked up by token")
        } else if self.heads.contains(&slot) {
            ("a head", "its rows are classes, which the loss chooses from")
        } else {
            return Ok(());
        };
        let message = format!("optimizer {optimizer} multiplies matrices, and `{}` is {what}", data.name);
        let mut d = Diagnostic::error("embedding-update", span, message, "takes it");
        d.labels.extend(data.loc.map(|loc| (loc, why.to_string())));
        let help = format!("rows of {what} are independent: give it to an elementwise optimizer such as adam");
        Err(d.help(help).into())
    }

    fn apply(
        &mut self,
        update: &Update,
        slot: Slot,
        outputs: &mut Vec<Output>,
        values: &mut Vec<ir::Value>,
    ) -> Res<()> {
        let data = self.m.slots[slot].clone();
        let span = update.span;
        let name = &update.optimizer.name.text;
        let known = self.diags.len();
        let made = match self.optimizer_fn(&update.optimizer, &data.ty, &update.args, span) {
            // The mistake may be the optimizer's or the choice of parameters: the message is of the first, the note of both.
            Err(Fail::Silent) if self.diags.len() > known => {
                let shape = self.show_dims(&data.ty.dims);
                let note = format!("optimizer {name} takes `{}` here, which is {shape}", data.name);
                let of_rank = data.ty.rank() != 2 && matches!(self.diags[known].code, "axes" | "no-axis");
                if !of_rank {
                    if data.ty.rank() != 2 {
                        self.diags[known].notes.push(note);
                    }
                    return Err(Fail::Silent);
                }
                let inner = self.diags.drain(known..).next();
                let message = format!("optimizer {name} does not work on `{}`, which is {shape}", data.name);
                let mut d = Diagnostic::error("not-a-matrix", span, message, "takes it");
                d.labels.extend(data.loc.map(|loc| (loc, "declared here".to_string())));
                d.labels.extend(inner.map(|inner| (inner.labels[0].0, inner.message)));
                return Err(d
                    .help("an elementwise optimizer such as adam takes any shape; `matrices in …` selects rank 2 only")
                    .into());
            }
            other => other?,
        };
        if made.of_matrices {
            self.not_for_matrices(name, &data, slot, span)?;
        }
        let w = self.slot_value(slot, span)?;
        let Some(&(_, g)) = update.gradients.iter().find(|(s, _)| *s == slot) else { return Err(Fail::Silent) };
        let frame = self.frame(span)?.id;
        let mut args = vec![w, g];
        args.extend(update.args.iter().flat_map(|(_, v, _)| v.tensors()).map(|t| t.v));
        let mut states = Vec::new();
        for state in &made.states {
            let ty = state.ty.clone();
            let full = format!("{}#{}", data.name, state.name);
            let id = self.m.slots.push(SlotData { name: full, role: SlotRole::Optimizer(slot), ty, loc: data.loc });
            self.draw_fill(id, state.fill)?;
            args.push(self.slot_value(id, span)?);
            states.push(id);
        }
        let args: Vec<Tensor> = args.into_iter().map(|v| Tensor { v, frame, storage: None }).collect();
        let Value::List(results) = self.call_meta(&made.meta, None, &args, span)? else { return Err(Fail::Silent) };
        for (value, target) in results.iter().zip(std::iter::once(slot).chain(states)) {
            if let Value::Tensor(t) = value {
                values.push(t.v);
                outputs.push(Output::Slot(target));
            }
        }
        Ok(())
    }
}

/// Slots of a model's function that have a role in it.
pub(crate) fn slots_of_role(m: &ir::Module, meta: &Meta, role: Role) -> Vec<Slot> {
    let of_role = roles::params(m, meta.func, role);
    let slot = |&i: &usize| if let Source::Slot(s) = &meta.sources[i] { Some(*s) } else { None };
    of_role.iter().filter_map(slot).collect()
}
