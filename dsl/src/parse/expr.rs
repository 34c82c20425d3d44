//! Expressions: the grammar's flat list of operands and operators is ranked here.

use std::sync::LazyLock;

use pest::pratt_parser::{Assoc, Op, PrattParser};

use super::build::{Builder, Node, Parts};
use super::grammar::Rule;
use crate::ast::*;
use crate::diagnostic::Diagnostic;
use crate::span::Span;

/// The infix and prefix operators, loosest first; what is applied last in the text (calls, indices, fields) last.
static RANKS: LazyLock<PrattParser<Rule>> = LazyLock::new(|| {
    let left = |rule| Op::infix(rule, Assoc::Left);
    PrattParser::new()
        .op(left(Rule::kw_or))
        .op(left(Rule::kw_and))
        .op(Op::prefix(Rule::kw_not))
        .op(left(Rule::equal)
            | left(Rule::unequal)
            | left(Rule::less)
            | left(Rule::less_equal)
            | left(Rule::greater)
            | left(Rule::greater_equal))
        .op(left(Rule::range))
        .op(left(Rule::bit_or))
        .op(left(Rule::bit_and))
        .op(left(Rule::add) | left(Rule::sub))
        .op(left(Rule::mul) | left(Rule::div) | left(Rule::rem))
        .op(left(Rule::matmul))
        .op(Op::prefix(Rule::neg))
        .op(Op::infix(Rule::pow, Assoc::Right))
        .op(Op::postfix(Rule::call) | Op::postfix(Rule::index) | Op::postfix(Rule::field))
});

/// The infix operator of a rule; none for `..`, which makes a node of its own kind.
fn binary_op(rule: Rule) -> Option<BinaryOp> {
    Some(match rule {
        Rule::kw_or => BinaryOp::Or,
        Rule::kw_and => BinaryOp::And,
        Rule::equal => BinaryOp::Eq,
        Rule::unequal => BinaryOp::Ne,
        Rule::less => BinaryOp::Lt,
        Rule::less_equal => BinaryOp::Le,
        Rule::greater => BinaryOp::Gt,
        Rule::greater_equal => BinaryOp::Ge,
        Rule::bit_or => BinaryOp::BitOr,
        Rule::bit_and => BinaryOp::BitAnd,
        Rule::add => BinaryOp::Add,
        Rule::sub => BinaryOp::Sub,
        Rule::mul => BinaryOp::Mul,
        Rule::div => BinaryOp::Div,
        Rule::rem => BinaryOp::Rem,
        Rule::matmul => BinaryOp::MatMul,
        Rule::pow => BinaryOp::Pow,
        _ => return None,
    })
}

/// Whether an expression is looser than the operators of arithmetic and stands without parentheses.
fn is_loose(expr: &Expr) -> bool {
    use BinaryOp::*;
    matches!(
        &expr.kind,
        ExprKind::Unary(UnaryOp::Not, _)
            | ExprKind::Range(..)
            | ExprKind::Binary(Or | And | Eq | Ne | Lt | Le | Gt | Ge, ..)
    )
}

fn is_comparison(op: Option<BinaryOp>) -> bool {
    use BinaryOp::*;
    matches!(op, Some(Eq | Ne | Lt | Le | Gt | Ge))
}

impl<'i> Builder<'i> {
    pub(super) fn expr(&self, node: Node<'i>) -> Expr {
        let span = self.span(&node);
        let parts: Vec<_> = node.into_inner().filter(|part| part.as_rule() != Rule::COMMENT).collect();
        let ranked = self.nested(levels(&parts), span, |this| {
            RANKS
                .map_primary(|part| this.primary(part))
                .map_prefix(|op, operand| this.prefix(op, operand))
                .map_postfix(|inner, part| this.postfix(inner, part))
                .map_infix(|left, op, right| this.infix(left, op, right))
                .parse(parts.into_iter())
        });
        ranked.unwrap_or(Expr { kind: ExprKind::None, span })
    }

    fn prefix(&self, op: Node<'i>, operand: Expr) -> Expr {
        let op_span = self.span(&op);
        let span = op_span.to(operand.span);
        let op = if op.as_rule() == Rule::neg { UnaryOp::Neg } else { UnaryOp::Not };
        if op == UnaryOp::Neg {
            self.check_not(&operand);
        }
        Expr { kind: ExprKind::Unary(op, Box::new(operand)), span }
    }

    fn infix(&self, left: Expr, op: Node<'i>, right: Expr) -> Expr {
        let (op, op_span) = (binary_op(op.as_rule()), self.span(&op));
        if !matches!(op, Some(BinaryOp::Or | BinaryOp::And)) {
            self.check_not(&right);
        }
        self.check_chain(&left, op, op_span);
        let span = left.span.to(right.span);
        let (left, right) = (Box::new(left), Box::new(right));
        let kind = match op {
            Some(op) => ExprKind::Binary(op, left, right),
            None => ExprKind::Range(Some(left), Some(right)),
        };
        Expr { kind, span }
    }

