//! Several continuations at once: rows of one length in one batch, each with a chain of its own.
//!
//! What a row becomes depends on its prompt and its chain alone, up to the rounding of products over more rows.

use fornax_model::Decoder;

use crate::engine::core::Core;
use crate::engine::{MemoryPlan, RequestId, TokenEvent, ValidRequest};
use crate::generate::{Finish, GenerateError, Limits, check, limits_of};
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
    chains: &[Chain],
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
    let plan = MemoryPlan::of(decoder, pages(m, n, length, capacity), PAGE);
    let mut core = Core::new(decoder.clone(), plan, limits_of(n), false);
    let (lengths, adapter) = ((limits.max_tokens, decoder.config().context), decoder.active_adapter());
    for (request, (prompt, chains)) in prompts.iter().zip(chains.chunks(n / m)).enumerate() {
        let chains = chains.to_vec();
        let valid = ValidRequest::of_chains(prompt.to_vec(), chains, lengths, &limits.stop_ids, adapter);
        core.add(request as RequestId, valid);
    }
    let nothing = Completion { ids: Vec::new(), log_probs: Vec::new(), finish: Finish::Length };
    let (mut rows, mut computed) = (vec![nothing; n], 0);
    while !core.is_idle() {
        let position = length + computed;
        core.step().map_err(|fault| GenerateError::Device { position, message: fault.message })?;
        for (request, event) in core.take_events() {
            let row = |sample| request as usize * (n / m) + sample;
            match event {
                TokenEvent::Token { sample, id, log_prob, .. } => {
                    rows[row(sample)].ids.push(id);
                    rows[row(sample)].log_probs.push(log_prob);
                    computed = computed.max(rows[row(sample)].ids.len());
                }
                TokenEvent::Finished { sample, finish, stop, .. } => {
                    let row = &mut rows[row(sample)];
                    row.finish = finish;
                    row.ids.extend(stop.iter().map(|stop| stop.id));
                    row.log_probs.extend(stop.iter().map(|stop| stop.log_prob));
                }
                TokenEvent::Failed(error) => return Err(error.into()),
                TokenEvent::Started { .. } | TokenEvent::PromptLogProbs(_) => {}
            }
        }
    }
    Ok(rows)
}

/// Tokens of a page: a prompt's are shared by its rows, and of the rest of each row at most this is not used.
const PAGE: usize = 16;

/// Pages of `n` rows of `capacity` tokens, whose `m` prompts of `length` tokens are there once each.
fn pages(m: usize, n: usize, length: usize, capacity: usize) -> usize {
    let shared = length / PAGE;
    m * shared + n * (capacity.div_ceil(PAGE) - shared) + m
}

#[cfg(test)]
mod tests;
