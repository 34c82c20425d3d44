//! Finds NVIDIA's libraries: the driver, NVRTC (the compiler of CUDA) and NCCL. Each is asked for its version, so that
//! what is said to be there works. Nothing here fails: a library is found, or the places are told that were tried.

use std::ffi::{CStr, c_char, c_int, c_uint};
use std::fmt;
use std::path::{Path, PathBuf};

use libloading::{Library as Handle, Symbol};

use crate::folders;

/// A library of NVIDIA's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Library {
    /// `libcuda.so.1`, part of the display driver.
    Driver,
    /// `libnvrtc.so`, which compiles CUDA.
    Nvrtc,
    /// `libnccl.so.2`, for more than one GPU.
    Nccl,
}

/// A library that works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where it is: a file, or a name that the system's loader knows.
    pub path: PathBuf,
    /// Its version, as `12.9`.
    pub version: String,
}

/// A library that is not there, or does not work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// The places in order, each with what was wrong there.
    pub tried: Vec<(PathBuf, String)>,
}

/// A GPU that the driver knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// Its name.
    pub name: String,
    /// Bytes of memory.
    pub memory: u64,
    /// Compute capability, as (9, 0).
    pub capability: (u32, u32),
}

impl fmt::Display for Missing {
    /// A place a line.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("tried:")?;
        self.tried.iter().try_for_each(|(path, why)| write!(f, "\n  {}: {why}", path.display()))
    }
}

impl Library {
    /// The variable that names a file to use instead of any other.
    pub fn variable(self) -> &'static str {
        match self {
            Library::Driver => "MNGC_CUDA_DRIVER",
            Library::Nvrtc => "MNGC_NVRTC",
            Library::Nccl => "MNGC_NCCL",
        }
    }

    /// File names, the preferred first.
    fn names(self) -> &'static [&'static str] {
        match self {
            Library::Driver => &["libcuda.so.1"],
            Library::Nvrtc => &["libnvrtc.so.12", "libnvrtc.so.13", "libnvrtc.so"],
            Library::Nccl => &["libnccl.so.2"],
        }
    }

    /// The folder of its PyPI package, below `site-packages/nvidia`.
    fn packages(self) -> &'static [&'static str] {
        match self {
            Library::Driver => &[],
            Library::Nvrtc => &["cuda_nvrtc/lib", "cu13/lib"],
            Library::Nccl => &["nccl/lib"],
        }
    }

    /// Looks in this order: the variable of [`Library::variable`] and nowhere else if it is set; the data folder;
    /// `CUDA_HOME` and `CUDA_PATH`; the packages of every Python on the path; what the system's loader knows.
    pub fn find(self) -> Result<Found, Missing> {
        let mut missing = Missing::default();
        for path in self.candidates() {
            if path.is_absolute() && !path.exists() {
                missing.tried.push((path, "no such file".into()));
                continue;
            }
            match self.at(&path) {
                Ok(found) => return Ok(found),
                Err(why) => missing.tried.push((path, why)),
            }
        }
        Err(missing)
    }

    /// The library of a file, or of a name that the system's loader knows; or what is wrong with it.
    pub fn at(self, path: &Path) -> Result<Found, String> {
        Ok(Found { path: path.to_path_buf(), version: self.version(path)? })
    }

    fn candidates(self) -> Vec<PathBuf> {
        if let Some(path) = std::env::var_os(self.variable()).filter(|path| !path.is_empty()) {
            return vec![path.into()];
        }
        let mut folders = Vec::new();
        if self != Library::Driver {
            folders.extend(data_folders());
            let homes = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
            folders.extend(homes.chain(["/usr/local/cuda".into()]).map(|home| home.join("lib64")));
            let sites = site_packages();
            folders.extend(sites.iter().flat_map(|site| self.packages().iter().map(|p| site.join("nvidia").join(p))));
        }
        let in_folder = |folder: &PathBuf| self.names().iter().map(|name| folder.join(name)).collect::<Vec<_>>();
        let mut paths: Vec<PathBuf> = folders.iter().flat_map(in_folder).filter(|path| path.exists()).collect();
        // Bare names are for the system's loader.
        paths.extend(self.names().iter().map(PathBuf::from));
        paths
    }

    /// Loads a file and asks it for its version.
    fn version(self, path: &Path) -> Result<String, String> {
        // SAFETY: as with every library, its initialisers are trusted; each function is called as its header says.
        unsafe {
            let handle = Handle::new(path).map_err(|e| shortened(&e))?;
            let mut number: c_int = 0;
            match self {
                Library::Driver => {
                    let get: Symbol<unsafe extern "C" fn(*mut c_int) -> c_int> =
                        symbol(&handle, b"cuDriverGetVersion\0")?;
                    status(get(&mut number))?;
                    Ok(format!("{}.{}", number / 1000, number % 1000 / 10))
                }
                Library::Nvrtc => {
                    let get: Symbol<unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int> =
                        symbol(&handle, b"nvrtcVersion\0")?;
                    let mut minor: c_int = 0;
                    status(get(&mut number, &mut minor))?;
                    Ok(format!("{number}.{minor}"))
                }
                Library::Nccl => {
                    let get: Symbol<unsafe extern "C" fn(*mut c_int) -> c_int> = symbol(&handle, b"ncclGetVersion\0")?;
                    status(get(&mut number))?;
                    // Since 2.9: major · 10000 + minor · 100 + patch.
                    Ok(format!("{}.{}.{}", number / 10000, number / 100 % 100, number % 100))
                }
            }
        }
    }
}

