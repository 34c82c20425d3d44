//! Decoders of control flow, and of what stops or delays a thread.

use super::builder::{Binding, Builder, Mods, R};
use crate::exec::misc;
use crate::program::{Class, Op, Run};
use crate::ptx::ast::{Instr, Operand, Ty};

fn label(b: &mut Builder, i: &Instr, name: &str) -> R<u32> {
    match b.lookup(name) {
        Some(Binding::Label(l)) => Ok(l),
        _ => b.err(i, format!("{name} is not a label here")),
    }
}

/// `bra`.
pub(super) fn branch(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    m.take("uni");
    m.finish(i)?;
    b.arity(i, 1)?;
    let Operand::Name(n) = &i.operands[0] else { return b.err(i, "expected a label") };
    let x = label(b, i, n)?;
    b.emit(Class::Control, Op { x, ..Op::new(Run::Branch) }, 0, Vec::new(), 0);
    Ok(())
}

/// `brx.idx`.
pub(super) fn branch_indexed(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    let indexed = m.take("idx");
    m.take("uni");
    m.finish(i)?;
    b.arity(i, 2)?;
    let Operand::Name(list) = &i.operands[1] else { return b.err(i, "expected a list of targets") };
    let Some(names) = b.table(list).filter(|_| indexed) else { return b.err(i, format!("no list {list}")) };
    let a = b.src(i, &i.operands[0], Ty::U32)?;
    let targets = names.iter().map(|n| label(b, i, n)).collect::<R<Vec<_>>>()?;
    let around = b.branch_around();
    b.tables.push(targets);
    let x = b.tables.len() as u32 - 1;
    b.emit(Class::Control, Op { a, x, ..Op::new(Run::BranchIndex) }, 0, Vec::new(), 0);
    b.set_label(around);
    Ok(())
}

/// `ret`: the end of the thread in a kernel, a branch to the end of the body in a function.
pub(super) fn ret(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    m.take("uni");
    m.finish(i)?;
    b.arity(i, 0)?;
    let op = match b.returns.last() {
        Some(end) => Op { x: *end, ..Op::new(Run::Branch) },
        None => Op::new(Run::Exit),
    };
    b.emit(Class::Control, op, 0, Vec::new(), 0);
    Ok(())
}

/// `exit`.
pub(super) fn exit(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    m.finish(i)?;
    b.arity(i, 0)?;
    b.emit(Class::Control, Op::new(Run::Exit), 0, Vec::new(), 0);
    Ok(())
}

/// `trap`, `brkpt`: both end the kernel.
pub(super) fn trap(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    m.finish(i)?;
    b.arity(i, 0)?;
    b.emit(Class::Control, Op::new(Run::Sys(misc::trap)), 0, Vec::new(), 0);
    Ok(())
}

/// `nanosleep`.
pub(super) fn sleep(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    let ty = m.ty(i)?;
    m.finish(i)?;
    b.arity(i, 1)?;
    b.src(i, &i.operands[0], ty)?;
    b.emit(Class::Control, Op::new(Run::Sys(misc::sleep)), 0, Vec::new(), 0);
    Ok(())
}

/// `pmevent`, `griddepcontrol`: a mark for profilers, and the order of kernels that follow each other, which is full
/// order here.
pub(super) fn nothing(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    if i.name == "griddepcontrol" && m.any(&["wait", "launch_dependents"]).is_none() {
        return b.err(i, "wait or launch_dependents is missing");
    }
    m.take("mask");
    m.finish(i)?;
    b.emit(Class::Control, Op::new(Run::Nop), 0, Vec::new(), 0);
    Ok(())
}
