//! Ops that move elements, whatever these are: by strides, in squares where two axes are exchanged, and joins.

use mngc_compiler::ir::Op;

use crate::call::{Call, Generated, Param};
use crate::kernel::{Kernel, index};
use crate::pointers::Pointers;
use crate::spec::{Operand, Refusal, Spec};

/// Threads of a block.
const THREADS: usize = 256;
/// Bytes that one instruction moves at most.
const WIDEST: usize = 16;
/// Axes that a move may have once neighbours are joined.
const MOST_AXES: usize = 8;
/// Axes shorter than this are not worth a square.
const SHORT: usize = 8;
/// Operands that one call joins at most: their pointers are parameters.
const MOST_OPERANDS: usize = 128;

/// Distance in memory of neighbours along each axis of a row-major tensor.
pub fn strides(sizes: &[usize]) -> Vec<isize> {
    let mut out = vec![1isize; sizes.len()];
    for i in (1..sizes.len()).rev() {
        out[i - 1] = out[i] * sizes[i] as isize;
    }
    out
}

/// An axis of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Axis {
    size: usize,
    /// Distance of neighbours in the operand.
    by: isize,
    /// The positions that the operand has, where it does not have all.
    limits: Option<(usize, usize)>,
}

/// Where the elements of a result lie in the operand: at `offset` + i·by + j·by + ….
#[derive(Clone, Debug, PartialEq, Eq)]
struct Moves {
    offset: isize,
    axes: Vec<Axis>,
}

impl Moves {
    /// Those of an op; none where it is of another kind.
    fn new(op: &Op, from: &[usize], to: &[usize]) -> Option<Moves> {
        let by = strides(from);
        let plain = |offset: isize, by: Vec<isize>| Moves {
            offset,
            axes: to.iter().zip(by).map(|(&size, by)| Axis { size, by, limits: None }).collect(),
        };
        // The operand's positions along an axis lie `before` further on in the result.
        let moved = |axis: u8, before: isize, count: usize| {
            let (axis, last) = (axis as usize, to[axis as usize]);
            let inside = |at: isize| at.clamp(0, last as isize) as usize;
            let mut moves = plain(-before * by[axis], by.clone());
            moves.axes[axis].limits = Some((inside(before), inside(before + count as isize)));
            moves
        };
        Some(match op {
            Op::Reshape => plain(0, strides(to)),
            Op::Broadcast { axes } => {
                let mut spread = vec![0; to.len()];
                axes.iter().zip(by).for_each(|(&axis, by)| spread[axis as usize] = by);
                plain(0, spread)
            }
            Op::Transpose { perm } => plain(0, perm.iter().map(|&axis| by[axis as usize]).collect()),
            Op::Slice { axis, start } => plain(*start as isize * by[*axis as usize], by),
            Op::Reverse { axis } => {
                let axis = *axis as usize;
                let mut turned = by;
                turned[axis] = -turned[axis];
                plain(-turned[axis] * to[axis].saturating_sub(1) as isize, turned)
            }
            Op::Pad { axis, before } => moved(*axis, *before as isize, from[*axis as usize]),
            Op::Shift { axis, by } => {
                let count = from[*axis as usize];
                let distance = isize::try_from(*by).unwrap_or(isize::MAX).clamp(-(count as isize), count as isize);
                moved(*axis, distance, count)
            }
            _ => return None,
        })
    }

    /// Joins neighbouring axes that are one in the operand.
    fn join(&mut self) {
        let mut joined: Vec<Axis> = Vec::new();
        for mut axis in self.axes.drain(..) {
            axis.limits = axis.limits.filter(|&limits| limits != (0, axis.size));
            if axis.size == 1 && axis.limits.is_none() {
                continue;
            }
            match joined.last_mut() {
                Some(last) if axis.limits.is_none() && last.by == axis.by * axis.size as isize => {
                    let limits = last.limits.map(|(from, to)| (from * axis.size, to * axis.size));
                    *last = Axis { size: last.size * axis.size, by: axis.by, limits };
                }
                _ => joined.push(axis),
            }
        }
        if joined.is_empty() {
            joined.push(Axis { size: 1, by: 1, limits: None });
        }
        self.axes = joined;
    }

