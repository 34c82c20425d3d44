//! Decoders of moves, bits, comparisons and selections.

use super::arith::same;
use super::builder::{Binding, Builder, D, Mods, R, width_of};
use crate::exec::lanes::{compare, map1, map2, map3, map4, masks, select};
use crate::exec::misc;
use crate::num::*;
use crate::program::{AluFn, Class, Op, Run, Width};
use crate::ptx::ast::{Instr, Operand, Ty};

/// Copies a value to a register.
pub(super) fn copy(b: &mut Builder, ty: Ty, d: i32, a: i32) {
    let (f, class) = match width_of(ty) {
        Width::Pred => {
            b.alu(Class::Predicate, masks(|a, _| a), d, &[a, a]);
            return;
        }
        Width::W16 => (map1(|a: u16| a), Class::Move),
        Width::W32 => (map1(|a: u32| a), Class::Move),
        Width::W64 => (map1(|a: u64| a), Class::Move),
        Width::W128 => (map1(|a: u128| a), Class::Move),
    };
    b.alu(class, f, d, &[a]);
}

/// `mov`.
pub(super) fn mov(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    let ty = m.ty(i)?;
    m.finish(i)?;
    b.arity(i, 2)?;
    match (&i.operands[0], &i.operands[1]) {
        (d, Operand::Vector(parts)) => pack(b, i, ty, d, parts),
        (Operand::Vector(parts), a) => unpack(b, i, ty, parts, a),
        (d, Operand::Name(n)) if matches!(n.as_str(), "%clock" | "%clock64" | "%clock_hi" | "%globaltimer") => {
            let w = width_of(ty);
            let d = b.dst(i, d, w)?;
            let op = Op { d, imm: w as i64, ..Op::new(Run::Sys(misc::clock)) };
            b.emit(Class::Move, op, D, Vec::new(), 0);
            Ok(())
        }
        (d, a) if ty == Ty::Pred => {
            let d = b.dst(i, d, Width::Pred)?;
            if let Operand::Int(v) = a {
                b.set_pred_const(d, *v != 0);
                return Ok(());
            }
            let (a, negated) = b.pred(i, a)?;
            let f = if negated { masks(|a, _| !a) } else { masks(|a, _| a) };
            b.alu(Class::Predicate, f, d, &[a, a]);
            Ok(())
        }
        (d, a) => {
            let d = b.dst(i, d, width_of(ty))?;
            // The name of a function or of a label has no address here.
            let a = b.src(i, a, ty)?;
            copy(b, ty, d, a);
            Ok(())
        }
    }
}

fn pack(b: &mut Builder, i: &Instr, ty: Ty, d: &Operand, parts: &[Operand]) -> R<()> {
    let d = b.dst(i, d, width_of(ty))?;
    let (f, part): (AluFn, Ty) = match (ty.bytes(), parts.len()) {
        (4, 2) => (map2(|a: u16, b: u16| a as u32 | (b as u32) << 16), Ty::B16),
        (8, 2) => (map2(|a: u32, b: u32| a as u64 | (b as u64) << 32), Ty::B32),
        (16, 2) => (map2(|a: u64, b: u64| a as u128 | (b as u128) << 64), Ty::B64),
        (2, 2) => (map2(|a: u16, b: u16| (a & 0xff) | b << 8), Ty::B8),
        (4, 4) => {
            (map4(|a: u16, b: u16, c: u16, d: u16| u32::from_le_bytes([a as u8, b as u8, c as u8, d as u8])), Ty::B8)
        }
        (8, 4) => (
            map4(|a: u16, b: u16, c: u16, d: u16| a as u64 | (b as u64) << 16 | (c as u64) << 32 | (d as u64) << 48),
            Ty::B16,
        ),
        (16, 4) => (
            map4(|a: u32, b: u32, c: u32, d: u32| {
                a as u128 | (b as u128) << 32 | (c as u128) << 64 | (d as u128) << 96
            }),
            Ty::B32,
        ),
        _ => return b.err(i, format!("{} parts do not make a {ty}", parts.len())),
    };
    let src = parts.iter().map(|p| b.src(i, p, part)).collect::<R<Vec<_>>>()?;
    b.alu(Class::Move, f, d, &src);
    Ok(())
}

