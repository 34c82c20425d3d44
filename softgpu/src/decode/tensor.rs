//! Decoders of tensor instructions. (`wgmma` will stand beside them.)

use super::builder::{Builder, D, Mods, R};
use crate::exec::matrix::{self, Bf16, E4m3, E5m2, F16, Tf32, integer_code, mma as product};
use crate::program::{Class, Mem, MemSpace, Op, Order, Run, SysFn, Width};
use crate::ptx::ast::{Instr, Operand, Ty};

/// `mma.sync`.
pub(super) fn mma(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    if !(m.take("sync") && m.take("aligned") && m.take("row") && m.take("col")) {
        return b.err(i, "only .sync.aligned, .row.col");
    }
    let Some(shape) = m.any(&["m16n8k4", "m16n8k8", "m16n8k16", "m16n8k32"]) else { return b.err(i, "unknown shape") };
    let satfinite = m.take("satfinite");
    m.any(&["kind::f8f6f4"]);
    let integer = |m: &mut Mods| m.any(&["s8", "u8"]);
    // Types in the order d, a, b, c; those of 8 bits are not among the element types of registers.
    let dt = m.ty(i)?;
    if dt == Ty::S32 {
        // Types are taken by name; their order is that of the text.
        if integer(m).is_none() || integer(m).is_none() {
            return b.err(i, "only s8 and u8");
        }
        let mut signs = i.mods.iter().filter(|m| matches!(m.as_str(), "s8" | "u8")).map(|m| m == "s8");
        let (a_signed, b_signed) = (signs.next().unwrap_or(false), signs.next().unwrap_or(false));
        let ct = m.ty(i)?;
        m.finish(i)?;
        if ct != Ty::S32 || !matches!(shape, "m16n8k16" | "m16n8k32") {
            return b.err(i, "not of these types");
        }
        let k = if shape == "m16n8k16" { 16 } else { 32 };
        let code = integer_code(k, a_signed, b_signed, satfinite);
        return emit(b, i, k, 4, 8, code, matrix::mma_integer);
    }
    let (at, bt, ct) = (m.ty(i)?, m.ty(i)?, m.ty(i)?);
    m.finish(i)?;
    let k = match shape {
        "m16n8k4" => 4,
        "m16n8k8" => 8,
        "m16n8k16" => 16,
        _ => 32,
    };
    let half = match (dt, ct) {
        (Ty::F32, Ty::F32) => false,
        (Ty::F16, Ty::F16) => true,
        _ => return b.err(i, "not with these accumulators"),
    };
    if satfinite {
        return b.err(i, ".satfinite only of integers");
    }
    macro_rules! fp8 {
        ($a:ident, $b:ident) => {
            match (k, half) {
                (16, false) => product::<$a, $b, 16, false>,
                (16, true) => product::<$a, $b, 16, true>,
                (_, false) => product::<$a, $b, 32, false>,
                (_, true) => product::<$a, $b, 32, true>,
            }
        };
    }
    let (run, bits): (SysFn, usize) = match (at, bt, k, half) {
        (Ty::BF16, Ty::BF16, 8, false) => (product::<Bf16, Bf16, 8, false>, 16),
        (Ty::BF16, Ty::BF16, 16, false) => (product::<Bf16, Bf16, 16, false>, 16),
        (Ty::F16, Ty::F16, 8, false) => (product::<F16, F16, 8, false>, 16),
        (Ty::F16, Ty::F16, 16, false) => (product::<F16, F16, 16, false>, 16),
        (Ty::F16, Ty::F16, 8, true) => (product::<F16, F16, 8, true>, 16),
        (Ty::F16, Ty::F16, 16, true) => (product::<F16, F16, 16, true>, 16),
        (Ty::TF32, Ty::TF32, 4, false) => (product::<Tf32, Tf32, 4, false>, 32),
        (Ty::TF32, Ty::TF32, 8, false) => (product::<Tf32, Tf32, 8, false>, 32),
        (Ty::E4M3, Ty::E4M3, 16 | 32, _) => (fp8!(E4m3, E4m3), 8),
        (Ty::E4M3, Ty::E5M2, 16 | 32, _) => (fp8!(E4m3, E5m2), 8),
        (Ty::E5M2, Ty::E4M3, 16 | 32, _) => (fp8!(E5m2, E4m3), 8),
        (Ty::E5M2, Ty::E5M2, 16 | 32, _) => (fp8!(E5m2, E5m2), 8),
        _ => return b.err(i, "not of these types"),
    };
    emit(b, i, k, if half { 2 } else { 4 }, bits, 0, run)
}

