//! What a running kernel finds around it: threads, memory for its own use, the step.

use std::sync::{Mutex, PoisonError};

use mngc_compiler::ir::DType;
use rayon::prelude::*;

use super::memory::{Memory, Region};
use crate::error::Result;

/// Memory that kernels need beside operands and results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// Bytes that all tasks of a launch share.
    pub shared: usize,
    /// Bytes of each thread.
    pub scratch: usize,
}

impl Need {
    /// Enough for either.
    pub fn max(self, other: Need) -> Need {
        Need { shared: self.shared.max(other.shared), scratch: self.scratch.max(other.scratch) }
    }
}

/// Threads with their memory. It is made once; running allocates nothing.
#[derive(Debug)]
pub struct Threads {
    pool: rayon::ThreadPool,
    shared: Memory,
    scratch: Vec<Mutex<Memory>>,
}

impl Threads {
    /// A pool whose kernels need at most so much.
    pub fn new(pool: rayon::ThreadPool, need: Need) -> Result<Threads> {
        let scratch = (0..pool.current_num_threads()).map(|_| Memory::zeroed(need.scratch).map(Mutex::new));
        Ok(Threads { scratch: scratch.collect::<Result<_>>()?, shared: Memory::zeroed(need.shared)?, pool })
    }

    /// Number of threads.
    pub fn count(&self) -> usize {
        self.scratch.len()
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        let scratch = |m: &Mutex<Memory>| m.lock().unwrap_or_else(PoisonError::into_inner).bytes();
        self.shared.bytes() + self.scratch.iter().map(scratch).sum::<usize>()
    }

    /// Runs something inside of the pool.
    pub fn install<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        self.pool.install(f)
    }
}

/// What a running kernel finds around it.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Threads and memory.
    pub threads: &'a Threads,
    /// Seed of the run.
    pub seed: u64,
    /// Index of the step.
    pub step: u64,
}

impl Context<'_> {
    /// Runs `n` tasks, in any order and on any threads. A task splits no further.
    pub fn each(&self, n: usize, task: impl Fn(usize) + Sync + Send) {
        match n {
            0 => {}
            1 => task(0),
            n => (0..n).into_par_iter().with_max_len(1).for_each(task),
        }
    }

    /// Gives a task the memory of its thread.
    pub fn scratch<R>(&self, f: impl FnOnce(&mut [u32]) -> R) -> R {
        let thread = rayon::current_thread_index().unwrap_or(0) % self.threads.count();
        let mut memory = self.threads.scratch[thread].lock().unwrap_or_else(PoisonError::into_inner);
        f(memory.words())
    }

    /// A part of the memory that the tasks of a launch share, as floats: `len` of them behind `before` others. What it
    /// holds is whatever an earlier launch left.
    pub fn shared(&self, before: usize, len: usize) -> Region {
        let region = self.threads.shared.region(before * 4, DType::F32, len);
        region.expect("a launch asks for its memory when the backend is made")
    }
}

/// Splits `n` into `parts` of almost the same length; gives the range of part `i`.
pub fn part(n: usize, parts: usize, i: usize) -> std::ops::Range<usize> {
    n * i / parts..n * (i + 1) / parts
}

/// A fixed number of tasks for so many elements.
pub fn tasks(elements: usize) -> usize {
    /// Below this many elements another task costs more than it brings.
    const GRAIN: usize = 1 << 15;
    /// Enough for threads to even out.
    const MOST: usize = 64;
    (elements / GRAIN).clamp(1, MOST)
}
