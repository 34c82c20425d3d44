//! What a drawing of a function shows, before any layout: vertices, edges, clusters.
//!
//! Numbers and weights are no vertices: they stand in the label of what reads them, so that edges are the way of the
//! activations. A weight is a parameter without a token or sequence axis; what only moves or casts one is still that.
//! A value that many vertices read has an edge to the first of them; the others name it. A call is one vertex, or a
//! cluster of its own as far as levels of calls are to be opened.

use std::collections::{BTreeMap, HashMap};

use mngc_dsl::Span;

use super::entities::{Func, Value};
use super::graph::{Graph, Module, NodeData};
use super::op::Op;
use super::types::{DimRole, Type};

/// How a function is drawn.
#[derive(Clone, Copy, Default)]
pub struct DotOptions<'a> {
    /// So many levels of calls are opened.
    pub expand: usize,
    /// Weights and numbers are vertices too.
    pub weights: bool,
    /// Writes a place in a model file as the reader knows it: `gpt2.mng:41`.
    pub place: Option<&'a dyn Fn(Span) -> String>,
}

/// What a vertex stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A parameter.
    Input,
    /// An operation.
    Op,
    /// An operation that only moves values.
    Move,
    /// A call that is not opened.
    Call,
    /// A result.
    Output,
}

/// A box of the drawing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vertex {
    /// Lines of text, the first being the name.
    pub lines: Vec<String>,
    /// What it stands for.
    pub role: Role,
    /// The cluster that it is in, by position.
    pub cluster: Option<usize>,
}

/// An opened call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Its name.
    pub label: String,
    /// The cluster around it.
    pub parent: Option<usize>,
}

/// An arrow from one vertex to another, by position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// Where the value comes from.
    pub from: usize,
    /// What reads it.
    pub to: usize,
    /// Which result of the vertex it is.
    result: usize,
    /// Its type.
    pub label: String,
}

/// More readers than this are told by name.
const MANY_READERS: usize = 4;

/// A drawing without places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    /// Boxes; an edge leads from an earlier one to a later one.
    pub vertices: Vec<Vertex>,
    /// Arrows.
    pub edges: Vec<Edge>,
    /// Opened calls, the outer before the inner.
    pub clusters: Vec<Cluster>,
}

impl Picture {
    /// The drawing of a function.
    pub fn of(m: &Module, func: Func, options: &DotOptions) -> Picture {
        let g = &m.funcs[func];
        let mut painter = Painter { m, options, picture: Picture::default(), names: HashMap::new() };
        let params = g.params.iter().zip(&g.param_names);
        let sources = params.map(|(&value, name)| painter.param(g, value, name)).collect();
        let results = painter.function(g, sources, 0, None);
        for ((source, name), &value) in results.into_iter().zip(&g.result_names).zip(&g.results) {
            let lines = vec![if name.is_empty() { value.to_string() } else { name.clone() }];
            painter.vertex(lines, Role::Output, None, &[(source, g.ty(value))]);
        }
        painter.picture.name_shared_values(&painter.names);
        painter.picture.join_parallel_edges();
        painter.picture
    }

    /// One arrow from a box to another, however many values it brings.
    fn join_parallel_edges(&mut self) {
        let mut arrows: BTreeMap<(usize, usize), Vec<Edge>> = BTreeMap::new();
        for edge in self.edges.drain(..) {
            let values = arrows.entry((edge.to, edge.from)).or_default();
            if values.iter().all(|other| other.result != edge.result) {
                values.push(edge);
            }
        }
        self.edges = arrows
            .into_values()
            .filter_map(|mut values| {
                let label = match values.as_slice() {
                    [a] => a.label.clone(),
                    [a, b] => format!("{}\n{}", a.label, b.label),
                    many => format!("{} values", many.len()),
                };
                values.pop().map(|edge| Edge { label, ..edge })
            })
            .collect();
    }

