//! Completions that a model writes to learn from: several for each prompt, in batches of prompts of one length.

use std::collections::BTreeMap;

use fornax_infer::completions::{Completion, complete};
use fornax_infer::generate::{GenerateError, Limits};
use fornax_infer::sampler::{Chain, SamplerError, SamplingOptions};
use fornax_model::{Decoder, KvCache, KvElement};

/// Bytes of keys and values that a batch may take; one prompt's samples are never parted.
const CACHE_BYTES: u64 = 1 << 30;

/// How completions are drawn.
#[derive(Debug, Clone)]
pub struct Sampling {
    /// Temperature and filters; the seed of each completion is given apart.
    pub options: SamplingOptions,
    /// Tokens of a completion at most.
    pub max_tokens: usize,
    /// Tokens of prompt and completion together at most.
    pub context: usize,
    /// Ids that end a completion.
    pub stop_ids: Vec<u32>,
}

/// Why there are no completions.
#[derive(Debug, thiserror::Error)]
pub enum RolloutError {
    /// The sampling options are wrong.
    #[error(transparent)]
    Sampler(#[from] SamplerError),
    /// A prompt cannot be continued.
    #[error(transparent)]
    Generate(#[from] GenerateError),
}

/// `samples` completions of each prompt by `plain`, which is off the autodiff device. What a completion becomes is a
/// function of the model, its prompt and `seed(place of the prompt, number of the sample)`.
///
/// # Errors
/// When a prompt is empty or leaves no room for a token, and what sampling reports.
pub fn roll_out(
    plain: &Decoder,
    prompts: &[&[u32]],
    samples: usize,
    sampling: &Sampling,
    seed: &dyn Fn(usize, usize) -> u64,
) -> Result<Vec<Vec<Completion>>, RolloutError> {
    let mut of_length: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (place, prompt) in prompts.iter().enumerate() {
        of_length.entry(prompt.len()).or_default().push(place);
    }
    let mut all = vec![Vec::new(); prompts.len()];
    for (length, places) in of_length {
        let room = sampling.context.min(plain.config().context);
        if length >= room {
            return Err(GenerateError::PromptTooLong { tokens: length, context: room }.into());
        }
        let limits =
            Limits { max_tokens: sampling.max_tokens.min(room - length), stop_ids: sampling.stop_ids.clone() };
        let row_bytes =
            KvCache::bytes(plain.config(), samples, length + limits.max_tokens, KvElement::of(plain.compute()));
        let at_once = (CACHE_BYTES / row_bytes.max(1)).max(1) as usize;
        for places in places.chunks(at_once) {
            let group: Vec<&[u32]> = places.iter().map(|&place| prompts[place]).collect();
            let chain = |place: usize, sample: usize| {
                let options = SamplingOptions { seed: seed(place, sample), ..sampling.options.clone() };
                Chain::new(&options, prompts[place], plain.config().vocab_size, &sampling.stop_ids)
            };
            let chains: Vec<Chain> = places
                .iter()
                .flat_map(|&place| (0..samples).map(move |sample| (place, sample)))
                .map(|(place, sample)| chain(place, sample))
                .collect::<Result<_, _>>()?;
            let mut completions = complete(plain, &group, &chains, &limits)?.into_iter();
            for &place in places {
                all[place] = completions.by_ref().take(samples).collect();
            }
        }
    }
    Ok(all)
}
