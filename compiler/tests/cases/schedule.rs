//! Schedules of small modules: what becomes of each op, and where tensors lie.

use mngc_compiler::schedule::{self, print};

use crate::harness;

#[test]
fn files() {
    harness::check("schedule", |text| {
        let m = harness::module(text);
        // A case that begins with `// grouped` shows launches with several instances.
        let grouped = text.trim_start().starts_with("// grouped");
        let plan = if grouped { schedule::plan_grouped } else { schedule::plan };
        match plan(&m, &mut Vec::new()) {
            Ok(plan) => vec![print::plan(&m, &plan)],
            Err(e) => vec![e.to_string()],
        }
    });
}
