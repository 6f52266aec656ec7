//! Encoding a rendered conversation: added tokens are found in what the template wrote and nowhere else.
//!
//! The library extracts every added token from every text. Here its pipeline (added tokens, normalizer, pre-tokenizer,
//! model) is run with the first step replaced, so that all that follows is what transformers computes: each stretch
//! between two control tokens is normalized and split with the prefix rules that hold at its place.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use tokenizers::normalizer::Range as Offsets;
use tokenizers::{
    AddedToken, Model as _, NormalizedString, Normalizer as _, OffsetType, PreTokenizedString, PreTokenizer as _,
    Token,
};

use super::Tokenizer;
use super::guard::guarded;
use crate::error::DataError;

/// A token of an encoded conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChatToken {
    pub(crate) id: u32,
    /// The bytes of the text it stands for, without white space that a control token takes beside itself.
    pub(crate) range: Range<usize>,
    /// Whether it is an added token that the template wrote.
    pub(crate) control: bool,
}

/// The added tokens of a tokenizer, to be found in text.
#[derive(Debug, Clone, Default)]
pub(crate) struct ControlTokens {
    /// Found in the text as it is.
    plain: Dictionary,
    /// Found in the normalized text, as they are normalized themselves.
    normalized: Dictionary,
    /// Every token as it is written, with `\0` between them.
    joined: String,
    /// First and last characters of all of them.
    ends: BTreeSet<char>,
}

#[derive(Debug, Clone, Default)]
struct Dictionary {
    tokens: HashMap<String, (u32, AddedToken)>,
    /// Lengths in bytes that occur, the longest first.
    lengths: Vec<usize>,
}

/// An added token in a text.
#[derive(Debug, Clone, PartialEq)]
struct Found<'a> {
    id: u32,
    token: &'a AddedToken,
    range: Range<usize>,
}

impl Dictionary {
    fn new(tokens: impl Iterator<Item = (String, u32, AddedToken)>) -> Dictionary {
        let tokens: HashMap<_, _> =
            tokens.filter(|(text, ..)| !text.is_empty()).map(|(text, id, token)| (text, (id, token))).collect();
        let mut lengths: Vec<usize> = tokens.keys().map(String::len).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        lengths.dedup();
        Dictionary { tokens, lengths }
    }

    /// Tokens from left to right, the longest first where several begin, each being `allowed`.
    fn find(&self, text: &str, allowed: impl Fn(&Range<usize>, &AddedToken) -> bool) -> Vec<Found<'_>> {
        let mut found = Vec::new();
        let mut at = 0;
        while at < text.len() {
            let token = self.lengths.iter().find_map(|length| {
                let range = at..at + length;
                let (id, token) = self.tokens.get(text.get(range.clone())?)?;
                let alone = !token.single_word || !(ends_in_word(&text[..at]) || begins_word(&text[range.end..]));
                (alone && allowed(&range, token)).then_some(Found { id: *id, token, range })
            });
            at = match &token {
                Some(token) => token.range.end,
                None => at + text[at..].chars().next().map_or(1, char::len_utf8),
            };
            found.extend(token);
        }
        found
    }
}

fn ends_in_word(text: &str) -> bool {
    text.chars().next_back().is_some_and(|character| character.is_alphanumeric() || character == '_')
}

fn begins_word(text: &str) -> bool {
    text.chars().next().is_some_and(|character| character.is_alphanumeric() || character == '_')
}

impl ControlTokens {
    pub(super) fn of(tokenizer: &tokenizers::Tokenizer) -> Result<Arc<ControlTokens>, String> {
        let mut plain = Vec::new();
        let mut normalized = Vec::new();
        let mut contents = Vec::new();
        for (id, token) in tokenizer.get_added_tokens_decoder() {
            contents.push(token.content.clone());
            if token.normalized {
                let mut text = NormalizedString::from(token.content.as_str());
                if let Some(normalizer) = tokenizer.get_normalizer() {
                    normalizer.normalize(&mut text).map_err(|error| error.to_string())?;
                }
                normalized.push((text.get().to_owned(), id, token));
            } else {
                plain.push((token.content.clone(), id, token));
            }
        }
        contents.sort_unstable();
        contents.retain(|content| !content.is_empty());
        let ends =
            contents.iter().flat_map(|content| content.chars().next().into_iter().chain(content.chars().last()));
        Ok(Arc::new(ControlTokens {
            plain: Dictionary::new(plain.into_iter()),
            normalized: Dictionary::new(normalized.into_iter()),
            ends: ends.collect(),
            joined: contents.join("\0"),
        }))
    }

    /// Where tokens stand in `text`, as it is written, and whether each is special.
    pub(crate) fn occurrences(&self, text: &str) -> Vec<(Range<usize>, bool)> {
        let mut found: Vec<(Range<usize>, bool)> = [&self.plain, &self.normalized]
            .into_iter()
            .flat_map(|dictionary| dictionary.find(text, |_, _| true))
            .map(|found| (found.range, found.token.special))
            .collect();
        found.sort_unstable_by_key(|(range, _)| range.start);
        found
    }

    /// A token that `text` could become part of, when a template cuts it or puts it beside other text: one whose first or
    /// last character it holds, or one that holds it.
    pub(crate) fn could_join(&self, text: &str) -> Option<&str> {
        let could = !text.is_empty() && (text.contains(|c| self.ends.contains(&c)) || self.joined.contains(text));
        let holds = |token: &&str| {
            let mut ends = token.chars().next().into_iter().chain(token.chars().next_back());
            token.contains(text) || ends.any(|end| text.contains(end))
        };
        could.then(|| self.joined.split('\0').find(holds).unwrap_or_default())
    }
}

