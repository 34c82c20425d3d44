//! The kernels of a program on a device: every text compiled once, loaded, and its limits checked.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use mngc_kernels_gen::cache::{self, Cache};
use mngc_kernels_gen::nvrtc::{Nvrtc, Options};
use mngc_kernels_gen::prepared::Prepared;
use mngc_kernels_gen::{Call, Device, Source};

use super::driver::{Function, Kind};
use super::error::CudaError;

/// Loaded kernels by name.
#[derive(Debug, Default)]
pub struct Images {
    functions: HashMap<String, Function>,
    /// Version of NVRTC; none where it was not needed.
    pub nvrtc: Option<String>,
    /// How many were compiled now; the others had been before.
    pub compiled: usize,
    /// Why compiled kernels are not kept for the next run.
    pub fault: Option<String>,
}

impl Images {
    /// The kernels of calls. The soft GPU takes PTX, a device machine code. `progress` gets how many kernels are done,
    /// and of how many.
    pub fn load<'a>(
        calls: impl Iterator<Item = &'a Call>,
        kind: Kind,
        device: &Device,
        threads: usize,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Images, CudaError> {
        // The most that any call asks of a kernel.
        let mut asked: BTreeMap<&str, (&Arc<Source>, u32, usize)> = BTreeMap::new();
        for call in calls {
            let most = asked.entry(&call.source.name).or_insert((&call.source, 0, 0));
            most.1 = most.1.max(call.block);
            most.2 = most.2.max(call.shared);
        }
        let sources: Vec<&Source> = asked.values().map(|(source, ..)| source.as_ref()).collect();
        if sources.is_empty() {
            return Ok(Images::default());
        }
        let options = Options { ptx_only: kind == Kind::Soft };
        let mut loaded = Images::default();
        // Machine code runs on its own generation alone; an older NVRTC's PTX on all newer ones.
        let mut is_own = true;
        let images = match Prepared::of_user().all(&sources, device.capability, &options) {
            Some(images) => images,
            None => {
                let nvrtc = Nvrtc::load()?;
                let target = nvrtc
                    .target(device.capability)
                    .ok_or_else(|| CudaError::Old { name: device.name.clone(), capability: device.capability })?;
                is_own = target.capability == device.capability;
                let (cache, all) = (Cache::of_user(), sources.len());
                let cache::Images { images, compiled } =
                    cache.images(&nvrtc, &sources, target, &options, threads, &|done| progress(done, all))?;
                loaded.nvrtc = Some(nvrtc.version().to_string());
                loaded.compiled = compiled;
                loaded.fault = cache.fault().map(ToString::to_string);
                images
            }
        };
        for ((name, &(_, threads, shared)), image) in asked.iter().zip(&images) {
            let data = image.cubin.as_deref().filter(|_| is_own).unwrap_or(image.ptx.as_bytes());
            let function = Function::load(name, data, threads, shared, device)?;
            loaded.functions.insert((*name).to_string(), function);
        }
        Ok(loaded)
    }

    /// A kernel that was loaded.
    pub fn get(&self, name: &str) -> Option<&Function> {
        self.functions.get(name)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.functions.len()
    }
}
