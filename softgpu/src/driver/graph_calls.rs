//! The calls that make, change and launch graphs.

use std::ffi::{c_char, c_int, c_void};

use super::copy::{Copy3d, planes};
use super::graph::{Graph, node_handle};
use super::launch::kernel_op;
use super::queue::Op;
use super::state::{State, with};
use super::status::*;
use super::{exports, offer, put};

/// The description of a kernel's node; older forms are a beginning of it.
#[repr(C)]
pub struct KernelNode {
    function: *mut c_void,
    grid: [u32; 3],
    block: [u32; 3],
    shared: u32,
    params: *const *const c_void,
    extra: *const *const c_void,
}

/// The end that newer forms have.
#[repr(C)]
pub struct KernelNodeV2 {
    base: KernelNode,
    kernel: *mut c_void,
    context: *mut c_void,
}

/// The description of a fill's node.
#[repr(C)]
pub struct FillNode {
    at: u64,
    pitch: usize,
    value: u32,
    size: u32,
    width: usize,
    height: usize,
}

/// The description of a host function's node.
#[repr(C)]
pub struct HostNode {
    function: *mut c_void,
    data: *mut c_void,
}

/// What an update tells.
#[repr(C)]
pub struct UpdateResult {
    result: u32,
    node: *mut c_void,
    from: *mut c_void,
}

/// The parameters of an instantiation.
#[repr(C)]
pub struct InstantiateParams {
    flags: u64,
    stream: *mut c_void,
    node: *mut c_void,
    result: u32,
}

unsafe fn numbers(g: &Graph, deps: *const *mut c_void, count: usize) -> Result<Vec<usize>, Code> {
    (0..count).map(|i| g.find(unsafe { *deps.add(i) } as usize)).collect()
}

unsafe fn add(
    out: *mut *mut c_void,
    graph: *mut c_void,
    deps: *const *mut c_void,
    count: usize,
    op: Op,
) -> Result<(), Code> {
    let h = with(|s| {
        let h = s.fresh();
        let g = s.graphs.get_mut(&(graph as usize)).ok_or(ERROR_INVALID_HANDLE)?;
        let after = unsafe { numbers(g, deps, count)? };
        g.add(h, op, after);
        Ok(h)
    })?;
    unsafe { put(out, node_handle(h)) }
}

unsafe fn kernel(s: &mut State, p: &KernelNode, alternative: *mut c_void) -> Result<Op, Code> {
    let f = if p.function.is_null() { alternative } else { p.function };
    unsafe { kernel_op(s, f as usize, p.grid, p.block, p.shared, p.params, p.extra, false) }
}

unsafe fn set_exec(
    exec: *mut c_void,
    node: *mut c_void,
    p: *const KernelNode,
    alternative: *mut c_void,
) -> Result<(), Code> {
    let p = unsafe { p.as_ref() }.ok_or(ERROR_INVALID_VALUE)?;
    with(|s| {
        let op = unsafe { kernel(s, p, alternative)? };
        let e = s.execs.get_mut(&(exec as usize)).ok_or(ERROR_INVALID_HANDLE)?;
        let n = e.nodes.iter_mut().find(|n| n.handle == node as usize).ok_or(ERROR_INVALID_VALUE)?;
        if !matches!(n.op, Op::Kernel { .. }) {
            return Err(ERROR_INVALID_VALUE);
        }
        n.op = op;
        Ok(())
    })
}

fn instantiate(exec: *mut *mut c_void, graph: *mut c_void) -> Result<(), Code> {
    let h = with(|s| s.instantiate(graph as usize))?;
    unsafe { put(exec, h as *mut c_void) }
}

fn node_of(s: &State, node: usize) -> Result<(usize, usize), Code> {
    s.graphs
        .iter()
        .find_map(|(h, g)| g.nodes.iter().position(|n| n.handle == node).map(|i| (*h, i)))
        .ok_or(ERROR_INVALID_VALUE)
}

/// What a kernel node does. Its parameters lie with the node until they change.
fn params_of(s: &mut State, node: usize) -> Result<KernelNode, Code> {
    let (g, i) = node_of(s, node)?;
    let Op::Kernel { module, index, function, launch } = &s.graphs[&g].nodes[i].op else {
        return Err(ERROR_INVALID_VALUE);
    };
    let offsets = s.modules[module].module.program.kernels[*index].params.iter().map(|p| p.offset as usize);
    let kept = s.node_params.entry(node).or_default();
    if kept.bytes != launch.params {
        kept.bytes = launch.params.clone();
        kept.pointers = offsets.map(|o| kept.bytes[o..].as_ptr() as usize).collect();
    }
    let params =
        if kept.pointers.is_empty() { std::ptr::null() } else { kept.pointers.as_ptr() as *const *const c_void };
    let (grid, block, shared) = (launch.grid, launch.block, launch.shared);
    Ok(KernelNode { function: *function as *mut c_void, grid, block, shared, params, extra: std::ptr::null() })
}

