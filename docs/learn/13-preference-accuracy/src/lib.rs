//! How often a model prefers what people preferred, and how sure that number is.

/// Pairs won, lost and drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// The chosen one has the greater score.
    pub won: usize,
    /// The rejected one has.
    pub lost: usize,
    /// Both have the same.
    pub drawn: usize,
}

/// Compares the scores of the two answers of each pair: (chosen, rejected).
pub fn count(scores: &[(f64, f64)]) -> Count {
    todo!("compare the two scores of each pair")
}

/// Share of the pairs that are won. A draw is not won: a model that gives every answer the same score has learned
/// nothing. 0 without a pair.
pub fn accuracy(count: Count) -> f64 {
    todo!("won by all")
}

/// What a judge gets that looks at nothing but the lengths (chosen, rejected) in tokens and takes the longer answer. Where
/// both are equally long it throws a coin, so that counts as half.
pub fn prefer_the_longer(lengths: &[(usize, usize)]) -> f64 {
    todo!("the same with lengths, and a coin for draws")
}

/// The 95 % interval of Wilson for a share of `won` in `all`: the shares p that are less than 1.96 standard deviations
/// sqrt(p (1 - p) / all) away from the one that was seen.
pub fn wilson(won: usize, all: usize) -> (f64, f64) {
    todo!("the middle, and half the interval's width")
}
