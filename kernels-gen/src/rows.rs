//! Row programs as kernels: teams of threads, each with a row of the space in its registers.
//!
//! Elementwise programs are rows of as many elements as one instruction moves. Folds over rows are folds of a team; folds
//! over the whole space end in the last block that finishes, in a fixed order.

use std::sync::Arc;

use mngc_compiler::ir::ReduceKind;
use mngc_compiler::schedule::rows::{Access, Instr, Kind, Reg, RowProgram, Src};
use serde::Serialize;

use crate::call::{Call, Generated, Param, Source};
use crate::device::Device;
use crate::few;
use crate::long::{self, Pass};
use crate::nothing;
use crate::pointers::{self, Named, Pointers};
use crate::program::{self, Emit, Rows, Sizes, Space};
use crate::reduce;
use crate::spec::{Operand, Refusal, Spec};
use crate::templates;

/// Threads of a block whose teams are smaller.
const THREADS: usize = 256;
/// Threads of the largest team.
const LARGEST_TEAM: usize = 1024;
/// Values that a thread should hold in registers at most.
const HELD: usize = 128;
/// Blocks for each multiprocessor where blocks fold what they have seen.
const FOLDING_BLOCKS: usize = 2;

/// How the elements of a row are dealt out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Elements of a row.
    pub len: usize,
    /// Rotary embeddings pair the first half of a row with the second: 2 parts, so that a thread has both; else 1.
    pub parts: usize,
    /// Neighbours in a thread.
    pub vec: usize,
    /// Threads of a team, a power of two.
    pub team: usize,
    /// Runs of neighbours in a thread and part.
    pub runs: usize,
}

impl Shape {
    fn new(program: &RowProgram, spec: &Spec) -> Result<Shape, Refusal> {
        let len = row(program);
        let widest = widest(program, spec);
        let is_flat = len == 1;
        if is_flat {
            // Without rows, a row is what one thread moves.
            let vec = powers(widest).find(|vec| program.elements.is_multiple_of(*vec)).unwrap_or(1);
            return Ok(Shape { len: vec, parts: 1, vec, team: 1, runs: 1 });
        }
        let rope = program.instrs.iter().any(|i| matches!(i, Instr::Rope { len: l, .. } if *l == len));
        let parts = if rope { 2 } else { 1 };
        let part = len / parts;
        let vec = powers(widest).find(|vec| part.is_multiple_of(*vec)).unwrap_or(1);
        let chunks = part / vec;
        // Neighbours of a warp first, then more of the block while registers would not hold the rest.
        let mut team = 1;
        while team < 32 && team * 2 <= chunks {
            team *= 2;
        }
        let held = |team: usize| parts * chunks.div_ceil(team) * vec * program.regs.len();
        while team < LARGEST_TEAM && team * 2 <= chunks && held(team) > HELD {
            team *= 2;
        }
        Ok(Shape { len, parts, vec, team, runs: chunks.div_ceil(team) })
    }

    fn threads(&self) -> usize {
        if self.team > 32 { self.team } else { THREADS }
    }

    fn teams(&self) -> usize {
        self.threads() / self.team
    }

    fn is_exact(&self) -> bool {
        self.parts * self.runs * self.team * self.vec == self.len
    }
}

/// Elements of a row: of what is folded along rows, and of what is folded along columns.
fn row(program: &RowProgram) -> usize {
    program.instrs.iter().fold(program.tile, |len, instr| match instr {
        Instr::Columns { period, .. } => lcm(len, *period),
        _ => len,
    })
}

fn lcm(a: usize, b: usize) -> usize {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    a / x * b
}

/// Powers of two from `most` down.
pub(crate) fn powers(most: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(most), |n| (*n > 1).then_some(n / 2))
}

/// Elements of 16 bytes of the narrowest tensor that is walked along, 8 at most.
pub(crate) fn widest(program: &RowProgram, spec: &Spec) -> usize {
    let operand = |i: &Instr| match *i {
        Instr::Load { operand, access: Access::Full, .. } => spec.args.get(operand),
        Instr::Store { result, access: Access::Full, .. } => spec.results.get(result),
        _ => None,
    };
    let narrowest = program.instrs.iter().filter_map(operand).map(|o| o.dtype.bytes()).min().unwrap_or(4);
    (16 / narrowest).min(8)
}

