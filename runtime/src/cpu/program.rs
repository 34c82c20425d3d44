//! An entry made ready to run: every operand and result bound to its memory, every kernel checked.

use mngc_compiler::ir::{DType, Entry, Input, Module, Output, Scalar, Slot};
use mngc_compiler::schedule::cost::{self, Cost};
use mngc_compiler::schedule::plan::{ALIGNMENT, EntryPlan, Launch, Operand, Place, View};

use super::context::Need;
use super::convert;
use super::job::{Bound, Job};
use super::memory::{Memory, Region};
use crate::error::{Error, Result};
use crate::round;
use crate::tensor::{Data, Tensor};

/// A launch with everything bound.
#[derive(Debug)]
pub struct Ready {
    /// For people.
    pub name: String,
    /// The kind of kernel.
    pub kernel: &'static str,
    /// What one run costs.
    pub cost: Cost,
    /// What runs.
    pub job: Job,
    /// Operands.
    pub args: Vec<Region>,
    /// Results.
    pub results: Vec<Region>,
}

/// What the host hands over at every run.
#[derive(Debug)]
pub struct BatchInput {
    /// Its name.
    pub name: String,
    /// Its dtype.
    pub dtype: DType,
    /// Its sizes.
    pub sizes: Vec<usize>,
    /// Every place that it goes to.
    pub places: Vec<Region>,
}

/// An entry ready to run.
#[derive(Debug)]
pub struct Program {
    /// Launches in order.
    pub launches: Vec<Ready>,
    /// What the host hands over.
    pub inputs: Vec<BatchInput>,
    /// Host scalars and where they go.
    pub scalars: Vec<(Scalar, Region)>,
    /// Slots that must hold something.
    pub reads: Vec<Slot>,
    /// Slots that hold something afterwards.
    pub writes: Vec<Slot>,
    /// What the host gets, with sizes.
    pub outputs: Vec<(String, Region, Vec<usize>)>,
    /// Inputs, host scalars and constants.
    own: Memory,
}

/// The memory that all entries share.
pub struct Places<'a> {
    /// Of each slot, by number.
    pub slots: &'a [Memory],
    /// The arena.
    pub arena: &'a Memory,
}

impl Program {
    /// Binds an entry. The plan has been verified.
    pub fn new(m: &Module, entry: &Entry, plan: &EntryPlan, places: &Places) -> Result<Program> {
        let mut binder = Binder::new(m, plan, places)?;
        let mut launches = Vec::new();
        for (at, launch) in plan.launches.iter().enumerate() {
            let fail = |fault: String| Error::Launch { entry: plan.key, launch: at, name: launch.name.clone(), fault };
            // Instances run one after another: a launch costs next to nothing here.
            for (args, results) in launch.each() {
                let (args, results) = (args.to_vec(), results.to_vec());
                let one = Launch { args, results, instances: 1, ..launch.clone() };
                launches.push(binder.launch(&one).map_err(fail)?);
            }
        }
        let g = m.funcs.get(entry.func).ok_or(Error::NoFunc(entry.func))?;
        let fault = |fault: &str| Error::Entry { entry: entry.key, fault: fault.into() };
        let (mut inputs, mut reads) = (Vec::new(), Vec::new());
        for (input, &param) in entry.inputs.iter().zip(&g.params) {
            match input {
                Input::Slot(slot) => reads.push(*slot),
                Input::Batch(name) => {
                    let to = binder.batch.iter().filter(|(of, _)| of == name).map(|(_, region)| *region);
                    let (ty, places) = (g.ty(param), to.collect());
                    let (dtype, sizes) = (ty.dtype, m.dims.sizes(&ty.dims));
                    inputs.push(BatchInput { name: name.clone(), dtype, sizes, places });
                }
                Input::Scalar(scalar) if m.scalars.get(*scalar).is_none() => {
                    return Err(fault("a host scalar that does not exist"));
                }
                Input::Scalar(_) => {}
            }
        }
        let slot = |output: &Output| if let Output::Slot(slot) = output { Some(*slot) } else { None };
        let writes = entry.outputs.iter().filter_map(slot).collect();
        let mut outputs = Vec::new();
        for (name, view) in &plan.outputs {
            let region = binder.view(view).ok_or_else(|| fault("an output leaves its memory"))?;
            outputs.push((name.clone(), region, m.dims.sizes(&view.ty.dims)));
        }
        let Binder { scalars, own, .. } = binder;
        Ok(Program { launches, inputs, scalars, reads, writes, outputs, own })
    }

