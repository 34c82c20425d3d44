//! The cases: every family of kernels, drawn from seeds that never change, and some fixed ones of the sizes of training.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Debug;

use mngc_compiler::ir::{
    CallKind, DType, EntryKind, Func, Fusion, Module, Node, NodeData, Op, ReduceKind, Type, Value, ValueDef,
};
use mngc_runtime::{Context, Precision, Tensor, evaluate};
use mngc_testkit::kernels::attention::{self, rounded_factors};
use mngc_testkit::kernels::calls::alone;
use mngc_testkit::kernels::cluster::cluster;
use mngc_testkit::kernels::head::Head;
use mngc_testkit::kernels::product::{EPILOGUES, Product, symmetric};
use mngc_testkit::kernels::single::{indices, op_on, operands};
use mngc_testkit::kernels::{Check, Sums, Way, numbers, one_node, planned, sums};
use mngc_testkit::steps::{self, Sizes};
use mngc_testkit::{Config, generate, trace, values};

/// Some checks under one name.
pub struct Case {
    /// Its place among all.
    pub index: usize,
    /// Says all that it is drawn from.
    pub name: String,
    /// Which kernels.
    pub family: &'static str,
    /// Draws it.
    pub build: Box<dyn Fn() -> Vec<Check>>,
}

/// All of them, small ones first.
pub fn all() -> Vec<Case> {
    let mut list = List::default();
    list.ops();
    list.rows();
    list.products();
    list.losses();
    list.attention();
    list.random();
    list.large();
    list.cases
}

#[derive(Default)]
struct List {
    cases: Vec<Case>,
}

/// Numbers drawn from a seed, one after another.
struct Draw {
    seed: u64,
    next: u64,
}

impl Draw {
    fn below(&mut self, n: usize) -> usize {
        self.next += 1;
        (values::hash(self.seed, self.next) % n as u64) as usize
    }

    fn of<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn coin(&mut self) -> bool {
        self.below(2) == 1
    }

    fn size(&mut self) -> usize {
        match self.below(3) {
            0 => 1 + self.below(19),
            1 => 20 + self.below(120),
            _ => self.of(&[31, 32, 33, 48, 64, 96, 127, 128, 129, 255, 256, 257, 384, 397]),
        }
    }
}

fn draws(family: u64, n: u64) -> impl Iterator<Item = Draw> {
    (0..n).map(move |i| Draw { seed: values::hash(family, i), next: 0 })
}

impl List {
    fn add(&mut self, family: &'static str, name: impl Debug, build: impl Fn() -> Vec<Check> + 'static) {
        let (index, name) = (self.cases.len(), format!("{family} {name:?}").replace('"', ""));
        self.cases.push(Case { index, name, family, build: Box::new(build) });
    }

    fn op(&mut self, op: Op, args: &[(DType, &[usize])], result: (DType, &[usize])) {
        let args: Vec<(DType, Vec<usize>)> = args.iter().map(|(dtype, sizes)| (*dtype, sizes.to_vec())).collect();
        let (dtype, sizes) = (result.0, result.1.to_vec());
        self.add("op", (op.clone(), args.clone(), dtype), move || {
            let types: Vec<(DType, &[usize])> = args.iter().map(|(dtype, sizes)| (*dtype, &sizes[..])).collect();
            let (m, func) = op_on(&op, &types, (dtype, &sizes));
            let mut args = operands(&m, func, 1);
            // Rows by index and classes by number, some of them out of range.
            let rows = match op {
                Op::Gather => Some((1, types[0].1[0])),
                Op::ScatterAdd => Some((0, sizes[0])),
                Op::CrossEntropy | Op::CrossEntropyGrad => Some((1, types[0].1[1])),
                _ => None,
            };
            if let Some((at, rows)) = rows {
                args[at] = indices(args[at].len(), rows, 1);
            }
            vec![Check::of_op(m, func, Way::Planned, args)]
        });
    }

