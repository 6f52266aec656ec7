//! Dynamic loss scaling for f16 (Micikevicius et al. 2018, arXiv:1710.03740): gradients are computed large, so
//! that small ones do not vanish below 6e-8, and as large as fits below 65,504.

use serde::{Deserialize, Serialize};

use crate::step::LossTerm;

/// The scale in use; the numbers of torch.amp.GradScaler.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossScale {
    /// What the mean loss of a step is multiplied by; a power of two, so that nothing is rounded.
    scale: f64,
    /// Updates applied since the scale last changed.
    good_steps: u64,
}

const INITIAL: f64 = 65_536.0;
const SMALLEST: f64 = 1.0;
const LARGEST: f64 = 16_777_216.0;
/// Updates in a row after which the scale is doubled.
const GROWTH_STEPS: u64 = 2000;

impl Default for LossScale {
    fn default() -> Self {
        Self { scale: INITIAL, good_steps: 0 }
    }
}

impl LossScale {
    /// What the mean loss of a step is multiplied by.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// Loss and weight times one factor: their quotients, and so reported losses, gradients after averaging
    /// and norms, stay as they were. An objective gives a sum, so the factor is the scale over about the number
    /// of tokens that are summed.
    pub fn scaled(&self, term: LossTerm, tokens_per_step: u64) -> LossTerm {
        let factor = self.scale / tokens_per_step.next_power_of_two() as f64;
        LossTerm {
            loss_sum: term.loss_sum * factor,
            unreported: term.unreported.map(|part| part * factor),
            weight: term.weight * factor,
            metrics: term.metrics,
        }
    }

    /// Halves the scale after an overflow: -> the new one; `None` when it is at its smallest already.
    pub fn halved(&mut self) -> Option<f64> {
        if self.scale <= SMALLEST {
            return None;
        }
        *self = Self { scale: self.scale / 2.0, good_steps: 0 };
        Some(self.scale)
    }

    /// Counts an applied update, and doubles the scale after enough of them.
    pub fn applied(&mut self) {
        self.good_steps += 1;
        if self.good_steps == GROWTH_STEPS {
            *self = Self { scale: (self.scale * 2.0).min(LARGEST), good_steps: 0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_halves_on_overflow_and_doubles_after_enough_good_steps() {
        let mut scale = LossScale::default();
        for _ in 0..GROWTH_STEPS - 1 {
            scale.applied();
        }
        assert_eq!(scale.scale(), 65_536.0);
        scale.applied();
        assert_eq!(scale.scale(), 131_072.0);
        // An overflow begins the count anew.
        (0..GROWTH_STEPS - 1).for_each(|_| scale.applied());
        assert_eq!(scale.halved(), Some(65_536.0));
        (0..GROWTH_STEPS - 1).for_each(|_| scale.applied());
        assert_eq!(scale.scale(), 65_536.0);
        for _ in 0..16 {
            assert!(scale.halved().is_some());
        }
        assert_eq!((scale.scale(), scale.halved()), (1.0, None));
        (0..30 * GROWTH_STEPS).for_each(|_| scale.applied());
        assert_eq!(scale.scale(), LARGEST);
    }
}
