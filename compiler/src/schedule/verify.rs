//! Checks a plan by following memory through it, whoever made it: at each launch, every byte that an operand asks for
//! must hold the tensor that is expected there. Guarantees, when it passes:
//!
//! 1. Every view lies in its buffer, every buffer of the arena in the arena, at a multiple of [`ALIGNMENT`].
//! 2. An operand is what the host, a slot or an earlier launch put there, whole, and nothing wrote over it since.
//! 3. Two results of a launch do not overlap; a result and an operand overlap only if they are the same bytes and the
//!    kernel allows it ([`super::alias::allows`]).
//! 4. After the last launch each slot and host output that the entry promises holds what the entry's function returns.

use std::collections::BTreeMap;

use super::alias;
use super::plan::{ALIGNMENT, EntryPlan, Operand, Place, Plan, View};
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
        for (r, result) in launch.results.iter().enumerate() {
            let (space, start, end) = bytes(result);
            for (i, view) in &operands {
                let (other, from, to) = bytes(view);
                let overlap = space == other && start < to && from < end;
                let same = (start, end) == (from, to) && result.ty.dtype.bytes() == view.ty.dtype.bytes();
                if overlap && !(same && alias::allows(&launch.kernel, *i, r)) {
                    return fail(at, format!("result {r} is written over operand {i}, which it needs"));
                }
            }
            for other in &launch.results[..r] {
                let (there, from, to) = bytes(other);
                if space == there && start < to && from < end {
                    return fail(at, format!("result {r} is written over another result"));
                }
            }
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
