//! The syntax tree of a PTX module.

use std::fmt;

/// An element type, as written after a dot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Ty {
    B8,
    B16,
    B32,
    B64,
    B128,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    F16,
    F16x2,
    BF16,
    BF16x2,
    TF32,
    F32,
    F64,
    E4M3,
    E5M2,
    E4M3x2,
    E5M2x2,
    U16x2,
    S16x2,
    Pred,
}

const TYPES: &[(&str, Ty)] = &[
    ("b8", Ty::B8),
    ("b16", Ty::B16),
    ("b32", Ty::B32),
    ("b64", Ty::B64),
    ("b128", Ty::B128),
    ("u8", Ty::U8),
    ("u16", Ty::U16),
    ("u32", Ty::U32),
    ("u64", Ty::U64),
    ("s8", Ty::S8),
    ("s16", Ty::S16),
    ("s32", Ty::S32),
    ("s64", Ty::S64),
    ("f16", Ty::F16),
    ("f16x2", Ty::F16x2),
    ("bf16", Ty::BF16),
    ("bf16x2", Ty::BF16x2),
    ("tf32", Ty::TF32),
    ("f32", Ty::F32),
    ("f64", Ty::F64),
    ("e4m3", Ty::E4M3),
    ("e5m2", Ty::E5M2),
    ("e4m3x2", Ty::E4M3x2),
    ("e5m2x2", Ty::E5M2x2),
    ("u16x2", Ty::U16x2),
    ("s16x2", Ty::S16x2),
    ("pred", Ty::Pred),
];

impl Ty {
    /// The type of this name (without its dot).
    pub fn of(name: &str) -> Option<Ty> {
        TYPES.iter().find(|(n, _)| *n == name).map(|(_, t)| *t)
    }

    /// Its size in bytes; 0 for a predicate.
    pub fn bytes(self) -> u32 {
        match self {
            Ty::B8 | Ty::U8 | Ty::S8 | Ty::E4M3 | Ty::E5M2 => 1,
            Ty::B16 | Ty::U16 | Ty::S16 | Ty::F16 | Ty::BF16 | Ty::E4M3x2 | Ty::E5M2x2 => 2,
            Ty::B32 | Ty::U32 | Ty::S32 | Ty::F32 | Ty::F16x2 | Ty::BF16x2 | Ty::TF32 | Ty::U16x2 | Ty::S16x2 => 4,
            Ty::B64 | Ty::U64 | Ty::S64 | Ty::F64 => 8,
            Ty::B128 => 16,
            Ty::Pred => 0,
        }
    }

    /// Whether a load of it extends the sign.
    pub fn signed(self) -> bool {
        matches!(self, Ty::S8 | Ty::S16 | Ty::S32 | Ty::S64)
    }

    /// Whether it is an untyped, signed or unsigned integer.
    pub fn integer(self) -> bool {
        matches!(
            self,
            Ty::B8
                | Ty::B16
                | Ty::B32
                | Ty::B64
                | Ty::U8
                | Ty::U16
                | Ty::U32
                | Ty::U64
                | Ty::S8
                | Ty::S16
                | Ty::S32
                | Ty::S64
        )
    }
}

impl fmt::Display for Ty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(TYPES.iter().find(|(_, t)| t == self).map_or("?", |(n, _)| n))
    }
}

/// Where a variable lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Space {
    Global,
    Const,
    Shared,
    Local,
    Param,
}

/// One word of an initialiser.
#[derive(Clone, Debug, PartialEq)]
pub enum Init {
    /// A literal, as the bits of the element type's width.
    Bits(u64),
    /// A value of floating type, to be rounded to the element type.
    Float(f64),
    /// The address of another variable plus an offset, in generic space if asked so.
    Address {
        /// The variable.
        name: String,
        /// Added to its address.
        offset: i64,
        /// Whether `generic()` stood around it.
        generic: bool,
    },
}

/// A variable declaration.
#[derive(Clone, Debug)]
pub struct Var {
    /// Its name.
    pub name: String,
    /// Where it lives.
    pub space: Space,
    /// The type of an element.
    pub ty: Ty,
    /// The number of elements; 0 for an array of open length.
    pub count: u64,
    /// Its alignment in bytes.
    pub align: u32,
    /// Initial values, flattened; shorter than `count` means zeros after.
    pub init: Vec<Init>,
    /// Declared here, defined elsewhere (dynamic shared memory).
    pub external: bool,
    /// Visible outside of the module.
    pub visible: bool,
    /// A parameter that is a register (`.reg`), not memory.
    pub register: bool,
    /// Where it stands.
    pub line: u32,
}

