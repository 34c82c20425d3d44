//! Arithmetic with the carry flag (`.cc`). The flag is a register of 32 bits, 0 or 1, of each kernel.

use super::builder::{Builder, R, width_of};
use crate::exec::lanes::{map2, map3};
use crate::program::{Class, Width};
use crate::ptx::ast::{Instr, Ty};

impl Builder<'_> {
    fn carry(&mut self) -> i32 {
        match self.carry_flag {
            Some(r) => r,
            None => {
                let r = self.fresh(Width::W32);
                self.carry_flag = Some(r);
                r
            }
        }
    }
}

fn sixty_four(b: &Builder, i: &Instr, ty: Ty) -> R<bool> {
    match ty {
        Ty::U32 | Ty::S32 | Ty::B32 => Ok(false),
        Ty::U64 | Ty::S64 | Ty::B64 => Ok(true),
        _ => b.err(i, format!("not for {ty}")),
    }
}

/// d = x ± y (± carry in), with the carry out into the flag if `set`.
fn sum(b: &mut Builder, wide: bool, d: i32, x: i32, y: i32, sub: bool, with: bool, set: bool) {
    let w = if wide { Width::W64 } else { Width::W32 };
    let c = if with { b.carry() } else { b.bits(Width::W32, 0) };
    // The result goes to a register of its own first: the carry needs the operands.
    let r = b.fresh(w);
    let (value, out) = match (wide, sub) {
        (false, false) => (
            map3(|a: u32, b: u32, c: u32| a.wrapping_add(b).wrapping_add(c)),
            map3(|a: u32, b: u32, c: u32| ((a as u64 + b as u64 + c as u64) >> 32) as u32),
        ),
        (false, true) => (
            map3(|a: u32, b: u32, c: u32| a.wrapping_sub(b).wrapping_sub(c)),
            map3(|a: u32, b: u32, c: u32| ((a as u64) < b as u64 + c as u64) as u32),
        ),
        (true, false) => (
            map3(|a: u64, b: u64, c: u32| a.wrapping_add(b).wrapping_add(c as u64)),
            map3(|a: u64, b: u64, c: u32| ((a as u128 + b as u128 + c as u128) >> 64) as u32),
        ),
        (true, true) => (
            map3(|a: u64, b: u64, c: u32| a.wrapping_sub(b).wrapping_sub(c as u64)),
            map3(|a: u64, b: u64, c: u32| ((a as u128) < b as u128 + c as u128) as u32),
        ),
    };
    b.alu(Class::Integer, value, r, &[x, y, c]);
    if set {
        let flag = b.carry();
        b.alu(Class::Integer, out, flag, &[x, y, c]);
    }
    super::logic::copy(b, if wide { Ty::B64 } else { Ty::B32 }, d, r);
}

/// `add.cc`, `addc`, `sub.cc`, `subc`.
pub(super) fn add_sub(b: &mut Builder, i: &Instr, ty: Ty, sub: bool, with: bool, set: bool) -> R<()> {
    let wide = sixty_four(b, i, ty)?;
    b.arity(i, 3)?;
    let d = b.dst(i, &i.operands[0], width_of(ty))?;
    let (x, y) = (b.src(i, &i.operands[1], ty)?, b.src(i, &i.operands[2], ty)?);
    sum(b, wide, d, x, y, sub, with, set);
    Ok(())
}

/// `mad.lo.cc`, `mad.hi.cc`, `madc`.
pub(super) fn mad(b: &mut Builder, i: &Instr, ty: Ty, part: &str, with: bool, set: bool) -> R<()> {
    let wide = sixty_four(b, i, ty)?;
    b.arity(i, 4)?;
    let d = b.dst(i, &i.operands[0], width_of(ty))?;
    let (x, y) = (b.src(i, &i.operands[1], ty)?, b.src(i, &i.operands[2], ty)?);
    let z = b.src(i, &i.operands[3], ty)?;
    let f = match (part, ty) {
        ("lo", _) if wide => map2(|a: u64, b: u64| a.wrapping_mul(b)),
        ("lo", _) => map2(|a: u32, b: u32| a.wrapping_mul(b)),
        ("hi", Ty::S32) => map2(|a: i32, b: i32| ((a as i64 * b as i64) >> 32) as i32),
        ("hi", Ty::S64) => map2(|a: i64, b: i64| ((a as i128 * b as i128) >> 64) as i64),
        ("hi", _) if wide => map2(|a: u64, b: u64| ((a as u128 * b as u128) >> 64) as u64),
        ("hi", _) => map2(|a: u32, b: u32| ((a as u64 * b as u64) >> 32) as u32),
        _ => return b.err(i, "lo or hi is missing"),
    };
    let p = b.fresh(width_of(ty));
    b.alu(Class::Integer, f, p, &[x, y]);
    sum(b, wide, d, p, z, false, with, set);
    Ok(())
}
