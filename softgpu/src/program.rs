//! The decoded form of a module: what the machine runs.

use crate::exec::{Ctx, Flow, Stop};
use crate::ptx::ast::Loc;

/// Runs one operation of arithmetic on all lanes of a mask. Registers of a warp begin at the first pointer, constants
/// at the second.
pub type AluFn = unsafe fn(*mut u8, *const u8, &Op, u32);

/// Runs one operation that touches more than the registers of its own lanes.
pub type SysFn = fn(&mut Ctx<'_>, &Op, u32) -> Result<Flow, Stop>;

/// How an operation is run.
#[derive(Clone, Copy)]
pub enum Run {
    /// Arithmetic: cannot fail, goes on at the next operation.
    Alu(AluFn),
    /// Everything that touches memory, other lanes or other warps.
    Sys(SysFn),
    /// A jump to `Op::x`, reconverging at `Op::imm`.
    Branch,
    /// A jump through the table `Op::x`, by register `Op::a`, reconverging at `Op::imm`.
    BranchIndex,
    /// The end of these threads.
    Exit,
    /// Nothing (a hint that only matters to hardware).
    Nop,
}

/// An operand that is not there.
pub const NONE: i32 = i32::MIN;

/// The program counter at which nothing reconverges.
pub const NOWHERE: u32 = u32::MAX;

/// One decoded operation. Operands are byte offsets into the registers of the warp; a negative one, inverted, is an
/// offset into the constants of the kernel.
#[derive(Clone, Copy)]
pub struct Op {
    /// How it is run.
    pub run: Run,
    /// The predicate that guards it, or [`NONE`].
    pub guard: i32,
    /// All ones where the guard is negated.
    pub flip: u32,
    /// Where the result goes.
    pub d: i32,
    /// First operand.
    pub a: i32,
    /// Second operand.
    pub b: i32,
    /// Third operand.
    pub c: i32,
    /// Fourth operand, or a second result.
    pub e: i32,
    /// Index into a side table, or a target.
    pub x: u32,
    /// Start of its operands in [`Kernel::lists`].
    pub l: u32,
    /// An immediate.
    pub imm: i64,
}

impl Op {
    /// An operation with nothing but its way to run.
    pub fn new(run: Run) -> Op {
        Op { run, guard: NONE, flip: 0, d: NONE, a: NONE, b: NONE, c: NONE, e: NONE, x: 0, l: 0, imm: 0 }
    }
}

/// What an operation counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Class {
    Integer,
    Float,
    Convert,
    Move,
    Predicate,
    Global,
    Shared,
    Local,
    Param,
    Generic,
    Atomic,
    AsyncCopy,
    Tensor,
    Warp,
    Barrier,
    Control,
}

/// All classes, in the order of their discriminants.
pub const CLASSES: [Class; 16] = [
    Class::Integer,
    Class::Float,
    Class::Convert,
    Class::Move,
    Class::Predicate,
    Class::Global,
    Class::Shared,
    Class::Local,
    Class::Param,
    Class::Generic,
    Class::Atomic,
    Class::AsyncCopy,
    Class::Tensor,
    Class::Warp,
    Class::Barrier,
    Class::Control,
];

/// Where an operation comes from.
#[derive(Clone, Copy, Debug)]
pub struct Meta {
    /// PTX line.
    pub line: u32,
    /// CUDA line.
    pub loc: Option<Loc>,
    /// What it counts as.
    pub class: Class,
    /// The first operation of its PTX instruction: the one that counts.
    pub first: bool,
}

/// The state space of an access after decoding. Constant memory is part of global memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum MemSpace {
    Global,
    Shared,
    Local,
    Param,
    Generic,
}

/// The width of a register; a predicate is one 32-bit mask for the whole warp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Width {
    Pred,
    W16,
    W32,
    W64,
    W128,
}

impl Width {
    /// Bytes of one lane; 0 for a predicate.
    pub fn bytes(self) -> u32 {
        match self {
            Width::Pred => 0,
            Width::W16 => 2,
            Width::W32 => 4,
            Width::W64 => 8,
            Width::W128 => 16,
        }
    }

    /// Bytes of the whole register of a warp.
    pub fn warp_bytes(self) -> u32 {
        if self == Width::Pred { 4 } else { self.bytes() * 32 }
    }

    /// 32-bit hardware registers that a thread needs for it (16-bit values share one in two, predicates are apart).
    pub fn hardware(self) -> u32 {
        match self {
            Width::Pred => 0,
            Width::W16 | Width::W32 => 1,
            Width::W64 => 2,
            Width::W128 => 4,
        }
    }
}

/// How an access orders others around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Order {
    /// Takes part in synchronisation at all (relaxed, volatile or stronger; atomics).
    pub strong: bool,
    /// Later accesses see what was released.
    pub acquire: bool,
    /// Earlier accesses are seen by who acquires.
    pub release: bool,
}

