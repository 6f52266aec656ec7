//! The vocabulary in a GGUF file's keys, as the `tokenizer.json` that gives the same ids.
//!
//! `tokenizer.ggml.model` names the algorithm: `gpt2` is byte-level BPE, `llama` is SentencePiece's BPE, which merges by
//! score. Where text is cut before byte-level merges is known by `tokenizer.ggml.pre` alone, so a name that is not in
//! the table is refused: with another cut the ids would be wrong without a sign. The table follows llama.cpp's
//! `llama-vocab.cpp`.

use std::collections::HashMap;
use std::path::Path;

use fornax_base::gguf::{Array, Gguf};
use fornax_base::mmap::Mapped;

use super::json::{AddedToken, Json};
use super::settings::{SideFiles, config_of, quoted};
use super::{MAX_TOKENIZER_BYTES, Tokenizer};
use crate::error::DataError;

/// A SentencePiece token longer than this is refused: finding its merges takes the square of its length.
const LONGEST_PIECE: usize = 256;
/// What SentencePiece writes for a space.
const SPACE: char = '▁';

/// GPT-2's pattern.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// GPT-4's pattern as Llama 3 has it: at most three digits a piece.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The same as Qwen 2 has it: digits alone.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How byte-level text is cut before merging, by `tokenizer.ggml.pre`.
struct Cut {
    names: &'static [&'static str],
    /// Patterns applied one after the other to the pieces left by those before.
    patterns: &'static [&'static str],
    ignore_merges: bool,
    add_bos: bool,
}

const CUTS: [Cut; 5] = [
    Cut { names: &["gpt-2"], patterns: &[GPT2], ignore_merges: false, add_bos: false },
    Cut { names: &["smollm"], patterns: &[r"\p{N}", GPT2], ignore_merges: false, add_bos: false },
    Cut {
        names: &["deepseek-coder"],
        patterns: &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-\u{D7FF}]+", r"\p{N}"],
        ignore_merges: false,
        add_bos: false,
    },
    Cut { names: &["llama-bpe", "llama3", "llama-v3"], patterns: &[LLAMA3], ignore_merges: true, add_bos: true },
    Cut { names: &["qwen2"], patterns: &[QWEN2], ignore_merges: false, add_bos: false },
];

/// `tokenizer.ggml.token_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

/// Reads the tokenizer of a `.gguf` file.
pub(super) fn load(path: &Path) -> Result<Tokenizer, DataError> {
    let file = Mapped::open(path)?;
    let unusable = |reason: String| DataError::Tokenizer { path: path.to_owned(), reason };
    let gguf = Gguf::parse(file.as_bytes()).map_err(|error| unusable(error.to_string()))?;
    let (json, side_files) = convert(&gguf).map_err(unusable)?;
    Tokenizer::from_parts(json, side_files, path)
}

/// `tokenizer.json` and the files beside it.
fn convert(gguf: &Gguf) -> Result<(Vec<u8>, SideFiles), String> {
    let vocabulary = Vocabulary::read(gguf)?;
    let model = text(gguf, "tokenizer.ggml.model")?.ok_or("it has no key tokenizer.ggml.model")?;
    let (json, add_bos) = match model {
        "gpt2" => vocabulary.byte_level(gguf)?,
        "llama" => vocabulary.sentence_piece(gguf)?,
        other => {
            return Err(format!("its tokenizer.ggml.model is `{other}`, `gpt2` and `llama` can be read"));
        }
    };
    if json.len() as u64 > MAX_TOKENIZER_BYTES {
        let found = json.len();
        return Err(format!("its vocabulary takes {found} bytes as JSON, at most {MAX_TOKENIZER_BYTES} are read"));
    }
    let config = vocabulary.config(gguf, add_bos)?;
    let side_files = SideFiles::made(config).map_err(|error| error.to_string())?;
    Ok((json.into_bytes(), side_files))
}

/// Tokens by id, with what is known of each.
struct Vocabulary<'a> {
    tokens: Vec<&'a str>,
    ids: HashMap<&'a str, u32>,
    kinds: Vec<Kind>,
    /// Named tokens: `bos`, `eos`, `unknown`, `padding`.
    bos: Option<u32>,
    eos: Option<u32>,
    unknown: Option<u32>,
    padding: Option<u32>,
    /// Whether control tokens take the whitespace behind them, which llama.cpp knows by the model's name.
    strips: bool,
}

