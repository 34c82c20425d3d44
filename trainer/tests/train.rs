//! Whole runs of a small program against the same training written out in plain numbers.

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::{Data, VOCAB, bigram, table, write_weights};
use mngc_compiler::Program;
use mngc_runtime::{Backend, Format, Precision, Reference, Tensor};
use mngc_trainer::error::Error;
use mngc_trainer::{Event, Options, Plan, Report, train};
use safetensors::SafeTensors;
use serde_json::Value;

fn run_at(program: &Program, options: &Options, precision: Precision) -> Result<Report, Error> {
    let plan = Plan::new(program, options)?;
    let mut backend = Reference::new(program.module.clone(), options.seed, precision);
    train(plan, &mut backend, &mut |_| {})
}

/// A run in f64 into `out` of the data's folder.
fn run(program: &Program, options: &Options) -> Result<Report, Error> {
    run_at(program, options, Precision::F64)
}

fn log(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("log.jsonl")).expect("a log");
    text.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect()
}

fn events<'a>(log: &'a [Value], event: &str) -> Vec<&'a Value> {
    log.iter().filter(|line| line["event"] == event).collect()
}

fn read_floats(path: &Path, name: &str) -> Vec<f64> {
    let bytes = std::fs::read(path).expect("a file");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let view = file.tensor(name).expect("the tensor");
    let (chunks, _) = view.data().as_chunks::<4>();
    chunks.iter().map(|&chunk| f64::from(f32::from_le_bytes(chunk))).collect()
}

/// Starts from the table of `common` instead of a drawn one.
fn with_table(data: &Data) -> Options {
    let path = data.path("init.safetensors");
    let bias = Tensor::scalar(0.25);
    write_weights(&path, vec![("table", Format::F32, table()), ("bias", Format::F32, bias)]);
    Options { init: Some(path), ..data.options() }
}

/// The bigram model in plain numbers: losses and gradients of a table of logits.
struct Plain(Vec<f64>);

impl Plain {
    /// −log p(next | this), and the probabilities.
    fn predict(&self, this: u16, next: u16) -> (f64, Vec<f64>) {
        let row = &self.0[usize::from(this) * VOCAB..][..VOCAB];
        let sum: f64 = row.iter().map(|x| x.exp()).sum();
        (sum.ln() - row[usize::from(next)], row.iter().map(|x| x.exp() / sum).collect())
    }

    fn loss(&self, tokens: &[u16]) -> f64 {
        let pairs = tokens.len() - 1;
        tokens.windows(2).map(|w| self.predict(w[0], w[1]).0).sum::<f64>() / pairs as f64
    }

    fn gradient(&self, tokens: &[u16]) -> Vec<f64> {
        let mut gradient = vec![0.0; self.0.len()];
        for pair in tokens.windows(2) {
            let (_, p) = self.predict(pair[0], pair[1]);
            let row = usize::from(pair[0]) * VOCAB;
            (0..VOCAB).for_each(|i| gradient[row + i] += p[i] / (tokens.len() - 1) as f64);
            gradient[row + usize::from(pair[1])] -= 1.0 / (tokens.len() - 1) as f64;
        }
        gradient
    }
}

#[test]
fn losses_gradients_and_parameters_are_those_of_the_same_training_by_hand() {
    let data = Data::new(&[7, 60]);
    let options = Options { dump_gradients: vec![0, 3], ..with_table(&data) };
    let report = run(&bigram(), &options).expect("a run");
    let log = log(&data.path("out"));
    let mut plain = Plain(table().as_floats().expect("floats").to_vec());
    let near = |a: &Value, b: f64| {
        assert!((a.as_f64().expect("a number") - b).abs() < 1e-12, "{a} is not {b}");
    };
    let steps = events(&log, "step");
    assert_eq!(steps.len(), 5);
    near(&events(&log, "val")[0]["val_loss"], plain.loss(&data.val));
    for (i, step) in steps.iter().enumerate() {
        let batch = &data.train[12 * i..12 * i + 13];
        near(&step["train_loss"], plain.loss(batch));
        let lr = 1.0 / (i as f64 + 1.0);
        let gradient = plain.gradient(batch);
        near(&step["gradient_norm"], gradient.iter().map(|x| x * x).sum::<f64>().sqrt());
        near(&step["lr"], lr);
        assert_eq!(step["step"], i);
        assert_eq!(step["tokens"], 12);
        assert!(step["ms"].as_f64().expect("a number") > 0.0);
        let file = data.path("out").join(format!("gradients-{i}.safetensors"));
        assert_eq!(file.exists(), [0, 3].contains(&i));
        if file.exists() {
            let written = read_floats(&file, "table");
            assert!(written.iter().zip(&gradient).all(|(a, b)| (a - b).abs() < 1e-7));
            assert_eq!(read_floats(&file, "bias"), [0.0]);
        }
        plain.0.iter_mut().zip(&gradient).for_each(|(w, g)| *w -= lr * g);
    }
    let vals: Vec<&Value> = events(&log, "val").iter().map(|val| &val["step"]).collect();
    assert_eq!(vals, [0, 2, 4, 5]);
    near(&events(&log, "val")[3]["val_loss"], plain.loss(&data.val));
    assert_eq!(report.val_loss, events(&log, "val")[3]["val_loss"].as_f64());
    assert_eq!(report.train_loss, steps[4]["train_loss"].as_f64());
    assert_eq!(report.steps, 5);
    let written = read_floats(&data.path("out/final.safetensors"), "table");
    assert!(written.iter().zip(&plain.0).all(|(a, b)| (a - b).abs() < 1e-6));
}

