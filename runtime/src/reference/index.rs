//! Rows of a table by index, and sums of rows of equal index.

use super::layout::each_kind;
use crate::tensor::Data;

/// Rows of the table; zeros for an index out of range.
pub fn gather(table: &Data, sizes: &[usize], index: &[i32]) -> Data {
    fn of<T: Copy + Default>(table: &[T], rows: usize, row: usize, index: &[i32]) -> Vec<T> {
        let mut out = Vec::with_capacity(index.len() * row);
        for &i in index {
            match usize::try_from(i) {
                Ok(i) if i < rows => out.extend_from_slice(&table[i * row..(i + 1) * row]),
                _ => out.resize(out.len() + row, T::default()),
            }
        }
        out
    }
    let row = sizes[1..].iter().product();
    each_kind!(table, table => of(table, sizes[0], row, index))
}

/// Sums the rows of equal index, in their order; skips an index out of range.
pub fn scatter_add(index: &[i32], rows: &[f64], out: &[usize]) -> Vec<f64> {
    let row: usize = out[1..].iter().product();
    let mut table = vec![0.0; out[0] * row];
    for (n, &i) in index.iter().enumerate() {
        if let Ok(i) = usize::try_from(i)
            && i < out[0]
        {
            let source = &rows[n * row..(n + 1) * row];
            table[i * row..(i + 1) * row].iter_mut().zip(source).for_each(|(sum, x)| *sum += x);
        }
    }
    table
}