impl<'a> Vocabulary<'a> {
    fn read(gguf: &Gguf<'a>) -> Result<Vocabulary<'a>, String> {
        let tokens = strings(gguf, "tokenizer.ggml.tokens")?;
        let mut ids = HashMap::with_capacity(tokens.len());
        for (id, token) in (0..).zip(&tokens) {
            if let Some(before) = ids.insert(*token, id) {
                return Err(format!("the token {token:?} has the ids {before} and {id}"));
            }
        }
        let kinds = match array(gguf, "tokenizer.ggml.token_type")? {
            None => vec![Kind::Normal; tokens.len()],
            Some(array) => kinds(array, tokens.len())?,
        };
        // Files that do not say have the tokens of the first Llama, as SentencePiece numbers them.
        let is_llama = text(gguf, "tokenizer.ggml.model")? == Some("llama");
        let id = |name: &str, usual: u32| {
            let key = format!("tokenizer.ggml.{name}_token_id");
            let found = match gguf.get(&key) {
                None => is_llama.then_some(u64::from(usual)).filter(|id| *id < tokens.len() as u64 && usual < 3),
                Some(value) => Some(value.as_u64().ok_or(format!("its {key} is {value}, an id is expected"))?),
            };
            match found {
                // Written for "none".
                None | Some(0xFFFF_FFFF) => Ok(None),
                Some(id) if id < tokens.len() as u64 => Ok(Some(id as u32)),
                Some(id) => Err(format!("its {key} is {id}, but it has {} tokens", tokens.len())),
            }
        };
        let name = text(gguf, "general.name")?.unwrap_or_default().to_lowercase();
        Ok(Vocabulary {
            bos: id("bos", 1)?,
            eos: id("eos", 2)?,
            unknown: id("unknown", 0)?,
            padding: id("padding", u32::MAX)?,
            strips: name.contains("phi-3") || name.contains("phi3"),
            tokens,
            ids,
            kinds,
        })
    }

    /// A byte-level BPE, and whether a beginning-of-text token stands in front of texts where the file does not say.
    fn byte_level(&self, gguf: &Gguf) -> Result<(String, bool), String> {
        let pre = text(gguf, "tokenizer.ggml.pre")?.ok_or(
            "it has no key tokenizer.ggml.pre, without which the way its text is cut is not known; \
             llama.cpp's convert_hf_to_gguf.py writes it",
        )?;
        let cut = CUTS.iter().find(|cut| cut.names.contains(&pre)).ok_or_else(|| {
            let known: Vec<&str> = CUTS.iter().flat_map(|cut| cut.names).copied().collect();
            format!("its tokenizer.ggml.pre is `{pre}`, known are {}", known.join(", "))
        })?;
        let merges: Vec<[String; 2]> = strings(gguf, "tokenizer.ggml.merges")?
            .into_iter()
            .map(|merge| {
                // A token may begin with the space; the byte alphabet has none.
                let at = merge.char_indices().skip(1).find(|(_, c)| *c == ' ').map(|(at, _)| at);
                let (left, right) = merge.split_at(at.ok_or(format!("the merge {merge:?} is not two tokens"))?);
                Ok([left, &right[1..]].map(quoted))
            })
            .collect::<Result<_, String>>()?;
        let split = |pattern: &&str| {
            let pattern = quoted(pattern);
            format!(
                "    {{ \"type\": \"Split\", \"pattern\": {{ \"Regex\": {pattern} }}, \"behavior\": \"Isolated\", \"invert\": false }}"
            )
        };
        let byte_level = "{ \"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": false }";
        let mut steps: Vec<String> = cut.patterns.iter().map(split).collect();
        steps.push(format!("    {byte_level}"));
        let add_bos = self.adds_bos(gguf, cut.add_bos)?;
        let json = Json {
            added: &self.added(),
            pre_tokenizer: &format!(
                "{{ \"type\": \"Sequence\", \"pretokenizers\": [\n{}\n  ] }}",
                steps.join(",\n")
            ),
            post_processor: &self.post_processor(add_bos),
            decoder: byte_level,
            ignore_merges: cut.ignore_merges,
            tokens: &self.quoted_tokens(),
            merges: &merges,
            ..Json::default()
        };
        Ok((json.render(), add_bos))
    }

