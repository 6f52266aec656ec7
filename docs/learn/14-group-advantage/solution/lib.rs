//! Group-relative policy optimization: from rewards to what each token is pushed by.

/// Advantage of each answer. `rewards` holds the answers to one prompt side by side, `group` of them for each.
///
/// The advantage is the reward less the mean of its group; where it is `scaled`, divided by the standard deviation of the
/// group (with n - 1, as of a sample) plus 1e-4.
pub fn advantages(rewards: &[f32], group: usize, scaled: bool) -> Vec<f32> {
    let mut all = Vec::new();
    for rewards in rewards.chunks(group) {
        let mean = rewards.iter().sum::<f32>() / group as f32;
        let squares: f32 = rewards.iter().map(|reward| (reward - mean).powi(2)).sum();
        let deviation = (squares / (group as f32 - 1.0)).sqrt();
        let divisor = if scaled { deviation + 1e-4 } else { 1.0 };
        all.extend(rewards.iter().map(|reward| (reward - mean) / divisor));
    }
    all
}

/// Share of the groups whose rewards are all equal: they teach nothing.
pub fn without_signal(rewards: &[f32], group: usize) -> f32 {
    let groups: Vec<&[f32]> = rewards.chunks(group).collect();
    let flat = groups.iter().filter(|rewards| rewards.iter().all(|reward| *reward == rewards[0])).count();
    flat as f32 / groups.len() as f32
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
    let (mut sum, mut tokens) = (0.0, 0);
    for (answer, advantage) in answers.iter().zip(advantages) {
        for (logp, old_logp) in answer.logp.iter().zip(&answer.old_logp) {
            let ratio = (logp - old_logp).exp();
            sum -= (ratio * advantage).min(ratio.clamp(1.0 - clip, 1.0 + clip) * advantage);
            tokens += 1;
        }
    }
    if tokens == 0 { 0.0 } else { sum / tokens as f32 }
}
