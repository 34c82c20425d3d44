//! Speed of the CPU backend's kernels: `cargo bench -p mngc-runtime [-- WORD…]` runs those whose name has a word.
//!
//! Each line is the best of several runs: milliseconds, GFLOP/s (a multiply-add counts two) and GB/s of operands and
//! results; and, where the system tells, GFLOP in a second of one processor over all runs, which other work on the machine
//! disturbs less. `THREADS=n` sets the number of threads.

#![allow(clippy::print_stdout, reason = "a report")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use mngc_compiler::ir::{EntryKind, Module, read};
use mngc_compiler::schedule;
use mngc_runtime::{Backend, Cpu, Tensor};

/// A module whose entry `evaluate` runs one kernel on slots.
struct Kernel {
    name: String,
    text: String,
}

/// `f` with the slots it reads, as the text form has it; the results go to slots of their own.
fn kernel(name: impl Into<String>, args: &[&str], body: &str, kind: &str, results: &[&str]) -> Kernel {
    let mut slots = String::new();
    for (i, ty) in args.iter().chain(results).enumerate() {
        slots += &format!("slot s{i} \"s{i}\" param {ty}\n");
    }
    let params: Vec<String> = args.iter().enumerate().map(|(i, ty)| format!("v{i}: {ty}")).collect();
    let names: Vec<String> = (0..args.len()).map(|i| format!("v{i}")).collect();
    let n = args.len();
    let made: Vec<String> = results.iter().enumerate().map(|(i, ty)| format!("v{}: {ty}", n + i)).collect();
    let returned: Vec<String> = (0..results.len()).map(|i| format!("v{}", n + i)).collect();
    let inputs: Vec<String> = (0..n).map(|i| format!("s{i}")).collect();
    let outputs: Vec<String> = (0..results.len()).map(|i| format!("s{}", n + i)).collect();
    let text = format!(
        "module \"m\"\n{slots}\nfunc f0 \"f\" ({}) {{\n{body}\n}}\nfunc f1 \"g\" ({}) {{\n  {} = call {} {{func = f0, \
         kind = {kind}}}\n  return {}\n}}\nentry evaluate = f1({}) -> ({})\n",
        params.join(", "),
        params.join(", "),
        made.join(", "),
        names.join(", "),
        returned.join(", "),
        inputs.join(", "),
        outputs.join(", "),
    );
    Kernel { name: name.into(), text }
}

/// One product: a `[m, k]` or, transposed, `[k, m]`; b `[n, k]` or `[k, n]`.
fn product([m, n, k]: [usize; 3], layout: &str, dtype: &str, symmetric: bool) -> Kernel {
    let (a, axis_a) = if layout.starts_with('T') { ([k, m], 0) } else { ([m, k], 1) };
    let (b, axis_b) = if layout.ends_with('T') { ([n, k], 1) } else { ([k, n], 0) };
    let args = [format!("{dtype}[{}, {}]", a[0], a[1]), format!("{dtype}[{}, {}]", b[0], b[1])];
    let result = format!("{dtype}[{m}, {n}]");
    let same = symmetric && args[0] == args[1];
    let (args, b) = if same { (vec![args[0].as_str()], 0) } else { (vec![args[0].as_str(), args[1].as_str()], 1) };
    let made = args.len();
    let body =
        format!("  v{made}: {result} = dot v0, v{b} {{batch = [], contract = [{axis_a}:{axis_b}]}}\n  return v{made}");
    let kind = if symmetric { "symmetric_dot" } else { "dot" };
    kernel(format!("{kind} {dtype} {layout} {m}x{n}x{k}"), &args, &body, kind, &[&result])
}