#[test]
fn the_log_begins_with_what_runs_and_ends_with_the_end() {
    let data = Data::new(&[61]);
    let source = mngc_trainer::Source::new("bigram.mng", "model bigram\n");
    let set = BTreeMap::from([("layers".to_string(), "2".to_string())]);
    let options = Options { sources: vec![source], set, seed: 9, ..data.options() };
    run_at(&bigram(), &options, Precision::Rounded).expect("a run");
    let log = log(&data.path("out"));
    let start = &log[0];
    assert_eq!(start["event"], "start");
    assert_eq!(start["source"][0]["text"], "model bigram\n");
    assert_eq!(start["source"][0]["hash"].as_str().map(str::len), Some(64));
    assert_eq!(start["set"]["layers"], "2");
    assert_eq!(start["seed"], 9);
    assert_eq!(start["device"], "reference");
    assert_eq!(start["parameters"], 50);
    assert_eq!(start["data"][0], data.path("train_0.bin").to_str().expect("a UTF-8 path"));
    let kinds: Vec<&str> = log.iter().map(|line| line["event"].as_str().expect("a word")).collect();
    // A checkpoint as often as the file validates; at the end of the schedule there is nothing to go on with.
    let expected = [
        &["start", "val"][..],
        &["step", "step", "val", "checkpoint"],
        &["step", "step", "val", "checkpoint"],
        &["step", "val", "end"],
    ];
    assert_eq!(kinds, expected.concat());
    assert_eq!(log[12]["steps"], 5);
    assert_eq!(log[12]["error"], Value::Null);
    assert_eq!(log[12]["stopped"], false);
    assert_eq!((&log[12 - 3]["event"], &log[12 - 3]["step"]), (&"checkpoint".into(), &4.into()));
}

#[test]
fn every_event_is_handed_over_as_it_is_logged() {
    let data = Data::new(&[61]);
    let (program, options) = (bigram(), data.options());
    let plan = Plan::new(&program, &options).expect("a plan");
    let mut backend = Reference::new(program.module.clone(), 0, Precision::F64);
    let mut seen = String::new();
    let mut on_event = |event: &Event| seen += &(serde_json::to_string(event).expect("JSON") + "\n");
    train(plan, &mut backend, &mut on_event).expect("a run");
    assert_eq!(seen, std::fs::read_to_string(data.path("out/log.jsonl")).expect("a log"));
}

#[test]
fn fewer_steps_are_the_beginning_of_the_same_run() {
    let data = Data::new(&[61]);
    run(&bigram(), &data.options()).expect("a run");
    let short = Options { steps: Some(3), out: Some(data.path("short")), ..data.options() };
    run(&bigram(), &short).expect("a run");
    let (whole, short) = (log(&data.path("out")), log(&data.path("short")));
    let losses = |log: &[Value]| -> Vec<Value> {
        let fields = |e: &&Value| (e["train_loss"].clone(), e["lr"].clone(), e["gradient_norm"].clone());
        events(log, "step").iter().map(|e| serde_json::to_value(fields(e)).expect("JSON")).collect()
    };
    assert_eq!(losses(&short), losses(&whole)[..3]);
    let steps: Vec<&Value> = events(&short, "val").iter().map(|val| &val["step"]).collect();
    assert_eq!(steps, [0, 2, 3]);
}

