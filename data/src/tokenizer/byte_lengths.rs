//! How many UTF-8 bytes each token adds to a text, read off the tokenizer's decoder.

use serde_json::Value;

use super::Vocab;

/// What a decoder does to the text of a single token.
enum Step {
    /// GPT-2's byte alphabet: one character of the token is one byte.
    ByteLevel,
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

/// Bytes for each id up to the highest; 0 for special tokens and unused ids.
pub(super) fn of(tokenizer: &tokenizers::Tokenizer, vocab: &Vocab) -> Result<Vec<u32>, String> {
    let decoder = serde_json::to_value(tokenizer.get_decoder()).map_err(|error| error.to_string())?;
    let mut steps = Vec::new();
    if decoder.is_null() {
        steps.push(Step::Spaced);
    }
    read_steps(&decoder, &mut steps);
    let Some(highest) = vocab.values().max() else {
        return Err("its vocabulary has 0 tokens, at least 1 is needed".to_owned());
    };
    // A hostile file can name any id; nothing real is sparser than this.
    let most = vocab.len() as u64 * 4 + 65_536;
    if u64::from(*highest) >= most {
        return Err(format!("its {} tokens reach id {highest}, at most {most} is expected", vocab.len()));
    }
    let added = tokenizer.get_added_tokens_decoder();
    let mut lengths = vec![0u32; *highest as usize + 1];
    for (token, id) in vocab {
        lengths[*id as usize] = match added.get(id) {
            Some(added) if added.special => 0,
            Some(added) => added.content.len() as u32,
            None => length(token, &steps),
        };
    }
    Ok(lengths)
}

fn read_steps(decoder: &Value, steps: &mut Vec<Step>) {
    let text = |key: &str| decoder[key].as_str().unwrap_or_default().to_owned();
    match decoder["type"].as_str() {
        Some("Sequence") => {
            for inner in decoder["decoders"].as_array().into_iter().flatten() {
                read_steps(inner, steps);
            }
        }
        Some("ByteLevel") => steps.push(Step::ByteLevel),
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

fn length(token: &str, steps: &[Step]) -> u32 {
    let mut text = token.to_owned();
    for step in steps {
        match step {
            Step::ByteLevel => return text.chars().count() as u32,
            Step::ByteFallback if is_byte(&text) => return 1,
            Step::ByteFallback => {}
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
    text.len() as u32
}

fn is_byte(token: &str) -> bool {
    let digits = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
}