/// The GPUs that a driver knows, in its order.
pub fn gpus(driver: &Found) -> Result<Vec<Gpu>, String> {
    type Init = unsafe extern "C" fn(c_uint) -> c_int;
    type Count = unsafe extern "C" fn(*mut c_int) -> c_int;
    type Get = unsafe extern "C" fn(*mut c_int, c_int) -> c_int;
    type Name = unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int;
    type Memory = unsafe extern "C" fn(*mut usize, c_int) -> c_int;
    type Attribute = unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int;
    // CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR.
    const CAPABILITY: [c_int; 2] = [75, 76];
    // SAFETY: the functions are called as cuda.h declares them.
    unsafe {
        let handle = Handle::new(&driver.path).map_err(|e| shortened(&e))?;
        let init: Symbol<Init> = symbol(&handle, b"cuInit\0")?;
        status(init(0))?;
        let mut count = 0;
        let get_count: Symbol<Count> = symbol(&handle, b"cuDeviceGetCount\0")?;
        status(get_count(&mut count))?;
        let get: Symbol<Get> = symbol(&handle, b"cuDeviceGet\0")?;
        let name: Symbol<Name> = symbol(&handle, b"cuDeviceGetName\0")?;
        let total: Symbol<Memory> = symbol(&handle, b"cuDeviceTotalMem_v2\0")?;
        let attribute: Symbol<Attribute> = symbol(&handle, b"cuDeviceGetAttribute\0")?;
        let mut gpus = Vec::new();
        for ordinal in 0..count {
            let (mut device, mut memory, mut text, mut capability) = (0, 0, [0; 256], [0; 2]);
            status(get(&mut device, ordinal))?;
            status(name(text.as_mut_ptr(), text.len() as c_int, device))?;
            status(total(&mut memory, device))?;
            for (value, what) in capability.iter_mut().zip(CAPABILITY) {
                status(attribute(value, what, device))?;
            }
            gpus.push(Gpu {
                name: CStr::from_ptr(text.as_ptr()).to_string_lossy().into_owned(),
                memory: memory as u64,
                capability: (capability[0] as u32, capability[1] as u32),
            });
        }
        Ok(gpus)
    }
}

/// # Safety
/// The symbol has the type that it is taken for.
unsafe fn symbol<'a, T>(handle: &'a Handle, name: &[u8]) -> Result<Symbol<'a, T>, String> {
    // SAFETY: the caller's promise.
    unsafe { handle.get(name) }.map_err(|e| shortened(&e))
}

fn status(code: c_int) -> Result<(), String> {
    if code == 0 { Ok(()) } else { Err(format!("it answers with error {code}")) }
}

/// The loader's messages repeat the path, which stands beside them.
fn shortened(error: &libloading::Error) -> String {
    let text = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    text.rsplit(": ").next().unwrap_or(&text).to_string()
}

/// Folders in the data folder whose names begin with `nvrtc-`, the newest version first.
fn data_folders() -> Vec<PathBuf> {
    let Some(data) = folders::data() else { return Vec::new() };
    let entries = std::fs::read_dir(&data).into_iter().flatten().flatten();
    let ours = entries
        .map(|entry| entry.path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("nvrtc-")));
    let mut folders: Vec<PathBuf> = ours.collect();
    let version = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        name.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect::<Vec<u64>>()
    };
    folders.sort_by_key(version);
    folders.reverse();
    folders
}

/// `site-packages` (Debian: `dist-packages`) beside every folder of the path that has a Python, and in the home folder.
fn site_packages() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let has_python = |bin: &PathBuf| bin.join("python3").exists() || bin.join("python").exists();
    let mut prefixes: Vec<PathBuf> =
        std::env::split_paths(&path).filter(has_python).filter_map(|bin| Some(bin.parent()?.to_path_buf())).collect();
    prefixes.extend(std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local")));
    let mut found = Vec::new();
    for prefix in prefixes {
        for lib in ["lib", "lib64", "local/lib"] {
            let entries = std::fs::read_dir(prefix.join(lib)).into_iter().flatten().flatten();
            let pythons = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("python3"));
            for python in pythons {
                let sites = ["site-packages", "dist-packages"].map(|name| python.path().join(name));
                found.extend(sites.into_iter().filter(|site| site.is_dir()));
            }
        }
    }
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_library_is_none() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        for library in [Library::Driver, Library::Nvrtc, Library::Nccl] {
            let why = library.version(file.path()).expect_err("it is empty");
            assert!(!why.is_empty());
        }
    }

    #[test]
    fn another_library_lacks_the_functions() {
        let why = Library::Nvrtc.version(Path::new("libc.so.6"));
        if cfg!(target_os = "linux") {
            assert!(why.expect_err("libc is no NVRTC").contains("nvrtcVersion"));
        }
    }

    #[test]
    fn finding_never_fails() {
        for library in [Library::Driver, Library::Nvrtc, Library::Nccl] {
            match library.find() {
                Ok(found) => assert!(found.version.contains('.'), "{found:?}"),
                Err(missing) => assert!(!missing.tried.is_empty()),
            }
        }
    }
}
