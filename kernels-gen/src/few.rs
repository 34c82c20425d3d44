//! Row programs on a few elements: one kernel interprets them all, so that the scalars of a model cost neither texts nor
//! time to compile them.

use std::sync::OnceLock;

use mngc_compiler::ir::{BinaryOp, CompareOp, DType, ReduceKind, UnaryOp};
use mngc_compiler::schedule::cluster;
use mngc_compiler::schedule::rows::{Access, Instr, Kind, Reg, RowProgram, Src};

use crate::call::{Generated, Param};
use crate::kernel::Kernel;
use crate::numbers;
use crate::pointers::{Pointers, rounded};
use crate::program;
use crate::spec::{Refusal, Spec};

/// Elements of a program that is interpreted. Longer ones are worth a text.
const FEW: usize = 8;
/// Threads of a block.
const THREADS: usize = 32;
/// Operands and results at most.
const POINTERS: usize = 24;
/// Steps at most.
const STEPS: usize = 96;
/// Registers at most.
const REGISTERS: usize = 64;

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Key {
    /// Register `to` is the bits `a`.
    Set,
    /// Of operand `a`, the element at ⌊lane / b⌋ mod c.
    Load(DType),
    /// To the element ⌊lane / c⌋ of result `to`, for the first of each c lanes.
    Store(DType),
    /// ⌊lane / b⌋ mod c.
    Iota,
    Unary(UnaryOp, Kind),
    Binary(BinaryOp, Kind),
    Compare(CompareOp, Kind),
    Select,
    Cast(Kind, DType),
    /// Of all elements.
    Fold(ReduceKind, Kind),
}

const DTYPES: [DType; 5] = [DType::F32, DType::BF16, DType::F16, DType::I32, DType::Bool];
const KINDS: [Kind; 2] = [Kind::F32, Kind::I32];

/// The cases of the interpreter by number, with their statements.
fn cases() -> &'static [(Key, String)] {
    static CASES: OnceLock<Vec<(Key, String)>> = OnceLock::new();
    CASES.get_or_init(|| {
        let mut keys = vec![Key::Set, Key::Iota, Key::Select];
        for dtype in DTYPES {
            keys.extend([Key::Load(dtype), Key::Store(dtype)]);
            keys.extend(KINDS.map(|kind| Key::Cast(kind, dtype)));
        }
        for kind in KINDS {
            keys.extend(UNARY.iter().filter(|op| op.1.contains(&kind)).map(|op| Key::Unary(op.0, kind)));
            keys.extend(BINARY.iter().filter(|op| op.1.contains(&kind)).map(|op| Key::Binary(op.0, kind)));
            keys.extend(CompareOp::ALL.iter().map(|&op| Key::Compare(op, kind)));
        }
        let folds = [ReduceKind::Sum, ReduceKind::Mean, ReduceKind::Norm, ReduceKind::Max, ReduceKind::Min];
        keys.extend(folds.map(|fold| Key::Fold(fold, Kind::F32)));
        keys.into_iter().map(|key| (key, statement(key))).collect()
    })
}

/// Ops whose text is short, with the kinds that they have; what needs long functions has kernels of its own.
const UNARY: &[(UnaryOp, &[Kind])] = &[
    (UnaryOp::Neg, &KINDS),
    (UnaryOp::Abs, &KINDS),
    (UnaryOp::Sign, &KINDS),
    (UnaryOp::Exp, &[Kind::F32]),
    (UnaryOp::Log, &[Kind::F32]),
    (UnaryOp::Sqrt, &[Kind::F32]),
    (UnaryOp::Rsqrt, &[Kind::F32]),
    (UnaryOp::Tanh, &[Kind::F32]),
    (UnaryOp::Sigmoid, &[Kind::F32]),
    (UnaryOp::Relu, &[Kind::F32]),
    (UnaryOp::Square, &[Kind::F32]),
    (UnaryOp::Not, &[Kind::I32]),
];

const BINARY: &[(BinaryOp, &[Kind])] = &[
    (BinaryOp::Add, &KINDS),
    (BinaryOp::Sub, &KINDS),
    (BinaryOp::Mul, &KINDS),
    (BinaryOp::Div, &[Kind::F32]),
    (BinaryOp::Max, &KINDS),
    (BinaryOp::Min, &KINDS),
    (BinaryOp::And, &[Kind::I32]),
    (BinaryOp::Or, &[Kind::I32]),
];