    /// Whether no element comes from the operand.
    fn is_empty(&self) -> bool {
        self.axes.iter().any(|axis| axis.limits.is_some_and(|(from, to)| from >= to))
    }

    /// Elements that can be moved at once, and counts in such units from here on.
    fn vectorize(&mut self, arg: &Operand, result: &Operand) -> usize {
        let bytes = result.dtype.bytes();
        let Some((last, outer)) = self.axes.split_last_mut() else { return 1 };
        if last.by != 1 {
            return 1;
        }
        let all = outer.iter().map(|axis| axis.by.unsigned_abs()).chain([last.size, self.offset.unsigned_abs()]);
        let limits = last.limits.into_iter().flat_map(|(from, to)| [from, to]);
        let all: Vec<usize> = all.chain(limits).collect();
        let vec = widest(bytes, &all, [arg, result]);
        let unit = vec as isize;
        outer.iter_mut().for_each(|axis| axis.by /= unit);
        last.size /= vec;
        last.limits = last.limits.map(|(from, to)| (from / vec, to / vec));
        self.offset /= unit;
        vec
    }
}

/// The most elements of a size that divide all of these counts, and at whose multiples tensors begin.
pub fn widest<'a>(bytes: usize, counts: &[usize], tensors: impl IntoIterator<Item = &'a Operand>) -> usize {
    let aligned = tensors.into_iter().map(|t| t.alignment).min().unwrap_or(WIDEST);
    let mut vec = WIDEST / bytes;
    while vec > 1 && !(aligned.is_multiple_of(vec * bytes) && counts.iter().all(|n| n.is_multiple_of(vec))) {
        vec /= 2;
    }
    vec
}

/// The type of so many bytes that move together.
pub fn unit(bytes: usize) -> &'static str {
    match bytes {
        1 => "u8",
        2 => "u16",
        4 => "u32",
        8 => "Vec<u32, 2>",
        _ => "Vec<u32, 4>",
    }
}

/// Pointers to the units of operand 0, and of the result.
fn pointers(spec: &Spec, unit: &str) -> Pointers {
    let mut pointers = Pointers::none(spec);
    pointers.arg(&format!("const {unit}* from"), spec, 0);
    pointers.result(&format!("{unit}* to"), spec, 0);
    pointers
}

/// The calls of an op that moves elements.
pub fn generate(op: &Op, spec: &Spec) -> Result<Generated, Refusal> {
    let ([arg, ..], [result]) = (&spec.args[..], &spec.results[..]) else {
        return Err(Refusal(format!("{} has operands and one result", op.name())));
    };
    if spec.args.iter().any(|arg| arg.dtype != result.dtype) {
        return Err(Refusal(format!("{} moves elements as they are, and has several dtypes", op.name())));
    }
    if let Op::Concat { axis } = op {
        return concat(*axis as usize, spec, result);
    }
    let moves = Moves::new(op, &arg.sizes, &result.sizes);
    let mut moves = moves.ok_or_else(|| Refusal(format!("{} does not move elements", op.name())))?;
    moves.join();
    if moves.is_empty() {
        let mut to = Pointers::none(spec);
        to.result(&format!("{}* to", unit(result.dtype.bytes())), spec, 0);
        return Ok(Generated::one(fill(to, result.dtype.bytes(), 0, result.len())?));
    }
    let call = match exchange(op, &moves) {
        Some(row) => transpose(spec, moves, row)?,
        None => gather(op, spec, moves, arg, result)?,
    };
    Ok(Generated::one(call))
}

