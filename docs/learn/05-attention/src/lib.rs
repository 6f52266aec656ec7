//! Causal attention with grouped key-value heads.
//!
//! Shapes: h query heads, g key-value heads, t query tokens, s key tokens, d channels of one head. A tensor is a slice,
//! the last index running fastest: element (i, j, k) of q_htd is `q_htd[(i * t + j) * d + k]`.

/// Sizes.
#[derive(Clone, Copy)]
pub struct Sizes {
    /// Query heads.
    pub h: usize,
    /// Key-value heads; divides h.
    pub g: usize,
    /// Query tokens.
    pub t: usize,
    /// Key tokens, at least t: the queries are the last t of the s tokens, those before are in the cache.
    pub s: usize,
    /// Channels of a head.
    pub d: usize,
}

/// out_htd: for each query, the average of the values it may see, weighted by softmax(q . k * scale).
///
/// - Query head i reads key-value head i / (h / g).
/// - Query j is token `s - t + j` of the sequence and sees the tokens up to and including itself.
/// - Scores of 1,000 must not overflow.
pub fn attention(q_htd: &[f32], k_gsd: &[f32], v_gsd: &[f32], sizes: Sizes, scale: f32) -> Vec<f32> {
    let Sizes { h, g, t, s, d } = sizes;
    todo!("for each head and each query: scores, softmax, weighted values")
}