impl Var {
    /// Its size in bytes.
    pub fn bytes(&self) -> u64 {
        self.count.saturating_mul(self.ty.bytes() as u64)
    }
}

/// One operand of an instruction.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// A register, variable, label, function or special register.
    Name(String),
    /// An integer literal.
    Int(i128),
    /// A single precision literal as bits.
    F32(u32),
    /// A double precision literal as bits.
    F64(u64),
    /// `{a, b, …}`.
    Vector(Vec<Operand>),
    /// `[base + offset, rest…]`.
    Address {
        /// The register or variable; `None` for an absolute address.
        base: Option<String>,
        /// Added to it.
        offset: i64,
        /// Further operands inside of the brackets (tensor coordinates).
        rest: Vec<Operand>,
    },
    /// `!p`.
    Not(Box<Operand>),
    /// `d|p`.
    Pair(Box<Operand>, Box<Operand>),
    /// `(a, b)` of a call.
    List(Vec<Operand>),
    /// `_`.
    Sink,
    /// `name + offset` outside of brackets.
    Offset(String, i64),
}

/// A guard: `@p` or `@!p`.
#[derive(Clone, Debug, PartialEq)]
pub struct Guard {
    /// The predicate register.
    pub name: String,
    /// Runs where it is false.
    pub negated: bool,
}

/// Where an instruction comes from in the source that `-lineinfo` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loc {
    /// Index of a `.file` directive.
    pub file: u32,
    /// Its line.
    pub line: u32,
}

/// One instruction.
#[derive(Clone, Debug)]
pub struct Instr {
    /// Its guard.
    pub guard: Option<Guard>,
    /// The opcode's first word.
    pub name: String,
    /// The modifiers after it, without dots.
    pub mods: Vec<String>,
    /// Its operands.
    pub operands: Vec<Operand>,
    /// Its PTX line.
    pub line: u32,
    /// Its CUDA line, where known.
    pub loc: Option<Loc>,
}

impl Instr {
    /// Opcode and modifiers as written.
    pub fn opcode(&self) -> String {
        let mut s = self.name.clone();
        for m in &self.mods {
            s.push('.');
            s.push_str(m);
        }
        s
    }
}

/// One statement of a body.
#[derive(Clone, Debug)]
pub enum Stmt {
    /// `.reg .b32 %r<9>;` or `.reg .b32 a, b;`
    Reg {
        /// The registers' type.
        ty: Ty,
        /// Name, and the count after it if it is a family.
        names: Vec<(String, Option<u32>)>,
        /// Where it stands.
        line: u32,
    },
    /// A variable of the body.
    Var(Var),
    /// `name:`
    Label(String, u32),
    /// An instruction.
    Instr(Instr),
    /// `{ … }`, a scope of names.
    Block(Vec<Stmt>),
    /// `name: .branchtargets a, b;`
    Targets(String, Vec<String>),
}

/// A `.func` or `.entry`.
#[derive(Clone, Debug)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// A kernel, not a device function.
    pub entry: bool,
    /// What it returns (device functions).
    pub returns: Vec<Var>,
    /// Its parameters.
    pub params: Vec<Var>,
    /// Its body; `None` for a declaration.
    pub body: Option<Vec<Stmt>>,
    /// `.reqntid`.
    pub reqntid: Option<[u32; 3]>,
    /// `.maxntid`, as threads a block.
    pub maxntid: Option<u64>,
    /// `.minnctapersm`.
    pub minnctapersm: Option<u32>,
    /// `.maxnreg`.
    pub maxnreg: Option<u32>,
    /// `.reqnctapercluster`.
    pub reqnctapercluster: Option<[u32; 3]>,
    /// Where it stands.
    pub line: u32,
}

/// A PTX module.
#[derive(Clone, Debug, Default)]
pub struct Module {
    /// `.version`, major and minor.
    pub version: (u32, u32),
    /// `.target` (`sm_90a`).
    pub target: String,
    /// Variables of the module.
    pub vars: Vec<Var>,
    /// Functions and kernels.
    pub functions: Vec<Function>,
    /// `.file` directives: index and name.
    pub files: Vec<(u32, String)>,
}
