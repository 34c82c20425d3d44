//! The front door: from a file to a verified program.

use std::collections::HashMap;
use std::time::Instant;

use mngc_dsl::{Diagnostic, FileId, Sources, Span};

use crate::autodiff::{self, AutodiffError};
use crate::check::causality;
use crate::elaborate::{self, Elaborated, Load, Meta, Optimize, Source, scalar_id};
use crate::ir::typing::Stage;
use crate::ir::{
    self, BinaryOp, Builder, CallKind, DType, DimRole, Entry, EntryKey, EntryKind, Func, Graph, Input, Module, Output,
    ReduceKind, Slot, SlotRole, Type, Value,
};
use crate::passes::{self, PassError, batch};
use crate::program::{Program, Recipe, Validation};

/// Tokens that a `micro_step` or `evaluate` takes where nobody says otherwise; never less than one sequence.
const MICRO_TOKENS: usize = 8192;

/// What the caller decides beside the file.
#[derive(Clone, Debug, Default)]
pub struct CompileOptions {
    /// `--set name=value`, in order.
    pub sets: Vec<(String, String)>,
    /// Sequences in a `micro_step`, which must divide the batch, and at most so many in an `evaluate`; none lets the
    /// compiler choose.
    pub micro_sequences: Option<usize>,
    /// Compiles a model whose logits look ahead, which is refused otherwise: for tests of that very check.
    pub allow_leaks: bool,
}

/// Stack of the elaborator: the language's recursion is bounded, its depth is more than a thread usually has.
const STACK: usize = 1 << 30;

/// Compiles a file: elaborates, checks, differentiates and binds the entries.
///
/// `load` finds files that are imported or extended. Errors are the user's; a fault of the compiler itself is reported
/// as a diagnostic with code `internal`.
pub fn compile(
    sources: &mut Sources,
    main: FileId,
    load: &mut Load,
    options: &CompileOptions,
) -> Result<Program, Vec<Diagnostic>> {
    let mut timings = Vec::new();
    let start = Instant::now();
    let unit = elaborate::load(sources, main, load, &options.sets)?;
    timings.push(("parse".to_string(), start.elapsed().as_secs_f64()));
    let work = move || {
        let start = Instant::now();
        let elaborated = elaborate::elaborate(main, unit)?;
        timings.push(("elaborate".to_string(), start.elapsed().as_secs_f64()));
        Compiler { main, timings }.program(elaborated, options)
    };
    std::thread::scope(|scope| {
        let thread =
            std::thread::Builder::new().name("mngc-compile".into()).stack_size(STACK).spawn_scoped(scope, work);
        match thread.map(|t| t.join()) {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(vec![internal(main, "the compiler stopped".into())]),
            Err(e) => Err(vec![internal(main, format!("no thread could be started: {e}"))]),
        }
    })
}

/// A fault of ours.
fn internal(main: FileId, what: String) -> Diagnostic {
    Diagnostic::error("internal", Span::new(main, 0, 0), "this is a fault of mngc, not of the file", what)
        .help("please report it, with the file")
}

struct Compiler {
    main: FileId,
    timings: Vec<(String, f64)>,
}

type Made<T> = Result<T, Vec<Diagnostic>>;

impl Compiler {
    fn program(mut self, e: Elaborated, options: &CompileOptions) -> Made<Program> {
        let mut m = e.module;
        let recipe = self.recipe(&e.recipe, options.micro_sequences)?;
        if !options.allow_leaks {
            self.timed("causality", |s| {
                s.causality(&m, &e.train_model)?;
                // A file may build another model for another T.
                match &e.validate_model {
                    Some(meta) if meta.func != e.train_model.func => s.causality(&m, meta),
                    _ => Ok(()),
                }
            })?;
        }
        // Names of host scalars first, so that a formula which the log shows is shared by kernels.
        let mut logged = Vec::new();
        for (name, expr) in &e.recipe.logged {
            let id = scalar_id(&mut m, expr);
            if m.scalars[id].name.is_empty() {
                m.scalars[id].name = name.clone();
            }
            logged.push((name.clone(), id));
        }
        let total = recipe.sequences();
        let objective = self.timed("batch", |s| s.objective(&mut m, &e.train_model, recipe.micro_sequences, total))?;
        let evaluation = match (&e.validate_model, &recipe.validate) {
            (Some(meta), Some(v)) => Some(self.objective(&mut m, meta, v.micro_sequences, v.micro_sequences)?),
            _ => None,
        };
        self.pass(&mut m, passes::CASTS, Stage::Elaborated)?;
        self.timed("autodiff", |s| s.micro_step(&mut m, &objective, &e.train_model))?;
        if let Some(func) = evaluation {
            let meta = e.validate_model.as_ref().unwrap_or(&e.train_model);
            self.evaluate(&mut m, func, meta);
        }
        self.decode(&mut m, &e.train_model);
        self.update(&mut m, e.update);
        self.init(&mut m, e.init, &e.drawn);
        // Again, for what `train` itself multiplies.
        let stage = self.pass(&mut m, passes::CASTS, Stage::Elaborated)?;
        let stage = self.pass(&mut m, passes::CLEANUP, stage)?;
        self.pass(&mut m, passes::HOIST, stage)?;
        let vocab = vocabulary(&m);
        let timings = self.timings;
        let recipe = Recipe { vocab, logged, ..recipe };
        Ok(Program { module: m, recipe, timings })
    }

