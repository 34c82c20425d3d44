//! Decoders of integer arithmetic, and of functions of one operand.

use super::builder::{Builder, Mods, R, width_of};
use crate::exec::lanes::{map1, map2, map3};
use crate::num::{approx, *};
use crate::program::{AluFn, Class};
use crate::ptx::ast::{Instr, Ty};

/// One closure for each integer type.
macro_rules! ints2 {
    ($ty:expr, |$a:ident, $b:ident| $e:expr) => {
        match $ty {
            Ty::U16 | Ty::B16 => Some(map2(|$a: u16, $b: u16| -> u16 { $e })),
            Ty::U32 | Ty::B32 => Some(map2(|$a: u32, $b: u32| -> u32 { $e })),
            Ty::U64 | Ty::B64 => Some(map2(|$a: u64, $b: u64| -> u64 { $e })),
            Ty::S16 => Some(map2(|$a: i16, $b: i16| -> i16 { $e })),
            Ty::S32 => Some(map2(|$a: i32, $b: i32| -> i32 { $e })),
            Ty::S64 => Some(map2(|$a: i64, $b: i64| -> i64 { $e })),
            _ => None,
        }
    };
}

macro_rules! ints1 {
    ($ty:expr, |$a:ident| $e:expr) => {
        match $ty {
            Ty::S16 => Some(map1(|$a: i16| -> i16 { $e })),
            Ty::S32 => Some(map1(|$a: i32| -> i32 { $e })),
            Ty::S64 => Some(map1(|$a: i64| -> i64 { $e })),
            _ => None,
        }
    };
}

macro_rules! halves {
    ($t:ty, $s:ty, |$a:ident, $b:ident| $e:expr) => {
        map2(|a: u32, b: u32| -> u32 {
            let f = |$a: $s, $b: $s| -> $s { $e };
            let lo = f(a as u16 as $s, b as u16 as $s) as u16;
            let hi = f((a >> 16) as u16 as $s, (b >> 16) as u16 as $s) as u16;
            lo as u32 | (hi as u32) << 16
        })
    };
}

/// Emits a function of `n` operands of one type with a result of the same.
pub(super) fn same(b: &mut Builder, i: &Instr, class: Class, ty: Ty, f: Option<AluFn>, n: usize) -> R<()> {
    let Some(f) = f else { return b.err(i, format!("not for {ty}")) };
    b.arity(i, n + 1)?;
    let d = b.dst(i, &i.operands[0], width_of(ty))?;
    let src = i.operands[1..].iter().map(|o| b.src(i, o, ty)).collect::<R<Vec<_>>>()?;
    b.alu(class, f, d, &src);
    Ok(())
}

fn is_float(ty: Ty) -> bool {
    matches!(ty, Ty::F16 | Ty::F16x2 | Ty::BF16 | Ty::BF16x2 | Ty::F32 | Ty::F64)
}

/// `add`, `sub`.
pub(super) fn add_sub(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    let ty = m.ty(i)?;
    if is_float(ty) {
        return super::float::two(b, i, m, ty);
    }
    let sub = i.name == "sub";
    if m.take("cc") {
        m.finish(i)?;
        return super::carry::add_sub(b, i, ty, sub, false, true);
    }
    let sat = m.take("sat");
    m.finish(i)?;
    let f = match (sub, sat, ty) {
        (false, true, Ty::S32) => Some(map2(|a: i32, b: i32| a.saturating_add(b))),
        (true, true, Ty::S32) => Some(map2(|a: i32, b: i32| a.saturating_sub(b))),
        (_, true, _) => None,
        (false, _, Ty::U16x2 | Ty::S16x2) => Some(halves!(u16, u16, |a, b| a.wrapping_add(b))),
        (false, ..) => ints2!(ty, |a, b| a.wrapping_add(b)),
        (true, ..) => ints2!(ty, |a, b| a.wrapping_sub(b)),
    };
    same(b, i, Class::Integer, ty, f, 2)
}

