//! From the graph of a fused cluster to its row program.
//!
//! The graph is walked from its results: each value is asked for as it stands in the space, which is how its own
//! elements are repeated there (its spread). A broadcast or a reduction changes the question that its operand is asked;
//! a parameter answers with a load.

use std::collections::HashMap;

use super::rows::{Access, Instr, Kind, Reg, RowProgram, Src};
use crate::ir::{CompareOp, DType, F64, Graph, Module, Node, NodeData, Op, ReduceKind, Type, Value};

/// Why a graph is no row program: a reason for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported(pub String);

/// A row must fit a tile; longer ones are folded by an op of their own.
const LONGEST_ROW: usize = 1 << 17;

/// Sums of more columns are an op of their own: the sums of all parts of the space would take long to be summed.
const MOST_COLUMNS: usize = 1 << 14;

/// So many numbers one behind another are no job for a kernel that moves elements.
const MOST_NUMBERS: usize = 16;

type Result<T> = std::result::Result<T, Unsupported>;

fn unsupported<T>(why: impl Into<String>) -> Result<T> {
    Err(Unsupported(why.into()))
}

/// How the elements of a value stand in the space: element i of the space shows its element ⌊i / inner⌋ mod count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Spread {
    inner: usize,
    count: usize,
}

impl Spread {
    fn access(self, elements: usize) -> Access {
        match self {
            Spread { count: 1, .. } => Access::Scalar,
            Spread { inner: 1, count } if count == elements => Access::Full,
            Spread { inner: 1, count } => Access::Cycle { period: count },
            Spread { inner, count } if inner * count == elements => Access::Row { len: inner },
            Spread { inner, count } => Access::Middle { inner, period: count },
        }
    }

    fn scalar() -> Spread {
        Spread { inner: 1, count: 1 }
    }
}

/// A value that a program finds in an operand, instead of computing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The value of the graph.
    pub value: Value,
    /// The operand number in the program's loads.
    pub operand: usize,
}

/// A value that a program stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    /// The value of the graph.
    pub value: Value,
    /// The result number in the program's stores.
    pub result: usize,
}

/// The program that computes `outputs` from `leaves`. Every parameter that it needs must be among the leaves.
pub fn compile(m: &Module, g: &Graph, leaves: &[Leaf], outputs: &[Output]) -> Result<RowProgram> {
    let leaves: HashMap<Value, usize> = leaves.iter().map(|leaf| (leaf.value, leaf.operand)).collect();
    let elements = space(m, g, &leaves, outputs);
    let mut c =
        Compiler { m, g, leaves, elements, tile: 1, kinds: Vec::new(), instrs: Vec::new(), seen: HashMap::new() };
    let mut stores = Vec::new();
    for output in outputs {
        stores.push(c.output(*output)?);
    }
    // What is stored may lie where something is loaded.
    c.instrs.extend(stores);
    if !elements.is_multiple_of(c.tile) {
        return unsupported(format!("rows of {} do not divide {elements} elements", c.tile));
    }
    let mut program = RowProgram { elements, tile: c.tile, regs: c.kinds, instrs: c.instrs };
    reuse_registers(&mut program);
    Ok(program)
}

/// Elements of the space: of the largest value on the way from leaves to outputs.
fn space(m: &Module, g: &Graph, leaves: &HashMap<Value, usize>, outputs: &[Output]) -> usize {
    let size = |v: Value| m.dims.elements(&g.ty(v).dims);
    let mut work: Vec<Value> = outputs.iter().map(|o| o.value).collect();
    let mut seen: std::collections::HashSet<Value> = work.iter().copied().collect();
    let mut most = 1;
    while let Some(value) = work.pop() {
        most = most.max(size(value));
        if leaves.contains_key(&value) {
            continue;
        }
        let Some(node) = g.def_node(value) else { continue };
        work.extend(g.nodes[node].args.iter().copied().filter(|&arg| seen.insert(arg)));
    }
    most
}

struct Compiler<'a> {
    m: &'a Module,
    g: &'a Graph,
    leaves: HashMap<Value, usize>,
    elements: usize,
    tile: usize,
    kinds: Vec<Kind>,
    instrs: Vec<Instr>,
    seen: HashMap<(Value, Spread), Src>,
}

