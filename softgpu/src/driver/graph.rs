//! Graphs: made by capture or node by node, instantiated, updated, launched.

use std::collections::HashMap;
use std::ffi::c_void;

use super::queue::{Op, Vc, join};
use super::state::State;
use super::status::*;

/// A node.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its handle.
    pub handle: usize,
    /// What it does.
    pub op: Op,
    /// Nodes before it, by number.
    pub after: Vec<usize>,
}

/// A graph: its nodes in an order that respects their dependencies, but for edges that were added later.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// Its nodes.
    pub nodes: Vec<Node>,
}

/// A graph that can be launched.
pub struct GraphExec {
    /// What it does, nodes in an order that respects their dependencies.
    pub nodes: Vec<Node>,
    /// The stream number of each branch beyond the first, so that missing edges between branches are seen.
    pub lanes: Vec<u32>,
    /// For each node, its branch: 0 is that of the stream it is launched in.
    pub lane: Vec<usize>,
}

/// A capture that goes on.
pub struct Capture {
    /// What was captured.
    pub graph: Graph,
    /// The stream that it began in.
    pub origin: usize,
    /// For each stream that takes part, the nodes that its next one comes after.
    pub tails: HashMap<usize, Vec<usize>>,
    /// Something that cannot be captured was called.
    pub invalid: bool,
}

impl Graph {
    /// Adds a node; returns its number.
    pub fn add(&mut self, handle: usize, op: Op, after: Vec<usize>) -> usize {
        self.nodes.push(Node { handle, op, after });
        self.nodes.len() - 1
    }

    /// The number of the node with this handle.
    pub fn find(&self, handle: usize) -> Result<usize, Code> {
        self.nodes.iter().position(|n| n.handle == handle).ok_or(ERROR_INVALID_VALUE)
    }

    /// Its nodes, each after those that it depends on; `None` where they go round in a circle.
    fn sorted(&self) -> Option<Vec<Node>> {
        let n = self.nodes.len();
        let mut place = vec![usize::MAX; n];
        let mut out: Vec<Node> = Vec::with_capacity(n);
        while out.len() < n {
            let before = out.len();
            for i in 0..n {
                if place[i] == usize::MAX && self.nodes[i].after.iter().all(|d| place[*d] != usize::MAX) {
                    place[i] = out.len();
                    let mut node = self.nodes[i].clone();
                    node.after.iter_mut().for_each(|d| *d = place[*d]);
                    out.push(node);
                }
            }
            if out.len() == before {
                return None;
            }
        }
        Some(out)
    }
}

impl State {
    /// Adds an operation of a capturing stream to its graph.
    pub fn capture(&mut self, stream: usize, op: Op) -> Result<(), Code> {
        let handle = self.fresh();
        let id = self.streams[&stream].capture.ok_or(ERROR_UNKNOWN)?;
        let c = self.captures.get_mut(&id).ok_or(ERROR_STREAM_CAPTURE_INVALIDATED)?;
        if c.invalid {
            return Err(ERROR_STREAM_CAPTURE_INVALIDATED);
        }
        let after = c.tails.get(&stream).cloned().unwrap_or_default();
        if let Op::Record(e) = op {
            if let Some(e) = self.events.get_mut(&e) {
                e.captured = Some((id, after));
            }
            return Ok(());
        }
        let node = c.graph.add(handle, op, after);
        c.tails.insert(stream, vec![node]);
        Ok(())
    }

    /// Makes a stream wait for an event: in a capture, for the nodes that it stands for.
    pub fn wait_event(&mut self, stream: usize, event: usize) -> Result<(), Code> {
        let e = self.events.get(&event).ok_or(ERROR_INVALID_HANDLE)?;
        if let Some((id, nodes)) = e.captured.clone() {
            let joined = self.streams[&stream].capture;
            if joined.is_some_and(|j| j != id) || !self.captures.contains_key(&id) {
                return Err(ERROR_CAPTURED_EVENT);
            }
            if let Some(s) = self.streams.get_mut(&stream) {
                s.capture = Some(id);
            }
            if let Some(c) = self.captures.get_mut(&id) {
                let tail = c.tails.entry(stream).or_default();
                tail.extend(nodes);
                tail.sort_unstable();
                tail.dedup();
            }
            return Ok(());
        }
        if self.streams[&stream].capture.is_some() {
            // What lies outside of the capture cannot be waited for within.
            return if e.seq == 0 { Ok(()) } else { Err(ERROR_STREAM_CAPTURE_UNSUPPORTED) };
        }
        let (vc, seq) = (e.vc.clone(), e.seq);
        if let Some(s) = self.streams.get_mut(&stream) {
            join(&mut s.vc, &vc);
            s.last = s.last.max(seq);
        }
        Ok(())
    }

    /// Begins a capture.
    pub fn begin_capture(&mut self, stream: usize) -> Result<(), Code> {
        let s = &self.streams[&stream];
        if s.capture.is_some() {
            return Err(ERROR_ILLEGAL_STATE);
        }
        if self.contexts[&s.context].default_stream == stream {
            return Err(ERROR_STREAM_CAPTURE_UNSUPPORTED);
        }
        let id = self.fresh();
        let graph = Graph::default();
        self.captures.insert(
            id,
            Capture { graph, origin: stream, tails: HashMap::from([(stream, Vec::new())]), invalid: false },
        );
        if let Some(s) = self.streams.get_mut(&stream) {
            s.capture = Some(id);
        }
        Ok(())
    }

