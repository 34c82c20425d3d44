//! Folds over any axes.
//!
//! Where few results have many terms, slices of these are folded by blocks of their own, and what comes out in a second
//! call.

use mngc_compiler::ir::ReduceKind;
use mngc_compiler::schedule::cluster;
use mngc_compiler::schedule::rows::Kind;

use crate::call::{Call, Generated, Param};
use crate::device::Device;
use crate::kernel::{Kernel, index};
use crate::layout::strides;
use crate::pointers::Pointers;
use crate::program;
use crate::spec::{Refusal, Spec};

/// Threads of a block.
const THREADS: usize = 256;
/// Results of a block whose neighbours are neighbours in memory.
const COLUMNS: usize = 32;
/// Terms that a thread should have before there are more slices.
const TERMS: usize = 32;
/// Blocks for each multiprocessor that slices are made for.
const BLOCKS: usize = 4;

/// Axes by size and distance of neighbours.
type Axes = Vec<(usize, usize)>;

/// A fold of the row-major operand's axes.
#[derive(Clone, Debug)]
struct Fold {
    kept: Axes,
    folded: Axes,
    /// Whether the last axis stays.
    along_columns: bool,
}

impl Fold {
    /// Neighbouring axes that both stay or both vanish are joined.
    fn new(sizes: &[usize], axes: &[u8]) -> Fold {
        let mut all: Vec<(bool, usize, usize)> = Vec::new();
        for (axis, (&size, by)) in sizes.iter().zip(strides(sizes)).enumerate().filter(|(_, (size, _))| **size != 1) {
            let (is_folded, by) = (axes.contains(&(axis as u8)), by.unsigned_abs());
            match all.last_mut() {
                Some(last) if last.0 == is_folded => *last = (is_folded, last.1 * size, by),
                _ => all.push((is_folded, size, by)),
            }
        }
        let along_columns = all.last().is_some_and(|axis| !axis.0);
        let part = |wanted: bool| {
            let axes: Axes = all.iter().filter(|axis| axis.0 == wanted).map(|axis| (axis.1, axis.2)).collect();
            if axes.is_empty() { vec![(1, 0)] } else { axes }
        };
        Fold { kept: part(false), folded: part(true), along_columns }
    }

    fn results(&self) -> usize {
        self.kept.iter().map(|axis| axis.0).product()
    }

    fn terms(&self) -> usize {
        self.folded.iter().map(|axis| axis.0).product()
    }

    /// Results of a block.
    fn columns(&self) -> usize {
        if self.along_columns {
            return self.kept.last().map_or(1, |axis| axis.0).next_power_of_two().min(COLUMNS);
        }
        THREADS / self.terms().clamp(1, THREADS).next_power_of_two()
    }
}

/// What is done with elements, and with their fold.
struct Way {
    kind: ReduceKind,
    of: Kind,
    /// Elements are squared first.
    is_first: bool,
    /// The total of so many is finished.
    count: Option<usize>,
    from: &'static str,
    to: &'static str,
}

/// The calls of a reduction.
pub fn generate(kind: ReduceKind, axes: &[u8], spec: &Spec, device: &Device) -> Result<Generated, Refusal> {
    let ([arg], [result]) = (&spec.args[..], &spec.results[..]) else {
        return Err(Refusal("a reduction has one operand and one result".into()));
    };
    let fold = Fold::new(&arg.sizes, axes);
    let (results, terms) = (fold.results(), fold.terms());
    let of = cluster::kind(arg.dtype);
    let tiles = results.div_ceil(fold.columns());
    let rows = THREADS / fold.columns();
    let wanted = (BLOCKS * device.multiprocessors).div_ceil(tiles).min(terms / (rows * TERMS)).max(1);
    let length = terms.div_ceil(wanted).max(1);
    let slices = terms.div_ceil(length).max(1);
    let element = program::element;
    let whole =
        Way { kind, of, is_first: true, count: Some(terms), from: element(arg.dtype), to: element(result.dtype) };
    let mut pointers = Pointers::none(spec);
    pointers.arg(&format!("const {}* a0", element(arg.dtype)), spec, 0);
    if slices == 1 {
        pointers.result(&format!("{}* to", element(result.dtype)), spec, 0);
        return Ok(Generated::one(call(&fold, [1, length], pointers, whole)?));
    }
    let between = program::folding(kind, of);
    let bytes = (slices * results * if between == "double" { 8 } else { 4 }).next_multiple_of(256);
    pointers.work(&format!("{between}* to"), 0, bytes);
    let first = call(&fold, [slices, length], pointers, Way { count: None, to: between, ..whole })?;
    let mut pointers = Pointers::none(spec);
    pointers.work(&format!("const {between}* a0"), 0, bytes);
    pointers.result(&format!("{}* to", element(result.dtype)), spec, 0);
    let rest = Fold::new(&[slices, results], &[0]);
    let way = Way { is_first: false, from: between, ..whole };
    let second = call(&rest, [1, slices], pointers, way)?;
    Ok(Generated { calls: vec![first, second], workspace: bytes * spec.instances, counters: 0 })
}

fn call(fold: &Fold, [slices, length]: [usize; 2], pointers: Pointers, way: Way) -> Result<Call, Refusal> {
    let (results, terms) = (fold.results(), fold.terms());
    let (class, neutral) = program::fold(way.kind, way.of);
    let element = if way.is_first { program::folded(way.kind, "x") } else { "x".into() };
    let total = "parts[column * ROWS]";
    let finished = match way.count {
        Some(_) => program::finished(way.kind, total, "count"),
        None => total.into(),
    };
    let mut words = Vec::new();
    for axes in [&fold.kept, &fold.folded] {
        for number in axes.iter().map(|axis| axis.0).chain(axes.iter().map(|axis| axis.1)) {
            let word = u32::try_from(number).map_err(|_| Refusal(format!("a reduction with a stride of {number}")))?;
            words.push(word);
        }
    }
    let index = index((results * terms).max(results * slices));
    let tiles = results.div_ceil(fold.columns());
    let what = format!("{} of {} to {}", way.kind.name(), way.from, way.to);
    Kernel::new("reduce", what, pointers)
        .constant("index", index)
        .constant("register", program::folding(way.kind, way.of))
        .constant("columns", fold.columns())
        .constant("kept", fold.kept.len())
        .constant("folded", fold.folded.len())
        .constant("along_columns", fold.along_columns)
        .constant("neutral", neutral)
        .constant("fold", class)
        .constant("element", element)
        .constant("to", way.to)
        .constant("finished", finished)
        .param("const Axes axes", Param::U32s(words))
        .index("results", results, index)?
        .index("terms", terms, index)?
        .index("slice_length", length, index)?
        .param("const float count", Param::F32(way.count.unwrap_or(0) as f32))
        .call(tiles * slices, THREADS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_of_one_fate_are_joined() {
        let fold = Fold::new(&[2, 3, 1, 5, 7], &[1, 2]);
        assert_eq!((fold.kept, fold.folded), (vec![(2, 105), (35, 1)], vec![(3, 35)]));
        let none = Fold::new(&[1, 1], &[0]);
        assert_eq!((none.results(), none.terms()), (1, 1));
    }
}
