//! The stages that drop tokens. Each leaves at least one.

use super::candidates::{Candidates, Ranked};

/// Thresholds that are computed roughly give way this much; what passes is looked at exactly.
const SLACK: f64 = 0.99;

impl Candidates {
    /// All but the `k` largest logits, and those equal to the k-th, go.
    pub(super) fn top_k(&mut self, k: usize) {
        let Candidates { few, logits, kept, scratch, .. } = self;
        scratch.clear();
        match few {
            true => scratch.extend(kept.iter().map(|candidate| candidate.logit)),
            false if k < logits.len() => {
                // The k-th largest of the largest of each block is a bound: k tokens are at least as large.
                scratch.extend(logits.chunks(64).map(super::exp::largest));
                let bound = match k <= scratch.len() {
                    true => kth_largest(scratch, k),
                    false => f32::NEG_INFINITY,
                };
                self.keep_from(bound);
                self.scratch.clear();
                self.scratch.extend(self.kept.iter().map(|candidate| candidate.logit));
            }
            false => {}
        }
        if k < self.scratch.len() {
            let least = kth_largest(&mut self.scratch, k);
            self.keep_from(least);
        }
    }

    /// The heaviest tokens that together have `share` of the weight stay.
    pub(super) fn top_p(&mut self, share: f64) {
        let total = self.total();
        let n = if self.few { self.kept.len() } else { self.logits.len() };
        // All tokens up to this weight are together below 1 - share, so none of them stays.
        let negligible = (1.0 - share) * total / n as f64 * SLACK;
        if !self.few {
            self.keep_from(self.logit_of(negligible));
        }
        self.ranked.clear();
        let heavy = self.kept.iter().filter(|candidate| candidate.weight >= negligible);
        self.ranked.extend(heavy.map(|candidate| Ranked {
            rank: -candidate.weight,
            weight: candidate.weight,
            id: candidate.id,
        }));
        if let Some(last) = last_of_weight(&mut self.ranked, share * total) {
            self.kept.retain(|candidate| {
                candidate.weight > last.weight || (candidate.weight == last.weight && candidate.id <= last.id)
            });
        }
    }

    /// Tokens below this share of the largest weight go.
    pub(super) fn min_p(&mut self, share: f64) {
        if !self.few {
            self.keep_from(self.logit_of(share * SLACK));
        }
        let least = share * self.kept.iter().fold(0.0, |most: f64, candidate| most.max(candidate.weight));
        self.kept.retain(|candidate| candidate.weight >= least);
    }

    /// Logits more than `n` standard deviations (of all that are in the race) below the largest go.
    pub(super) fn top_n_sigma(&mut self, n: f64) {
        let Candidates { few, logits, kept, scratch, .. } = self;
        scratch.clear();
        match few {
            true => scratch.extend(kept.iter().map(|candidate| candidate.logit)),
            false => scratch.extend(logits.iter().filter(|logit| **logit > f32::NEG_INFINITY)),
        }
        let count = scratch.len() as f64;
        let mean = scratch.iter().map(|logit| f64::from(*logit)).sum::<f64>() / count;
        let square = |logit: &f32| (f64::from(*logit) - mean).powi(2);
        let deviation = (scratch.iter().map(square).sum::<f64>() / count).sqrt();
        let largest = scratch.iter().fold(f32::NEG_INFINITY, |most, logit| most.max(*logit));
        self.keep_from((f64::from(largest) - n * deviation) as f32);
    }

    /// Tokens whose surprise is nearest to the entropy stay, until they have `share` of the weight; ties with the last
    /// of them stay.
    pub(super) fn typical_p(&mut self, share: f64) {
        let total = self.total();
        let entropy = total.ln() - self.weighted_exponents() / total;
        if !self.few {
            // Tokens below this weight have less than 1 - share together. Where their surprise exceeds twice the
            // entropy, which is the surprise that is as far as that of a certain token, all others lead them.
            let negligible = (1.0 - share) * total / self.logits.len() as f64 * SLACK;
            let needed = (total / negligible).ln() < 2.0 * entropy;
            self.keep_from(if needed { f32::NEG_INFINITY } else { self.logit_of(negligible) });
        }
        let (largest, temperature) = (f64::from(self.largest), f64::from(self.temperature));
        let surprise = |logit: f32| total.ln() - (f64::from(logit) - largest) / temperature;
        let strangeness = |logit: f32| (surprise(logit) - entropy).abs();
        self.ranked.clear();
        self.ranked.extend(self.kept.iter().map(|candidate| Ranked {
            rank: strangeness(candidate.logit),
            weight: candidate.weight,
            id: candidate.id,
        }));
        if let Some(last) = last_of_weight(&mut self.ranked, share * total) {
            self.kept.retain(|candidate| strangeness(candidate.logit) <= last.rank);
            // The largest may be gone.
            self.weigh();
        }
    }

    /// Of the tokens with at least `threshold` of the weight all but the lightest go; of equal ones the highest id
    /// stays.
    pub(super) fn exclude_top_choices(&mut self, threshold: f64) {
        let total = self.total();
        let least = threshold * total;
        if !self.few {
            // Without two tokens above the threshold nothing is to do, and mostly there are not two.
            let bound = self.logit_of(least * SLACK);
            let above = self.logits.iter().filter(|logit| **logit >= bound).take(2).count();
            if above < 2 {
                return;
            }
            self.keep_from(f32::NEG_INFINITY);
        }
        self.ranked.clear();
        let above = self.kept.iter().filter(|candidate| candidate.weight >= least);
        self.ranked.extend(above.map(|candidate| Ranked {
            rank: candidate.weight,
            weight: candidate.weight,
            id: u32::MAX - candidate.id,
        }));
        let lightest = self.ranked.iter().copied().min_by(order);
        if let Some(stays) = lightest.map(|lightest| u32::MAX - lightest.id) {
            self.kept.retain(|candidate| candidate.weight < least || candidate.id == stays);
            self.weigh();
        }
    }

    /// Tokens of more than `bound` bits of surprise go.
    pub(super) fn surprise_at_most(&mut self, bound: f64) {
        let least = (-bound).exp2() * self.total();
        if !self.few {
            self.keep_from(self.logit_of(least * SLACK));
        }
        let heaviest = self.kept.iter().fold(0.0, |most: f64, candidate| most.max(candidate.weight));
        let least = least.min(heaviest);
        self.kept.retain(|candidate| candidate.weight >= least);
    }
}

fn kth_largest(logits: &mut [f32], k: usize) -> f32 {
    let (_, kth, _) = logits.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
    *kth
}

fn order(a: &Ranked, b: &Ranked) -> std::cmp::Ordering {
    a.rank.total_cmp(&b.rank).then(a.id.cmp(&b.id))
}

/// The token with which those that lead reach `target`.
///
/// A quickselect on weight: each round halves the range, so the work is linear and nothing is sorted.
fn last_of_weight(tokens: &mut [Ranked], target: f64) -> Option<Ranked> {
    let mut range = tokens;
    let mut above = 0.0;
    while range.len() > 1 {
        let half = range.len() / 2;
        range.select_nth_unstable_by(half, order);
        let (upper, lower) = range.split_at_mut(half);
        let with_upper = above + upper.iter().map(|ranked| ranked.weight).sum::<f64>();
        if with_upper >= target {
            range = upper;
        } else {
            above = with_upper;
            range = lower;
        }
    }
    range.first().copied()
}
