//! Training of byte-level BPE tokenizers, and the `tokenizer.json` of those made here.

use std::collections::HashMap;
use std::sync::Arc;

use rayon::prelude::*;
use tokenizers::utils::SysRegex;

use super::json::{AddedToken, Json};
use super::merges::{self, Learned, Words};
use super::settings::{SideFiles, quoted};
use super::{END_OF_TEXT, MAX_TOKENS, Tokenizer, made};
use crate::error::DataError;

/// A document, or why it could not be read.
pub(super) type Document = Result<String, DataError>;

/// Special tokens of a trained tokenizer, which take the lowest ids in this order.
const SPECIAL: [&str; 3] = [END_OF_TEXT, "<|im_start|>", "<|im_end|>"];
/// Where text is cut into pieces that merges do not cross: GPT-4's pattern (tiktoken `cl100k_base`) with at most two
/// digits a piece, which suits small vocabularies. Its alternatives cover every character.
const PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Longer pieces are counted in parts: a megabyte without a space teaches nothing and costs a pass a merge.
const LONGEST_PIECE: usize = 256;
/// Text held while its documents are counted in parallel, in bytes.
const CHUNK_BYTES: usize = 8 << 20;
/// The chat format of the two `<|im_...|>` tokens (OpenAI's ChatML).
pub(crate) const CHAT_TEMPLATE: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

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
    /// [`DataError::VocabularySize`] outside 259..=524288, [`DataError::NoText`], or what `documents` reports.
    pub fn train_bpe(
        documents: &mut dyn Iterator<Item = Document>,
        vocab_size: usize,
        progress: &mut dyn FnMut(TrainProgress),
    ) -> Result<Tokenizer, DataError> {
        Tokenizer::train_bpe_with(documents, vocab_size, &[], progress)
    }

    /// The same with more special tokens, which take the ids after the three.
    ///
    /// # Errors
    /// As [`Tokenizer::train_bpe`], whose least size each of them raises by 1; [`DataError::SpecialToken`] when one is
    /// empty or stands twice.
    pub fn train_bpe_with(
        documents: &mut dyn Iterator<Item = Document>,
        vocab_size: usize,
        more_special: &[String],
        progress: &mut dyn FnMut(TrainProgress),
    ) -> Result<Tokenizer, DataError> {
        let mut special: Vec<&str> = SPECIAL.to_vec();
        for token in more_special {
            if token.is_empty() || special.contains(&token.as_str()) {
                return Err(DataError::SpecialToken(token.clone()));
            }
            special.push(token);
        }
        let least = special.len() + 256;
        if !(least..=MAX_TOKENS).contains(&vocab_size) {
            return Err(DataError::VocabularySize { found: vocab_size, least, most: MAX_TOKENS });
        }
        let words = count_words(documents, PATTERN, &mut |bytes| progress(TrainProgress::Counting { bytes }))?;
        if words.is_empty() {
            return Err(DataError::NoText("the source a tokenizer is trained on".to_owned()));
        }
        let total = vocab_size - least;
        let learned =
            merges::learn(words, 256 + total, 2, &mut |done| progress(TrainProgress::Merging { done, total }));
        let spelled = spelled(&learned);
        if let Some(token) = special.iter().find(|token| spelled.iter().any(|other| other == *token)) {
            return Err(DataError::SpecialToken((*token).to_owned()));
        }
        let config = SideFiles::made(chat_config(&special[1..]).into_bytes())?;
        Tokenizer::from_parts(byte_level_json(&special, &spelled, &learned).into_bytes(), config, &made())
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

/// The learned tokens in GPT-2's byte alphabet.
fn spelled(learned: &Learned) -> Vec<String> {
    let alphabet = byte_alphabet();
    let spell = |bytes: &Arc<[u8]>| bytes.iter().map(|byte| alphabet[usize::from(*byte)]).collect();
    learned.tokens.iter().map(spell).collect()
}

fn byte_level_json(special: &[&str], spelled: &[String], learned: &Learned) -> String {
    let tokens: Vec<String> =
        special.iter().copied().chain(spelled.iter().map(String::as_str)).map(quoted).collect();
    let merges: Vec<[String; 2]> = learned
        .merges
        .iter()
        .map(|(left, right)| [*left, *right].map(|id| quoted(&spelled[id as usize])))
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
    let added: Vec<AddedToken> = (0..).zip(special).map(|(id, name)| AddedToken::special(id, name)).collect();
    Json {
        added: &added,
        pre_tokenizer: &format!(
            "{{ \"type\": \"Sequence\", \"pretokenizers\": [\n    {split},\n    {}\n  ] }}",
            byte_level(false)
        ),
        decoder: &byte_level(true),
        tokens: &tokens,
        merges: &merges,
        ..Json::default()
    }
    .render()
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

fn chat_config(additional: &[&str]) -> String {
    let additional: Vec<String> = additional.iter().map(|name| quoted(name)).collect();
    format!(
        r#"{{
  "additional_special_tokens": [{}],
  "chat_template": {},
  "clean_up_tokenization_spaces": false,
  "eos_token": "<|endoftext|>",
  "pad_token": "<|endoftext|>",
  "tokenizer_class": "PreTrainedTokenizerFast"
}}
"#,
        additional.join(", "),
        quoted(CHAT_TEMPLATE)
    )
}
