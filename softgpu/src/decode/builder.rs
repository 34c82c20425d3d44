//! What decoders of instructions build with: scopes of names, virtual registers, constants and drafts of operations.

use std::collections::HashMap;

use crate::error::LoadError;
use crate::program::*;
use crate::ptx::ast::*;

pub(crate) type R<T> = Result<T, LoadError>;

/// Bits of [`Draft::writes`], one for each operand field.
pub(crate) const D: u8 = 1;

/// Most operations of a kernel: inlining must end somewhere.
const MAX_OPS: usize = 1 << 22;
/// Most virtual registers of a kernel.
const MAX_REGS: usize = 1 << 22;

/// What a name stands for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Binding {
    /// A register.
    Reg(i32, Ty),
    /// An offset in local memory (`.local`, and `.param` of calls).
    Local(u32),
    /// An offset in shared memory.
    Shared(u32),
    /// Dynamic shared memory.
    DynamicShared,
    /// A parameter of the kernel: its offset.
    Param(u32),
    /// A variable of the module.
    Global(u32),
    /// A label.
    Label(u32),
}

/// A family of registers, `%r<9>`.
struct Family {
    prefix: String,
    count: u32,
    first: i32,
    ty: Ty,
}

#[derive(Default)]
pub(crate) struct Scope {
    names: HashMap<String, Binding>,
    families: Vec<Family>,
    tables: HashMap<String, Vec<String>>,
}

/// Where the value of a constant comes from.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Const {
    /// Its bits.
    Bits(u64),
    /// Dynamic shared memory plus an offset.
    DynamicShared(i64),
    /// A variable plus an offset.
    Global(u32, i64),
}

/// An operation before registers have places.
pub(crate) struct Draft {
    pub op: Op,
    pub meta: Meta,
    /// Which of the operand fields are written.
    pub writes: u8,
    /// Further operands; the first `list_writes` of them are written.
    pub list: Vec<i32>,
    pub list_writes: usize,
}

pub(crate) struct Builder<'m> {
    pub module: &'m Module,
    pub scopes: Vec<Scope>,
    pub drafts: Vec<Draft>,
    pub regs: Vec<Width>,
    pub consts: Vec<(Width, Const)>,
    const_index: HashMap<(Width, Const), i32>,
    pub mems: Vec<Mem>,
    pub tables: Vec<Vec<u32>>,
    /// Where labels stand, by their number.
    pub labels: Vec<Option<u32>>,
    pub specials: Vec<(Special, Width, i32)>,
    pub module_names: HashMap<&'m str, u32>,
    pub module_bindings: HashMap<u32, Binding>,
    pub shared_bytes: u32,
    pub shared_align: u32,
    pub local_bytes: u32,
    pub grain: u32,
    pub synchronises: bool,
    /// Labels at which the functions now being inlined return.
    pub returns: Vec<u32>,
    pub calls: Vec<&'m str>,
    /// The carry flag, once used.
    pub carry_flag: Option<i32>,
    current: Meta,
    guard: (i32, u32),
}