#[test]
fn no_steps_are_a_validation() {
    let data = Data::new(&[1]);
    let options = Options { steps: Some(0), ..data.options() };
    let report = run(&bigram(), &options).expect("a run");
    assert!(report.val_loss.is_some() && report.train_loss.is_none());
    let log = log(&data.path("out"));
    assert_eq!(log.iter().map(|e| e["event"].clone()).collect::<Vec<_>>(), ["start", "val", "end"]);
    assert!(data.path("out/final.safetensors").exists());
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_another() {
    let data = Data::new(&[61]);
    let loss = |name: &str, seed| {
        let options = Options { seed, out: Some(data.path(name)), ..data.options() };
        run_at(&bigram(), &options, Precision::Rounded).expect("a run").train_loss
    };
    assert_eq!(loss("a", 1), loss("b", 1));
    assert_ne!(loss("c", 2), loss("a2", 1));
    let bytes = |name: &str| std::fs::read(data.path(name).join("final.safetensors")).expect("a file");
    assert_eq!(bytes("a"), bytes("b"));
}

#[test]
fn final_weights_start_a_run_where_the_first_ended() {
    let data = Data::new(&[61]);
    let first = run_at(&bigram(), &data.options(), Precision::Rounded).expect("a run");
    let again = Options {
        init: Some(data.path("out/final.safetensors")),
        out: Some(data.path("again")),
        steps: Some(0),
        ..data.options()
    };
    // The evaluation reads the shadow: it must have been remade from what was read.
    let second = run_at(&bigram(), &again, Precision::Rounded).expect("a run");
    assert_eq!(first.val_loss, second.val_loss);
    let (a, b) = (data.path("out/final.safetensors"), data.path("again/final.safetensors"));
    assert_eq!(std::fs::read(a).expect("a file"), std::fs::read(b).expect("a file"));
}

#[test]
fn parameters_are_written_in_the_dtype_that_they_are_stored_in() {
    let data = Data::new(&[61]);
    run_at(&bigram(), &data.options(), Precision::Rounded).expect("a run");
    let bytes = std::fs::read(data.path("out/final.safetensors")).expect("a file");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let mut found: Vec<_> = file.iter().map(|(name, view)| (name, view.dtype(), view.shape().to_vec())).collect();
    found.sort_by_key(|f| f.0);
    let expected = [("bias", safetensors::Dtype::BF16, vec![]), ("table", safetensors::Dtype::F32, vec![VOCAB, VOCAB])];
    assert_eq!(found, expected);
}

/// A program whose update of step 2 is infinite.
fn diverging() -> Program {
    let mut program = bigram();
    let text = include_str!("files/bigram.ir").replace("(div 1.0 (add step 1.0))", "(ne step 2.0)");
    let text = text.replace("v3: f32[vocab, vocab] = mul v1, v2", "v3: f32[vocab, vocab] = div v1, v2");
    program.module = mngc_compiler::ir::read::module(&text).expect("a module");
    program.recipe.validate = None;
    program
}

fn last_line(data: &Data) -> (Option<u64>, String) {
    let log = log(&data.path("out"));
    let last = &log[log.len() - 1];
    assert_eq!(last["event"], "end");
    (last["steps"].as_u64(), last["error"].as_str().expect("a reason").to_string())
}

#[test]
fn a_run_that_diverges_stops_and_says_so() {
    let data = Data::new(&[61]);
    let options = Options { val: None, ..data.options() };
    match run(&diverging(), &options) {
        Err(Error::NotFinite { what, step: 3, .. }) if what == "train_loss" => {}
        other => panic!("{other:?}"),
    }
    let (steps, error) = last_line(&data);
    assert_eq!(steps, Some(4));
    assert!(error.contains("train_loss of step 3"), "{error}");
    assert!(!data.path("out/final.safetensors").exists());
}

/// No loss comes after the last update: its parameters are looked at themselves.
#[test]
fn parameters_of_the_last_update_are_looked_at() {
    let data = Data::new(&[61]);
    let options = Options { val: None, steps: Some(3), ..data.options() };
    match run(&diverging(), &options) {
        Err(Error::NotFinite { what, step: 2, .. }) if what == "a value of `table`" => {}
        other => panic!("{other:?}"),
    }
    let (steps, error) = last_line(&data);
    assert_eq!(steps, Some(3));
    assert!(error.contains("a value of `table`"), "{error}");
    assert!(!data.path("out/final.safetensors").exists());
}

#[test]
fn host_scalars_are_finite_at_every_step_of_the_run() {
    let data = Data::new(&[61]);
    let mut program = bigram();
    let text = include_str!("files/bigram.ir").replace("(div 1.0 (add step 1.0))", "(div 1.0 (sub 2.0 step))");
    program.module = mngc_compiler::ir::read::module(&text).expect("a module");
    match Plan::new(&program, &data.options()) {
        Err(Error::Scalar { name, step: 2, value }) if name == "lr" && value == f64::INFINITY => {}
        other => panic!("{other:?}"),
    }
    let short = Options { steps: Some(2), ..data.options() };
    Plan::new(&program, &short).expect("step 2 is not run");
    let text = text.replace(
        "func f4 \"evaluate\" (v0: bf16[vocab, vocab], v1: i32[seq, T], v2: i32[seq, T])",
        "func f4 \"evaluate\" (v0: bf16[vocab, vocab], v1: i32[seq, T], v2: i32[seq, T], v99: f32[])",
    );
    let text =
        text.replace("evaluate = f4(s2, \"tokens\", \"targets\")", "evaluate = f4(s2, \"tokens\", \"targets\", h0)");
    program.module = mngc_compiler::ir::read::module(&text).expect("a module");
    match Plan::new(&program, &short) {
        Err(Error::Scalar { step: 2, .. }) => {}
        other => panic!("validation after the last update is of step 2: {other:?}"),
    }
}

#[test]
fn memory_that_no_machine_has_is_an_error() {
    let program = bigram();
    // 3 tables, a bias and its gradient; the largest tensor is a table.
    assert_eq!(mngc_trainer::memory::least(&program.module), 8 * (3 * 49 + 2 + 49));
}

#[test]
fn a_folder_with_a_run_is_not_used_again() {
    let data = Data::new(&[61]);
    run(&bigram(), &data.options()).expect("a run");
    let before = std::fs::read(data.path("out/log.jsonl")).expect("a log");
    assert!(matches!(run(&bigram(), &data.options()), Err(Error::FolderTaken(_))));
    assert_eq!(std::fs::read(data.path("out/log.jsonl")).expect("a log"), before);
    let deep = Options { out: Some(data.path("a/b/c")), ..data.options() };
    run(&bigram(), &deep).expect("missing parents are made");
    assert!(data.path("a/b/c/log.jsonl").exists());
}

#[test]
fn new_folders_get_the_next_number_even_when_made_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let make = || mngc_trainer::RunFolder::create(folder.path(), "x").expect("a folder").path().to_path_buf();
    let mut paths: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
        threads.into_iter().map(|t| t.join().expect("a path")).collect()
    });
    paths.sort();
    let expected: Vec<_> = (1..=8).map(|i| folder.path().join(format!("x-{i:03}"))).collect();
    assert_eq!(paths, expected);
}

