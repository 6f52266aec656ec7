mod automaton;
mod bytes;
mod engine;
mod limits;
mod memory;
mod random_schemas;
mod speed;
mod suite;

use std::path::Path;
use std::sync::{Arc, OnceLock};

use fornax_data::Tokenizer;
use serde_json::json;

use super::*;

/// A compiler for a vocabulary of single bytes and one token, 256, that ends texts.
fn bytes_compiler() -> GrammarCompiler {
    bytes_compiler_within(GrammarLimits::default())
}

fn bytes_compiler_within(limits: GrammarLimits) -> GrammarCompiler {
    let mut words: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
    words.push(b"\xff<end>".to_vec());
    GrammarCompiler::of_environment(&vocabulary::trie(&words, &[256]).unwrap(), limits).unwrap()
}

/// One for all tests that do not look at what is kept.
fn shared_bytes_compiler() -> &'static GrammarCompiler {
    static COMPILER: OnceLock<GrammarCompiler> = OnceLock::new();
    COMPILER.get_or_init(bytes_compiler)
}

const END: u32 = 256;

/// Whether the grammar describes `text`, byte by byte.
fn matches(grammar: &Grammar, text: &str) -> bool {
    let mut grammar = grammar.clone();
    let ids: Vec<u32> = text.bytes().map(u32::from).collect();
    let whole = grammar.validate(&ids).unwrap() == ids.len();
    whole && ids.iter().all(|id| grammar.accept(*id).is_ok()) && grammar.may_end().unwrap()
}

/// A path under the shared data; none, said or fatal, where it is absent.
pub(crate) fn shared(name: &str) -> Option<std::path::PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data").join(name);
    if path.exists() {
        return Some(path);
    }
    assert_ne!(std::env::var("FORNAX_REQUIRE_DATA").as_deref(), Ok("1"), "{name} is absent");
    #[expect(clippy::print_stderr, reason = "a test that is passed over says so")]
    {
        eprintln!("passed over: {name} is absent");
    }
    None
}

fn trained() -> Arc<Tokenizer> {
    let text = r#"{"name": "Lily", "age": 7, "friends": ["Tom", "Ben"], "happy": true} [1, 2.5, null, -30] "#;
    let mut documents = std::iter::once(Ok(text.repeat(20)));
    Arc::new(Tokenizer::train_bpe(&mut documents, 320, &mut |_| {}).unwrap())
}