/// What the folds of a kernel need around its loop.
pub(crate) struct Folds<'a> {
    shape: Shape,
    /// Statements before and after the loop.
    before: String,
    after: String,
    /// Tables in front of the kernel.
    tables: Vec<String>,
    /// Bytes of workspace for one block and instance.
    partial: Vec<usize>,
    /// Bytes of dynamic shared memory that columns need.
    columns: usize,
    /// Bytes that rows shorter than those of a team need.
    short_rows: usize,
    /// Angles that threads have sines and cosines of.
    angles: Vec<String>,
    results: &'a [Operand],
    elements: usize,
    /// Which way through rows that are longer than a block holds; none where it holds them.
    pub pass: Option<Pass>,
}

impl<'a> Folds<'a> {
    /// Nothing yet.
    pub fn new(shape: Shape, spec: &'a Spec, elements: usize) -> Folds<'a> {
        Folds {
            shape,
            before: String::new(),
            after: String::new(),
            tables: Vec::new(),
            partial: Vec::new(),
            columns: 0,
            short_rows: 0,
            angles: Vec::new(),
            results: &spec.results,
            elements,
            pass: None,
        }
    }
}

/// The calls that run a row program.
pub fn generate(program: &RowProgram, spec: &Spec, device: &Device) -> Result<Generated, Refusal> {
    if program.elements == 0 {
        return nothing::generate(program, spec);
    }
    if let Some(made) = few::generate(program, spec)? {
        return Ok(made);
    }
    if let Some((kind, len)) = plain_fold(program, spec) {
        // Rows may be as long as a sequence, which is in no text: there their length is a parameter.
        let mut whole = spec.clone();
        whole.args[0].sizes = vec![program.elements / len, len];
        return reduce::generate(kind, &[1], &whole, device);
    }
    if row(program) > HELD * LARGEST_TEAM {
        return long::generate(program, spec, device);
    }
    let shape = Shape::new(program, spec)?;
    let rows = program.elements / shape.len;
    let index = if program.elements < 1 << 31 { "u32" } else { "u64" };
    let local = "local(e, lane)".to_string();
    let exact = shape.is_exact();
    let space = Space {
        len: shape.len,
        len_text: shape.len.to_string(),
        row: "row".into(),
        base: "base".into(),
        local,
        live: (!exact).then(|| "live(e, lane)".into()),
        vec: shape.vec,
        chunk: "local(c, lane)".into(),
        chunk_live: (!exact).then(|| "live(c, lane)".into()),
        held: "E".into(),
        index,
    };
    let mut sizes = Sizes::default();
    let mut folds = Folds::new(shape, spec, program.elements);
    let body =
        Emit::new(program, &space, &mut sizes, &spec.args, &spec.results, &[], &[]).program(program, &mut folds)?;
    let has_folds = !folds.partial.is_empty();
    let mut blocks = rows.div_ceil(shape.teams());
    if has_folds {
        blocks = blocks.min(FOLDING_BLOCKS * device.multiprocessors);
    }
    let shared = folds.short_rows.max(folds.columns);
    if shared > device.shared_per_block {
        return Err(Refusal(format!(
            "rows of {} elements need {shared} bytes of shared memory, and a block of {} has {}",
            shape.len, device.name, device.shared_per_block
        )));
    }
    let mut places = Pointers::new(spec);
    let mut workspace = 0;
    let mut counters = 0;
    for (i, bytes) in folds.partial.iter().enumerate() {
        let each = (bytes * blocks).next_multiple_of(256);
        places.work(&format!("float* w{i}"), workspace, each);
        workspace += each * spec.instances;
    }
    if has_folds {
        places.counters("u32* counter", 0, 4);
        counters = 4 * spec.instances;
    }
    let mut parameters = vec![places.parameters(), format!("const {index} rows")];
    let fields = places.fields();
    let mut params = places.params();
    params.push(if index == "u32" { Param::U32(rows as u32) } else { Param::U64(rows as u64) });
    for Named { ty, name, param } in pointers::numbers(&[program], spec, &sizes) {
        parameters.push(format!("const {ty} {name}"));
        params.push(param);
    }
    let text = templates::render(
        "rows.cu",
        &Context {
            what: what(program),
            pointers: fields,
            parameters: parameters.join(", "),
            index,
            threads: shape.threads(),
            team: shape.team,
            len: shape.len,
            parts: shape.parts,
            runs: shape.runs,
            vec: shape.vec,
            tables: folds.tables,
            shared: shared > 0,
            before: folds.before.trim_end().to_string(),
            body: body.trim_end().to_string(),
            after: folds.after.trim_end().to_string(),
        },
    )?;
    let call = Call {
        source: Arc::new(Source::new("rows", &text)),
        grid: [u32::try_from(blocks).map_err(|_| Refusal(format!("{blocks} blocks")))?, spec.instances as u32, 1],
        block: shape.threads() as u32,
        shared,
        params,
    };
    Ok(Generated { calls: vec![call], workspace, counters })
}

/// The kind and the length of the rows, where a program folds the rows of a tensor and does nothing else.
fn plain_fold(program: &RowProgram, spec: &Spec) -> Option<(ReduceKind, usize)> {
    let [
        Instr::Load { dst: loaded, operand: 0, access: Access::Full },
        Instr::RowReduce { kind, dst: total, a, len },
        Instr::Store { result: 0, a: Src::Reg(stored), access: Access::Row { .. } | Access::Scalar },
    ] = program.instrs[..]
    else {
        return None;
    };
    let is_tensor = matches!(&spec.args[..], [arg] if arg.constant.is_none()) && spec.results.len() == 1;
    (is_tensor && loaded == a && total == stored).then_some((kind, len))
}

/// The template's places.
#[derive(Serialize)]
struct Context {
    what: String,
    pointers: Vec<String>,
    parameters: String,
    index: &'static str,
    threads: usize,
    team: usize,
    len: usize,
    parts: usize,
    runs: usize,
    vec: usize,
    tables: Vec<String>,
    shared: bool,
    before: String,
    body: String,
    after: String,
}

/// What a program does, for people.
pub(crate) fn what(program: &RowProgram) -> String {
    let mut names: Vec<&str> = Vec::new();
    for instr in &program.instrs {
        if matches!(instr, Instr::Load { .. } | Instr::Store { .. }) {
            continue;
        }
        let name = name(instr);
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if names.is_empty() { "copies".into() } else { names.join(", ") }
}

/// What an instruction does.
pub(crate) fn name(instr: &Instr) -> &'static str {
    match instr {
        Instr::Load { .. } => "load",
        Instr::Store { .. } => "store",
        Instr::Iota { .. } => "iota",
        Instr::Unary { op, .. } => op.name(),
        Instr::Binary { op, .. } => op.name(),
        Instr::Compare { op, .. } => op.name(),
        Instr::Select { .. } => "select",
        Instr::Cast { .. } => "cast",
        Instr::RowReduce { .. } => "reduce",
        Instr::Softmax { .. } => "softmax",
        Instr::SoftmaxGrad { .. } => "softmax_grad",
        Instr::RmsNorm { .. } => "rms_norm",
        Instr::RmsNormGrad { .. } => "rms_norm_grad",
        Instr::LayerNorm { .. } => "layer_norm",
        Instr::LayerNormGrad { .. } => "layer_norm_grad",
        Instr::Rope { .. } => "rope",
        Instr::Total { .. } => "sum of all",
        Instr::Columns { .. } => "sums of columns",
    }
}

impl Folds<'_> {
    /// The fold of each row of `len` of an expression of elements, finished; one number where that is the team's row.
    fn row(&mut self, emit: &mut Emit, kind: ReduceKind, of: Kind, len: usize, element: &str) -> (String, bool) {
        let (class, neutral) = program::fold(kind, of);
        let ty = program::folding(kind, of);
        let element = program::folded(kind, element);
        if let Some(pass) = &mut self.pass {
            let name = format!("fold{}", pass.next);
            if pass.next == pass.number {
                emit.each(format!("if (local(at, e, lane) < LEN) {name} = {class}::of({name}, {element});"));
                let total = program::finished(kind, &format!("team_fold<{class}, TEAM>({name})"), &len.to_string());
                pass.made = Some((format!("{ty} {name} = {neutral};"), format!("{name} = {total};")));
            }
            pass.next += 1;
            // What comes after a fold that is not there yet is of no use in this pass.
            return (if pass.next > pass.number + 1 { neutral } else { name }, true);
        }
        let is_whole = len == self.shape.len;
        if is_whole {
            let name = emit.name();
            emit.line(&format!("{ty} {name} = {neutral};"));
            let live = emit.space.live.as_ref().map(|live| format!("if ({live}) ")).unwrap_or_default();
            emit.each(format!("{live}{name} = {class}::of({name}, {element});"));
            let total = emit.name();
            let fold = format!("team_fold<{class}, TEAM>({name})");
            let done = program::finished(kind, &fold, &len.to_string());
            emit.line(&format!("const {} {total} = {done};", program::register(of)));
            return (total, true);
        }
        // Rows shorter than the team's: through shared memory, each folded by one thread.
        let bytes = if ty == "double" { 8 } else { 4 };
        self.short_rows = self.short_rows.max(2 * self.shape.teams() * self.shape.len * bytes);
        let live = emit.space.live.as_ref().map(|live| format!("if ({live}) ")).unwrap_or_default();
        let count = self.shape.len / len;
        let total = emit.fresh_array(of);
        emit.line("team_sync<TEAM>();");
        emit.line(&format!("{ty}* const in_{total} = ({ty}*)shared + threadIdx.x / TEAM * (2 * LEN);"));
        emit.each(format!("{live}in_{total}[local(e, lane)] = {element};"));
        emit.line("team_sync<TEAM>();");
        emit.line(&format!("for (int i = lane; i < {count}; i += TEAM) {{"));
        emit.line(&format!("  {ty} x = {neutral};"));
        emit.line(&format!("  for (int k = 0; k < {len}; ++k) x = {class}::of(x, in_{total}[i * {len} + k]);"));
        emit.line(&format!("  in_{total}[LEN + i] = {};", program::finished(kind, "x", &len.to_string())));
        emit.line("}");
        emit.line("team_sync<TEAM>();");
        emit.each(format!("{live}{total}[e] = in_{total}[LEN + local(e, lane) / {len}];"));
        emit.line("");
        (format!("{total}[e]"), false)
    }

