//! The same request alone, in a batch, put back, in chunks, or behind a known prompt: the same answer.

#![allow(clippy::print_stdout, reason = "ties are counted and shown with --nocapture")]

use std::path::Path;

use fornax_model::kv_cache::KvElement;
use fornax_model::weights::{LoadOptions, load};

use super::*;
use crate::engine::closed::Outcome;
use crate::grammar::{GrammarCompiler, GrammarLimits, GrammarSpec};

/// Answers of a set, one request after the other and each in an engine of its own.
fn alone(decoder: &Decoder, options: &EngineOptions, requests: &[Request]) -> Vec<Outcome> {
    let one = |request: &Request| together(decoder, options, std::slice::from_ref(request)).outcomes.remove(0);
    requests.iter().map(one).collect()
}

fn together(decoder: &Decoder, options: &EngineOptions, requests: &[Request]) -> Closed {
    let facts = ModelFacts::of(decoder, decoder.config().context, 16);
    let valid = requests.iter().map(|request| ValidRequest::new(request.clone(), &facts).unwrap());
    let closed = run_closed(decoder, options, valid.collect()).unwrap();
    assert!(closed.stats.pages_used == 0 && closed.stats.running == 0 && closed.stats.waiting == 0);
    closed
}

/// Tokens compared, and places where two tokens were as good as equal and the other was taken.
#[derive(Debug, Default)]
struct Ties {
    tokens: usize,
    ties: usize,
}

impl Ties {
    /// A different token is allowed where the best two logits are within 1e-4, and nowhere else.
    #[track_caller]
    fn compare(&mut self, expected: &[Outcome], found: &[Outcome], what: &str) {
        assert_eq!(expected.len(), found.len());
        for (i, (expected, found)) in expected.iter().zip(found).enumerate() {
            assert_eq!((&expected.failed, &found.failed), (&None, &None), "{what}: request {i}");
            assert_eq!(expected.answers.len(), found.answers.len());
            for (a, b) in expected.answers.iter().zip(&found.answers) {
                self.tokens += a.tokens.len();
                let differs = a.tokens.iter().zip(&b.tokens).position(|(a, b)| a.id != b.id);
                let Some(at) = differs else {
                    assert_eq!((a.tokens.len(), a.finish), (b.tokens.len(), b.finish), "{what}: request {i}");
                    continue;
                };
                let top = &a.tokens[at].top;
                assert!(top[0].1 - top[1].1 < 1e-4, "{what}: request {i}, token {at}: {top:?}");
                self.ties += 1;
            }
            let close = |(a, b): (&crate::sampler::Sampled, &crate::sampler::Sampled)| {
                a.id == b.id && (a.log_prob - b.log_prob).abs() < 1e-4
            };
            assert!(expected.prompt.len() == found.prompt.len(), "{what}: request {i}");
            assert!(expected.prompt.iter().zip(&found.prompt).all(close), "{what}: request {i}");
        }
    }

    fn check(&self) {
        println!("{self:?}");
        assert!(self.ties * 10_000 <= self.tokens, "{self:?}");
    }
}

#[test]
fn a_batch_of_any_size_gives_what_each_request_gives_alone() {
    let (decoder, requests) = (decoder(), (0..16).map(request).collect::<Vec<_>>());
    let expected = alone(&decoder, &options(), &requests);
    assert!(expected.iter().any(|outcome| outcome.answers[0].finish == Some(Finish::Stop)));
    assert!(expected.iter().any(|outcome| outcome.answers[0].finish == Some(Finish::Length)));
    let mut ties = Ties::default();
    for max_running in 1..=16 {
        let options = EngineOptions { max_running, ..options() };
        let found = together(&decoder, &options, &requests);
        ties.compare(&expected, &found.outcomes, &format!("{max_running} at once"));
        assert_eq!(found.stats.finished, 16);
    }
    ties.check();
}

#[test]
fn chunks_static_batches_and_layouts_change_nothing() {
    let (decoder, requests) = (decoder(), (0..16).map(request).collect::<Vec<_>>());
    let expected = alone(&decoder, &options(), &requests);
    let mut ties = Ties::default();
    for (what, options) in [
        ("chunks of 5", EngineOptions { max_running: 4, token_budget: 5, ..options() }),
        ("chunks of 16", EngineOptions { token_budget: 16, ..options() }),
        ("static batches", EngineOptions { max_running: 5, batching: Batching::Static, ..options() }),
        ("pages of 1", EngineOptions { layout: KvLayout::Paged { page_len: 1 }, ..options() }),
        ("pages of 64", EngineOptions { layout: KvLayout::Paged { page_len: 64 }, ..options() }),
        ("contiguous", EngineOptions { layout: KvLayout::Contiguous, ..options() }),
    ] {
        ties.compare(&expected, &together(&decoder, &options, &requests).outcomes, what);
    }
    ties.check();
}

