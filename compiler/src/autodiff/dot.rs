//! The gradient of a product: for each operand, the product of the cotangent and the other operand.

use super::rules::Rule;
use crate::ir::{DType, Op, Type, Value};

/// Pairs of axes that are walked together: of one operand and of another.
type Pairs = Vec<(u8, u8)>;

/// Contributions for both operands of a dot, from operands of one dtype.
pub(super) fn dot(r: &mut Rule, batch: &[(u8, u8)], contract: &[(u8, u8)]) {
    // Before cast placement the operands may differ: the wider dtype loses nothing.
    let dtype = r.ty(0).dtype.wider(r.ty(1).dtype);
    let dy = r.b.build().cast(r.dy, dtype);
    for i in (0..2).filter(|&i| r.wants(i)).collect::<Vec<_>>() {
        let own_first = |pairs: &[(u8, u8)]| if i == 0 { pairs.to_vec() } else { flip(pairs) };
        operand(r, i, dy, dtype, own_first(batch), own_first(contract));
    }
}

/// The contribution for operand `i`. Pairs are (own axis, axis of the other operand).
fn operand(r: &mut Rule, i: usize, dy: Value, dtype: DType, batch: Pairs, contract: Pairs) {
    let other = r.x(1 - i);
    let other = r.b.build().cast(other, dtype);
    let used: Pairs = batch.iter().chain(&contract).copied().collect();
    let own_free = free(r.ty(i).rank(), used.iter().map(|p| p.0).collect());
    let other_free = free(r.ty(1 - i).rank(), used.iter().map(|p| p.1).collect());

    // The axes of dy are the batch axes, the free axes of the first operand, those of the second.
    let skipped = if i == 0 { own_free.len() } else { 0 };
    let over: Pairs = (batch.len() + skipped..).map(|axis| axis as u8).zip(other_free).collect();
    // A product has its batch axes in the order of its pairs: that of the operand, which may save the transpose.
    let mut walked: Vec<(u8, u8, u8)> = (0..).zip(&batch).map(|(of_dy, &(own, other))| (own, of_dy, other)).collect();
    walked.sort_unstable();
    let with: Pairs = walked.iter().map(|&(_, of_dy, other)| (of_dy, other)).collect();

    // The operand's axes as either order of the factors gives them. Its contracted axes come from the other operand.
    let mut contracted = flip(&contract);
    contracted.sort_unstable();
    let contracted: Vec<u8> = contracted.iter().map(|p| p.1).collect();
    let walked: Vec<u8> = walked.iter().map(|w| w.0).collect();
    let dy_first = [&walked[..], &own_free, &contracted].concat();
    let other_first = [&walked[..], &contracted, &own_free].concat();
    let (op, args, axes) = if !dy_first.is_sorted() && other_first.is_sorted() {
        (Op::Dot { batch: flip(&with), contract: flip(&over) }, vec![other, dy], other_first)
    } else {
        (Op::Dot { batch: with, contract: over }, vec![dy, other], dy_first)
    };

    let target = r.target(i);
    let dims: Vec<_> = axes.iter().map(|&axis| target.dims[axis as usize]).collect();
    let mut perm = vec![0; axes.len()];
    (0..).zip(&axes).for_each(|(place, &axis)| perm[axis as usize] = place);
    let mut b = r.b.build();
    let product = b.push1(op, args, Type::new(target.dtype, dims));
    let contribution = b.transpose(product, &perm);
    r.give(i, contribution)
}

/// Axes that are in no pair.
fn free(rank: usize, used: Vec<u8>) -> Vec<u8> {
    (0..rank as u8).filter(|axis| !used.contains(axis)).collect()
}

fn flip(pairs: &[(u8, u8)]) -> Pairs {
    pairs.iter().map(|&(i, j)| (j, i)).collect()
}
