use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;

const CASES: u32 = 1000;

/// A file or folder of `../shared/data`, or `None` where tests may go without.
fn shared(name: &str) -> Option<PathBuf> {
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data");
    let path = Path::new(data).join(name);
    if !path.exists() && std::env::var("FORNAX_REQUIRE_DATA").as_deref() != Ok("1") {
        #[expect(clippy::print_stderr, reason = "a test that is passed over says so")]
        {
            eprintln!("passed over: {} is absent", path.display());
        }
        return None;
    }
    Some(path)
}

fn real(name: &str) -> Option<Arc<Tokenizer>> {
    Some(Arc::new(Tokenizer::load(&shared(name)?).unwrap()))
}

fn trained() -> Arc<Tokenizer> {
    let text = "Once upon a time, Lily met a naïve 🦀 crab. 你好, said the crab; 你好! said Lily. ".repeat(20);
    let mut documents = std::iter::once(Ok(text));
    Arc::new(Tokenizer::train_bpe(&mut documents, 330, &mut |_| {}).unwrap())
}

/// A tokenizer of these tokens, in order of ids; `</s>` is special.
fn made(decoder: &str, tokens: &[&str]) -> Arc<Tokenizer> {
    let quoted = |text: &&str| serde_json::to_string(text).unwrap();
    let vocab: Vec<String> =
        (0..).zip(tokens).map(|(id, token): (u32, _)| format!("{}: {id}", quoted(token))).collect();
    let end = tokens.len();
    let json = format!(
        r#"{{"version": "1.0", "truncation": null, "padding": null, "normalizer": null, "pre_tokenizer": null,
        "post_processor": null, "decoder": {decoder},
        "added_tokens": [{{"id": {end}, "content": "</s>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true}}],
        "model": {{"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": true, "ignore_merges": false,
            "vocab": {{{}, "</s>": {end}}}, "merges": []}}}}"#,
        vocab.join(", ")
    );
    Arc::new(Tokenizer::from_json(json.into_bytes()).unwrap())
}

/// All byte tokens, ids 0 to 255, and a few others.
fn byte_fallback() -> Arc<Tokenizer> {
    let bytes: Vec<String> = (0..256).map(|byte| format!("<0x{byte:02X}>")).collect();
    let others = ["▁", "a", "▁a", "b", "\u{fffd}"];
    let tokens: Vec<&str> = bytes.iter().map(String::as_str).chain(others).collect();
    made(LLAMA, &tokens)
}

const LLAMA: &str = r#"{"type": "Sequence", "decoders": [
    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
    {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}"#;
const GEMMA: &str = r#"{"type": "Sequence", "decoders": [
    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]}"#;
const STRIP_THREE: &str = r#"{"type": "Sequence", "decoders": [
    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
    {"type": "Strip", "content": " ", "start": 3, "stop": 0}]}"#;
const METASPACE: &str = r#"{"type": "Sequence", "decoders": [{"type": "ByteFallback"},
    {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true}]}"#;
const WORDPIECE: &str = r###"{"type": "WordPiece", "prefix": "##", "cleanup": true}"###;
const END_OF_WORD: &str = r#"{"type": "BPEDecoder", "suffix": "</w>"}"#;
const CTC: &str = r#"{"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": true}"#;
const BYTE_LEVEL: &str =
    r#"{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}"#;

/// Tokens that each mean something to one of the decoders above.
const TOKENS: [&str; 24] = [
    "▁",
    "▁▁",
    "a",
    "▁a",
    " ",
    "",
    "<0xE2>",
    "<0x82>",
    "<0xAC>",
    "<0x41>",
    "<0x20>",
    "<0xF0>",
    "<0xFF>",
    "\u{fffd}",
    "x\u{fffd}",
    "##b",
    ".",
    "n't",
    "do</w>",
    "</w>",
    "<pad>",
    "|",
    "Ġ",
    "â",
];

fn pieces(mut detokenizer: Detokenizer, ids: &[u32]) -> Vec<String> {
    let mut pieces = Vec::new();
    for id in ids {
        if let Some(piece) = detokenizer.push(*id).unwrap() {
            assert!(!piece.is_empty());
            pieces.push(piece);
        }
    }
    pieces.push(detokenizer.finish().unwrap());
    pieces
}

