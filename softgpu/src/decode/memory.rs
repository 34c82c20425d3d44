//! Decoders of loads, stores, atomics and hints about memory.

use super::builder::{Binding, Builder, D, Mods, R, width_of};
use crate::exec::atomic::{Rmw, atomic};
use crate::exec::{access, lanes, sync};
use crate::program::{Class, Mem, MemSpace, NONE, Op, Order, Run, Width};
use crate::ptx::ast::{Instr, Operand, Ty};

const SPACES: [&str; 9] =
    ["global", "shared", "shared::cta", "local", "const", "param", "param::entry", "param::func", "generic"];

/// Modifiers about caches, which only matter to speed.
fn caching(m: &mut Mods) -> bool {
    let hinted = m.take("L2::cache_hint");
    while m
        .any(&[
            "ca",
            "cg",
            "cs",
            "lu",
            "cv",
            "wb",
            "wt",
            "nc",
            "L1::no_allocate",
            "L1::evict_first",
            "L1::evict_last",
            "L1::evict_normal",
            "L1::evict_unchanged",
            "L2::64B",
            "L2::128B",
            "L2::256B",
            "L2::evict_first",
            "L2::evict_last",
            "L2::evict_normal",
        ])
        .is_some()
    {}
    hinted
}

/// Order and scope of an access. The scope is not told apart: more order than asked for hides no race that these checks
/// look for.
fn order(m: &mut Mods, atomic: bool) -> Order {
    let sem = m.any(&["weak", "volatile", "relaxed", "acquire", "release", "acq_rel", "mmio"]);
    m.take("relaxed");
    m.any(&["cta", "cluster", "gpu", "sys"]);
    match sem {
        Some("volatile" | "relaxed" | "mmio") => Order { strong: true, ..Order::default() },
        Some("acquire") => Order { strong: true, acquire: true, release: false },
        Some("release") => Order { strong: true, acquire: false, release: true },
        Some("acq_rel") => Order { strong: true, acquire: true, release: true },
        _ => Order { strong: atomic, ..Order::default() },
    }
}

fn space_of(name: Option<&str>, bound: Option<Binding>) -> MemSpace {
    match (name, bound) {
        // Parameters of inlined functions, and of calls, lie in local memory.
        (Some("param" | "param::func" | "param::entry"), Some(Binding::Local(_))) => MemSpace::Local,
        (Some("param" | "param::entry" | "param::func"), _) => MemSpace::Param,
        (Some("shared" | "shared::cta"), _) => MemSpace::Shared,
        (Some("local"), _) => MemSpace::Local,
        (Some("global" | "const"), _) => MemSpace::Global,
        (_, Some(Binding::Shared(_) | Binding::DynamicShared)) => MemSpace::Shared,
        (_, Some(Binding::Local(_))) => MemSpace::Local,
        (_, Some(Binding::Global(_))) => MemSpace::Global,
        (_, Some(Binding::Param(_))) => MemSpace::Param,
        _ => MemSpace::Generic,
    }
}

fn class_of(s: MemSpace) -> Class {
    match s {
        MemSpace::Global => Class::Global,
        MemSpace::Shared => Class::Shared,
        MemSpace::Local => Class::Local,
        MemSpace::Param => Class::Param,
        MemSpace::Generic => Class::Generic,
    }
}

impl Builder<'_> {
    /// Takes note of an access of `bytes` that may be to shared memory.
    pub(super) fn shared_access(&mut self, space: MemSpace, bytes: u32) {
        if matches!(space, MemSpace::Shared | MemSpace::Generic) {
            self.grain = self.grain.min(bytes.max(1));
        }
    }

    fn mem(&mut self, m: Mem) -> u32 {
        self.mems.push(m);
        self.synchronises |= m.order.acquire || m.order.release;
        self.mems.len() as u32 - 1
    }
}

/// The element type, width and count of a vector, and the registers' width: they may be wider than the elements.
fn registers(b: &mut Builder, i: &Instr, o: &Operand, ty: Ty, count: usize, write: bool) -> R<(Vec<i32>, Width)> {
    let parts: Vec<Operand> = b.elements(i, o, count)?.to_vec();
    let mut width = None;
    for p in &parts {
        if let Operand::Name(n) = p
            && let Some(Binding::Reg(r, _)) = b.lookup(n)
        {
            let w = b.width(r);
            if w == Width::Pred || w.bytes() < ty.bytes() || width.is_some_and(|x| x != w) {
                return b.err(i, format!("{n} does not hold a {ty}"));
            }
            width = Some(w);
        }
    }
    let width = width.unwrap_or(width_of(ty));
    let as_ty = match width {
        Width::W16 => Ty::B16,
        Width::W32 if ty == Ty::F32 => Ty::F32,
        Width::W32 => Ty::B32,
        Width::W64 if ty == Ty::F64 => Ty::F64,
        Width::W64 => Ty::B64,
        _ => Ty::B128,
    };
    let mut out = Vec::with_capacity(parts.len());
    for p in &parts {
        out.push(if write { b.dst(i, p, width)? } else { b.src(i, p, as_ty)? });
    }
    Ok((out, width))
}

