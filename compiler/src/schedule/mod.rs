//! From a module to what a backend executes: kernels in order, and the memory of every tensor.
//!
//! [`lower`] flattens the entries and runs the fusion passes. Then each entry becomes launches (`build`; [`cluster`],
//! `matmul` and `loss` say what a fused call runs), for some
//! devices in groups ([`group`]), and these get memory (`memory`): slots are written in place, and
//! what lives only within an entry shares one arena. [`verify`] follows memory through the plan,
//! [`apart`] says what keeps launches from being one. The same schedule
//! serves every backend.

pub mod alias;
pub mod apart;
mod build;
pub mod cluster;
pub mod cost;
pub mod group;
pub mod kernel;
mod loss;
mod matmul;
mod memory;
pub mod plan;
pub mod print;
pub mod rows;
pub mod single;
pub mod verify;

use std::time::Instant;

use build::Steps;
pub use plan::Plan;

use crate::ir::typing::Stage;
use crate::ir::{Entry, Module};
use crate::passes::{self, PassError};

/// Why a module could not be scheduled: a fault of the compiler, never of a model file.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ScheduleError {
    /// A pass failed.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// A plan that would lose a tensor.
    #[error(transparent)]
    Plan(#[from] verify::PlanError),
}

/// A module made ready for backends: its entries flat and fused. Slots, host scalars and what entries compute stay as
/// they are, but that fused kernels may round less. Adds the seconds of each pass to `timings`.
pub fn lower(m: &Module, timings: &mut Vec<(String, f64)>) -> Result<Module, PassError> {
    let mut m = m.clone();
    let stage = passes::run(&mut m, passes::FLATTEN, Stage::CastsPlaced, timings)?;
    let stage = passes::run(&mut m, passes::CLEANUP, stage, timings)?;
    passes::run(&mut m, passes::FUSE, stage, timings)?;
    Ok(m)
}

/// The schedule of a lowered module.
pub fn plan(m: &Module, timings: &mut Vec<(String, f64)>) -> Result<Plan, ScheduleError> {
    planned(m, |_, steps| steps, timings)
}

/// The schedule of a lowered module for a device that takes long to start a launch: those that are alike become one,
/// with several instances ([`mod@group`]). It needs more memory than [`plan()`]'s.
pub fn plan_grouped(m: &Module, timings: &mut Vec<(String, f64)>) -> Result<Plan, ScheduleError> {
    planned(m, |entry, steps| group::group(m, entry, steps), timings)
}

fn planned(
    m: &Module,
    arrange: impl Fn(&Entry, Steps) -> Steps,
    timings: &mut Vec<(String, f64)>,
) -> Result<Plan, ScheduleError> {
    let start = Instant::now();
    let mut plan = Plan { slots: m.slots.values().map(|slot| m.bytes(&slot.ty)).sum(), ..Plan::default() };
    for (key, entry) in &m.entries {
        let entry = memory::place(m, entry, arrange(entry, build::entry(m, entry)));
        plan.arena = plan.arena.max(entry.arena);
        plan.entries.insert(*key, entry);
    }
    timings.push(("schedule".to_string(), start.elapsed().as_secs_f64()));
    verify::plan(m, &plan)?;
    Ok(plan)
}
