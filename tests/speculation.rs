//! Speculative decoding with a trained checkpoint: greedy text is that of plain decoding, whoever proposes.

#![allow(clippy::print_stdout, reason = "measured acceptance, shown with --nocapture")]

mod common;

use burn::tensor::Device;
use fornax_base::rng::rng;
use fornax_data::corpus::{Split, story};
use fornax_data::tokenizer::Tokenizer;
use fornax_infer::engine::{Closed, EngineOptions, ModelFacts, Request, ValidRequest, run_closed};
use fornax_infer::sampler::SamplingOptions;
use fornax_infer::speculative::{Draft, Lookup, SpeculationOptions};
use fornax_model::weights::{LoadOptions, load};
use fornax_model::{Decoder, Layout, token_tensor};

const PROMPTS: u64 = 200;
const NEW: usize = 16;
/// Tokens of the prompt.
const PROMPT: usize = 16;
/// Another greedy token is allowed only where the two largest logits are this close.
const TIE: f32 = 1e-4;

/// What the engine makes of all prompts, eight at a time, with and without proposals.
fn run(decoder: &Decoder, prompts: &[Vec<u32>], speculation: Option<SpeculationOptions>) -> Closed {
    let options = EngineOptions { max_running: 8, speculation, ..EngineOptions::default() };
    let facts = ModelFacts::of(decoder, decoder.config().context, 1);
    let sampling = SamplingOptions { ignore_eos: true, ..SamplingOptions::greedy() };
    let request = |prompt: &Vec<u32>| {
        let request = Request::new(prompt.clone(), sampling.clone());
        ValidRequest::new(Request { max_tokens: Some(NEW), ..request }, &facts).unwrap()
    };
    run_closed(decoder, &options, prompts.iter().map(request).collect()).unwrap()
}

/// How far the two largest logits behind `ids` lie apart.
fn gap(decoder: &Decoder, ids: &[u32]) -> f32 {
    let device = decoder.device();
    let hidden = decoder.forward(token_tensor(ids, 1, &device), &Layout::contiguous(0, ids.len(), &device), None);
    let logits = decoder.logits(hidden.slice_dim(1, ids.len() - 1..ids.len()));
    let mut values = logits.try_into_vec_as::<f32>().unwrap();
    values.sort_by(|a, b| b.total_cmp(a));
    values[0] - values[1]
}

/// The same model with noise on its matrices: a draft that is often right and often wrong.
fn noisy(decoder: &Decoder) -> Decoder {
    let mut noisy = decoder.clone();
    noisy.visit_mut(&mut |name, mut parameter| {
        let values = parameter.flat();
        let mut random = rng(3, 0, name);
        let noise: Vec<f32> = (0..values.dims()[0]).map(|_| 1.0 + 0.1 * random.normal_f32()).collect();
        parameter.set_flat(values * burn::tensor::Tensor::<1>::from_data(noise.as_slice(), &Device::flex()));
    });
    noisy
}

#[test]
fn greedy_text_is_that_of_plain_decoding_on_200_prompts() {
    let Some(folder) = common::shared_data("tinystories-656k-hf") else { return };
    let device = Device::flex();
    let target = load(&folder, LoadOptions { dtype: None, strict: true }, &device).unwrap().decoder;
    let tokenizer = Tokenizer::load(&folder).unwrap();
    let prompts: Vec<Vec<u32>> = (0..PROMPTS)
        .map(|index| {
            let mut ids = tokenizer.encode(&story(1, index, Split::HeldOut).text, false).unwrap();
            ids.truncate(PROMPT);
            ids
        })
        .collect();
    let expected = run(&target, &prompts, None);
    let drafts = [
        ("lookup", Draft::Lookup(Lookup { least: 1, most: 4 }), 4),
        ("a noisy model", Draft::Model(Box::new(noisy(&target))), 3),
        ("early exit", Draft::EarlyExit { layers: 1 }, 2),
    ];
    for (name, draft, most) in drafts {
        let options = SpeculationOptions { most, fixed: true, ..SpeculationOptions::new(draft) };
        let found = run(&target, &prompts, Some(options));
        let mut ties = 0;
        for ((prompt, expected), found) in prompts.iter().zip(&expected.outcomes).zip(&found.outcomes) {
            let (expected, ids) = (expected.answers[0].ids(), found.answers[0].ids());
            assert_eq!((ids.len(), expected.len()), (NEW, NEW));
            if let Some(place) = (0..NEW).find(|&i| ids[i] != expected[i]) {
                let before = [prompt.as_slice(), &ids[..place]].concat();
                assert!(gap(&target, &before) < TIE, "{name}: another token without a tie");
                ties += 1;
            }
        }
        let stats = found.speculation.unwrap();
        println!(
            "{name}: {ties} ties, accepted {:.2}, {:.2} tokens a round",
            stats.acceptance().unwrap(),
            stats.mean_length().unwrap()
        );
        assert!(stats.accepted > 0 && stats.accepted < stats.drafted, "{name}: {stats:?}");
        // DESIGN: at most one place in 10,000; these are 3,200.
        assert!(ties <= 1, "{name}: {ties} ties");
    }
}
