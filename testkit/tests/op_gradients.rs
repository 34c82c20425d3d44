//! The ops that are gradients of others, against central differences of those.

use mngc_compiler::ir::{
    AttentionMask, BinaryOp, Builder, CallKind, DType, DimRole, F64, Func, Graph, Module, Op, Type, UnaryOp, Value,
};
use mngc_runtime::{Context, Precision, Tensor, evaluate};
use mngc_testkit::gradient::weighted_sum;
use mngc_testkit::{gradient_check, values};

/// A function of the parameters and of one cotangent.
type Build<'a> = &'a dyn Fn(&mut Builder, &[Value], Value) -> Vec<Value>;

struct Axes {
    types: Vec<Type>,
    m: Module,
}

fn axes(lead: &[usize], t: usize, rest: &[&[usize]]) -> Axes {
    let mut m = Module::default();
    let mut outer: Vec<_> = lead.iter().map(|&n| m.dims.intern("seq", n, DimRole::Sequence)).collect();
    outer.push(m.dims.intern("T", t, DimRole::Token));
    let mut types = Vec::new();
    for sizes in rest {
        let own = sizes.iter().map(|&n| m.dims.anonymous(n));
        let own: Vec<_> = own.collect();
        types.push(Type::new(DType::F32, [outer.clone(), own].concat()));
    }
    Axes { types, m }
}

fn function(m: &mut Module, types: &[Type], build: impl FnOnce(&mut Builder, &[Value]) -> Vec<Value>) -> Func {
    let mut g = Graph::new("f");
    let params: Vec<Value> = types.iter().map(|ty| g.param("", ty.clone())).collect();
    for v in build(&mut Builder::new(m, &mut g, None), &params) {
        g.result("", v);
    }
    m.funcs.push(g)
}

/// Compares `backward(params, dy)` with differences of Σ dy·forward(params).
fn check(axes: Axes, extra: Vec<(Type, Tensor)>, forward: &dyn Fn(&mut Builder, &[Value]) -> Value, backward: Build) {
    let Axes { mut types, mut m } = axes;
    let mut x: Vec<Tensor> = (0..).zip(&types).map(|(i, ty)| values::tensor(&m.dims, ty, 17 + i, true)).collect();
    types.extend(extra.iter().map(|(ty, _)| ty.clone()));
    x.extend(extra.into_iter().map(|(_, tensor)| tensor));
    let f = function(&mut m, &types, |b, p| vec![forward(b, p)]);
    let out = m.result_types(f)[0].clone();
    let weights = values::tensor(&m.dims, &out, 5, true);
    let with_dy = [types.clone(), vec![out]].concat();
    let g = function(&mut m, &with_dy, |b, p| backward(b, &p[..p.len() - 1], p[p.len() - 1]));
    let ctx = Context::new(Precision::F64, 0, 0);
    let verdict = gradient_check(
        &x,
        |x| Ok(weighted_sum(&evaluate(&m, f, x.to_vec(), &ctx)?, std::slice::from_ref(&weights))),
        |x| evaluate(&m, g, [x, std::slice::from_ref(&weights)].concat(), &ctx),
    );
    if let Err(fault) = verdict {
        panic!("{fault}\n{}", mngc_compiler::ir::print::module(&m));
    }
}

#[test]
fn gelu_and_silu() {
    for (op, grad) in [(UnaryOp::Gelu, UnaryOp::GeluGrad), (UnaryOp::Silu, UnaryOp::SiluGrad)] {
        let backward = |b: &mut Builder, p: &[Value], dy: Value| {
            let slope = b.unary(grad, p[0], DType::F32);
            vec![b.binary(BinaryOp::Mul, slope, dy, DType::F32)]
        };
        check(axes(&[], 3, &[&[5]]), vec![], &|b, p| b.unary(op, p[0], DType::F32), &backward);
    }
}

#[test]
fn norms() {
    for width in [1, 2, 7] {
        for eps in [F64(0.0078125), F64(0.5)] {
            let rms = |b: &mut Builder, p: &[Value]| b.like(Op::RmsNorm { eps }, vec![p[0]], DType::F32);
            let rms_grad =
                |b: &mut Builder, p: &[Value], dy| vec![b.like(Op::RmsNormGrad { eps }, vec![p[0], dy], DType::F32)];
            check(axes(&[], 3, &[&[width]]), vec![], &rms, &rms_grad);
            let layer = |b: &mut Builder, p: &[Value]| b.like(Op::LayerNorm { eps }, vec![p[0]], DType::F32);
            let layer_grad =
                |b: &mut Builder, p: &[Value], dy| vec![b.like(Op::LayerNormGrad { eps }, vec![p[0], dy], DType::F32)];
            check(axes(&[], 3, &[&[width]]), vec![], &layer, &layer_grad);
        }
    }
}

