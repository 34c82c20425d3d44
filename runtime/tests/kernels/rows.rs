//! Row programs on a device against the oracle in f64: random modules through the fusion passes, spaces of many tiles, folds
//! of everything and of leading axes, work in place.

use crate::DEVICE;
use crate::common::{Sums, Way, assert_close, exact, numbers, on_device, planned};
use mngc_compiler::ir::{Func, read};
use mngc_compiler::schedule::kernel::Kernel;
use mngc_runtime::Tensor;
use mngc_testkit::bits;
use mngc_testkit::kernels::cluster::cluster;

fn check(params: &[&str], body: &str, returned: &str, results: &[&str], sums: Sums) {
    let (m, f) = cluster(params, body, returned, results);
    let (_, plan) = planned(&m, f, Way::Planned);
    let kernels: Vec<&Kernel> = plan.entries.values().flat_map(|e| &e.launches).map(|l| &l.kernel).collect();
    assert!(matches!(kernels[..], [Kernel::Rows(_)]), "one cluster: {kernels:?}");
    let g = &m.funcs[f];
    let args: Vec<Tensor> = g.params.iter().zip(1..).map(|(&p, seed)| numbers(&m, g.ty(p), seed)).collect();
    let found = on_device(&m, f, &args, Way::Planned, 2);
    assert_close(&m, f, &found, &exact(&m, f, &args), sums, body);
    for &threads in DEVICE.others() {
        let again = on_device(&m, f, &args, Way::Planned, threads);
        assert!(found.iter().zip(&again).all(|(a, b)| bits(a) == bits(b)), "{threads} threads: {body}");
    }
}

fn of(terms: usize, magnitude: f64) -> Sums {
    Sums { terms, magnitude: Some(magnitude) }
}

#[test]
fn folds_of_everything() {
    if !DEVICE.is_ready() {
        return;
    }
    for [rows, n] in [[1, 1], [3, 5], [257, 131], [1000, 997], [1, 5_000]] {
        let x = format!("f32[{rows}, {n}]");
        let all = rows * n;
        for kind in ["sum", "mean", "norm", "max", "min"] {
            let body = format!("v1: {x} = square v0\n  v2: f32[] = reduce v1 {{kind = {kind}, axes = [0, 1]}}");
            if all > 1 {
                check(&[&x], &body, "v2", &["f32[]"], of(16, all as f64));
            }
        }
        let i = format!("i32[{rows}, {n}]");
        let body = format!("v1: {i} = mul v0, v0\n  v2: i32[] = reduce v1 {{kind = sum, axes = [0, 1]}}");
        if all > 1 {
            check(&[&i], &body, "v2", &["i32[]"], of(1, 0.0));
        }
    }
}

#[test]
fn sums_over_leading_axes() {
    if !DEVICE.is_ready() {
        return;
    }
    for [rows, n] in [[2, 3], [257, 131], [5_000, 48], [3, 16_001], [4_097, 1]] {
        let x = format!("bf16[{rows}, {n}]");
        let (z, row) = (format!("f32[{rows}, {n}]"), format!("f32[{n}]"));
        let body =
            format!("v1: {z} = exp v0\n  v2: {row} = reduce v1 {{kind = sum, axes = [0]}}\n  v3: {z} = add v1, v0");
        check(&[&x], &body, "v2, v3", &[&row, &z], of(rows + 8, 3.0 * rows as f64));
    }
}

#[test]
fn rows_of_every_length_with_their_folds() {
    if !DEVICE.is_ready() {
        return;
    }
    for [rows, n] in [[3, 1], [7, 3], [129, 31], [100, 768], [3, 5_000], [1, 100_000]] {
        let (x, row) = (format!("f32[{rows}, {n}]"), format!("f32[{rows}]"));
        let body = format!(
            "v2: {x} = add v0, v1\n  v3: {x} = rms_norm v2 {{eps = 1e-3}}\n  v4: {row} = reduce v3 {{kind = max, axes = [1]}}\n  \
             v5: {x} = broadcast v4 {{axes = [0]}}\n  v6: {x} = sub v3, v5\n  v7: {row} = reduce v6 {{kind = mean, axes = [1]}}"
        );
        if n > 1 {
            check(&[&x, &x], &body, "v2, v6, v7", &[&x, &x, &row], of(n + 8, 4.0));
        }
    }
}