    /// An array that an expression gives element by element.
    fn made(&mut self, emit: &mut Emit, expression: &str) -> (String, bool) {
        let name = emit.fresh_array(Kind::F32);
        emit.each(format!("{name}[e] = {expression};"));
        (name, false)
    }

    /// 1 / sqrt(mean + eps), where `mean` is one for the row or that of element `e`.
    fn inverse_root(&mut self, emit: &mut Emit, mean: &str, eps: f64) -> String {
        let expression = format!("1.0f / sqrtf({mean} + {})", program::float(eps));
        if mean.ends_with("[e]") {
            return format!("{}[e]", self.made(emit, &expression).0);
        }
        if self.pass.is_some() {
            // A fold of the pass before; what is made in the loop over a row does not outlive it.
            return format!("({expression})");
        }
        let name = emit.name();
        emit.line(&format!("const float {name} = {expression};"));
        name
    }

    fn softmax(&mut self, emit: &mut Emit, a: Reg, len: usize) -> Result<(String, bool), Refusal> {
        let (a, _) = emit.reg(a)?;
        let (top, _) = self.row(emit, ReduceKind::Max, Kind::F32, len, &a);
        // A row of −∞ only gives zeros.
        let (power, _) = self.made(emit, &format!("{top} == -INF ? 0.0f : expf({a} - {top})"));
        let (sum, _) = self.row(emit, ReduceKind::Sum, Kind::F32, len, &format!("{power}[e]"));
        Ok(self.made(emit, &format!("{top} == -INF ? 0.0f : {power}[e] / {sum}")))
    }

