//! What the fuzz targets share: a folder that lasts as long as the process, and grammars from bytes.

use std::path::Path;
use std::sync::OnceLock;

use fornax_data::Tokenizer;
use fornax_infer::grammar::{GrammarCompiler, GrammarLimits, GrammarSpec};
use tempfile::TempDir;

/// A folder of this process. Targets that need a file write it here, over the one of the input before.
///
/// # Panics
/// When no temporary folder can be made.
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    FOLDER.get_or_init(|| tempfile::tempdir().expect("a temporary folder")).path()
}

/// Lets code that catches a panic of a library go on. libFuzzer's own hook ends the process where a panic begins; one
/// that nobody catches still ends it.
pub fn allow_caught_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(|_| {})));
}

/// A grammar from the fuzzer's bytes: the opening byte chooses the kind, the text goes to the byte 0, and the rest is for the
/// target.
pub fn grammar(bytes: &[u8]) -> Option<(GrammarSpec, &[u8])> {
    let (kind, rest) = bytes.split_first()?;
    let end = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
    let text = String::from_utf8(rest[..end].to_vec()).ok()?;
    let spec = match kind % 4 {
        0 => GrammarSpec::Regex(text),
        1 => GrammarSpec::JsonSchema(serde_json::from_str(&text).ok()?),
        2 => GrammarSpec::Gbnf(text),
        _ => GrammarSpec::Lark(text),
    };
    Some((spec, rest.get(end + 1..).unwrap_or_default()))
}

/// A compiler for a small vocabulary, with the limits of a server.
pub fn compiler() -> &'static GrammarCompiler {
    static COMPILER: OnceLock<GrammarCompiler> = OnceLock::new();
    // The library of grammars panics on some, which is caught and becomes an error.
    allow_caught_panics();
    COMPILER.get_or_init(|| {
        let mut text = [Ok("{\"name\": [true, null, 12]} the cat sat".to_owned())].into_iter();
        let tokenizer = Tokenizer::train_bpe(&mut text, 290, &mut |_| {}).unwrap();
        let end: Vec<u32> = tokenizer.eos_id().into_iter().collect();
        GrammarCompiler::new(&tokenizer, tokenizer.vocab_size(), &end, GrammarLimits::default()).unwrap()
    })
}
