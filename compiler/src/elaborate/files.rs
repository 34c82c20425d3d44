//! From files to one set of declarations: imports, extensions, and the settings of the command line.

use std::collections::HashMap;

use indexmap::IndexMap;
use mngc_dsl::ast::{self, Item, ItemKind, StmtKind};
use mngc_dsl::{Diagnostic, FileId, Sources, Span};

use super::builtins;
use super::suggest::suggestion;

/// Finds a file that another one names: the path as written, the file that names it.
pub type Load<'a> = dyn FnMut(&str, FileId, &mut Sources) -> Result<FileId, String> + 'a;

/// Keys of `train` and, after `validate.` and `precision.`, of its parts.
pub(crate) const TRAIN_KEYS: &[&str] = &["steps", "batch", "data"];
pub(crate) const VALIDATE_KEYS: &[&str] = &["data", "tokens", "every", "sequence"];
pub(crate) const PRECISION_KEYS: &[&str] = &["compute", "master"];

/// Everything that the files declare, names unique by kind.
#[derive(Debug, Default)]
pub(crate) struct Unit {
    pub consts: IndexMap<String, ast::ConstDef>,
    pub blocks: IndexMap<String, ast::Block>,
    pub fns: IndexMap<String, ast::Function>,
    pub optimizers: IndexMap<String, ast::Optimizer>,
    pub models: IndexMap<String, ast::Model>,
    pub train: Option<(ast::Train, Span)>,
    /// `steps`, `validate.every`, `precision.compute`: values that stand in place of those of `train`.
    pub settings: IndexMap<String, ast::Expr>,
    /// `precision` as the files have it.
    pub precision: IndexMap<String, ast::Expr>,
}

/// Reads `main` and all that it needs, then applies `--set name=value`.
pub(crate) fn load(
    sources: &mut Sources,
    main: FileId,
    load: &mut Load,
    sets: &[(String, String)],
) -> Result<Unit, Vec<Diagnostic>> {
    let mut reader = Reader {
        sources,
        load,
        unit: Unit::default(),
        open: Vec::new(),
        done: Vec::new(),
        changed: HashMap::new(),
        diags: Vec::new(),
    };
    reader.file(main);
    if reader.diags.is_empty() {
        reader.one_meaning();
    }
    for (i, (name, value)) in sets.iter().enumerate() {
        reader.set(name, value, sets[..i].iter().find(|(n, v)| n == name && v != value).map(|(_, v)| v.as_str()));
    }
    if reader.diags.is_empty() { Ok(reader.unit) } else { Err(reader.diags) }
}

struct Reader<'a> {
    sources: &'a mut Sources,
    load: &'a mut Load<'a>,
    unit: Unit,
    /// Files whose reading has begun, with the place that asked for each.
    open: Vec<FileId>,
    done: Vec<FileId>,
    /// What `extend` changed, by kind and name, with the place.
    changed: HashMap<(&'static str, String), Span>,
    diags: Vec<Diagnostic>,
}

