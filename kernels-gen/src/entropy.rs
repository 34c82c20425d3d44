//! Cross-entropy of whole logits, and its gradient. The head of a model never has these: its kernel is another.

use crate::call::Generated;
use crate::kernel::Kernel;
use crate::layout::widest;
use crate::pointers::Pointers;
use crate::spec::{Operand, Refusal, Spec};

/// Threads of the largest block.
const THREADS: usize = 512;

/// The call of a cross-entropy (logits, targets), or of its gradient (and dy).
pub fn generate(spec: &Spec, gradient: bool) -> Result<Generated, Refusal> {
    let (Some(logits), Some(targets)) = (spec.args.first(), spec.args.get(1)) else {
        return Err(Refusal("a cross-entropy has logits and targets".into()));
    };
    let n = logits.sizes.last().copied().unwrap_or(1);
    let others: &[Operand] = if gradient { &spec.results } else { &[] };
    let all: Vec<&Operand> = others.iter().chain([logits]).collect();
    let bytes = all.iter().map(|operand| operand.dtype.bytes()).max().unwrap_or(4);
    let vec = widest(bytes, &[n], all);
    let threads = (n / vec).next_power_of_two().clamp(32, THREADS);
    let (template, what) =
        if gradient { ("entropy_grad", "gradient of cross-entropy") } else { ("entropy", "cross-entropy") };
    let call = Kernel::new(template, what, Pointers::new(spec))
        .constant("n", n)
        .constant("vec", vec)
        .call(targets.len(), threads)?;
    Ok(Generated::one(call))
}
