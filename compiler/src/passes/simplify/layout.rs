//! Rules on operations that move elements. Every one may turn into the same scalar repeated over other axes.

use crate::ir::{Op, Type, Value};
use crate::passes::rewrite::Peephole;

/// `broadcast x` that adds no axis → x; `broadcast (broadcast x)` → `broadcast x`.
pub fn broadcast(p: &mut Peephole, op: &Op, args: &[Value], ty: &Type) -> Option<Value> {
    let (Op::Broadcast { axes }, &[x]) = (op, args) else { return None };
    if axes.len() == ty.rank() {
        return Some(x);
    }
    let (Op::Broadcast { axes: first }, &[source]) = p.def(x)? else { return None };
    let axes = first.iter().map(|&axis| axes[axis as usize]).collect();
    Some(p.make(Op::Broadcast { axes }, vec![source], ty.clone()))
}

/// `reshape x` to x's own shape → x; `reshape (reshape x)` → `reshape x`.
pub fn reshape(p: &mut Peephole, op: &Op, args: &[Value], ty: &Type) -> Option<Value> {
    let (Op::Reshape, &[x]) = (op, args) else { return None };
    if p.fits(x, ty) {
        return Some(x);
    }
    if let Some(source) = p.operand_if(x, |op| *op == Op::Reshape) {
        return Some(p.make(Op::Reshape, vec![source], ty.clone()));
    }
    p.splat_of(x).map(|scalar| p.splat(scalar, ty))
}

/// `transpose x` that moves nothing → x; `transpose (transpose x)` → `transpose x`.
pub fn transpose(p: &mut Peephole, op: &Op, args: &[Value], ty: &Type) -> Option<Value> {
    let (Op::Transpose { perm }, &[x]) = (op, args) else { return None };
    if perm.iter().enumerate().all(|(i, &from)| i == from as usize) {
        return Some(x);
    }
    if let Some(scalar) = p.splat_of(x) {
        return Some(p.splat(scalar, ty));
    }
    let (Op::Transpose { perm: first }, &[source]) = p.def(x)? else { return None };
    let perm = perm.iter().map(|&i| first[i as usize]).collect();
    Some(p.make(Op::Transpose { perm }, vec![source], ty.clone()))
}

/// `slice x` of everything → x; a slice of a slice, of one operand of a concat, or of what a pad surrounds → a slice of
/// that; a slice along a repeated axis → fewer repetitions.
pub fn slice(p: &mut Peephole, op: &Op, args: &[Value], ty: &Type) -> Option<Value> {
    let (&Op::Slice { axis, start }, &[x]) = (op, args) else { return None };
    if p.fits(x, ty) {
        return Some(x);
    }
    let taken = start..start + p.size(ty, axis);
    let (source, start) = match p.def(x)? {
        (&Op::Slice { axis: other, start: before }, &[source]) if other == axis => (source, before + start),
        (&Op::Pad { axis: other, before }, &[source]) if other == axis => {
            let inside = before..before + p.size(p.ty(source), axis);
            if taken.start < inside.start || taken.end > inside.end {
                return None;
            }
            (source, start - before)
        }
        (&Op::Concat { axis: other }, parts) if other == axis => {
            let mut before = 0;
            let part = parts.iter().copied().find(|&part| {
                let end = before + p.size(p.ty(part), axis);
                let inside = before <= taken.start && taken.end <= end;
                before = if inside { before } else { end };
                inside
            })?;
            (part, start - before)
        }
        (Op::Broadcast { axes }, &[source]) if !axes.contains(&axis) => {
            let op = Op::Broadcast { axes: axes.clone() };
            return Some(p.make(op, vec![source], ty.clone()));
        }
        _ => return None,
    };
    Some(p.make(Op::Slice { axis, start }, vec![source], ty.clone()))
}

/// `pad x` by nothing → x.
pub fn pad(p: &mut Peephole, op: &Op, args: &[Value], ty: &Type) -> Option<Value> {
    let (Op::Pad { .. }, &[x]) = (op, args) else { return None };
    p.fits(x, ty).then_some(x)
}

/// `concat` of one operand → that.
pub fn concat(_: &mut Peephole, op: &Op, args: &[Value], _: &Type) -> Option<Value> {
    match (op, args) {
        (Op::Concat { .. }, &[x]) => Some(x),
        _ => None,
    }
}

/// `shift x` by 0 → x.
pub fn shift(_: &mut Peephole, op: &Op, args: &[Value], _: &Type) -> Option<Value> {
    match (op, args) {
        (Op::Shift { by: 0, .. }, &[x]) => Some(x),
        _ => None,
    }
}

/// `reverse (reverse x)` along one axis → x; `reverse` along a repeated axis → its operand.
pub fn reverse(p: &mut Peephole, op: &Op, args: &[Value], _: &Type) -> Option<Value> {
    let (Op::Reverse { axis }, &[x]) = (op, args) else { return None };
    match p.def(x)? {
        (inner, &[source]) if inner == op => Some(source),
        (Op::Broadcast { axes }, _) if !axes.contains(axis) => Some(x),
        _ => None,
    }
}
