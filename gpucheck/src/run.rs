//! Runs cases, and compares: with the oracle within its bound, and with the soft GPU's results, which must be the same to the
//! bit where PTX defines every bit.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use mngc_compiler::ir::{DType, EntryKind};
use mngc_runtime::cuda::{self, CudaError, Kind};
use mngc_runtime::{Backend, Cuda, Error, Tensor};
use mngc_testkit::bits;
use mngc_testkit::kernels::{Check, inputs, planned};
use serde::Serialize;

use crate::cases::{self, Case};
use crate::defined::is_defined;
use crate::images::{Compiled, sources};
use crate::store::{Store, Stored, fingerprint};
use crate::{Which, complain};

/// The exit code after which only a new process can use the GPU.
const GONE: u8 = 3;

/// What became of a case.
#[derive(Debug, Default, Serialize)]
struct Report {
    index: usize,
    name: String,
    family: &'static str,
    ms: f64,
    /// Whether PTX defines every bit.
    defined: bool,
    elements: usize,
    /// How many elements have the bits of the soft GPU.
    equal: usize,
    /// What is wrong.
    fault: Option<String>,
}

/// Results of all checks of a case, with their dtypes.
fn results(checks: &[Check], kind: Kind) -> Result<Vec<(DType, Tensor)>, Error> {
    let mut all = Vec::new();
    for check in checks {
        let (m, plan) = planned(&check.module, check.func, check.way);
        let mut device = Cuda::new(m, &plan, 7, kind)?;
        let mut out = device.run(EntryKind::Evaluate.into(), &inputs(&check.args), 3)?;
        let g = &check.module.funcs[check.func];
        for (i, &value) in g.results.iter().enumerate() {
            let missing = || Error::Plan(format!("result {i} is missing"));
            all.push((g.ty(value).dtype, out.remove(&format!("out{i}")).ok_or_else(missing)?));
        }
    }
    Ok(all)
}

/// Compares the results of a case with the oracle.
fn judge(checks: &[Check], results: &[(DType, Tensor)]) -> Result<(), String> {
    let mut results = results.iter().map(|(_, tensor)| tensor.clone());
    for (i, check) in checks.iter().enumerate() {
        let own: Vec<Tensor> = results.by_ref().take(check.module.funcs[check.func].results.len()).collect();
        check.judge(&own).map_err(|fault| format!("check {i}: {fault}"))?;
    }
    Ok(())
}

/// Draws the cases, compiles their kernels, runs them on the soft GPU and stores what it gives.
pub fn prepare(folder: &Path, which: &Which) -> Result<ExitCode> {
    let mut built = Vec::new();
    for case in chosen(which) {
        let checks = (case.build)();
        let mut kernels = BTreeSet::new();
        for check in &checks {
            let (m, plan) = planned(&check.module, check.func, check.way);
            kernels.extend(sources(&m, &plan).with_context(|| case.name.clone())?);
        }
        built.push((case, checks, kernels));
    }
    let compiled = Compiled::new(&built.iter().flat_map(|(.., kernels)| kernels.iter().cloned()).collect())?;
    let mut store = Store::of(&cuda::present(Kind::Soft)?.device);
    let (mut faults, start) = (0, Instant::now());
    for (at, (case, checks, kernels)) in built.iter().enumerate() {
        let begun = Instant::now();
        let results = results(checks, Kind::Soft).with_context(|| case.name.clone())?;
        if let Err(fault) = judge(checks, &results) {
            faults += 1;
            complain(&format!("the soft GPU is wrong in {}: {}", case.name, shortened(&fault)));
        }
        let defined = kernels.iter().all(|kernel| compiled.ptx(kernel).is_some_and(is_defined));
        store.add(&case.name, checks, defined, &results)?;
        let seconds = begun.elapsed().as_secs_f64();
        if seconds > 5.0 || at % 20 == 0 {
            let all = start.elapsed().as_secs_f64();
            complain(&format!("case {at} of {}, {all:.0} s: {} ({seconds:.1} s)", built.len(), case.name));
        }
    }
    store.write(folder)?;
    Ok(if faults == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn chosen(which: &Which) -> impl Iterator<Item = Case> {
    let (from, every) = (which.from, which.every);
    cases::all().into_iter().filter(move |case| case.index >= from && case.index.is_multiple_of(every))
}

/// Runs the cases of a folder. Each is one line of JSON on standard output, when it is done.
pub fn run(folder: &Path, kind: Kind, which: &Which) -> Result<ExitCode> {
    let store = Store::read(folder)?;
    let device = cuda::present(kind)?.device;
    let is_alike = store.is_of(&device);
    if !is_alike {
        complain(&format!(
            "{} has other kernels than the stored results are of: they need not be the same",
            device.name
        ));
    }
    let start = Instant::now();
    let mut faults = 0;
    for case in chosen(which) {
        let Some(stored) = store.get(&case.name) else { continue };
        if which.time.is_some_and(|time| start.elapsed() >= time) {
            break;
        }
        let mut stored = stored.clone();
        stored.defined &= is_alike;
        let (report, is_gone) = one(&case, &stored, &store, kind);
        faults += usize::from(report.fault.is_some());
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", serde_json::to_string(&report)?)?;
        out.flush()?;
        if is_gone {
            return Ok(ExitCode::from(GONE));
        }
    }
    Ok(if faults == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs one case. Gives also whether the GPU cannot go on.
fn one(case: &Case, stored: &Stored, store: &Store, kind: Kind) -> (Report, bool) {
    let begun = Instant::now();
    let checks = (case.build)();
    let mut report = Report {
        index: case.index,
        name: case.name.clone(),
        family: case.family,
        defined: stored.defined,
        ..Report::default()
    };
    let mut is_gone = false;
    report.fault = 'fault: {
        if fingerprint(&checks) != stored.fingerprint {
            break 'fault Some("another program has drawn this case: prepare again".into());
        }
        let results = match results(&checks, kind) {
            Ok(results) => results,
            Err(error) => {
                // A kernel that failed has spoilt the context for good.
                is_gone =
                    matches!(&error, Error::Cuda(e) if matches!(**e, CudaError::Call { .. } | CudaError::Gone(_)));
                break 'fault Some(error.to_string());
            }
        };
        let wanted = match store.results(stored) {
            Ok(wanted) => wanted,
            Err(error) => break 'fault Some(format!("{error:#}")),
        };
        let mut other = None;
        for (i, ((_, found), wanted)) in results.iter().zip(&wanted).enumerate() {
            let (a, b) = (bits(found), bits(wanted));
            report.elements += b.len();
            report.equal += a.iter().zip(&b).filter(|(a, b)| a == b).count();
            let at = a.iter().zip(&b).position(|(a, b)| a != b);
            other = other
                .or(at.map(|at| format!("result {i}, element {at} of {}: other bits than the soft GPU's", b.len())));
        }
        if report.equal == report.elements && results.len() == wanted.len() {
            break 'fault None;
        }
        // The soft GPU's results have been compared with the oracle; others have to be now.
        match (judge(&checks, &results), other) {
            (Err(fault), _) => Some(fault),
            (Ok(()), other) if stored.defined => Some(other.unwrap_or_else(|| "another number of results".into())),
            (Ok(()), _) => None,
        }
    };
    report.fault = report.fault.map(|fault| shortened(&fault));
    report.ms = begun.elapsed().as_secs_f64() * 1e3;
    (report, is_gone)
}

/// Faults may show whole tensors.
fn shortened(fault: &str) -> String {
    const MOST: usize = 600;
    match fault.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &fault[..end]),
        None => fault.to_string(),
    }
}
