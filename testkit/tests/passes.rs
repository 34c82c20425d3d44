//! Clean-up passes keep every value to the bit, in both modes of the oracle, and take out what says nothing.

use std::collections::BTreeMap;

use mngc_compiler::ir::typing::Stage;
use mngc_compiler::ir::{
    BinaryOp, Builder, DType, DimRole, Entry, EntryKey, Func, Graph, Input, Module, Op, Output, Type, UnaryOp, Value,
    print, verify,
};
use mngc_compiler::passes::{self, const_fold, cse, dce, inline, simplify};
use mngc_runtime::{Backend, Context, Data, Precision, Reference, Tensor, evaluate};
use mngc_testkit::{Case, Config, bits, cases, values};
use proptest::prelude::*;

type Run = fn(&mut Module) -> Result<usize, String>;

/// Passes that keep the parameters of every function.
const LOCAL: &[(&str, Run)] = &[
    ("const_fold", const_fold::run),
    ("simplify", simplify::run),
    ("cse", cse::run),
    ("inline::blocks", inline::blocks),
    ("inline::small_blocks", inline::small_blocks),
    ("inline::fused", inline::fused),
];

fn legal(m: &Module) {
    if let Err(errors) = verify::module(m, Stage::Elaborated) {
        panic!("{}\n{}", errors[0], print::module(m));
    }
}

fn rewritten(m: &Module, run: Run) -> Module {
    let mut after = m.clone();
    run(&mut after).expect("it runs");
    legal(&after);
    after
}

/// Arguments with NaN, infinities and zeros of both signs among the floats.
fn special(args: &[Tensor], seed: u64) -> Vec<Tensor> {
    let one = |(i, arg): (usize, &Tensor)| {
        let mut data = arg.data().clone();
        if let Data::Float(v) = &mut data {
            for (j, x) in v.iter_mut().enumerate() {
                let choice = values::hash(seed ^ i as u64, j as u64) as usize;
                if choice.is_multiple_of(3) {
                    *x = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0][choice / 3 % 5];
                }
            }
        }
        Tensor::new(arg.sizes(), data).expect("the same sizes")
    };
    args.iter().enumerate().map(one).collect()
}

fn all_bits(tensors: &[Tensor]) -> Vec<Vec<u64>> {
    tensors.iter().map(bits).collect()
}

/// Both modules give the same for the function of the case.
fn same(case: &Case, before: &Module, after: &Module, what: &str) -> Result<(), TestCaseError> {
    for args in [case.args.clone(), special(&case.args, case.seed)] {
        for precision in [Precision::Rounded, Precision::F64] {
            let ctx = Context::new(precision, case.seed, 3);
            let want = evaluate(before, case.func, args.clone(), &ctx).expect("it runs");
            let found = evaluate(after, case.func, args.clone(), &ctx).expect("it runs");
            prop_assert_eq!(
                all_bits(&found),
                all_bits(&want),
                "{} in {:?}\n{}\nfrom\n{}\non {:?}",
                what,
                precision,
                print::module(after),
                print::module(before),
                args
            );
        }
    }
    Ok(())
}