    fn timed<T>(&mut self, name: &str, f: impl FnOnce(&mut Self) -> Made<T>) -> Made<T> {
        let start = Instant::now();
        let result = f(self);
        self.timings.push((name.to_string(), start.elapsed().as_secs_f64()));
        result
    }

    fn pass(&mut self, m: &mut Module, list: &[passes::Pass], stage: Stage) -> Made<Stage> {
        passes::run(m, list, stage, &mut self.timings).map_err(|e: PassError| vec![internal(self.main, e.to_string())])
    }

    fn recipe(&self, r: &elaborate::Recipes, micro: Option<usize>) -> Made<Recipe> {
        let sequences = r.batch / r.sequence;
        let chosen = match micro {
            None => micro_sequences(sequences, r.sequence, None),
            Some(n) if n >= 1 && sequences.is_multiple_of(n) => n,
            Some(n) => {
                let message = format!("{n} sequences a micro-step do not divide the batch of {sequences} sequences");
                let span = Span::new(self.main, 0, 0);
                return Err(vec![Diagnostic::error("divisibility", span, message, "this recipe")]);
            }
        };
        let validate = r.validate.as_ref().map(|(data, tokens, every, sequence)| Validation {
            data: data.clone(),
            tokens: *tokens,
            every: *every,
            sequence: *sequence,
            micro_sequences: micro_sequences(tokens / sequence, *sequence, micro),
        });
        Ok(Recipe {
            model: r.model.clone(),
            steps: r.steps,
            batch: r.batch,
            sequence: r.sequence,
            micro_sequences: chosen,
            data: r.data.clone(),
            validate,
            vocab: None,
            logged: Vec::new(),
        })
    }

    /// Logits at a token depend on no later token: those that the model returns, and those that its loss learns from.
    fn causality(&self, m: &Module, meta: &Meta) -> Made<()> {
        let place = |i: usize| meta.sources.iter().position(|s| *s == Source::Arg(i));
        let (tokens, targets) = (place(0), place(1));
        let names = &m.funcs[meta.func].result_names;
        if let Some(logits) = names.iter().position(|n| n == "logits") {
            // Position t of the targets holds token t + 1.
            for (param, ahead) in [(tokens, 0), (targets, 1)] {
                let Some(param) = param else { continue };
                causality::check_ahead(m, meta.func, param, logits, ahead)
                    .map_err(|leak| vec![self.leak("logits", leak, ahead == 1)])?;
            }
        }
        let loss = names.iter().position(|n| n == "loss");
        if let (Some(targets), Some(loss)) = (targets, loss) {
            causality::check_losses(m, meta.func, tokens, targets, loss).map_err(|found| {
                let d = self.leak("the logits of this loss", found.leak, found.of_targets);
                vec![match found.loss {
                    Some(span) if span != d.labels[0].0 => d.label(span, "this loss"),
                    _ => d,
                }]
            })?;
        }
        Ok(())
    }

    fn leak(&self, what: &str, leak: causality::Leak, of_targets: bool) -> Diagnostic {
        let span = leak.loc.unwrap_or(Span::new(self.main, 0, 0));
        if of_targets {
            let message = format!("{what} depend on `targets`, which they should predict");
            return Diagnostic::error("causality", span, message, "this is made from targets")
                .help("logits are made from `tokens`; `targets` belong to the loss");
        }
        let message = format!("{what} at a token depend on later tokens, which they should predict");
        Diagnostic::error("causality", span, message, format!("this {}", leak.reason))
            .help("look back only: causal attention, `cumsum`, `shift(x, n)` with n ≥ 0, norms over features")
    }

