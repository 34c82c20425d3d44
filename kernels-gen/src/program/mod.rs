//! From the instructions of a row program to CUDA statements.
//!
//! A thread holds some elements of one row of a space. An instruction becomes a statement on all of them, on arrays
//! indexed by `e`, or on one number where all elements of the row show the same. The templates say what `row`, `base`
//! (the first element of the row), `local` (the position of element e in its row) and `live` mean.

mod expr;
mod space;

use mngc_compiler::ir::{F64, ReduceKind};
use mngc_compiler::schedule::rows::{Access, Instr, Kind, Reg, RowProgram, Src};

use crate::spec::{Operand, Refusal};
use space::{Found, single};

pub(crate) use expr::{binary, cast, compare, unary};
pub use expr::{element, float, register};
pub use space::{Sizes, Space};

/// A value that statements have computed.
#[derive(Clone, Debug)]
struct Var {
    name: String,
    /// One for all elements of the row.
    is_once: bool,
}

/// What a row program does beyond single elements; the kinds of kernel offer different things.
pub trait Rows {
    /// Statements for an instruction that folds rows, or all rows. `of` gives an operand's text for element `e`, and
    /// whether it is the same for all elements. The result is the text of the new value, if there is one, and whether it
    /// is the same for all elements.
    fn fold(&mut self, emit: &mut Emit, instr: &Instr) -> Result<Option<(String, bool)>, Refusal>;
}

/// No folds: what an epilogue is.
pub struct Elementwise;

impl Rows for Elementwise {
    fn fold(&mut self, _: &mut Emit, instr: &Instr) -> Result<Option<(String, bool)>, Refusal> {
        Err(Refusal(format!("an epilogue is elementwise, but has {instr:?}")))
    }
}

/// Writes statements.
pub struct Emit<'a> {
    /// The rows.
    pub space: &'a Space,
    /// Sizes that are parameters.
    pub sizes: &'a mut Sizes,
    /// Operands.
    pub args: &'a [Operand],
    /// Results.
    pub results: &'a [Operand],
    /// Operands that the kernel has in registers: number and array name.
    pub given: &'a [(usize, String)],
    /// Results that the kernel takes from registers: number and array name.
    pub taken: &'a [(usize, String)],
    out: String,
    /// Statements of the loop over elements that is open.
    run: Vec<String>,
    vars: Vec<Option<Var>>,
    kinds: Vec<Kind>,
    next: usize,
}

