//! Checks a plan by following memory through it, whoever made it: at each launch, every byte that an operand asks for
//! must hold the tensor that is expected there. Guarantees, when it passes:
//!
//! 1. Every view lies in its buffer, every buffer of the arena in the arena, at a multiple of [`ALIGNMENT`].
//! 2. An operand is what the host, a slot or an earlier launch put there, whole, and nothing wrote over it since.
//! 3. Two results of a launch do not overlap; a result and an operand overlap only if they are the same bytes and the
//!    kernel allows it ([`super::alias::allows`]).
//! 4. Instances of a launch are alike in all but where their tensors lie, and a result of one overlaps no operand of
//!    another.
//! 5. After the last launch each slot and host output that the entry promises holds what the entry's function returns.

use std::collections::BTreeMap;

use super::plan::{ALIGNMENT, EntryPlan, Launch, Operand, Place, Plan, View};
use super::{alias, group};
use crate::ir::{EntryKey, Module};

/// A broken guarantee: a fault of the planner.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("plan of {entry:?}, launch {launch}: {message}")]
pub struct PlanError {
    /// The entry.
    pub entry: EntryKey,
    /// The launch, by position.
    pub launch: usize,
    /// What is wrong.
    pub message: String,
}

/// All memory that an entry sees: the arena, and each outside place by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Space {
    Arena,
    Outside(u32),
}

/// What lies where: ranges by space and start, with their end, the tensor, and where in the tensor they begin.
#[derive(Default)]
struct Memory {
    ranges: BTreeMap<(Space, usize), (usize, u32, usize)>,
}

impl Memory {
    /// Cuts a range free of whatever lies there.
    fn clear(&mut self, space: Space, start: usize, end: usize) {
        let overlapping: Vec<(Space, usize)> = self
            .ranges
            .range(..(space, end))
            .rev()
            .take_while(|((s, _), _)| *s == space)
            .filter(|(_, (stop, ..))| *stop > start)
            .map(|(key, _)| *key)
            .collect();
        for key in overlapping {
            if let Some((stop, value, at)) = self.ranges.remove(&key) {
                if key.1 < start {
                    self.ranges.insert(key, (start, value, at));
                }
                if stop > end {
                    self.ranges.insert((space, end), (stop, value, at + end - key.1));
                }
            }
        }
    }

    fn write(&mut self, space: Space, start: usize, end: usize, value: u32) {
        if start < end {
            self.clear(space, start, end);
            self.ranges.insert((space, start), (end, value, 0));
        }
    }

    /// Whether a range holds that part of a tensor, in order.
    fn holds(&self, space: Space, start: usize, end: usize, value: u32, from: usize) -> bool {
        let mut at = start;
        while at < end {
            let Some((key, &(stop, found, begin))) = self.ranges.range(..=(space, at)).next_back() else {
                return false;
            };
            if key.0 != space || stop <= at || found != value || begin + at - key.1 != from + at - start {
                return false;
            }
            at = stop;
        }
        true
    }
}

/// An operand or a result of a launch, by position among those of all instances.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Operand(usize),
    Result(usize),
}

/// Memory that a launch reads or writes.
struct Range {
    space: Space,
    start: usize,
    end: usize,
    what: Part,
    /// Bytes of an element.
    element: usize,
}

/// What a launch writes over something that it must not.
fn clash(launch: &Launch, mut ranges: Vec<Range>) -> Option<String> {
    ranges.retain(|range| range.start < range.end);
    ranges.sort_by_key(|range| (range.space, range.start, range.what));
    let (args, results) = (launch.args.len() / launch.instances, launch.results.len() / launch.instances);
    let mut open: Vec<Range> = Vec::new();
    for range in ranges {
        open.retain(|other| other.space == range.space && other.end > range.start);
        for other in &open {
            let same = (range.start, range.end, range.element) == (other.start, other.end, other.element);
            match (range.what, other.what) {
                (Part::Operand(_), Part::Operand(_)) => {}
                (Part::Result(r), Part::Result(_)) => {
                    return Some(format!("result {r} is written over another result"));
                }
                (Part::Operand(i), Part::Result(r)) | (Part::Result(r), Part::Operand(i)) => {
                    let own = i / args == r / results;
                    if !(same && own && alias::allows(&launch.kernel, i % args, r % results)) {
                        return Some(format!("result {r} is written over operand {i}, which it needs"));
                    }
                }
            }
        }
        open.push(range);
    }
    None
}

