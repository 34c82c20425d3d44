//! Where axes go, op by op: every axis of every operand of the last node of each function.

use mngc_compiler::axes::{Along, trace};
use proptest::prelude::*;

use crate::harness;

#[test]
fn files() {
    harness::check("axes", |text| {
        let m = harness::module(text);
        let func = m.funcs.keys().next_back().expect("a function");
        let g = &m.funcs[func];
        let (_, node) = g.nodes.iter().next_back().expect("a node");
        let mut out = Vec::new();
        for (i, &arg) in node.args.iter().enumerate() {
            for (axis, &dim) in g.ty(arg).dims.iter().enumerate() {
                let flows = trace(&m, g, node, i, axis).into_iter().map(|flow| {
                    let to = flow.axis.map_or("lost".into(), |axis| format!("axis {axis}"));
                    format!("result {} {to} {:?}", flow.result, flow.along)
                });
                let flows: Vec<String> = flows.collect();
                let flows = if flows.is_empty() { "nowhere".into() } else { flows.join("; ") };
                out.push(format!("operand {i} axis {axis} ({}): {flows}", m.dims.name(dim)));
            }
        }
        out
    });
}

/// Whether position p of a result may read position q of the operand.
fn may_read(along: Along, p: i64, q: i64) -> bool {
    match along {
        Along::Pointwise => q == p,
        Along::Shift(n) => q == p - n,
        Along::Prefix => q <= p,
        Along::Suffix => q >= p,
        Along::Mixes => true,
    }
}

fn any_along() -> impl Strategy<Value = Along> {
    prop_oneof![
        Just(Along::Pointwise),
        (-3i64..4).prop_map(Along::Shift),
        Just(Along::Prefix),
        Just(Along::Suffix),
        Just(Along::Mixes),
    ]
}

proptest! {
    /// Composition and join may say more than is read, never less.
    #[test]
    fn nothing_that_is_read_is_forgotten(a in any_along(), b in any_along(), p in 0i64..8, mid in -8i64..16, q in -16i64..24) {
        if may_read(b, p, mid) && may_read(a, mid, q) {
            prop_assert!(may_read(a.then(b), p, q), "{a:?} then {b:?} is {:?}", a.then(b));
        }
        if may_read(a, p, q) || may_read(b, p, q) {
            prop_assert!(may_read(a.join(b), p, q), "{a:?} or {b:?} is {:?}", a.join(b));
        }
    }

    #[test]
    fn kinds_that_look_back_stay_so(a in any_along(), b in any_along(), p in 0i64..8, q in 0i64..8) {
        prop_assert_eq!(a.join(b), b.join(a));
        if a.looks_back() && b.looks_back() {
            prop_assert!(a.then(b).looks_back() && a.join(b).looks_back());
        }
        if a.looks_back() && q > p {
            prop_assert!(!may_read(a, p, q));
        }
        if a.looks_ahead() && q < p {
            prop_assert!(!may_read(a, p, q));
        }
    }
}
