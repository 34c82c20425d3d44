//! Decoders of floating-point arithmetic. 16-bit formats compute in f32 and round once: that is exact for sums and
//! products; fused products go through f64 with a sticky bit.

use super::arith::same;
use super::builder::{Builder, Mods, R};
use crate::exec::lanes::{map1, map2, map3};
use crate::num::round::{self, Mode};
use crate::num::{approx, *};
use crate::program::{AluFn, Class};
use crate::ptx::ast::{Instr, Ty};

/// To [0, 1]; NaN becomes 0.
#[inline(always)]
fn sat(x: f32) -> f32 {
    if x > 0.0 { x.min(1.0) } else { 0.0 }
}

#[inline(always)]
fn relu(x: f32) -> f32 {
    if x.is_nan() || x > 0.0 { x } else { 0.0 }
}

/// Rounding of f32 and f64 arithmetic.
fn rounding(m: &mut Mods) -> Option<Mode> {
    match m.any(&["rn", "rz", "rm", "rp"]) {
        Some("rz") => Some(Mode::Zero),
        Some("rm") => Some(Mode::Down),
        Some("rp") => Some(Mode::Up),
        _ => None,
    }
}

/// A function of two f32 with the variants of `.ftz` and `.sat`.
macro_rules! f32x2 {
    ($flush:expr, $sat:expr, |$a:ident, $b:ident| $e:expr) => {
        match ($flush, $sat) {
            (false, false) => map2(|$a: f32, $b: f32| canon($e)),
            (true, false) => map2(|a: f32, b: f32| {
                let ($a, $b) = (ftz(a), ftz(b));
                ftz(canon($e))
            }),
            (false, true) => map2(|$a: f32, $b: f32| sat($e)),
            (true, true) => map2(|a: f32, b: f32| {
                let ($a, $b) = (ftz(a), ftz(b));
                ftz(sat($e))
            }),
        }
    };
}

macro_rules! f32x3 {
    ($flush:expr, $sat:expr, |$a:ident, $b:ident, $c:ident| $e:expr) => {
        match ($flush, $sat) {
            (false, false) => map3(|$a: f32, $b: f32, $c: f32| canon($e)),
            (true, false) => map3(|a: f32, b: f32, c: f32| {
                let ($a, $b, $c) = (ftz(a), ftz(b), ftz(c));
                ftz(canon($e))
            }),
            (false, true) => map3(|$a: f32, $b: f32, $c: f32| sat($e)),
            (true, true) => map3(|a: f32, b: f32, c: f32| {
                let ($a, $b, $c) = (ftz(a), ftz(b), ftz(c));
                ftz(sat($e))
            }),
        }
    };
}

/// A function of two values of a 16-bit format, alone or in pairs.
macro_rules! sixteen2 {
    ($ty:expr, |$a:ident, $b:ident| $e:expr) => {
        match $ty {
            Ty::F16 => map2(|a: u16, b: u16| f16_op2(a, b, |$a, $b| $e)),
            Ty::BF16 => map2(|a: u16, b: u16| bf16_op2(a, b, |$a, $b| $e)),
            Ty::F16x2 => map2(|a: u32, b: u32| {
                let f = |a, b| f16_op2(a, b, |$a, $b| $e);
                f(a as u16, b as u16) as u32 | (f((a >> 16) as u16, (b >> 16) as u16) as u32) << 16
            }),
            _ => map2(|a: u32, b: u32| {
                let f = |a, b| bf16_op2(a, b, |$a, $b| $e);
                f(a as u16, b as u16) as u32 | (f((a >> 16) as u16, (b >> 16) as u16) as u32) << 16
            }),
        }
    };
}

#[inline(always)]
fn f16_op2(a: u16, b: u16, f: impl Fn(f32, f32) -> f32) -> u16 {
    f16_from_f32(f(f16_to_f32(a), f16_to_f32(b)))
}

