//! `--kv` and `--kv-dtype`: how keys and values are kept.

use clap::ValueEnum;
use fornax_base::exit::Exit;
use fornax_infer::engine::{EngineError, KvLayout};
use fornax_model::kv_cache::KvElement;

use super::report::Failure;

/// What is stored of keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KvDtype {
    Auto,
    F32,
    Bf16,
    F16,
    Int8,
}

impl KvDtype {
    /// `None` is the dtype that is computed in.
    pub(crate) fn element(self) -> Option<KvElement> {
        match self {
            KvDtype::Auto => None,
            KvDtype::F32 => Some(KvElement::F32),
            KvDtype::Bf16 => Some(KvElement::BF16),
            KvDtype::F16 => Some(KvElement::F16),
            KvDtype::Int8 => Some(KvElement::Int8),
        }
    }
}

/// How they lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kv {
    Paged,
    Contiguous,
}

impl Kv {
    /// In pages of the usual size, or in one piece a sequence.
    pub(crate) fn layout(self) -> KvLayout {
        match self {
            Kv::Paged => KvLayout::default(),
            Kv::Contiguous => KvLayout::Contiguous,
        }
    }
}

/// Too little memory is the user's matter, anything else is not.
pub(crate) fn engine_failure(error: EngineError) -> Failure {
    match error {
        EngineError::Memory(_) => Failure::new(Exit::BadInput, error)
            .hint("ask for fewer tokens, or for smaller elements with --kv-dtype"),
        EngineError::Speculation(_) => Failure::new(Exit::BadInput, error)
            .hint("a draft has the model's vocabulary and at least its context; `--draft lookup` needs no model"),
        error => Failure::new(Exit::Failed, error),
    }
}