/// The text of a register.
fn text(kind: Kind, field: &str) -> String {
    format!("{}(s.{field})", if kind == Kind::F32 { "f" } else { "i" })
}

fn statement(key: Key) -> String {
    let becomes = |expression: String| format!("r[s.to] = bits({expression});");
    match key {
        Key::Set => "r[s.to] = s.a;".into(),
        Key::Load(dtype) => format!(
            "if (live) r[s.to] = bits(widen(((const {}*)p.at[s.a])[lane / s.b % s.c]));",
            program::element(dtype)
        ),
        Key::Store(dtype) => {
            let (ty, from) = (program::element(dtype), text(cluster::kind(dtype), "a"));
            format!("if (live && lane % s.c == 0) (({ty}*)p.at[s.to])[lane / s.c] = narrow<{ty}>({from});")
        }
        Key::Iota => "r[s.to] = lane / s.b % s.c;".into(),
        Key::Unary(op, kind) => becomes(program::unary(op, kind, &text(kind, "a"))),
        Key::Binary(op, kind) => becomes(program::binary(op, kind, &text(kind, "a"), &text(kind, "b"))),
        Key::Compare(op, kind) => becomes(format!("{} {} {}", text(kind, "a"), program::compare(op), text(kind, "b"))),
        Key::Select => "r[s.to] = r[s.c] != 0 ? r[s.a] : r[s.b];".into(),
        Key::Cast(kind, to) => {
            let from = if kind == Kind::F32 { DType::F32 } else { DType::I32 };
            becomes(program::cast(from, to, &text(kind, "a")))
        }
        Key::Fold(fold, kind) => {
            let (class, neutral) = program::fold(fold, kind);
            let (ty, element) = (program::folding(fold, kind), program::folded(fold, &text(kind, "a")));
            let total = format!("team_fold<{class}, {THREADS}>(live ? ({ty})({element}) : ({ty})({neutral}))");
            becomes(program::finished(fold, &total, "elements"))
        }
    }
}

/// Steps in the making.
struct Steps {
    words: Vec<u32>,
    count: usize,
    registers: usize,
}

impl Steps {
    /// None where the kernel has no such case.
    fn push(&mut self, key: Key, to: usize, a: u32, b: usize, c: usize) -> Option<()> {
        let op = cases().iter().position(|case| case.0 == key)?;
        self.words.extend([op as u32, to as u32, a, b as u32, c as u32]);
        self.count += 1;
        Some(())
    }

    /// The register of a source of a kind.
    fn source(&mut self, src: Src, kind: Kind) -> Option<usize> {
        match src {
            Src::Reg(reg) => Some(reg),
            Src::Const(value) if kind == Kind::F32 => self.number(value.0 as f32),
            Src::Const(value) => self.set(value.0 as i32 as u32),
        }
    }

    fn number(&mut self, value: f32) -> Option<usize> {
        self.set(value.to_bits())
    }

    fn set(&mut self, bits: u32) -> Option<usize> {
        self.registers += 1;
        self.push(Key::Set, self.registers - 1, bits, 0, 0)?;
        Some(self.registers - 1)
    }

    fn of(&mut self, key: Key, dst: Reg, sources: &[(Src, Kind)]) -> Option<()> {
        let mut registers = [0; 3];
        for (register, &(src, kind)) in registers.iter_mut().zip(sources) {
            *register = self.source(src, kind)?;
        }
        self.push(key, dst, registers[0] as u32, registers[1], registers[2])
    }
}

/// Element ⌊i / inner⌋ mod period of an operand.
fn spread(access: Access, elements: usize) -> (usize, usize) {
    match access {
        Access::Full => (1, elements),
        Access::Row { len } => (len, elements / len),
        Access::Cycle { period } => (1, period),
        Access::Middle { inner, period } => (inner, period),
        Access::Scalar => (1, 1),
    }
}

