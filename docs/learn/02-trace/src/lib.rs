//! The path of one token: id, embedding row, residual stream, logits, probabilities.
//!
//! Shapes: t tokens, c channels, v vocabulary. A matrix is a slice, row by row: element (i, j) of x_tc is
//! `x_tc[i * c + j]`.

/// A branch of a block: (layer, x_tc) -> y_tc, what is to be added to the residual stream.
pub type Branch<'a> = &'a dyn Fn(usize, &[f32]) -> Vec<f32>;

/// The parts of a decoder, given.
pub struct Decoder<'a> {
    /// c.
    pub width: usize,
    /// Number of blocks.
    pub n_layers: usize,
    /// The embedding table. It is the output head too.
    pub embedding_vc: &'a [f32],
    /// Attention of a layer with the normalization in front of it.
    pub attention: Branch<'a>,
    /// Feed-forward part of a layer with the normalization in front of it.
    pub mlp: Branch<'a>,
    /// The normalization behind the last block: x_tc -> x_tc.
    pub norm: &'a dyn Fn(&[f32]) -> Vec<f32>,
}

/// What the last token of a prompt went through.
pub struct Trace {
    /// Its row of the embedding table.
    pub embedding_c: Vec<f32>,
    /// Euclidean length of its residual vector: after the embedding, then after each attention and each feed-forward
    /// part, in order; 1 + 2 n_layers numbers.
    pub residual_norms: Vec<f32>,
    /// A score for each token that may come next.
    pub logits_v: Vec<f32>,
    /// The same as probabilities.
    pub probabilities_v: Vec<f32>,
    /// The five most likely next ids with their probabilities, the likeliest at the front.
    pub top: Vec<(u32, f32)>,
}

/// exp(x) / sum(exp(x)), finite also for logits of 1,000.
pub fn softmax(logits_v: &[f32]) -> Vec<f32> {
    todo!("exponentials, divided by their sum")
}

/// Follows `ids` through the decoder and reports on the last of them.
///
/// All tokens run side by side, because attention mixes them: x_tc starts as the embedding rows of `ids`. In each layer
/// the attention branch, then the feed-forward branch reads x_tc, and what it returns is added to x_tc. The logits are
/// the products of the normalized last row with every row of the embedding table.
pub fn trace(decoder: &Decoder<'_>, ids: &[u32]) -> Trace {
    todo!("embed, add the branches, normalize, multiply, softmax, sort")
}
