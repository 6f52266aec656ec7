//! How much better a completion is than the others of its prompt.

use serde::{Deserialize, Serialize};

/// Added to the deviation that a reward is divided by; TRL's.
const EPSILON: f64 = 1e-4;
/// Deviations up to this count as zero; torch's `isclose`.
const ZERO: f64 = 1e-8;

/// What advantages are divided by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScaleRewards {
    /// The deviation of the rewards of the group (DeepSeekMath, arXiv:2402.03300).
    #[default]
    Group,
    /// The deviation of all rewards of the step (arXiv:2508.08221).
    Batch,
    /// Nothing (Dr. GRPO, arXiv:2503.20783): the deviation favors questions that are too easy or too hard.
    None,
}

/// Advantages of the completions of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Advantages {
    /// One for each completion.
    pub values: Vec<f64>,
    /// Share of the completions whose deviation is zero: nothing is learned from them.
    pub zero_std: f64,
}

/// `(reward - mean of the group) / (deviation + 1e-4)`; the groups, of `group` rewards each, follow one another. The
/// deviation is that of a sample (n - 1). A group of equal rewards has advantages of exactly 0.
///
/// # Panics
/// Panics when the groups are not whole or have fewer than 2 rewards.
pub fn advantages(rewards: &[f64], group: usize, scale: ScaleRewards) -> Advantages {
    assert!(group >= 2 && rewards.len().is_multiple_of(group), "{} rewards in groups of {group}", rewards.len());
    let of_all = deviation(rewards);
    let (mut values, mut zeros) = (Vec::with_capacity(rewards.len()), 0);
    for group in rewards.chunks(group) {
        let std = if scale == ScaleRewards::Batch { of_all } else { deviation(group) };
        let (mean, equal) = (mean(group), group.iter().all(|reward| *reward == group[0]));
        let divisor = if scale == ScaleRewards::None { 1.0 } else { std + EPSILON };
        values.extend(group.iter().map(|reward| if equal { 0.0 } else { (reward - mean) / divisor }));
        zeros += if std <= ZERO { group.len() } else { 0 };
    }
    Advantages { values, zero_std: zeros as f64 / rewards.len().max(1) as f64 }
}

pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Of a sample; 0 for fewer than 2 values.
pub(crate) fn deviation(values: &[f64]) -> f64 {
    let mean = mean(values);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (squares / values.len().saturating_sub(1).max(1) as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rewards 1, 0, 0, 1: mean 1/2, squares 4 * 1/4 over 3, deviation sqrt(1/3). Then a group of equals.
    #[test]
    fn hand_numbers() {
        let rewards = [1.0, 0.0, 0.0, 1.0, 0.1, 0.1, 0.1, 0.1];
        let scaled = 0.5 / ((1.0f64 / 3.0).sqrt() + 1e-4);
        let found = advantages(&rewards, 4, ScaleRewards::Group);
        assert_eq!(found.values, [scaled, -scaled, -scaled, scaled, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(found.zero_std, 0.5);
        let found = advantages(&rewards, 4, ScaleRewards::None);
        assert_eq!(found.values, [0.5, -0.5, -0.5, 0.5, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(found.zero_std, 0.5);
        // Two pairs under one deviation: 2, 0, 1, 1 has mean 1 and squares 2 over 3.
        let found = advantages(&[2.0, 0.0, 1.0, 1.0], 2, ScaleRewards::Batch);
        let one = 1.0 / ((2.0f64 / 3.0).sqrt() + 1e-4);
        assert_eq!((found.values, found.zero_std), (vec![one, -one, 0.0, 0.0], 0.0));
    }
}
