//! Matrix products on a device against the oracle in f64: sizes around every tile, orders of axes, dtypes, epilogues, half
//! products.

use crate::DEVICE;
use crate::common::{Sums, Way, assert_close, exact, numbers, on_device, planned};
use mngc_compiler::ir::{Func, Module, read};
use mngc_compiler::schedule::kernel::Kernel;
use mngc_runtime::Tensor;
use mngc_testkit::bits;
use mngc_testkit::close::largest;
use proptest::prelude::*;

/// A product with what follows it.
#[derive(Clone, Copy, Debug)]
struct Product {
    batch: usize,
    m: usize,
    n: usize,
    k: usize,
    /// Whether each operand has its contracted axis first.
    turned: [bool; 2],
    dtype: &'static str,
    epilogue: usize,
}

/// What may follow a product z: with operands c of its sizes, r one for each column, h one for each row, and numbers.
const EPILOGUES: [&str; 6] = [
    "",
    "v5: f32[Z] = add v2, v4\n  return v5",
    "v5: D[Z] = relu v4\n  v6: D[Z] = square v5\n  return v6",
    "v5: f32[] = const {value = 0.5}\n  v6: D[Z] = mul v5, v4\n  v7: D[Z] = add v6, v2\n  v8: D[Z] = sub v7, v4\n  \
     return v8, v7",
    "v5: D[Z] = broadcast v3 {axes = [LAST]}\n  v6: D[Z] = add v4, v5\n  v7: bool[Z] = gt v6, v5\n  return v6, v7",
    "v5: i32[Z] = iota {axis = LAST}\n  v6: f32[Z] = cast v5\n  v7: f32[Z] = add v6, v4\n  return v7",
];

impl Product {
    /// A function that is one fused product.
    fn module(&self) -> (Module, Func) {
        let Product { batch, m, n, k, turned, dtype, epilogue } = *self;
        let side = |free: usize, turned: bool| match (batch, turned) {
            (1, true) => format!("{k}, {free}"),
            (1, false) => format!("{free}, {k}"),
            (_, true) => format!("{batch}, {k}, {free}"),
            (_, false) => format!("{batch}, {free}, {k}"),
        };
        let first = usize::from(batch > 1);
        let axis = |turned: bool| first + usize::from(!turned);
        let z = if batch > 1 { format!("{batch}, {m}, {n}") } else { format!("{m}, {n}") };
        let pairs = if batch > 1 { "0:0" } else { "" };
        // What is added to is f32, whatever the operands are.
        let c = if epilogue == 1 { "f32" } else { dtype };
        let body = if epilogue == 0 { "return v4" } else { EPILOGUES[epilogue] };
        let body = body.replace('Z', &z).replace('D', dtype).replace("LAST", &(first + 1).to_string());
        let result = |ty: &str| format!("{ty}[{z}]");
        let results = match epilogue {
            1 | 5 => vec![result("f32")],
            3 => vec![result(dtype), result(dtype)],
            4 => vec![result(dtype), result("bool")],
            _ => vec![result(dtype)],
        };
        let params = format!(
            "v0: {dtype}[{}], v1: {dtype}[{}], v2: {c}[{z}], v3: {dtype}[{n}]",
            side(m, turned[0]),
            side(n, turned[1])
        );
        let made: Vec<String> = results.iter().enumerate().map(|(i, ty)| format!("v{}: {ty}", 4 + i)).collect();
        let names: Vec<String> = (0..results.len()).map(|i| format!("v{}", 4 + i)).collect();
        let z_dtype = if epilogue == 1 { "f32" } else { dtype };
        let text = format!(
            "module \"m\"\nfunc f0 \"f\" ({params}) {{\n  v4: {z_dtype}[{z}] = dot v0, v1 {{batch = [{pairs}], contract = \
             [{}:{}]}}\n  {body}\n}}\nfunc f1 \"g\" ({params}) {{\n  {} = call v0, v1, v2, v3 {{func = f0, kind = \
             dot}}\n  return {}\n}}\n",
            axis(turned[0]),
            axis(turned[1]),
            made.join(", "),
            names.join(", ")
        );
        let module = read::module(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        (module, Func::from_u32(1))
    }

    fn check(&self) {
        let (m, f) = self.module();
        let g = &m.funcs[f];
        let args: Vec<Tensor> =
            g.params.iter().zip(1..).map(|(&p, seed)| numbers(&m, g.ty(p), seed + self.k as u64)).collect();
        // The epilogue's own values are below 1, but for positions, and squares double what they get.
        let size = largest(&args[0]) * largest(&args[1]) * self.k as f64;
        let sums = Sums {
            terms: self.k + 8,
            magnitude: Some((size + 1.0) * if self.epilogue == 2 { 2.0 * size } else { 1.0 }),
        };
        let wanted = exact(&m, f, &args);
        let (_, plan) = planned(&m, f, Way::Planned);
        let kernels: Vec<&Kernel> = plan.entries.values().flat_map(|e| &e.launches).map(|l| &l.kernel).collect();
        // Of one element or none, an epilogue may be a kernel of its own.
        let is_fused = matches!(kernels[..], [Kernel::Dot(_)]);
        assert!(is_fused || batch_elements(self) < 2, "{self:?} is one product: {kernels:?}");
        let found = on_device(&m, f, &args, Way::Planned, 2);
        assert_close(&m, f, &found, &wanted, sums, &format!("{self:?}"));
        for &threads in DEVICE.others() {
            let again = on_device(&m, f, &args, Way::Planned, threads);
            let same = found.iter().zip(&again).all(|(a, b)| bits(a) == bits(b));
            assert!(same, "{self:?} with {threads} threads");
        }
    }
}

fn batch_elements(p: &Product) -> usize {
    p.batch * p.m * p.n
}

fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![
        4 => 1usize..20,
        2 => 20usize..140,
        1 => prop::sample::select(vec![47, 48, 49, 95, 96, 97, 127, 128, 129, 383, 384, 385, 397]),
    ]
}

