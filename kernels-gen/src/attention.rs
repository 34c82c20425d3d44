//! Attention and its gradient as kernels.
//!
//! bf16 and f16 run on tensor cores (`attention_*_mma.cu`), any other mix of dtypes in f32 (`attention_*_fma.cu`). Backward
//! is two kernels, one that owns queries and makes dq, one that owns keys and makes dk and dv: scores are computed twice,
//! and no sum crosses blocks.
//!
//! Weights of what is not seen are 0, and are multiplied like all others of a tile: where a key or value that is hidden from
//! a query is infinite or no number, its result may be none either.

use std::sync::Arc;

use mngc_compiler::ir::{AttentionMask, DType, F64};
use serde::Serialize;

use crate::call::{Address, Call, Generated, Param, Source};
use crate::device::Device;
use crate::program::element;
use crate::spec::{Operand, Refusal, Spec};
use crate::templates;

/// How a kernel cuts its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tile {
    /// Largest head dim, rounded up to 16, that its registers hold.
    dim: usize,
    /// Positions that a block owns.
    rows: usize,
    /// Positions of the other side that it looks at together.
    columns: usize,
    /// Warps of a block.
    warps: usize,
    /// Tiles of columns that are there or on their way.
    stages: usize,
    /// Blocks that share the columns of a result.
    parts: usize,
    /// The last capability for which NVRTC finds registers for all of it.
    until: u32,
}

const fn tile(dim: usize, [rows, columns]: [usize; 2], warps: usize, stages: usize, parts: usize) -> Tile {
    Tile { dim, rows, columns, warps, stages, parts, until: u32::MAX }
}

/// Forward on tensor cores: the first that is legal is taken.
///
/// Warps own 32 rows where registers allow it: what they read of keys and values then serves twice as many products, and
/// shared memory is what holds tensor cores up. None of these was measured on a device yet.
const FORWARD: &[Tile] = &[
    tile(64, [128, 64], 4, 2, 1),
    Tile { until: 119, ..tile(128, [128, 32], 4, 2, 1) },
    tile(128, [64, 64], 4, 2, 1),
    tile(256, [128, 32], 8, 2, 1),
    tile(256, [64, 32], 4, 1, 1),
];

/// dq on tensor cores.
const QUERIES: &[Tile] = &[
    tile(64, [128, 32], 4, 2, 1),
    tile(128, [128, 64], 8, 2, 1),
    tile(128, [64, 32], 4, 2, 1),
    tile(256, [64, 32], 4, 2, 1),
    tile(256, [64, 16], 4, 1, 1),
];

/// dk and dv on tensor cores.
const KEYS: &[Tile] = &[
    tile(64, [128, 64], 8, 2, 1),
    tile(128, [128, 32], 8, 2, 1),
    tile(128, [64, 32], 4, 2, 1),
    tile(256, [64, 32], 4, 2, 2),
    tile(256, [64, 16], 4, 1, 2),
];

/// Forward in f32. All have 128 threads, 16 for a row.
const FORWARD_F32: &[Tile] = &[
    tile(128, [32, 32], 4, 1, 1),
    tile(256, [16, 32], 4, 1, 1),
    tile(256, [16, 16], 4, 1, 1),
    tile(1024, [8, 16], 4, 1, 1),
];

/// dq in f32.
const QUERIES_F32: &[Tile] =
    &[tile(128, [32, 32], 4, 1, 1), tile(256, [16, 16], 4, 1, 1), tile(1024, [8, 16], 4, 1, 1)];

/// dk and dv in f32.
const KEYS_F32: &[Tile] = &[
    tile(64, [32, 32], 4, 1, 1),
    tile(128, [32, 16], 4, 1, 1),
    tile(256, [16, 16], 4, 1, 1),
    tile(512, [8, 16], 4, 1, 1),
];

/// Tiles whose documents a block looks at together.
const ROUND: usize = 64;

/// Bytes of shared memory that kernels declare by themselves, rounded up.
const RESERVED: usize = 16;

