//! Why launches stand apart: for each tensor that one launch makes and others read, what keeps them from being one kernel.
//!
//! The reasons are read from the finished plan. Passes decide on graphs, before launches are there, so where none of the
//! rules here holds that is said ([`Why::Unknown`]) instead of guessed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use super::kernel::Kernel;
use super::plan::{EntryPlan, Launch, Operand, Part, View};
use super::rows::{Access, Instr, RowProgram};
use crate::ir::{Module, Op};
use crate::passes::fuse::{LONGEST_TILE, MOST_NODES, MOST_TENSORS};

/// Two launches that stand apart although the second reads what the first makes.
#[derive(Clone, Debug, PartialEq)]
pub struct Apart {
    /// The launch that makes a tensor, by position.
    pub producer: usize,
    /// Which of the results of one instance the tensor is.
    pub result: usize,
    /// The launch that reads it: the first of them.
    pub consumer: usize,
    /// What keeps them apart.
    pub why: Why,
}

/// What keeps two launches from being one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Several launches read the tensor, so it has to be in memory: their names.
    Several(Vec<String>),
    /// One of the two is always a kernel of its own: its name.
    Own(&'static str),
    /// A product reads its operands from memory.
    ProductOperand,
    /// The epilogue of a product reads the tensor, and would have to read so many in its place.
    EpilogueOperand(usize),
    /// A product is an operand of another.
    TwoProducts,
    /// The epilogue of a product reads what another product has become.
    OtherProduct,
    /// The epilogue of a product reads what ops along rows have made.
    RowsBeside,
    /// The ops go along rows of so many elements, and a tile of a product holds parts of rows.
    RowsOfProduct(usize),
    /// The second sums up what the tiles of a product are parts of.
    SumOfProduct,
    /// The first is a sum over all that it reads, which is there only when it has ended.
    Sum,
    /// The spaces have different numbers of elements.
    Elements(usize, usize),
    /// The second reads each element for several of its own: it would be made as often.
    Repeated,
    /// A launch of that name needs the first and is needed by the second.
    Between(String),
    /// One kernel would have more operands and results than are allowed: the number, and the limit.
    Tensors(usize, usize),
    /// One kernel would have more instructions than are allowed: the number, and the limit.
    Instructions(usize, usize),
    /// All rows of one kernel would not fit a tile: the elements of the tile, and the limit.
    Tile(usize, usize),
    /// No rule of this list.
    Unknown,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Several(names) => write!(f, "it is read {} times: by {}", names.len(), counted(names)),
            Why::Own(name) => write!(f, "{name} is a kernel of its own"),
            Why::ProductOperand => {
                f.write_str("a product reads operands from memory; only numbers that scale them go into it")
            }
            Why::EpilogueOperand(n) => {
                write!(f, "it is read beside a product, whose kernel would have to read {n} tensors in its place")
            }
            Why::TwoProducts => f.write_str("a second product needs whole rows of the first"),
            Why::OtherProduct => f.write_str("both are products, and a kernel has one"),
            Why::RowsBeside => f.write_str(
                "it is read beside a product, of whose rows a tile holds parts; its maker goes along whole rows",
            ),
            Why::RowsOfProduct(len) => {
                write!(f, "it goes along rows of {len}, of which a tile of a product holds parts")
            }
            Why::SumOfProduct => f.write_str("it sums over what different tiles of the product hold"),
            Why::Sum => f.write_str("a sum over everything is there only when the kernel has ended"),
            Why::Elements(made, read) => write!(f, "the one works on {made} elements, the other on {read}"),
            Why::Repeated => f.write_str("each element is read for several, and would be made as often"),
            Why::Between(name) => write!(f, "{name} stands between: it needs the first, and the second needs it"),
            Why::Tensors(n, most) => {
                write!(f, "together they have {n} operands and results, {most} at most go into one")
            }
            Why::Instructions(n, most) => write!(f, "together they have {n} instructions, {most} at most go into one"),
            Why::Tile(n, most) => write!(f, "whole rows of both take a tile of {n} elements, {most} is the most"),
            Why::Unknown => f.write_str("the plan shows no reason"),
        }
    }
}