#[test]
fn d7_what_was_put_back_ends_with_the_same_text() {
    let decoder = decoder();
    let of = |number| {
        let request = request(number);
        let sampling = SamplingOptions { ignore_eos: true, ..request.sampling };
        Request { sampling, max_tokens: Some(30), ..request }
    };
    let requests: Vec<Request> = (0..16).map(of).collect();
    let expected = alone(&decoder, &options(), &requests);
    let mut ties = Ties::default();
    for prefix_reuse in [false, true] {
        // The longest alone needs 23 pages.
        let options = EngineOptions { memory: Memory::Tokens(25 * 4), prefix_reuse, ..options() };
        let found = together(&decoder, &options, &requests);
        assert!(found.stats.preemptions > 3, "{:?}", found.stats);
        let put_back = |traced: &&Traced| matches!(traced.decision, Decision::Preempt { .. });
        assert_eq!(found.decisions.iter().filter(put_back).count() as u64, found.stats.preemptions);
        ties.compare(&expected, &found.outcomes, "put back");
    }
    ties.check();
}

#[test]
fn a_known_prompt_is_read_from_its_pages_and_gives_the_same() {
    let decoder = decoder();
    let with_prefix = |number: u64| Request {
        prompt: [prompt(99, 30), prompt(number, 1 + number as usize)].concat(),
        ..request(number)
    };
    let requests: Vec<Request> = (0..12).map(with_prefix).collect();
    let off = EngineOptions { prefix_reuse: false, max_running: 2, ..options() };
    let expected = together(&decoder, &off, &requests);
    assert_eq!((expected.stats.reused_tokens, expected.stats.prefix_hits), (0, 0));
    let found = together(&decoder, &EngineOptions { prefix_reuse: true, ..off.clone() }, &requests);
    // Seven whole pages of the common 30 tokens, for all but those that began together with the opening one.
    assert!(found.stats.prefix_hits >= 10 && found.stats.reused_tokens >= 10 * 28, "{:?}", found.stats);
    let mut ties = Ties::default();
    ties.compare(&expected.outcomes, &found.outcomes, "a known prompt");
    // Clients of other salts know nothing of each other.
    let salted = |(i, request): (usize, &Request)| Request { salt: Some(i.to_string()), ..request.clone() };
    let requests: Vec<Request> = requests.iter().enumerate().map(salted).collect();
    let apart = together(&decoder, &EngineOptions { prefix_reuse: true, ..off }, &requests);
    assert_eq!(apart.stats.prefix_hits, 0);
    ties.compare(&expected.outcomes, &apart.outcomes, "salted");
    ties.check();
}

#[test]
fn samples_of_one_prompt_are_requests_with_their_seeds() {
    let decoder = decoder();
    let sampling = SamplingOptions { seed: 7, top_log_probs: 2, ..SamplingOptions::default() };
    let base = Request { max_tokens: Some(20), ..Request::new(prompt(3, 22), sampling.clone()) };
    let group = Request { n: 5, ..base.clone() };
    let one = |sample| Request { sampling: sampling.for_sample(sample), ..base.clone() };
    let expected = alone(&decoder, &options(), &(0..5).map(one).collect::<Vec<_>>());
    let expected = Outcome {
        answers: expected.into_iter().flat_map(|outcome| outcome.answers).collect(),
        ..Outcome::default()
    };
    let mut ties = Ties::default();
    for (what, options) in [
        ("paged", options()),
        ("contiguous", EngineOptions { layout: KvLayout::Contiguous, ..options() }),
        ("put back", EngineOptions { memory: Memory::Tokens(60), prefix_reuse: false, ..options() }),
    ] {
        let found = together(&decoder, &options, std::slice::from_ref(&group));
        ties.compare(std::slice::from_ref(&expected), &found.outcomes, what);
        assert_eq!(found.stats.prompt_tokens, 22, "the prompt is read once");
    }
    ties.check();
    assert_ne!(expected.answers[0].ids(), expected.answers[1].ids());
}