/// Sizes of q [batch, t, heads, dim] and of k and v [batch, t, key_heads, dim].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    batch: usize,
    t: usize,
    heads: usize,
    key_heads: usize,
    dim: usize,
}

impl Shape {
    fn of(q: &Operand, k: &Operand) -> Result<Shape, Refusal> {
        let (&[ref lead @ .., t, heads, dim], &[.., key_heads, _]) = (&q.sizes[..], &k.sizes[..]) else {
            return Err(Refusal("attention needs axes T, heads and head dim".into()));
        };
        let shape = Shape { batch: lead.iter().product(), t, heads, key_heads, dim };
        // Positions and windows are added in 32 bits.
        if t > 1 << 30 {
            return Err(Refusal(format!("attention over {t} positions: at most {} have a kernel", 1 << 30)));
        }
        if heads == 0 || key_heads == 0 || dim == 0 {
            return Err(Refusal(format!("attention of {heads} heads of {key_heads} key heads of dim {dim}")));
        }
        Ok(shape)
    }

    fn is_empty(&self) -> bool {
        self.batch * self.t == 0
    }

    /// Bytes of what the backward kernels hand over: two numbers of each query and head.
    fn stats(&self) -> usize {
        self.batch * self.t * self.heads * 8
    }
}

/// What the templates need to know.
#[derive(Serialize)]
struct Context {
    owns_keys: bool,
    causal: bool,
    documents: bool,
    /// `none`, `memory` or `number`.
    window: &'static str,
    window_type: &'static str,
    heads: usize,
    key_heads: usize,
    dim: usize,
    rows: usize,
    columns: usize,
    threads: usize,
    round: usize,
    stages: usize,
    parts: usize,
    scale: String,
    /// Whether rows are pieces of 16 bytes, which one instruction copies to shared memory.
    is_async: bool,
    /// Whether two elements of a result can be stored as one.
    pairs: bool,
    /// Elements that one instruction loads where there are no tensor cores.
    vector: usize,
    low: &'static str,
    q: &'static str,
    k: &'static str,
    v: &'static str,
    out: &'static str,
    d_out: &'static str,
    grad_first: &'static str,
    grad_second: &'static str,
}

/// A launch, whichever of the two.
struct Work<'a> {
    spec: &'a Spec,
    device: &'a Device,
    mask: AttentionMask,
    scale: f64,
    shape: Shape,
    /// Operands before documents and window.
    before: usize,
}

/// One of the kernels.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Forward,
    Queries,
    Keys,
}

/// The call of [`mngc_compiler::ir::Op::Attention`].
pub fn forward(mask: AttentionMask, scale: F64, spec: &Spec, device: &Device) -> Result<Generated, Refusal> {
    let work = Work::new(mask, scale, spec, device, 3)?;
    let mut generated = Generated::default();
    if !work.shape.is_empty() {
        work.add(Part::Forward, &mut generated)?;
    }
    Ok(generated)
}

/// The calls of [`mngc_compiler::ir::Op::AttentionGrad`].
pub fn backward(mask: AttentionMask, scale: F64, spec: &Spec, device: &Device) -> Result<Generated, Refusal> {
    let work = Work::new(mask, scale, spec, device, 6)?;
    let mut generated = Generated::default();
    if !work.shape.is_empty() {
        generated.workspace = work.shape.stats();
        work.add(Part::Queries, &mut generated)?;
        work.add(Part::Keys, &mut generated)?;
    }
    Ok(generated)
}

