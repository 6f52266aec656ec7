//! Matrix products by strides: no operand is copied into another order first.

use burn::backend::flex::FlexTensor;
use burn::tensor::Shape;

use super::buffer::{dense, tensor, unset, values_mut};
use super::{multiply, parallel, rows};

/// Multiplications below which one thread is faster than two.
const SMALL: usize = 1 << 20;
/// Rows from which on it pays to pack the right operand.
const TALL: usize = 32;
/// Floats of the right operand in one task of a product of a few rows.
const COLUMN_FLOATS: usize = 1 << 17;

/// Whether `multiply` is faster than the `gemm` crate, by measurement (docs/LOG.md): for operands that both run
/// along the inner dimension, unless the result is very wide, and for results that are very tall.
fn packing_pays([m, n, _]: [usize; 3], a: Matrix, b: Matrix) -> bool {
    m >= TALL && ((a.strides[1] == 1 && b.strides[0] == 1 && n < 8 * m) || m > 16 * n)
}

/// A matrix of f32 somewhere in memory.
#[derive(Clone, Copy)]
pub(super) struct Matrix {
    pub(super) start: *const f32,
    /// Distance between rows, and between columns.
    pub(super) strides: [isize; 2],
}

// SAFETY: a place to read from; who reads promises that it lives and that no one writes it.
unsafe impl Send for Matrix {}
// SAFETY: as above.
unsafe impl Sync for Matrix {}

impl Matrix {
    /// The same matrix with rows and columns exchanged.
    pub(super) fn transposed(self) -> Self {
        Self { start: self.start, strides: [self.strides[1], self.strides[0]] }
    }

    /// The part that begins at a row and a column.
    #[inline(always)]
    pub(super) fn at(self, row: usize, column: usize) -> Self {
        let offset = row as isize * self.strides[0] + column as isize * self.strides[1];
        Self { start: self.start.wrapping_offset(offset), strides: self.strides }
    }

    /// A 2-dimensional f32 tensor as it lies.
    pub(super) fn of(x: &FlexTensor) -> Self {
        let (layout, values) = (x.layout(), x.storage::<f32>());
        let start = values[layout.start_offset()..].as_ptr();
        Self { start, strides: [layout.strides()[0], layout.strides()[1]] }
    }

    /// Rows of `stride` floats each, from the start of `values`.
    pub(super) fn rows(values: &[f32], stride: usize) -> Self {
        Self { start: values.as_ptr(), strides: [stride as isize, 1] }
    }
}

/// c_mn = a_mk b_kn, or c_mn += a_mk b_kn, on all threads where that pays.
///
/// # Safety
/// The matrices must hold as many elements as the dimensions say, `c` must be writable and used by no one else.
pub(super) unsafe fn multiply(
    [m, n, k]: [usize; 3],
    c: *mut f32,
    c_stride: usize,
    (a, b): (Matrix, Matrix),
    add: bool,
) {
    // SAFETY: the caller's promise, handed on.
    unsafe {
        if rows::takes(m, a, b) {
            rows::products([m, n, k], c, c_stride, (a, b.transposed()), add);
        } else if m * n * k <= SMALL {
            multiply_alone([m, n, k], c, c_stride, (a, b), 1.0, add);
        } else if packing_pays([m, n, k], a, b) {
            multiply::multiply([m, n, k], c, c_stride, (a, b), add);
        } else if m < TALL {
            by_columns([m, n, k], c, c_stride, (a, b), add);
        } else {
            let shape = Shaped { size: [m, n, k], c_stride, factor: 1.0, add };
            shape.gemm(c, (a, b), gemm::Parallelism::Rayon(0));
        }
    }
}

/// c_mn = factor a_mk b_kn, or c_mn += factor a_mk b_kn, on the calling thread: for parts of larger kernels.
///
/// # Safety
/// As `multiply`.
pub(super) unsafe fn multiply_alone(
    size: [usize; 3],
    c: *mut f32,
    c_stride: usize,
    operands: (Matrix, Matrix),
    factor: f32,
    add: bool,
) {
    // SAFETY: the caller's promise.
    unsafe { Shaped { size, c_stride, factor, add }.gemm(c, operands, gemm::Parallelism::None) };
}

