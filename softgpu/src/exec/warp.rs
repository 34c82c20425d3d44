//! A warp: its registers and the tree of its diverged paths.
//!
//! A path is a node with a program counter and the lanes that are on it. A branch that its lanes take differently makes
//! the node wait at the point where the paths meet again, with one child for each side; a child that reaches this point
//! gives its lanes back, and when the last has, the parent goes on. Any leaf may run, and where all wait, lanes that
//! were given back go on alone: so lanes of one warp that wait for one another make progress too.

use super::asynchronous::Copies;
use crate::program::NOWHERE;

/// No node.
pub const NO_NODE: usize = usize::MAX;

/// What a path waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Nothing: it can run.
    None,
    /// A barrier of the block.
    Barrier(u8),
    /// Other lanes of its warp, to run one warp-wide operation together: these.
    Lanes(u32),
}

/// One path.
#[derive(Clone, Copy, Debug)]
pub struct Node {
    /// Next operation.
    pub pc: u32,
    /// Its lanes. While it has children: those that came back.
    pub mask: u32,
    /// Where it gives its lanes back.
    pub meet: u32,
    /// To whom.
    pub parent: usize,
    /// Paths that will come back to this one.
    pub children: u32,
    /// What it waits for.
    pub wait: Wait,
}

/// 64 bytes of registers.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Line(pub [u8; 64]);

/// A warp.
pub struct Warp {
    /// Its registers.
    pub regs: Vec<Line>,
    /// Its paths; dead ones have no lanes, no children and stand in `free`.
    pub nodes: Vec<Node>,
    free: Vec<usize>,
    /// The path that runs next.
    pub current: usize,
    /// Lanes that have threads.
    pub exists: u32,
    /// Lanes that have not ended.
    pub live: u32,
    /// Its asynchronous copies.
    pub copies: Copies,
    /// For each warp of the block, until when what it did is ordered before this one.
    pub seen: [u32; 32],
    /// What this warp releases with its next strong write (a fence came before).
    pub fenced: Option<Box<[u32; 32]>>,
    /// What its strong reads saw released; a fence makes it `seen`.
    pub heard: Option<Box<[u32; 32]>>,
    /// Lanes that wait for the result of a reducing barrier.
    pub reducing: u32,
    /// Strong reads since the last progress of the launch, and that progress.
    pub polls: (u64, u64),
}

impl Warp {
    /// A warp at the first operation.
    pub fn new(reg_bytes: u32, exists: u32) -> Warp {
        let mut w = Warp {
            regs: vec![Line([0; 64]); reg_bytes.div_ceil(64) as usize],
            nodes: Vec::new(),
            free: Vec::new(),
            current: 0,
            exists,
            live: exists,
            copies: Copies::default(),
            seen: [0; 32],
            fenced: None,
            heard: None,
            reducing: 0,
            polls: (0, 0),
        };
        w.start(exists);
        w
    }

    /// Begins anew, for another block.
    pub fn start(&mut self, exists: u32) {
        self.nodes.clear();
        self.free.clear();
        self.nodes.push(Node { pc: 0, mask: exists, meet: NOWHERE, parent: NO_NODE, children: 0, wait: Wait::None });
        self.current = 0;
        self.exists = exists;
        self.live = exists;
        self.copies.clear();
        self.seen = [0; 32];
        self.fenced = None;
        self.heard = None;
        self.reducing = 0;
        self.polls = (0, 0);
    }

    /// Whether all its threads have ended.
    pub fn done(&self) -> bool {
        self.live == 0
    }

    /// Whether a path can run.
    pub fn runnable(&self, n: usize) -> bool {
        let node = &self.nodes[n];
        node.children == 0 && node.mask != 0 && node.wait == Wait::None
    }

    /// Chooses the next path that can run, after the current one in turn.
    pub fn turn(&mut self) -> bool {
        let n = self.nodes.len();
        for k in 1..=n {
            let i = (self.current + k) % n;
            if self.runnable(i) {
                self.current = i;
                return true;
            }
        }
        false
    }

    /// Lets lanes that wait where paths meet go on alone: the others wait, perhaps for these. False where there are none.
    pub fn part(&mut self) -> bool {
        let mut any = false;
        for n in 0..self.nodes.len() {
            let node = self.nodes[n];
            if node.children > 0 && node.mask != 0 {
                self.nodes[n].mask = 0;
                if node.parent != NO_NODE {
                    self.nodes[node.parent].children += 1;
                }
                self.add(Node { children: 0, ..node });
                any = true;
            }
        }
        any
    }

    /// Joins path `other` to `n` where both come back to the same place; they stand at the same operation.
    pub fn join(&mut self, n: usize, other: usize) -> bool {
        let (a, b) = (self.nodes[n], self.nodes[other]);
        if (a.parent, a.meet) != (b.parent, b.meet) {
            return false;
        }
        self.nodes[n].mask |= b.mask;
        self.nodes[other].mask = 0;
        self.nodes[other].wait = Wait::None;
        self.free.push(other);
        if a.parent != NO_NODE {
            self.nodes[a.parent].children -= 1;
        }
        true
    }

    /// Whether path `n` is one side of a branch whose other lanes are elsewhere and meet it again further on.
    pub fn within_branch(&self, n: usize) -> bool {
        let mut n = n;
        loop {
            let Node { meet, parent, .. } = self.nodes[n];
            if parent == NO_NODE {
                return false;
            }
            let p = &self.nodes[parent];
            if meet != NOWHERE && (p.children > 1 || p.mask != 0) {
                return true;
            }
            n = parent;
        }
    }

    /// Whether a path can run or waits for other warps, so that what waits for lanes of this warp may wait on.
    pub fn others_move(&self) -> bool {
        self.waiting().any(|n| !matches!(n.wait, Wait::Lanes(_)))
    }

    /// Paths that wait for something.
    pub fn waiting(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|n| n.children == 0 && n.mask != 0)
    }

    fn add(&mut self, node: Node) -> usize {
        match self.free.pop() {
            Some(i) => {
                self.nodes[i] = node;
                i
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() - 1
            }
        }
    }

    /// Splits path `n` in two that meet again at `meet`; returns the one to run first (its lanes are `first`).
    pub fn split(&mut self, n: usize, first: (u32, u32), second: (u32, u32), meet: u32) -> usize {
        let old = self.nodes[n];
        let child = |(pc, mask): (u32, u32), parent| Node { pc, mask, meet, parent, children: 0, wait: Wait::None };
        if old.parent != NO_NODE && old.meet == meet {
            // Both meet where this path would: they become brothers.
            self.nodes[n] = child(first, old.parent);
            self.nodes[old.parent].children += 1;
            self.add(child(second, old.parent));
            return n;
        }
        self.nodes[n] = Node { pc: meet, mask: 0, children: 2, ..old };
        let a = self.add(child(first, n));
        self.add(child(second, n));
        a
    }

    /// Ends path `n`: its lanes (those that did not end) go to its parent. Chooses another path to run; false where
    /// none can.
    pub fn retire(&mut self, n: usize) -> bool {
        let mut n = n;
        loop {
            let node = self.nodes[n];
            self.nodes[n].mask = 0;
            if node.parent == NO_NODE {
                return self.turn();
            }
            self.free.push(n);
            let p = node.parent;
            self.nodes[p].mask |= node.mask;
            self.nodes[p].children -= 1;
            if self.nodes[p].children > 0 {
                return self.turn();
            }
            if self.nodes[p].mask != 0 {
                self.current = p;
                return true;
            }
            n = p;
        }
    }
}
