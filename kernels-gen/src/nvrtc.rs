//! NVRTC, NVIDIA's compiler of CUDA as a library: from the text of a kernel to an [`Image`]. It needs no GPU.
//!
//! Its functions are taken by name from the very file that [`Library::find`] found. Bindings that look for the library
//! themselves know a fixed list of names, `libnvrtc.so` first: they would use another file than the one whose version
//! is told, or none where only a newer major version is there.
//!
//! NVRTC compiles different programs in different threads at the same time, without a lock around them (12.9: two
//! threads sleep for no part of their time); it never sees one program from two threads here.

use std::borrow::Borrow;
use std::ffi::{CString, c_char, c_int, c_void};
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use libloading::Library as Handle;

use crate::call::Source;
use crate::image::{Image, Target, Usage};
use crate::libraries::{Found, Library, Missing};

/// What cannot be compiled, or why nothing can.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// NVRTC is nowhere.
    #[error("NVRTC, which compiles kernels for GPUs, is not there; `mngc doctor --install` fetches it\n{0}")]
    Missing(Missing),
    /// What was found is not whole.
    #[error("{} cannot be used: {why}; `mngc doctor --install` fetches an NVRTC that can", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The architecture is newer, or older, than this NVRTC.
    #[error(
        "NVRTC {version} at {} does not know {target}; it knows {}",
        path.display(),
        supported.iter().map(|capability| format!("sm_{capability}")).collect::<Vec<_>>().join(", ")
    )]
    Unsupported {
        /// What was asked for.
        target: Target,
        /// The library.
        path: PathBuf,
        /// Its version.
        version: String,
        /// Capabilities that it compiles for.
        supported: Vec<u32>,
    },
    /// A text that is not CUDA: a fault of the template that it came from.
    #[error("kernel {kernel} does not compile for {target} (NVRTC {version} at {}):\n{log}", path.display())]
    Compile {
        /// The kernel's name.
        kernel: String,
        /// What it was compiled for.
        target: Target,
        /// The library.
        path: PathBuf,
        /// Its version.
        version: String,
        /// What NVRTC said.
        log: String,
    },
    /// A call failed that does not by itself.
    #[error("NVRTC {version} at {} fails on kernel {kernel}: {why}", path.display())]
    Failed {
        /// The kernel's name.
        kernel: String,
        /// The library.
        path: PathBuf,
        /// Its version.
        version: String,
        /// The call and its answer.
        why: String,
    },
}

/// How a kernel is compiled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Options {
    /// No machine code: the soft device runs PTX, and half of the time is saved.
    pub ptx_only: bool,
}

impl Options {
    /// NVRTC's options, all of them. No fast math, ever: results are to be those of the reference.
    pub(crate) fn list(self, target: Target) -> Vec<String> {
        let arch = if self.ptx_only { target.compute() } else { target.to_string() };
        let mut options = vec![
            format!("--gpu-architecture={arch}"),
            "--generate-line-info".into(),
            "--device-as-default-execution-space".into(),
        ];
        if !self.ptx_only {
            options.push("--ptxas-options=-v".into());
        }
        options
    }
}

type Program = *mut c_void;

/// NVRTC, loaded. It stays in the process.
pub struct Nvrtc {
    found: Found,
    supported: Vec<u32>,
    functions: Functions,
    /// Never closed: it has threads' data that outlive any one use.
    _handles: ManuallyDrop<Vec<Handle>>,
}

/// The functions of nvrtc.h that are used, with their types there.
struct Functions {
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> c_int,
    destroy: unsafe extern "C" fn(*mut Program) -> c_int,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int,
    ptx: Getter,
    cubin: Getter,
    log: Getter,
}

/// A size, and the bytes that it is of.
struct Getter {
    name: &'static str,
    size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    get: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
}

impl Nvrtc {
    /// The NVRTC of this machine: see [`Library::find`] for the places.
    pub fn load() -> Result<Nvrtc, Error> {
        Nvrtc::open(Library::Nvrtc.find().map_err(Error::Missing)?)
    }

    fn open(found: Found) -> Result<Nvrtc, Error> {
        let broken = |why: libloading::Error| Error::Broken { path: found.path.clone(), why: why.to_string() };
        let mut handles = Vec::new();
        // It opens this file by name when it first compiles, and fails where the loader does not know its folder.
        let builtins = found.path.with_file_name(format!("libnvrtc-builtins.so.{}", found.version));
        if found.path.is_absolute() && builtins.exists() {
            // SAFETY: as with every library, its initialisers are trusted.
            handles.push(unsafe { Handle::new(&builtins) }.map_err(broken)?);
        }
        // SAFETY: as above, and the functions have these types in nvrtc.h.
        let (functions, supported) = unsafe {
            let handle = Handle::new(&found.path).map_err(broken)?;
            let functions = Functions::of(&handle).map_err(broken)?;
            let supported = supported(&handle).map_err(|why| Error::Broken { path: found.path.clone(), why })?;
            handles.push(handle);
            (functions, supported)
        };
        Ok(Nvrtc { found, supported, functions, _handles: ManuallyDrop::new(handles) })
    }