    /// Keeps the first edge of a value that many read, and writes its name where the others ended. `called` says what
    /// functions call the results of vertices.
    fn name_shared_values(&mut self, called: &HashMap<(usize, usize), Vec<&str>>) {
        let mut readers: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
        for (i, edge) in self.edges.iter().enumerate() {
            readers.entry((edge.from, edge.result)).or_default().push(i);
        }
        let mut hidden = vec![false; self.edges.len()];
        let inputs = self.vertices.iter().filter(|vertex| vertex.role == Role::Input);
        let mut names: HashMap<String, usize> = inputs.map(|vertex| (vertex.lines[0].clone(), 1)).collect();
        for ((from, result), edges) in readers {
            let mut boxes: Vec<usize> = edges.iter().map(|&i| self.edges[i].to).collect();
            boxes.dedup();
            if boxes.len() <= MANY_READERS {
                continue;
            }
            let called = called.get(&(from, result)).and_then(|names| most_frequent(names));
            let mut name = called.unwrap_or(&self.vertices[from].lines[0]).to_string();
            if self.vertices[from].role == Role::Input {
                name = self.vertices[from].lines[0].clone();
            } else {
                let used = names.entry(name.clone()).or_default();
                *used += 1;
                if *used > 1 {
                    name = format!("{name}.{used}");
                }
                self.vertices[from].lines.push(format!("= {name}"));
            }
            for &i in edges.iter().filter(|&&i| self.edges[i].to != boxes[0]) {
                hidden[i] = true;
            }
            for &reader in &boxes[1..] {
                let lines = &mut self.vertices[reader].lines;
                match lines.last_mut().filter(|line| line.starts_with("reads ")) {
                    Some(line) => line.push_str(&format!(", {name}")),
                    None => lines.push(format!("reads {name}")),
                }
            }
        }
        let mut hidden = hidden.into_iter();
        self.edges.retain(|_| !hidden.next().unwrap_or(false));
    }
}

/// Where a value comes from in the drawing.
#[derive(Clone)]
enum Source {
    /// A result of a vertex.
    Vertex(usize, usize),
    /// A weight or a number, with its text.
    Inline(String),
}

struct Painter<'a> {
    m: &'a Module,
    options: &'a DotOptions<'a>,
    picture: Picture,
    /// What functions call the results of vertices that are their operands.
    names: HashMap<(usize, usize), Vec<&'a str>>,
}

impl Painter<'_> {
    fn param(&mut self, g: &Graph, value: Value, name: &str) -> Source {
        let name = if name.is_empty() { value.to_string() } else { name.to_string() };
        let is_weight = g.ty(value).dims.iter().all(|&dim| self.m.dims.role(dim) == DimRole::Feature);
        if is_weight && !self.options.weights {
            return Source::Inline(name);
        }
        Source::Vertex(self.vertex(vec![name], Role::Input, None, &[]), 0)
    }

    /// Adds a box that reads values of some types.
    fn vertex(&mut self, lines: Vec<String>, role: Role, cluster: Option<usize>, reads: &[(Source, &Type)]) -> usize {
        let to = self.picture.vertices.len();
        let mut lines = lines;
        for (source, ty) in reads {
            match source {
                &Source::Vertex(from, result) => {
                    self.picture.edges.push(Edge { from, to, result, label: self.m.show(ty) });
                }
                Source::Inline(text) if role == Role::Output => lines.push(text.clone()),
                Source::Inline(_) => {}
            }
        }
        self.picture.vertices.push(Vertex { lines, role, cluster });
        to
    }

    /// Draws the nodes of a function and gives where its results come from.
    fn function(&mut self, g: &Graph, params: Vec<Source>, depth: usize, cluster: Option<usize>) -> Vec<Source> {
        let mut sources: HashMap<Value, Source> = g.params.iter().copied().zip(params).collect();
        let find = |sources: &HashMap<Value, Source>, v: Value| {
            sources.get(&v).cloned().unwrap_or(Source::Inline(v.to_string()))
        };
        for (_, node) in g.nodes.iter() {
            let args: Vec<Source> = node.args.iter().map(|&v| find(&sources, v)).collect();
            if let Op::Call { func, .. } = node.op {
                self.note_names(func, &args);
            }
            let results = match node.op {
                Op::Call { func, .. } if depth < self.options.expand => {
                    let label = self.call_name(func, &args).join(" ");
                    self.picture.clusters.push(Cluster { label, parent: cluster });
                    let inner = Some(self.picture.clusters.len() - 1);
                    self.function(&self.m.funcs[func], args, depth + 1, inner)
                }
                _ => self.node(g, node, args, cluster),
            };
            sources.extend(node.results.iter().copied().zip(results));
        }
        g.results.iter().map(|&v| find(&sources, v)).collect()
    }

    fn node(&mut self, g: &Graph, node: &NodeData, args: Vec<Source>, cluster: Option<usize>) -> Vec<Source> {
        if !self.options.weights
            && let Some(text) = inline(&node.op, &args)
        {
            return vec![Source::Inline(text)];
        }
        let (mut lines, role) = match &node.op {
            Op::Call { func, .. } => (self.call_name(*func, &args), Role::Call),
            Op::Const(value) => (vec![number(value.0)], Role::Move),
            op => (vec![call_text(op.name(), &args)], if op.is_free() { Role::Move } else { Role::Op }),
        };
        if let (Some(place), Some(loc)) = (self.options.place, node.loc) {
            lines.push(place(loc));
        }
        let types = node.args.iter().map(|&v| g.ty(v));
        let reads: Vec<(Source, &Type)> = args.into_iter().zip(types).collect();
        let vertex = self.vertex(lines, role, cluster, &reads);
        (0..node.results.len()).map(|result| Source::Vertex(vertex, result)).collect()
    }

    fn note_names(&mut self, func: Func, args: &[Source]) {
        for (source, name) in args.iter().zip(&self.m.funcs[func].param_names) {
            if let &Source::Vertex(from, result) = source
                && !name.is_empty()
            {
                self.names.entry((from, result)).or_default().push(name);
            }
        }
    }

    /// The block's name; below it, what the names of its weights have in common, or how many there are.
    fn call_name(&self, func: Func, args: &[Source]) -> Vec<String> {
        let names: Vec<&str> = args.iter().filter_map(Source::text).collect();
        let name = &self.m.funcs[func].name;
        let mut lines = vec![if name.is_empty() { func.to_string() } else { name.clone() }];
        let prefix = common_prefix(&names);
        match names.len() {
            0 => {}
            1 => lines.push(names[0].to_string()),
            n if prefix.is_empty() => lines.push(format!("{n} weights")),
            _ => lines.push(prefix),
        }
        lines
    }
}

