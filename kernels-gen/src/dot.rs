//! Products of matrices: on tensor cores where both operands are bf16 or both f16, else in f32.
//!
//! The product of a tile goes through shared memory to its epilogue, a row program, which is generated from the IR and
//! the same for every tile.

use std::sync::Arc;

use mngc_compiler::ir::{BinaryOp, DType};
use mngc_compiler::schedule::kernel::{DotKernel, Epilogue, PRODUCT, Strides};
use mngc_compiler::schedule::rows::{Access, Instr, Kind, RowProgram, Src};
use serde::Serialize;

use crate::call::{Call, Generated, Param, Source};
use crate::device::Device;
use crate::kernel::index;
use crate::pointers::{self, Named, Pointers};
use crate::program::{self, Elementwise, Emit, Sizes, Space};
use crate::spec::{Operand, Refusal, Spec};
use crate::templates;

/// How a block computes a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    /// Rows of the product.
    pub m: usize,
    /// Columns of the product.
    pub n: usize,
    /// Terms of a step.
    pub k: usize,
    /// Tiles of operands under way.
    pub stages: usize,
    /// Warps along rows and columns; none where threads have 8 x 8 elements each.
    pub warps: Option<(usize, usize)>,
}

/// On tensor cores, the preferred first.
pub const MMA_TILES: [Tile; 3] = [
    Tile { m: 128, n: 128, k: 32, stages: 4, warps: Some((2, 4)) },
    Tile { m: 128, n: 64, k: 32, stages: 4, warps: Some((4, 2)) },
    Tile { m: 64, n: 64, k: 32, stages: 4, warps: Some((2, 2)) },
];

/// In f32, the preferred first.
pub const FMA_TILES: [Tile; 2] =
    [Tile { m: 128, n: 128, k: 8, stages: 2, warps: None }, Tile { m: 64, n: 64, k: 16, stages: 2, warps: None }];

/// Terms that a block must have left for a sum to be worth sharing.
const SHARED_TERMS: usize = 512;
/// Blocks that share a sum at most.
const MOST_SPLITS: usize = 16;

impl Tile {
    /// Threads of a block.
    pub fn threads(&self) -> usize {
        match self.warps {
            Some((m, n)) => m * n * 32,
            None => self.m / 8 * (self.n / 8),
        }
    }

    /// Bytes of shared memory: tiles of operands, or that of the product, which takes their place.
    pub fn shared(&self, a_inner: bool, b_inner: bool) -> usize {
        let product = self.m * (self.n + 4) * 4;
        let operands = match self.warps {
            Some(_) => {
                let tile = |inner: bool, long: usize| {
                    if inner { long * (self.k + 8) } else { self.k * (long + 8) }
                };
                2 * self.stages * (tile(a_inner, self.m) + tile(b_inner, self.n))
            }
            None => 4 * self.stages * self.k * (self.m + 4 + self.n + 4),
        };
        product.max(operands)
    }

    /// Whether a device has room for a block.
    pub fn is_legal(&self, device: &Device, a_inner: bool, b_inner: bool) -> bool {
        self.shared(a_inner, b_inner) <= device.shared_per_block
    }

    fn tiles(&self, dot: &DotKernel) -> usize {
        let (m, n) = (dot.m.div_ceil(self.m), dot.n.div_ceil(self.n));
        if dot.symmetric { m * (m + 1) / 2 } else { m * n }
    }

    /// Of tiles in order of preference, the first that gives every multiprocessor one, else the last.
    fn choose(tiles: &[Tile], dot: &DotKernel, blocks: usize, device: &Device) -> Option<Tile> {
        let (a_inner, b_inner) = (is_inner(dot.a), is_inner(dot.b));
        // Tiles of a symmetric product must be their own mirror.
        let fits = |tile: &&Tile| tile.is_legal(device, a_inner, b_inner) && (!dot.symmetric || tile.m == tile.n);
        let legal: Vec<&Tile> = tiles.iter().filter(fits).collect();
        let fills = |tile: &&&Tile| {
            let wastes_little = dot.m > tile.m / 2 && dot.n > tile.n / 2;
            wastes_little && tile.tiles(dot) * blocks >= device.multiprocessors
        };
        legal.iter().find(fills).or(legal.last()).map(|tile| **tile)
    }
}

/// Whether neighbours in memory are terms of one sum. (Where the terms are one, they are as good as neighbours.)
fn is_inner(s: Strides) -> bool {
    s.inner == 1 || s.row != 1
}

/// Whether runs of 8 elements of an operand of 2-byte elements lie at multiples of 16 bytes.
fn is_async(s: Strides, operand: &Operand) -> bool {
    let (along, across) = if is_inner(s) { (s.inner, s.row) } else { (s.row, s.inner) };
    along == 1 && across.is_multiple_of(8) && s.batch.is_multiple_of(8) && operand.alignment >= 16
}