fn unpack(b: &mut Builder, i: &Instr, ty: Ty, parts: &[Operand], a: &Operand) -> R<()> {
    let a = b.src(i, a, ty)?;
    let (part, fs): (Ty, Vec<AluFn>) = match (ty.bytes(), parts.len()) {
        (2, 2) => (Ty::B8, vec![map1(|a: u16| a & 0xff), map1(|a: u16| a >> 8)]),
        (4, 2) => (Ty::B16, vec![map1(|a: u32| a as u16), map1(|a: u32| (a >> 16) as u16)]),
        (8, 2) => (Ty::B32, vec![map1(|a: u64| a as u32), map1(|a: u64| (a >> 32) as u32)]),
        (16, 2) => (Ty::B64, vec![map1(|a: u128| a as u64), map1(|a: u128| (a >> 64) as u64)]),
        (4, 4) => (
            Ty::B8,
            vec![
                map1(|a: u32| (a & 0xff) as u16),
                map1(|a: u32| (a >> 8 & 0xff) as u16),
                map1(|a: u32| (a >> 16 & 0xff) as u16),
                map1(|a: u32| (a >> 24) as u16),
            ],
        ),
        (8, 4) => (
            Ty::B16,
            vec![
                map1(|a: u64| a as u16),
                map1(|a: u64| (a >> 16) as u16),
                map1(|a: u64| (a >> 32) as u16),
                map1(|a: u64| (a >> 48) as u16),
            ],
        ),
        (16, 4) => (
            Ty::B32,
            vec![
                map1(|a: u128| a as u32),
                map1(|a: u128| (a >> 32) as u32),
                map1(|a: u128| (a >> 64) as u32),
                map1(|a: u128| (a >> 96) as u32),
            ],
        ),
        _ => return b.err(i, format!("a {ty} does not have {} parts", parts.len())),
    };
    for (p, f) in parts.iter().zip(fs) {
        if *p != Operand::Sink {
            let d = b.dst(i, p, width_of(part))?;
            b.alu(Class::Move, f, d, &[a]);
        }
    }
    Ok(())
}

/// `and`, `or`, `xor`.
pub(super) fn and_or(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    let ty = m.ty(i)?;
    m.finish(i)?;
    macro_rules! bitwise {
        (|$a:ident, $b:ident| $e:expr) => {
            match ty {
                Ty::B16 => map2(|$a: u16, $b: u16| $e),
                Ty::B32 => map2(|$a: u32, $b: u32| $e),
                Ty::B64 => map2(|$a: u64, $b: u64| $e),
                Ty::Pred => masks(|$a, $b| $e),
                _ => return b.err(i, format!("not for {ty}")),
            }
        };
    }
    let f = match i.name.as_str() {
        "and" => bitwise!(|a, b| a & b),
        "or" => bitwise!(|a, b| a | b),
        _ => bitwise!(|a, b| a ^ b),
    };
    if ty != Ty::Pred {
        return same(b, i, Class::Integer, ty, Some(f), 2);
    }
    b.arity(i, 3)?;
    let d = b.dst(i, &i.operands[0], Width::Pred)?;
    let (x, y) = (b.pred_plain(i, &i.operands[1])?, b.pred_plain(i, &i.operands[2])?);
    b.alu(Class::Predicate, f, d, &[x, y]);
    Ok(())
}

/// `not`, `cnot`.
pub(super) fn not(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    let ty = m.ty(i)?;
    m.finish(i)?;
    let f = match (i.name.as_str(), ty) {
        ("not", Ty::B16) => map1(|a: u16| !a),
        ("not", Ty::B32) => map1(|a: u32| !a),
        ("not", Ty::B64) => map1(|a: u64| !a),
        ("cnot", Ty::B16) => map1(|a: u16| (a == 0) as u16),
        ("cnot", Ty::B32) => map1(|a: u32| (a == 0) as u32),
        ("cnot", Ty::B64) => map1(|a: u64| (a == 0) as u64),
        ("not", Ty::Pred) => {
            b.arity(i, 2)?;
            let d = b.dst(i, &i.operands[0], Width::Pred)?;
            let a = b.pred_plain(i, &i.operands[1])?;
            b.alu(Class::Predicate, masks(|a, _| !a), d, &[a, a]);
            return Ok(());
        }
        _ => return b.err(i, format!("not for {ty}")),
    };
    same(b, i, Class::Integer, ty, Some(f), 1)
}

