//! The driver of this process: NVIDIA's, or the soft GPU's, which has the same interface.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::PathBuf;
use std::sync::Mutex;

use cudarc::driver::sys::{self, CUdevice_attribute_enum as Attribute, CUresult};
use libloading::os::unix::{Library as Handle, RTLD_GLOBAL, RTLD_NOW};
use mngc_kernels_gen::Device;
use mngc_kernels_gen::libraries::Library;

use super::error::CudaError;

type Result<T> = std::result::Result<T, CudaError>;

/// Whose driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// NVIDIA's: real devices.
    Nvidia,
    /// The soft GPU's.
    Soft,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Nvidia => "NVIDIA's driver",
            Kind::Soft => "the soft GPU's driver",
        }
    }
}

/// Loads a driver and initialises it. A process has one: asking for the other afterwards is an error.
pub fn open(kind: Kind) -> Result<()> {
    static OPENED: Mutex<Option<Kind>> = Mutex::new(None);
    let mut opened = OPENED.lock().unwrap_or_else(|e| e.into_inner());
    if let Some(there) = *opened {
        return if there == kind { Ok(()) } else { Err(other(there, kind)) };
    }
    let path = match kind {
        Kind::Nvidia => Library::Driver.find().map_err(CudaError::NoDriver)?.path,
        Kind::Soft => soft_library()?,
    };
    // cudarc looks for names of its own; a library that is loaded already is found by the name that it bears.
    // SAFETY: as with every library, its initialisers are trusted.
    let handle = unsafe { Handle::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) };
    let handle = handle.map_err(|e| CudaError::Call {
        call: format!("opening {}", path.display()),
        name: "no library".into(),
        text: e.to_string(),
        report: None,
    })?;
    std::mem::forget(handle);
    let there = if soft_symbol(c"softgpu_version").is_some() { Kind::Soft } else { Kind::Nvidia };
    if there != kind {
        return Err(other(there, kind));
    }
    // SAFETY: the library is there.
    check("cuInit", unsafe { sys::cuInit(0) })?;
    *opened = Some(kind);
    Ok(())
}

fn other(found: Kind, wanted: Kind) -> CudaError {
    CudaError::OtherDriver { found: found.name().into(), wanted: wanted.name().into() }
}

/// The soft GPU's library: named by `MNGC_SOFT_DRIVER`, or beside the program, or one folder up (where tests lie).
fn soft_library() -> Result<PathBuf> {
    const NAME: &str = "libcuda.so.1";
    if let Some(path) = std::env::var_os("MNGC_SOFT_DRIVER").filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        // Another than an absolute name is for the system's loader.
        return if path.is_absolute() && !path.exists() { Err(CudaError::NoSoftDriver(vec![path])) } else { Ok(path) };
    }
    let exe = std::env::current_exe().unwrap_or_default();
    let places: Vec<PathBuf> = exe.ancestors().skip(1).take(2).map(|folder| folder.join(NAME)).collect();
    places.iter().find(|path| path.exists()).cloned().ok_or(CudaError::NoSoftDriver(places))
}

/// A function of the library that cudarc uses, if it has it.
fn soft_symbol(name: &CStr) -> Option<unsafe extern "C" fn() -> *const c_char> {
    // SAFETY: `open` has loaded a library, and both of the soft GPU's own functions have this type.
    unsafe {
        if !sys::is_culib_present() {
            return None;
        }
        sys::culib().get::<unsafe extern "C" fn() -> *const c_char>(name.to_bytes_with_nul()).ok().map(|symbol| *symbol)
    }
}

/// What the soft GPU found last.
fn report() -> Option<String> {
    let last = soft_symbol(c"softgpu_last_report")?;
    // SAFETY: it gives none or a string that lives until the next finding.
    unsafe {
        let text = last();
        (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned()).filter(|text| !text.is_empty())
    }
}

/// An answer of the driver as a result. `call` says what was asked for.
pub fn check(call: &str, answer: CUresult) -> Result<()> {
    if answer == CUresult::CUDA_SUCCESS {
        return Ok(());
    }
    let text = |get: unsafe fn(CUresult, *mut *const c_char) -> CUresult| {
        let mut text = std::ptr::null();
        // SAFETY: it gives none or a string of the library.
        unsafe {
            if get(answer, &mut text) == CUresult::CUDA_SUCCESS && !text.is_null() {
                CStr::from_ptr(text).to_string_lossy().into_owned()
            } else {
                format!("error {}", answer as u32)
            }
        }
    };
    let (name, text) = (text(sys::cuGetErrorName), text(sys::cuGetErrorString));
    Err(CudaError::Call { call: call.into(), name, text, report: report() })
}

/// How many devices there are.
pub fn devices() -> Result<usize> {
    let mut count: c_int = 0;
    // SAFETY: the driver is initialised.
    check("cuDeviceGetCount", unsafe { sys::cuDeviceGetCount(&mut count) })?;
    Ok(count.max(0) as usize)
}