/// The epilogue as a program.
fn epilogue(dot: &DotKernel, spec: &Spec) -> RowProgram {
    let elements = dot.batch * dot.m * dot.n;
    let load = |dst, operand| Instr::Load { dst, operand, access: Access::Full };
    let store = |a| Instr::Store { result: 0, a: Src::Reg(a), access: Access::Full };
    match &dot.epilogue {
        Epilogue::Rows(program) => program.clone(),
        Epilogue::Store => {
            RowProgram { elements, tile: 1, regs: vec![Kind::F32], instrs: vec![load(0, PRODUCT), store(0)] }
        }
        Epilogue::Accumulate(operand) => {
            let is_number = spec.args.get(*operand).is_some_and(|arg| arg.constant.is_some());
            let access = if is_number { Access::Scalar } else { Access::Full };
            let other = Instr::Load { dst: 1, operand: *operand, access };
            let add = Instr::Binary { op: BinaryOp::Add, dst: 2, a: Src::Reg(0), b: Src::Reg(1) };
            let instrs = vec![load(0, PRODUCT), other, add, store(2)];
            RowProgram { elements, tile: 1, regs: vec![Kind::F32; 3], instrs }
        }
    }
}

/// Elements that an epilogue handles at once: a divisor of the row, 16 bytes of the widest tensor that it walks along.
pub fn width(n: usize, programs: &[&RowProgram], spec: &Spec) -> usize {
    let bytes = |i: &Instr| match *i {
        Instr::Load { operand, access: Access::Full, .. } => spec.args.get(operand).map(|o| o.dtype.bytes()),
        Instr::Store { result, access: Access::Full, .. } => spec.results.get(result).map(|o| o.dtype.bytes()),
        _ => None,
    };
    let widest = programs.iter().flat_map(|p| &p.instrs).filter_map(bytes).max().unwrap_or(4);
    [8, 4, 2].into_iter().find(|v| v * widest <= 16 && n.is_multiple_of(*v)).unwrap_or(1)
}

