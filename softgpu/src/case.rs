//! Runs a folder that describes one launch: `kernel.ptx`, `case.json` and the buffers it names.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::device::memory::Purpose;
use crate::device::part::{self, Part};
use crate::error::{LaunchError, LoadError};
use crate::exec::stats::Counters;
use crate::machine::{Launch, Machine, Settings};
use crate::num::{bf16_to_f32, f16_to_f32};
use crate::program::{Program, capability};

/// Why a case could not be run.
#[derive(Debug, Error)]
pub enum CaseError {
    /// A file that cannot be read.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A description that cannot be understood.
    #[error("{path}: {message}")]
    Description {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// PTX that cannot be loaded.
    #[error("{path}: {error}")]
    Load {
        /// The file.
        path: PathBuf,
        /// Why.
        error: LoadError,
    },
    /// No room.
    #[error("{0}")]
    Memory(String),
    /// A launch that was refused or stopped by a check.
    #[error(transparent)]
    Launch(#[from] LaunchError),
}

/// An argument of the kernel.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Arg {
    Buffer(Buffer),
    I32 { value: i32 },
    I64 { value: i64 },
    F32 { value: f32 },
    Null {},
    Tensormap {},
}

#[derive(Clone, Debug, Deserialize)]
struct Buffer {
    name: String,
    dtype: String,
    shape: Vec<u64>,
    file: String,
    #[serde(default)]
    output: bool,
    expected: Option<String>,
    max_rel_l2: Option<f64>,
}

#[derive(Clone, Debug, Deserialize)]
struct Case {
    entry: String,
    target: String,
    grid: [u32; 3],
    block: [u32; 3],
    dynamic_shared_bytes: u32,
    args: Vec<Arg>,
}

/// How far an output is from what was expected.
#[derive(Clone, Debug, Serialize)]
pub struct Output {
    /// The buffer.
    pub name: String,
    /// ‖out − expected‖ / ‖expected‖; NaN where the output holds one.
    pub relative_error: f64,
    /// The most that is allowed.
    pub allowed: f64,
    /// Whether it is right.
    pub right: bool,
}

/// What came of a case.
#[derive(Clone)]
pub struct Outcome {
    /// Its outputs.
    pub outputs: Vec<Output>,
    /// What was counted.
    pub counters: Counters,
    /// The kernel's module.
    pub program: Arc<Program>,
    /// The kernel.
    pub entry: String,
    /// The part it ran on.
    pub part: &'static Part,
    /// Milliseconds of the launch alone.
    pub milliseconds: f64,
}

fn read(path: &Path) -> Result<Vec<u8>, CaseError> {
    std::fs::read(path).map_err(|source| CaseError::File { path: path.to_path_buf(), source })
}

/// Bytes of one element.
fn element(dtype: &str) -> Option<usize> {
    Some(match dtype {
        "f32" | "i32" | "u32" => 4,
        "bf16" | "f16" => 2,
        _ => return None,
    })
}

fn values(dtype: &str, bytes: &[u8]) -> Vec<f64> {
    let two = |b: &[u8]| u16::from_le_bytes([b[0], b[1]]);
    let four = |b: &[u8]| u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    match dtype {
        "bf16" => bytes.chunks_exact(2).map(|b| bf16_to_f32(two(b)) as f64).collect(),
        "f16" => bytes.chunks_exact(2).map(|b| f16_to_f32(two(b)) as f64).collect(),
        "i32" => bytes.chunks_exact(4).map(|b| four(b) as i32 as f64).collect(),
        "u32" => bytes.chunks_exact(4).map(|b| four(b) as f64).collect(),
        _ => bytes.chunks_exact(4).map(|b| f32::from_bits(four(b)) as f64).collect(),
    }
}

/// Runs the case in a folder.
///
/// # Errors
/// [`CaseError`]; a wrong output is no error but told in the outcome.
pub fn run(dir: &Path, settings: Settings) -> Result<Outcome, CaseError> {
    let json = dir.join("case.json");
    let bad = |message: String| CaseError::Description { path: json.clone(), message };
    let case: Case = serde_json::from_slice(&read(&json)?).map_err(|e| bad(e.to_string()))?;
    let ptx_path = dir.join("kernel.ptx");
    let ptx = String::from_utf8_lossy(&read(&ptx_path)?).into_owned();
    let program = crate::load(&ptx).map_err(|error| CaseError::Load { path: ptx_path, error })?;
    let number = capability(&case.target).ok_or_else(|| bad(format!("unknown target {}", case.target)))?;
    let part = part::for_capability(number).ok_or_else(|| bad(format!("no part for {}", case.target)))?;
    let Some(index) = program.kernels.iter().position(|k| k.name == case.entry) else {
        return Err(bad(format!("no kernel {}", case.entry)));
    };
    let mut machine = Machine::new(settings).map_err(|e| CaseError::Memory(e.to_string()))?;
    let program = Arc::new(program);
    let out_of_memory = |e: crate::device::memory::OutOfMemory| CaseError::Memory(e.to_string());
    let module = machine.load(0, part.memory, program.clone()).map_err(out_of_memory)?;
    let kernel = &program.kernels[index];
    if case.args.len() != kernel.params.len() {
        return Err(bad(format!("{} arguments for {} parameters", case.args.len(), kernel.params.len())));
    }
    let mut params = vec![0u8; kernel.param_bytes as usize];
    let mut outputs = Vec::new();
    for (arg, p) in case.args.iter().zip(&kernel.params) {
        let value: Vec<u8> = match arg {
            Arg::Buffer(b) => {
                let at = upload(&mut machine, part, dir, b, &bad)?;
                if b.output {
                    outputs.push((b.clone(), at));
                }
                at.to_le_bytes().to_vec()
            }
            Arg::I32 { value } => value.to_le_bytes().to_vec(),
            Arg::I64 { value } => value.to_le_bytes().to_vec(),
            Arg::F32 { value } => value.to_le_bytes().to_vec(),
            Arg::Null {} => vec![0; 8],
            Arg::Tensormap {} => return Err(bad("tensor maps are not supported yet".to_string())),
        };
        if value.len() != p.size as usize {
            return Err(bad(format!("an argument of {} bytes for a parameter of {}", value.len(), p.size)));
        }
        params[p.offset as usize..][..value.len()].copy_from_slice(&value);
    }
    let l = Launch {
        grid: case.grid,
        block: case.block,
        shared: case.dynamic_shared_bytes,
        allowed: part.shared_opt_in,
        params,
        stream: 0,
        clock: 0,
        unordered: Vec::new(),
    };
    let start = std::time::Instant::now();
    let counters = machine.launch(part, &module, index, &l)?;
    let milliseconds = start.elapsed().as_secs_f64() * 1e3;
    let outputs = outputs.iter().map(|(b, at)| compare(&machine, dir, b, *at, &bad)).collect::<Result<Vec<_>, _>>()?;
    Ok(Outcome { outputs, counters, program, entry: case.entry, part, milliseconds })
}

fn upload(
    machine: &mut Machine,
    part: &Part,
    dir: &Path,
    b: &Buffer,
    bad: &impl Fn(String) -> CaseError,
) -> Result<u64, CaseError> {
    let bytes = read(&dir.join(&b.file))?;
    let size = element(&b.dtype).ok_or_else(|| bad(format!("unknown dtype {}", b.dtype)))?;
    let wanted = b.shape.iter().product::<u64>() * size as u64;
    if bytes.len() as u64 != wanted {
        return Err(bad(format!("{} has {} bytes, its shape needs {wanted}", b.file, bytes.len())));
    }
    let made = machine.memory.allocate(0, wanted, part.memory, Purpose::Device, Some(b.name.clone()));
    let at = made.map_err(|e| CaseError::Memory(e.to_string()))?;
    machine.write(at, &bytes);
    Ok(at)
}

fn compare(
    machine: &Machine,
    dir: &Path,
    b: &Buffer,
    at: u64,
    bad: &impl Fn(String) -> CaseError,
) -> Result<Output, CaseError> {
    let count = b.shape.iter().product::<u64>() as usize;
    let mut bytes = vec![0u8; count * element(&b.dtype).unwrap_or(4)];
    machine.read(at, &mut bytes);
    let out = values(&b.dtype, &bytes);
    let Some(file) = &b.expected else { return Err(bad(format!("output {} has no expected values", b.name))) };
    let expected = values("f32", &read(&dir.join(file))?);
    if expected.len() != out.len() {
        return Err(bad(format!("{file} has {} values, not {}", expected.len(), out.len())));
    }
    let (mut difference, mut size) = (0.0f64, 0.0f64);
    for (o, e) in out.iter().zip(&expected) {
        difference += (o - e) * (o - e);
        size += e * e;
    }
    let relative_error = (difference / size.max(f64::MIN_POSITIVE)).sqrt();
    let allowed = b.max_rel_l2.unwrap_or(0.0);
    // A NaN compares as wrong.
    Ok(Output { name: b.name.clone(), relative_error, allowed, right: relative_error <= allowed })
}