/// `addc`, `subc`.
pub(super) fn add_sub_carry(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    let set = m.take("cc");
    let ty = m.ty(i)?;
    m.finish(i)?;
    super::carry::add_sub(b, i, ty, i.name == "subc", true, set)
}

/// The three ways of a product.
fn product_part(m: &mut Mods) -> Option<&'static str> {
    m.any(&["lo", "hi", "wide"])
}

/// `mul`.
pub(super) fn mul(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    let Some(part) = product_part(m) else {
        let ty = m.ty(i)?;
        return super::float::two(b, i, m, ty);
    };
    let ty = m.ty(i)?;
    m.finish(i)?;
    match part {
        "lo" => same(b, i, Class::Integer, ty, ints2!(ty, |a, b| a.wrapping_mul(b)), 2),
        "hi" => same(b, i, Class::Integer, ty, mul_hi(ty), 2),
        _ => {
            let (f, wide) = match ty {
                Ty::U16 => (map2(|a: u16, b: u16| a as u32 * b as u32), Ty::U32),
                Ty::S16 => (map2(|a: i16, b: i16| a as i32 * b as i32), Ty::S32),
                Ty::U32 => (map2(|a: u32, b: u32| a as u64 * b as u64), Ty::U64),
                Ty::S32 => (map2(|a: i32, b: i32| a as i64 * b as i64), Ty::S64),
                _ => return b.err(i, format!("not for {ty}")),
            };
            b.arity(i, 3)?;
            let d = b.dst(i, &i.operands[0], width_of(wide))?;
            let (x, y) = (b.src(i, &i.operands[1], ty)?, b.src(i, &i.operands[2], ty)?);
            b.alu(Class::Integer, f, d, &[x, y]);
            Ok(())
        }
    }
}

fn mul_hi(ty: Ty) -> Option<AluFn> {
    Some(match ty {
        Ty::U16 => map2(|a: u16, b: u16| ((a as u32 * b as u32) >> 16) as u16),
        Ty::S16 => map2(|a: i16, b: i16| ((a as i32 * b as i32) >> 16) as i16),
        Ty::U32 => map2(|a: u32, b: u32| ((a as u64 * b as u64) >> 32) as u32),
        Ty::S32 => map2(|a: i32, b: i32| ((a as i64 * b as i64) >> 32) as i32),
        Ty::U64 => map2(|a: u64, b: u64| ((a as u128 * b as u128) >> 64) as u64),
        Ty::S64 => map2(|a: i64, b: i64| ((a as i128 * b as i128) >> 64) as i64),
        _ => return None,
    })
}

