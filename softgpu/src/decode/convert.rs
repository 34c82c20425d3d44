//! Decoder of `cvt`. Integers pass through 64 bits and floating point through f64 (both exact), so that each pair of
//! types needs no function of its own; the most frequent pairs have one all the same.

use super::builder::{Builder, Mods, R, width_of};
use crate::exec::lanes::{map1, map2};
use crate::num::round::{self, Mode};
use crate::num::*;
use crate::program::{AluFn, Class, Width};
use crate::ptx::ast::{Instr, Operand, Ty};

/// How a conversion rounds to an integer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whole {
    Nearest,
    Zero,
    Down,
    Up,
}

struct Cvt {
    mode: Option<Mode>,
    nearest: bool,
    away: bool,
    whole: Option<Whole>,
    flush: bool,
    sat: bool,
    satfinite: bool,
    relu: bool,
    to: Ty,
    from: Ty,
}

/// `cvt`, `cvt.pack` excepted.
pub(super) fn cvt(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    let whole = match m.any(&["rni", "rzi", "rmi", "rpi"]) {
        Some("rni") => Some(Whole::Nearest),
        Some("rzi") => Some(Whole::Zero),
        Some("rmi") => Some(Whole::Down),
        Some(_) => Some(Whole::Up),
        None => None,
    };
    let round = m.any(&["rna", "rn", "rz", "rm", "rp"]);
    let mode = match round {
        Some("rz") => Some(Mode::Zero),
        Some("rm") => Some(Mode::Down),
        Some("rp") => Some(Mode::Up),
        _ => None,
    };
    let c = Cvt {
        mode,
        nearest: round == Some("rn"),
        away: round == Some("rna"),
        whole,
        flush: m.take("ftz"),
        satfinite: m.take("satfinite"),
        sat: m.take("sat"),
        relu: m.take("relu"),
        to: m.ty(i)?,
        from: m.ty(i)?,
    };
    m.finish(i)?;
    if i.operands.len() == 3 {
        return packed(b, i, &c);
    }
    b.arity(i, 2)?;
    match (c.to, c.from) {
        (Ty::E4M3x2 | Ty::E5M2x2, Ty::F16x2 | Ty::BF16x2) => fp8_from_pair(b, i, &c),
        (Ty::F16x2, Ty::E4M3x2 | Ty::E5M2x2) => pair_from_fp8(b, i, &c),
        (Ty::TF32, Ty::F32) => tf32(b, i, &c),
        (t, f) if t.integer() && f.integer() => integers(b, i, &c),
        (t, f) if t.integer() && is_float(f) => to_integer(b, i, &c),
        (t, f) if is_float(t) && f.integer() => from_integer(b, i, &c),
        (t, f) if is_float(t) && is_float(f) => floats(b, i, &c),
        _ => b.err(i, "not between these types"),
    }
}

fn is_float(t: Ty) -> bool {
    matches!(t, Ty::F16 | Ty::BF16 | Ty::F32 | Ty::F64)
}

/// A source register, which may be wider than its type.
fn wide_src(b: &mut Builder, i: &Instr, o: &Operand, ty: Ty) -> R<i32> {
    if let Operand::Name(n) = o
        && let Some(super::builder::Binding::Reg(r, _)) = b.lookup(n)
    {
        let w = b.width(r);
        if w == Width::Pred || w == Width::W128 || w.bytes() < ty.bytes() {
            return b.err(i, format!("{n} does not hold a {ty}"));
        }
        return Ok(r);
    }
    b.src(i, o, ty)
}

/// A destination, which may be wider than its type (integers only): the register and its width.
fn wide_dst(b: &mut Builder, i: &Instr, o: &Operand, ty: Ty) -> R<(i32, Width)> {
    if let Operand::Name(n) = o
        && let Some(super::builder::Binding::Reg(r, _)) = b.lookup(n)
    {
        let w = b.width(r);
        if w == Width::Pred || w == Width::W128 || w.bytes() < ty.bytes() {
            return b.err(i, format!("{n} cannot hold a {ty}"));
        }
        return Ok((r, w));
    }
    Ok((b.dst(i, o, width_of(ty))?, width_of(ty)))
}