    /// SentencePiece's BPE. It merges the neighbours whose token has the greatest score; the library merges by rank,
    /// so the ways to make each token are ranked by its score.
    fn sentence_piece(&self, gguf: &Gguf) -> Result<(String, bool), String> {
        let scores = array(gguf, "tokenizer.ggml.scores")?.and_then(|array| array.f32s());
        let scores: Vec<f32> = scores.ok_or("it has no key tokenizer.ggml.scores with f32 values")?.collect();
        if scores.len() != self.tokens.len() {
            return Err(format!("it has {} scores for {} tokens", scores.len(), self.tokens.len()));
        }
        if let Some(at) = scores.iter().position(|score| !score.is_finite()) {
            return Err(format!("the score of token {at} is {}", scores[at]));
        }
        let mut found = self.ways_to_merge()?;
        found.sort_by(|a, b| {
            let score = |way: &[u32; 3]| scores[way[0] as usize];
            score(b).total_cmp(&score(a)).then_with(|| a.cmp(b))
        });
        let tokens = self.quoted_tokens();
        let merges: Vec<[String; 2]> =
            found.iter().map(|[_, left, right]| [left, right].map(|id| tokens[*id as usize].clone())).collect();
        let replace = |from: &str, to: &str, key: &str| {
            let (from, to) = (quoted(from), quoted(to));
            format!("    {{ \"type\": \"Replace\", \"pattern\": {{ \"String\": {from} }}, \"{key}\": {to} }}")
        };
        let space = SPACE.to_string();
        let prefix = flag(gguf, "tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
        let mut normalizers = Vec::new();
        let mut decoders = vec![
            replace(&space, " ", "content"),
            "    { \"type\": \"ByteFallback\" }".to_owned(),
            "    { \"type\": \"Fuse\" }".to_owned(),
        ];
        if prefix {
            normalizers.push(format!("    {{ \"type\": \"Prepend\", \"prepend\": {} }}", quoted(&space)));
            decoders.push("    { \"type\": \"Strip\", \"content\": \" \", \"start\": 1, \"stop\": 0 }".to_owned());
        }
        normalizers.push(replace(" ", &space, "content"));
        let sequence = |key: &str, steps: &[String]| {
            format!("{{ \"type\": \"Sequence\", \"{key}\": [\n{}\n  ] }}", steps.join(",\n"))
        };
        let add_bos = self.adds_bos(gguf, true)?;
        let unknown = self.unknown.map_or("null".to_owned(), |id| tokens[id as usize].clone());
        let json = Json {
            added: &self.added(),
            normalizer: &sequence("normalizers", &normalizers),
            post_processor: &self.post_processor(add_bos),
            decoder: &sequence("decoders", &decoders),
            unknown: &unknown,
            byte_fallback: self.kinds.contains(&Kind::Byte),
            tokens: &tokens,
            merges: &merges,
            ..Json::default()
        };
        Ok((json.render(), add_bos))
    }

    /// Every `[token, left, right]` with the token's text being that of the two others.
    fn ways_to_merge(&self) -> Result<Vec<[u32; 3]>, String> {
        let normal = |id: &u32| self.kinds[*id as usize] == Kind::Normal;
        let mut ways = Vec::new();
        for (id, token) in (0..).zip(&self.tokens).filter(|(id, _)| normal(id)) {
            if token.len() > LONGEST_PIECE {
                let found = token.len();
                return Err(format!("token {id} is {found} bytes long, at most {LONGEST_PIECE} are expected"));
            }
            for (at, _) in token.char_indices().skip(1) {
                let (left, right) = token.split_at(at);
                let half = |text: &str| self.ids.get(text).copied().filter(normal);
                if let (Some(left), Some(right)) = (half(left), half(right)) {
                    ways.push([id, left, right]);
                }
            }
        }
        Ok(ways)
    }

    /// Control and user-defined tokens, which are found in text before all else.
    fn added(&self) -> Vec<AddedToken> {
        let kept = (0..).zip(&self.tokens).zip(&self.kinds);
        let kept = kept.filter(|((_, token), _)| !token.is_empty());
        kept.filter_map(|((id, token), kind)| {
            let special = match kind {
                Kind::Control | Kind::Unknown => true,
                Kind::UserDefined => false,
                Kind::Normal | Kind::Unused | Kind::Byte => return None,
            };
            let strips = self.strips && !["<unk>", "<s>", "<|endoftext|>"].contains(token);
            let rstrip = strips && (*kind == Kind::Control || *token == "</s>");
            Some(AddedToken { id, content: (*token).to_owned(), special, rstrip })
        })
        .collect()
    }

    fn adds_bos(&self, gguf: &Gguf, usual: bool) -> Result<bool, String> {
        Ok(flag(gguf, "tokenizer.ggml.add_bos_token")?.unwrap_or(usual) && self.bos.is_some())
    }

    /// The beginning-of-text token in front of a text, as transformers reads it.
    fn post_processor(&self, add_bos: bool) -> String {
        let Some(id) = self.bos.filter(|_| add_bos) else {
            return "null".to_owned();
        };
        let bos = quoted(self.tokens[id as usize]);
        let special = format!("{{ \"SpecialToken\": {{ \"id\": {bos}, \"type_id\": 0 }} }}");
        let text = |id: &str, kind| format!("{{ \"Sequence\": {{ \"id\": \"{id}\", \"type_id\": {kind} }} }}");
        let (first, second) = (text("A", 0), text("B", 1));
        format!(
            "{{ \"type\": \"TemplateProcessing\", \"single\": [{special}, {first}], \"pair\": [{special}, {first}, {second}], \
             \"special_tokens\": {{ {bos}: {{ \"id\": {bos}, \"ids\": [{id}], \"tokens\": [{bos}] }} }} }}"
        )
    }

    fn quoted_tokens(&self) -> Vec<String> {
        self.tokens.iter().map(|token| quoted(token)).collect()
    }

    fn config(&self, gguf: &Gguf, add_bos: bool) -> Result<Vec<u8>, String> {
        let add_eos = flag(gguf, "tokenizer.ggml.add_eos_token")?.unwrap_or(false);
        let mut keys = vec![("add_bos_token", add_bos.to_string()), ("add_eos_token", add_eos.to_string())];
        let named = [
            ("bos_token", self.bos),
            ("eos_token", self.eos),
            ("pad_token", self.padding),
            ("unk_token", self.unknown),
        ];
        keys.extend(named.into_iter().filter_map(|(key, id)| Some((key, quoted(self.tokens[id? as usize])))));
        keys.extend(text(gguf, "tokenizer.chat_template")?.map(|template| ("chat_template", quoted(template))));
        Ok(config_of(keys))
    }
}

fn kinds(array: Array, expected: usize) -> Result<Vec<Kind>, String> {
    let numbers = array.i32s().ok_or("its tokenizer.ggml.token_type does not hold i32 values")?;
    if array.len() != expected {
        return Err(format!("it has {} token types for {expected} tokens", array.len()));
    }
    numbers
        .map(|number| match number {
            // 0 is "undefined", which llama.cpp treats as any other token.
            0 | 1 => Ok(Kind::Normal),
            2 => Ok(Kind::Unknown),
            3 => Ok(Kind::Control),
            4 => Ok(Kind::UserDefined),
            5 => Ok(Kind::Unused),
            6 => Ok(Kind::Byte),
            other => Err(format!("it has a token of type {other}, types are 0 to 6")),
        })
        .collect()
}

fn text<'a>(gguf: &Gguf<'a>, key: &str) -> Result<Option<&'a str>, String> {
    let value = gguf.get(key);
    let text = |value: fornax_base::gguf::Value<'a>| value.as_str().ok_or(format!("its {key} is not a text"));
    value.map(text).transpose()
}

