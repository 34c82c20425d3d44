//! What the driver knows: devices, contexts, and the objects that handles stand for.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ffi::c_void;
use std::sync::{Arc, Mutex, MutexGuard};

use super::graph::{Capture, Graph, GraphExec};
use super::queue::{Queued, Vc};
use super::status::*;
use crate::check::{Checks, Finding};
use crate::device::part::{self, Part};
use crate::machine::{Machine, Module, Settings};

/// A device.
pub struct Device {
    /// What it stands for.
    pub part: &'static Part,
    /// Bytes of its memory.
    pub memory: u64,
    /// Its primary context.
    pub primary: Option<usize>,
    /// Holders of the primary context.
    pub retained: u32,
    /// Flags of the primary context.
    pub flags: u32,
}

/// A context.
pub struct Context {
    /// Its device.
    pub device: u32,
    /// Its flags.
    pub flags: u32,
    /// What all calls answer since a launch failed.
    pub error: Option<Code>,
    /// Its default stream.
    pub default_stream: usize,
    /// Limits that were set.
    pub limits: HashMap<u32, usize>,
}

/// A stream.
pub struct Stream {
    /// Its context.
    pub context: usize,
    /// Its number among all streams.
    pub number: u32,
    /// Does not wait for the default stream.
    pub nonblocking: bool,
    /// Its priority.
    pub priority: i32,
    /// What is ordered before its next operation.
    pub vc: Vc,
    /// Its last operation in the queue.
    pub last: u64,
    /// The capture that it takes part in.
    pub capture: Option<usize>,
}

/// An event.
pub struct Event {
    /// Its context.
    pub context: usize,
    /// Has no time.
    pub untimed: bool,
    /// What is ordered before who waits for it.
    pub vc: Vc,
    /// The operation that records it; 0: never recorded.
    pub seq: u64,
    /// When it was recorded, in nanoseconds of the driver's clock.
    pub time: Option<u64>,
    /// Asked for in vain since it was recorded last.
    pub asked: bool,
    /// The nodes of a capture that it stands for.
    pub captured: Option<(usize, Vec<usize>)>,
}

/// A kernel that a handle stands for.
pub struct Function {
    /// Its module.
    pub module: usize,
    /// Its number in it.
    pub index: usize,
    /// Dynamic shared memory that it is allowed.
    pub allowed: u32,
    /// Its carve-out, which is only remembered.
    pub carveout: i32,
    /// Its name, for who asks.
    pub name: std::ffi::CString,
}

/// Parameters of a kernel node, as a caller was given them.
#[derive(Default)]
pub struct NodeParams {
    /// Their bytes.
    pub bytes: Vec<u8>,
    /// Addresses within these, one for each parameter.
    pub pointers: Vec<usize>,
}

/// A module that was loaded.
pub struct Loaded {
    /// Its context; 0 for a library.
    pub context: usize,
    /// What it holds.
    pub module: Arc<Module>,
    /// Handles of its kernels.
    pub functions: HashMap<usize, usize>,
}

/// All of it.
pub struct State {
    /// Memory and settings.
    pub machine: Machine,
    /// Devices by number.
    pub devices: Vec<Device>,
    /// Objects by handle.
    pub contexts: HashMap<usize, Context>,
    /// See `contexts`.
    pub streams: HashMap<usize, Stream>,
    /// See `contexts`.
    pub events: HashMap<usize, Event>,
    /// See `contexts`.
    pub modules: HashMap<usize, Loaded>,
    /// See `contexts`.
    pub functions: HashMap<usize, Function>,
    /// See `contexts`.
    pub graphs: HashMap<usize, Graph>,
    /// See `contexts`.
    pub execs: HashMap<usize, GraphExec>,
    /// See `contexts`.
    pub captures: HashMap<usize, Capture>,
    /// Parameters of kernel nodes that were asked for.
    pub node_params: HashMap<usize, NodeParams>,
    /// Pools, of which only the device matters.
    pub pools: HashMap<usize, u32>,
    /// Operations that have not run.
    pub queue: VecDeque<Queued>,
    /// The number of the last operation that was queued.
    pub queued: u64,
    /// The number of the last operation that ran.
    pub done: u64,
    /// A host function runs, and the lock is open.
    pub in_host_function: bool,
    /// Host functions that have run.
    pub functions_run: u64,
    /// What the host has waited for.
    pub host: Vc,
    /// Operations that have run, by stream, of which the host does not know yet: clock, first serial number, count.
    pub unsettled: BTreeMap<u32, VecDeque<(u64, u32, u32)>>,
    /// Clocks of streams.
    pub clocks: HashMap<u32, u64>,
    /// The last finding, as JSON.
    pub last_report: Option<std::ffi::CString>,
    /// Whether findings go to standard error.
    pub speak: bool,
    handle: usize,
    stream_number: u32,
}