    /// The model over several sequences: one result `loss`, the sum of their losses divided by `total`.
    fn objective(&self, m: &mut Module, meta: &Meta, sequences: usize, total: usize) -> Made<Func> {
        let seq = m.dims.intern("seq", sequences, DimRole::Sequence);
        let mask: Vec<bool> = meta.sources.iter().map(|s| matches!(s, Source::Arg(_))).collect();
        let (batched, results) = batch::batch(m, meta.func, seq, &mask).map_err(|e| {
            let span = e.loc.unwrap_or(Span::new(self.main, 0, 0));
            vec![Diagnostic::error("batch", span, e.message, "here")]
        })?;
        if results.first() != Some(&true) {
            let span = Span::new(self.main, 0, 0);
            let d = Diagnostic::error("no-loss", span, "the loss does not depend on the tokens", "this model");
            return Err(vec![d]);
        }
        let mut g = m.funcs[batched].clone();
        let losses = g.results[0];
        g.results.clear();
        g.result_names.clear();
        let mut b = Builder::new(m, &mut g, None);
        let sum = b.reduce(ReduceKind::Sum, losses, &[0], DType::F32);
        let n = b.constant(total as f64, DType::F32);
        let loss = b.binary(BinaryOp::Div, sum, n, DType::F32);
        g.result("loss", loss);
        Ok(m.funcs.push(g))
    }

    /// Forward and backward, added to the gradient slots.
    fn micro_step(&self, m: &mut Module, objective: &Func, meta: &Meta) -> Made<()> {
        let slots: Vec<(usize, Slot)> = slots_of(meta);
        let wrt: Vec<usize> = slots.iter().map(|(i, _)| *i).collect();
        let func = autodiff::value_and_grad(m, *objective, &wrt, 0).map_err(|e| match e {
            AutodiffError::Unsupported { loc: Some(span), .. } => {
                let help = "parameters cannot be trained through it: cut it out of the loss";
                vec![Diagnostic::error("no-gradient", span, e.to_string(), "needed here").help(help)]
            }
            other => vec![internal(self.main, other.to_string())],
        })?;
        let mut g = m.funcs[func].clone();
        g.name = "micro_step".into();
        let mut inputs = bind(m, meta);
        let mut outputs = vec![Output::Host("loss".into())];
        let gradients: Vec<Value> = g.results[1..].to_vec();
        g.results.truncate(1);
        g.result_names = vec!["loss".into()];
        for ((_, slot), gradient) in slots.into_iter().zip(gradients) {
            let of = |(_, s): &(Slot, &ir::SlotData)| s.role == SlotRole::Gradient(slot);
            let Some(target) = m.slots.iter().find(of).map(|(id, _)| id) else { continue };
            let (name, ty) = (m.slots[target].name.clone(), m.slots[target].ty.clone());
            let before = g.param(name.clone(), ty);
            let after = Builder::new(m, &mut g, None).binary(BinaryOp::Add, before, gradient, DType::F32);
            inputs.push(Input::Slot(target));
            outputs.push(Output::Slot(target));
            g.result(name, after);
        }
        self.enter(m, EntryKind::MicroStep, g, inputs, outputs);
        Ok(())
    }

    fn evaluate(&self, m: &mut Module, func: Func, meta: &Meta) {
        let mut g = m.funcs[func].clone();
        g.name = "evaluate".into();
        let inputs = bind(m, meta);
        self.enter(m, EntryKind::Evaluate, g, inputs, vec![Output::Host("loss".into())]);
    }

    /// Logits of one sequence.
    fn decode(&self, m: &mut Module, meta: &Meta) {
        let model = &m.funcs[meta.func];
        let Some(logits) = model.result_names.iter().position(|n| n == "logits") else { return };
        let names = model.param_names.clone();
        let types: Vec<Type> = model.params.iter().map(|&p| model.ty(p).clone()).collect();
        let mut g = Graph::new("decode");
        let mut args = Vec::new();
        let mut inputs = Vec::new();
        for (((source, name), ty), input) in meta.sources.iter().zip(names).zip(types).zip(bind(m, meta)) {
            // Targets do not exist yet: the loss that would need them is not a result.
            if matches!(source, Source::Arg(i) if *i != 0) {
                args.push(Builder::new(m, &mut g, None).full(0.0, ty));
            } else {
                args.push(g.param(name, ty));
                inputs.push(input);
            }
        }
        let results = m.call(&mut g, meta.func, CallKind::Block, args, None);
        g.result("logits", results[logits]);
        self.enter(m, EntryKind::Decode, g, inputs, vec![Output::Host("logits".into())]);
    }

