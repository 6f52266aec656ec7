//! Log-probabilities under the model itself, before penalties, temperature and filters.

use super::candidates::best;
use super::{SamplerError, exp};

/// A chosen token, or one of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampled {
    /// Its id, below the number of logits.
    pub id: u32,
    /// Natural logarithm of its probability under the logits as given, before anything the options do.
    pub log_prob: f32,
    /// The most probable tokens under the same logits with their logarithms, the greatest leading, the lower id among
    /// equals; as many as were asked for, less where the model rules tokens out.
    pub top: Vec<(u32, f32)>,
}

/// What the model says about token `id` where it computed `logits`, `[vocab]`: for the tokens of a prompt the logits
/// are those at the place before. The error is below 1e-6 plus the rounding of the logits.
///
/// # Errors
/// [`SamplerError::Token`] for an id beyond the logits, and those of [`check_logits`].
pub fn log_prob_of(logits: &[f32], id: u32, top: usize) -> Result<Sampled, SamplerError> {
    let largest = check_logits(logits)?;
    if id as usize >= logits.len() {
        return Err(SamplerError::Token { field: "the prompt", id, vocab_size: logits.len() });
    }
    Ok(report(logits, largest, id, top))
}

/// The largest logit.
///
/// # Errors
/// For NaN, +inf, or nothing but -inf.
pub fn check_logits(logits: &[f32]) -> Result<f32, SamplerError> {
    if !exp::usable(logits) {
        let mut tokens = (0..).zip(logits.iter().copied());
        if let Some((id, value)) = tokens.find(|(_, value)| value.is_nan() || *value == f32::INFINITY) {
            return Err(SamplerError::NotFinite { id, value });
        }
    }
    match exp::largest(logits) {
        f32::NEG_INFINITY => Err(SamplerError::AllMasked { vocab_size: logits.len() }),
        largest => Ok(largest),
    }
}

pub(super) fn report(logits: &[f32], largest: f32, id: u32, top: usize) -> Sampled {
    let log_sum = exp::sum(logits, largest, 1.0).ln();
    let log_prob = |id: u32| (f64::from(logits[id as usize]) - f64::from(largest) - log_sum) as f32;
    let top = match top {
        0 => Vec::new(),
        1 => vec![best(logits, largest)],
        top => most_probable(logits, top),
    };
    Sampled { id, log_prob: log_prob(id), top: top.into_iter().map(|id| (id, log_prob(id))).collect() }
}

fn most_probable(logits: &[f32], n: usize) -> Vec<u32> {
    let order = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    // As in top-k: the n-th largest of the largest of each block bounds what can be among the n largest.
    let mut blocks: Vec<f32> = logits.chunks(64).map(exp::largest).collect();
    let bound = match n <= blocks.len() {
        true => *blocks.select_nth_unstable_by(n - 1, |a, b| b.total_cmp(a)).1,
        false => f32::NEG_INFINITY,
    };
    let above = |&(_, &logit): &(u32, &f32)| logit >= bound && logit > f32::NEG_INFINITY;
    let mut ids: Vec<u32> = (0..).zip(logits).filter(above).map(|(id, _)| id).collect();
    ids.sort_unstable_by(order);
    ids.truncate(n);
    ids
}