impl Source {
    fn text(&self) -> Option<&str> {
        match self {
            Source::Vertex(..) => None,
            Source::Inline(text) => Some(text),
        }
    }
}

/// The text of a result that is a number, or a weight that was only moved or cast.
fn inline(op: &Op, args: &[Source]) -> Option<String> {
    if let Op::Const(value) = op {
        return Some(number(value.0));
    }
    let [Source::Inline(x)] = args else { return None };
    match op {
        Op::Cast | Op::Broadcast { .. } | Op::Reshape => Some(x.clone()),
        Op::Transpose { .. } => Some(format!("{x}.t")),
        Op::Slice { start, .. } => Some(format!("{x}[{start}..]")),
        _ => None,
    }
}

/// At most six significant digits: a drawing is for reading.
fn number(x: f64) -> String {
    let (plain, short) = (x.to_string(), format!("{x:.5e}"));
    let short =
        short.parse::<f64>().map_or(short.clone(), |x| if x.abs() < 1e-4 { format!("{x:e}") } else { x.to_string() });
    if plain.len() <= short.len() { plain } else { short }
}

/// `mul(·, 0.5)`: a dot for each operand that an edge brings. Operands that all come by edges go without saying.
fn call_text(name: &str, args: &[Source]) -> String {
    if args.iter().all(|arg| arg.text().is_none()) {
        return name.to_string();
    }
    let args: Vec<&str> = args.iter().map(|arg| arg.text().unwrap_or("·")).collect();
    format!("{name}({})", args.join(", "))
}

/// The name that most say, the first of several.
fn most_frequent<'a>(names: &[&'a str]) -> Option<&'a str> {
    let count = |name: &str| names.iter().filter(|other| **other == name).count();
    names.iter().copied().rev().max_by_key(|name| count(name))
}

/// What dotted names have in common, in whole parts.
fn common_prefix(names: &[&str]) -> String {
    let Some(first) = names.first() else { return String::new() };
    let mut parts: Vec<&str> = first.split('.').collect();
    for name in names {
        let same = parts.iter().zip(name.split('.')).take_while(|(a, b)| *a == b).count();
        parts.truncate(same);
    }
    parts.join(".")
}
