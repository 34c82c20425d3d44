//! A syntax tree as text without places: operators come first, `(+ a (* b c))`, so that ranks can be read.

use mngc_dsl::ast::*;

/// The whole file, one declaration or statement a line.
pub fn tree(file: &File) -> String {
    let mut out = String::new();
    for line in &file.docs {
        out.push_str(&format!("docs {line:?}\n"));
    }
    items(&mut out, 0, &file.items);
    out
}

fn line(out: &mut String, depth: usize, text: impl AsRef<str>) {
    out.push_str(&"  ".repeat(depth));
    out.push_str(text.as_ref().trim_end());
    out.push('\n');
}

fn items(out: &mut String, depth: usize, list: &[Item]) {
    for item in list {
        match &item.kind {
            ItemKind::Import(path) => line(out, depth, format!("import {:?}", path.value)),
            ItemKind::Extend { path, items: inner } => {
                line(out, depth, format!("extend {:?}", path.value));
                items(out, depth + 1, inner);
            }
            ItemKind::Const(defs) => line(out, depth, format!("const {}", const_defs(defs))),
            ItemKind::Precision(list) => line(out, depth, format!("precision {}", settings(list))),
            ItemKind::Block(block) => {
                line(out, depth, format!("block {} ({})", block.name.text, params(&block.args)));
                stmts(out, depth + 1, &block.members);
                function(out, depth + 1, &block.function);
            }
            ItemKind::Model(model) => {
                let vars = idents(&model.shape_vars);
                line(out, depth, format!("model {} [{vars}] ({})", model.name.text, params(&model.inputs)));
                stmts(out, depth + 1, &model.body.stmts);
            }
            ItemKind::Fn(f) => function(out, depth, f),
            ItemKind::Optimizer(optimizer) => {
                let (tensors, hyper) = (params(&optimizer.tensors), params(&optimizer.hyper));
                line(out, depth, format!("optimizer {} ({tensors}; {hyper})", optimizer.name.text));
                stmts(out, depth + 1, &optimizer.body.stmts);
            }
            ItemKind::Train(train) => {
                let model = train.model.as_ref().map_or("(extended)", |model| &model.text);
                line(out, depth, format!("train {model} [{}]", settings(&train.bindings)));
                stmts(out, depth + 1, &train.body.stmts);
            }
        }
    }
}

fn function(out: &mut String, depth: usize, f: &Function) {
    line(out, depth, format!("fn {} [{}] ({})", f.name.text, idents(&f.shape_vars), params(&f.params)));
    stmts(out, depth + 1, &f.body.stmts);
}

fn stmts(out: &mut String, depth: usize, list: &[Stmt]) {
    for stmt in list {
        match &stmt.kind {
            StmtKind::Let(list) => line(out, depth, format!("let {}", bindings(list))),
            StmtKind::Var(list) => line(out, depth, format!("var {}", bindings(list))),
            StmtKind::Assign { targets, value } => {
                line(out, depth, format!("assign {} = {}", patterns(targets), expr(value)));
            }
            StmtKind::Return(values) => line(out, depth, format!("return {}", exprs(values))),
            StmtKind::For { pattern: name, iter, body } => {
                line(out, depth, format!("for {} in {}", pattern(name), expr(iter)));
                stmts(out, depth + 1, &body.stmts);
            }
            StmtKind::If { arms, otherwise } => {
                for (condition, body) in arms {
                    line(out, depth, format!("if {}", expr(condition)));
                    stmts(out, depth + 1, &body.stmts);
                }
                if let Some(body) = otherwise {
                    line(out, depth, "else");
                    stmts(out, depth + 1, &body.stmts);
                }
            }
            StmtKind::Expr(value) => line(out, depth, expr(value)),
            StmtKind::Param { names, ty, init } => {
                let names: Vec<_> = names.iter().map(|name| name.text.as_str()).collect();
                line(out, depth, format!("param {}: {} init {}", names.join(", "), type_expr(ty), expr(init)));
            }
            StmtKind::Use(defs) => {
                let defs: Vec<_> = defs.iter().map(|def| format!("{}: {}", def.name.text, expr(&def.value))).collect();
                line(out, depth, format!("use {}", defs.join(", ")));
            }
            StmtKind::State(defs) => line(out, depth, format!("state {}", const_defs(defs))),
            StmtKind::Update { selectors, optimizer, args: list } => {
                let selectors: Vec<_> = selectors.iter().map(selector).collect();
                let selectors = selectors.join(", ");
                line(out, depth, format!("update {selectors} with {}({})", optimizer.text, args(list)));
            }
            StmtKind::Validate(list) => line(out, depth, format!("validate {}", settings(list))),
        }
    }
}