unsafe fn set_node(node: *mut c_void, p: *const KernelNode, alternative: *mut c_void) -> Result<(), Code> {
    let p = unsafe { p.as_ref() }.ok_or(ERROR_INVALID_VALUE)?;
    with(|s| {
        let op = unsafe { kernel(s, p, alternative)? };
        let (g, i) = node_of(s, node as usize)?;
        s.graphs.entry(g).and_modify(|g| g.nodes[i].op = op);
        Ok(())
    })
}

exports! { exported;
    fn cuGraphCreate(graph: *mut *mut c_void, flags: u32) {
        let h = with(|s| {
            s.working()?;
            let h = s.fresh();
            s.graphs.insert(h, Graph::default());
            Ok(h)
        })?;
        unsafe { put(graph, h as *mut c_void) }
    }

    fn cuGraphDestroy(graph: *mut c_void) {
        with(|s| s.graphs.remove(&(graph as usize)).map(|_| ()).ok_or(ERROR_INVALID_HANDLE))
    }

    fn cuGraphClone(clone: *mut *mut c_void, graph: *mut c_void) {
        let h = with(|s| {
            let g = s.graphs.get(&(graph as usize)).cloned().ok_or(ERROR_INVALID_HANDLE)?;
            let h = s.fresh();
            s.graphs.insert(h, g);
            Ok(h)
        })?;
        unsafe { put(clone, h as *mut c_void) }
    }

    fn cuGraphAddKernelNode(node: *mut *mut c_void, graph: *mut c_void, deps: *const *mut c_void, count: usize, p: *const KernelNode) {
        let d = unsafe { p.as_ref() }.ok_or(ERROR_INVALID_VALUE)?;
        let op = with(|s| unsafe { kernel(s, d, std::ptr::null_mut()) })?;
        unsafe { add(node, graph, deps, count, op) }
    }

    fn cuGraphAddKernelNode_v2(node: *mut *mut c_void, graph: *mut c_void, deps: *const *mut c_void, count: usize, p: *const KernelNodeV2) {
        let d = unsafe { p.as_ref() }.ok_or(ERROR_INVALID_VALUE)?;
        let op = with(|s| unsafe { kernel(s, &d.base, d.kernel) })?;
        unsafe { add(node, graph, deps, count, op) }
    }

    fn cuGraphAddMemcpyNode(node: *mut *mut c_void, graph: *mut c_void, deps: *const *mut c_void, count: usize, c: *const Copy3d, context: *mut c_void) {
        let mut parts = unsafe { planes(c)? };
        match (parts.pop(), parts.is_empty()) {
            (Some(one), true) => unsafe { add(node, graph, deps, count, Op::Copy(one)) },
            _ => Err(ERROR_NOT_SUPPORTED),
        }
    }

    fn cuGraphAddMemsetNode(node: *mut *mut c_void, graph: *mut c_void, deps: *const *mut c_void, count: usize, p: *const FillNode, context: *mut c_void) {
        let p = unsafe { p.as_ref() }.ok_or(ERROR_INVALID_VALUE)?;
        if !matches!(p.size, 1 | 2 | 4) {
            return Err(ERROR_INVALID_VALUE);
        }
        let pitch = if p.height <= 1 { p.width * p.size as usize } else { p.pitch } as u64;
        let op = Op::Fill { at: p.at, pitch, value: p.value, size: p.size, width: p.width as u64, height: p.height.max(1) as u64 };
        unsafe { add(node, graph, deps, count, op) }
    }

    fn cuGraphAddHostNode(node: *mut *mut c_void, graph: *mut c_void, deps: *const *mut c_void, count: usize, p: *const HostNode) {
        let p = unsafe { p.as_ref() }.ok_or(ERROR_INVALID_VALUE)?;
        unsafe { add(node, graph, deps, count, Op::Host(p.function as usize, p.data as usize)) }
    }

    fn cuGraphAddEmptyNode(node: *mut *mut c_void, graph: *mut c_void, deps: *const *mut c_void, count: usize) {
        unsafe { add(node, graph, deps, count, Op::Empty) }
    }

    fn cuGraphAddDependencies(graph: *mut c_void, from: *const *mut c_void, to: *const *mut c_void, count: usize) {
        with(|s| {
            let g = s.graphs.get_mut(&(graph as usize)).ok_or(ERROR_INVALID_HANDLE)?;
            let (from, to) = unsafe { (numbers(g, from, count)?, numbers(g, to, count)?) };
            for (f, t) in from.into_iter().zip(to) {
                if !g.nodes[t].after.contains(&f) {
                    g.nodes[t].after.push(f);
                }
            }
            Ok(())
        })
    }

    fn cuGraphGetNodes(graph: *mut c_void, nodes: *mut *mut c_void, count: *mut usize) {
        with(|s| {
            let g = s.graphs.get(&(graph as usize)).ok_or(ERROR_INVALID_HANDLE)?;
            unsafe {
                if count.is_null() {
                    return Err(ERROR_INVALID_VALUE);
                }
                if !nodes.is_null() {
                    for (i, n) in g.nodes.iter().take(*count).enumerate() {
                        *nodes.add(i) = node_handle(n.handle);
                    }
                }
                *count = g.nodes.len();
            }
            Ok(())
        })
    }

    fn cuGraphGetRootNodes(graph: *mut c_void, nodes: *mut *mut c_void, count: *mut usize) {
        with(|s| {
            let g = s.graphs.get(&(graph as usize)).ok_or(ERROR_INVALID_HANDLE)?;
            let roots: Vec<usize> = g.nodes.iter().filter(|n| n.after.is_empty()).map(|n| n.handle).collect();
            unsafe {
                if count.is_null() {
                    return Err(ERROR_INVALID_VALUE);
                }
                if !nodes.is_null() {
                    roots.iter().take(*count).enumerate().for_each(|(i, h)| *nodes.add(i) = node_handle(*h));
                }
                *count = roots.len();
            }
            Ok(())
        })
    }

    fn cuGraphNodeGetType(node: *mut c_void, kind: *mut c_int) {
        let k = with(|s| {
            let (g, i) = node_of(s, node as usize)?;
            Ok(match s.graphs[&g].nodes[i].op {
                Op::Kernel { .. } => 0,
                Op::Copy(_) => 1,
                Op::Fill { .. } => 2,
                Op::Host(..) => 3,
                Op::Free(_) => 11,
                Op::Record(_) => 7,
                Op::Empty => 5,
            })
        })?;
        unsafe { put(kind, k) }
    }

    fn cuGraphKernelNodeGetParams_v2(node: *mut c_void, p: *mut KernelNodeV2) {
        let base = with(|s| params_of(s, node as usize))?;
        unsafe { put(p, KernelNodeV2 { base, kernel: std::ptr::null_mut(), context: std::ptr::null_mut() }) }
    }

    fn cuGraphKernelNodeSetParams(node: *mut c_void, p: *const KernelNode) { unsafe { set_node(node, p, std::ptr::null_mut()) } }

    fn cuGraphKernelNodeSetParams_v2(node: *mut c_void, p: *const KernelNodeV2) {
        let kernel = unsafe { p.as_ref() }.ok_or(ERROR_INVALID_VALUE)?.kernel;
        unsafe { set_node(node, p as *const KernelNode, kernel) }
    }

    fn cuGraphInstantiateWithFlags(exec: *mut *mut c_void, graph: *mut c_void, flags: u64) { instantiate(exec, graph) }

    fn cuGraphInstantiate_v2(exec: *mut *mut c_void, graph: *mut c_void, node: *mut *mut c_void, log: *mut c_char, size: usize) {
        instantiate(exec, graph)
    }

    fn cuGraphInstantiateWithParams(exec: *mut *mut c_void, graph: *mut c_void, p: *mut InstantiateParams) {
        instantiate(exec, graph)?;
        if let Some(p) = unsafe { p.as_mut() } {
            p.result = 0;
            p.node = std::ptr::null_mut();
        }
        Ok(())
    }

    fn cuGraphExecDestroy(exec: *mut c_void) {
        with(|s| s.execs.remove(&(exec as usize)).map(|_| ()).ok_or(ERROR_INVALID_HANDLE))
    }

    fn cuGraphUpload(exec: *mut c_void, stream: *mut c_void) {
        with(|s| if s.execs.contains_key(&(exec as usize)) { Ok(()) } else { Err(ERROR_INVALID_HANDLE) })
    }

    fn cuGraphLaunch(exec: *mut c_void, stream: *mut c_void) {
        with(|s| {
            let h = s.stream(stream)?;
            s.launch_graph(exec as usize, h)
        })
    }

    fn cuGraphExecKernelNodeSetParams(exec: *mut c_void, node: *mut c_void, p: *const KernelNode) {
        unsafe { set_exec(exec, node, p, std::ptr::null_mut()) }
    }

    fn cuGraphExecKernelNodeSetParams_v2(exec: *mut c_void, node: *mut c_void, p: *const KernelNodeV2) {
        let kernel = unsafe { p.as_ref() }.ok_or(ERROR_INVALID_VALUE)?.kernel;
        unsafe { set_exec(exec, node, p as *const KernelNode, kernel) }
    }

    fn cuGraphExecUpdate(exec: *mut c_void, graph: *mut c_void, node: *mut *mut c_void, result: *mut u32) {
        let r = with(|s| s.update_exec(exec as usize, graph as usize));
        unsafe { offer(result, if r.is_ok() { 0 } else { 2 }) };
        r
    }

    fn cuGraphExecUpdate_v2(exec: *mut c_void, graph: *mut c_void, info: *mut UpdateResult) {
        let r = with(|s| s.update_exec(exec as usize, graph as usize));
        let result = if r.is_ok() { 0 } else { 2 };
        unsafe { offer(info, UpdateResult { result, node: std::ptr::null_mut(), from: std::ptr::null_mut() }) };
        r
    }

    fn cuGraphDebugDotPrint(graph: *mut c_void, path: *const c_char, flags: u32) { Err(ERROR_NOT_SUPPORTED) }
}
