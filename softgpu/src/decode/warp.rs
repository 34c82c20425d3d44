//! Decoders of barriers and of operations across lanes.

use super::builder::{Builder, D, Mods, R};
use crate::exec::{collective, sync};
use crate::program::{Class, NONE, Op, Run, Width};
use crate::ptx::ast::{Instr, Operand, Ty};

/// `bar`, `barrier`.
pub(super) fn barrier(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    if m.take("warp") {
        let sync_mod = m.take("sync");
        m.finish(i)?;
        b.arity(i, 1)?;
        if !sync_mod {
            return b.err(i, "sync is missing");
        }
        let a = b.src(i, &i.operands[0], Ty::B32)?;
        b.emit(Class::Barrier, Op { a, ..Op::new(Run::Sys(sync::warp_sync)) }, 0, Vec::new(), 0);
        return Ok(());
    }
    m.take("cta");
    let Some(what) = m.any(&["sync", "arrive", "red"]) else { return b.err(i, "sync, arrive or red is missing") };
    let aligned = m.take("aligned") || i.name == "bar";
    let reduction = if what == "red" { m.any(&["and", "or", "popc"]) } else { None };
    if what == "red" {
        let ty = m.ty(i)?;
        let fits = matches!((reduction, ty), (Some("and" | "or"), Ty::Pred) | (Some("popc"), Ty::U32));
        if !fits {
            return b.err(i, "and.pred, or.pred or popc.u32 is missing");
        }
    }
    m.finish(i)?;
    let (result, rest) = if what == "red" {
        let [d, rest @ ..] = i.operands.as_slice() else { return b.err(i, "no result") };
        let Some((p, rest)) = rest.split_last() else { return b.err(i, "no predicate") };
        (Some((d, p)), rest)
    } else {
        (None, i.operands.as_slice())
    };
    if rest.is_empty() || rest.len() > 2 || (what == "arrive" && rest.len() != 2) {
        return b.err(i, "a wrong number of operands");
    }
    let id = b.src(i, &rest[0], Ty::B32)?;
    let count = rest.get(1).map(|o| b.src(i, o, Ty::B32)).transpose()?.unwrap_or(NONE);
    let kind = match reduction {
        Some("and") => 1,
        Some("or") => 2,
        Some(_) => 3,
        None => 0,
    };
    let imm = (what != "arrive") as i64 * sync::WAITS + aligned as i64 * sync::ALIGNED + kind * sync::REDUCTION;
    let mut op = Op { a: id, b: count, imm, ..Op::new(Run::Sys(sync::barrier)) };
    let mut writes = 0;
    if let Some((d, p)) = result {
        op.d = b.dst(i, d, if kind == 3 { Width::W32 } else { Width::Pred })?;
        let (p, negated) = b.pred(i, p)?;
        (op.c, op.x) = (p, negated as u32);
        writes = D;
    }
    b.emit(Class::Barrier, op, writes, Vec::new(), 0);
    Ok(())
}

/// `shfl.sync`.
pub(super) fn shuffle(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    if !m.take("sync") {
        return b.err(i, "only .sync");
    }
    let Some(mode) = m.any(&collective::SHUFFLE_MODES) else { return b.err(i, "no mode") };
    let ty = m.ty(i)?;
    m.finish(i)?;
    b.arity(i, 5)?;
    if ty.bytes() != 4 {
        return b.err(i, format!("not for {ty}"));
    }
    let (d, p) = match &i.operands[0] {
        Operand::Pair(d, p) => (d.as_ref(), Some(p.as_ref())),
        d => (d, None),
    };
    let d = b.dst(i, d, Width::W32)?;
    let p = match p {
        Some(p) => b.dst(i, p, Width::Pred)?,
        None => NONE,
    };
    let a = b.src(i, &i.operands[1], Ty::B32)?;
    let (lane, control) = (b.src(i, &i.operands[2], Ty::B32)?, b.src(i, &i.operands[3], Ty::B32)?);
    let e = b.src(i, &i.operands[4], Ty::B32)?;
    let imm = collective::SHUFFLE_MODES.iter().position(|s| *s == mode).unwrap_or(0) as i64;
    let op = Op { d, a, b: lane, c: control, e, imm, ..Op::new(Run::Sys(collective::shuffle)) };
    b.emit(Class::Warp, op, D, vec![p], 1);
    Ok(())
}

