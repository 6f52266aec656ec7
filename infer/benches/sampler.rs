//! How long the choice of a token takes with a vocabulary of 128,256, that of Llama 3.
//!
//! `cargo bench -p fornax-infer --bench sampler`; a line for each chain: microseconds, median of 200 tokens.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it measures")]

use std::time::Instant;

use fornax_base::rng::rng;
use fornax_infer::sampler::{Chain, SamplingOptions};

const VOCAB: usize = 128_256;
const TOKENS: usize = 200;

fn main() {
    // Shaped like a model's: a bulk of deviation 2.5 and a few tokens far above it.
    let mut random = rng(1, 0, "bench");
    let mut logits: Vec<f32> = (0..VOCAB).map(|_| random.normal_f32() * 2.5).collect();
    for rank in 0..40 {
        logits[random.below(VOCAB as u64) as usize] = 18.0 - 0.2 * rank as f32;
    }
    let prompt: Vec<u32> = (0..2000).map(|_| random.below(5000) as u32).collect();
    // As a grammar's: half of the vocabulary, in runs.
    let mask: Vec<u32> = (0..VOCAB / 32).map(|i| if i % 64 < 32 { 0x0f0f_ffff } else { 0 }).collect();
    let default = SamplingOptions::default;
    let usual = || SamplingOptions { temperature: 0.8, top_k: 40, top_p: 0.95, min_p: 0.05, ..default() };
    for (name, options, mask) in [
        ("greedy", SamplingOptions::greedy(), None),
        ("temperature", SamplingOptions { temperature: 0.8, ..default() }, None),
        ("temperature, top-p", SamplingOptions { temperature: 0.8, top_p: 0.95, ..default() }, None),
        ("temperature, top-k, top-p, min-p", usual(), None),
        ("the same, 20 log-probs", SamplingOptions { top_log_probs: 20, ..usual() }, None),
        ("the same, mask", usual(), Some(mask.as_slice())),
        ("greedy, mask", SamplingOptions::greedy(), Some(mask.as_slice())),
        (
            "the same, penalties",
            SamplingOptions { repetition_penalty: 1.1, presence_penalty: 0.5, ..usual() },
            None,
        ),
        ("the same, dry", SamplingOptions { dry_multiplier: 0.8, ..usual() }, None),
        ("top-n-sigma", SamplingOptions { temperature: 0.8, top_n_sigma: 1.0, ..default() }, None),
        ("typical", SamplingOptions { temperature: 0.8, typical_p: 0.95, ..default() }, None),
        ("xtc", SamplingOptions { xtc_probability: 1.0, ..usual() }, None),
        ("mirostat", SamplingOptions { mirostat: true, ..default() }, None),
    ] {
        match median(&options, &prompt, &logits, mask) {
            Ok(microseconds) => println!("{microseconds:8.1} us  {name}"),
            Err(error) => println!("{name}: {error}"),
        }
    }
}

fn median(
    options: &SamplingOptions,
    prompt: &[u32],
    logits: &[f32],
    mask: Option<&[u32]>,
) -> Result<f64, fornax_infer::sampler::SamplerError> {
    let mut chain = Chain::new(options, prompt, VOCAB, &[])?;
    let mut times = Vec::with_capacity(TOKENS);
    for _ in 0..TOKENS {
        let start = Instant::now();
        let id = chain.sample(logits, mask)?.id;
        chain.accept(id);
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[TOKENS / 2])
}
