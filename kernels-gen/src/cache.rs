//! Images that were compiled before, in a folder of the user's cache. Emptying it loses only time.
//!
//! A file has the name of its key, which is a hash of all that an image depends on: its text and name, the options,
//! the target, and NVRTC. It is written under another name, synced to disk and renamed, and holds a hash of itself with
//! the key: any number of processes may share the folder, and a file that is not whole, or another's, is compiled again
//! and replaced. A folder that cannot be written keeps nothing, which is no error: [`Cache::fault`] tells why.

use std::borrow::Borrow;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use crate::call::Source;
use crate::files;
use crate::folders;
use crate::image::{Image, Target, Usage};
use crate::nvrtc::{Error, Nvrtc, Options, in_threads};

/// The first bytes of a file. The number changes with the form of files and with the meaning of keys.
const MAGIC: &[u8] = b"mngc image 1\n";

/// Temporary files of killed processes are removed when they are older than any compilation takes.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// A folder of images, or none.
#[derive(Debug, Default)]
pub struct Cache {
    folder: Option<PathBuf>,
    fault: OnceLock<String>,
    swept: OnceLock<()>,
}

/// Images of some texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    /// In the order of the texts.
    pub images: Vec<Image>,
    /// How many of them were compiled; the others had been before.
    pub compiled: usize,
}

impl Cache {
    /// The folder `kernels` of the user's cache. Without a home nothing is kept.
    pub fn of_user() -> Cache {
        Cache { folder: folders::cache().map(|folder| folder.join("kernels")), ..Cache::default() }
    }

    /// A folder, which is made when it is first written to.
    pub fn at(folder: &Path) -> Cache {
        Cache { folder: Some(folder.to_path_buf()), ..Cache::default() }
    }

    /// None: all is compiled each time.
    pub fn none() -> Cache {
        Cache::default()
    }

    /// Why images are not kept, after the first that could not be. A caller tells it once.
    pub fn fault(&self) -> Option<&str> {
        self.fault.get().map(String::as_str)
    }

    /// The images of some kernels: from the cache, or compiled in some threads and kept.
    /// `progress` is called by any of the threads after each kernel, with how many are done.
    pub fn images<S: Borrow<Source> + Sync>(
        &self,
        nvrtc: &Nvrtc,
        sources: &[S],
        target: Target,
        options: &Options,
        threads: usize,
        progress: &(dyn Fn(usize) + Sync),
    ) -> Result<Images, Error> {
        let (identity, compiled) = (nvrtc.identity(), AtomicUsize::new(0));
        let images = in_threads(sources, threads, progress, |source| {
            let source = source.borrow();
            let key = key(source, target, *options, &identity);
            if let Some(image) = self.get(&key) {
                return Ok(image);
            }
            compiled.fetch_add(1, Ordering::Relaxed);
            let image = nvrtc.compile(source, target, options)?;
            self.put(&key, &image);
            Ok(image)
        })?;
        Ok(Images { images, compiled: compiled.into_inner() })
    }

    fn get(&self, key: &blake3::Hash) -> Option<Image> {
        decode(&std::fs::read(path(self.folder.as_ref()?, key)).ok()?, key)
    }

    fn put(&self, key: &blake3::Hash, image: &Image) {
        let Some(folder) = &self.folder else { return };
        // What failed once would fail for each kernel.
        if self.fault.get().is_some() {
            return;
        }
        let written = std::fs::create_dir_all(folder).and_then(|()| {
            self.swept.get_or_init(|| sweep(folder));
            files::write_atomically(&path(folder, key), &encode(image, key))
        });
        if let Err(error) = written {
            // Another thread may have been first; one reason is enough.
            let _ = self.fault.set(format!("compiled kernels cannot be kept in {}: {error}", folder.display()));
        }
    }
}

fn path(folder: &Path, key: &blake3::Hash) -> PathBuf {
    folder.join(key.to_hex().as_str())
}

