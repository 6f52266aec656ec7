//! From logits to the next token: a chain of stages, and a draw.
//!
//! A logit of minus infinity rules its token out; each stage leaves the others as they are, or rules more out.

/// The stages, in this order. Neutral values: penalty 1, temperature 1, top-k 0, top-p 1, min-p 0.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Penalty on tokens that were there before, above 0.
    pub penalty: f32,
    /// Above 0.
    pub temperature: f32,
    /// How many of the likeliest stay; 0 is off.
    pub top_k: usize,
    /// Probability that the likeliest have to reach together.
    pub top_p: f32,
    /// Least share of the greatest probability.
    pub min_p: f32,
}

/// Probabilities of these logits; those of minus infinity get 0. Logits of 1,000 must not overflow.
pub fn softmax(logits: &[f32]) -> Vec<f32> {
    let greatest = logits.iter().fold(f32::NEG_INFINITY, |most, &l| most.max(l));
    let weights: Vec<f32> = logits.iter().map(|l| (l - greatest).exp()).collect();
    let sum: f32 = weights.iter().sum();
    weights.iter().map(|w| w / sum).collect()
}

/// Makes each token of `seen` less likely, once however often it was there: a logit above 0 is divided by the penalty,
/// one below 0 is multiplied with it (Keskar et al. 2019).
pub fn penalize(logits: &mut [f32], seen: &[u32], penalty: f32) {
    let mut ids = seen.to_vec();
    ids.sort_unstable();
    ids.dedup();
    for id in ids {
        let logit = &mut logits[id as usize];
        *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
    }
}

/// Rules out what is below the k-th greatest logit; what equals it stays.
pub fn keep_top_k(logits: &mut [f32], k: usize) {
    if k == 0 || k >= logits.len() {
        return;
    }
    let mut sorted = logits.to_vec();
    sorted.sort_unstable_by(|a, b| b.total_cmp(a));
    for logit in logits {
        if *logit < sorted[k - 1] {
            *logit = f32::NEG_INFINITY;
        }
    }
}

/// Keeps the smallest set of the likeliest tokens whose probabilities reach p together, so the one with which they reach
/// it stays (Holtzman et al. 2020). Of equal tokens the lower ids go before.
pub fn keep_top_p(logits: &mut [f32], p: f32) {
    let probabilities = softmax(logits);
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]));
    let mut before = 0.0;
    for id in order {
        if before >= p {
            logits[id] = f32::NEG_INFINITY;
        }
        before += probabilities[id];
    }
}

/// Rules out what is less likely than this share of the likeliest token (Nguyen et al. 2024).
pub fn keep_min_p(logits: &mut [f32], share: f32) {
    let probabilities = softmax(logits);
    let greatest = probabilities.iter().fold(0.0f32, |most, &p| most.max(p));
    for (logit, p) in logits.iter_mut().zip(&probabilities) {
        if *p < share * greatest {
            *logit = f32::NEG_INFINITY;
        }
    }
}

/// The distribution that is drawn from: penalty, temperature, top-k, top-p, min-p, each on what the one before left.
pub fn distribution(logits: &[f32], seen: &[u32], options: &Options) -> Vec<f32> {
    let mut logits = logits.to_vec();
    penalize(&mut logits, seen, options.penalty);
    logits.iter_mut().for_each(|logit| *logit /= options.temperature);
    keep_top_k(&mut logits, options.top_k);
    keep_top_p(&mut logits, options.top_p);
    keep_min_p(&mut logits, options.min_p);
    softmax(&logits)
}

/// The token at `uniform` (from 0, below 1): the lowest id with which the sum of the probabilities up to it exceeds
/// `uniform`. Rounding may leave the whole sum a little below 1: then it is the last token that is not ruled out.
pub fn draw(probabilities: &[f32], uniform: f32) -> u32 {
    let mut sum = 0.0;
    let mut last = 0;
    for (id, p) in probabilities.iter().enumerate().filter(|(_, p)| **p > 0.0) {
        sum += p;
        last = id as u32;
        if sum > uniform {
            break;
        }
    }
    last
}
