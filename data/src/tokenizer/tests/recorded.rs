//! Against what other programs produced: real tokenizers, the CS336 trainer, nanoGPT's characters.

use std::fs;

use fornax_base::files::RealFs;

use super::*;

/// A path under the shared data, or `None` where it is not kept and need not be.
pub(in crate::tokenizer) fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data").join(name);
    if path.exists() {
        return Some(path);
    }
    assert_ne!(std::env::var("FORNAX_REQUIRE_DATA").as_deref(), Ok("1"), "shared data `{name}` is absent");
    println!("shared data `{name}` is absent: passed over");
    None
}

#[test]
fn merges_equal_the_recorded_reference() {
    // Stanford CS336, assignment 1: GPT-2's split pattern, vocabulary 500 with one special token.
    let Some(folder) = shared("cs336-basics/fixtures") else {
        return;
    };
    let pattern = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
    let corpus = fs::read_to_string(folder.join("corpus.en")).unwrap();
    let words = train::count_words(&mut std::iter::once(Ok(corpus)), pattern, &mut |_| {}).unwrap();
    let learned = merges::learn(words, 499, 1, &mut |_| {});
    let alphabet = train::byte_alphabet();
    let spell = |id: u32| -> String {
        learned.tokens[id as usize].iter().map(|byte| alphabet[usize::from(*byte)]).collect()
    };
    let found: Vec<String> = learned.merges.iter().map(|(a, b)| format!("{} {}", spell(*a), spell(*b))).collect();
    let expected = fs::read_to_string(folder.join("train-bpe-reference-merges.txt")).unwrap();
    assert_eq!(found, expected.lines().collect::<Vec<_>>());
    let vocab: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&fs::read(folder.join("train-bpe-reference-vocab.json")).unwrap()).unwrap();
    assert_eq!(vocab.len(), 500);
    assert!((0..499).all(|id| vocab.contains_key(&spell(id))));
}

#[test]
fn shakespeare_has_nanogpts_sixty_five_characters() {
    let Some(path) = shared("tinyshakespeare/input.txt") else {
        return;
    };
    let text = fs::read_to_string(path).unwrap();
    let tokenizer = Tokenizer::characters(&mut std::iter::once(Ok(text.clone()))).unwrap();
    assert_eq!(tokenizer.vocab_size(), 65);
    let ids = tokenizer.encode(&text, false).unwrap();
    // The opening ids as nanoGPT's data/shakespeare_char/prepare.py numbers them: "First".
    assert_eq!(ids[..5], [18, 47, 56, 57, 58]);
    assert_eq!(tokenizer.decode(&ids[..100], false).unwrap(), text[..100]);
}

const LINES: [&str; 3] = [
    "Hello, world! It's 2024.\n\n  Two  spaces",
    "naïve café — 你好 🙂<|endoftext|>x",
    "Once upon a time, Lily's cat said: \"Hi\".",
];

/// Ids recorded with Python `tokenizers` 0.23.3, `add_special_tokens=False`, truncation and padding off.
fn check_recorded(tokenizer: &Tokenizer, recorded: [&[u32]; 3]) {
    for (line, ids) in LINES.iter().zip(recorded) {
        assert_eq!(tokenizer.encode(line, false).unwrap(), ids, "{line}");
    }
}

#[test]
fn gpt2_equals_python() {
    let Some(folder) = shared("tokenizer-gpt2") else {
        return;
    };
    let tokenizer = Tokenizer::load(&folder).unwrap();
    check_recorded(
        &tokenizer,
        [
            &[15496, 11, 995, 0, 632, 338, 48609, 13, 628, 220, 4930, 220, 9029],
            &[2616, 38776, 40304, 851, 220, 19526, 254, 25001, 121, 32485, 50256, 87],
            &[7454, 2402, 257, 640, 11, 20037, 338, 3797, 531, 25, 366, 17250, 1911],
        ],
    );
    assert_eq!((tokenizer.vocab_size(), tokenizer.eos_id(), tokenizer.bos_id()), (50257, Some(50256), None));
    check_text(&tokenizer, 0);
    // It came without a configuration and gets one; its own file is kept byte for byte.
    let copy = tempfile::tempdir().unwrap();
    tokenizer.save(&RealFs, copy.path()).unwrap();
    assert_eq!(
        fs::read(copy.path().join(TOKENIZER_FILE)).unwrap(),
        fs::read(folder.join(TOKENIZER_FILE)).unwrap()
    );
    assert_eq!(Tokenizer::load(copy.path()).unwrap().eos_id(), Some(50256));
}

