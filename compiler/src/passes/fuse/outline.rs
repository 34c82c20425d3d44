//! Moves clusters of nodes into functions of their own and puts calls in their place.
//!
//! ```text
//! before                              after
//! v1: f32[T] = exp v0                 func f0 "rows" (v0: f32[T]) {
//! v2: f32[T] = neg v1                   v1: f32[T] = exp v0
//! return v2                             v2: f32[T] = neg v1
//!                                       return v2
//!                                     }
//!                                     … v1: f32[T] = call v0 {func = f0, kind = rows}
//! ```
//!
//! Equal bodies are one function. What is free (`flow.rs`) is made again in every body that needs it, and outside only
//! where something outside asks for it. A call stands where [`Cluster::at`] stood, or as soon after it as its operands
//! are there; all else keeps its order.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use cranelift_entity::{PrimaryMap, SecondaryMap};
use mngc_dsl::Span;

use super::flow::{Flow, is_free};
use crate::ir::{CallKind, Func, Fusion, Graph, Module, Node, Op, Type, Value};
use crate::passes::rewrite::Rewrite;

/// Nodes that become one call.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// What the call stands for.
    pub fusion: Fusion,
    /// The nodes, in order, none of them free.
    pub nodes: Vec<Node>,
    /// Values of the nodes that the call gives.
    pub results: Vec<Value>,
    /// Results of the graph, by position, that the call gives beside: free values made of constants.
    pub fills: Vec<usize>,
    /// The node in whose place the call stands.
    pub at: Node,
}

/// Outlines what `find` finds in every function that is not the body of a fused call, and gives the number of calls.
pub fn run(m: &mut Module, find: impl Fn(&Flow, Func) -> Vec<Cluster>) -> Result<usize, String> {
    let is_body = bodies(m);
    let mut found: SecondaryMap<Func, Vec<Cluster>> = SecondaryMap::new();
    let mut count = 0;
    for (func, g) in m.funcs.iter().filter(|(func, _)| !is_body[*func]) {
        found[func] = find(&Flow::of(m, g), func);
        count += found[func].len();
    }
    if count == 0 {
        return Ok(0);
    }
    let mut out = Outliner { funcs: PrimaryMap::new(), bodies: HashMap::new() };
    let mut ids: SecondaryMap<Func, Func> = SecondaryMap::with_default(Func::from_u32(0));
    for (func, g) in m.funcs.iter() {
        let mut new = if found[func].is_empty() {
            rename(g.clone(), |callee| ids[callee])
        } else {
            // Bodies of this function's calls have their final ids, what it called before gets them here.
            let flow = Flow::of(m, g);
            out.graph(&flow, &found[func], |callee| ids[callee])?
        };
        new.gradient = g.gradient.map(|gradient| ids[gradient]);
        ids[func] = if is_body[func] { out.body(new) } else { out.funcs.push(new) };
    }
    m.funcs = out.funcs;
    for entry in m.entries.values_mut() {
        entry.func = ids[entry.func];
    }
    Ok(count)
}

/// Which functions are the graphs of fused calls, or called by these.
fn bodies(m: &Module) -> SecondaryMap<Func, bool> {
    let mut is_body = SecondaryMap::new();
    for (func, g) in m.funcs.iter().rev() {
        for node in g.nodes.values() {
            if let Op::Call { func: callee, kind } = node.op
                && (kind.is_fused() || is_body[func])
            {
                is_body[callee] = true;
            }
        }
    }
    is_body
}

fn rename(mut g: Graph, id: impl Fn(Func) -> Func) -> Graph {
    for node in g.nodes.values_mut() {
        if let Op::Call { func, .. } = &mut node.op {
            *func = id(*func);
        }
    }
    g
}

/// What makes two bodies equal: types of parameters, nodes with their places, results.
type Structure = (Vec<Type>, Vec<(Op, Vec<Value>, Vec<Type>, Option<Span>)>, Vec<Value>);

fn structure(g: &Graph) -> Structure {
    let types = |values: &[Value]| values.iter().map(|&v| g.ty(v).clone()).collect();
    let nodes = g.nodes.values().map(|n| (n.op.clone(), n.args.clone(), types(&n.results), n.loc));
    (types(&g.params), nodes.collect(), g.results.clone())
}

