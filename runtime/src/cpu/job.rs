//! What a launch runs: its kernel, checked against its operands and results and made ready.

use mngc_compiler::ir::{Distribution, Op};
use mngc_compiler::schedule::kernel::Kernel;
use mngc_compiler::schedule::single;

use super::attention::Attention;
use super::check::ensure;
use super::context::{Context, Need, part, tasks};
use super::dot::Dot;
use super::index::{self, Reduce, ScatterAdd};
use super::layout::Layout;
use super::loss::{self, Loss};
use super::memory::Region;
use super::rows::Rows;

/// A kernel made ready to run.
#[derive(Debug)]
pub enum Job {
    /// All results are empty.
    Nothing,
    /// Bytes as they are.
    Copy,
    /// A row program.
    Rows(Rows),
    /// A matrix product.
    Dot(Box<Dot>),
    /// Head and cross-entropy.
    Loss(Box<Loss>),
    /// Attention.
    Attention(Attention),
    /// Its gradient.
    AttentionGrad(Attention),
    /// An op that moves elements.
    Layout(Layout),
    /// Rows of a table: how many, and their length.
    Gather(usize, usize),
    /// Sums of rows.
    ScatterAdd(ScatterAdd),
    /// Running sums: positions, elements behind each, and whether from the end.
    Cumsum(usize, usize, bool),
    /// A fold.
    Reduce(Reduce),
    /// Random numbers.
    Random(Distribution, String),
    /// Cross-entropy over rows of that length, or its gradient.
    CrossEntropy(usize, bool),
}

/// Operands and results of a launch, with their sizes.
pub struct Bound<'a> {
    /// Operands.
    pub args: &'a [Region],
    /// Results.
    pub results: &'a [Region],
    /// Sizes of the operands' axes.
    pub arg_sizes: &'a [Vec<usize>],
    /// Sizes of the results' axes.
    pub result_sizes: &'a [Vec<usize>],
}

impl Job {
    /// Checks a kernel, or says why it cannot run.
    pub fn new(kernel: &Kernel, b: &Bound) -> Result<Job, String> {
        Ok(match kernel {
            Kernel::Rows(program) => Job::Rows(Rows::new(program, b.args, b.results)?),
            Kernel::Dot(dot) => Job::Dot(Box::new(Dot::new(dot, b.args, b.results)?)),
            Kernel::Loss(loss) => Job::Loss(Box::new(Loss::new(loss, b.args, b.results)?)),
            Kernel::Op(op) => Job::op(op, b)?,
            Kernel::Copy => {
                let ([from], [to]) = (b.args, b.results) else { return Err("one operand and one result".into()) };
                ensure(from.dtype() == to.dtype() && from.len() == to.len(), || "a copy is of one type".into())?;
                Job::Copy
            }
        })
    }

    fn op(op: &Op, b: &Bound) -> Result<Job, String> {
        let Some(out) = b.result_sizes.first() else { return Err("no result".into()) };
        if b.results.iter().all(Region::is_empty) {
            return Ok(Job::Nothing);
        }
        let sizes = |i: usize| b.arg_sizes.get(i).map(Vec::as_slice).ok_or_else(|| format!("no operand {i}"));
        let behind = |sizes: &[usize], axis: u8| sizes[axis as usize + 1..].iter().product::<usize>();
        Ok(match op {
            Op::Const(_) | Op::Iota { .. } | Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select | Op::Cast => {
                Job::program(op, b)?
            }
            Op::Softmax | Op::SoftmaxGrad | Op::RmsNorm { .. } | Op::RmsNormGrad { .. } => Job::program(op, b)?,
            Op::LayerNorm { .. } | Op::LayerNormGrad { .. } | Op::Rope { .. } => Job::program(op, b)?,
            Op::Broadcast { .. } | Op::Reshape | Op::Transpose { .. } | Op::Slice { .. } | Op::Pad { .. } => {
                Job::layout(op, b)?
            }
            Op::Concat { .. } | Op::Shift { .. } | Op::Reverse { .. } => Job::layout(op, b)?,
            Op::Random { distribution, name } => Job::Random(*distribution, name.clone()),
            Op::Reduce { kind, axes } => Job::Reduce(Reduce::new(*kind, sizes(0)?, axes)),
            Op::Cumsum { axis, reverse } => Job::Cumsum(out[*axis as usize], behind(out, *axis), *reverse),
            Op::Gather => {
                let table = sizes(0)?;
                sizes(1)?;
                Job::Gather(table[0], table[1..].iter().product())
            }
            Op::ScatterAdd => {
                sizes(1)?;
                Job::ScatterAdd(ScatterAdd::new(out[0], out[1..].iter().product(), b.args[0].len()))
            }
            Op::Attention { mask, scale } => {
                let shapes = [sizes(0)?, sizes(1)?];
                Job::Attention(Attention::new(*mask, scale.0, shapes, b.args, b.results, false)?)
            }
            Op::AttentionGrad { mask, scale } => {
                let shapes = [sizes(0)?, sizes(1)?];
                Job::AttentionGrad(Attention::new(*mask, scale.0, shapes, b.args, b.results, true)?)
            }
            Op::CrossEntropy | Op::CrossEntropyGrad => {
                let n = *sizes(0)?.last().ok_or("logits have an axis")?;
                let wants_gradient = *op == Op::CrossEntropyGrad;
                sizes(1 + usize::from(wants_gradient))?;
                Job::CrossEntropy(n, wants_gradient)
            }
            Op::Dot { .. } => return Err("a product that was not scheduled as one".into()),
            Op::Call { .. } => return Err("a call that was not scheduled".into()),
        })
    }

