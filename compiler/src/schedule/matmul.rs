//! From a `dot`, alone or with what was fused around it, to a matrix product.

use super::cluster::{self, Leaf, Output, Unsupported};
use super::kernel::{DotKernel, Epilogue, PRODUCT, Strides};
use super::rows::{Access, Instr};
use crate::ir::{BinaryOp, DType, Fusion, Graph, Module, Node, Op, Type, Value};

/// A product and where its operands come from.
pub struct Matmul {
    /// What runs.
    pub kernel: DotKernel,
    /// The parameters of the graph that a and b are: operands 0 and 1 of the launch. Parameter i of the graph is operand
    /// 2 + i.
    pub operands: [usize; 2],
    /// Operands 0 and 1 that must be brought into the order batch, free, contracted first: the permutation of their axes.
    pub transpose: [Option<Vec<u8>>; 2],
}

/// The product that the graph of a fused call is.
pub fn fused(m: &Module, g: &Graph, fusion: Fusion) -> Result<Matmul, Unsupported> {
    let mut dots = g.nodes.iter().filter(|(_, data)| matches!(data.op, Op::Dot { .. }));
    let (Some((node, data)), None) = (dots.next(), dots.next()) else {
        return Err(Unsupported("a product is one `dot`".into()));
    };
    let (a, scale_a) = operand(g, data.args[0])?;
    let (b, scale_b) = operand(g, data.args[1])?;
    let mut product = plain(m, g, node)?;
    product.operands = [a, b];
    product.kernel.scale = scale_a * scale_b;
    product.kernel.symmetric = fusion == Fusion::SymmetricDot && product.kernel.m == product.kernel.n;
    product.kernel.epilogue = epilogue(m, g, data.results[0])?;
    Ok(product)
}

/// A `dot` node as a product of its operands 0 and 1.
pub fn plain(m: &Module, g: &Graph, node: Node) -> Result<Matmul, Unsupported> {
    let data = &g.nodes[node];
    let Op::Dot { batch, contract } = &data.op else { return Err(Unsupported("no dot".into())) };
    let axes = |side: fn(&(u8, u8)) -> u8| -> [Vec<u8>; 2] {
        [batch.iter().map(side).collect(), contract.iter().map(side).collect()]
    };
    let [batch_a, contract_a] = axes(|pair| pair.0);
    let [batch_b, contract_b] = axes(|pair| pair.1);
    let a = matrix(m, g.ty(data.args[0]), &batch_a, &contract_a);
    let b = matrix(m, g.ty(data.args[1]), &batch_b, &contract_b);
    let kernel = DotKernel {
        batch: a.batch,
        m: a.free,
        n: b.free,
        k: a.contracted,
        a: a.strides,
        b: b.strides,
        scale: 1.0,
        symmetric: false,
        epilogue: Epilogue::Store,
    };
    Ok(Matmul { kernel, operands: [0, 1], transpose: [a.transpose, b.transpose] })
}

struct Matrix {
    batch: usize,
    free: usize,
    contracted: usize,
    strides: Strides,
    transpose: Option<Vec<u8>>,
}

fn matrix(m: &Module, ty: &Type, batch: &[u8], contract: &[u8]) -> Matrix {
    let sizes = m.dims.sizes(&ty.dims);
    let free: Vec<u8> =
        (0..sizes.len() as u8).filter(|axis| !batch.contains(axis) && !contract.contains(axis)).collect();
    let size = |axes: &[u8]| -> usize { axes.iter().map(|&axis| sizes[axis as usize]).product() };
    let [nb, nf, nc] = [size(batch), size(&free), size(contract)];
    let stride = |axes: &[u8]| collapse(&sizes, axes);
    let (strides, transpose) = match (stride(batch), stride(&free), stride(contract)) {
        (Some(batch), Some(row), Some(inner)) => (Strides { batch, row, inner }, None),
        _ => {
            let perm = [batch, &free, contract].concat();
            (Strides { batch: nf * nc, row: nc, inner: 1 }, Some(perm))
        }
    };
    Matrix { batch: nb, free: nf, contracted: nc, strides, transpose }
}

