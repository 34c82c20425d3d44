//! Declarations and statements: pairs of the grammar to the syntax tree.

use std::cell::{Cell, RefCell};

use pest::iterators::Pair;

use super::grammar::Rule;
use crate::ast::*;
use crate::diagnostic::Diagnostic;
use crate::span::{FileId, Span};

/// A pair of the grammar.
pub(super) type Node<'i> = Pair<'i, Rule>;

/// Builds the tree of one file and gathers what the grammar alone cannot refuse.
pub(super) struct Builder<'i> {
    file: FileId,
    text: &'i str,
    /// In cells, so that the passes over an expression's prefix, infix and postfix operators can share the builder.
    errors: RefCell<Vec<Diagnostic>>,
    /// How many expressions and bodies stand around the one being built.
    depth: Cell<usize>,
}

/// The parts of a pair that carry meaning, in order.
///
/// The grammar fixes which parts a rule has, so a missing one is a mistake in this crate: the accessors that
/// demand one say so by panicking, which no text can bring about.
pub(super) struct Parts<'i> {
    nodes: std::iter::Peekable<std::vec::IntoIter<Node<'i>>>,
}

impl<'i> Parts<'i> {
    pub(super) fn of(node: Node<'i>) -> Self {
        let nodes: Vec<_> = node.into_inner().filter(|part| !is_mark(part.as_rule())).collect();
        Parts { nodes: nodes.into_iter().peekable() }
    }

    /// The next part, which the grammar says is there.
    pub(super) fn take(&mut self) -> Node<'i> {
        self.nodes.next().expect("the grammar demands this part")
    }

    /// The next part when it is of `rule`.
    pub(super) fn take_if(&mut self, rule: Rule) -> Option<Node<'i>> {
        self.nodes.next_if(|part| part.as_rule() == rule)
    }

    /// The following parts as long as they are of `rule`.
    pub(super) fn take_while(&mut self, rule: Rule) -> Vec<Node<'i>> {
        std::iter::from_fn(|| self.take_if(rule)).collect()
    }

    /// The next part, of whatever rule.
    pub(super) fn next(&mut self) -> Option<Node<'i>> {
        self.nodes.next()
    }
}

/// Punctuation and keywords that say nothing more once their rule is known.
fn is_mark(rule: Rule) -> bool {
    use Rule::*;
    matches!(
        rule,
        COMMENT
            | brk
            | lparen
            | rparen
            | lbracket
            | rbracket
            | lbrace
            | rbrace
            | comma
            | semi
            | colon
            | dot
            | eq
            | kw_import
            | kw_extend
            | kw_const
            | kw_precision
            | kw_block
            | kw_model
            | kw_fn
            | kw_optimizer
            | kw_train
            | kw_param
            | kw_init
            | kw_use
            | kw_let
            | kw_var
            | kw_state
            | kw_update
            | kw_with
            | kw_validate
            | kw_return
            | kw_for
            | kw_in
            | kw_if
            | kw_else
            | EOI
    )
}

/// One past the last token of a pair: pest lets a pair run over the spaces and comments behind it.
fn end_of(node: &Node<'_>) -> usize {
    match node.clone().into_inner().rfind(|part| part.as_rule() != Rule::COMMENT) {
        Some(last) => end_of(&last),
        None => node.as_span().end(),
    }
}

impl<'i> Builder<'i> {
    pub(super) fn new(file: FileId, text: &'i str) -> Self {
        Builder { file, text, errors: RefCell::default(), depth: Cell::new(0) }
    }

    /// From the first to the last token of a pair.
    pub(super) fn span(&self, node: &Node<'_>) -> Span {
        Span::new(self.file, node.as_span().start(), end_of(node))
    }

