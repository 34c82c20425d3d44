//! Rows of a table by index, and sums of rows of equal index.
//!
//! Sums are made in the order of the tokens: chunks of (index, token) are sorted, each key's rank among all chunks gives
//! its place, and then each row of the table finds its tokens side by side.

use crate::call::{Call, Generated};
use crate::kernel::{Kernel, index};
use crate::layout::{fill, unit, widest};
use crate::pointers::Pointers;
use crate::program;
use crate::spec::{Operand, Refusal, Spec};

/// Threads of a block.
const THREADS: usize = 256;
/// Keys that a block sorts.
const CHUNK: usize = 2048;
/// Threads of a block that sorts.
const SORTERS: usize = 1024;

/// Elements of a row of a table.
fn row(table: &Operand) -> usize {
    table.sizes[1..].iter().product()
}

/// The call of a gather.
pub fn gather(spec: &Spec) -> Result<Generated, Refusal> {
    let ([table, indices], [result]) = (&spec.args[..], &spec.results[..]) else {
        return Err(Refusal("a gather has a table and an index".into()));
    };
    let row = row(table);
    let bytes = result.dtype.bytes();
    let vec = widest(bytes, &[row], [table, result]);
    let unit = unit(vec * bytes);
    let count = indices.len() * row / vec;
    let index = index(count.max(table.len() / vec));
    let mut pointers = Pointers::none(spec);
    pointers.arg(&format!("const {unit}* from"), spec, 0);
    pointers.arg("const int* index", spec, 1);
    pointers.result(&format!("{unit}* to"), spec, 0);
    let call = Kernel::new("gather", "rows of a table", pointers)
        .constant("index", index)
        .constant("unit", unit)
        .constant("row", row / vec)
        .index("count", count, index)?
        .size("rows", table.sizes[0])?
        .call(count.div_ceil(THREADS), THREADS)?;
    Ok(Generated::one(call))
}

/// Where the parts of the workspace begin, and their bytes.
struct Parts {
    keys: (usize, usize),
    order: (usize, usize),
    starts: (usize, usize),
    end: usize,
}

impl Parts {
    fn new(chunks: usize, rows: usize, instances: usize) -> Parts {
        let mut end = 0;
        let mut part = |bytes: usize| {
            let (start, bytes) = (end, bytes.next_multiple_of(256));
            end += bytes * instances;
            (start, bytes)
        };
        let (keys, order) = (part(chunks * CHUNK * 8), part(chunks * CHUNK * 4));
        let starts = part((rows + 1) * 4);
        Parts { keys, order, starts, end }
    }
}

/// The calls of sums by index.
pub fn scatter_add(spec: &Spec) -> Result<Generated, Refusal> {
    let ([indices, given], [result]) = (&spec.args[..], &spec.results[..]) else {
        return Err(Refusal("sums by index have an index and rows".into()));
    };
    let (tokens, rows, row) = (indices.len(), result.sizes[0], row(result));
    let chunks = tokens.div_ceil(CHUNK);
    if tokens == 0 {
        let mut to = Pointers::none(spec);
        to.result(&format!("{}* to", unit(result.dtype.bytes())), spec, 0);
        return Ok(Generated::one(fill(to, result.dtype.bytes(), 0, result.len())?));
    }
    if rows + 1 + chunks * CHUNK >= 1 << 31 {
        return Err(Refusal(format!("scatter_add of {tokens} tokens into {rows} rows: more than 2^31 keys")));
    }
    let parts = Parts::new(chunks, rows, spec.instances);
    let calls = vec![
        sort(spec, &parts, [tokens, rows, chunks])?,
        rank(spec, &parts, [rows, chunks])?,
        sum(spec, &parts, [given, result], [rows, row])?,
    ];
    Ok(Generated { calls, workspace: parts.end, counters: 0 })
}

fn sort(spec: &Spec, parts: &Parts, [tokens, rows, chunks]: [usize; 3]) -> Result<Call, Refusal> {
    let mut pointers = Pointers::none(spec);
    pointers.arg("const int* index", spec, 0);
    pointers.work("u64* keys", parts.keys.0, parts.keys.1);
    Kernel::new("sort", "tokens by index, chunk by chunk", pointers)
        .constant("chunk", CHUNK)
        .size("tokens", tokens)?
        .size("rows", rows)?
        .call(chunks, SORTERS)
}

fn rank(spec: &Spec, parts: &Parts, [rows, chunks]: [usize; 2]) -> Result<Call, Refusal> {
    let mut pointers = Pointers::none(spec);
    pointers.work("const u64* keys", parts.keys.0, parts.keys.1);
    pointers.work("u32* order", parts.order.0, parts.order.1);
    pointers.work("u32* starts", parts.starts.0, parts.starts.1);
    Kernel::new("rank", "places of sorted tokens among all", pointers)
        .constant("chunk", CHUNK)
        .size("rows", rows)?
        .size("chunks", chunks)?
        .call((rows + 1 + chunks * CHUNK).div_ceil(THREADS), THREADS)
}

fn sum(spec: &Spec, parts: &Parts, [given, result]: [&Operand; 2], [rows, row]: [usize; 2]) -> Result<Call, Refusal> {
    let mut pointers = Pointers::none(spec);
    pointers.arg(&format!("const {}* rows", program::element(given.dtype)), spec, 1);
    pointers.result(&format!("{}* to", program::element(result.dtype)), spec, 0);
    pointers.work("const u32* order", parts.order.0, parts.order.1);
    pointers.work("const u32* starts", parts.starts.0, parts.starts.1);
    let vec = widest(given.dtype.bytes().max(result.dtype.bytes()), &[row], [given, result]);
    let threads = (row / vec).next_multiple_of(32).min(THREADS);
    Kernel::new("scatter_add", "sums of rows of equal index", pointers)
        .constant("row", row)
        .constant("vec", vec)
        .call(rows, threads)
}
