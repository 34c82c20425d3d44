//! Schedules of small modules: what becomes of each op, and where tensors lie.

use mngc_compiler::schedule::{self, apart, print};

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

#[test]
fn reasons_why_launches_stand_apart() {
    harness::check("apart", |text| {
        let m = harness::module(text);
        let plan = schedule::plan(&m, &mut Vec::new()).expect("a plan");
        let of_entry = |entry: &schedule::plan::EntryPlan| {
            let name = |at: usize| entry.launches[at].name.clone();
            let line = |a: apart::Apart| format!("{} #{}, {}: {}", name(a.producer), a.result, name(a.consumer), a.why);
            apart::apart(&m, entry).into_iter().map(line).collect::<Vec<String>>()
        };
        plan.entries.values().flat_map(of_entry).collect()
    });
}
