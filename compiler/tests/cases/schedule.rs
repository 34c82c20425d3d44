//! Schedules of small modules: what becomes of each op, and where tensors lie.

use mngc_compiler::schedule::{self, print};

use crate::harness;

#[test]
fn files() {
    harness::check("schedule", |text| {
        let m = harness::module(text);
        match schedule::plan(&m, &mut Vec::new()) {
            Ok(plan) => vec![print::plan(&m, &plan)],
            Err(e) => vec![e.to_string()],
        }
    });
}