    /// Ends a capture; returns its graph.
    pub fn end_capture(&mut self, stream: usize) -> Result<usize, Code> {
        let id = self.streams[&stream].capture.ok_or(ERROR_ILLEGAL_STATE)?;
        if self.captures.get(&id).is_some_and(|c| c.origin != stream) {
            return Err(ERROR_STREAM_CAPTURE_UNMATCHED);
        }
        let c = self.captures.remove(&id).ok_or(ERROR_STREAM_CAPTURE_INVALIDATED)?;
        self.streams.values_mut().filter(|s| s.capture == Some(id)).for_each(|s| s.capture = None);
        self.events.values_mut().for_each(|e| {
            if e.captured.as_ref().is_some_and(|(i, _)| *i == id) {
                e.captured = None;
            }
        });
        if c.invalid {
            return Err(ERROR_STREAM_CAPTURE_INVALIDATED);
        }
        // Every branch must have come back to the stream that the capture began in.
        let mut reached = vec![false; c.graph.nodes.len()];
        let mut open = c.tails.get(&stream).cloned().unwrap_or_default();
        while let Some(n) = open.pop() {
            if !std::mem::replace(&mut reached[n], true) {
                open.extend(&c.graph.nodes[n].after);
            }
        }
        if c.tails.values().flatten().any(|n| !reached[*n]) {
            return Err(ERROR_STREAM_CAPTURE_UNJOINED);
        }
        let h = self.fresh();
        self.graphs.insert(h, c.graph);
        Ok(h)
    }

    /// Makes a graph ready to launch.
    pub fn instantiate(&mut self, graph: usize) -> Result<usize, Code> {
        let g = self.graphs.get(&graph).ok_or(ERROR_INVALID_HANDLE)?;
        let nodes = g.sorted().ok_or(ERROR_INVALID_VALUE)?;
        let (lane, count) = lanes(&nodes);
        let lanes = (1..count).map(|_| self.fresh_stream()).collect();
        let h = self.fresh();
        self.execs.insert(h, GraphExec { nodes, lanes, lane });
        Ok(h)
    }

    /// Replaces what an instantiated graph does by a graph of the same shape.
    pub fn update_exec(&mut self, exec: usize, graph: usize) -> Result<(), Code> {
        let nodes = self.graphs.get(&graph).ok_or(ERROR_INVALID_HANDLE)?.sorted().ok_or(ERROR_INVALID_VALUE)?;
        let e = self.execs.get_mut(&exec).ok_or(ERROR_INVALID_HANDLE)?;
        let same =
            |a: &Node, b: &Node| a.after == b.after && std::mem::discriminant(&a.op) == std::mem::discriminant(&b.op);
        if nodes.len() != e.nodes.len() || !nodes.iter().zip(&e.nodes).all(|(a, b)| same(a, b)) {
            return Err(ERROR_GRAPH_EXEC_UPDATE_FAILURE);
        }
        for (old, new) in e.nodes.iter_mut().zip(nodes) {
            old.op = new.op;
        }
        Ok(())
    }

    /// Queues a graph in a stream.
    pub fn launch_graph(&mut self, exec: usize, stream: usize) -> Result<(), Code> {
        let e = self.execs.get(&exec).ok_or(ERROR_INVALID_HANDLE)?;
        let (nodes, lanes, lane) = (e.nodes.clone(), e.lanes.clone(), e.lane.clone());
        if self.streams[&stream].capture.is_some() {
            // A graph within a capture becomes its nodes, one after the other.
            for n in nodes {
                self.capture(stream, n.op)?;
            }
            return Ok(());
        }
        // An empty operation stands for the begin, so that the rules of the default stream are applied once.
        self.enqueue(stream, Op::Empty)?;
        let (context, number) = (self.streams[&stream].context, self.streams[&stream].number);
        let begin = self.streams[&stream].vc.clone();
        let mut end = begin.clone();
        let mut clocks: Vec<Vc> = Vec::with_capacity(nodes.len());
        let mut last = 0;
        for (i, n) in nodes.into_iter().enumerate() {
            let mut vc = begin.clone();
            n.after.iter().for_each(|d| join(&mut vc, &clocks[*d]));
            let branch = if lane[i] == 0 { number } else { lanes[lane[i] - 1] };
            let (seq, after) = self.enqueue_after(context, branch, vc, n.op);
            join(&mut end, &after);
            clocks.push(after);
            last = seq;
        }
        if let Some(s) = self.streams.get_mut(&stream) {
            s.vc = end;
            s.last = s.last.max(last);
        }
        Ok(())
    }
}

/// Splits nodes into branches within which each follows the one before: the branch of each, and their number.
fn lanes(nodes: &[Node]) -> (Vec<usize>, usize) {
    let mut continued = vec![false; nodes.len()];
    let mut lane = Vec::with_capacity(nodes.len());
    let mut count = 0;
    for n in nodes {
        let follows = n.after.iter().find(|d| !continued[**d]);
        match follows {
            Some(d) => {
                continued[*d] = true;
                lane.push(lane[*d]);
            }
            None => {
                lane.push(count);
                count += 1;
            }
        }
    }
    (lane, count.max(1))
}

/// The handle of a node as the caller holds it.
pub fn node_handle(h: usize) -> *mut c_void {
    h as *mut c_void
}