#[inline(always)]
fn bf16_op2(a: u16, b: u16, f: impl Fn(f32, f32) -> f32) -> u16 {
    bf16_from_f32(f(bf16_to_f32(a), bf16_to_f32(b)))
}

/// `add`, `sub`, `mul` of floating point; the type is taken, other modifiers are not.
pub(super) fn two(b: &mut Builder, i: &Instr, m: &mut Mods, ty: Ty) -> R<()> {
    let mode = rounding(m);
    let flush = m.take("ftz");
    let saturate = m.take("sat");
    m.finish(i)?;
    let f = match (ty, mode) {
        (Ty::F32, mode) => f32_two(i.name.as_str(), flush, saturate, mode),
        (_, _) if flush && !matches!(ty, Ty::F16 | Ty::F16x2) => return b.err(i, "no .ftz for this type"),
        (Ty::F64, None) if !saturate => Some(match i.name.as_str() {
            "add" => map2(|a: f64, b: f64| a + b),
            "sub" => map2(|a: f64, b: f64| a - b),
            _ => map2(|a: f64, b: f64| a * b),
        }),
        (Ty::F64, Some(mode)) if !saturate => f64_directed(i.name.as_str(), mode),
        (Ty::F16 | Ty::BF16 | Ty::F16x2 | Ty::BF16x2, None) => Some(match (i.name.as_str(), saturate) {
            ("add", false) => sixteen2!(ty, |a, b| a + b),
            ("sub", false) => sixteen2!(ty, |a, b| a - b),
            (_, false) => sixteen2!(ty, |a, b| a * b),
            ("add", true) => sixteen2!(ty, |a, b| sat(a + b)),
            ("sub", true) => sixteen2!(ty, |a, b| sat(a - b)),
            (_, true) => sixteen2!(ty, |a, b| sat(a * b)),
        }),
        _ => None,
    };
    same(b, i, Class::Float, ty, f, 2)
}

fn f32_two(name: &str, flush: bool, saturate: bool, mode: Option<Mode>) -> Option<AluFn> {
    Some(match (name, mode) {
        ("add", None) => f32x2!(flush, saturate, |a, b| a + b),
        ("sub", None) => f32x2!(flush, saturate, |a, b| a - b),
        ("mul", None) => f32x2!(flush, saturate, |a, b| a * b),
        ("add", Some(Mode::Zero)) => f32x2!(flush, saturate, |a, b| round::add(a, b, Mode::Zero)),
        ("add", Some(Mode::Down)) => f32x2!(flush, saturate, |a, b| round::add(a, b, Mode::Down)),
        ("add", Some(Mode::Up)) => f32x2!(flush, saturate, |a, b| round::add(a, b, Mode::Up)),
        ("sub", Some(Mode::Zero)) => f32x2!(flush, saturate, |a, b| round::add(a, -b, Mode::Zero)),
        ("sub", Some(Mode::Down)) => f32x2!(flush, saturate, |a, b| round::add(a, -b, Mode::Down)),
        ("sub", Some(Mode::Up)) => f32x2!(flush, saturate, |a, b| round::add(a, -b, Mode::Up)),
        ("mul", Some(Mode::Zero)) => f32x2!(flush, saturate, |a, b| round::mul(a, b, Mode::Zero)),
        ("mul", Some(Mode::Down)) => f32x2!(flush, saturate, |a, b| round::mul(a, b, Mode::Down)),
        ("mul", Some(Mode::Up)) => f32x2!(flush, saturate, |a, b| round::mul(a, b, Mode::Up)),
        _ => return None,
    })
}

