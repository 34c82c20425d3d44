//! The interface of the CUDA driver: what `libcuda.so.1` exports. Names, types and results are those of the driver's
//! documentation; handles are numbers that stand for objects of `state`.
//!
//! Calls that only queue work return at once; the work runs when the host waits for it (see [`queue`]).
#![allow(non_snake_case, clippy::missing_safety_doc)]

mod context;
mod copy;
mod device;
mod graph;
mod graph_calls;
mod launch;
mod memory;
mod module;
mod pinned;
pub mod queue;
mod state;
pub mod status;
mod stream;

use std::ffi::{CStr, c_char, c_int, c_void};

use state::{lock, with};
use status::*;

/// A function that is exported, for `cuGetProcAddress`.
pub(crate) type Export = (&'static str, usize);

/// Runs the body of a call: a panic must not pass into the caller's code.
fn guard(f: impl FnOnce() -> Result<(), Code>) -> Code {
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)) {
        Ok(Ok(())) => SUCCESS,
        Ok(Err(code)) => code,
        Err(_) => ERROR_UNKNOWN,
    }
}

/// Writes a result for the caller; a null pointer is an error of its.
///
/// # Safety
/// `to` must be null or valid for a write.
unsafe fn put<T>(to: *mut T, value: T) -> Result<(), Code> {
    if to.is_null() {
        return Err(ERROR_INVALID_VALUE);
    }
    unsafe { to.write(value) };
    Ok(())
}

/// Writes a result where the caller wants it.
///
/// # Safety
/// As [`put`].
unsafe fn offer<T>(to: *mut T, value: T) {
    if !to.is_null() {
        unsafe { to.write(value) };
    }
}

/// Declares exported functions and lists them.
macro_rules! exports {
    ($list:ident; $(fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $body:block)+) => {
        $(
            #[doc = concat!("The driver's `", stringify!($name), "`.")]
            #[unsafe(no_mangle)]
            #[allow(unused_variables)]
            pub unsafe extern "C" fn $name($($arg: $ty),*) -> $crate::driver::status::Code {
                $crate::driver::guard(|| $body)
            }
        )+
        /// The functions of this file.
        pub(super) fn $list() -> Vec<$crate::driver::Export> {
            vec![$((stringify!($name), $name as *const () as usize)),+]
        }
    };
}
pub(crate) use exports;

exports! { exported;
    fn cuInit(flags: u32) {
        if flags != 0 {
            return Err(ERROR_INVALID_VALUE);
        }
        state::init()
    }

    fn cuDriverGetVersion(version: *mut c_int) {
        unsafe { put(version, VERSION) }
    }

    fn cuGetErrorName(error: Code, text: *mut *const c_char) {
        let found = status::NAMES.iter().find(|n| n.0 == error);
        unsafe { put(text, found.map_or(std::ptr::null(), |n| n.1.as_ptr()))? };
        found.map(|_| ()).ok_or(ERROR_INVALID_VALUE)
    }

    fn cuGetErrorString(error: Code, text: *mut *const c_char) {
        let found = status::NAMES.iter().find(|n| n.0 == error);
        unsafe { put(text, found.map_or(std::ptr::null(), |n| n.2.as_ptr()))? };
        found.map(|_| ()).ok_or(ERROR_INVALID_VALUE)
    }

    fn cuGetProcAddress(symbol: *const c_char, function: *mut *mut c_void, version: c_int, flags: u64) {
        unsafe { proc_address(symbol, function, version).map(|_| ()) }
    }

    fn cuGetProcAddress_v2(symbol: *const c_char, function: *mut *mut c_void, version: c_int, flags: u64, found: *mut c_int) {
        let r = unsafe { proc_address(symbol, function, version) };
        // 0 found, 1 not found.
        unsafe { offer(found, if r.is_ok() { 0 } else { 1 }) };
        r.map(|_| ())
    }

    fn cuProfilerStart() { Ok(()) }
    fn cuProfilerStop() { Ok(()) }
    fn cuGetExportTable(table: *mut *const c_void, id: *const c_void) { Err(ERROR_NOT_SUPPORTED) }
}