#[test]
fn positions_and_broadcasts_along_every_axis() {
    if !DEVICE.is_ready() {
        return;
    }
    let x = "f32[5, 7, 130]";
    let body = format!(
        "v4: i32[5, 7, 130] = iota {{axis = 1}}\n  v5: {x} = cast v4\n  v6: {x} = broadcast v1 {{axes = [0]}}\n  \
         v7: bf16[5, 7, 130] = broadcast v2 {{axes = [1]}}\n  v8: f16[5, 7, 130] = broadcast v3 {{axes = [2]}}\n  v9: {x} = add v0, v5\n  \
         v10: {x} = add v9, v6\n  v11: {x} = add v10, v7\n  v12: {x} = add v11, v8"
    );
    check(&[x, "f32[5]", "bf16[7]", "f16[130]"], &body, "v12", &[x], of(6, 12.0));
}

/// Programs on few elements, which a GPU interprets: every op that it knows there, on both sides of the border.
#[test]
fn few_elements() {
    if !DEVICE.is_ready() {
        return;
    }
    for n in [1, 2, 7, 8, 9] {
        let (x, h) = (format!("f32[{n}]"), format!("bf16[{n}]"));
        let floats = format!(
            "v3: {x} = abs v0\n  v4: {x} = sqrt v3\n  v5: {x} = exp v0\n  v6: {x} = add v4, v5\n  v7: {x} = log v6\n  \
             v8: {x} = tanh v7\n  v9: {x} = cast v1\n  v10: {x} = mul v9, v8\n  v11: {x} = neg v10\n  v12: {x} = relu v11\n  \
             v13: {x} = square v12\n  v14: {x} = broadcast v2 {{axes = []}}\n  v15: {x} = max v13, v14\n  \
             v16: {x} = min v15, v3\n  v17: {x} = sub v16, v9\n  v18: {x} = rsqrt v6\n  v19: {x} = sigmoid v17\n  \
             v20: {x} = div v19, v6\n  v21: f16[{n}] = cast v20\n  v22: {h} = cast v17\n  v23: {x} = sign v17"
        );
        check(
            &[&x, &h, "f32[]"],
            &floats,
            "v18, v20, v21, v22, v23",
            &[&x, &x, &format!("f16[{n}]"), &h, &x],
            of(64, 16.0),
        );
        let (i, b) = (format!("i32[{n}]"), format!("bool[{n}]"));
        let ints = format!(
            "v3: {i} = add v0, v1\n  v4: {i} = mul v0, v1\n  v5: {i} = sub v4, v3\n  v6: {i} = neg v5\n  v7: {i} = abs v6\n  \
             v8: {b} = lt v0, v1\n  v9: {b} = and v8, v2\n  v10: {b} = or v8, v2\n  v11: {b} = not v9\n  \
             v12: {i} = select v11, v5, v3\n  v13: {i} = iota {{axis = 0}}\n  v14: {i} = max v12, v13\n  \
             v15: {i} = min v14, v7\n  v16: {x} = cast v15\n  v17: {b} = cast v15\n  v18: {i} = sign v6"
        );
        check(&[&i, &i, &b], &ints, "v10, v15, v16, v17, v18", &[&b, &i, &x, &b, &i], of(1, 0.0));
        for kind in ["sum", "mean", "norm", "max", "min"] {
            let body = format!("v1: {x} = exp v0\n  v2: f32[] = reduce v1 {{kind = {kind}, axes = [0]}}");
            check(&[&x], &body, "v2", &["f32[]"], of(n + 4, 3.0 * n as f64));
        }
    }
    let numbers = "v3: f32[3] = concat v0, v1, v2 {axis = 0}\n  v4: f32[3] = neg v3";
    check(&["f32[1]", "f32[1]", "f32[1]"], numbers, "v3, v4", &["f32[3]", "f32[3]"], of(1, 1.0));
}

