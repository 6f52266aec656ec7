//! What stands around the vocabulary: names of special tokens, the files beside `tokenizer.json`, and options that
//! change ids.

use std::fmt;
use std::path::Path;

use fornax_base::files::read_limited;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{MAX_MERGES, MAX_TOKENS};
use crate::error::DataError;

/// More added tokens than this are refused: the library makes an automaton of them.
const MAX_ADDED: usize = 1 << 16;
/// Files beside `tokenizer.json` are smaller than this.
const MAX_SIDE_BYTES: u64 = 16 << 20;
const CONFIG: &str = "tokenizer_config.json";
const SPECIAL_MAP: &str = "special_tokens_map.json";
const CHAT_TEMPLATE: &str = "chat_template.jinja";

/// Usual names of the token that ends a document, for a `tokenizer.json` without `tokenizer_config.json`.
const EOS_NAMES: [&str; 6] = ["<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>", "<|im_end|>", "<|end_story|>"];
/// Usual names of the token that opens a text.
const BOS_NAMES: [&str; 3] = ["<s>", "<|begin_of_text|>", "<bos>"];
/// Usual names of the token that fills rows.
const PAD_NAMES: [&str; 3] = ["<pad>", "[PAD]", "<|pad|>"];
/// Usual names of the token for unknown text.
const UNK_NAMES: [&str; 2] = ["<unk>", "[UNK]"];

/// The parts of `tokenizer.json` that decide how it can be used.
#[derive(Deserialize)]
pub(super) struct Shape {
    #[serde(default)]
    added_tokens: Vec<IgnoredAny>,
    normalizer: Option<IgnoredAny>,
    pre_tokenizer: Option<IgnoredAny>,
    post_processor: Option<IgnoredAny>,
    model: ModelShape,
}

#[derive(Deserialize)]
struct ModelShape {
    dropout: Option<f64>,
    unk_token: Option<IgnoredAny>,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    vocab: Count,
    merges: Option<Vec<IgnoredAny>>,
}

/// How many entries an object or array has; they are passed over, so that counting takes no memory.
#[derive(Default)]
struct Count(usize);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Count, D::Error> {
        struct Counter;
        impl<'de> Visitor<'de> for Counter {
            type Value = Count;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an object or an array")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Count, A::Error> {
                let mut count = 0;
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Count(count))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Count, A::Error> {
                let mut count = 0;
                while list.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Count(count))
            }
        }
        deserializer.deserialize_any(Counter)
    }
}

impl Shape {
    pub(super) fn read(json: &[u8]) -> Result<Shape, String> {
        let shape: Shape = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        // Before the library takes memory for each of them.
        let merges = shape.model.merges.as_ref().map_or(0, Vec::len);
        for (what, found, most) in [
            ("tokens", shape.model.vocab.0, MAX_TOKENS),
            ("merges", merges, MAX_MERGES),
            ("added tokens", shape.added_tokens.len(), MAX_ADDED),
        ] {
            if found > most {
                return Err(format!("it has {found} {what}, at most {most} are read"));
            }
        }
        match shape.model.dropout {
            Some(dropout) if dropout != 0.0 => {
                Err(format!("its BPE dropout is {dropout}, which makes ids random; expected 0 or null"))
            }
            _ => Ok(shape),
        }
    }

    /// Whether this is a BPE model of bare tokens: no merges, and nothing that would catch an unknown character.
    pub(super) fn is_characters(&self) -> bool {
        self.added_tokens.is_empty()
            && self.normalizer.is_none()
            && self.pre_tokenizer.is_none()
            && self.post_processor.is_none()
            && self.model.unk_token.is_none()
            && !self.model.byte_fallback
            && self.model.merges.as_ref().is_some_and(Vec::is_empty)
    }
}

/// The files beside `tokenizer.json`, as read or as made.
#[derive(Debug, Clone, Default)]
pub(super) struct SideFiles {
    config: Option<Vec<u8>>,
    special_map: Option<Vec<u8>>,
    chat_template: Option<Vec<u8>>,
    parsed: Settings,
}

/// What is read of `tokenizer_config.json` and `special_tokens_map.json`.
#[derive(Debug, Clone, Default, Deserialize)]
struct Settings {
    bos_token: Option<TokenName>,
    eos_token: Option<TokenName>,
    pad_token: Option<TokenName>,
    unk_token: Option<TokenName>,
    add_bos_token: Option<bool>,
    add_eos_token: Option<bool>,
}

/// Older transformers write the token as a string, newer ones as an object.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum TokenName {
    Plain(String),
    Object { content: String },
}

impl TokenName {
    fn text(&self) -> &str {
        match self {
            TokenName::Plain(content) | TokenName::Object { content } => content,
        }
    }
}

impl SideFiles {
    pub(super) fn load(folder: &Path) -> Result<SideFiles, DataError> {
        let config = read_if_there(folder, CONFIG)?;
        let special_map = read_if_there(folder, SPECIAL_MAP)?;
        let chat_template = read_if_there(folder, CHAT_TEMPLATE)?;
        let from_config = parse(folder, CONFIG, config.as_deref())?;
        let from_map = parse(folder, SPECIAL_MAP, special_map.as_deref())?;
        let parsed = Settings {
            bos_token: from_config.bos_token.or(from_map.bos_token),
            eos_token: from_config.eos_token.or(from_map.eos_token),
            pad_token: from_config.pad_token.or(from_map.pad_token),
            unk_token: from_config.unk_token.or(from_map.unk_token),
            ..from_config
        };
        Ok(SideFiles { config, special_map, chat_template, parsed })
    }

