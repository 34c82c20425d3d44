//! Head and cross-entropy in one kernel on a device against the oracle in f64: sizes, layouts, dtypes, targets out of range,
//! threads.

use crate::DEVICE;
use crate::common::{Sums, Way, assert_close, exact, numbers, on_device, planned};
use mngc_compiler::ir::{DType, Func, Module, read};
use mngc_compiler::schedule::kernel::Kernel;
use mngc_runtime::Tensor;
use mngc_testkit::bits;
use proptest::prelude::*;

#[derive(Clone, Copy, Debug)]
struct Head {
    rows: usize,
    n: usize,
    k: usize,
    dtype: &'static str,
    softcap: bool,
    gradient: bool,
    /// Whether w is [k, n] and not [n, k].
    turned: bool,
    /// Whether dw is added to an operand.
    accumulate: bool,
}

impl Head {
    fn module(&self) -> (Module, Func) {
        let Head { rows, n, k, dtype, softcap, gradient, turned, accumulate } = *self;
        let (x, z, row) = (format!("{dtype}[{rows}, {k}]"), format!("{dtype}[{rows}, {n}]"), format!("f32[{rows}]"));
        let w = if turned { format!("{dtype}[{k}, {n}]") } else { format!("{dtype}[{n}, {k}]") };
        let axis = usize::from(!turned);
        // dw is [n, k], as the product of dzᵀ and x has it.
        let dw = format!("f32[{n}, {k}]");
        let params = format!("v0: {x}, v1: {w}, v2: i32[{rows}], v3: {row}, v4: {dw}");
        let mut body = format!(
            "v5: {z} = dot v0, v1 {{batch = [], contract = [1:{axis}]}}\n  v6: f32[] = const {{value = 3.0}}\n  "
        );
        let logits = if softcap {
            body += &format!("v7: {z} = div v5, v6\n  v8: {z} = tanh v7\n  v9: {z} = mul v6, v8\n  ");
            "v9"
        } else {
            body += "v7: f32[] = const {value = 1.0}\n  v8: f32[] = const {value = 2.0}\n  v9: f32[] = const {value = 2.0}\n  ";
            "v5"
        };
        body += &format!("v10: {row} = cross_entropy {logits}, v2\n  ");
        let mut results = vec![row.clone()];
        if gradient {
            body += &format!("v11: {z} = cross_entropy_grad {logits}, v2, v3\n  ");
            let dz = if softcap {
                body += &format!(
                    "v12: {z} = square v8\n  v13: f32[] = const {{value = 1.0}}\n  v14: {z} = sub v13, v12\n  v15: {z} = mul v11, v14\n  "
                );
                "v15"
            } else {
                body += "v12: f32[] = const {value = 1.0}\n  v13: f32[] = const {value = 1.0}\n  v14: f32[] = const {value = 1.0}\n  v15: f32[] = const {value = 1.0}\n  ";
                "v11"
            };
            body += &format!(
                "v16: {x} = dot {dz}, v1 {{batch = [], contract = [1:{}]}}\n  v17: {dw} = dot {dz}, v0 {{batch = [], contract = [0:0]}}\n  ",
                1 - axis
            );
            results.extend([x.clone(), dw.clone()]);
            body += &if accumulate {
                format!("v18: {dw} = add v4, v17\n  return v10, v16, v18")
            } else {
                "return v10, v16, v17".into()
            };
        } else {
            body += "return v10";
        }
        let made: Vec<String> = results.iter().enumerate().map(|(i, ty)| format!("v{}: {ty}", 5 + i)).collect();
        let names: Vec<String> = (0..results.len()).map(|i| format!("v{}", 5 + i)).collect();
        let text = format!(
            "module \"m\"\nfunc f0 \"f\" ({params}) {{\n  {body}\n}}\nfunc f1 \"g\" ({params}) {{\n  {} = call v0, v1, v2, v3, v4 \
             {{func = f0, kind = loss}}\n  return {}\n}}\n",
            made.join(", "),
            names.join(", ")
        );
        (read::module(&text).unwrap_or_else(|e| panic!("{e}\n{text}")), Func::from_u32(1))
    }

    fn check(&self) {
        let (m, f) = self.module();
        let (_, plan) = planned(&m, f, Way::Planned);
        let kernels: Vec<&Kernel> = plan.entries.values().flat_map(|e| &e.launches).map(|l| &l.kernel).collect();
        assert!(matches!(kernels[..], [Kernel::Loss(_)]), "{self:?} is one loss");
        let g = &m.funcs[f];
        let mut args: Vec<Tensor> = (0..5).map(|i| numbers(&m, g.ty(g.params[i]), i as u64 + 1)).collect();
        // Every fifth target is out of range, on either side.
        let target = |i: usize| match i % 10 {
            4 => -1,
            9 => self.n as i32,
            _ => (i * 7 % self.n) as i32,
        };
        args[2] = Tensor::ints([self.rows], (0..self.rows).map(target).collect()).unwrap();
        // Scores of k terms stand in an exponent; gradients sum rows or classes.
        // The product of k terms may be rounded, as its graph says.
        let dtype = DType::from_name(self.dtype).expect("a dtype");
        let terms = self.rows + self.n + self.k + 16 + DEVICE.rounded_terms(dtype);
        let sums = Sums { terms, magnitude: Some(4.0 + self.k as f64) };
        let found = on_device(&m, f, &args, Way::Planned, 2);
        assert_close(&m, f, &found, &exact(&m, f, &args), sums, &format!("{self:?}"));
        for &threads in DEVICE.others() {
            let again = on_device(&m, f, &args, Way::Planned, threads);
            let same = found.iter().zip(&again).all(|(a, b)| bits(a) == bits(b));
            assert!(same, "{self:?} with {threads} threads");
        }
    }
}

fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![3 => 1usize..20, 1 => prop::sample::select(vec![47, 48, 49, 127, 129, 383, 385, 800])]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: DEVICE.cases(80), ..ProptestConfig::default() })]

    #[test]
    fn losses_of_all_kinds(
        rows in sizes(), n in sizes(), k in 1usize..60,
        dtype in prop::sample::select(vec!["f32", "bf16"]),
        softcap: bool, gradient: bool, turned: bool, accumulate: bool,
    ) {
        if !DEVICE.is_ready() {
            return Ok(());
        }
        Head { rows, n, k, dtype, softcap, gradient, turned, accumulate }.check();
    }
}

/// More logits than a chunk holds, and more classes than a slice.
#[test]
fn chunks_and_slices() {
    if !DEVICE.is_ready() {
        return;
    }
    let head = Head {
        rows: 40,
        n: 500_000,
        k: 3,
        dtype: "f32",
        softcap: true,
        gradient: true,
        turned: false,
        accumulate: true,
    };
    head.check();
}