impl Reader<'_> {
    fn file(&mut self, file: FileId) {
        if self.done.contains(&file) {
            return;
        }
        match mngc_dsl::parse(self.sources, file) {
            Ok(ast) => {
                self.open.push(file);
                for item in ast.items {
                    self.item(item);
                }
                self.open.pop();
                self.done.push(file);
            }
            Err(diags) => self.diags.extend(diags),
        }
    }

    fn other(&mut self, path: &ast::StrLit) {
        let from = *self.open.last().unwrap_or(&path.span.file);
        match (self.load)(&path.value, from, self.sources) {
            Ok(file) if self.open.contains(&file) => {
                let names: Vec<&str> = self.open.iter().map(|&f| self.sources.name(f)).collect();
                let chain = format!("{} → {}", names.join(" → "), self.sources.name(file));
                self.diags.push(
                    Diagnostic::error(
                        "import-cycle",
                        path.span,
                        format!("\"{}\" is being read already", path.value),
                        "this closes a circle",
                    )
                    .note(format!("the circle: {chain}"))
                    .help("move what both files need into a third one"),
                );
            }
            Ok(file) => self.file(file),
            Err(why) => self.diags.push(
                Diagnostic::error("unreadable-file", path.span, format!("cannot read \"{}\"", path.value), why).help(
                    "the path is relative to this file; bundled models go by their file name, such as \"gpt2.mng\"",
                ),
            ),
        }
    }

    fn item(&mut self, item: Item) {
        match item.kind {
            ItemKind::Import(path) => self.other(&path),
            ItemKind::Extend { path, items } => {
                let before = self.diags.len();
                // What the extended file itself changed may change again.
                let beside = self.changed.clone();
                self.other(&path);
                if self.diags.len() == before {
                    let below = std::mem::replace(&mut self.changed, beside);
                    for item in items {
                        self.change(item);
                    }
                    for (what, span) in below {
                        self.changed.entry(what).or_insert(span);
                    }
                }
            }
            ItemKind::Const(defs) => {
                for def in defs {
                    let span = def.name.span;
                    if let Some(old) = self.unit.consts.get(&def.name.text) {
                        let old = old.name.span;
                        self.twice("constant", &def.name.text, span, old);
                    } else {
                        self.unit.consts.insert(def.name.text.clone(), def);
                    }
                }
            }
            ItemKind::Precision(settings) => {
                for s in settings {
                    self.precision(s, false);
                }
            }
            ItemKind::Block(b) => {
                match self.unit.blocks.get(&b.name.text).map(|old| old.name.span) {
                    Some(old) => self.twice("block", &b.name.text.clone(), b.name.span, old),
                    None => _ = self.unit.blocks.insert(b.name.text.clone(), b),
                };
            }
            ItemKind::Fn(f) => {
                match self.unit.fns.get(&f.name.text).map(|old| old.name.span) {
                    Some(old) => self.twice("function", &f.name.text.clone(), f.name.span, old),
                    None => _ = self.unit.fns.insert(f.name.text.clone(), f),
                };
            }
            ItemKind::Optimizer(o) => {
                match self.unit.optimizers.get(&o.name.text).map(|old| old.name.span) {
                    Some(old) => self.twice("optimizer", &o.name.text.clone(), o.name.span, old),
                    None => _ = self.unit.optimizers.insert(o.name.text.clone(), o),
                };
            }
            ItemKind::Model(m) => {
                match self.unit.models.get(&m.name.text).map(|old| old.name.span) {
                    Some(old) => self.twice("model", &m.name.text.clone(), m.name.span, old),
                    None => _ = self.unit.models.insert(m.name.text.clone(), m),
                };
            }
            ItemKind::Train(train) => match &self.unit.train {
                Some((_, old)) => {
                    let d = Diagnostic::error("duplicate", item.span, "a file has one `train` block", "a second one")
                        .label(*old, "the first")
                        .help(
                            "to change settings of an extended file, write `train { … }` inside `extend \"…\" { … }`",
                        );
                    self.diags.push(d);
                }
                None => self.unit.train = Some((train, item.span)),
            },
        }
    }

    fn twice(&mut self, what: &str, name: &str, span: Span, old: Span) {
        self.diags.push(
            Diagnostic::error("duplicate", span, format!("there are two {what}s named `{name}`"), "the second")
                .label(old, "the first")
                .help(format!(
                    "rename one; to replace a {what} of another file, write it inside `extend \"…\" {{ … }}`"
                )),
        );
    }

    /// Notes a change; two files, or one file twice, that change the same thing are a mistake: neither comes first.
    fn changes(&mut self, what: &'static str, name: &str, span: Span) {
        if let Some(old) = self.changed.insert((what, name.to_string()), span) {
            self.diags.push(
                Diagnostic::error("duplicate", span, format!("{what} `{name}` is changed twice"), "the second time")
                    .label(old, "the first")
                    .help("one `extend` holds all changes of a file"),
            );
        }
    }

    /// A name has one meaning, whatever kind it is of.
    fn one_meaning(&mut self) {
        let unit = &self.unit;
        let mut all: Vec<(&str, &ast::Ident)> = Vec::new();
        all.extend(unit.consts.values().map(|d| ("a constant", &d.name)));
        all.extend(unit.fns.values().map(|f| ("a function", &f.name)));
        all.extend(unit.blocks.values().map(|b| ("a block", &b.name)));
        all.extend(unit.models.values().map(|m| ("a model", &m.name)));
        all.extend(unit.optimizers.values().map(|o| ("an optimizer", &o.name)));
        all.sort_by_key(|(_, name)| (name.span.file, name.span.start));
        let mut seen: HashMap<&str, (&str, Span)> = HashMap::new();
        let mut diags = Vec::new();
        for (kind, name) in all {
            let text = name.text.as_str();
            if matches!(text, "step" | "gradients") || builtins::constant(text).is_some() {
                let what = match text {
                    "step" => "the number of the step while training",
                    "gradients" => "the gradients in `train`",
                    _ => "built in",
                };
                let message = format!("`{text}` is {what}, and cannot be {kind} as well");
                let d = Diagnostic::error("reserved-name", name.span, message, "this name is taken");
                diags.push(d.help(format!("give it another name, such as `my_{text}`")));
            }
            if let Some((other, old)) = seen.insert(text, (kind, name.span)) {
                let message = format!("`{text}` is {kind}, and {other} as well");
                let d = Diagnostic::error("duplicate", name.span, message, "the second").label(old, "the first");
                diags.push(d.help("rename one: a name has one meaning"));
            }
        }
        self.diags.extend(diags);
    }

    /// A declaration inside `extend … { }`: it replaces one of the same name.
    fn change(&mut self, item: Item) {
        match item.kind {
            ItemKind::Const(defs) => {
                for def in defs {
                    self.changes("constant", &def.name.text, def.name.span);
                    match self.unit.consts.get_mut(&def.name.text) {
                        Some(old) => old.value = def.value,
                        None => {
                            let help = suggestion(&def.name.text, self.unit.consts.keys());
                            self.diags.push(
                                Diagnostic::error(
                                    "unknown-constant",
                                    def.name.span,
                                    format!("the extended file has no constant `{}`", def.name.text),
                                    "cannot be changed",
                                )
                                .help(
                                    help.unwrap_or_else(|| {
                                        "a new constant stands outside of `extend { … }`".to_string()
                                    }),
                                ),
                            );
                        }
                    }
                }
            }
            ItemKind::Precision(settings) => {
                for s in settings {
                    self.precision(s, true);
                }
            }
            ItemKind::Block(b) => {
                self.changes("block", &b.name.text, b.name.span);
                self.unit.blocks.insert(b.name.text.clone(), b);
            }
            ItemKind::Fn(f) => {
                self.changes("function", &f.name.text, f.name.span);
                self.unit.fns.insert(f.name.text.clone(), f);
            }
            ItemKind::Optimizer(o) => {
                self.changes("optimizer", &o.name.text, o.name.span);
                self.unit.optimizers.insert(o.name.text.clone(), o);
            }
            ItemKind::Model(m) => {
                self.changes("model", &m.name.text, m.name.span);
                self.unit.models.insert(m.name.text.clone(), m);
            }
            ItemKind::Train(train) => self.change_train(train, item.span),
            ItemKind::Import(_) | ItemKind::Extend { .. } => self.diags.push(Diagnostic::error(
                "misplaced",
                item.span,
                "`import` and `extend` stand at the top of a file",
                "not inside `extend { … }`",
            )),
        }
    }

    fn change_train(&mut self, train: ast::Train, span: Span) {
        if train.model.is_some() {
            // Naming the model means a whole new recipe.
            self.unit.train = Some((train, span));
            return;
        }
        for stmt in train.body.stmts {
            match stmt.kind {
                StmtKind::Assign { targets, value } if targets.len() == 1 => match &targets[0] {
                    ast::Pattern::Name(key) => self.setting(&key.text, key.span, value),
                    other => self.not_a_setting(other.span()),
                },
                StmtKind::Validate(settings) => {
                    for s in settings {
                        self.setting(&format!("validate.{}", s.key.text), s.key.span, s.value);
                    }
                }
                _ => self.not_a_setting(stmt.span),
            }
        }
    }

    fn not_a_setting(&mut self, span: Span) {
        self.diags.push(
            Diagnostic::error(
                "misplaced",
                span,
                "`train { … }` without a model's name changes settings only",
                "not a setting",
            )
            .help("to replace the whole recipe, name the model: `train gpt2[T = sequence] { … }`"),
        );
    }

    fn precision(&mut self, s: ast::Setting, replace: bool) {
        if !PRECISION_KEYS.contains(&s.key.text.as_str()) {
            self.unknown_setting(&s.key.text, s.key.span, PRECISION_KEYS.iter().map(|k| k.to_string()).collect());
        } else if !replace && self.unit.precision.contains_key(&s.key.text) {
            self.diags.push(Diagnostic::error(
                "duplicate",
                s.key.span,
                format!("`{}` is set twice", s.key.text),
                "the second time",
            ));
        } else {
            self.unit.precision.insert(s.key.text, s.value);
        }
    }

    fn setting(&mut self, key: &str, span: Span, value: ast::Expr) {
        self.changes("setting", key, span);
        if setting_keys().any(|k| k == key) {
            self.unit.settings.insert(key.to_string(), value);
        } else {
            self.unknown_setting(key, span, setting_keys().collect());
        }
    }

    fn unknown_setting(&mut self, key: &str, span: Span, keys: Vec<String>) {
        let d = Diagnostic::error("unknown-setting", span, format!("there is no setting `{key}`"), "unknown");
        let help = suggestion(key, keys.iter()).unwrap_or_else(|| format!("the settings are {}", keys.join(", ")));
        self.diags.push(d.help(help));
    }

    /// `--set name=value`; `other` is another value of that name that stands before it.
    fn set(&mut self, name: &str, value: &str, other: Option<&str>) {
        let is_const = self.unit.consts.contains_key(name);
        let is_setting = setting_keys().any(|k| k == name);
        let is_precision = name.strip_prefix("precision.").is_some_and(|k| PRECISION_KEYS.contains(&k));
        let is_text = is_setting && !is_const && name.ends_with("data") && !value.trim_start().starts_with('"');
        let quoted = if is_text { format!("{value:?}") } else { value.to_string() };
        // What is parsed is a constant, as long as what the user wrote, which messages show.
        let shown = format!("--set {name}={quoted}");
        let padding = " ".repeat(format!("--set {name}=").len().saturating_sub("const v=".len()));
        let file = self.sources.add(format!("--set {name}"), format!("const v{padding}={quoted}"));
        let parsed = mngc_dsl::parse(self.sources, file);
        self.sources.show(file, shown);
        let whole = Span::new(file, 0, self.sources.text(file).len());
        if let Some(other) = other {
            let message = format!("--set {name} is given twice: as `{other}` and as `{}`", value.trim());
            let d = Diagnostic::error("duplicate", whole, message, "the second time");
            self.diags.push(d.help("leave one out"));
            return;
        }
        if !(is_const || is_setting || is_precision) {
            let names = self.unit.consts.keys().cloned().chain(all_keys());
            let help = suggestion(name, names.collect::<Vec<_>>().iter());
            let mut d = Diagnostic::error(
                "unknown-setting",
                whole,
                format!("--set {name}: the file has neither a constant nor a setting of that name"),
                "unknown",
            );
            d.help = help.or_else(|| {
                let consts: Vec<&str> = self.unit.consts.keys().map(String::as_str).collect();
                Some(format!(
                    "constants: {}; settings: {}",
                    consts.join(", "),
                    all_keys().collect::<Vec<_>>().join(", ")
                ))
            });
            self.diags.push(d);
            return;
        }
        let value = match parsed {
            Ok(ast::File { items, .. }) if items.len() == 1 => match items.into_iter().next().map(|i| i.kind) {
                Some(ItemKind::Const(defs)) if defs.len() == 1 => defs.into_iter().next().map(|d| d.value),
                _ => None,
            },
            _ => None,
        };
        let Some(value) = value else {
            self.diags.push(
                Diagnostic::error(
                    "bad-set",
                    whole,
                    format!("--set {name}: `{}` is no value", quoted.trim()),
                    "cannot be read",
                )
                .help("a value is a number, a dtype, \"text\", a list or an expression of constants"),
            );
            return;
        };
        if is_const {
            self.unit.consts[name].value = value.clone();
        }
        if is_setting {
            self.unit.settings.insert(name.to_string(), value);
        } else if let Some(key) = name.strip_prefix("precision.") {
            self.unit.precision.insert(key.to_string(), value);
        }
    }
}

/// Every key that `--set` may change beside constants.
fn all_keys() -> impl Iterator<Item = String> {
    setting_keys().chain(PRECISION_KEYS.iter().map(|k| format!("precision.{k}")))
}

/// Every key of `train` and its `validate`, as `--set` and `extend` write it.
pub(crate) fn setting_keys() -> impl Iterator<Item = String> {
    let train = TRAIN_KEYS.iter().map(|k| k.to_string());
    train.chain(VALIDATE_KEYS.iter().map(|k| format!("validate.{k}")))
}
