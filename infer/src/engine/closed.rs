//! A closed set of requests, carried out in the caller's thread: what benches and tests measure.

use std::time::{Duration, Instant};

use fornax_model::Decoder;

use super::decision::{RequestId, Traced};
use super::event::{SequenceError, TokenEvent, Usage};
use super::request::ValidRequest;
use super::stats::Stats;
use super::{EngineError, EngineOptions};
use crate::generate::Finish;
use crate::sampler::Sampled;
use crate::speculative::SpeculationStats;

/// What one sample of a request became.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Its tokens, the one that ended it not among them.
    pub tokens: Vec<Sampled>,
    /// Why it ended; `None` where the request failed.
    pub finish: Option<Finish>,
    /// The token that ended it, where one did.
    pub stop: Option<Sampled>,
    /// What it took.
    pub usage: Usage,
}

/// What a request became.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Outcome {
    /// Its answers.
    pub answers: Vec<Answer>,
    /// Log-probabilities of its prompt from the second token on, where they were asked for.
    pub prompt: Vec<Sampled>,
    /// Why it failed, where it did.
    pub failed: Option<SequenceError>,
}

/// What a set of requests became.
#[derive(Debug, Clone)]
pub struct Closed {
    /// One for each request, in their order.
    pub outcomes: Vec<Outcome>,
    /// From the start of the opening pass to the end of the last.
    pub took: Duration,
    /// The engine's numbers at the end.
    pub stats: Stats,
    /// What was decided, in order.
    pub decisions: Vec<Traced>,
    /// What proposals brought; `None` where nothing proposed.
    pub speculation: Option<SpeculationStats>,
}

/// Carries out `requests`, submitted at once in their order, as an engine of `options` would.
///
/// # Errors
/// See [`EngineError`].
pub fn run_closed(
    decoder: &Decoder,
    options: &EngineOptions,
    requests: Vec<ValidRequest>,
) -> Result<Closed, EngineError> {
    let mut core = options.core(decoder.clone())?;
    let none = Answer { tokens: Vec::new(), finish: None, stop: None, usage: Usage::default() };
    let mut outcomes = Vec::new();
    for (id, request) in requests.into_iter().enumerate() {
        outcomes.push(Outcome { answers: vec![none.clone(); request.chains.len()], ..Outcome::default() });
        core.add(id as RequestId, request);
    }
    let (start, mut decisions) = (Instant::now(), Vec::new());
    while !core.is_idle() {
        core.step().map_err(|fault| EngineError::Device { message: fault.message })?;
        decisions.extend(core.take_decisions());
        for (id, event) in core.take_events() {
            let outcome = &mut outcomes[id as usize];
            match event {
                TokenEvent::Started { .. } => {}
                TokenEvent::PromptLogProbs(tokens) => outcome.prompt.extend(tokens),
                TokenEvent::Token { sample, id, log_prob, top } => {
                    outcome.answers[sample].tokens.push(Sampled { id, log_prob, top });
                }
                TokenEvent::Finished { sample, finish, stop, usage } => {
                    let answer = &mut outcome.answers[sample];
                    (answer.finish, answer.stop, answer.usage) = (Some(finish), stop, usage);
                }
                TokenEvent::Failed(error) => outcome.failed = Some(error),
            }
        }
    }
    let (took, speculation) = (start.elapsed(), core.speculation().cloned());
    Ok(Closed { outcomes, took, stats: core.stats(), decisions, speculation })
}

impl Answer {
    /// The ids of its tokens.
    pub fn ids(&self) -> Vec<u32> {
        self.tokens.iter().map(|token| token.id).collect()
    }
}
