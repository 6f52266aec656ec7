use std::fs;
use std::path::PathBuf;

use fornax_base::testing::gguf::GgufBytes;
use proptest::prelude::*;

use super::*;
use crate::tokenizer::TOKENIZER_FILE;
use crate::tokenizer::tests::recorded::shared;

/// The 47 texts of llama.cpp's `models/ggml-vocab-<name>.gguf.inp` with the ids its `tests/test-tokenizer-0.cpp`
/// expects of them: no special token is added, and none stands in the texts.
fn cases(name: &str) -> Option<Vec<(String, Vec<u32>)>> {
    let read =
        |end| Some(fs::read_to_string(shared(&format!("llama.cpp-vocab/ggml-vocab-{name}.gguf.{end}"))?).unwrap());
    let (texts, ids) = (read("inp")?, read("out")?);
    let texts: Vec<&str> = texts.split("\n__ggml_vocab_test__\n").collect();
    // The last text is empty, and so is its line, which no line break ends.
    let ids = ids.split('\n').map(|line| line.split_whitespace().map(|id| id.parse().unwrap()).collect());
    let cases: Vec<(String, Vec<u32>)> = texts.iter().map(|text| (*text).to_owned()).zip(ids).collect();
    assert_eq!((texts.len(), cases.len()), (47, 47));
    Some(cases)
}

/// Every text gives the ids, and the ids give the text where the vocabulary promises it.
fn check(name: &str, tokenizer: &Tokenizer) {
    let Some(cases) = cases(name) else {
        return;
    };
    for (text, ids) in &cases {
        assert_eq!(&tokenizer.encode(text, false).unwrap(), ids, "{name}: {text:?}");
        assert_eq!(&tokenizer.decode(ids, false).unwrap(), text, "{name}: {ids:?}");
    }
}

fn vocabulary(name: &str) -> Option<Tokenizer> {
    let path = shared(&format!("llama.cpp-vocab/ggml-vocab-{name}.gguf"))?;
    Some(Tokenizer::load(&path).unwrap())
}

#[test]
fn the_four_gguf_vocabularies_give_llama_cpps_ids() {
    for (name, size, bos, eos, opens) in [
        ("gpt-2", 50257, 50256, 50256, false),
        ("llama-spm", 32000, 1, 2, true),
        ("phi-3", 32064, 1, 32000, true),
        ("deepseek-coder", 32256, 32013, 32014, true),
    ] {
        let Some(tokenizer) = vocabulary(name) else {
            return;
        };
        assert_eq!((tokenizer.vocab_size(), tokenizer.bos_id(), tokenizer.eos_id()), (size, Some(bos), Some(eos)));
        check(name, &tokenizer);
        let full = tokenizer.encode("Hello", true).unwrap();
        assert_eq!(full[0] == bos, opens, "{name}");
        // Written as tokenizer.json and read again, it is the same.
        let folder = tempfile::tempdir().unwrap();
        tokenizer.save(&fornax_base::files::RealFs, folder.path()).unwrap();
        let again = Tokenizer::load(folder.path()).unwrap();
        assert_eq!(again.fingerprint(), tokenizer.fingerprint());
        assert_eq!(again.encode("Hello <s>", true).unwrap(), tokenizer.encode("Hello <s>", true).unwrap());
    }
}

/// The other nine sets of ids there (bert-bge, command-r, deepseek-llm, falcon, llama-bpe, mpt, qwen2, refact,
/// starcoder) have no vocabulary beside them.
#[test]
fn the_two_tokenizer_files_give_llama_cpps_ids() {
    for (name, folder) in [("gpt-2", "tokenizer-gpt2"), ("smollm", "tokenizer-smollm2")] {
        let Some(folder) = shared(folder) else {
            return;
        };
        check(name, &Tokenizer::load(&folder).unwrap());
    }
}

/// A GGUF file with the vocabulary of a byte-level `tokenizer.json`.
fn repacked(folder: &str, pre: &str) -> Option<Vec<u8>> {
    let json: serde_json::Value =
        serde_json::from_slice(&fs::read(shared(folder)?.join(TOKENIZER_FILE)).unwrap()).unwrap();
    let vocab = json["model"]["vocab"].as_object().unwrap();
    let mut tokens = vec![""; vocab.len()];
    for (token, id) in vocab {
        tokens[id.as_u64().unwrap() as usize] = token;
    }
    let mut kinds = vec![1; tokens.len()];
    for added in json["added_tokens"].as_array().unwrap() {
        // Some stand beyond the model's own tokens.
        let id = added["id"].as_u64().unwrap() as usize;
        tokens.resize(tokens.len().max(id + 1), "");
        kinds.resize(tokens.len(), 3);
        (tokens[id], kinds[id]) = (added["content"].as_str().unwrap(), 3);
    }
    let merge = |merge: &serde_json::Value| match merge.as_array() {
        Some(two) => format!("{} {}", two[0].as_str().unwrap(), two[1].as_str().unwrap()),
        None => merge.as_str().unwrap().to_owned(),
    };
    let merges: Vec<String> = json["model"]["merges"].as_array().unwrap().iter().map(merge).collect();
    let file = GgufBytes::header(0, 5)
        .key_string("tokenizer.ggml.model", "gpt2")
        .key_string("tokenizer.ggml.pre", pre)
        .key_strings("tokenizer.ggml.tokens", &tokens)
        .key_i32s("tokenizer.ggml.token_type", &kinds)
        .key_strings("tokenizer.ggml.merges", &merges);
    Some(file.0)
}