/// An integer in a register of `w` as i64: sign or zero extended from its own type.
fn widen(w: Width, ty: Ty) -> AluFn {
    macro_rules! from {
        ($reg:ty) => {
            match ty {
                Ty::U8 | Ty::B8 => map1(|a: $reg| a as u8 as i64),
                Ty::S8 => map1(|a: $reg| a as i8 as i64),
                Ty::U16 | Ty::B16 => map1(|a: $reg| a as u16 as i64),
                Ty::S16 => map1(|a: $reg| a as i16 as i64),
                Ty::U32 | Ty::B32 => map1(|a: $reg| a as u32 as i64),
                Ty::S32 => map1(|a: $reg| a as i32 as i64),
                _ => map1(|a: $reg| a as u64 as i64),
            }
        };
    }
    match w {
        Width::W16 => from!(u16),
        Width::W32 => from!(u32),
        _ => from!(u64),
    }
}

/// An i64 as a value of `ty` in a register of `w`, extended by the type's own sign.
fn narrow(w: Width, ty: Ty) -> AluFn {
    macro_rules! to {
        ($reg:ty) => {
            match ty {
                Ty::U8 | Ty::B8 => map1(|a: i64| a as u8 as $reg),
                Ty::S8 => map1(|a: i64| a as i8 as $reg),
                Ty::U16 | Ty::B16 => map1(|a: i64| a as u16 as $reg),
                Ty::S16 => map1(|a: i64| a as i16 as $reg),
                Ty::U32 | Ty::B32 => map1(|a: i64| a as u32 as $reg),
                Ty::S32 => map1(|a: i64| a as i32 as $reg),
                _ => map1(|a: i64| a as $reg),
            }
        };
    }
    match w {
        Width::W16 => to!(u16),
        Width::W32 => to!(u32),
        _ => to!(u64),
    }
}

fn integers(b: &mut Builder, i: &Instr, c: &Cvt) -> R<()> {
    if c.whole.is_some() || c.mode.is_some() || c.nearest || c.away || c.flush || c.relu || c.satfinite {
        return b.err(i, "no rounding between integers");
    }
    let a = wide_src(b, i, &i.operands[1], c.from)?;
    let (d, w) = wide_dst(b, i, &i.operands[0], c.to)?;
    let from = b.width(a);
    let direct = match (c.to, w, c.from, from) {
        _ if c.sat => None,
        (Ty::U64 | Ty::S64, Width::W64, Ty::U32, Width::W32) => Some(map1(|a: u32| a as u64)),
        (Ty::U64 | Ty::S64, Width::W64, Ty::S32, Width::W32) => Some(map1(|a: i32| a as i64)),
        (Ty::U32 | Ty::S32, Width::W32, Ty::U64 | Ty::S64, Width::W64) => Some(map1(|a: u64| a as u32)),
        (Ty::U32 | Ty::S32, Width::W32, Ty::U16, Width::W16) => Some(map1(|a: u16| a as u32)),
        (Ty::U32 | Ty::S32, Width::W32, Ty::S16, Width::W16) => Some(map1(|a: i16| a as i32)),
        (Ty::U16 | Ty::S16, Width::W16, Ty::U32 | Ty::S32, Width::W32) => Some(map1(|a: u32| a as u16)),
        _ => None,
    };
    if let Some(f) = direct {
        b.alu(Class::Convert, f, d, &[a]);
        return Ok(());
    }
    let mut t = b.fresh(Width::W64);
    b.alu(Class::Convert, widen(from, c.from), t, &[a]);
    if c.sat {
        let s = b.fresh(Width::W64);
        let unsigned_source = matches!(c.from, Ty::U64 | Ty::B64);
        let f = if unsigned_source {
            match c.to {
                Ty::S64 => map1(|a: u64| a.min(i64::MAX as u64)),
                Ty::U32 => map1(|a: u64| a.min(u32::MAX as u64)),
                Ty::S32 => map1(|a: u64| a.min(i32::MAX as u64)),
                Ty::U16 => map1(|a: u64| a.min(u16::MAX as u64)),
                Ty::S16 => map1(|a: u64| a.min(i16::MAX as u64)),
                Ty::U8 => map1(|a: u64| a.min(u8::MAX as u64)),
                Ty::S8 => map1(|a: u64| a.min(i8::MAX as u64)),
                _ => map1(|a: u64| a),
            }
        } else {
            match c.to {
                Ty::U64 => map1(|a: i64| a.max(0)),
                Ty::U32 => map1(|a: i64| a.clamp(0, u32::MAX as i64)),
                Ty::S32 => map1(|a: i64| a.clamp(i32::MIN as i64, i32::MAX as i64)),
                Ty::U16 => map1(|a: i64| a.clamp(0, u16::MAX as i64)),
                Ty::S16 => map1(|a: i64| a.clamp(i16::MIN as i64, i16::MAX as i64)),
                Ty::U8 => map1(|a: i64| a.clamp(0, u8::MAX as i64)),
                Ty::S8 => map1(|a: i64| a.clamp(i8::MIN as i64, i8::MAX as i64)),
                _ => map1(|a: i64| a),
            }
        };
        b.alu(Class::Convert, f, s, &[t]);
        t = s;
    }
    b.alu(Class::Convert, narrow(w, c.to), d, &[t]);
    Ok(())
}

