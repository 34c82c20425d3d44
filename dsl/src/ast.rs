//! Syntax types of a `.mng` file. Every node carries its [`Span`]; nothing is resolved here.

use crate::span::Span;

/// A name with its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Ident {
    /// The text, without dots.
    pub text: String,
    /// Where it stands.
    pub span: Span,
}

/// A dotted name as declared: `transformer.wte.weight`.
#[derive(Clone, Debug, PartialEq)]
pub struct Path {
    /// The dotted text, without spaces.
    pub text: String,
    /// Where it stands.
    pub span: Span,
}

/// One source file.
#[derive(Clone, Debug, PartialEq)]
pub struct File {
    /// Lines of the `//!` comment at the top, without the marker and one following space.
    pub docs: Vec<String>,
    /// Declarations in order.
    pub items: Vec<Item>,
}

/// A declaration at the top of a file (or inside `extend … { }`).
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// What is declared.
    pub kind: ItemKind,
    /// From the keyword to the last token.
    pub span: Span,
}

/// The kinds of declarations.
#[derive(Clone, Debug, PartialEq)]
pub enum ItemKind {
    /// `import "optimizers.mng"`: every declaration of that file becomes visible here.
    Import(StrLit),
    /// `extend "gpt2.mng" { … }`: that file with some constants and settings replaced, declarations replaced or added.
    Extend {
        /// The file that is extended, relative to this one.
        path: StrLit,
        /// What is replaced or added.
        items: Vec<Item>,
    },
    /// `const vocab = 50304, layers = 12`.
    Const(Vec<ConstDef>),
    /// `precision { compute = low, master = f32 }`.
    Precision(Vec<Setting>),
    /// `block Attention { … }` or `block Layer(i) { … }`.
    Block(Block),
    /// `model gpt2[T] (tokens: i32[T], targets: i32[T]) { … }`.
    Model(Model),
    /// `fn newton_schulz5(g, steps) { … }`.
    Fn(Function),
    /// `optimizer muon(w, g; lr, momentum) { … }`.
    Optimizer(Optimizer),
    /// `train gpt2[T = sequence] { … }`.
    Train(Train),
}

/// A string literal.
#[derive(Clone, Debug, PartialEq)]
pub struct StrLit {
    /// The value with escapes resolved.
    pub value: String,
    /// Where it stands, quotes included.
    pub span: Span,
}

/// One `name = value` of a `const` item.
#[derive(Clone, Debug, PartialEq)]
pub struct ConstDef {
    /// The constant.
    pub name: Ident,
    /// Its value.
    pub value: Expr,
}

/// One `key = value` of `precision`, `train` or `validate`.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// The key.
    pub key: Ident,
    /// Its value.
    pub value: Expr,
}

/// A reusable part of a model: parameters, sub-blocks and one function.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// Its name.
    pub name: Ident,
    /// Compile-time arguments, empty for `block Attention { … }`.
    pub args: Vec<Param>,
    /// `param` and `use` declarations, with `let` of compile-time values between them, in order.
    pub members: Vec<Stmt>,
    /// The function that a call of the block runs; `name` is `fn`.
    pub function: Function,
}

/// A trainable model for one sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// Its name.
    pub name: Ident,
    /// Shape variables: `[T]`.
    pub shape_vars: Vec<Ident>,
    /// Inputs.
    pub inputs: Vec<Param>,
    /// Declarations and statements.
    pub body: Body,
}

/// `fn name[T](params) { … }`.
#[derive(Clone, Debug, PartialEq)]
pub struct Function {
    /// Its name; `fn` for the function of a block.
    pub name: Ident,
    /// Shape variables: `[T]`.
    pub shape_vars: Vec<Ident>,
    /// Parameters.
    pub params: Vec<Param>,
    /// Statements.
    pub body: Body,
}

/// `optimizer muon(w, g; lr, momentum, steps = 5) { … }`.
#[derive(Clone, Debug, PartialEq)]
pub struct Optimizer {
    /// Its name.
    pub name: Ident,
    /// The name of the parameter's value, then of its gradient (before the `;`).
    pub tensors: Vec<Param>,
    /// Hyper-parameters (after the `;`).
    pub hyper: Vec<Param>,
    /// `state` declarations and statements; assigning the first tensor is the update.
    pub body: Body,
}