    fn ops(&mut self) {
        let (f, b, h, i, t) = (DType::F32, DType::BF16, DType::F16, DType::I32, DType::Bool);
        for (dtype, sizes, perm) in [
            (f, [3, 5, 33, 65], [1, 0, 2, 3]),
            (b, [2, 7, 64, 31], [0, 1, 3, 2]),
            (h, [1, 2, 97, 40], [3, 2, 1, 0]),
            (t, [2, 3, 5, 67], [2, 3, 0, 1]),
        ] {
            let to = perm.map(|axis| sizes[axis as usize]);
            self.op(Op::Transpose { perm: perm.to_vec() }, &[(dtype, &sizes)], (dtype, &to));
        }
        self.op(Op::Reverse { axis: 1 }, &[(b, &[5, 33, 7])], (b, &[5, 33, 7]));
        self.op(Op::Shift { axis: 0, by: 3 }, &[(f, &[70, 33])], (f, &[70, 33]));
        self.op(Op::Shift { axis: 1, by: -2 }, &[(i, &[3, 129])], (i, &[3, 129]));
        self.op(Op::Pad { axis: 1, before: 2 }, &[(b, &[3, 5, 16])], (b, &[3, 11, 16]));
        self.op(Op::Slice { axis: 2, start: 3 }, &[(f, &[4, 31, 33])], (f, &[4, 31, 16]));
        self.op(Op::Broadcast { axes: vec![0, 2] }, &[(b, &[7, 33])], (b, &[7, 64, 33]));
        self.op(Op::Broadcast { axes: vec![1] }, &[(f, &[31])], (f, &[8, 31, 128]));
        self.op(Op::Concat { axis: 1 }, &[(b, &[7, 1, 33]), (b, &[7, 40, 33]), (b, &[7, 8, 33])], (b, &[7, 49, 33]));
        for &kind in ReduceKind::ALL {
            self.op(Op::Reduce { kind, axes: vec![0] }, &[(f, &[300, 33])], (f, &[33]));
            self.op(Op::Reduce { kind, axes: vec![1] }, &[(b, &[5, 129, 16])], (b, &[5, 16]));
            self.op(Op::Reduce { kind, axes: vec![0, 1, 2] }, &[(f, &[9, 64, 31])], (f, &[]));
        }
        for reverse in [false, true] {
            self.op(Op::Cumsum { axis: 0, reverse }, &[(i, &[5001])], (i, &[5001]));
            self.op(Op::Cumsum { axis: 1, reverse }, &[(f, &[3, 700, 5])], (f, &[3, 700, 5]));
        }
        self.op(Op::Gather, &[(b, &[97, 64]), (i, &[300])], (b, &[300, 64]));
        self.op(Op::Gather, &[(f, &[33, 7]), (i, &[129])], (f, &[129, 7]));
        self.op(Op::ScatterAdd, &[(i, &[2050]), (b, &[2050, 33])], (f, &[97, 33]));
        self.op(Op::ScatterAdd, &[(i, &[300]), (f, &[300, 128])], (b, &[16, 128]));
        for (dtype, n) in [(f, 50), (b, 1024), (f, 5001)] {
            self.op(Op::CrossEntropy, &[(dtype, &[7, n]), (i, &[7])], (f, &[7]));
            self.op(Op::CrossEntropyGrad, &[(dtype, &[7, n]), (i, &[7]), (f, &[7])], (dtype, &[7, n]));
        }
        // Rows that no block holds.
        let long = [2, (1 << 17) + 5];
        self.op(Op::Softmax, &[(f, &long)], (f, &long));
        let eps = mngc_compiler::ir::F64(1e-3);
        self.op(Op::RmsNormGrad { eps }, &[(f, &long), (f, &long)], (f, &long));
    }

    /// A fused cluster on rows; numbers are in [−1, 1).
    fn cluster(&mut self, name: &str, params: &[&str], body: &str, returned: &str, results: &[&str]) {
        let own = |list: &[&str]| list.iter().map(|s| s.to_string()).collect::<Vec<String>>();
        let (params, results) = (own(params), own(results));
        let (body, returned) = (body.to_string(), returned.to_string());
        self.add("rows", name.to_string(), move || {
            let as_str = |list: &[String]| list.iter().map(|s| s.to_string()).collect::<Vec<String>>();
            let (params, results) = (as_str(&params), as_str(&results));
            let params: Vec<&str> = params.iter().map(String::as_str).collect();
            let results: Vec<&str> = results.iter().map(String::as_str).collect();
            let (m, func) = cluster(&params, &body, &returned, &results);
            let g = &m.funcs[func];
            let args = g.params.iter().zip(1..).map(|(&p, seed)| numbers(&m, g.ty(p), seed)).collect();
            vec![Check::of_call(m, func, args)]
        });
    }

