//! The oracle against slower and plainer code: attention over windows and documents, products of all sizes, threads,
//! graphs that break the rules.

use mngc_compiler::ir::{
    AttentionMask, BinaryOp, Builder, DType, DimRole, F64, Func, Graph, Module, Op, Type, UnaryOp, Value, read,
};
use mngc_runtime::{Context, Error, Precision, Tensor, evaluate};
use proptest::prelude::*;

/// A module of one function: `build` gets the parameters of the given types.
fn module_of(
    mut m: Module,
    types: Vec<Type>,
    build: impl FnOnce(&mut Builder, &[Value]) -> Vec<Value>,
) -> (Module, Func) {
    let mut g = Graph::new("f");
    let params: Vec<Value> = types.into_iter().map(|ty| g.param("", ty)).collect();
    for value in build(&mut Builder::new(&mut m, &mut g, None), &params) {
        g.result("", value);
    }
    let func = m.funcs.push(g);
    (m, func)
}

fn floats(sizes: &[usize], seed: u64) -> Tensor {
    let n = sizes.iter().product::<usize>() as u64;
    let value = |i: u64| ((i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15 ^ seed.wrapping_mul(0x2545_f491)) >> 40) as f64;
    Tensor::floats(sizes, (0..n).map(|i| value(i) / f64::from(1 << 23) - 1.0).collect()).unwrap()
}

fn run(m: &Module, f: Func, args: Vec<Tensor>) -> Vec<Tensor> {
    evaluate(m, f, args, &Context::new(Precision::F64, 0, 0)).unwrap()
}

/// Softmax over all keys, the invisible ones with weight 0.
fn plain_attention(
    [b, t, h, g, d]: [usize; 5],
    [q, k, v]: [&[f64]; 3],
    visible: impl Fn(usize, usize, usize) -> bool,
    scale: f64,
) -> Vec<f64> {
    let mut out = vec![0.0; b * t * h * d];
    for row in 0..b * t * h {
        let (head, i, s) = (row % h, row / h % t, row / h / t);
        let key = |j: usize| ((s * t + j) * g + head * g / h) * d;
        let weight = |j: usize| match visible(s, i, j) {
            true => (scale * (0..d).map(|e| q[row * d + e] * k[key(j) + e]).sum::<f64>()).exp(),
            false => 0.0,
        };
        let total: f64 = (0..t).map(weight).sum();
        for e in 0..d {
            let sum: f64 = (0..t).map(|j| weight(j) * v[key(j) + e]).sum();
            out[row * d + e] = if total == 0.0 { 0.0 } else { sum / total };
        }
    }
    out
}

#[test]
fn attention_at_all_windows_and_lengths() {
    let (b, h, g, d) = (2, 4, 2, 3);
    for t in [1usize, 2, 127, 129] {
        // Documents of one token, of three, and one over everything.
        for document in [1, 3, t] {
            for window in [0, 1, 2, t - 1, t, t + 1, 10 * t] {
                for causal in [true, false] {
                    let mut m = Module::default();
                    let [seq, tok] = [("seq", b, DimRole::Sequence), ("T", t, DimRole::Token)]
                        .map(|(name, size, role)| m.dims.intern(name, size, role));
                    let [h4, g2, d3] = [h, g, d].map(|n| m.dims.anonymous(n));
                    let key = Type::new(DType::F32, [seq, tok, g2, d3]);
                    let types = vec![
                        Type::new(DType::F32, [seq, tok, h4, d3]),
                        key.clone(),
                        key,
                        Type::new(DType::I32, [seq, tok]),
                        Type::scalar(DType::I32),
                    ];
                    let mask = AttentionMask { causal, documents: true, window: true };
                    let (m, f) = module_of(m, types, |x, p| {
                        let (o, lse) = x.attention(mask, 0.7, p.to_vec());
                        vec![o, lse]
                    });
                    let docs: Vec<i32> = (0..b * t).map(|i| (i % t / document) as i32).collect();
                    let [q, k, v] = [h, g, g].map(|heads| floats(&[b, t, heads, d], heads as u64));
                    let [qs, ks, vs] = [&q, &k, &v].map(|x| x.as_floats().unwrap());
                    let visible = |s: usize, i: usize, j: usize| {
                        (!causal || j <= i) && docs[s * t + i] == docs[s * t + j] && i.abs_diff(j) < window
                    };
                    let want = plain_attention([b, t, h, g, d], [qs, ks, vs], visible, 0.7);
                    let args = vec![
                        q.clone(),
                        k.clone(),
                        v.clone(),
                        Tensor::ints([b, t], docs.clone()).unwrap(),
                        Tensor::ints([], vec![window as i32]).unwrap(),
                    ];
                    let out = run(&m, f, args);
                    for (x, y) in out[0].as_floats().unwrap().iter().zip(&want) {
                        assert!((x - y).abs() <= 1e-13, "T {t}, document {document}, window {window}: {x} {y}");
                    }
                    assert!(out[1].as_floats().unwrap().iter().all(|x| !x.is_nan() && x.is_finite() == (window > 0)));
                }
            }
        }
    }
}

