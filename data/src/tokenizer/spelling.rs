//! The bytes each token adds to a text, read off the tokenizer's decoder.

use std::collections::HashMap;

use serde_json::Value;

use super::Vocab;
use super::train::byte_alphabet;

/// What a decoder does to the text of a single token.
#[derive(Debug, Clone)]
enum Step {
    /// GPT-2's byte alphabet: one character of the token is one byte.
    ByteLevel(HashMap<char, u8>),
    /// `<0x0A>` is one byte.
    ByteFallback,
    /// One text becomes another.
    Replace { from: String, to: String },
    /// A marker at the start of a token that continues a word; other tokens stand after a space.
    WordPiece { prefix: String },
    /// A marker at the end of a token that ends a word, standing for a space.
    EndOfWord { suffix: String },
    /// No decoder: tokens are joined by spaces.
    Spaced,
}

/// How tokens are turned into text, one by one.
#[derive(Debug, Clone)]
pub(super) struct Spelling(Vec<Step>);

impl Spelling {
    pub(super) fn of(tokenizer: &tokenizers::Tokenizer) -> Result<Spelling, String> {
        let decoder = serde_json::to_value(tokenizer.get_decoder()).map_err(|error| error.to_string())?;
        let mut steps = Vec::new();
        if decoder.is_null() {
            steps.push(Step::Spaced);
        }
        read_steps(&decoder, &mut steps);
        Ok(Spelling(steps))
    }

    /// What `token` adds to a text, apart from what the decoder does to whole texts.
    pub(super) fn bytes(&self, token: &str) -> Vec<u8> {
        let mut text = token.to_owned();
        for step in &self.0 {
            match step {
                // As the library does: a token with a foreign character is taken as it is.
                Step::ByteLevel(alphabet) => {
                    let bytes = text.chars().map(|character| alphabet.get(&character).copied());
                    return bytes.collect::<Option<_>>().unwrap_or(text.into_bytes());
                }
                Step::ByteFallback => {
                    if let Some(byte) = byte_of(&text) {
                        return vec![byte];
                    }
                }
                Step::Replace { from, to } if !from.is_empty() => text = text.replace(from.as_str(), to),
                Step::Replace { .. } => {}
                Step::WordPiece { prefix } => {
                    text = text.strip_prefix(prefix.as_str()).map_or_else(|| format!(" {text}"), str::to_owned);
                }
                Step::EndOfWord { suffix } if !suffix.is_empty() => text = text.replace(suffix.as_str(), " "),
                Step::EndOfWord { .. } => {}
                Step::Spaced => text.push(' '),
            }
        }
        text.into_bytes()
    }

    /// Whether what a token adds does not depend on its neighbours, so that texts of tokens can be put together.
    pub(super) fn is_contextless(&self) -> bool {
        !self.0.iter().any(|step| matches!(step, Step::WordPiece { .. } | Step::EndOfWord { .. } | Step::Spaced))
    }

    /// Bytes for each id up to the highest; 0 for special tokens and unused ids.
    pub(super) fn lengths(&self, added: &HashMap<u32, (String, bool)>, vocab: &Vocab) -> Result<Vec<u32>, String> {
        let Some(highest) = vocab.values().max() else {
            return Err("its vocabulary has 0 tokens, at least 1 is needed".to_owned());
        };
        // A hostile file can name any id; nothing real is sparser than this.
        let most = vocab.len() as u64 * 4 + 65_536;
        if u64::from(*highest) >= most {
            return Err(format!("its {} tokens reach id {highest}, at most {most} is expected", vocab.len()));
        }
        let mut lengths = vec![None; *highest as usize + 1];
        for (token, id) in vocab {
            let bytes = match added.get(id) {
                Some((_, true)) => 0,
                Some((content, false)) => content.len() as u32,
                None => self.bytes(token).len() as u32,
            };
            if lengths[*id as usize].replace(bytes).is_some() {
                return Err(two_tokens(vocab, *id));
            }
        }
        Ok(lengths.into_iter().map(Option::unwrap_or_default).collect())
    }
}

/// An id that two tokens share would decode to either.
fn two_tokens(vocab: &Vocab, id: u32) -> String {
    let mut names: Vec<&str> =
        vocab.iter().filter(|(_, other)| **other == id).map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    format!("the tokens {:?} and {:?} share the id {id}", names[0], names[1])
}

fn read_steps(decoder: &Value, steps: &mut Vec<Step>) {
    let text = |key: &str| decoder[key].as_str().unwrap_or_default().to_owned();
    match decoder["type"].as_str() {
        Some("Sequence") => {
            for inner in decoder["decoders"].as_array().into_iter().flatten() {
                read_steps(inner, steps);
            }
        }
        Some("ByteLevel") => {
            steps.push(Step::ByteLevel(byte_alphabet().into_iter().zip(0..=255).collect()));
        }
        Some("ByteFallback") => steps.push(Step::ByteFallback),
        Some("Replace") => {
            if let Some(from) = decoder["pattern"]["String"].as_str() {
                steps.push(Step::Replace { from: from.to_owned(), to: text("content") });
            }
        }
        Some("Metaspace") => steps.push(Step::Replace { from: text("replacement"), to: " ".to_owned() }),
        Some("WordPiece") => steps.push(Step::WordPiece { prefix: text("prefix") }),
        Some("BPEDecoder") => steps.push(Step::EndOfWord { suffix: text("suffix") }),
        // Fuse and Strip work on whole texts.
        _ => {}
    }
}

/// The byte of `<0x0A>`.
fn byte_of(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'))?;
    u8::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 2)
}
