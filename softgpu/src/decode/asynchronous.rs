//! Decoder of `cp.async`. (Bulk copies and tensor maps will stand beside it.)

use super::builder::{Builder, Mods, R};
use crate::exec::{asynchronous, lanes};
use crate::program::{Class, Mem, MemSpace, NONE, Op, Order, Run, Width};
use crate::ptx::ast::{Instr, Operand, Ty};

/// `cp`.
pub(super) fn copy(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    if !m.take("async") {
        return b.err(i, "only cp.async");
    }
    if m.take("commit_group") {
        m.finish(i)?;
        b.arity(i, 0)?;
        b.emit(Class::AsyncCopy, Op::new(Run::Sys(asynchronous::commit)), 0, Vec::new(), 0);
        return Ok(());
    }
    let group = m.take("wait_group");
    if group || m.take("wait_all") {
        m.finish(i)?;
        b.arity(i, group as usize)?;
        let imm = match i.operands.first() {
            Some(Operand::Int(n)) if (0..=i32::MAX as i128).contains(n) => *n as i64,
            None => -1,
            _ => return b.err(i, "the number of groups must be a number"),
        };
        b.emit(Class::AsyncCopy, Op { imm, ..Op::new(Run::Sys(asynchronous::wait)) }, 0, Vec::new(), 0);
        return Ok(());
    }
    let cache = m.any(&["ca", "cg"]);
    let shared = m.take("shared") || m.take("shared::cta");
    let global = m.take("global");
    let hinted = m.take("L2::cache_hint");
    m.any(&["L2::64B", "L2::128B", "L2::256B"]);
    m.finish(i)?;
    if cache.is_none() || !shared || !global {
        return b.err(i, "only from global to shared memory");
    }
    let operands = &i.operands[..i.operands.len().saturating_sub(hinted as usize)];
    if !(3..=4).contains(&operands.len()) {
        return b.err(i, "a wrong number of operands");
    }
    let Operand::Int(size) = operands[2] else { return b.err(i, "the size must be a number") };
    if !(size == 16 || (cache == Some("ca") && (size == 4 || size == 8))) {
        return b.err(i, format!("cannot copy {size} bytes"));
    }
    let (to, width, imm, _) = b.address(i, &operands[0])?;
    let (from, from_width, offset, _) = b.address(i, &operands[1])?;
    if from_width != Width::W64 {
        return b.err(i, "the source needs an address of 64 bits");
    }
    let source = match operands.get(3) {
        None => NONE,
        // A predicate: true where the source is ignored.
        Some(o @ Operand::Name(n)) if matches!(b.lookup(n), Some(super::builder::Binding::Reg(_, Ty::Pred))) => {
            let p = b.pred_plain(i, o)?;
            let (all, none) = (b.bits(Width::W32, size as u64), b.bits(Width::W32, 0));
            let n = b.fresh(Width::W32);
            b.alu(Class::AsyncCopy, lanes::select(|a: u32, b: u32, p| if p { b } else { a }), n, &[all, none, p]);
            n
        }
        Some(o) => b.src(i, o, Ty::B32)?,
    };
    b.shared_access(MemSpace::Shared, size as u32);
    let (space, order) = (MemSpace::Shared, Order::default());
    b.mems.push(Mem {
        space,
        size: size as u32,
        count: 1,
        width: Width::W32,
        signed: false,
        address: width,
        order,
        offset,
    });
    let x = b.mems.len() as u32 - 1;
    let op = Op { a: to, c: source, x, imm, ..Op::new(Run::Sys(asynchronous::copy)) };
    b.emit(Class::AsyncCopy, op, 0, vec![from], 0);
    Ok(())
}