impl<'m> Builder<'m> {
    pub fn new(module: &'m Module, module_names: HashMap<&'m str, u32>) -> Builder<'m> {
        Builder {
            module,
            scopes: Vec::new(),
            drafts: Vec::new(),
            regs: Vec::new(),
            consts: Vec::new(),
            const_index: HashMap::new(),
            mems: Vec::new(),
            tables: Vec::new(),
            labels: Vec::new(),
            specials: Vec::new(),
            module_names,
            module_bindings: HashMap::new(),
            shared_bytes: 0,
            shared_align: 16,
            local_bytes: 0,
            grain: 4,
            synchronises: false,
            returns: Vec::new(),
            calls: Vec::new(),
            carry_flag: None,
            current: Meta { line: 0, loc: None, class: Class::Control, first: true },
            guard: (NONE, 0),
        }
    }

    // ---- names ----

    pub fn bind(&mut self, name: &str, b: Binding) {
        if let Some(s) = self.scopes.last_mut() {
            s.names.insert(name.to_string(), b);
        }
    }

    pub fn bind_table(&mut self, name: &str, targets: &[String]) {
        if let Some(s) = self.scopes.last_mut() {
            s.tables.insert(name.to_string(), targets.to_vec());
        }
    }

    pub fn table(&self, name: &str) -> Option<Vec<String>> {
        self.scopes.iter().rev().find_map(|s| s.tables.get(name)).cloned()
    }

    pub fn declare_regs(&mut self, ty: Ty, name: &str, count: Option<u32>, line: u32) -> R<()> {
        let width = width_of(ty);
        let n = count.unwrap_or(1) as usize;
        if self.regs.len() + n > MAX_REGS {
            return Err(LoadError::at(line, "too many registers"));
        }
        let first = self.regs.len() as i32;
        self.regs.extend(std::iter::repeat_n(width, n));
        match count {
            Some(count) => {
                if let Some(s) = self.scopes.last_mut() {
                    s.families.push(Family { prefix: name.to_string(), count, first, ty });
                }
            }
            None => self.bind(name, Binding::Reg(first, ty)),
        }
        Ok(())
    }

    pub fn lookup(&mut self, name: &str) -> Option<Binding> {
        let digits = name.len() - name.bytes().rev().take_while(u8::is_ascii_digit).count();
        let index = name[digits..].parse::<u32>().ok();
        for s in self.scopes.iter().rev() {
            if let Some(b) = s.names.get(name) {
                return Some(*b);
            }
            if let Some(index) = index {
                // `%r12` may be of family `%r` or, at another split of the digits, of `%r1`.
                for f in &s.families {
                    if let Some(rest) = name.strip_prefix(f.prefix.as_str())
                        && rest.len() <= name.len() - digits
                        && (rest.len() == 1 || !rest.starts_with('0'))
                        && let Ok(i) = if rest.len() == name.len() - digits { Ok(index) } else { rest.parse::<u32>() }
                        && i < f.count
                    {
                        return Some(Binding::Reg(f.first + i as i32, f.ty));
                    }
                }
            }
        }
        self.module_var(name)
    }

    /// A variable of the module; shared ones are given their place in this kernel when first named.
    fn module_var(&mut self, name: &str) -> Option<Binding> {
        let index = *self.module_names.get(name)?;
        if let Some(b) = self.module_bindings.get(&index) {
            return Some(*b);
        }
        let v = &self.module.vars[index as usize];
        let b = match v.space {
            Space::Shared if v.count == 0 => {
                self.shared_align = self.shared_align.max(v.align);
                Binding::DynamicShared
            }
            Space::Shared => self.place_shared(v)?,
            _ => Binding::Global(index),
        };
        self.module_bindings.insert(index, b);
        Some(b)
    }

    pub fn place_shared(&mut self, v: &Var) -> Option<Binding> {
        let at = self.shared_bytes.next_multiple_of(v.align);
        let end = u32::try_from(v.bytes()).ok().and_then(|b| at.checked_add(b)).filter(|e| *e < 1 << 24)?;
        self.shared_align = self.shared_align.max(v.align);
        self.shared_bytes = end;
        Some(Binding::Shared(at))
    }

    pub fn place_local(&mut self, v: &Var) -> R<Binding> {
        let at = self.local_bytes.next_multiple_of(v.align);
        let end = u32::try_from(v.bytes()).ok().and_then(|b| at.checked_add(b)).filter(|e| *e < 1 << 24);
        self.local_bytes =
            end.ok_or_else(|| LoadError::at(v.line, format!("{} is too large for local memory", v.name)))?;
        Ok(Binding::Local(at))
    }

    pub fn label(&mut self) -> u32 {
        self.labels.push(None);
        self.labels.len() as u32 - 1
    }

    pub fn set_label(&mut self, label: u32) {
        self.labels[label as usize] = Some(self.drafts.len() as u32);
    }

    // ---- registers and constants ----

    pub fn fresh(&mut self, w: Width) -> i32 {
        self.regs.push(w);
        self.regs.len() as i32 - 1
    }

    pub fn constant(&mut self, w: Width, c: Const) -> i32 {
        let w = if w == Width::Pred { Width::W32 } else { w };
        if let Some(i) = self.const_index.get(&(w, c)) {
            return *i;
        }
        self.consts.push((w, c));
        let i = !(self.consts.len() as i32 - 1);
        self.const_index.insert((w, c), i);
        i
    }

    pub fn bits(&mut self, w: Width, v: u64) -> i32 {
        let v = match w {
            Width::W16 => v & 0xffff,
            Width::W32 | Width::Pred => v & 0xffff_ffff,
            _ => v,
        };
        self.constant(w, Const::Bits(v))
    }

    pub fn special(&mut self, s: Special, w: Width) -> i32 {
        if let Some((.., r)) = self.specials.iter().find(|(t, x, _)| *t == s && *x == w) {
            return *r;
        }
        let r = self.fresh(w);
        self.specials.push((s, w, r));
        r
    }

    /// The width of an operand that was resolved.
    pub fn width(&self, o: i32) -> Width {
        if o < 0 { self.consts[!o as usize].0 } else { self.regs[o as usize] }
    }

    // ---- emission ----

    /// Begins an instruction: what is emitted from here on stands for it.
    pub fn begin(&mut self, i: &Instr) -> R<()> {
        self.current = Meta { line: i.line, loc: i.loc, class: Class::Control, first: true };
        self.guard = (NONE, 0);
        if self.drafts.len() > MAX_OPS {
            return Err(LoadError::at(i.line, "the kernel is too long after inlining its calls"));
        }
        if let Some(g) = &i.guard {
            match self.lookup(&g.name) {
                Some(Binding::Reg(r, Ty::Pred)) => self.guard = (r, if g.negated { !0 } else { 0 }),
                _ => return Err(LoadError::at(i.line, format!("{} is not a predicate", g.name))),
            }
        }
        Ok(())
    }

    pub fn set_guard(&mut self, g: (i32, u32)) {
        self.guard = g;
    }

    pub fn emit(&mut self, class: Class, mut op: Op, writes: u8, list: Vec<i32>, list_writes: usize) {
        let guard = self.guard;
        // Who waits for other threads must not keep lanes with it that do not take part.
        let around = matches!(class, Class::Barrier | Class::Warp).then(|| self.branch_around());
        (op.guard, op.flip) = self.guard;
        let meta = Meta { class, ..self.current };
        self.current.first = false;
        self.drafts.push(Draft { op, meta, writes, list, list_writes });
        if let Some(around) = around {
            self.set_label(around);
            self.guard = guard;
        }
    }

    /// Makes a guarded instruction unguarded behind a branch around it. Returns the label to be set after it.
    pub fn branch_around(&mut self) -> u32 {
        let around = self.label();
        if self.guard.0 != NONE {
            let op = Op { x: around, guard: self.guard.0, flip: !self.guard.1, ..Op::new(Run::Branch) };
            let meta = Meta { class: Class::Control, first: false, ..self.current };
            self.drafts.push(Draft { op, meta, writes: 0, list: Vec::new(), list_writes: 0 });
            self.guard = (NONE, 0);
        }
        around
    }

    /// An operation of arithmetic with up to four sources.
    pub fn alu(&mut self, class: Class, f: AluFn, d: i32, src: &[i32]) {
        let get = |i: usize| src.get(i).copied().unwrap_or(NONE);
        let op = Op { d, a: get(0), b: get(1), c: get(2), e: get(3), ..Op::new(Run::Alu(f)) };
        self.emit(class, op, D, Vec::new(), 0);
    }

    // ---- operands ----

    pub fn err<T>(&self, i: &Instr, message: impl std::fmt::Display) -> R<T> {
        Err(LoadError::at(i.line, format!("{}: {message}", i.opcode())))
    }

    pub fn arity(&self, i: &Instr, n: usize) -> R<()> {
        if i.operands.len() != n {
            return self.err(i, format!("takes {n} operands, not {}", i.operands.len()));
        }
        Ok(())
    }

    /// A destination register of this width.
    pub fn dst(&mut self, i: &Instr, o: &Operand, w: Width) -> R<i32> {
        match o {
            Operand::Sink => Ok(self.fresh(w)),
            Operand::Name(n) => match self.lookup(n) {
                Some(Binding::Reg(r, _)) if self.regs[r as usize] == w => Ok(r),
                Some(Binding::Reg(..)) => self.err(i, format!("{n} has another width than the result")),
                _ => self.err(i, format!("{n} is not a register")),
            },
            _ => self.err(i, "the result must be a register"),
        }
    }

    /// A source of type `ty`: register, literal, address of a variable or special register.
    pub fn src(&mut self, i: &Instr, o: &Operand, ty: Ty) -> R<i32> {
        let w = width_of(ty);
        match o {
            Operand::Name(n) => match self.lookup(n) {
                Some(Binding::Reg(r, _)) if self.regs[r as usize] == w => Ok(r),
                Some(Binding::Reg(..)) => self.err(i, format!("{n} has another width than {ty}")),
                Some(b) => self.address_of(i, n, b, 0, w),
                None => match super::special::special(n) {
                    Some(Ok(s)) => Ok(self.special(s, w)),
                    Some(Err(v)) => Ok(self.bits(w, v)),
                    None => self.err(i, format!("unknown name {n}")),
                },
            },
            Operand::Offset(n, offset) => match self.lookup(n) {
                Some(b) => self.address_of(i, n, b, *offset, w),
                None => self.err(i, format!("unknown name {n}")),
            },
            Operand::Int(v) if !matches!(ty, Ty::F32 | Ty::F64) => Ok(self.bits(w, *v as u64)),
            Operand::Int(v) if ty == Ty::F32 => Ok(self.bits(w, (*v as f32).to_bits() as u64)),
            Operand::Int(v) => Ok(self.bits(w, (*v as f64).to_bits())),
            Operand::F32(b) if w == Width::W32 => Ok(self.bits(w, *b as u64)),
            Operand::F32(b) if ty == Ty::F64 => Ok(self.bits(w, (f32::from_bits(*b) as f64).to_bits())),
            Operand::F64(b) if w == Width::W64 => Ok(self.bits(w, *b)),
            Operand::F64(b) if ty == Ty::F32 => Ok(self.bits(w, (f64::from_bits(*b) as f32).to_bits() as u64)),
            _ => self.err(i, format!("an operand that does not fit {ty}")),
        }
    }

    /// The address of a variable, in its own state space.
    fn address_of(&mut self, i: &Instr, name: &str, b: Binding, offset: i64, w: Width) -> R<i32> {
        let c = match b {
            Binding::Local(at) | Binding::Shared(at) | Binding::Param(at) => {
                Const::Bits((at as i64).wrapping_add(offset) as u64)
            }
            Binding::DynamicShared => Const::DynamicShared(offset),
            Binding::Global(v) if w == Width::W64 => Const::Global(v, offset),
            Binding::Global(_) => return self.err(i, format!("the address of {name} does not fit the register")),
            Binding::Reg(..) | Binding::Label(_) => return self.err(i, format!("{name} has no address")),
        };
        Ok(self.constant(w, c))
    }

    /// A predicate source: the register and whether it is negated.
    pub fn pred(&mut self, i: &Instr, o: &Operand) -> R<(i32, bool)> {
        match o {
            Operand::Not(inner) => {
                let (r, n) = self.pred(i, inner)?;
                Ok((r, !n))
            }
            Operand::Name(n) => match self.lookup(n) {
                Some(Binding::Reg(r, Ty::Pred)) => Ok((r, false)),
                _ => self.err(i, format!("{n} is not a predicate")),
            },
            Operand::Int(v) => {
                let r = self.fresh(Width::Pred);
                self.set_pred_const(r, *v != 0);
                Ok((r, false))
            }
            _ => self.err(i, "expected a predicate"),
        }
    }

    /// A predicate source that is never negated: a negated one is inverted into another register.
    pub fn pred_plain(&mut self, i: &Instr, o: &Operand) -> R<i32> {
        let (r, negated) = self.pred(i, o)?;
        if !negated {
            return Ok(r);
        }
        let d = self.fresh(Width::Pred);
        let f = crate::exec::lanes::masks(|a, _| !a);
        self.alu(Class::Predicate, f, d, &[r, r]);
        Ok(d)
    }

    pub fn set_pred_const(&mut self, d: i32, v: bool) {
        let f = if v { crate::exec::lanes::masks(|_, _| !0) } else { crate::exec::lanes::masks(|_, _| 0) };
        self.alu(Class::Predicate, f, d, &[d, d]);
    }

    /// The elements of a vector operand, or the operand itself.
    pub fn elements<'o>(&self, i: &Instr, o: &'o Operand, n: usize) -> R<&'o [Operand]> {
        let list = match o {
            Operand::Vector(v) => v.as_slice(),
            other => std::slice::from_ref(other),
        };
        if list.len() != n {
            return self.err(i, format!("expected {n} elements, found {}", list.len()));
        }
        Ok(list)
    }

    /// An address operand as a value and its width, with the constant offset apart, and what its base was bound to.
    pub fn address(&mut self, i: &Instr, o: &Operand) -> R<(i32, Width, i64, Option<Binding>)> {
        let Operand::Address { base, offset, rest } = o else { return self.err(i, "expected an address") };
        if !rest.is_empty() {
            return self.err(i, "an address with coordinates");
        }
        let Some(name) = base else { return Ok((self.bits(Width::W64, *offset as u64), Width::W64, 0, None)) };
        match self.lookup(name) {
            Some(b @ Binding::Reg(r, _)) => {
                let w = self.regs[r as usize];
                if !matches!(w, Width::W32 | Width::W64) {
                    return self.err(i, format!("{name} cannot hold an address"));
                }
                Ok((r, w, *offset, Some(b)))
            }
            Some(b) => Ok((self.address_of(i, name, b, *offset, Width::W64)?, Width::W64, 0, Some(b))),
            None => self.err(i, format!("unknown name {name}")),
        }
    }
}

