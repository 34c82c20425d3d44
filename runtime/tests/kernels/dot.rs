//! Matrix products on a device against the oracle in f64: sizes around every tile, orders of axes, dtypes, epilogues, half
//! products.

use crate::DEVICE;
use crate::common::{Sums, Way, assert_close, exact, numbers, on_device, planned};
use mngc_compiler::schedule::kernel::Kernel;
use mngc_testkit::bits;
use mngc_testkit::kernels::product::{EPILOGUES, Product, symmetric};
use proptest::prelude::*;

fn check(product: &Product) {
    let (m, f) = product.module();
    let args = product.args();
    let sums = product.sums(&args);
    let wanted = exact(&m, f, &args);
    let (_, plan) = planned(&m, f, Way::Planned);
    let kernels: Vec<&Kernel> = plan.entries.values().flat_map(|e| &e.launches).map(|l| &l.kernel).collect();
    // Of one element or none, an epilogue may be a kernel of its own.
    let is_fused = matches!(kernels[..], [Kernel::Dot(_)]);
    assert!(is_fused || batch_elements(product) < 2, "{product:?} is one product: {kernels:?}");
    let found = on_device(&m, f, &args, Way::Planned, 2);
    assert_close(&m, f, &found, &wanted, sums, &format!("{product:?}"));
    for &threads in DEVICE.others() {
        let again = on_device(&m, f, &args, Way::Planned, threads);
        let same = found.iter().zip(&again).all(|(a, b)| bits(a) == bits(b));
        assert!(same, "{product:?} with {threads} threads");
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
        check(&product);
    }

    /// x·xᵀ, scaled and with its own square added, as Newton-Schulz has them: computed by half, all of it stored.
    #[test]
    fn symmetric_products(m in 1usize..300, k in 1usize..80, with_epilogue: bool, dtype in prop::sample::select(vec!["f32", "bf16"])) {
        if !DEVICE.is_ready() {
            return Ok(());
        }
        let (module, f) = symmetric(m, k, with_epilogue, dtype);
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
                check(&Product { batch, m, n, k, turned: [false, true], dtype: "f32", epilogue });
            }
        }
    }
}
