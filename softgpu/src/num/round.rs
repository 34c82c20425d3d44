//! Directed rounding of f32 and f64 arithmetic, and of conversions to integers.

/// A direction of rounding.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Toward zero.
    Zero,
    /// Toward minus infinity.
    Down,
    /// Toward plus infinity.
    Up,
}

/// `value` moved to an odd mantissa if it is not exact, so that a second rounding to fewer bits is right. `error` is
/// the exact result less `value` (only its sign matters).
fn odd(value: f64, error: f64) -> f64 {
    if error == 0.0 || !value.is_finite() || value.to_bits() & 1 == 1 {
        return value;
    }
    if error > 0.0 { value.next_up() } else { value.next_down() }
}

/// f64 to f32 in a direction.
pub fn to_f32(x: f64, mode: Mode) -> f32 {
    let near = x as f32;
    if x.is_nan() {
        return super::NAN32;
    }
    if x.is_infinite() || near as f64 == x {
        return near;
    }
    let (down, up) = if near as f64 > x { (near.next_down(), near) } else { (near, near.next_up()) };
    match mode {
        Mode::Down => down,
        Mode::Up => up,
        Mode::Zero => {
            if x > 0.0 {
                down
            } else {
                up
            }
        }
    }
}

/// f64 to f32 toward zero with what is lost as a sticky last bit: a second rounding to fewer bits is right.
#[inline(always)]
pub fn sticky(x: f64) -> f32 {
    let r = to_f32(x, Mode::Zero);
    if r as f64 == x || !r.is_finite() { r } else { f32::from_bits(r.to_bits() | 1) }
}

/// The error of `a + b` rounded to `s`: exact.
pub fn sum_error(a: f64, b: f64, s: f64) -> f64 {
    let bb = s - a;
    (a - (s - bb)) + (b - bb)
}

/// The zero that a sum of opposite values makes: minus zero only when rounding down.
fn zero_sum(mode: Mode) -> f32 {
    if mode == Mode::Down { -0.0 } else { 0.0 }
}

/// `a + b`.
pub fn add(a: f32, b: f32, mode: Mode) -> f32 {
    let (x, y) = (a as f64, b as f64);
    let s = x + y;
    if s == 0.0 && a != 0.0 {
        return zero_sum(mode);
    }
    if s == 0.0 && a.to_bits() != b.to_bits() {
        return zero_sum(mode);
    }
    to_f32(odd(s, sum_error(x, y, s)), mode)
}

/// `a * b`.
pub fn mul(a: f32, b: f32, mode: Mode) -> f32 {
    to_f32(a as f64 * b as f64, mode)
}

/// `a * b + c`.
pub fn fma(a: f32, b: f32, c: f32, mode: Mode) -> f32 {
    let (p, c) = (a as f64 * b as f64, c as f64);
    let s = p + c;
    if s == 0.0 && (p != 0.0 || p.to_bits() != c.to_bits()) {
        return zero_sum(mode);
    }
    to_f32(odd(s, sum_error(p, c, s)), mode)
}

/// `a / b`.
pub fn div(a: f32, b: f32, mode: Mode) -> f32 {
    let (x, y) = (a as f64, b as f64);
    let q = x / y;
    let rest = (-q).mul_add(y, x);
    to_f32(if q.is_finite() && q != 0.0 { odd(q, if y > 0.0 { rest } else { -rest }) } else { q }, mode)
}

/// `sqrt(a)`.
pub fn sqrt(a: f32, mode: Mode) -> f32 {
    let x = a as f64;
    let r = x.sqrt();
    to_f32(if r.is_finite() && r > 0.0 { odd(r, (-r).mul_add(r, x)) } else { r }, mode)
}

/// An f64 result rounded to nearest, moved in a direction by the sign of its error.
fn step(value: f64, error: f64, mode: Mode) -> f64 {
    if error == 0.0 || !value.is_finite() {
        return value;
    }
    match mode {
        Mode::Down if error < 0.0 => value.next_down(),
        Mode::Up if error > 0.0 => value.next_up(),
        Mode::Zero if error < 0.0 && value > 0.0 => value.next_down(),
        Mode::Zero if error > 0.0 && value < 0.0 => value.next_up(),
        _ => value,
    }
}

/// `a + b` in f64.
pub fn add64(a: f64, b: f64, mode: Mode) -> f64 {
    let s = a + b;
    if s == 0.0 && (a != 0.0 || a.to_bits() != b.to_bits()) {
        return zero_sum(mode) as f64;
    }
    step(s, sum_error(a, b, s), mode)
}

/// `a * b` in f64.
pub fn mul64(a: f64, b: f64, mode: Mode) -> f64 {
    let p = a * b;
    step(p, a.mul_add(b, -p), mode)
}

/// An integer to f32 in a direction.
pub fn int_to_f32(x: i128, mode: Mode) -> f32 {
    let near = x as f32;
    let back = near as i128;
    match (back.cmp(&x), mode) {
        (std::cmp::Ordering::Greater, Mode::Down) => near.next_down(),
        (std::cmp::Ordering::Less, Mode::Up) => near.next_up(),
        (std::cmp::Ordering::Greater, Mode::Zero) if x > 0 => near.next_down(),
        (std::cmp::Ordering::Less, Mode::Zero) if x < 0 => near.next_up(),
        _ => near,
    }
}
