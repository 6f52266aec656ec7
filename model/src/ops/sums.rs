//! Sums whose order is fixed: Burn's full `sum` above 4 M elements depends on how threads share the work.

use burn::tensor::Tensor;

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
    ordered_sum(x_n.clone() * x_n)
}
