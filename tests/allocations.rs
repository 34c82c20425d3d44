//! The processor's backend takes no memory once it runs: a step, an update and a validation allocate what they hand to
//! the caller, and nothing that grows with the model. One test, so that nothing else allocates beside it.

#[path = "common/compile.rs"]
mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use common::{On, program, sets};
use mngc_compiler::CompileOptions;
use mngc_compiler::ir::EntryKind;
use mngc_runtime::Tensor;

/// Counts what all threads allocate.
struct Counting;

static COUNT: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, SeqCst);
        BYTES.fetch_add(layout.size(), SeqCst);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Name, sizes and numbers of a result, these also as they are computed, and the map that the results come in.
fn handed_over(results: usize) -> usize {
    1 + 4 * results
}

#[test]
fn nothing_is_allocated_after_step_0() {
    for layers in ["2", "6"] {
        let sets = sets(&[("layers", layers), ("validate.tokens", "sequence")]);
        let options = CompileOptions { micro_sequences: Some(1), ..sets };
        let program = program("models/gpt2-mini.mng", &options).unwrap_or_else(|e| panic!("{e}"));
        let mut backend = On::Cpu(3).open(&program, 5);
        backend.run(EntryKind::Init.into(), &BTreeMap::new(), 0).expect("initial values");
        let sequence = program.recipe.sequence;
        let tokens =
            |by: usize| Tensor::ints([1, sequence], (0..sequence).map(|i| ((i + by) * 7 % 300) as i32).collect());
        let inputs = BTreeMap::from([
            ("tokens".to_string(), tokens(0).expect("tokens")),
            ("targets".to_string(), tokens(1).expect("tokens")),
        ]);
        let none = BTreeMap::new();
        let mut more = Vec::new();
        for step in 0..40 {
            for (kind, inputs) in
                [(EntryKind::MicroStep, &inputs), (EntryKind::Update, &none), (EntryKind::Evaluate, &inputs)]
            {
                let before = (COUNT.load(SeqCst), BYTES.load(SeqCst));
                let out = backend.run(kind.into(), inputs, step).expect("a run");
                let (count, bytes) = (COUNT.load(SeqCst) - before.0, BYTES.load(SeqCst) - before.1);
                if count > handed_over(out.len()) || bytes > 1024 {
                    more.push((kind, step, count, bytes));
                }
            }
        }
        // Whoever hands work to the threads does so by a queue, whose links hold some sixty pieces each.
        let is_link = |&(_, _, count, bytes): &(_, _, usize, usize)| count <= handed_over(1) + 1 && bytes < 4096;
        assert!(more.len() <= 3 && more.iter().all(is_link), "{layers} layers: {more:?}");
    }
}
