//! The `train` block: settings, host scalars, and which optimizer takes which parameter.

use std::collections::HashSet;
use std::rc::Rc;

use indexmap::IndexMap;
use mngc_dsl::{Diagnostic, FileId, Span, ast};

use super::files::{TRAIN_KEYS, VALIDATE_KEYS};
use super::frame::Source;
use super::model::{INPUTS, Meta};
use super::settings::{Recipes, Settings};
use super::stmt::{Flow, idents_in};
use super::suggest::suggestion;
use super::update::{Update, slots_of_role};
use super::value::{Gradients, Kind, Value};
use super::{Elab, Elaborated, Fail, Res, fail, fail_help};
use crate::autodiff;
use crate::check::roles::Role;
use crate::check::uses::Uses;
use crate::ir::{self, DType, HostExpr, Output, Scalar, ScalarData, Slot};
use ast::StmtKind;
use std::sync::Arc;

/// Names that the log's lines have for themselves: what a recipe logs needs others.
const LOG_FIELDS: [&str; 9] =
    ["event", "step", "train_loss", "val_loss", "loss", "gradient_norm", "ms", "tokens", "seconds"];

/// The function of `update` before it is bound.
pub(crate) struct Optimize {
    pub graph: ir::Graph,
    pub sources: Vec<Source>,
    /// One for each result of the graph.
    pub outputs: Vec<Output>,
}

impl Elab {
    /// Elaborates everything.
    pub fn program(
        &mut self,
        main: FileId,
        train: Option<(Rc<ast::Train>, Span)>,
        precision: IndexMap<String, ast::Expr>,
    ) -> Res<Elaborated> {
        for (key, e) in &precision {
            let dtype = self.isolated(|s| s.dtype(e));
            let dtype = self.report(dtype)?;
            if !dtype.is_float() {
                return fail("dtype", e.span, format!("precision is that of floats, not {dtype}"), "here");
            }
            if key == "compute" { self.compute = dtype } else { self.master = dtype }
        }
        // Also those that nothing uses: a mistake in one is a mistake.
        for name in self.consts.keys().cloned().collect::<Vec<_>>() {
            if let Err(Fail::Fatal(d)) = self.constant(&name, Span::new(main, 0, 0)) {
                return Err(Fail::Fatal(d));
            }
        }
        let top = Span::new(main, 0, 0);
        let Some((train, span)) = train else {
            return fail_help(
                "no-train",
                top,
                "the file has no `train` block",
                "nothing to run",
                "add `train MODEL[T = …] { steps = …, batch = …, data = \"…\" }`",
            );
        };
        let model = self.trained_model(&train, span)?;
        self.m.name = model.name.text.clone();
        let mut frame = self.new_frame("init", DType::F32, None);
        frame.initial = true;
        self.init = Some(frame);
        let (size, at) = self.sequence_length(&train, &model, span)?;
        let made = self.instantiate_model(&model, &size, at);
        let train_model = self.report(made)?;
        if self.m.params().next().is_none() {
            let message = format!("model {} has no parameters", model.name.text);
            let help = "declare them: `param name: [axes] init …`";
            return fail_help("no-parameters", model.name.span, message, "nothing to train", help);
        }
        self.declaring = false;
        self.tables = slots_of_role(&self.m, &train_model, Role::Rows);
        self.heads = slots_of_role(&self.m, &train_model, Role::Classes);
        // What failed above may be what uses it.
        if self.diags.is_empty() {
            self.check_used(&train_model, &model)?;
        }
        let (recipe, settings, update) = self.train_block(&train, &model, &size, span)?;
        let validate_model = match &recipe.validate {
            Some((.., sequence)) if *sequence != recipe.sequence => {
                let at = settings.get("validate.sequence").map_or(span, |(_, s)| *s);
                let made = self.instantiate_model(&model, &Value::num(*sequence as f64), at);
                Some(self.report(made)?)
            }
            Some(_) => Some(train_model.clone()),
            None => None,
        };
        let init = self.init.take().ok_or(Fail::Silent)?.graph;
        if !self.diags.is_empty() {
            return Err(Fail::Silent);
        }
        Ok(Elaborated {
            module: std::mem::take(&mut self.m),
            train_model,
            validate_model,
            recipe,
            update,
            init,
            drawn: std::mem::take(&mut self.drawn),
        })
    }