/// `shl`, `shr`: amounts of 32 bits, clamped to the width.
pub(super) fn shift(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    let ty = m.ty(i)?;
    m.finish(i)?;
    let f = match (i.name.as_str(), ty) {
        ("shl", Ty::B16) => map2(|a: u16, n: u32| if n < 16 { a << n } else { 0 }),
        ("shl", Ty::B32) => map2(|a: u32, n: u32| if n < 32 { a << n } else { 0 }),
        ("shl", Ty::B64) => map2(|a: u64, n: u32| if n < 64 { a << n } else { 0 }),
        ("shr", Ty::B16 | Ty::U16) => map2(|a: u16, n: u32| if n < 16 { a >> n } else { 0 }),
        ("shr", Ty::B32 | Ty::U32) => map2(|a: u32, n: u32| if n < 32 { a >> n } else { 0 }),
        ("shr", Ty::B64 | Ty::U64) => map2(|a: u64, n: u32| if n < 64 { a >> n } else { 0 }),
        ("shr", Ty::S16) => map2(|a: i16, n: u32| a >> n.min(15)),
        ("shr", Ty::S32) => map2(|a: i32, n: u32| a >> n.min(31)),
        ("shr", Ty::S64) => map2(|a: i64, n: u32| a >> n.min(63)),
        _ => return b.err(i, format!("not for {ty}")),
    };
    b.arity(i, 3)?;
    let d = b.dst(i, &i.operands[0], width_of(ty))?;
    let (a, n) = (b.src(i, &i.operands[1], ty)?, b.src(i, &i.operands[2], Ty::U32)?);
    b.alu(Class::Integer, f, d, &[a, n]);
    Ok(())
}

/// `shf`: the funnel shift.
pub(super) fn funnel(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    let (side, mode) = (m.any(&["l", "r"]), m.any(&["clamp", "wrap"]));
    let ty = m.ty(i)?;
    m.finish(i)?;
    let f = match (side, mode, ty) {
        (Some("l"), Some("clamp"), Ty::B32) => {
            map3(|a: u32, b: u32, n: u32| ((((b as u64) << 32 | a as u64) << n.min(32)) >> 32) as u32)
        }
        (Some("l"), Some("wrap"), Ty::B32) => {
            map3(|a: u32, b: u32, n: u32| ((((b as u64) << 32 | a as u64) << (n & 31)) >> 32) as u32)
        }
        (Some("r"), Some("clamp"), Ty::B32) => {
            map3(|a: u32, b: u32, n: u32| (((b as u64) << 32 | a as u64) >> n.min(32)) as u32)
        }
        (Some("r"), Some("wrap"), Ty::B32) => {
            map3(|a: u32, b: u32, n: u32| (((b as u64) << 32 | a as u64) >> (n & 31)) as u32)
        }
        _ => return b.err(i, "needs .l or .r, .clamp or .wrap, .b32"),
    };
    same(b, i, Class::Integer, ty, Some(f), 3)
}

/// Byte `k` of the eight of b:a, with its sign spread over it where bit 3 of the selector says so.
#[inline(always)]
fn pick(a: u32, b: u32, selector: u32) -> u32 {
    let v = ((b as u64) << 32 | a as u64) >> (8 * (selector & 7)) & 0xff;
    let v = v as u32;
    if selector & 8 != 0 { ((v as u8 as i8) >> 7) as u8 as u32 } else { v }
}