static STATE: Mutex<Option<State>> = Mutex::new(None);

thread_local! {
    /// The contexts of this thread, the current one last.
    pub(super) static STACK: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

fn bytes_of(text: &str) -> Option<u64> {
    let t = text.trim();
    let (digits, shift) = match t.to_ascii_uppercase().chars().last()? {
        'K' => (&t[..t.len() - 1], 10),
        'M' => (&t[..t.len() - 1], 20),
        'G' => (&t[..t.len() - 1], 30),
        _ => (t, 0),
    };
    digits.trim().parse::<u64>().ok()?.checked_shl(shift)
}

impl State {
    fn new() -> Result<State, Code> {
        let var = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        // A setting that cannot be understood must not pass for the default.
        let bad = |name: &str, value: &str| {
            say(&format!("softgpu: {name}={value} cannot be understood"));
            ERROR_INVALID_VALUE
        };
        let number = |name: &str, default: u64| match var(name) {
            None => Ok(default),
            Some(v) => v.parse::<u64>().map_err(|_| bad(name, &v)),
        };
        let id = var("SOFTGPU_PART").unwrap_or_else(|| "h100-sxm".to_string());
        let part = part::by_id(&id).ok_or_else(|| bad("SOFTGPU_PART", &id))?;
        let memory = match var("SOFTGPU_MEMORY") {
            None => part.memory,
            Some(v) => bytes_of(&v).ok_or_else(|| bad("SOFTGPU_MEMORY", &v))?,
        };
        let checks = match var("SOFTGPU_CHECKS") {
            None => Checks::ALL,
            Some(v) => Checks::parse(&v).map_err(|_| bad("SOFTGPU_CHECKS", &v))?,
        };
        let settings = Settings {
            checks,
            seed: number("SOFTGPU_SEED", 0)?,
            workers: number("SOFTGPU_THREADS", 0)? as u32,
            counting: false,
        };
        let count = number("SOFTGPU_DEVICES", 1)?.min(64);
        if count == 0 {
            return Err(ERROR_NO_DEVICE);
        }
        let machine = Machine::new(settings).map_err(|_| ERROR_OUT_OF_MEMORY)?;
        let device = || Device { part, memory, primary: None, retained: 0, flags: 0 };
        Ok(State {
            machine,
            devices: (0..count).map(|_| device()).collect(),
            contexts: HashMap::new(),
            streams: HashMap::new(),
            events: HashMap::new(),
            modules: HashMap::new(),
            functions: HashMap::new(),
            graphs: HashMap::new(),
            execs: HashMap::new(),
            captures: HashMap::new(),
            node_params: HashMap::new(),
            pools: HashMap::new(),
            queue: VecDeque::new(),
            queued: 0,
            done: 0,
            in_host_function: false,
            functions_run: 0,
            host: Vc::new(),
            unsettled: BTreeMap::new(),
            clocks: HashMap::new(),
            last_report: None,
            speak: var("SOFTGPU_REPORT").as_deref() != Some("none"),
            handle: 0x5f00_0000,
            stream_number: 0,
        })
    }

    /// A handle that none had before.
    pub fn fresh(&mut self) -> usize {
        self.handle += 64;
        self.handle
    }

    /// A stream number that none had before.
    pub fn fresh_stream(&mut self) -> u32 {
        self.stream_number += 1;
        self.stream_number
    }

    /// The current context of this thread.
    pub fn current(&self) -> Result<usize, Code> {
        let top = STACK.with(|s| s.borrow().last().copied().unwrap_or(0));
        if top == 0 {
            return Err(ERROR_INVALID_CONTEXT);
        }
        if self.contexts.contains_key(&top) { Ok(top) } else { Err(ERROR_CONTEXT_IS_DESTROYED) }
    }

    /// The current context, which must be without error.
    pub fn working(&self) -> Result<usize, Code> {
        let c = self.current()?;
        match self.contexts[&c].error {
            Some(e) => Err(e),
            None => Ok(c),
        }
    }

    /// The device of the current context.
    pub fn device(&self) -> Result<u32, Code> {
        Ok(self.contexts[&self.current()?].device)
    }

    /// Makes a context on a device.
    pub fn make_context(&mut self, device: u32, flags: u32) -> usize {
        let context = self.fresh();
        let default_stream = self.make_stream(context, false, 0);
        self.contexts.insert(context, Context { device, flags, error: None, default_stream, limits: HashMap::new() });
        context
    }

    /// Makes a stream of a context.
    pub fn make_stream(&mut self, context: usize, nonblocking: bool, priority: i32) -> usize {
        let (h, number) = (self.fresh(), self.fresh_stream());
        let s = Stream { context, number, nonblocking, priority, vc: Vc::new(), last: 0, capture: None };
        self.streams.insert(h, s);
        h
    }

    /// Frees what belongs to a context.
    pub fn drop_context(&mut self, c: usize) {
        let modules: Vec<usize> = self.modules.iter().filter(|(_, m)| m.context == c).map(|(h, _)| *h).collect();
        modules.into_iter().for_each(|m| self.drop_module(m));
        self.streams.retain(|_, s| s.context != c);
        self.events.retain(|_, e| e.context != c);
        self.contexts.remove(&c);
    }

    /// Unloads a module.
    pub fn drop_module(&mut self, m: usize) {
        if let Some(l) = self.modules.remove(&m) {
            self.machine.free_variables(&l.module.variables);
            self.functions.retain(|_, f| f.module != m);
        }
    }

    /// The stream that a handle stands for, in the current context.
    pub fn stream(&self, handle: *mut c_void) -> Result<usize, Code> {
        let c = self.working()?;
        // The default stream, the legacy default stream, and the default stream of the thread, which is the same here.
        let h = if (handle as usize) <= 2 { self.contexts[&c].default_stream } else { handle as usize };
        if self.streams.contains_key(&h) { Ok(h) } else { Err(ERROR_INVALID_HANDLE) }
    }

    /// Tells a finding.
    pub fn report(&mut self, f: &Finding) {
        let json = serde_json::to_string(f).unwrap_or_default().replace('\0', "");
        self.last_report = std::ffi::CString::new(json).ok();
        if self.speak {
            say(&format!("softgpu: {f}"));
        }
    }

    /// Tells why a call is refused, where its result alone would not.
    pub fn refuse(&mut self, code: Code, why: &str) -> Code {
        self.last_report = std::ffi::CString::new(why.replace('\0', "")).ok();
        if self.speak {
            say(&format!("softgpu: {why}"));
        }
        code
    }
}

/// A line on standard error: a driver has no other way to say more than a number to a program that does not know it.
#[allow(clippy::print_stderr)]
pub(super) fn say(text: &str) {
    eprintln!("{text}");
}

/// The state, made at the first `cuInit`.
pub(super) fn init() -> Result<(), Code> {
    let mut s = lock();
    if s.is_none() {
        *s = Some(State::new()?);
    }
    Ok(())
}

pub(super) fn lock() -> MutexGuard<'static, Option<State>> {
    STATE.lock().unwrap_or_else(|e| e.into_inner())
}

/// Runs `f` on the state.
pub(super) fn with<T>(f: impl FnOnce(&mut State) -> Result<T, Code>) -> Result<T, Code> {
    f(lock().as_mut().ok_or(ERROR_NOT_INITIALIZED)?)
}
