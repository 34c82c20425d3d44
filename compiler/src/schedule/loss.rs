//! From the graph of a fused loss to its kernel.

use super::cluster::{self, Leaf, Output, Unsupported};
use super::kernel::{HANDED_ON, LOGITS_GRADIENT, LossGradient, LossKernel, PRODUCT, Strides};
use super::matmul;
use crate::ir::{BinaryOp, DType, Graph, Module, Node, NodeData, Op, Value};

/// A loss and where its operands come from.
pub struct Loss {
    /// What runs.
    pub kernel: LossKernel,
    /// The parameters of the graph that x, w and targets are: operands 0, 1 and 2 of the launch. Parameter i of the graph
    /// is operand 3 + i.
    pub operands: [usize; 3],
}

/// The loss that the graph of a fused call is.
pub fn fused(m: &Module, g: &Graph) -> Result<Loss, Unsupported> {
    let entropy = only(g, |op| *op == Op::CrossEntropy)?.ok_or(Unsupported("no cross-entropy".into()))?;
    let gradient = only(g, |op| *op == Op::CrossEntropyGrad)?;
    let logits = g.nodes[entropy].args[0];
    let head = head(g, logits)?;
    let NodeData { args, results, .. } = &g.nodes[head];
    let z = results[0];
    let product = matmul::plain(m, g, head)?;
    let k = &product.kernel;
    let row_major = Strides { batch: 0, row: k.k, inner: 1 };
    if k.batch != 1 || product.transpose != [None, None] || !same_layout(k.a, row_major, k.m, k.k) {
        return Err(Unsupported("a head is rows times one matrix".into()));
    }
    let [x, w, targets] = [args[0], args[1], g.nodes[entropy].args[1]];
    let operands = [param(g, x)?, param(g, w)?, param(g, targets)?];
    let leaves = |extra: &[Leaf]| -> Vec<Leaf> {
        let params = g.params.iter().enumerate().map(|(i, &value)| Leaf { value, operand: 3 + i });
        extra.iter().copied().chain(params).collect()
    };
    let leaf_z = Leaf { value: z, operand: PRODUCT };
    let handed_on = |value: Value| [Output { value, result: HANDED_ON }];
    let program = cluster::compile(m, g, &leaves(&[leaf_z]), &handed_on(logits))?;
    let loss = result(g, g.nodes[entropy].results[0]).ok_or(Unsupported("a loss that nobody asks for".into()))?;
    let mut kernel = LossKernel { rows: k.m, n: k.n, k: k.k, w: k.b, logits: program, gradient: None, loss };
    let elementwise = |p: &super::rows::RowProgram| p.is_elementwise() && p.elements == kernel.rows * kernel.n;
    if !elementwise(&kernel.logits) {
        return Err(Unsupported("logits are elementwise".into()));
    }
    let mut made = 1;
    if let Some(node) = gradient {
        let dlogits = g.nodes[node].results[0];
        if g.nodes[node].args[0] != logits || g.nodes[node].args[1] != targets {
            return Err(Unsupported("a gradient of other logits".into()));
        }
        let (dx, dw, dz) = backward(g, head, w, x)?;
        let leaf_dlogits = Leaf { value: dlogits, operand: LOGITS_GRADIENT };
        let program = cluster::compile(m, g, &leaves(&[leaf_z, leaf_dlogits]), &handed_on(dz))?;
        if !elementwise(&program) {
            return Err(Unsupported("the gradient of logits is elementwise".into()));
        }
        let dx = dx.map(|v| result(g, v).ok_or(Unsupported("dx is no result".into()))).transpose()?;
        let (dw, accumulate) = match dw {
            Some(dw) => accumulated(g, dw)?,
            None => (None, None),
        };
        made += dx.is_some() as usize + dw.is_some() as usize;
        let dy = 3 + param(g, number(g, g.nodes[node].args[2]))?;
        kernel.gradient = Some(LossGradient { dy, program, dx, dw, accumulate });
    }
    if made != g.results.len() {
        return Err(Unsupported("results that are no loss and no gradient".into()));
    }
    Ok(Loss { kernel, operands })
}

/// Strides of axes of one element do not matter.
fn same_layout(a: Strides, b: Strides, rows: usize, inner: usize) -> bool {
    (a.row == b.row || rows == 1) && (a.inner == b.inner || inner == 1)
}