/// What a load, store, atomic or copy does, beside its operands.
#[derive(Clone, Copy, Debug)]
pub struct Mem {
    /// Its state space.
    pub space: MemSpace,
    /// Bytes of an element in memory.
    pub size: u32,
    /// Elements (vector width).
    pub count: u32,
    /// Width of the registers that hold an element.
    pub width: Width,
    /// Extends the sign.
    pub signed: bool,
    /// Where the address is held: a register of this width.
    pub address: Width,
    /// Its order.
    pub order: Order,
    /// Added to a second address (the source of a copy).
    pub offset: i64,
}

/// Values that are fixed for a thread when it starts, given to registers only where the kernel reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Special {
    Tid(u8),
    NTid(u8),
    CtaId(u8),
    NCtaId(u8),
    ClusterId(u8),
    NClusterId(u8),
    ClusterCtaId(u8),
    ClusterNCtaId(u8),
    ClusterCtaRank,
    ClusterNCtaRank,
    LaneId,
    WarpId,
    NWarpId,
    SmId,
    NSmId,
    GridId,
    LaneMaskEq,
    LaneMaskLe,
    LaneMaskLt,
    LaneMaskGe,
    LaneMaskGt,
    DynamicSharedSize,
    TotalSharedSize,
}

/// A constant whose value is the address of a variable of the module.
#[derive(Clone, Copy, Debug)]
pub struct Reloc {
    /// Offset in the constants.
    pub at: u32,
    /// Index of the variable.
    pub var: u32,
    /// Added to its address.
    pub addend: i64,
}

/// A parameter of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Param {
    /// Offset in the parameters.
    pub offset: u32,
    /// Its size in bytes.
    pub size: u32,
}

/// A kernel, decoded.
#[derive(Clone)]
pub struct Kernel {
    /// Its name.
    pub name: String,
    /// Its operations, those of functions that it calls included.
    pub ops: Vec<Op>,
    /// Where each comes from.
    pub meta: Vec<Meta>,
    /// Side table of accesses.
    pub mems: Vec<Mem>,
    /// Operands of operations that have many.
    pub lists: Vec<i32>,
    /// Targets of indexed branches.
    pub tables: Vec<Vec<u32>>,
    /// Bytes of registers of one warp.
    pub reg_bytes: u32,
    /// The constants, 32 lanes each.
    pub konst: Vec<u8>,
    /// Constants to fill in when the module is loaded.
    pub relocs: Vec<Reloc>,
    /// Registers that start with a special value.
    pub specials: Vec<(Special, Width, i32)>,
    /// Its parameters.
    pub params: Vec<Param>,
    /// Bytes of all parameters.
    pub param_bytes: u32,
    /// Bytes of static shared memory.
    pub shared_bytes: u32,
    /// Where dynamic shared memory begins.
    pub dynamic_at: u32,
    /// Bytes of local memory of one thread.
    pub local_bytes: u32,
    /// Estimated 32-bit registers of one thread: most values alive at once.
    pub registers: u32,
    /// The block that `.reqntid` demands.
    pub reqntid: Option<[u32; 3]>,
    /// The most threads that `.maxntid` allows.
    pub maxntid: Option<u64>,
    /// The most registers that `.maxnreg` allows.
    pub maxnreg: Option<u32>,
    /// The smallest access to shared memory, in bytes (1, 2 or 4): the grain of its shadow.
    pub grain: u32,
    /// Has a fence or an acquiring or releasing access, so that blocks can be ordered.
    pub synchronises: bool,
}

/// A variable of a module, ready to be placed in device memory.
#[derive(Clone, Debug)]
pub struct Global {
    /// Its name.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Its alignment.
    pub align: u32,
    /// Addresses to be written into its bytes: offset, variable, addend.
    pub relocs: Vec<(u32, u32, i64)>,
    /// Only read by kernels.
    pub constant: bool,
}

/// A module, decoded.
#[derive(Clone)]
pub struct Program {
    /// `.target`.
    pub target: String,
    /// `.version`.
    pub version: (u32, u32),
    /// Its kernels.
    pub kernels: Vec<Kernel>,
    /// Its variables in global and constant memory.
    pub globals: Vec<Global>,
    /// Source files named by `.file`.
    pub files: Vec<(u32, String)>,
}

impl Program {
    /// The name of a source file.
    pub fn file(&self, index: u32) -> Option<&str> {
        self.files.iter().find(|(i, _)| *i == index).map(|(_, n)| n.as_str())
    }

    /// File and line of the CUDA text of an operation, where the module has them.
    pub fn source(&self, kernel: &Kernel, pc: u32) -> Option<(String, u32)> {
        let loc = kernel.meta.get(pc as usize)?.loc?;
        Some((self.file(loc.file)?.to_string(), loc.line))
    }

    /// The compute capability of the target, as 10 × major + minor.
    pub fn capability(&self) -> u32 {
        capability(&self.target).unwrap_or(0)
    }

    /// The kernel of this name.
    pub fn kernel(&self, name: &str) -> Option<&Kernel> {
        self.kernels.iter().find(|k| k.name == name)
    }
}

/// The number in `sm_90a`.
pub fn capability(target: &str) -> Option<u32> {
    let digits: String = target.strip_prefix("sm_")?.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}