fn vector(m: &mut Mods) -> usize {
    match m.any(&["v2", "v4", "v8"]) {
        Some("v2") => 2,
        Some("v4") => 4,
        Some(_) => 8,
        None => 1,
    }
}

/// `ld`, `ldu`.
pub(super) fn load(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    let order = order(m, false);
    let space = m.any(&SPACES);
    let hinted = caching(m);
    let count = vector(m);
    let ty = m.ty(i)?;
    m.finish(i)?;
    if i.operands.len() != 2 + hinted as usize {
        return b.err(i, "a wrong number of operands");
    }
    let (address, width, offset, bound) = b.address(i, &i.operands[1])?;
    let (list, reg) = registers(b, i, &i.operands[0], ty, count, true)?;
    let space = space_of(space, bound);
    let size = ty.bytes();
    if size == 0 || size * count as u32 > 32 {
        return b.err(i, "not of this type or size");
    }
    b.shared_access(space, size * count as u32);
    let mem =
        Mem { space, size, count: count as u32, width: reg, signed: ty.signed(), address: width, order, offset: 0 };
    let x = b.mem(mem);
    let n = list.len();
    if space == MemSpace::Param
        && let (Operand::Address { base: Some(name), offset: more, .. }, Some(Binding::Param(at))) =
            (&i.operands[1], bound)
    {
        let _ = name;
        let op = Op { x, imm: at as i64 + more, ..Op::new(Run::Sys(access::load_param)) };
        b.emit(Class::Param, op, 0, list, n);
        return Ok(());
    }
    let op = Op { a: address, x, imm: offset, ..Op::new(Run::Sys(access::load)) };
    b.emit(class_of(space), op, 0, list, n);
    Ok(())
}

/// `st`.
pub(super) fn store(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    let order = order(m, false);
    let space = m.any(&SPACES);
    let hinted = caching(m);
    let count = vector(m);
    let ty = m.ty(i)?;
    m.finish(i)?;
    if i.operands.len() != 2 + hinted as usize {
        return b.err(i, "a wrong number of operands");
    }
    let (address, width, offset, bound) = b.address(i, &i.operands[0])?;
    let (list, reg) = registers(b, i, &i.operands[1], ty, count, false)?;
    let space = space_of(space, bound);
    let size = ty.bytes();
    if size == 0 || size * count as u32 > 32 {
        return b.err(i, "not of this type or size");
    }
    b.shared_access(space, size * count as u32);
    let x =
        b.mem(Mem { space, size, count: count as u32, width: reg, signed: false, address: width, order, offset: 0 });
    let op = Op { a: address, x, imm: offset, ..Op::new(Run::Sys(access::store)) };
    b.emit(class_of(space), op, 0, list, 0);
    Ok(())
}

fn rmw(name: &str, ty: Ty, ftz: bool) -> Option<Rmw> {
    let signed = ty.signed();
    Some(match (name, ty) {
        ("exch", Ty::B32 | Ty::B64) => Rmw::Exchange,
        ("cas", Ty::B16 | Ty::B32 | Ty::B64) => Rmw::CompareSwap,
        ("add", Ty::U32 | Ty::S32 | Ty::U64 | Ty::S64) => Rmw::Add,
        ("add", Ty::F32) if ftz => Rmw::AddF32Ftz,
        ("add", Ty::F32) => Rmw::AddF32,
        ("add", Ty::F64) => Rmw::AddF64,
        ("add", Ty::F16) => Rmw::AddF16,
        ("add", Ty::BF16) => Rmw::AddBF16,
        ("add", Ty::F16x2) => Rmw::AddF16x2,
        ("add", Ty::BF16x2) => Rmw::AddBF16x2,
        ("and", Ty::B32 | Ty::B64) => Rmw::And,
        ("or", Ty::B32 | Ty::B64) => Rmw::Or,
        ("xor", Ty::B32 | Ty::B64) => Rmw::Xor,
        ("min", Ty::F16) => Rmw::MinF16,
        ("max", Ty::F16) => Rmw::MaxF16,
        ("min", Ty::BF16) => Rmw::MinBF16,
        ("max", Ty::BF16) => Rmw::MaxBF16,
        ("min", Ty::S32 | Ty::S64) if signed => Rmw::MinS,
        ("max", Ty::S32 | Ty::S64) if signed => Rmw::MaxS,
        ("min", Ty::U32 | Ty::U64) => Rmw::MinU,
        ("max", Ty::U32 | Ty::U64) => Rmw::MaxU,
        ("inc", Ty::U32) => Rmw::Inc,
        ("dec", Ty::U32) => Rmw::Dec,
        _ => return None,
    })
}