/// A few rows, as in decoding: the time goes into reading b, so threads share its columns.
///
/// # Safety
/// As `multiply`.
unsafe fn by_columns([m, n, k]: [usize; 3], c: *mut f32, c_stride: usize, (a, b): (Matrix, Matrix), add: bool) {
    let columns = (COLUMN_FLOATS / k.max(1)).max(16);
    let c = Target(c);
    parallel::each(n.div_ceil(columns), |task| {
        let first = task * columns;
        let size = [m, columns.min(n - first), k];
        // SAFETY: tasks write columns of their own, within what the caller promised.
        unsafe { multiply_alone(size, c.at(first), c_stride, (a, b.at(0, first)), 1.0, add) };
    });
}

/// Where a result goes.
#[derive(Clone, Copy)]
pub(super) struct Target(pub(super) *mut f32);

// SAFETY: tasks write disjoint parts.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Target {
    /// The place `offset` floats on.
    pub(super) fn at(self, offset: usize) -> *mut f32 {
        self.0.wrapping_add(offset)
    }
}

/// Everything about a product but its operands.
struct Shaped {
    size: [usize; 3],
    c_stride: usize,
    factor: f32,
    add: bool,
}

impl Shaped {
    /// # Safety
    /// As `multiply`.
    unsafe fn gemm(self, c: *mut f32, (a, b): (Matrix, Matrix), parallelism: gemm::Parallelism) {
        let ([m, n, k], c_stride) = (self.size, self.c_stride as isize);
        let ([a_row, a_column], [b_row, b_column]) = (a.strides, b.strides);
        let (c_factor, product_factor) = (1.0, self.factor);
        // SAFETY: the caller's promise. The last three say that nothing is conjugated.
        unsafe {
            gemm::gemm(
                m,
                n,
                k,
                c,
                1,
                c_stride,
                self.add,
                a.start,
                a_column,
                a_row,
                b.start,
                b_column,
                b_row,
                c_factor,
                product_factor,
                false,
                false,
                false,
                parallelism,
            );
        }
    }
}

/// a_mk b_kn as a new tensor.
fn product([m, n, k]: [usize; 3], a: Matrix, b: Matrix) -> FlexTensor {
    let mut out = unset(m * n);
    // SAFETY: callers pass the matrices of tensors with these dimensions, and `out` has m n elements.
    unsafe { multiply([m, n, k], out.as_mut_ptr(), n, (a, b), false) };
    tensor(out, Shape::new([m, n]))
}

/// c_mn + a_mk b_kn, in the buffer of c where no one else holds it.
fn product_added(c: FlexTensor, size: [usize; 3], a: Matrix, b: Matrix) -> FlexTensor {
    let mut c = dense(c);
    // SAFETY: callers pass the matrices of tensors with these dimensions, and c has m n elements of its own.
    unsafe { multiply(size, values_mut(&mut c).as_mut_ptr(), size[1], (a, b), true) };
    c
}

/// y_no, x_ni, w_oi -> y + x w^T.
pub(super) fn linear_add(y: FlexTensor, x: FlexTensor, w: FlexTensor) -> FlexTensor {
    let ([n, i], [o, _]) = (x.layout().shape().dims(), w.layout().shape().dims());
    product_added(y, [n, o, i], Matrix::of(&x), Matrix::of(&w).transposed())
}

/// dx_ni, dy_no, w_oi -> dx + dy w.
pub(super) fn linear_input_add(dx: FlexTensor, dy: FlexTensor, w: FlexTensor) -> FlexTensor {
    let ([n, o], [_, i]) = (dy.layout().shape().dims(), w.layout().shape().dims());
    product_added(dx, [n, i, o], Matrix::of(&dy), Matrix::of(&w))
}

/// x_ni, w_oi -> x w^T.
pub(super) fn linear(x: FlexTensor, w: FlexTensor) -> FlexTensor {
    let ([n, i], [o, _]) = (x.layout().shape().dims(), w.layout().shape().dims());
    product([n, o, i], Matrix::of(&x), Matrix::of(&w).transposed())
}

/// dy_no, w_oi -> dx_ni.
pub(super) fn linear_input(dy: FlexTensor, w: FlexTensor) -> FlexTensor {
    let ([n, o], [_, i]) = (dy.layout().shape().dims(), w.layout().shape().dims());
    product([n, i, o], Matrix::of(&dy), Matrix::of(&w))
}

/// dy_no, x_ni -> dw_oi.
pub(super) fn linear_weight(dy: FlexTensor, x: FlexTensor) -> FlexTensor {
    let ([n, o], [_, i]) = (dy.layout().shape().dims(), x.layout().shape().dims());
    product([o, i, n], Matrix::of(&dy).transposed(), Matrix::of(&x))
}
