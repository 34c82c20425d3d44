//! Dispatch: one arm for each op. Typing has been checked, so kinds, ranks and sizes are what the rules say.

use mngc_compiler::ir::{DType, Graph, Module, NodeData, Op, Type};

use super::{Context, attention, dot, elementwise, index, layout, norm, random, reduce, rope, softmax};
use crate::tensor::{Data, Tensor};

/// The operands of a node.
struct Operands(Vec<Tensor>);

impl Operands {
    fn floats(&self, i: usize) -> &[f64] {
        self.0[i].as_floats().expect("the typing rule asks for floats")
    }

    fn ints(&self, i: usize) -> &[i32] {
        self.0[i].as_ints().expect("the typing rule asks for i32")
    }

    fn sizes(&self, i: usize) -> &[usize] {
        self.0[i].sizes()
    }

    /// Size of the last axis of operand i.
    fn row(&self, i: usize) -> usize {
        *self.sizes(i).last().expect("the typing rule asks for an axis")
    }

    /// Documents and window, which follow after `before` other operands.
    fn mask(&self, before: usize, mask: mngc_compiler::ir::AttentionMask) -> attention::Mask<'_> {
        let documents = mask.documents.then(|| self.ints(before));
        let window = mask.window.then(|| &self.0[before + usize::from(mask.documents)]);
        attention::Mask::new(mask.causal, documents, window.map(|w| w.item().expect("a window is one number")))
    }
}

/// Runs one node other than a call, and rounds its results.
pub fn apply(module: &Module, graph: &Graph, data: &NodeData, args: Vec<Tensor>, ctx: &Context) -> Vec<Tensor> {
    let types: Vec<&Type> = data.results.iter().map(|&v| graph.ty(v)).collect();
    let sizes: Vec<Vec<usize>> = types.iter().map(|ty| module.dims.sizes(&ty.dims)).collect();
    let computed = compute(&data.op, Operands(args), &sizes, types[0].dtype, ctx);
    let tensor = |((data, sizes), ty): ((Data, Vec<usize>), &&Type)| {
        let tensor = Tensor::new(sizes, data).expect("an op fills its result");
        ctx.round(tensor, ty)
    };
    computed.into_iter().zip(sizes).zip(&types).map(tensor).collect()
}

/// The unrounded results; `sizes` are theirs, `dtype` is that of the first.
fn compute(op: &Op, args: Operands, sizes: &[Vec<usize>], dtype: DType, ctx: &Context) -> Vec<Data> {
    let out = &sizes[0];
    let n = out.iter().product();
    let a = &args;
    let one = match op {
        Op::Const(value) => constant(value.0, dtype),
        Op::Iota { axis } => Data::Int(layout::iota(out, *axis as usize)),
        Op::Random { distribution, name } => Data::Float(random::draw(*distribution, ctx.seed, name, ctx.step, n)),

        Op::Unary(f) => elementwise::unary(*f, a.0[0].data()),
        Op::Binary(f) => elementwise::binary(*f, a.0[0].data(), a.0[1].data(), n),
        Op::Compare(f) => Data::Bool(elementwise::compare(*f, a.0[0].data(), a.0[1].data(), n)),
        Op::Select => elementwise::select(a.0[0].data(), a.0[1].data(), a.0[2].data(), n),
        Op::Cast => elementwise::cast(a.0[0].data(), dtype),

        Op::Broadcast { axes } => layout::broadcast(a.0[0].data(), a.sizes(0), axes, out),
        Op::Reshape => args.0.into_iter().next().expect("one operand").into_data(),
        Op::Transpose { perm } => layout::transpose(a.0[0].data(), a.sizes(0), perm),
        Op::Slice { axis, start } => layout::slice(a.0[0].data(), a.sizes(0), *axis as usize, *start, out),
        Op::Pad { axis, before } => layout::pad(a.0[0].data(), a.sizes(0), *axis as usize, *before, out),
        Op::Concat { axis } => layout::concat(&args.0, *axis as usize, out),
        Op::Shift { axis, by } => layout::shift(a.0[0].data(), out, *axis as usize, *by),
        Op::Reverse { axis } => layout::reverse(a.0[0].data(), out, *axis as usize),

        Op::Reduce { kind, axes } => reduce::reduce(*kind, a.0[0].data(), a.sizes(0), axes),
        Op::Cumsum { axis, reverse } => reduce::cumsum(a.0[0].data(), out, *axis as usize, *reverse),
        Op::Softmax => Data::Float(softmax::softmax(a.floats(0), a.row(0))),
        Op::SoftmaxGrad => Data::Float(softmax::softmax_grad(a.floats(0), a.floats(1), a.row(0))),

        Op::Gather => index::gather(a.0[0].data(), a.sizes(0), a.ints(1)),
        Op::ScatterAdd => Data::Float(index::scatter_add(a.ints(0), a.floats(1), out)),

        Op::Dot { batch, contract } => {
            Data::Float(dot::dot(a.floats(0), a.sizes(0), a.floats(1), a.sizes(1), batch, contract))
        }

        Op::RmsNorm { eps } => Data::Float(norm::rms_norm(a.floats(0), a.row(0), eps.0)),
        Op::RmsNormGrad { eps } => Data::Float(norm::rms_norm_grad(a.floats(0), a.floats(1), a.row(0), eps.0)),
        Op::LayerNorm { eps } => Data::Float(norm::layer_norm(a.floats(0), a.row(0), eps.0)),
        Op::LayerNormGrad { eps } => Data::Float(norm::layer_norm_grad(a.floats(0), a.floats(1), a.row(0), eps.0)),
        Op::Rope { base, axis, inverse } => {
            Data::Float(rope::rope(a.floats(0), out, a.ints(1), *axis as usize, base.0, *inverse))
        }
        Op::Attention { mask, scale } => {
            let shape = attention::Shape::new(a.sizes(0), a.sizes(1));
            let visible = a.mask(3, *mask);
            let (o, lse) = attention::attention(shape, a.floats(0), a.floats(1), a.floats(2), &visible, scale.0);
            return vec![Data::Float(o), Data::Float(lse)];
        }
        Op::AttentionGrad { mask, scale } => {
            let inputs = attention::GradInputs {
                q: a.floats(0),
                k: a.floats(1),
                v: a.floats(2),
                o: a.floats(3),
                lse: a.floats(4),
                d_o: a.floats(5),
            };
            let shape = attention::Shape::new(a.sizes(0), a.sizes(1));
            return attention::attention_grad(shape, &inputs, &a.mask(6, *mask), scale.0).map(Data::Float).into();
        }
        Op::CrossEntropy => Data::Float(softmax::cross_entropy(a.floats(0), a.ints(1), a.row(0))),
        Op::CrossEntropyGrad => Data::Float(softmax::cross_entropy_grad(a.floats(0), a.ints(1), a.floats(2), a.row(0))),

        Op::Call { .. } => unreachable!("calls are run by the caller"),
    };
    vec![one]
}

fn constant(value: f64, dtype: DType) -> Data {
    match dtype {
        DType::F32 | DType::BF16 | DType::F16 => Data::Float(vec![value]),
        DType::I32 => Data::Int(vec![value as i32]),
        DType::Bool => Data::Bool(vec![value != 0.0]),
    }
}
