//! Expressions: the grammar's flat list of operands and operators is ranked here.

use super::build::{Builder, Node, Parts};
use super::grammar::Rule;
use crate::ast::*;
use crate::diagnostic::Diagnostic;
use crate::span::Span;

/// How many expressions and bodies may stand inside one another.
///
/// What walks a tree recurses; the limit keeps every walk within the stack of any thread.
pub(super) const MAX_DEPTH: usize = 256;

/// Ranks of operators, loosest first. Comparisons stand between `not` and `..` and do not chain.
const OR: u8 = 1;
const AND: u8 = 2;
const NOT: u8 = 3;
const COMPARE: u8 = 4;
const RANGE: u8 = 5;
const NEG: u8 = 11;
const POW: u8 = 12;

/// An infix operator: a range makes a node of its own kind.
#[derive(Clone, Copy, PartialEq)]
enum Infix {
    Binary(BinaryOp),
    Range,
}

fn infix(text: &str) -> (Infix, u8) {
    use BinaryOp::*;
    let (op, rank) = match text {
        "or" => (Or, OR),
        "and" => (And, AND),
        "==" => (Eq, COMPARE),
        "!=" => (Ne, COMPARE),
        "<" => (Lt, COMPARE),
        "<=" => (Le, COMPARE),
        ">" => (Gt, COMPARE),
        ">=" => (Ge, COMPARE),
        "|" => (BitOr, 6),
        "&" => (BitAnd, 7),
        "+" => (Add, 8),
        "-" => (Sub, 8),
        "*" => (Mul, 9),
        "/" => (Div, 9),
        "%" => (Rem, 9),
        "@" => (MatMul, 10),
        "^" => (Pow, POW),
        _ => return (Infix::Range, RANGE),
    };
    (Infix::Binary(op), rank)
}

/// The rank of an operator that has already been applied; none for what needs no parentheses anywhere.
fn rank_of(expr: &Expr) -> Option<u8> {
    use BinaryOp::*;
    match &expr.kind {
        ExprKind::Unary(UnaryOp::Not, _) => Some(NOT),
        ExprKind::Range(..) => Some(RANGE),
        ExprKind::Binary(Or, ..) => Some(OR),
        ExprKind::Binary(And, ..) => Some(AND),
        ExprKind::Binary(Eq | Ne | Lt | Le | Gt | Ge, ..) => Some(COMPARE),
        _ => None,
    }
}

/// One element of a flat expression.
enum Token {
    Prefix(UnaryOp, Span),
    Operand(Expr),
    Infix(Infix, u8, Span),
}

type Tokens = std::iter::Peekable<std::vec::IntoIter<Token>>;

impl<'i> Builder<'i> {
    /// Runs `build` some levels deeper; none, with an error at `span`, when that is too deep.
    pub(super) fn nested<T>(&mut self, levels: usize, span: Span, build: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.depth + levels > MAX_DEPTH {
            // Once is enough: whatever stands around or beside it is just as deep.
            if !self.errors.iter().any(|error| error.code == "too-deep") {
                self.errors.push(
                    Diagnostic::error(
                        "too-deep",
                        span,
                        format!("this nests more than {MAX_DEPTH} levels deep"),
                        "operators, calls and brackets count one level each",
                    )
                    .help("give parts of it names with `let`"),
                );
            }
            return None;
        }
        self.depth += levels;
        let built = build(self);
        self.depth -= levels;
        Some(built)
    }

    pub(super) fn expr(&mut self, node: Node<'i>) -> Expr {
        let span = self.span(&node);
        let parts: Vec<_> = node.into_inner().collect();
        // A chain of n operators makes a tree n deep, and so does a chain of calls, fields and prefixes.
        let infixes = parts.iter().filter(|part| part.as_rule() == Rule::infix).count();
        let operands = parts.iter().filter(|part| part.as_rule() == Rule::operand);
        let affixes = operands.map(|operand| operand.clone().into_inner().count()).max().unwrap_or(1);
        let ranked = self.nested(infixes + affixes, span, |this| {
            let mut tokens = Vec::with_capacity(parts.len());
            for part in parts {
                match part.as_rule() {
                    Rule::infix => {
                        let (op, rank) = infix(part.as_str());
                        tokens.push(Token::Infix(op, rank, this.span(&part)));
                    }
                    _ => this.operand(part, &mut tokens),
                }
            }
            this.climb(&mut tokens.into_iter().peekable(), 0)
        });
        ranked.unwrap_or(Expr { kind: ExprKind::None, span })
    }

    /// Precedence climbing: the longest expression whose operators rank at least `min`.
    fn climb(&mut self, tokens: &mut Tokens, min: u8) -> Expr {
        let mut left = match tokens.next() {
            Some(Token::Prefix(op, span)) => {
                let rank = if op == UnaryOp::Not { NOT } else { NEG };
                if op == UnaryOp::Not && min > NOT {
                    self.errors.push(
                        Diagnostic::error(
                            "not-needs-parentheses",
                            span,
                            "`not` is looser than the operator before it",
                            "begins an operand here",
                        )
                        .help("put the operand into parentheses: `(not …)`"),
                    );
                }
                let operand = self.climb(tokens, rank);
                let span = span.to(operand.span);
                Expr { kind: ExprKind::Unary(op, Box::new(operand)), span }
            }
            Some(Token::Operand(operand)) => operand,
            _ => unreachable!("the grammar puts an operand here"),
        };
        while let Some(Token::Infix(op, rank, op_span)) =
            tokens.next_if(|token| matches!(token, Token::Infix(_, rank, _) if *rank >= min))
        {
            self.check_chain(&left, op, rank, op_span);
            // `^` takes a further `^` on its right, the others do not take their own rank there.
            let right = self.climb(tokens, if rank == POW { rank } else { rank + 1 });
            let span = left.span.to(right.span);
            let (left_box, right_box) = (Box::new(left), Box::new(right));
            let kind = match op {
                Infix::Binary(op) => ExprKind::Binary(op, left_box, right_box),
                Infix::Range => ExprKind::Range(Some(left_box), Some(right_box)),
            };
            left = Expr { kind, span };
        }
        left
    }

