//! Direct preference optimization, from log-probabilities to loss and gradient.

/// The log-probabilities of the two answers of a pair, each by the model that is trained and by the reference.
#[derive(Clone, Copy)]
pub struct Pair {
    /// ln p(chosen answer | prompt) of the model.
    pub chosen: f32,
    /// ln p(rejected answer | prompt) of the model.
    pub rejected: f32,
    /// ln p(chosen answer | prompt) of the reference.
    pub reference_chosen: f32,
    /// ln p(rejected answer | prompt) of the reference.
    pub reference_rejected: f32,
}

/// ln p(answer | prompt): the sum over the tokens of the answer. `logp_t` has one number for each token of prompt and
/// answer, its log-probability after those before it; `answer_t` says which belong to the answer.
pub fn answer_logp(logp_t: &[f32], answer_t: &[bool]) -> f32 {
    todo!("add what belongs to the answer")
}

/// The implied rewards of (chosen, rejected): beta times how much more likely than to the reference an answer is to the
/// model, in logarithms.
pub fn rewards(pair: Pair, beta: f32) -> (f32, f32) {
    todo!("model against reference, times beta")
}

/// -ln sigmoid(reward of the chosen - reward of the rejected) of each pair; finite for rewards of 1,000.
pub fn losses(pairs: &[Pair], beta: f32) -> Vec<f32> {
    todo!("minus the logarithm of the sigmoid of the margin")
}

/// The gradient of the mean loss over `counted` pairs, of which these are some: (by `chosen`, by `rejected`) of each pair.
pub fn gradient(pairs: &[Pair], beta: f32, counted: usize) -> Vec<(f32, f32)> {
    todo!("by the log-probability of the chosen, and of the rejected")
}
