//! Modules and libraries from PTX, their kernels and variables.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::sync::Arc;

use super::state::{Function, Loaded, State, with};
use super::status::*;
use super::{exports, offer, put};
use crate::device::part;

/// The text of an image, where it is PTX.
unsafe fn text(image: *const c_void) -> Result<String, Code> {
    if image.is_null() {
        return Err(ERROR_INVALID_VALUE);
    }
    let head = unsafe { std::slice::from_raw_parts(image as *const u8, 4) };
    let kind = match head {
        b"\x7fELF" => Some("a cubin"),
        [0x50, 0xed, 0x55, 0xba] => Some("a fat binary"),
        [0xb1, 0x43, 0x62, 0x46] => Some("a fat binary's wrapper"),
        _ => None,
    };
    if let Some(kind) = kind {
        let why =
            format!("{kind} is machine code, which the soft GPU cannot run: give it PTX (compile for compute_XX)");
        return Err(with(|s| Ok(s.refuse(ERROR_NO_BINARY_FOR_GPU, &why)))?);
    }
    let c = unsafe { CStr::from_ptr(image as *const c_char) };
    Ok(c.to_string_lossy().into_owned())
}

impl State {
    fn load(&mut self, ptx: &str, context: usize, device: u32) -> Result<usize, Code> {
        let program = match crate::load(ptx) {
            Ok(p) => p,
            Err(e) => return Err(self.refuse(ERROR_INVALID_PTX, &e.to_string())),
        };
        let (part, memory) = (self.devices[device as usize].part, self.devices[device as usize].memory);
        if let Some(why) = part.refuses(&program.target) {
            return Err(self.refuse(ERROR_NO_BINARY_FOR_GPU, &why));
        }
        let module = self.machine.load(device, memory, Arc::new(program)).map_err(|_| ERROR_OUT_OF_MEMORY)?;
        let h = self.fresh();
        self.modules.insert(h, Loaded { context, module: Arc::new(module), functions: HashMap::new() });
        Ok(h)
    }

    fn function(&mut self, module: usize, name: &CStr) -> Result<usize, Code> {
        let l = self.modules.get(&module).ok_or(ERROR_INVALID_HANDLE)?;
        let text = name.to_str().map_err(|_| ERROR_NOT_FOUND)?;
        let index = l.module.program.kernels.iter().position(|k| k.name == text).ok_or(ERROR_NOT_FOUND)?;
        self.function_at(module, index)
    }

    fn function_at(&mut self, module: usize, index: usize) -> Result<usize, Code> {
        let l = &self.modules[&module];
        if let Some(h) = l.functions.get(&index) {
            return Ok(*h);
        }
        let k = &l.module.program.kernels[index];
        let allowed = part::SHARED_DEFAULT.saturating_sub(k.shared_bytes);
        let name = CString::new(k.name.as_str()).map_err(|_| ERROR_NOT_FOUND)?;
        let h = self.fresh();
        self.functions.insert(h, Function { module, index, allowed, carveout: -1, name });
        if let Some(l) = self.modules.get_mut(&module) {
            l.functions.insert(index, h);
        }
        Ok(h)
    }

    fn variable(&self, module: usize, name: &CStr) -> Result<(u64, usize), Code> {
        let l = self.modules.get(&module).ok_or(ERROR_INVALID_HANDLE)?;
        let text = name.to_str().map_err(|_| ERROR_NOT_FOUND)?;
        let globals = &l.module.program.globals;
        let i = globals.iter().position(|g| g.name == text && !g.bytes.is_empty()).ok_or(ERROR_NOT_FOUND)?;
        Ok((l.module.variables[i], globals[i].bytes.len()))
    }
}

unsafe fn load_module(module: *mut *mut c_void, image: *const c_void) -> Result<(), Code> {
    let (c, d) = with(|s| Ok((s.working()?, s.device()?)))?;
    let ptx = unsafe { text(image)? };
    let h = with(|s| s.load(&ptx, c, d))?;
    unsafe { put(module, h as *mut c_void) }
}