fn only(g: &Graph, is: impl Fn(&Op) -> bool) -> Result<Option<Node>, Unsupported> {
    let mut found = g.nodes.iter().filter(|(_, data)| is(&data.op)).map(|(node, _)| node);
    let first = found.next();
    if found.next().is_some() { Err(Unsupported("two of what a loss has one of".into())) } else { Ok(first) }
}

fn param(g: &Graph, value: Value) -> Result<usize, Unsupported> {
    let value = behind_reshapes(g, value);
    g.params.iter().position(|&p| p == value).ok_or(Unsupported("an operand that is computed".into()))
}

/// What a value is but for its axes, and its rounding, which a kernel may leave out.
fn behind_reshapes(g: &Graph, mut value: Value) -> Value {
    while let Some(node) = g.def_node(value)
        && (g.nodes[node].op == Op::Reshape
            || g.nodes[node].op == Op::Cast && g.ty(g.nodes[node].args[0]).dtype.is_float())
    {
        value = g.nodes[node].args[0];
    }
    value
}

/// The number that a value repeats, if it is one.
fn number(g: &Graph, value: Value) -> Value {
    match g.def_node(value).map(|node| &g.nodes[node]) {
        Some(NodeData { op: Op::Broadcast { axes }, args, .. }) if axes.is_empty() => args[0],
        _ => value,
    }
}

/// The result that shows a value.
fn result(g: &Graph, value: Value) -> Option<usize> {
    g.results.iter().position(|&r| behind_reshapes(g, r) == behind_reshapes(g, value))
}

/// The `dot` that logits are made from.
fn head(g: &Graph, logits: Value) -> Result<Node, Unsupported> {
    let mut work = vec![logits];
    let mut head = None;
    while let Some(value) = work.pop() {
        let Some(node) = g.def_node(value) else { continue };
        match g.nodes[node].op {
            Op::Dot { .. } if head.is_none_or(|h| h == node) => head = Some(node),
            Op::Dot { .. } => return Err(Unsupported("logits of two products".into())),
            _ => work.extend(&g.nodes[node].args),
        }
    }
    head.ok_or(Unsupported("logits without a product".into()))
}

/// dx and dw, the products of dz with w over the classes and with x over the rows, and dz.
fn backward(g: &Graph, head: Node, w: Value, x: Value) -> Result<(Option<Value>, Option<Value>, Value), Unsupported> {
    let (mut dx, mut dw, mut dz) = (None, None, None);
    let Op::Dot { contract: of_head, .. } = &g.nodes[head].op else { return Err(Unsupported("no head".into())) };
    // The axis of w that runs over the classes.
    let classes = u8::from(of_head.first().is_some_and(|pair| pair.1 == 0));
    for (node, data) in g.nodes.iter() {
        let Op::Dot { batch, contract } = &data.op else { continue };
        if node == head {
            continue;
        }
        let [a, b] = [data.args[0], data.args[1]];
        let last = (g.ty(a).rank() - 1) as u8;
        let over_rows: Vec<(u8, u8)> = (0..last).map(|axis| (axis, axis)).collect();
        let target = if behind_reshapes(g, b) == behind_reshapes(g, w) && *contract == [(last, classes)] {
            &mut dx
        } else if behind_reshapes(g, b) == behind_reshapes(g, x) && *contract == over_rows {
            &mut dw
        } else {
            return Err(Unsupported("a product of other operands".into()));
        };
        if !batch.is_empty() || target.replace(data.results[0]).is_some() || dz.is_some_and(|dz| dz != a) {
            return Err(Unsupported("two gradients of one operand".into()));
        }
        dz = Some(a);
    }
    dz.map(|dz| (dx, dw, dz)).ok_or(Unsupported("a gradient that nothing uses".into()))
}

/// The result that dw is, and the operand that it is added to.
fn accumulated(g: &Graph, dw: Value) -> Result<(Option<usize>, Option<usize>), Unsupported> {
    if let Some(i) = result(g, dw) {
        return Ok((Some(i), None));
    }
    for (_, data) in g.nodes.iter() {
        if data.op != Op::Binary(BinaryOp::Add) {
            continue;
        }
        let other = match data.args.iter().map(|&v| behind_reshapes(g, v)).collect::<Vec<_>>()[..] {
            [a, b] if a == behind_reshapes(g, dw) => b,
            [a, b] if b == behind_reshapes(g, dw) => a,
            _ => continue,
        };
        if g.ty(other).dtype == DType::F32
            && let Some(i) = result(g, data.results[0])
        {
            return Ok((Some(i), Some(3 + param(g, other)?)));
        }
    }
    Err(Unsupported("dw is no result".into()))
}
