//! Parameters and gradients as safetensors files, under the names of the model file.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use memmap2::Mmap;
use mngc_compiler::ir::{Module, Slot, SlotData};
use mngc_runtime::{Data, Format, Tensor};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::error::{Error, Result, WeightFault};
use crate::files;

/// Hugging Face's causal masks: buffers, not parameters, whose values every attention knows anyway.
const MASK_BUFFERS: [&str; 2] = [".attn.bias", ".attn.masked_bias"];

/// Reads every parameter of a model from a safetensors file with exactly those tensors, in any float dtype.
///
/// Fails with everything that does not fit, not only the first. The mask buffers that Hugging Face writes beside the
/// parameters (`*.attn.bias`, `*.attn.masked_bias`) are passed over unless the model has parameters of these names.
pub fn read(path: &Path, module: &Module) -> Result<Vec<(Slot, Tensor)>> {
    read_slots(path, module, module.params(), &MASK_BUFFERS)
}

/// Reads these slots from a safetensors file with exactly their tensors, and others whose names end with some of
/// `passed_over`.
pub(crate) fn read_slots<'m>(
    path: &Path,
    module: &Module,
    slots: impl Iterator<Item = (Slot, &'m SlotData)>,
    passed_over: &[&str],
) -> Result<Vec<(Slot, Tensor)>> {
    if path.is_dir() {
        return Err(Error::WeightsFolder { path: path.to_path_buf() });
    }
    let file = File::open(path).map_err(Error::io("read", path))?;
    // SAFETY: read only; the reader of the format checks every offset. Nobody is trusted but not to cut an open file.
    let map = unsafe { Mmap::map(&file) }.map_err(Error::io("read", path))?;
    let tensors = SafeTensors::deserialize(&map).map_err(|source| unusable(path, source))?;
    let mut found: BTreeMap<String, TensorView> = tensors.tensors().into_iter().collect();
    let mut weights = Vec::new();
    let mut faults = Vec::new();
    for (slot, data) in slots {
        match found.remove(&data.name) {
            None => faults.push(WeightFault::Missing(data.name.clone())),
            Some(view) => match stored(&view, data, &module.dims.sizes(&data.ty.dims))? {
                Ok(tensor) => weights.push((slot, tensor)),
                Err(fault) => faults.push(fault),
            },
        }
    }
    let unknown = found.into_keys().filter(|name| !passed_over.iter().any(|buffer| name.ends_with(buffer)));
    faults.extend(unknown.map(WeightFault::Unknown));
    if faults.is_empty() { Ok(weights) } else { Err(Error::Weights { path: path.to_path_buf(), faults }) }
}

/// A slot's tensor as a file has it, or what is wrong with it.
fn stored(view: &TensorView, slot: &SlotData, sizes: &[usize]) -> Result<std::result::Result<Tensor, WeightFault>> {
    let name = || slot.name.clone();
    let Some(format) = format(view.dtype()) else {
        return Ok(Err(WeightFault::DType { name: name(), found: view.dtype().to_string() }));
    };
    if view.shape() != sizes {
        let (expected, found) = (sizes.to_vec(), view.shape().to_vec());
        return Ok(Err(WeightFault::Shape { name: name(), expected, found }));
    }
    let tensor = Tensor::from_bytes(sizes, format, view.data())?;
    // What the slot will hold counts: 1e39 is finite in a file of f64, and infinite in the model.
    let stored = tensor.clone().rounded(slot.ty.dtype);
    let index = stored.as_floats().and_then(|floats| floats.iter().position(|x| !x.is_finite()));
    Ok(match (index, tensor.data()) {
        (Some(index), Data::Float(floats)) => {
            Err(WeightFault::NotFinite { name: name(), index, value: floats[index], dtype: slot.ty.dtype.name() })
        }
        _ => Ok(tensor),
    })
}

fn format(dtype: Dtype) -> Option<Format> {
    match dtype {
        Dtype::F64 => Some(Format::F64),
        Dtype::F32 => Some(Format::F32),
        Dtype::BF16 => Some(Format::BF16),
        Dtype::F16 => Some(Format::F16),
        _ => None,
    }
}

/// A tensor to be written, with its name and the format to write it in.
#[derive(Clone, Debug)]
pub struct Named {
    /// The name in the file.
    pub name: String,
    /// Floats are rounded to it.
    pub format: Format,
    /// The values.
    pub tensor: Tensor,
}

/// Writes tensors to a safetensors file, whole or not at all.
pub fn write(path: &Path, tensors: Vec<Named>) -> Result<()> {
    let mut raw = Vec::with_capacity(tensors.len());
    for Named { name, format, tensor } in tensors {
        raw.push((name, dtype(format), tensor.sizes().to_vec(), tensor.to_bytes(format)?));
    }
    let views =
        raw.iter().map(|(name, dtype, sizes, bytes)| Ok((name, TensorView::new(*dtype, sizes.clone(), bytes)?)));
    let bytes = views
        .collect::<std::result::Result<Vec<_>, _>>()
        .and_then(|views| safetensors::serialize(views, None))
        .map_err(|source| unusable(path, source))?;
    files::write_atomically(path, &bytes)
}

fn dtype(format: Format) -> Dtype {
    match format {
        Format::F64 => Dtype::F64,
        Format::F32 => Dtype::F32,
        Format::BF16 => Dtype::BF16,
        Format::F16 => Dtype::F16,
        Format::I32 => Dtype::I32,
        Format::Bool => Dtype::BOOL,
    }
}

fn unusable(path: &Path, source: safetensors::SafeTensorError) -> Error {
    Error::Safetensors { path: path.to_path_buf(), source }
}