    fn layer_norm(&mut self, emit: &mut Emit, a: &str, len: usize, eps: f64) -> (String, String) {
        let (mean, _) = self.row(emit, ReduceKind::Mean, Kind::F32, len, a);
        let (centred, _) = self.made(emit, &format!("{a} - {mean}"));
        let square = format!("{centred}[e] * {centred}[e]");
        let (variance, _) = self.row(emit, ReduceKind::Mean, Kind::F32, len, &square);
        let inverse = self.inverse_root(emit, &variance, eps);
        (format!("{centred}[e]"), inverse)
    }

    fn rope(&mut self, emit: &mut Emit, instr: &Instr) -> Result<(String, bool), Refusal> {
        let Instr::Rope { a, position, len, base, inverse, .. } = instr else {
            return Err(Refusal("not a rotary embedding".into()));
        };
        let half = len / 2;
        let turns: Vec<String> = (0..half)
            .map(|i| format!("{:?}", base.powf(-2.0 * i as f64 / *len as f64) / std::f64::consts::TAU))
            .collect();
        let about = format!("// Turns of pair i at position 1: base^(-2i / {len}) / 2 pi, base = {base:?}.");
        let values = format!("[{half}] = {{{}}};", turns.join(", "));
        let known = self.tables.iter().position(|table| table.ends_with(&values));
        let table = format!("TURNS{}", known.unwrap_or(self.tables.len()));
        if known.is_none() {
            self.tables.push(format!("{about}\n__device__ const double {table}{values}"));
        }
        let x = emit.array(*a)?;
        let (position, _) = emit.reg(*position)?;
        let name = emit.fresh_array(Kind::F32);
        let live = emit.space.live.as_ref().map(|live| format!("if ({live}) ")).unwrap_or_default();
        // Elements meet across the loop.
        emit.flush();
        if *len == self.shape.len {
            let angle = format!("{position} * {table}[local(e, lane)]");
            let (sine, cosine) = self.turns(emit, &angle, &live);
            let other = "e + E / 2";
            let [first, second] = if *inverse { ["-", "+"] } else { ["+", "-"] };
            emit.line("#pragma unroll");
            emit.line("for (int e = 0; e < E / 2; ++e) {");
            emit.line(&format!("  {name}[e] = {x}[e] * {cosine}[e] {first} {x}[{other}] * {sine}[e];"));
            emit.line(&format!("  {name}[{other}] = {x}[{other}] * {cosine}[e] {second} {x}[e] * {sine}[e];"));
            emit.line("}");
        } else {
            let sign = if *inverse { "-" } else { "" };
            self.short_rows = self.short_rows.max(2 * self.shape.teams() * self.shape.len * 4);
            emit.line("team_sync<TEAM>();");
            emit.line(&format!("float* const in_{name} = shared + threadIdx.x / TEAM * (2 * LEN);"));
            emit.each(format!("{live}in_{name}[local(e, lane)] = {x}[e];"));
            emit.line("team_sync<TEAM>();");
            emit.each(format!("{live}{{"));
            emit.each(format!("  const int at = local(e, lane), pair = at % {half};"));
            emit.each("  float sine, cosine;".into());
            emit.each(format!("  turn({position} * {table}[pair], &sine, &cosine);"));
            emit.each(format!(
                "  const float other = at % {len} < {half} ? in_{name}[at + {half}] : -in_{name}[at - {half}];"
            ));
            emit.each(format!("  {name}[e] = {x}[e] * cosine + {sign}(other * sine);"));
            emit.each("}".into());
            emit.line("");
        }
        Ok((name, false))
    }

