use std::ops::ControlFlow;

use burn::tensor::Device;
use fornax_model::{Layout, ModelConfig, token_tensor};

use super::*;
use crate::generate::generate;
use crate::sampler::SamplingOptions;

fn decoder() -> Decoder {
    let config = ModelConfig {
        vocab_size: 13,
        width: 16,
        n_heads: 4,
        n_kv_heads: 2,
        head_dim: 4,
        ffn_width: 24,
        context: 24,
        // Wide enough that a token's probability depends on what stands before it.
        init_std: 0.5,
        ..ModelConfig::llama(2)
    };
    Decoder::init(&config, 5, &Device::flex())
}

fn chain(temperature: f32, seed: u64) -> Chain {
    let options = SamplingOptions { temperature, top_k: 9, seed, ..SamplingOptions::default() };
    Chain::new(&options, &[], 13, &[]).unwrap()
}

/// What `generate` makes of one row.
fn alone(decoder: &Decoder, prompt: &[u32], chain: Chain, limits: &Limits) -> (Vec<u32>, Finish) {
    let mut ids = Vec::new();
    let report = generate(decoder, prompt, &chain, limits, &mut |id| {
        ids.push(id);
        ControlFlow::Continue(())
    });
    (ids, report.unwrap().finish)
}

/// Of each new token, by a forward pass over the whole row.
fn log_probs(decoder: &Decoder, prompt: &[u32], ids: &[u32]) -> Vec<f32> {
    let row = [prompt, ids].concat();
    let (inputs, targets) = (&row[..row.len() - 1], &row[1..]);
    let device = decoder.device();
    let layout = Layout::contiguous(0, inputs.len(), &device);
    let hidden = decoder.forward(token_tensor(inputs, 1, &device), &layout, None);
    let nll = decoder.token_nll(hidden, token_tensor(targets, 1, &device)).try_into_vec_as::<f32>().unwrap();
    nll[prompt.len() - 1..].iter().map(|nll| -nll).collect()
}

#[track_caller]
fn check(temperature: f32, limits: &Limits) -> Vec<Completion> {
    let decoder = decoder();
    let prompts: [&[u32]; 3] = [&[1, 2, 3, 4], &[5, 1, 0, 2], &[9, 9, 12, 7]];
    let seeds = |row: usize| chain(temperature, 100 + row as u64);
    let chains: Vec<Chain> = (0..12).map(seeds).collect();
    let found = complete(&decoder, &prompts, &chains, limits).unwrap();
    assert_eq!(found.len(), 12);
    for (row, completion) in found.iter().enumerate() {
        let prompt = prompts[row / 4];
        let (ids, finish) = alone(&decoder, prompt, seeds(row), limits);
        assert_eq!((completion.text_ids(), completion.finish), (ids.as_slice(), finish), "row {row}");
        let stopped = completion.ids.len() - completion.text_ids().len();
        assert_eq!(stopped, usize::from(finish == Finish::Stop));
        assert!(stopped == 0 || limits.stop_ids.contains(completion.ids.last().unwrap()));
        if !completion.ids.is_empty() {
            let expected = log_probs(&decoder, prompt, &completion.ids);
            assert_eq!(completion.log_probs.len(), expected.len());
            let close = |(a, b): (&f32, &f32)| (a - b).abs() < 1e-4;
            assert!(completion.log_probs.iter().zip(&expected).all(close), "row {row}");
        }
    }
    found
}

/// Rows that stop at different times, so that the batch is made smaller on the way; the others see nothing of it.
#[test]
fn rows_of_a_batch_are_what_each_is_alone() {
    let limits = Limits { max_tokens: 17, stop_ids: vec![3, 7] };
    let found = check(1.0, &limits);
    let lengths: std::collections::BTreeSet<usize> = found.iter().map(|c| c.ids.len()).collect();
    assert!(lengths.len() > 4, "{lengths:?}");
    assert!(found.iter().any(|c| c.finish == Finish::Stop));
}

#[test]
fn greedy_rows_of_one_prompt_agree_and_are_those_of_single_generation() {
    let found = check(0.0, &Limits { max_tokens: 9, stop_ids: Vec::new() });
    assert!(found.chunks(4).all(|rows| rows.iter().all(|row| row == &rows[0])));
    assert!(found.iter().all(|row| row.ids.len() == 9 && row.finish == Finish::Length));
}

#[test]
fn the_context_and_a_limit_of_no_tokens_end_rows() {
    let found = check(1.0, &Limits { max_tokens: 1000, stop_ids: Vec::new() });
    assert!(found.iter().all(|row| row.ids.len() == 20 && row.finish == Finish::Context));
    let found = check(1.0, &Limits { max_tokens: 0, stop_ids: Vec::new() });
    assert!(found.iter().all(|row| row.ids.is_empty() && row.finish == Finish::Length));
}

#[test]
fn prompts_that_cannot_be_continued_are_refused() {
    let (decoder, limits) = (decoder(), Limits { max_tokens: 1, stop_ids: Vec::new() });
    let chains = [chain(0.0, 0)];
    let refused = |prompt: &[u32]| complete(&decoder, &[prompt], &chains, &limits).unwrap_err();
    assert!(matches!(refused(&[]), GenerateError::EmptyPrompt));
    assert!(matches!(refused(&[1; 24]), GenerateError::PromptTooLong { tokens: 24, context: 24 }));
    assert!(matches!(refused(&[13]), GenerateError::UnknownToken { id: 13, vocab_size: 13 }));
}

#[test]
#[should_panic(expected = "prompts of 2 and 1 tokens in one batch")]
fn prompts_of_one_batch_have_one_length() {
    let chains = [chain(0.0, 0), chain(0.0, 0)];
    let limits = Limits { max_tokens: 1, stop_ids: Vec::new() };
    let _ = complete(&decoder(), &[&[1, 2], &[1]], &chains, &limits);
}
