//! The engine over small models: the same answers in any company, and faults that stay where they are.

mod company;
mod faults;

use burn::tensor::Device;
use fornax_model::{Decoder, ModelConfig};

use super::*;
use crate::generate::Finish;
use crate::sampler::SamplingOptions;

/// What goes wrong in a request, for tests of everything around it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// Choosing the token after so many others panics.
    PanicAt(usize),
    /// The engine's thread panics.
    EngineDies,
}

impl Fault {
    pub(super) fn strike(self, produced: usize) {
        assert!(!matches!(self, Fault::PanicAt(at) if at == produced), "an injected fault");
    }

    pub(super) fn strike_engine(self) {
        assert!(!matches!(self, Fault::EngineDies), "an injected death");
    }
}

const VOCAB: usize = 40;

fn config() -> ModelConfig {
    ModelConfig {
        vocab_size: VOCAB,
        width: 32,
        n_heads: 4,
        n_kv_heads: 2,
        head_dim: 8,
        ffn_width: 48,
        context: 2048,
        // Wide enough that a token's probability depends on what stands before it.
        init_std: 0.4,
        eos_ids: vec![0],
        tied: false,
        ..ModelConfig::llama(2)
    }
}

fn decoder() -> Decoder {
    Decoder::init(&config(), 5, &Device::flex())
}

fn options() -> EngineOptions {
    EngineOptions {
        layout: KvLayout::Paged { page_len: 4 },
        memory: Memory::Tokens(16 * 128),
        ..EngineOptions::default()
    }
}

/// A prompt of `len` tokens, one of many.
fn prompt(number: u64, len: usize) -> Vec<u32> {
    let mut random = fornax_base::rng::rng(number, 0, "engine test");
    (0..len).map(|_| 1 + random.below(VOCAB as u64 - 1) as u32).collect()
}

fn sampling(number: u64) -> SamplingOptions {
    let seeded = SamplingOptions { seed: number, temperature: 0.9, ..SamplingOptions::default() };
    match number % 4 {
        0 | 1 => SamplingOptions::greedy(),
        2 => SamplingOptions { top_k: 12, repetition_penalty: 1.2, ..seeded },
        _ => SamplingOptions { min_p: 0.02, ..seeded },
    }
}

/// Request number `number` of a mixed set: prompts of 1 to 60 tokens, answers of up to 30.
fn request(number: u64) -> Request {
    let len = [3, 17, 1, 60, 8, 32, 16][number as usize % 7];
    let sampling = SamplingOptions { top_log_probs: 2, ..sampling(number) };
    let max_tokens = Some([30, 5, 18, 1][number as usize % 4]);
    Request { max_tokens, ..Request::new(prompt(number, len), sampling) }
}

fn valid(request: Request) -> ValidRequest {
    ValidRequest::new(request, &ModelFacts::of(&decoder(), 128, 16)).unwrap()
}
