//! An entry on a device: every operand and result of every call bound to its memory, ready to be queued or captured.

use std::collections::BTreeMap;

use mngc_compiler::ir::{DType, Entry, Input, Module, Output, Scalar, Slot};
use mngc_compiler::schedule::cost::{self, Cost};
use mngc_compiler::schedule::kernel::Kernel;
use mngc_compiler::schedule::plan::{ALIGNMENT, EntryPlan, Operand, Place, View};
use mngc_kernels_gen::{Address, Calls, Generated, Param};

use super::driver::{Graph, Stream};
use super::error::CudaError;
use super::images::Images;
use super::memory::{self, Memory, Pinned};
use crate::tensor::{Format, Tensor};

type Result<T> = std::result::Result<T, CudaError>;

/// The memory that all entries share.
#[derive(Debug)]
pub struct Places {
    /// Of each slot, by number.
    pub slots: Vec<Memory>,
    /// The arena; none where each buffer has memory of its own.
    pub arena: Option<Memory>,
    /// For launches that need memory beside operands and results.
    pub workspace: Memory,
    /// Zeros, before and after each launch.
    pub counters: Memory,
}

/// A launch of the plan.
#[derive(Debug)]
pub struct Ready {
    /// For people.
    pub name: String,
    /// The kind of kernel.
    pub kernel: &'static str,
    /// What one run costs.
    pub cost: Cost,
    work: Vec<Work>,
    /// Memory whose contents have no meaning after it, where each buffer has its own.
    dead: Vec<usize>,
    uses_workspace: bool,
}

/// What is queued.
#[derive(Debug)]
enum Work {
    Call { kernel: String, grid: [u32; 3], block: u32, shared: usize, params: Vec<Vec<u8>> },
    Copy { from: u64, to: u64, bytes: usize },
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
    /// Where the device has it, if any launch reads it.
    memory: Option<Memory>,
    /// Where the host puts it.
    staged: Pinned,
}

/// What the host gets.
#[derive(Debug)]
struct HostOutput {
    name: String,
    dtype: DType,
    sizes: Vec<usize>,
    address: u64,
    /// Where in the pinned memory of outputs.
    offset: usize,
    bytes: usize,
}

/// An entry ready to run.
#[derive(Debug)]
pub struct Program {
    /// Launches in order.
    pub launches: Vec<Ready>,
    /// What the host hands over.
    pub inputs: Vec<BatchInput>,
    /// Slots that must hold something.
    pub reads: Vec<Slot>,
    /// Slots that hold something afterwards.
    pub writes: Vec<Slot>,
    /// Host scalars in the order in which they lie.
    scalars: Vec<Scalar>,
    /// All host scalars, pinned: the captured graph begins with a copy of them.
    staged: Pinned,
    on_device: Memory,
    outputs: Vec<HostOutput>,
    returned: Pinned,
    /// Buffers that have memory of their own, and pointers of instances.
    own: Vec<Memory>,
    /// The whole entry, captured.
    graph: Option<Graph>,
}