/// Names with how often each is there.
fn counted(names: &[String]) -> String {
    const SHOWN: usize = 4;
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for name in names {
        *counts.entry(name).or_default() += 1;
    }
    let more = counts.len().saturating_sub(SHOWN);
    let show = |(name, n): (&str, usize)| if n == 1 { name.to_string() } else { format!("{n} × {name}") };
    let mut out: Vec<String> = counts.into_iter().take(SHOWN).map(show).collect();
    if more > 0 {
        out.push(format!("{more} more"));
    }
    out.join(", ")
}

const CONCAT: &str = "concat";

/// One instance of a launch.
struct Instance<'a> {
    at: usize,
    launch: &'a Launch,
    args: &'a [Operand],
    results: &'a [View],
}

/// All pairs of an entry, by producer; equal ones once.
pub fn apart(m: &Module, plan: &EntryPlan) -> Vec<Apart> {
    let mut all: Vec<Instance> = Vec::new();
    for (at, launch) in plan.launches.iter().enumerate() {
        all.extend(launch.each().map(|(args, results)| Instance { at, launch, args, results }));
    }
    let mut readers: HashMap<u32, Vec<usize>> = HashMap::new();
    for (i, instance) in all.iter().enumerate() {
        for view in views(instance.args) {
            let readers = readers.entry(view.value).or_default();
            if readers.last() != Some(&i) {
                readers.push(i);
            }
        }
    }
    let of = |value: u32| readers.get(&value).map_or(&[][..], Vec::as_slice);
    let mut found: Vec<Apart> = Vec::new();
    for (i, producer) in all.iter().enumerate() {
        for (result, view) in producer.results.iter().enumerate() {
            let (consumer, why) = match of(view.value) {
                [] => continue,
                &[only] => {
                    let why = pair(m, producer, result, &all[only], view.value);
                    (only, why.or_else(|| between(&all, of, i, only)).unwrap_or(Why::Unknown))
                }
                several => {
                    let mut names: Vec<String> = several.iter().map(|&j| all[j].launch.name.clone()).collect();
                    names.sort();
                    (several[0], Why::Several(names))
                }
            };
            let apart = Apart { producer: producer.at, result, consumer: all[consumer].at, why };
            if !found.contains(&apart) {
                found.push(apart);
            }
        }
    }
    found
}

fn views(args: &[Operand]) -> impl Iterator<Item = &View> {
    args.iter().filter_map(|arg| match arg {
        Operand::View(view) => Some(view),
        Operand::Const(..) => None,
    })
}

/// What the two kernels alone say.
fn pair(m: &Module, producer: &Instance, result: usize, consumer: &Instance, value: u32) -> Option<Why> {
    let is_it = |arg: &Operand| matches!(arg, Operand::View(view) if view.value == value);
    let operand = consumer.args.iter().position(is_it)?;
    let own = |launch: &Launch| match &launch.kernel {
        // Numbers behind one another, which the passes take for no row op.
        Kernel::Rows(_) if matches!(launch.parts[..], [Part { op: CONCAT, .. }]) => Some(Why::Own(CONCAT)),
        Kernel::Loss(_) => Some(Why::Own("the head with its loss")),
        Kernel::Copy => Some(Why::Own("a copy")),
        Kernel::Op(Op::Attention { .. }) => Some(Why::Own("attention")),
        Kernel::Op(Op::AttentionGrad { .. }) => Some(Why::Own("the gradient of attention")),
        Kernel::Op(op) => Some(Why::Own(op.name())),
        Kernel::Rows(_) | Kernel::Dot(_) => None,
    };
    if let Some(why) = own(consumer.launch).or_else(|| own(producer.launch)) {
        return Some(why);
    }
    match (&producer.launch.kernel, &consumer.launch.kernel) {
        (Kernel::Dot(_), Kernel::Dot(_)) if operand < 2 => Some(Why::TwoProducts),
        (Kernel::Rows(_), Kernel::Dot(_)) if operand < 2 => Some(Why::ProductOperand),
        (Kernel::Dot(_), Kernel::Dot(_)) => Some(Why::OtherProduct),
        (Kernel::Rows(program), Kernel::Dot(_)) if !program.is_elementwise() => Some(Why::RowsBeside),
        (Kernel::Rows(_), Kernel::Dot(_)) => {
            let read = values(views(producer.args)).len();
            (read > 1).then_some(Why::EpilogueOperand(read))
        }
        (Kernel::Dot(_), Kernel::Rows(program)) => {
            let made = m.dims.elements(&producer.results[result].ty.dims);
            after_product(program, made)
        }
        (Kernel::Rows(first), Kernel::Rows(second)) => {
            let read = values(views(consumer.args));
            let given = producer.results.iter().enumerate().filter(|(_, view)| read.contains(&view.value));
            // Whichever of its results it is that has to wait.
            match given.into_iter().any(|(result, _)| is_sum(first, result)) {
                true => Some(Why::Sum),
                false => rows((producer, first, result), (consumer, second, operand)),
            }
        }
        _ => None,
    }
}

