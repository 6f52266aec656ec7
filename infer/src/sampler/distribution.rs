//! Probabilities of some tokens of a vocabulary.

/// What the next token is drawn from: tokens with a probability above 0 by ascending id; the sum is 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Distribution {
    /// Id and probability.
    pub tokens: Vec<(u32, f64)>,
}

impl Distribution {
    /// Of non-negative weights by ascending id; `None` where their sum is 0.
    pub fn from_weights(weights: impl IntoIterator<Item = (u32, f64)>) -> Option<Distribution> {
        let mut tokens: Vec<(u32, f64)> = weights.into_iter().filter(|(_, weight)| *weight > 0.0).collect();
        let total: f64 = tokens.iter().map(|(_, weight)| weight).sum();
        for (_, weight) in &mut tokens {
            *weight /= total;
        }
        (total > 0.0).then_some(Distribution { tokens })
    }

    /// A single token.
    pub fn certain(id: u32) -> Distribution {
        Distribution { tokens: vec![(id, 1.0)] }
    }

    /// Probability of a token, 0 for those that are not listed.
    pub fn probability(&self, id: u32) -> f64 {
        self.tokens.binary_search_by_key(&id, |(id, _)| *id).map_or(0.0, |place| self.tokens[place].1)
    }

    /// The token at `uniform` (in `[0, 1)`) of the cumulative distribution.
    ///
    /// # Panics
    /// Panics when there is no token.
    pub fn draw(&self, uniform: f64) -> u32 {
        let mut sum = 0.0;
        let reached = self.tokens.iter().find(|(_, probability)| {
            sum += probability;
            sum > uniform
        });
        // Rounding may leave the sum a little below 1.
        reached.or(self.tokens.last()).expect("a distribution has a token").0
    }
}