proptest! {
    /// Small integers have exact sums, so that any order gives the same.
    #[test]
    fn products_of_all_sizes(b in 0usize..3, m in 0usize..11, n in 0usize..19, k in 0usize..9, seed: u64) {
        let mut module = Module::default();
        let [db, dm, dn, dk] = [b, m, n, k].map(|size| module.dims.anonymous(size));
        let types = vec![Type::new(DType::F32, [dk, db, dm]), Type::new(DType::F32, [dn, dk, db])];
        let (module, f) = module_of(module, types, |x, p| vec![x.dot(p[0], p[1], &[(1, 2)], &[(0, 1)], DType::F32)]);
        let whole = |t: Tensor| {
            let values = t.as_floats().unwrap().iter().map(|x| (x * 8.0).round()).collect();
            Tensor::floats(t.sizes(), values).unwrap()
        };
        let (x, y) = (whole(floats(&[k, b, m], seed)), whole(floats(&[n, k, b], seed ^ 1)));
        let out = run(&module, f, vec![x.clone(), y.clone()]);
        let (x, y) = (x.as_floats().unwrap(), y.as_floats().unwrap());
        for (index, &got) in out[0].as_floats().unwrap().iter().enumerate() {
            let (s, i, j) = (index / (m * n), index / n % m, index % n);
            let want: f64 = (0..k).map(|l| x[(l * b + s) * m + i] * y[(j * k + l) * b + s]).sum();
            prop_assert_eq!(got, want);
        }
    }
}

#[test]
fn threads_change_no_bit() {
    let mut m = Module::default();
    let (seq, t) = (m.dims.intern("seq", 3, DimRole::Sequence), m.dims.intern("T", 96, DimRole::Token));
    let (h, d, flat) = (m.dims.anonymous(3), m.dims.anonymous(32), m.dims.anonymous(96));
    let types = vec![Type::new(DType::F32, [seq, t, h, d])];
    let mask = AttentionMask { causal: true, ..AttentionMask::default() };
    let (m, f) = module_of(m, types, |x, p| {
        let q = x.like(Op::RmsNorm { eps: F64(1e-6) }, vec![p[0]], DType::F32);
        let (o, lse) = x.attention(mask, 0.2, vec![q, p[0], p[0]]);
        let types = vec![x.ty(q), x.ty(q), x.ty(q)];
        let args = vec![q, p[0], p[0], o, lse, p[0]];
        let mut out = x.push(Op::AttentionGrad { mask, scale: F64(0.2) }, args, types);
        let o = x.unary(UnaryOp::Tanh, o, DType::F32);
        let o = x.reshape(o, &[seq, t, flat]);
        out.push(x.dot(o, o, &[], &[(0, 0), (1, 1)], DType::F32));
        out.push(x.reduce(mngc_compiler::ir::ReduceKind::Sum, o, &[0, 2], DType::F32));
        out.push(x.binary(BinaryOp::Mul, o, o, DType::F32));
        out
    });
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| run(&m, f, vec![floats(&[3, 96, 3, 32], 5)]))
    };
    let one = with(1);
    assert_eq!(one, with(2));
    assert_eq!(one, with(7));
}

#[test]
fn broken_graphs_are_errors() {
    let ctx = Context::default();
    let text = "module \"m\"\nfunc f0 \"f\" (v0: f32[2]) {\n  v1: f32[3] = exp v0\n  return v1\n}\n";
    let m = read::module(text).unwrap();
    let f = Func::from_u32(0);
    let arg = || vec![Tensor::floats([2], vec![0.0, 1.0]).unwrap()];
    assert!(matches!(evaluate(&m, f, arg(), &ctx), Err(Error::Node { .. })));
    assert!(matches!(evaluate(&m, f, vec![], &ctx), Err(Error::Arguments { expected: 1, found: 0, .. })));
    assert_eq!(evaluate(&m, Func::from_u32(7), vec![], &ctx), Err(Error::NoFunc(Func::from_u32(7))));

    // A call of itself would never end.
    let mut m = Module::default();
    let mut g = Graph::new("g");
    let op = Op::Call { func: f, kind: mngc_compiler::ir::CallKind::Block };
    let value = g.push1(op, vec![], Type::scalar(DType::F32), None);
    g.result("", value);
    m.funcs.push(g);
    assert!(evaluate(&m, f, vec![], &ctx).unwrap_err().to_string().contains("does not stand before"));
}

#[test]
fn an_observer_sees_every_node_and_the_calls_around_it() {
    let text = "module \"m\"\nfunc f0 \"f\" (v0: f32[]) {\n  v1: f32[] = exp v0\n  return v1\n}\n\
                func f1 \"g\" (v0: f32[]) {\n  v1: f32[] = call v0 {func = f0, kind = block}\n  return v1\n}\n";
    let m = read::module(text).unwrap();
    let seen = std::cell::RefCell::new(Vec::new());
    let observer = |path: &[(Func, mngc_compiler::ir::Node)], results: &[Tensor]| {
        let path: Vec<String> = path.iter().map(|(f, n)| format!("{f}.{n}")).collect();
        seen.borrow_mut().push((path.join(" "), results[0].item()));
    };
    let ctx = Context { observer: Some(&observer), ..Context::default() };
    evaluate(&m, Func::from_u32(1), vec![Tensor::scalar(0.0)], &ctx).unwrap();
    let want = [("f1.n0 f0.n0".to_string(), Some(1.0)), ("f1.n0".to_string(), Some(1.0))];
    assert_eq!(*seen.borrow(), want);
}
