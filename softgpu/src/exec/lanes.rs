//! Turns a scalar function into an operation on the 32 lanes of a warp.
//!
//! Each constructor takes a closure without captures and returns a function that reads whole lane vectors, applies the
//! closure in a loop that the compiler vectorises, and writes the lanes of the mask. On x86-64 these functions need AVX2
//! and FMA ([`fast`] says whether they are there; without them no module is loaded).

use crate::program::{AluFn, Op};
use std::sync::OnceLock;

/// Lanes of a warp.
pub const LANES: usize = 32;

/// A value that a lane can hold.
pub trait Lane: Copy + Default + 'static {}
impl Lane for u16 {}
impl Lane for i16 {}
impl Lane for u32 {}
impl Lane for i32 {}
impl Lane for u64 {}
impl Lane for i64 {}
impl Lane for f32 {}
impl Lane for f64 {}
impl Lane for u128 {}

/// Whether this machine has what the functions here need.
pub fn fast() -> bool {
    static FAST: OnceLock<bool> = OnceLock::new();
    *FAST.get_or_init(|| {
        #[cfg(target_arch = "x86_64")]
        {
            std::is_x86_feature_detected!("avx2")
                && std::is_x86_feature_detected!("fma")
                && std::is_x86_feature_detected!("bmi1")
                && std::is_x86_feature_detected!("bmi2")
                && std::is_x86_feature_detected!("lzcnt")
                && std::is_x86_feature_detected!("popcnt")
        }
        #[cfg(not(target_arch = "x86_64"))]
        true
    })
}

/// The lanes of an operand: registers for offsets from zero up, constants below.
///
/// # Safety
/// `o` must come from the decoder, for this warp's registers and constants.
#[inline(always)]
pub unsafe fn at<T>(regs: *mut u8, konst: *const u8, o: i32) -> *mut [T; LANES] {
    unsafe { (if o < 0 { konst.add(!o as usize) as *mut u8 } else { regs.add(o as usize) }) as *mut [T; LANES] }
}

/// Lanes that are computed together: few enough to stay in vector registers.
const PART: usize = 16;

/// Writes `PART` lanes from lane `from` on, those of `mask` only.
#[inline(always)]
unsafe fn put<T: Lane>(d: *mut [T; LANES], from: usize, mut r: [T; PART], mask: u32) {
    unsafe {
        let d = (d as *mut T).add(from) as *mut [T; PART];
        if mask != !0 {
            let old = *d;
            for l in 0..PART {
                r[l] = if mask >> (from + l) & 1 == 1 { r[l] } else { old[l] };
            }
        }
        *d = r;
    }
}

/// `PART` lanes of an operand from lane `from` on.
#[inline(always)]
unsafe fn part<T: Lane>(p: *mut [T; LANES], from: usize) -> [T; PART] {
    unsafe { *((p as *const T).add(from) as *const [T; PART]) }
}

/// The closure itself: it captures nothing, so it can be made from nothing.
#[inline(always)]
fn conjure<F: Copy + 'static>() -> F {
    const { assert!(size_of::<F>() == 0, "the closure of a lane operation must not capture") };
    // SAFETY: a value without bytes; the caller was given one, so the type is inhabited.
    unsafe { std::mem::zeroed() }
}

macro_rules! lanes {
    ($(#[$doc:meta])* $name:ident, $body:ident, <$($t:ident),*>, $f:ident: ($($arg:ty),*) -> $ret:ty) => {
        $(#[$doc])*
        pub fn $name<$($t: Lane,)* $f: Fn($($arg),*) -> $ret + Copy + 'static>(_: $f) -> AluFn {
            #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt"))]
            unsafe fn run<$($t: Lane,)* $f: Fn($($arg),*) -> $ret + Copy + 'static>(r: *mut u8, k: *const u8, o: &Op, m: u32) {
                unsafe { $body::<$($t,)* $f>(r, k, o, m) }
            }
            run::<$($t,)* $f>
        }
    };
}

#[inline(always)]
unsafe fn body1<A: Lane, D: Lane, F: Fn(A) -> D + Copy + 'static>(r: *mut u8, k: *const u8, o: &Op, m: u32) {
    unsafe {
        let f = conjure::<F>();
        let pa = at::<A>(r, k, o.a);
        let pd = at::<D>(r, k, o.d);
        for from in [0, PART] {
            let a = part(pa, from);
            let mut d = [D::default(); PART];
            for l in 0..PART {
                d[l] = f(a[l]);
            }
            put(pd, from, d, m);
        }
    }
}

#[inline(always)]
unsafe fn body2<A: Lane, B: Lane, D: Lane, F: Fn(A, B) -> D + Copy + 'static>(
    r: *mut u8,
    k: *const u8,
    o: &Op,
    m: u32,
) {
    unsafe {
        let f = conjure::<F>();
        let pa = at::<A>(r, k, o.a);
        let pb = at::<B>(r, k, o.b);
        let pd = at::<D>(r, k, o.d);
        for from in [0, PART] {
            let a = part(pa, from);
            let b = part(pb, from);
            let mut d = [D::default(); PART];
            for l in 0..PART {
                d[l] = f(a[l], b[l]);
            }
            put(pd, from, d, m);
        }
    }
}