struct Outliner {
    funcs: PrimaryMap<Func, Graph>,
    bodies: HashMap<Structure, Func>,
}

impl Outliner {
    fn body(&mut self, g: Graph) -> Func {
        if g.gradient.is_some() {
            return self.funcs.push(g);
        }
        *self.bodies.entry(structure(&g)).or_insert_with(|| self.funcs.push(g))
    }

    fn graph(&mut self, flow: &Flow, clusters: &[Cluster], id: impl Fn(Func) -> Func) -> Result<Graph, String> {
        let g = flow.g;
        let mut r = Rewrite::new(g);
        let mut made: SecondaryMap<Node, bool> = SecondaryMap::new();
        let mut fills: HashMap<usize, Value> = HashMap::new();
        for step in order(flow, clusters)? {
            match step {
                Step::Node(node) => {
                    for &arg in &g.nodes[node].args {
                        make_free(&mut r, &mut made, arg);
                    }
                    let (args, mut op) = (r.args(node), g.nodes[node].op.clone());
                    if let Op::Call { func, .. } = &mut op {
                        *func = id(*func);
                    }
                    r.emit(node, op, args);
                }
                Step::Cluster(cluster) => {
                    let (body, args) = body(flow, cluster)?;
                    let types: Vec<Type> = body.results.iter().map(|&v| body.ty(v).clone()).collect();
                    for &arg in &args {
                        make_free(&mut r, &mut made, arg);
                    }
                    let args = args.iter().map(|&v| r.get(v)).collect();
                    let op = Op::Call { func: self.body(body), kind: CallKind::Fused(cluster.fusion) };
                    let loc = cluster.nodes.iter().find_map(|&node| g.nodes[node].loc);
                    let call = r.new.push(op, args, types, loc);
                    let results = r.new.nodes[call].results.clone();
                    for (&from, &to) in cluster.results.iter().zip(&results) {
                        r.set(from, to);
                    }
                    fills.extend(cluster.fills.iter().copied().zip(results[cluster.results.len()..].iter().copied()));
                }
            }
        }
        for (i, &result) in g.results.iter().enumerate() {
            if !fills.contains_key(&i) {
                make_free(&mut r, &mut made, result);
            }
        }
        let results: Vec<Value> = g.results.iter().map(|&v| r.get(v)).collect();
        for (i, (value, name)) in results.into_iter().zip(&g.result_names).enumerate() {
            r.new.result(name.clone(), fills.get(&i).copied().unwrap_or(value));
        }
        Ok(r.new)
    }
}

/// Copies what is free on the way to a value, unless that was done.
fn make_free(r: &mut Rewrite, made: &mut SecondaryMap<Node, bool>, value: Value) {
    for node in free_chain(r.old, value) {
        if !std::mem::replace(&mut made[node], true) {
            r.copy(node);
        }
    }
}

/// The free nodes that lead to a value, first one first.
fn free_chain(g: &Graph, mut value: Value) -> Vec<Node> {
    let mut chain = Vec::new();
    while let Some(node) = g.def_node(value)
        && is_free(&g.nodes[node].op)
    {
        chain.push(node);
        match g.nodes[node].args.first() {
            Some(&arg) => value = arg,
            None => break,
        }
    }
    chain.reverse();
    chain
}

enum Step<'a> {
    Node(Node),
    Cluster(&'a Cluster),
}