    fn rows(&mut self) {
        for (rows, n) in [(3, 5), (7, 33), (100, 768), (3, 5000), (2, 100_000)] {
            let (x, row) = (format!("f32[{rows}, {n}]"), format!("f32[{rows}]"));
            let body = format!(
                "v2: {x} = add v0, v1\n  v3: {x} = rms_norm v2 {{eps = 1e-3}}\n  v4: {row} = reduce v3 {{kind = max, axes = \
                 [1]}}\n  v5: {x} = broadcast v4 {{axes = [0]}}\n  v6: {x} = sub v3, v5"
            );
            self.cluster(&format!("norm and fold of {rows} by {n}"), &[&x, &x], &body, "v2, v6", &[&x, &x]);
        }
        for (rows, n) in [(257, 131), (5000, 48), (3, 20_001)] {
            let (x, z, row) = (format!("bf16[{rows}, {n}]"), format!("f32[{rows}, {n}]"), format!("f32[{n}]"));
            let body =
                format!("v1: {z} = exp v0\n  v2: {row} = reduce v1 {{kind = sum, axes = [0]}}\n  v3: {z} = add v1, v0");
            self.cluster(&format!("sums over {rows} rows of {n}"), &[&x], &body, "v2, v3", &[&row, &z]);
        }
        for (dtype, sizes) in [("f32", "300, 70"), ("bf16", "1001"), ("f32", "128, 768")] {
            let (w, s) = (format!("{dtype}[{sizes}]"), format!("f32[{sizes}]"));
            // Adam: w, m, v, g; v is a square, so that its root is one.
            let adam = format!(
                "v4: f32[] = const {{value = 0.9}}\n  v5: {s} = mul v1, v4\n  v6: f32[] = const {{value = 0.1}}\n  \
                 v7: {s} = mul v3, v6\n  v8: {s} = add v5, v7\n  v9: {s} = square v2\n  v10: {s} = square v3\n  \
                 v11: {s} = mul v10, v6\n  v12: {s} = add v9, v11\n  v13: {s} = sqrt v12\n  v14: f32[] = const {{value = 1e-2}}\n  \
                 v15: {s} = add v13, v14\n  v16: {s} = div v8, v15\n  v17: {s} = mul v16, v6\n  v18: {w} = sub v0, v17"
            );
            self.cluster(&format!("adam on {w}"), &[&w, &s, &s, &s], &adam, "v18, v8, v12", &[&w, &s, &s]);
            let momentum = format!(
                "v3: f32[] = const {{value = 0.95}}\n  v4: {s} = mul v1, v3\n  v5: {s} = add v4, v2\n  v6: {s} = mul v5, v3\n  \
                 v7: {s} = add v2, v6\n  v8: bf16[{sizes}] = cast v7\n  v9: {w} = sub v0, v7"
            );
            self.cluster(
                &format!("momentum on {w}"),
                &[&w, &s, &s],
                &momentum,
                "v9, v5, v8",
                &[&w, &s, &format!("bf16[{sizes}]")],
            );
        }
    }

    fn product(&mut self, product: Product) {
        self.add("dot", product, move || {
            let (m, func) = product.module();
            let bound = move |_: &Module, args: &[Tensor]| (product.sums(args), Vec::new());
            vec![Check::new(m, func, Way::Planned, product.args(), bound)]
        });
    }

    fn products(&mut self) {
        for (i, mut draw) in draws(1, 42).enumerate() {
            self.product(Product {
                batch: draw.of(&[1, 1, 1, 2, 3]),
                m: draw.size(),
                n: draw.size(),
                k: draw.size(),
                turned: [i & 1 == 1, i & 2 == 2],
                dtype: ["bf16", "f32", "f16"][i % 3],
                epilogue: i % EPILOGUES.len(),
            });
        }
        // Few results of long sums, which are split.
        for (dtype, turned) in [("f32", [true, true]), ("bf16", [true, true]), ("bf16", [false, false])] {
            self.product(Product { batch: 1, m: 64, n: 72, k: 8192, turned, dtype, epilogue: 1 });
        }
        for mut draw in draws(2, 8) {
            let (m, k, with_epilogue, dtype) = (draw.size(), draw.size(), draw.coin(), draw.of(&["f32", "bf16"]));
            self.symmetric(m, k, with_epilogue, dtype);
        }
    }

