//! The model of a conversation, with the keys and values of what was said.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use fornax_model::{Decoder, KvCache, KvElement};

use crate::completions::{last_logits, plain_device};
use crate::generate::{GenerateError, PREFILL_CHUNK, check};
use crate::sampler::Chain;

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The model ended it.
    Stop,
    /// It has as many tokens as it may have.
    Length,
    /// The context is full.
    Context,
    /// It was no longer wanted.
    Stopped,
}

/// What an answer cost.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Tokens of the prompt that were in the cache.
    pub kept: usize,
    /// Tokens of the answer, the one that ended it not counted.
    pub tokens: usize,
    /// Why it ended.
    pub ended: Ended,
    /// Time until the logits behind the prompt were there.
    pub prefill: Duration,
    /// Time from there to its end.
    pub decode: Duration,
}

/// A decoder and the cache of one conversation.
#[derive(Debug)]
pub(super) struct Speaker {
    decoder: Decoder,
    context: usize,
    cache: KvCache,
    /// Ids that the cache holds.
    held: Vec<u32>,
}

impl Speaker {
    /// A cache of `context` tokens is taken at once.
    pub(super) fn new(decoder: Decoder, context: usize) -> Speaker {
        let element = KvElement::of(decoder.compute());
        let cache = KvCache::new(decoder.config(), 1, context, element, &plain_device(&decoder));
        Speaker { decoder, context, cache, held: Vec::new() }
    }

    pub(super) fn vocab_size(&self) -> usize {
        self.decoder.config().vocab_size
    }

    /// Answers `prompt`, computing of it what is not in the cache. `on` gets each id of the answer, and nothing after each
    /// piece of the prompt.
    ///
    /// # Errors
    /// As `generate`; the cache is good afterwards too.
    pub(super) fn answer(
        &mut self,
        prompt: &[u32],
        chain: &mut Chain,
        max_tokens: usize,
        on: &mut dyn FnMut(Option<u32>) -> ControlFlow<()>,
    ) -> Result<Answer, GenerateError> {
        check(&self.decoder, prompt)?;
        let common = self.held.iter().zip(prompt).take_while(|(held, asked)| held == asked).count();
        // The logits behind the last token are not kept.
        let kept = common.min(prompt.len() - 1);
        self.cache.truncate(kept);
        self.held.truncate(kept);
        let start = Instant::now();
        let mut logits = Vec::new();
        let mut tokens = 0;
        let ended = |ended, tokens, prefill: Duration| {
            let decode = start.elapsed().saturating_sub(prefill);
            Ok(Answer { kept, tokens, ended, prefill, decode })
        };
        for chunk in prompt[kept..].chunks(PREFILL_CHUNK) {
            logits = self.compute(chunk)?;
            if on(None).is_break() {
                return ended(Ended::Stopped, tokens, start.elapsed());
            }
        }
        let prefill = start.elapsed();
        loop {
            if tokens == max_tokens {
                return ended(Ended::Length, tokens, prefill);
            }
            let position = prompt.len() + tokens;
            if position == self.context {
                return ended(Ended::Context, tokens, prefill);
            }
            let sampled =
                chain.sample(&logits, None).map_err(|source| GenerateError::Sample { position, source })?;
            if chain.is_end(sampled.id) {
                return ended(Ended::Stop, tokens, prefill);
            }
            chain.accept(sampled.id);
            tokens += 1;
            if on(Some(sampled.id)).is_break() {
                return ended(Ended::Stopped, tokens, prefill);
            }
            if tokens < max_tokens && position + 1 < self.context {
                logits = self.compute(&[sampled.id])?;
            }
        }
    }

    fn compute(&mut self, ids: &[u32]) -> Result<Vec<f32>, GenerateError> {
        let logits = last_logits(&self.decoder, ids, 1, &mut self.cache);
        match logits {
            Ok(logits) => {
                self.held.extend(ids);
                Ok(logits.concat())
            }
            Err(error) => {
                self.cache.truncate(self.held.len());
                Err(error)
            }
        }
    }
}
