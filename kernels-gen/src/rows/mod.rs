//! Row programs as kernels: teams of threads, each with a row of the space in its registers.
//!
//! Elementwise programs are rows of as many elements as one instruction moves. Folds over rows are folds of a team; folds
//! over the whole space end in the last block that finishes, in a fixed order.

pub(crate) mod folds;
pub(crate) mod shape;

use std::sync::Arc;

use mngc_compiler::ir::ReduceKind;
use mngc_compiler::schedule::rows::{Access, Instr, RowProgram, Src};
use serde::Serialize;

use folds::Folds;
use shape::{HELD, LARGEST_TEAM, Shape, row};

use crate::call::{Call, Generated, Param, Source};
use crate::device::Device;
use crate::long;
use crate::nothing;
use crate::pointers::{self, Named, Pointers};
use crate::program::{Emit, Sizes, Space};
use crate::reduce;
use crate::spec::{Refusal, Spec};
use crate::templates;
use crate::{few, kernel};
/// Blocks for each multiprocessor where blocks fold what they have seen.
const FOLDING_BLOCKS: usize = 2;

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
    let index = kernel::index(program.elements);
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