/// `prmt`.
pub(super) fn permute(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    let ty = m.ty(i)?;
    let mode = m.any(&["f4e", "b4e", "rc8", "ecl", "ecr", "rc16"]);
    m.finish(i)?;
    macro_rules! selectors {
        (|$n:ident, $k:ident| $e:expr) => {
            map3(|a: u32, b: u32, c: u32| {
                let $n = c & 3;
                (0..4u32).fold(0, |r, $k| r | pick(a, b, $e) << (8 * $k))
            })
        };
    }
    let f = match (ty, mode) {
        (Ty::B32, None) => {
            map3(|a: u32, b: u32, c: u32| (0..4).fold(0, |r, k| r | pick(a, b, c >> (4 * k) & 15) << (8 * k)))
        }
        (Ty::B32, Some("f4e")) => selectors!(|n, k| (n + k) & 7),
        (Ty::B32, Some("b4e")) => selectors!(|n, k| n.wrapping_sub(k) & 7),
        (Ty::B32, Some("rc8")) => map3(|a: u32, b: u32, c: u32| pick(a, b, c & 3) * 0x0101_0101),
        (Ty::B32, Some("ecl")) => selectors!(|n, k| k.max(n)),
        (Ty::B32, Some("ecr")) => selectors!(|n, k| k.min(n)),
        (Ty::B32, Some("rc16")) => selectors!(|n, k| (n & 1) * 2 + (k & 1)),
        _ => return b.err(i, format!("not for {ty}")),
    };
    same(b, i, Class::Integer, ty, Some(f), 3)
}

/// `lop3`.
pub(super) fn lop3(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    let ty = m.ty(i)?;
    m.finish(i)?;
    b.arity(i, 5)?;
    if ty != Ty::B32 {
        return b.err(i, format!("not for {ty}"));
    }
    let Operand::Int(table) = i.operands[4] else { return b.err(i, "the table must be a number") };
    if !(0..=255).contains(&table) {
        return b.err(i, "a table beyond 255");
    }
    let d = b.dst(i, &i.operands[0], Width::W32)?;
    let mut src = i.operands[1..4].iter().map(|o| b.src(i, o, ty)).collect::<R<Vec<_>>>()?;
    src.push(b.bits(Width::W32, table as u64));
    let f = map4(|a: u32, b: u32, c: u32, t: u32| {
        (0..8u32).fold(0, |r, k| {
            let side = |x: u32, bit: u32| if k & bit != 0 { x } else { !x };
            let chosen = 0u32.wrapping_sub(t >> k & 1);
            r | side(a, 4) & side(b, 2) & side(c, 1) & chosen
        })
    });
    b.alu(Class::Integer, f, d, &src);
    Ok(())
}

/// The operators of comparisons.
const COMPARISONS: [&str; 18] = [
    "eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan",
];

