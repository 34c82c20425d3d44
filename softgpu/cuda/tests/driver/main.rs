//! The driver interface under clients that know nothing of it: cudarc's safe layer, and raw calls where that has none.
//! (Each test has a context of its own: a finding ends a context for good.)
#![allow(clippy::print_stderr)]

mod calls;
mod environment;
#[path = "../../../tests/suite/nvrtc.rs"]
mod nvrtc;

use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use cudarc::driver::sys::{self, CUresult};
use cudarc::driver::{CudaContext, CudaFunction, CudaStream, DriverError, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;

const SOURCE: &str = r#"
extern "C" __global__ void add(const float* a, const float* b, float* c, unsigned n) {
  unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) c[i] = a[i] + b[i];
}
extern "C" __global__ void scale(float* a, float s, unsigned n) {
  unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) a[i] *= s;
}
extern "C" __global__ void stray(float* a, unsigned n) { a[blockIdx.x * blockDim.x + threadIdx.x + n] = 1; }
extern "C" __global__ void meet(unsigned* arrived, float* a, unsigned n) {
  a[blockIdx.x] = blockIdx.x;
  __threadfence();
  atomicAdd(arrived, 1);
  while (*(volatile unsigned*)arrived < gridDim.x) ;
  __threadfence();
  a[gridDim.x + blockIdx.x] = a[(blockIdx.x + 1) % gridDim.x];
}
extern "C" __global__ void dynamic(float* a) { extern __shared__ float s[]; s[threadIdx.x] = 1; a[threadIdx.x] = s[threadIdx.x]; }
__device__ float table[4] = {1, 2, 3, 4};
extern "C" __global__ void from_table(float* a) { a[threadIdx.x] = table[threadIdx.x & 3]; }
"#;

/// The library that was built beside this test.
fn library() -> *mut c_void {
    static LIB: OnceLock<usize> = OnceLock::new();
    *LIB.get_or_init(|| {
        let exe = std::env::current_exe().expect("a test has a path");
        let at = exe.ancestors().nth(2).expect("target/PROFILE/deps/TEST").join("libcuda.so.1");
        let path = CString::new(at.to_str().expect("UTF-8")).expect("no zeros");
        // SAFETY: opening a library of our own.
        let lib = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
        assert!(!lib.is_null(), "{path:?}: {:?}", unsafe { CStr::from_ptr(libc::dlerror()) });
        lib as usize
    }) as *mut c_void
}

fn symbol(name: &CStr) -> *mut c_void {
    // SAFETY: a symbol of our own library.
    unsafe { libc::dlsym(library(), name.as_ptr()) }
}

/// What the driver said last.
fn last_report() -> String {
    // SAFETY: the type of the private symbol.
    unsafe {
        let f = std::mem::transmute::<*mut c_void, extern "C" fn() -> *const c_char>(symbol(c"softgpu_last_report"));
        let p = f();
        if p.is_null() { String::new() } else { CStr::from_ptr(p).to_string_lossy().into_owned() }
    }
}

/// One test at a time: what the driver said last is the same for all.
static SERIAL: Mutex<()> = Mutex::new(());

struct Setup {
    _serial: MutexGuard<'static, ()>,
    ctx: Arc<CudaContext>,
    module: Arc<cudarc::driver::CudaModule>,
}

impl Setup {
    fn function(&self, name: &str) -> CudaFunction {
        self.module.load_function(name).expect("the kernel is there")
    }
}

fn setup() -> Option<Setup> {
    let serial = SERIAL.lock().unwrap_or_else(|e| e.into_inner());
    library();
    let ptx = nvrtc::compile("driver.cu", SOURCE, "compute_80")?;
    let ctx = CudaContext::new_non_primary(0, 0).expect("a context");
    let module = ctx.load_module(Ptx::from_src(ptx)).expect("a module");
    Some(Setup { _serial: serial, ctx, module })
}

fn code<T>(r: Result<T, DriverError>) -> CUresult {
    r.err().map_or(CUresult::CUDA_SUCCESS, |e| e.0)
}

fn scale(f: &CudaFunction, stream: &Arc<CudaStream>, at: u64, s: f32, n: u32) -> Result<(), DriverError> {
    let mut b = stream.launch_builder(f);
    b.arg(&at).arg(&s).arg(&n);
    // SAFETY: the arguments are those of the kernel.
    unsafe { b.launch(LaunchConfig::for_num_elems(n)) }.map(|_| ())
}