#[test]
fn softmax() {
    for width in [1, 2, 7] {
        let forward = |b: &mut Builder, p: &[Value]| b.like(Op::Softmax, vec![p[0]], DType::F32);
        let backward = |b: &mut Builder, p: &[Value], dy: Value| {
            let y = b.like(Op::Softmax, vec![p[0]], DType::F32);
            vec![b.like(Op::SoftmaxGrad, vec![y, dy], DType::F32)]
        };
        check(axes(&[2], 2, &[&[width]]), vec![], &forward, &backward);
    }
}

#[test]
fn cross_entropy() {
    for targets in [[0, 1, 4], [-1, 5, 2]] {
        let a = axes(&[], 3, &[&[5]]);
        let ty = Type::new(DType::I32, &a.types[0].dims[..1]);
        let extra = vec![(ty, Tensor::ints([3], targets.to_vec()).unwrap())];
        let forward = |b: &mut Builder, p: &[Value]| b.cross_entropy(p[0], p[1]);
        let backward =
            |b: &mut Builder, p: &[Value], dy| vec![b.like(Op::CrossEntropyGrad, vec![p[0], p[1], dy], DType::F32)];
        check(a, extra, &forward, &backward);
    }
}

#[test]
fn rope() {
    for inverse in [false, true] {
        let a = axes(&[2], 3, &[&[2, 4]]);
        let ty = Type::new(DType::I32, &a.types[0].dims[1..2]);
        let extra = vec![(ty, Tensor::ints([3], vec![0, 5, 2]).unwrap())];
        let op = |inverse| Op::Rope { base: F64(100.0), axis: 1, inverse };
        let forward = |b: &mut Builder, p: &[Value]| b.like(op(inverse), vec![p[0], p[1]], DType::F32);
        let backward = |b: &mut Builder, p: &[Value], dy| vec![b.like(op(!inverse), vec![dy, p[1]], DType::F32)];
        check(a, extra, &forward, &backward);
    }
}

#[test]
fn attention() {
    for t in [1, 2, 5] {
        for (heads, key_heads) in [(1, 1), (2, 2), (4, 2), (3, 1)] {
            for (causal, documents, window) in [
                (true, true, Some(2)),
                (false, false, None),
                (true, false, None),
                (false, true, Some(0)),
                (true, true, Some(9)),
            ] {
                let mask = AttentionMask { causal, documents, window: window.is_some() };
                let a = axes(&[2], t, &[&[heads, 3], &[key_heads, 3], &[key_heads, 3]]);
                let mut extra = Vec::new();
                if documents {
                    let docs: Vec<i32> = (0..2 * t).map(|i| (i % t / 3) as i32).collect();
                    let ty = Type::new(DType::I32, &a.types[0].dims[..2]);
                    extra.push((ty, Tensor::ints([2, t], docs).unwrap()));
                }
                extra.extend(window.map(|w| (Type::scalar(DType::I32), Tensor::ints([], vec![w]).unwrap())));
                let forward = |b: &mut Builder, p: &[Value]| b.attention(mask, 0.6, p.to_vec()).0;
                let backward = |b: &mut Builder, p: &[Value], dy: Value| {
                    let (o, lse) = b.attention(mask, 0.6, p.to_vec());
                    let args = [&p[..3], &[o, lse, dy], &p[3..]].concat();
                    let types = p[..3].iter().map(|&v| b.ty(v)).collect();
                    b.push(Op::AttentionGrad { mask, scale: F64(0.6) }, args, types)
                };
                check(a, extra, &forward, &backward);
            }
        }
    }
}

#[test]
fn calls_are_differentiated_as_their_bodies() {
    let a = axes(&[], 2, &[&[3]]);
    let Axes { types, mut m } = a;
    let square = function(&mut m, &types, |b, p| vec![b.unary(UnaryOp::Square, p[0], DType::F32)]);
    let forward = |b: &mut Builder, p: &[Value]| b.call(square, CallKind::Block, vec![p[0]])[0];
    let backward = |b: &mut Builder, p: &[Value], dy: Value| {
        let two = b.constant(2.0, DType::F32);
        let slope = b.binary(BinaryOp::Mul, p[0], two, DType::F32);
        vec![b.binary(BinaryOp::Mul, slope, dy, DType::F32)]
    };
    check(Axes { types, m }, vec![], &forward, &backward);
}
