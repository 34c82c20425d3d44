//! One kernel: its body in a row, calls inlined, names resolved, then placed.

use std::collections::HashMap;

use super::builder::{Binding, Builder, Mods, R, Scope, width_of};
use super::table::entry;
use super::{flow, place};
use crate::error::LoadError;
use crate::program::{Class, Kernel, NONE, Op, Param, Run};
use crate::ptx::ast::*;

/// Calls within calls beyond which a kernel is refused.
const MAX_CALLS: usize = 64;

pub(crate) fn decode<'m>(module: &'m Module, f: &'m Function, names: &HashMap<&'m str, u32>) -> R<Kernel> {
    let mut b = Builder::new(module, names.clone());
    b.scopes.push(Scope::default());
    let mut params = Vec::new();
    let mut bytes = 0u32;
    for p in &f.params {
        let size = u32::try_from(p.bytes()).ok().filter(|s| *s <= 1 << 16);
        let Some(size) = size else { return Err(LoadError::at(p.line, format!("parameter {} is too large", p.name))) };
        let offset = bytes.next_multiple_of(p.align);
        bytes = offset + size;
        if bytes > 1 << 16 {
            return Err(LoadError::at(p.line, "more than 65536 bytes of parameters"));
        }
        params.push(Param { offset, size });
        b.bind(&p.name, Binding::Param(offset));
    }
    body(&mut b, f)?;
    let mut kernel = finish(b, &f.name)?;
    kernel.params = params;
    kernel.param_bytes = bytes;
    kernel.reqntid = f.reqntid;
    kernel.maxntid = f.maxntid;
    kernel.maxnreg = f.maxnreg;
    Ok(kernel)
}

/// Decodes a device function by itself, to know that all it holds is known.
pub(crate) fn check_function<'m>(module: &'m Module, f: &'m Function, names: &HashMap<&'m str, u32>) -> R<()> {
    let mut b = Builder::new(module, names.clone());
    b.scopes.push(Scope::default());
    for p in f.params.iter().chain(&f.returns) {
        bind_own(&mut b, p)?;
    }
    b.calls.push(&f.name);
    let end = b.label();
    b.returns.push(end);
    body(&mut b, f)?;
    b.set_label(end);
    finish(b, &f.name).map(|_| ())
}

/// Gives a parameter of a device function a register or memory of its own.
fn bind_own(b: &mut Builder, p: &Var) -> R<()> {
    let place = if p.register { Binding::Reg(b.fresh(width_of(p.ty)), p.ty) } else { b.place_local(p)? };
    b.bind(&p.name, place);
    Ok(())
}

fn finish(mut b: Builder, name: &str) -> R<Kernel> {
    // Falling off the end of a body ends the thread.
    b.set_guard((NONE, 0));
    b.emit(Class::Control, Op::new(Run::Exit), 0, Vec::new(), 0);
    flow::resolve(&mut b)?;
    Ok(place::place(b, name))
}

fn body<'m>(b: &mut Builder<'m>, f: &'m Function) -> R<()> {
    let Some(stmts) = &f.body else { return Err(LoadError::at(f.line, format!("{} has no body", f.name))) };
    statements(b, stmts)
}

fn statements<'m>(b: &mut Builder<'m>, stmts: &'m [Stmt]) -> R<()> {
    b.scopes.push(Scope::default());
    for s in stmts {
        match s {
            Stmt::Label(name, _) => {
                let l = b.label();
                b.bind(name, Binding::Label(l));
            }
            Stmt::Targets(name, targets) => b.bind_table(name, targets),
            _ => {}
        }
    }
    for s in stmts {
        match s {
            Stmt::Reg { ty, names, line } => {
                for (name, count) in names {
                    b.declare_regs(*ty, name, *count, *line)?;
                }
            }
            Stmt::Var(v) => declare(b, v)?,
            Stmt::Label(name, _) => {
                if let Some(Binding::Label(l)) = b.lookup(name) {
                    b.set_label(l);
                }
            }
            Stmt::Block(inner) => statements(b, inner)?,
            Stmt::Targets(..) => {}
            Stmt::Instr(i) => {
                b.begin(i)?;
                if i.name == "call" {
                    call(b, i)?;
                    continue;
                }
                let Some(e) = entry(&i.name) else {
                    return Err(LoadError::at(i.line, format!("unknown instruction {}", i.opcode())));
                };
                let mut mods = Mods::new(i);
                (e.decode)(b, i, &mut mods)?;
            }
        }
    }
    b.scopes.pop();
    Ok(())
}