    /// Arrays of the sines and cosines of the pairs that a thread has; those of the same angles are made once.
    fn turns(&mut self, emit: &mut Emit, angle: &str, live: &str) -> (String, String) {
        let known = self.angles.iter().position(|known| known == angle);
        let number = known.unwrap_or(self.angles.len());
        let names = (format!("sine{number}"), format!("cosine{number}"));
        if known.is_none() {
            let (sine, cosine) = &names;
            self.angles.push(angle.to_string());
            emit.line(&format!("float {sine}[E / 2], {cosine}[E / 2];"));
            emit.line("#pragma unroll");
            emit.line(&format!("for (int e = 0; e < E / 2; ++e) {live}turn({angle}, &{sine}[e], &{cosine}[e]);"));
        }
        names
    }

    /// A fold over the whole space: each thread folds what it sees, the last block folds the blocks.
    fn total(&mut self, emit: &mut Emit, result: usize, kind: ReduceKind, a: Src) -> Result<(), Refusal> {
        let of = match self.results.get(result) {
            Some(operand) if operand.dtype.is_float() => Kind::F32,
            _ => Kind::I32,
        };
        let (element, _) = emit.src(a, of)?;
        let (class, neutral) = program::fold(kind, of);
        let ty = program::folding(kind, of);
        let at = self.partial.len();
        self.before.push_str(&format!("  {ty} total{at} = {neutral};\n"));
        let live = emit.space.live.as_ref().map(|live| format!("if ({live}) ")).unwrap_or_default();
        emit.each(format!("{live}total{at} = {class}::of(total{at}, {});", program::folded(kind, &element)));
        let element = program::element(self.results[result].dtype);
        let count = match kind {
            ReduceKind::Mean => emit.sizes.name(self.elements)?,
            _ => String::new(),
        };
        self.partial.push(if ty == "double" { 8 } else { 4 });
        self.first_fold();
        self.after.insert_str(
            self.after.find("  if (gridDim.x").unwrap_or(0),
            &format!(
                "  total{at} = team_fold<{class}, THREADS>(total{at});\n  if (threadIdx.x == 0) (({ty}*)p.w{at})[blockIdx.x] = total{at};\n"
            ),
        );
        self.after.push_str(&format!(
            "  {{\n    {ty} x = {neutral};\n    for (u32 b = threadIdx.x; b < gridDim.x; b += THREADS) x = {class}::of(x, (({ty}*)p.w{at})[b]);\n    x = team_fold<{class}, THREADS>(x);\n    if (threadIdx.x == 0) p.r{result}[0] = narrow<{element}>({});\n  }}\n",
            program::finished(kind, "x", &count)
        ));
        Ok(())
    }

