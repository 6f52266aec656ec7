//! Group-relative policy optimization: from rewards to what each token is pushed by.

/// Advantage of each answer. `rewards` holds the answers to one prompt side by side, `group` of them for each.
///
/// The advantage is the reward less the mean of its group; where it is `scaled`, divided by the standard deviation of the
/// group (with n - 1, as of a sample) plus 1e-4.
pub fn advantages(rewards: &[f32], group: usize, scaled: bool) -> Vec<f32> {
    todo!("less the mean of the group, by its deviation")
}

/// Share of the groups whose rewards are all equal: they teach nothing.
pub fn without_signal(rewards: &[f32], group: usize) -> f32 {
    todo!("groups in which all rewards are equal")
}

/// Log-probabilities of the tokens of one answer.
#[derive(Clone)]
pub struct Answer {
    /// By the model that is trained.
    pub logp: Vec<f32>,
    /// By the model that wrote it, before the first update on it.
    pub old_logp: Vec<f32>,
}

/// The loss of a step: the mean over all tokens of all answers of
/// `-min(ratio A, clamp(ratio, 1 - clip, 1 + clip) A)`, where A is the answer's advantage and the ratio that of the
/// token's probability now to the one it was written with.
pub fn loss(answers: &[Answer], advantages: &[f32], clip: f32) -> f32 {
    todo!("ratios, the smaller of two products, one division")
}