impl<'a> Emit<'a> {
    /// Starts on a program.
    pub fn new(
        program: &RowProgram,
        space: &'a Space,
        sizes: &'a mut Sizes,
        args: &'a [Operand],
        results: &'a [Operand],
        given: &'a [(usize, String)],
        taken: &'a [(usize, String)],
    ) -> Emit<'a> {
        Emit {
            space,
            sizes,
            args,
            results,
            given,
            taken,
            out: String::new(),
            run: Vec::new(),
            vars: vec![None; program.regs.len()],
            kinds: program.regs.clone(),
            next: 0,
        }
    }

    /// Writes all of a program, and gives the statements.
    pub fn program(mut self, program: &RowProgram, rows: &mut impl Rows) -> Result<String, Refusal> {
        for instr in &program.instrs {
            self.instr(instr, rows)?;
        }
        self.flush();
        Ok(joined(&self.out))
    }

    /// A line.
    pub fn line(&mut self, text: &str) {
        self.flush();
        self.out.push_str("    ");
        self.out.push_str(text);
        self.out.push('\n');
    }

    /// A new name.
    pub fn name(&mut self) -> String {
        self.next += 1;
        format!("v{}", self.next - 1)
    }

    /// Ends the open loop over elements: what follows may read any of them.
    pub fn flush(&mut self) {
        if self.run.is_empty() {
            return;
        }
        let run = std::mem::take(&mut self.run);
        self.out.push_str(&format!("#pragma unroll\n    for (int e = 0; e < {}; ++e) {{\n", self.space.held));
        for statement in run {
            self.out.push_str("      ");
            self.out.push_str(&statement);
            self.out.push('\n');
        }
        self.out.push_str("    }\n");
    }

    /// A declaration before the loop that is open.
    fn declare(&mut self, text: &str) {
        self.out.push_str("    ");
        self.out.push_str(text);
        self.out.push('\n');
    }

    /// The text of a register for element `e`, and whether it is one for all.
    pub fn reg(&self, reg: Reg) -> Result<(String, bool), Refusal> {
        match self.vars.get(reg).and_then(Option::as_ref) {
            Some(Var { name, is_once: true }) => Ok((name.clone(), true)),
            Some(Var { name, is_once: false }) => Ok((format!("{name}[e]"), false)),
            None => Err(Refusal(format!("register {reg} is read before it is written"))),
        }
    }

    /// The text of a source of a kind for element `e`, and whether it is one for all.
    pub fn src(&self, src: Src, kind: Kind) -> Result<(String, bool), Refusal> {
        match src {
            Src::Reg(reg) => self.reg(reg),
            Src::Const(F64(x)) => Ok((if kind == Kind::F32 { float(x) } else { format!("{}", x as i32) }, true)),
        }
    }

    /// The kind of a source, where a constant goes with anything.
    pub fn kind(&self, src: Src, otherwise: Kind) -> Kind {
        match src {
            Src::Reg(reg) => self.kinds.get(reg).copied().unwrap_or(otherwise),
            Src::Const(_) => otherwise,
        }
    }

    /// The array that a register is, where the kernel needs it as one.
    pub fn array(&mut self, reg: Reg) -> Result<String, Refusal> {
        let (text, is_once) = self.reg(reg)?;
        if !is_once {
            return Ok(text.trim_end_matches("[e]").to_string());
        }
        let name = self.fresh_array(self.kinds[reg]);
        self.run.push(format!("{name}[e] = {text};"));
        Ok(name)
    }

    /// A new array.
    pub fn fresh_array(&mut self, kind: Kind) -> String {
        let name = self.name();
        self.declare(&format!("{} {name}[{}];", register(kind), self.space.held));
        name
    }

    /// A statement for every element `e`.
    pub fn each(&mut self, statement: String) {
        self.run.push(statement);
    }

    /// Gives a register its value.
    pub fn set(&mut self, reg: Reg, name: String, is_once: bool) {
        self.vars[reg] = Some(Var { name, is_once });
    }

    /// A value computed element by element from texts that use `e`, or once.
    fn compute(&mut self, dst: Reg, expression: String, is_once: bool) {
        let kind = self.kinds[dst];
        let name = if is_once {
            let name = self.name();
            // It does not depend on the loop that is open, nor the loop on it.
            self.declare(&format!("const {} {name} = {expression};", register(kind)));
            name
        } else {
            let name = self.fresh_array(kind);
            self.run.push(format!("{name}[e] = {expression};"));
            name
        };
        self.set(dst, name, is_once);
    }

    fn instr(&mut self, instr: &Instr, rows: &mut impl Rows) -> Result<(), Refusal> {
        match instr {
            Instr::Load { dst, operand, access } => self.load(*dst, *operand, *access),
            Instr::Iota { dst, inner, period } => {
                let access = Access::Middle { inner: *inner, period: *period };
                let (at, is_once) = match self.space.find(access, self.sizes)? {
                    Found::Once(at) => (at, true),
                    Found::Along(at) => (format!("{at} + {}", self.space.local), false),
                    Found::Each(at) => (at, false),
                };
                self.compute(*dst, format!("(int)({at})"), is_once);
                Ok(())
            }
            Instr::Unary { op, dst, a } => {
                let kind = self.kinds[*dst];
                let (a, is_once) = self.src(*a, kind)?;
                self.compute(*dst, unary(*op, kind, &a), is_once);
                Ok(())
            }
            Instr::Binary { op, dst, a, b } => {
                let kind = self.kinds[*dst];
                let ((a, a_once), (b, b_once)) = (self.src(*a, kind)?, self.src(*b, kind)?);
                self.compute(*dst, binary(*op, kind, &a, &b), a_once && b_once);
                Ok(())
            }
            Instr::Compare { op, kind, dst, a, b } => {
                let ((a, a_once), (b, b_once)) = (self.src(*a, *kind)?, self.src(*b, *kind)?);
                self.compute(*dst, format!("{a} {} {b}", compare(*op)), a_once && b_once);
                Ok(())
            }
            Instr::Select { dst, c, a, b } => {
                let kind = self.kinds[*dst];
                let (c, c_once) = self.src(*c, Kind::I32)?;
                let ((a, a_once), (b, b_once)) = (self.src(*a, kind)?, self.src(*b, kind)?);
                self.compute(*dst, format!("{c} ? {a} : {b}"), a_once && b_once && c_once);
                Ok(())
            }
            Instr::Cast { dst, a, from, to } => {
                let of = if from.is_float() { Kind::F32 } else { Kind::I32 };
                let (text, is_once) = self.src(*a, of)?;
                let cast = cast(*from, *to, &text);
                match a {
                    // Nothing happens to it: another name for the same.
                    Src::Reg(_) if cast == text => {
                        self.set(*dst, text.strip_suffix("[e]").unwrap_or(&text).to_string(), is_once);
                    }
                    _ => self.compute(*dst, cast, is_once),
                }
                Ok(())
            }
            Instr::Store { result, a, access } => self.store(*result, *a, *access),
            other => {
                let made = rows.fold(self, other)?;
                if let (Some((name, is_once)), Some(dst)) = (made, written(other)) {
                    self.set(dst, name, is_once);
                }
                Ok(())
            }
        }
    }

    fn load(&mut self, dst: Reg, operand: usize, access: Access) -> Result<(), Refusal> {
        if let Some((_, name)) = self.given.iter().find(|(number, _)| *number == operand) {
            self.set(dst, name.clone(), false);
            return Ok(());
        }
        let arg = self.args.get(operand).ok_or_else(|| Refusal(format!("there is no operand {operand}")))?;
        let kind = self.kinds[dst];
        if arg.constant.is_some() {
            // Numbers are parameters: other values need no other kernel.
            self.set(dst, format!("c{operand}"), true);
            return Ok(());
        }
        match self.space.find(access, self.sizes)? {
            Found::Once(at) => self.compute(dst, format!("widen(p.a{operand}[{at}])"), true),
            Found::Along(at) => {
                let name = self.fresh_array(kind);
                let vec = self.aligned(arg, access);
                self.chunks(vec, &at, &format!("load<VEC>(p.a{operand} + AT, {name} + TO);"));
                self.set(dst, name, false);
            }
            Found::Each(at) => {
                let expression = format!("widen(p.a{operand}[{at}])");
                match self.space.live.clone() {
                    None => self.compute(dst, expression, false),
                    Some(live) => self.compute(dst, format!("{live} ? {expression} : 0"), false),
                }
            }
        }
        Ok(())
    }

    /// Elements that an access to a tensor can move at once.
    fn aligned(&self, operand: &Operand, access: Access) -> usize {
        let mut vec = self.space.vec;
        let period = match access {
            Access::Cycle { period } => period,
            _ => 0,
        };
        let fits = |vec: usize| {
            operand.alignment.is_multiple_of(vec * operand.dtype.bytes())
                && vec * operand.dtype.bytes() <= 16
                && self.space.len.is_multiple_of(vec)
                && period.is_multiple_of(vec)
        };
        while vec > 1 && !fits(vec) {
            vec /= 2;
        }
        vec
    }

    /// A statement for chunks of `vec` elements: VEC is their number, ` + AT` the first one's place, ` + TO` its number here.
    fn chunks(&mut self, vec: usize, at: &str, statement: &str) {
        self.flush();
        let Space { held, chunk, chunk_live, vec: whole, .. } = self.space;
        let live = chunk_live.as_ref().map(|live| format!("if ({live}) ")).unwrap_or_default();
        let mut at = if at == "0" { chunk.clone() } else { format!("{at} + {chunk}") };
        // The templates have a chunk of V elements.
        let is_one = held == "V";
        let mut to = if is_one { "" } else { " + c" }.to_string();
        let (mut vector, mut inside) = ("V".to_string(), String::new());
        if vec != *whole {
            vector = vec.to_string();
            inside = format!("for (int i = 0; i < V; i += {vec}) ");
            at.push_str(" + i");
            to.push_str(" + i");
        }
        let statement = statement.replace("VEC", &vector).replace(" + AT", &format!(" + {at}")).replace(" + TO", &to);
        if is_one {
            self.out.push_str(&format!("    {live}{inside}{statement}\n"));
        } else {
            let each = format!("for (int c = 0; c < {held}; c += V)");
            self.out.push_str(&format!("#pragma unroll\n    {each}\n      {live}{inside}{statement}\n"));
        }
    }

    fn store(&mut self, result: usize, a: Src, access: Access) -> Result<(), Refusal> {
        if let Some((_, name)) = self.taken.iter().find(|(number, _)| *number == result) {
            let (a, _) = self.src(a, Kind::F32)?;
            self.run.push(format!("{name}[e] = {a};"));
            return Ok(());
        }
        let to = self.results.get(result).ok_or_else(|| Refusal(format!("there is no result {result}")))?;
        let kind = if to.dtype.is_float() { Kind::F32 } else { Kind::I32 };
        let ty = element(to.dtype);
        match access {
            Access::Full => {
                let (text, is_once) = self.src(a, kind)?;
                let vec = self.aligned(to, access);
                let base = self.space.base.clone();
                let statement = match text.strip_suffix("[e]") {
                    Some(name) if !is_once => format!("store<VEC>(p.r{result} + AT, {name} + TO);"),
                    _ => format!("fill<VEC>(p.r{result} + AT, {text});"),
                };
                self.chunks(vec, &base, &statement);
            }
            Access::Row { len } if len == self.space.len => {
                let first = self.first(a, kind)?;
                let row = self.space.row.clone();
                self.line(&format!("if (lane == 0) p.r{result}[{row}] = narrow<{ty}>({first});"));
            }
            Access::Row { len } => {
                let (text, _) = self.src(a, kind)?;
                let divisor = self.space.divisor(len, self.sizes)?;
                let Space { base, local, live, .. } = self.space;
                let live = live.as_ref().map(|live| format!("{live} && ")).unwrap_or_default();
                let (base, local) = (base.clone(), local.clone());
                self.run.push(format!(
                    "if ({live}{} % {divisor} == 0) p.r{result}[({base} + {local}) / {divisor}] = narrow<{ty}>({text});",
                    single(&local)
                ));
            }
            Access::Scalar => {
                let first = self.first(a, kind)?;
                let row = self.space.row.clone();
                self.line(&format!("if ({row} == 0 && lane == 0) p.r{result}[0] = narrow<{ty}>({first});"));
            }
            Access::Cycle { .. } | Access::Middle { .. } => {
                return Err(Refusal("a store that repeats".into()));
            }
        }
        Ok(())
    }

    /// The first element of a row, which the first thread of its team has.
    fn first(&mut self, a: Src, kind: Kind) -> Result<String, Refusal> {
        let (text, is_once) = self.src(a, kind)?;
        self.flush();
        Ok(if is_once { text } else { text.replace("[e]", "[0]") })
    }
}

