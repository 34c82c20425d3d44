//! Ops that move values. A view is an offset and a stride for each axis of the result; most ops here are one view.

use std::borrow::Cow;

use crate::tensor::{Data, Tensor};

/// Distance in memory of neighbours along each axis of a row-major tensor.
pub fn strides(sizes: &[usize]) -> Vec<isize> {
    let mut out = vec![1isize; sizes.len()];
    for i in (1..sizes.len()).rev() {
        out[i - 1] = out[i] * sizes[i] as isize;
    }
    out
}

/// The elements of a view in row-major order: element (i, j, …) is `x[offset + i·strides[0] + j·strides[1] + …]`.
pub fn view<'a, T: Copy>(x: &'a [T], offset: usize, sizes: &[usize], by: &[isize]) -> Cow<'a, [T]> {
    let n: usize = sizes.iter().product();
    if n == 0 {
        return Cow::Borrowed(&[]);
    }
    // Neighbouring axes that are one run in memory become one axis, so that the inner loop is long.
    let mut axes: Vec<(usize, isize)> = Vec::new();
    for (&size, &stride) in sizes.iter().zip(by).filter(|&(&size, _)| size != 1) {
        match axes.last_mut() {
            Some(last) if last.1 == stride * size as isize => *last = (last.0 * size, stride),
            _ => axes.push((size, stride)),
        }
    }
    let (inner, stride) = axes.pop().unwrap_or((1, 1));
    if axes.is_empty() && stride == 1 {
        return Cow::Borrowed(&x[offset..offset + inner]);
    }
    let mut out = Vec::with_capacity(n);
    let mut at = vec![0; axes.len()];
    let mut start = offset as isize;
    loop {
        match stride {
            1 => out.extend_from_slice(&x[start as usize..start as usize + inner]),
            0 => out.resize(out.len() + inner, x[start as usize]),
            _ => out.extend((0..inner as isize).map(|i| x[(start + i * stride) as usize])),
        }
        // The next row: count up like a clock, the last axis first.
        let mut axis = axes.len();
        loop {
            if axis == 0 {
                return Cow::Owned(out);
            }
            axis -= 1;
            let (size, stride) = axes[axis];
            at[axis] += 1;
            start += stride;
            if at[axis] < size {
                break;
            }
            at[axis] = 0;
            start -= stride * size as isize;
        }
    }
}

/// Runs the same code on elements of any kind.
macro_rules! each_kind {
    ($data:expr, $x:ident => $body:expr) => {
        match $data {
            Data::Float($x) => Data::Float($body),
            Data::Int($x) => Data::Int($body),
            Data::Bool($x) => Data::Bool($body),
        }
    };
}
pub(super) use each_kind;

fn view_data(x: &Data, offset: usize, sizes: &[usize], by: &[isize]) -> Data {
    each_kind!(x, x => view(x, offset, sizes, by).into_owned())
}

/// Positions along an axis.
pub fn iota(sizes: &[usize], axis: usize) -> Vec<i32> {
    let positions: Vec<i32> = (0..sizes[axis]).map(|i| i as i32).collect();
    let mut by = vec![0; sizes.len()];
    by[axis] = 1;
    view(&positions, 0, sizes, &by).into_owned()
}

/// Operand axis i becomes result axis `axes[i]`; the others repeat.
pub fn broadcast(x: &Data, sizes: &[usize], axes: &[u8], out: &[usize]) -> Data {
    let mut by = vec![0; out.len()];
    for (&axis, stride) in axes.iter().zip(strides(sizes)) {
        by[axis as usize] = stride;
    }
    view_data(x, 0, out, &by)
}

/// Result axis i is operand axis `perm[i]`.
pub fn transpose(x: &Data, sizes: &[usize], perm: &[u8]) -> Data {
    let (out, by) = permuted(sizes, perm.iter().map(|&p| p as usize));
    view_data(x, 0, &out, &by)
}