/// The register kind of a dtype.
pub fn kind(dtype: DType) -> Kind {
    if dtype.is_float() { Kind::F32 } else { Kind::I32 }
}

impl Compiler<'_> {
    fn sizes(&self, ty: &Type) -> Vec<usize> {
        self.m.dims.sizes(&ty.dims)
    }

    fn count(&self, value: Value) -> usize {
        self.m.dims.elements(&self.g.ty(value).dims)
    }

    fn new_reg(&mut self, kind: Kind) -> Reg {
        self.kinds.push(kind);
        self.kinds.len() - 1
    }

    /// A tile holds whole rows.
    fn rows(&mut self, len: usize) -> Result<()> {
        if len == 0 {
            return unsupported("an empty row");
        }
        let gcd = {
            let (mut a, mut b) = (self.tile, len);
            while b != 0 {
                (a, b) = (b, a % b);
            }
            a
        };
        self.tile = self.tile / gcd * len;
        Ok(())
    }

    fn output(&mut self, output: Output) -> Result<Instr> {
        let Output { value, result } = output;
        let count = self.count(value);
        if let Some(fold) = self.fold(value, result)? {
            return Ok(fold);
        }
        if count == self.elements {
            let a = self.value(value, Spread { inner: 1, count })?;
            return Ok(Instr::Store { result, a, access: Access::Full });
        }
        if count == 1 {
            let a = self.value(value, Spread::scalar())?;
            return Ok(Instr::Store { result, a, access: Access::Scalar });
        }
        if count == 0 || !self.elements.is_multiple_of(count) {
            return unsupported(format!("a result of {count} elements beside others of {}", self.elements));
        }
        let len = self.elements / count;
        let a = self.value(value, Spread { inner: len, count })?;
        self.rows(len)?;
        Ok(Instr::Store { result, a, access: Access::Row { len } })
    }

    /// A reduction over the whole space, or over its leading axes, which only an output can be. Reshapes and casts
    /// between it and the output do not matter to where it is stored.
    fn fold(&mut self, value: Value, result: usize) -> Result<Option<Instr>> {
        if self.leaves.contains_key(&value) {
            return Ok(None);
        }
        let Some(node) = self.g.def_node(value) else { return Ok(None) };
        let NodeData { op, args, .. } = &self.g.nodes[node];
        let (kind, axes) = match op {
            Op::Reshape => return self.fold(args[0], result),
            Op::Reduce { kind, axes } => (*kind, axes),
            _ => return Ok(None),
        };
        let arg = args[0];
        let sizes = self.sizes(self.g.ty(arg));
        let is_folded = |i: usize| axes.contains(&(i as u8)) || sizes[i] == 1;
        let rank = sizes.len();
        if self.count(arg) != self.elements || (0..rank).all(|i| sizes[i] == 1) {
            return Ok(None);
        }
        let full = Spread { inner: 1, count: self.elements };
        if (0..rank).all(is_folded) {
            let a = self.value(arg, full)?;
            return Ok(Some(Instr::Total { result, kind, a }));
        }
        let leading = (0..rank).take_while(|&i| is_folded(i)).count();
        let kept: usize = sizes[leading..].iter().product();
        let only_leading = axes.iter().all(|&axis| (axis as usize) < leading);
        let few = kept <= MOST_COLUMNS;
        if leading > 0 && only_leading && few && kind == ReduceKind::Sum && self.g.ty(value).dtype.is_float() {
            let a = self.value(arg, full)?;
            return Ok(Some(Instr::Columns { result, a, period: kept }));
        }
        Ok(None)
    }

    /// The source that shows a value as it stands in the space.
    fn value(&mut self, value: Value, spread: Spread) -> Result<Src> {
        let spread = if self.count(value) == 1 { Spread::scalar() } else { spread };
        if let Some(&src) = self.seen.get(&(value, spread)) {
            return Ok(src);
        }
        let src = self.make(value, spread)?;
        self.seen.insert((value, spread), src);
        Ok(src)
    }

    fn reg(&mut self, value: Value, spread: Spread) -> Result<Reg> {
        match self.value(value, spread)? {
            Src::Reg(reg) => Ok(reg),
            Src::Const(_) => unsupported("a row of one number"),
        }
    }

    fn make(&mut self, value: Value, spread: Spread) -> Result<Src> {
        let ty = self.g.ty(value);
        let kind = kind(ty.dtype);
        if let Some(&operand) = self.leaves.get(&value) {
            let dst = self.new_reg(kind);
            self.instrs.push(Instr::Load { dst, operand, access: spread.access(self.elements) });
            return Ok(Src::Reg(dst));
        }
        let Some(node) = self.g.def_node(value) else { return unsupported("a parameter that is no operand") };
        let data = &self.g.nodes[node];
        let args = &data.args;
        let instr = match &data.op {
            Op::Const(c) if ty.dtype == DType::F32 => return Ok(Src::Const(F64(f64::from(c.0 as f32)))),
            Op::Const(c) if ty.dtype.is_float() => {
                let (a, from) = (Src::Const(*c), DType::F32);
                Instr::Cast { dst: self.new_reg(kind), a, from, to: ty.dtype }
            }
            Op::Const(c) => return Ok(Src::Const(*c)),
            Op::Reshape => return self.value(args[0], spread),
            Op::Broadcast { axes } => {
                let inner = self.broadcast(self.g.ty(args[0]), ty, axes, spread)?;
                return self.value(args[0], inner);
            }
            Op::Iota { axis } => {
                let sizes = self.sizes(ty);
                let behind: usize = sizes[*axis as usize + 1..].iter().product();
                let dst = self.new_reg(kind);
                Instr::Iota { dst, inner: spread.inner * behind, period: sizes[*axis as usize] }
            }
            Op::Concat { .. } if args.len() <= MOST_NUMBERS && args.iter().all(|&arg| self.count(arg) == 1) => {
                return self.numbers(args, kind, spread);
            }
            Op::Unary(op) => {
                let a = self.value(args[0], spread)?;
                Instr::Unary { op: *op, dst: self.new_reg(kind), a }
            }
            Op::Binary(op) => {
                let (a, b) = (self.value(args[0], spread)?, self.value(args[1], spread)?);
                Instr::Binary { op: *op, dst: self.new_reg(kind), a, b }
            }
            Op::Compare(op) => {
                let of = self::kind(self.g.ty(args[0]).dtype);
                let (a, b) = (self.value(args[0], spread)?, self.value(args[1], spread)?);
                Instr::Compare { op: *op, kind: of, dst: self.new_reg(kind), a, b }
            }
            Op::Select => {
                let c = self.value(args[0], spread)?;
                let (a, b) = (self.value(args[1], spread)?, self.value(args[2], spread)?);
                Instr::Select { dst: self.new_reg(kind), c, a, b }
            }
            Op::Cast => {
                let from = self.g.ty(args[0]).dtype;
                let a = self.value(args[0], spread)?;
                Instr::Cast { dst: self.new_reg(kind), a, from, to: ty.dtype }
            }
            Op::Reduce { kind: reduce, axes } => self.row_reduce(args[0], *reduce, axes, spread)?,
            Op::Softmax | Op::SoftmaxGrad => self.along_row(node, spread)?,
            Op::RmsNorm { .. } | Op::RmsNormGrad { .. } => self.along_row(node, spread)?,
            Op::LayerNorm { .. } | Op::LayerNormGrad { .. } => self.along_row(node, spread)?,
            Op::Rope { .. } => self.along_row(node, spread)?,
            other => return unsupported(format!("{} is not elementwise", other.name())),
        };
        let dst = match &instr {
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
            | Instr::Rope { dst, .. } => *dst,
            Instr::Store { .. } | Instr::Total { .. } | Instr::Columns { .. } => return unsupported("a store"),
        };
        self.instrs.push(instr);
        Ok(Src::Reg(dst))
    }

    /// Numbers behind one another: at each place the one of that position is selected.
    fn numbers(&mut self, args: &[Value], kind: Kind, spread: Spread) -> Result<Src> {
        let [first @ .., last] = args else { return unsupported("nothing in a row") };
        let mut src = self.value(*last, Spread::scalar())?;
        if first.is_empty() {
            return Ok(src);
        }
        let at = self.new_reg(Kind::I32);
        self.instrs.push(Instr::Iota { dst: at, inner: spread.inner, period: args.len() });
        for (i, &arg) in first.iter().enumerate() {
            let a = self.value(arg, Spread::scalar())?;
            let (c, dst) = (self.new_reg(Kind::I32), self.new_reg(kind));
            let (op, b) = (CompareOp::Eq, Src::Const(F64(i as f64)));
            self.instrs.push(Instr::Compare { op, kind: Kind::I32, dst: c, a: Src::Reg(at), b });
            self.instrs.push(Instr::Select { dst, c: Src::Reg(c), a, b: src });
            src = Src::Reg(dst);
        }
        Ok(src)
    }

    /// How the operand of a broadcast stands in the space.
    fn broadcast(&self, from: &Type, to: &Type, axes: &[u8], spread: Spread) -> Result<Spread> {
        let sizes = self.sizes(to);
        let operand = self.sizes(from);
        // Axes of size 1 may be anywhere, before and after.
        let axes: Vec<usize> =
            axes.iter().zip(&operand).filter(|(_, size)| **size != 1).map(|(&axis, _)| axis as usize).collect();
        let (Some(&first), Some(&last)) = (axes.first(), axes.last()) else { return Ok(Spread::scalar()) };
        if (first..=last).any(|axis| sizes[axis] != 1 && !axes.contains(&axis)) {
            return unsupported("a broadcast between axes that stay");
        }
        let inner: usize = sizes[last + 1..].iter().product();
        let count: usize = operand.iter().product();
        Ok(Spread { inner: spread.inner * inner, count })
    }

    /// A reduction over the last axes, repeated over what it folds.
    fn row_reduce(&mut self, arg: Value, kind: ReduceKind, axes: &[u8], spread: Spread) -> Result<Instr> {
        let sizes = self.sizes(self.g.ty(arg));
        let is_folded = |i: &usize| axes.contains(&(*i as u8)) || sizes[*i] == 1;
        let kept = sizes.len() - (0..sizes.len()).rev().take_while(is_folded).count();
        if axes.iter().any(|&axis| (axis as usize) < kept && sizes[axis as usize] != 1) {
            return unsupported("a reduction over other than the last axes");
        }
        let len: usize = sizes[kept..].iter().product();
        let count: usize = sizes[..kept].iter().product();
        let operand = Spread { inner: 1, count: count * len };
        if count * len == 1 {
            // A fold of one element: as a row of one.
            let a = self.value(arg, Spread::scalar())?;
            let Src::Reg(a) = a else { return unsupported("a reduction of a number") };
            return Ok(Instr::RowReduce { kind, dst: self.new_reg(self.kinds[a]), a, len: 1 });
        }
        if spread.count != 1 && spread != (Spread { inner: len, count }) || spread.count == 1 && count != 1 {
            return unsupported("a reduction that is used along another axis");
        }
        if len > LONGEST_ROW {
            return unsupported(format!("rows of {len}"));
        }
        let a = self.reg(arg, operand)?;
        self.rows(len)?;
        Ok(Instr::RowReduce { kind, dst: self.new_reg(self.kinds[a]), a, len })
    }

    /// An op along the last axis.
    fn along_row(&mut self, node: Node, spread: Spread) -> Result<Instr> {
        let NodeData { op, args, .. } = &self.g.nodes[node];
        let sizes = self.sizes(self.g.ty(args[0]));
        let Some(&len) = sizes.last() else { return unsupported("a row of rank 0") };
        if spread.inner != 1 || !spread.count.is_multiple_of(len) {
            return unsupported(format!("{} of repeated elements", op.name()));
        }
        self.rows(len)?;
        let a = self.reg(args[0], spread)?;
        Ok(match op {
            Op::Softmax => Instr::Softmax { dst: self.new_reg(Kind::F32), a, len },
            Op::RmsNorm { eps } => Instr::RmsNorm { dst: self.new_reg(Kind::F32), a, len, eps: eps.0 },
            Op::LayerNorm { eps } => Instr::LayerNorm { dst: self.new_reg(Kind::F32), a, len, eps: eps.0 },
            Op::SoftmaxGrad => {
                let dy = self.reg(args[1], spread)?;
                Instr::SoftmaxGrad { dst: self.new_reg(Kind::F32), y: a, dy, len }
            }
            Op::RmsNormGrad { eps } => {
                let dy = self.reg(args[1], spread)?;
                Instr::RmsNormGrad { dst: self.new_reg(Kind::F32), x: a, dy, len, eps: eps.0 }
            }
            Op::LayerNormGrad { eps } => {
                let dy = self.reg(args[1], spread)?;
                Instr::LayerNormGrad { dst: self.new_reg(Kind::F32), x: a, dy, len, eps: eps.0 }
            }
            Op::Rope { base, axis, inverse } => {
                let behind: usize = sizes[*axis as usize + 1..].iter().product();
                let count = sizes[*axis as usize];
                let position = self.reg(args[1], Spread { inner: behind, count })?;
                let dst = self.new_reg(Kind::F32);
                Instr::Rope { dst, a, position, len, base: base.0, inverse: *inverse }
            }
            other => return unsupported(format!("{} along a row", other.name())),
        })
    }
}