    fn trained_model(&mut self, train: &ast::Train, span: Span) -> Res<Rc<ast::Model>> {
        let names: Vec<String> = self.models.keys().cloned().collect();
        match &train.model {
            Some(name) => match self.models.get(&name.text) {
                Some(model) => Ok(model.clone()),
                None => {
                    let help = suggestion(&name.text, names.iter()).unwrap_or_else(|| match names.len() {
                        0 => "the file declares no model".to_string(),
                        _ => format!("the models are {}", names.join(", ")),
                    });
                    fail_help(
                        "unknown-model",
                        name.span,
                        format!("there is no model `{}`", name.text),
                        "unknown model",
                        help,
                    )
                }
            },
            None => match self.models.values().collect::<Vec<_>>().as_slice() {
                [only] => Ok(Rc::clone(only)),
                _ => fail_help(
                    "unknown-model",
                    span,
                    "`train` does not say which model",
                    "here",
                    format!("name one of {}", names.join(", ")),
                ),
            },
        }
    }

    fn sequence_length(&mut self, train: &ast::Train, model: &ast::Model, span: Span) -> Res<(Value, Span)> {
        let known: Vec<&str> = model.shape_vars.iter().map(|v| v.text.as_str()).collect();
        if let Some(wrong) = train.bindings.iter().find(|b| !known.contains(&b.key.text.as_str())) {
            let help = format!("the model's shape variables are {}", known.join(", "));
            return fail_help(
                "unknown-name",
                wrong.key.span,
                format!("model {} has no shape variable `{}`", model.name.text, wrong.key.text),
                "unknown",
                help,
            );
        }
        for (i, binding) in train.bindings.iter().enumerate() {
            if let Some(old) = train.bindings[..i].iter().find(|b| b.key.text == binding.key.text) {
                let message = format!("`{}` is given twice", binding.key.text);
                let d = Diagnostic::error("duplicate", binding.key.span, message, "the second time");
                return Err(d.label(old.key.span, "the first").help("leave one out").into());
            }
        }
        let Some(binding) = train.bindings.first() else {
            let at = train.model.as_ref().map_or(span, |m| m.span);
            let var = known.first().copied().unwrap_or("T");
            return fail_help(
                "unbound",
                at,
                format!("`train` does not say what {var} is"),
                "no length of sequences",
                format!("write `train {}[{var} = sequence]`", model.name.text),
            );
        };
        let value = self.isolated(|s| s.eval(&binding.value));
        Ok((self.report(value)?, binding.value.span))
    }

