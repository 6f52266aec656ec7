//! Training of byte-level BPE tokenizers, and the `tokenizer.json` of those made here.

use std::collections::HashMap;

use rayon::prelude::*;
use tokenizers::utils::SysRegex;

use super::merges::{self, Learned, Words};
use super::settings::{SideFiles, quoted};
use super::{END_OF_TEXT, Tokenizer, made};
use crate::error::DataError;

/// A document, or why it could not be read.
pub(super) type Document = Result<String, DataError>;

/// Special tokens of a trained tokenizer, which take the lowest ids in this order.
const SPECIAL: [&str; 3] = [END_OF_TEXT, "<|im_start|>", "<|im_end|>"];
/// Largest vocabulary that is trained.
const MAX_VOCAB: usize = 1 << 20;
/// Where text is cut into pieces that merges do not cross: GPT-4's pattern (tiktoken `cl100k_base`) with at most two
/// digits a piece, which suits small vocabularies. Its alternatives cover every character.
const PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Longer pieces are counted in parts: a megabyte without a space teaches nothing and costs a pass a merge.
const LONGEST_PIECE: usize = 256;
/// Text held while its documents are counted in parallel, in bytes.
const CHUNK_BYTES: usize = 8 << 20;
/// The chat format of the two `<|im_...|>` tokens (OpenAI's ChatML).
const CHAT_TEMPLATE: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// How far [`Tokenizer::train_bpe`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrainProgress {
    /// Text counted so far.
    Counting {
        /// Its bytes.
        bytes: u64,
    },
    /// Merges found so far.
    Merging {
        /// Their number.
        done: usize,
        /// The number that fills the vocabulary.
        total: usize,
    },
}

impl Tokenizer {
    /// Trains a byte-level BPE tokenizer (Sennrich et al. 2016, on bytes as in GPT-2) with the special tokens
    /// `<|endoftext|>` (which ends documents), `<|im_start|>`, `<|im_end|>` and a ChatML chat template. Any text
    /// survives encoding and decoding.
    ///
    /// `vocab_size` counts special tokens and the 256 bytes. The vocabulary stays smaller when no pair of tokens
    /// occurs twice any more. Equal documents in equal order give equal bytes: among pairs of equal count the one with
    /// the greater bytes is merged, whatever the number of threads.
    ///
    /// # Errors
    /// [`DataError::VocabularySize`] outside 259..=1048576, [`DataError::NoText`], or what `documents` reports.
    pub fn train_bpe(
        documents: &mut dyn Iterator<Item = Document>,
        vocab_size: usize,
        progress: &mut dyn FnMut(TrainProgress),
    ) -> Result<Tokenizer, DataError> {
        let least = SPECIAL.len() + 256;
        if !(least..=MAX_VOCAB).contains(&vocab_size) {
            return Err(DataError::VocabularySize { found: vocab_size, least, most: MAX_VOCAB });
        }
        let words = count_words(documents, PATTERN, &mut |bytes| progress(TrainProgress::Counting { bytes }))?;
        if words.is_empty() {
            return Err(DataError::NoText("the source a tokenizer is trained on".to_owned()));
        }
        let total = vocab_size - least;
        let learned =
            merges::learn(words, 256 + total, 2, &mut |done| progress(TrainProgress::Merging { done, total }));
        let config = SideFiles::made(chat_config().into_bytes())?;
        Tokenizer::from_parts(byte_level_json(&learned).into_bytes(), config, &made())
    }
}

/// How often each piece occurs, sorted by piece.
pub(super) fn count_words(
    documents: &mut dyn Iterator<Item = Document>,
    pattern: &str,
    progress: &mut dyn FnMut(u64),
) -> Result<Words, DataError> {
    let regex = SysRegex::new(pattern)
        .map_err(|error| DataError::Coding { action: "compile the split pattern", reason: error.to_string() })?;
    let mut counts: HashMap<Vec<u8>, u64> = HashMap::new();
    let mut bytes = 0;
    loop {
        let chunk = take_chunk(documents, CHUNK_BYTES)?;
        if chunk.is_empty() {
            break;
        }
        let found = chunk.par_iter().fold(HashMap::new, |counts, text| count_pieces(&regex, text, counts));
        for part in found.collect::<Vec<_>>() {
            for (piece, count) in part {
                *counts.entry(piece.to_vec()).or_default() += count;
            }
        }
        bytes += chunk.iter().map(|text| text.len() as u64).sum::<u64>();
        progress(bytes);
    }
    let mut words: Words = counts.into_iter().collect();
    words.sort_unstable();
    Ok(words)
}

/// Documents up to about `limit` bytes, at least one if there is one.
fn take_chunk(documents: &mut dyn Iterator<Item = Document>, limit: usize) -> Result<Vec<String>, DataError> {
    let mut chunk = Vec::new();
    let mut bytes = 0;
    while bytes < limit {
        let Some(document) = documents.next() else {
            break;
        };
        let document = document?;
        bytes += document.len();
        chunk.push(document);
    }
    Ok(chunk)
}

