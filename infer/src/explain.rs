//! The way of one token through a model, in numbers: the length of the residual stream after each part of
//! each block, what each head reads, the likeliest next tokens, and the loss of every token.
//!
//! Knows token ids and a decoder; nothing of text. The numbers come out of the one forward pass everything
//! else uses, through a [`Trace`].

use burn::tensor::{DType, Tensor};
use fornax_model::trace::Trace;
use fornax_model::{Decoder, Layout, token_tensor};
use serde::Serialize;

use crate::generate::{GenerateError, check};

/// What [`explain`] finds for the token at one position.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation {
    /// The token explained, counted from 0.
    pub position: usize,
    /// Euclidean length of its row of the embedding table.
    pub embedding_norm: f64,
    /// One for each block.
    pub layers: Vec<LayerExplanation>,
    /// The likeliest next tokens after it, the likeliest one leading.
    pub next: Vec<NextToken>,
    /// `-log p` of each token given those before it, in nats; the opening token has none.
    pub losses: Vec<Option<f64>>,
}

/// One block.
#[derive(Debug, Clone, Serialize)]
pub struct LayerExplanation {
    /// Length of the residual stream before the block.
    pub before: f64,
    /// Length after attention was added.
    pub after_attention: f64,
    /// Length after the feed-forward block was added.
    pub after_mlp: f64,
    /// One for each query head.
    pub heads: Vec<HeadExplanation>,
}

/// What one head reads.
#[derive(Debug, Clone, Serialize)]
pub struct HeadExplanation {
    /// Entropy of the attention in nats: 0 reads one token, `ln n` reads n tokens alike.
    pub entropy: f64,
    /// The tokens read most, the greatest weight leading.
    pub targets: Vec<Target>,
}

/// A token that is read.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Target {
    /// Its position.
    pub position: usize,
    /// The share of the reading that it gets.
    pub weight: f64,
}

/// A token that may come next.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct NextToken {
    /// Its id.
    pub id: u32,
    /// Its logit.
    pub logit: f64,
    /// Its probability at temperature 1.
    pub probability: f64,
}

/// How much to list.
#[derive(Debug, Clone, Copy)]
pub struct Listed {
    /// Attention targets of each head.
    pub targets: usize,
    /// Next tokens.
    pub next: usize,
}

/// Why a token cannot be explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// The prompt cannot be computed.
    #[error(transparent)]
    Prompt(#[from] GenerateError),
    /// There is no such token.
    #[error("the prompt has {tokens} tokens, position {position} is none of them (they are counted from 0)")]
    Position {
        /// The position asked for.
        position: usize,
        /// Tokens of the prompt.
        tokens: usize,
    },
}

/// Explains the token at `position` of `ids` by one forward pass over all of them.
///
/// # Errors
/// See [`ExplainError`]; nothing is computed when the prompt is refused.
pub fn explain(
    decoder: &Decoder,
    ids: &[u32],
    position: usize,
    listed: Listed,
) -> Result<Explanation, ExplainError> {
    check(decoder, ids)?;
    let t = ids.len();
    if position >= t {
        return Err(ExplainError::Position { position, tokens: t });
    }
    let device = decoder.device().without_autodiff();
    let mut trace = Trace::of(position);
    let tokens_bt = token_tensor(ids, 1, &device);
    let hidden_btc = decoder.forward_traced(tokens_bt, &Layout::contiguous(0, t, &device), &mut trace);
    let mut losses = vec![None];
    if t > 1 {
        let nll =
            decoder.token_nll(hidden_btc.clone().slice_dim(1, 0..t - 1), token_tensor(&ids[1..], 1, &device));
        losses.extend(read(nll, position)?.into_iter().map(|nll| Some(f64::from(nll))));
    }
    let logits = decoder.logits(hidden_btc.slice_dim(1, position..position + 1));
    let norms = trace.residual_c.into_iter().map(|x_c| Ok(norm(&read(x_c, position)?)));
    let norms = norms.collect::<Result<Vec<f64>, GenerateError>>()?;
    let layers = trace.attention_hs.into_iter().zip(norms.windows(3).step_by(2)).map(|(attention_hs, norms)| {
        let [_, s] = attention_hs.dims();
        let weights = read(attention_hs, position)?;
        let heads = weights.chunks(s).map(|weights| head(&weights[..=position], listed.targets)).collect();
        Ok(LayerExplanation { before: norms[0], after_attention: norms[1], after_mlp: norms[2], heads })
    });
    Ok(Explanation {
        position,
        embedding_norm: norms.first().copied().unwrap_or_default(),
        layers: layers.collect::<Result<_, GenerateError>>()?,
        next: next_tokens(&read(logits, position)?, listed.next),
        losses,
    })
}

fn read<const D: usize>(tensor: Tensor<D>, position: usize) -> Result<Vec<f32>, GenerateError> {
    let values = tensor.cast(DType::F32).try_into_vec_as::<f32>();
    values.map_err(|error| GenerateError::Device { position, message: error.to_string() })
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt()
}

/// Of the slots up to the token's own: later ones are hidden from it.
fn head(weights: &[f32], targets: usize) -> HeadExplanation {
    let entropy = weights.iter().map(|&w| f64::from(w)).filter(|&w| w > 0.0).map(|w| -w * w.ln()).sum::<f64>();
    let target = |position: usize| Target { position, weight: f64::from(weights[position]) };
    let listed = greatest(weights, targets).into_iter().map(target);
    HeadExplanation { entropy: entropy.max(0.0), targets: listed.filter(|target| target.weight > 0.0).collect() }
}

fn next_tokens(logits: &[f32], n: usize) -> Vec<NextToken> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit - max).exp()).sum();
    let token = |id: usize| NextToken {
        id: id as u32,
        logit: f64::from(logits[id]),
        probability: f64::from(logits[id] - max).exp() / sum,
    };
    greatest(logits, n).into_iter().map(token).collect()
}

/// Indices of the `n` greatest values in falling order; the lower index leads among equal ones.
fn greatest(values: &[f32], n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]).then(a.cmp(&b)));
    order.truncate(n);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_that_reads_two_tokens_alike_has_the_entropy_of_two() {
        let head = head(&[0.5, 0.0, 0.5], 3);
        assert!((head.entropy - 2f64.ln()).abs() < 1e-12);
        let positions: Vec<usize> = head.targets.iter().map(|target| target.position).collect();
        assert_eq!(positions, [0, 2], "a token that is not read is no target");
        assert_eq!(self::head(&[1.0], 3).entropy, 0.0);
    }

    #[test]
    fn probabilities_are_the_softmax_of_all_logits() {
        let next = next_tokens(&[0.0, 2f32.ln(), 0.0], 2);
        assert_eq!(next.iter().map(|token| token.id).collect::<Vec<_>>(), [1, 0]);
        assert!((next[0].probability - 0.5).abs() < 1e-7 && (next[1].probability - 0.25).abs() < 1e-7);
    }
}