/// `mad`.
pub(super) fn mad(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    let Some(part) = product_part(m) else {
        let ty = m.ty(i)?;
        return super::float::fma(b, i, m, ty);
    };
    if m.take("cc") {
        let ty = m.ty(i)?;
        m.finish(i)?;
        return super::carry::mad(b, i, ty, part, false, true);
    }
    let sat = m.take("sat");
    let ty = m.ty(i)?;
    m.finish(i)?;
    let f = match (part, ty, sat) {
        ("hi", Ty::S32, true) => {
            Some(map3(|a: i32, b: i32, c: i32| (((a as i64 * b as i64) >> 32) as i32).saturating_add(c)))
        }
        (.., true) => None,
        ("lo", Ty::U16 | Ty::S16, _) => Some(map3(|a: u16, b: u16, c: u16| a.wrapping_mul(b).wrapping_add(c))),
        ("lo", Ty::U32 | Ty::S32, _) => Some(map3(|a: u32, b: u32, c: u32| a.wrapping_mul(b).wrapping_add(c))),
        ("lo", Ty::U64 | Ty::S64, _) => Some(map3(|a: u64, b: u64, c: u64| a.wrapping_mul(b).wrapping_add(c))),
        ("hi", Ty::U16, _) => {
            Some(map3(|a: u16, b: u16, c: u16| (((a as u32 * b as u32) >> 16) as u16).wrapping_add(c)))
        }
        ("hi", Ty::S16, _) => {
            Some(map3(|a: i16, b: i16, c: i16| (((a as i32 * b as i32) >> 16) as i16).wrapping_add(c)))
        }
        ("hi", Ty::U32, _) => {
            Some(map3(|a: u32, b: u32, c: u32| (((a as u64 * b as u64) >> 32) as u32).wrapping_add(c)))
        }
        ("hi", Ty::S32, _) => {
            Some(map3(|a: i32, b: i32, c: i32| (((a as i64 * b as i64) >> 32) as i32).wrapping_add(c)))
        }
        ("hi", Ty::U64, _) => {
            Some(map3(|a: u64, b: u64, c: u64| (((a as u128 * b as u128) >> 64) as u64).wrapping_add(c)))
        }
        ("hi", Ty::S64, _) => {
            Some(map3(|a: i64, b: i64, c: i64| (((a as i128 * b as i128) >> 64) as i64).wrapping_add(c)))
        }
        ("wide", Ty::U16, _) => Some(map3(|a: u16, b: u16, c: u32| (a as u32 * b as u32).wrapping_add(c))),
        ("wide", Ty::S16, _) => Some(map3(|a: i16, b: i16, c: i32| (a as i32 * b as i32).wrapping_add(c))),
        ("wide", Ty::U32, _) => Some(map3(|a: u32, b: u32, c: u64| (a as u64 * b as u64).wrapping_add(c))),
        ("wide", Ty::S32, _) => Some(map3(|a: i32, b: i32, c: i64| (a as i64 * b as i64).wrapping_add(c))),
        _ => None,
    };
    if part != "wide" {
        return same(b, i, Class::Integer, ty, f, 3);
    }
    let Some(f) = f else { return b.err(i, format!("not for {ty}")) };
    let wide = if ty.bytes() == 2 { Ty::U32 } else { Ty::U64 };
    b.arity(i, 4)?;
    let d = b.dst(i, &i.operands[0], width_of(wide))?;
    let (x, y) = (b.src(i, &i.operands[1], ty)?, b.src(i, &i.operands[2], ty)?);
    let z = b.src(i, &i.operands[3], wide)?;
    b.alu(Class::Integer, f, d, &[x, y, z]);
    Ok(())
}

/// `madc`.
pub(super) fn mad_carry(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    let Some(part) = product_part(m) else { return b.err(i, "lo or hi is missing") };
    let set = m.take("cc");
    let ty = m.ty(i)?;
    m.finish(i)?;
    super::carry::mad(b, i, ty, part, true, set)
}

/// `mul24`, `mad24`.
pub(super) fn mul24(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    let part = m.any(&["lo", "hi"]);
    let ty = m.ty(i)?;
    m.finish(i)?;
    let f = match (i.name.as_str(), part, ty) {
        ("mul24", Some("lo"), Ty::U32) => map2(|a: u32, b: u32| (a & 0xff_ffff).wrapping_mul(b & 0xff_ffff)),
        ("mul24", Some("lo"), Ty::S32) => map2(|a: i32, b: i32| (a << 8 >> 8).wrapping_mul(b << 8 >> 8)),
        ("mad24", Some("lo"), Ty::U32) => {
            map3(|a: u32, b: u32, c: u32| (a & 0xff_ffff).wrapping_mul(b & 0xff_ffff).wrapping_add(c))
        }
        ("mad24", Some("lo"), Ty::S32) => {
            map3(|a: i32, b: i32, c: i32| (a << 8 >> 8).wrapping_mul(b << 8 >> 8).wrapping_add(c))
        }
        _ => return b.err(i, "only .lo of 32 bits"),
    };
    same(b, i, Class::Integer, ty, Some(f), if i.name == "mul24" { 2 } else { 3 })
}