/// The value once more, in a roundabout way that keeps every bit.
fn roundabout(b: &mut Builder, v: Value, choice: usize) -> Value {
    let ty = b.ty(v);
    let feature = ty.dims.iter().position(|&d| b.m.dims.role(d) == DimRole::Feature);
    let number = ty.dtype != DType::Bool;
    let float = ty.dtype.is_float();
    match choice % 16 {
        0 if number => {
            let one = b.full(1.0, ty.clone());
            b.push1(Op::Binary(BinaryOp::Mul), vec![one, v], ty)
        }
        1 if float => {
            let zero = b.constant(-0.0, ty.dtype);
            b.push1(Op::Binary(BinaryOp::Add), vec![v, zero], ty)
        }
        2 => {
            let op = if number { UnaryOp::Neg } else { UnaryOp::Not };
            let w = b.unary(op, v, ty.dtype);
            b.unary(op, w, ty.dtype)
        }
        3 => b.push1(Op::Reshape, vec![v], ty),
        4 if ty.rank() > 1 => {
            let perm: Vec<u8> = (0..ty.rank() as u8).rev().collect();
            let w = b.transpose(v, &perm);
            b.transpose(w, &perm)
        }
        5 if ty.rank() > 0 => {
            let w = b.push1(Op::Reverse { axis: 0 }, vec![v], ty.clone());
            b.push1(Op::Reverse { axis: 0 }, vec![w], ty)
        }
        6 if ty.rank() > 0 => b.push1(Op::Shift { axis: 0, by: 0 }, vec![v], ty),
        7 => b.push1(Op::Cast, vec![v], ty),
        8 if ty.dtype != DType::I32 => {
            let w = b.cast(v, DType::F32);
            b.cast(w, ty.dtype)
        }
        9 => {
            let yes = b.full(1.0, ty.with_dtype(DType::Bool));
            let zero = b.constant(0.0, ty.dtype);
            b.push1(Op::Select, vec![yes, v, zero], ty)
        }
        10 => {
            // Neutral once it is folded.
            let (two, half) = (b.constant(2.0, DType::F32), b.constant(0.5, DType::F32));
            let one = b.binary(BinaryOp::Mul, two, half, DType::F32);
            if float { b.push1(Op::Binary(BinaryOp::Div), vec![v, one], ty) } else { v }
        }
        12..=15 if feature.is_some() => {
            let axis = feature.unwrap_or(0);
            let (dim, size) = (ty.dims[axis], b.m.dims.size(ty.dims[axis]));
            let (wide, double) = (b.m.dims.anonymous(size + 3), b.m.dims.anonymous(2 * size));
            let mut doubled = ty.clone();
            doubled.dims[axis] = double;
            let axis_id = axis as u8;
            match choice % 4 {
                0 => b.slice(v, axis, 0, dim),
                1 => {
                    let w = b.pad(v, axis, 2, wide);
                    b.slice(w, axis, 2, dim)
                }
                2 => {
                    let w = b.push1(Op::Concat { axis: axis_id }, vec![v, v], doubled);
                    b.slice(w, axis, size, dim)
                }
                _ => b.push1(Op::Concat { axis: axis_id }, vec![v], ty),
            }
        }
        _ => v,
    }
}

/// The case with every third operand of its functions led roundabout.
fn cluttered(case: &Case) -> Module {
    let mut m = case.module.clone();
    for func in case.module.funcs.keys() {
        let old = &case.module.funcs[func];
        let mut g = Graph { gradient: old.gradient, ..Graph::new(old.name.clone()) };
        let mut map = BTreeMap::new();
        for (&param, name) in old.params.iter().zip(&old.param_names) {
            map.insert(param, g.param(name.clone(), old.ty(param).clone()));
        }
        let mut draw = 0;
        let mut led = |b: &mut Builder, v: Value| {
            draw += 1;
            let choice = values::hash(case.seed ^ func.as_u32() as u64, draw) as usize;
            if choice.is_multiple_of(3) { roundabout(b, v, choice / 3) } else { v }
        };
        for node in old.nodes.values() {
            let mut b = Builder::new(&mut m, &mut g, None);
            let args = node.args.iter().map(|v| led(&mut b, map[v])).collect();
            let types = node.results.iter().map(|&v| old.ty(v).clone()).collect();
            let made = b.push(node.op.clone(), args, types);
            map.extend(node.results.iter().copied().zip(made));
        }
        for (v, name) in old.results.iter().zip(&old.result_names) {
            let value = led(&mut Builder::new(&mut m, &mut g, None), map[v]);
            g.result(name.clone(), value);
        }
        m.funcs[func] = g;
    }
    legal(&m);
    m
}

fn nodes(m: &Module) -> usize {
    m.funcs.values().map(|g| g.nodes.len()).sum()
}

fn cleaned(m: &Module) -> Module {
    let mut after = m.clone();
    let run = |m: &mut Module| passes::run_with(m, passes::CLEANUP, Stage::Elaborated, true, &mut Vec::new());
    run(&mut after).unwrap_or_else(|e| panic!("{e}\n{}", print::module(m)));
    after
}

/// Cleaned until nothing changes: an operand that goes may make two calls equal.
fn settled(m: &Module) -> Module {
    let after = cleaned(m);
    if print::module(&after) == print::module(m) { after } else { settled(&after) }
}

