//! A low-rank adapter on a linear layer: forward, backward, merged.
//!
//! Shapes: n rows (tokens), i inputs, o outputs, r rank. A matrix is a slice, row by row: element (j, k) of w_oi is
//! `w_oi[j * i + k]`.

/// Sizes.
#[derive(Clone, Copy)]
pub struct Sizes {
    /// i.
    pub inputs: usize,
    /// o.
    pub outputs: usize,
    /// r.
    pub rank: usize,
}

/// The adapter's two matrices and its strength.
#[derive(Clone, Copy)]
pub struct Adapter<'a> {
    /// From the inputs to the rank; random at the beginning.
    pub a_ri: &'a [f32],
    /// From the rank to the outputs; 0 at the beginning.
    pub b_or: &'a [f32],
    /// alpha.
    pub alpha: f32,
    /// Rank-stabilized: alpha is divided by the root of the rank.
    pub rank_stabilized: bool,
}

/// What the adapter's product is multiplied by: alpha / r, or alpha / sqrt(r) where it is rank-stabilized.
pub fn scale(adapter: Adapter<'_>, sizes: Sizes) -> f32 {
    todo!("alpha by the rank, or by its root")
}

/// y_no = x W^T + scale (x A^T) B^T, without a matrix of the size of W being made.
pub fn forward(x_ni: &[f32], w_oi: &[f32], adapter: Adapter<'_>, sizes: Sizes) -> Vec<f32> {
    todo!("the base, and the narrow path beside it")
}

/// (da_ri, db_or) from dy_no. W is frozen and has no gradient.
pub fn backward(x_ni: &[f32], dy_no: &[f32], adapter: Adapter<'_>, sizes: Sizes) -> (Vec<f32>, Vec<f32>) {
    todo!("how the narrow path depends on A and on B")
}

/// The weight that does alone what W and the adapter do together: W + scale B A.
pub fn merge(w_oi: &[f32], adapter: Adapter<'_>, sizes: Sizes) -> Vec<f32> {
    todo!("add the product to the weight")
}