fn count_pieces<'t>(
    regex: &SysRegex,
    text: &'t str,
    mut counts: HashMap<&'t [u8], u64>,
) -> HashMap<&'t [u8], u64> {
    let mut add = |piece: &'t str| {
        for part in piece.as_bytes().chunks(LONGEST_PIECE) {
            *counts.entry(part).or_default() += 1;
        }
    };
    let mut end = 0;
    for (from, to) in regex.find_iter(text) {
        add(&text[from..to]);
        end = to;
    }
    // The regex library gives up on some very long pieces; encoding then takes the rest as one piece too.
    add(&text[end..]);
    counts
}

fn byte_level_json(learned: &Learned) -> String {
    let alphabet = byte_alphabet();
    let spell = |bytes: &[u8]| quoted(&bytes.iter().map(|byte| alphabet[usize::from(*byte)]).collect::<String>());
    let tokens: Vec<String> =
        SPECIAL.iter().map(|name| quoted(name)).chain(learned.tokens.iter().map(|bytes| spell(bytes))).collect();
    let merges: Vec<[String; 2]> = learned
        .merges
        .iter()
        .map(|(left, right)| [*left, *right].map(|id| spell(&learned.tokens[id as usize])))
        .collect();
    let split = format!(
        "{{ \"type\": \"Split\", \"pattern\": {{ \"Regex\": {} }}, \"behavior\": \"Isolated\", \"invert\": false }}",
        quoted(PATTERN)
    );
    let byte_level = |use_regex| {
        format!(
            "{{ \"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": {use_regex} }}"
        )
    };
    render(&Json {
        special: &SPECIAL,
        pre_tokenizer: &format!(
            "{{ \"type\": \"Sequence\", \"pretokenizers\": [\n    {split},\n    {}\n  ] }}",
            byte_level(false)
        ),
        post_processor: "null",
        decoder: &byte_level(true),
        tokens: &tokens,
        merges: &merges,
    })
}

/// GPT-2's `bytes_to_unicode`: a printable character for each byte.
pub(super) fn byte_alphabet() -> [char; 256] {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut next = 256;
    std::array::from_fn(|index| {
        let byte = index as u8;
        if printable(byte) {
            return char::from(byte);
        }
        next += 1;
        // The 68 other bytes take the characters from U+0100 on, all of them assigned.
        char::from_u32(next - 1).unwrap_or(char::REPLACEMENT_CHARACTER)
    })
}

/// The pieces of a `tokenizer.json`; everything but `special` is JSON already.
pub(super) struct Json<'a> {
    pub(super) special: &'a [&'a str],
    pub(super) pre_tokenizer: &'a str,
    pub(super) post_processor: &'a str,
    pub(super) decoder: &'a str,
    /// Quoted tokens in the order of their ids; the special ones lead.
    pub(super) tokens: &'a [String],
    /// Quoted halves of each merge in order of rank.
    pub(super) merges: &'a [[String; 2]],
}

/// A `tokenizer.json` written by hand, because its bytes are a fingerprint: no map, whose order could change with a
/// feature of the JSON library, takes part.
pub(super) fn render(json: &Json) -> String {
    let added: Vec<String> = (0..).zip(json.special).map(|(id, name)| special_json(id, name)).collect();
    let vocab: Vec<String> =
        (0..).zip(json.tokens).map(|(id, token): (u32, _)| format!("      {token}: {id}")).collect();
    let merges: Vec<String> = json.merges.iter().map(|[a, b]| format!("      [{a}, {b}]")).collect();
    format!(
        r#"{{
  "version": "1.0",
  "truncation": null,
  "padding": null,
  "added_tokens": [{}],
  "normalizer": null,
  "pre_tokenizer": {},
  "post_processor": {},
  "decoder": {},
  "model": {{
    "type": "BPE",
    "dropout": null,
    "unk_token": null,
    "continuing_subword_prefix": null,
    "end_of_word_suffix": null,
    "fuse_unk": false,
    "byte_fallback": false,
    "ignore_merges": false,
    "vocab": {{
{}
    }},
    "merges": [{}]
  }}
}}
"#,
        block(&added, "  "),
        json.pre_tokenizer,
        json.post_processor,
        json.decoder,
        vocab.join(",\n"),
        block(&merges, "    "),
    )
}

/// A special token, as `added_tokens` lists it.
fn special_json(id: u32, name: &str) -> String {
    let name = quoted(name);
    format!(
        "    {{ \"id\": {id}, \"content\": {name}, \"single_word\": false, \"lstrip\": false, \"rstrip\": false, \"normalized\": false, \"special\": true }}"
    )
}

/// Lines of a JSON array between its brackets.
fn block(lines: &[String], indent: &str) -> String {
    if lines.is_empty() { String::new() } else { format!("\n{}\n{indent}", lines.join(",\n")) }
}

fn chat_config() -> String {
    format!(
        r#"{{
  "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
  "chat_template": {},
  "clean_up_tokenization_spaces": false,
  "eos_token": "<|endoftext|>",
  "pad_token": "<|endoftext|>",
  "tokenizer_class": "PreTrainedTokenizerFast"
}}
"#,
        quoted(CHAT_TEMPLATE)
    )
}