#[test]
fn a_run_folder_that_cannot_be_made_is_an_error_before_training() {
    let data = Data::new(&[61]);
    std::fs::write(data.path("file"), "").expect("a file");
    let options = Options { out: Some(data.path("file/out")), ..data.options() };
    assert!(matches!(run(&bigram(), &options), Err(Error::Io { action: "create", .. })));
}

#[test]
fn options_that_cannot_be_meant_are_refused() {
    let data = Data::new(&[61]);
    let message = |options: &Options, program: &Program| match Plan::new(program, options) {
        Err(error @ (Error::Option(_) | Error::NoData { .. } | Error::Recipe(_))) => error.to_string(),
        other => panic!("{other:?}"),
    };
    let program = bigram();
    let steps = Options { steps: Some(6), ..data.options() };
    assert!(message(&steps, &program).contains("--set steps=6"));
    let dump = Options { dump_gradients: vec![5], ..data.options() };
    assert!(message(&dump, &program).contains("--dump-gradients 5 is never reached"));
    let none = Options { data: None, ..data.options() };
    assert!(message(&none, &program).contains("no training data"));
    let none = Options { val: None, ..data.options() };
    assert!(message(&none, &program).contains("no validation data"));
    let mut quiet = bigram();
    quiet.recipe.validate = None;
    assert!(message(&data.options(), &quiet).contains("no `validate` block"));
    let mut odd = bigram();
    odd.recipe.micro_sequences = 3;
    assert!(message(&data.options(), &odd).contains("do not divide"));
    odd.recipe.sequence = 0;
    assert!(message(&data.options(), &odd).contains("do not divide"));
    let mut named = bigram();
    named.recipe.logged[0].0 = "train_loss".into();
    assert!(message(&data.options(), &named).contains("`train_loss` is a field of the log"));
}

#[test]
fn a_backend_that_gives_no_loss_is_an_error() {
    struct Mute(Reference);
    impl Backend for Mute {
        fn name(&self) -> &'static str {
            "mute"
        }
        fn slot(&self, slot: mngc_compiler::ir::Slot) -> mngc_runtime::Result<Tensor> {
            self.0.slot(slot)
        }
        fn set_slot(&mut self, slot: mngc_compiler::ir::Slot, value: Tensor) -> mngc_runtime::Result<()> {
            self.0.set_slot(slot, value)
        }
        fn run(
            &mut self,
            _: mngc_compiler::ir::EntryKey,
            _: &BTreeMap<String, Tensor>,
            _: u64,
        ) -> mngc_runtime::Result<BTreeMap<String, Tensor>> {
            Ok(BTreeMap::new())
        }
    }
    let data = Data::new(&[61]);
    let (program, options) = (bigram(), data.options());
    let plan = Plan::new(&program, &options).expect("a plan");
    let mut backend = Mute(Reference::new(program.module.clone(), 0, Precision::F64));
    let failed = train(plan, &mut backend, &mut |_: &Event| {});
    assert!(matches!(failed, Err(Error::NoOutput { name: "loss", .. })));
}