fn f64_directed(name: &str, mode: Mode) -> Option<AluFn> {
    Some(match (name, mode) {
        ("add", Mode::Zero) => map2(|a: f64, b: f64| round::add64(a, b, Mode::Zero)),
        ("add", Mode::Down) => map2(|a: f64, b: f64| round::add64(a, b, Mode::Down)),
        ("add", Mode::Up) => map2(|a: f64, b: f64| round::add64(a, b, Mode::Up)),
        ("sub", Mode::Zero) => map2(|a: f64, b: f64| round::add64(a, -b, Mode::Zero)),
        ("sub", Mode::Down) => map2(|a: f64, b: f64| round::add64(a, -b, Mode::Down)),
        ("sub", Mode::Up) => map2(|a: f64, b: f64| round::add64(a, -b, Mode::Up)),
        ("mul", Mode::Zero) => map2(|a: f64, b: f64| round::mul64(a, b, Mode::Zero)),
        ("mul", Mode::Down) => map2(|a: f64, b: f64| round::mul64(a, b, Mode::Down)),
        ("mul", Mode::Up) => map2(|a: f64, b: f64| round::mul64(a, b, Mode::Up)),
        _ => return None,
    })
}

/// `fma`, and `mad` of floating point, which is the same.
pub(super) fn fma(b: &mut Builder, i: &Instr, m: &mut Mods, ty: Ty) -> R<()> {
    let mode = rounding(m);
    let flush = m.take("ftz");
    let saturate = m.take("sat");
    let clip = m.take("relu");
    m.finish(i)?;
    let small = matches!(ty, Ty::F16 | Ty::F16x2 | Ty::BF16 | Ty::BF16x2);
    if (clip && !small) || (flush && !matches!(ty, Ty::F32 | Ty::F16 | Ty::F16x2)) || (saturate && clip) {
        return b.err(i, "modifiers that do not go together");
    }
    let f = match (ty, mode) {
        (Ty::F32, None) => Some(f32x3!(flush, saturate, |a, b, c| a.mul_add(b, c))),
        (Ty::F32, Some(Mode::Zero)) => Some(f32x3!(flush, saturate, |a, b, c| round::fma(a, b, c, Mode::Zero))),
        (Ty::F32, Some(Mode::Down)) => Some(f32x3!(flush, saturate, |a, b, c| round::fma(a, b, c, Mode::Down))),
        (Ty::F32, Some(Mode::Up)) => Some(f32x3!(flush, saturate, |a, b, c| round::fma(a, b, c, Mode::Up))),
        (Ty::F64, None) if !saturate => Some(map3(|a: f64, b: f64, c: f64| a.mul_add(b, c))),
        (_, None) if small => Some(match (clip, saturate) {
            (false, false) => sixteen3(ty),
            (true, _) => sixteen3_relu(ty),
            (_, true) => sixteen3_sat(ty),
        }),
        _ => None,
    };
    same(b, i, Class::Float, ty, f, 3)
}

/// The entry of `fma`.
pub(super) fn fma_entry(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    let ty = m.ty(i)?;
    fma(b, i, m, ty)
}

/// a·b + c as an f32 that rounds to any shorter format as the exact value would.
#[inline(always)]
fn fused(a: f32, b: f32, c: f32) -> f32 {
    let (p, c) = (a as f64 * b as f64, c as f64);
    let s = p + c;
    let bb = s - p;
    let error = (p - (s - bb)) + (c - bb);
    // f64 to f32 with the lost part as a sticky last bit.
    let near = s as f32;
    let back = near as f64;
    if !s.is_finite() || !near.is_finite() || (back == s && error == 0.0) || near == 0.0 {
        return near;
    }
    let beyond = if back == s { error } else { s - back };
    let away = (beyond > 0.0) == (near > 0.0);
    let bits = near.to_bits();
    let truncated = if away { bits } else { bits - 1 };
    f32::from_bits(truncated | 1)
}

