//! Elaboration: runs a file's compile-time program, which stages tensors into graphs.
//!
//! `files` gathers declarations; `value`, `scope` and `frame` hold the state; `expr`, `stmt`, `call` and `index` run the
//! language; `ops` and `builtins` stage tensors; `declare` makes parameters; `model`, `optimizer`, `train` make functions.

mod builtins;
mod call;
mod declare;
mod expr;
mod files;
mod frame;
mod gradients;
mod index;
mod math;
mod model;
mod ops;
mod optimizer;
mod scope;
mod settings;
mod shapes;
mod stmt;
mod suggest;
mod train;
mod update;
mod value;

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use indexmap::IndexMap;
use mngc_dsl::{Diagnostic, FileId, Span, ast};

pub use files::Load;
pub(crate) use files::{Unit, load};
pub(crate) use frame::Source;
pub(crate) use model::{INPUTS, Meta};
pub(crate) use settings::Recipes;
pub(crate) use train::{Optimize, scalar_id};

use crate::ir::{self, DType, Module, Slot};
use frame::Frame;
use scope::Scope;
use value::Value;

/// Why an evaluation stopped.
#[derive(Debug)]
pub(crate) enum Fail {
    /// A mistake of the user, to be reported where a statement ends.
    Diag(Box<Diagnostic>),
    /// It hangs on something that was reported already.
    Silent,
    /// No use in going on: out of fuel, too deep.
    Fatal(Box<Diagnostic>),
}

impl From<Diagnostic> for Fail {
    fn from(d: Diagnostic) -> Fail {
        Fail::Diag(Box::new(d))
    }
}

pub(crate) type Res<T> = Result<T, Fail>;

/// An error at a place.
pub(crate) fn fail<T>(code: &'static str, span: Span, message: impl Into<String>, label: impl Into<String>) -> Res<T> {
    Err(Diagnostic::error(code, span, message, label).into())
}

/// An error with what to do about it.
pub(crate) fn fail_help<T>(
    code: &'static str,
    span: Span,
    message: impl Into<String>,
    label: impl Into<String>,
    help: impl Into<String>,
) -> Res<T> {
    Err(Diagnostic::error(code, span, message, label).help(help).into())
}

/// Evaluated expressions and statements before the program counts as endless.
const FUEL: u64 = 4_000_000;
/// Calls inside calls before they count as endless.
const CALL_DEPTH: usize = 100;
/// Nested evaluations of any kind, bounded by the stack of the elaborator's thread.
const EVAL_DEPTH: usize = 3_000;
/// Diagnostics before a file is given up.
const MAX_DIAGNOSTICS: usize = 25;

/// How far the evaluation of a constant has come.
pub(crate) enum Const {
    Waiting(Rc<ast::ConstDef>),
    Running(Span),
    Done(Value),
}

/// The elaborator of one program.
pub(crate) struct Elab {
    /// What is made.
    pub m: Module,
    pub diags: Vec<Diagnostic>,
    pub consts: IndexMap<String, Const>,
    pub blocks: HashMap<String, Rc<ast::Block>>,
    pub fns: HashMap<String, Rc<ast::Function>>,
    pub optimizers: HashMap<String, Rc<ast::Optimizer>>,
    pub models: IndexMap<String, Rc<ast::Model>>,
    pub settings: IndexMap<String, ast::Expr>,
    /// Names of the function that runs, innermost last.
    pub scopes: Vec<Scope>,
    /// Graphs under construction, innermost last.
    pub frames: Vec<Frame>,
    next_frame: u32,
    /// The graph that draws initial values, and what it has drawn.
    pub init: Option<Frame>,
    pub drawn: Vec<(Slot, ir::Value)>,
    /// Calls that lead to the place that runs.
    pub calls: Vec<(String, Span)>,
    /// Hyper-parameters of the running optimizer, by position, that the running statement has read.
    pub read: BTreeSet<usize>,
    depth: usize,
    fuel: u64,
    /// Functions made of blocks; none where that failed.
    pub memo: HashMap<String, Option<Rc<Meta>>>,
    pub compute: DType,
    pub master: DType,
    /// Whether `step` has a meaning here.
    pub step: bool,
    /// Slots by name, with the place of their declaration.
    pub slots: HashMap<String, (Slot, Span)>,
    /// Every name that `param` declared with a dtype of its own.
    pub typed: HashMap<Slot, bool>,
    /// Whether parameters are declared for the first time.
    pub declaring: bool,
    pub declared: declare::Declared,
    /// Parameters whose rows the model looks up.
    pub tables: Vec<Slot>,
    /// Parameters whose rows are the classes of the loss.
    pub heads: Vec<Slot>,
    /// Functions made of optimizers; none where that failed.
    pub optimizer_fns: HashMap<String, Option<Rc<optimizer::OptimizerFn>>>,
}