/// The version of CUDA that the driver has, as `12.9`.
pub fn version() -> Result<String> {
    let mut number: c_int = 0;
    // SAFETY: the driver is initialised.
    check("cuDriverGetVersion", unsafe { sys::cuDriverGetVersion(&mut number) })?;
    Ok(format!("{}.{}", number / 1000, number % 1000 / 10))
}

/// The context of a device, current in the thread that asked for it. All users of a device in a process share one, which
/// is never given back: made anew for each, it would cost memory and a third of a second.
#[derive(Debug)]
pub struct Context {
    /// What kernels are chosen by.
    pub description: Device,
}

impl Context {
    /// The context of a device, for this thread.
    pub fn new(ordinal: usize) -> Result<Context> {
        static RETAINED: Mutex<Vec<usize>> = Mutex::new(Vec::new());
        let (mut device, mut context) = (0, std::ptr::null_mut());
        // SAFETY: the driver is initialised, and the places are there.
        unsafe {
            check("cuDeviceGet", sys::cuDeviceGet(&mut device, ordinal as c_int))?;
            check("cuDevicePrimaryCtxRetain", sys::cuDevicePrimaryCtxRetain(&mut context, device))?;
            let mut retained = RETAINED.lock().unwrap_or_else(|e| e.into_inner());
            if retained.contains(&ordinal) {
                // Once is enough.
                check("cuDevicePrimaryCtxRelease", sys::cuDevicePrimaryCtxRelease_v2(device))?;
            } else {
                retained.push(ordinal);
            }
            check("cuCtxSetCurrent", sys::cuCtxSetCurrent(context))?;
        }
        Ok(Context { description: describe(device)? })
    }

    /// Bytes that nobody has, and all bytes of the device.
    pub fn memory(&self) -> Result<(usize, usize)> {
        let (mut free, mut total) = (0, 0);
        // SAFETY: the context is current.
        check("cuMemGetInfo", unsafe { sys::cuMemGetInfo_v2(&mut free, &mut total) })?;
        Ok((free, total))
    }
}

/// A device as the choice of kernels needs it: the limits are the device's own, the speeds those of its family.
fn describe(device: sys::CUdevice) -> Result<Device> {
    let attribute = |attribute| {
        let mut value: c_int = 0;
        // SAFETY: the device is one.
        check("cuDeviceGetAttribute", unsafe { sys::cuDeviceGetAttribute(&mut value, attribute, device) })?;
        Ok::<usize, CudaError>(value.max(0) as usize)
    };
    let mut name = [0; 256];
    // SAFETY: the place has the size that is told.
    check("cuDeviceGetName", unsafe { sys::cuDeviceGetName(name.as_mut_ptr(), name.len() as c_int, device) })?;
    // SAFETY: the driver ends it with a zero.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
    let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
    let capability = (major * 10 + minor) as u32;
    let family = Device::of(capability).ok_or_else(|| CudaError::Old { name: name.clone(), capability })?;
    Ok(Device {
        name,
        capability,
        shared_per_block: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        shared_per_multiprocessor: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR)?,
        multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        ..family
    })
}

/// A stream that does not wait for the default one.
#[derive(Debug)]
pub struct Stream(pub sys::CUstream);

impl Stream {
    /// A new one, in the current context.
    pub fn new() -> Result<Stream> {
        let mut stream = std::ptr::null_mut();
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: a context is current.
        check("cuStreamCreate", unsafe { sys::cuStreamCreate(&mut stream, flags) })?;
        Ok(Stream(stream))
    }

    /// Waits for all that was queued.
    pub fn wait(&self, what: &str) -> Result<()> {
        // SAFETY: the stream is one.
        check(what, unsafe { sys::cuStreamSynchronize(self.0) })
    }

    /// Lets this stream go on only when `event` has happened.
    pub fn wait_for(&self, event: &Event) -> Result<()> {
        // SAFETY: both are there.
        check("cuStreamWaitEvent", unsafe { sys::cuStreamWaitEvent(self.0, event.0, 0) })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: made by `new`.
        unsafe { sys::cuStreamDestroy_v2(self.0) };
    }
}

/// A moment of a stream.
#[derive(Debug)]
pub struct Event(sys::CUevent);

impl Event {
    /// One that is only waited for, or one whose time counts.
    pub fn new(is_timed: bool) -> Result<Event> {
        let mut event = std::ptr::null_mut();
        let flags =
            if is_timed { sys::CUevent_flags::CU_EVENT_DEFAULT } else { sys::CUevent_flags::CU_EVENT_DISABLE_TIMING };
        // SAFETY: a context is current.
        check("cuEventCreate", unsafe { sys::cuEventCreate(&mut event, flags as u32) })?;
        Ok(Event(event))
    }

    /// Happens when all that was queued in a stream is done.
    pub fn record(&self, stream: &Stream) -> Result<()> {
        // SAFETY: both are there.
        check("cuEventRecord", unsafe { sys::cuEventRecord(self.0, stream.0) })
    }

