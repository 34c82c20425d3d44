//! Rules on dots.

use crate::ir::{Op, Type, Value};
use crate::passes::rewrite::Peephole;

/// `dot (transpose a), b` → `dot a, b` with other axis numbers, and the same for b, where the free axes keep their order.
/// Products are summed in the same order, as the pairs keep theirs.
pub fn transposed_operand(p: &mut Peephole, op: &Op, args: &[Value], ty: &Type) -> Option<Value> {
    let (Op::Dot { batch, contract }, &[a, b]) = (op, args) else { return None };
    for (side, operand) in [a, b].into_iter().enumerate() {
        let Some((Op::Transpose { perm }, &[source])) = p.def(operand) else { continue };
        let of = |pair: &(u8, u8)| if side == 0 { pair.0 } else { pair.1 };
        let paired = |axis: &u8| batch.iter().chain(contract).any(|pair| of(pair) == *axis);
        let free: Vec<u8> = (0..perm.len() as u8).filter(|i| !paired(i)).map(|i| perm[i as usize]).collect();
        if !free.is_sorted() {
            continue;
        }
        let moved = |pairs: &[(u8, u8)]| -> Vec<(u8, u8)> {
            let to = |axis: u8| perm[axis as usize];
            pairs.iter().map(|&(i, j)| if side == 0 { (to(i), j) } else { (i, to(j)) }).collect()
        };
        let op = Op::Dot { batch: moved(batch), contract: moved(contract) };
        let args = if side == 0 { vec![source, b] } else { vec![a, source] };
        return Some(p.make(op, args, ty.clone()));
    }
    None
}
