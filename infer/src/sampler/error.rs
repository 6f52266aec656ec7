//! Why no token can be chosen.

/// What a sampler refuses.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SamplerError {
    /// An option is out of its range.
    #[error("{field} is {value}, expected {range}")]
    Option {
        /// Name of the option.
        field: &'static str,
        /// Its value.
        value: String,
        /// The range in words.
        range: &'static str,
    },
    /// An option names a token that does not exist.
    #[error("{field} names token {id}, the vocabulary has {vocab_size} tokens, counted from 0")]
    Token {
        /// Name of the option.
        field: &'static str,
        /// The id.
        id: u32,
        /// Tokens of the vocabulary.
        vocab_size: usize,
    },
    /// An option is set whose stage the chain leaves out, so that it would do nothing.
    #[error("{field} is {value}, but the chain leaves out {stage}")]
    NotInChain {
        /// Name of the option.
        field: &'static str,
        /// Its value.
        value: String,
        /// The stage that reads it.
        stage: &'static str,
    },
    /// A stage stands twice in the chain.
    #[error("the chain holds {stage} twice, expected each stage at most once")]
    Repeated {
        /// The stage.
        stage: &'static str,
    },
    /// A name that is no stage.
    #[error("{name:?} is no stage of the chain, expected some of {known}")]
    UnknownStage {
        /// The name.
        name: String,
        /// All names.
        known: String,
    },
    /// The number of logits is not that of the vocabulary.
    #[error("there are {found} logits, the vocabulary has {vocab_size} tokens")]
    Logits {
        /// Number of logits.
        found: usize,
        /// Tokens of the vocabulary.
        vocab_size: usize,
    },
    /// A logit is NaN or positive infinity, which a sound model never computes.
    #[error("the logit of token {id} is {value}, expected a finite number or -inf")]
    NotFinite {
        /// The lowest such token.
        id: u32,
        /// Its logit.
        value: f32,
    },
    /// The model rules every token out.
    #[error("all {vocab_size} logits are -inf, at least 1 must be finite")]
    AllMasked {
        /// Number of logits.
        vocab_size: usize,
    },
    /// Grammar, allowed and banned ids together rule every token out.
    #[error("grammar, allowed_ids and banned_ids leave 0 of {vocab_size} tokens, at least 1 is needed")]
    NothingAllowed {
        /// Number of logits.
        vocab_size: usize,
    },
}