fn flag(gguf: &Gguf, key: &str) -> Result<Option<bool>, String> {
    let value = gguf.get(key);
    value
        .map(|value| value.as_bool().ok_or(format!("its {key} is {value}, true or false is expected")))
        .transpose()
}

fn array<'a>(gguf: &Gguf<'a>, key: &str) -> Result<Option<Array<'a>>, String> {
    let value = gguf.get(key);
    value.map(|value| value.as_array().ok_or(format!("its {key} is {value}, an array is expected"))).transpose()
}

/// An array of texts which together are not longer than a `tokenizer.json` may be.
fn strings<'a>(gguf: &Gguf<'a>, key: &str) -> Result<Vec<&'a str>, String> {
    let found = array(gguf, key)?.ok_or(format!("it has no key {key}"))?;
    // Each stands in the JSON with quotes, a comma and a line break.
    if found.len() as u64 > MAX_TOKENIZER_BYTES / 4 {
        return Err(format!("its {key} has {} items, at most {} are read", found.len(), MAX_TOKENIZER_BYTES / 4));
    }
    let items = found.strings().ok_or(format!("its {key} is not an array of texts"))?;
    let mut bytes = 0u64;
    let text = |(at, item): (usize, &'a [u8])| {
        bytes += item.len() as u64;
        if bytes > MAX_TOKENIZER_BYTES {
            return Err(format!("its {key} is longer than {MAX_TOKENIZER_BYTES} bytes"));
        }
        std::str::from_utf8(item).map_err(|_| format!("item {at} of its {key} is not UTF-8"))
    };
    items.enumerate().map(text).collect()
}

#[cfg(test)]
mod tests;
