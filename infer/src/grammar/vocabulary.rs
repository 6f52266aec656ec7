//! A tokenizer's vocabulary as the trie that masks are computed on.

use std::sync::Arc;

use fornax_data::Tokenizer;
use toktrie::{ApproximateTokEnv, INVALID_TOKEN, TokEnv, TokRxInfo, TokTrie};

use super::error::GrammarError;

/// Bytes of all tokens; the trie counts its nodes in 22 bits.
const MOST_BYTES: usize = (1 << 22) - 2;
/// A token longer than this is never allowed; the trie knows no deeper nodes.
const LONGEST_TOKEN: usize = 1000;

/// The trie of `tokenizer` for a model that gives `vocab_size` logits, with the tokens in `end` ending a text. Ids
/// without a token are never allowed; special tokens only where a grammar names their ids.
///
/// # Errors
/// [`GrammarError::Vocabulary`].
pub(super) fn environment(tokenizer: &Tokenizer, vocab_size: usize, end: &[u32]) -> Result<TokEnv, GrammarError> {
    let unusable = |reason: String| GrammarError::Vocabulary { reason };
    if !tokenizer.spells_alone() {
        return Err(unusable("what a token stands for depends on its neighbours".to_owned()));
    }
    if let Some(id) = end.iter().find(|id| **id as usize >= vocab_size) {
        return Err(unusable(format!("token {id} is to end texts, the vocabulary has {vocab_size} tokens")));
    }
    let known = tokenizer.vocab_size();
    let words: Vec<Vec<u8>> = (0..vocab_size as u32)
        .map(|id| if (id as usize) < known { word(tokenizer, id, end.contains(&id)) } else { Vec::new() })
        .collect();
    trie(&words, end)
}

/// The trie of tokens given by their bytes.
pub(super) fn trie(words: &[Vec<u8>], end: &[u32]) -> Result<TokEnv, GrammarError> {
    let bytes: usize = words.iter().map(Vec::len).sum();
    if bytes > MOST_BYTES || words.len() >= 1 << 24 {
        let reason = format!("its tokens have {bytes} bytes, at most {MOST_BYTES} are possible");
        return Err(GrammarError::Vocabulary { reason });
    }
    let info = TokRxInfo::new(words.len() as u32, end.first().copied().unwrap_or(INVALID_TOKEN));
    let mut trie = TokTrie::from(&info, words);
    if end.len() > 1 {
        trie = trie.with_eos_tokens(end);
    }
    // Not canonical: any way to write the text in tokens is allowed, and no token is forced.
    Ok(Arc::new(ApproximateTokEnv::new(trie)))
}

fn word(tokenizer: &Tokenizer, id: u32, ends: bool) -> Vec<u8> {
    let mut spelled = tokenizer.spelled(id);
    // A special token is not text, however it is written. So is a token that ends texts, special or not: inside a text
    // it would end it.
    if tokenizer.is_special(id) || ends {
        spelled.insert(0, TokTrie::SPECIAL_TOKEN_MARKER);
    } else if spelled.first() == Some(&TokTrie::SPECIAL_TOKEN_MARKER) {
        // The byte FF is in no UTF-8 text.
        spelled.clear();
    }
    if spelled.len() > LONGEST_TOKEN {
        spelled.clear();
    }
    spelled
}