/// The axis that is to be a square's other side: side by side in the operand, where the last axis is not.
fn exchange(op: &Op, moves: &Moves) -> Option<usize> {
    let last = moves.axes.last()?;
    let row = moves.axes.iter().position(|axis| axis.by == 1)?;
    let is_worth_it = row + 1 < moves.axes.len() && moves.axes[row].size >= SHORT && last.size >= SHORT;
    (matches!(op, Op::Transpose { .. }) && is_worth_it).then_some(row)
}

/// A move by strides.
fn gather(op: &Op, spec: &Spec, mut moves: Moves, arg: &Operand, result: &Operand) -> Result<Call, Refusal> {
    let vec = moves.vectorize(arg, result);
    let rank = moves.axes.len();
    if rank > MOST_AXES {
        return Err(Refusal(format!("{} of {rank} axes that cannot be joined; {MOST_AXES} are possible", op.name())));
    }
    let unit = unit(vec * result.dtype.bytes());
    let count = result.len() / vec;
    let index = index(count.max(arg.len() / vec));
    let is_wide = index == "u64";
    let mut words: Vec<u32> = Vec::new();
    for stride in std::iter::once(moves.offset).chain(moves.axes.iter().map(|axis| axis.by)) {
        let stride = stride as u64;
        words.push(stride as u32);
        if is_wide {
            words.push((stride >> 32) as u32);
        }
    }
    for axis in &moves.axes {
        words.push(u32::try_from(axis.size).map_err(|_| Refusal(format!("an axis of {} positions", axis.size)))?);
    }
    let limited = moves.axes.iter().position(|axis| axis.limits.is_some());
    let (from, to) = limited.and_then(|axis| moves.axes[axis].limits).unwrap_or((0, 0));
    words.extend([from as u32, to as u32]);
    if is_wide && !words.len().is_multiple_of(2) {
        words.push(0);
    }
    Kernel::new("move", op.name(), pointers(spec, unit))
        .constant("index", index)
        .constant("stride", if is_wide { "i64" } else { "int" })
        .constant("unit", unit)
        .constant("rank", rank)
        .constant("limited", limited.unwrap_or(rank))
        .index("count", count, index)?
        .param("const Axes axes", Param::U32s(words))
        .call(count.div_ceil(THREADS), THREADS)
}

/// An exchange of two axes in squares.
fn transpose(spec: &Spec, moves: Moves, row: usize) -> Result<Call, Refusal> {
    const TILE: usize = 32;
    let result = &spec.results[0];
    let unit = unit(result.dtype.bytes());
    let to = strides(&moves.axes.iter().map(|axis| axis.size).collect::<Vec<_>>());
    let last = moves.axes.len() - 1;
    let others: Vec<usize> = (0..last).filter(|&axis| axis != row).collect();
    if others.len() > MOST_AXES - 2 {
        return Err(Refusal(format!("transpose of {} axes that cannot be joined; {MOST_AXES} are possible", last + 1)));
    }
    let (rows, columns) = (moves.axes[row].size, moves.axes[last].size);
    // Axes that have no others still need a place.
    let column = |of: &dyn Fn(usize) -> usize| others.iter().map(|&axis| of(axis)).chain([1]).collect::<Vec<_>>();
    let mut numbers = vec![rows, columns, moves.axes[last].by as usize, to[row] as usize];
    numbers.extend(column(&|axis| moves.axes[axis].size));
    numbers.extend(column(&|axis| moves.axes[axis].by as usize));
    numbers.extend(column(&|axis| to[axis] as usize));
    let narrow = |n: usize| u32::try_from(n).map_err(|_| Refusal(format!("transpose with a stride of {n}")));
    let words = numbers.into_iter().map(narrow).collect::<Result<_, _>>()?;
    let batch: usize = others.iter().map(|&axis| moves.axes[axis].size).product();
    Kernel::new("transpose", "transpose", pointers(spec, unit))
        .constant("index", index(result.len()))
        .constant("unit", unit)
        .constant("rank", others.len())
        .param("const Axes axes", Param::U32s(words))
        .call(rows.div_ceil(TILE) * columns.div_ceil(TILE) * batch, THREADS)
}