/// The calls that compute a product.
pub fn generate(dot: &DotKernel, spec: &Spec, device: &Device) -> Result<Generated, Refusal> {
    if spec.results.iter().all(Operand::is_empty) {
        return Ok(Generated::default());
    }
    let [Some(a), Some(b)] = [spec.args.first(), spec.args.get(1)] else {
        return Err(Refusal("a product has two operands".into()));
    };
    if a.constant.is_some() || b.constant.is_some() {
        return Err(Refusal("a product of a number".into()));
    }
    let low = [DType::BF16, DType::F16];
    let is_mma = a.dtype == b.dtype && low.contains(&a.dtype);
    let tiles: &[Tile] = if is_mma { &MMA_TILES } else { &FMA_TILES };
    let blocks = dot.batch * spec.instances;
    let tile = Tile::choose(tiles, dot, blocks, device).ok_or_else(|| {
        Refusal(format!(
            "dot of {} x {} x {}: no tile fits the {} bytes of shared memory of a block of {}",
            dot.m, dot.n, dot.k, device.shared_per_block, device.name
        ))
    })?;
    let count = tile.tiles(dot);
    let splits = splits(dot, &tile, count * blocks, device);
    let program = epilogue(dot, spec);
    let vec = width(dot.n, &[&program], spec);
    let space = Space::of_columns(dot.n, vec);
    let mut sizes = Sizes::default();
    let given = [(PRODUCT, "product".to_string())];
    let body = Emit::new(&program, &space, &mut sizes, &spec.args, &spec.results, &given, &[])
        .program(&program, &mut Elementwise)?;
    let more = pointers::numbers(&[&program], spec, &sizes);
    let mut places = Pointers::new(spec);
    let (mut workspace, mut counters) = (0, 0);
    if splits > 1 {
        let parts = dot.batch * count * splits * tile.m * tile.n * 4;
        places.work("float* parts", 0, parts);
        places.counters("u32* counters", 0, 4 * dot.batch * count);
        (workspace, counters) = (parts * spec.instances, 4 * dot.batch * count * spec.instances);
    }
    let tail = Tail {
        split: splits > 1,
        symmetric: dot.symmetric,
        body: body.trim_end().to_string(),
        more_parameters: more.iter().map(|n| format!(", const {} {}", n.ty, n.name)).collect(),
        more_arguments: more.iter().map(|n| format!(", {}", n.name)).collect(),
    };
    let head = Head {
        pointers: places.fields(),
        bm: tile.m,
        bn: tile.n,
        bk: tile.k,
        threads: tile.threads(),
        vec,
        symmetric: dot.symmetric,
        split: splits > 1,
    };
    let (warps_m, warps_n) = tile.warps.unwrap_or_default();
    let context = Context {
        what: what(dot, a, b),
        head: templates::part("dot_head.cu", &head)?,
        tail: templates::part("dot_tail.cu", &tail)?,
        parameters: parameters(&places, &more),
        index: index(dot.batch * dot.m * dot.n),
        element: program::element(a.dtype),
        stages: tile.stages,
        warps_m,
        warps_n,
        a_inner: is_inner(dot.a),
        b_inner: is_inner(dot.b),
        a_async: is_async(dot.a, a),
        b_async: is_async(dot.b, b),
        more_arguments: tail.more_arguments.clone(),
    };
    let text = match is_mma {
        true => templates::render_mma("dot_mma.cu", &context)?,
        false => templates::render("dot_fma.cu", &context)?,
    };
    let strides = |s: Strides| Param::U64s(vec![s.batch as u64, s.row as u64, s.inner as u64]);
    let size = |n: usize| u32::try_from(n).map_err(|_| Refusal(format!("dot: a size of {n} exceeds 32 bits")));
    let all = [dot.m, dot.n, dot.k, dot.batch, splits, dot.m.div_ceil(tile.m), dot.n.div_ceil(tile.n)];
    let all = all.into_iter().map(size).collect::<Result<Vec<u32>, Refusal>>()?;
    let mut params = places.params();
    params.extend([strides(dot.a), strides(dot.b), Param::U32s(all), Param::F32(dot.scale as f32)]);
    params.extend(more.into_iter().map(|n| n.param));
    // What a grid has at most in its last dimensions.
    const MOST: usize = 65535;
    let layers = dot.batch * splits;
    if layers > MOST || spec.instances > MOST {
        return Err(Refusal(format!(
            "dot: {} products at once, and a launch has {MOST} at most",
            dot.batch.max(spec.instances)
        )));
    }
    let layers = size(layers)?;
    let kind = if dot.symmetric { "symmetric_dot" } else { "dot" };
    let call = Call {
        source: Arc::new(Source::new(&format!("{kind}_{}_{}x{}", a.dtype.name(), tile.m, tile.n), &text)),
        grid: [size(count)?, spec.instances as u32, layers],
        block: tile.threads() as u32,
        shared: tile.shared(is_inner(dot.a), is_inner(dot.b)),
        params,
    };
    Ok(Generated { calls: vec![call], workspace, counters })
}

fn parameters(places: &Pointers, more: &[Named]) -> String {
    let own = "const Strides sa, const Strides sb, const Sizes s, const float scale";
    let more: String = more.iter().map(|n| format!(", const {} {}", n.ty, n.name)).collect();
    format!("{}, {own}{more}", places.parameters())
}

/// How many blocks share the sums of a tile: as many as there are multiprocessors without work, where sums are long.
fn splits(dot: &DotKernel, tile: &Tile, blocks: usize, device: &Device) -> usize {
    let idle = device.multiprocessors / blocks.max(1);
    let steps = dot.k.div_ceil(tile.k);
    let worth = dot.k / SHARED_TERMS;
    let wanted = idle.min(worth).min(MOST_SPLITS).min(steps);
    // Every one of them has a part.
    if wanted < 2 { 1 } else { steps.div_ceil(steps.div_ceil(wanted)) }
}

fn what(dot: &DotKernel, a: &Operand, b: &Operand) -> String {
    let order = |s: Strides| if is_inner(s) { "terms" } else { "rows" };
    format!(
        "{}, {} by {}: neighbours of a are {}, of b {}",
        if dot.symmetric { "Half of a symmetric product" } else { "A product" },
        a.dtype.name(),
        b.dtype.name(),
        order(dot.a),
        if is_inner(dot.b) { "terms" } else { "columns" },
    )
}

#[derive(Serialize)]
struct Head {
    pointers: Vec<String>,
    bm: usize,
    bn: usize,
    bk: usize,
    threads: usize,
    vec: usize,
    symmetric: bool,
    split: bool,
}

#[derive(Serialize)]
struct Tail {
    split: bool,
    symmetric: bool,
    body: String,
    more_parameters: String,
    more_arguments: String,
}

#[derive(Serialize)]
struct Context {
    what: String,
    head: String,
    tail: String,
    parameters: String,
    index: &'static str,
    element: &'static str,
    stages: usize,
    warps_m: usize,
    warps_n: usize,
    a_inner: bool,
    b_inner: bool,
    a_async: bool,
    b_async: bool,
    more_arguments: String,
}
