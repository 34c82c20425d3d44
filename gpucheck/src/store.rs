//! What `prepare` leaves in its folder: for each case what it is, and the soft GPU's results.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use mngc_compiler::ir::{DType, print};
use mngc_kernels_gen::Device;
use mngc_runtime::{Format, Tensor};
use mngc_testkit::kernels::Check;
use serde::{Deserialize, Serialize};

const CASES: &str = "cases.json";
const RESULTS: &str = "results.bin";

/// All cases with their results.
#[derive(Debug, Default)]
pub struct Store {
    list: List,
    /// Results one after another, as a device has them.
    bytes: Vec<u8>,
}

/// All that is not results.
#[derive(Debug, Default, Serialize, Deserialize)]
struct List {
    device: Limits,
    cases: Vec<Stored>,
}

/// What the choice of kernels depends on: devices that are alike in this run the same ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    capability: u32,
    multiprocessors: usize,
    shared_per_block: usize,
    shared_per_multiprocessor: usize,
}

impl From<&Device> for Limits {
    fn from(device: &Device) -> Limits {
        let Device { capability, multiprocessors, shared_per_block, shared_per_multiprocessor, .. } = *device;
        Limits { capability, multiprocessors, shared_per_block, shared_per_multiprocessor }
    }
}

/// A case.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stored {
    /// Its name.
    pub name: String,
    /// A hash of the functions and operands: another program may draw others.
    pub fingerprint: String,
    /// Whether PTX defines every bit of the results.
    pub defined: bool,
    /// Results of all its checks, in order.
    results: Vec<Place>,
}

/// Where a result lies.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Place {
    dtype: String,
    sizes: Vec<usize>,
    offset: usize,
}

impl Store {
    /// An empty one, for results of a device.
    pub fn of(device: &Device) -> Store {
        Store { list: List { device: device.into(), cases: Vec::new() }, bytes: Vec::new() }
    }

    /// Whether a device runs the kernels that the results are of.
    pub fn is_of(&self, device: &Device) -> bool {
        self.list.device == device.into()
    }

    /// Adds a case. A result comes with the dtype that a device keeps it in.
    pub fn add(&mut self, name: &str, checks: &[Check], defined: bool, results: &[(DType, Tensor)]) -> Result<()> {
        let mut places = Vec::new();
        for (dtype, tensor) in results {
            let (offset, sizes) = (self.bytes.len(), tensor.sizes().to_vec());
            self.bytes.extend(tensor.to_bytes(Format::from(*dtype))?);
            places.push(Place { dtype: dtype.name().into(), sizes, offset });
        }
        self.list.cases.push(Stored { name: name.into(), fingerprint: fingerprint(checks), defined, results: places });
        Ok(())
    }

    /// A case by name.
    pub fn get(&self, name: &str) -> Option<&Stored> {
        self.list.cases.iter().find(|case| case.name == name)
    }

    /// The results of a case.
    pub fn results(&self, case: &Stored) -> Result<Vec<Tensor>> {
        let tensor = |place: &Place| {
            let dtype = DType::from_name(&place.dtype).with_context(|| format!("`{}` is no dtype", place.dtype))?;
            let format = Format::from(dtype);
            let end = place.offset + place.sizes.iter().product::<usize>() * format.bytes();
            let bytes = self.bytes.get(place.offset..end).context("the stored results are cut off")?;
            Ok(Tensor::from_bytes(place.sizes.clone(), format, bytes)?)
        };
        case.results.iter().map(tensor).collect()
    }

    /// Writes it into a folder, which is made.
    pub fn write(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        fs::write(folder.join(CASES), serde_json::to_vec_pretty(&self.list)?)?;
        fs::write(folder.join(RESULTS), &self.bytes)?;
        Ok(())
    }

    /// Reads the one of a folder.
    pub fn read(folder: &Path) -> Result<Store> {
        let file = |name| {
            let path = folder.join(name);
            fs::read(&path).with_context(|| format!("cannot read {}: `gpu-check prepare` makes it", path.display()))
        };
        let list: List = serde_json::from_slice(&file(CASES)?)?;
        ensure!(!list.cases.is_empty(), "there is no case in {}", folder.display());
        Ok(Store { list, bytes: file(RESULTS)? })
    }
}

/// A hash of all that checks run.
pub fn fingerprint(checks: &[Check]) -> String {
    let mut hasher = blake3::Hasher::new();
    for check in checks {
        hasher.update(print::module(&check.module).as_bytes());
        for arg in &check.args {
            for bits in mngc_testkit::bits(arg) {
                hasher.update(&bits.to_le_bytes());
            }
        }
    }
    hasher.finalize().to_hex()[..16].to_string()
}