/// Sizes and strides of axes in another order.
pub fn permuted(sizes: &[usize], order: impl IntoIterator<Item = usize>) -> (Vec<usize>, Vec<isize>) {
    let by = strides(sizes);
    order.into_iter().map(|axis| (sizes[axis], by[axis])).unzip()
}

/// `start..` along an axis, as many as the result has.
pub fn slice(x: &Data, sizes: &[usize], axis: usize, start: usize, out: &[usize]) -> Data {
    let by = strides(sizes);
    view_data(x, start * by[axis] as usize, out, &by)
}

/// y\[i\] = x\[n − 1 − i\] along an axis.
pub fn reverse(x: &Data, sizes: &[usize], axis: usize) -> Data {
    let mut by = strides(sizes);
    let last = by[axis] as usize * sizes[axis].saturating_sub(1);
    by[axis] = -by[axis];
    view_data(x, last, sizes, &by)
}

/// Zeros, with the operand from position `before` on.
pub fn pad(x: &Data, sizes: &[usize], axis: usize, before: usize, out: &[usize]) -> Data {
    each_kind!(x, x => {
        let mut y = zeros(x, out);
        copy_along(x, sizes[axis], 0, &mut y, out, axis, before, sizes[axis]);
        y
    })
}

/// y\[t\] = x\[t − by\] along an axis, 0 outside.
pub fn shift(x: &Data, sizes: &[usize], axis: usize, by: i64) -> Data {
    let n = sizes[axis];
    let distance = usize::try_from(by.unsigned_abs()).unwrap_or(usize::MAX).min(n);
    let (from, to) = if by >= 0 { (0, distance) } else { (distance, 0) };
    each_kind!(x, x => {
        let mut y = zeros(x, sizes);
        copy_along(x, n, from, &mut y, sizes, axis, to, n - distance);
        y
    })
}

/// Operands one after another along an axis.
pub fn concat(args: &[Tensor], axis: usize, out: &[usize]) -> Data {
    fn of<'a, T: Copy + Default + 'a>(
        parts: impl Iterator<Item = (&'a [T], usize)>,
        axis: usize,
        out: &[usize],
    ) -> Vec<T> {
        let mut y = vec![T::default(); out.iter().product()];
        let mut at = 0;
        for (x, size) in parts {
            copy_along(x, size, 0, &mut y, out, axis, at, size);
            at += size;
        }
        y
    }
    const ONE_DTYPE: &str = "concat joins tensors of one dtype";
    let size = |t: &Tensor| t.sizes()[axis];
    match args[0].data() {
        Data::Float(_) => Data::Float(of(args.iter().map(|t| (t.as_floats().expect(ONE_DTYPE), size(t))), axis, out)),
        Data::Int(_) => Data::Int(of(args.iter().map(|t| (t.as_ints().expect(ONE_DTYPE), size(t))), axis, out)),
        Data::Bool(_) => Data::Bool(of(args.iter().map(|t| (t.as_bools().expect(ONE_DTYPE), size(t))), axis, out)),
    }
}

fn zeros<T: Copy + Default>(_like: &[T], sizes: &[usize]) -> Vec<T> {
    vec![T::default(); sizes.iter().product()]
}

/// Copies `count` positions along an axis: from position `from` of x, which has `x_size` there, to position `to` of y.
fn copy_along<T: Copy>(
    x: &[T],
    x_size: usize,
    from: usize,
    y: &mut [T],
    y_sizes: &[usize],
    axis: usize,
    to: usize,
    count: usize,
) {
    let inner: usize = y_sizes[axis + 1..].iter().product();
    let (x_row, y_row) = (x_size * inner, y_sizes[axis] * inner);
    if x_row == 0 || y_row == 0 {
        return;
    }
    for (x, y) in x.chunks(x_row).zip(y.chunks_mut(y_row)) {
        y[to * inner..(to + count) * inner].copy_from_slice(&x[from * inner..(from + count) * inner]);
    }
}