/// Nodes and clusters so that all operands are there, as near as can be to where they stood.
fn order<'a>(flow: &Flow, clusters: &'a [Cluster]) -> Result<Vec<Step<'a>>, String> {
    let mut of_cluster: SecondaryMap<Node, Option<usize>> = SecondaryMap::new();
    for (i, cluster) in clusters.iter().enumerate() {
        for &node in &cluster.nodes {
            of_cluster[node] = Some(i);
        }
    }
    // Clusters first, then the other nodes; each with the place where it stood.
    let mut items: Vec<(&[Node], Node)> = clusters.iter().map(|c| (c.nodes.as_slice(), c.at)).collect();
    let mut item: SecondaryMap<Node, usize> = SecondaryMap::new();
    let singles: Vec<Node> = flow.g.nodes.iter().filter(|(_, data)| !is_free(&data.op)).map(|(node, _)| node).collect();
    for (i, node) in singles.iter().enumerate() {
        item[*node] = of_cluster[*node].unwrap_or(items.len());
        if of_cluster[*node].is_none() {
            items.push((&singles[i..=i], *node));
        }
    }
    let leaders = |i: usize| {
        let operands = items[i].0.iter().flat_map(|&node| flow.operands(node));
        let mut leaders: Vec<usize> =
            operands.filter_map(|&v| flow.g.def_node(v)).map(|def| item[def]).filter(|&j| j != i).collect();
        leaders.sort_unstable();
        leaders.dedup();
        leaders
    };
    let mut followers: Vec<Vec<usize>> = vec![Vec::new(); items.len()];
    let mut missing = vec![0; items.len()];
    for (i, missing) in missing.iter_mut().enumerate() {
        for j in leaders(i) {
            followers[j].push(i);
            *missing += 1;
        }
    }
    let mut ready: BinaryHeap<Reverse<(Node, usize)>> =
        (0..items.len()).filter(|&i| missing[i] == 0).map(|i| Reverse((items[i].1, i))).collect();
    let mut steps = Vec::with_capacity(items.len());
    while let Some(Reverse((_, i))) = ready.pop() {
        steps.push(clusters.get(i).map_or(Step::Node(items[i].1), Step::Cluster));
        for &j in &followers[i] {
            missing[j] -= 1;
            if missing[j] == 0 {
                ready.push(Reverse((items[j].1, j)));
            }
        }
    }
    if steps.len() == items.len() { Ok(steps) } else { Err("clusters that need each other".into()) }
}

/// The function of a cluster, and the values of the graph that its parameters stand for.
fn body(flow: &Flow, cluster: &Cluster) -> Result<(Graph, Vec<Value>), String> {
    let g = flow.g;
    let fills: Vec<Value> = cluster.fills.iter().map(|&i| g.results[i]).collect();
    let inside = |value: Value| g.def_node(value).is_some_and(|def| cluster.nodes.binary_search(&def).is_ok());
    let mut params: Vec<Value> = Vec::new();
    for &node in &cluster.nodes {
        let data = &g.nodes[node];
        // Products, and what stands beside logits, are read as they are: a reshape or a broadcast of one stays outside.
        let as_is = matches!(data.op, Op::Dot { .. } | Op::CrossEntropy | Op::CrossEntropyGrad);
        for &arg in &data.args {
            let Some(base) = flow.base(arg) else {
                if as_is && !params.contains(&arg) {
                    params.push(arg);
                }
                continue;
            };
            let read = if as_is { arg } else { base };
            if !inside(base) && !params.contains(&read) {
                params.push(read);
            }
        }
    }
    let mut body = Graph::new(cluster.fusion.name());
    let mut map: HashMap<Value, Value> = HashMap::new();
    for &param in &params {
        map.insert(param, body.param("", g.ty(param).clone()));
    }
    for &node in &cluster.nodes {
        for &arg in &g.nodes[node].args {
            copy_free(g, &mut body, &mut map, arg);
        }
        copy(g, &mut body, &mut map, node);
    }
    for &fill in &fills {
        copy_free(g, &mut body, &mut map, fill);
    }
    for value in cluster.results.iter().chain(&fills) {
        let value = map.get(value).ok_or_else(|| format!("{value} is no result of its cluster"))?;
        body.result("", *value);
    }
    Ok((body, params))
}

fn copy_free(g: &Graph, body: &mut Graph, map: &mut HashMap<Value, Value>, value: Value) {
    if map.contains_key(&value) {
        return;
    }
    let chain = free_chain(g, value);
    // A parameter may stand in the middle of the chain.
    let start = chain.iter().rposition(|&node| map.contains_key(&g.nodes[node].results[0])).map_or(0, |i| i + 1);
    for &node in &chain[start..] {
        copy(g, body, map, node);
    }
}

fn copy(g: &Graph, body: &mut Graph, map: &mut HashMap<Value, Value>, node: Node) {
    let data = &g.nodes[node];
    let args = data.args.iter().map(|v| map.get(v).copied().unwrap_or(*v)).collect();
    let types = data.results.iter().map(|&v| g.ty(v).clone()).collect();
    let new = body.push(data.op.clone(), args, types, data.loc);
    map.extend(data.results.iter().copied().zip(body.nodes[new].results.iter().copied()));
}
