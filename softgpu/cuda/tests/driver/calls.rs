//! Calls that cudarc's safe layer does not make, one group a test.

use super::*;
use sys::CUmemorytype as Memory;

#[test]
fn copies_and_fills_of_two_and_three_dimensions() {
    let Some(s) = setup() else { return };
    s.ctx.bind_to_thread().unwrap();
    let host: Vec<u8> = (0..240).collect();
    let mut back = vec![0u8; 240];
    let (mut at, mut pitch) = (0, 0);
    // SAFETY: as the driver documents these calls.
    unsafe {
        ok(sys::cuMemAllocPitch_v2(&mut at, &mut pitch, 24, 10, 4));
        assert!(pitch >= 24);
        // 8 of the rows' 24 bytes, from column 4 and row 2 on, to column 16.
        ok(sys::cuMemsetD2D8_v2(at, pitch, 7, 24, 10));
        let c = sys::CUDA_MEMCPY2D {
            srcXInBytes: 4,
            srcY: 2,
            srcMemoryType: Memory::CU_MEMORYTYPE_HOST,
            srcHost: host.as_ptr() as *const c_void,
            srcDevice: 0,
            srcArray: std::ptr::null_mut(),
            srcPitch: 24,
            dstXInBytes: 16,
            dstY: 0,
            dstMemoryType: Memory::CU_MEMORYTYPE_DEVICE,
            dstHost: std::ptr::null_mut(),
            dstDevice: at,
            dstArray: std::ptr::null_mut(),
            dstPitch: pitch,
            WidthInBytes: 8,
            Height: 5,
        };
        ok(sys::cuMemcpy2D_v2(&c));
        let all = sys::CUDA_MEMCPY2D {
            srcXInBytes: 0,
            srcY: 0,
            srcMemoryType: Memory::CU_MEMORYTYPE_DEVICE,
            srcDevice: at,
            srcPitch: pitch,
            dstXInBytes: 0,
            dstMemoryType: Memory::CU_MEMORYTYPE_HOST,
            dstHost: back.as_mut_ptr() as *mut c_void,
            dstPitch: 24,
            WidthInBytes: 24,
            Height: 10,
            ..c
        };
        ok(sys::cuMemcpy2D_v2(&all));
        for (i, x) in back.iter().enumerate() {
            let (row, col) = (i / 24, i % 24);
            let copied = row < 5 && (16..24).contains(&col);
            assert_eq!(*x, if copied { host[(row + 2) * 24 + col - 12] } else { 7 }, "row {row}, column {col}");
        }
        // Two planes of 3 rows of 8 bytes, out of planes of 5 rows of 24.
        let c = sys::CUDA_MEMCPY3D {
            srcXInBytes: 0,
            srcY: 0,
            srcZ: 0,
            srcLOD: 0,
            srcMemoryType: Memory::CU_MEMORYTYPE_HOST,
            srcHost: host.as_ptr() as *const c_void,
            srcDevice: 0,
            srcArray: std::ptr::null_mut(),
            reserved0: std::ptr::null_mut(),
            srcPitch: 24,
            srcHeight: 5,
            dstXInBytes: 0,
            dstY: 0,
            dstZ: 0,
            dstLOD: 0,
            dstMemoryType: Memory::CU_MEMORYTYPE_DEVICE,
            dstHost: std::ptr::null_mut(),
            dstDevice: at,
            dstArray: std::ptr::null_mut(),
            reserved1: std::ptr::null_mut(),
            dstPitch: 8,
            dstHeight: 3,
            WidthInBytes: 8,
            Height: 3,
            Depth: 2,
        };
        ok(sys::cuMemcpy3D_v2(&c));
        ok(sys::cuMemcpyDtoH_v2(back.as_mut_ptr() as *mut c_void, at, 48));
        for (i, x) in back[..48].iter().enumerate() {
            assert_eq!(*x, host[(i / 24 * 5 + i % 24 / 8) * 24 + i % 8], "byte {i}");
        }
        // Patterns of two bytes, within the device, and what does not fit.
        ok(sys::cuMemsetD16_v2(at, 0x0201, 8));
        ok(sys::cuMemcpyDtoD_v2(at + 16, at, 16));
        ok(sys::cuMemcpyDtoH_v2(back.as_mut_ptr() as *mut c_void, at + 16, 16));
        assert!(back[..16].iter().enumerate().all(|(i, x)| *x as usize == i % 2 + 1));
        assert_eq!(sys::cuMemsetD32_v2(at + 4 * pitch as u64, 0, 1 << 20), CUresult::CUDA_ERROR_INVALID_VALUE);
        assert_eq!(sys::cuMemcpyDtoD_v2(at, at + 16, 1 << 20), CUresult::CUDA_ERROR_INVALID_VALUE);
        ok(sys::cuMemFree_v2(at));
        assert_eq!(sys::cuMemFree_v2(at), CUresult::CUDA_ERROR_INVALID_VALUE);
    }
}