/// The comparison of two values of `ty`.
// The unordered comparisons are by definition the negated ordered ones.
#[allow(clippy::neg_cmp_op_on_partial_ord)]
fn comparison(name: &str, ty: Ty, flush: bool) -> Option<AluFn> {
    macro_rules! ordered {
        ($t:ty) => {
            match name {
                "eq" => compare(|a: $t, b: $t| a == b),
                "ne" => compare(|a: $t, b: $t| a != b),
                "lt" | "lo" => compare(|a: $t, b: $t| a < b),
                "le" | "ls" => compare(|a: $t, b: $t| a <= b),
                "gt" | "hi" => compare(|a: $t, b: $t| a > b),
                "ge" | "hs" => compare(|a: $t, b: $t| a >= b),
                _ => return None,
            }
        };
    }
    macro_rules! floats {
        ($t:ty, $f:expr) => {
            match name {
                "eq" => compare(|a: $t, b: $t| $f(a) == $f(b)),
                "ne" => compare(|a: $t, b: $t| $f(a) < $f(b) || $f(a) > $f(b)),
                "lt" => compare(|a: $t, b: $t| $f(a) < $f(b)),
                "le" => compare(|a: $t, b: $t| $f(a) <= $f(b)),
                "gt" => compare(|a: $t, b: $t| $f(a) > $f(b)),
                "ge" => compare(|a: $t, b: $t| $f(a) >= $f(b)),
                "equ" => compare(|a: $t, b: $t| !($f(a) < $f(b) || $f(a) > $f(b))),
                "neu" => compare(|a: $t, b: $t| $f(a) != $f(b)),
                "ltu" => compare(|a: $t, b: $t| !($f(a) >= $f(b))),
                "leu" => compare(|a: $t, b: $t| !($f(a) > $f(b))),
                "gtu" => compare(|a: $t, b: $t| !($f(a) <= $f(b))),
                "geu" => compare(|a: $t, b: $t| !($f(a) < $f(b))),
                "num" => compare(|a: $t, b: $t| !$f(a).is_nan() && !$f(b).is_nan()),
                "nan" => compare(|a: $t, b: $t| $f(a).is_nan() || $f(b).is_nan()),
                _ => return None,
            }
        };
    }
    let unsigned = matches!(name, "lo" | "ls" | "hi" | "hs");
    let equality = matches!(name, "eq" | "ne");
    Some(match ty {
        Ty::B16 | Ty::B32 | Ty::B64 if !equality && !unsigned => return None,
        Ty::S16 | Ty::S32 | Ty::S64 if unsigned => return None,
        _ if flush && ty != Ty::F32 && ty != Ty::F16 && ty != Ty::F16x2 => return None,
        Ty::U16 | Ty::B16 => ordered!(u16),
        Ty::U32 | Ty::B32 => ordered!(u32),
        Ty::U64 | Ty::B64 => ordered!(u64),
        Ty::S16 => ordered!(i16),
        Ty::S32 => ordered!(i32),
        Ty::S64 => ordered!(i64),
        Ty::F32 if flush => floats!(f32, ftz),
        Ty::F32 => floats!(f32, |x: f32| x),
        Ty::F64 => floats!(f64, |x: f64| x),
        Ty::F16 => floats!(u16, f16_to_f32),
        Ty::BF16 => floats!(u16, bf16_to_f32),
        _ => return None,
    })
}

/// How a comparison and its modifiers were written.
struct Comparison {
    name: &'static str,
    boolean: Option<&'static str>,
    flush: bool,
}

fn read_comparison(b: &Builder, i: &Instr, m: &mut Mods) -> R<Comparison> {
    let Some(name) = m.any(&COMPARISONS) else { return b.err(i, "no comparison") };
    Ok(Comparison { name, boolean: m.any(&["and", "or", "xor"]), flush: m.take("ftz") })
}

/// `t` combined with a predicate operand.
fn combine(b: &mut Builder, i: &Instr, d: i32, t: i32, boolean: &str, o: &Operand) -> R<()> {
    let c = b.pred_plain(i, o)?;
    let f = match boolean {
        "and" => masks(|a, b| a & b),
        "or" => masks(|a, b| a | b),
        _ => masks(|a, b| a ^ b),
    };
    b.alu(Class::Predicate, f, d, &[t, c]);
    Ok(())
}

/// `setp`.
pub(super) fn setp(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    let c = read_comparison(b, i, m)?;
    let ty = m.ty(i)?;
    m.finish(i)?;
    b.arity(i, if c.boolean.is_some() { 4 } else { 3 })?;
    let (p, q) = match &i.operands[0] {
        Operand::Pair(p, q) => (p.as_ref(), Some(q.as_ref())),
        o => (o, None),
    };
    let (p, q) = (b.dst(i, p, Width::Pred)?, q.map(|q| b.dst(i, q, Width::Pred)).transpose()?);
    let (x, y) = (b.src(i, &i.operands[1], ty)?, b.src(i, &i.operands[2], ty)?);
    if matches!(ty, Ty::F16x2 | Ty::BF16x2) {
        return setp_pair(b, i, &c, ty, p, q, x, y);
    }
    let Some(f) = comparison(c.name, ty, c.flush) else { return b.err(i, format!("not for {ty}")) };
    let Some(boolean) = c.boolean else {
        match q {
            None => b.alu(Class::Predicate, f, p, &[x, y]),
            Some(q) => {
                let t = b.fresh(Width::Pred);
                b.alu(Class::Predicate, f, t, &[x, y]);
                b.alu(Class::Predicate, masks(|a, _| a), p, &[t, t]);
                b.alu(Class::Predicate, masks(|a, _| !a), q, &[t, t]);
            }
        }
        return Ok(());
    };
    let t = b.fresh(Width::Pred);
    b.alu(Class::Predicate, f, t, &[x, y]);
    // The second result first, into registers of their own: either may be the operand.
    let (u, v) = (b.fresh(Width::Pred), b.fresh(Width::Pred));
    combine(b, i, u, t, boolean, &i.operands[3])?;
    if let Some(q) = q {
        b.alu(Class::Predicate, masks(|a, _| !a), v, &[t, t]);
        combine(b, i, q, v, boolean, &i.operands[3])?;
    }
    b.alu(Class::Predicate, masks(|a, _| a), p, &[u, u]);
    Ok(())
}

