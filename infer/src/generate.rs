//! The decoding loop for one sequence: prompt ids in, one id at a time out.
//!
//! Knows token ids, a decoder and a sampler; nothing of text.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use fornax_model::{Decoder, KvCache, KvElement};

use crate::completions::{last_logits, plain_device};
use crate::sampler::{Chain, SamplerError};

/// Prompt tokens computed at a time: bounds the attention scores of a long prompt.
pub(crate) const PREFILL_CHUNK: usize = 512;

/// When to stop.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Tokens to generate at most.
    pub max_tokens: usize,
    /// Tokens that end the text; they are not passed on.
    pub stop_ids: Vec<u32>,
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model produced a stop token.
    Stop,
    /// `max_tokens` were produced.
    Length,
    /// The model's context is full.
    Context,
    /// The receiver of the tokens asked to stop.
    Cancelled,
}

/// What a generation did and how long each part took.
#[derive(Debug, Clone)]
pub struct Report {
    /// Why it ended.
    pub finish: Finish,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens produced, the stop token not counted.
    pub generated_tokens: usize,
    /// Time from the start to the logits of the last prompt token.
    pub prefill: Duration,
    /// Time from there to the end.
    pub decode: Duration,
}

/// Why a generation cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// There is nothing to continue.
    #[error("the prompt has no tokens")]
    EmptyPrompt,
    /// The prompt alone fills the context.
    #[error(
        "the prompt is {tokens} tokens long, the model's context holds {context} with at least one to generate"
    )]
    PromptTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// `max_position_embeddings` of the model.
        context: usize,
    },
    /// A token the model does not know; tokenizer and model do not belong together.
    #[error("the prompt holds token id {id}, the model's vocabulary ends at {vocab_size}")]
    UnknownToken {
        /// The id.
        id: u32,
        /// Ids must be below this.
        vocab_size: usize,
    },
    /// The logits cannot be sampled from.
    #[error("token {position} cannot be sampled")]
    Sample {
        /// Position in the sequence, the prompt included.
        position: usize,
        /// Why.
        source: SamplerError,
    },
    /// The device failed.
    #[error("the device failed while computing token {position}: {message}")]
    Device {
        /// Position in the sequence, the prompt included.
        position: usize,
        /// The driver's words.
        message: String,
    },
}

/// Continues `prompt`, handing each new id to `on_token`, until a limit is met or `on_token` breaks.
///
/// # Errors
/// See [`GenerateError`]; nothing is computed when the prompt is refused.
pub fn generate(
    decoder: &Decoder,
    prompt: &[u32],
    chain: &mut Chain,
    limits: &Limits,
    on_token: &mut dyn FnMut(u32) -> ControlFlow<()>,
) -> Result<Report, GenerateError> {
    check(decoder, prompt)?;
    let context = decoder.config().context;
    let capacity = prompt.len().saturating_add(limits.max_tokens).min(context);
    let mut cache =
        KvCache::new(decoder.config(), 1, capacity, KvElement::of(decoder.compute()), &plain_device(decoder));
    let start = Instant::now();
    let mut logits = Vec::new();
    for chunk in prompt.chunks(PREFILL_CHUNK) {
        logits = last_logits(decoder, chunk, 1, &mut cache)?.concat();
    }
    let prefill = start.elapsed();
    let mut generated_tokens = 0;
    let finish = loop {
        if generated_tokens == limits.max_tokens {
            break Finish::Length;
        }
        let position = prompt.len() + generated_tokens;
        let next = chain.sample(&logits, None).map_err(|source| GenerateError::Sample { position, source })?;
        chain.accept(next.id);
        if limits.stop_ids.contains(&next.id) {
            break Finish::Stop;
        }
        generated_tokens += 1;
        if on_token(next.id).is_break() {
            break Finish::Cancelled;
        }
        if position + 1 >= context {
            break Finish::Context;
        }
        if generated_tokens < limits.max_tokens {
            logits = last_logits(decoder, &[next.id], 1, &mut cache)?.concat();
        }
    };
    let decode = start.elapsed() - prefill;
    Ok(Report { finish, prompt_tokens: prompt.len(), generated_tokens, prefill, decode })
}

pub(crate) fn check(decoder: &Decoder, prompt: &[u32]) -> Result<(), GenerateError> {
    let (context, vocab_size) = (decoder.config().context, decoder.config().vocab_size);
    if prompt.is_empty() {
        return Err(GenerateError::EmptyPrompt);
    }
    if prompt.len() >= context {
        return Err(GenerateError::PromptTooLong { tokens: prompt.len(), context });
    }
    match prompt.iter().find(|&&id| id as usize >= vocab_size) {
        Some(&id) => Err(GenerateError::UnknownToken { id, vocab_size }),
        None => Ok(()),
    }
}