/// The one stride of axes that are walked together as one, if they lie so.
fn collapse(sizes: &[usize], axes: &[u8]) -> Option<usize> {
    let stride = |axis: u8| -> usize { sizes[axis as usize + 1..].iter().product() };
    let mut axes = axes.iter().copied().filter(|&axis| sizes[axis as usize] != 1);
    let Some(mut last) = axes.next() else { return Some(0) };
    for axis in axes {
        if stride(last) != stride(axis) * sizes[axis as usize] {
            return None;
        }
        last = axis;
    }
    Some(stride(last))
}

/// The parameter that an operand is, behind multiplications by numbers, and their product.
fn operand(g: &Graph, mut value: Value) -> Result<(usize, f64), Unsupported> {
    let mut scale = 1.0;
    loop {
        if let Some(i) = g.params.iter().position(|&p| p == value) {
            return Ok((i, scale));
        }
        let Some(node) = g.def_node(value) else { return Err(Unsupported("an operand from nowhere".into())) };
        let data = &g.nodes[node];
        match (&data.op, &data.args[..]) {
            (Op::Binary(BinaryOp::Mul), &[x, y]) => match (g.constant(x), g.constant(y)) {
                (Some(c), _) => (scale, value) = (scale * c, y),
                (_, Some(c)) => (scale, value) = (scale * c, x),
                _ => return Err(Unsupported("an operand that is a product".into())),
            },
            (Op::Binary(BinaryOp::Div), &[x, y]) if g.constant(y).is_some() => {
                (scale, value) = (scale / g.constant(y).unwrap_or(1.0), x);
            }
            (Op::Unary(crate::ir::UnaryOp::Neg), &[x]) => (scale, value) = (-scale, x),
            // A change of dtype inside of the kernel: operands are read as f32.
            (Op::Cast, &[x]) if g.ty(x).dtype.is_float() && g.ty(value).dtype.is_float() => value = x,
            (other, _) => return Err(Unsupported(format!("an operand made by {}", other.name()))),
        }
    }
}

fn epilogue(m: &Module, g: &Graph, product: Value) -> Result<Epilogue, Unsupported> {
    if g.results == [product] {
        return Ok(Epilogue::Store);
    }
    if let [result] = g.results[..]
        && let Some(node) = g.def_node(result)
        && g.nodes[node].op == Op::Binary(BinaryOp::Add)
        && g.ty(result).dtype == DType::F32
    {
        let args = &g.nodes[node].args;
        let other = if args[0] == product { args[1] } else { args[0] };
        if args.contains(&product)
            && g.ty(other).dtype == DType::F32
            && m.dims.elements(&g.ty(other).dims) == m.dims.elements(&g.ty(result).dims)
            && let Some(i) = g.params.iter().position(|&p| p == other)
        {
            return Ok(Epilogue::Accumulate(2 + i));
        }
    }
    let mut leaves = vec![Leaf { value: product, operand: PRODUCT }];
    leaves.extend(g.params.iter().enumerate().map(|(i, &value)| Leaf { value, operand: 2 + i }));
    let outputs: Vec<Output> = g.results.iter().enumerate().map(|(result, &value)| Output { value, result }).collect();
    let program = cluster::compile(m, g, &leaves, &outputs)?;
    if !program.is_elementwise() || program.elements != m.dims.elements(&g.ty(product).dims) {
        return Err(Unsupported("an epilogue is elementwise on the product".into()));
    }
    let is_product = |i: &Instr| matches!(i, Instr::Load { operand: PRODUCT, access, .. } if *access != Access::Full);
    if program.instrs.iter().any(is_product) {
        return Err(Unsupported("a product that is repeated".into()));
    }
    Ok(Epilogue::Rows(program))
}