    fn update(&self, m: &mut Module, update: Optimize) {
        let inputs = bind_sources(m, &update.sources);
        let mut g = update.graph;
        g.name = "update".into();
        self.enter(m, EntryKind::Update, g, inputs, update.outputs);
    }

    fn init(&self, m: &mut Module, mut g: Graph, drawn: &[(Slot, Value)]) {
        let mut outputs = Vec::new();
        for &(slot, value) in drawn {
            g.result(m.slots[slot].name.clone(), value);
            outputs.push(Output::Slot(slot));
        }
        self.enter(m, EntryKind::Init, g, Vec::new(), outputs);
    }

    fn enter(&self, m: &mut Module, kind: EntryKind, g: Graph, inputs: Vec<Input>, outputs: Vec<Output>) {
        let func = m.funcs.push(g);
        let key = EntryKey::from(kind);
        m.entries.insert(key, Entry { key, func, inputs, outputs });
    }
}

/// The parameters of a model function that are slots.
fn slots_of(meta: &Meta) -> Vec<(usize, Slot)> {
    let slot = |(i, s): (usize, &Source)| if let Source::Slot(slot) = s { Some((i, *slot)) } else { None };
    meta.sources.iter().enumerate().filter_map(slot).collect()
}

fn bind(m: &mut Module, meta: &Meta) -> Vec<Input> {
    bind_sources(m, &meta.sources)
}

fn bind_sources(m: &mut Module, sources: &[Source]) -> Vec<Input> {
    let input = |s: &Source| match s {
        Source::Slot(slot) => Input::Slot(*slot),
        Source::Arg(i) | Source::Own(i) => Input::Batch(elaborate::INPUTS[*i].to_string()),
        Source::Scalar(expr) => Input::Scalar(scalar_id(m, expr)),
    };
    sources.iter().map(input).collect()
}

/// The largest divisor of the sequences that keeps a micro-step within its tokens, and within a number of sequences.
fn micro_sequences(sequences: usize, sequence: usize, limit: Option<usize>) -> usize {
    let most = (MICRO_TOKENS / sequence).min(limit.unwrap_or(usize::MAX)).max(1).min(sequences);
    (1..=most).rev().find(|n| sequences.is_multiple_of(*n)).unwrap_or(1)
}

/// How many different tokens a step can take: rows of the smallest table that tokens look up, and classes of the smallest
/// logits that targets are compared with.
fn vocabulary(m: &Module) -> Option<usize> {
    let entry = m.entries.get(&EntryKey::from(EntryKind::MicroStep))?;
    let g = &m.funcs[entry.func];
    let mut bounds = Bounds { m, known: HashMap::new() };
    let input = |name: &str| entry.inputs.iter().position(|i| *i == Input::Batch(name.into()));
    let of_inputs: Vec<usize> = ["tokens", "targets"].into_iter().filter_map(input).collect();
    of_inputs.into_iter().filter_map(|i| bounds.of(g, g.params[i])).min()
}

/// Bounds of values that count rows or classes.
struct Bounds<'a> {
    m: &'a Module,
    /// By parameter of a function.
    known: HashMap<(Func, usize), Option<usize>>,
}

impl Bounds<'_> {
    /// The least number that an index must stay below, wherever it goes; none where it indexes nothing.
    fn of(&mut self, g: &Graph, index: Value) -> Option<usize> {
        let m = self.m;
        let size = |v: Value, axis: usize| Some(m.dims.size(g.ty(v).dims[axis]));
        let mut least: Option<usize> = None;
        for data in g.nodes.values() {
            for (i, _) in data.args.iter().enumerate().filter(|(_, a)| **a == index) {
                let bound = match data.op {
                    ir::Op::Gather if i == 1 => size(data.args[0], 0),
                    ir::Op::CrossEntropy | ir::Op::CrossEntropyGrad if i == 1 => {
                        size(data.args[0], g.ty(data.args[0]).rank() - 1)
                    }
                    // Zeros that are shifted in are tokens too.
                    ir::Op::Shift { .. } | ir::Op::Reverse { .. } | ir::Op::Reshape | ir::Op::Transpose { .. } => {
                        self.of(g, data.results[0])
                    }
                    ir::Op::Call { func, .. } => self.of_param(func, i),
                    _ => None,
                };
                least = least.into_iter().chain(bound).min();
            }
        }
        least
    }

    fn of_param(&mut self, func: Func, i: usize) -> Option<usize> {
        if let Some(known) = self.known.get(&(func, i)) {
            return *known;
        }
        let g = &self.m.funcs[func];
        let bound = self.of(g, g.params[i]);
        self.known.insert((func, i), bound);
        bound
    }
}
