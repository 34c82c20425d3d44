//! mngc-trainer.