impl Elab {
    pub fn new(unit: Unit) -> (Elab, Option<(Rc<ast::Train>, Span)>, IndexMap<String, ast::Expr>) {
        let consts = unit.consts.into_iter().map(|(n, d)| (n, Const::Waiting(Rc::new(d)))).collect();
        let elab = Elab {
            m: Module::default(),
            diags: Vec::new(),
            consts,
            blocks: unit.blocks.into_iter().map(|(n, b)| (n, Rc::new(b))).collect(),
            fns: unit.fns.into_iter().map(|(n, f)| (n, Rc::new(f))).collect(),
            optimizers: unit.optimizers.into_iter().map(|(n, o)| (n, Rc::new(o))).collect(),
            models: unit.models.into_iter().map(|(n, m)| (n, Rc::new(m))).collect(),
            settings: unit.settings,
            scopes: Vec::new(),
            frames: Vec::new(),
            next_frame: 0,
            init: None,
            drawn: Vec::new(),
            calls: Vec::new(),
            read: BTreeSet::new(),
            depth: 0,
            fuel: FUEL,
            memo: HashMap::new(),
            compute: DType::F32,
            master: DType::F32,
            step: false,
            slots: HashMap::new(),
            typed: HashMap::new(),
            declaring: true,
            declared: declare::Declared::default(),
            tables: Vec::new(),
            heads: Vec::new(),
            optimizer_fns: HashMap::new(),
        };
        (elab, unit.train.map(|(t, s)| (Rc::new(t), s)), unit.precision)
    }

    /// Takes a result; reports a mistake.
    pub fn report<T>(&mut self, result: Res<T>) -> Res<T> {
        match result {
            Err(Fail::Diag(d)) => {
                self.push(*d)?;
                Err(Fail::Silent)
            }
            other => other,
        }
    }

    /// Adds a diagnostic, with the calls that lead to it, unless it stands there already.
    pub fn push(&mut self, mut d: Diagnostic) -> Res<()> {
        for (name, span) in self.calls.iter().rev().take(2) {
            let known = d.labels.iter().any(|(s, _)| s == span);
            if !known {
                d.labels.push((*span, format!("in this call of {name}")));
            }
        }
        let same = |old: &Diagnostic| old.message == d.message && old.labels[0].0 == d.labels[0].0;
        if !self.diags.iter().any(same) {
            self.diags.push(d);
        }
        if self.diags.len() >= MAX_DIAGNOSTICS {
            let d = Diagnostic::error("too-many", self.diags[0].labels[0].0, "too many mistakes", "the first is here");
            return Err(Fail::Fatal(Box::new(d)));
        }
        Ok(())
    }

    /// Counts one step of evaluation and guards the stack.
    pub fn deeper<T>(&mut self, span: Span, f: impl FnOnce(&mut Self) -> Res<T>) -> Res<T> {
        self.fuel = self.fuel.saturating_sub(1);
        if self.fuel == 0 {
            let d = Diagnostic::error("endless", span, "the file's program does not seem to end", "still running here")
                .note(format!("it was stopped after {FUEL} evaluated expressions"))
                .help("check the bounds of loops: `for` runs when the file is compiled, once for each element");
            return Err(Fail::Fatal(Box::new(d)));
        }
        if self.depth >= EVAL_DEPTH {
            let d = Diagnostic::error("too-deep", span, "expressions are nested too deeply", "here");
            return Err(Fail::Fatal(Box::new(d)));
        }
        self.depth += 1;
        let result = f(self);
        self.depth -= 1;
        result
    }

    /// Runs a call; too many inside each other are an error.
    pub fn calling<T>(&mut self, name: &str, span: Span, f: impl FnOnce(&mut Self) -> Res<T>) -> Res<T> {
        if self.calls.len() >= CALL_DEPTH {
            let d =
                Diagnostic::error("recursion", span, format!("the recursion of {name} does not end"), "called here")
                    .note(format!("it was stopped {CALL_DEPTH} calls deep"))
                    .help("make it end by an `if` on a compile-time value that changes from call to call");
            self.calls.clear();
            return Err(Fail::Fatal(Box::new(d)));
        }
        self.calls.push((name.to_string(), span));
        let result = f(self);
        // Mistakes are reported inside, so that they name this call.
        let result = self.report(result);
        self.calls.pop();
        result
    }

    /// Runs with an empty scope of its own.
    pub fn isolated<T>(&mut self, f: impl FnOnce(&mut Self) -> Res<T>) -> Res<T> {
        let outer = std::mem::replace(&mut self.scopes, vec![Scope::default()]);
        let result = f(self);
        self.scopes = outer;
        result
    }
}

/// The program of a unit, elaborated: a module with slots and functions, not yet differentiated.
pub(crate) struct Elaborated {
    pub module: Module,
    /// The model for training, and for validation where that is asked for.
    pub train_model: Rc<Meta>,
    pub validate_model: Option<Rc<Meta>>,
    pub recipe: Recipes,
    /// The function that updates every slot, with where its parameters and results come from and go.
    pub update: Optimize,
    /// The function that draws every slot.
    pub init: ir::Graph,
    pub drawn: Vec<(Slot, ir::Value)>,
}

/// Elaborates a unit.
pub(crate) fn elaborate(main: FileId, unit: Unit) -> Result<Elaborated, Vec<Diagnostic>> {
    let (mut elab, train, precision) = Elab::new(unit);
    let result = elab.program(main, train, precision);
    match result {
        Ok(done) if elab.diags.is_empty() => Ok(done),
        Ok(_) | Err(Fail::Silent) => Err(elab.diags),
        Err(Fail::Diag(d)) | Err(Fail::Fatal(d)) => {
            elab.diags.push(*d);
            Err(elab.diags)
        }
    }
}