fn load_bytes(bytes: &[u8]) -> Result<Tokenizer, DataError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.GGUF");
    fs::write(&path, bytes).unwrap();
    Tokenizer::load(&path)
}

#[test]
fn the_smollm_cut_is_that_of_its_tokenizer_file() {
    let Some(bytes) = repacked("tokenizer-smollm2", "smollm") else {
        return;
    };
    check("smollm", &load_bytes(&bytes).unwrap());
}

#[test]
fn sentence_piece_gives_the_recorded_ids() {
    // tests/fixtures/make/spm_ids.py: the `sentencepiece` library on models made of the same pieces and scores.
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tokenizer/spm.json");
    let recorded: serde_json::Value = serde_json::from_slice(&fs::read(recorded).unwrap()).unwrap();
    for name in ["llama.cpp-vocab/ggml-vocab-llama-spm.gguf", "tinyllamas-260k/stories260K.gguf"] {
        let Some(path) = shared(name) else {
            return;
        };
        let tokenizer = Tokenizer::load(&path).unwrap();
        let ids = recorded["ids"][name].as_array().unwrap();
        let texts = recorded["texts"].as_array().unwrap();
        assert!(texts.len() == ids.len() && texts.len() > 100);
        for (text, ids) in texts.iter().zip(ids) {
            let text = text.as_str().unwrap();
            assert_eq!(serde_json::to_value(tokenizer.encode(text, false).unwrap()).unwrap(), *ids, "{text:?}");
        }
    }
}

/// A small SentencePiece vocabulary: `<unk>`, `<s>`, `</s>`, the bytes, `▁`, letters, and `extra` with its score.
fn small(extra: &[(&str, f32)]) -> GgufBytes {
    let bytes = (0..256).map(|byte| format!("<0x{byte:02X}>"));
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(str::to_owned).into_iter().chain(bytes).collect();
    tokens.extend(["▁", "a", "b", "c"].map(str::to_owned));
    let mut kinds = vec![2, 3, 3];
    kinds.extend([6; 256]);
    kinds.extend([1; 4]);
    let mut scores = vec![0.0; 259];
    scores.extend([-1e9; 4]);
    for (token, score) in extra {
        tokens.push((*token).to_owned());
        kinds.push(1);
        scores.push(*score);
    }
    GgufBytes::default()
        .key_string("tokenizer.ggml.model", "llama")
        .key_strings("tokenizer.ggml.tokens", &tokens)
        .key_i32s("tokenizer.ggml.token_type", &kinds)
        .key_f32s("tokenizer.ggml.scores", &scores)
}

fn with_keys(count: u64, keys: GgufBytes) -> Vec<u8> {
    GgufBytes::header(0, count).raw(&keys.0).0
}

#[test]
fn scores_decide_what_is_merged_and_bytes_stand_for_the_rest() {
    let keys = small(&[("ab", -2.0), ("bc", -1.0), ("▁a", -3.0)]);
    let tokenizer = load_bytes(&with_keys(4, keys.clone())).unwrap();
    // "▁abc": bc before ab, then ▁a. Token 263 is ab, 264 bc, 265 ▁a.
    assert_eq!(tokenizer.encode("abc", false).unwrap(), [265, 264]);
    assert_eq!(tokenizer.encode("abc", true).unwrap(), [1, 265, 264]);
    assert_eq!(tokenizer.encode("é", false).unwrap(), [259, 3 + 0xC3, 3 + 0xA9]);
    assert_eq!(tokenizer.decode(&[265, 264, 259, 3 + 0xC3, 3 + 0xA9], false).unwrap(), "abc é");
    assert_eq!((tokenizer.bos_id(), tokenizer.eos_id(), tokenizer.unk_id()), (Some(1), Some(2), Some(0)));
    let no_space = keys.key("tokenizer.ggml.add_space_prefix", 7, &[0]);
    let plain = load_bytes(&with_keys(5, no_space)).unwrap();
    assert_eq!(plain.encode("abc", false).unwrap(), [260, 264]);
    assert_eq!(plain.decode(&[259, 260], false).unwrap(), " a");
}