/// `atom`, `red`.
pub(super) fn atom(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    let order = order(m, true);
    let space = m.any(&["global", "shared", "shared::cta", "generic"]);
    let Some(name) = m.any(&["exch", "cas", "add", "and", "or", "xor", "min", "max", "inc", "dec"]) else {
        return b.err(i, "no operation");
    };
    m.take("noftz");
    let ftz = m.take("ftz");
    let hinted = caching(m);
    let count = vector(m);
    let ty = m.ty(i)?;
    m.finish(i)?;
    let Some(kind) = rmw(name, ty, ftz) else { return b.err(i, format!("not for {ty}")) };
    let returns = i.name == "atom";
    if !returns && matches!(kind, Rmw::Exchange | Rmw::CompareSwap) {
        return b.err(i, "only with a result");
    }
    let operands = &i.operands[..i.operands.len() - (hinted && !i.operands.is_empty()) as usize];
    let values = if kind == Rmw::CompareSwap { 2 } else { 1 };
    if operands.len() != returns as usize + 1 + values {
        return b.err(i, "a wrong number of operands");
    }
    let w = width_of(ty);
    let mut list = Vec::new();
    if returns {
        for p in b.elements(i, &operands[0], count)?.to_vec() {
            list.push(if p == Operand::Sink { NONE } else { b.dst(i, &p, w)? });
        }
    } else {
        list.resize(count, NONE);
    }
    let rest = &operands[returns as usize..];
    let (address, width, offset, bound) = b.address(i, &rest[0])?;
    for v in &rest[1..] {
        for p in b.elements(i, v, count)?.to_vec() {
            list.push(b.src(i, &p, ty)?);
        }
    }
    let space = space_of(space, bound);
    if !(-(1i64 << 55)..1 << 55).contains(&offset) {
        return b.err(i, "an offset too large");
    }
    b.shared_access(space, ty.bytes() * count as u32);
    let mem =
        Mem { space, size: ty.bytes(), count: count as u32, width: w, signed: false, address: width, order, offset: 0 };
    let x = b.mem(mem);
    let imm = (kind as i64) << 56 | (offset & 0xff_ffff_ffff_ffff);
    let op = Op { a: address, x, imm, ..Op::new(Run::Sys(atomic)) };
    b.emit(Class::Atomic, op, 0, list, if returns { count } else { 0 });
    Ok(())
}

/// `fence`, `membar`.
pub(super) fn fence(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    b.arity(i, 0)?;
    let scope = if i.name == "membar" {
        m.any(&["cta", "gl", "sys"])
    } else {
        m.any(&["acq_rel", "sc", "acquire", "release"]);
        m.any(&["cta", "cluster", "gpu", "sys"])
    };
    m.finish(i)?;
    let Some(scope) = scope else { return b.err(i, "no scope") };
    b.synchronises = true;
    let op = Op { imm: (scope != "cta") as i64, ..Op::new(Run::Sys(sync::fence)) };
    b.emit(Class::Barrier, op, 0, Vec::new(), 0);
    Ok(())
}

/// `prefetch`, `prefetchu`, `applypriority`, `discard`: nothing to do; `discard` would make what it names unwritten.
pub(super) fn hint(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    m.any(&["global", "local"]);
    while m.any(&["L1", "L2", "L2::evict_last", "L2::evict_normal", "tensormap", "param", "const"]).is_some() {}
    m.finish(i)?;
    if !i.operands.is_empty() {
        b.address(i, &i.operands[0])?;
    }
    b.emit(Class::Control, Op::new(Run::Nop), 0, Vec::new(), 0);
    Ok(())
}

/// `createpolicy`: a cache policy is a number that nothing reads.
pub(super) fn policy(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    while m
        .any(&[
            "fractional",
            "range",
            "cvt",
            "L2",
            "global",
            "L2::evict_last",
            "L2::evict_normal",
            "L2::evict_first",
            "L2::evict_unchanged",
        ])
        .is_some()
    {}
    let ty = m.ty(i)?;
    m.finish(i)?;
    if ty != Ty::B64 || i.operands.is_empty() {
        return b.err(i, "needs .b64");
    }
    let d = b.dst(i, &i.operands[0], Width::W64)?;
    let zero = b.bits(Width::W64, 0);
    let op = Op { d, a: zero, ..Op::new(Run::Alu(lanes::map1(|a: u64| a))) };
    b.emit(Class::Move, op, D, Vec::new(), 0);
    Ok(())
}