/// Registers that an instruction reads and the one that it writes.
fn registers(instr: &mut Instr) -> (Vec<&mut Reg>, Option<&mut Reg>) {
    fn reg(src: &mut Src) -> Option<&mut Reg> {
        match src {
            Src::Reg(reg) => Some(reg),
            Src::Const(_) => None,
        }
    }
    match instr {
        Instr::Load { dst, .. } | Instr::Iota { dst, .. } => (vec![], Some(dst)),
        Instr::Unary { dst, a, .. } | Instr::Cast { dst, a, .. } => (reg(a).into_iter().collect(), Some(dst)),
        Instr::Binary { dst, a, b, .. } | Instr::Compare { dst, a, b, .. } => {
            (reg(a).into_iter().chain(reg(b)).collect(), Some(dst))
        }
        Instr::Select { dst, c, a, b } => (reg(c).into_iter().chain(reg(a)).chain(reg(b)).collect(), Some(dst)),
        Instr::RowReduce { dst, a, .. }
        | Instr::Softmax { dst, a, .. }
        | Instr::RmsNorm { dst, a, .. }
        | Instr::LayerNorm { dst, a, .. } => (vec![a], Some(dst)),
        Instr::SoftmaxGrad { dst, y: a, dy: b, .. }
        | Instr::RmsNormGrad { dst, x: a, dy: b, .. }
        | Instr::LayerNormGrad { dst, x: a, dy: b, .. }
        | Instr::Rope { dst, a, position: b, .. } => (vec![a, b], Some(dst)),
        Instr::Store { a, .. } | Instr::Total { a, .. } | Instr::Columns { a, .. } => {
            (reg(a).into_iter().collect(), None)
        }
    }
}

