//! Ctrl-C and SIGTERM: the first asks a run to end after its step, the second ends the program.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::output;

/// While `training`, sets the flag when somebody asks for the end, and says so; else ends the program. Listens until it ends.
pub fn set_on_stop(stop: Arc<AtomicBool>, training: Arc<AtomicBool>) -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot listen for signals")?;
    let listen = move || {
        for signal in signals.forever() {
            if stop.swap(true, Ordering::Relaxed) || !training.load(Ordering::Relaxed) {
                std::process::exit(128 + signal);
            }
            output::note("\nstopping: this step is finished and a checkpoint written; once more stops at once\n");
        }
    };
    thread::Builder::new().name("mngc-signals".into()).spawn(listen).context("cannot start a thread")?;
    Ok(())
}