/// Prompt log-probabilities are those of a forward pass over the whole, in chunks, put back, and with everything known.
#[test]
fn prompt_log_probs_are_complete_whatever_was_kept() {
    let decoder = decoder();
    let base = Request { max_tokens: Some(3), ..Request::new(prompt(5, 41), SamplingOptions::greedy()) };
    let told = Request { prompt_log_probs: Some(3), ..base.clone() };
    let device = decoder.device();
    let ids = &base.prompt;
    let inputs = fornax_model::token_tensor(&ids[..40], 1, &device);
    let hidden = decoder.forward(inputs, &fornax_model::Layout::contiguous(0, 40, &device), None);
    let targets = fornax_model::token_tensor(&ids[1..], 1, &device);
    let nll = decoder.token_nll(hidden, targets).try_into_vec_as::<f32>().unwrap();
    let others: Vec<Request> = (0..4).map(request).collect();
    for (what, options) in [
        ("at once", options()),
        ("in chunks", EngineOptions { token_budget: 16, ..options() }),
        ("put back", EngineOptions { memory: Memory::Tokens(92), token_budget: 16, ..options() }),
    ] {
        let requests = [&others[..], &[base.clone(), told.clone()], &others[..]].concat();
        let found = together(&decoder, &options, &requests);
        let Outcome { prompt, answers, .. } = &found.outcomes[5];
        assert_eq!(prompt.iter().map(|token| token.id).collect::<Vec<_>>(), ids[1..], "{what}");
        for (token, nll) in prompt.iter().zip(&nll) {
            assert!((token.log_prob + nll).abs() < 1e-4, "{what}: {token:?} against {nll}");
            assert!(token.top.len() == 3 && token.top[0].1 >= token.log_prob);
        }
        assert_eq!(answers[0].ids(), found.outcomes[4].answers[0].ids(), "{what}");
        assert!(found.outcomes[4].prompt.is_empty());
        assert_eq!(answers[0].usage.reused_tokens, 0, "{what}");
    }
    // A prompt alone, nothing generated.
    let echo = Request { max_tokens: Some(0), ..told };
    let found = together(&decoder, &options(), &[echo]);
    assert_eq!(found.outcomes[0].prompt.len(), 40);
    assert_eq!(found.outcomes[0].answers[0].finish, Some(Finish::Length));
    assert!(found.outcomes[0].answers[0].tokens.is_empty());
}

/// Adapters in one batch, each its own; the same prompt under another adapter is another prompt.
#[test]
fn every_row_of_a_batch_has_its_adapter() {
    use fornax_model::adapter::{AdapterConfig, Targets};
    let mut decoder = decoder();
    let ids: Vec<_> = (0..2)
        .map(|seed| {
            let config = AdapterConfig::lora(4, 8.0, Targets::AllLinear);
            let id = decoder.attach(&format!("adapter{seed}"), config, seed).unwrap();
            decoder.activate(Some(id));
            decoder.visit_mut(&mut |name, mut parameter| {
                if name.contains("lora_B") {
                    let mut random = fornax_base::rng::rng(seed, 0, name);
                    let n = parameter.flat().dims()[0];
                    let values: Vec<f32> = (0..n).map(|_| 0.3 * random.normal_f32()).collect();
                    parameter.set_flat(burn::tensor::Tensor::from_data(values.as_slice(), &Device::flex()));
                }
            });
            id
        })
        .collect();
    decoder.activate(None);
    let of = |adapter| Request {
        adapter,
        max_tokens: Some(12),
        ..Request::new(prompt(3, 21), SamplingOptions { top_log_probs: 2, ..SamplingOptions::greedy() })
    };
    let requests: Vec<Request> =
        [None, Some(ids[0]), Some(ids[1]), Some(ids[0]), None].into_iter().map(of).collect();
    let expected = alone(&decoder, &options(), &requests);
    let texts: std::collections::BTreeSet<_> = expected.iter().map(|o| o.answers[0].ids()).collect();
    assert_eq!(texts.len(), 3, "adapters change the text");
    let mut ties = Ties::default();
    for max_running in [1, 5] {
        let found = together(&decoder, &EngineOptions { max_running, ..options() }, &requests);
        ties.compare(&expected, &found.outcomes, "adapters");
        if max_running == 1 {
            assert_eq!(found.stats.prefix_hits, 2, "each adapter's prompt is known to it alone");
        }
    }
    ties.check();
}

/// The shared data, or `None` (said so) where it is not there and not required.
fn shared(part: &str) -> Option<std::path::PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data").join(part);
    if path.exists() {
        return Some(path);
    }
    assert!(std::env::var_os("FORNAX_REQUIRE_DATA").is_none(), "{} is absent", path.display());
    None
}