/// A floating value as f64 in a register of its own.
fn to_f64(b: &mut Builder, i: &Instr, c: &Cvt) -> R<i32> {
    let a = b.src(i, &i.operands[1], c.from)?;
    let f = match (c.from, c.flush) {
        (Ty::F16, _) => map1(|a: u16| f16_to_f32(a) as f64),
        (Ty::BF16, _) => map1(|a: u16| bf16_to_f32(a) as f64),
        (Ty::F32, false) => map1(|a: f32| a as f64),
        (Ty::F32, true) => map1(|a: f32| ftz(a) as f64),
        _ => return Ok(a),
    };
    let t = b.fresh(Width::W64);
    b.alu(Class::Convert, f, t, &[a]);
    Ok(t)
}

fn to_integer(b: &mut Builder, i: &Instr, c: &Cvt) -> R<()> {
    let Some(whole) = c.whole else { return b.err(i, "rounding to an integer is missing") };
    if c.mode.is_some() || c.nearest || c.relu || c.satfinite {
        return b.err(i, "modifiers that do not go together");
    }
    let t = to_f64(b, i, c)?;
    let r = b.fresh(Width::W64);
    let f = match whole {
        Whole::Nearest => map1(|a: f64| a.round_ties_even()),
        Whole::Zero => map1(|a: f64| a.trunc()),
        Whole::Down => map1(|a: f64| a.floor()),
        Whole::Up => map1(|a: f64| a.ceil()),
    };
    b.alu(Class::Convert, f, r, &[t]);
    // Values beyond the range give its end, NaN gives 0, or the top bit where 64 bits are involved.
    let wide_nan = c.from == Ty::F64 || matches!(c.to, Ty::U64 | Ty::S64);
    let n = b.fresh(Width::W64);
    let g = match (c.to, wide_nan) {
        (Ty::U8, _) => map1(|a: f64| a as u8 as i64),
        (Ty::S8, _) => map1(|a: f64| a as i8 as i64),
        (Ty::U16, false) => map1(|a: f64| a as u16 as i64),
        (Ty::S16, false) => map1(|a: f64| a as i16 as i64),
        (Ty::U32, false) => map1(|a: f64| a as u32 as i64),
        (Ty::S32, false) => map1(|a: f64| a as i32 as i64),
        (Ty::U16, true) => map1(|a: f64| if a.is_nan() { 1 << 15 } else { a as u16 as i64 }),
        (Ty::S16, true) => map1(|a: f64| if a.is_nan() { 1 << 15 } else { a as i16 as i64 }),
        (Ty::U32, true) => map1(|a: f64| if a.is_nan() { 1 << 31 } else { a as u32 as i64 }),
        (Ty::S32, true) => map1(|a: f64| if a.is_nan() { 1 << 31 } else { a as i32 as i64 }),
        (Ty::U64, _) => map1(|a: f64| if a.is_nan() { 1 << 63 } else { a as u64 }),
        (Ty::S64, _) => map1(|a: f64| if a.is_nan() { i64::MIN } else { a as i64 }),
        _ => return b.err(i, "not to this type"),
    };
    b.alu(Class::Convert, g, n, &[r]);
    let (d, w) = wide_dst(b, i, &i.operands[0], c.to)?;
    b.alu(Class::Convert, narrow(w, c.to), d, &[n]);
    Ok(())
}