    /// Its version, as `12.9`.
    pub fn version(&self) -> &str {
        &self.found.version
    }

    /// What tells it from others: two that have the same version may differ in what comes after, and so in size.
    pub(crate) fn identity(&self) -> String {
        let size = std::fs::metadata(&self.found.path).map_or(0, |file| file.len());
        format!("{}, {size} bytes", self.found.version)
    }

    /// The file that it was loaded from.
    pub fn path(&self) -> &Path {
        &self.found.path
    }

    /// The capabilities that it compiles for, in order.
    pub fn supported(&self) -> &[u32] {
        &self.supported
    }

    /// The target for a device: its own, or the newest that this NVRTC knows below it, which the device's driver takes
    /// as PTX. None where there is none from [`Target::OLDEST`] on.
    pub fn target(&self, capability: u32) -> Option<Target> {
        let newest = *self.supported.iter().rfind(|known| **known <= capability && **known >= Target::OLDEST)?;
        Some(if newest == capability {
            Target::of_device(capability)
        } else {
            Target { capability: newest, specific: false }
        })
    }

    /// Compiles one kernel, in this thread.
    pub fn compile(&self, source: &Source, target: Target, options: &Options) -> Result<Image, Error> {
        if !self.supported.contains(&target.capability) {
            return Err(Error::Unsupported {
                target,
                path: self.found.path.clone(),
                version: self.found.version.clone(),
                supported: self.supported.clone(),
            });
        }
        let failed = |why: String| Error::Failed {
            kernel: source.name.clone(),
            path: self.found.path.clone(),
            version: self.found.version.clone(),
            why,
        };
        let text = |text: String| CString::new(text).map_err(|e| failed(e.to_string()));
        // Line infos name this file. A relative name would have the current folder put before it.
        let (code, name) = (text(source.text.clone())?, text(format!("/kernels/{}.cu", source.name))?);
        let list = options.list(target).into_iter().map(text).collect::<Result<Vec<CString>, Error>>()?;
        let list: Vec<*const c_char> = list.iter().map(|option| option.as_ptr()).collect();

        let mut program = Owned { program: ptr::null_mut(), functions: &self.functions };
        // SAFETY: the strings outlive the calls, the program is used by this thread only and destroyed at the end.
        unsafe {
            let made = (self.functions.create)(
                &mut program.program,
                code.as_ptr(),
                name.as_ptr(),
                0,
                ptr::null(),
                ptr::null(),
            );
            answer("nvrtcCreateProgram", made).map_err(failed)?;
            let compiled = (self.functions.compile)(program.program, list.len() as c_int, list.as_ptr());
            let log = String::from_utf8_lossy(&self.functions.log.bytes(program.program).map_err(failed)?).into_owned();
            const ERROR_COMPILATION: c_int = 6;
            if compiled == ERROR_COMPILATION {
                return Err(Error::Compile {
                    kernel: source.name.clone(),
                    target,
                    path: self.found.path.clone(),
                    version: self.found.version.clone(),
                    log: Usage::parse(&log).1,
                });
            }
            answer("nvrtcCompileProgram", compiled)
                .map_err(|why| failed(format!("{why}\n{}", log.trim_end_matches('\0'))))?;
            let mut ptx = self.functions.ptx.bytes(program.program).map_err(failed)?;
            // C strings end with a zero, which is no part of the text.
            ptx.retain(|byte| *byte != 0);
            let cubin = match options.ptx_only {
                true => None,
                false => Some(self.functions.cubin.bytes(program.program).map_err(failed)?),
            };
            let (usage, log) = Usage::parse(&log);
            let ptx = String::from_utf8(ptx).map_err(|e| failed(e.to_string()))?;
            Ok(Image { ptx, cubin, usage, log })
        }
    }

    /// Compiles kernels in some threads; images come in the order of the texts. `progress` is called by any of the
    /// threads after each kernel, with how many are done. The first text that fails says why, the same each time.
    pub fn compile_all<S: Borrow<Source> + Sync>(
        &self,
        sources: &[S],
        target: Target,
        options: &Options,
        threads: usize,
        progress: &(dyn Fn(usize) + Sync),
    ) -> Result<Vec<Image>, Error> {
        in_threads(sources, threads, progress, |source| self.compile(source.borrow(), target, options))
    }
}

