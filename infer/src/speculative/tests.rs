//! What comes out is distributed as without proposals.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor, TensorData};
use fornax_base::rng::{Rng, rng};
use fornax_model::{Decoder, Layout, ModelConfig, token_tensor};

use super::*;
use crate::engine::{Closed, EngineOptions, KvLayout, Memory, ModelFacts, Request, ValidRequest, run_closed};
use crate::generate::Finish;
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

/// Continues `prompt` once for each of `samplings`, four at a time, by at most `max_tokens` tokens.
fn run(
    decoder: &Decoder,
    speculation: Option<SpeculationOptions>,
    prompt: &[u32],
    samplings: Vec<SamplingOptions>,
    max_tokens: usize,
) -> Closed {
    let options = EngineOptions {
        layout: KvLayout::Paged { page_len: 4 },
        memory: Memory::Tokens(4 * 48),
        max_running: 4,
        speculation,
        ..EngineOptions::default()
    };
    let facts = ModelFacts::of(decoder, 40, 1);
    let request = |sampling| {
        let request = Request { max_tokens: Some(max_tokens), ..Request::new(prompt.to_vec(), sampling) };
        ValidRequest::new(request, &facts).unwrap()
    };
    run_closed(decoder, &options, samplings.into_iter().map(request).collect()).unwrap()
}

fn texts(closed: &Closed) -> Vec<Vec<u32>> {
    closed.outcomes.iter().map(|outcome| outcome.answers[0].ids()).collect()
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
            let samplings = (0..2000).map(|seed| SamplingOptions { seed, ..sampling.clone() }).collect();
            let closed = run(&target, Some(options(draft, drawn)), &prompt, samplings, 4);
            let mut counts: BTreeMap<Vec<u32>, u64> = BTreeMap::new();
            texts(&closed).into_iter().for_each(|ids| *counts.entry(ids).or_default() += 1);
            assert!(counts.keys().all(|ids| expected.contains_key(ids)), "{word}: an impossible text");
            let counts: Vec<u64> = expected.keys().map(|ids| counts.get(ids).copied().unwrap_or(0)).collect();
            assert_follows(&counts, &expected.values().copied().collect::<Vec<_>>());
            let stats = closed.speculation.unwrap();
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
    let samplings = |n: u64| -> Vec<SamplingOptions> {
        let sampling = SamplingOptions { temperature: 0.9, min_p: 0.05, ..SamplingOptions::default() };
        (0..n).map(|seed| SamplingOptions { seed, ..sampling.clone() }).collect()
    };
    let plain = texts(&run(&target, None, &prompt, samplings(20), 20));
    for draft in drafts {
        let closed = run(&target, Some(options(draft, false)), &prompt, samplings(20), 20);
        assert_eq!(texts(&closed), plain);
        assert!(closed.speculation.unwrap().accepted > 0);
    }
}

/// What a grammar forbids is refused, drawn or not, and what comes instead follows the masked distribution.
#[test]
fn a_proposal_that_a_mask_forbids_is_refused() {
    let logits = [0.0, 3.0, 0.5, -1.0, 0.0, 0.2];
    let mask = [0b00_0101];
    let free = chain(&SamplingOptions::default(), &[1]).distribution(&logits, None).unwrap();
    let masked = chain(&SamplingOptions::default(), &[1]).distribution(&logits, Some(&mask)).unwrap();
    for from in [None, Some(free)] {
        let (mut counts, proposed) = ([0u64; VOCABULARY], Proposed { id: 1, from });
        for seed in 0..4000 {
            let mut chain = chain(&SamplingOptions { seed, ..SamplingOptions::default() }, &[1]);
            let choice = choose(&mut chain, &logits, Some(&mask), Some(&proposed)).unwrap();
            assert!(!choice.accepted);
            counts[choice.sampled.id as usize] += 1;
        }
        // The residual of a drawn proposal is what the free draft lacks of the masked target.
        let expected: Vec<f64> = match &proposed.from {
            None => (0..6).map(|id| masked.probability(id)).collect(),
            Some(free) => {
                let lacks = (0..6).map(|id| (id, (masked.probability(id) - free.probability(id)).max(0.0)));
                let residual = Distribution::from_weights(lacks).unwrap();
                (0..6).map(|id| residual.probability(id)).collect()
            }
        };
        assert_follows(&counts, &expected);
    }
}

