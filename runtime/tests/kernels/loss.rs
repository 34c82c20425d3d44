//! Head and cross-entropy in one kernel on a device against the oracle in f64: sizes, layouts, dtypes, targets out of range,
//! threads.

use crate::DEVICE;
use crate::common::{Way, assert_close, exact, on_device, planned};
use mngc_compiler::schedule::kernel::Kernel;
use mngc_testkit::bits;
use mngc_testkit::kernels::head::Head;
use proptest::prelude::*;

fn check(head: &Head) {
    let (m, f) = head.module();
    let (_, plan) = planned(&m, f, Way::Planned);
    let kernels: Vec<&Kernel> = plan.entries.values().flat_map(|e| &e.launches).map(|l| &l.kernel).collect();
    assert!(matches!(kernels[..], [Kernel::Loss(_)]), "{head:?} is one loss");
    let args = head.args();
    let sums = head.sums(DEVICE.rounds_heads());
    let found = on_device(&m, f, &args, Way::Planned, 2);
    assert_close(&m, f, &found, &exact(&m, f, &args), sums, &format!("{head:?}"));
    for &threads in DEVICE.others() {
        let again = on_device(&m, f, &args, Way::Planned, threads);
        let same = found.iter().zip(&again).all(|(a, b)| bits(a) == bits(b));
        assert!(same, "{head:?} with {threads} threads");
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
        check(&Head { rows, n, k, dtype, softcap, gradient, turned, accumulate });
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
    check(&head);
}
