//! The device beside its instructions: its memory and the limits of the parts that it can stand for.

pub mod arena;
pub mod memory;
pub mod part;
