//! Images that were compiled on another machine, in a folder that is only read: for machines without NVRTC, or where
//! nothing is to be compiled.
//!
//! The folder is named by the variable `MNGC_IMAGES`. A file has the name of its key, which is a hash of the kernel's name
//! and text and of the target, and of nothing of the machine that compiled it. It has the form of a file of the cache.

use std::borrow::Borrow;
use std::path::{Path, PathBuf};

use crate::cache::{decode, encode, hash};
use crate::call::Source;
use crate::files;
use crate::image::{Image, Target};
use crate::nvrtc::Options;

/// Names the folder.
pub const VARIABLE: &str = "MNGC_IMAGES";

/// Begins a key, so that none is one of the cache. The number changes with the meaning of keys.
const KEY: &str = "mngc prepared image 1";

/// A folder of images, or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prepared {
    folder: Option<PathBuf>,
}

impl Prepared {
    /// The folder that [`VARIABLE`] names, if it names one.
    pub fn of_user() -> Prepared {
        Prepared { folder: std::env::var_os(VARIABLE).filter(|folder| !folder.is_empty()).map(PathBuf::from) }
    }

    /// A folder.
    pub fn at(folder: &Path) -> Prepared {
        Prepared { folder: Some(folder.to_path_buf()) }
    }

    /// Whether there is a folder.
    pub fn is_there(&self) -> bool {
        self.folder.as_deref().is_some_and(Path::is_dir)
    }

    /// The image of a kernel, if it has been prepared for the target and its file is whole.
    pub fn get(&self, source: &Source, target: Target) -> Option<Image> {
        let key = key(source, target);
        decode(&std::fs::read(self.folder.as_ref()?.join(key.to_hex().as_str())).ok()?, &key)
    }

    /// The images of kernels for a device's own target, without machine code where the options want none. None unless
    /// all have been prepared: then NVRTC is not needed.
    pub fn all<S: Borrow<Source>>(&self, sources: &[S], capability: u32, options: &Options) -> Option<Vec<Image>> {
        let target = Target::of_device(capability);
        let image = |source: &S| {
            let image = self.get(source.borrow(), target)?;
            match options.ptx_only {
                true => Some(Image { cubin: None, usage: None, ..image }),
                false => image.cubin.is_some().then_some(image),
            }
        };
        sources.iter().map(image).collect()
    }

    /// Puts an image into the folder, which is there.
    pub fn put(&self, source: &Source, target: Target, image: &Image) -> std::io::Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let key = key(source, target);
        files::write_atomically(&folder.join(key.to_hex().as_str()), &encode(image, &key))
    }
}

fn key(source: &Source, target: Target) -> blake3::Hash {
    hash([KEY, &target.to_string(), &source.name, &source.text])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(name: &str, text: &str) -> Source {
        Source { name: name.into(), text: text.into() }
    }

    #[test]
    fn what_is_prepared_is_found_by_name_text_and_target() {
        let folder = tempfile::tempdir().expect("a folder");
        let prepared = Prepared::at(folder.path());
        let target = Target::of_device(90);
        let image = Image { ptx: "ptx".into(), cubin: Some(vec![1, 2]), usage: None, log: String::new() };
        prepared.put(&source("k", "text"), target, &image).expect("written");
        assert_eq!(prepared.get(&source("k", "text"), target), Some(image.clone()));
        assert_eq!(prepared.get(&source("k", "texts"), target), None);
        assert_eq!(prepared.get(&source("kt", "ext"), target), None);
        assert_eq!(prepared.get(&source("k", "text"), Target::of_device(80)), None);

        let (all, ptx_only) = (Options::default(), Options { ptx_only: true });
        let both = [source("k", "text"), source("other", "text")];
        assert_eq!(prepared.all(&both, 90, &all), None);
        assert_eq!(prepared.all(&both[..1], 90, &all), Some(vec![image.clone()]));
        let without = Image { cubin: None, ..image };
        assert_eq!(prepared.all(&both[..1], 90, &ptx_only), Some(vec![without.clone()]));

        // PTX alone is nothing for a device.
        prepared.put(&both[1], target, &without).expect("written");
        assert_eq!(prepared.all(&both, 90, &all), None);
        assert_eq!(prepared.all(&both, 90, &ptx_only).map(|images| images.len()), Some(2));
    }

    #[test]
    fn a_file_that_is_not_whole_is_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let prepared = Prepared::at(folder.path());
        let (kernel, target) = (source("k", "text"), Target::of_device(90));
        let image = Image { ptx: "ptx".into(), cubin: None, usage: None, log: String::new() };
        prepared.put(&kernel, target, &image).expect("written");
        let path = folder.path().join(key(&kernel, target).to_hex().as_str());
        let mut file = std::fs::read(&path).expect("a file");
        *file.last_mut().expect("a byte") ^= 1;
        std::fs::write(&path, file).expect("written");
        assert_eq!(prepared.get(&kernel, target), None);
        assert!(
            !Prepared::default().is_there()
                && Prepared::default().all::<Source>(&[], 90, &Options::default()) == Some(vec![])
        );
    }
}