    /// A call, an index or a field of `inner`.
    fn postfix(&self, inner: Expr, part: Node<'i>) -> Expr {
        let span = inner.span.to(self.span(&part));
        let inner = Box::new(inner);
        let kind = match part.as_rule() {
            Rule::call => ExprKind::Call(inner, self.args(part)),
            Rule::index => {
                let items = Parts::of(part).take_while(Rule::index_item);
                ExprKind::Index(inner, items.into_iter().map(|item| self.index_item(item)).collect())
            }
            _ => ExprKind::Field(inner, self.ident(Parts::of(part).take())),
        };
        Expr { kind, span }
    }

    /// `a + not b == c` would mean `a + (not (b == c))`, which nobody means.
    fn check_not(&self, operand: &Expr) {
        if let ExprKind::Unary(UnaryOp::Not, _) = operand.kind {
            let not = Span { end: operand.span.start + "not".len() as u32, ..operand.span };
            self.report(
                Diagnostic::error(
                    "not-needs-parentheses",
                    not,
                    "`not` is looser than the operator before it",
                    "begins an operand here",
                )
                .help("put the operand into parentheses: `(not …)`"),
            );
        }
    }

    /// Comparisons and ranges do not chain: `a < b < c` would compare a truth value with `c`.
    fn check_chain(&self, left: &Expr, op: Option<BinaryOp>, op_span: Span) {
        match &left.kind {
            ExprKind::Binary(before, _, middle) if is_comparison(op) && is_comparison(Some(*before)) => {
                let (before, middle) = (self.slice(left.span), self.slice(middle.span));
                let help = match before.len() {
                    0..40 => format!("write `{before} and {middle} {} …`", self.slice(op_span)),
                    _ => "join two comparisons with `and`".to_owned(),
                };
                self.report(
                    Diagnostic::error("chained-comparison", op_span, "comparisons do not chain", "a second comparison")
                        .label(left.span, "this is already true or false")
                        .help(help),
                );
            }
            ExprKind::Range(..) if op.is_none() => self.report(
                Diagnostic::error("chained-range", op_span, "a range has two ends", "a second `..`")
                    .label(left.span, "this is already a range"),
            ),
            _ => {}
        }
    }

    fn primary(&self, node: Node<'i>) -> Expr {
        let span = self.span(&node);
        let kind = match node.as_rule() {
            Rule::number => self.number(node.as_str(), span),
            Rule::string => ExprKind::Str(self.str_lit(node).value),
            Rule::kw_true => ExprKind::Bool(true),
            Rule::kw_false => ExprKind::Bool(false),
            Rule::kw_none => ExprKind::None,
            Rule::name => ExprKind::Name(node.as_str().to_owned()),
            Rule::list => self.list(node),
            Rule::paren => {
                let commas = node.clone().into_inner().filter(|part| part.as_rule() == Rule::comma).count();
                let mut items = self.exprs(Parts::of(node));
                match items.pop() {
                    Some(only) if items.is_empty() && commas == 0 => ExprKind::Paren(Box::new(only)),
                    last => {
                        items.extend(last);
                        ExprKind::Tuple(items)
                    }
                }
            }
            Rule::record => {
                let fields = Parts::of(node).take_while(Rule::record_field);
                let fields = fields.into_iter().map(|field| {
                    let mut parts = Parts::of(field);
                    (self.ident(parts.take()), parts.take_if(Rule::expr).map(|value| self.expr(value)))
                });
                ExprKind::Record(fields.collect())
            }
            Rule::if_expr => {
                let (arms, otherwise) = self.if_chain(Parts::of(node));
                ExprKind::If { arms, otherwise }
            }
            other => unreachable!("{other:?} is no expression"),
        };
        Expr { kind, span }
    }

    fn exprs(&self, mut parts: Parts<'i>) -> Vec<Expr> {
        parts.take_while(Rule::expr).into_iter().map(|item| self.expr(item)).collect()
    }

    fn list(&self, node: Node<'i>) -> ExprKind {
        let mut parts = Parts::of(node);
        let Some(first) = parts.take_if(Rule::expr) else { return ExprKind::List(Vec::new()) };
        let first = self.expr(first);
        let Some(tail) = parts.take_if(Rule::comprehension) else {
            let mut items = vec![first];
            items.extend(self.exprs(parts));
            return ExprKind::List(items);
        };
        let mut tail = Parts::of(tail);
        ExprKind::Comprehension {
            element: Box::new(first),
            pattern: self.pattern(tail.take()),
            iter: Box::new(self.expr(tail.take())),
            condition: tail.take_if(Rule::expr).map(|condition| Box::new(self.expr(condition))),
        }
    }