impl Program {
    /// Binds an entry. The plan has been verified.
    pub fn new(m: &Module, entry: &Entry, plan: &EntryPlan, calls: &Calls, places: &Places) -> Result<Program> {
        let g = &m.funcs[entry.func];
        let is_placed = |name: &str| plan.buffers.values().any(|data| data.place == Place::Batch(name.to_string()));
        let (mut inputs, mut reads) = (Vec::new(), Vec::new());
        for (input, &param) in entry.inputs.iter().zip(&g.params) {
            match input {
                Input::Slot(slot) => reads.push(*slot),
                Input::Batch(name) => {
                    let ty = g.ty(param);
                    let bytes = m.bytes(ty);
                    inputs.push(BatchInput {
                        name: name.clone(),
                        dtype: ty.dtype,
                        sizes: m.dims.sizes(&ty.dims),
                        memory: if is_placed(name) { Some(Memory::new(bytes)?) } else { None },
                        staged: Pinned::new(bytes)?,
                    });
                }
                Input::Scalar(_) => {}
            }
        }
        let mut scalars = Vec::new();
        for data in plan.buffers.values() {
            if let Place::Scalar(scalar) = data.place
                && !scalars.contains(&scalar)
            {
                scalars.push(scalar);
            }
        }
        let on_device = Memory::new(scalars.len() * ALIGNMENT)?;
        let mut binder = Binder { m, plan, addresses: Vec::new(), own: Vec::new(), places };
        let mut own_of: BTreeMap<usize, usize> = BTreeMap::new();
        for (at, data) in plan.buffers.values().enumerate() {
            let address = match &data.place {
                Place::Slot(slot) => places.slots[slot.as_u32() as usize].address(),
                Place::Batch(name) => {
                    let input = inputs.iter().find(|input| input.name == *name);
                    input.and_then(|input| input.memory.as_ref()).map_or(0, Memory::address)
                }
                Place::Scalar(scalar) => {
                    let at = scalars.iter().position(|s| s == scalar).unwrap_or(0);
                    on_device.address() + (at * ALIGNMENT) as u64
                }
                Place::Arena(offset) => match &places.arena {
                    Some(arena) => arena.address() + *offset as u64,
                    None => {
                        own_of.insert(at, binder.own.len());
                        binder.own(data.bytes)?
                    }
                },
            };
            binder.addresses.push(address);
        }
        let mut launches = Vec::new();
        for (at, (launch, generated)) in plan.launches.iter().zip(&calls.launches).enumerate() {
            let work = binder.work(at, generated)?;
            let ends = |(buffer, own): (&usize, &usize)| {
                (plan.buffers.values().nth(*buffer).is_some_and(|data| data.last == at)).then_some(*own)
            };
            launches.push(Ready {
                name: launch.name.clone(),
                kernel: launch.kernel.name(),
                cost: cost::of(m, launch),
                work,
                dead: own_of.iter().filter_map(ends).collect(),
                uses_workspace: generated.workspace > 0,
            });
        }
        let mut outputs = Vec::new();
        let mut used = 0;
        for (name, view) in &plan.outputs {
            let bytes = m.bytes(&view.ty);
            outputs.push(HostOutput {
                name: name.clone(),
                dtype: view.ty.dtype,
                sizes: m.dims.sizes(&view.ty.dims),
                address: binder.view(view),
                offset: used,
                bytes,
            });
            used += bytes.next_multiple_of(ALIGNMENT);
        }
        let slot = |output: &Output| if let Output::Slot(slot) = output { Some(*slot) } else { None };
        let own = binder.own;
        Ok(Program {
            launches,
            inputs,
            reads,
            writes: entry.outputs.iter().filter_map(slot).collect(),
            staged: Pinned::new(scalars.len() * ALIGNMENT)?,
            scalars,
            on_device,
            outputs,
            returned: Pinned::new(used)?,
            own,
            graph: None,
        })
    }

    /// Captures the whole entry, so that a run is one launch of a graph.
    pub fn capture(&mut self, images: &Images, places: &Places, stream: &Stream) -> Result<()> {
        self.graph = Some(Graph::capture(stream, || self.queue(images, places, stream, |_| Ok(())))?);
        Ok(())
    }

    /// Queues the whole entry launch by launch. `between` is called before each, and after the last.
    pub fn queue(
        &self,
        images: &Images,
        places: &Places,
        stream: &Stream,
        mut between: impl FnMut(usize) -> Result<()>,
    ) -> Result<()> {
        self.staged.queue_to(0, self.scalars.len() * ALIGNMENT, self.on_device.address(), stream)?;
        for (at, launch) in self.launches.iter().enumerate() {
            between(at)?;
            for work in &launch.work {
                match work {
                    Work::Copy { from, to, bytes } => memory::copy(*from, *to, *bytes, stream)?,
                    Work::Call { kernel, grid, block, shared, params } => {
                        let function = images.get(kernel).ok_or_else(|| CudaError::Call {
                            call: kernel.clone(),
                            name: "not loaded".into(),
                            text: "the kernel is not among the images".into(),
                            report: None,
                        })?;
                        function.launch(*grid, *block, *shared, params, stream)?;
                    }
                }
            }
            // Where each buffer has memory of its own, faults of the plan are to be seen.
            for &own in &launch.dead {
                self.own[own].poison(stream)?;
            }
            if launch.uses_workspace && places.arena.is_none() {
                places.workspace.poison(stream)?;
            }
        }
        between(self.launches.len())?;
        for output in &self.outputs {
            self.returned.queue_from(output.offset, output.bytes, output.address, stream)?;
        }
        Ok(())
    }

    /// Hands over scalars and inputs, the latter in a stream of their own. Nothing of this program runs.
    pub fn hand_over(
        &mut self,
        m: &Module,
        inputs: &BTreeMap<String, Tensor>,
        step: u64,
        copies: &Stream,
    ) -> crate::Result<()> {
        for (i, scalar) in self.scalars.iter().enumerate() {
            let value = m.scalars[*scalar].expr.eval(step) as f32;
            self.staged.bytes_mut()[i * ALIGNMENT..][..4].copy_from_slice(&value.to_le_bytes());
        }
        for input in &mut self.inputs {
            let (Some(tensor), Some(memory)) = (inputs.get(&input.name), &input.memory) else { continue };
            let bytes = tensor.to_bytes(Format::from(input.dtype))?;
            input.staged.bytes_mut()[..bytes.len()].copy_from_slice(&bytes);
            input.staged.queue_to(0, bytes.len(), memory.address(), copies)?;
        }
        Ok(())
    }