/// Why the instances of a launch cannot be one launch.
fn unlike(m: &Module, launch: &Launch) -> Option<String> {
    let Launch { instances, args, results, kernel, .. } = launch;
    if *instances == 0 || !args.len().is_multiple_of(*instances) || !results.len().is_multiple_of(*instances) {
        return Some(format!("operands and results are not those of {instances} instances"));
    }
    if *instances > 1 && !group::may_group(kernel) {
        return Some(format!("a launch of {} has {instances} instances", kernel.name()));
    }
    let alike = |a: &View, b: &View| {
        let (elements, aligned) = (|v: &View| m.dims.elements(&v.ty.dims), |v: &View| v.offset % ALIGNMENT);
        a.ty.dtype == b.ty.dtype && elements(a) == elements(b) && aligned(a) == aligned(b)
    };
    let mut each = launch.each();
    let (args, results) = each.next()?;
    for (i, (others, made)) in each.enumerate() {
        let same_args = args.iter().zip(others).all(|pair| match pair {
            (Operand::View(a), Operand::View(b)) => alike(a, b),
            (Operand::Const(x, a), Operand::Const(y, b)) => x.to_bits() == y.to_bits() && a == b,
            _ => false,
        });
        if !same_args || !results.iter().zip(made).all(|(a, b)| alike(a, b)) {
            return Some(format!("instance {} is not like the first", i + 1));
        }
    }
    None
}

/// Checks the plan of a module.
pub fn plan(m: &Module, plan: &Plan) -> Result<(), PlanError> {
    plan.entries.values().try_for_each(|e| entry(m, e, plan.arena))
}

fn entry(m: &Module, e: &EntryPlan, arena: usize) -> Result<(), PlanError> {
    let fail = |launch: usize, message: String| Err(PlanError { entry: e.key, launch, message });
    let mut memory = Memory::default();
    for (buffer, data) in e.buffers.iter() {
        match data.place {
            Place::Arena(offset) if !offset.is_multiple_of(ALIGNMENT) || offset + data.bytes > arena => {
                return fail(0, format!("{buffer} does not lie in the arena, or not aligned"));
            }
            Place::Slot(slot) if m.slots.get(slot).is_none_or(|s| m.bytes(&s.ty) != data.bytes) => {
                return fail(0, format!("{buffer} is not {slot}"));
            }
            _ => {}
        }
    }
    let bytes = |view: &View| {
        let data = &e.buffers[view.buffer];
        let (space, base) = match data.place {
            Place::Arena(offset) => (Space::Arena, offset),
            _ => (Space::Outside(view.buffer.as_u32()), 0),
        };
        (space, base + view.offset, base + view.offset + m.bytes(&view.ty))
    };
    for (at, launch) in e.launches.iter().enumerate() {
        if let Some(message) = unlike(m, launch) {
            return fail(at, message);
        }
        let operands = launch.args.iter().enumerate().filter_map(|(i, arg)| match arg {
            Operand::View(view) => Some((i, view)),
            Operand::Const(..) => None,
        });
        let operands: Vec<(usize, &View)> = operands.collect();
        for view in operands.iter().map(|(_, view)| *view).chain(&launch.results) {
            let data = &e.buffers[view.buffer];
            if view.offset + m.bytes(&view.ty) > data.bytes {
                return fail(at, format!("a view of {} bytes leaves {}", m.bytes(&view.ty), view.buffer));
            }
            if at < data.first || at > data.last {
                return fail(at, format!("{} is used outside of its life", view.buffer));
            }
        }
        for (i, view) in &operands {
            let (space, start, end) = bytes(view);
            // What is there from the beginning is what the first reader takes it for.
            let outside = space != Space::Arena;
            if outside && !memory.ranges.range((space, 0)..=(space, usize::MAX)).any(|_| true) {
                memory.write(space, 0, e.buffers[view.buffer].bytes, view.value);
            }
            if !memory.holds(space, start, end, view.value, view.offset) {
                return fail(at, format!("operand {i} (t{}) is not in {} any more", view.value, view.buffer));
            }
        }
        let range = |what: Part, view: &View| {
            let (space, start, end) = bytes(view);
            Range { space, start, end, what, element: view.ty.dtype.bytes() }
        };
        let read = operands.iter().map(|(i, view)| range(Part::Operand(*i), view));
        let made = launch.results.iter().enumerate().map(|(r, view)| range(Part::Result(r), view));
        if let Some(message) = clash(launch, read.chain(made).collect()) {
            return fail(at, message);
        }
        for result in &launch.results {
            let (space, start, end) = bytes(result);
            memory.write(space, start, end, result.value);
        }
    }
    let end = e.launches.len();
    for (name, view) in &e.outputs {
        let (space, start, stop) = bytes(view);
        let untouched = space != Space::Arena && !memory.ranges.range((space, 0)..=(space, usize::MAX)).any(|_| true);
        if !untouched && !memory.holds(space, start, stop, view.value, view.offset) {
            return fail(end, format!("output `{name}` is lost"));
        }
    }
    for (slot, value) in &e.slots {
        let buffer = e.buffers.iter().find(|(_, data)| data.place == Place::Slot(*slot));
        let Some((buffer, data)) = buffer else { return fail(end, format!("{slot} is not written")) };
        let space = Space::Outside(buffer.as_u32());
        let untouched = !memory.ranges.range((space, 0)..=(space, usize::MAX)).any(|_| true);
        if !untouched && !memory.holds(space, 0, data.bytes, *value, 0) {
            return fail(end, format!("{slot} does not get its value"));
        }
    }
    Ok(())
}