/// A product, rows and a product over all tokens, for every residue of a tile's size.
#[test]
fn every_number_of_tokens() {
    if !DEVICE.is_ready() {
        return;
    }
    for t in 1..=128 {
        let text = format!(
            "module \"m\"\nfunc f0 \"f\" (v0: bf16[{t}, 24], v1: bf16[40, 24], v2: bf16[{t}, 40]) {{\n  \
             v3: f32[{t}, 40] = dot v0, v1 {{batch = [], contract = [1:1]}}\n  v4: f32[{t}, 40] = add v3, v2\n  \
             v5: f32[{t}, 40] = rms_norm v4 {{eps = 1e-3}}\n  v6: f32[40, 24] = dot v2, v0 {{batch = [], contract = [0:0]}}\n  \
             v7: f32[{t}] = reduce v2 {{kind = sum, axes = [1]}}\n  return v5, v6, v7\n}}\n"
        );
        let (m, f) = (read::module(&text).unwrap_or_else(|e| panic!("{e}")), Func::from_u32(0));
        let args: Vec<Tensor> =
            m.funcs[f].params.iter().zip(1..).map(|(&p, seed)| numbers(&m, m.funcs[f].ty(p), seed)).collect();
        let found = on_device(&m, f, &args, Way::Planned, 2);
        // A product of 24 terms in a norm of 40; and one of t terms.
        let sums = Sums { terms: 24 + 40 + t, magnitude: Some(8.0) };
        assert_close(&m, f, &found, &exact(&m, f, &args), sums, &format!("{t} tokens"));
    }
}

/// An optimizer's update in the memory of its slots, several times, is what it is on fresh memory.
#[test]
fn slots_are_updated_in_place() {
    if !DEVICE.is_ready() {
        return;
    }
    use mngc_compiler::ir::EntryKind;
    use mngc_compiler::schedule::plan::Place;
    use mngc_runtime::{Backend, Cpu, Precision, Reference};
    let text = "module \"m\"\nslot s0 \"w\" param bf16[300, 70]\nslot s1 \"w#m\" optimizer(s0) f32[300, 70]\n\
         func f0 \"f\" (v0: bf16[300, 70], v1: f32[300, 70]) {\n  v2: f32[] = const {value = 0.75}\n  v3: f32[300, 70] = mul v1, v2\n  \
         v4: f32[300, 70] = add v3, v0\n  v5: bf16[300, 70] = sub v0, v4\n  return v5, v4\n}\n\
         func f1 \"g\" (v0: bf16[300, 70], v1: f32[300, 70]) {\n  v2: bf16[300, 70], v3: f32[300, 70] = call v0, v1 {func = f0, kind = rows}\n  \
         return v2, v3\n}\nentry update = f1(s0, s1) -> (s0, s1)\n";
    let m = read::module(text).unwrap_or_else(|e| panic!("{e}"));
    let plan = mngc_compiler::schedule::plan(&m, &mut Vec::new()).unwrap();
    let entry = &plan.entries[&EntryKind::Update.into()];
    assert!(entry.launches.len() == 1 && entry.buffers.values().all(|b| matches!(b.place, Place::Slot(_))));
    let mut cpu = Cpu::new(m.clone(), &plan, 0, Some(2)).unwrap();
    let mut reference = Reference::new(m.clone(), 0, Precision::Rounded);
    for (slot, data) in m.slots.iter() {
        let value = numbers(&m, &data.ty, u64::from(slot.as_u32()));
        cpu.set_slot(slot, value.clone()).unwrap();
        reference.set_slot(slot, value).unwrap();
    }
    for step in 0..3 {
        cpu.run(EntryKind::Update.into(), &Default::default(), step).unwrap();
        reference.run(EntryKind::Update.into(), &Default::default(), step).unwrap();
    }
    for slot in m.slots.keys() {
        let (found, wanted) = (cpu.slot(slot).unwrap(), reference.slot(slot).unwrap());
        // One rounding to bf16 may fall the other way in each step.
        let bound = mngc_testkit::Tolerance { abs: 3.0 / 256.0, rel: 0.0 };
        mngc_testkit::close::within(&found, &wanted, bound).unwrap_or_else(|e| panic!("{slot}: {e}"));
    }
}

/// Folds of squares are wider than others: both of rows that are shorter than what a team holds, in one program.
#[test]
fn folds_of_two_widths_in_short_rows() {
    if !DEVICE.is_ready() {
        return;
    }
    let (x, parts, each) = ("f32[40, 128]", "f32[40, 4, 32]", "f32[40, 4]");
    let body = format!(
        "v1: {x} = rms_norm v0 {{eps = 0.01}}\n  v2: {parts} = reshape v1\n  v3: {each} = reduce v2 {{kind = norm, axes = \
         [2]}}\n  v4: {parts} = broadcast v3 {{axes = [0, 1]}}\n  v5: {parts} = div v2, v4\n  v6: {each} = reduce v5 {{kind \
         = max, axes = [2]}}\n  v7: {parts} = broadcast v6 {{axes = [0, 1]}}\n  v8: {parts} = sub v5, v7"
    );
    check(&[x], &body, "v8", &[parts], of(256, 2.0));
}