fn from_integer(b: &mut Builder, i: &Instr, c: &Cvt) -> R<()> {
    if c.whole.is_some() || c.flush || c.relu || c.satfinite || (!c.nearest && c.mode.is_none()) {
        return b.err(i, "needs a rounding of floating point");
    }
    let a = wide_src(b, i, &i.operands[1], c.from)?;
    let d = b.dst(i, &i.operands[0], width_of(c.to))?;
    if (c.to, c.from, b.width(a), c.mode, c.sat) == (Ty::F32, Ty::S32, Width::W32, None, false) {
        b.alu(Class::Convert, map1(|a: i32| a as f32), d, &[a]);
        return Ok(());
    }
    let t = b.fresh(Width::W64);
    b.alu(Class::Convert, widen(b.width(a), c.from), t, &[a]);
    let unsigned = matches!(c.from, Ty::U64 | Ty::B64);
    macro_rules! both {
        (|$x:ident| $e:expr) => {
            if unsigned {
                map1(|a: u64| {
                    let $x = a as i128;
                    $e
                })
            } else {
                map1(|a: i64| {
                    let $x = a as i128;
                    $e
                })
            }
        };
    }
    let f = match (c.to, c.mode) {
        (Ty::F32, None) if unsigned => map1(|a: u64| a as f32),
        (Ty::F32, None) => map1(|a: i64| a as f32),
        (Ty::F32, Some(Mode::Zero)) => both!(|x| round::int_to_f32(x, Mode::Zero)),
        (Ty::F32, Some(Mode::Down)) => both!(|x| round::int_to_f32(x, Mode::Down)),
        (Ty::F32, Some(Mode::Up)) => both!(|x| round::int_to_f32(x, Mode::Up)),
        (Ty::F64, None) if unsigned => map1(|a: u64| a as f64),
        (Ty::F64, None) => map1(|a: i64| a as f64),
        (Ty::F16, None) => both!(|x| f16_from_f32(round::int_to_f32(x, Mode::Zero).max_odd(x))),
        (Ty::BF16, None) => both!(|x| bf16_from_f32(round::int_to_f32(x, Mode::Zero).max_odd(x))),
        _ => return b.err(i, "not with this rounding"),
    };
    if !c.sat {
        b.alu(Class::Convert, f, d, &[t]);
        return Ok(());
    }
    if c.to != Ty::F32 {
        return b.err(i, ".sat only to f32");
    }
    let u = b.fresh(Width::W32);
    b.alu(Class::Convert, f, u, &[t]);
    b.alu(Class::Convert, map1(|a: f32| if a > 0.0 { a.min(1.0) } else { 0.0 }), d, &[u]);
    Ok(())
}

/// Makes a truncated conversion sticky, so that a second rounding is right.
trait Odd {
    fn max_odd(self, exact: i128) -> Self;
}

impl Odd for f32 {
    #[inline(always)]
    fn max_odd(self, exact: i128) -> f32 {
        if self as i128 == exact { self } else { f32::from_bits(self.to_bits() | 1) }
    }
}

