//! DRY, "don't repeat yourself" (p-e-w 2024, as llama.cpp computes it): where the latest tokens stand somewhere before,
//! the token that followed there is penalized, the more the longer the match is.

use std::collections::BTreeMap;

use fornax_data::Tokenizer;

use super::{SamplerError, SamplingOptions};

/// The texts at which llama.cpp ends a repetition where none are given.
pub const DEFAULT_BREAKERS: [&str; 4] = ["\n", ":", "\"", "*"];

/// Exponents of `e` beyond this are no f32.
const LARGEST_EXPONENT: f32 = 88.722_84;

/// The tokens whose text holds one of `breakers`, by ascending id.
///
/// # Errors
/// [`SamplerError::Option`] for a text that stands in no token.
pub fn breaker_ids(tokenizer: &Tokenizer, breakers: &[impl AsRef<str>]) -> Result<Vec<u32>, SamplerError> {
    let mut found = vec![false; breakers.len()];
    let mut ids = Vec::new();
    for id in 0..tokenizer.vocab_size() as u32 {
        let token = tokenizer.spelled(id);
        let mut holds = false;
        for (breaker, found) in breakers.iter().zip(&mut found) {
            let breaker = breaker.as_ref().as_bytes();
            if !breaker.is_empty() && token.windows(breaker.len()).any(|window| window == breaker) {
                (*found, holds) = (true, true);
            }
        }
        if holds {
            ids.push(id);
        }
    }
    match breakers.iter().zip(found).find(|(_, found)| !found) {
        Some((breaker, _)) => Err(SamplerError::Option {
            field: "dry_breakers",
            value: format!("{:?}", breaker.as_ref()),
            range: "a text that stands in at least 1 token",
        }),
        None => Ok(ids),
    }
}

/// What is to be subtracted from the logits of tokens that would go on with a repetition.
pub(super) fn penalties(options: &SamplingOptions, breakers: &[u32], history: &[u32]) -> BTreeMap<u32, f32> {
    let range = match options.dry_range {
        0 => history.len(),
        range => range.min(history.len()),
    };
    let allowed = options.dry_allowed_length;
    let latest: Vec<u32> = history.iter().rev().take(range).copied().collect();
    // No repetition reaches back across a breaker.
    let limit = latest.iter().position(|id| breakers.binary_search(id).is_ok()).unwrap_or(latest.len());
    let mut longest = BTreeMap::new();
    if latest.len() <= allowed || limit < allowed {
        return longest;
    }
    let lengths = match_lengths(&latest);
    for (place, length) in lengths.iter().enumerate().skip(1) {
        let length = (*length).min(limit);
        if length >= allowed {
            let followed_by = latest[place - 1];
            let penalty = penalty(options, length - allowed);
            longest.entry(followed_by).and_modify(|most: &mut f32| *most = most.max(penalty)).or_insert(penalty);
        }
    }
    longest
}

fn penalty(options: &SamplingOptions, exponent: usize) -> f32 {
    let most = match options.dry_base > 1.000_001 {
        true => (LARGEST_EXPONENT / options.dry_base.ln()) as usize,
        false => usize::MAX,
    };
    let exponent = exponent.min(most).min(i32::MAX as usize) as i32;
    options.dry_multiplier * options.dry_base.powi(exponent)
}

/// How many tokens from each place on equal those at the beginning; Gusfield's Z algorithm, which is linear.
fn match_lengths(ids: &[u32]) -> Vec<usize> {
    let mut lengths = vec![0; ids.len()];
    let (mut start, mut end) = (0, 0);
    for place in 1..ids.len() {
        let mut length = if place < end { lengths[place - start].min(end - place) } else { 0 };
        while place + length < ids.len() && ids[length] == ids[place + length] {
            length += 1;
        }
        if place + length > end {
            (start, end) = (place, place + length);
        }
        lengths[place] = length;
    }
    lengths
}