/// Writes why a module was refused into the caller's buffer for errors: option 5, with its size as option 6.
unsafe fn log(count: u32, options: *const u32, values: *mut *mut c_void, failed: bool) {
    let find = |which: u32| (0..count as usize).find(|i| unsafe { *options.add(*i) } == which);
    let (Some(buffer), Some(size)) = (find(5), find(6)) else { return };
    let why = with(|s| Ok(s.last_report.clone())).ok().flatten().filter(|_| failed).unwrap_or_default();
    // SAFETY: the caller gave a buffer of this size, and a value for each option.
    unsafe {
        let (to, room) = (*values.add(buffer) as *mut u8, *values.add(size) as usize);
        let n = why.as_bytes().len().min(room.saturating_sub(1));
        if room != 0 && !to.is_null() {
            std::ptr::copy_nonoverlapping(why.as_ptr() as *const u8, to, n);
            *to.add(n) = 0;
        }
        *values.add(size) = n as *mut c_void;
    }
}

unsafe fn load_file(path: *const c_char) -> Result<Vec<u8>, Code> {
    if path.is_null() {
        return Err(ERROR_INVALID_VALUE);
    }
    let path = unsafe { CStr::from_ptr(path) }.to_string_lossy().into_owned();
    let mut bytes = std::fs::read(path).map_err(|_| ERROR_FILE_NOT_FOUND)?;
    bytes.extend_from_slice(&[0; 8]);
    Ok(bytes)
}

unsafe fn name_of<'a>(name: *const c_char) -> Result<&'a CStr, Code> {
    if name.is_null() { Err(ERROR_INVALID_VALUE) } else { Ok(unsafe { CStr::from_ptr(name) }) }
}