fn selector(selector: &Selector) -> String {
    match selector {
        Selector::Others(_) => "(others)".to_owned(),
        Selector::Path(path) => path.text.clone(),
        Selector::Kind { kind, path: None } => format!("({})", kind.text),
        Selector::Kind { kind, path: Some(path) } => format!("({} in {})", kind.text, path.text),
    }
}

fn join<T>(list: &[T], one: impl Fn(&T) -> String) -> String {
    list.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn idents(list: &[Ident]) -> String {
    join(list, |name| name.text.clone())
}

fn const_defs(list: &[ConstDef]) -> String {
    join(list, |def| format!("{} = {}", def.name.text, expr(&def.value)))
}

fn settings(list: &[Setting]) -> String {
    join(list, |setting| format!("{} = {}", setting.key.text, expr(&setting.value)))
}

fn bindings(list: &[Binding]) -> String {
    list.iter().map(|b| format!("{} = {}", patterns(&b.targets), expr(&b.value))).collect::<Vec<_>>().join("; ")
}

fn patterns(list: &[Pattern]) -> String {
    join(list, pattern)
}

fn pattern(pattern: &Pattern) -> String {
    match pattern {
        Pattern::Name(name) => name.text.clone(),
        Pattern::Ignore(_) => "_".to_owned(),
        Pattern::Seq(items, _) => format!("[{}]", patterns(items)),
    }
}

fn params(list: &[Param]) -> String {
    join(list, |param| {
        let ty = param.ty.as_ref().map_or(String::new(), |ty| format!(": {}", type_expr(ty)));
        let default = param.default.as_ref().map_or(String::new(), |value| format!(" = {}", expr(value)));
        format!("{}{ty}{default}", param.name.text)
    })
}

fn type_expr(ty: &TypeExpr) -> String {
    let dtype = ty.dtype.as_ref().map_or(String::new(), expr);
    format!("{dtype}[{}]{}", exprs(&ty.dims), if ty.or_none { " | none" } else { "" })
}

fn args(list: &[Arg]) -> String {
    join(list, |arg| match &arg.name {
        Some(name) => format!("{} = {}", name.text, expr(&arg.value)),
        None => expr(&arg.value),
    })
}

fn exprs(list: &[Expr]) -> String {
    join(list, expr)
}

fn end(expr_: &Option<Box<Expr>>) -> String {
    expr_.as_ref().map_or("_".to_owned(), |value| expr(value))
}

fn block(body: &Body) -> String {
    let mut out = String::new();
    stmts(&mut out, 0, &body.stmts);
    format!("{{{}}}", out.trim_end().replace('\n', "; "))
}

fn expr(e: &Expr) -> String {
    match &e.kind {
        ExprKind::Num(value, text) => {
            // The text is the number, written another way only by `_`.
            assert_eq!(text.replace('_', "").parse(), Ok(*value));
            text.clone()
        }
        ExprKind::Str(text) => format!("{text:?}"),
        ExprKind::Bool(value) => format!("{value}!"),
        ExprKind::None => "none!".to_owned(),
        ExprKind::Name(name) => name.clone(),
        ExprKind::List(items) => format!("[{}]", exprs(items)),
        ExprKind::Comprehension { element, pattern: name, iter, condition } => {
            let condition = condition.as_ref().map_or(String::new(), |c| format!(" if {}", expr(c)));
            format!("[{} for {} in {}{condition}]", expr(element), pattern(name), expr(iter))
        }
        ExprKind::Tuple(items) => format!("(tuple {})", exprs(items)),
        ExprKind::Paren(inner) => format!("(paren {})", expr(inner)),
        ExprKind::Record(fields) => {
            let field = |(name, value): &(Ident, Option<Expr>)| {
                format!("{}: {}", name.text, value.as_ref().map_or("_".to_owned(), expr))
            };
            format!("{{{}}}", join(fields, field))
        }
        ExprKind::Unary(op, inner) => format!("({op:?} {})", expr(inner)),
        ExprKind::Binary(op, left, right) => format!("({op:?} {} {})", expr(left), expr(right)),
        ExprKind::Call(callee, list) => format!("{}({})", expr(callee), args(list)),
        ExprKind::Index(inner, items) => format!("{}[{}]", expr(inner), exprs(items)),
        ExprKind::Field(inner, name) => format!("{}.{}", expr(inner), name.text),
        ExprKind::Range(from, to) => format!("(.. {} {})", end(from), end(to)),
        ExprKind::If { arms, otherwise } => {
            let mut text = String::new();
            for (condition, body) in arms {
                text.push_str(&format!("if {} {} ", expr(condition), block(body)));
            }
            if let Some(body) = otherwise {
                text.push_str(&format!("else {}", block(body)));
            }
            format!("({})", text.trim_end())
        }
    }
}