#[test]
fn files_without_a_vocabulary_that_can_be_used_are_refused() {
    let tokens = |file: GgufBytes| file.key_strings("tokenizer.ggml.tokens", &["a", "b", "ab"]);
    let gpt2 = || tokens(GgufBytes::default().key_string("tokenizer.ggml.model", "gpt2"));
    let pre = || gpt2().key_string("tokenizer.ggml.pre", "gpt-2");
    let merges = |items: &[&str]| pre().key_strings("tokenizer.ggml.merges", items);
    let long = "a".repeat(300);
    for (count, keys, says) in [
        (0, GgufBytes::default(), "no key tokenizer.ggml.tokens"),
        (1, tokens(GgufBytes::default()), "no key tokenizer.ggml.model"),
        (
            2,
            tokens(GgufBytes::default().key_string("tokenizer.ggml.model", "bert")),
            "is `bert`, `gpt2` and `llama`",
        ),
        (2, gpt2(), "no key tokenizer.ggml.pre"),
        (3, gpt2().key_string("tokenizer.ggml.pre", "poro-chat"), "is `poro-chat`, known are gpt-2, smollm"),
        (3, pre(), "no key tokenizer.ggml.merges"),
        (4, merges(&["ab"]), "the merge \"ab\" is not two tokens"),
        (4, merges(&["a x"]), "out of vocabulary"),
        (5, merges(&["a b"]).key_u32("tokenizer.ggml.bos_token_id", 3), "is 3, but it has 3 tokens"),
        (5, merges(&["a b"]).key_i32s("tokenizer.ggml.token_type", &[1]), "1 token types for 3 tokens"),
        (5, merges(&["a b"]).key_i32s("tokenizer.ggml.token_type", &[1, 1, 7]), "a token of type 7"),
        (5, merges(&["a b"]).key_u32("tokenizer.ggml.add_bos_token", 1), "is 1, true or false is expected"),
        (5, merges(&["a b"]).key("tokenizer.chat_template", 8, &[1, 0, 0, 0, 0, 0, 0, 0, 0xFF]), "is not a text"),
        (1, GgufBytes::default().key_strings("tokenizer.ggml.tokens", &["a", "a"]), "\"a\" has the ids 0 and 1"),
        (1, GgufBytes::default().key_strings("tokenizer.ggml.tokens", &[[0xFFu8]]), "is not UTF-8"),
        (1, GgufBytes::default().key_i32s("tokenizer.ggml.tokens", &[1]), "is not an array of texts"),
        (1, GgufBytes::default().key_u32("tokenizer.ggml.tokens", 1), "is 1, an array is expected"),
        (4, small(&[(&long, 0.0)]), "is 300 bytes long"),
        (4, small(&[("ab", f32::NAN)]), "the score of token 263 is NaN"),
    ] {
        let error = load_bytes(&with_keys(count, keys)).unwrap_err().to_string();
        assert!(
            error.contains("x.GGUF` is not usable: ") && error.to_lowercase().contains(&says.to_lowercase()),
            "{says}: {error}"
        );
    }
    let error = load_bytes(b"{}").unwrap_err().to_string();
    assert!(error.contains("it opens with the bytes [7b, 7d]"), "{error}");
    assert!(matches!(Tokenizer::load(&PathBuf::from("absent.gguf")), Err(DataError::File(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn f5_any_change_of_a_gguf_vocabulary_loads_or_errs(
        edits in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![
            Just(vec![0xFF; 8]), Just(vec![0; 4]), Just(vec![3, 0, 0, 0]), "[ -~▁é]{1,6}".prop_map(String::into_bytes),
        ]), 1..4),
        byte_level in any::<bool>(),
    ) {
        let mut bytes = match byte_level {
            false => with_keys(4, small(&[("ab", -2.0), ("▁a", -3.0), ("▁ab", -1.0)])),
            true => GgufBytes::header(0, 5)
                .key_string("tokenizer.ggml.model", "gpt2")
                .key_string("tokenizer.ggml.pre", "llama-bpe")
                .key_strings("tokenizer.ggml.tokens", &["h", "e", "l", "o", "he", "<s>", "hel"])
                .key_i32s("tokenizer.ggml.token_type", &[1, 1, 1, 1, 1, 3, 4])
                .key_strings("tokenizer.ggml.merges", &["h e", "he l"]).0,
        };
        for (at, with) in edits {
            let at = at.index(bytes.len());
            let end = (at + with.len()).min(bytes.len());
            bytes.splice(at..end, with);
        }
        if let Ok(tokenizer) = Gguf::parse(&bytes).map_err(drop).and_then(|gguf| convert(&gguf).map_err(drop))
            .and_then(|(json, side)| Tokenizer::from_parts(json, side, Path::new("x")).map_err(drop))
        {
            let ids = tokenizer.encode("hello ab é", true).unwrap();
            prop_assert!(tokenizer.decode(&ids, false).is_ok());
            prop_assert!(ids.iter().all(|id| (*id as usize) < tokenizer.vocab_size()));
        }
    }
}