    fn symmetric(&mut self, m: usize, k: usize, with_epilogue: bool, dtype: &'static str) {
        self.add("symmetric", (m, k, with_epilogue, dtype), move || {
            let (module, func) = symmetric(m, k, with_epilogue, dtype);
            let g = &module.funcs[func];
            let args = vec![numbers(&module, g.ty(g.params[0]), 1), numbers(&module, g.ty(g.params[1]), 2)];
            let sums = Sums { terms: k + 4, magnitude: Some(k as f64 + 1.0) };
            vec![Check::new(module, func, Way::Planned, args, move |_, _| (sums, Vec::new()))]
        });
    }

    fn head(&mut self, head: Head) {
        self.add("loss", head, move || {
            let (m, func) = head.module();
            let bound = move |_: &Module, _: &[Tensor]| (head.sums(true), Vec::new());
            vec![Check::new(m, func, Way::Planned, head.args(), bound)]
        });
    }

    fn losses(&mut self) {
        for (i, mut draw) in draws(3, 14).enumerate() {
            self.head(Head {
                rows: draw.size(),
                n: draw.size(),
                k: 1 + draw.below(60),
                dtype: ["bf16", "f32"][i % 2],
                softcap: draw.coin(),
                gradient: i % 3 != 0,
                turned: draw.coin(),
                accumulate: draw.coin(),
            });
        }
    }

    /// An attention and its gradient.
    fn attend(&mut self, case: attention::Case) {
        self.add("attention", case.clone(), move || {
            let check = |gradient| {
                let (m, func) = attention::module(std::slice::from_ref(&case), gradient);
                let args = if gradient { case.backward() } else { case.forward() };
                let (case, results) = (case.clone(), m.funcs[func].results.len());
                let bound = move |m: &Module, args: &[Tensor]| {
                    let beside = (0..results).map(|i| rounded_factors(&case, gradient, i, args));
                    (sums(m, func, args), beside.collect())
                };
                Check::new(m, func, Way::Planned, args, bound)
            };
            vec![check(false), check(true)]
        });
    }

    fn attention(&mut self) {
        for (i, mut draw) in draws(4, 24).enumerate() {
            let (heads, key_heads) = draw.of(&[(1, 1), (2, 1), (4, 2), (3, 3)]);
            let windows = [-3.0, 0.0, 1.0, 7.9, 64.0, 127.0, 128.0, 129.0, 1e9];
            let window = (draw.of(&windows), draw.of(&["i32", "f32", "bf16", "number"]));
            let documents = (draw.of(&[1, 3, 50, 128, 1000]), draw.of(&[2, 1000]));
            let case = attention::Case {
                sequences: 1 + draw.below(2),
                t: draw.size().min(300),
                heads,
                key_heads,
                width: [128, 64, 8, 24, 80, 17, 16, 3][i % 8],
                causal: i % 4 != 3,
                window: draw.coin().then_some(window),
                documents: draw.coin().then_some(documents),
                dtype: ["bf16", "f32", "f16"][i % 3],
            };
            self.attend(case);
        }
    }

    /// Nodes and fused calls of random modules.
    fn random(&mut self) {
        for seed in 0..16u64 {
            self.add("nodes", seed, move || nodes(seed));
        }
        let wide = Sizes { seq: 2, t: 67, heads: 6, half: 8, wide: 97, vocab: 101 };
        for seed in 0..16u64 {
            let sizes = if seed.is_multiple_of(2) { steps::SMALL } else { wide };
            self.add("calls", seed, move || calls(seed, sizes));
        }
    }

    /// Sizes of training.
    fn large(&mut self) {
        let (f, b, i) = (DType::F32, DType::BF16, DType::I32);
        const T: usize = 65536;
        self.op(Op::Cumsum { axis: 0, reverse: false }, &[(i, &[T])], (i, &[T]));
        self.op(Op::ScatterAdd, &[(i, &[T]), (f, &[T, 4])], (f, &[503, 4]));
        self.op(Op::Reduce { kind: ReduceKind::Mean, axes: vec![0] }, &[(b, &[T, 3])], (b, &[3]));
        let product = |m, n, k, turned, dtype, epilogue| Product { batch: 1, m, n, k, turned, dtype, epilogue };
        self.product(product(512, 768, 768, [false, false], "bf16", 2));
        self.product(product(768, 384, 2048, [true, true], "bf16", 1));
        self.product(product(261, 509, 384, [false, false], "f32", 3));
        self.symmetric(768, 768, true, "bf16");
        let head = Head {
            rows: 256,
            n: 5003,
            k: 64,
            dtype: "bf16",
            softcap: true,
            gradient: true,
            turned: false,
            accumulate: true,
        };
        self.head(head);
        self.head(Head { rows: 40, n: 50_304, k: 3, dtype: "f32", ..head });
        let attention = attention::Case {
            sequences: 1,
            t: 1025,
            heads: 2,
            key_heads: 2,
            width: 128,
            causal: true,
            window: Some((300.0, "f32")),
            documents: Some((400, 1000)),
            dtype: "bf16",
        };
        self.attend(attention.clone());
        self.attend(attention::Case { t: 700, width: 64, window: None, dtype: "f32", ..attention });
    }
}

