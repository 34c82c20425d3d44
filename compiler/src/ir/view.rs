//! A graph as petgraph sees it: built for an algorithm, thrown away after it, never the storage.

use cranelift_entity::SecondaryMap;
use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::{Dfs, EdgeRef, Reversed, Walker};

use super::entities::{Node, Value};
use super::graph::{Graph, ValueDef};

/// What stands at a vertex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Vertex {
    /// A parameter of the graph, by position.
    Param(usize),
    /// A node.
    Node(Node),
    /// A result of the graph, by position.
    Result(usize),
}

/// Vertices for parameters, nodes and results; an edge for each use of a value.
#[derive(Clone, Debug)]
pub struct View {
    /// Parameters, then nodes in their order, then results: an edge leads from a lower index to a higher one.
    pub graph: DiGraph<Vertex, Value>,
    params: Vec<NodeIndex>,
    nodes: SecondaryMap<Node, NodeIndex>,
}

impl View {
    /// The view of a graph.
    pub fn of(g: &Graph) -> View {
        let mut graph = DiGraph::new();
        let params: Vec<NodeIndex> = (0..g.params.len()).map(|i| graph.add_node(Vertex::Param(i))).collect();
        let mut nodes: SecondaryMap<Node, NodeIndex> = SecondaryMap::new();
        for node in g.nodes.keys() {
            nodes[node] = graph.add_node(Vertex::Node(node));
        }
        let mut view = View { graph, params, nodes };
        for (node, data) in g.nodes.iter() {
            for &arg in &data.args {
                let from = view.source(g, arg);
                view.graph.add_edge(from, view.nodes[node], arg);
            }
        }
        for (i, &result) in g.results.iter().enumerate() {
            let (from, to) = (view.source(g, result), view.graph.add_node(Vertex::Result(i)));
            view.graph.add_edge(from, to, result);
        }
        view
    }

    /// The vertex that a value comes from.
    pub fn source(&self, g: &Graph, value: Value) -> NodeIndex {
        match g.values[value].def {
            ValueDef::Param(i) => self.params[i],
            ValueDef::Result(node, _) => self.nodes[node],
        }
    }

    /// Everything that depends on a value, in the order of the graph; without the vertex that it comes from.
    pub fn dependents(&self, g: &Graph, value: Value) -> Vec<Vertex> {
        // Other results of the value's node are other values: the search starts at the readers of this one.
        let from = self.source(g, value);
        let readers = self.graph.edges(from).filter(|edge| *edge.weight() == value).map(|edge| edge.target());
        self.in_order(readers.flat_map(|reader| Dfs::new(&self.graph, reader).iter(&self.graph)))
    }

    /// Everything that a value depends on, in the order of the graph; with the vertex that it comes from.
    pub fn dependencies(&self, g: &Graph, value: Value) -> Vec<Vertex> {
        let graph = Reversed(&self.graph);
        self.in_order(Dfs::new(graph, self.source(g, value)).iter(graph))
    }

    /// Vertices by depth: what depends on nothing, then what depends on that only, and so on. Vertices of one level do
    /// not depend on each other.
    pub fn levels(&self) -> Vec<Vec<Vertex>> {
        let mut depth = vec![0; self.graph.node_count()];
        let mut levels: Vec<Vec<Vertex>> = Vec::new();
        // Indices are a topological order already.
        for vertex in self.graph.node_indices() {
            let before = self.graph.neighbors_directed(vertex, Direction::Incoming);
            let level = before.map(|v| depth[v.index()] + 1).max().unwrap_or(0);
            depth[vertex.index()] = level;
            if levels.len() <= level {
                levels.resize(level + 1, Vec::new());
            }
            levels[level].push(self.graph[vertex]);
        }
        levels
    }

    fn in_order(&self, vertices: impl Iterator<Item = NodeIndex>) -> Vec<Vertex> {
        let mut found: Vec<NodeIndex> = vertices.collect();
        found.sort_unstable();
        found.dedup();
        found.into_iter().map(|v| self.graph[v]).collect()
    }
}
