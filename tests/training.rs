//! The golden runs through the command line: every loss, validation and gradient of an independent implementation.

mod common;

use std::path::Path;

use common::{golden, log, numbers, succeeds, tensors, text};
use serde_json::Value;

/// A golden run.
struct Golden {
    folder: &'static str,
    model: &'static str,
    /// Whether it has gradients and final weights to compare.
    weights: bool,
}

const NOISY: Golden = Golden { folder: "noisy", model: "models/gpt2.mng", weights: true };
const WIDE: Golden = Golden { folder: "wide", model: "models/gpt2.mng", weights: true };
const CLASSIC: Golden = Golden { folder: "classic", model: "models/gpt2-classic.mng", weights: true };
/// Its projections start as zeros, so that Newton–Schulz blows rounding up.
const TINY: Golden = Golden { folder: "tiny", model: "models/gpt2.mng", weights: false };

/// What a run is made on, and how far it may be from the golden one.
struct Device {
    args: &'static [&'static str],
    /// What the log says of its precision.
    precision: &'static str,
    /// Largest difference of any loss.
    loss: f64,
    /// Largest relative L2 difference of a gradient, and of its norm.
    gradient: f64,
    /// Largest relative L2 difference of a parameter after the last step.
    weight: f64,
}

const F64: Device = Device {
    args: &["--device", "reference", "--oracle", "f64"],
    precision: "f64",
    loss: 2e-5,
    gradient: 1e-5,
    weight: 2e-5,
};
const F32: Device = Device { args: &["--device", "reference"], precision: "rounded", ..F64 };
const CPU: Device = Device { args: &["--device", "cpu"], precision: "f32", loss: 5e-5, gradient: 1e-4, weight: 1e-4 };
const SOFT: Device = Device { args: &["--device", "soft"], precision: "f32", loss: 1e-4, gradient: 1e-4, weight: 1e-4 };

/// Gradients below this norm are rounding only.
const NO_GRADIENT: f64 = 1e-6;
/// A parameter whose gradient is zero in exact arithmetic: Adam turns the rounding noise in its place into whole steps.
/// Layer 0 mixes v with itself.
const NOISE: &str = "transformer.h.0.attn.lamb";
/// Biases of queries, keys and values, a third each. The gradient of the second is zero in exact arithmetic: a bias of all
/// keys moves every score of a query alike.
const BIASES: &str = ".attn.c_attn.bias";

/// What `config` holds beside settings: how the data and the first weights were made.
const NOT_SETTINGS: [&str; 3] = ["mean_doc", "seed", "init_scale"];

#[test]
fn noisy_in_f64() {
    NOISY.check(&F64);
}

#[test]
fn noisy_in_f32() {
    NOISY.check(&F32);
}

#[test]
fn wide_in_f64() {
    WIDE.check(&F64);
}

#[test]
fn wide_in_f32() {
    WIDE.check(&F32);
}

#[test]
fn classic_in_f64() {
    CLASSIC.check(&F64);
}

#[test]
fn classic_in_f32() {
    CLASSIC.check(&F32);
}

#[test]
fn tiny_in_f64() {
    TINY.check(&Device { loss: 1e-3, ..F64 });
}

#[test]
fn tiny_in_f32() {
    TINY.check(&Device { loss: 1e-3, ..F32 });
}

#[test]
fn noisy_on_cpu() {
    NOISY.check(&CPU);
}

#[test]
fn wide_on_cpu() {
    WIDE.check(&CPU);
}

#[test]
fn classic_on_cpu() {
    CLASSIC.check(&CPU);
}

#[test]
fn tiny_on_cpu() {
    TINY.check(&Device { loss: 1e-3, ..CPU });
}

#[test]
fn noisy_on_soft() {
    NOISY.check(&SOFT);
}

#[test]
fn wide_on_soft() {
    WIDE.check(&SOFT);
}

#[test]
fn classic_on_soft() {
    CLASSIC.check(&SOFT);
}

#[test]
fn noisy_in_bf16_on_soft() {
    NOISY.check_bf16();
}

#[test]
fn wide_in_bf16_on_soft() {
    WIDE.check_bf16();
}

#[test]
fn classic_in_bf16_on_soft() {
    CLASSIC.check_bf16();
}

impl Golden {
    fn file(&self, name: &str) -> std::path::PathBuf {
        golden(self.folder).join(name)
    }

    fn check(&self, device: &Device) {
        let expected = std::fs::read_to_string(self.file("expected.json")).expect("a file");
        let expected: Value = serde_json::from_str(&expected).expect("JSON");
        let folder = tempfile::tempdir().expect("a folder");
        let out = folder.path().join("run");
        self.run(&expected, &out, device);
        self.check_losses(&expected, &log(&out), device);
        assert_eq!(log(&out)[0]["precision"], device.precision);
        if self.weights {
            self.check_gradients(&out, device);
            self.check_weights(&out, device);
        }
        if let Some(norms) = expected["gradient_norms"].as_array() {
            let found = numbers(&log(&out), "step", "gradient_norm");
            assert_eq!(found.len(), norms.len());
            for (i, (found, norm)) in found.iter().zip(norms).enumerate() {
                let norm = norm.as_f64().expect("a number");
                assert!(
                    (found - norm).abs() <= device.gradient * norm,
                    "gradient_norm of step {i}: {found}, not {norm}"
                );
            }
        }
    }

