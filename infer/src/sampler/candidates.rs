//! The tokens that are still in the race for the next place.
//!
//! At the start they are the whole vocabulary, as one logit each; the filter that leaves some of them also computes
//! their weights, so that the exponential of most tokens is computed roughly or not at all.

use super::distribution::Distribution;
use super::exp::{self, BLOCK};

/// A token that a filter left.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    pub(super) id: u32,
    pub(super) logit: f32,
    /// Probability relative to that of the largest logit.
    pub(super) weight: f64,
}

/// A candidate in an order, and its share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ranked {
    /// Smaller leads; among equals the lower id.
    pub(super) rank: f64,
    pub(super) weight: f64,
    pub(super) id: u32,
}

/// Work space as large as the vocabulary, kept from token to token.
#[derive(Debug, Clone)]
pub(super) struct Candidates {
    /// A logit for each token of the vocabulary, -inf for those out of the race; read until `few`.
    pub(super) logits: Vec<f32>,
    /// What the filters leave, by ascending id; read once `few`.
    pub(super) kept: Vec<Candidate>,
    pub(super) few: bool,
    /// The largest logit, where weights are 1.
    pub(super) largest: f32,
    /// Logits are yet to be divided by this.
    pub(super) temperature: f32,
    pub(super) ranked: Vec<Ranked>,
    pub(super) scratch: Vec<f32>,
}

impl Default for Candidates {
    fn default() -> Candidates {
        Candidates {
            logits: Vec::new(),
            kept: Vec::new(),
            few: false,
            largest: f32::NEG_INFINITY,
            temperature: 1.0,
            ranked: Vec::new(),
            scratch: Vec::new(),
        }
    }
}

impl Candidates {
    /// The whole vocabulary enters the race.
    pub(super) fn enter(&mut self, logits: &[f32]) {
        self.logits.clear();
        self.logits.extend_from_slice(logits);
        self.few = false;
        self.temperature = 1.0;
        self.largest = exp::largest(&self.logits);
    }

    /// One token enters, and none beside it.
    pub(super) fn only(&mut self, id: u32, logit: f32) {
        self.kept.clear();
        self.kept.push(Candidate { id, logit, weight: 1.0 });
        (self.few, self.largest, self.temperature) = (true, logit, 1.0);
    }

    /// Only tokens whose bit is set stay; those beyond the mask's end do not.
    pub(super) fn mask(&mut self, mask: &[u32]) {
        for (place, block) in self.logits.chunks_mut(32).enumerate() {
            match mask.get(place).copied().unwrap_or(0) {
                u32::MAX => {}
                0 => block.fill(f32::NEG_INFINITY),
                bits => {
                    for (bit, logit) in block.iter_mut().enumerate() {
                        if bits >> bit & 1 == 0 {
                            *logit = f32::NEG_INFINITY;
                        }
                    }
                }
            }
        }
        self.largest = exp::largest(&self.logits);
    }

    /// Takes these out of the race.
    pub(super) fn ban(&mut self, ids: &[u32]) {
        for &id in ids {
            self.logits[id as usize] = f32::NEG_INFINITY;
        }
        self.largest = exp::largest(&self.logits);
    }

    /// Changes the logits of some tokens by `change`, which gets the place in `ids` and the logit. A change never
    /// takes a token out of the race.
    pub(super) fn change(&mut self, ids: impl Iterator<Item = u32>, change: impl Fn(u32, f32) -> f32) {
        self.divide();
        for id in ids {
            let logit = match self.few {
                // A prompt may name ids that a padded or cut output layer has no logit for.
                false => self.logits.get_mut(id as usize),
                true => {
                    let place = self.kept.binary_search_by_key(&id, |candidate| candidate.id).ok();
                    place.map(|place| &mut self.kept[place].logit)
                }
            };
            if let Some(logit) = logit.filter(|logit| **logit > f32::NEG_INFINITY) {
                *logit = change(id, *logit).clamp(f32::MIN, f32::MAX);
            }
        }
        self.weigh();
    }

    /// Carries the temperature out, for changes that come behind it.
    fn divide(&mut self) {
        if self.temperature == 1.0 {
            return;
        }
        let temperature = self.temperature;
        let divided = |logit: f32| match logit == f32::NEG_INFINITY {
            true => logit,
            false => (logit / temperature).clamp(f32::MIN, f32::MAX),
        };
        match self.few {
            false => self.logits.iter_mut().for_each(|logit| *logit = divided(*logit)),
            true => self.kept.iter_mut().for_each(|candidate| candidate.logit = divided(candidate.logit)),
        }
        self.temperature = 1.0;
        self.weigh();
    }

    /// Computes anew what follows from logits and temperature.
    pub(super) fn weigh(&mut self) {
        self.largest = match self.few {
            false => exp::largest(&self.logits),
            true => self.kept.iter().fold(f32::NEG_INFINITY, |most, candidate| most.max(candidate.logit)),
        };
        let (largest, temperature) = (self.largest, self.temperature);
        if self.few {
            self.kept.iter_mut().for_each(|candidate| {
                candidate.weight = weight(candidate.logit, largest, temperature);
            });
        }
    }

