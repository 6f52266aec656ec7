#![allow(clippy::print_stdout, reason = "a test that is passed over says so")]

use std::fs;

use super::*;

mod goldens;
mod ids;
mod limits;
mod origins;
mod properties;
mod spans;
mod turns;

/// A recorded file.
fn fixture(name: &str) -> serde_json::Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/chat").join(name);
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn value(json: &serde_json::Value) -> Json {
    serde_json::from_value(json.clone()).unwrap()
}

/// Recorded messages and tools.
fn conversation(case: &serde_json::Value) -> Conversation {
    let message = |json| Message::from_json(value(json)).unwrap();
    Conversation {
        messages: case["messages"].as_array().unwrap().iter().map(message).collect(),
        tools: Some(&case["tools"]).filter(|tools| !tools.is_null()).map(value),
    }
}

fn options(case: &serde_json::Value) -> RenderOptions {
    let add_generation_prompt = case["add_generation_prompt"].as_bool().unwrap();
    RenderOptions { add_generation_prompt, ..RenderOptions::default() }
}

/// A byte-level tokenizer with these special tokens.
fn with_tokens(tokens: &[&str]) -> Tokenizer {
    let mut text = [Ok("the cat sat on the mat".to_owned())].into_iter();
    let trained = Tokenizer::train_bpe(&mut text, 270, &mut |_| {}).unwrap();
    let folder = tempfile::tempdir().unwrap();
    trained.save(&fornax_base::files::RealFs, folder.path()).unwrap();
    let mut json: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.path().join("tokenizer.json")).unwrap()).unwrap();
    let added = json["added_tokens"].as_array_mut().unwrap();
    let known: Vec<String> = added.iter().map(|token| token["content"].as_str().unwrap().to_owned()).collect();
    let first = trained.vocab_size();
    for (at, content) in tokens.iter().filter(|token| !known.iter().any(|known| known == *token)).enumerate() {
        added.push(serde_json::json!({
            "id": first + at, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        }));
    }
    Tokenizer::from_json(serde_json::to_vec(&json).unwrap()).unwrap()
}
