//! A real trained checkpoint against transformers: greedy text of four prompts and the loss of real text.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device};
use fornax_data::tokenizer::Tokenizer;
use fornax_infer::generate::{Finish, Limits, generate};
use fornax_infer::sampler::{Sampler, SamplerOptions};
use fornax_model::weights::{LoadOptions, load};
use fornax_model::{Decoder, Layout, token_tensor};
use serde_json::Value;

/// The shared data, or `None` (said so) where it is not there and not required.
fn shared(part: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data").join(part);
    if path.exists() {
        return Some(path);
    }
    assert!(std::env::var_os("FORNAX_REQUIRE_DATA").is_none(), "{} is absent", path.display());
    None
}

fn expected() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tinystories-656k/expected.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn checkpoint(folder: &Path) -> (Decoder, Tokenizer) {
    let options = LoadOptions { dtype: Some(DType::F32), strict: true };
    let decoder = load(folder, options, &Device::flex()).unwrap().decoder;
    (decoder, Tokenizer::load(folder).unwrap())
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect()
}

#[test]
fn greedy_text_equals_transformers() {
    let Some(folder) = shared("tinystories-656k-hf") else { return };
    let (decoder, tokenizer) = checkpoint(&folder);
    for prompt in expected()["prompts"].as_array().unwrap() {
        let text = prompt["prompt"].as_str().unwrap();
        let encoded = tokenizer.encode(text, true).unwrap();
        assert_eq!(encoded, ids(&prompt["as_the_tokenizer_encodes"]["input_ids"]), "{text:?}");
        for form in ["as_the_tokenizer_encodes", "without_prefix_space"] {
            let recorded = &prompt[form];
            let mut sampler = Sampler::new(SamplerOptions::greedy()).unwrap();
            let limits = Limits { max_tokens: 100, stop_ids: decoder.config().eos_ids.clone() };
            let mut generated = Vec::new();
            let report = generate(&decoder, &ids(&recorded["input_ids"]), &mut sampler, &limits, &mut |id| {
                generated.push(id);
                ControlFlow::Continue(())
            });
            let stopped = report.unwrap().finish == Finish::Stop;
            assert_eq!(stopped, recorded["stopped_at_eos"].as_bool().unwrap(), "{text:?}, {form}");
            if stopped {
                generated.extend(&decoder.config().eos_ids); // transformers keeps the token that ends
            }
            assert_eq!(generated, ids(&recorded["ids"]), "{text:?}, {form}");
        }
    }
}

#[test]
fn loss_of_real_text_equals_transformers() {
    let (Some(folder), Some(stories)) = (shared("tinystories-656k-hf"), shared("tinystories/tiny_stories.txt"))
    else {
        return;
    };
    let (decoder, tokenizer) = checkpoint(&folder);
    let recorded = &expected()["perplexity"];
    let text: String = std::fs::read_to_string(stories).unwrap().chars().take(40_000).collect();
    let tokens = tokenizer.encode(&text, false).unwrap();
    assert_eq!(tokens[..20], ids(&recorded["first_ids"])[..], "the text is encoded as transformers encodes it");
    let device = Device::flex();
    let mut sum = 0.0;
    for (i, mean) in recorded["window_mean_nll"].as_array().unwrap().iter().enumerate() {
        let window = &tokens[i * 256..i * 256 + 257];
        let hidden =
            decoder.forward(token_tensor(&window[..256], 1, &device), &Layout::contiguous(0, 256, &device), None);
        let nll = decoder.token_nll(hidden, token_tensor(&window[1..], 1, &device));
        let nll: f64 = nll.try_into_vec_as::<f32>().unwrap().iter().map(|&v| f64::from(v)).sum::<f64>() / 256.0;
        let mean = mean.as_f64().unwrap();
        assert!((nll - mean).abs() < 1e-5, "window {i}: {nll} against {mean}");
        sum += nll;
    }
    let mean = recorded["mean_nll"].as_f64().unwrap();
    assert!((sum / 16.0 - mean).abs() < 1e-6, "{} against {mean}", sum / 16.0);
}