    /// The loss must depend on every parameter and every input of the model.
    fn check_used(&mut self, model: &Meta, declared: &ast::Model) -> Res<()> {
        let names = &self.m.funcs[model.func].result_names;
        let loss = names.iter().position(|n| n == "loss").ok_or(Fail::Silent)?;
        let used = Uses::new(&self.m).of_result(model.func, loss);
        let sources = || model.sources.iter().zip(&used);
        for (i, input) in INPUTS.iter().enumerate() {
            let found = sources().find(|(source, _)| **source == Source::Arg(i));
            let place = declared.inputs.iter().find(|p| p.name.text == *input);
            let message = format!("the loss does not depend on `{input}`");
            match (found, place) {
                (Some((_, true)), _) => {}
                // Without tokens there is nothing to learn; targets may be made from them.
                (None, _) if i > 0 => {}
                (_, place) => {
                    let at = declared.body.stmts.iter().rev().find(|s| matches!(s.kind, StmtKind::Return(_)));
                    let at = at.map_or(declared.name.span, |s| s.span);
                    let mut d = Diagnostic::error("unused-input", at, message, "this loss");
                    d.labels.extend(place.map(|p| (p.name.span, "declared here".to_string())));
                    let help = "`loss: cross_entropy(cast(logits, f32), targets)` compares what the model makes of `tokens` with `targets`";
                    self.push(d.help(help))?;
                }
            }
        }
        let reached = autodiff::reached(&self.m, model.func, loss);
        let of = |mask: &[bool]| -> HashSet<Slot> {
            let slot =
                |(s, asked): (&Source, &bool)| if let (Source::Slot(s), true) = (s, asked) { Some(*s) } else { None };
            model.sources.iter().zip(mask).filter_map(slot).collect()
        };
        let (used, reached) = (of(&used), of(&reached));
        let params: Vec<(Slot, String, Option<Span>)> =
            self.m.params().map(|(slot, data)| (slot, data.name.clone(), data.loc)).collect();
        let mut said: Vec<Span> = Vec::new();
        for (slot, name, place) in params {
            let Some(span) = place.filter(|span| !reached.contains(&slot) && !said.contains(span)) else { continue };
            said.push(span);
            let d = if used.contains(&slot) {
                let message = format!("no gradient reaches parameter `{name}`: nothing would train it");
                Diagnostic::error("untrained-parameter", span, message, "declared here").help(
                    "the loss depends on it by `sign`, `floor`, `round`, comparisons, casts to i32 or bool, or a window alone, \
                     whose gradients are zero: use it elsewhere too, or write its values where it is read",
                )
            } else {
                let message = format!("the loss does not depend on parameter `{name}`");
                Diagnostic::error("unused-parameter", span, message, "declared here")
                    .help("remove it, or use it in the model: nothing would train it")
            };
            self.push(d)?;
        }
        Ok(())
    }

    fn train_block(
        &mut self,
        train: &ast::Train,
        model: &ast::Model,
        size: &Value,
        span: Span,
    ) -> Res<(Recipes, Settings, Optimize)> {
        let params: Vec<Slot> = self.m.params().map(|(s, _)| s).collect();
        let gradients = self.gradient_slots(&params);
        let frame = self.new_frame("update", DType::F32, None);
        self.frames.push(frame);
        self.step = true;
        let mut settings = Settings::new();
        let mut updates = Vec::new();
        let mut logged = Vec::new();
        let result = self.isolated(|s| {
            let mut list = Vec::new();
            for (&slot, &grad) in params.iter().zip(&gradients) {
                list.push((slot, s.slot_value(grad, span)?));
            }
            let norm = s.global_norm(&list, span)?;
            let all = Value::Gradients(Gradients(Rc::new(list)));
            s.bind("gradients", all, Kind::Mutable, span);
            let mut failed = false;
            for stmt in &train.body.stmts {
                let done = s.train_stmt(stmt, &mut settings, &mut updates, &mut logged);
                match s.report(done) {
                    Ok(()) => {}
                    Err(Fail::Fatal(d)) => return Err(Fail::Fatal(d)),
                    Err(_) => failed = true,
                }
            }
            s.forced_settings(&mut settings, train, span)?;
            if failed { Err(Fail::Silent) } else { Ok(norm) }
        });
        let norm = result;
        let recipe = self.recipe(model, &settings, size, span);
        let recipe = self.report(recipe);
        let norm = norm?;
        let mut outputs = vec![Output::Host("gradient_norm".into())];
        let mut values = vec![norm];
        let mut recipe = recipe?;
        for (name, value) in logged {
            match value {
                Value::Host(h) => recipe.logged.push((name, h)),
                Value::Tensor(t) => {
                    outputs.push(Output::Host(name));
                    values.push(t.v);
                }
                _ => {}
            }
        }
        self.apply_updates(updates, &params, span, &mut outputs, &mut values)?;
        for &grad in &gradients {
            let ty = self.m.slots[grad].ty.clone();
            values.push(self.build(span)?.full(0.0, ty.clone()));
            outputs.push(Output::Slot(grad));
            self.draw_fill(grad, 0.0)?;
        }
        let mut frame = self.frames.pop().ok_or(Fail::Silent)?;
        for (value, output) in values.iter().zip(&outputs) {
            let name = match output {
                Output::Host(name) => name.clone(),
                Output::Slot(slot) => self.m.slots[*slot].name.clone(),
            };
            frame.graph.result(name, *value);
        }
        Ok((recipe, settings, Optimize { graph: frame.graph, sources: frame.sources, outputs }))
    }