/// Removes what killed processes left half-written.
fn sweep(folder: &Path) {
    let now = SystemTime::now();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let abandoned = || Some(now.duration_since(entry.metadata().ok()?.modified().ok()?).ok()? > ABANDONED);
        if entry.file_name().to_string_lossy().starts_with(files::TEMPORARY) && abandoned() == Some(true) {
            // Another process may have removed it.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// A hash of all that an image depends on. `nvrtc` is [`Nvrtc::identity`].
fn key(source: &Source, target: Target, options: Options, nvrtc: &str) -> blake3::Hash {
    let (target_name, options) = (target.to_string(), options.list(target));
    let parts = [nvrtc, &target_name, &source.name, &source.text];
    hash(parts.into_iter().chain(options.iter().map(String::as_str)))
}

/// A hash of texts in their order.
pub(crate) fn hash<'a>(parts: impl IntoIterator<Item = &'a str>) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(MAGIC);
    for part in parts {
        // With its length before it no part can run into the next.
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    hasher.finalize()
}

/// A file: magic, hash of key and payload, payload. The payload is four parts, each with its length before it: PTX,
/// machine code, usage (five numbers), log. A length of all ones stands for a part that is not there.
pub(crate) fn encode(image: &Image, key: &blake3::Hash) -> Vec<u8> {
    let usage = image.usage.map(|usage| numbers(&usage).into_iter().flat_map(u32::to_le_bytes).collect::<Vec<u8>>());
    let parts = [Some(image.ptx.as_bytes()), image.cubin.as_deref(), usage.as_deref(), Some(image.log.as_bytes())];
    let mut payload = Vec::new();
    for part in parts {
        payload.extend(part.map_or(u64::MAX, |part| part.len() as u64).to_le_bytes());
        payload.extend(part.unwrap_or_default());
    }
    [MAGIC, seal(key, &payload).as_bytes(), &payload].concat()
}

/// The image of a file; none where the file is not whole or belongs to another key.
pub(crate) fn decode(file: &[u8], key: &blake3::Hash) -> Option<Image> {
    let (hash, mut payload) = file.strip_prefix(MAGIC)?.split_at_checked(blake3::OUT_LEN)?;
    if seal(key, payload).as_bytes() != hash {
        return None;
    }
    let mut part = || {
        let (length, rest) = payload.split_first_chunk()?;
        let length = u64::from_le_bytes(*length);
        let found;
        (found, payload) = match length {
            u64::MAX => (None, rest),
            length => rest.split_at_checked(usize::try_from(length).ok()?).map(|(part, rest)| (Some(part), rest))?,
        };
        Some(found)
    };
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    let (ptx, cubin, usage, log) = (text(part()??)?, part()?.map(<[u8]>::to_vec), part()?, text(part()??)?);
    let usage = match usage {
        Some(bytes) => {
            let (numbers, []) = bytes.as_chunks::<4>() else { return None };
            let &[registers, spill_stores, spill_loads, stack, shared] = numbers else { return None };
            let [registers, spill_stores, spill_loads, stack, shared] =
                [registers, spill_stores, spill_loads, stack, shared].map(u32::from_le_bytes);
            Some(Usage { registers, spill_stores, spill_loads, stack, shared })
        }
        None => None,
    };
    Some(Image { ptx, cubin, usage, log })
}

fn numbers(usage: &Usage) -> [u32; 5] {
    let Usage { registers, spill_stores, spill_loads, stack, shared } = *usage;
    [registers, spill_stores, spill_loads, stack, shared]
}

fn seal(key: &blake3::Hash, payload: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(key.as_bytes()).update(payload).finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Image {
        Image {
            ptx: ".version 8.8\n".repeat(9),
            cubin: Some(b"\x7fELF\0\xff".to_vec()),
            usage: Some(Usage { registers: 64, spill_stores: 1, spill_loads: 2, stack: 3, shared: 512 }),
            log: "a warning: é".into(),
        }
    }

    #[test]
    fn an_image_comes_back() {
        let key = blake3::hash(b"key");
        let ptx_only = Image { cubin: None, usage: None, log: String::new(), ..image() };
        for image in [image(), ptx_only, Image { cubin: Some(Vec::new()), ..image() }] {
            assert_eq!(decode(&encode(&image, &key), &key), Some(image));
        }
    }

    #[test]
    fn no_part_of_a_file_is_believed_alone() {
        let key = blake3::hash(b"key");
        let file = encode(&image(), &key);
        for end in 0..file.len() {
            assert_eq!(decode(&file[..end], &key), None);
        }
        for i in 0..file.len() {
            let mut file = file.clone();
            file[i] ^= 1;
            assert_eq!(decode(&file, &key), None);
        }
        assert_eq!(decode(&[&file[..], b"\0"].concat(), &key), None);
        assert_eq!(decode(&file, &blake3::hash(b"another key")), None);
    }

    #[test]
    fn a_key_depends_on_everything() {
        let source = |name: &str, text: &str| Source { name: name.into(), text: text.into() };
        let target = |name: &str| name.parse::<Target>().expect("a target");
        let (all, ptx_only) = (Options::default(), Options { ptx_only: true });
        let keys = [
            key(&source("k", "text"), target("sm_90"), all, "12.9"),
            key(&source("k", "texts"), target("sm_90"), all, "12.9"),
            key(&source("kt", "ext"), target("sm_90"), all, "12.9"),
            key(&source("k", "text"), target("sm_90a"), all, "12.9"),
            key(&source("k", "text"), target("sm_90"), ptx_only, "12.9"),
            key(&source("k", "text"), target("sm_90"), all, "13.0"),
        ];
        for (i, a) in keys.iter().enumerate() {
            assert!(keys[..i].iter().all(|b| a != b), "{i}");
        }
        assert_eq!(key(&source("k", "text"), target("sm_90"), all, "12.9"), keys[0]);
    }

    #[test]
    fn what_killed_processes_left_goes() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, "half").expect("written");
            path
        };
        let (old, young, other) = (file(".mngc-old"), file(".mngc-young"), file("other"));
        for path in [&old, &other] {
            let file = std::fs::File::options().write(true).open(path).expect("it opens");
            file.set_modified(SystemTime::now() - 2 * ABANDONED).expect("a time");
        }
        Cache::at(folder.path()).put(&blake3::hash(b"key"), &image());
        assert_eq!([old, young, other].map(|path| path.exists()), [false, true, true]);
    }
}
