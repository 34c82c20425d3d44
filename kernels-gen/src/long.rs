//! Row programs whose rows are longer than a block holds: a block goes through its row once for each fold, then once more.

use mngc_compiler::ir::ReduceKind;
use mngc_compiler::schedule::rows::{Access, Instr, RowProgram, Src};

use crate::call::Generated;
use crate::device::Device;
use crate::kernel::{Kernel, index};
use crate::pointers::{self, Named, Pointers};
use crate::program::{Emit, Sizes, Space};
use crate::reduce;
use crate::rows::folds::Folds;
use crate::rows::shape::{Shape, powers, widest};
use crate::rows::{name, what};
use crate::spec::{Refusal, Spec};

/// Threads of a block.
const THREADS: usize = 512;

/// Where a program stands in its ways through a row.
#[derive(Clone, Debug, Default)]
pub struct Pass {
    /// The fold that is made in this one; those before it are known.
    pub number: usize,
    /// Folds that the program has come to.
    pub next: usize,
    /// The declaration of this pass's fold, and what it becomes.
    pub made: Option<(String, String)>,
}

/// The calls of a row program of long rows.
pub fn generate(program: &RowProgram, spec: &Spec, device: &Device) -> Result<Generated, Refusal> {
    if let [Instr::Load { dst, operand, access: Access::Full }, Instr::Columns { a: Src::Reg(a), period, .. }] =
        program.instrs[..]
        && dst == a
        && spec.args[operand].constant.is_none()
    {
        // A sum over leading axes and nothing else.
        let mut whole = spec.clone();
        whole.args[operand].sizes = vec![program.elements / period, period];
        return reduce::generate(ReduceKind::Sum, &[0], &whole, device);
    }
    let len = program.tile;
    let is_whole = |instr: &Instr| match *instr {
        Instr::RowReduce { len: row, .. } | Instr::Softmax { len: row, .. } | Instr::SoftmaxGrad { len: row, .. } => {
            row == len
        }
        Instr::RmsNorm { len: row, .. } | Instr::RmsNormGrad { len: row, .. } => row == len,
        Instr::LayerNorm { len: row, .. } | Instr::LayerNormGrad { len: row, .. } => row == len,
        Instr::Rope { .. } | Instr::Total { .. } | Instr::Columns { .. } => false,
        _ => true,
    };
    if let Some(instr) = program.instrs.iter().find(|instr| !is_whole(instr)) {
        return Err(Refusal(format!(
            "{} beside rows of {len} elements, which are longer than a block holds",
            name(instr)
        )));
    }
    let vec = powers(widest(program, spec)).find(|vec| len.is_multiple_of(*vec)).unwrap_or(1);
    let space = Space {
        len,
        len_text: len.to_string(),
        row: "row".into(),
        base: "base".into(),
        local: "local(at, e, lane)".into(),
        live: Some("local(at, e, lane) < LEN".into()),
        vec,
        chunk: "local(at, c, lane)".into(),
        chunk_live: Some("local(at, c, lane) < LEN".into()),
        held: "E".into(),
    };
    let mut sizes = Sizes::default();
    let folds_only = RowProgram {
        instrs: program.instrs.iter().filter(|i| !matches!(i, Instr::Store { .. })).cloned().collect(),
        ..program.clone()
    };
    let mut write = |program: &RowProgram, number: usize| {
        let shape = Shape { len, parts: 1, vec, team: THREADS, runs: 1 };
        let mut folds = Folds::new(shape, spec, program.elements);
        folds.pass = Some(Pass { number, ..Pass::default() });
        let emit = Emit::new(program, &space, &mut sizes, &spec.args, &spec.results, &[], &[]);
        let body = emit.program(program, &mut folds)?;
        let steps = format!("  for (int at = 0; at < LEN; at += STEP) {{\n{}\n  }}\n", body.trim_end());
        Ok::<_, Refusal>((steps, folds.pass.and_then(|pass| pass.made)))
    };
    let mut body = String::new();
    let mut passes = 0;
    while let (steps, Some((declaration, finished))) = write(&folds_only, passes)? {
        body.push_str(&format!("  {declaration}\n{steps}  {finished}\n"));
        passes += 1;
    }
    body.push_str(&write(program, passes)?.0);
    let mut kernel = Kernel::new("long", what(program), Pointers::new(spec))
        .constant("index", index(program.elements))
        .constant("len", len)
        .constant("vec", vec)
        .constant("held", vec)
        .constant("body", body.trim_end());
    for Named { ty, name, param } in pointers::numbers(&[program], spec, &sizes) {
        kernel = kernel.param(&format!("const {ty} {name}"), param);
    }
    Ok(Generated::one(kernel.call(program.elements / len, THREADS)?))
}