fn after_product(program: &RowProgram, made: usize) -> Option<Why> {
    if made != program.elements {
        return Some(Why::Elements(made, program.elements));
    }
    if program.tile > 1 {
        return Some(Why::RowsOfProduct(program.tile));
    }
    (!program.is_elementwise()).then_some(Why::SumOfProduct)
}

fn rows(first: (&Instance, &RowProgram, usize), second: (&Instance, &RowProgram, usize)) -> Option<Why> {
    let ((producer, made, result), (consumer, read, operand)) = (first, second);
    if made.elements != read.elements {
        return Some(Why::Elements(made.elements, read.elements));
    }
    let is_repeated = read.instrs.iter().any(|instr| match instr {
        Instr::Load { operand: from, access, .. } => *from == operand && *access != Access::Full,
        _ => false,
    });
    let is_full = made.instrs.iter().any(|instr| match instr {
        Instr::Store { result: to, access, .. } => *to == result && *access == Access::Full,
        _ => false,
    });
    if is_repeated && is_full {
        return Some(Why::Repeated);
    }
    let tile = made.tile / gcd(made.tile, read.tile) * read.tile;
    if tile > LONGEST_TILE {
        return Some(Why::Tile(tile, LONGEST_TILE));
    }
    let inside = values(producer.results.iter());
    let mut tensors = values(views(producer.args).chain(views(consumer.args)).chain(consumer.results));
    tensors.retain(|value| !inside.contains(value));
    // The tensor itself need not be written any more.
    let count = tensors.len() + inside.len() - 1;
    if count > MOST_TENSORS {
        return Some(Why::Tensors(count, MOST_TENSORS));
    }
    let computing = |program: &RowProgram| {
        let moves = |i: &&Instr| matches!(i, Instr::Load { .. } | Instr::Store { .. } | Instr::Iota { .. });
        program.instrs.iter().filter(|i| !moves(i)).count()
    };
    let instructions = computing(made) + computing(read);
    (instructions > MOST_NODES).then_some(Why::Instructions(instructions, MOST_NODES))
}

/// Whether a result is a sum over rows or over everything.
fn is_sum(program: &RowProgram, result: usize) -> bool {
    program.instrs.iter().any(|instr| match instr {
        Instr::Total { result: to, .. } | Instr::Columns { result: to, .. } => *to == result,
        _ => false,
    })
}

fn values<'a>(views: impl Iterator<Item = &'a View>) -> BTreeSet<u32> {
    views.map(|view| view.value).collect()
}

fn gcd(mut a: usize, mut b: usize) -> usize {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a.max(1)
}

/// A launch on a longer way from the first to the second: as one kernel they would have to wait for themselves.
fn between<'a>(all: &[Instance], readers: impl Fn(u32) -> &'a [usize], first: usize, second: usize) -> Option<Why> {
    let next = |i: usize| {
        let values = all[i].results.iter().map(|view| view.value);
        values.flat_map(|value| readers(value).iter().copied()).collect::<Vec<usize>>()
    };
    let leads = |from: usize| {
        let (mut seen, mut work) = (BTreeSet::from([from]), vec![from]);
        while let Some(i) = work.pop() {
            if i == second {
                return true;
            }
            // Launches stand in order: what is behind the second does not lead to it.
            work.extend(next(i).into_iter().filter(|&j| j <= second && seen.insert(j)));
        }
        false
    };
    let found = next(first).into_iter().find(|&i| i != second && leads(i))?;
    Some(Why::Between(all[found].launch.name.clone()))
}