#[test]
fn memory_is_freed_in_the_order_of_streams() {
    for healthy in [true, false] {
        let Some(s) = setup() else { return };
        let f = s.function("scale");
        let r = raw(&s.ctx, 16);
        let [a, b] = r.streams;
        let mut at = 0;
        // SAFETY: as the driver documents these calls.
        unsafe {
            ok(sys::cuMemAllocAsync(&mut at, 4096, a));
            ok(sys::cuMemsetD32Async(at, 0, 1024, a));
            raw_scale(f.cu_function(), a, at, 1024);
            if healthy {
                ok(sys::cuEventRecord(r.event, a));
                ok(sys::cuStreamWaitEvent(b, r.event, 0));
            }
            ok(sys::cuMemFreeAsync(at, b));
            let end = sys::cuStreamSynchronize(b);
            let expected = if healthy { CUresult::CUDA_SUCCESS } else { CUresult::CUDA_ERROR_LAUNCH_FAILED };
            assert_eq!(end, expected, "{}", last_report());
        }
    }
}

#[test]
fn launches_of_the_extended_call_and_cooperative_ones() {
    let Some(s) = setup() else { return };
    let f = s.function("meet").cu_function();
    let r = raw(&s.ctx, 4096);
    let (mut arrived, mut at, mut n) = (r.at, r.at + 64, 0u32);
    let mut params =
        [&mut arrived as *mut _ as *mut c_void, &mut at as *mut _ as *mut c_void, &mut n as *mut _ as *mut c_void];
    let mut out = [0f32; 16];
    // SAFETY: as the driver documents these calls; the arguments are those of the kernel.
    unsafe {
        let mut c: sys::CUlaunchConfig = std::mem::zeroed();
        (c.gridDimX, c.gridDimY, c.gridDimZ, c.blockDimX, c.blockDimY, c.blockDimZ) = (8, 1, 1, 1, 1, 1);
        c.hStream = r.streams[0];
        ok(sys::cuMemsetD32Async(r.at, 0, 1, r.streams[0]));
        ok(sys::cuLaunchKernelEx(&c, f, params.as_mut_ptr(), std::ptr::null_mut()));
        ok(sys::cuStreamSynchronize(r.streams[0]));
        ok(sys::cuMemcpyDtoH_v2(out.as_mut_ptr() as *mut c_void, at, 64));
        assert!((0..8).all(|i| out[8 + i] == ((i + 1) % 8) as f32), "{out:?}");
        // All blocks of a cooperative launch must be there at once.
        let p = params.as_mut_ptr();
        ok(sys::cuMemsetD32Async(r.at, 0, 1, r.streams[0]));
        ok(sys::cuLaunchCooperativeKernel(f, 8, 1, 1, 1, 1, 1, 0, r.streams[0], p));
        ok(sys::cuStreamSynchronize(r.streams[0]));
        let large = sys::cuLaunchCooperativeKernel(f, 1 << 20, 1, 1, 1, 1, 1, 0, r.streams[0], p);
        assert_eq!(large, CUresult::CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE);
    }
    assert_eq!((arrived, at, n), (r.at, r.at + 64, 0));
}

