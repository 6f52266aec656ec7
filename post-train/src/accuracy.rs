//! How often a judge of answer pairs decides as people did, how sure that share is, and what a judge gets that counts
//! tokens and reads nothing.

use fornax_data::examples::Pair;

/// The normal deviate that leaves 2.5 % above it.
const Z: f64 = 1.959_963_984_540_054;

/// What became of pairs when their two scores were compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verdicts {
    /// The chosen answer has the greater score.
    pub won: u64,
    /// The rejected one has.
    pub lost: u64,
    /// Neither has: equal scores, or one that is not a number.
    pub drawn: u64,
}

impl Verdicts {
    /// Compares (chosen, rejected) of each pair.
    pub fn of(scores: impl IntoIterator<Item = (f64, f64)>) -> Self {
        scores.into_iter().fold(Self::default(), |mut all, (chosen, rejected)| {
            match (chosen > rejected, chosen < rejected) {
                (true, _) => all.won += 1,
                (_, true) => all.lost += 1,
                _ => all.drawn += 1,
            }
            all
        })
    }

    /// The judge that takes the answer with more tokens.
    pub fn of_the_longer(pairs: &[Pair]) -> Self {
        let tokens = |pair: &Pair| (pair.chosen.n_trained() as f64, pair.rejected.n_trained() as f64);
        Self::of(pairs.iter().map(tokens))
    }

    /// The judge that takes the other answer each time.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self { won: self.lost, lost: self.won, ..self }
    }

    /// All pairs.
    pub fn pairs(&self) -> u64 {
        self.won + self.lost + self.drawn
    }

    /// Share of the pairs that are won, as `rewards/accuracies` counts it: a draw is not won. 0 without a pair.
    pub fn accuracy(&self) -> f64 {
        self.won as f64 / self.pairs().max(1) as f64
    }

    /// The same for a judge who must choose and throws a coin where the scores are equal.
    pub fn with_a_coin(&self) -> f64 {
        (self.won as f64 + 0.5 * self.drawn as f64) / self.pairs().max(1) as f64
    }

    /// The 95 % interval of the accuracy.
    pub fn interval(&self) -> (f64, f64) {
        wilson(self.won, self.pairs())
    }
}

/// The 95 % interval of a share of `won` in `all` (Wilson 1927): the true shares from which the one that was seen is at
/// most 1.96 of their standard deviations away. 0 to 1 without any.
pub fn wilson(won: u64, all: u64) -> (f64, f64) {
    if all == 0 {
        return (0.0, 1.0);
    }
    let (n, seen) = (all as f64, won as f64 / all as f64);
    let divisor = 1.0 + Z * Z / n;
    let middle = (seen + Z * Z / (2.0 * n)) / divisor;
    let half = Z / divisor * (seen * (1.0 - seen) / n + Z * Z / (4.0 * n * n)).sqrt();
    ((middle - half).max(0.0), (middle + half).min(1.0))
}

#[cfg(test)]
mod tests {
    use fornax_data::examples::Example;

    use super::*;

    #[test]
    fn intervals_are_those_of_scipy() {
        // scipy 1.17.1, binomtest(won, all).proportion_ci(method="wilson").
        for (won, all, low, high) in [
            (8, 10, 0.490_162_471_536_641_8, 0.943_317_848_545_624_8),
            (270, 500, 0.496_175_155_293_062_3, 0.583_214_897_470_013_4),
            (0, 20, 0.0, 0.161_125_158_052_819_35),
            (20, 20, 0.838_874_841_947_180_8, 1.0),
        ] {
            let found = wilson(won, all);
            assert!((found.0 - low).abs() < 1e-12 && (found.1 - high).abs() < 1e-12, "{won} of {all}: {found:?}");
        }
        assert_eq!(wilson(0, 0), (0.0, 1.0));
    }

    #[test]
    fn draws_are_not_won() {
        let verdicts = Verdicts::of([(2.0, 1.0), (1.0, 1.0), (f64::NAN, 0.0), (0.0, 3.0)]);
        assert_eq!(verdicts, Verdicts { won: 1, lost: 1, drawn: 2 });
        assert_eq!((verdicts.accuracy(), verdicts.with_a_coin()), (0.25, 0.5));
        assert_eq!(verdicts.interval(), wilson(1, 4));
        assert_eq!(Verdicts::default().accuracy(), 0.0);
    }

    #[test]
    fn the_longer_answer_by_its_own_tokens() {
        let example = |head: usize, answer: usize| Example {
            ids: vec![1; head + answer],
            trained: [vec![false; head], vec![true; answer]].concat(),
            row: 1,
        };
        let pair = |chosen, rejected| Pair { chosen, rejected };
        // The prompts' lengths do not count.
        let pairs = [
            pair(example(9, 2), example(1, 3)),
            pair(example(2, 5), example(2, 4)),
            pair(example(3, 4), example(1, 4)),
        ];
        let longer = Verdicts::of_the_longer(&pairs);
        assert_eq!(longer, Verdicts { won: 1, lost: 1, drawn: 1 });
        assert_eq!(longer.reversed().with_a_coin(), 0.5);
    }
}