fn setp_pair(b: &mut Builder, i: &Instr, c: &Comparison, ty: Ty, p: i32, q: Option<i32>, x: i32, y: i32) -> R<()> {
    let one = if ty == Ty::F16x2 { Ty::F16 } else { Ty::BF16 };
    let Some(f) = comparison(c.name, one, c.flush) else { return b.err(i, format!("not for {ty}")) };
    let Some(q) = q else { return b.err(i, "needs two results, p|q") };
    for (d, shift) in [(p, map1(|a: u32| a as u16)), (q, map1(|a: u32| (a >> 16) as u16))] {
        let (hx, hy) = (b.fresh(Width::W16), b.fresh(Width::W16));
        b.alu(Class::Predicate, shift, hx, &[x]);
        b.alu(Class::Predicate, shift, hy, &[y]);
        let t = b.fresh(Width::Pred);
        b.alu(Class::Predicate, f, t, &[hx, hy]);
        match c.boolean {
            Some(boolean) => combine(b, i, d, t, boolean, &i.operands[3])?,
            None => b.alu(Class::Predicate, masks(|a, _| a), d, &[t, t]),
        }
    }
    Ok(())
}

/// `set`: a comparison whose result is a number.
pub(super) fn set(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    let c = read_comparison(b, i, m)?;
    let (dt, ty) = (m.ty(i)?, m.ty(i)?);
    m.finish(i)?;
    b.arity(i, if c.boolean.is_some() { 4 } else { 3 })?;
    let Some(f) = comparison(c.name, ty, c.flush) else { return b.err(i, format!("not for {ty}")) };
    let yes = match dt {
        Ty::U32 | Ty::S32 => 0xffff_ffff,
        Ty::F32 => 0x3f80_0000,
        _ => return b.err(i, format!("no result of {dt}")),
    };
    let d = b.dst(i, &i.operands[0], Width::W32)?;
    let (x, y) = (b.src(i, &i.operands[1], ty)?, b.src(i, &i.operands[2], ty)?);
    let mut t = b.fresh(Width::Pred);
    b.alu(Class::Predicate, f, t, &[x, y]);
    if let Some(boolean) = c.boolean {
        let u = b.fresh(Width::Pred);
        combine(b, i, u, t, boolean, &i.operands[3])?;
        t = u;
    }
    let (yes, no) = (b.bits(Width::W32, yes), b.bits(Width::W32, 0));
    b.alu(Class::Predicate, select(|a: u32, b: u32, p| if p { a } else { b }), d, &[yes, no, t]);
    Ok(())
}

/// `selp`.
pub(super) fn selp(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    let ty = m.ty(i)?;
    m.finish(i)?;
    b.arity(i, 4)?;
    let f = match width_of(ty) {
        Width::W16 => select(|a: u16, b: u16, p| if p { a } else { b }),
        Width::W32 => select(|a: u32, b: u32, p| if p { a } else { b }),
        Width::W64 => select(|a: u64, b: u64, p| if p { a } else { b }),
        _ => return b.err(i, format!("not for {ty}")),
    };
    let d = b.dst(i, &i.operands[0], width_of(ty))?;
    let (x, y) = (b.src(i, &i.operands[1], ty)?, b.src(i, &i.operands[2], ty)?);
    let p = b.pred_plain(i, &i.operands[3])?;
    b.alu(Class::Move, f, d, &[x, y, p]);
    Ok(())
}