/// By hand, for an H100: 2048 threads, 32 blocks and 228 KiB of shared memory a multiprocessor, of which each block
/// takes 1 KiB more.
#[test]
fn occupancy_is_what_the_limits_give() {
    let Some(s) = setup() else { return };
    let f = s.function("dynamic");
    let blocks = |threads, shared| f.occupancy_max_active_blocks_per_multiprocessor(threads, shared, None).unwrap();
    assert_eq!([blocks(1024, 0), blocks(256, 0), blocks(64, 0), blocks(32, 0)], [2, 8, 32, 32]);
    assert_eq!([blocks(256, 64 << 10), blocks(256, 100 << 10), blocks(256, 227 << 10)], [3, 2, 1]);
    extern "C" fn none(_: i32) -> usize {
        0
    }
    let (grid, block) = f.occupancy_max_potential_block_size(none, 0, 0, None).unwrap();
    assert_eq!((block, grid), (1024, 264));
}

#[test]
fn errors_have_names() {
    library();
    let name = |code: CUresult| {
        let mut text = std::ptr::null();
        // SAFETY: as the driver documents it.
        unsafe {
            ok(sys::cuGetErrorName(code, &mut text));
            CStr::from_ptr(text).to_string_lossy().into_owned()
        }
    };
    for code in [CUresult::CUDA_SUCCESS, CUresult::CUDA_ERROR_ILLEGAL_ADDRESS, CUresult::CUDA_ERROR_INVALID_PTX] {
        assert_eq!(name(code), format!("{code:?}"));
        let mut text = std::ptr::null();
        // SAFETY: as above.
        ok(unsafe { sys::cuGetErrorString(code, &mut text) });
        assert!(!text.is_null());
    }
}

#[test]
fn functions_of_the_host_run_in_their_place() {
    unsafe extern "C" fn note(data: *mut c_void) {
        // SAFETY: the test gave two numbers: the pinned one and where to note it.
        unsafe {
            let d = data as *mut [*mut f32; 2];
            *(*d)[1] = *(*d)[0];
        }
    }
    let Some(s) = setup() else { return };
    let f = s.function("scale");
    let r = raw(&s.ctx, 4096);
    let (mut noted, mut pinned) = (0f32, std::ptr::null_mut());
    // SAFETY: as the driver documents these calls.
    unsafe {
        ok(sys::cuMemHostAlloc(&mut pinned, 4096, 0));
        let mut data = [pinned as *mut f32, &mut noted];
        ok(sys::cuMemsetD32Async(r.at, 0x3f80_0000, 1024, r.streams[0]));
        raw_scale(f.cu_function(), r.streams[0], r.at, 1024);
        ok(sys::cuMemcpyDtoHAsync_v2(pinned, r.at, 4096, r.streams[0]));
        ok(sys::cuLaunchHostFunc(r.streams[0], Some(note), data.as_mut_ptr() as *mut c_void));
        raw_scale(f.cu_function(), r.streams[0], r.at, 1024);
        ok(sys::cuMemcpyDtoHAsync_v2(pinned, r.at, 4096, r.streams[0]));
        ok(sys::cuStreamSynchronize(r.streams[0]));
        assert_eq!((noted, *(pinned as *const f32)), (2.0, 4.0));
        ok(sys::cuMemFreeHost(pinned));
    }
}

