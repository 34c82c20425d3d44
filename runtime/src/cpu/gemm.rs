//! One product of matrices on one thread.

/// A matrix in memory: element (i, j) at i·row + j·column elements from the start.
#[derive(Clone, Copy, Debug)]
pub struct Matrix {
    /// Its first element.
    pub start: *mut f32,
    /// Between rows.
    pub row: usize,
    /// Between columns.
    pub column: usize,
}

impl Matrix {
    /// Of an f32 slice, from an element on, to be read.
    pub fn of(values: &[f32], row: usize, column: usize) -> Matrix {
        Matrix { start: values.as_ptr().cast_mut(), row, column }
    }

    /// Of an f32 slice, from an element on, to be written.
    pub fn of_mut(values: &mut [f32], row: usize, column: usize) -> Matrix {
        Matrix { start: values.as_mut_ptr(), row, column }
    }

    /// Rows as columns.
    pub fn transposed(self) -> Matrix {
        Matrix { start: self.start, row: self.column, column: self.row }
    }

    /// The part that begins at an element.
    pub fn at(self, i: usize, j: usize) -> Matrix {
        Matrix { start: self.start.wrapping_add(i * self.row + j * self.column), ..self }
    }
}

/// c = scale·a·b, or c += scale·a·b, with a `[m, k]`, b `[k, n]`, c `[m, n]`. With k = 0 the product is 0. The order of
/// the sums depends on the sizes and strides alone.
///
/// # Safety
/// All elements lie in memory; nobody writes to a and b, and nobody else touches c.
pub unsafe fn gemm([m, n, k]: [usize; 3], scale: f32, a: Matrix, b: Matrix, add: bool, c: Matrix) {
    // SAFETY: the caller's promise.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.start,
            c.column as isize,
            c.row as isize,
            add,
            a.start,
            a.column as isize,
            a.row as isize,
            b.start,
            b.column as isize,
            b.row as isize,
            1.0,
            scale,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