/// `train gpt2[T = sequence] { … }`.
#[derive(Clone, Debug, PartialEq)]
pub struct Train {
    /// The model that is trained; none inside `extend`, where it means the extended file's.
    pub model: Option<Ident>,
    /// Shape variables bound here.
    pub bindings: Vec<Setting>,
    /// Settings, `let`, `update`, `validate` and statements, in order.
    pub body: Body,
}

/// A parameter of a function, block, model or optimizer.
#[derive(Clone, Debug, PartialEq)]
pub struct Param {
    /// Its name.
    pub name: Ident,
    /// `: [T, dim]`, when given.
    pub ty: Option<TypeExpr>,
    /// `= 5`, when given.
    pub default: Option<Expr>,
}

/// A tensor type: `[T, dim]`, `i32[T]`, `[T, dim] | none`.
#[derive(Clone, Debug, PartialEq)]
pub struct TypeExpr {
    /// The dtype before the bracket, when given.
    pub dtype: Option<Expr>,
    /// One expression an axis; empty for a scalar `low[]`.
    pub dims: Vec<Expr>,
    /// Whether `| none` follows.
    pub or_none: bool,
    /// The whole type.
    pub span: Span,
}

/// Statements between braces.
#[derive(Clone, Debug, PartialEq)]
pub struct Body {
    /// In order.
    pub stmts: Vec<Stmt>,
    /// Braces included.
    pub span: Span,
}

/// A statement.
#[derive(Clone, Debug, PartialEq)]
pub struct Stmt {
    /// What it says.
    pub kind: StmtKind,
    /// From its first to its last token.
    pub span: Span,
}

/// The kinds of statements. Elaboration says where each may stand.
#[derive(Clone, Debug, PartialEq)]
pub enum StmtKind {
    /// `let a, b = f(x), c = 2`: names that never change (a later `let` of the same name shadows).
    Let(Vec<Binding>),
    /// `var x = x0, skips = []`: names that assignments may change.
    Var(Vec<Binding>),
    /// `x = e`, `x, v1 = e`; a setting when it stands in `train`.
    Assign {
        /// Left of `=`; more than one means that the value is a tuple.
        targets: Vec<Pattern>,
        /// Right of `=`.
        value: Expr,
    },
    /// `return a, b`: more than one value makes a tuple, none returns `none`.
    Return(Vec<Expr>),
    /// `for i in 0..layers { … }`.
    For {
        /// The loop variable.
        pattern: Pattern,
        /// What is walked.
        iter: Expr,
        /// The loop.
        body: Body,
    },
    /// `if c { … } else if d { … } else { … }`.
    If {
        /// Conditions with their bodies, in order.
        arms: Vec<(Expr, Body)>,
        /// The last `else`.
        otherwise: Option<Body>,
    },
    /// An expression; as the last statement of an `if` expression's body it is the value.
    Expr(Expr),
    /// `param c_q.weight, c_k.weight: [dim, dim] init uniform(b)`.
    Param {
        /// Dotted names.
        names: Vec<Path>,
        /// Shape and storage dtype.
        ty: TypeExpr,
        /// Initial value.
        init: Expr,
    },
    /// `use attn: Attention, mlp: Mlp`, `use h: Layer[layers]`.
    Use(Vec<UseDef>),
    /// `state m = zeros_like(w), v = zeros_like(w)`.
    State(Vec<ConstDef>),
    /// `update matrices in transformer.h with muon(lr = 0.04)`.
    Update {
        /// Which parameters.
        selectors: Vec<Selector>,
        /// The optimizer's name.
        optimizer: Ident,
        /// Its hyper-parameters.
        args: Vec<Arg>,
    },
    /// `validate { data = "…", tokens = 10485760, every = 125 }`.
    Validate(Vec<Setting>),
}

/// `pattern, pattern = value`.
#[derive(Clone, Debug, PartialEq)]
pub struct Binding {
    /// Left of `=`; more than one means that the value is a tuple.
    pub targets: Vec<Pattern>,
    /// Right of `=`.
    pub value: Expr,
}

/// What a value is bound to.
#[derive(Clone, Debug, PartialEq)]
pub enum Pattern {
    /// A name.
    Name(Ident),
    /// `_`: the value is dropped.
    Ignore(Span),
    /// `[a, b]` or `(a, b)`: a list or tuple of exactly that length.
    Seq(Vec<Pattern>, Span),
}

impl Pattern {
    /// Where it stands.
    pub fn span(&self) -> Span {
        match self {
            Pattern::Name(name) => name.span,
            Pattern::Ignore(span) | Pattern::Seq(_, span) => *span,
        }
    }
}