/// A graph of copies, a fill and a launch, replaced by another of the same shape, and not by one of another.
#[test]
fn captured_copies_replay_and_whole_graphs_are_updated() {
    let Some(s) = setup() else { return };
    let f = s.function("scale").cu_function();
    let r = raw(&s.ctx, 8192);
    let stream = r.streams[0];
    let capture = |value: u32, launches: u32, to: *mut c_void| {
        let mut graph = std::ptr::null_mut();
        // SAFETY: as the driver documents these calls.
        unsafe {
            ok(sys::cuStreamBeginCapture_v2(stream, sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL));
            ok(sys::cuMemsetD32Async(r.at, value, 1024, stream));
            (0..launches).for_each(|_| raw_scale(f, stream, r.at, 1024));
            ok(sys::cuMemcpyDtoDAsync_v2(r.at + 4096, r.at, 4096, stream));
            ok(sys::cuMemcpyDtoHAsync_v2(to, r.at + 4096, 4096, stream));
            ok(sys::cuStreamEndCapture(stream, &mut graph));
        }
        graph
    };
    // SAFETY: as the driver documents these calls.
    unsafe {
        let (mut pinned, mut exec) = (std::ptr::null_mut(), std::ptr::null_mut());
        ok(sys::cuMemHostAlloc(&mut pinned, 4096, 0));
        let host = pinned as *mut f32;
        *host = 9.0;
        ok(sys::cuGraphInstantiateWithFlags(&mut exec, capture(1f32.to_bits(), 1, pinned), 0));
        let run = || {
            ok(sys::cuGraphLaunch(exec, stream));
            ok(sys::cuStreamSynchronize(stream));
            *host
        };
        assert_eq!((*host, run(), run()), (9.0, 2.0, 2.0));
        let mut info = std::mem::zeroed();
        ok(sys::cuGraphExecUpdate_v2(exec, capture(3f32.to_bits(), 1, pinned), &mut info));
        assert_eq!(run(), 6.0);
        let other = sys::cuGraphExecUpdate_v2(exec, capture(3f32.to_bits(), 2, pinned), &mut info);
        assert_eq!(other, CUresult::CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE);
        assert_eq!(run(), 6.0);
        ok(sys::cuMemFreeHost(pinned));
    }
}

#[test]
fn the_primary_context_is_shared_and_counted() {
    library();
    let _serial = SERIAL.lock().unwrap_or_else(|e| e.into_inner());
    let (mut a, mut b, mut flags, mut active) = (std::ptr::null_mut(), std::ptr::null_mut(), 0, 0);
    // SAFETY: as the driver documents these calls.
    unsafe {
        ok(sys::cuInit(0));
        ok(sys::cuDevicePrimaryCtxRetain(&mut a, 0));
        ok(sys::cuDevicePrimaryCtxRetain(&mut b, 0));
        assert_eq!(a, b);
        ok(sys::cuDevicePrimaryCtxRelease_v2(0));
        ok(sys::cuDevicePrimaryCtxGetState(0, &mut flags, &mut active));
        assert_eq!(active, 1);
        ok(sys::cuDevicePrimaryCtxRelease_v2(0));
        ok(sys::cuDevicePrimaryCtxGetState(0, &mut flags, &mut active));
        assert_eq!(active, 0);
        assert_eq!(sys::cuDevicePrimaryCtxRelease_v2(0), CUresult::CUDA_ERROR_INVALID_CONTEXT);
    }
}

