//! Running sums along an axis: in one call where lines are short, else chunk by chunk in two.

use mngc_compiler::schedule::cluster;

use crate::call::{Call, Generated};
use crate::device::Device;
use crate::kernel::{Kernel, index};
use crate::pointers::Pointers;
use crate::program;
use crate::spec::{Refusal, Spec};

/// Threads of a block.
const THREADS: usize = 256;
/// Lines at least this long whose positions are neighbours get blocks of their own.
const LONG: usize = 128;
/// Positions that a block has.
const CHUNK: usize = 2048;
/// Positions that a thread has at least where it works alone.
const THREAD_CHUNK: usize = 64;
/// Threads for each multiprocessor that chunks are made for.
const RESIDENT: usize = 1024;

/// How lines are cut.
struct Cut {
    by_blocks: bool,
    length: usize,
    inner: usize,
    lines: usize,
    chunk: usize,
}

impl Cut {
    fn chunks(&self) -> usize {
        self.length.div_ceil(self.chunk)
    }
}

/// The calls of a running sum.
pub fn generate(axis: u8, reverse: bool, spec: &Spec, device: &Device) -> Result<Generated, Refusal> {
    let ([arg], [result]) = (&spec.args[..], &spec.results[..]) else {
        return Err(Refusal("a running sum has one operand and one result".into()));
    };
    let length = arg.sizes[axis as usize];
    let inner: usize = arg.sizes[axis as usize + 1..].iter().product();
    let lines = arg.len() / length.max(1);
    let by_blocks = inner == 1 && length >= LONG;
    let wanted = (RESIDENT * device.multiprocessors).div_ceil(lines.max(1));
    let chunk = if by_blocks { CHUNK } else { length.div_ceil(wanted).max(THREAD_CHUNK) };
    let cut = Cut { by_blocks, length, inner, lines, chunk };
    let register = program::register(cluster::kind(arg.dtype));
    let bytes = (lines * cut.chunks() * 4).next_multiple_of(256);
    let is_cut = cut.chunks() > 1;
    let mut calls = Vec::new();
    for sums_only in [true, false].into_iter().filter(|only| is_cut || !only) {
        let mut pointers = Pointers::none(spec);
        pointers.arg(&format!("const {}* a0", program::element(arg.dtype)), spec, 0);
        pointers.result(&format!("{}* r0", program::element(result.dtype)), spec, 0);
        pointers.work(&format!("{register}* sums"), 0, bytes);
        let template = if by_blocks { "scan_blocks" } else { "scan_lines" };
        let kernel = Kernel::new(template, "running sums", pointers)
            .constant("register", register)
            .constant("to", program::element(result.dtype))
            .constant("reverse", reverse);
        calls.push(call(kernel, &cut, sums_only)?);
    }
    Ok(Generated { calls, workspace: if is_cut { bytes * spec.instances } else { 0 }, counters: 0 })
}

fn call(kernel: Kernel, cut: &Cut, sums_only: bool) -> Result<Call, Refusal> {
    let index = index(cut.lines * cut.length);
    let blocks = cut.lines * cut.chunks();
    kernel
        .constant("index", index)
        .size("length", cut.length)?
        .index("inner", cut.inner, index)?
        .index("lines", cut.lines, index)?
        .size("chunks", cut.chunks())?
        .size("chunk_length", cut.chunk)?
        .size("sums_only", usize::from(sums_only))?
        .call(if cut.by_blocks { blocks } else { blocks.div_ceil(THREADS) }, THREADS)
}