    /// The border between what every block does at its end and what the last one does.
    fn first_fold(&mut self) {
        if !self.after.contains("is_last_block") {
            self.after
                .push_str("  if (gridDim.x > 1 && !is_last_block(p.counter, gridDim.x)) return;\n  __syncthreads();\n");
        }
    }

    /// Sums of columns: each thread sums the elements that it holds over the rows of its team, then teams and blocks are
    /// summed in order.
    fn columns(&mut self, emit: &mut Emit, result: usize, a: Src, period: usize) -> Result<(), Refusal> {
        let (element, _) = emit.src(a, Kind::F32)?;
        let at = self.partial.len();
        self.before.push_str(&format!("  float column{at}[E] = {{}};\n"));
        let live = emit.space.live.as_ref().map(|live| format!("if ({live}) ")).unwrap_or_default();
        emit.each(format!("{live}column{at}[e] += {element};"));
        let ty = program::element(self.results.get(result).ok_or_else(|| Refusal("no such result".into()))?.dtype);
        self.partial.push(4 * self.shape.len);
        let gather = if self.shape.teams() > 1 {
            self.columns = 4 * self.shape.len;
            format!(
                "  __syncthreads();\n  for (int team = 0; team < TEAMS; ++team) {{\n    if ((int)(threadIdx.x / TEAM) == team)\n#pragma unroll\n      for (int e = 0; e < E; ++e)\n        {live}shared[local(e, lane)] = (team ? shared[local(e, lane)] : 0.0f) + column{at}[e];\n    __syncthreads();\n  }}\n  for (int i = threadIdx.x; i < LEN; i += THREADS) p.w{at}[(u64)blockIdx.x * LEN + i] = shared[i];\n"
            )
        } else {
            format!(
                "#pragma unroll\n  for (int e = 0; e < E; ++e)\n    {live}p.w{at}[(u64)blockIdx.x * LEN + local(e, lane)] = column{at}[e];\n"
            )
        };
        self.first_fold();
        self.after.insert_str(self.after.find("  if (gridDim.x").unwrap_or(0), &gather);
        self.after.push_str(&format!(
            "  for (int i = threadIdx.x; i < {period}; i += THREADS) {{\n    float x = 0;\n    for (u32 b = 0; b < gridDim.x; ++b)\n      for (int k = i; k < LEN; k += {period}) x += p.w{at}[(u64)b * LEN + k];\n    p.r{result}[i] = narrow<{ty}>(x);\n  }}\n"
        ));
        Ok(())
    }
}