/// A program of cudarc alone, its compiler included: two streams with copies, launches and events, captured and replayed.
#[test]
fn a_program_of_two_streams_compiles_captures_and_replays() {
    let Some(s) = setup() else { return };
    let options = cudarc::nvrtc::CompileOptions { arch: Some("compute_80"), ..Default::default() };
    let ptx = cudarc::nvrtc::compile_ptx_with_opts(SOURCE, options).expect("NVRTC was loaded by its own name");
    let module = s.ctx.load_module(ptx).unwrap();
    let (add, scale) = (module.load_function("add").unwrap(), module.load_function("scale").unwrap());
    let (a, b) = (s.ctx.new_stream().unwrap(), s.ctx.new_stream().unwrap());
    let n = 4096u32;
    let numbers: Vec<f32> = (0..n).map(|i| i as f32).collect();
    let x = a.clone_htod(&numbers).unwrap();
    let y = b.clone_htod(&numbers).unwrap();
    let mut sum = a.alloc_zeros::<f32>(n as usize).unwrap();
    a.join(&b).unwrap();
    let start = a.record_event(Some(sys::CUevent_flags::CU_EVENT_DEFAULT)).unwrap();
    let mut launch = a.launch_builder(&add);
    launch.arg(&x).arg(&y).arg(&mut sum).arg(&n);
    // SAFETY: the arguments are those of the kernel.
    unsafe { launch.launch(LaunchConfig::for_num_elems(n)) }.unwrap();
    let end = a.record_event(Some(sys::CUevent_flags::CU_EVENT_DEFAULT)).unwrap();
    b.wait(&end).unwrap();
    let mut copy = b.alloc_zeros::<f32>(n as usize).unwrap();
    b.memcpy_dtod(&sum, &mut copy).unwrap();
    assert!(b.clone_dtoh(&copy).unwrap().iter().enumerate().all(|(i, v)| *v == 2.0 * i as f32));
    assert!(start.elapsed_ms(&end).unwrap() >= 0.0);
    a.join(&b).unwrap();
    a.synchronize().unwrap();
    let at = cudarc::driver::DevicePtr::device_ptr(&sum, &a).0;
    a.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
    super::scale(&scale, &a, at, 0.5, n).unwrap();
    // SAFETY: a flag of the driver.
    let flags = unsafe { std::mem::transmute::<u32, sys::CUgraphInstantiate_flags>(1) };
    let graph = a.end_capture(flags).unwrap().expect("a graph");
    (0..3).for_each(|_| graph.launch().unwrap());
    assert!(a.clone_dtoh(&sum).unwrap().iter().enumerate().all(|(i, v)| *v == 0.25 * i as f32));
}

#[test]
fn pinned_memory_is_not_written_before_the_copy_from_it_ran() {
    for healthy in [true, false] {
        let Some(s) = setup() else { return };
        let r = raw(&s.ctx, 4096);
        let stream = r.streams[0];
        // SAFETY: as the driver documents these calls.
        unsafe {
            let mut pinned = std::ptr::null_mut();
            ok(sys::cuMemHostAlloc(&mut pinned, 4096, 0));
            let host = std::slice::from_raw_parts_mut(pinned as *mut u32, 1024);
            host.fill(1);
            ok(sys::cuMemcpyHtoDAsync_v2(r.at, pinned, 4096, stream));
            // What comes back in the same stream changes it too, in order.
            ok(sys::cuMemsetD32Async(r.at, 5, 1024, stream));
            ok(sys::cuMemcpyDtoHAsync_v2(pinned, r.at, 4096, stream));
            ok(sys::cuMemcpyHtoDAsync_v2(r.at, pinned, 4096, stream));
            if healthy {
                ok(sys::cuStreamSynchronize(stream));
            }
            host[700] = 2;
            ok(sys::cuMemcpyHtoDAsync_v2(r.at, pinned, 4096, stream));
            let end = sys::cuStreamSynchronize(stream);
            let expected = if healthy { CUresult::CUDA_SUCCESS } else { CUresult::CUDA_ERROR_LAUNCH_FAILED };
            assert_eq!(end, expected, "{}", last_report());
            if !healthy {
                assert!(last_report().contains("the host wrote to pinned memory"), "{}", last_report());
            }
        }
    }
}

