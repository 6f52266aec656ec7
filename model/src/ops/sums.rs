//! Sums whose order is fixed: Burn's full `sum` above 4 M elements depends on how threads share the work.

use burn::backend::{Backend, Dispatch, TensorMetadata, tensor::FloatTensor};
use burn::tensor::{Shape, Tensor};

use super::LlmOps;

/// Elements summed by one inner pass.
const CHUNK: usize = 4096;

/// Sum of x_n as (1): chunks of 4,096 in order, then the chunk sums in order. The same bits for the same
/// input whatever the number of threads. Differentiable.
pub fn ordered_sum(x_n: Tensor<1>) -> Tensor<1> {
    let mut x = x_n;
    loop {
        let n = x.dims()[0];
        if n <= CHUNK {
            return x.reshape([1, n]).sum_dim(1).reshape([1]);
        }
        let whole = n / CHUNK * CHUNK;
        let body = x.clone().slice(0..whole).reshape([n / CHUNK, CHUNK]).sum_dim(1);
        let mut parts = vec![body.reshape([n / CHUNK])];
        if whole < n {
            parts.push(x.slice(whole..n).reshape([1, n - whole]).sum_dim(1).reshape([1]));
        }
        x = Tensor::cat(parts, 0);
    }
}

/// Sum of squares of x_n as (1), in fixed order.
pub fn square_sum(x_n: Tensor<1>) -> Tensor<1> {
    Tensor::from_dispatch(<Dispatch as LlmOps>::square_sum(x_n.into_dispatch()))
}

/// As `ordered_sum`, of squares.
pub(super) fn squares<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let row_sums = |x: FloatTensor<B>, rows: usize, columns: usize| {
        let sums = B::float_sum_dim(B::float_reshape(x, Shape::new([rows, columns])), 1);
        B::float_reshape(sums, Shape::new([rows]))
    };
    let mut x = B::float_mul(x.clone(), x);
    loop {
        let n = x.shape()[0];
        if n <= CHUNK {
            return row_sums(x, 1, n);
        }
        let whole = n / CHUNK * CHUNK;
        let mut parts = vec![row_sums(B::float_slice(x.clone(), &[(0..whole).into()]), n / CHUNK, CHUNK)];
        if whole < n {
            parts.push(row_sums(B::float_slice(x, &[(whole..n).into()]), 1, n - whole));
        }
        x = B::float_cat(parts, 0);
    }
}
