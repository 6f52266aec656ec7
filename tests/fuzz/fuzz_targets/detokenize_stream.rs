//! F7: the pieces of a stream, put together, are the text of all ids decoded at once.
#![no_main]

use std::sync::{Arc, OnceLock};

use fornax_data::Tokenizer;
use fornax_infer::detokenize::Detokenizer;
use libfuzzer_sys::fuzz_target;

// One byte chooses the tokenizer, one whether special tokens are skipped, one where the prompt ends; then two an id.
fuzz_target!(|bytes: &[u8]| {
    let [kind, skip, prompt, rest @ ..] = bytes else { return };
    let tokenizer = &tokenizers()[usize::from(*kind) % tokenizers().len()];
    let limit = tokenizer.vocab_size() as u32 + 3;
    let (pairs, _) = rest.as_chunks::<2>();
    let ids: Vec<u32> = pairs.iter().map(|pair| u32::from(u16::from_le_bytes(*pair)) % limit).collect();
    let skip = skip % 2 == 1;
    let whole = tokenizer.decode(&ids, skip).unwrap();
    assert_eq!(stream(Detokenizer::new(Arc::clone(tokenizer), skip), &ids), whole, "{ids:?}");
    let (prompt, ids) = ids.split_at(usize::from(*prompt).min(ids.len()));
    let behind = Detokenizer::after_prompt(Arc::clone(tokenizer), prompt, skip).unwrap();
    assert!(whole.ends_with(&stream(behind, ids)), "{prompt:?} {ids:?}");
});

fn stream(mut detokenizer: Detokenizer, ids: &[u32]) -> String {
    let mut text = String::new();
    for id in ids {
        if let Some(piece) = detokenizer.push(*id).unwrap() {
            assert!(!piece.is_empty());
            text += &piece;
        }
    }
    text + &detokenizer.finish().unwrap()
}

/// Byte-level BPE, a character vocabulary, and SentencePiece's byte fallback.
fn tokenizers() -> &'static [Arc<Tokenizer>] {
    static TOKENIZERS: OnceLock<Vec<Arc<Tokenizer>>> = OnceLock::new();
    TOKENIZERS.get_or_init(|| {
        let text = "Lily met a naïve 🦀 crab. 你好, said the crab; 你好! said Lily. ".repeat(20);
        let one = |text: &str| std::iter::once(Ok(text.to_owned()));
        let trained = Tokenizer::train_bpe(&mut one(&text), 330, &mut |_| {}).unwrap();
        let characters = Tokenizer::characters(&mut one("ab é 你\u{fffd}")).unwrap();
        let fallback = Tokenizer::from_json(byte_fallback().into_bytes()).unwrap();
        [trained, characters, fallback].map(Arc::new).to_vec()
    })
}

fn byte_fallback() -> String {
    let bytes = (0..256).map(|byte| format!("<0x{byte:02X}>"));
    let tokens = bytes.chain(["▁", "a", "▁a", "b"].map(str::to_owned));
    let vocab: Vec<String> = tokens.enumerate().map(|(id, token)| format!("\"{token}\": {id}")).collect();
    format!(
        r#"{{"version": "1.0", "normalizer": null, "pre_tokenizer": null, "post_processor": null,
        "decoder": {{"type": "Sequence", "decoders": [
            {{"type": "Replace", "pattern": {{"String": "▁"}}, "content": " "}}, {{"type": "ByteFallback"}},
            {{"type": "Fuse"}}, {{"type": "Strip", "content": " ", "start": 1, "stop": 0}}]}},
        "added_tokens": [{{"id": 260, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true}}],
        "model": {{"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": true, "ignore_merges": false,
            "vocab": {{{}, "</s>": 260}}, "merges": []}}}}"#,
        vocab.join(", ")
    )
}
