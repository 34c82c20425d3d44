//! The `train` block: settings, host scalars, and which optimizer takes which parameter.

use std::collections::HashMap;
use std::rc::Rc;

use indexmap::IndexMap;
use mngc_dsl::{Diagnostic, FileId, Span, ast};

use super::call::Args;
use super::files::{TRAIN_KEYS, VALIDATE_KEYS};
use super::frame::Source;
use super::model::Meta;
use super::stmt::Flow;
use super::suggest::suggestion;
use super::value::{Gradients, Kind, Tensor, Value};
use super::{Elab, Elaborated, Fail, Res, fail, fail_help, math};
use crate::ir::{
    self, BinaryOp, DType, HostExpr, Op, Output, ReduceKind, Scalar, ScalarData, Slot, SlotData, SlotRole, Type,
};
use ast::{Selector, StmtKind};
use std::sync::Arc;

/// Settings of a run, checked.
#[derive(Debug, Default)]
pub(crate) struct Recipes {
    pub model: String,
    pub steps: u64,
    pub batch: usize,
    pub sequence: usize,
    pub data: Option<String>,
    /// Data, tokens, every, sequence.
    pub validate: Option<(Option<String>, usize, u64, usize)>,
    pub logged: Vec<(String, Arc<HostExpr>)>,
}

/// The function of `update` before it is bound.
pub(crate) struct Optimize {
    pub graph: ir::Graph,
    pub sources: Vec<Source>,
    /// One for each result of the graph.
    pub outputs: Vec<Output>,
}

/// An `update` statement with its arguments evaluated.
struct Update {
    slots: Vec<Slot>,
    others: bool,
    optimizer: Rc<ast::Optimizer>,
    args: Vec<(Option<ast::Ident>, Value, Span)>,
    gradients: Rc<Vec<(Slot, ir::Value)>>,
    span: Span,
}

