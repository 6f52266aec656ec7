//! The decoding loop for one sequence with proposals.

use std::ops::ControlFlow;
use std::time::Instant;

use burn::tensor::DType;
use fornax_model::{Decoder, KvCache, KvElement, Layout, token_tensor};

use super::accept::choose;
use super::draft::{Item, Speculator};
use crate::completions::{last_logits, plain_device};
use crate::generate::{Finish, GenerateError, Limits, PREFILL_CHUNK, Report, check};
use crate::sampler::Chain;

/// Continues `prompt` as [`crate::generate::generate`] does, by several tokens at a time where `speculator` proposes
/// them. The chain stands behind the prompt.
///
/// # Errors
/// As [`crate::generate::generate`].
pub fn generate(
    decoder: &Decoder,
    prompt: &[u32],
    chain: &mut Chain,
    speculator: &mut Speculator,
    limits: &Limits,
    on_token: &mut dyn FnMut(u32) -> ControlFlow<()>,
) -> Result<Report, GenerateError> {
    check(decoder, prompt)?;
    let context = decoder.config().context;
    let capacity = prompt.len().saturating_add(limits.max_tokens).min(context);
    let element = KvElement::of(decoder.compute());
    let mut cache = KvCache::new(decoder.config(), 1, capacity, element, &plain_device(decoder));
    let start = Instant::now();
    let mut logits = Vec::new();
    for chunk in prompt.chunks(PREFILL_CHUNK) {
        logits = last_logits(decoder, chunk, 1, &mut cache)?;
    }
    let prefill = start.elapsed();
    let mut history = prompt.to_vec();
    let (mut state, mut proposals) = (speculator.begin(), Vec::new());
    let finish = loop {
        let (before, mut accepted, mut finish) = (history.len(), 0, None);
        for (i, logits) in logits.iter().enumerate() {
            let position = history.len();
            if position == prompt.len() + limits.max_tokens {
                finish = Some(Finish::Length);
                break;
            }
            let choice = choose(chain, logits, None, proposals.get(i));
            let choice = choice.map_err(|source| GenerateError::Sample { position, source })?;
            let id = choice.sampled.id;
            if limits.stop_ids.contains(&id) {
                finish = Some(Finish::Stop);
                break;
            }
            chain.accept(id);
            history.push(id);
            accepted += usize::from(choice.accepted);
            if on_token(id).is_break() {
                finish = Some(Finish::Cancelled);
            } else if position + 1 >= context {
                finish = Some(Finish::Context);
            }
            if finish.is_some() || !choice.accepted {
                break;
            }
        }
        speculator.judged(&mut state, before, accepted, history.len() - before);
        if history.len() == prompt.len() + limits.max_tokens {
            finish = finish.or(Some(Finish::Length));
        }
        if let Some(finish) = finish {
            break finish;
        }
        cache.truncate(history.len() - 1);
        let room = capacity - history.len() - 1;
        let length = speculator.length(&mut state, 1, room);
        let mut item = [Item { history: &history, pages: &[], length, chain, state: &mut state }];
        proposals = speculator.propose(decoder, &mut cache, &mut item)?.concat();
        let begun = Instant::now();
        let ids: Vec<u32> = history.last().copied().into_iter().chain(proposals.iter().map(|p| p.id)).collect();
        logits = all_logits(decoder, &ids, &mut cache)?;
        speculator.step_took(1, usize::from(ids.len() > 1), ids.len(), begun.elapsed().as_secs_f64());
    };
    let decode = start.elapsed() - prefill;
    let generated_tokens = history.len() - prompt.len();
    Ok(Report { finish, prompt_tokens: prompt.len(), generated_tokens, prefill, decode })
}

/// Feeds `ids` to a cache of one row: the logits after each of them.
fn all_logits(decoder: &Decoder, ids: &[u32], cache: &mut KvCache) -> Result<Vec<Vec<f32>>, GenerateError> {
    let device = plain_device(decoder);
    let layout = Layout::contiguous(cache.len(), ids.len(), &device);
    let hidden = decoder.forward(token_tensor(ids, 1, &device), &layout, Some(cache));
    let logits = decoder.logits(hidden).cast(DType::F32);
    let values = logits
        .try_into_vec_as::<f32>()
        .map_err(|error| GenerateError::Device { position: cache.len(), message: error.to_string() })?;
    Ok(values.chunks_exact(decoder.config().vocab_size).map(<[f32]>::to_vec).collect())
}
