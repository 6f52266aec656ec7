//! What a forward pass shows of the way of one token: the residual stream after each part of each block,
//! and which slots each head reads.
//!
//! Shapes: n rows (one sequence), c channels, h query heads, g key-value heads, t time, s all time, d head
//! channels.

use burn::tensor::{DType, Tensor, activation::softmax};

use crate::ops::AttentionMask;

/// The way of the token at one position of a single sequence, filled by [`Decoder::forward_traced`].
///
/// [`Decoder::forward_traced`]: crate::Decoder::forward_traced
#[derive(Debug, Clone)]
pub struct Trace {
    position: usize,
    /// The residual stream, c in f32: the token's row of the embedding table, then for each block the stream
    /// after attention and the stream after the feed-forward block were added.
    pub residual_c: Vec<Tensor<1>>,
    /// For each block the probabilities, in f32, with which the token's query reads each slot, by head.
    pub attention_hs: Vec<Tensor<2>>,
}

impl Trace {
    /// A trace of the token at `position`, counted from 0.
    pub fn of(position: usize) -> Self {
        Self { position, residual_c: Vec::new(), attention_hs: Vec::new() }
    }

    pub(crate) fn residual(&mut self, x_nc: &Tensor<2>) {
        let c = x_nc.dims()[1];
        self.residual_c.push(x_nc.clone().narrow(0, self.position, 1).reshape([c]).cast(DType::F32));
    }

    /// q_bhtd, k_bgsd; b is 1.
    ///
    /// What [`crate::ops::attention`] saves of its probabilities is each implementation's own affair, so they
    /// are computed here for the one query.
    pub(crate) fn attention(&mut self, q_bhtd: &Tensor<4>, k_bgsd: &Tensor<4>, mask: &AttentionMask, scale: f32) {
        let ([_, h, _, d], [_, g, s, _]) = (q_bhtd.dims(), k_bgsd.dims());
        let query = q_bhtd.clone().narrow(2, self.position, 1).reshape([g, h / g, d]).cast(DType::F32);
        let keys = k_bgsd.clone().reshape([g, s, d]).cast(DType::F32).swap_dims(1, 2);
        let scores_hs = query.mul_scalar(scale).matmul(keys).reshape([h, s]);
        let hidden_hs = mask.hidden_from(self.position).expand([h, s]);
        self.attention_hs.push(softmax(scores_hs.mask_fill(hidden_hs, f32::MIN), 1));
    }
}