/// The width of the register that holds a value of this type.
pub(crate) fn width_of(ty: Ty) -> Width {
    match ty.bytes() {
        0 => Width::Pred,
        1 | 2 => Width::W16,
        4 => Width::W32,
        8 => Width::W64,
        _ => Width::W128,
    }
}

/// The modifiers of an instruction, taken one by one; what nothing took is unknown.
pub(crate) struct Mods<'a> {
    list: &'a [String],
    used: u64,
}

impl<'a> Mods<'a> {
    pub fn new(i: &'a Instr) -> Mods<'a> {
        Mods { list: &i.mods, used: 0 }
    }

    /// Takes this modifier.
    pub fn take(&mut self, name: &str) -> bool {
        for (k, m) in self.list.iter().enumerate().take(64) {
            if self.used >> k & 1 == 0 && m == name {
                self.used |= 1 << k;
                return true;
            }
        }
        false
    }

    /// Takes the first of these that is there.
    pub fn any(&mut self, names: &[&'static str]) -> Option<&'static str> {
        names.iter().find(|n| self.take(n)).copied()
    }

    /// Takes the next modifier that is a type.
    pub fn ty(&mut self, i: &Instr) -> R<Ty> {
        for (k, m) in self.list.iter().enumerate().take(64) {
            if self.used >> k & 1 == 0
                && let Some(t) = Ty::of(m)
            {
                self.used |= 1 << k;
                return Ok(t);
            }
        }
        Err(LoadError::at(i.line, format!("{}: no type", i.opcode())))
    }

    /// An error if a modifier was not taken.
    pub fn finish(&self, i: &Instr) -> R<()> {
        for (k, m) in self.list.iter().enumerate() {
            if k >= 64 || self.used >> k & 1 == 0 {
                return Err(LoadError::at(i.line, format!("{}: unknown modifier .{m}", i.opcode())));
            }
        }
        Ok(())
    }
}