exports! { exported;
    fn cuModuleLoadData(module: *mut *mut c_void, image: *const c_void) { unsafe { load_module(module, image) } }

    fn cuModuleLoadDataEx(module: *mut *mut c_void, image: *const c_void, count: u32, options: *const u32, values: *mut *mut c_void) {
        unsafe {
            let r = load_module(module, image);
            log(count, options, values, r.is_err());
            r
        }
    }

    fn cuModuleLoadFatBinary(module: *mut *mut c_void, image: *const c_void) { unsafe { load_module(module, image) } }

    fn cuModuleLoad(module: *mut *mut c_void, path: *const c_char) {
        let bytes = unsafe { load_file(path)? };
        unsafe { load_module(module, bytes.as_ptr() as *const c_void) }
    }

    fn cuModuleUnload(module: *mut c_void) {
        let c = with(|s| s.modules.get(&(module as usize)).map(|m| m.context).ok_or(ERROR_INVALID_HANDLE))?;
        if c != 0 {
            let _ = super::queue::wait_context(c);
        }
        with(|s| {
            s.drop_module(module as usize);
            Ok(())
        })
    }

    fn cuModuleGetLoadingMode(mode: *mut c_int) { unsafe { put(mode, 1) } }

    fn cuModuleGetFunction(function: *mut *mut c_void, module: *mut c_void, name: *const c_char) {
        let name = unsafe { name_of(name)? };
        let h = with(|s| s.function(module as usize, name))?;
        unsafe { put(function, h as *mut c_void) }
    }

    fn cuModuleGetFunctionCount(count: *mut u32, module: *mut c_void) {
        let n = with(|s| s.modules.get(&(module as usize)).map(|m| m.module.program.kernels.len()).ok_or(ERROR_INVALID_HANDLE))?;
        unsafe { put(count, n as u32) }
    }

    fn cuModuleGetGlobal_v2(address: *mut u64, bytes: *mut usize, module: *mut c_void, name: *const c_char) {
        let name = unsafe { name_of(name)? };
        let (at, size) = with(|s| s.variable(module as usize, name))?;
        unsafe {
            offer(address, at);
            offer(bytes, size);
        }
        Ok(())
    }

    fn cuLibraryLoadData(
        library: *mut *mut c_void, code: *const c_void, jit: *const u32, jit_values: *const *mut c_void, jit_count: u32,
        options: *const u32, values: *const *mut c_void, count: u32,
    ) {
        let ptx = unsafe { text(code)? };
        let d = with(|s| Ok(s.device().unwrap_or(0)))?;
        let h = with(|s| s.load(&ptx, 0, d))?;
        unsafe { put(library, h as *mut c_void) }
    }

    fn cuLibraryUnload(library: *mut c_void) {
        let seq = with(|s| Ok(s.queued))?;
        super::queue::run_until(seq)?;
        with(|s| {
            s.drop_module(library as usize);
            Ok(())
        })
    }

    fn cuLibraryGetKernel(kernel: *mut *mut c_void, library: *mut c_void, name: *const c_char) {
        let name = unsafe { name_of(name)? };
        let h = with(|s| s.function(library as usize, name))?;
        unsafe { put(kernel, h as *mut c_void) }
    }

    fn cuLibraryGetModule(module: *mut *mut c_void, library: *mut c_void) { unsafe { put(module, library) } }

    fn cuLibraryGetKernelCount(count: *mut u32, library: *mut c_void) {
        let n = with(|s| s.modules.get(&(library as usize)).map(|m| m.module.program.kernels.len()).ok_or(ERROR_INVALID_HANDLE))?;
        unsafe { put(count, n as u32) }
    }

    fn cuLibraryEnumerateKernels(kernels: *mut *mut c_void, count: u32, library: *mut c_void) {
        with(|s| {
            let n = s.modules.get(&(library as usize)).map(|m| m.module.program.kernels.len()).ok_or(ERROR_INVALID_HANDLE)?;
            for i in 0..n.min(count as usize) {
                let h = s.function_at(library as usize, i)?;
                unsafe { put(kernels.add(i), h as *mut c_void)? };
            }
            Ok(())
        })
    }

    fn cuLibraryGetGlobal(address: *mut u64, bytes: *mut usize, library: *mut c_void, name: *const c_char) {
        let name = unsafe { name_of(name)? };
        let (at, size) = with(|s| s.variable(library as usize, name))?;
        unsafe {
            offer(address, at);
            offer(bytes, size);
        }
        Ok(())
    }

    fn cuKernelGetFunction(function: *mut *mut c_void, kernel: *mut c_void) { unsafe { put(function, kernel) } }

    fn cuKernelGetLibrary(library: *mut *mut c_void, kernel: *mut c_void) {
        let m = with(|s| s.functions.get(&(kernel as usize)).map(|f| f.module).ok_or(ERROR_INVALID_HANDLE))?;
        unsafe { put(library, m as *mut c_void) }
    }

    fn cuFuncGetModule(module: *mut *mut c_void, function: *mut c_void) {
        let m = with(|s| s.functions.get(&(function as usize)).map(|f| f.module).ok_or(ERROR_INVALID_HANDLE))?;
        unsafe { put(module, m as *mut c_void) }
    }

    fn cuFuncGetName(name: *mut *const c_char, function: *mut c_void) {
        with(|s| {
            let f = s.functions.get(&(function as usize)).ok_or(ERROR_INVALID_HANDLE)?;
            unsafe { put(name, f.name.as_ptr()) }
        })
    }

    fn cuKernelGetName(name: *mut *const c_char, kernel: *mut c_void) {
        with(|s| {
            let f = s.functions.get(&(kernel as usize)).ok_or(ERROR_INVALID_HANDLE)?;
            unsafe { put(name, f.name.as_ptr()) }
        })
    }

    fn cuFuncGetParamInfo(function: *mut c_void, index: usize, offset: *mut usize, size: *mut usize) {
        with(|s| param_info(s, function as usize, index, offset, size))
    }

    fn cuKernelGetParamInfo(kernel: *mut c_void, index: usize, offset: *mut usize, size: *mut usize) {
        with(|s| param_info(s, kernel as usize, index, offset, size))
    }

    fn cuFuncIsLoaded(state: *mut c_int, function: *mut c_void) { unsafe { put(state, 1) } }
    fn cuFuncLoad(function: *mut c_void) { Ok(()) }

    fn cuFuncGetAttribute(value: *mut c_int, which: u32, function: *mut c_void) {
        let v = with(|s| attribute(s, which, function as usize))?;
        unsafe { put(value, v) }
    }

    fn cuKernelGetAttribute(value: *mut c_int, which: u32, kernel: *mut c_void, device: c_int) {
        let v = with(|s| attribute(s, which, kernel as usize))?;
        unsafe { put(value, v) }
    }

    fn cuFuncSetAttribute(function: *mut c_void, which: u32, value: c_int) {
        with(|s| set_attribute(s, which, function as usize, value))
    }

    fn cuKernelSetAttribute(which: u32, value: c_int, kernel: *mut c_void, device: c_int) {
        with(|s| set_attribute(s, which, kernel as usize, value))
    }

    fn cuFuncSetCacheConfig(function: *mut c_void, config: u32) { Ok(()) }
    fn cuFuncSetSharedMemConfig(function: *mut c_void, config: u32) { Ok(()) }
    fn cuKernelSetCacheConfig(kernel: *mut c_void, config: u32, device: c_int) { Ok(()) }
}

