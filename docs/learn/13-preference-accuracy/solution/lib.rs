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
    let number = |is: fn(&(f64, f64)) -> bool| scores.iter().filter(|pair| is(pair)).count();
    Count { won: number(|(c, r)| c > r), lost: number(|(c, r)| c < r), drawn: number(|(c, r)| c == r) }
}

/// Share of the pairs that are won. A draw is not won: a model that gives every answer the same score has learned
/// nothing. 0 without a pair.
pub fn accuracy(count: Count) -> f64 {
    let all = count.won + count.lost + count.drawn;
    if all == 0 { 0.0 } else { count.won as f64 / all as f64 }
}

/// What a judge gets that looks at nothing but the lengths (chosen, rejected) in tokens and takes the longer answer. Where
/// both are equally long it throws a coin, so that counts as half.
pub fn prefer_the_longer(lengths: &[(usize, usize)]) -> f64 {
    let scores: Vec<(f64, f64)> = lengths.iter().map(|(c, r)| (*c as f64, *r as f64)).collect();
    let count = count(&scores);
    if scores.is_empty() { 0.0 } else { (count.won as f64 + 0.5 * count.drawn as f64) / scores.len() as f64 }
}

/// The 95 % interval of Wilson for a share of `won` in `all`: the shares p that are less than 1.96 standard deviations
/// sqrt(p (1 - p) / all) away from the one that was seen.
pub fn wilson(won: usize, all: usize) -> (f64, f64) {
    const Z: f64 = 1.959_963_984_540_054;
    let (n, seen) = (all as f64, won as f64 / all as f64);
    let divisor = 1.0 + Z * Z / n;
    let middle = (seen + Z * Z / (2.0 * n)) / divisor;
    let half = Z / divisor * (seen * (1.0 - seen) / n + Z * Z / (4.0 * n * n)).sqrt();
    (middle - half, middle + half)
}