/// `slct`: a where c is not negative.
pub(super) fn slct(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    let flush = m.take("ftz");
    let (ty, ct) = (m.ty(i)?, m.ty(i)?);
    m.finish(i)?;
    b.arity(i, 4)?;
    let f = match (width_of(ty), ct) {
        (Width::W32, Ty::S32) => map3(|a: u32, b: u32, c: i32| if c >= 0 { a } else { b }),
        (Width::W64, Ty::S32) => map3(|a: u64, b: u64, c: i32| if c >= 0 { a } else { b }),
        (Width::W16, Ty::S32) => map3(|a: u16, b: u16, c: i32| if c >= 0 { a } else { b }),
        (Width::W32, Ty::F32) if flush => map3(|a: u32, b: u32, c: f32| if ftz(c) >= 0.0 { a } else { b }),
        (Width::W32, Ty::F32) => map3(|a: u32, b: u32, c: f32| if c >= 0.0 { a } else { b }),
        (Width::W64, Ty::F32) => map3(|a: u64, b: u64, c: f32| if c >= 0.0 { a } else { b }),
        _ => return b.err(i, format!("not for {ty}")),
    };
    let d = b.dst(i, &i.operands[0], width_of(ty))?;
    let (x, y) = (b.src(i, &i.operands[1], ty)?, b.src(i, &i.operands[2], ty)?);
    let c = b.src(i, &i.operands[3], ct)?;
    b.alu(Class::Move, f, d, &[x, y, c]);
    Ok(())
}

/// `cvta`, `cvta.to`: between generic addresses and those of a state space.
pub(super) fn cvta(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    use crate::exec::{LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW};
    let to = m.take("to");
    let Some(space) = m.any(&["global", "const", "shared", "shared::cta", "local", "param", "param::entry"]) else {
        return b.err(i, "no state space");
    };
    let ty = m.ty(i)?;
    m.finish(i)?;
    if ty != Ty::U64 {
        return b.err(i, "only addresses of 64 bits");
    }
    b.arity(i, 2)?;
    let d = b.dst(i, &i.operands[0], Width::W64)?;
    // A parameter of an inlined function lies in local memory.
    let local_param = matches!(&i.operands[1], Operand::Name(n) if matches!(b.lookup(n), Some(Binding::Local(_))));
    let a = b.src(i, &i.operands[1], ty)?;
    let window = match space {
        "shared" | "shared::cta" => SHARED_WINDOW,
        "local" => LOCAL_WINDOW,
        "param" | "param::entry" if local_param => LOCAL_WINDOW,
        "param" | "param::entry" => PARAM_WINDOW,
        _ => {
            copy(b, ty, d, a);
            return Ok(());
        }
    };
    let k = b.bits(Width::W64, window);
    let f = if to { map2(|a: u64, w: u64| a.wrapping_sub(w)) } else { map2(|a: u64, w: u64| a.wrapping_add(w)) };
    b.alu(Class::Move, f, d, &[a, k]);
    Ok(())
}

/// `isspacep`.
pub(super) fn isspacep(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    use crate::exec::lanes::test;
    use crate::exec::{LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, WINDOW};
    let Some(space) = m.any(&["global", "const", "shared", "shared::cta", "local", "param", "param::entry"]) else {
        return b.err(i, "no state space");
    };
    m.finish(i)?;
    b.arity(i, 2)?;
    let d = b.dst(i, &i.operands[0], Width::Pred)?;
    let a = b.src(i, &i.operands[1], Ty::U64)?;
    let f = match space {
        "shared" | "shared::cta" => test(|a: u64| a.wrapping_sub(SHARED_WINDOW) < WINDOW),
        "local" => test(|a: u64| a.wrapping_sub(LOCAL_WINDOW) < WINDOW),
        "param" | "param::entry" => test(|a: u64| a.wrapping_sub(PARAM_WINDOW) < WINDOW),
        "const" => test(|_: u64| false),
        _ => test(|a: u64| a < SHARED_WINDOW),
    };
    b.alu(Class::Predicate, f, d, &[a]);
    Ok(())
}
