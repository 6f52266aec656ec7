//! One sequence in the caller's thread: prompt ids in, one id at a time out.
//!
//! Knows token ids, a decoder and a sampler; nothing of text.

use std::ops::ControlFlow;
use std::time::Duration;

use fornax_model::Decoder;

use crate::engine::core::Core;
use crate::engine::scheduler::SchedulerLimits;
use crate::engine::{Batching, MemoryPlan, SequenceError, TokenEvent, Usage, ValidRequest};
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
    /// Choosing a token failed in another way.
    #[error(transparent)]
    Sequence(SequenceError),
    /// The device failed.
    #[error("the device failed while computing token {position}: {message}")]
    Device {
        /// Position in the sequence, the prompt included.
        position: usize,
        /// The driver's words.
        message: String,
    },
}

/// Continues `prompt`, handing each new id to `on_token`, until a limit is met or `on_token` breaks. `chain` is the state
/// of the sampler at the beginning; a token that its options name ends the text too.
///
/// # Errors
/// See [`GenerateError`]; nothing is computed when the prompt is refused.
pub fn generate(
    decoder: &Decoder,
    prompt: &[u32],
    chain: &Chain,
    limits: &Limits,
    on_token: &mut dyn FnMut(u32) -> ControlFlow<()>,
) -> Result<Report, GenerateError> {
    check(decoder, prompt)?;
    let context = decoder.config().context;
    let capacity = prompt.len().saturating_add(limits.max_tokens).min(context);
    // One sequence in one piece.
    let mut core = Core::new(decoder.clone(), MemoryPlan::of(decoder, 1, capacity), limits_of(1), false);
    let lengths = (limits.max_tokens, context);
    let adapter = decoder.active_adapter();
    let chains = vec![chain.clone()];
    core.add(0, ValidRequest::of_chains(prompt.to_vec(), chains, lengths, &limits.stop_ids, adapter));
    let mut generated_tokens = 0;
    let report = |finish, usage: Usage| {
        let Usage { prompt_tokens, generated_tokens, prefill, decode, .. } = usage;
        Report { finish, prompt_tokens, generated_tokens, prefill, decode }
    };
    while !core.is_idle() {
        let position = prompt.len() + generated_tokens;
        core.step().map_err(|fault| GenerateError::Device { position, message: fault.message })?;
        let events: Vec<_> = core.take_events().collect();
        for (_, event) in events {
            match event {
                TokenEvent::Token { id, .. } => {
                    generated_tokens += 1;
                    if on_token(id).is_break() {
                        return Ok(report(Finish::Cancelled, core.usage(0, generated_tokens)));
                    }
                }
                TokenEvent::Finished { finish, usage, .. } => return Ok(report(finish, usage)),
                TokenEvent::Failed(error) => return Err(error.into()),
                TokenEvent::Started { .. } | TokenEvent::PromptLogProbs(_) => {}
            }
        }
    }
    unreachable!("a request ends with an event that says so")
}

/// Of `running` sequences that all go on until they are done.
pub(crate) fn limits_of(running: usize) -> SchedulerLimits {
    let token_budget = running.max(PREFILL_CHUNK);
    SchedulerLimits { max_running: running, token_budget, batching: Batching::Continuous, window: None }
}

impl From<SequenceError> for GenerateError {
    fn from(error: SequenceError) -> Self {
        match error {
            SequenceError::Sample { position, source } => GenerateError::Sample { position, source },
            other => GenerateError::Sequence(other),
        }
    }
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