    fn program(op: &Op, b: &Bound) -> Result<Job, String> {
        let args: Vec<_> = b.args.iter().map(|arg| (arg.dtype(), arg.len())).collect();
        let program = single::program(op, &args, b.results[0].dtype(), &b.result_sizes[0]);
        let program = program.ok_or_else(|| format!("{} is not a row program", op.name()))?;
        Ok(Job::Rows(Rows::new(&program, b.args, b.results)?))
    }

    fn layout(op: &Op, b: &Bound) -> Result<Job, String> {
        ensure(b.args.iter().all(|arg| arg.dtype() == b.results[0].dtype()), || {
            "elements are moved as they are".into()
        })?;
        Ok(Job::Layout(Layout::new(op, b.arg_sizes, &b.result_sizes[0]).ok_or("not a move of elements")?))
    }

    /// Memory that it needs beside operands and results.
    pub fn need(&self) -> Need {
        match self {
            Job::Rows(rows) => rows.need(),
            Job::Dot(dot) => dot.need(),
            Job::Loss(loss) => loss.need(),
            Job::Attention(attention) | Job::AttentionGrad(attention) => attention.need(),
            Job::ScatterAdd(scatter) => scatter.need(),
            Job::CrossEntropy(n, _) => Need { shared: 0, scratch: 2 * n * 4 },
            Job::Nothing | Job::Copy | Job::Layout(_) | Job::Gather(..) | Job::Cumsum(..) => Need::default(),
            Job::Reduce(_) | Job::Random(..) => Need::default(),
        }
    }

    /// Runs it.
    pub fn run(&self, ctx: &Context, args: &[Region], results: &[Region]) {
        match self {
            Job::Nothing => {}
            Job::Copy => copy(ctx, &args[0], &results[0]),
            Job::Rows(rows) => rows.run(ctx, args, results),
            Job::Dot(dot) => dot.run(ctx, args, results),
            Job::Loss(loss) => loss.run(ctx, args, results),
            Job::Attention(attention) => attention.forward(ctx, args, results),
            Job::AttentionGrad(attention) => attention.backward(ctx, args, results),
            Job::Layout(layout) => layout.run(ctx, args, &results[0]),
            Job::Gather(rows, row) => index::gather(ctx, args, &results[0], *rows, *row),
            Job::ScatterAdd(scatter) => scatter.run(ctx, args, &results[0]),
            Job::Cumsum(n, inner, reverse) => index::cumsum(ctx, &args[0], &results[0], *n, *inner, *reverse),
            Job::Reduce(reduce) => reduce.run(ctx, &args[0], &results[0]),
            Job::Random(distribution, name) => index::random(ctx, *distribution, name, &results[0]),
            Job::CrossEntropy(n, wants_gradient) => {
                loss::cross_entropy(ctx, args, &results[0], *n, *wants_gradient);
            }
        }
    }
}

fn copy(ctx: &Context, from: &Region, to: &Region) {
    let tasks = tasks(to.len());
    ctx.each(tasks, |task| {
        let range = part(to.len(), tasks, task);
        // SAFETY: a copy does not work in place, and each task writes a part of its own.
        unsafe { to.part(range.clone()).bytes_mut().copy_from_slice(from.part(range).bytes()) };
    });
}