    /// Losses in bf16 are as far from those without any rounding as bf16 is: 3 times the distance of the oracle that
    /// rounds, or 2 %.
    fn check_bf16(&self) {
        let expected = std::fs::read_to_string(self.file("expected.json")).expect("a file");
        let expected: Value = serde_json::from_str(&expected).expect("JSON");
        let folder = tempfile::tempdir().expect("a folder");
        let losses = |device: &Device| {
            let out = folder.path().join(device.args.join(""));
            self.run_with(&expected, &out, device, &["--set", "low=bf16"]);
            let log = log(&out);
            [numbers(&log, "step", "train_loss"), numbers(&log, "val", "val_loss")].concat()
        };
        let (exact, rounded, found) = (losses(&F64), losses(&F32), losses(&SOFT));
        assert!(exact.len() > 2 && exact.len() == found.len());
        for (i, ((exact, rounded), found)) in exact.iter().zip(&rounded).zip(&found).enumerate() {
            let bound = (3.0 * (rounded - exact).abs()).max(0.02 * exact.abs());
            assert!((found - exact).abs() <= bound, "loss {i}: {found}, exact {exact}, rounded {rounded}");
        }
        assert_ne!(exact, found, "bf16 was asked for");
    }

    fn run(&self, expected: &Value, out: &Path, device: &Device) {
        self.run_with(expected, out, device, &[]);
    }

    /// `more` says how low its precision is.
    fn run_with(&self, expected: &Value, out: &Path, device: &Device, more: &[&str]) {
        let (train, val, init) = (self.file("train_*.bin"), self.file("val_*.bin"), self.file("init.safetensors"));
        let mut args = vec!["run", self.model, "--quiet", "--dump-gradients", "0"];
        args.extend(["--data", text(&train), "--val", text(&val), "--init", text(&init), "--out", text(out)]);
        args.extend(device.args);
        let mut settings = settings(expected);
        settings.retain(|setting| more.is_empty() || !setting.starts_with("low="));
        args.extend(settings.iter().flat_map(|setting| ["--set", setting]));
        args.extend(more);
        succeeds(&args);
    }

    fn check_losses(&self, expected: &Value, log: &[Value], device: &Device) {
        let list = expected["train_losses"].as_array().expect("losses");
        let wanted: Vec<f64> = list.iter().map(|loss| loss.as_f64().expect("a number")).collect();
        let steps: Vec<f64> = (0..wanted.len()).map(|i| i as f64).collect();
        assert_eq!(numbers(log, "step", "step"), steps);
        assert_eq!(numbers(log, "val", "step"), [0.0, wanted.len() as f64]);
        let val = ["val_loss_before", "val_loss_after"].map(|name| expected[name].as_f64().expect("a number"));
        let found = [numbers(log, "step", "train_loss"), numbers(log, "val", "val_loss")].concat();
        let wanted = [&wanted[..], &val].concat();
        let distance = |(a, b): (&f64, &f64)| (a - b).abs();
        let worst = found.iter().zip(&wanted).map(distance).fold(0.0, f64::max);
        assert!(worst <= device.loss, "losses differ by {worst:e}\nfound  {found:?}\nwanted {wanted:?}");
    }

    /// The gradients of step 0 against the golden ones, and their norm against the log's.
    fn check_gradients(&self, out: &Path, device: &Device) {
        let (found, wanted) =
            (tensors(&out.join("gradients-0.safetensors")), tensors(&self.file("grads_step0.safetensors")));
        assert_eq!(found.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>());
        for (name, wanted) in &wanted {
            let (distance, size) = (distance(&found[name], wanted), norm(wanted));
            if size > NO_GRADIENT {
                assert!(
                    distance <= device.gradient * size,
                    "gradient of {name} differs by {:e} of {size:e}",
                    distance / size
                );
            }
        }
        let whole = norm(&found.values().flatten().copied().collect::<Vec<_>>());
        let logged = numbers(&log(out), "step", "gradient_norm")[0];
        assert!(
            (logged - whole).abs() <= device.gradient * whole,
            "gradient_norm is {logged}, that of the file {whole}"
        );
    }

    /// The parameters after the last step.
    fn check_weights(&self, out: &Path, device: &Device) {
        let (found, wanted) = (tensors(&out.join("final.safetensors")), tensors(&self.file("final.safetensors")));
        assert_eq!(found.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>());
        for (name, wanted) in wanted.iter().filter(|(name, _)| *name != NOISE) {
            let found = &found[name];
            let third = wanted.len() / 3;
            // The keys' third of a bias is noise.
            let (end, next) = if name.ends_with(BIASES) { (third, 2 * third) } else { (wanted.len(), wanted.len()) };
            for part in [0..end, next..wanted.len()] {
                let (distance, size) =
                    (distance(&found[part.clone()], &wanted[part.clone()]), norm(&wanted[part.clone()]));
                assert!(
                    distance <= device.weight * size,
                    "{name} {part:?} differs by {:e} of {size:e}",
                    distance / size
                );
            }
        }
    }
}

fn norm(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    norm(&a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>())
}

/// `config` of a golden as settings: `seq` is `sequence`, and `batch` counts tokens instead of sequences.
fn settings(expected: &Value) -> Vec<String> {
    let config = expected["config"].as_object().expect("an object");
    let tokens = config["batch"].as_u64().expect("a number") * config["seq"].as_u64().expect("a number");
    let set = |(name, value): (&String, &Value)| match name.as_str() {
        "seq" => format!("sequence={value}"),
        "batch" => format!("batch={tokens}"),
        _ => format!("{name}={value}"),
    };
    let named = config.iter().filter(|(name, _)| !NOT_SETTINGS.contains(&name.as_str()));
    let own = [
        "low=f32".to_string(),
        format!("validate.tokens={}", expected["val_tokens"]),
        // Before step 0 and after the last only, as the goldens do.
        format!("validate.every={}", config["steps"]),
    ];
    named.map(set).chain(own).collect()
}