impl<'a> Work<'a> {
    fn new(
        mask: AttentionMask,
        F64(scale): F64,
        spec: &'a Spec,
        device: &'a Device,
        before: usize,
    ) -> Result<Work<'a>, Refusal> {
        if spec.args.len() != before + mask.operands() {
            return Err(Refusal(format!("{}: {} operands", spec.kernel.name(), spec.args.len())));
        }
        if !(scale as f32).is_finite() {
            return Err(Refusal(format!("{}: scale {scale} is no f32", spec.kernel.name())));
        }
        let shape = Shape::of(&spec.args[0], &spec.args[1])?;
        Ok(Work { spec, device, mask, scale, shape, before })
    }

    /// The operand that holds the documents, and the window's.
    fn extra(&self) -> (Option<usize>, Option<usize>) {
        let documents = self.mask.documents.then_some(self.before);
        (documents, self.mask.window.then_some(self.before + usize::from(self.mask.documents)))
    }

    /// Operands that a kernel reads tiles of.
    fn tiled(&self) -> impl Iterator<Item = &'a Operand> {
        let d_out = if self.before == 6 { self.spec.args.get(5) } else { None };
        self.spec.args[..3].iter().chain(d_out)
    }

    /// The dtype of all that tensor cores multiply, if they can.
    fn low(&self) -> Option<DType> {
        let low = self.spec.args[0].dtype;
        (matches!(low, DType::BF16 | DType::F16) && self.tiled().all(|operand| operand.dtype == low)).then_some(low)
    }

    /// Adds the call of one kernel.
    fn add(&self, part: Part, generated: &mut Generated) -> Result<(), Refusal> {
        let (tile, low) = self.tile(part)?;
        let context = self.context(part, tile, low);
        let template = match (part, low) {
            (Part::Forward, Some(_)) => "attention_forward_mma.cu",
            (Part::Forward, None) => "attention_forward_fma.cu",
            (_, Some(_)) => "attention_backward_mma.cu",
            (_, None) => "attention_backward_fma.cu",
        };
        let name = match part {
            Part::Forward => "attention",
            Part::Queries => "attention_dq",
            Part::Keys => "attention_dkv",
        };
        let dtype = low.map_or("f32", DType::name);
        let family = format!("{name}_{dtype}_{}_{}x{}", self.shape.dim, tile.rows, tile.columns);
        let render = if low.is_some() { templates::render_mma } else { templates::render };
        let source = Arc::new(Source::new(&family, &render(template, &context)?));
        let heads = if part == Part::Keys { self.shape.key_heads } else { self.shape.heads };
        let blocks = self.shape.t.div_ceil(tile.rows) * self.shape.batch * heads * tile.parts;
        let grid = u32::try_from(blocks).ok().filter(|&n| n <= i32::MAX as u32).ok_or_else(|| {
            Refusal(format!("{}: {blocks} blocks, a grid has at most {}", self.spec.kernel.name(), i32::MAX))
        })?;
        let window = match self.extra().1.map(|at| self.spec.args[at].constant) {
            Some(Some(window)) => window.floor() as i32,
            _ => 0,
        };
        generated.calls.push(Call {
            source,
            grid: [grid, 1, 1],
            block: tile.warps as u32 * 32,
            shared: self.shared(part, tile, low),
            params: vec![Param::Pointers(self.pointers(part)), Param::I32(self.shape.t as i32), Param::I32(window)],
        });
        Ok(())
    }

    /// The first legal tile, and the dtype of tensor cores if it is for them.
    fn tile(&self, part: Part) -> Result<(Tile, Option<DType>), Refusal> {
        let (mma, fma) = match part {
            Part::Forward => (FORWARD, FORWARD_F32),
            Part::Queries => (QUERIES, QUERIES_F32),
            Part::Keys => (KEYS, KEYS_F32),
        };
        let limit = self.device.shared_per_block;
        let legal = |low| {
            move |tile: &&Tile| {
                let fits = self.shape.dim <= tile.dim && self.device.capability <= tile.until;
                fits && self.shared(part, **tile, low) + RESERVED <= limit
            }
        };
        let low = self.low();
        if let (Some(_), Some(&tile)) = (low, mma.iter().find(legal(low))) {
            return Ok((tile, low));
        }
        fma.iter().find(legal(None)).map(|&tile| (tile, None)).ok_or_else(|| {
            let (op, dim) = (self.spec.kernel.name(), self.shape.dim);
            Refusal(format!("{op} with heads of {dim}: no tile fits {limit} bytes of shared memory and 255 registers"))
        })
    }

    /// Bytes of dynamic shared memory, as the templates lay it out.
    fn shared(&self, part: Part, tile: Tile, low: Option<DType>) -> usize {
        let own = if part == Part::Forward { 1 } else { 2 };
        let (tiles, rest) = if low.is_some() {
            let pitch = self.shape.dim.next_multiple_of(16) + 8;
            let stats = match part {
                Part::Forward => 0,
                Part::Queries => tile.rows,
                Part::Keys => tile.stages * tile.columns,
            };
            ((own * tile.rows + 2 * tile.stages * tile.columns) * pitch * 2, stats * 8)
        } else {
            let fours = self.shape.dim.div_ceil(4);
            let pitch = (fours + usize::from(fours.is_multiple_of(2))) * 4;
            let stats = if part == Part::Forward { 0 } else { tile.columns };
            ((own * tile.rows + 2 * tile.columns) * pitch * 4, tile.rows * (tile.columns + 4) * 4 + stats * 8)
        };
        tiles + rest + if self.mask.documents { 2 * ROUND } else { 0 }
    }

    fn pointers(&self, part: Part) -> Vec<Address> {
        let (arg, result) = (Address::Arg, Address::Result);
        let mut pointers = vec![arg(0), arg(1), arg(2)];
        if part != Part::Forward {
            pointers.push(arg(5));
        }
        let (documents, window) = self.extra();
        pointers.extend(documents.map(arg));
        pointers.extend(window.filter(|&at| self.spec.args[at].constant.is_none()).map(arg));
        let stats = Address::Work(0);
        match part {
            Part::Forward => pointers.extend([result(0), result(1)]),
            Part::Queries => pointers.extend([stats, arg(3), arg(4), result(0)]),
            Part::Keys => pointers.extend([stats, result(1), result(2)]),
        }
        pointers
    }

    fn context(&self, part: Part, tile: Tile, low: Option<DType>) -> Context {
        let spec = self.spec;
        let name = |operand: Option<&Operand>| operand.map_or("", |operand| element(operand.dtype));
        let window = self.extra().1.map(|at| &spec.args[at]);
        let (out, d_out, first, second) = match part {
            Part::Forward => (spec.results.first(), None, None, None),
            Part::Queries => (spec.args.get(3), spec.args.get(5), spec.results.first(), spec.results.first()),
            Part::Keys => (spec.args.get(3), spec.args.get(5), spec.results.get(1), spec.results.get(2)),
        };
        Context {
            owns_keys: part == Part::Keys,
            causal: self.mask.causal,
            documents: self.mask.documents,
            window: match window {
                None => "none",
                Some(Operand { constant: None, .. }) => "memory",
                Some(_) => "number",
            },
            window_type: name(window),
            heads: self.shape.heads,
            key_heads: self.shape.key_heads,
            dim: self.shape.dim,
            rows: tile.rows,
            columns: tile.columns,
            threads: tile.warps * 32,
            round: ROUND,
            stages: tile.stages,
            parts: tile.parts,
            scale: format!("{:e}", self.scale as f32),
            is_async: self.tiled().all(|operand| self.divides(16 / operand.dtype.bytes(), operand)),
            pairs: spec.results.iter().all(|result| self.divides(2, result)),
            vector: if self.tiled().all(|operand| self.divides(4, operand)) { 4 } else { 1 },
            low: low.map_or("", element),
            q: name(spec.args.first()),
            k: name(spec.args.get(1)),
            v: name(spec.args.get(2)),
            out: name(out),
            d_out: name(d_out),
            grad_first: name(first),
            grad_second: name(second),
        }
    }

    /// Whether that many elements can be loaded or stored as one.
    fn divides(&self, n: usize, operand: &Operand) -> bool {
        self.shape.dim.is_multiple_of(n) && operand.alignment.is_multiple_of(n * operand.dtype.bytes())
    }
}
