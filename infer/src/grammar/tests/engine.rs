//! Grammars in the engine, with models whose weights are random: what they say is nonsense in the right form.

use burn::tensor::Device;
use fornax_model::{Decoder, ModelConfig};
use serde_json::Value;

use super::*;
use crate::engine::{Engine, EngineOptions, Memory, Request, SequenceError, TokenEvent, ValidRequest};
use crate::generate::Finish;
use crate::sampler::SamplingOptions;

fn random_model(vocab_size: usize, end: Vec<u32>) -> Decoder {
    let config = ModelConfig {
        vocab_size,
        width: 16,
        n_heads: 2,
        n_kv_heads: 1,
        head_dim: 8,
        ffn_width: 24,
        context: 512,
        init_std: 0.4,
        eos_ids: end,
        tied: false,
        ..ModelConfig::llama(1)
    };
    Decoder::init(&config, 3, &Device::flex())
}

fn engine(decoder: Decoder) -> Engine {
    Engine::start(decoder, &EngineOptions { memory: Memory::Tokens(4096), ..EngineOptions::default() }).unwrap()
}

/// Ids of an answer, and why it ended.
type Answer = (Vec<u32>, Option<Finish>);

/// Each answer, or why the request failed.
fn answers(engine: &Engine, request: Request) -> Result<Vec<Answer>, SequenceError> {
    let mut answers: Vec<Answer> = vec![(Vec::new(), None); request.n];
    for event in engine.submit(ValidRequest::new(request, engine.facts()).unwrap()).unwrap() {
        match event {
            TokenEvent::Token { sample, id, .. } => answers[sample].0.push(id),
            TokenEvent::Finished { sample, finish, .. } => answers[sample].1 = Some(finish),
            TokenEvent::Failed(error) => return Err(error),
            _ => {}
        }
    }
    Ok(answers)
}

#[test]
fn a_random_model_with_a_real_tokenizer_keeps_to_a_schema() {
    let Some(path) = shared("tokenizer-smollm2") else { return };
    let tokenizer = Tokenizer::load(&path).unwrap();
    let end: Vec<u32> = tokenizer.eos_id().into_iter().collect();
    let size = tokenizer.vocab_size();
    let schema = json!({
        "type": "object",
        "properties": {
            "mood": {"enum": ["glad", "naïve", "🦀"]},
            "age": {"type": "integer", "minimum": 0, "maximum": 120},
            "said": {"type": "array", "items": {"type": "string", "maxLength": 8}, "minItems": 1, "maxItems": 3},
        },
        "required": ["mood", "age", "said"],
        "additionalProperties": false,
    });
    let validator = jsonschema::validator_for(&schema).unwrap();
    let compiler = GrammarCompiler::new(&tokenizer, size, &end, GrammarLimits::default()).unwrap();
    let grammar = compiler.compile(&GrammarSpec::JsonSchema(schema)).unwrap();
    let engine = engine(random_model(size, end));
    let prompt = tokenizer.encode("Who are you?", false).unwrap();
    let sampling = SamplingOptions { seed: 5, temperature: 1.0, ..SamplingOptions::default() };
    let request = |grammar: Option<Grammar>| Request {
        n: 4,
        max_tokens: Some(400),
        grammar,
        ..Request::new(prompt.clone(), sampling.clone())
    };
    for (ids, finish) in answers(&engine, request(Some(grammar))).unwrap() {
        let text = tokenizer.decode(&ids, false).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert!(validator.is_valid(&value), "{text}");
        assert_eq!(finish, Some(Finish::Stop));
    }
    let free = answers(&engine, Request { max_tokens: Some(20), ..request(None) }).unwrap();
    assert!(
        free.iter().all(|(ids, _)| serde_json::from_str::<Value>(&tokenizer.decode(ids, false).unwrap()).is_err())
    );
}

#[test]
fn g3_a_stuck_sequence_fails_alone() {
    let mut documents = std::iter::once(Ok("ab".to_owned()));
    let tokenizer = Tokenizer::characters(&mut documents).unwrap();
    let size = tokenizer.vocab_size();
    let compiler = GrammarCompiler::new(&tokenizer, size, &[], GrammarLimits::default()).unwrap();
    let compile = |text: &str| compiler.compile(&GrammarSpec::Regex(text.to_owned())).unwrap();
    let engine = engine(random_model(size, Vec::new()));
    let request = |text: &str| Request {
        grammar: Some(compile(text)),
        max_tokens: Some(20),
        ..Request::new(vec![0], SamplingOptions::greedy())
    };
    let failed = answers(&engine, request("abé")).unwrap_err();
    let SequenceError::Grammar { position, source } = failed else { panic!("{failed}") };
    assert_eq!((position, source.code()), (3, "grammar_stuck"));
    assert_eq!(answers(&engine, request("abba")), Ok(vec![(vec![0, 1, 1, 0], Some(Finish::Stop))]));
}