fn choices(seed: u64, n: u64) -> Vec<u32> {
    (0..n).map(|i| values::hash(seed, i) as u32).collect()
}

fn types(g: &mngc_compiler::ir::Graph, values: &[Value]) -> Vec<Type> {
    values.iter().map(|&v| g.ty(v).clone()).collect()
}

/// Each node of a random module on the operands that it has there. Random numbers are drawn on the host.
fn nodes(seed: u64) -> Vec<Check> {
    let case = generate::case(&choices(seed, 200), seed, Config::default());
    let ctx = Context::new(Precision::Rounded, case.seed, 3);
    let Ok(steps) = trace::trace(&case.module, case.func, &case.args, &ctx) else { return Vec::new() };
    let steps = steps.into_iter().filter(|step| !matches!(step.node.op, Op::Const(_) | Op::Random { .. }));
    let check = |step: trace::Step| {
        let g = &case.module.funcs[step.func];
        let (args, results) = (types(g, &step.node.args), types(g, &step.node.results));
        let (m, func) = one_node(case.module.clone(), step.node.op.clone(), args, results);
        Check::of_op(m, func, Way::Planned, step.args)
    };
    steps.map(check).collect()
}

/// Each fused call that a random training step is lowered to, on the operands that it has there.
fn calls(seed: u64, sizes: Sizes) -> Vec<Check> {
    let case = steps::case(&choices(seed, 120 + seed % 2), seed, sizes);
    let (m, _) = planned(&case.module, case.func, Way::Lowered);
    let Some(entry) = m.entries.get(&EntryKind::Evaluate.into()) else { return Vec::new() };
    let g = &m.funcs[entry.func];
    let made: RefCell<HashMap<Value, Tensor>> = RefCell::default();
    let observer = |path: &[(Func, Node)], results: &[Tensor]| {
        if let [(_, node)] = path {
            made.borrow_mut().extend(g.nodes[*node].results.iter().copied().zip(results.iter().cloned()));
        }
    };
    let ctx = Context { observer: Some(&observer), ..Context::new(Precision::F64, 7, 3) };
    if evaluate(&m, entry.func, case.args.clone(), &ctx).is_err() {
        return Vec::new();
    }
    let made = made.into_inner();
    let operand = |v: &Value| -> Option<Tensor> {
        let tensor = match g.values[*v].def {
            ValueDef::Param(i) => case.args.get(i)?,
            ValueDef::Result(..) => made.get(v)?,
        };
        Some(tensor.clone().rounded(g.ty(*v).dtype))
    };
    let is_fused = |node: &&NodeData| {
        let kinds = [Fusion::Rows, Fusion::Dot, Fusion::SymmetricDot, Fusion::Loss];
        matches!(node.op, Op::Call { kind: CallKind::Fused(fusion), .. } if kinds.contains(&fusion))
    };
    let check = |node: &NodeData| {
        let args: Vec<Tensor> = node.args.iter().map(operand).collect::<Option<_>>()?;
        let (single, func) = alone(&m, g, node);
        Some(Check::of_call(single, func, args))
    };
    g.nodes.values().filter(is_fused).filter_map(check).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::all;

    #[test]
    fn names_are_unique_and_families_all_there() {
        let cases = all();
        let names: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
        assert_eq!(names.len(), cases.len());
        assert!(cases.iter().enumerate().all(|(i, case)| case.index == i));
        let families: BTreeSet<&str> = cases.iter().map(|case| case.family).collect();
        assert_eq!(families.len(), 8, "{families:?}");
    }
}
