//! What comes out is distributed as without proposals.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use burn::tensor::{Device, Tensor, TensorData};
use fornax_base::rng::{Rng, rng};
use fornax_model::{Decoder, Layout, ModelConfig, token_tensor};

use super::*;
use crate::generate::{Finish, GenerateError, Limits, Report};
use crate::sampler::{Chain, Distribution, SamplingOptions};

/// Pearson's statistic of counts against probabilities, and its degrees of freedom; cells of fewer than 5 expected
/// counts are put together.
fn chi_square(counts: &[u64], probabilities: &[f64]) -> (f64, f64) {
    let n = counts.iter().sum::<u64>() as f64;
    let (mut statistic, mut cells, mut rest) = (0.0, 0.0, (0.0, 0.0));
    let mut cell = |count: f64, expected: f64| {
        statistic += (count - expected).powi(2) / expected;
        cells += 1.0;
    };
    for (&count, probability) in counts.iter().zip(probabilities) {
        let (count, expected) = (count as f64, n * probability);
        if expected == 0.0 {
            assert_eq!(count, 0.0, "a token that cannot come came");
        } else if expected < 5.0 {
            rest = (rest.0 + count, rest.1 + expected);
        } else {
            cell(count, expected);
        }
    }
    if rest.1 > 0.0 {
        cell(rest.0, rest.1);
    }
    (statistic, cells - 1.0)
}

/// The value that a chi-square variable passes with probability 1e-4 (Wilson and Hilferty 1931); seeds are fixed, so a
/// test that passed once passes always.
fn critical(freedom: f64) -> f64 {
    const Z: f64 = 3.719;
    let v = 2.0 / (9.0 * freedom);
    freedom * (1.0 - v + Z * v.sqrt()).powi(3)
}

#[track_caller]
fn assert_follows(counts: &[u64], probabilities: &[f64]) {
    let (statistic, freedom) = chi_square(counts, probabilities);
    assert!(statistic < critical(freedom.max(1.0)), "{statistic} with {freedom} degrees of freedom: {counts:?}");
}

#[test]
fn the_test_itself_rejects_another_distribution() {
    // scipy's chi2.isf(1e-4, n) is 23.51, 31.83 and 109.50 for 4, 8 and 60 degrees of freedom.
    for (freedom, exact) in [(4.0, 23.51), (8.0, 31.83), (60.0, 109.50)] {
        assert!((critical(freedom) - exact).abs() < 0.7, "{freedom}: {}", critical(freedom));
    }
    let counts = [2100, 1900, 3000, 3000];
    assert!(chi_square(&counts, &[0.2, 0.2, 0.3, 0.3]).0 > 9.9);
    let skewed = chi_square(&[2200, 1800, 3000, 3000], &[0.2, 0.2, 0.3, 0.3]);
    assert!(skewed.0 > critical(skewed.1));
}

fn random_distribution(random: &mut Rng, tokens: u32) -> Distribution {
    let mut weight = |id| {
        let weight = (2.0 * f64::from(random.normal_f32())).exp();
        (id, if random.uniform_f64() < 0.7 { weight } else { 0.0 })
    };
    Distribution::from_weights((0..tokens).map(&mut weight).collect::<Vec<_>>())
        .unwrap_or_else(|| Distribution::certain(0))
}

/// Whatever the draft is, its accepted and corrected tokens follow the target, and it is accepted as often as the paper
/// says: `sum min(p, q)`.
#[test]
fn the_rule_gives_the_target_distribution() {
    let mut random = rng(1, 0, "test/distributions");
    for case in 0..20 {
        let target = random_distribution(&mut random, 9);
        let draft = match case {
            0 => target.clone(),
            // Nothing in common.
            1 => Distribution::certain((0..9).find(|&id| target.probability(id) == 0.0).unwrap()),
            2 => Distribution::certain(target.tokens[0].0),
            _ => random_distribution(&mut random, 9),
        };
        let (n, mut counts, mut accepted) = (20_000, [0u64; 9], 0u64);
        for _ in 0..n {
            let id = draft.draw(random.uniform_f64());
            let uniforms = (random.uniform_f64(), random.uniform_f64());
            let came = match accept(&target, &draft, id, uniforms) {
                Verdict::Accepted => {
                    accepted += 1;
                    id
                }
                Verdict::Instead(other) => {
                    assert_ne!(other, id, "a refused token came all the same");
                    other
                }
            };
            counts[came as usize] += 1;
        }
        let probabilities: Vec<f64> = (0..9).map(|id| target.probability(id)).collect();
        assert_follows(&counts, &probabilities);
        let expected: f64 = (0..9).map(|id| target.probability(id).min(draft.probability(id))).sum();
        let deviation = (expected * (1.0 - expected) * f64::from(n)).sqrt();
        let apart = (accepted as f64 - expected * f64::from(n)).abs();
        assert!(apart <= 5.0 * deviation + 1e-6, "accepted {accepted} of {n}, expected a share of {expected}");
    }
}