    /// Side files of a tokenizer made here.
    pub(super) fn made(config: Vec<u8>) -> Result<SideFiles, DataError> {
        let parsed = parse(Path::new(""), CONFIG, Some(&config))?;
        Ok(SideFiles { config: Some(config), parsed, ..SideFiles::default() })
    }

    /// `tokenizer_config.json` and `chat_template.jinja`.
    pub(super) fn template_files(&self) -> (Option<&[u8]>, Option<&[u8]>) {
        (self.config.as_deref(), self.chat_template.as_deref())
    }

    /// Names and bytes to write. A tokenizer that came without `tokenizer_config.json` gets one with `names`.
    pub(super) fn to_write(&self, names: &[(&'static str, String)]) -> Vec<(&'static str, Vec<u8>)> {
        let config = self.config.clone().unwrap_or_else(|| plain_config(names));
        let mut files = vec![(CONFIG, config)];
        files.extend(self.special_map.clone().map(|bytes| (SPECIAL_MAP, bytes)));
        files.extend(self.chat_template.clone().map(|bytes| (CHAT_TEMPLATE, bytes)));
        files
    }
}

/// A `tokenizer_config.json` with nothing but the names of special tokens, keys sorted.
pub(super) fn plain_config(names: &[(&'static str, String)]) -> Vec<u8> {
    config_of(names.iter().map(|(key, name)| (*key, quoted(name))).collect())
}

/// A `tokenizer_config.json` with these keys, whose values are JSON already, and those every one has.
pub(super) fn config_of(mut keys: Vec<(&'static str, String)>) -> Vec<u8> {
    keys.push(("clean_up_tokenization_spaces", "false".to_owned()));
    keys.push(("tokenizer_class", "\"PreTrainedTokenizerFast\"".to_owned()));
    keys.sort_unstable();
    let lines: Vec<String> = keys.iter().map(|(key, value)| format!("  {}: {value}", quoted(key))).collect();
    format!("{{\n{}\n}}\n", lines.join(",\n")).into_bytes()
}

/// `text` as a JSON string.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Ids of the special tokens, and how the ends of a text must be corrected after the library's post-processor.
#[derive(Debug, Clone, Copy)]
pub(super) struct SpecialIds {
    pub(super) bos: Option<u32>,
    pub(super) eos: Option<u32>,
    pub(super) pad: Option<u32>,
    pub(super) unk: Option<u32>,
    front: Correction,
    back: Correction,
}

/// What to do with one end of an encoded text.
#[derive(Debug, Clone, Copy)]
enum Correction {
    Leave,
    Add(u32),
    Remove,
}

impl SpecialIds {
    pub(super) fn new(tokenizer: &tokenizers::Tokenizer, files: &SideFiles) -> SpecialIds {
        let stated = files.config.is_some() || files.special_map.is_some();
        let find = |name: &Option<TokenName>, usual: &[&str]| match name {
            Some(name) => tokenizer.token_to_id(name.text()),
            None if stated => None,
            None => usual.iter().find_map(|name| tokenizer.token_to_id(name)),
        };
        let parsed = &files.parsed;
        let bos = find(&parsed.bos_token, &BOS_NAMES);
        let eos = find(&parsed.eos_token, &EOS_NAMES);
        // What the post-processor puts around a text shows best around an empty one.
        let around = tokenizer.encode_fast("", true).map(|e| e.get_ids().to_vec()).unwrap_or_default();
        let opens = around.first().copied().filter(|id| Some(*id) == bos);
        let closes = around[usize::from(opens.is_some())..].last().copied().filter(|id| Some(*id) == eos);
        SpecialIds {
            bos,
            eos,
            pad: find(&parsed.pad_token, &PAD_NAMES),
            unk: find(&parsed.unk_token, &UNK_NAMES),
            front: Correction::new(parsed.add_bos_token, bos, opens),
            back: Correction::new(parsed.add_eos_token, eos, closes),
        }
    }

    /// Makes the ends of an encoded text what `tokenizer_config.json` says they are.
    pub(super) fn correct(&self, ids: &mut Vec<u32>) {
        match self.front {
            Correction::Leave => {}
            Correction::Add(id) => ids.insert(0, id),
            Correction::Remove => drop(ids.remove(0)),
        }
        match self.back {
            Correction::Leave => {}
            Correction::Add(id) => ids.push(id),
            Correction::Remove => drop(ids.pop()),
        }
    }
}

impl Correction {
    fn new(wanted: Option<bool>, id: Option<u32>, present: Option<u32>) -> Correction {
        match (wanted, id, present) {
            (Some(true), Some(id), None) => Correction::Add(id),
            (Some(false), _, Some(_)) => Correction::Remove,
            _ => Correction::Leave,
        }
    }
}

fn read_if_there(folder: &Path, name: &str) -> Result<Option<Vec<u8>>, DataError> {
    match read_limited(&folder.join(name), MAX_SIDE_BYTES) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn parse(folder: &Path, name: &str, bytes: Option<&[u8]>) -> Result<Settings, DataError> {
    let Some(bytes) = bytes else {
        return Ok(Settings::default());
    };
    serde_json::from_slice(bytes)
        .map_err(|error| DataError::Tokenizer { path: folder.join(name), reason: error.to_string() })
}
