//! A schedule with its memory: launches in order, and where every tensor lies.

use cranelift_entity::{PrimaryMap, entity_impl};
use mngc_dsl::Span;
use std::collections::BTreeMap;

use super::kernel::Kernel;
use crate::ir::{EntryKey, Scalar, Slot, Type};

/// A range of memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Buffer(u32);
entity_impl!(Buffer, "b");

/// Where a buffer lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the arena, bytes from its start; a multiple of [`ALIGNMENT`].
    Arena(usize),
    /// A slot's own memory.
    Slot(Slot),
    /// What the host hands over under that name before the entry runs.
    Batch(String),
    /// A host scalar, an f32.
    Scalar(Scalar),
}

/// Buffers of the arena begin at multiples of so many bytes: a line of every cache, and what vector and asynchronous
/// copies of devices ask for.
pub const ALIGNMENT: usize = 256;

/// A buffer of one entry.
#[derive(Clone, Debug, PartialEq)]
pub struct BufferData {
    /// Its size.
    pub bytes: usize,
    /// Where it lies.
    pub place: Place,
    /// The first launch that needs it (0 for what is there before), by position.
    pub first: usize,
    /// The last launch that needs it; the number of launches for what outlives them.
    pub last: usize,
}

/// A tensor, row-major, in a buffer.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// The tensor that is expected there, numbered within the entry: what the verifier follows.
    pub value: u32,
    /// Where.
    pub buffer: Buffer,
    /// Bytes from the buffer's start.
    pub offset: usize,
    /// What.
    pub ty: Type,
}

/// An operand of a launch.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// A tensor.
    View(View),
    /// A number of rank 0, to be rounded to its dtype.
    Const(f64, crate::ir::DType),
}

/// One kernel with its operands and results.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// For people: what it does, such as `dot+square`.
    pub name: String,
    /// What runs.
    pub kernel: Kernel,
    /// Operands.
    pub args: Vec<Operand>,
    /// Results. One may lie where an operand lies, where [`super::verify`] says that its kernel allows it.
    pub results: Vec<View>,
    /// How often the kernel runs, on other tensors each time: operands and results are those of the first instance, then
    /// those of the second, and so on. Instances are alike in all but where their tensors lie, and none needs what another
    /// makes: they may run in any order, or at once.
    pub instances: usize,
    /// The place in the model file that it comes from.
    pub loc: Option<Span>,
    /// The ops that it computes, with the place of each, in order; alike ones once, those that are free not at all.
    pub parts: Vec<Part>,
}

/// An op of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its name.
    pub op: &'static str,
    /// The place in the model file that it comes from.
    pub loc: Option<Span>,
}

impl Launch {
    /// Operands of each instance, with its results.
    pub fn each(&self) -> impl Iterator<Item = (&[Operand], &[View])> {
        let part = |len: usize, i: usize| len / self.instances * i..len / self.instances * (i + 1);
        (0..self.instances)
            .map(move |i| (&self.args[part(self.args.len(), i)], &self.results[part(self.results.len(), i)]))
    }
}

/// What one entry runs.
#[derive(Clone, Debug, PartialEq)]
pub struct EntryPlan {
    /// Which.
    pub key: EntryKey,
    /// Memory.
    pub buffers: PrimaryMap<Buffer, BufferData>,
    /// Kernels in order.
    pub launches: Vec<Launch>,
    /// What the host gets when all have run, by name.
    pub outputs: Vec<(String, View)>,
    /// The tensor that each slot which the entry writes holds then.
    pub slots: Vec<(Slot, u32)>,
    /// Bytes of the arena that it uses.
    pub arena: usize,
}

/// The schedule of a module: what a backend executes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// One for each entry.
    pub entries: BTreeMap<EntryKey, EntryPlan>,
    /// Bytes of the arena that all entries share: of the largest.
    pub arena: usize,
    /// Bytes of all slots.
    pub slots: usize,
}