    /// The conditions with their bodies, and the last `else`, of an `if_expr` pair.
    pub(super) fn if_chain(&self, mut parts: Parts<'i>) -> (Vec<(Expr, Body)>, Option<Body>) {
        let arms = parts.take_while(Rule::if_arm).into_iter().map(|arm| {
            let mut parts = Parts::of(arm);
            (self.expr(parts.take()), self.body(parts.take()))
        });
        let arms = arms.collect();
        (arms, parts.take_if(Rule::body).map(|body| self.body(body)))
    }

    fn index_item(&self, node: Node<'i>) -> Expr {
        let span = self.span(&node);
        let mut parts = Parts::of(node);
        let first = parts.take();
        let range = match (first.as_rule(), parts.next()) {
            (Rule::range, to) => ExprKind::Range(None, to.map(|to| Box::new(self.range_end(to)))),
            (_, Some(_)) => ExprKind::Range(Some(Box::new(self.range_end(first))), None),
            (_, None) => return self.expr(first),
        };
        Expr { kind: range, span }
    }

    /// The one end of an open range, which binds as tightly as the two ends of a closed one.
    fn range_end(&self, node: Node<'i>) -> Expr {
        let end = self.expr(node);
        if is_loose(&end) {
            self.report(
                Diagnostic::error(
                    "open-range",
                    end.span,
                    "`..` is tighter than the operator in this end of a range",
                    "the end of the range",
                )
                .help("put it into parentheses"),
            );
        }
        end
    }

    /// The arguments of a `call` pair.
    pub(super) fn args(&self, node: Node<'i>) -> Vec<Arg> {
        let args = Parts::of(node).take_while(Rule::arg);
        args.into_iter()
            .map(|arg| {
                let mut parts = Parts::of(arg);
                let name = parts.take_if(Rule::name).map(|name| self.ident(name));
                Arg { name, value: self.expr(parts.take()) }
            })
            .collect()
    }

    /// A dotted name as an expression: fields of a name.
    pub(super) fn path_expr(&self, node: Node<'i>) -> Expr {
        let whole = self.span(&node);
        let mut parts = Parts::of(node);
        let first = self.ident(parts.take());
        let mut expr = Expr { kind: ExprKind::Name(first.text), span: first.span };
        let words: Vec<_> = std::iter::from_fn(|| parts.next()).collect();
        let chain = self.nested(words.len(), whole, |this| {
            for word in words {
                let field = this.ident(word);
                let span = expr.span.to(field.span);
                expr = Expr { kind: ExprKind::Field(Box::new(expr), field), span };
            }
            expr
        });
        chain.unwrap_or(Expr { kind: ExprKind::None, span: whole })
    }

    fn number(&self, text: &str, span: Span) -> ExprKind {
        let value = text.replace('_', "").parse().unwrap_or(f64::INFINITY);
        if value == f64::INFINITY {
            self.report(
                Diagnostic::error("number-too-large", span, "the number is too large", "over 1.8e308")
                    .help("numbers are 64-bit floats"),
            );
        }
        ExprKind::Num(value, text.to_owned())
    }

    /// A string with its escapes resolved.
    pub(super) fn str_lit(&self, node: Node<'i>) -> StrLit {
        let span = self.span(&node);
        let quoted = node.as_str();
        let mut value = String::with_capacity(quoted.len());
        let mut chars = quoted[1..quoted.len() - 1].chars();
        while let Some(c) = chars.next() {
            value.push(match c {
                '\\' => match chars.next() {
                    Some('n') => '\n',
                    Some('t') => '\t',
                    Some(quoted @ ('"' | '\\')) => quoted,
                    other => {
                        self.unknown_escape(span, other);
                        continue;
                    }
                },
                c => c,
            });
        }
        StrLit { value, span }
    }

    fn unknown_escape(&self, string: Span, escape: Option<char>) {
        let escape = escape.unwrap_or_default();
        self.report(
            Diagnostic::error(
                "unknown-escape",
                string,
                format!("`\\{escape}` means nothing in a string"),
                "in this string",
            )
            .help("the escapes are `\\n`, `\\t`, `\\\"` and `\\\\`; a path is written with `/`"),
        );
    }
}

/// How many levels a flat expression adds at most: a chain of n operators makes a tree n deep, and so does a chain of
/// calls, indices and fields on one operand.
fn levels(parts: &[Node<'_>]) -> usize {
    let (mut operators, mut chain, mut longest) = (1, 0, 0);
    for part in parts {
        match part.as_rule() {
            Rule::call | Rule::index | Rule::field => {
                chain += 1;
                longest = longest.max(chain);
            }
            Rule::neg | Rule::kw_not => operators += 1,
            rule if rule == Rule::range || binary_op(rule).is_some() => operators += 1,
            _ => chain = 0,
        }
    }
    operators + longest
}
