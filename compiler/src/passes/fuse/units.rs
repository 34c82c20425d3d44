//! A partition of a graph's nodes into units that can run one after another.
//!
//! Nodes are merged into units only where no path leads from a unit through another one and back into it. Units are kept
//! in a topological order, so that only those between the merged ones have to be searched; after a merge the searched
//! ones are put in order again (after Pearce & Kelly 2006, for contracted vertices instead of new edges).

use cranelift_entity::SecondaryMap;

use super::flow::{Flow, is_free};
use crate::ir::Node;

/// A unit, by position.
pub type Unit = usize;

/// The partition. Nodes that are free belong to no unit.
pub struct Units<'a> {
    flow: &'a Flow<'a>,
    unit: SecondaryMap<Node, Unit>,
    members: Vec<Vec<Node>>,
    /// Positions in the topological order; no two units have the same.
    position: Vec<usize>,
    seen: Vec<usize>,
    searches: usize,
}

/// What a legal merge does to the order.
pub struct Merge {
    set: Vec<Unit>,
    before: Vec<Unit>,
    behind: Vec<Unit>,
}

impl<'a> Units<'a> {
    /// Every node a unit of its own.
    pub fn new(flow: &'a Flow<'a>) -> Units<'a> {
        let mut unit = SecondaryMap::with_default(usize::MAX);
        let mut members = Vec::new();
        for (node, data) in flow.g.nodes.iter() {
            if !is_free(&data.op) {
                unit[node] = members.len();
                members.push(vec![node]);
            }
        }
        let count = members.len();
        Units { flow, unit, members, position: (0..count).collect(), seen: vec![0; count], searches: 0 }
    }

    /// The unit of a node that is not free.
    pub fn of(&self, node: Node) -> Unit {
        self.unit[node]
    }

    /// Nodes of a unit, in order; none if it was merged into another.
    pub fn members(&self, unit: Unit) -> &[Node] {
        &self.members[unit]
    }

    /// Number of units, those that were merged into others among them.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// All units that have nodes.
    pub fn ids(&self) -> impl Iterator<Item = Unit> {
        (0..self.members.len()).filter(|&unit| !self.members[unit].is_empty())
    }

    /// Where a unit stands in a topological order.
    pub fn position(&self, unit: Unit) -> usize {
        self.position[unit]
    }

    /// Nodes of both units, in order.
    pub fn union(&self, a: Unit, b: Unit) -> Vec<Node> {
        let mut nodes = [self.members(a), self.members(b)].concat();
        nodes.sort_unstable();
        nodes
    }

    /// Whether units can become one, and what that does to the order. None if a path leads out of the set and back.
    pub fn check(&mut self, set: &[Unit]) -> Option<Merge> {
        let mut set = set.to_vec();
        set.sort_unstable();
        set.dedup();
        let first = set.iter().map(|&u| self.position[u]).min()?;
        let last = set.iter().map(|&u| self.position[u]).max()?;
        let behind = self.search(&set, |units, u, next| units.followers(u, next), |at| at < last)?;
        let before = self.search(&set, |units, u, next| units.leaders(u, next), |at| at > first)?;
        Some(Merge { set, before, behind })
    }

    /// Makes one unit of a set and gives it.
    pub fn apply(&mut self, mut merge: Merge) -> Unit {
        let all = merge.set.iter().chain(&merge.before).chain(&merge.behind);
        let mut free: Vec<usize> = all.map(|&u| self.position[u]).collect();
        free.sort_unstable();
        let by_position = |units: &Units, list: &mut Vec<Unit>| list.sort_unstable_by_key(|&u| units.position[u]);
        by_position(self, &mut merge.before);
        by_position(self, &mut merge.behind);
        let count = merge.before.len();
        let tail = free.len() - merge.behind.len();
        for (&u, &at) in merge.before.iter().zip(&free) {
            self.position[u] = at;
        }
        for (&u, &at) in merge.behind.iter().zip(&free[tail..]) {
            self.position[u] = at;
        }
        let one = merge.set[0];
        self.position[one] = free[count];
        let mut nodes: Vec<Node> = Vec::new();
        for &u in &merge.set {
            nodes.append(&mut self.members[u]);
        }
        nodes.sort_unstable();
        for &node in &nodes {
            self.unit[node] = one;
        }
        self.members[one] = nodes;
        one
    }

    /// Units outside of the set that are reached from it within the bound, in no order; none if one leads into the set.
    fn search(
        &mut self,
        set: &[Unit],
        next: impl Fn(&Units, Unit, &mut Vec<Unit>),
        within: impl Fn(usize) -> bool,
    ) -> Option<Vec<Unit>> {
        self.searches += 1;
        let mark = self.searches;
        let mut found = Vec::new();
        let mut neighbours = Vec::new();
        let mut done = 0;
        for &u in set {
            self.seen[u] = mark;
            next(self, u, &mut neighbours);
        }
        loop {
            for u in std::mem::take(&mut neighbours) {
                let is_new = self.seen[u] != mark;
                if done > 0 && !is_new && set.contains(&u) {
                    return None;
                }
                if is_new && within(self.position[u]) {
                    self.seen[u] = mark;
                    found.push(u);
                }
            }
            let Some(&u) = found.get(done) else { return Some(found) };
            done += 1;
            next(self, u, &mut neighbours);
        }
    }

    fn followers(&self, unit: Unit, out: &mut Vec<Unit>) {
        for &node in &self.members[unit] {
            for &result in &self.flow.g.nodes[node].results {
                out.extend(self.flow.users(result).iter().map(|&user| self.unit[user]).filter(|&u| u != unit));
            }
        }
    }

    fn leaders(&self, unit: Unit, out: &mut Vec<Unit>) {
        for &node in &self.members[unit] {
            let defs = self.flow.operands(node).iter().filter_map(|&value| self.flow.g.def_node(value));
            out.extend(defs.map(|def| self.unit[def]).filter(|&u| u != unit));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::read;

    /// v1 and v4 with v2 and v3 between them, v5 beside.
    const DIAMOND: &str = "module \"m\"\ndim d = 4\nfunc f0 \"f\" (v0: f32[d]) {\n v1: f32[d] = exp v0\n v2: f32[d] = log v1\n \
                           v3: f32[d] = sin v1\n v4: f32[d] = add v2, v3\n v5: f32[d] = cos v0\n return v4, v5\n}\n";

    #[test]
    fn what_stands_between_goes_along_or_forbids_a_merge() {
        let m = read::module(DIAMOND).expect("a module");
        let g = m.funcs.values().next().expect("a function");
        let flow = Flow::of(&m, g);
        let mut units = Units::new(&flow);
        assert!(units.check(&[0, 3]).is_none());
        assert!(units.check(&[0, 1, 3]).is_none());
        let merge = units.check(&[0, 4]).expect("v5 depends on nothing of them");
        let first = units.apply(merge);
        let merge = units.check(&[1, 2]).expect("neither needs the other");
        let middle = units.apply(merge);
        assert!(units.check(&[first, 3]).is_none());
        assert!(units.position[first] < units.position[middle] && units.position[middle] < units.position[3]);
        let merge = units.check(&[first, middle, 3]).expect("everything");
        let all = units.apply(merge);
        assert_eq!(units.members(all).len(), 5);
    }
}