/// Declarations of arrays that follow one another in one, and directives at the beginning of their lines.
fn joined(text: &str) -> String {
    const WIDEST: usize = 100;
    let array = |line: &str| {
        let line = line.trim_start().strip_suffix("];")?;
        let (ty, name) = line.split_once(' ')?;
        let is_array = ["float", "int"].contains(&ty) && !name.contains([' ', '=', '(']);
        is_array.then(|| (ty.to_string(), format!("{name}]")))
    };
    let mut lines: Vec<(Option<String>, String)> = Vec::new();
    for line in text.lines() {
        match (array(line), lines.last_mut()) {
            (Some((ty, name)), Some((Some(last), text))) if *last == ty && text.len() + name.len() < WIDEST => {
                text.truncate(text.len() - 1);
                text.push_str(&format!(", {name};"));
            }
            (declared, _) => {
                let line = if line.trim_start().starts_with('#') { line.trim_start() } else { line };
                lines.push((declared.map(|(ty, _)| ty), line.to_string()));
            }
        }
    }
    lines.into_iter().map(|(_, line)| line + "\n").collect()
}

/// The register that an instruction gives its value.
fn written(instr: &Instr) -> Option<Reg> {
    match instr {
        Instr::Load { dst, .. }
        | Instr::Iota { dst, .. }
        | Instr::Unary { dst, .. }
        | Instr::Binary { dst, .. }
        | Instr::Compare { dst, .. }
        | Instr::Select { dst, .. }
        | Instr::Cast { dst, .. }
        | Instr::RowReduce { dst, .. }
        | Instr::Softmax { dst, .. }
        | Instr::SoftmaxGrad { dst, .. }
        | Instr::RmsNorm { dst, .. }
        | Instr::RmsNormGrad { dst, .. }
        | Instr::LayerNorm { dst, .. }
        | Instr::LayerNormGrad { dst, .. }
        | Instr::Rope { dst, .. } => Some(*dst),
        Instr::Store { .. } | Instr::Total { .. } | Instr::Columns { .. } => None,
    }
}

