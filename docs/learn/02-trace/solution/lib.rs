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
    let max = logits_v.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exp_v: Vec<f32> = logits_v.iter().map(|x| (x - max).exp()).collect();
    let sum: f32 = exp_v.iter().sum();
    exp_v.iter().map(|e| e / sum).collect()
}

/// Follows `ids` through the decoder and reports on the last of them.
///
/// All tokens run side by side, because attention mixes them: x_tc starts as the embedding rows of `ids`. In each layer
/// the attention branch, then the feed-forward branch reads x_tc, and what it returns is added to x_tc. The logits are
/// the products of the normalized last row with every row of the embedding table.
pub fn trace(decoder: &Decoder<'_>, ids: &[u32]) -> Trace {
    let c = decoder.width;
    let row = |id: u32| &decoder.embedding_vc[id as usize * c..][..c];
    let mut x_tc: Vec<f32> = ids.iter().flat_map(|&id| row(id)).copied().collect();
    let last = (ids.len() - 1) * c;
    let length = |x_tc: &[f32]| x_tc[last..].iter().map(|x| x * x).sum::<f32>().sqrt();

    let embedding_c = x_tc[last..].to_vec();
    let mut residual_norms = vec![length(&x_tc)];
    for layer in 0..decoder.n_layers {
        for branch in [decoder.attention, decoder.mlp] {
            let y_tc = branch(layer, &x_tc);
            for (x, y) in x_tc.iter_mut().zip(y_tc) {
                *x += y;
            }
            residual_norms.push(length(&x_tc));
        }
    }

    let hidden_tc = (decoder.norm)(&x_tc);
    let hidden_c = &hidden_tc[last..];
    let dot = |row_c: &[f32]| row_c.iter().zip(hidden_c).map(|(a, b)| a * b).sum();
    let logits_v: Vec<f32> = decoder.embedding_vc.chunks(c).map(dot).collect();
    let probabilities_v = softmax(&logits_v);
    let mut top: Vec<(u32, f32)> = (0..).zip(probabilities_v.iter().copied()).collect();
    top.sort_by(|a, b| b.1.total_cmp(&a.1));
    top.truncate(5);
    Trace { embedding_c, residual_norms, logits_v, probabilities_v, top }
}
