//! Several continuations at once: rows of one length in one batch, each with a chain of its own.
//!
//! What a row becomes depends on its prompt and its chain alone, up to the rounding of products over more rows.

use burn::tensor::{DType, Device};
use fornax_model::{Decoder, KvCache, KvElement, Layout, token_tensor};

use crate::generate::{Finish, GenerateError, Limits, PREFILL_CHUNK, check};
use crate::sampler::Chain;

/// What a row became.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// New token ids; where `finish` is [`Finish::Stop`] the stop token is the last of them.
    pub ids: Vec<u32>,
    /// For each id the logarithm of its probability under the model, before temperature and filters.
    pub log_probs: Vec<f32>,
    /// Why it ended.
    pub finish: Finish,
}

impl Completion {
    /// The ids without the stop token.
    pub fn text_ids(&self) -> &[u32] {
        match (self.finish, self.ids.split_last()) {
            (Finish::Stop, Some((_, before))) => before,
            _ => &self.ids,
        }
    }
}

/// Continues each of `prompts` once for each of its chains: chain i belongs to prompt
/// `i / (chains / prompts)`, and completion i is its work. A prompt is computed once for all its chains.
///
/// # Errors
/// As [`crate::generate::generate`]; for all rows together.
///
/// # Panics
/// Panics when the prompts differ in length, or the chains are no multiple of them: callers make groups.
pub fn complete(
    decoder: &Decoder,
    prompts: &[&[u32]],
    chains: &mut [Chain],
    limits: &Limits,
) -> Result<Vec<Completion>, GenerateError> {
    let (n, m) = (chains.len(), prompts.len());
    assert!(m > 0 && n.is_multiple_of(m), "{n} chains are no multiple of {m} prompts");
    let length = prompts[0].len();
    for prompt in prompts {
        assert!(prompt.len() == length, "prompts of {length} and {} tokens in one batch", prompt.len());
        check(decoder, prompt)?;
    }
    if limits.max_tokens == 0 {
        let nothing = Completion { ids: Vec::new(), log_probs: Vec::new(), finish: Finish::Length };
        return Ok(vec![nothing; n]);
    }
    let capacity = length.saturating_add(limits.max_tokens).min(decoder.config().context);
    let (prefilled, logits) = prefill(decoder, prompts, length)?;
    let owner: Vec<usize> = (0..n).map(|row| row * m / n).collect();
    let mut rows = Rows {
        cache: prefilled.select(&owner, capacity),
        held: (0..n).collect(),
        chains,
        done: vec![None; n],
        ids: vec![Vec::new(); n],
        log_probs: vec![Vec::new(); n],
        limits,
        context: decoder.config().context,
    };
    drop(prefilled);
    rows.choose(&logits, &owner)?;
    while rows.compact() {
        let last: Vec<u32> = rows.held.iter().filter_map(|&row| rows.ids[row].last().copied()).collect();
        let (places, n) = ((0..rows.held.len()).collect::<Vec<_>>(), rows.held.len());
        let logits = last_logits(decoder, &last, n, &mut rows.cache)?;
        rows.choose(&logits, &places)?;
    }
    Ok(rows.finished())
}

/// Rows under way.
struct Rows<'a> {
    cache: KvCache,
    /// Which row each row of the cache belongs to.
    held: Vec<usize>,
    chains: &'a mut [Chain],
    done: Vec<Option<Finish>>,
    ids: Vec<Vec<u32>>,
    log_probs: Vec<Vec<f32>>,
    limits: &'a Limits,
    context: usize,
}

impl Rows<'_> {
    /// Chooses a token for every row that goes on; row i of the cache reads row `places[i]` of the logits.
    fn choose(&mut self, logits: &[Vec<f32>], places: &[usize]) -> Result<(), GenerateError> {
        let position = self.cache.len();
        for (&row, &place) in self.held.iter().zip(places) {
            if self.done[row].is_some() {
                continue;
            }
            let chain = &mut self.chains[row];
            let sampled = chain.sample(&logits[place], None);
            let sampled = sampled.map_err(|source| GenerateError::Sample { position, source })?;
            let id = sampled.id;
            chain.accept(id);
            self.ids[row].push(id);
            self.log_probs[row].push(sampled.log_prob);
            self.done[row] = if self.limits.stop_ids.contains(&id) {
                Some(Finish::Stop)
            } else if position + 1 >= self.context {
                Some(Finish::Context)
            } else {
                (self.ids[row].len() == self.limits.max_tokens).then_some(Finish::Length)
            };
        }
        Ok(())
    }

    /// Drops finished rows from the cache once they are half of it; until then they are computed along and not
    /// read. False when no row goes on.
    fn compact(&mut self) -> bool {
        let places: Vec<usize> = (0..self.held.len()).filter(|&i| self.done[self.held[i]].is_none()).collect();
        if !places.is_empty() && 2 * places.len() <= self.held.len() {
            self.cache = self.cache.select(&places, self.cache.capacity());
            self.held = places.iter().map(|&place| self.held[place]).collect();
        }
        !places.is_empty()
    }

    fn finished(self) -> Vec<Completion> {
        let rows = self.ids.into_iter().zip(self.log_probs).zip(self.done);
        // Every row is done when none goes on.
        rows.filter_map(|((ids, log_probs), finish)| Some(Completion { ids, log_probs, finish: finish? }))
            .collect()
    }
}

/// The cache of all prompts, a row each, and the logits after their last tokens.
fn prefill(
    decoder: &Decoder,
    prompts: &[&[u32]],
    length: usize,
) -> Result<(KvCache, Vec<Vec<f32>>), GenerateError> {
    let m = prompts.len();
    let mut cache =
        KvCache::new(decoder.config(), m, length, KvElement::of(decoder.compute()), &plain_device(decoder));
    let mut logits = Vec::new();
    for from in (0..length).step_by(PREFILL_CHUNK) {
        let to = (from + PREFILL_CHUNK).min(length);
        let ids: Vec<u32> = prompts.iter().flat_map(|prompt| &prompt[from..to]).copied().collect();
        logits = last_logits(decoder, &ids, m, &mut cache)?;
    }
    Ok((cache, logits))
}

/// Feeds `ids`, row by row, and returns for each row the logits after its last one.
pub(crate) fn last_logits(
    decoder: &Decoder,
    ids: &[u32],
    rows: usize,
    cache: &mut KvCache,
) -> Result<Vec<Vec<f32>>, GenerateError> {
    let (device, t) = (plain_device(decoder), ids.len() / rows);
    let layout = Layout::contiguous(cache.len(), t, &device);
    let hidden = decoder.forward(token_tensor(ids, rows, &device), &layout, Some(cache));
    let logits = decoder.logits(hidden.slice_dim(1, t - 1..t)).cast(DType::F32);
    let position = cache.len();
    let values = logits
        .try_into_vec_as::<f32>()
        .map_err(|error| GenerateError::Device { position, message: error.to_string() })?;
    Ok(values.chunks_exact(decoder.config().vocab_size).map(<[f32]>::to_vec).collect())
}

pub(crate) fn plain_device(decoder: &Decoder) -> Device {
    decoder.device().without_autodiff()
}

#[cfg(test)]
mod tests;