/// `div`, `rem` of integers; division by zero gives all ones, as hardware does, and the remainder of it the dividend.
pub(super) fn div(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    let ty = m.ty(i)?;
    if is_float(ty) {
        return super::float::div(b, i, m, ty);
    }
    m.finish(i)?;
    let f = if i.name == "div" {
        ints2!(ty, |a, b| if b == 0 { !0 } else { a.wrapping_div(b) })
    } else {
        ints2!(ty, |a, b| if b == 0 { a } else { a.wrapping_rem(b) })
    };
    same(b, i, Class::Integer, ty, f, 2)
}

/// `min`, `max`.
pub(super) fn min_max(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    let ty = m.ty(i)?;
    if is_float(ty) {
        return super::float::min_max(b, i, m, ty);
    }
    let relu = m.take("relu");
    m.finish(i)?;
    let max = i.name == "max";
    let f = match (ty, relu) {
        (Ty::S32, true) if max => Some(map2(|a: i32, b: i32| a.max(b).max(0))),
        (Ty::S32, true) => Some(map2(|a: i32, b: i32| a.min(b).max(0))),
        (_, true) => None,
        (Ty::U16x2, _) if max => Some(halves!(u16, u16, |a, b| a.max(b))),
        (Ty::U16x2, _) => Some(halves!(u16, u16, |a, b| a.min(b))),
        (Ty::S16x2, _) if max => Some(halves!(u16, i16, |a, b| a.max(b))),
        (Ty::S16x2, _) => Some(halves!(u16, i16, |a, b| a.min(b))),
        _ if max => ints2!(ty, |a, b| a.max(b)),
        _ => ints2!(ty, |a, b| a.min(b)),
    };
    same(b, i, Class::Integer, ty, f, 2)
}

/// `abs`, `neg`.
pub(super) fn abs_neg(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    let ty = m.ty(i)?;
    let ftz_mod = m.take("ftz");
    m.finish(i)?;
    let abs = i.name == "abs";
    let f = match (ty, ftz_mod) {
        (Ty::F32, false) if abs => Some(map1(|a: u32| a & 0x7fff_ffff)),
        (Ty::F32, false) => Some(map1(|a: u32| a ^ 0x8000_0000)),
        (Ty::F32, true) if abs => Some(map1(|a: f32| ftz(a).abs())),
        (Ty::F32, true) => Some(map1(|a: f32| -ftz(a))),
        (Ty::F16 | Ty::BF16, _) if abs => Some(map1(|a: u16| a & 0x7fff)),
        (Ty::F16 | Ty::BF16, _) => Some(map1(|a: u16| a ^ 0x8000)),
        (Ty::F16x2 | Ty::BF16x2, _) if abs => Some(map1(|a: u32| a & 0x7fff_7fff)),
        (Ty::F16x2 | Ty::BF16x2, _) => Some(map1(|a: u32| a ^ 0x8000_8000)),
        (_, true) => None,
        (Ty::F64, _) if abs => Some(map1(|a: u64| a & !(1 << 63))),
        (Ty::F64, _) => Some(map1(|a: u64| a ^ 1 << 63)),
        _ if abs => ints1!(ty, |a| a.wrapping_abs()),
        _ => ints1!(ty, |a| a.wrapping_neg()),
    };
    let class = if ty.integer() { Class::Integer } else { Class::Float };
    same(b, i, class, ty, f, 1)
}

/// `sad`: |a − b| + c.
pub(super) fn sad(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    let ty = m.ty(i)?;
    m.finish(i)?;
    let f = match ty {
        Ty::U16 => map3(|a: u16, b: u16, c: u16| a.abs_diff(b).wrapping_add(c)),
        Ty::S16 => map3(|a: i16, b: i16, c: i16| (a.abs_diff(b) as i16).wrapping_add(c)),
        Ty::U32 => map3(|a: u32, b: u32, c: u32| a.abs_diff(b).wrapping_add(c)),
        Ty::S32 => map3(|a: i32, b: i32, c: i32| (a.abs_diff(b) as i32).wrapping_add(c)),
        Ty::U64 => map3(|a: u64, b: u64, c: u64| a.abs_diff(b).wrapping_add(c)),
        Ty::S64 => map3(|a: i64, b: i64, c: i64| (a.abs_diff(b) as i64).wrapping_add(c)),
        _ => return b.err(i, format!("not for {ty}")),
    };
    same(b, i, Class::Integer, ty, Some(f), 3)
}

