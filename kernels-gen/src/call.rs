//! Calls of CUDA kernels: text, geometry, parameters.

use std::sync::Arc;

/// The name that a text gives its kernel before it has one of its own.
pub const NAME: &str = "KERNEL_NAME";

/// The CUDA text of one kernel, and options that it is to be compiled with.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source {
    /// The name of the `extern "C"` function: family, variant and a hash of the text.
    pub name: String,
    /// All of the text.
    pub text: String,
}

impl Source {
    /// A text that calls its kernel [`NAME`]. `family` says what it is to people: `dot_bf16_128x128`.
    pub fn new(family: &str, text: &str) -> Source {
        let hash = blake3::hash(text.as_bytes()).to_hex();
        let name = format!("{family}_{}", &hash[..8]);
        Source { text: text.replace(NAME, &name), name }
    }
}

/// An address that a kernel gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// Of the operand of that position.
    Arg(usize),
    /// Of the result of that position.
    Result(usize),
    /// That many bytes from the start of an operand.
    InArg(usize, usize),
    /// That many bytes from the start of a result.
    InResult(usize, usize),
    /// That many bytes from the start of the launch's workspace: its contents are undefined before and after the launch.
    Work(usize),
    /// That many bytes from the start of the counters: u32s that are 0 before a launch, and that its kernels leave at 0.
    Counter(usize),
}

/// A parameter of a kernel.
#[derive(Clone, Debug, PartialEq)]
pub enum Param {
    /// A struct of pointers, by value.
    Pointers(Vec<Address>),
    /// A pointer to such structs in device memory, one for each instance.
    Table(Vec<Vec<Address>>),
    /// A 32-bit number.
    U32(u32),
    /// A 32-bit number.
    I32(i32),
    /// A 32-bit number.
    F32(f32),
    /// A 64-bit number.
    U64(u64),
    /// 32-bit numbers in a struct, by value.
    U32s(Vec<u32>),
    /// 64-bit numbers in a struct, by value.
    U64s(Vec<u64>),
}

/// One launch of a CUDA kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// What runs.
    pub source: Arc<Source>,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block, in x alone.
    pub block: u32,
    /// Dynamic shared memory of a block, bytes.
    pub shared: usize,
    /// In order.
    pub params: Vec<Param>,
}

/// What a launch of a plan becomes: calls that run one after another.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Generated {
    /// In order. None where all results are empty.
    pub calls: Vec<Call>,
    /// Bytes of workspace that they share.
    pub workspace: usize,
    /// Bytes of counters that they use.
    pub counters: usize,
}

impl Address {
    /// The address that many bytes further on.
    pub fn plus(self, bytes: usize) -> Address {
        match self {
            Address::Arg(i) => Address::InArg(i, bytes),
            Address::Result(i) => Address::InResult(i, bytes),
            Address::InArg(i, at) => Address::InArg(i, at + bytes),
            Address::InResult(i, at) => Address::InResult(i, at + bytes),
            Address::Work(at) => Address::Work(at + bytes),
            Address::Counter(at) => Address::Counter(at + bytes),
        }
    }
}

impl Generated {
    /// A single call without workspace.
    pub fn one(call: Call) -> Generated {
        Generated { calls: vec![call], ..Generated::default() }
    }

    /// The same calls as parts of a larger launch: operands and results are at these addresses, and the workspace
    /// begins at `work`.
    pub fn within(mut self, args: &[Address], results: &[Address], work: usize) -> Generated {
        let place = |address: Address| match address {
            Address::Arg(i) => args.get(i).copied().unwrap_or(address),
            Address::InArg(i, at) => args.get(i).map_or(address, |arg| arg.plus(at)),
            Address::Result(i) => results.get(i).copied().unwrap_or(address),
            Address::InResult(i, at) => results.get(i).map_or(address, |result| result.plus(at)),
            Address::Work(at) => Address::Work(work + at),
            Address::Counter(at) => Address::Counter(at),
        };
        for param in self.calls.iter_mut().flat_map(|call| &mut call.params) {
            match param {
                Param::Pointers(of) => of.iter_mut().for_each(|address| *address = place(*address)),
                Param::Table(rows) => rows.iter_mut().flatten().for_each(|address| *address = place(*address)),
                _ => {}
            }
        }
        self.workspace += work;
        self
    }

    /// Adds the calls of another part, which runs after these.
    pub fn then(&mut self, next: Generated) {
        self.calls.extend(next.calls);
        self.workspace = self.workspace.max(next.workspace);
        self.counters = self.counters.max(next.counters);
    }
}