fn floats(b: &mut Builder, i: &Instr, c: &Cvt) -> R<()> {
    if c.satfinite || c.away {
        return b.err(i, "modifiers that do not go together");
    }
    let narrows = c.to.bytes() < c.from.bytes() || (c.to != c.from && c.to.bytes() == 2);
    if narrows != (c.nearest || c.mode.is_some()) || (c.whole.is_some() && c.to != c.from) {
        return b.err(i, if narrows { "a rounding is missing" } else { "a rounding where none is made" });
    }
    // Direct pairs first.
    let direct = match (c.to, c.from, c.whole) {
        (Ty::F32, Ty::BF16, _) if !c.sat => Some(map1(|a: u16| bf16_to_f32(a))),
        (Ty::F32, Ty::F16, _) if !c.sat && !c.flush => Some(map1(|a: u16| canon(f16_to_f32(a)))),
        (Ty::BF16, Ty::F32, _) if c.nearest && !c.relu && !c.flush && !c.sat => Some(map1(|a: f32| bf16_from_f32(a))),
        (Ty::F16, Ty::F32, _) if c.nearest && !c.relu && !c.flush && !c.sat => Some(map1(|a: f32| f16_from_f32(a))),
        _ => None,
    };
    if let Some(f) = direct {
        let a = b.src(i, &i.operands[1], c.from)?;
        let d = b.dst(i, &i.operands[0], width_of(c.to))?;
        b.alu(Class::Convert, f, d, &[a]);
        return Ok(());
    }
    let mut t = to_f64(b, i, c)?;
    let mut step = |b: &mut Builder, f: AluFn| {
        let n = b.fresh(Width::W64);
        b.alu(Class::Convert, f, n, &[t]);
        t = n;
    };
    match c.whole {
        Some(Whole::Nearest) => step(b, map1(|a: f64| a.round_ties_even())),
        Some(Whole::Zero) => step(b, map1(|a: f64| a.trunc())),
        Some(Whole::Down) => step(b, map1(|a: f64| a.floor())),
        Some(Whole::Up) => step(b, map1(|a: f64| a.ceil())),
        None => {}
    }
    if c.sat {
        step(b, map1(|a: f64| if a > 0.0 { a.min(1.0) } else { 0.0 }));
    }
    if c.relu {
        step(b, map1(|a: f64| if a.is_nan() || a > 0.0 { a } else { 0.0 }));
    }
    let d = b.dst(i, &i.operands[0], width_of(c.to))?;
    let f = match (c.to, c.mode) {
        (Ty::F64, None) => map1(|a: f64| a),
        (Ty::F32, None) if c.flush => map1(|a: f64| ftz(canon(a as f32))),
        (Ty::F32, None) => map1(|a: f64| canon(a as f32)),
        (Ty::F32, Some(Mode::Zero)) => map1(|a: f64| round::to_f32(a, Mode::Zero)),
        (Ty::F32, Some(Mode::Down)) => map1(|a: f64| round::to_f32(a, Mode::Down)),
        (Ty::F32, Some(Mode::Up)) => map1(|a: f64| round::to_f32(a, Mode::Up)),
        (Ty::F16, None) => map1(|a: f64| f16_from_f32(round::sticky(a))),
        (Ty::F16, Some(Mode::Zero)) => map1(|a: f64| f16_from_f32_rz(round::to_f32(a, Mode::Zero))),
        (Ty::BF16, None) => map1(|a: f64| bf16_from_f32(round::sticky(a))),
        (Ty::BF16, Some(Mode::Zero)) => map1(|a: f64| bf16_from_f32_rz(round::to_f32(a, Mode::Zero))),
        _ => return b.err(i, "not with this rounding"),
    };
    b.alu(Class::Convert, f, d, &[t]);
    Ok(())
}

#[inline(always)]
fn clip(x: f32) -> f32 {
    if x.is_nan() || x > 0.0 { x } else { 0.0 }
}

/// `cvt….{f16x2,bf16x2,e4m3x2,e5m2x2}.f32 d, a, b`: a in the upper half.
fn packed(b: &mut Builder, i: &Instr, c: &Cvt) -> R<()> {
    if c.from != Ty::F32
        || c.sat
        || c.flush
        || c.whole.is_some()
        || c.away
        || !(c.nearest || c.mode == Some(Mode::Zero))
    {
        return b.err(i, "not with three operands");
    }
    let d = b.dst(i, &i.operands[0], width_of(c.to))?;
    let (x, y) = (b.src(i, &i.operands[1], Ty::F32)?, b.src(i, &i.operands[2], Ty::F32)?);
    macro_rules! two {
        ($f:path) => {
            if c.relu {
                map2(|a: f32, b: f32| $f(clip(b)) as u32 | ($f(clip(a)) as u32) << 16)
            } else {
                map2(|a: f32, b: f32| $f(b) as u32 | ($f(a) as u32) << 16)
            }
        };
    }
    macro_rules! bytes {
        ($f:path) => {
            if c.relu {
                map2(|a: f32, b: f32| $f(clip(b)) as u16 | ($f(clip(a)) as u16) << 8)
            } else {
                map2(|a: f32, b: f32| $f(b) as u16 | ($f(a) as u16) << 8)
            }
        };
    }
    let f = match (c.to, c.nearest, c.satfinite) {
        (Ty::F16x2, true, false) => two!(f16_from_f32),
        (Ty::F16x2, false, false) => two!(f16_from_f32_rz),
        (Ty::BF16x2, true, false) => two!(bf16_from_f32),
        (Ty::BF16x2, false, false) => two!(bf16_from_f32_rz),
        (Ty::E4M3x2, true, true) => bytes!(e4m3_from_f32),
        (Ty::E5M2x2, true, true) => bytes!(e5m2_from_f32),
        _ => return b.err(i, "not with these modifiers"),
    };
    b.alu(Class::Convert, f, d, &[x, y]);
    Ok(())
}

