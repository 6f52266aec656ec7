//! From logits to the next token id: greedy, or drawn after temperature, top-k, top-p and min-p, in this order.
//!
//! Knows numbers and ids; nothing of models or text. The chain is that of transformers' logits warpers.

use fornax_base::rng::rng;
use serde::{Deserialize, Serialize};

/// How the next token is chosen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplerOptions {
    /// Logits are divided by this, 0 to 2; 0 takes the most probable token always.
    pub temperature: f32,
    /// Tokens below the k-th most probable are dropped; ties with it stay. 0 is off.
    #[serde(default)]
    pub top_k: usize,
    /// The most probable tokens that together reach this probability stay (Holtzman et al. 2020), above 0 to 1; 1 is
    /// off. Among equal tokens the lower ids stay.
    #[serde(default = "off")]
    pub top_p: f32,
    /// Tokens below this share of the largest probability are dropped (Nguyen et al. 2024), 0 to 1; 0 is off.
    #[serde(default)]
    pub min_p: f32,
    /// Equal seeds draw equal tokens from equal logits.
    pub seed: u64,
}

fn off() -> f32 {
    1.0
}

impl SamplerOptions {
    /// The most probable token, always.
    pub fn greedy() -> SamplerOptions {
        SamplerOptions { temperature: 0.0, top_k: 0, top_p: off(), min_p: 0.0, seed: 0 }
    }

    /// Whether every value is in its range.
    ///
    /// # Errors
    /// [`SamplerError::Option`] for the leading value that is not.
    pub fn check(&self) -> Result<(), SamplerError> {
        let SamplerOptions { temperature, top_p, min_p, .. } = *self;
        let outside = |field, value, range| Err(SamplerError::Option { field, value, range });
        if !(0.0..=2.0).contains(&temperature) {
            return outside("temperature", temperature, "from 0 to 2");
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return outside("top_p", top_p, "above 0 and at most 1");
        }
        if !(0.0..=1.0).contains(&min_p) {
            return outside("min_p", min_p, "from 0 to 1");
        }
        Ok(())
    }
}

/// Why no token can be chosen.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SamplerError {
    /// An option is out of its range.
    #[error("{field} is {value}, expected a number {range}")]
    Option {
        /// Name of the option.
        field: &'static str,
        /// Its value.
        value: f32,
        /// The range in words.
        range: &'static str,
    },
    /// There are no logits.
    #[error("there are 0 logits, at least 1 is needed")]
    Empty,
    /// A logit is NaN or positive infinity, which a sound model never computes.
    #[error("the logit of token {id} is {value}, expected a finite number or -inf")]
    NotFinite {
        /// The lowest such token.
        id: u32,
        /// Its logit.
        value: f32,
    },
    /// Every token is ruled out.
    #[error("all {vocab_size} logits are -inf, at least 1 must be finite")]
    AllMasked {
        /// Number of logits.
        vocab_size: usize,
    },
}

/// A chosen token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampled {
    /// Its id, below the number of logits.
    pub id: u32,
    /// Natural logarithm of its probability under the logits as given, before temperature and filters.
    pub log_prob: f32,
}

/// Draws one token id after another for one sequence.
#[derive(Debug, Clone)]
pub struct Sampler {
    options: SamplerOptions,
    drawn: u64,
    buffers: Buffers,
}

impl Sampler {
    /// A sampler at its 0th draw.
    ///
    /// # Errors
    /// What [`SamplerOptions::check`] finds.
    pub fn new(options: SamplerOptions) -> Result<Sampler, SamplerError> {
        options.check()?;
        Ok(Sampler { options, drawn: 0, buffers: Buffers::default() })
    }

    /// The options it was made with.
    pub fn options(&self) -> &SamplerOptions {
        &self.options
    }

    /// Chooses among `logits` (`[vocab]`; -inf rules a token out). The n-th choice depends on the logits, the seed and
    /// n alone. Greedy takes the lowest id among equals.
    ///
    /// # Errors
    /// For no logits, NaN, +inf, or nothing but -inf; the draw is then not counted.
    pub fn sample(&mut self, logits: &[f32]) -> Result<Sampled, SamplerError> {
        let best = best(logits)?;
        let id = if self.options.temperature == 0.0 {
            best
        } else {
            let uniform = rng(self.options.seed, self.drawn, "sample").uniform_f64();
            self.buffers.filter(&self.options, logits, best);
            self.buffers.draw(uniform).unwrap_or(best)
        };
        self.drawn += 1;
        Ok(Sampled { id, log_prob: log_prob(logits, best, id) })
    }