    fn train_stmt(
        &mut self,
        stmt: &ast::Stmt,
        settings: &mut Settings,
        updates: &mut Vec<Update>,
        logged: &mut Vec<(String, Value)>,
    ) -> Res<()> {
        match &stmt.kind {
            StmtKind::Assign { targets, value } => {
                if let [ast::Pattern::Name(key)] = targets.as_slice()
                    && self.binding(&key.text).is_none_or(|b| b.kind == Kind::Fixed)
                {
                    return self.train_setting(key, value, settings);
                }
                if let Some(update) = updates.first()
                    && let Some(key) = targets.iter().flat_map(idents_in).find(|n| n.text == "gradients")
                {
                    let message = "`gradients` is changed after an `update` that uses it";
                    let d = Diagnostic::error("misplaced", key.span, message, "changed here");
                    let d = d.label(update.span, "takes the gradients as they are before");
                    return Err(d.help("move this line before the first `update`").into());
                }
                let _: Flow = self.exec(stmt)?;
                Ok(())
            }
            StmtKind::Let(bindings) => {
                for name in bindings.iter().flat_map(|b| &b.targets).flat_map(idents_in) {
                    if TRAIN_KEYS.contains(&name.text.as_str()) || name.text == "gradients" {
                        let message = format!("`let` makes a name of your own, and `{}` is one of `train`", name.text);
                        let help = format!("write `{} = …`", name.text);
                        return fail_help("reserved-name", name.span, message, "is taken", help);
                    }
                }
                let _: Flow = self.exec(stmt)?;
                for target in bindings.iter().flat_map(|b| &b.targets) {
                    if let ast::Pattern::Name(name) = target
                        && let Some(binding) = self.binding(&name.text)
                        && matches!(binding.value, Value::Host(_) | Value::Tensor(_))
                    {
                        let value = binding.value.clone();
                        if let Value::Tensor(t) = &value
                            && self.ty(*t).rank() != 0
                        {
                            continue;
                        }
                        if LOG_FIELDS.contains(&name.text.as_str()) {
                            let message = format!("the log has a field `{}` of its own", name.text);
                            let help = format!("give it another name: `my_{}`", name.text);
                            return fail_help(
                                "reserved-name",
                                name.span,
                                message,
                                "would be logged under this name",
                                help,
                            );
                        }
                        logged.retain(|(n, _)| *n != name.text);
                        logged.push((name.text.clone(), value));
                    }
                }
                Ok(())
            }
            StmtKind::Var(_) | StmtKind::Expr(_) => self.exec(stmt).map(|_| ()),
            StmtKind::Update { selectors, optimizer, args } => {
                let update = self.update(selectors, optimizer, args, stmt.span)?;
                updates.push(update);
                Ok(())
            }
            StmtKind::Validate(list) => {
                if settings.keys().any(|k| k.starts_with("validate.")) {
                    return fail("duplicate", stmt.span, "`train` has two `validate` blocks", "the second");
                }
                settings.insert("validate.".into(), (Value::None, stmt.span));
                for s in list {
                    if !VALIDATE_KEYS.contains(&s.key.text.as_str()) {
                        return unknown_setting(&s.key, VALIDATE_KEYS);
                    }
                    self.setting(&format!("validate.{}", s.key.text), s.key.span, &s.value, settings)?;
                }
                Ok(())
            }
            StmtKind::If { arms, otherwise } => {
                for (condition, body) in arms {
                    let value = self.eval(condition)?;
                    if self.truth(&value, condition.span)? {
                        return self.train_body(body, settings, updates, logged);
                    }
                }
                match otherwise {
                    Some(body) => self.train_body(body, settings, updates, logged),
                    None => Ok(()),
                }
            }
            StmtKind::For { pattern, iter, body } => {
                for item in self.walk(iter)? {
                    self.scoped(|s| {
                        s.destructure(pattern, item, Some(Kind::Fixed))?;
                        body.stmts.iter().try_for_each(|stmt| s.train_stmt(stmt, settings, updates, logged))
                    })?;
                }
                Ok(())
            }
            StmtKind::Return(_) | StmtKind::Param { .. } | StmtKind::Use(_) | StmtKind::State(_) => {
                fail("misplaced", stmt.span, "`train` holds settings, `let`, `update` and `validate`", "not here")
            }
        }
    }