macro_rules! sixteen3_with {
    ($name:ident, |$x:ident| $e:expr) => {
        fn $name(ty: Ty) -> AluFn {
            fn h(a: u16, b: u16, c: u16) -> u16 {
                let $x = fused(f16_to_f32(a), f16_to_f32(b), f16_to_f32(c));
                f16_from_f32($e)
            }
            fn g(a: u16, b: u16, c: u16) -> u16 {
                let $x = fused(bf16_to_f32(a), bf16_to_f32(b), bf16_to_f32(c));
                bf16_from_f32($e)
            }
            fn pair(f: impl Fn(u16, u16, u16) -> u16, a: u32, b: u32, c: u32) -> u32 {
                let hi = f((a >> 16) as u16, (b >> 16) as u16, (c >> 16) as u16);
                f(a as u16, b as u16, c as u16) as u32 | (hi as u32) << 16
            }
            match ty {
                Ty::F16 => map3(|a: u16, b: u16, c: u16| h(a, b, c)),
                Ty::BF16 => map3(|a: u16, b: u16, c: u16| g(a, b, c)),
                Ty::F16x2 => map3(|a: u32, b: u32, c: u32| pair(h, a, b, c)),
                _ => map3(|a: u32, b: u32, c: u32| pair(g, a, b, c)),
            }
        }
    };
}
sixteen3_with!(sixteen3, |x| x);
sixteen3_with!(sixteen3_relu, |x| relu(x));
sixteen3_with!(sixteen3_sat, |x| sat(x));

/// `div` of floating point.
pub(super) fn div(b: &mut Builder, i: &Instr, m: &mut Mods, ty: Ty) -> R<()> {
    let kind = m.any(&["approx", "full", "rn", "rz", "rm", "rp"]);
    let flush = m.take("ftz");
    m.finish(i)?;
    let f = match (ty, kind) {
        (Ty::F32, Some("approx" | "full")) => f32x2!(flush, false, |a, b| approx::div(a, b)),
        (Ty::F32, Some("rn")) => f32x2!(flush, false, |a, b| a / b),
        (Ty::F32, Some("rz")) => f32x2!(flush, false, |a, b| round::div(a, b, Mode::Zero)),
        (Ty::F32, Some("rm")) => f32x2!(flush, false, |a, b| round::div(a, b, Mode::Down)),
        (Ty::F32, Some("rp")) => f32x2!(flush, false, |a, b| round::div(a, b, Mode::Up)),
        (Ty::F64, Some("rn")) if !flush => map2(|a: f64, b: f64| a / b),
        _ => return b.err(i, format!("not for {ty}")),
    };
    same(b, i, Class::Float, ty, Some(f), 2)
}

/// `rcp`, `sqrt`.
pub(super) fn rcp_sqrt(b: &mut Builder, i: &Instr, m: &mut Mods) -> R<()> {
    let kind = m.any(&["approx", "rn", "rz", "rm", "rp"]);
    let flush = m.take("ftz");
    let ty = m.ty(i)?;
    m.finish(i)?;
    macro_rules! one {
        (|$a:ident| $e:expr) => {
            if flush {
                map1(|a: f32| {
                    let $a = ftz(a);
                    ftz(canon($e))
                })
            } else {
                map1(|$a: f32| canon($e))
            }
        };
    }
    let f = match (i.name.as_str(), ty, kind) {
        ("rcp", Ty::F32, Some("approx" | "rn")) => one!(|a| approx::rcp(a)),
        ("rcp", Ty::F32, Some("rz")) => one!(|a| round::div(1.0, a, Mode::Zero)),
        ("rcp", Ty::F32, Some("rm")) => one!(|a| round::div(1.0, a, Mode::Down)),
        ("rcp", Ty::F32, Some("rp")) => one!(|a| round::div(1.0, a, Mode::Up)),
        ("sqrt", Ty::F32, Some("approx" | "rn")) => one!(|a| a.sqrt()),
        ("sqrt", Ty::F32, Some("rz")) => one!(|a| round::sqrt(a, Mode::Zero)),
        ("sqrt", Ty::F32, Some("rm")) => one!(|a| round::sqrt(a, Mode::Down)),
        ("sqrt", Ty::F32, Some("rp")) => one!(|a| round::sqrt(a, Mode::Up)),
        ("rcp", Ty::F64, Some("rn")) if !flush => map1(|a: f64| 1.0 / a),
        // Hardware gives 20 good bits and zeros below.
        ("rcp", Ty::F64, Some("approx")) if flush => map1(|a: f64| 1.0 / a),
        ("sqrt", Ty::F64, Some("rn")) if !flush => map1(|a: f64| a.sqrt()),
        _ => return b.err(i, format!("not for {ty}")),
    };
    same(b, i, Class::Float, ty, Some(f), 1)
}