    /// Seconds from another moment to this one, both of which have been.
    pub fn seconds_since(&self, earlier: &Event) -> Result<f64> {
        let mut milliseconds = 0.0;
        // SAFETY: both have happened.
        check("cuEventElapsedTime", unsafe { sys::cuEventElapsedTime(&mut milliseconds, earlier.0, self.0) })?;
        Ok(f64::from(milliseconds) / 1e3)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: made by `new`.
        unsafe { sys::cuEventDestroy_v2(self.0) };
    }
}

/// A loaded image with its one kernel.
#[derive(Debug)]
pub struct Function {
    module: sys::CUmodule,
    function: sys::CUfunction,
    name: String,
}

impl Function {
    /// Loads PTX text or machine code, and checks that blocks of `threads` with `shared` bytes of dynamic shared memory
    /// can run on the device.
    pub fn load(name: &str, image: &[u8], threads: u32, shared: usize, device: &Device) -> Result<Function> {
        let mut data = image.to_vec();
        data.push(0);
        let mut loaded =
            Function { module: std::ptr::null_mut(), function: std::ptr::null_mut(), name: name.to_string() };
        // SAFETY: the image ends with a zero, as text must.
        let answer = unsafe { sys::cuModuleLoadData(&mut loaded.module, data.as_ptr().cast()) };
        check(&format!("loading {name} on {}", device.name), answer)?;
        let symbol = CString::new(name).unwrap_or_default();
        // SAFETY: the module is loaded.
        check(name, unsafe { sys::cuModuleGetFunction(&mut loaded.function, loaded.module, symbol.as_ptr()) })?;
        loaded.fits(threads, shared, device)?;
        Ok(loaded)
    }

    fn fits(&self, threads: u32, shared: usize, device: &Device) -> Result<()> {
        let attribute = |attribute| {
            let mut value: c_int = 0;
            // SAFETY: the function is loaded.
            check(&self.name, unsafe { sys::cuFuncGetAttribute(&mut value, attribute, self.function) })?;
            Ok::<usize, CudaError>(value.max(0) as usize)
        };
        let limit = |what, needed: usize, limit: usize| match needed <= limit {
            true => Ok(()),
            false => Err(CudaError::Limit { kernel: self.name.clone(), what, needed, limit }),
        };
        let most = attribute(sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK)?;
        limit("threads a block", threads as usize, most)?;
        let fixed = attribute(sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?;
        limit("bytes of shared memory a block", fixed + shared, device.shared_per_block)?;
        let dynamic = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function is loaded.
        check(&self.name, unsafe { sys::cuFuncSetAttribute(self.function, dynamic, shared as c_int) })
    }

    /// Queues a launch.
    pub fn launch(&self, grid: [u32; 3], block: u32, shared: usize, params: &[Vec<u8>], stream: &Stream) -> Result<()> {
        let mut places: Vec<*mut c_void> = params.iter().map(|param| param.as_ptr().cast_mut().cast()).collect();
        // SAFETY: parameters have the sizes that the kernel declares, and are copied before the call returns.
        let answer = unsafe {
            let [x, y, z] = grid;
            let params = places.as_mut_ptr();
            let none = std::ptr::null_mut();
            sys::cuLaunchKernel(self.function, x, y, z, block, 1, 1, shared as u32, stream.0, params, none)
        };
        check(&self.name, answer)
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        // SAFETY: loaded by `load`; none where loading failed.
        unsafe { sys::cuModuleUnload(self.module) };
    }
}

/// A captured graph, ready to be launched.
#[derive(Debug)]
pub struct Graph(sys::CUgraphExec);

impl Graph {
    /// Captures what `queue` queues in a stream, and makes it ready.
    pub fn capture(stream: &Stream, queue: impl FnOnce() -> Result<()>) -> Result<Graph> {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is there, and no other thread uses it.
        check("cuStreamBeginCapture", unsafe { sys::cuStreamBeginCapture_v2(stream.0, mode) })?;
        let queued = queue();
        let mut graph = std::ptr::null_mut();
        // SAFETY: capture has begun; it is to end whatever has happened.
        let ended = check("cuStreamEndCapture", unsafe { sys::cuStreamEndCapture(stream.0, &mut graph) });
        queued?;
        ended?;
        let mut exec = std::ptr::null_mut();
        // SAFETY: the graph has been captured, and is not needed any more when it is ready.
        let ready = unsafe {
            let ready = sys::cuGraphInstantiateWithFlags(&mut exec, graph, 0);
            sys::cuGraphDestroy(graph);
            ready
        };
        check("cuGraphInstantiate", ready)?;
        Ok(Graph(exec))
    }

    /// Queues all of it.
    pub fn launch(&self, stream: &Stream) -> Result<()> {
        // SAFETY: both are there.
        check("cuGraphLaunch", unsafe { sys::cuGraphLaunch(self.0, stream.0) })
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: made by `capture`.
        unsafe { sys::cuGraphExecDestroy(self.0) };
    }
}