const VOCABULARY: usize = 6;

fn config(n_layers: usize) -> ModelConfig {
    ModelConfig {
        vocab_size: VOCABULARY,
        width: 8,
        n_heads: 2,
        n_kv_heads: 1,
        head_dim: 4,
        ffn_width: 12,
        context: 40,
        ..ModelConfig::llama(n_layers)
    }
}

/// Random weights, ten times as large as usual, so that the next token is not everything alike.
fn decoder(n_layers: usize, seed: u64) -> Decoder {
    let mut decoder = Decoder::init(&config(n_layers), seed, &Device::flex());
    decoder.visit_mut(&mut |name, mut parameter| {
        if !name.contains("norm") {
            parameter.set_flat(parameter.flat() * 10.0);
        }
    });
    decoder
}

fn logits_after(decoder: &Decoder, ids: &[u32]) -> Vec<f32> {
    let device = decoder.device();
    let layout = Layout::contiguous(0, ids.len(), &device);
    let hidden = decoder.forward(token_tensor(ids, 1, &device), &layout, None);
    let t = ids.len();
    decoder.logits(hidden.slice_dim(1, t - 1..t)).into_data().try_to_vec::<f32>().unwrap()
}

fn chain(options: &SamplingOptions, prompt: &[u32]) -> Chain {
    Chain::new(options, prompt, VOCABULARY, &[]).unwrap()
}

/// The probability of each continuation by `length` tokens, by enumeration.
fn enumerate(
    decoder: &Decoder,
    options: &SamplingOptions,
    prompt: &[u32],
    length: usize,
) -> BTreeMap<Vec<u32>, f64> {
    let mut all = BTreeMap::from([(Vec::new(), 1.0)]);
    for _ in 0..length {
        let mut longer = BTreeMap::new();
        for (ids, probability) in all {
            let mut chain = chain(options, prompt);
            ids.iter().for_each(|&id| chain.accept(id));
            let text = [prompt, &ids].concat();
            for (id, next) in chain.distribution(&logits_after(decoder, &text), None).unwrap().tokens {
                longer.insert([ids.as_slice(), &[id]].concat(), probability * next);
            }
        }
        all = longer;
    }
    all
}

fn options(draft: Draft, drawn: bool) -> SpeculationOptions {
    SpeculationOptions { most: 3, fixed: true, drawn, ..SpeculationOptions::new(draft) }
}

fn run(
    decoder: &Decoder,
    prompt: &[u32],
    sampling: &SamplingOptions,
    speculator: &mut Speculator,
    max_tokens: usize,
) -> (Vec<u32>, Report) {
    let (mut ids, limits) = (Vec::new(), Limits { max_tokens, stop_ids: Vec::new() });
    let mut chain = Chain::new(sampling, prompt, decoder.config().vocab_size, &[]).unwrap();
    let mut keep = |id| {
        ids.push(id);
        ControlFlow::Continue(())
    };
    let report = generate(decoder, prompt, &mut chain, speculator, &limits, &mut keep).unwrap();
    (ids, report)
}