/// Whether `range` lies in one of `parts`, which are in order.
fn lies_in(range: &Range<usize>, parts: &[Range<usize>]) -> bool {
    let part = parts.partition_point(|part| part.end < range.end);
    parts.get(part).is_some_and(|part| part.start <= range.start && range.end <= part.end)
}

type Pieces = Vec<(NormalizedString, Option<Vec<Token>>)>;

/// Cuts `text` at `found`, each with the white space it takes beside itself.
fn cut(text: &NormalizedString, found: &[Found<'_>]) -> Result<Pieces, tokenizers::Error> {
    let whole = text.get();
    let slice = |range: Range<usize>| {
        let piece = text.slice(Offsets::Normalized(range));
        piece.ok_or_else(|| tokenizers::Error::from("a token begins inside a character"))
    };
    let mut pieces = Vec::new();
    let mut start = 0;
    for Found { id, token, range } in found {
        let left = if token.lstrip { whole[..range.start].trim_end().len() } else { range.start };
        let right = whole[range.end..].len() - whole[range.end..].trim_start().len();
        let (from, to) = (left.max(start), range.end + if token.rstrip { right } else { 0 });
        if start < from {
            pieces.push((slice(start..from)?, None));
        }
        let piece = slice(from..to)?;
        // The offsets of the token are those of its own text; the value tells it from tokens of the model.
        let inside = (range.start.max(from) - from, range.end - from);
        pieces.push((piece, Some(vec![Token::new(*id, CONTROL.to_owned(), inside)])));
        start = to;
    }
    if start < whole.len() {
        pieces.push((slice(start..whole.len())?, None));
    }
    Ok(pieces)
}

/// The value that marks a control token on its way through the library.
const CONTROL: &str = "\u{0}control";

impl Tokenizer {
    /// The added tokens.
    pub(crate) fn control_tokens(&self) -> &Arc<ControlTokens> {
        &self.controls
    }

    /// Ids of `text`, whose parts `literal` (in order, apart) come from a template: added tokens are recognised if all
    /// of their characters lie in one of them. Nothing is put around the text.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`]; also when other text cannot be written without a special token.
    pub(crate) fn encode_chat(&self, text: &str, literal: &[Range<usize>]) -> Result<Vec<ChatToken>, DataError> {
        if let Some(table) = &self.characters {
            let ids = table.encode(text)?;
            let ranges = text.char_indices().map(|(at, character)| at..at + character.len_utf8());
            return Ok(ids
                .into_iter()
                .zip(ranges)
                .map(|(id, range)| ChatToken { id, range, control: false })
                .collect());
        }
        let encoded = guarded(|| self.run_pipeline(text, literal).map_err(|error| error.to_string()));
        encoded.and_then(|tokens| tokens).map_err(|reason| DataError::Coding { action: "encode", reason })
    }

    fn run_pipeline(&self, text: &str, literal: &[Range<usize>]) -> Result<Vec<ChatToken>, tokenizers::Error> {
        let mut pieces = PreTokenizedString::from(text);
        pieces.split(|_, piece| {
            let found = self.controls.plain.find(piece.get(), |range, _| lies_in(range, literal));
            cut(&piece, &found)
        })?;
        pieces.split(|_, mut piece| {
            if let Some(normalizer) = self.inner.get_normalizer() {
                normalizer.normalize(&mut piece)?;
            }
            let (shift, _) = piece.offsets_original();
            let found = self.controls.normalized.find(piece.get(), |range, token| {
                let original = piece.convert_offsets(Offsets::Normalized(range.clone()));
                original.is_some_and(|range| {
                    let (start, end) = (shift + range.start, shift + range.end);
                    // A prefix that the normalizer puts before the token may have been a space of any text.
                    let written = text[start..end].ends_with(token.content.as_str());
                    lies_in(&(if written { end - token.content.len() } else { start }..end), literal)
                })
            });
            cut(&piece, &found)
        })?;
        if let Some(pre_tokenizer) = self.inner.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut pieces)?;
        }
        pieces.tokenize(|piece| {
            let tokens = self.inner.get_model().tokenize(piece.get())?;
            self.without_special(piece.get(), tokens)
        })?;
        let encoding = pieces.into_encoding(None, 0, OffsetType::Byte)?;
        let parts = encoding.get_ids().iter().zip(encoding.get_offsets()).zip(encoding.get_tokens());
        Ok(parts
            .map(|((id, (start, end)), value)| ChatToken {
                id: *id,
                range: *start..*end,
                control: value == CONTROL,
            })
            .collect())
    }

    /// Spells special tokens that the model itself made of plain text by their characters. The token for unknown text
    /// is what it is.
    fn without_special(&self, text: &str, tokens: Vec<Token>) -> Result<Vec<Token>, tokenizers::Error> {
        if !tokens.iter().any(|token| self.is_special(token.id)) {
            return Ok(tokens);
        }
        let mut spelled = Vec::with_capacity(tokens.len());
        for token in tokens {
            let (start, end) = token.offsets;
            let written =
                self.added.get(&token.id).is_some_and(|(content, _)| text[start..end].contains(content.as_str()));
            if !self.is_special(token.id) || !written {
                spelled.push(token);
                continue;
            }
            for (at, character) in text[start..end].char_indices() {
                let width = character.len_utf8();
                for part in self.inner.get_model().tokenize(&text[start + at..start + at + width])? {
                    if self.is_special(part.id) && Some(part.id) != self.unk_id() {
                        return Err(
                            format!("{character:?} is written as a special token by this tokenizer").into()
                        );
                    }
                    let offsets = (start + at + part.offsets.0, start + at + part.offsets.1);
                    spelled.push(Token { offsets, ..part });
                }
            }
        }
        Ok(spelled)
    }
}