/// The version of the interface, as `cuDriverGetVersion` gives it.
pub const VERSION: c_int = 13000;

/// A symbol that no other driver has: the version of the soft GPU.
#[unsafe(no_mangle)]
pub extern "C" fn softgpu_version() -> *const c_char {
    const TEXT: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(s) => s,
        Err(_) => c"",
    };
    TEXT.as_ptr()
}

/// What was found last, as JSON (a refusal is plain text); null where nothing was. The text lives until the next
/// finding.
#[unsafe(no_mangle)]
pub extern "C" fn softgpu_last_report() -> *const c_char {
    lock().as_ref().and_then(|s| s.last_report.as_ref()).map_or(std::ptr::null(), |r| r.as_ptr())
}

/// Functions whose form changed: the name, the version from which on the next name is meant.
const VERSIONED: &[(&str, c_int, &str)] = &[
    ("cuCtxCreate", 12050, "cuCtxCreate_v4"),
    ("cuCtxCreate", 11040, "cuCtxCreate_v3"),
    ("cuCtxCreate", 0, "cuCtxCreate_v2"),
    ("cuGetProcAddress", 12000, "cuGetProcAddress_v2"),
    ("cuGetProcAddress", 0, "cuGetProcAddress"),
    ("cuGraphExecUpdate", 12000, "cuGraphExecUpdate_v2"),
    ("cuGraphExecUpdate", 0, "cuGraphExecUpdate"),
    ("cuGraphInstantiate", 12000, "cuGraphInstantiateWithFlags"),
    ("cuGraphInstantiate", 0, "cuGraphInstantiate_v2"),
    ("cuGraphAddKernelNode", 12000, "cuGraphAddKernelNode_v2"),
    ("cuGraphAddKernelNode", 0, "cuGraphAddKernelNode"),
    ("cuGraphKernelNodeGetParams", 12000, "cuGraphKernelNodeGetParams_v2"),
    ("cuGraphKernelNodeSetParams", 12000, "cuGraphKernelNodeSetParams_v2"),
    ("cuGraphExecKernelNodeSetParams", 12000, "cuGraphExecKernelNodeSetParams_v2"),
    ("cuGraphExecKernelNodeSetParams", 0, "cuGraphExecKernelNodeSetParams"),
    ("cuStreamGetCaptureInfo", 12030, "cuStreamGetCaptureInfo_v3"),
    ("cuStreamGetCaptureInfo", 0, "cuStreamGetCaptureInfo_v2"),
    ("cuDeviceGetUuid", 11040, "cuDeviceGetUuid_v2"),
    ("cuMemPrefetchAsync", 12020, "cuMemPrefetchAsync_v2"),
    ("cuMemAdvise", 12020, "cuMemAdvise_v2"),
];

unsafe fn proc_address(symbol: *const c_char, function: *mut *mut c_void, version: c_int) -> Result<(), Code> {
    if symbol.is_null() {
        return Err(ERROR_INVALID_VALUE);
    }
    let name = unsafe { CStr::from_ptr(symbol) }.to_str().map_err(|_| ERROR_INVALID_VALUE)?;
    let name = name.strip_suffix("_ptsz").or(name.strip_suffix("_ptds")).unwrap_or(name);
    let all = [
        exported(),
        context::exported(),
        copy::exported(),
        device::exported(),
        graph_calls::exported(),
        launch::exported(),
        memory::exported(),
        module::exported(),
        stream::exported(),
    ]
    .concat();
    let get = |n: &str| all.iter().find(|(m, _)| *m == n).map(|(_, f)| *f);
    let by_version = VERSIONED.iter().find(|(n, v, _)| *n == name && *v <= version).and_then(|(_, _, n)| get(n));
    let found = by_version.or_else(|| get(&format!("{name}_v2"))).or_else(|| get(name));
    unsafe { put(function, found.unwrap_or(0) as *mut c_void)? };
    found.map(|_| ()).ok_or(ERROR_NOT_FOUND)
}

/// The device of a number.
fn device_number(d: c_int) -> Result<usize, Code> {
    with(|s| if (0..s.devices.len() as c_int).contains(&d) { Ok(d as usize) } else { Err(ERROR_INVALID_DEVICE) })
}