/// `dp4a`, `dp2a`.
pub(super) fn dot(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    let half = m.any(&["lo", "hi"]);
    let (ta, tb) = (m.ty(i)?, m.ty(i)?);
    m.finish(i)?;
    macro_rules! bytes {
        ($ta:ty, $tb:ty) => {
            map3(|a: u32, b: u32, c: u32| {
                (0..4).fold(c, |s, k| {
                    let p = (a >> (8 * k)) as $ta as i32 * (b >> (8 * k)) as $tb as i32;
                    s.wrapping_add(p as u32)
                })
            })
        };
    }
    macro_rules! shorts {
        ($ta:ty, $tb:ty, $from:expr) => {
            map3(|a: u32, b: u32, c: u32| {
                (0..2).fold(c, |s, k| {
                    let p = (a >> (16 * k)) as $ta as i32 * (b >> (8 * k + $from)) as $tb as i32;
                    s.wrapping_add(p as u32)
                })
            })
        };
    }
    let f = match (i.name.as_str(), half, ta, tb) {
        ("dp4a", None, Ty::U32, Ty::U32) => bytes!(u8, u8),
        ("dp4a", None, Ty::U32, Ty::S32) => bytes!(u8, i8),
        ("dp4a", None, Ty::S32, Ty::U32) => bytes!(i8, u8),
        ("dp4a", None, Ty::S32, Ty::S32) => bytes!(i8, i8),
        ("dp2a", Some("lo"), Ty::U32, Ty::U32) => shorts!(u16, u8, 0),
        ("dp2a", Some("lo"), Ty::S32, Ty::S32) => shorts!(i16, i8, 0),
        ("dp2a", Some("hi"), Ty::U32, Ty::U32) => shorts!(u16, u8, 16),
        ("dp2a", Some("hi"), Ty::S32, Ty::S32) => shorts!(i16, i8, 16),
        _ => return b.err(i, "not of these types"),
    };
    same(b, i, Class::Integer, Ty::B32, Some(f), 3)
}

/// `popc`, `clz`, `brev`, `bfind`: results of 32 bits, but `brev`.
pub(super) fn bits(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    let shift = m.take("shiftamt");
    let ty = m.ty(i)?;
    m.finish(i)?;
    let top32 = |v: u32| if v == 0 { !0 } else { 31 - v.leading_zeros() };
    let f = match (i.name.as_str(), ty, shift) {
        ("popc", Ty::B32, false) => map1(|a: u32| a.count_ones()),
        ("popc", Ty::B64, false) => map1(|a: u64| a.count_ones()),
        ("clz", Ty::B32, false) => map1(|a: u32| a.leading_zeros()),
        ("clz", Ty::B64, false) => map1(|a: u64| a.leading_zeros()),
        ("brev", Ty::B32, false) => map1(|a: u32| a.reverse_bits()),
        ("brev", Ty::B64, false) => map1(|a: u64| a.reverse_bits()),
        ("bfind", Ty::U32, false) => map1(move |a: u32| top32(a)),
        ("bfind", Ty::S32, false) => map1(move |a: i32| top32((a ^ a >> 31) as u32)),
        ("bfind", Ty::U64, false) => map1(|a: u64| if a == 0 { !0u32 } else { 63 - a.leading_zeros() }),
        ("bfind", Ty::S64, false) => map1(|a: i64| {
            let v = (a ^ a >> 63) as u64;
            if v == 0 { !0u32 } else { 63 - v.leading_zeros() }
        }),
        ("bfind", Ty::U32, true) => map1(|a: u32| if a == 0 { !0 } else { a.leading_zeros() }),
        ("bfind", Ty::S32, true) => map1(|a: i32| {
            let v = (a ^ a >> 31) as u32;
            if v == 0 { !0 } else { v.leading_zeros() }
        }),
        ("bfind", Ty::U64, true) => map1(|a: u64| if a == 0 { !0u32 } else { a.leading_zeros() }),
        ("bfind", Ty::S64, true) => map1(|a: i64| {
            let v = (a ^ a >> 63) as u64;
            if v == 0 { !0u32 } else { v.leading_zeros() }
        }),
        _ => return b.err(i, format!("not for {ty}")),
    };
    b.arity(i, 2)?;
    let wide = i.name == "brev" && ty == Ty::B64;
    let d = b.dst(i, &i.operands[0], width_of(if wide { Ty::B64 } else { Ty::B32 }))?;
    let a = b.src(i, &i.operands[1], ty)?;
    b.alu(Class::Integer, f, d, &[a]);
    Ok(())
}