/// The fold of a kind: its class in the templates, and its neutral element.
pub fn fold(kind: ReduceKind, of: Kind) -> (&'static str, String) {
    match (kind, of) {
        (ReduceKind::Sum | ReduceKind::Mean | ReduceKind::Norm, Kind::F32) => ("Sum", "0.0f".into()),
        (ReduceKind::Sum | ReduceKind::Mean | ReduceKind::Norm, Kind::I32) => ("Sum", "0".into()),
        (ReduceKind::Max, Kind::F32) => ("Max", "-INF".into()),
        (ReduceKind::Max, Kind::I32) => ("Max", "-2147483647 - 1".into()),
        (ReduceKind::Min, Kind::F32) => ("Min", "INF".into()),
        (ReduceKind::Min, Kind::I32) => ("Min", "2147483647".into()),
    }
}

/// The type that a fold is made in: squares of large floats leave the range of f32, though their root does not.
pub fn folding(kind: ReduceKind, of: Kind) -> &'static str {
    if kind == ReduceKind::Norm { "double" } else { register(of) }
}

/// What an element adds to a fold.
pub fn folded(kind: ReduceKind, element: &str) -> String {
    if kind == ReduceKind::Norm { format!("(double){element} * {element}") } else { element.to_string() }
}

/// What becomes of a finished fold of `count` elements.
pub fn finished(kind: ReduceKind, total: &str, count: &str) -> String {
    match kind {
        ReduceKind::Mean if count.bytes().all(|b| b.is_ascii_digit()) => format!("{total} / {count}.0f"),
        ReduceKind::Mean => format!("{total} / (float){count}"),
        ReduceKind::Norm => format!("(float)sqrt({total})"),
        ReduceKind::Sum | ReduceKind::Max | ReduceKind::Min => total.to_string(),
    }
}
