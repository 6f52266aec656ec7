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
    let rank = sizes.rank as f32;
    adapter.alpha / if adapter.rank_stabilized { rank.sqrt() } else { rank }
}

/// y_no = x W^T + scale (x A^T) B^T, without a matrix of the size of W being made.
pub fn forward(x_ni: &[f32], w_oi: &[f32], adapter: Adapter<'_>, sizes: Sizes) -> Vec<f32> {
    let Sizes { inputs, outputs, rank } = sizes;
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let mut y_no = Vec::new();
    for x_i in x_ni.chunks(inputs) {
        let down_r: Vec<f32> = adapter.a_ri.chunks(inputs).map(|a_i| dot(a_i, x_i)).collect();
        for o in 0..outputs {
            let up = dot(&adapter.b_or[o * rank..][..rank], &down_r);
            y_no.push(dot(&w_oi[o * inputs..][..inputs], x_i) + scale(adapter, sizes) * up);
        }
    }
    y_no
}

/// (da_ri, db_or) from dy_no. W is frozen and has no gradient.
pub fn backward(x_ni: &[f32], dy_no: &[f32], adapter: Adapter<'_>, sizes: Sizes) -> (Vec<f32>, Vec<f32>) {
    let Sizes { inputs, outputs, rank } = sizes;
    let scale = scale(adapter, sizes);
    let (mut da_ri, mut db_or) = (vec![0.0; rank * inputs], vec![0.0; outputs * rank]);
    for (x_i, dy_o) in x_ni.chunks(inputs).zip(dy_no.chunks(outputs)) {
        for r in 0..rank {
            let down: f32 = (0..inputs).map(|i| adapter.a_ri[r * inputs + i] * x_i[i]).sum();
            let back: f32 = (0..outputs).map(|o| adapter.b_or[o * rank + r] * dy_o[o]).sum();
            for o in 0..outputs {
                db_or[o * rank + r] += scale * dy_o[o] * down;
            }
            for i in 0..inputs {
                da_ri[r * inputs + i] += scale * back * x_i[i];
            }
        }
    }
    (da_ri, db_or)
}

/// The weight that does alone what W and the adapter do together: W + scale B A.
pub fn merge(w_oi: &[f32], adapter: Adapter<'_>, sizes: Sizes) -> Vec<f32> {
    let Sizes { inputs, rank, .. } = sizes;
    let merged = |(at, w): (usize, &f32)| {
        let (o, i) = (at / inputs, at % inputs);
        let product: f32 = (0..rank).map(|r| adapter.b_or[o * rank + r] * adapter.a_ri[r * inputs + i]).sum();
        w + scale(adapter, sizes) * product
    };
    w_oi.iter().enumerate().map(merged).collect()
}
