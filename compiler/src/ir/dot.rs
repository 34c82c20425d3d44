//! Drawings of functions: DOT for Graphviz, and SVG by way of a layout library.
//!
//! What is drawn stands in `picture.rs`. DOT draws opened calls as clusters; the layout library knows no clusters, so
//! that in SVG the boxes of an opened call carry its name.

use std::fmt::Write;
use std::panic::AssertUnwindSafe;

use layout::backends::svg::SVGWriter;
use layout::core::base::Orientation;
use layout::core::color::Color;
use layout::core::geometry::Point;
use layout::core::style::StyleAttr;
use layout::std_shapes::shapes::{Arrow, Element, ShapeKind};
use layout::topo::layout::VisualGraph;

use super::entities::Func;
use super::graph::Module;
use super::picture::{Picture, Role};

pub use super::picture::DotOptions;

/// The most boxes that the layout library is given: beyond that it takes minutes or gives up. Graphviz takes more.
pub const SVG_LIMIT: usize = 200;

/// Levels that an edge of an SVG may pass.
const LONG_EDGE: usize = 6;

/// Why there is no drawing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DrawError {
    /// Nothing to draw.
    #[error("`{name}` has no inputs, operations or results to draw")]
    Empty {
        /// The function's name.
        name: String,
    },
    /// Too much to draw.
    #[error(
        "a drawing of {boxes} boxes is beyond the {SVG_LIMIT} that SVG is drawn for: open fewer levels, or install Graphviz"
    )]
    TooLarge {
        /// Boxes that it would have.
        boxes: usize,
    },
    /// The layout library gave up.
    #[error("the layout library found no places for the boxes of `{name}`: install Graphviz")]
    Layout {
        /// The function's name.
        name: String,
    },
}

/// A function in the DOT language.
pub fn to_dot(m: &Module, func: Func, options: &DotOptions) -> String {
    let picture = Picture::of(m, func, options);
    let mut out = String::new();
    let _ = writeln!(out, "digraph {} {{", quote(&m.funcs[func].name));
    let _ = writeln!(out, "  node [shape=box, style=filled, fillcolor=white, fontname=\"Helvetica\", fontsize=12];");
    let _ = writeln!(out, "  edge [fontname=\"Helvetica\", fontsize=9, color=\"#606060\"];");
    cluster(&mut out, &picture, None, 1);
    for edge in &picture.edges {
        let _ = writeln!(out, "  n{} -> n{} [label={}];", edge.from, edge.to, quote(&edge.label));
    }
    out.push_str("}\n");
    out
}

/// The vertices of one cluster, and the clusters in it.
fn cluster(out: &mut String, picture: &Picture, inside: Option<usize>, depth: usize) {
    let indent = "  ".repeat(depth);
    for (i, vertex) in picture.vertices.iter().enumerate().filter(|(_, v)| v.cluster == inside) {
        let fill = color(vertex.role);
        let shape = match vertex.role {
            Role::Input | Role::Output => ", shape=ellipse",
            Role::Call => ", style=\"filled,rounded\"",
            Role::Op | Role::Move => "",
        };
        let label = quote(&vertex.lines.join("\n"));
        let _ = writeln!(out, "{indent}n{i} [label={label}, fillcolor=\"{fill}\"{shape}];");
    }
    for (i, inner) in picture.clusters.iter().enumerate().filter(|(_, c)| c.parent == inside) {
        let _ = writeln!(out, "{indent}subgraph cluster_{i} {{");
        let _ = writeln!(out, "{indent}  label={};", quote(&inner.label));
        let _ = writeln!(out, "{indent}  style=rounded; color=\"#6080a0\"; fontname=\"Helvetica\";");
        cluster(out, picture, Some(i), depth + 1);
        let _ = writeln!(out, "{indent}}}");
    }
}

/// A function as SVG, laid out without Graphviz.
pub fn to_svg(m: &Module, func: Func, options: &DotOptions) -> Result<String, DrawError> {
    // One size throughout: the library writes the styles of several in an order that changes from run to run.
    const FONT: usize = 15;
    let mut picture = Picture::of(m, func, options);
    if picture.vertices.is_empty() {
        return Err(DrawError::Empty { name: m.funcs[func].name.clone() });
    }
    if picture.vertices.len() > SVG_LIMIT {
        return Err(DrawError::TooLarge { boxes: picture.vertices.len() });
    }
    name_long_edges(&mut picture);
    let mut graph = VisualGraph::new(Orientation::TopToBottom);
    let mut handles = Vec::new();
    for vertex in &picture.vertices {
        let mut lines = vertex.lines.clone();
        if let Some(cluster) = vertex.cluster {
            lines.insert(0, format!("[{}]", picture.clusters[cluster].label));
        }
        // Times, the library's font, is seldom wider than 0.6 of its height.
        let width = lines.iter().map(|line| line.chars().count()).max().unwrap_or(1);
        let size = Point::new((width * FONT) as f64 * 0.6 + 24.0, (lines.len() * FONT) as f64 * 1.2 + 16.0);
        let rounded = if matches!(vertex.role, Role::Op | Role::Move) { 0 } else { 12 };
        let style = StyleAttr::new(Color::fast("#404040"), 1, Some(Color::fast(color(vertex.role))), rounded, FONT);
        let shape = ShapeKind::new_box(&lines.join("\n"));
        handles.push(graph.add_node(Element::create(shape, style, Orientation::TopToBottom, size)));
    }
    for edge in &picture.edges {
        let style = StyleAttr::new(Color::fast("#606060"), 1, None, 0, FONT);
        let arrow = Arrow { text: edge.label.clone(), look: style, ..Arrow::default() };
        graph.add_edge(arrow, handles[edge.from], handles[edge.to]);
    }
    // The library asserts what rounding may break in a large drawing.
    let drawn = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let mut writer = SVGWriter::new();
        graph.do_it(false, false, false, &mut writer);
        writer.finalize()
    }));
    drawn.map_err(|_| DrawError::Layout { name: m.funcs[func].name.clone() })
}

/// The layout library bends an edge at every level that it passes, and its time grows with the square of all bends: an
/// edge over many levels becomes a line of text in the box where it ends.
fn name_long_edges(picture: &mut Picture) {
    let mut level = vec![0; picture.vertices.len()];
    // Edges stand in the order of the boxes where they end, and lead from earlier boxes to later ones.
    for edge in &picture.edges {
        level[edge.to] = level[edge.to].max(level[edge.from] + 1);
    }
    let vertices = &mut picture.vertices;
    picture.edges.retain(|edge| {
        let short = level[edge.to] - level[edge.from] <= LONG_EDGE;
        if !short {
            let from: Vec<&str> = vertices[edge.from].lines.iter().take(2).map(String::as_str).collect();
            let line = format!("from {}", from.join(" "));
            vertices[edge.to].lines.push(line);
        }
        short
    });
}

fn color(role: Role) -> &'static str {
    match role {
        Role::Input => "#e0f0d8",
        Role::Op => "#ffffff",
        Role::Move => "#f0f0f0",
        Role::Call => "#d8e8f8",
        Role::Output => "#f8e8d0",
    }
}

/// A quoted string of the DOT language.
fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}