#[test]
fn smollm2_equals_python() {
    let Some(folder) = shared("tokenizer-smollm2") else {
        return;
    };
    let tokenizer = Tokenizer::load(&folder.join(TOKENIZER_FILE)).unwrap();
    check_recorded(
        &tokenizer,
        [
            &[19556, 28, 905, 17, 657, 506, 216, 34, 32, 34, 36, 30, 8866, 5713, 216, 5600],
            &[3546, 46494, 37366, 1841, 216, 18645, 250, 48392, 138, 47526, 0, 104],
            &[6403, 1980, 253, 655, 28, 14176, 506, 2644, 1137, 42, 476, 26843, 2227],
        ],
    );
    assert_eq!((tokenizer.bos_id(), tokenizer.eos_id(), tokenizer.pad_id()), (Some(1), Some(2), Some(49152)));
    assert_eq!(tokenizer.vocab_size(), 49153);
    check_text(&tokenizer, 0);
    let copy = tempfile::tempdir().unwrap();
    tokenizer.save(&RealFs, copy.path()).unwrap();
    for name in [TOKENIZER_FILE, "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"] {
        assert_eq!(fs::read(copy.path().join(name)).unwrap(), fs::read(folder.join(name)).unwrap(), "{name}");
    }
}

#[test]
fn tinystories_equals_python() {
    let Some(folder) = shared("tinystories-656k-hf") else {
        return;
    };
    let tokenizer = Tokenizer::load(&folder).unwrap();
    check_recorded(
        &tokenizer,
        [
            &[80, 1443, 410, 555, 271, 1504, 13, 11, 13, 15, 122, 3, 80, 80, 45, 75, 139, 80, 415, 53, 1499],
            &[80, 557, 0, 218, 295, 58, 0, 80, 0, 80, 0, 80, 0, 208, 183, 187, 72, 375, 72, 210, 76],
            &[80, 147, 201, 282, 215, 1837, 411, 174, 1608, 5, 1158, 5, 10],
        ],
    );
    // transformers 5.23.0, AutoTokenizer: one beginning-of-text token, from the post-processor.
    let ids = tokenizer.encode(LINES[2], true).unwrap();
    assert_eq!(ids, [1, 80, 147, 201, 282, 215, 1837, 411, 174, 1608, 5, 1158, 5, 10]);
    let special = [tokenizer.bos_id(), tokenizer.eos_id(), tokenizer.pad_id(), tokenizer.unk_id()];
    assert_eq!(special, [Some(1), Some(2), Some(0), Some(0)]);
    // The space it puts in front of a text counts.
    let ids = tokenizer.encode(LINES[2], false).unwrap();
    assert_eq!(ids.iter().map(|id| tokenizer.token_bytes(*id)).sum::<usize>(), LINES[2].len() + 1);
}

/// Real text survives the way there and back, and its bytes are counted right; each text costs `extra` bytes.
fn check_text(tokenizer: &Tokenizer, extra: usize) {
    let Some(path) = shared("tinystories/tiny_stories.txt") else {
        return;
    };
    let text: String = fs::read_to_string(path).unwrap().chars().take(100_000).collect();
    round_trip(tokenizer, &text);
    let ids = tokenizer.encode(&text, false).unwrap();
    assert_eq!(ids.iter().map(|id| tokenizer.token_bytes(*id)).sum::<usize>(), text.len() + extra);
}
