//! Which drafted tokens stay, such that the text is distributed as if the target model had written it alone.

/// The probability with which a drafted token stays: the share of what the draft gave it that the target gives it too.
/// `draft` is above 0, for the token was drawn from it.
pub fn acceptance(target: f32, draft: f32) -> f32 {
    (target / draft).min(1.0)
}

/// What the token after a rejection is drawn from: where the target is above the draft, by how much, made to sum to 1.
/// Where the two are equal everywhere, the target.
pub fn residual(target: &[f32], draft: &[f32]) -> Vec<f32> {
    let above: Vec<f32> = target.iter().zip(draft).map(|(p, q)| (p - q).max(0.0)).collect();
    let sum: f32 = above.iter().sum();
    if sum == 0.0 { target.to_vec() } else { above.iter().map(|a| a / sum).collect() }
}

/// The lowest id with which the sum of the probabilities up to it exceeds `uniform`; the last one with any where rounding
/// leaves the sum below.
pub fn draw(probabilities: &[f32], uniform: f32) -> u32 {
    let mut sum = 0.0;
    let exceeds = |p: &f32| {
        sum += p;
        sum > uniform
    };
    let found = probabilities.iter().position(exceeds);
    found.or_else(|| probabilities.iter().rposition(|p| *p > 0.0)).unwrap_or(0) as u32
}

/// Goes through k drafted tokens, in order: `draft[i]` is the distribution that `drafted[i]` was drawn from, `target[i]`
/// the target's at the same place, and `target[k]` the one behind the last. Returns those that stay and one more: behind
/// a rejection from the residual of that place, behind the last from `target[k]`.
///
/// A token stays where the next uniform number is below its acceptance; the token that is drawn takes a number of its own.
pub fn verify(
    target: &[Vec<f32>],
    draft: &[Vec<f32>],
    drafted: &[u32],
    uniform: &mut dyn FnMut() -> f32,
) -> Vec<u32> {
    let mut ids = Vec::new();
    for (i, &id) in drafted.iter().enumerate() {
        let (p, q) = (&target[i], &draft[i]);
        if uniform() >= acceptance(p[id as usize], q[id as usize]) {
            ids.push(draw(&residual(p, q), uniform()));
            return ids;
        }
        ids.push(id);
    }
    ids.push(draw(&target[drafted.len()], uniform()));
    ids
}

/// Tokens that one pass of the target brings on average with k drafted ones, if each stays with probability `rate`, from
/// 0 to 1, once all before it did. The token drawn behind them counts.
pub fn tokens_per_pass(rate: f32, k: u32) -> f32 {
    (0..=k).map(|i| rate.powi(i as i32)).sum()
}

/// How much faster that is than a pass for each token, if drafting one costs `cost` of such a pass and the pass over k + 1
/// tokens costs as much as one over a single token.
pub fn speedup(rate: f32, k: u32, cost: f32) -> f32 {
    tokens_per_pass(rate, k) / (1.0 + cost * k as f32)
}