/// A trained checkpoint on 24 prompts of real text: one at a time, and as an engine with little memory mixes them.
#[test]
fn a_real_checkpoint_gives_the_same_in_any_company() {
    let (Some(folder), Some(stories)) = (shared("tinystories-656k-hf"), shared("tinystories/tiny_stories.txt"))
    else {
        return;
    };
    let options = LoadOptions { dtype: Some(burn::tensor::DType::F32), strict: true };
    let decoder = load(&folder, options, &Device::flex()).unwrap().decoder;
    let tokenizer = fornax_data::tokenizer::Tokenizer::load(&folder).unwrap();
    let text: String = std::fs::read_to_string(stories).unwrap().chars().take(40_000).collect();
    let ids = tokenizer.encode(&text, false).unwrap();
    let of = |number: usize| {
        let (start, len) = (300 * (number / 2), [12, 40, 90, 150][number % 4]);
        let sampling = SamplingOptions { top_log_probs: 2, ..sampling(number as u64) };
        Request { max_tokens: Some(24), ..Request::new(ids[start..start + len].to_vec(), sampling) }
    };
    let requests: Vec<Request> = (0..24).map(of).collect();
    let whole = EngineOptions { memory: Memory::Tokens(24 * 256), ..EngineOptions::default() };
    let expected = alone(&decoder, &whole, &requests);
    let mut ties = Ties::default();
    for (what, options) in [
        ("16 at once", whole.clone()),
        ("chunks of 32, 7 at once", EngineOptions { max_running: 7, token_budget: 32, ..whole.clone() }),
        ("put back", EngineOptions { memory: Memory::Tokens(500), ..whole.clone() }),
        ("contiguous", EngineOptions { layout: KvLayout::Contiguous, max_running: 5, ..whole }),
    ] {
        let found = together(&decoder, &options, &requests);
        assert!(what != "put back" || found.stats.preemptions > 0, "{:?}", found.stats);
        ties.compare(&expected, &found.outcomes, what);
    }
    ties.check();
}

/// Answers under a grammar beside others: each is what it is alone, and fits.
#[test]
fn grammars_bind_their_own_request() {
    let Some(folder) = shared("tinystories-656k-hf") else { return };
    let options = LoadOptions { dtype: Some(burn::tensor::DType::F32), strict: true };
    let decoder = load(&folder, options, &Device::flex()).unwrap().decoder;
    let tokenizer = fornax_data::tokenizer::Tokenizer::load(&folder).unwrap();
    let (vocab_size, ends) = (decoder.config().vocab_size, decoder.config().eos_ids.clone());
    let compiler = GrammarCompiler::new(&tokenizer, vocab_size, &ends, GrammarLimits::default()).unwrap();
    let pattern = GrammarSpec::Regex(" (cats|dogs|birds) are (big|small)".to_owned());
    let grammar = compiler.compile(&pattern).unwrap();
    let prompt = tokenizer.encode("Once upon a time there was a girl who said that", true).unwrap();
    let of = |number: u64| {
        let sampling = SamplingOptions { seed: number, top_log_probs: 2, ..SamplingOptions::default() };
        let grammar = number.is_multiple_of(2).then(|| grammar.clone());
        let base = Request { grammar, max_tokens: Some(30), ..Request::new(prompt.clone(), sampling) };
        Request { n: if number == 0 { 3 } else { 1 }, ..base }
    };
    let requests: Vec<Request> = (0..8).map(of).collect();
    let options = EngineOptions { memory: Memory::Tokens(4096), ..EngineOptions::default() };
    let expected = alone(&decoder, &options, &requests);
    let found = together(&decoder, &options, &requests);
    let mut ties = Ties::default();
    ties.compare(&expected, &found.outcomes, "grammars");
    ties.check();
    for (number, outcome) in found.outcomes.iter().enumerate() {
        for answer in &outcome.answers {
            let text = tokenizer.decode(&answer.ids(), true).unwrap();
            let words: Vec<&str> = text.split_whitespace().collect();
            let fits = words.len() == 3
                && ["cats", "dogs", "birds"].contains(&words[0])
                && words[1] == "are"
                && ["big", "small"].contains(&words[2]);
            assert_eq!(fits && answer.finish == Some(Finish::Stop), number.is_multiple_of(2), "{text:?}");
        }
    }
}

/// The bytes that are printed are those that are taken.
#[test]
fn the_plan_is_what_is_used() {
    let decoder = decoder();
    for (element, layout) in [
        (KvElement::F32, KvLayout::Paged { page_len: 8 }),
        (KvElement::Int8, KvLayout::Paged { page_len: 8 }),
        (KvElement::BF16, KvLayout::Contiguous),
    ] {
        let options =
            EngineOptions { element: Some(element), layout, memory: Memory::Bytes(300_000), ..options() };
        let plan = options.plan(&decoder).unwrap();
        assert!(plan.bytes() <= 300_000 && plan.bytes() + plan.page_bytes > 300_000, "{plan}");
        let core = options.core(decoder.clone()).unwrap();
        assert_eq!(core.stats().pages as u64 * core.stats().page_bytes, plan.bytes());
        assert_eq!(core.cache_bytes(), plan.bytes(), "{plan}");
    }
}
