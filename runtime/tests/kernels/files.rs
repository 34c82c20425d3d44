//! Runs `files/*.ir` on a device backend, as they stand and through the fusion passes: what the oracle gives to the bit, it
//! gives within the bound.

use crate::DEVICE;
use crate::common::{Way, on_device, sums};
use crate::files::{call, tensor};
use mngc_compiler::ir::read;
use mngc_runtime::Tensor;
use mngc_testkit::Tolerance;
use mngc_testkit::close::{largest, within};

#[test]
fn files_give_what_they_say() {
    if !DEVICE.is_ready() {
        return;
    }
    let mut faults = Vec::new();
    let mut runs = 0;
    for (name, text) in crate::files::all() {
        let module = read::module(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        for line in text.lines() {
            let Some(directive) = line.strip_prefix("// run ") else { continue };
            runs += 1;
            let (func, args, expected) = call(directive);
            let g = &module.funcs[func];
            let args: Vec<Tensor> =
                g.params.iter().zip(&args).map(|(&p, text)| tensor(&module, g.ty(p), text)).collect();
            // What cancels is as large as operands are.
            let size = args.iter().map(largest).fold(1.0, f64::max);
            let terms = if g.nodes.values().map(|node| &node.args).eq([&g.params]) {
                sums(&module, func, &args).terms
            } else {
                16
            };
            for way in [Way::Planned, Way::Lowered] {
                let found = on_device(&module, func, &args, way, 2);
                for ((found, text), &result) in found.iter().zip(&expected).zip(&g.results) {
                    let ty = g.ty(result);
                    let wanted = tensor(&module, ty, text);
                    let bound = Tolerance::of(ty.dtype, terms, size.max(largest(&wanted)));
                    if let Err(e) = within(found, &wanted, bound) {
                        faults.push(format!("{name}: {line}\n  {way:?}: {e}"));
                    }
                }
            }
        }
    }
    assert!(runs > 50, "only {runs} runs");
    assert!(faults.is_empty(), "{} of {runs} runs are wrong:\n{}", faults.len(), faults.join("\n"));
}
