//! Head, cross-entropy and their gradients: the product of a chunk of rows in the workspace, one kernel that makes losses of
//! it and writes the gradient over it, and the two products of that.

use std::sync::Arc;

use mngc_compiler::ir::DType;
use mngc_compiler::schedule::kernel::{DotKernel, Epilogue, HANDED_ON, LOGITS_GRADIENT, LossKernel, PRODUCT, Strides};
use mngc_compiler::schedule::rows::{Access, Instr, RowProgram};
use serde::Serialize;

use crate::call::{Address, Call, Generated, Param, Source};
use crate::device::Device;
use crate::pointers::{self, Pointers};
use crate::program::{self, Elementwise, Emit, Sizes, Space};
use crate::spec::{Operand, Refusal, Spec};
use crate::templates;
use crate::{dot, kernel};

/// Bytes of products that a chunk has at most.
const CHUNK: usize = 4 << 30;
/// Threads of the block of a row.
const THREADS: usize = 512;

/// The calls of a loss.
pub fn generate(loss: &LossKernel, spec: &Spec, device: &Device) -> Result<Generated, Refusal> {
    let [Some(x), Some(w)] = [spec.args.first(), spec.args.get(1)] else {
        return Err(Refusal("a loss has three operands".into()));
    };
    if loss.rows == 0 {
        return empty(spec);
    }
    // What the head's product is rounded to is what its graph rounds it to.
    let dtype = if x.dtype == w.dtype { x.dtype } else { DType::F32 };
    let row = loss.n * dtype.bytes();
    let wanted = (loss.rows * row).div_ceil(CHUNK);
    let chunks = if adds_up(loss, spec) { wanted } else { 1 };
    let rows = loss.rows.div_ceil(chunks);
    let mut all = Generated::default();
    for first in (0..loss.rows).step_by(rows) {
        let part = Part { loss, spec, device, dtype, first, rows: rows.min(loss.rows - first) };
        part.product(&mut all)?;
        part.losses(&mut all)?;
        part.gradients(&mut all)?;
    }
    Ok(all)
}

/// Whether the gradient of w can be added up over chunks where it is.
fn adds_up(loss: &LossKernel, spec: &Spec) -> bool {
    let dw = loss.gradient.as_ref().and_then(|gradient| gradient.dw);
    dw.is_none_or(|dw| spec.results.get(dw).is_some_and(|result| result.dtype == DType::F32))
}

/// Without rows there is no loss; the gradient of w is nothing, added to what was there.
fn empty(spec: &Spec) -> Result<Generated, Refusal> {
    match spec.results.iter().all(Operand::is_empty) {
        true => Ok(Generated::default()),
        false => Err(Refusal("a loss of no rows has no gradient".into())),
    }
}

/// Rows that are done together.
struct Part<'a> {
    loss: &'a LossKernel,
    spec: &'a Spec,
    device: &'a Device,
    dtype: DType,
    first: usize,
    rows: usize,
}