fn attention(t: usize, gradient: bool) -> Kernel {
    let q = "f32[1, T, 6, 128]".to_string();
    let lse = "f32[1, T, 6]".to_string();
    let mask = "mask = [causal], scale = 0.08838834764831845";
    let (args, body, results): (Vec<&str>, String, Vec<&str>) = if gradient {
        let body = format!(
            "  v6: {q}, v7: {q}, v8: {q} = attention_grad v0, v1, v2, v3, v4, v5 {{{mask}}}\n  return v6, v7, v8"
        );
        (vec![&q, &q, &q, &q, &lse, &q], body, vec![&q, &q, &q])
    } else {
        let body = format!("  v3: {q}, v4: {lse} = attention v0, v1, v2 {{{mask}}}\n  return v3, v4");
        (vec![&q, &q, &q], body, vec![&q, &lse])
    };
    let name = format!("attention{} {t}", if gradient { " gradient" } else { "" });
    let mut kernel = kernel(name, &args, &body, "block", &results);
    kernel.text = kernel.text.replace("module \"m\"", &format!("module \"m\"\ndim \"T\" = {t} token"));
    kernel
}

fn adam(n: usize) -> Kernel {
    let ty = format!("f32[{n}]");
    let one = "f32[]";
    let body = format!(
        "  v5: {one} = const {{value = 0.9}}\n  v6: {one} = const {{value = 0.1}}\n  v7: {one} = const {{value = 0.05}}\n  \
         v8: {one} = const {{value = 1e-8}}\n  v9: {ty} = mul v5, v2\n  v10: {ty} = mul v6, v1\n  v11: {ty} = add v9, v10\n  \
         v12: {ty} = mul v5, v3\n  v13: {ty} = square v1\n  v14: {ty} = mul v7, v13\n  v15: {ty} = add v12, v14\n  \
         v16: {ty} = sqrt v15\n  v17: {ty} = add v16, v8\n  v18: {ty} = div v11, v17\n  v19: {ty} = mul v4, v18\n  \
         v20: {ty} = sub v0, v19\n  return v20, v11, v15"
    );
    kernel(format!("adam {n}"), &[&ty, &ty, &ty, &ty, one], &body, "rows", &[&ty, &ty, &ty])
}

fn rms_norm(rows: usize, n: usize) -> Kernel {
    let ty = format!("f32[{rows}, {n}]");
    let body = format!("  v2: {ty} = add v0, v1\n  v3: {ty} = rms_norm v2 {{eps = 1e-6}}\n  return v2, v3");
    kernel(format!("residual and rms_norm {rows}x{n}"), &[&ty, &ty], &body, "rows", &[&ty, &ty])
}

fn unary(op: &str) -> Kernel {
    let ty = "f32[1024, 3072]";
    let body = format!("  v1: {ty} = {op} v0\n  return v1");
    kernel(format!("{op} 1024x3072"), &[ty], &body, "rows", &[ty])
}

fn head(rows: usize, n: usize, k: usize) -> Kernel {
    let (x, w, i, one, z) = (
        format!("f32[{rows}, {k}]"),
        format!("f32[{n}, {k}]"),
        format!("i32[{rows}]"),
        format!("f32[{rows}]"),
        format!("f32[{rows}, {n}]"),
    );
    let body = format!(
        "  v5: {z} = dot v0, v1 {{batch = [], contract = [1:1]}}\n  v6: f32[] = const {{value = 30.0}}\n  v7: {z} = div v5, v6\n  \
         v8: {z} = tanh v7\n  v9: {z} = mul v6, v8\n  v10: {one} = cross_entropy v9, v2\n  \
         v11: {z} = cross_entropy_grad v9, v2, v3\n  v12: {z} = square v8\n  v13: f32[] = const {{value = 1.0}}\n  \
         v14: {z} = sub v13, v12\n  v15: {z} = mul v11, v14\n  v16: {x} = dot v15, v1 {{batch = [], contract = [1:0]}}\n  \
         v17: {w} = dot v15, v0 {{batch = [], contract = [0:0]}}\n  v18: {w} = add v4, v17\n  return v10, v16, v18"
    );
    kernel(format!("loss {rows}x{n}x{k}"), &[&x, &w, &i, &one, &w], &body, "loss", &[&one, &x, &w])
}