/// The pieces, put together, are the whole, also when a part of the ids is the prompt.
fn check(tokenizer: &Arc<Tokenizer>, ids: &[u32], skip_special: bool) -> Result<(), TestCaseError> {
    let whole = tokenizer.decode(ids, skip_special).unwrap();
    let all = pieces(Detokenizer::new(Arc::clone(tokenizer), skip_special), ids);
    prop_assert_eq!(all.concat(), whole.as_str(), "{:?}", ids);
    let (prompt, rest) = ids.split_at(ids.len() / 3);
    let behind = Detokenizer::after_prompt(Arc::clone(tokenizer), prompt, skip_special).unwrap();
    let after = pieces(behind, rest).concat();
    prop_assert!(whole.ends_with(&after), "{:?} does not end in {:?}", whole, after);
    Ok(())
}

/// F7: runs the property over ids of which `chosen` (those that are not whole text) make up half.
fn property(tokenizer: &Arc<Tokenizer>, chosen: Vec<u32>) {
    let vocab_size = tokenizer.vocab_size() as u32;
    let id = prop_oneof![
        4 => 0..vocab_size,
        4 => prop::sample::select(chosen),
        1 => 0..vocab_size + 3,
    ];
    let ids = prop::collection::vec(id, 0..60);
    let mut runner = prop::test_runner::TestRunner::new(ProptestConfig::with_cases(CASES));
    let outcome = runner.run(&(ids, any::<bool>()), |(ids, skip)| check(tokenizer, &ids, skip));
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

/// F7 over ids that are nearly text: encodings of short texts, some of them cut, one after another.
fn property_of_cut_text(tokenizer: &Arc<Tokenizer>) {
    let part = ("[ ab.\u{fffd}éß你好🦀🜚]{0,4}", 0usize..5, any::<bool>());
    let parts = prop::collection::vec(part, 0..20);
    let mut runner = prop::test_runner::TestRunner::new(ProptestConfig::with_cases(CASES));
    let outcome = runner.run(&(parts, any::<bool>()), |(parts, skip)| {
        let mut all = Vec::new();
        for (text, cut, at_front) in parts {
            let ids = tokenizer.encode(&text, false).unwrap();
            let cut = cut.saturating_sub(1).min(ids.len());
            let range = if at_front { cut..ids.len() } else { 0..ids.len() - cut };
            all.extend_from_slice(&ids[range]);
        }
        check(tokenizer, &all, skip)
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

/// Ids that alone decode to nothing or to U+FFFD, or are special.
fn awkward(tokenizer: &Tokenizer) -> Vec<u32> {
    (0..tokenizer.vocab_size() as u32)
        .filter(|id| {
            let text = tokenizer.decode(&[*id], false).unwrap();
            text.is_empty() || text.contains('\u{fffd}') || tokenizer.token_bytes(*id) == 0
        })
        .collect()
}

fn property_of_real(name: &str) {
    if let Some(tokenizer) = real(name) {
        let chosen = awkward(&tokenizer);
        assert!(chosen.len() > 3, "{} awkward ids", chosen.len());
        property(&tokenizer, chosen);
        property_of_cut_text(&tokenizer);
    }
}

#[test]
fn gpt2_streams_exactly() {
    property_of_real("tokenizer-gpt2");
}

#[test]
fn smollm2_streams_exactly() {
    property_of_real("tokenizer-smollm2");
}

#[test]
fn tinystories_streams_exactly() {
    property_of_real("tinystories-656k-hf");
}

#[test]
fn a_trained_tokenizer_streams_exactly() {
    let tokenizer = trained();
    property(&tokenizer, awkward(&tokenizer));
    property_of_cut_text(&tokenizer);
}

#[test]
fn byte_fallback_streams_exactly() {
    let tokenizer = byte_fallback();
    assert_eq!(tokenizer.encode("é", false).unwrap(), [0xC3, 0xA9]);
    property(&tokenizer, awkward(&tokenizer));
    property_of_cut_text(&tokenizer);
}

#[test]
fn a_character_vocabulary_streams_exactly() {
    let mut documents = std::iter::once(Ok("ab é 你\u{fffd}".to_owned()));
    let tokenizer = Arc::new(Tokenizer::characters(&mut documents).unwrap());
    property(&tokenizer, vec![0, 5]);
}

#[test]
fn every_kind_of_decoder_streams_exactly() {
    for decoder in [LLAMA, GEMMA, STRIP_THREE, METASPACE, WORDPIECE, CTC, BYTE_LEVEL, "null"] {
        property(&made(decoder, &TOKENS), (0..TOKENS.len() as u32).collect());
    }
}

#[test]
fn end_of_word_markers_stream_exactly() {
    // The library cannot decode an empty list with this decoder, so every text here has a token.
    let tokenizer = made(END_OF_WORD, &TOKENS);
    let ids = prop::collection::vec(0..TOKENS.len() as u32, 1..60);
    let mut runner = prop::test_runner::TestRunner::new(ProptestConfig::with_cases(CASES));
    let outcome = runner.run(&ids, |ids| {
        let whole = tokenizer.decode(&ids, true).unwrap();
        let all = pieces(Detokenizer::new(Arc::clone(&tokenizer), true), &ids);
        prop_assert_eq!(all.concat(), whole);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

#[track_caller]
fn check_pieces(decoder: &str, tokens: &[&str], expected: &[&str]) {
    let tokenizer = made(decoder, &TOKENS);
    let ids: Vec<u32> = tokens.iter().map(|token| tokenizer.id_of(token).unwrap()).collect();
    assert_eq!(pieces(Detokenizer::new(tokenizer, true), &ids), expected);
}

#[test]
fn the_space_before_the_text_is_stripped_once() {
    check_pieces(LLAMA, &["▁a", "▁a", "a"], &["a", " a", "a", ""]);
    check_pieces(LLAMA, &["▁", "▁", "▁a"], &[" ", " a", ""]);
}

#[test]
fn a_run_of_byte_tokens_is_held_until_it_ends() {
    check_pieces(LLAMA, &["a", "<0xE2>", "<0x82>", "<0xAC>", "a"], &["a", "€a", ""]);
    check_pieces(LLAMA, &["a", "<0xE2>", "<0x82>", "<0xAC>"], &["a", "€"]);
    check_pieces(LLAMA, &["<0x41>", "<0xE2>", "a"], &["\u{fffd}\u{fffd}a", ""]);
}

#[test]
fn a_skipped_special_token_does_not_end_a_run() {
    check_pieces(LLAMA, &["<0xE2>", "</s>", "<0x82>", "<0xAC>", "a"], &["€a", ""]);
}

#[test]
fn an_incomplete_character_comes_out_at_the_end() {
    let tokenizer = trained();
    let ids = tokenizer.encode("a🜚", false).unwrap();
    let cut = &ids[..ids.len() - 1];
    let found = pieces(Detokenizer::new(tokenizer, true), cut);
    assert_eq!(found, ["a", "\u{fffd}"]);
}

#[test]
fn text_that_is_whole_comes_without_delay() {
    let tokenizer = trained();
    let ids = tokenizer.encode("Lily met a crab.", false).unwrap();
    let found = pieces(Detokenizer::new(tokenizer, true), &ids);
    assert_eq!(found.len(), ids.len() + 1);
    assert_eq!(found.last().unwrap(), "");
}

#[test]
fn a_prompt_keeps_its_distance() {
    let tokenizer = made(LLAMA, &TOKENS);
    let ids = [tokenizer.id_of("▁a").unwrap(); 2];
    let behind = Detokenizer::after_prompt(tokenizer, &ids[..1], true).unwrap();
    assert_eq!(pieces(behind, &ids[1..]), [" a", ""]);
}

#[test]
fn no_ids_give_no_text() {
    assert_eq!(Detokenizer::new(trained(), true).finish().unwrap(), "");
}

#[test]
fn a_decoder_that_rewrites_text_is_an_error() {
    // A marker inside a token is a space unless the token is the last.
    let tokenizer = made(END_OF_WORD, &["a</w>b", "c"]);
    let mut detokenizer = Detokenizer::new(tokenizer, true);
    assert_eq!(detokenizer.push(0).unwrap(), Some("ab".to_owned()));
    let error = detokenizer.push(1).unwrap_err();
    assert!(matches!(error, DetokenizeError::Rewritten { id: 1, .. }), "{error}");
}

/// The window must not grow with the text, whatever the ids.
#[test]
fn the_window_stays_short() {
    for decoder in [LLAMA, GEMMA, STRIP_THREE, METASPACE, WORDPIECE, BYTE_LEVEL, "null"] {
        let tokenizer = made(decoder, &TOKENS);
        for token in TOKENS {
            let id = tokenizer.id_of(token).unwrap();
            let mut detokenizer = Detokenizer::new(Arc::clone(&tokenizer), true);
            detokenizer.push(2).unwrap();
            for _ in 0..200 {
                detokenizer.push(id).unwrap();
            }
            let held = detokenizer.is_byte(id).unwrap();
            let most = if held { 201 } else { LONG_WINDOW };
            let length = detokenizer.window.len();
            assert!(length <= most, "{decoder} {token:?}: {length} ids");
        }
    }
}

#[test]
fn a_long_text_of_stray_bytes_keeps_a_short_window() {
    let tokenizer = trained();
    let stray: Vec<u32> = awkward(&tokenizer).into_iter().filter(|id| tokenizer.token_bytes(*id) == 1).collect();
    let ids: Vec<u32> = (0..5000).map(|i| stray[i * 7919 % stray.len()]).collect();
    let mut detokenizer = Detokenizer::new(Arc::clone(&tokenizer), true);
    let mut text = String::new();
    for id in &ids {
        text.extend(detokenizer.push(*id).unwrap());
        assert!(detokenizer.window.len() <= LONG_WINDOW);
    }
    text.push_str(&detokenizer.finish().unwrap());
    assert_eq!(text, tokenizer.decode(&ids, true).unwrap());
}

/// The texts that llama.cpp tests its vocabularies with, and their ids.
fn llama_cpps_texts(name: &str) -> Option<Vec<(String, Vec<u32>)>> {
    let read = |end| shared(&format!("llama.cpp-vocab/ggml-vocab-{name}.gguf.{end}")).map(std::fs::read_to_string);
    let (texts, ids) = (read("inp")?.unwrap(), read("out")?.unwrap());
    let ids = ids.split('\n').map(|line| line.split_whitespace().map(|id| id.parse().unwrap()).collect());
    Some(texts.split("\n__ggml_vocab_test__\n").map(str::to_owned).zip(ids).collect())
}

#[test]
fn llama_cpps_texts_stream_exactly() {
    for (name, file) in [
        ("gpt-2", "llama.cpp-vocab/ggml-vocab-gpt-2.gguf"),
        ("smollm", "tokenizer-smollm2"),
        ("llama-spm", "llama.cpp-vocab/ggml-vocab-llama-spm.gguf"),
        ("phi-3", "llama.cpp-vocab/ggml-vocab-phi-3.gguf"),
        ("deepseek-coder", "llama.cpp-vocab/ggml-vocab-deepseek-coder.gguf"),
    ] {
        let (Some(texts), Some(tokenizer)) = (llama_cpps_texts(name), real(file)) else { return };
        assert_eq!(texts.len(), 47);
        let mut tokens = 0;
        for (text, ids) in &texts {
            let mut detokenizer = Detokenizer::new(Arc::clone(&tokenizer), true);
            let mut given = String::new();
            for (place, id) in ids.iter().enumerate() {
                if place % 7 == 3 {
                    // What comes behind any part of it as a prompt is the rest.
                    let behind = Detokenizer::after_prompt(Arc::clone(&tokenizer), &ids[..place], true).unwrap();
                    assert_eq!(given.clone() + &pieces(behind, &ids[place..]).concat(), *text, "{name}");
                }
                given.extend(detokenizer.push(*id).unwrap());
                // None of these texts holds U+FFFD: it would be half a character.
                assert!(text.starts_with(&given), "{name}: {given:?} of {text:?}");
            }
            tokens += ids.len();
            assert_eq!(given + &detokenizer.finish().unwrap(), *text, "{name}");
        }
        assert!(tokens > 400, "{name}: {tokens} tokens");
    }
}

/// Reading the end of a prompt alone changes nothing.
#[test]
fn the_end_of_a_long_prompt_is_enough() {
    for decoder in [LLAMA, GEMMA, STRIP_THREE, METASPACE, WORDPIECE, CTC, BYTE_LEVEL, "null"] {
        let tokenizer = made(decoder, &TOKENS);
        let id = prop_oneof![3 => 0..TOKENS.len() as u32, 1 => Just(6u32), 1 => Just(TOKENS.len() as u32)];
        let ids = (prop::collection::vec(id.clone(), 0..120), prop::collection::vec(id, 0..20));
        let mut runner = prop::test_runner::TestRunner::new(ProptestConfig::with_cases(CASES / 4));
        let outcome = runner.run(&(ids, any::<bool>()), |((prompt, ids), skip)| {
            let mut whole = Detokenizer::new(Arc::clone(&tokenizer), skip);
            for id in &prompt {
                whole.push(*id).unwrap();
            }
            let end = Detokenizer::after_prompt(Arc::clone(&tokenizer), &prompt, skip).unwrap();
            prop_assert_eq!(pieces(end, &ids), pieces(whole, &ids), "{:?}", prompt);
            Ok(())
        });
        if let Err(error) = outcome {
            panic!("{decoder}: {error}");
        }
    }
}