/// `bfe`, `bfi`.
pub(super) fn field(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    let ty = m.ty(i)?;
    m.finish(i)?;
    let insert = i.name == "bfi";
    b.arity(i, if insert { 5 } else { 4 })?;
    let d = b.dst(i, &i.operands[0], width_of(ty))?;
    let n = if insert { 2 } else { 1 };
    let mut src = Vec::new();
    for (k, o) in i.operands[1..].iter().enumerate() {
        src.push(if k < n { b.src(i, o, ty)? } else { b.src(i, o, Ty::U32)? });
    }
    if !insert {
        let f = match ty {
            Ty::U32 => map3(|a: u32, p: u32, n: u32| extract(a as u64, p, n, 32) as u32),
            Ty::U64 => map3(|a: u64, p: u32, n: u32| extract(a, p, n, 64)),
            Ty::S32 => map3(|a: u32, p: u32, n: u32| extract_signed(a as i32 as i64, p, n, 32) as u32),
            Ty::S64 => map3(|a: i64, p: u32, n: u32| extract_signed(a, p, n, 64)),
            _ => return b.err(i, format!("not for {ty}")),
        };
        b.alu(Class::Integer, f, d, &src);
        return Ok(());
    }
    // Position and length become one operand, so that three suffice.
    let place = b.fresh(width_of(Ty::U32));
    b.alu(Class::Integer, map2(|p: u32, n: u32| (p & 0xff) | (n & 0xff) << 8), place, &src[2..]);
    let f = match ty {
        Ty::B32 => map3(|a: u32, c: u32, at: u32| insert_bits(a as u64, c as u64, at & 0xff, at >> 8, 32) as u32),
        Ty::B64 => map3(|a: u64, c: u64, at: u32| insert_bits(a, c, at & 0xff, at >> 8, 64)),
        _ => return b.err(i, format!("not for {ty}")),
    };
    b.alu(Class::Integer, f, d, &[src[0], src[1], place]);
    Ok(())
}

fn low_bits(n: u32) -> u64 {
    if n >= 64 { !0 } else { (1 << n) - 1 }
}

fn extract(a: u64, p: u32, n: u32, width: u32) -> u64 {
    let (p, n) = (p & 0xff, n & 0xff);
    if p >= width { 0 } else { a >> p & low_bits(n) }
}

fn extract_signed(a: i64, p: u32, n: u32, width: u32) -> i64 {
    let (p, n) = (p & 0xff, n & 0xff);
    if n == 0 {
        return 0;
    }
    // Bits beyond the top are copies of it; the field's own top bit is its sign.
    let v = a >> p.min(63).min(width - 1);
    let keep = n.min(64);
    let v = if p >= width { if a < 0 { -1 } else { 0 } } else { v };
    v << (64 - keep) >> (64 - keep)
}

fn insert_bits(a: u64, into: u64, p: u32, n: u32, width: u32) -> u64 {
    if p >= width {
        return into;
    }
    let mask = low_bits(n) << p;
    (into & !mask) | (a << p & mask)
}