fn kernels() -> Vec<Kernel> {
    let mut all = Vec::new();
    for shape in [[1024, 768, 768], [1024, 3072, 768], [1024, 768, 3072]] {
        all.push(product(shape, "NT", "f32", false));
        all.push(product(shape, "NN", "f32", false));
    }
    for shape in [[768, 768, 1024], [3072, 768, 1024], [768, 3072, 1024]] {
        all.push(product(shape, "TN", "f32", false));
    }
    for shape in [[768, 768, 768], [768, 768, 3072]] {
        all.push(product(shape, "NT", "f32", false));
        all.push(product(shape, "NT", "f32", true));
    }
    all.push(product([768, 3072, 768], "NN", "f32", false));
    all.push(product([1024, 768, 768], "NT", "bf16", false));
    all.push(attention(1024, false));
    all.push(attention(1024, true));
    all.push(head(1024, 50304, 768));
    all.push(adam(768 * 3072));
    all.push(adam(50304 * 768));
    all.push(rms_norm(1024, 768));
    for op in ["exp", "tanh", "log", "gelu", "relu"] {
        all.push(unary(op));
    }
    all
}

fn value(module: &Module, ty: &mngc_compiler::ir::Type) -> Tensor {
    let sizes = module.dims.sizes(&ty.dims);
    let n: usize = sizes.iter().product();
    let number = |i: usize| (i.wrapping_mul(0x9e37_79b9) >> 7 & 0xffff) as f64 / 32768.0 - 1.0;
    match ty.dtype.is_float() {
        true => Tensor::floats(sizes, (0..n).map(number).collect()),
        false => Tensor::ints(sizes, (0..n).map(|i| (i % 97) as i32).collect()),
    }
    .expect("as many as the sizes say")
}

/// Seconds that all threads of this process have run, past and present, to a hundredth.
fn processor_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    // Behind the name in brackets: field 14 and 15 are times in user and in system mode.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |i: usize| fields.get(i)?.parse::<f64>().ok();
    Some((ticks(11)? + ticks(12)?) / 100.0)
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let threads = std::env::var("THREADS").ok().and_then(|n| n.parse().ok());
    for kernel in kernels() {
        if !words.is_empty() && !words.iter().any(|word| kernel.name.contains(word.as_str())) {
            continue;
        }
        let module = read::module(&kernel.text).unwrap_or_else(|e| panic!("{e}\n{}", kernel.text));
        let plan = schedule::plan(&module, &mut Vec::new()).expect("a plan");
        let mut cpu = Cpu::new(module.clone(), &plan, 0, threads).expect("a backend");
        for (slot, data) in module.slots.iter() {
            cpu.set_slot(slot, value(&module, &data.ty)).expect("a slot");
        }
        let mut best: Option<(f64, f64, f64)> = None;
        let (start, before) = (Instant::now(), processor_seconds());
        let mut runs = 0u32;
        while runs < 3 || start.elapsed() < Duration::from_millis(1500) {
            cpu.profile(true);
            cpu.run(EntryKind::Evaluate.into(), &BTreeMap::new(), 0).expect("a run");
            let times = cpu.times();
            let seconds: f64 = times.iter().map(|t| t.seconds).sum();
            let sum = |f: fn(&mngc_runtime::KernelTime) -> f64| times.iter().map(f).sum::<f64>();
            if best.is_none_or(|(least, ..)| seconds < least) {
                best = Some((seconds, sum(|t| t.cost.flops), sum(|t| t.cost.bytes)));
            }
            runs += 1;
        }
        let Some((seconds, flops, bytes)) = best else { continue };
        let spent = processor_seconds().zip(before).map(|(after, before)| after - before);
        let of_processor = spent.map_or(String::new(), |s| format!("{:.1}", flops * f64::from(runs) / s / 1e9));
        let names: Vec<&str> = plan.entries.values().flat_map(|e| &e.launches).map(|l| l.kernel.name()).collect();
        println!(
            "{:<38} {:>9.3} ms {:>8.1} GFLOP/s {:>7.1} GB/s {of_processor:>8} GFLOP/s each  {}",
            kernel.name,
            seconds * 1e3,
            flops / seconds / 1e9,
            bytes / seconds / 1e9,
            names.join(" ")
        );
    }
}