fn param_info(s: &State, function: usize, index: usize, offset: *mut usize, size: *mut usize) -> Result<(), Code> {
    let f = s.functions.get(&function).ok_or(ERROR_INVALID_HANDLE)?;
    let k = &s.modules[&f.module].module.program.kernels[f.index];
    let p = k.params.get(index).ok_or(ERROR_INVALID_VALUE)?;
    unsafe {
        offer(offset, p.offset as usize);
        offer(size, p.size as usize);
    }
    Ok(())
}

fn attribute(s: &State, which: u32, function: usize) -> Result<c_int, Code> {
    let f = s.functions.get(&function).ok_or(ERROR_INVALID_HANDLE)?;
    let program = &s.modules[&f.module].module.program;
    let k = &program.kernels[f.index];
    let device = s.device().unwrap_or(0) as usize;
    let part = s.devices[device].part;
    Ok(match which {
        0 => {
            let by_registers = part::REGISTERS / part.registers(k).next_multiple_of(8) / 32 * 32;
            k.maxntid.unwrap_or(part::MAX_THREADS as u64).min(by_registers.min(part::MAX_THREADS) as u64) as c_int
        }
        1 => k.shared_bytes as c_int,
        2 => program.globals.iter().filter(|g| g.constant).map(|g| g.bytes.len()).sum::<usize>() as c_int,
        3 => k.local_bytes as c_int,
        4 => part.registers(k) as c_int,
        5 => (program.version.0 * 10 + program.version.1) as c_int,
        6 => part.number() as c_int,
        7 | 10 | 14 | 15 => 0,
        8 => f.allowed as c_int,
        9 => f.carveout,
        11..=13 => 0,
        _ => return Err(ERROR_INVALID_VALUE),
    })
}

fn set_attribute(s: &mut State, which: u32, function: usize, value: c_int) -> Result<(), Code> {
    let device = s.device().unwrap_or(0) as usize;
    let most = s.devices[device].part.shared_opt_in;
    let fixed = {
        let f = s.functions.get(&function).ok_or(ERROR_INVALID_HANDLE)?;
        s.modules[&f.module].module.program.kernels[f.index].shared_bytes
    };
    let f = s.functions.get_mut(&function).ok_or(ERROR_INVALID_HANDLE)?;
    match which {
        8 if value >= 0 && value as u32 <= most.saturating_sub(fixed) => f.allowed = value as u32,
        9 if (-1..=100).contains(&value) => f.carveout = value,
        10..=15 => {}
        _ => return Err(ERROR_INVALID_VALUE),
    }
    Ok(())
}
