//! What an engine tells about a request.

use std::time::Duration;

use crate::generate::Finish;
use crate::grammar::GrammarError;
use crate::sampler::{Sampled, SamplerError};

/// Something that happened to a request.
#[derive(Debug, Clone, PartialEq)]
pub enum TokenEvent {
    /// It left the queue.
    Started {
        /// Tokens of the prompt whose keys and values were there already.
        reused_tokens: usize,
        /// Time in the queue.
        queued: Duration,
    },
    /// The next tokens of the prompt with their log-probabilities, from its second token on; several such events make
    /// the whole.
    PromptLogProbs(Vec<Sampled>),
    /// A token.
    Token {
        /// Of which answer, from 0.
        sample: usize,
        /// Its id.
        id: u32,
        /// Natural logarithm of its probability under the model, before temperature and filters.
        log_prob: f32,
        /// The most probable tokens at its place with theirs, as many as were asked for.
        top: Vec<(u32, f32)>,
    },
    /// An answer is complete.
    Finished {
        /// Which.
        sample: usize,
        /// Why.
        finish: Finish,
        /// The token that ended it, where one did; it is not among the answer's tokens.
        stop: Option<Sampled>,
        /// What it took.
        usage: Usage,
    },
    /// The request failed; nothing more comes. Others are not touched.
    Failed(SequenceError),
}

/// What an answer took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Those of them that were not computed because an earlier request had them.
    pub reused_tokens: usize,
    /// Tokens of the answer, the one that ended it not counted.
    pub generated_tokens: usize,
    /// Time in the queue.
    pub queued: Duration,
    /// Time from there to the logits of the last prompt token.
    pub prefill: Duration,
    /// Time from there to the end.
    pub decode: Duration,
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SequenceError {
    /// The logits cannot be sampled from.
    #[error("token {position} cannot be sampled")]
    Sample {
        /// Position in the sequence, the prompt included.
        position: usize,
        /// Why.
        source: SamplerError,
    },
    /// The grammar allows nothing more, or gave up.
    #[error("token {position} has no place in the grammar")]
    Grammar {
        /// Position in the sequence, the prompt included.
        position: usize,
        /// Why.
        source: GrammarError,
    },
    /// A fault of this program in choosing its tokens.
    #[error("choosing token {position} failed: {message}")]
    Panicked {
        /// Position in the sequence, the prompt included.
        position: usize,
        /// The panic's words.
        message: String,
    },
    /// The engine is gone.
    #[error("the engine failed: {message}")]
    EngineDied {
        /// Its last words.
        message: String,
    },
    /// The engine was shut down before the answer was complete.
    #[error("the engine was shut down before the answer was complete")]
    Shutdown,
}