/// The lesser of two f32: of numbers and NaN the number, −0 before +0.
#[inline(always)]
fn min(a: f32, b: f32) -> f32 {
    let r = if a < b || (a == b && a.is_sign_negative()) || b.is_nan() { a } else { b };
    canon(r)
}

#[inline(always)]
fn max(a: f32, b: f32) -> f32 {
    let r = if a > b || (a == b && a.is_sign_positive()) || b.is_nan() { a } else { b };
    canon(r)
}

#[inline(always)]
fn or_nan(a: f32, b: f32, r: f32) -> f32 {
    if a.is_nan() || b.is_nan() { NAN32 } else { r }
}

/// `.xorsign.abs`: the magnitude of the result with the product of the signs.
#[inline(always)]
fn xorsign(a: f32, b: f32, r: f32) -> f32 {
    f32::from_bits(r.to_bits() & 0x7fff_ffff | (a.to_bits() ^ b.to_bits()) & 0x8000_0000)
}

/// `min`, `max` of floating point; the type is taken.
pub(super) fn min_max(b: &mut Builder, i: &Instr, m: &mut Mods, ty: Ty) -> R<()> {
    let flush = m.take("ftz");
    let nan = m.take("NaN");
    let signs = m.take("xorsign") && m.take("abs");
    m.finish(i)?;
    let larger = i.name == "max";
    macro_rules! kinds {
        ($make:ident $(, $arg:expr)*) => {
            match (larger, nan, signs) {
                (false, false, false) => $make!($($arg,)* |a, b| min(a, b)),
                (true, false, false) => $make!($($arg,)* |a, b| max(a, b)),
                (false, true, false) => $make!($($arg,)* |a, b| or_nan(a, b, min(a, b))),
                (true, true, false) => $make!($($arg,)* |a, b| or_nan(a, b, max(a, b))),
                (false, false, true) => $make!($($arg,)* |a, b| xorsign(a, b, min(a.abs(), b.abs()))),
                (true, false, true) => $make!($($arg,)* |a, b| xorsign(a, b, max(a.abs(), b.abs()))),
                (false, true, true) => $make!($($arg,)* |a, b| or_nan(a, b, xorsign(a, b, min(a.abs(), b.abs())))),
                (true, true, true) => $make!($($arg,)* |a, b| or_nan(a, b, xorsign(a, b, max(a.abs(), b.abs())))),
            }
        };
    }
    let f = match ty {
        Ty::F32 if i.operands.len() == 4 => return b.err(i, "three inputs are not supported"),
        Ty::F32 => kinds!(f32x2, flush, false),
        Ty::F64 if !flush && !nan && !signs => {
            if larger {
                map2(|a: f64, b: f64| if a > b || b.is_nan() || (a == b && a.is_sign_positive()) { a } else { b })
            } else {
                map2(|a: f64, b: f64| if a < b || b.is_nan() || (a == b && a.is_sign_negative()) { a } else { b })
            }
        }
        Ty::F16 | Ty::F16x2 | Ty::BF16 | Ty::BF16x2 => kinds!(sixteen2, ty),
        _ => return b.err(i, format!("not for {ty}")),
    };
    same(b, i, Class::Float, ty, Some(f), 2)
}
