//! Launches that another compiler's PTX describes, with all checks on, in several orders of warps and blocks.

use std::path::Path;

use softgpu::check::Checks;
use softgpu::machine::Settings;

fn case(name: &str) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(name);
    for seed in [0, 1, 2, 3] {
        let out = softgpu::case::run(&dir, Settings { seed, ..Settings::default() })
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        for o in out.outputs {
            assert!(o.right, "{name}, seed {seed}: {} is off by {:e}", o.name, o.relative_error);
        }
    }
    let plain = Settings { checks: Checks::NONE, ..Settings::default() };
    assert!(softgpu::case::run(&dir, plain).unwrap_or_else(|e| panic!("{name}: {e}")).outputs.iter().all(|o| o.right));
}

#[test]
fn matmul_sm80() {
    case("matmul_sm80");
}

#[test]
fn attention_sm80() {
    case("attention_sm80");
}

#[test]
fn rms_rows() {
    case("rms_rows");
}

#[test]
fn cumsum_rows() {
    case("cumsum_rows");
}

#[test]
fn scatter_add() {
    case("scatter_add");
}

/// What this machine does not have yet is refused with its name, line and kernel when the module is loaded.
#[test]
fn hopper_cases_are_refused_by_name() {
    for (name, kernel, what) in
        [("matmul_sm90_tma", "matmul_tma", "mbarrier.init"), ("matmul_sm90_wgmma", "matmul", "fence.proxy")]
    {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(name).join("kernel.ptx");
        let text = std::fs::read_to_string(path).expect("the case is there");
        let e = softgpu::load(&text).err().expect("it is refused");
        assert!(e.kernel.as_deref() == Some(kernel) && e.message.contains(what) && e.line > 0, "{e}");
    }
}