fn fp8_from_pair(b: &mut Builder, i: &Instr, c: &Cvt) -> R<()> {
    if !c.nearest || !c.satfinite || c.sat || c.flush {
        return b.err(i, "needs .rn.satfinite");
    }
    let d = b.dst(i, &i.operands[0], Width::W16)?;
    let a = b.src(i, &i.operands[1], c.from)?;
    macro_rules! pair {
        ($to:path, $from:path) => {
            if c.relu {
                map1(|a: u32| $to(clip($from(a as u16))) as u16 | ($to(clip($from((a >> 16) as u16))) as u16) << 8)
            } else {
                map1(|a: u32| $to($from(a as u16)) as u16 | ($to($from((a >> 16) as u16)) as u16) << 8)
            }
        };
    }
    let f = match (c.to, c.from) {
        (Ty::E4M3x2, Ty::F16x2) => pair!(e4m3_from_f32, f16_to_f32),
        (Ty::E5M2x2, Ty::F16x2) => pair!(e5m2_from_f32, f16_to_f32),
        _ => return b.err(i, "not from bf16x2"),
    };
    b.alu(Class::Convert, f, d, &[a]);
    Ok(())
}

fn pair_from_fp8(b: &mut Builder, i: &Instr, c: &Cvt) -> R<()> {
    if !c.nearest || c.satfinite || c.sat || c.flush {
        return b.err(i, "needs .rn");
    }
    let d = b.dst(i, &i.operands[0], Width::W32)?;
    let a = b.src(i, &i.operands[1], Ty::B16)?;
    macro_rules! pair {
        ($from:path) => {
            if c.relu {
                map1(|a: u16| {
                    f16_from_f32(clip($from(a as u8))) as u32 | (f16_from_f32(clip($from((a >> 8) as u8))) as u32) << 16
                })
            } else {
                map1(|a: u16| f16_from_f32($from(a as u8)) as u32 | (f16_from_f32($from((a >> 8) as u8)) as u32) << 16)
            }
        };
    }
    let f = if c.from == Ty::E4M3x2 { pair!(e4m3_to_f32) } else { pair!(e5m2_to_f32) };
    b.alu(Class::Convert, f, d, &[a]);
    Ok(())
}

fn tf32(b: &mut Builder, i: &Instr, c: &Cvt) -> R<()> {
    if c.sat || c.flush || c.whole.is_some() || c.satfinite {
        return b.err(i, "modifiers that do not go together");
    }
    let d = b.dst(i, &i.operands[0], Width::W32)?;
    let a = b.src(i, &i.operands[1], Ty::F32)?;
    let f = match (c.away, c.nearest, c.mode, c.relu) {
        (true, _, _, false) => map1(|a: f32| tf32_rna(a)),
        (_, true, _, false) => map1(|a: f32| tf32_rn(a)),
        (_, true, _, true) => map1(|a: f32| clip(tf32_rn(a))),
        (_, _, Some(Mode::Zero), false) => map1(|a: f32| tf32_read(canon(a))),
        (_, _, Some(Mode::Zero), true) => map1(|a: f32| clip(tf32_read(canon(a)))),
        _ => return b.err(i, "a rounding is missing"),
    };
    b.alu(Class::Convert, f, d, &[a]);
    Ok(())
}