    /// What a branch names ends with it; its settings do not, and go on as names.
    fn train_body(
        &mut self,
        body: &ast::Body,
        settings: &mut Settings,
        updates: &mut Vec<Update>,
        logged: &mut Vec<(String, Value)>,
    ) -> Res<()> {
        self.scoped(|s| body.stmts.iter().try_for_each(|stmt| s.train_stmt(stmt, settings, updates, logged)))?;
        for &key in TRAIN_KEYS {
            if let (Some((value, span)), None) = (settings.get(key).cloned(), self.binding(key)) {
                self.bind(key, value, Kind::Fixed, span);
            }
        }
        Ok(())
    }

    fn train_setting(&mut self, key: &ast::Ident, value: &ast::Expr, settings: &mut Settings) -> Res<()> {
        if !TRAIN_KEYS.contains(&key.text.as_str()) {
            return unknown_setting(key, TRAIN_KEYS);
        }
        self.setting(&key.text, key.span, value, settings)?;
        let (value, span) = settings[&key.text].clone();
        self.bind(&key.text, value, Kind::Fixed, span);
        Ok(())
    }

    fn setting(&mut self, key: &str, span: Span, value: &ast::Expr, settings: &mut Settings) -> Res<()> {
        if let Some((_, old)) = settings.get(key) {
            let d = Diagnostic::error("duplicate", span, format!("`{key}` is set twice"), "the second time");
            return Err(d.label(*old, "the first").into());
        }
        let forced = self.settings.shift_remove(key);
        let e = forced.as_ref().unwrap_or(value);
        let v = self.eval(e)?;
        settings.insert(key.to_string(), (v, e.span));
        Ok(())
    }

    /// Settings of `--set` and `extend` that the block itself does not have.
    fn forced_settings(&mut self, settings: &mut Settings, train: &ast::Train, span: Span) -> Res<()> {
        let left: Vec<(String, ast::Expr)> = self.settings.drain(..).collect();
        for (key, e) in left {
            if key.starts_with("validate.") && !settings.contains_key("validate.") {
                let d = Diagnostic::error(
                    "unknown-setting",
                    e.span,
                    format!("`{key}` is set, and the file has no `validate` block"),
                    "nothing to change",
                );
                return Err(d.label(train.model.as_ref().map_or(span, |m| m.span), "this recipe").into());
            }
            let v = self.eval(&e)?;
            settings.insert(key, (v, e.span));
        }
        Ok(())
    }
}

fn unknown_setting<T>(key: &ast::Ident, keys: &[&str]) -> Res<T> {
    let help = suggestion(&key.text, keys.iter())
        .unwrap_or_else(|| format!("the settings here are {}; a name of your own begins with `let`", keys.join(", ")));
    fail_help("unknown-setting", key.span, format!("there is no setting `{}`", key.text), "unknown", help)
}

/// Host scalars of the module by expression.
pub(crate) fn scalar_id(m: &mut ir::Module, expr: &Arc<HostExpr>) -> Scalar {
    match m.scalars.iter().find(|(_, s)| s.expr == *expr) {
        Some((id, _)) => id,
        None => m.scalars.push(ScalarData { name: String::new(), expr: expr.clone() }),
    }
}