fn step(steps: &mut Steps, instr: &Instr, program: &RowProgram, spec: &Spec) -> Option<()> {
    let elements = program.elements;
    let kind = |reg: Reg| program.regs.get(reg).copied().unwrap_or(Kind::F32);
    match *instr {
        Instr::Load { dst, operand, access } => {
            let arg = spec.args.get(operand)?;
            if let Some(value) = arg.constant {
                let value = rounded(arg.dtype, value);
                let bits =
                    if arg.dtype.is_float() { (value as f32).to_bits() } else { numbers::bits(arg.dtype, value) };
                return steps.push(Key::Set, dst, bits, 0, 0);
            }
            let (inner, period) = spread(access, elements);
            steps.push(Key::Load(arg.dtype), dst, operand as u32, inner, period)
        }
        Instr::Iota { dst, inner, period } => steps.push(Key::Iota, dst, 0, inner, period),
        Instr::Unary { op, dst, a } => steps.of(Key::Unary(op, kind(dst)), dst, &[(a, kind(dst))]),
        Instr::Binary { op, dst, a, b } => steps.of(Key::Binary(op, kind(dst)), dst, &[(a, kind(dst)), (b, kind(dst))]),
        Instr::Compare { op, kind, dst, a, b } => steps.of(Key::Compare(op, kind), dst, &[(a, kind), (b, kind)]),
        Instr::Select { dst, c, a, b } => steps.of(Key::Select, dst, &[(a, kind(dst)), (b, kind(dst)), (c, Kind::I32)]),
        Instr::Cast { dst, a, from, to } => {
            let from = cluster::kind(from);
            steps.of(Key::Cast(from, to), dst, &[(a, from)])
        }
        Instr::RowReduce { kind: fold, dst, a, len } if len == elements => {
            steps.of(Key::Fold(fold, kind(dst)), dst, &[(Src::Reg(a), kind(dst))])
        }
        Instr::Total { result, kind: fold, a } => {
            let dtype = spec.results.get(result)?.dtype;
            let of = cluster::kind(dtype);
            steps.registers += 1;
            let total = steps.registers - 1;
            steps.of(Key::Fold(fold, of), total, &[(a, of)])?;
            steps.push(Key::Store(dtype), spec.args.len() + result, total as u32, 0, elements)
        }
        Instr::Store { result, a, access } => {
            let dtype = spec.results.get(result)?.dtype;
            let a = steps.source(a, cluster::kind(dtype))?;
            let group = match access {
                Access::Full => 1,
                Access::Row { len } => len,
                Access::Scalar => elements,
                Access::Cycle { .. } | Access::Middle { .. } => return None,
            };
            steps.push(Key::Store(dtype), spec.args.len() + result, a as u32, 0, group)
        }
        _ => None,
    }
}

/// The call of a program that is worth no text of its own; none where it is.
pub fn generate(program: &RowProgram, spec: &Spec) -> Result<Option<Generated>, Refusal> {
    let places = spec.args.len() + spec.results.len();
    if program.elements > FEW || places > POINTERS {
        return Ok(None);
    }
    let mut steps = Steps { words: Vec::new(), count: 0, registers: program.regs.len() };
    let made: Option<()> = program.instrs.iter().try_for_each(|instr| step(&mut steps, instr, program, spec));
    if made.is_none() || steps.count > STEPS || steps.registers > REGISTERS {
        return Ok(None);
    }
    let mut pointers = Pointers::none(spec);
    (0..spec.args.len()).for_each(|i| pointers.arg("void*", spec, i));
    (0..spec.results.len()).for_each(|i| pointers.result("void*", spec, i));
    // The other fields are not read.
    (places..POINTERS).for_each(|_| pointers.result("void*", spec, 0));
    let count = steps.count;
    steps.words.resize(5 * STEPS, 0);
    let call = Kernel::new("few", "Programs on few elements, interpreted", pointers)
        .constant("pointers_most", POINTERS)
        .constant("steps_most", STEPS)
        .constant("registers_most", REGISTERS)
        .list("cases", cases().iter().map(|case| &case.1))
        .param("const __grid_constant__ Steps steps", Param::U32s(steps.words))
        .size("count", count)?
        .size("elements", program.elements)?
        .call(1, THREADS)?;
    Ok(Some(Generated::one(call)))
}