#[inline(always)]
unsafe fn body3<A: Lane, B: Lane, C: Lane, D: Lane, F: Fn(A, B, C) -> D + Copy + 'static>(
    r: *mut u8,
    k: *const u8,
    o: &Op,
    m: u32,
) {
    unsafe {
        let f = conjure::<F>();
        let pa = at::<A>(r, k, o.a);
        let pb = at::<B>(r, k, o.b);
        let pc = at::<C>(r, k, o.c);
        let pd = at::<D>(r, k, o.d);
        for from in [0, PART] {
            let a = part(pa, from);
            let b = part(pb, from);
            let c = part(pc, from);
            let mut d = [D::default(); PART];
            for l in 0..PART {
                d[l] = f(a[l], b[l], c[l]);
            }
            put(pd, from, d, m);
        }
    }
}

#[inline(always)]
unsafe fn body4<A: Lane, B: Lane, C: Lane, E: Lane, D: Lane, F: Fn(A, B, C, E) -> D + Copy + 'static>(
    r: *mut u8,
    k: *const u8,
    o: &Op,
    m: u32,
) {
    unsafe {
        let f = conjure::<F>();
        let (pa, pb) = (at::<A>(r, k, o.a), at::<B>(r, k, o.b));
        let (pc, pe) = (at::<C>(r, k, o.c), at::<E>(r, k, o.e));
        let pd = at::<D>(r, k, o.d);
        for from in [0, PART] {
            let (a, b, c, e) = (part(pa, from), part(pb, from), part(pc, from), part(pe, from));
            let mut d = [D::default(); PART];
            for l in 0..PART {
                d[l] = f(a[l], b[l], c[l], e[l]);
            }
            put(pd, from, d, m);
        }
    }
}

#[inline(always)]
unsafe fn body_compare<A: Lane, F: Fn(A, A) -> bool + Copy + 'static>(r: *mut u8, k: *const u8, o: &Op, m: u32) {
    unsafe {
        let f = conjure::<F>();
        let (a, b) = (*at::<A>(r, k, o.a), *at::<A>(r, k, o.b));
        let mut bits = [0u32; LANES];
        for l in 0..LANES {
            bits[l] = (f(a[l], b[l]) as u32) << l;
        }
        set_pred(r, o.d, bits.iter().fold(0, |x, y| x | y), m);
    }
}

#[inline(always)]
unsafe fn body_test<A: Lane, F: Fn(A) -> bool + Copy + 'static>(r: *mut u8, k: *const u8, o: &Op, m: u32) {
    unsafe {
        let f = conjure::<F>();
        let a = *at::<A>(r, k, o.a);
        let mut bits = [0u32; LANES];
        for l in 0..LANES {
            bits[l] = (f(a[l]) as u32) << l;
        }
        set_pred(r, o.d, bits.iter().fold(0, |x, y| x | y), m);
    }
}

#[inline(always)]
unsafe fn body_select<A: Lane, B: Lane, D: Lane, F: Fn(A, B, bool) -> D + Copy + 'static>(
    r: *mut u8,
    k: *const u8,
    o: &Op,
    m: u32,
) {
    unsafe {
        let f = conjure::<F>();
        let (pa, pb, pd) = (at::<A>(r, k, o.a), at::<B>(r, k, o.b), at::<D>(r, k, o.d));
        let p = pred(r, o.c);
        for from in [0, PART] {
            let (a, b) = (part(pa, from), part(pb, from));
            let mut d = [D::default(); PART];
            for l in 0..PART {
                d[l] = f(a[l], b[l], p >> (from + l) & 1 == 1);
            }
            put(pd, from, d, m);
        }
    }
}

#[inline(always)]
unsafe fn body_mask<F: Fn(u32, u32) -> u32 + Copy + 'static>(r: *mut u8, _: *const u8, o: &Op, m: u32) {
    unsafe {
        let f = conjure::<F>();
        set_pred(r, o.d, f(pred(r, o.a), pred(r, o.b)), m);
    }
}

lanes!(
    /// `d = f(a)`.
    map1, body1, <A, D>, F: (A) -> D
);
lanes!(
    /// `d = f(a, b)`.
    map2, body2, <A, B, D>, F: (A, B) -> D
);
lanes!(
    /// `d = f(a, b, c)`.
    map3, body3, <A, B, C, D>, F: (A, B, C) -> D
);
lanes!(
    /// `d = f(a, b, c, e)`.
    map4, body4, <A, B, C, E, D>, F: (A, B, C, E) -> D
);
lanes!(
    /// Predicate `d = f(a, b)`.
    compare, body_compare, <A>, F: (A, A) -> bool
);
lanes!(
    /// Predicate `d = f(a)`.
    test, body_test, <A>, F: (A) -> bool
);
lanes!(
    /// `d = f(a, b, predicate c)`.
    select, body_select, <A, B, D>, F: (A, B, bool) -> D
);
lanes!(
    /// Predicate `d = f(predicate a, predicate b)`, on the bits of all lanes at once.
    masks, body_mask, <>, F: (u32, u32) -> u32
);

/// The lanes in which a predicate is true.
///
/// # Safety
/// `o` must be the offset of a predicate of this warp.
#[inline(always)]
pub unsafe fn pred(regs: *const u8, o: i32) -> u32 {
    unsafe { *(regs.add(o as usize) as *const u32) }
}

/// Sets a predicate in the lanes of `mask`.
///
/// # Safety
/// `o` must be the offset of a predicate of this warp.
#[inline(always)]
pub unsafe fn set_pred(regs: *mut u8, o: i32, bits: u32, mask: u32) {
    unsafe {
        let p = regs.add(o as usize) as *mut u32;
        *p = (*p & !mask) | (bits & mask);
    }
}