    /// The logit that has this weight.
    pub(super) fn logit_of(&self, weight: f64) -> f32 {
        (f64::from(self.largest) + f64::from(self.temperature) * weight.ln()) as f32
    }

    /// Drops tokens below `least`; what stays has weights afterwards. The largest logit always stays.
    pub(super) fn keep_from(&mut self, least: f32) {
        let least = least.min(self.largest);
        if self.few {
            self.kept.retain(|candidate| candidate.logit >= least);
            return;
        }
        self.few = true;
        self.kept.clear();
        let (largest, temperature) = (self.largest, self.temperature);
        for (place, block) in self.logits.chunks(64).enumerate() {
            // Most blocks hold nothing, which vector code finds out.
            if !block.iter().fold(false, |any, logit| any | (*logit >= least)) {
                continue;
            }
            let first = place as u32 * 64;
            let tokens = (first..).zip(block).filter(|&(_, &logit)| logit >= least && logit > f32::NEG_INFINITY);
            self.kept.extend(tokens.map(|(id, &logit)| Candidate {
                id,
                logit,
                weight: weight(logit, largest, temperature),
            }));
        }
    }

    /// Sum of all weights.
    pub(super) fn total(&self) -> f64 {
        match self.few {
            true => self.kept.iter().map(|candidate| candidate.weight).sum(),
            false => exp::sum(&self.logits, self.largest, self.temperature),
        }
    }

    /// Sum of all weights, each times its logarithm.
    pub(super) fn weighted_exponents(&self) -> f64 {
        let (largest, temperature) = (self.largest, self.temperature);
        match self.few {
            true => {
                // A weight of 0 adds nothing, whatever its logarithm.
                let weighty = self.kept.iter().filter(|candidate| candidate.weight > 0.0);
                weighty.map(|candidate| candidate.weight * exponent(candidate.logit, largest, temperature)).sum()
            }
            false => exp::weighted_sum(&self.logits, largest, temperature),
        }
    }

    /// The lowest id with the largest logit.
    pub(super) fn best(&self) -> u32 {
        match self.few {
            false => best(&self.logits, self.largest),
            true => {
                let leads = |best: Candidate, other: &Candidate| match other.logit > best.logit {
                    true => *other,
                    false => best,
                };
                // A filter always leaves a token.
                self.kept.iter().fold(self.kept[0], leads).id
            }
        }
    }

    /// The token at `uniform` (in `[0, 1)`) of the cumulative distribution by ids.
    pub(super) fn draw(&mut self, uniform: f64) -> u32 {
        if !self.few {
            return self.draw_from_all(uniform);
        }
        let target = uniform * self.total();
        let mut sum = 0.0;
        let reached = self.kept.iter().find(|candidate| {
            sum += candidate.weight;
            sum > target
        });
        reached.map_or_else(|| self.best(), |candidate| candidate.id)
    }

    /// Finds the block of tokens by sums over blocks, and then the token in it.
    fn draw_from_all(&self, uniform: f64) -> u32 {
        let (largest, temperature) = (self.largest, self.temperature);
        let mut left = uniform * self.total();
        for (place, block) in self.logits.chunks(BLOCK).enumerate() {
            let sum = exp::block_sum(block, largest, temperature);
            if sum <= left {
                left -= sum;
                continue;
            }
            let mut last = None;
            for (id, &logit) in (place as u32 * BLOCK as u32..).zip(block) {
                if logit > f32::NEG_INFINITY {
                    last = Some(id);
                    left -= f64::from(exp::exp((logit - largest) / temperature));
                    if left < 0.0 {
                        break;
                    }
                }
            }
            // The sum of a block is rounded otherwise than that of its tokens, so the end may be passed by a hair.
            return last.unwrap_or_else(|| self.best());
        }
        self.best()
    }

    /// What a draw takes its token from.
    pub(super) fn distribution(&mut self) -> Distribution {
        self.keep_from(f32::NEG_INFINITY);
        let weights = self.kept.iter().map(|candidate| (candidate.id, candidate.weight));
        Distribution::from_weights(weights).unwrap_or_else(|| Distribution::certain(self.best()))
    }

    /// The share of a token among those that are left, where filters left some.
    pub(super) fn probability(&self, id: u32) -> Option<f64> {
        if !self.few {
            return None;
        }
        let place = self.kept.binary_search_by_key(&id, |candidate| candidate.id).ok()?;
        Some(self.kept[place].weight / self.total())
    }
}

/// The lowest id with this logit.
pub(super) fn best(logits: &[f32], largest: f32) -> u32 {
    logits.iter().position(|logit| *logit == largest).unwrap_or(0) as u32
}

fn exponent(logit: f32, largest: f32, temperature: f32) -> f64 {
    (f64::from(logit) - f64::from(largest)) / f64::from(temperature)
}

fn weight(logit: f32, largest: f32, temperature: f32) -> f64 {
    exponent(logit, largest, temperature).exp()
}
