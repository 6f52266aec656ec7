//! What can be asked of an engine, and what of it is checked before it is believed.

use std::sync::Arc;

use fornax_model::Decoder;
use fornax_model::adapter::AdapterId;

use super::prefix::BlockHash;
use crate::grammar::Grammar;
use crate::sampler::{Chain, SamplerError, SamplingOptions};

/// A prompt and what is wanted of it.
#[derive(Debug, Clone)]
pub struct Request {
    /// Ids of the prompt, at least one.
    pub prompt: Vec<u32>,
    /// How tokens are chosen, which of them end the text, and how many alternatives are reported with each.
    pub sampling: SamplingOptions,
    /// Tokens to generate at most; `None` is as many as fit. 0 reads the prompt and generates nothing.
    pub max_tokens: Option<usize>,
    /// Independent answers to one prompt, which is computed once.
    pub n: usize,
    /// Which adapter computes; `None` is the decoder's active one, or the base model.
    pub adapter: Option<AdapterId>,
    /// What the answers must be like, compiled before; each answer has an automaton of its own.
    pub grammar: Option<Grammar>,
    /// Reports the log-probability of every prompt token but the opening one, with so many alternatives. Such a
    /// request reads nothing from other requests' pages: what is kept there are keys and values, not logits.
    pub prompt_log_probs: Option<usize>,
    /// Higher goes before lower; a point is worth 64 steps of waiting. Beyond 1000 either way counts as that.
    pub priority: i32,
    /// Prompts are recognised only among requests of the same salt.
    pub salt: Option<String>,
    /// Whether drafts may be used where the engine has them.
    pub speculate: bool,
}

impl Request {
    /// One answer of any length, nothing special about it.
    pub fn new(prompt: Vec<u32>, sampling: SamplingOptions) -> Self {
        Self {
            prompt,
            sampling,
            max_tokens: None,
            n: 1,
            adapter: None,
            grammar: None,
            prompt_log_probs: None,
            priority: 0,
            salt: None,
            speculate: true,
        }
    }
}

/// What a request is checked against.
#[derive(Debug, Clone)]
pub struct ModelFacts {
    /// Ids are below this.
    pub vocab_size: usize,
    /// Tokens of a prompt and its answer together at most: the model's context, or less where memory ends before it.
    pub context: usize,
    /// Tokens that end a text.
    pub eos_ids: Vec<u32>,
    /// Adapters on the decoder, in its order.
    pub adapters: Vec<AdapterId>,
    /// The one used where a request names none.
    pub active_adapter: Option<AdapterId>,
    /// Answers to one prompt at most: they run at once.
    pub samples: usize,
}

impl ModelFacts {
    /// Of a decoder with room for sequences of `room` tokens, `samples` of them at once.
    pub fn of(decoder: &Decoder, room: usize, samples: usize) -> Self {
        let config = decoder.config();
        Self {
            vocab_size: config.vocab_size,
            context: config.context.min(room),
            eos_ids: config.eos_ids.clone(),
            adapters: decoder.adapters().map(|(id, ..)| id).collect(),
            active_adapter: decoder.active_adapter(),
            samples,
        }
    }
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// There is nothing to continue.
    #[error("the prompt has no tokens")]
    EmptyPrompt,
    /// It does not fit.
    #[error("the prompt of {prompt} tokens with {wanted} to generate exceeds the context of {context} tokens")]
    TooLong {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens to generate; 1 where the request leaves that open.
        wanted: usize,
        /// Tokens that fit.
        context: usize,
    },
    /// A token the model does not know.
    #[error("the prompt holds token id {id}, the model's vocabulary ends at {vocab_size}")]
    UnknownToken {
        /// The id.
        id: u32,
        /// Ids must be below this.
        vocab_size: usize,
    },
    /// No answer, or more than run at once.
    #[error("{n} answers were asked for, expected from 1 to {most}")]
    Samples {
        /// What was asked for.
        n: usize,
        /// What runs at once.
        most: usize,
    },
    /// Not on this decoder.
    #[error("the adapter is none of the {loaded} that are loaded")]
    UnknownAdapter {
        /// How many are loaded.
        loaded: usize,
    },
    /// More alternatives than tokens.
    #[error("{asked} alternatives of each prompt token were asked for, the vocabulary has {vocab_size} tokens")]
    PromptLogProbs {
        /// What was asked for.
        asked: usize,
        /// What there is.
        vocab_size: usize,
    },
    /// The sampling options are wrong.
    #[error(transparent)]
    Sampling(#[from] SamplerError),
}

/// A request that the engine can carry out.
#[derive(Debug)]
pub struct ValidRequest {
    pub(super) prompt: Vec<u32>,
    /// One for each answer.
    pub(super) chains: Vec<Chain>,
    /// Tokens that end the text beside those the chains know.
    pub(super) stop_ids: Arc<[u32]>,
    pub(super) max_tokens: usize,
    /// Prompt and answer together at most.
    pub(super) context: usize,
    pub(super) adapter: Option<AdapterId>,
    pub(super) grammar: Option<Grammar>,
    pub(super) prompt_log_probs: Option<usize>,
    pub(super) priority: i32,
    pub(super) root: Option<BlockHash>,
    pub(super) speculate: bool,
    #[cfg(test)]
    pub(super) fault: Option<super::tests::Fault>,
}

impl ValidRequest {
    /// Checks a request.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub fn new(request: Request, facts: &ModelFacts) -> Result<Self, RequestError> {
        let Request { prompt, sampling, max_tokens, n, adapter, prompt_log_probs, .. } = request;
        let Request { grammar, priority, salt, speculate, .. } = request;
        let ModelFacts { vocab_size, context, samples, .. } = *facts;
        let wanted = max_tokens.unwrap_or(1);
        if prompt.is_empty() {
            return Err(RequestError::EmptyPrompt);
        }
        if prompt.len().saturating_add(wanted) > context {
            return Err(RequestError::TooLong { prompt: prompt.len(), wanted, context });
        }
        if let Some(&id) = prompt.iter().find(|&&id| id as usize >= vocab_size) {
            return Err(RequestError::UnknownToken { id, vocab_size });
        }
        if n == 0 || n > samples {
            return Err(RequestError::Samples { n, most: samples });
        }
        let place = |id| facts.adapters.iter().position(|known| *known == id);
        let adapter = adapter.or(facts.active_adapter);
        let adapter_place =
            adapter.map(|id| place(id).ok_or(RequestError::UnknownAdapter { loaded: facts.adapters.len() }));
        let adapter_place = adapter_place.transpose()?;
        if let Some(asked) = prompt_log_probs.filter(|&asked| asked > vocab_size) {
            return Err(RequestError::PromptLogProbs { asked, vocab_size });
        }
        let chain = |sample| Chain::new(&sampling.for_sample(sample), &prompt, vocab_size, &facts.eos_ids);
        let chains = (0..n).map(chain).collect::<Result<_, _>>()?;
        let root = prompt_log_probs.is_none().then(|| BlockHash::root(adapter_place, salt.as_deref()));
        Ok(Self {
            max_tokens: max_tokens.unwrap_or(context - prompt.len()),
            prompt,
            chains,
            stop_ids: Arc::from([]),
            context,
            adapter,
            grammar,
            prompt_log_probs,
            priority,
            root,
            speculate,
            #[cfg(test)]
            fault: None,
        })
    }