#[test]
fn it_is_ours() {
    // SAFETY: the type of the private symbol.
    let version =
        unsafe { std::mem::transmute::<*mut c_void, extern "C" fn() -> *const c_char>(symbol(c"softgpu_version"))() };
    // SAFETY: a string of the library.
    assert_eq!(unsafe { CStr::from_ptr(version) }.to_str(), Ok(env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_program_allocates_compiles_launches_and_reads_back() {
    let Some(s) = setup() else { return };
    assert_eq!(s.ctx.name().as_deref(), Ok("NVIDIA H100 80GB HBM3"));
    assert_eq!(s.ctx.compute_capability(), Ok((9, 0)));
    let stream = s.ctx.default_stream();
    let (a, b): (Vec<f32>, Vec<f32>) =
        ((0..1000).map(|i| i as f32).collect(), (0..1000).map(|i| 2.0 * i as f32).collect());
    let (da, db) = (stream.clone_htod(&a).unwrap(), stream.clone_htod(&b).unwrap());
    let mut dc = stream.alloc_zeros::<f32>(1000).unwrap();
    let f = s.function("add");
    let n = 1000u32;
    let mut launch = stream.launch_builder(&f);
    launch.arg(&da).arg(&db).arg(&mut dc).arg(&n);
    // SAFETY: the arguments are those of the kernel.
    unsafe { launch.launch(LaunchConfig::for_num_elems(n)) }.unwrap();
    let c = stream.clone_dtoh(&dc).unwrap();
    assert!(c.iter().enumerate().all(|(i, x)| *x == 3.0 * i as f32));
    let (free, total) = s.ctx.mem_get_info().unwrap();
    assert!(free < total && total == s.ctx.total_mem().unwrap());
    assert!(f.num_regs().unwrap() > 0 && f.occupancy_max_active_blocks_per_multiprocessor(256, 0, None).unwrap() > 0);
}

#[test]
fn variables_of_a_module_are_found_and_changed() {
    let Some(s) = setup() else { return };
    let stream = s.ctx.default_stream();
    let mut out = stream.alloc_zeros::<f32>(32).unwrap();
    let f = s.function("from_table");
    let mut launch = stream.launch_builder(&f);
    launch.arg(&mut out);
    // SAFETY: the arguments are those of the kernel.
    unsafe { launch.launch(LaunchConfig { grid_dim: (1, 1, 1), block_dim: (32, 1, 1), shared_mem_bytes: 0 }) }.unwrap();
    assert_eq!(stream.clone_dtoh(&out).unwrap()[..5], [1.0, 2.0, 3.0, 4.0, 1.0]);
}

#[test]
fn a_captured_graph_replays() {
    let Some(s) = setup() else { return };
    let stream = s.ctx.new_stream().unwrap();
    let a = stream.clone_htod(&vec![1f32; 512]).unwrap();
    let (at, _guard) = cudarc::driver::DevicePtr::device_ptr(&a, &stream);
    let f = s.function("scale");
    stream.synchronize().unwrap();
    stream.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
    scale(&f, &stream, at, 2.0, 512).unwrap();
    scale(&f, &stream, at, 3.0, 512).unwrap();
    // SAFETY: no flags.
    let flags = unsafe { std::mem::transmute::<u32, sys::CUgraphInstantiate_flags>(1) };
    let graph = stream.end_capture(flags).unwrap().expect("a graph");
    // Capturing runs nothing.
    for _ in 0..3 {
        graph.launch().unwrap();
    }
    let out = stream.clone_dtoh(&a).unwrap();
    assert!(out.iter().all(|x| *x == 216.0), "{:?}", &out[..2]);
}

/// Raw memory and streams, which cudarc's safe layer would order by itself.
struct Raw {
    at: u64,
    streams: [sys::CUstream; 2],
    event: sys::CUevent,
}

fn ok(r: CUresult) {
    assert_eq!(r, CUresult::CUDA_SUCCESS);
}

fn raw(ctx: &CudaContext, bytes: usize) -> Raw {
    ctx.bind_to_thread().unwrap();
    let mut r = Raw { at: 0, streams: [std::ptr::null_mut(); 2], event: std::ptr::null_mut() };
    // SAFETY: as the driver documents these calls.
    unsafe {
        ok(sys::cuMemAlloc_v2(&mut r.at, bytes));
        for s in &mut r.streams {
            ok(sys::cuStreamCreate(s, 1));
        }
        ok(sys::cuEventCreate(&mut r.event, 0));
    }
    r
}

fn raw_scale(f: sys::CUfunction, stream: sys::CUstream, at: u64, n: u32) {
    let (mut at, mut s, mut n) = (at, 2f32, n);
    let mut params =
        [&mut at as *mut _ as *mut c_void, &mut s as *mut _ as *mut c_void, &mut n as *mut _ as *mut c_void];
    // SAFETY: the arguments are those of the kernel.
    unsafe {
        ok(sys::cuLaunchKernel(
            f,
            n.div_ceil(128),
            1,
            1,
            128,
            1,
            1,
            0,
            stream,
            params.as_mut_ptr(),
            std::ptr::null_mut(),
        ));
    }
}

#[test]
fn streams_that_wait_for_each_other_are_in_order_and_others_are_reported() {
    for healthy in [true, false] {
        let Some(s) = setup() else { return };
        let f = s.function("scale");
        let r = raw(&s.ctx, 4096);
        let ones = vec![1f32; 1024];
        // SAFETY: as the driver documents these calls.
        unsafe {
            ok(sys::cuMemcpyHtoD_v2(r.at, ones.as_ptr() as *const c_void, 4096));
            raw_scale(f.cu_function(), r.streams[0], r.at, 1024);
            if healthy {
                ok(sys::cuEventRecord(r.event, r.streams[0]));
                ok(sys::cuStreamWaitEvent(r.streams[1], r.event, 0));
            }
            raw_scale(f.cu_function(), r.streams[1], r.at, 1024);
            let end = sys::cuStreamSynchronize(r.streams[1]);
            if healthy {
                ok(end);
                let mut out = vec![0f32; 1024];
                ok(sys::cuMemcpyDtoH_v2(out.as_mut_ptr() as *mut c_void, r.at, 4096));
                assert!(out.iter().all(|x| *x == 4.0));
            } else {
                assert_eq!(end, CUresult::CUDA_ERROR_LAUNCH_FAILED);
                let report = last_report();
                assert!(report.contains("stream-race") && report.contains("scale on stream"), "{report}");
            }
        }
    }
}

#[test]
fn the_host_must_wait_for_what_it_reads() {
    for healthy in [true, false] {
        let Some(s) = setup() else { return };
        let f = s.function("scale");
        let r = raw(&s.ctx, 4096);
        let mut out = vec![0f32; 1024];
        // SAFETY: as the driver documents these calls.
        unsafe {
            ok(sys::cuMemsetD32_v2(r.at, 0x3f80_0000, 1024));
            ok(sys::cuCtxSynchronize());
            // The stream does not wait for the default stream, nor that for it.
            raw_scale(f.cu_function(), r.streams[0], r.at, 1024);
            if healthy {
                ok(sys::cuStreamSynchronize(r.streams[0]));
            }
            let end = sys::cuMemcpyDtoH_v2(out.as_mut_ptr() as *mut c_void, r.at, 4096);
            if healthy {
                ok(end);
                assert!(out.iter().all(|x| *x == 2.0));
            } else {
                assert_eq!(end, CUresult::CUDA_ERROR_LAUNCH_FAILED);
                assert!(last_report().contains("stream-race"), "{}", last_report());
            }
        }
    }
}

#[test]
fn branches_of_a_graph_without_an_edge_are_reported() {
    for healthy in [true, false] {
        let Some(s) = setup() else { return };
        let f = s.function("scale");
        let r = raw(&s.ctx, 4096);
        let [a, b] = r.streams;
        let mut done = std::ptr::null_mut();
        let mut graph = std::ptr::null_mut();
        let mut exec = std::ptr::null_mut();
        // SAFETY: as the driver documents these calls.
        unsafe {
            ok(sys::cuEventCreate(&mut done, 0));
            ok(sys::cuMemsetD32_v2(r.at, 0x3f80_0000, 1024));
            ok(sys::cuCtxSynchronize());
            ok(sys::cuStreamBeginCapture_v2(a, sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL));
            ok(sys::cuEventRecord(r.event, a));
            ok(sys::cuStreamWaitEvent(b, r.event, 0));
            raw_scale(f.cu_function(), a, r.at, 512);
            let second = if healthy { r.at + 2048 } else { r.at + 1024 };
            raw_scale(f.cu_function(), b, second, 512);
            ok(sys::cuEventRecord(done, b));
            ok(sys::cuStreamWaitEvent(a, done, 0));
            ok(sys::cuStreamEndCapture(a, &mut graph));
            ok(sys::cuGraphInstantiateWithFlags(&mut exec, graph, 0));
            ok(sys::cuGraphLaunch(exec, a));
            let end = sys::cuStreamSynchronize(a);
            let expected = if healthy { CUresult::CUDA_SUCCESS } else { CUresult::CUDA_ERROR_LAUNCH_FAILED };
            assert_eq!(end, expected, "{}", last_report());
        }
    }
}

#[test]
fn an_unjoined_capture_is_refused() {
    let Some(s) = setup() else { return };
    let f = s.function("scale");
    let r = raw(&s.ctx, 4096);
    let [a, b] = r.streams;
    let mut graph = std::ptr::null_mut();
    // SAFETY: as the driver documents these calls.
    unsafe {
        ok(sys::cuStreamBeginCapture_v2(a, sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL));
        ok(sys::cuEventRecord(r.event, a));
        ok(sys::cuStreamWaitEvent(b, r.event, 0));
        raw_scale(f.cu_function(), b, r.at, 512);
        assert_eq!(sys::cuStreamEndCapture(a, &mut graph), CUresult::CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
    }
}

#[test]
fn parameters_of_an_instantiated_graph_are_updated() {
    let Some(s) = setup() else { return };
    let f = s.function("scale");
    let r = raw(&s.ctx, 4096);
    let (mut at, mut factor, mut n) = (r.at, 2f32, 1024u32);
    let mut params =
        [&mut at as *mut _ as *mut c_void, &mut factor as *mut _ as *mut c_void, &mut n as *mut _ as *mut c_void];
    // SAFETY: as the driver documents these calls.
    unsafe {
        let (mut graph, mut node, mut exec) = (std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut());
        ok(sys::cuMemsetD32_v2(r.at, 0x3f80_0000, 1024));
        ok(sys::cuCtxSynchronize());
        let mut p: sys::CUDA_KERNEL_NODE_PARAMS = std::mem::zeroed();
        p.func = f.cu_function();
        (p.gridDimX, p.gridDimY, p.gridDimZ, p.blockDimX, p.blockDimY, p.blockDimZ) = (8, 1, 1, 128, 1, 1);
        p.kernelParams = params.as_mut_ptr();
        ok(sys::cuGraphCreate(&mut graph, 0));
        ok(sys::cuGraphAddKernelNode_v2(&mut node, graph, std::ptr::null(), 0, &p));
        ok(sys::cuGraphInstantiateWithFlags(&mut exec, graph, 0));
        ok(sys::cuGraphLaunch(exec, r.streams[0]));
        factor = 5.0;
        std::hint::black_box(&factor);
        ok(sys::cuGraphExecKernelNodeSetParams_v2(exec, node, &p));
        ok(sys::cuGraphLaunch(exec, r.streams[0]));
        ok(sys::cuStreamSynchronize(r.streams[0]));
        let mut out = vec![0f32; 1024];
        ok(sys::cuMemcpyDtoH_v2(out.as_mut_ptr() as *mut c_void, r.at, 4096));
        assert!(out.iter().all(|x| *x == 10.0), "{:?}", &out[..2]);
    }
    assert_eq!((at, n), (r.at, 1024));
}

#[test]
fn work_in_a_stream_waits_until_it_is_waited_for() {
    let Some(s) = setup() else { return };
    let f = s.function("scale");
    let r = raw(&s.ctx, 4096);
    // SAFETY: as the driver documents these calls; pinned memory is read by its owner.
    unsafe {
        let mut pinned = std::ptr::null_mut();
        ok(sys::cuMemHostAlloc(&mut pinned, 4096, 0));
        let host = pinned as *mut f32;
        std::slice::from_raw_parts_mut(host, 1024).fill(1.0);
        ok(sys::cuMemcpyHtoDAsync_v2(r.at, pinned, 4096, r.streams[0]));
        raw_scale(f.cu_function(), r.streams[0], r.at, 1024);
        ok(sys::cuMemcpyDtoHAsync_v2(pinned, r.at, 4096, r.streams[0]));
        ok(sys::cuEventRecord(r.event, r.streams[0]));
        // Nothing has run yet: who looks now sees what was.
        assert_eq!(*host, 1.0);
        assert_eq!(sys::cuEventQuery(r.event), CUresult::CUDA_ERROR_NOT_READY);
        ok(sys::cuEventSynchronize(r.event));
        assert_eq!(*host, 2.0);
        ok(sys::cuMemFreeHost(pinned));
    }
}

#[test]
fn events_have_times() {
    let Some(s) = setup() else { return };
    let stream = s.ctx.default_stream();
    let start = stream.record_event(Some(sys::CUevent_flags::CU_EVENT_DEFAULT)).unwrap();
    let a = stream.clone_htod(&vec![1f32; 4096]).unwrap();
    let end = stream.record_event(Some(sys::CUevent_flags::CU_EVENT_DEFAULT)).unwrap();
    stream.synchronize().unwrap();
    assert!(start.elapsed_ms(&end).unwrap() >= 0.0 && end.is_complete());
    drop(a);
}

#[test]
fn a_stray_kernel_ends_its_context_and_is_told() {
    let Some(s) = setup() else { return };
    let stream = s.ctx.default_stream();
    let mut a = stream.alloc_zeros::<f32>(256).unwrap();
    let f = s.function("stray");
    let n = 1u32;
    let mut launch = stream.launch_builder(&f);
    launch.arg(&mut a).arg(&n);
    // SAFETY: the fault is what is tested.
    unsafe { launch.launch(LaunchConfig { grid_dim: (2, 1, 1), block_dim: (128, 1, 1), shared_mem_bytes: 0 }) }
        .unwrap();
    assert_eq!(code(stream.synchronize()), CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
    let report = last_report();
    let f: serde_json::Value = serde_json::from_str(&report).unwrap_or_else(|e| panic!("{report}: {e}"));
    assert_eq!((f["kernel"].as_str(), f["kind"].as_str()), (Some("stray"), Some("out-of-bounds")), "{report}");
    assert_eq!((f["block"][0].as_u64(), f["thread"][0].as_u64()), (Some(1), Some(127)), "{report}");
    // And nothing works in it any more.
    assert_eq!(code(stream.alloc_zeros::<f32>(1)), CUresult::CUDA_ERROR_ILLEGAL_ADDRESS);
}

#[test]
fn launches_over_a_limit_are_refused_when_made() {
    let Some(s) = setup() else { return };
    let stream = s.ctx.default_stream();
    let mut a = stream.alloc_zeros::<f32>(32).unwrap();
    let f = s.function("dynamic");
    for (shared, allow, want) in [(1024, None, true), (65_536, None, false), (65_536, Some(65_536), true)] {
        if let Some(n) = allow {
            f.set_attribute(sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, n).unwrap();
        }
        let mut launch = stream.launch_builder(&f);
        launch.arg(&mut a);
        // SAFETY: the arguments are those of the kernel.
        let r = unsafe {
            launch.launch(LaunchConfig { grid_dim: (1, 1, 1), block_dim: (32, 1, 1), shared_mem_bytes: shared })
        };
        assert_eq!(code(r) == CUresult::CUDA_SUCCESS, want, "{shared} {allow:?}");
    }
    stream.synchronize().unwrap();
}

#[test]
fn machine_code_and_bad_ptx_are_refused_with_a_reason() {
    let Some(s) = setup() else { return };
    s.ctx.bind_to_thread().unwrap();
    let mut m = std::ptr::null_mut();
    // SAFETY: images that end with zeros.
    unsafe {
        let r = sys::cuModuleLoadData(&mut m, c"\x7fELF\x01\x01\x01".as_ptr() as *const c_void);
        assert_eq!(r, CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU);
        let bad = c".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k() {\nfrobnicate.u32 %r1;\n}\n";
        assert_eq!(sys::cuModuleLoadData(&mut m, bad.as_ptr() as *const c_void), CUresult::CUDA_ERROR_INVALID_PTX);
    }
}

#[test]
fn addresses_of_functions_are_given_by_name_and_version() {
    library();
    let mut f = std::ptr::null_mut();
    let mut status = sys::CUdriverProcAddressQueryResult::CU_GET_PROC_ADDRESS_SUCCESS;
    for (name, version, symbol_name) in [
        (c"cuMemAlloc", 3020, c"cuMemAlloc_v2"),
        (c"cuCtxCreate", 3020, c"cuCtxCreate_v2"),
        (c"cuLaunchKernel_ptsz", 7000, c"cuLaunchKernel"),
    ] {
        // SAFETY: as the driver documents it.
        unsafe { ok(sys::cuGetProcAddress_v2(name.as_ptr(), &mut f, version, 0, &mut status)) };
        assert_eq!(f, symbol(symbol_name), "{name:?}");
    }
    // SAFETY: as above.
    let r = unsafe { sys::cuGetProcAddress_v2(c"cuNothing".as_ptr(), &mut f, 12000, 0, &mut status) };
    assert_eq!(r, CUresult::CUDA_ERROR_NOT_FOUND);
    assert_eq!(status, sys::CUdriverProcAddressQueryResult::CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND);
}