/// `vote.sync`.
pub(super) fn vote(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    if !m.take("sync") {
        return b.err(i, "only .sync");
    }
    let Some(mode) = m.any(&["all", "any", "uni", "ballot"]) else { return b.err(i, "no mode") };
    let ty = m.ty(i)?;
    m.finish(i)?;
    b.arity(i, 3)?;
    let (imm, want) = match mode {
        "all" => (0, Ty::Pred),
        "any" => (1, Ty::Pred),
        "uni" => (2, Ty::Pred),
        _ => (3, Ty::B32),
    };
    if ty != want {
        return b.err(i, format!("not for {ty}"));
    }
    let d = b.dst(i, &i.operands[0], if imm == 3 { Width::W32 } else { Width::Pred })?;
    let (a, negated) = b.pred(i, &i.operands[1])?;
    let members = b.src(i, &i.operands[2], Ty::B32)?;
    let op = Op { d, a, b: members, x: negated as u32, imm, ..Op::new(Run::Sys(collective::vote)) };
    b.emit(Class::Warp, op, D, Vec::new(), 0);
    Ok(())
}

/// `match.sync`.
pub(super) fn matching(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    let mode = m.any(&["any", "all"]);
    let sync_mod = m.take("sync");
    let ty = m.ty(i)?;
    m.finish(i)?;
    b.arity(i, 3)?;
    let (Some(mode), true, Ty::B32 | Ty::B64) = (mode, sync_mod, ty) else {
        return b.err(i, "needs any or all, sync, b32 or b64");
    };
    let (d, p) = match &i.operands[0] {
        Operand::Pair(d, p) if mode == "all" => (d.as_ref(), Some(p.as_ref())),
        d => (d, None),
    };
    let d = b.dst(i, d, Width::W32)?;
    let c = match p {
        Some(p) => b.dst(i, p, Width::Pred)?,
        None => NONE,
    };
    let a = b.src(i, &i.operands[1], ty)?;
    let members = b.src(i, &i.operands[2], Ty::B32)?;
    let op = Op {
        d,
        a,
        b: members,
        c,
        x: ty.bytes(),
        imm: (mode == "all") as i64,
        ..Op::new(Run::Sys(collective::matching))
    };
    b.emit(Class::Warp, op, D | 8, Vec::new(), 0);
    Ok(())
}

/// `redux.sync`.
pub(super) fn reduce(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    let sync_mod = m.take("sync");
    let Some(kind) = m.any(&collective::REDUCTIONS).filter(|_| sync_mod) else {
        return b.err(i, "needs .sync and a kind");
    };
    let ty = m.ty(i)?;
    m.finish(i)?;
    b.arity(i, 3)?;
    let k = collective::REDUCTIONS.iter().position(|s| *s == kind).unwrap_or(0);
    let fits = if k < 3 { matches!(ty, Ty::U32 | Ty::S32) } else { ty == Ty::B32 };
    if !fits {
        return b.err(i, format!("not for {ty}"));
    }
    let d = b.dst(i, &i.operands[0], Width::W32)?;
    let (a, members) = (b.src(i, &i.operands[1], ty)?, b.src(i, &i.operands[2], Ty::B32)?);
    let op = Op { d, a, b: members, x: ty.signed() as u32, imm: k as i64, ..Op::new(Run::Sys(collective::reduce)) };
    b.emit(Class::Warp, op, D, Vec::new(), 0);
    Ok(())
}

/// `activemask`.
pub(super) fn active(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    let ty = m.ty(i)?;
    m.finish(i)?;
    b.arity(i, 1)?;
    if ty != Ty::B32 {
        return b.err(i, format!("not for {ty}"));
    }
    let d = b.dst(i, &i.operands[0], Width::W32)?;
    b.emit(Class::Warp, Op { d, ..Op::new(Run::Sys(collective::active)) }, D, Vec::new(), 0);
    Ok(())
}

/// `elect.sync`.
pub(super) fn elect(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    if !m.take("sync") {
        return b.err(i, "only .sync");
    }
    m.finish(i)?;
    b.arity(i, 2)?;
    let Operand::Pair(d, p) = &i.operands[0] else { return b.err(i, "needs two results, d|p") };
    let d = if **d == Operand::Sink { NONE } else { b.dst(i, d, Width::W32)? };
    let c = b.dst(i, p, Width::Pred)?;
    let members = b.src(i, &i.operands[1], Ty::B32)?;
    let op = Op { d, b: members, c, ..Op::new(Run::Sys(collective::elect)) };
    b.emit(Class::Warp, op, D | 8, Vec::new(), 0);
    Ok(())
}