impl Rows for Folds<'_> {
    fn fold(&mut self, emit: &mut Emit, instr: &Instr) -> Result<Option<(String, bool)>, Refusal> {
        Ok(match instr {
            Instr::RowReduce { kind, a, len, dst } => {
                let of = emit.kind(Src::Reg(*dst), Kind::F32);
                let (element, _) = emit.reg(*a)?;
                let (name, is_once) = self.row(emit, *kind, of, *len, &element);
                Some((name.trim_end_matches("[e]").to_string(), is_once))
            }
            Instr::Softmax { a, len, .. } => Some(self.softmax(emit, *a, *len)?),
            Instr::SoftmaxGrad { y, dy, len, .. } => {
                let ((y, _), (dy, _)) = (emit.reg(*y)?, emit.reg(*dy)?);
                let (along, _) = self.row(emit, ReduceKind::Sum, Kind::F32, *len, &format!("{y} * {dy}"));
                Some(self.made(emit, &format!("{y} * ({dy} - {along})")))
            }
            Instr::RmsNorm { a, len, eps, .. } => {
                let (x, _) = emit.reg(*a)?;
                let (mean, _) = self.row(emit, ReduceKind::Mean, Kind::F32, *len, &format!("{x} * {x}"));
                let r = self.inverse_root(emit, &mean, *eps);
                Some(self.made(emit, &format!("{x} * {r}")))
            }
            Instr::RmsNormGrad { x, dy, len, eps, .. } => {
                let ((x, _), (dy, _)) = (emit.reg(*x)?, emit.reg(*dy)?);
                let (mean, _) = self.row(emit, ReduceKind::Mean, Kind::F32, *len, &format!("{x} * {x}"));
                let (along, _) = self.row(emit, ReduceKind::Mean, Kind::F32, *len, &format!("{x} * {dy}"));
                let r = self.inverse_root(emit, &mean, *eps);
                Some(self.made(emit, &format!("{r} * {dy} - {x} * ({r} * {r} * {r} * {along})")))
            }
            Instr::LayerNorm { a, len, eps, .. } => {
                let (x, _) = emit.reg(*a)?;
                let (centred, inverse) = self.layer_norm(emit, &x, *len, *eps);
                Some(self.made(emit, &format!("{centred} * {inverse}")))
            }
            Instr::LayerNormGrad { x, dy, len, eps, .. } => {
                let ((x, _), (dy, _)) = (emit.reg(*x)?, emit.reg(*dy)?);
                let (centred, inverse) = self.layer_norm(emit, &x, *len, *eps);
                let (level, _) = self.row(emit, ReduceKind::Mean, Kind::F32, *len, &dy);
                let product = format!("{centred} * {inverse} * {dy}");
                let (along, _) = self.row(emit, ReduceKind::Mean, Kind::F32, *len, &product);
                Some(self.made(emit, &format!("{inverse} * ({dy} - {level} - {centred} * {inverse} * {along})")))
            }
            Instr::Rope { .. } => Some(self.rope(emit, instr)?),
            Instr::Total { result, kind, a } => {
                self.total(emit, *result, *kind, *a)?;
                None
            }
            Instr::Columns { result, a, period } => {
                self.columns(emit, *result, *a, *period)?;
                None
            }
            other => return Err(Refusal(format!("{other:?} is no fold"))),
        })
    }
}