/// A draft that is the target itself is always right, and a round is as long as it may be.
#[test]
fn the_target_as_its_own_draft_is_always_accepted() {
    let target = decoder(2, 5);
    for (temperature, drawn) in [(0.0, true), (1.0, true), (1.0, false)] {
        let draft = Draft::Model(Box::new(target.clone()));
        let sampling = SamplingOptions { temperature, ..SamplingOptions::default() };
        let closed = run(&target, Some(options(draft, drawn)), &[1, 4], vec![sampling; 3], 33);
        assert!(texts(&closed).iter().all(|text| text.len() == 33));
        let stats = closed.speculation.unwrap();
        assert_eq!((stats.acceptance(), stats.drafts), (Some(1.0), 3 * 8), "{stats:?}");
        assert_eq!(stats.accepted_at, [24, 24, 24]);
        // A pass for the prompts and eight rounds.
        assert_eq!(closed.stats.steps, 9);
    }
}

#[test]
fn limits_and_stop_tokens_hold_inside_a_round() {
    let target = decoder(2, 5);
    let greedy = SamplingOptions::greedy();
    let go = |sampling: &SamplingOptions, max_tokens: usize| {
        let draft = Draft::Model(Box::new(target.clone()));
        let closed = run(&target, Some(options(draft, true)), &[1, 4], vec![sampling.clone()], max_tokens);
        (texts(&closed).remove(0), closed.outcomes[0].answers[0].finish.unwrap())
    };
    let (whole, finish) = go(&greedy, 38);
    assert_eq!((whole.len(), finish), (38, Finish::Context));
    for max_tokens in 0..9 {
        assert_eq!(go(&greedy, max_tokens), (whole[..max_tokens].to_vec(), Finish::Length));
    }
    // Each new token of the text as a stop token: nothing behind it comes out.
    for (place, &stop) in whole.iter().enumerate().filter(|&(i, id)| !whole[..i].contains(id)) {
        let sampling = SamplingOptions { stop_ids: vec![stop], ..greedy.clone() };
        assert_eq!(go(&sampling, 20), (whole[..place].to_vec(), Finish::Stop));
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
    let draft = options(Draft::Model(Box::new(broken)), true);
    let closed = run(&target, Some(draft), &[1, 4], vec![SamplingOptions::greedy()], 10);
    assert_eq!(texts(&closed), texts(&run(&target, None, &[1, 4], vec![SamplingOptions::greedy()], 10)));
    assert_eq!(closed.speculation.unwrap().drafts, 0);
}

/// So little memory that sequences are put back again and again, while others draft: every text is that of its seed, and
/// a request that wants no proposals gets none.
#[test]
fn drafts_do_not_mind_preemption_and_a_request_can_refuse_them() {
    let target = decoder(2, 3);
    let go = |speculation: Option<SpeculationOptions>, tokens: usize, speculate: bool| {
        let options = EngineOptions {
            layout: KvLayout::Paged { page_len: 4 },
            memory: Memory::Tokens(tokens),
            max_running: 4,
            speculation,
            ..EngineOptions::default()
        };
        let facts = ModelFacts::of(&target, 40, 1);
        let request = |seed: u64| {
            let sampling = SamplingOptions { seed, ..SamplingOptions::default() };
            let prompt = vec![1, 2, (seed % 6) as u32];
            let request = Request { max_tokens: Some(24), speculate, ..Request::new(prompt, sampling) };
            ValidRequest::new(request, &facts).unwrap()
        };
        run_closed(&target, &options, (0..12).map(request).collect()).unwrap()
    };
    let plain = go(None, 4 * 40, true);
    for draft in [Draft::Model(Box::new(decoder(1, 4))), Draft::EarlyExit { layers: 1 }] {
        let tight = go(Some(options(draft.clone(), false)), 52, true);
        assert!(tight.stats.preemptions > 0, "{:?}", tight.stats);
        assert!(tight.speculation.as_ref().unwrap().accepted > 0);
        assert_eq!(texts(&tight), texts(&plain));
        let refused = go(Some(options(draft, true)), 4 * 40, false);
        assert_eq!((refused.speculation.as_ref().unwrap().drafts, texts(&refused)), (0, texts(&plain)));
    }
}

#[test]
fn what_cannot_serve_is_refused_with_both_numbers() {
    let target = decoder(2, 5);
    let refused = |options: SpeculationOptions| options.check(&target).unwrap_err().to_string();
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