/// Runs the entry of a module on the case's arguments: what the host sees, then every slot.
fn run_entry(case: &Case, m: &Module, precision: Precision) -> Vec<Vec<u64>> {
    let (&key, bound): (&EntryKey, &Entry) = case.module.entries.first_key_value().expect("an entry");
    let mut backend = Reference::new(m.clone(), case.seed, precision);
    let mut batch = BTreeMap::new();
    for (input, arg) in bound.inputs.iter().zip(&case.args) {
        match input {
            Input::Slot(slot) => backend.set_slot(*slot, arg.clone()).expect("the slot takes it"),
            Input::Batch(name) => drop(batch.insert(name.clone(), arg.clone())),
            Input::Scalar(_) => {}
        }
    }
    let found = backend.run(key, &batch, 3).expect("it runs");
    let host = bound.outputs.iter().filter_map(|output| match output {
        Output::Host(name) => Some(bits(&found[name])),
        Output::Slot(_) => None,
    });
    let slots = m.slots.keys().filter_map(|slot| backend.slot(slot).ok().map(|t| bits(&t)));
    host.chain(slots).collect()
}

/// A function of the module that entries do not reach may go; the one that they run gives the same.
fn same_entry(case: &Case, before: &Module, after: &Module) -> Result<(), TestCaseError> {
    for precision in [Precision::Rounded, Precision::F64] {
        prop_assert_eq!(
            run_entry(case, after, precision),
            run_entry(case, before, precision),
            "{}\nfrom\n{}",
            print::module(after),
            print::module(before)
        );
    }
    Ok(())
}

proptest! {
    // A fault that is found becomes a test of its own, with a name.
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_pass_keeps_every_value(case in cases(Config::default())) {
        for &(name, run) in LOCAL {
            same(&case, &case.module, &rewritten(&case.module, run), name)?;
        }
        same_entry(&case, &case.module, &rewritten(&case.module, dce::run))?;
        same_entry(&case, &case.module, &cleaned(&case.module))?;
    }

    #[test]
    fn roundabout_ways_are_taken_out_and_values_kept(case in cases(Config::default())) {
        let roundabout = cluttered(&case);
        same(&case, &case.module, &roundabout, "the roundabout ways themselves")?;
        for &(name, run) in LOCAL {
            same(&case, &roundabout, &rewritten(&roundabout, run), name)?;
        }
        let (short, long) = (settled(&case.module), settled(&roundabout));
        same_entry(&case, &roundabout, &long)?;
        prop_assert!(
            nodes(&long) <= nodes(&short),
            "{} nodes are left of\n{}\nand {} of\n{}",
            nodes(&long),
            print::module(&long),
            nodes(&short),
            print::module(&short)
        );
    }

    #[test]
    fn a_second_run_finds_nothing(case in cases(Config::default())) {
        let roundabout = cluttered(&case);
        for run in [const_fold::run, simplify::run, cse::run, dce::run] as [Run; 4] {
            let once = rewritten(&roundabout, run);
            let mut twice = once.clone();
            let changes = run(&mut twice).expect("it runs");
            prop_assert_eq!(changes, 0, "{}\nthen\n{}", print::module(&once), print::module(&twice));
        }
    }
}

/// The identities that hold for real numbers and not for floats, on values that tell.
#[test]
fn zeros_and_infinities_tell() {
    let mut m = Module::default();
    let dim = m.dims.intern("dim", 5, DimRole::Feature);
    let mut g = Graph::new("f");
    let x = g.param("x", Type::new(DType::F32, [dim]));
    let mut b = Builder::new(&mut m, &mut g, None);
    for (op, constant) in [(BinaryOp::Add, 0.0), (BinaryOp::Mul, 0.0), (BinaryOp::Sub, -0.0), (BinaryOp::Max, 0.0)] {
        let c = b.constant(constant, DType::F32);
        let y = b.binary(op, x, c, DType::F32);
        b.g.result("", y);
    }
    let func: Func = m.funcs.push(g);
    let args = vec![Tensor::floats([5], vec![-0.0, 0.0, f64::NAN, f64::INFINITY, -1.0]).expect("five")];
    let case = Case { module: m, func, args, seed: 0 };
    same(&case, &case.module, &cleaned(&case.module), "clean-up").expect("the same");
}