/// Four sampled tokens, of which up to three come from one round, against the product of the chain's own
/// distributions, with a plain and with a long chain, for every kind of draft.
#[test]
fn sampled_texts_follow_the_distribution_of_the_whole_chain() {
    let target = decoder(2, 3);
    let prompt = [1, 2, 1, 2, 3, 1];
    let plain = SamplingOptions::default();
    let long = SamplingOptions {
        temperature: 1.3,
        top_k: 5,
        top_p: 0.95,
        repetition_penalty: 1.2,
        frequency_penalty: 0.3,
        presence_penalty: 0.2,
        ..SamplingOptions::default()
    };
    for sampling in [plain, long] {
        let expected = enumerate(&target, &sampling, &prompt, 4);
        let total: f64 = expected.values().sum();
        assert!((total - 1.0).abs() < 1e-9, "{total}");
        let drafts = [
            (Draft::Model(Box::new(decoder(1, 4))), true),
            (Draft::Model(Box::new(decoder(1, 4))), false),
            (Draft::EarlyExit { layers: 1 }, true),
            (Draft::Lookup(Lookup { least: 1, most: 3 }), true),
        ];
        for (draft, drawn) in drafts {
            let word = format!("{draft:.20?} {drawn}");
            let mut speculator = Speculator::new(options(draft, drawn), &target, 12).unwrap();
            let mut counts: BTreeMap<Vec<u32>, u64> = BTreeMap::new();
            for seed in 0..2000 {
                let sampling = SamplingOptions { seed, ..sampling.clone() };
                let (ids, _) = run(&target, &prompt, &sampling, &mut speculator, 4);
                *counts.entry(ids).or_default() += 1;
            }
            assert!(counts.keys().all(|ids| expected.contains_key(ids)), "{word}: an impossible text");
            let counts: Vec<u64> = expected.keys().map(|ids| counts.get(ids).copied().unwrap_or(0)).collect();
            assert_follows(&counts, &expected.values().copied().collect::<Vec<_>>());
            let stats = speculator.stats();
            assert!(stats.accepted > 0 && stats.accepted < stats.drafted, "{word}: {stats:?}");
        }
    }
}

/// Proposals that were not drawn leave every sampled text as it is, seed by seed.
#[test]
fn without_drawn_proposals_the_text_is_that_of_plain_sampling() {
    let target = decoder(2, 3);
    let prompt = [1, 2, 1, 2, 3, 1];
    let drafts = [
        Draft::Lookup(Lookup { least: 1, most: 3 }),
        Draft::Model(Box::new(target.clone())),
        Draft::EarlyExit { layers: 1 },
    ];
    for draft in drafts {
        let mut speculator = Speculator::new(options(draft, false), &target, 40).unwrap();
        for seed in 0..20 {
            let sampling = SamplingOptions { seed, temperature: 0.9, min_p: 0.05, ..SamplingOptions::default() };
            let mut chain = chain(&sampling, &prompt);
            let mut text = prompt.to_vec();
            for _ in 0..20 {
                let id = chain.sample(&logits_after(&target, &text), None).unwrap().id;
                chain.accept(id);
                text.push(id);
            }
            let (ids, _) = run(&target, &prompt, &sampling, &mut speculator, 20);
            assert_eq!(ids, text[prompt.len()..]);
        }
    }
}

/// A draft that is the target itself is always right, and a round is as long as it may be.
#[test]
fn the_target_as_its_own_draft_is_always_accepted() {
    let target = decoder(2, 5);
    for (temperature, drawn) in [(0.0, true), (1.0, true), (1.0, false)] {
        let draft = Draft::Model(Box::new(target.clone()));
        let mut speculator = Speculator::new(options(draft, drawn), &target, 40).unwrap();
        let sampling = SamplingOptions { temperature, ..SamplingOptions::default() };
        let (ids, report) = run(&target, &[1, 4], &sampling, &mut speculator, 33);
        assert_eq!((ids.len(), report.generated_tokens, report.finish), (33, 33, Finish::Length));
        let stats = speculator.stats();
        assert_eq!((stats.acceptance(), stats.drafts), (Some(1.0), 8), "{stats:?}");
        assert_eq!(stats.accepted_at, [8, 8, 8]);
    }
}

