//! Character vocabularies: one id for each character, in code point order.

use std::collections::{BTreeSet, HashMap};

use super::json::Json;
use super::settings::{SideFiles, plain_config, quoted};
use super::train::Document;
use super::{Tokenizer, Vocab, made};
use crate::error::DataError;

/// Ids of single characters.
#[derive(Debug, Clone)]
pub(super) struct CharacterTable(HashMap<char, u32>);

impl CharacterTable {
    /// `None` when some token is not a single character.
    pub(super) fn new(vocab: &Vocab) -> Option<CharacterTable> {
        let single = |token: &str| {
            let mut characters = token.chars();
            characters.next().filter(|_| characters.next().is_none())
        };
        vocab.iter().map(|(token, id)| Some((single(token)?, *id))).collect::<Option<_>>().map(CharacterTable)
    }

    pub(super) fn encode(&self, text: &str) -> Result<Vec<u32>, DataError> {
        text.char_indices()
            .map(|(offset, character)| {
                let id = self.0.get(&character).copied();
                id.ok_or(DataError::UnknownCharacter { character, offset, known: self.0.len() })
            })
            .collect()
    }
}

impl Tokenizer {
    /// A vocabulary of the characters in `documents`, sorted, without special tokens (nanoGPT's `shakespeare_char`).
    /// It is written as a BPE model without merges, which transformers loads; encoding a character it does not hold
    /// is an error here.
    ///
    /// # Errors
    /// [`DataError::NoText`] without any character, or what `documents` reports.
    pub fn characters(documents: &mut dyn Iterator<Item = Document>) -> Result<Tokenizer, DataError> {
        let mut characters = BTreeSet::new();
        for document in documents {
            characters.extend(document?.chars());
        }
        if characters.is_empty() {
            return Err(DataError::NoText("a character vocabulary's source".to_owned()));
        }
        let tokens: Vec<String> = characters.iter().map(|character| quoted(&character.to_string())).collect();
        let json =
            Json { decoder: "{ \"type\": \"Fuse\" }", tokens: &tokens, merges: &[], ..Json::default() }.render();
        Tokenizer::from_parts(json.into_bytes(), SideFiles::made(plain_config(&[]))?, &made())
    }
}
