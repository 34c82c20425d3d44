//! Approximate functions, against f64.

use softgpu::num::approx::*;

#[test]
fn ex2_is_within_its_documented_error() {
    let mut worst = 0.0f64;
    for i in -150_000..=128_000 {
        let x = i as f32 / 1000.0 + 1e-4;
        if x >= 128.0 {
            continue;
        }
        let exact = (x as f64).exp2();
        let got = ex2(x) as f64;
        if exact >= f32::MIN_POSITIVE as f64 {
            worst = worst.max(((got - exact) / exact).abs());
        } else {
            assert!((got - exact).abs() <= 1.5e-45, "{x}: {got:e} against {exact:e}");
        }
    }
    assert!(worst < 2f64.powf(-22.5), "{worst:e}");
    assert_eq!((ex2(f32::NEG_INFINITY), ex2(f32::INFINITY), ex2(0.0)), (0.0, f32::INFINITY, 1.0));
}