    /// Of a prompt that was checked, with chains made before: an answer for each, which ends with `stop_ids` too.
    pub(crate) fn of_chains(
        prompt: Vec<u32>,
        chains: Vec<Chain>,
        (max_tokens, context): (usize, usize),
        stop_ids: &[u32],
        adapter: Option<AdapterId>,
    ) -> Self {
        Self {
            prompt,
            chains,
            stop_ids: Arc::from(stop_ids),
            max_tokens,
            context,
            adapter,
            grammar: None,
            prompt_log_probs: None,
            priority: 0,
            root: None,
            speculate: false,
            #[cfg(test)]
            fault: None,
        }
    }

    /// Tokens of the prompt.
    pub fn prompt_tokens(&self) -> usize {
        self.prompt.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> ModelFacts {
        ModelFacts {
            vocab_size: 10,
            context: 8,
            eos_ids: vec![0],
            adapters: Vec::new(),
            active_adapter: None,
            samples: 4,
        }
    }

    #[track_caller]
    fn refused(change: impl FnOnce(&mut Request)) -> RequestError {
        let mut request = Request::new(vec![1, 2, 3], SamplingOptions::greedy());
        change(&mut request);
        ValidRequest::new(request, &facts()).unwrap_err()
    }

    #[test]
    fn what_cannot_be_carried_out_is_refused_with_both_numbers() {
        let message = |change: fn(&mut Request)| refused(change).to_string();
        assert_eq!(refused(|r| r.prompt.clear()), RequestError::EmptyPrompt);
        for (change, words) in [
            (
                (|r| r.max_tokens = Some(6)) as fn(&mut Request),
                "the prompt of 3 tokens with 6 to generate exceeds the context of 8 tokens",
            ),
            (|r| r.max_tokens = Some(usize::MAX), "exceeds the context of 8 tokens"),
            (|r| r.prompt = vec![1; 8], "the prompt of 8 tokens with 1 to generate exceeds"),
            (|r| r.prompt[1] = 10, "the prompt holds token id 10, the model's vocabulary ends at 10"),
            (|r| r.n = 0, "0 answers were asked for, expected from 1 to 4"),
            (|r| r.n = 5, "5 answers were asked for, expected from 1 to 4"),
            (|r| r.prompt_log_probs = Some(11), "11 alternatives of each prompt token were asked for"),
            (|r| r.sampling.temperature = -1.0, "temperature is -1"),
            (|r| r.sampling.stop_ids = vec![10], "stop_ids names token 10"),
        ] {
            assert!(message(change).contains(words), "{} for {words}", message(change));
        }
    }

    #[test]
    fn what_is_left_open_fills_the_context() {
        let request = Request::new(vec![1, 2, 3], SamplingOptions::greedy());
        let valid = ValidRequest::new(request.clone(), &facts()).unwrap();
        assert_eq!((valid.max_tokens, valid.prompt_tokens(), valid.root.is_some()), (5, 3, true));
        let valid = ValidRequest::new(Request { prompt_log_probs: Some(0), ..request }, &facts()).unwrap();
        assert!(valid.root.is_none(), "log-probabilities of a prompt are computed, not found");
    }
}
