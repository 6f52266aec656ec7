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
    let mut out_htd = vec![0.0; h * t * d];
    for head in 0..h {
        let group = head / (h / g);
        for query in 0..t {
            let q_d = &q_htd[(head * t + query) * d..][..d];
            let visible = s - t + query + 1;
            let row = |x_gsd: &[f32], key: usize, i: usize| x_gsd[(group * s + key) * d + i];
            let score = |key: usize| (0..d).map(|i| q_d[i] * row(k_gsd, key, i)).sum::<f32>() * scale;
            let scores: Vec<f32> = (0..visible).map(score).collect();

            let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let exp: Vec<f32> = scores.iter().map(|x| (x - max).exp()).collect();
            let sum: f32 = exp.iter().sum();

            let out_d = &mut out_htd[(head * t + query) * d..][..d];
            for key in 0..visible {
                for i in 0..d {
                    out_d[i] += exp[key] / sum * row(v_gsd, key, i);
                }
            }
        }
    }
    out_htd
}