/// Operands one after another along an axis, in one call.
fn concat(axis: usize, spec: &Spec, result: &Operand) -> Result<Generated, Refusal> {
    let inner: usize = result.sizes[axis + 1..].iter().product();
    let lines: usize = result.sizes[..axis].iter().product();
    let row = result.sizes[axis] * inner;
    let given: Vec<usize> = (0..spec.args.len()).filter(|&i| !spec.args[i].is_empty()).collect();
    let lengths: Vec<usize> = given.iter().map(|&i| spec.args[i].sizes[axis] * inner).collect();
    let bytes = result.dtype.bytes();
    let vec = widest(bytes, &lengths, given.iter().map(|&i| &spec.args[i]).chain([result]));
    let unit = unit(vec * bytes);
    let mut calls = Vec::new();
    let mut first = 0;
    for (operands, lengths) in given.chunks(MOST_OPERANDS).zip(lengths.chunks(MOST_OPERANDS)) {
        let mut pointers = Pointers::none(spec);
        for (k, &i) in operands.iter().enumerate() {
            pointers.arg(&format!("const {unit}* a{k}"), spec, i);
        }
        pointers.result(&format!("{unit}* to"), spec, 0);
        let mut end = 0;
        let ends = lengths.iter().map(|length| {
            end += length / vec;
            u32::try_from(end).map_err(|_| Refusal(format!("concat of rows of {end} units")))
        });
        let ends = ends.collect::<Result<Vec<u32>, _>>()?;
        let count = lines * end;
        let later: Vec<usize> = (1..operands.len()).collect();
        let index = index(lines * row / vec);
        let kernel = Kernel::new("concat", format!("concat of {}", operands.len()), pointers)
            .constant("index", index)
            .constant("unit", unit)
            .constant("operands", operands.len())
            .list("later", later)
            .index("count", count, index)?
            .size("row", row / vec)?
            .size("first", first)?
            .param("const Ends ends", Param::U32s(ends));
        calls.push(kernel.call(count.div_ceil(THREADS), THREADS)?);
        first += end;
    }
    Ok(Generated { calls, ..Generated::default() })
}

/// The same number in all places of the field `to`, elements of so many bytes.
pub fn fill(pointers: Pointers, bytes: usize, bits: u32, count: usize) -> Result<Call, Refusal> {
    let index = index(count);
    Kernel::new("fill", "one number everywhere", pointers)
        .constant("index", index)
        .constant("unit", unit(bytes))
        .param("const u32 bits", Param::U32(bits))
        .index("count", count, index)?
        .call(count.div_ceil(THREADS), THREADS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(op: &Op, from: &[usize], to: &[usize]) -> Moves {
        let mut moves = Moves::new(op, from, to).expect("a move");
        moves.join();
        moves
    }

    #[test]
    fn axes_that_are_one_in_memory_are_joined() {
        let heads = joined(&Op::Transpose { perm: vec![0, 2, 1, 3, 4] }, &[1, 7, 3, 4, 5], &[1, 3, 7, 4, 5]);
        let axis = |size, by| Axis { size, by, limits: None };
        assert_eq!(heads.axes, [axis(3, 20), axis(7, 60), axis(20, 1)]);
        let pad = joined(&Op::Pad { axis: 1, before: 2 }, &[2, 3, 4, 5], &[2, 9, 4, 5]);
        assert_eq!(pad.offset, -40);
        assert_eq!(pad.axes, [axis(2, 60), Axis { size: 180, by: 1, limits: Some((40, 100)) }]);
        let shift = joined(&Op::Shift { axis: 0, by: -9 }, &[4, 5], &[4, 5]);
        assert!(shift.is_empty());
    }
}