/// A setting as evaluated, with its place.
type Settings = IndexMap<String, (Value, Span)>;

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
        let frame = self.new_frame("init", DType::F32, None);
        self.init = Some(frame);
        let (size, at) = self.sequence_length(&train, &model, span)?;
        let made = self.instantiate_model(&model, &size, at);
        let train_model = self.report(made)?;
        self.declaring = false;
        self.tables = tables(&self.m, &train_model);
        self.check_used(&train_model)?;
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

    /// Every parameter must be read by the model.
    fn check_used(&mut self, model: &Meta) -> Res<()> {
        let read: Vec<Slot> =
            model.sources.iter().filter_map(|s| if let Source::Slot(s) = s { Some(*s) } else { None }).collect();
        let unused: Vec<(String, Span)> = self
            .m
            .slots
            .iter()
            .filter(|(id, s)| s.role == SlotRole::Param && !read.contains(id))
            .filter_map(|(_, s)| s.loc.map(|l| (s.name.clone(), l)))
            .collect();
        let mut said: Vec<Span> = Vec::new();
        for (name, span) in unused {
            if said.contains(&span) {
                continue;
            }
            said.push(span);
            let d = Diagnostic::error(
                "unused-parameter",
                span,
                format!("nothing uses parameter `{name}`"),
                "declared here",
            );
            self.push(d.help("remove it, or use it in the model"))?;
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

    fn gradient_slots(&mut self, params: &[Slot]) -> Vec<Slot> {
        let slot = |&p: &Slot| {
            let data = &self.m.slots[p];
            let (name, ty, loc) = (format!("{}#grad", data.name), data.ty.with_dtype(DType::F32), data.loc);
            self.m.slots.push(SlotData { name, role: SlotRole::Gradient(p), ty, loc })
        };
        params.iter().map(slot).collect()
    }

    /// √Σ g² over all gradients, f32.
    fn global_norm(&mut self, list: &[(Slot, ir::Value)], span: Span) -> Res<ir::Value> {
        let mut b = self.build(span)?;
        let mut total = b.constant(0.0, DType::F32);
        for &(_, g) in list {
            let square = b.unary(ir::UnaryOp::Square, g, DType::F32);
            let axes: Vec<u8> = (0..b.dims(g).len() as u8).collect();
            let sum = b.reduce(ReduceKind::Sum, square, &axes, DType::F32);
            total = b.binary(BinaryOp::Add, total, sum, DType::F32);
        }
        Ok(b.unary(ir::UnaryOp::Sqrt, total, DType::F32))
    }

    /// `gradients.norm()`, `gradients.clip_norm(c)`.
    pub fn gradients_method(&mut self, g: Gradients, method: &ast::Ident, args: Args) -> Res<Value> {
        let span = args.span;
        match (method.text.as_str(), args.list.as_slice()) {
            ("norm", []) => {
                let v = self.global_norm(&g.0, span)?;
                Ok(Value::Tensor(self.staged(v)))
            }
            ("clip_norm", [(_, limit, at)]) => {
                let Some(limit) = math::host(limit) else {
                    return fail("not-a-number", *at, "the norm to clip to is a number", limit.kind());
                };
                // PyTorch's clip_grad_norm_: g · min(1, limit / (norm + 1e-6)).
                let norm = self.global_norm(&g.0, span)?;
                let limit = self.scalar(&limit, span)?;
                let mut b = self.build(span)?;
                let tiny = b.constant(1e-6, DType::F32);
                let above = b.binary(BinaryOp::Add, norm, tiny, DType::F32);
                let ratio = b.binary(BinaryOp::Div, limit, above, DType::F32);
                let one = b.constant(1.0, DType::F32);
                let factor = b.binary(BinaryOp::Min, one, ratio, DType::F32);
                let clipped = g.0.iter().map(|&(slot, v)| (slot, b.binary(BinaryOp::Mul, v, factor, DType::F32)));
                Ok(Value::Gradients(Gradients(Rc::new(clipped.collect()))))
            }
            ("norm" | "clip_norm", _) => fail_help(
                "wrong-arguments",
                span,
                format!("`{}` with {} arguments", method.text, args.list.len()),
                "here",
                "`gradients.norm()`, `gradients.clip_norm(limit)`",
            ),
            (other, _) => fail_help(
                "unknown-method",
                method.span,
                format!("gradients have no method `{other}`"),
                "unknown",
                "they have norm() and clip_norm(limit)",
            ),
        }
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
                let _: Flow = self.exec(stmt)?;
                Ok(())
            }
            StmtKind::Let(bindings) => {
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
                        return body.stmts.iter().try_for_each(|s| self.train_stmt(s, settings, updates, logged));
                    }
                }
                match otherwise {
                    Some(body) => body.stmts.iter().try_for_each(|s| self.train_stmt(s, settings, updates, logged)),
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

    fn update(&mut self, selectors: &[Selector], optimizer: &ast::Ident, args: &[ast::Arg], span: Span) -> Res<Update> {
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

    fn apply_updates(
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
        if data.ty.rank() != 2 && mentions_matrices(&update.optimizer) {
            let d = Diagnostic::error(
                "not-a-matrix",
                span,
                format!("optimizer {name} is for matrices, and `{}` is {}", data.name, self.show_dims(&data.ty.dims)),
                "takes it",
            );
            let d = match data.loc {
                Some(loc) => d.label(loc, "declared here"),
                None => d,
            };
            return Err(d
                .help(
                    "give it to an elementwise optimizer such as adam; `matrices in …` selects rank-2 parameters only",
                )
                .into());
        }
        let made = self.optimizer_fn(&update.optimizer, &data.ty, &update.args, span)?;
        if made.of_matrices && self.tables.contains(&slot) {
            let message = format!("optimizer {name} multiplies matrices, and `{}` is an embedding", data.name);
            let d = Diagnostic::error("embedding-update", span, message, "takes it");
            let d = match data.loc {
                Some(loc) => d.label(loc, "its rows are looked up by token"),
                None => d,
            };
            return Err(d
                .help("rows of an embedding are independent: give it to an elementwise optimizer such as adam")
                .into());
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

    /// An initial value that is one number everywhere.
    fn draw_fill(&mut self, slot: Slot, fill: f64) -> Res<()> {
        let ty: Type = self.m.slots[slot].ty.clone();
        let init = self.init.as_mut().ok_or(Fail::Silent)?;
        let v = ir::Builder::new(&mut self.m, &mut init.graph, None).full(fill, ty);
        self.drawn.push((slot, v));
        Ok(())
    }

    fn recipe(&mut self, model: &ast::Model, settings: &Settings, size: &Value, span: Span) -> Res<Recipes> {
        let sequence = self.whole(size, "the length of a sequence", span)? as usize;
        let steps = self.count(settings, "steps", span)?;
        let batch = self.count(settings, "batch", span)? as usize;
        if batch % sequence != 0 {
            let at = settings["batch"].1;
            let near = (batch / sequence).max(1) * sequence;
            return fail_help(
                "divisibility",
                at,
                format!("a batch of {batch} tokens is no whole number of sequences of {sequence}"),
                format!("batch = {batch}, T = {sequence}"),
                format!(
                    "the batch is counted in tokens: {near} would be {} sequence{}",
                    near / sequence,
                    if near == sequence { "" } else { "s" }
                ),
            );
        }
        if batch / sequence > 1 << 20 {
            return fail(
                "absurd-size",
                settings["batch"].1,
                format!("a batch of {batch} tokens cannot be meant"),
                "too large",
            );
        }
        let data = self.text(settings, "data")?;
        let validate = match settings.get("validate.") {
            None => None,
            Some((_, at)) => {
                let tokens = self.count(settings, "validate.tokens", *at)? as usize;
                let every = self.count(settings, "validate.every", *at)?;
                let length = match settings.contains_key("validate.sequence") {
                    true => self.count(settings, "validate.sequence", *at)? as usize,
                    false => sequence,
                };
                if tokens % length != 0 || tokens == 0 {
                    let near = (tokens / length).max(1) * length;
                    return fail_help(
                        "divisibility",
                        settings["validate.tokens"].1,
                        format!("{tokens} validation tokens are no whole number of sequences of {length}"),
                        format!("tokens = {tokens}, sequence = {length}"),
                        format!("{near} would be"),
                    );
                }
                Some((self.text(settings, "validate.data")?, tokens, every, length))
            }
        };
        Ok(Recipes { model: model.name.text.clone(), steps, batch, sequence, data, validate, logged: Vec::new() })
    }

    fn count(&mut self, settings: &Settings, key: &str, span: Span) -> Res<u64> {
        let Some((value, at)) = settings.get(key) else {
            return fail_help(
                "missing-setting",
                span,
                format!("`{key}` is not set"),
                "missing here",
                format!("add `{} = …`", key.trim_start_matches("validate.")),
            );
        };
        let n = self.whole(&value.clone(), &format!("`{key}`"), *at)?;
        if n < 1 {
            return fail("bad-setting", *at, format!("`{key}` must be at least 1"), format!("this is {n}"));
        }
        if n > 1 << 50 {
            return fail("absurd-size", *at, format!("`{key}` = {n} cannot be meant"), "too large");
        }
        Ok(n as u64)
    }

    fn text(&mut self, settings: &Settings, key: &str) -> Res<Option<String>> {
        match settings.get(key) {
            None => Ok(None),
            Some((Value::Str(text), _)) => Ok(Some(text.to_string())),
            Some((other, at)) => fail_help(
                "bad-setting",
                *at,
                format!("`{key}` is a string, not {}", other.kind()),
                other.kind(),
                "write a glob of token shards: \"data/train_*.bin\"",
            ),
        }
    }
}

fn unknown_setting<T>(key: &ast::Ident, keys: &[&str]) -> Res<T> {
    let help = suggestion(&key.text, keys.iter())
        .unwrap_or_else(|| format!("the settings here are {}; a name of your own begins with `let`", keys.join(", ")));
    fail_help("unknown-setting", key.span, format!("there is no setting `{}`", key.text), "unknown", help)
}

/// Whether an optimizer's body asks for rows and columns.
fn mentions_matrices(opt: &ast::Optimizer) -> bool {
    // The tree's own printing is the simplest walk over all of it.
    let text = format!("{:?}", opt.body);
    ["Name(\"rows\")", "Name(\"cols\")", "MatMul"].iter().any(|n| text.contains(n))
}

/// Host scalars of the module by expression.
pub(crate) fn scalar_id(m: &mut ir::Module, expr: &Arc<HostExpr>) -> Scalar {
    match m.scalars.iter().find(|(_, s)| s.expr == *expr) {
        Some((id, _)) => id,
        None => m.scalars.push(ScalarData { name: String::new(), expr: expr.clone() }),
    }
}

/// Slots of a function whose rows are looked up: tables of a gather, through calls and casts.
pub(crate) fn tables(m: &ir::Module, meta: &Meta) -> Vec<Slot> {
    let is_table = gathered(m, meta.func);
    let slots = meta.sources.iter().zip(is_table).filter(|(_, t)| *t);
    slots.filter_map(|(s, _)| if let Source::Slot(s) = s { Some(*s) } else { None }).collect()
}

/// Which parameters of a function are looked up by row.
fn gathered(m: &ir::Module, func: ir::Func) -> Vec<bool> {
    let g = &m.funcs[func];
    let mut table = vec![false; g.values.len()];
    for node in g.nodes.values() {
        match node.op {
            Op::Gather => table[node.args[0].as_u32() as usize] = true,
            Op::Call { func, .. } => {
                for (&arg, t) in node.args.iter().zip(gathered(m, func)) {
                    table[arg.as_u32() as usize] |= t;
                }
            }
            _ => {}
        }
    }
    for node in g.nodes.values().rev() {
        if let (Op::Cast, true) = (&node.op, table[node.results[0].as_u32() as usize]) {
            table[node.args[0].as_u32() as usize] = true;
        }
    }
    g.params.iter().map(|p| table[p.as_u32() as usize]).collect()
}
