//! What a run is measured by while it trains: loss on a fixed slice of held-out text, and samples.

use std::ops::ControlFlow;

use fornax_base::rng::rng;
use fornax_data::batches::Batch;
use fornax_data::tokenizer::Tokenizer;
use fornax_infer::generate::{Limits, generate};
use fornax_infer::sampler::{Chain, SamplingOptions};
use fornax_model::Decoder;

use crate::error::TrainError;
use crate::step::{layout, tokens};

/// Loss over a fixed slice.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Nats per target token.
    pub loss: f64,
    /// The same in bits per byte of text: comparable between tokenizers. Special tokens count in neither.
    pub bits_per_byte: f64,
    /// Target tokens.
    pub tokens: u64,
}

/// Measures `decoder` (off the autodiff device) on `batches`.
///
/// # Errors
/// [`TrainError::Device`] when the device fails.
pub fn measure(decoder: &Decoder, batches: &[Batch], tokenizer: &Tokenizer) -> Result<Measured, TrainError> {
    let (mut nats, mut n_tokens) = (0.0, 0u64);
    let (mut text_nats, mut bytes) = (0.0, 0u64);
    for batch in batches {
        let device = decoder.device();
        let hidden = decoder.forward(tokens(&batch.inputs, batch, &device), &layout(batch, &device), None);
        let nll = decoder.token_nll(hidden, tokens(&batch.targets, batch, &device));
        let nll = nll.try_into_vec_as::<f32>().map_err(TrainError::device)?;
        for ((&nll, &target), _) in nll.iter().zip(&batch.targets).zip(&batch.mask).filter(|(_, m)| **m) {
            nats += f64::from(nll);
            n_tokens += 1;
            let length = tokenizer.token_bytes(target) as u64;
            if length > 0 {
                text_nats += f64::from(nll);
                bytes += length;
            }
        }
    }
    let bits_per_byte = text_nats / std::f64::consts::LN_2 / bytes.max(1) as f64;
    Ok(Measured { loss: nats / n_tokens.max(1) as f64, bits_per_byte, tokens: n_tokens })
}

/// The text after the prompt, a function of the model, the options and (seed, step).
///
/// # Errors
/// What generation or decoding reports.
pub fn sample(
    decoder: &Decoder,
    tokenizer: &Tokenizer,
    prompt_ids: &[u32],
    limits: &Limits,
    temperature: f64,
    (seed, step): (u64, u64),
) -> Result<String, TrainError> {
    let seed = rng(seed, step, "sample").next_u64();
    let options = SamplingOptions { temperature: temperature as f32, seed, ..SamplingOptions::default() };
    let chain = Chain::new(&options, prompt_ids, decoder.config().vocab_size, &[])?;
    let mut generated = Vec::new();
    generate(decoder, prompt_ids, &chain, limits, &mut |id| {
        generated.push(id);
        ControlFlow::Continue(())
    })?;
    Ok(tokenizer.decode(&generated, true)?)
}