impl Part<'_> {
    fn z(&self) -> Operand {
        Operand::new(self.dtype, &[self.rows, self.loss.n])
    }

    /// Bytes of the product, where the workspace of the other products begins.
    fn behind(&self) -> usize {
        self.z().bytes().next_multiple_of(256)
    }

    /// Rows of an operand or result, row-major, of that many elements.
    fn rows_of(&self, whole: &Operand, len: usize) -> Operand {
        let offset = self.first * len * whole.dtype.bytes();
        let alignment = if offset == 0 { whole.alignment } else { whole.alignment.min(1 << offset.trailing_zeros()) };
        Operand { sizes: vec![self.rows, len], alignment, ..whole.clone() }
    }

    fn x(&self) -> (Operand, Address) {
        let k = self.loss.k;
        let x = self.rows_of(&self.spec.args[0], k);
        let at = self.first * k * x.dtype.bytes();
        (x, Address::Arg(0).plus(at))
    }

    fn dot(
        &self,
        dot: DotKernel,
        args: Vec<Operand>,
        result: Operand,
        at: [&[Address]; 2],
    ) -> Result<Generated, Refusal> {
        let kernel = mngc_compiler::schedule::kernel::Kernel::Dot(dot.clone());
        let spec = Spec { kernel, args, results: vec![result], instances: 1 };
        Ok(dot::generate(&dot, &spec, self.device)?.within(at[0], at[1], self.behind()))
    }

    /// z = x wᵀ.
    fn product(&self, all: &mut Generated) -> Result<(), Refusal> {
        let LossKernel { n, k, w, .. } = *self.loss;
        let kernel = DotKernel {
            batch: 1,
            m: self.rows,
            n,
            k,
            a: Strides { batch: 0, row: k, inner: 1 },
            b: w,
            scale: 1.0,
            symmetric: false,
            epilogue: Epilogue::Store,
        };
        let (x, at) = self.x();
        let args = vec![x, self.spec.args[1].clone()];
        all.then(self.dot(kernel, args, self.z(), [&[at, Address::Arg(1)], &[Address::Work(0)]])?);
        Ok(())
    }

    /// dx = dz w, dw = dzᵀ x.
    fn gradients(&self, all: &mut Generated) -> Result<(), Refusal> {
        let LossKernel { n, k, w, .. } = *self.loss;
        let Some(gradient) = &self.loss.gradient else { return Ok(()) };
        let dz = Address::Work(0);
        let (x, x_at) = self.x();
        if let Some(dx) = gradient.dx {
            let kernel = DotKernel {
                batch: 1,
                m: self.rows,
                n: k,
                k: n,
                a: Strides { batch: 0, row: n, inner: 1 },
                b: Strides { batch: 0, row: w.inner, inner: w.row },
                scale: 1.0,
                symmetric: false,
                epilogue: Epilogue::Store,
            };
            let result = self.rows_of(&self.spec.results[dx], k);
            let to = Address::Result(dx).plus(self.first * k * result.dtype.bytes());
            let args = vec![self.z(), self.spec.args[1].clone()];
            all.then(self.dot(kernel, args, result, [&[dz, Address::Arg(1)], &[to]])?);
        }
        if let Some(dw) = gradient.dw {
            let result = self.spec.results[dw].clone();
            // Later chunks add to what the first has made.
            let sum = match (self.first, gradient.accumulate) {
                (0, None) => None,
                (0, Some(i)) => Some((self.spec.args[i].clone(), Address::Arg(i))),
                _ => Some((result.clone(), Address::Result(dw))),
            };
            let kernel = DotKernel {
                batch: 1,
                m: n,
                n: k,
                k: self.rows,
                a: Strides { batch: 0, row: 1, inner: n },
                b: Strides { batch: 0, row: 1, inner: k },
                scale: 1.0,
                symmetric: false,
                epilogue: if sum.is_some() { Epilogue::Accumulate(2) } else { Epilogue::Store },
            };
            let (mut args, mut at) = (vec![self.z(), x], vec![dz, x_at]);
            if let Some((operand, address)) = sum {
                args.push(operand);
                at.push(address);
            }
            all.then(self.dot(kernel, args, result, [&at, &[Address::Result(dw)]])?);
        }
        Ok(())
    }

    /// Losses of the rows, and the gradient in the place of the product.
    fn losses(&self, all: &mut Generated) -> Result<(), Refusal> {
        let (loss, spec) = (self.loss, self.spec);
        let mut programs: Vec<&RowProgram> = vec![&loss.logits];
        programs.extend(loss.gradient.as_ref().map(|gradient| &gradient.program));
        let vec = dot::width(loss.n, &programs, spec).min(16 / self.dtype.bytes());
        let index = kernel::index(loss.rows * loss.n);
        let space = Space::of_columns(loss.n, vec);
        let mut sizes = Sizes::default();
        let mut write = |program: &RowProgram, to: &str| {
            let given = [(PRODUCT, "product".to_string()), (LOGITS_GRADIENT, "dlogits".to_string())];
            let taken = [(HANDED_ON, to.to_string())];
            Emit::new(program, &space, &mut sizes, &spec.args, &spec.results, &given, &taken)
                .program(program, &mut Elementwise)
                .map(|text| text.trim_end().to_string())
        };
        let logits = write(&loss.logits, "logits")?;
        let gradient = match &loss.gradient {
            Some(gradient) => write(&gradient.program, "dproduct")?,
            None => String::new(),
        };
        // What the loss itself reads beside its programs.
        let dy = loss.gradient.as_ref().map(|gradient| gradient.dy);
        let own = RowProgram {
            elements: 0,
            tile: 1,
            regs: Vec::new(),
            instrs: dy.iter().map(|&operand| Instr::Load { dst: 0, operand, access: Access::Scalar }).collect(),
        };
        let dy = match dy.and_then(|i| spec.args.get(i).map(|arg| (i, arg))) {
            None => String::new(),
            Some((i, arg)) if arg.constant.is_some() => format!("c{i}"),
            Some((i, arg)) if arg.len() == 1 => format!("widen(p.a{i}[0])"),
            Some((i, _)) => format!("widen(p.a{i}[row])"),
        };
        programs.push(&own);
        let more = pointers::numbers(&programs, spec, &sizes);
        let mut places = Pointers::new(spec);
        places.work(&format!("{}* z", program::element(self.dtype)), 0, 0);
        let with_types: String = more.iter().map(|n| format!(", const {} {}", n.ty, n.name)).collect();
        let context = Context {
            what: format!("Losses of {} products", self.dtype.name()),
            pointers: places.fields(),
            element: program::element(self.dtype),
            index,
            threads: THREADS,
            vec,
            logits,
            gradient,
            dy,
            loss: loss.loss,
            parameters: format!("{}, const {index} first, const u32 n{with_types}", places.parameter()),
            more_parameters: with_types.clone(),
            more_arguments: more.iter().map(|n| format!(", {}", n.name)).collect(),
        };
        let text = templates::render("loss.cu", &context)?;
        let first = if index == "u32" { Param::U32(self.first as u32) } else { Param::U64(self.first as u64) };
        let mut params = vec![places.param(), first, Param::U32(loss.n as u32)];
        params.extend(more.into_iter().map(|n| n.param));
        let call = Call {
            source: Arc::new(Source::new(&format!("loss_{}", self.dtype.name()), &text)),
            grid: [self.rows as u32, 1, 1],
            block: THREADS as u32,
            shared: 0,
            params,
        };
        all.then(Generated { calls: vec![call], workspace: self.behind(), counters: 0 });
        Ok(())
    }
}

#[derive(Serialize)]
struct Context {
    what: String,
    pointers: Vec<String>,
    element: &'static str,
    index: &'static str,
    threads: usize,
    vec: usize,
    logits: String,
    gradient: String,
    dy: String,
    loss: usize,
    parameters: String,
    more_parameters: String,
    more_arguments: String,
}