/// Does the same to each item, in some threads, and gives the results in order. After an error no item is begun; as
/// items are begun in order, the error is that of the first item that has one.
pub(crate) fn in_threads<T: Sync, R: Send, E: Send>(
    items: &[T],
    threads: usize,
    progress: &(dyn Fn(usize) + Sync),
    work: impl Fn(&T) -> Result<R, E> + Sync,
) -> Result<Vec<R>, E> {
    /// The compiler walks expressions by recursion: as much as a main thread has, which it is made for.
    const STACK: usize = 8 << 20;
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let results: Mutex<Vec<(usize, Result<R, E>)>> = Mutex::new(Vec::new());
    let run = || {
        while let Some((index, item)) = {
            let index = next.fetch_add(1, Ordering::Relaxed);
            items.get(index).map(|item| (index, item))
        } {
            let result = work(item);
            if result.is_err() {
                next.store(items.len(), Ordering::Relaxed);
            }
            results.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push((index, result));
            progress(done.fetch_add(1, Ordering::Relaxed) + 1);
        }
    };
    std::thread::scope(|scope| {
        let started = (0..threads.clamp(1, items.len().max(1)))
            .filter(|_| std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, run).is_ok())
            .count();
        // No thread to be had: then here.
        if started == 0 {
            run();
        }
    });
    let mut results = results.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

/// A program, destroyed at the end of its use.
struct Owned<'a> {
    program: Program,
    functions: &'a Functions,
}

impl Drop for Owned<'_> {
    fn drop(&mut self) {
        if !self.program.is_null() {
            // SAFETY: it was made by nvrtcCreateProgram and is used no more.
            unsafe { (self.functions.destroy)(&mut self.program) };
        }
    }
}

impl Functions {
    /// # Safety
    /// The library is NVRTC.
    unsafe fn of(handle: &Handle) -> Result<Functions, libloading::Error> {
        // SAFETY: the caller's promise; the types are those of nvrtc.h.
        unsafe {
            Ok(Functions {
                create: *handle.get(b"nvrtcCreateProgram\0")?,
                destroy: *handle.get(b"nvrtcDestroyProgram\0")?,
                compile: *handle.get(b"nvrtcCompileProgram\0")?,
                ptx: Getter::of(handle, "nvrtcGetPTX", b"nvrtcGetPTXSize\0", b"nvrtcGetPTX\0")?,
                cubin: Getter::of(handle, "nvrtcGetCUBIN", b"nvrtcGetCUBINSize\0", b"nvrtcGetCUBIN\0")?,
                log: Getter::of(handle, "nvrtcGetProgramLog", b"nvrtcGetProgramLogSize\0", b"nvrtcGetProgramLog\0")?,
            })
        }
    }
}

impl Getter {
    /// # Safety
    /// The functions have the types of [`Getter`].
    unsafe fn of(handle: &Handle, name: &'static str, size: &[u8], get: &[u8]) -> Result<Getter, libloading::Error> {
        // SAFETY: the caller's promise.
        unsafe { Ok(Getter { name, size: *handle.get(size)?, get: *handle.get(get)? }) }
    }

    /// # Safety
    /// The program is one of NVRTC's and was compiled by this thread.
    unsafe fn bytes(&self, program: Program) -> Result<Vec<u8>, String> {
        let mut size = 0;
        // SAFETY: the caller's promise; the second call writes as many bytes as the first has told.
        unsafe {
            answer(self.name, (self.size)(program, &mut size))?;
            let mut bytes = vec![0u8; size];
            answer(self.name, (self.get)(program, bytes.as_mut_ptr().cast()))?;
            Ok(bytes)
        }
    }
}

/// # Safety
/// The library is NVRTC.
unsafe fn supported(handle: &Handle) -> Result<Vec<u32>, String> {
    type Get = unsafe extern "C" fn(*mut c_int) -> c_int;
    // SAFETY: the caller's promise; the array is as long as the first call has told.
    unsafe {
        let symbol = |name: &[u8]| handle.get::<Get>(name).map(|symbol| *symbol).map_err(|e| e.to_string());
        let (count, list) = (symbol(b"nvrtcGetNumSupportedArchs\0")?, symbol(b"nvrtcGetSupportedArchs\0")?);
        let mut length = 0;
        answer("nvrtcGetNumSupportedArchs", count(&mut length))?;
        let mut archs = vec![0; usize::try_from(length).unwrap_or(0)];
        answer("nvrtcGetSupportedArchs", list(archs.as_mut_ptr()))?;
        let mut archs: Vec<u32> = archs.into_iter().filter_map(|arch| u32::try_from(arch).ok()).collect();
        archs.sort_unstable();
        Ok(archs)
    }
}

/// NVRTC's names of its answers, as far as they say anything.
fn answer(call: &str, code: c_int) -> Result<(), String> {
    let meaning = match code {
        0 => return Ok(()),
        1 => "out of memory",
        2 => "a program could not be created",
        3 => "an input is invalid",
        4 => "the program is invalid",
        5 => "an option is not known to this version",
        6 => "the text does not compile",
        7 => "libnvrtc-builtins, which lies beside the library, could not be used",
        _ => "an internal error",
    };
    Err(format!("{call} answers {code}: {meaning}"))
}