prop_compose! {
    fn products()(
        batch in prop_oneof![3 => Just(1usize), 1 => 2usize..4],
        m in sizes(), n in sizes(), k in sizes(),
        turned: [bool; 2],
        dtype in prop::sample::select(vec!["f32", "bf16", "f16"]),
        epilogue in 0..EPILOGUES.len(),
    ) -> Product {
        Product { batch, m, n, k, turned, dtype, epilogue }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: DEVICE.cases(150), ..ProptestConfig::default() })]

    #[test]
    fn products_of_all_kinds(product in products()) {
        if !DEVICE.is_ready() {
            return Ok(());
        }
        product.check();
    }

    /// x·xᵀ, scaled and with its own square added, as Newton-Schulz has them: computed by half, all of it stored.
    #[test]
    fn symmetric_products(m in 1usize..300, k in 1usize..80, with_epilogue: bool, dtype in prop::sample::select(vec!["f32", "bf16"])) {
        if !DEVICE.is_ready() {
            return Ok(());
        }
        let x = format!("{dtype}[{m}, {k}]");
        let z = format!("{dtype}[{m}, {m}]");
        let tail = match with_epilogue {
            true => format!("v3: f32[] = const {{value = -0.5}}\n  v4: {z} = mul v3, v2\n  v5: {z} = add v4, v1\n  return v5"),
            false => "return v2".to_string(),
        };
        let text = format!(
            "module \"m\"\nfunc f0 \"f\" (v0: {x}, v1: {z}) {{\n  v2: {z} = dot v0, v0 {{batch = [], contract = [1:1]}}\n  \
             {tail}\n}}\nfunc f1 \"g\" (v0: {x}, v1: {z}) {{\n  v2: {z} = call v0, v1 {{func = f0, kind = symmetric_dot}}\n  \
             return v2\n}}\n"
        );
        let module = read::module(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let f = Func::from_u32(1);
        let g = &module.funcs[f];
        let args = [numbers(&module, g.ty(g.params[0]), 1), numbers(&module, g.ty(g.params[1]), 2)];
        let found = on_device(&module, f, &args, Way::Planned, 2);
        let sums = Sums { terms: k + 4, magnitude: Some(k as f64 + 1.0) };
        assert_close(&module, f, &found, &exact(&module, f, &args), sums, "symmetric");
        let again = on_device(&module, f, &args, Way::Planned, 3);
        prop_assert_eq!(bits(&found[0]), bits(&again[0]));
        if !with_epilogue {
            let values = found[0].as_floats().unwrap();
            let symmetric = (0..m * m).all(|i| (i / m / 48 == i % m / 48) || values[i] == values[i % m * m + i / m]);
            prop_assert!(symmetric, "one half mirrors the other");
        }
    }
}

#[test]
fn empty_products() {
    if !DEVICE.is_ready() {
        return;
    }
    for [batch, m, n, k] in [[1, 3, 4, 0], [1, 0, 4, 5], [1, 3, 0, 5], [0, 3, 4, 5], [2, 3, 4, 0]] {
        for epilogue in [0, 1, 3] {
            // The text form has no batch axis for one product.
            if batch != 0 {
                Product { batch, m, n, k, turned: [false, true], dtype: "f32", epilogue }.check();
            }
        }
    }
}
