//! Directed rounding, by exact comparison with the neighbours.

use proptest::prelude::*;
use softgpu::num::round::*;

/// Whether `r` is the neighbour of the exact value that `mode` asks for, given a comparison of a candidate with it.
fn right(r: f32, compare: impl Fn(f32) -> std::cmp::Ordering, mode: Mode, negative: bool) -> bool {
    use std::cmp::Ordering::*;
    let down = mode == Mode::Down || (mode == Mode::Zero && !negative);
    if !r.is_finite() {
        return true;
    }
    if down {
        compare(r) != Greater && (!r.next_up().is_finite() || compare(r.next_up()) == Greater)
    } else {
        compare(r) != Less && (!r.next_down().is_finite() || compare(r.next_down()) == Less)
    }
}

proptest! {
    #[test]
    fn products_and_quotients_round_in_their_direction(a in -1e18f32..1e18, b in -1e18f32..1e18, c in -1e36f32..1e36) {
        for mode in [Mode::Zero, Mode::Down, Mode::Up] {
            let p = a as f64 * b as f64;
            prop_assert!(right(mul(a, b, mode), |r| (r as f64).total_cmp(&p), mode, p < 0.0));
            if b != 0.0 && a != 0.0 {
                // r ? a/b  ⇔  r·b ? a, with the product exact in f64.
                let order = |r: f32| {
                    let o = (r as f64 * b as f64).total_cmp(&(a as f64));
                    if b < 0.0 { o.reverse() } else { o }
                };
                prop_assert!(right(div(a, b, mode), order, mode, (a < 0.0) != (b < 0.0)));
            }
            // a·b + c in integers of a common scale would overflow; compare by the exact difference in f64 pairs.
            let s = fma(a, b, c, mode);
            let order = |r: f32| {
                let d = c as f64 - r as f64;
                let e = sum_error(c as f64, -(r as f64), d);
                let t = p + d;
                let f = sum_error(p, d, t) + e;
                (-(t + f)).total_cmp(&0.0)
            };
            prop_assert!(s == 0.0 || right(s, order, mode, s < 0.0));
        }
    }
}