#[test]
fn limits_and_stop_tokens_hold_inside_a_round() {
    let target = decoder(2, 5);
    let greedy = SamplingOptions::greedy();
    let fresh = || {
        let draft = Draft::Model(Box::new(target.clone()));
        Speculator::new(options(draft, true), &target, 40).unwrap()
    };
    let (whole, report) = run(&target, &[1, 4], &greedy, &mut fresh(), 100);
    assert_eq!((whole.len(), report.finish), (38, Finish::Context));
    for max_tokens in 0..9 {
        let (ids, report) = run(&target, &[1, 4], &greedy, &mut fresh(), max_tokens);
        assert_eq!((ids.as_slice(), report.finish), (&whole[..max_tokens], Finish::Length));
    }
    // Each new token of the text as a stop token: nothing behind it comes out.
    for (place, &stop) in whole.iter().enumerate().filter(|&(i, id)| !whole[..i].contains(id)) {
        let mut chain = Chain::new(&greedy, &[1, 4], VOCABULARY, &[]).unwrap();
        let limits = Limits { max_tokens: 20, stop_ids: vec![stop] };
        let mut ids = Vec::new();
        let mut keep = |id| {
            ids.push(id);
            ControlFlow::Continue(())
        };
        let report = generate(&target, &[1, 4], &mut chain, &mut fresh(), &limits, &mut keep).unwrap();
        assert_eq!((ids.as_slice(), report.finish), (&whole[..place], Finish::Stop));
    }
}

/// A draft whose numbers are broken costs its proposals and nothing else.
#[test]
fn a_broken_draft_model_proposes_nothing() {
    let target = decoder(2, 5);
    let mut broken = decoder(1, 4);
    broken.visit_mut(&mut |name, mut parameter| {
        if name == "model.norm.weight" {
            let values = TensorData::new(vec![f32::NAN; 8], [8]);
            parameter.set_flat(Tensor::from_data(values, &Device::flex()));
        }
    });
    let draft = Draft::Model(Box::new(broken));
    let mut speculator = Speculator::new(options(draft, true), &target, 40).unwrap();
    let (ids, _) = run(&target, &[1, 4], &SamplingOptions::greedy(), &mut speculator, 10);
    let lookup = Draft::Lookup(Lookup { least: 8, most: 8 });
    let mut plain = Speculator::new(options(lookup, true), &target, 40).unwrap();
    assert_eq!(ids, run(&target, &[1, 4], &SamplingOptions::greedy(), &mut plain, 10).0);
    assert_eq!(speculator.stats().drafts, 0);
}

#[test]
fn what_cannot_serve_is_refused_with_both_numbers() {
    let target = decoder(2, 5);
    let refused = |options: SpeculationOptions| Speculator::new(options, &target, 8).unwrap_err().to_string();
    let model = |config: &ModelConfig| {
        SpeculationOptions::new(Draft::Model(Box::new(Decoder::init(config, 0, &Device::flex()))))
    };
    let sentence = refused(model(&ModelConfig { vocab_size: 7, ..config(1) }));
    assert_eq!(sentence, "the draft model has a vocabulary of 7 tokens, the model one of 6");
    let sentence = refused(model(&ModelConfig { context: 8, ..config(1) }));
    assert_eq!(sentence, "the draft model has a context of 8 tokens, the model one of 40");
    for layers in [0, 2, 9] {
        let sentence = refused(SpeculationOptions::new(Draft::EarlyExit { layers }));
        assert_eq!(sentence, format!("an early exit after {layers} layers of 2, expected from 1 to 1"));
    }
    let lookup = |least, most| Draft::Lookup(Lookup { least, most });
    assert!(refused(SpeculationOptions::new(lookup(0, 1))).contains("at least 1"));
    assert!(refused(SpeculationOptions::new(lookup(3, 2))).contains("is 2"));
    for most in [0, 65] {
        let sentence = refused(SpeculationOptions { most, ..SpeculationOptions::new(lookup(1, 1)) });
        assert_eq!(sentence, format!("the draft length is {most}, expected from 1 to 64"));
    }
}

/// The way of an empty prompt and of one that is too long is that of plain generation.
#[test]
fn prompts_are_checked() {
    let target = decoder(2, 5);
    let mut speculator = Speculator::new(options(Draft::EarlyExit { layers: 1 }, true), &target, 40).unwrap();
    let limits = Limits { max_tokens: 3, stop_ids: Vec::new() };
    let mut chain = chain(&SamplingOptions::greedy(), &[]);
    let mut go = |prompt: &[u32]| {
        generate(&target, prompt, &mut chain, &mut speculator, &limits, &mut |_| ControlFlow::Continue(()))
    };
    assert!(matches!(go(&[]), Err(GenerateError::EmptyPrompt)));
    assert!(matches!(go(&[1; 40]), Err(GenerateError::PromptTooLong { tokens: 40, context: 40 })));
    assert!(matches!(go(&[6]), Err(GenerateError::UnknownToken { id: 6, vocab_size: 6 })));
}
