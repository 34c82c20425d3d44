//! NVRTC, opened by hand: found in the data folder, or fetched there by the script of this package.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};

type Create =
    unsafe extern "C" fn(*mut *mut c_void, *const c_char, *const c_char, c_int, *const c_void, *const c_void) -> c_int;
type Compile = unsafe extern "C" fn(*mut c_void, c_int, *const *const c_char) -> c_int;
type Size = unsafe extern "C" fn(*mut c_void, *mut usize) -> c_int;
type Get = unsafe extern "C" fn(*mut c_void, *mut c_char) -> c_int;

struct Nvrtc {
    create: Create,
    compile: Compile,
    ptx_size: Size,
    ptx: Get,
    log_size: Size,
    log: Get,
}

/// Where NVRTC lies; fetched there if need be.
pub fn folder() -> Option<PathBuf> {
    if let Some(f) = std::env::var_os("SOFTGPU_NVRTC") {
        return Some(f.into());
    }
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = here.ancestors().map(|a| a.join("scripts/fetch-nvrtc.sh")).find(|s| s.exists())?;
    let out = std::process::Command::new("sh").arg(script).output().ok()?;
    if !out.status.success() {
        eprintln!("NVRTC could not be fetched: {}", String::from_utf8_lossy(&out.stderr));
        return None;
    }
    Some(String::from_utf8_lossy(&out.stdout).trim().into())
}

fn nvrtc() -> Option<&'static Mutex<Nvrtc>> {
    static LIB: OnceLock<Option<Mutex<Nvrtc>>> = OnceLock::new();
    LIB.get_or_init(|| {
        let path = CString::new(folder()?.join("libnvrtc.so.12").to_str()?).ok()?;
        // SAFETY: the functions have these types in NVRTC's own header.
        unsafe {
            let lib = libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL);
            if lib.is_null() {
                eprintln!("NVRTC cannot be opened: {}", CStr::from_ptr(libc::dlerror()).to_string_lossy());
                return None;
            }
            let sym = |name: &CStr| libc::dlsym(lib, name.as_ptr());
            Some(Mutex::new(Nvrtc {
                create: std::mem::transmute::<*mut c_void, Create>(sym(c"nvrtcCreateProgram")),
                compile: std::mem::transmute::<*mut c_void, Compile>(sym(c"nvrtcCompileProgram")),
                ptx_size: std::mem::transmute::<*mut c_void, Size>(sym(c"nvrtcGetPTXSize")),
                ptx: std::mem::transmute::<*mut c_void, Get>(sym(c"nvrtcGetPTX")),
                log_size: std::mem::transmute::<*mut c_void, Size>(sym(c"nvrtcGetProgramLogSize")),
                log: std::mem::transmute::<*mut c_void, Get>(sym(c"nvrtcGetProgramLog")),
            }))
        }
    })
    .as_ref()
}

/// Says that this test, whose thread has its name, tests nothing here. Not by a macro: what these print in a test that
/// passes is shown to nobody.
pub fn skipped(why: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_string();
    let _ = writeln!(std::io::stdout(), "SKIPPED {test}: {why}");
}

/// PTX of CUDA text; `None`, said on standard output, where there is no NVRTC.
pub fn compile(name: &str, source: &str, arch: &str) -> Option<String> {
    let Some(lib) = nvrtc() else {
        skipped("there is no NVRTC (softgpu/scripts/fetch-nvrtc.sh fetches it)");
        return None;
    };
    let lib = lib.lock().expect("no test panics while it compiles");
    let options = [format!("-arch={arch}"), "-lineinfo".into(), "-default-device".into()]
        .map(|o| CString::new(o).expect("no zeros"));
    let options = options.each_ref().map(|o| o.as_ptr());
    let (source, name) = (CString::new(source).expect("no zeros"), CString::new(name).expect("no zeros"));
    // SAFETY: used as NVRTC documents it.
    unsafe {
        let mut program = std::ptr::null_mut();
        assert_eq!(
            (lib.create)(&mut program, source.as_ptr(), name.as_ptr(), 0, std::ptr::null(), std::ptr::null()),
            0
        );
        let rc = (lib.compile)(program, options.len() as c_int, options.as_ptr());
        let text = |size: Size, get: Get| {
            let mut n = 0;
            size(program, &mut n);
            let mut buffer = vec![0u8; n.max(1)];
            get(program, buffer.as_mut_ptr() as *mut c_char);
            String::from_utf8_lossy(&buffer[..n.saturating_sub(1)]).into_owned()
        };
        assert_eq!(rc, 0, "{}", text(lib.log_size, lib.log));
        Some(text(lib.ptx_size, lib.ptx))
    }
}