    /// Comparisons and ranges do not chain: `a < b < c` would compare a truth value with `c`.
    fn check_chain(&mut self, left: &Expr, op: Infix, rank: u8, op_span: Span) {
        if rank == COMPARE && rank_of(left) == Some(COMPARE) {
            let middle = match &left.kind {
                ExprKind::Binary(_, _, right) => self.slice(right.span),
                _ => "",
            };
            let help = match self.slice(left.span) {
                text if middle.is_empty() || text.len() > 40 => "join two comparisons with `and`".to_owned(),
                text => format!("write `{text} and {middle} {} …`", self.slice(op_span)),
            };
            self.errors.push(
                Diagnostic::error("chained-comparison", op_span, "comparisons do not chain", "a second comparison")
                    .label(left.span, "this is already true or false")
                    .help(help),
            );
        }
        if op == Infix::Range && rank_of(left) == Some(RANGE) {
            self.errors.push(
                Diagnostic::error("chained-range", op_span, "a range has two ends", "a second `..`")
                    .label(left.span, "this is already a range"),
            );
        }
    }

    /// One operand with its prefix operators, calls, indices and fields.
    fn operand(&mut self, node: Node<'i>, tokens: &mut Vec<Token>) {
        let mut parts = Parts::of(node);
        for prefix in parts.take_while(Rule::prefix) {
            let op = if prefix.as_str() == "-" { UnaryOp::Neg } else { UnaryOp::Not };
            tokens.push(Token::Prefix(op, self.span(&prefix)));
        }
        let mut expr = self.primary(parts.take());
        while let Some(postfix) = parts.next() {
            let span = expr.span.to(self.span(&postfix));
            let inner = Box::new(expr);
            let kind = match postfix.as_rule() {
                Rule::call => ExprKind::Call(inner, self.args(postfix)),
                Rule::index => {
                    let items = Parts::of(postfix).take_while(Rule::index_item);
                    ExprKind::Index(inner, items.into_iter().map(|item| self.index_item(item)).collect())
                }
                _ => ExprKind::Field(inner, self.ident(Parts::of(postfix).take())),
            };
            expr = Expr { kind, span };
        }
        tokens.push(Token::Operand(expr));
    }

    fn primary(&mut self, node: Node<'i>) -> Expr {
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
            Rule::if_expr => self.if_chain(node),
            other => unreachable!("{other:?} is no expression"),
        };
        Expr { kind, span }
    }

    fn exprs(&mut self, mut parts: Parts<'i>) -> Vec<Expr> {
        parts.take_while(Rule::expr).into_iter().map(|item| self.expr(item)).collect()
    }

    fn list(&mut self, node: Node<'i>) -> ExprKind {
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

    fn if_chain(&mut self, node: Node<'i>) -> ExprKind {
        let mut parts = Parts::of(node);
        let arms = parts.take_while(Rule::if_arm).into_iter().map(|arm| {
            let mut parts = Parts::of(arm);
            (self.expr(parts.take()), self.body(parts.take()))
        });
        let arms = arms.collect();
        let otherwise = parts.take_if(Rule::body).map(|body| self.body(body));
        ExprKind::If { arms, otherwise }
    }

    fn index_item(&mut self, node: Node<'i>) -> Expr {
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
    fn range_end(&mut self, node: Node<'i>) -> Expr {
        let end = self.expr(node);
        if rank_of(&end).is_some() {
            self.errors.push(
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
    pub(super) fn args(&mut self, node: Node<'i>) -> Vec<Arg> {
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
    pub(super) fn path_expr(&mut self, node: Node<'i>) -> Expr {
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

    fn number(&mut self, text: &str, span: Span) -> ExprKind {
        let value = text.replace('_', "").parse().unwrap_or(f64::INFINITY);
        if value == f64::INFINITY {
            self.errors.push(
                Diagnostic::error("number-too-large", span, "the number is too large", "over 1.8e308")
                    .help("numbers are 64-bit floats"),
            );
        }
        ExprKind::Num(value, text.to_owned())
    }

    /// A string with its escapes resolved.
    pub(super) fn str_lit(&mut self, node: Node<'i>) -> StrLit {
        let span = self.span(&node);
        let quoted = node.as_str();
        let mut value = String::with_capacity(quoted.len());
        let mut chars = quoted[1..quoted.len() - 1].chars();
        while let Some(c) = chars.next() {
            value.push(match c {
                '\\' => match chars.next() {
                    Some('n') => '\n',
                    Some('t') => '\t',
                    Some(other) => other,
                    None => '\\',
                },
                c => c,
            });
        }
        StrLit { value, span }
    }
}
