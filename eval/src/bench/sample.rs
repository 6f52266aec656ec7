//! Durations and what to say of many of them.

use serde::Serialize;

/// The middle of a sample and how far it spreads.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The middle value.
    pub median: f64,
    /// A tenth of the sample lies below.
    pub p10: f64,
    /// A tenth of the sample lies above.
    pub p90: f64,
}

impl Spread {
    /// Of a sample with at least one value; a percentile is the nearest value of the sample, without interpolation.
    ///
    /// # Panics
    /// When the sample is empty: every measurement takes at least one.
    pub fn of(sample: &[f64]) -> Self {
        assert!(!sample.is_empty(), "a sample without values");
        let mut sorted = sample.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share).round() as usize];
        let (middle, odd) = (sorted.len() / 2, sorted.len() % 2 == 1);
        let median = if odd { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
        Self { median, p10: at(0.1), p90: at(0.9) }
    }

    /// The spread of `amount / value`: of rates, where this one is of durations.
    pub fn rate(self, amount: f64) -> Self {
        Self { median: amount / self.median, p10: amount / self.p90, p90: amount / self.p10 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_and_the_tenths_of_known_samples() {
        let spread = Spread::of(&[5.0, 1.0, 2.0, 4.0, 3.0]);
        assert_eq!(spread, Spread { median: 3.0, p10: 1.0, p90: 5.0 });
        let many: Vec<f64> = (0..=100).map(f64::from).collect();
        assert_eq!(Spread::of(&many), Spread { median: 50.0, p10: 10.0, p90: 90.0 });
        assert_eq!(Spread::of(&[2.0, 4.0]).median, 3.0);
        assert_eq!(Spread::of(&[7.0]), Spread { median: 7.0, p10: 7.0, p90: 7.0 });
    }

    #[test]
    fn the_slow_tenth_of_the_durations_is_the_low_tenth_of_the_rates() {
        let rate = Spread { median: 2.0, p10: 1.0, p90: 4.0 }.rate(8.0);
        assert_eq!(rate, Spread { median: 4.0, p10: 2.0, p90: 8.0 });
    }
}
