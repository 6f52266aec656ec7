//! The model of a conversation: an engine whose pages keep what was said.

use std::ops::ControlFlow;
use std::time::Duration;

use fornax_model::Decoder;
use fornax_model::kv_cache::KvElement;

use super::ChatError;
use crate::engine::{Engine, EngineOptions, Memory, Request, TokenEvent, Usage, ValidRequest};
use crate::generate::Finish;
use crate::sampler::{Sampled, SamplingOptions};
use crate::speculative::SpeculationOptions;

/// How often somebody who waits for the next token is asked whether it is still wanted.
const PATIENCE: Duration = Duration::from_millis(50);

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
    /// Tokens of the prompt that were computed before.
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

/// An engine with room for one conversation.
#[derive(Debug)]
pub(super) struct Speaker {
    engine: Engine,
}

impl Speaker {
    /// Takes the memory of `context` tokens.
    ///
    /// # Errors
    /// When there is no room.
    pub(super) fn new(
        decoder: Decoder,
        context: usize,
        element: Option<KvElement>,
        speculation: Option<SpeculationOptions>,
    ) -> Result<Speaker, ChatError> {
        let options = EngineOptions {
            memory: Memory::Tokens(context),
            max_running: 1,
            element,
            speculation,
            ..EngineOptions::default()
        };
        Ok(Speaker { engine: Engine::start(decoder, &options)? })
    }

    /// Answers `prompt`. `on` gets each token of the answer, and nothing while it waits for one.
    ///
    /// # Errors
    /// When the request is refused, or fails.
    pub(super) fn answer(
        &self,
        prompt: &[u32],
        sampling: SamplingOptions,
        (max_tokens, context): (usize, usize),
        on: &mut dyn FnMut(Option<Sampled>) -> ControlFlow<()>,
    ) -> Result<Answer, ChatError> {
        let room = context - prompt.len();
        let request =
            Request { max_tokens: Some(max_tokens.min(room)), ..Request::new(prompt.to_vec(), sampling) };
        let mut stream = self.engine.submit(ValidRequest::new(request, self.engine.facts())?)?;
        let (mut kept, mut tokens) = (0, 0);
        let begun = std::time::Instant::now();
        let mut prefill = None;
        loop {
            let wanted = match stream.recv_timeout(PATIENCE) {
                Err(_) => on(None),
                Ok(Some(TokenEvent::Started { reused_tokens, .. })) => {
                    kept = reused_tokens;
                    ControlFlow::Continue(())
                }
                Ok(Some(TokenEvent::Token { id, log_prob, top, .. })) => {
                    prefill.get_or_insert_with(|| begun.elapsed());
                    tokens += 1;
                    on(Some(Sampled { id, log_prob, top }))
                }
                Ok(Some(TokenEvent::Finished { finish, usage: Usage { prefill, decode, .. }, .. })) => {
                    let ended = match finish {
                        Finish::Stop => Ended::Stop,
                        Finish::Length if tokens == room => Ended::Context,
                        Finish::Length => Ended::Length,
                        Finish::Context => Ended::Context,
                        Finish::Cancelled => Ended::Stopped,
                    };
                    return Ok(Answer { kept, tokens, ended, prefill, decode });
                }
                Ok(Some(TokenEvent::Failed(error))) => return Err(error.into()),
                Ok(Some(TokenEvent::PromptLogProbs(_))) => ControlFlow::Continue(()),
                Ok(None) => unreachable!("a request ends with an event that says so"),
            };
            if wanted.is_break() {
                // The stream is dropped, which cancels the request.
                let prefill = prefill.unwrap_or_else(|| begun.elapsed());
                let decode = begun.elapsed().saturating_sub(prefill);
                return Ok(Answer { kept, tokens, ended: Ended::Stopped, prefill, decode });
            }
        }
    }
}