#[test]
fn parameters_of_a_node_are_read_changed_and_written_back() {
    let Some(s) = setup() else { return };
    let r = raw(&s.ctx, 4096);
    let stream = r.streams[0];
    let (mut graph, mut exec, mut node, mut count) =
        (std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut(), 1);
    // SAFETY: as the driver documents these calls.
    unsafe {
        ok(sys::cuMemsetD32_v2(r.at, 1f32.to_bits(), 1024));
        ok(sys::cuCtxSynchronize());
        ok(sys::cuStreamBeginCapture_v2(stream, sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_GLOBAL));
        raw_scale(s.function("scale").cu_function(), stream, r.at, 1024);
        ok(sys::cuStreamEndCapture(stream, &mut graph));
        ok(sys::cuGraphGetNodes(graph, &mut node, &mut count));
        assert_eq!(count, 1);
        let mut p: sys::CUDA_KERNEL_NODE_PARAMS = std::mem::zeroed();
        ok(sys::cuGraphKernelNodeGetParams_v2(node, &mut p));
        assert_eq!((p.gridDimX, p.blockDimX), (8, 128));
        let given = std::slice::from_raw_parts(p.kernelParams, 3);
        assert_eq!(
            (*(given[0] as *const u64), *(given[1] as *const f32), *(given[2] as *const u32)),
            (r.at, 2.0, 1024)
        );
        let mut factor = 7f32;
        let mut changed = [given[0], &mut factor as *mut f32 as *mut c_void, given[2]];
        p.kernelParams = changed.as_mut_ptr();
        ok(sys::cuGraphKernelNodeSetParams_v2(node, &p));
        ok(sys::cuGraphInstantiateWithFlags(&mut exec, graph, 0));
        ok(sys::cuGraphLaunch(exec, stream));
        ok(sys::cuStreamSynchronize(stream));
        let mut out = vec![0f32; 1024];
        ok(sys::cuMemcpyDtoH_v2(out.as_mut_ptr() as *mut c_void, r.at, 4096));
        assert!(out.iter().all(|x| *x == 7.0), "{:?}", &out[..2]);
    }
}

#[test]
fn the_reason_of_a_refusal_is_written_where_the_caller_wants_it() {
    let Some(s) = setup() else { return };
    s.ctx.bind_to_thread().unwrap();
    let (mut m, mut text) = (std::ptr::null_mut(), [0u8; 200]);
    let mut options =
        [sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER, sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
    let mut values = [text.as_mut_ptr() as *mut c_void, text.len() as *mut c_void];
    let bad = c".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k() {\nadd.u33 %r1;\n}\n";
    // SAFETY: as the driver documents it.
    let r = unsafe {
        let (o, v) = (options.as_mut_ptr(), values.as_mut_ptr());
        sys::cuModuleLoadDataEx(&mut m, bad.as_ptr() as *const c_void, 2, o, v)
    };
    assert_eq!(r, CUresult::CUDA_ERROR_INVALID_PTX);
    let said = CStr::from_bytes_until_nul(&text).unwrap().to_str().unwrap();
    assert!(said.contains("PTX line 5, in k") && said.contains("u33") && values[1] as usize == said.len(), "{said}");
}

#[test]
fn pinned_memory_of_a_queued_launch_is_not_written_where_it_reads() {
    for healthy in [true, false] {
        let Some(s) = setup() else { return };
        let f = s.function("scale").cu_function();
        let r = raw(&s.ctx, 16);
        // SAFETY: as the driver documents these calls.
        unsafe {
            let mut pinned = std::ptr::null_mut();
            ok(sys::cuMemHostAlloc(&mut pinned, 8192, 0));
            let host = std::slice::from_raw_parts_mut(pinned as *mut f32, 2048);
            host.fill(1.0);
            raw_scale(f, r.streams[0], pinned as u64, 1024);
            // The second half is another's; the first is to be read.
            host[if healthy { 1024 } else { 1023 }] = 5.0;
            let end = sys::cuStreamSynchronize(r.streams[0]);
            let expected = if healthy { CUresult::CUDA_SUCCESS } else { CUresult::CUDA_ERROR_LAUNCH_FAILED };
            assert_eq!(end, expected, "{}", last_report());
            if healthy {
                assert_eq!((host[0], host[1024]), (2.0, 5.0));
            }
        }
    }
}