/// Gives registers that are never alive together the same number, so that a tile stays in cache.
fn reuse_registers(p: &mut RowProgram) {
    let mut last = vec![0; p.regs.len()];
    for (at, instr) in p.instrs.iter_mut().enumerate() {
        let (read, written) = registers(instr);
        read.into_iter().chain(written).for_each(|reg| last[*reg] = at);
    }
    let mut kinds: Vec<Kind> = Vec::new();
    let mut free: Vec<Reg> = Vec::new();
    let mut renamed: Vec<Option<Reg>> = vec![None; p.regs.len()];
    for (at, instr) in p.instrs.iter_mut().enumerate() {
        let (read, written) = registers(instr);
        let mut dead: Vec<Reg> = Vec::new();
        for reg in read {
            let old = *reg;
            let new = renamed[old].unwrap_or(0);
            *reg = new;
            if last[old] == at && !dead.contains(&new) {
                dead.push(new);
            }
        }
        // The result is no source, so the sources are free only behind it.
        if let Some(reg) = written {
            let old = *reg;
            let new = match free.iter().position(|&r| kinds[r] == p.regs[old]) {
                Some(i) => free.swap_remove(i),
                None => {
                    kinds.push(p.regs[old]);
                    kinds.len() - 1
                }
            };
            *reg = new;
            renamed[old] = Some(new);
            if last[old] == at {
                dead.push(new);
            }
        }
        free.extend(dead);
    }
    p.regs = kinds;
}
