//! A plan as text, for people and for tests.

use std::fmt::Write;

use super::kernel::{DotKernel, Epilogue, HANDED_ON, Kernel, LOGITS_GRADIENT, LossKernel, PRODUCT, Strides};
use super::plan::{EntryPlan, Operand, Place, Plan, View};
use super::rows::{Access, Instr, RowProgram, Src};
use crate::ir::Module;

/// Every entry with its launches.
pub fn plan(m: &Module, plan: &Plan) -> String {
    let mut out = String::new();
    for entry in plan.entries.values() {
        entry_plan(&mut out, m, entry);
    }
    out
}

fn entry_plan(out: &mut String, m: &Module, e: &EntryPlan) {
    let stage = if e.key.stage == 0 { String::new() } else { format!(" stage {}", e.key.stage) };
    let _ = writeln!(out, "entry {}{stage}: arena {} bytes", e.key.kind.name(), e.arena);
    let place = |view: &View| {
        let base = match &e.buffers[view.buffer].place {
            Place::Arena(offset) => return format!("@{}", offset + view.offset),
            Place::Slot(slot) => slot.to_string(),
            Place::Batch(name) => format!("{name:?}"),
            Place::Scalar(scalar) => scalar.to_string(),
        };
        if view.offset == 0 { base } else { format!("{base}+{}", view.offset) }
    };
    let show = |view: &View| format!("{} {}", place(view), m.show(&view.ty));
    for launch in &e.launches {
        for (i, (args, results)) in launch.each().enumerate() {
            let results: Vec<String> = results.iter().map(show).collect();
            let args = args.iter().map(|arg| match arg {
                Operand::View(view) => place(view),
                Operand::Const(value, dtype) => format!("{value:?} {dtype}"),
            });
            let args: Vec<String> = args.collect();
            let and = if i == 0 { "" } else { "and " };
            let _ = writeln!(out, "  {and}{} = {} ({})", results.join(", "), launch.name, args.join(", "));
        }
        kernel(out, &launch.kernel);
    }
    for (name, view) in &e.outputs {
        let _ = writeln!(out, "  output {name:?} {}", show(view));
    }
}

fn kernel(out: &mut String, kernel: &Kernel) {
    match kernel {
        Kernel::Rows(program) => rows(out, program, "rows"),
        Kernel::Dot(dot) => {
            let DotKernel { batch, m, n, k, a, b, scale, symmetric, epilogue } = dot;
            let half = if *symmetric { ", symmetric" } else { "" };
            let scale = if *scale == 1.0 { String::new() } else { format!(", scale {scale:?}") };
            let [a, b] = [a, b].map(strides);
            let _ = writeln!(out, "    dot {batch} × {m}×{n}×{k}, a {a}, b {b}{scale}{half}");
            match epilogue {
                Epilogue::Store => {}
                Epilogue::Accumulate(operand) => {
                    let _ = writeln!(out, "    added to operand {operand}");
                }
                Epilogue::Rows(program) => rows(out, program, "epilogue"),
            }
        }
        Kernel::Loss(LossKernel { rows: count, n, k, w, logits, gradient, loss }) => {
            let _ =
                writeln!(out, "    loss of {count} rows, {n} classes, {k} features, w {} -> result {loss}", strides(w));
            rows(out, logits, "logits");
            if let Some(g) = gradient {
                let shown = |name: &str, i: Option<usize>| i.map_or(String::new(), |i| format!(", {name} {i}"));
                let (dx, dw) = (shown("dx result", g.dx), shown("dw result", g.dw));
                let _ = writeln!(
                    out,
                    "    gradient: dy operand {}{dx}{dw}{}",
                    g.dy,
                    shown("added to operand", g.accumulate)
                );
                rows(out, &g.program, "gradient of the product");
            }
        }
        Kernel::Op(op) => {
            let _ = writeln!(out, "    op {op:?}");
        }
        Kernel::Copy => {}
    }
}

fn strides(s: &Strides) -> String {
    format!("[{}, {}, {}]", s.batch, s.row, s.inner)
}

fn rows(out: &mut String, program: &RowProgram, name: &str) {
    let RowProgram { elements, tile, regs, instrs } = program;
    let _ = writeln!(out, "    {name}: {elements} elements by {tile}, {} registers", regs.len());
    for instr in instrs {
        let _ = writeln!(out, "      {}", text(instr));
    }
}

fn number(i: usize) -> String {
    match i {
        PRODUCT => "product".into(),
        LOGITS_GRADIENT => "dlogits".into(),
        i => i.to_string(),
    }
}

fn source(src: &Src) -> String {
    match src {
        Src::Reg(reg) => format!("r{reg}"),
        Src::Const(value) => value.to_string(),
    }
}

fn access(access: &Access) -> String {
    match access {
        Access::Full => String::new(),
        Access::Row { len } => format!(" [i / {len}]"),
        Access::Cycle { period } => format!(" [i % {period}]"),
        Access::Middle { inner, period } => format!(" [i / {inner} % {period}]"),
        Access::Scalar => " [0]".into(),
    }
}

fn text(instr: &Instr) -> String {
    match instr {
        Instr::Load { dst, operand, access: how } => format!("r{dst} = load {}{}", number(*operand), access(how)),
        Instr::Iota { dst, inner, period } => format!("r{dst} = i / {inner} % {period}"),
        Instr::Unary { op, dst, a } => format!("r{dst} = {} {}", op.name(), source(a)),
        Instr::Binary { op, dst, a, b } => format!("r{dst} = {} {}, {}", op.name(), source(a), source(b)),
        Instr::Compare { op, dst, a, b, .. } => format!("r{dst} = {} {}, {}", op.name(), source(a), source(b)),
        Instr::Select { dst, c, a, b } => format!("r{dst} = select {}, {}, {}", source(c), source(a), source(b)),
        Instr::Cast { dst, a, from, to } => format!("r{dst} = cast {} {from} to {to}", source(a)),
        Instr::RowReduce { kind, dst, a, len } => format!("r{dst} = {} of rows of {len} r{a}", kind.name()),
        Instr::Softmax { dst, a, len } => format!("r{dst} = softmax of rows of {len} r{a}"),
        Instr::SoftmaxGrad { dst, y, dy, len } => format!("r{dst} = softmax_grad of rows of {len} r{y}, r{dy}"),
        Instr::RmsNorm { dst, a, len, eps } => format!("r{dst} = rms_norm of rows of {len} r{a}, eps {eps:?}"),
        Instr::RmsNormGrad { dst, x, dy, len, eps } => {
            format!("r{dst} = rms_norm_grad of rows of {len} r{x}, r{dy}, eps {eps:?}")
        }
        Instr::LayerNorm { dst, a, len, eps } => format!("r{dst} = layer_norm of rows of {len} r{a}, eps {eps:?}"),
        Instr::LayerNormGrad { dst, x, dy, len, eps } => {
            format!("r{dst} = layer_norm_grad of rows of {len} r{x}, r{dy}, eps {eps:?}")
        }
        Instr::Rope { dst, a, position, len, base, inverse } => {
            let back = if *inverse { ", inverse" } else { "" };
            format!("r{dst} = rope of rows of {len} r{a} at r{position}, base {base:?}{back}")
        }
        Instr::Store { result: HANDED_ON, a, .. } => format!("hand on {}", source(a)),
        Instr::Store { result, a, access: how } => format!("store {result}{} {}", access(how), source(a)),
        Instr::Total { result, kind, a } => format!("store {result} = {} of all {}", kind.name(), source(a)),
        Instr::Columns { result, a, period } => format!("store {result} = sum over rows of {period} {}", source(a)),
    }
}