    /// Queues a run of the captured graph.
    pub fn launch(&self, stream: &Stream) -> Result<()> {
        match &self.graph {
            Some(graph) => graph.launch(stream),
            None => Ok(()),
        }
    }

    /// What the host gets. All that was queued has run.
    pub fn returned(&self) -> crate::Result<BTreeMap<String, Tensor>> {
        let tensor = |output: &HostOutput| {
            let bytes = &self.returned.bytes()[output.offset..][..output.bytes];
            Ok((output.name.clone(), Tensor::from_bytes(output.sizes.clone(), output.dtype.into(), bytes)?))
        };
        self.outputs.iter().map(tensor).collect()
    }

    /// Bytes of device memory of its own.
    pub fn bytes(&self) -> usize {
        let inputs = self.inputs.iter().filter_map(|input| input.memory.as_ref());
        inputs.chain(&self.own).map(Memory::bytes).sum::<usize>() + self.on_device.bytes()
    }
}

/// Finds the memory of views.
struct Binder<'a> {
    m: &'a Module,
    plan: &'a EntryPlan,
    places: &'a Places,
    /// Of each buffer.
    addresses: Vec<u64>,
    own: Vec<Memory>,
}

impl Binder<'_> {
    fn own(&mut self, bytes: usize) -> Result<u64> {
        let memory = Memory::new(bytes)?;
        let address = memory.address();
        self.own.push(memory);
        Ok(address)
    }

    fn view(&self, view: &View) -> u64 {
        self.addresses[view.buffer.as_u32() as usize] + view.offset as u64
    }

    /// What a launch queues.
    fn work(&mut self, at: usize, generated: &Generated) -> Result<Vec<Work>> {
        let launch = &self.plan.launches[at];
        if launch.kernel == Kernel::Copy {
            return Ok(match (&launch.args[..], &launch.results[..]) {
                ([Operand::View(from)], [to]) => {
                    vec![Work::Copy { from: self.view(from), to: self.view(to), bytes: self.m.bytes(&to.ty) }]
                }
                _ => Vec::new(),
            });
        }
        let mut work = Vec::new();
        for call in &generated.calls {
            let params = call.params.iter().map(|param| self.param(at, param)).collect::<Result<Vec<Vec<u8>>>>()?;
            work.push(Work::Call {
                kernel: call.source.name.clone(),
                grid: call.grid,
                block: call.block,
                shared: call.shared,
                params,
            });
        }
        Ok(work)
    }

    fn address(&self, at: usize, address: Address) -> u64 {
        let launch = &self.plan.launches[at];
        match address {
            Address::Arg(i) => match launch.args.get(i) {
                Some(Operand::View(view)) => self.view(view),
                _ => 0,
            },
            Address::Result(i) => launch.results.get(i).map_or(0, |view| self.view(view)),
            Address::InArg(i, offset) => self.address(at, Address::Arg(i)) + offset as u64,
            Address::InResult(i, offset) => self.address(at, Address::Result(i)) + offset as u64,
            Address::Work(offset) => self.places.workspace.address() + offset as u64,
            Address::Counter(offset) => self.places.counters.address() + offset as u64,
        }
    }

    /// A parameter as the kernel gets it.
    fn param(&mut self, at: usize, param: &Param) -> Result<Vec<u8>> {
        let addresses = |of: &[Address]| -> Vec<u8> {
            of.iter().flat_map(|&address| self.address(at, address).to_le_bytes()).collect()
        };
        Ok(match param {
            Param::Pointers(of) => addresses(of),
            Param::Table(rows) => {
                let table: Vec<u8> = rows.iter().flat_map(|row| addresses(row)).collect();
                let memory = Memory::new(table.len())?;
                memory.write(&table)?;
                let address = memory.address();
                self.own.push(memory);
                address.to_le_bytes().to_vec()
            }
            Param::U32(x) => x.to_le_bytes().to_vec(),
            Param::I32(x) => x.to_le_bytes().to_vec(),
            Param::F32(x) => x.to_le_bytes().to_vec(),
            Param::U64(x) => x.to_le_bytes().to_vec(),
            Param::U64s(x) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Param::U32s(x) => x.iter().flat_map(|x| x.to_le_bytes()).collect(),
        })
    }
}