/// `name: Block`, `name: Block(args)`, `name: Block[count]`, `name: [Block(i) for i in 0..n]`.
#[derive(Clone, Debug, PartialEq)]
pub struct UseDef {
    /// The dotted name that the parameters stand under.
    pub name: Path,
    /// A block name, a call of one, an indexed one (`Layer[layers]`: that many), or a list of those.
    pub value: Expr,
}

/// Which parameters an `update` takes.
#[derive(Clone, Debug, PartialEq)]
pub enum Selector {
    /// What no other `update` of the block names.
    Others(Span),
    /// `transformer.wte.weight`, or everything under `transformer.h`.
    Path(Path),
    /// `matrices in transformer.h`, `vectors in …`: of what stands under the path, those of one rank.
    Kind {
        /// `matrices` (rank 2), `vectors` (rank 1), `scalars` (rank 0) or `parameters` (all).
        kind: Ident,
        /// The path; none means the whole model.
        path: Option<Path>,
    },
}

/// An argument of a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Arg {
    /// `name =`, when given.
    pub name: Option<Ident>,
    /// The value.
    pub value: Expr,
}

/// An expression.
#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    /// What it says.
    pub kind: ExprKind,
    /// From its first to its last token.
    pub span: Span,
}

/// The kinds of expressions.
#[derive(Clone, Debug, PartialEq)]
pub enum ExprKind {
    /// `12`, `0.5`, `1e-8`, `10_000`. The text is kept for the formatter.
    Num(f64, String),
    /// `"text"`.
    Str(String),
    /// `true`, `false`.
    Bool(bool),
    /// `none`.
    None,
    /// A single name; dotted names are [`ExprKind::Field`] of names.
    Name(String),
    /// `[a, b]`.
    List(Vec<Expr>),
    /// `[f(x) for x in xs if c]`.
    Comprehension {
        /// The element.
        element: Box<Expr>,
        /// The loop variable.
        pattern: Pattern,
        /// What is walked.
        iter: Box<Expr>,
        /// `if c`, when given.
        condition: Option<Box<Expr>>,
    },
    /// `(a, b)`, `(a,)`, `()`.
    Tuple(Vec<Expr>),
    /// `(a)`: kept so that formatting leaves the user's grouping.
    Paren(Box<Expr>),
    /// `{ logits, loss: e }`; a field without a value means the name of the same text.
    Record(Vec<(Ident, Option<Expr>)>),
    /// `-x`, `not x`.
    Unary(UnaryOp, Box<Expr>),
    /// `a + b`.
    Binary(BinaryOp, Box<Expr>, Box<Expr>),
    /// `f(a, b = c)`.
    Call(Box<Expr>, Vec<Arg>),
    /// `x[i]`, `x[a..b, ..]`.
    Index(Box<Expr>, Vec<Expr>),
    /// `x.name`.
    Field(Box<Expr>, Ident),
    /// `a..b`, `a..`, `..b`, `..` (the open forms stand in an index only).
    Range(Option<Box<Expr>>, Option<Box<Expr>>),
    /// `if c { a } else { b }` as a value.
    If {
        /// Conditions with their bodies, in order.
        arms: Vec<(Expr, Body)>,
        /// The last `else`.
        otherwise: Option<Body>,
    },
}

/// Prefix operators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnaryOp {
    /// `-x`.
    Neg,
    /// `not x`.
    Not,
}

/// Infix operators, loosest first: `or`, `and`, comparisons, `..`, `|`, `&`, `+ -`, `* / %`, `@`, (prefix `-`), `^`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BinaryOp {
    /// `a or b`: logical, and `b` where `a` is `none`.
    Or,
    /// `a and b`.
    And,
    /// `a == b`.
    Eq,
    /// `a != b`.
    Ne,
    /// `a < b`.
    Lt,
    /// `a <= b`.
    Le,
    /// `a > b`.
    Gt,
    /// `a >= b`.
    Ge,
    /// `a | b`.
    BitOr,
    /// `a & b`: also joins attention masks.
    BitAnd,
    /// `a + b`.
    Add,
    /// `a - b`.
    Sub,
    /// `a * b`.
    Mul,
    /// `a / b`: always real.
    Div,
    /// `a % b`.
    Rem,
    /// `a @ b`: matrix product, tighter than `*`.
    MatMul,
    /// `a ^ b`: power, right-associative, tighter than prefix `-`.
    Pow,
}