    /// The text that a span of this file covers.
    pub(super) fn slice(&self, span: Span) -> &'i str {
        &self.text[span.start as usize..span.end as usize]
    }

    pub(super) fn file(self, root: Node<'i>) -> Result<File, Vec<Diagnostic>> {
        let items = self.items(Parts::of(root).take());
        let mut errors = self.errors.into_inner();
        if errors.is_empty() {
            return Ok(File { docs: file_docs(self.text), items });
        }
        errors.sort_by_key(|error| error.labels.first().map_or(0, |(span, _)| span.start));
        Err(errors)
    }

    /// Refuses something; the tree is thrown away in the end, so what is built there does not matter.
    pub(super) fn report(&self, error: Diagnostic) {
        self.errors.borrow_mut().push(error);
    }

    /// Runs `build` some levels deeper; none, with an error at `span`, when that is too deep.
    pub(super) fn nested<T>(&self, levels: usize, span: Span, build: impl FnOnce(&Self) -> T) -> Option<T> {
        let depth = self.depth.get();
        if depth + levels > MAX_DEPTH {
            // Once is enough: whatever stands around or beside it is just as deep.
            if !self.errors.borrow().iter().any(|error| error.code == "too-deep") {
                self.report(too_deep(span));
            }
            return None;
        }
        self.depth.set(depth + levels);
        let built = build(self);
        self.depth.set(depth);
        Some(built)
    }

    // ---- declarations ----

    fn items(&self, node: Node<'i>) -> Vec<Item> {
        Parts::of(node).take_while(Rule::item).into_iter().map(|item| self.item(item)).collect()
    }

    fn item(&self, node: Node<'i>) -> Item {
        let span = self.span(&node);
        let declaration = Parts::of(node).take();
        let rule = declaration.as_rule();
        let mut parts = Parts::of(declaration);
        let kind = match rule {
            Rule::import => ItemKind::Import(self.str_lit(parts.take())),
            Rule::extend => {
                let path = self.str_lit(parts.take());
                let items = self.items(parts.take());
                for item in &items {
                    if let ItemKind::Extend { path, .. } = &item.kind {
                        self.report(
                            Diagnostic::error("nested-extend", path.span, "`extend` inside `extend`", "a second file")
                                .help("a file extends one other file; let that one extend the next"),
                        );
                    }
                }
                ItemKind::Extend { path, items }
            }
            Rule::const_item => ItemKind::Const(self.const_defs(parts.take())),
            Rule::precision => ItemKind::Precision(self.settings(parts.take())),
            Rule::block => ItemKind::Block(self.block(parts, span)),
            Rule::model => ItemKind::Model(Model {
                name: self.ident(parts.take()),
                shape_vars: self.shape_vars(&mut parts),
                inputs: self.params(parts.take()),
                body: self.body(parts.take()),
            }),
            Rule::function => {
                let function = self.function(parts, span);
                if function.name.text == "fn" {
                    self.report(
                        Diagnostic::error("syntax", function.name.span, "a function without a name", "named nowhere")
                            .help("write `fn name(…) { … }`; only the function of a `block` has no name"),
                    );
                }
                ItemKind::Fn(function)
            }
            Rule::optimizer => ItemKind::Optimizer(self.optimizer(parts)),
            Rule::train => {
                let model = parts.take_if(Rule::name).map(|name| self.ident(name));
                let bindings = parts.take_if(Rule::shape_bindings).map(|bound| self.settings(bound));
                ItemKind::Train(Train { model, bindings: bindings.unwrap_or_default(), body: self.body(parts.take()) })
            }
            other => unreachable!("{other:?} is no declaration"),
        };
        Item { kind, span }
    }

    fn block(&self, mut parts: Parts<'i>, span: Span) -> Block {
        let name = self.ident(parts.take());
        let args = parts.take_if(Rule::params).map(|params| self.params(params)).unwrap_or_default();
        let mut members = Vec::new();
        let mut functions = Vec::new();
        let mut inner = Parts::of(parts.take());
        while let Some(member) = inner.next() {
            let member_span = self.span(&member);
            match member.as_rule() {
                Rule::function => {
                    let function = self.function(Parts::of(member), member_span);
                    if function.name.text != "fn" {
                        self.report(
                            Diagnostic::error(
                                "named-block-function",
                                function.name.span,
                                "the function of a block has no name",
                                "this name has no use",
                            )
                            .help(format!("write `fn(…) {{ … }}`: calling an instance of `{}` runs it", name.text)),
                        );
                    }
                    functions.push(function);
                }
                _ => members.push(self.stmt(member)),
            }
        }
        let mut functions = functions.into_iter();
        let function = functions.next().unwrap_or_else(|| {
            self.report(
                Diagnostic::error(
                    "block-without-function",
                    name.span,
                    format!("block `{}` has no function", name.text),
                    "nothing says what a call of it computes",
                )
                .help("add `fn (x) { … }` after its parameters"),
            );
            let body = Body { stmts: Vec::new(), span };
            Function { name: Ident { text: "fn".into(), span }, shape_vars: Vec::new(), params: Vec::new(), body }
        });
        for second in functions {
            self.report(
                Diagnostic::error(
                    "second-block-function",
                    second.name.span,
                    format!("block `{}` has more than one function", name.text),
                    "a second one",
                )
                .label(function.name.span, "the first one")
                .help("a block is called by its name, so it has one function: make the other a `fn` of the file"),
            );
        }
        Block { name, args, members, function }
    }

    fn optimizer(&self, mut parts: Parts<'i>) -> Optimizer {
        let optimizer = Optimizer {
            name: self.ident(parts.take()),
            tensors: self.params(parts.take()),
            hyper: parts.take_if(Rule::hyper).map(|hyper| self.params(hyper)).unwrap_or_default(),
            body: self.body(parts.take()),
        };
        if optimizer.tensors.len() != 2 {
            let name = &optimizer.name;
            self.report(
                Diagnostic::error(
                    "optimizer-tensors",
                    name.span,
                    format!("optimizer `{}` has {} tensors, not 2", name.text, optimizer.tensors.len()),
                    "takes a parameter and its gradient",
                )
                .help(format!("write `optimizer {}(w, g; lr)`: hyper-parameters stand behind the `;`", name.text)),
            );
        }
        optimizer
    }

    fn function(&self, mut parts: Parts<'i>, span: Span) -> Function {
        let keyword = Span { end: span.start + "fn".len() as u32, ..span };
        let name = match parts.take_if(Rule::name) {
            Some(name) => self.ident(name),
            None => Ident { text: "fn".into(), span: keyword },
        };
        Function {
            name,
            shape_vars: self.shape_vars(&mut parts),
            params: self.params(parts.take()),
            body: self.body(parts.take()),
        }
    }

    fn shape_vars(&self, parts: &mut Parts<'i>) -> Vec<Ident> {
        let Some(vars) = parts.take_if(Rule::shape_vars) else { return Vec::new() };
        Parts::of(vars).take_while(Rule::name).into_iter().map(|name| self.ident(name)).collect()
    }

    /// The parameters of a `params`, `tensors` or `hyper` pair.
    fn params(&self, node: Node<'i>) -> Vec<Param> {
        Parts::of(node).take_while(Rule::param).into_iter().map(|param| self.param(param)).collect()
    }

    fn param(&self, node: Node<'i>) -> Param {
        let mut parts = Parts::of(node);
        let name = self.ident(parts.take());
        let ty = parts.take_if(Rule::type_expr).map(|ty| self.type_expr(ty));
        let default = parts.take_if(Rule::expr).map(|value| self.expr(value));
        Param { name, ty, default }
    }

    fn type_expr(&self, node: Node<'i>) -> TypeExpr {
        let span = self.span(&node);
        let mut parts = Parts::of(node);
        let dtype = parts.take_if(Rule::path).map(|path| self.path_expr(path));
        let dims = parts.take_while(Rule::expr).into_iter().map(|dim| self.expr(dim)).collect();
        let or_none = parts.take_if(Rule::bit_or).is_some();
        TypeExpr { dtype, dims, or_none, span }
    }

    /// The definitions of a `const_defs` pair.
    fn const_defs(&self, node: Node<'i>) -> Vec<ConstDef> {
        let definitions = Parts::of(node).take_while(Rule::const_def);
        definitions
            .into_iter()
            .map(|definition| {
                let mut parts = Parts::of(definition);
                ConstDef { name: self.ident(parts.take()), value: self.expr(parts.take()) }
            })
            .collect()
    }

    /// The settings of a `settings` or `shape_bindings` pair.
    fn settings(&self, node: Node<'i>) -> Vec<Setting> {
        let settings = Parts::of(node).take_while(Rule::setting);
        settings
            .into_iter()
            .map(|setting| {
                let mut parts = Parts::of(setting);
                Setting { key: self.ident(parts.take()), value: self.expr(parts.take()) }
            })
            .collect()
    }

    // ---- statements ----

    pub(super) fn body(&self, node: Node<'i>) -> Body {
        let span = self.span(&node);
        let stmts = Parts::of(node).take_while(Rule::stmt);
        let stmts = self.nested(1, span, |this| stmts.into_iter().map(|stmt| this.stmt(stmt)).collect());
        Body { stmts: stmts.unwrap_or_default(), span }
    }

    fn stmt(&self, node: Node<'i>) -> Stmt {
        let span = self.span(&node);
        let inner = Parts::of(node).take();
        let rule = inner.as_rule();
        if rule == Rule::expr {
            return Stmt { kind: StmtKind::Expr(self.expr(inner)), span };
        }
        let mut parts = Parts::of(inner);
        let kind = match rule {
            Rule::let_stmt => StmtKind::Let(self.bindings(parts)),
            Rule::var_stmt => StmtKind::Var(self.bindings(parts)),
            Rule::assign => {
                let (targets, value) = self.targets_and_value(parts);
                StmtKind::Assign { targets, value }
            }
            Rule::return_stmt => {
                StmtKind::Return(parts.take_while(Rule::expr).into_iter().map(|value| self.expr(value)).collect())
            }
            Rule::for_stmt => StmtKind::For {
                pattern: self.pattern(parts.take()),
                iter: self.expr(parts.take()),
                body: self.body(parts.take()),
            },
            Rule::if_expr => {
                let (arms, otherwise) = self.if_chain(parts);
                StmtKind::If { arms, otherwise }
            }
            Rule::param_stmt => StmtKind::Param {
                names: parts.take_while(Rule::path).into_iter().map(|path| self.path(path)).collect(),
                ty: self.type_expr(parts.take()),
                init: self.expr(parts.take()),
            },
            Rule::use_stmt => {
                let definitions = parts.take_while(Rule::use_def);
                let definitions = definitions.into_iter().map(|definition| {
                    let mut parts = Parts::of(definition);
                    UseDef { name: self.path(parts.take()), value: self.expr(parts.take()) }
                });
                StmtKind::Use(definitions.collect())
            }
            Rule::state_stmt => StmtKind::State(self.const_defs(parts.take())),
            Rule::update_stmt => {
                let selectors = parts.take_while(Rule::selector);
                StmtKind::Update {
                    selectors: selectors.into_iter().map(|selector| self.selector(selector)).collect(),
                    optimizer: self.ident(parts.take()),
                    args: self.args(parts.take()),
                }
            }
            Rule::validate_stmt => StmtKind::Validate(self.settings(parts.take())),
            other => unreachable!("{other:?} is no statement"),
        };
        Stmt { kind, span }
    }

    fn bindings(&self, mut parts: Parts<'i>) -> Vec<Binding> {
        let bindings = parts.take_while(Rule::binding);
        bindings
            .into_iter()
            .map(|binding| {
                let (targets, value) = self.targets_and_value(Parts::of(binding));
                Binding { targets, value }
            })
            .collect()
    }

    fn targets_and_value(&self, mut parts: Parts<'i>) -> (Vec<Pattern>, Expr) {
        let targets = parts.take_while(Rule::pattern).into_iter().map(|pattern| self.pattern(pattern)).collect();
        (targets, self.expr(parts.take()))
    }

    pub(super) fn pattern(&self, node: Node<'i>) -> Pattern {
        let span = self.span(&node);
        let inner = Parts::of(node).take();
        match inner.as_rule() {
            Rule::name => Pattern::Name(self.ident(inner)),
            Rule::ignore => Pattern::Ignore(span),
            _ => {
                let items = Parts::of(inner).take_while(Rule::pattern);
                Pattern::Seq(items.into_iter().map(|item| self.pattern(item)).collect(), span)
            }
        }
    }

    fn selector(&self, node: Node<'i>) -> Selector {
        let mut parts = Parts::of(node);
        let first = self.path(parts.take());
        let under = parts.take_if(Rule::group).map(|path| self.path(path));
        let is_kind = SELECTOR_KINDS.contains(&first.text.as_str());
        if under.is_some() && !is_kind {
            self.report(
                Diagnostic::error(
                    "unknown-selector",
                    first.span,
                    format!("`{}` is no kind of parameter", first.text),
                    "expected a kind",
                )
                .help(
                    "the kinds are `matrices` (rank 2), `vectors` (rank 1), `scalars` (rank 0) and `parameters` (all)",
                ),
            );
        }
        match under {
            None if first.text == "others" => Selector::Others(first.span),
            None if !is_kind => Selector::Path(first),
            path => Selector::Kind { kind: Ident { text: first.text, span: first.span }, path },
        }
    }

    // ---- words ----

    pub(super) fn ident(&self, node: Node<'i>) -> Ident {
        Ident { text: node.as_str().to_owned(), span: self.span(&node) }
    }

    fn path(&self, node: Node<'i>) -> Path {
        let span = self.span(&node);
        let mut parts = Parts::of(node);
        let mut text = parts.take().as_str().to_owned();
        while let Some(word) = parts.next() {
            text.push('.');
            text.push_str(word.as_str());
        }
        Path { text, span }
    }
}

/// How many expressions and bodies may stand inside one another.
///
/// What walks a tree recurses; the limit keeps every walk within the stack of any thread.
pub(super) const MAX_DEPTH: usize = 256;

/// The error for what would overflow the stack of whoever walks the tree.
pub(super) fn too_deep(span: Span) -> Diagnostic {
    Diagnostic::error(
        "too-deep",
        span,
        "this nests too deep",
        format!("operators, calls and brackets count one level each, {MAX_DEPTH} are the most"),
    )
    .help("give parts of it names with `let`")
}

/// The words that pick parameters by rank in an `update`.
pub(super) const SELECTOR_KINDS: [&str; 4] = ["matrices", "vectors", "scalars", "parameters"];

/// The lines of the `//!` comment at the top of a file.
fn file_docs(text: &str) -> Vec<String> {
    let start = text.trim_start_matches(|c: char| c.is_whitespace() || c == ';' || c == '\u{FEFF}');
    let docs = start.lines().map_while(|line| line.trim().strip_prefix("//!"));
    docs.map(|line| line.strip_prefix(' ').unwrap_or(line).to_owned()).collect()
}
