//! Rewrites of a module: each is one named file, and lists of them are run, timed and verified here.
//!
//! A pass keeps what every function computes, for the results that anybody sees. Its header shows what stands before
//! and what after, and says how exactly values are kept: to the bit in both modes of the oracle unless it says
//! otherwise. Passes rebuild graphs, so that ids come out dense and in order.

use std::time::Instant;

use crate::ir::typing::Stage;
use crate::ir::verify::{self, VerifierError};
use crate::ir::{Module, print};

pub mod batch;
pub mod const_fold;
pub mod cse;
pub mod dce;
pub mod fuse;
pub mod inline;
pub mod place_casts;
pub mod rewrite;
pub mod shadow;
pub mod simplify;

/// One rewrite of a module.
#[derive(Clone, Copy, Debug)]
pub struct Pass {
    /// Its name in timings and messages.
    pub name: &'static str,
    /// Rewrites the module and says how many places changed, or why it cannot.
    pub run: fn(&mut Module) -> Result<usize, String>,
    /// The stage that the module has reached after it; none leaves it where it was.
    pub reaches: Option<Stage>,
}

/// Makes a graph smaller without moving anything: what everything after elaboration and autodiff starts from. Constants
/// are folded by `simplify`.
pub const CLEANUP: &[Pass] = &[
    Pass { name: "simplify", run: simplify::run, reaches: None },
    Pass { name: "cse", run: cse::run, reaches: None },
    Pass { name: "dce", run: dce::run, reaches: None },
];

/// Before autodiff: gradients are those of the casts that a step really makes.
pub const CASTS: &[Pass] = &[Pass { name: "place_casts", run: place_casts::run, reaches: Some(Stage::CastsPlaced) }];

/// After [`CLEANUP`], once entries are bound: what a step need not repeat moves to `update`.
pub const HOIST: &[Pass] =
    &[Pass { name: "shadow", run: shadow::run, reaches: None }, Pass { name: "dce", run: dce::run, reaches: None }];

/// Every entry without calls: what fusion starts from.
pub const FLATTEN: &[Pass] = &[
    Pass { name: "inline", run: inline::blocks, reaches: None },
    Pass { name: "unfuse", run: inline::fused, reaches: None },
    Pass { name: "dce", run: dce::run, reaches: None },
];

/// Outlines what one kernel computes.
pub const FUSE: &[Pass] = &[
    Pass { name: "fuse_sums", run: fuse::sums::run, reaches: None },
    Pass { name: "fuse_pads", run: fuse::pads::run, reaches: None },
    Pass { name: "fuse_loss", run: fuse::loss::run, reaches: None },
    Pass { name: "fuse_dot", run: fuse::dot::run, reaches: None },
    Pass { name: "fuse_rows", run: fuse::rows::run, reaches: None },
];

/// Why a list of passes stopped: a fault of the compiler, never of a model file.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PassError {
    /// The pass gave up.
    #[error("pass {pass} failed: {message}")]
    Failed {
        /// Its name.
        pass: &'static str,
        /// What it could not do.
        message: String,
    },
    /// The module that a pass left breaks an invariant.
    #[error("pass {pass} left a broken module: {}", errors.first().map(ToString::to_string).unwrap_or_default())]
    Broken {
        /// Its name.
        pass: &'static str,
        /// Every broken invariant.
        errors: Vec<VerifierError>,
        /// The module as the pass left it.
        text: String,
    },
}

/// Runs passes in order on a module at `stage` and gives the stage that it then has reached. Adds the seconds of each
/// to `timings`. Debug builds verify after every pass.
pub fn run(
    module: &mut Module,
    passes: &[Pass],
    stage: Stage,
    timings: &mut Vec<(String, f64)>,
) -> Result<Stage, PassError> {
    run_with(module, passes, stage, cfg!(debug_assertions), timings)
}

/// As [`run`], with verification asked for or left out. The time of the verifier is not part of a pass's.
pub fn run_with(
    module: &mut Module,
    passes: &[Pass],
    mut stage: Stage,
    verify: bool,
    timings: &mut Vec<(String, f64)>,
) -> Result<Stage, PassError> {
    for pass in passes {
        let start = Instant::now();
        (pass.run)(module).map_err(|message| PassError::Failed { pass: pass.name, message })?;
        timings.push((pass.name.to_string(), start.elapsed().as_secs_f64()));
        stage = pass.reaches.unwrap_or(stage);
        if verify && let Err(errors) = verify::module(module, stage) {
            return Err(PassError::Broken { pass: pass.name, errors, text: print::module(module) });
        }
    }
    Ok(stage)
}