fn declare(b: &mut Builder, v: &Var) -> R<()> {
    let place = match v.space {
        Space::Local | Space::Param => b.place_local(v)?,
        Space::Shared if v.count == 0 => Binding::DynamicShared,
        Space::Shared => {
            let p = b.place_shared(v);
            p.ok_or_else(|| LoadError::at(v.line, format!("{} is too large for shared memory", v.name)))?
        }
        Space::Global | Space::Const => {
            return Err(LoadError::at(v.line, format!("{}: variables of a body are local, shared or param", v.name)));
        }
    };
    b.bind(&v.name, place);
    Ok(())
}

/// A call: the function's body stands in its place, with names of its own.
fn call<'m>(b: &mut Builder<'m>, i: &'m Instr) -> R<()> {
    let mut mods = Mods::new(i);
    mods.take("uni");
    mods.finish(i)?;
    let mut operands = i.operands.as_slice();
    let results = match operands {
        [Operand::List(l), rest @ ..] => {
            operands = rest;
            l.as_slice()
        }
        _ => &[],
    };
    let (name, args) = match operands {
        [Operand::Name(n)] => (n, &[][..]),
        [Operand::Name(n), Operand::List(a)] => (n, a.as_slice()),
        _ => return b.err(i, "a call that is not of a known function"),
    };
    let f = b.module.functions.iter().filter(|f| !f.entry && f.name == *name).max_by_key(|f| f.body.is_some());
    let Some(f) = f else { return b.err(i, format!("unknown function {name}")) };
    if f.body.is_none() {
        return b.err(i, format!("{name} is defined nowhere (functions of the device runtime are not supported)"));
    }
    if b.calls.contains(&f.name.as_str()) {
        return b.err(i, format!("{name} calls itself: recursion is not supported"));
    }
    if b.calls.len() >= MAX_CALLS {
        return b.err(i, "calls nested too deep");
    }
    if results.len() != f.returns.len() || args.len() != f.params.len() {
        return b.err(i, format!("{name} takes {} arguments and returns {}", f.params.len(), f.returns.len()));
    }
    let mut bound = Vec::new();
    let mut back = Vec::new();
    for (p, a) in f.params.iter().zip(args) {
        bound.push((p, argument(b, i, p, a)?));
    }
    for (p, r) in f.returns.iter().zip(results) {
        let place = result(b, i, p, r)?;
        if let Binding::Reg(own, _) = place {
            back.push((p, r, own));
        }
        bound.push((p, place));
    }
    let around = b.branch_around();
    let outer = std::mem::replace(&mut b.scopes, vec![Scope::default()]);
    for (p, place) in bound {
        b.bind(&p.name, place);
    }
    let end = b.label();
    b.calls.push(&f.name);
    b.returns.push(end);
    body(b, f).map_err(|e| e.within(&f.name))?;
    b.returns.pop();
    b.calls.pop();
    b.set_label(end);
    b.scopes = outer;
    b.begin(&Instr { guard: None, ..i.clone() })?;
    for (p, r, own) in back {
        let d = b.dst(i, r, width_of(p.ty))?;
        super::logic::copy(b, p.ty, d, own);
    }
    b.set_label(around);
    Ok(())
}

/// What a parameter of the function is bound to: the caller's own memory, or a register with a copy.
fn argument<'m>(b: &mut Builder<'m>, i: &Instr, p: &Var, a: &Operand) -> R<Binding> {
    if !p.register {
        if let Operand::Name(n) = a
            && let Some(place @ Binding::Local(_)) = b.lookup(n)
        {
            return Ok(place);
        }
        return b.err(i, format!("argument {} must be a .param variable", p.name));
    }
    let own = b.fresh(width_of(p.ty));
    let v = b.src(i, a, p.ty)?;
    super::logic::copy(b, p.ty, own, v);
    Ok(Binding::Reg(own, p.ty))
}

fn result<'m>(b: &mut Builder<'m>, i: &Instr, p: &Var, r: &Operand) -> R<Binding> {
    if p.register {
        return Ok(Binding::Reg(b.fresh(width_of(p.ty)), p.ty));
    }
    match r {
        Operand::Name(n) => match b.lookup(n) {
            Some(place @ Binding::Local(_)) => Ok(place),
            _ => b.err(i, format!("{n} must be a .param variable")),
        },
        Operand::Sink => b.place_local(p),
        _ => b.err(i, "a result must be a .param variable"),
    }
}