    /// The distribution that [`Sampler::sample`] draws from: `[vocab]`, sums to 1, 0 for what was dropped.
    ///
    /// # Errors
    /// As [`Sampler::sample`].
    pub fn probabilities(&self, logits: &[f32]) -> Result<Vec<f32>, SamplerError> {
        let best = best(logits)?;
        let mut probabilities = vec![0.0; logits.len()];
        if self.options.temperature == 0.0 {
            probabilities[best as usize] = 1.0;
            return Ok(probabilities);
        }
        let mut buffers = Buffers::default();
        buffers.filter(&self.options, logits, best);
        let total = mass(&buffers.kept);
        for (weight, id) in buffers.kept {
            probabilities[id as usize] = (weight / total) as f32;
        }
        Ok(probabilities)
    }
}

/// The lowest id with the largest logit.
fn best(logits: &[f32]) -> Result<u32, SamplerError> {
    let mut best = None;
    let mut largest = f32::NEG_INFINITY;
    for (id, &value) in (0..).zip(logits) {
        if value.is_nan() || value == f32::INFINITY {
            return Err(SamplerError::NotFinite { id, value });
        }
        if value > largest {
            (best, largest) = (Some(id), value);
        }
    }
    best.ok_or(match logits.len() {
        0 => SamplerError::Empty,
        vocab_size => SamplerError::AllMasked { vocab_size },
    })
}

fn log_prob(logits: &[f32], best: u32, id: u32) -> f32 {
    let largest = f64::from(logits[best as usize]);
    let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - largest).exp()).sum();
    (f64::from(logits[id as usize]) - largest - sum.ln()) as f32
}

/// Probability of a token relative to the most probable one, and its id.
type Weighted = (f64, u32);

/// Work space as large as the vocabulary, kept from token to token.
#[derive(Debug, Clone, Default)]
struct Buffers {
    logits: Vec<f32>,
    /// What the filters leave, by ascending id.
    kept: Vec<Weighted>,
    ranked: Vec<Weighted>,
}

impl Buffers {
    fn filter(&mut self, options: &SamplerOptions, logits: &[f32], best: u32) {
        let least = self.kth_largest(logits, options.top_k);
        let largest = f64::from(logits[best as usize]);
        let temperature = f64::from(options.temperature);
        let weight = |logit: f32| ((f64::from(logit) - largest) / temperature).exp();
        self.kept.clear();
        self.kept.extend(
            (0..)
                .zip(logits)
                .filter(|&(_, &logit)| logit >= least && logit > f32::NEG_INFINITY)
                .map(|(id, &logit)| (weight(logit), id)),
        );
        if options.top_p < 1.0 {
            self.keep_top_p(f64::from(options.top_p));
        }
        // The most probable token has weight 1, so a weight is a share of the largest probability.
        let min_p = f64::from(options.min_p);
        if min_p > 0.0 {
            self.kept.retain(|&(weight, _)| weight >= min_p);
        }
    }

    /// The logit below which top-k drops, -inf when it drops nothing.
    fn kth_largest(&mut self, logits: &[f32], k: usize) -> f32 {
        if k == 0 || k >= logits.len() {
            return f32::NEG_INFINITY;
        }
        self.logits.clear();
        self.logits.extend_from_slice(logits);
        let (_, kth, _) = self.logits.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
        *kth
    }

    fn keep_top_p(&mut self, top_p: f64) {
        let total = mass(&self.kept);
        // All tokens up to this weight are together below 1 - top_p, so none of them stays.
        let negligible = (1.0 - top_p) * total / self.kept.len() as f64;
        self.ranked.clear();
        self.ranked.extend(self.kept.iter().filter(|(weight, _)| *weight >= negligible));
        if let Some((least, last_id)) = last_of_mass(&mut self.ranked, top_p * total) {
            self.kept.retain(|&(weight, id)| weight > least || (weight == least && id <= last_id));
        }
    }

    /// The token at `uniform` (in `[0, 1)`) of the cumulative distribution.
    fn draw(&self, uniform: f64) -> Option<u32> {
        let target = uniform * mass(&self.kept);
        let mut sum = 0.0;
        let reached = self.kept.iter().find(|(weight, _)| {
            sum += weight;
            sum > target
        });
        reached.map(|&(_, id)| id)
    }
}

fn mass(tokens: &[Weighted]) -> f64 {
    tokens.iter().map(|(weight, _)| weight).sum()
}

/// The token with which the heaviest tokens reach `target`; equal weights count in the order of their ids.
///
/// A quickselect on mass: each round halves the range, so the work is linear and nothing is sorted.
fn last_of_mass(tokens: &mut [Weighted], target: f64) -> Option<Weighted> {
    let mut range = tokens;
    let mut above = 0.0;
    while range.len() > 1 {
        let half = range.len() / 2;
        range.select_nth_unstable_by(half, |a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let (upper, lower) = range.split_at_mut(half);
        let with_upper = above + mass(upper);
        if with_upper >= target {
            range = upper;
        } else {
            above = with_upper;
            range = lower;
        }
    }
    range.first().copied()
}

#[cfg(test)]
mod tests;