    /// Bytes of its own memory.
    pub fn bytes(&self) -> usize {
        self.own.bytes()
    }

    /// What its kernels need at most.
    pub fn need(&self) -> Need {
        self.launches.iter().fold(Need::default(), |need, launch| need.max(launch.job.need()))
    }
}

/// Finds the memory of views.
struct Binder<'a> {
    m: &'a Module,
    plan: &'a EntryPlan,
    places: &'a Places<'a>,
    own: Memory,
    /// Where in `own` each buffer lies, by number.
    offsets: Vec<usize>,
    /// End of what is used of `own`.
    used: usize,
    batch: Vec<(String, Region)>,
    scalars: Vec<(Scalar, Region)>,
}

impl<'a> Binder<'a> {
    fn new(m: &'a Module, plan: &'a EntryPlan, places: &'a Places) -> Result<Binder<'a>> {
        let mut used = 0;
        let mut offsets = Vec::new();
        for data in plan.buffers.values() {
            offsets.push(used);
            if matches!(data.place, Place::Batch(_) | Place::Scalar(_)) {
                used += data.bytes.next_multiple_of(ALIGNMENT);
            }
        }
        let is_const = |arg: &&Operand| matches!(arg, Operand::Const(..));
        let constants = plan.launches.iter().flat_map(|l| &l.args).filter(is_const).count();
        let own = Memory::zeroed(used + constants * ALIGNMENT)?;
        let mut binder = Binder { m, plan, places, own, offsets, used, batch: Vec::new(), scalars: Vec::new() };
        for (buffer, data) in plan.buffers.iter() {
            let offset = binder.offsets[buffer.as_u32() as usize];
            // What it holds is told by the entry; the host fills all of it.
            let whole = |dtype: DType| binder.own.region(offset, dtype, data.bytes / dtype.bytes());
            match &data.place {
                Place::Batch(name) => {
                    let dtype = binder.batch_dtype(name);
                    if let Some(region) = dtype.and_then(whole) {
                        binder.batch.push((name.clone(), region));
                    }
                }
                Place::Scalar(scalar) => {
                    if let Some(region) = whole(DType::F32) {
                        binder.scalars.push((*scalar, region));
                    }
                }
                Place::Arena(_) | Place::Slot(_) => {}
            }
        }
        Ok(binder)
    }

    fn batch_dtype(&self, name: &str) -> Option<DType> {
        let entry = self.m.entries.get(&self.plan.key)?;
        let g = self.m.funcs.get(entry.func)?;
        let at = entry.inputs.iter().position(|input| matches!(input, Input::Batch(n) if n == name))?;
        Some(g.ty(*g.params.get(at)?).dtype)
    }

    fn view(&self, view: &View) -> Option<Region> {
        let data = self.plan.buffers.get(view.buffer)?;
        let len = self.m.dims.elements(&view.ty.dims);
        let (memory, offset) = match &data.place {
            Place::Arena(offset) => (self.places.arena, *offset),
            Place::Slot(slot) => (self.places.slots.get(slot.as_u32() as usize)?, 0),
            Place::Batch(_) | Place::Scalar(_) => (&self.own, self.offsets[view.buffer.as_u32() as usize]),
        };
        memory.region(offset + view.offset, view.ty.dtype, len)
    }

    fn constant(&mut self, value: f64, dtype: DType) -> Option<Region> {
        let region = self.own.region(self.used, dtype, 1)?;
        self.used += ALIGNMENT;
        let value = round(dtype, value);
        // SAFETY: nothing runs yet.
        unsafe {
            if dtype.is_float() {
                convert::store(&region, 0, &[value as f32]);
            } else {
                convert::store_ints(&region, 0, &[value as i32]);
            }
        }
        Some(region)
    }

    fn launch(&mut self, launch: &Launch) -> std::result::Result<Ready, String> {
        let outside = || "a tensor leaves its memory".to_string();
        let (mut args, mut arg_sizes) = (Vec::new(), Vec::new());
        for arg in &launch.args {
            let (region, sizes) = match arg {
                Operand::View(view) => (self.view(view), self.m.dims.sizes(&view.ty.dims)),
                Operand::Const(value, dtype) => (self.constant(*value, *dtype), Vec::new()),
            };
            args.push(region.ok_or_else(outside)?);
            arg_sizes.push(sizes);
        }
        let results: Vec<Region> = launch
            .results
            .iter()
            .map(|view| self.view(view).ok_or_else(outside))
            .collect::<std::result::Result<_, _>>()?;
        let result_sizes: Vec<Vec<usize>> =
            launch.results.iter().map(|view| self.m.dims.sizes(&view.ty.dims)).collect();
        let bound = Bound { args: &args, results: &results, arg_sizes: &arg_sizes, result_sizes: &result_sizes };
        let job = Job::new(&launch.kernel, &bound)?;
        let (kernel, cost) = (launch.kernel.name(), cost::of(self.m, launch));
        Ok(Ready { name: launch.name.clone(), kernel, cost, job, args, results })
    }
}

/// Writes a tensor of the host, which fits, each float rounded once.
///
/// # Safety
/// Nothing runs.
pub unsafe fn write(region: &Region, tensor: &Tensor) {
    match tensor.data() {
        // SAFETY: the caller's promise.
        Data::Float(values) => unsafe { write_floats(region, values) },
        // SAFETY: the caller's promise.
        Data::Int(values) => unsafe { convert::store_ints(region, 0, values) },
        Data::Bool(values) => {
            for (i, &value) in values.iter().enumerate() {
                // SAFETY: the caller's promise.
                unsafe { convert::store_ints(region, i, &[i32::from(value)]) };
            }
        }
    }
}

/// Writes floats of the host, as many as fit, each rounded once.
///
/// # Safety
/// Nothing runs.
pub unsafe fn write_floats(region: &Region, values: &[f64]) {
    const PIECE: usize = 256;
    let mut piece = [0f32; PIECE];
    for (n, values) in values.chunks(PIECE).enumerate() {
        let piece = &mut piece[..values.len()];
        // After rounding, f32 holds it exactly.
        piece.iter_mut().zip(values).for_each(|(to, &x)| *to = round::round(region.dtype(), x) as f32);
        // SAFETY: the caller's promise.
        unsafe { convert::store(region, n * PIECE, piece) };
    }
}

/// A copy for the host.
///
/// # Safety
/// Nothing runs.
pub unsafe fn read(region: &Region, sizes: &[usize]) -> Result<Tensor> {
    let n = region.len();
    // SAFETY: the caller's promise.
    let data = unsafe {
        match region.dtype() {
            DType::F32 | DType::BF16 | DType::F16 => {
                let mut values = vec![0f32; n];
                convert::load(region, 0, &mut values);
                Data::Float(values.into_iter().map(f64::from).collect())
            }
            DType::I32 => Data::Int(region.slice::<i32>().to_vec()),
            DType::Bool => Data::Bool(region.slice::<u8>().iter().map(|&x| x != 0).collect()),
        }
    };
    Tensor::new(sizes, data)
}

/// A number as its dtype holds it.
fn round(dtype: DType, value: f64) -> f64 {
    match dtype {
        DType::F32 | DType::BF16 | DType::F16 => crate::round::round(dtype, value),
        DType::I32 => f64::from(value as i32),
        DType::Bool => f64::from(u8::from(value != 0.0)),
    }
}
