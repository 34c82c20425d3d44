//! The kernels of a program on a device: every text compiled once, loaded, and its limits checked.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use mngc_kernels_gen::cache::Cache;
use mngc_kernels_gen::image::Image;
use mngc_kernels_gen::nvrtc::{Nvrtc, Options};
use mngc_kernels_gen::prepared::Prepared;
use mngc_kernels_gen::{Call, Device, Source};

use super::driver::{Function, Kind};
use super::error::CudaError;

/// Loaded kernels by name.
#[derive(Debug, Default)]
pub struct Images {
    functions: HashMap<String, Function>,
    /// Why compiled kernels are not kept for the next run.
    pub fault: Option<String>,
}

impl Images {
    /// The kernels of calls. The soft GPU takes PTX, a device machine code.
    pub fn load<'a>(
        calls: impl Iterator<Item = &'a Call>,
        kind: Kind,
        device: &Device,
        threads: usize,
    ) -> Result<Images, CudaError> {
        // The most that any call asks of a kernel.
        let mut asked: BTreeMap<&str, (&Arc<Source>, u32, usize)> = BTreeMap::new();
        for call in calls {
            let most = asked.entry(&call.source.name).or_insert((&call.source, 0, 0));
            most.1 = most.1.max(call.block);
            most.2 = most.2.max(call.shared);
        }
        let sources: Vec<&Source> = asked.values().map(|(source, ..)| source.as_ref()).collect();
        let (images, fault) = compile(&sources, kind, device, threads)?;
        let mut functions = HashMap::new();
        for ((name, &(_, threads, shared)), image) in asked.iter().zip(&images) {
            let data = image.cubin.as_deref().unwrap_or(image.ptx.as_bytes());
            functions.insert((*name).to_string(), Function::load(name, data, threads, shared, device)?);
        }
        Ok(Images { functions, fault })
    }

    /// A kernel that was loaded.
    pub fn get(&self, name: &str) -> Option<&Function> {
        self.functions.get(name)
    }
}

/// Compiled or found in the user's cache; and why nothing is kept there, if so.
fn compile(
    sources: &[&Source],
    kind: Kind,
    device: &Device,
    threads: usize,
) -> Result<(Vec<Image>, Option<String>), CudaError> {
    if sources.is_empty() {
        return Ok((Vec::new(), None));
    }
    let options = Options { ptx_only: kind == Kind::Soft };
    if let Some(images) = Prepared::of_user().all(sources, device.capability, &options) {
        return Ok((images, None));
    }
    let nvrtc = Nvrtc::load()?;
    let target = nvrtc
        .target(device.capability)
        .ok_or_else(|| CudaError::Old { name: device.name.clone(), capability: device.capability })?;
    let cache = Cache::of_user();
    let images = cache.images(&nvrtc, sources, target, &options, threads, &|_| {})?.images;
    Ok((images, cache.fault().map(ToString::to_string)))
}