/// Approximate functions of f32: `sin`, `cos`, `lg2`, `ex2`, `tanh`, `rsqrt`, and `ex2`, `tanh` of 16-bit formats.
pub(super) fn function(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    let approx_mod = m.take("approx");
    let flush = m.take("ftz");
    let ty = m.ty(i)?;
    m.finish(i)?;
    if !approx_mod {
        return b.err(i, ".approx is missing");
    }
    macro_rules! f32s {
        ($f:path) => {
            if flush { map1(|a: f32| ftz($f(ftz(a)))) } else { map1(|a: f32| $f(a)) }
        };
    }
    macro_rules! sixteen {
        ($f:path, $to:path, $from:path) => {
            match ty {
                Ty::F16 | Ty::BF16 => map1(|a: u16| $from($f($to(a)))),
                _ => map1(|a: u32| $from($f($to(a as u16))) as u32 | ($from($f($to((a >> 16) as u16))) as u32) << 16),
            }
        };
    }
    let f = match (i.name.as_str(), ty) {
        ("sin", Ty::F32) => f32s!(approx::sin),
        ("cos", Ty::F32) => f32s!(approx::cos),
        ("lg2", Ty::F32) => f32s!(approx::lg2),
        ("ex2", Ty::F32) => f32s!(approx::ex2),
        ("tanh", Ty::F32) => map1(|a: f32| approx::tanh(a)),
        ("rsqrt", Ty::F32) => f32s!(approx::rsqrt),
        ("rsqrt", Ty::F64) => map1(|a: f64| 1.0 / a.sqrt()),
        ("ex2", Ty::F16 | Ty::F16x2) => sixteen!(approx::ex2, f16_to_f32, f16_from_f32),
        ("tanh", Ty::F16 | Ty::F16x2) => sixteen!(approx::tanh, f16_to_f32, f16_from_f32),
        ("ex2", Ty::BF16 | Ty::BF16x2) => sixteen!(approx::ex2, bf16_to_f32, bf16_from_f32),
        ("tanh", Ty::BF16 | Ty::BF16x2) => sixteen!(approx::tanh, bf16_to_f32, bf16_from_f32),
        _ => return b.err(i, format!("not for {ty}")),
    };
    same(b, i, Class::Float, ty, Some(f), 1)
}

/// `testp`.
pub(super) fn testp(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    let Some(kind) = m.any(&["finite", "infinite", "number", "notanumber", "normal", "subnormal"]) else {
        return b.err(i, "what to test is missing");
    };
    let ty = m.ty(i)?;
    m.finish(i)?;
    use crate::exec::lanes::test;
    macro_rules! tests {
        ($t:ty) => {
            match kind {
                "finite" => test(|a: $t| a.is_finite()),
                "infinite" => test(|a: $t| a.is_infinite()),
                "number" => test(|a: $t| !a.is_nan()),
                "notanumber" => test(|a: $t| a.is_nan()),
                "normal" => test(|a: $t| a.is_normal()),
                _ => test(|a: $t| a.is_subnormal()),
            }
        };
    }
    let f = match ty {
        Ty::F32 => tests!(f32),
        Ty::F64 => tests!(f64),
        _ => return b.err(i, format!("not for {ty}")),
    };
    b.arity(i, 2)?;
    let d = b.dst(i, &i.operands[0], crate::program::Width::Pred)?;
    let a = b.src(i, &i.operands[1], ty)?;
    b.alu(Class::Predicate, f, d, &[a]);
    Ok(())
}

/// `copysign`: the sign of a, the rest of b.
pub(super) fn copysign(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    let ty = m.ty(i)?;
    m.finish(i)?;
    let f = match ty {
        Ty::F32 => Some(map2(|a: u32, b: u32| a & 0x8000_0000 | b & 0x7fff_ffff)),
        Ty::F64 => Some(map2(|a: u64, b: u64| a & 1 << 63 | b & !(1 << 63))),
        _ => None,
    };
    same(b, i, Class::Float, ty, f, 2)
}