fn emit(b: &mut Builder, i: &Instr, k: usize, nd: usize, bits: usize, imm: i64, run: SysFn) -> R<()> {
    b.arity(i, 4)?;
    let na = 16 * k * bits / 1024;
    let nb = na / 2;
    let mut list = Vec::new();
    for o in b.elements(i, &i.operands[0], nd)?.to_vec() {
        list.push(b.dst(i, &o, Width::W32)?);
    }
    for (o, n, ty) in [(&i.operands[1], na, Ty::B32), (&i.operands[2], nb, Ty::B32), (&i.operands[3], nd, Ty::F32)] {
        for e in b.elements(i, o, n)?.to_vec() {
            let ty = if matches!(e, Operand::Int(_)) { Ty::B32 } else { ty };
            list.push(b.src(i, &e, ty)?);
        }
    }
    b.emit(Class::Tensor, Op { imm, ..Op::new(Run::Sys(run)) }, 0, list, nd);
    Ok(())
}

/// `ldmatrix`, `stmatrix`.
pub(super) fn matrix(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    if !(m.take("sync") && m.take("aligned") && m.take("m8n8")) {
        return b.err(i, "only .sync.aligned.m8n8");
    }
    let count = match m.any(&["x1", "x2", "x4"]) {
        Some("x1") => 1,
        Some("x2") => 2,
        Some(_) => 4,
        None => return b.err(i, "the number of matrices is missing"),
    };
    let trans = m.take("trans");
    let shared = m.take("shared") || m.take("shared::cta");
    let ty = m.ty(i)?;
    m.finish(i)?;
    b.arity(i, 2)?;
    if ty != Ty::B16 {
        return b.err(i, format!("not for {ty}"));
    }
    let load = i.name == "ldmatrix";
    let (regs, at) = if load { (&i.operands[0], &i.operands[1]) } else { (&i.operands[1], &i.operands[0]) };
    let mut list = Vec::new();
    for o in b.elements(i, regs, count)?.to_vec() {
        list.push(if load { b.dst(i, &o, Width::W32)? } else { b.src(i, &o, Ty::B32)? });
    }
    let (a, width, imm, bound) = b.address(i, at)?;
    let known = matches!(bound, Some(super::builder::Binding::Shared(_) | super::builder::Binding::DynamicShared));
    let space = if shared || known { MemSpace::Shared } else { MemSpace::Generic };
    b.shared_access(MemSpace::Shared, 16);
    let order = Order::default();
    b.mems.push(Mem {
        space,
        size: 16,
        count: count as u32,
        width: Width::W32,
        signed: trans,
        address: width,
        order,
        offset: 0,
    });
    let x = b.mems.len() as u32 - 1;
    let run = if load { matrix::load_matrix } else { matrix::store_matrix };
    b.emit(Class::Shared, Op { a, x, imm, ..Op::new(Run::Sys(run)) }, 0, list, if load { count } else { 0 });
    Ok(())
}

/// `movmatrix`.
pub(super) fn move_matrix(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    if !(m.take("sync") && m.take("aligned") && m.take("m8n8") && m.take("trans")) {
        return b.err(i, "only .sync.aligned.m8n8.trans");
    }
    let ty = m.ty(i)?;
    m.finish(i)?;
    b.arity(i, 2)?;
    if ty != Ty::B16 {
        return b.err(i, format!("not for {ty}"));
    }
    let d = b.dst(i, &i.operands[0], Width::W32)?;
    let a = b.src(i, &i.operands[1], Ty::B32)?;
    b.emit(Class::Warp, Op { d, a, ..Op::new(Run::Sys(matrix::move_matrix)) }, D, Vec::new(), 0);
    Ok(())
}
