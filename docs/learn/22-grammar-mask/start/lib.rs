//! Which tokens may come next, so that the text belongs to a grammar.
//!
//! The grammar is an automaton over bytes. A token is a string of bytes; a control token has none.

use std::collections::BTreeMap;

/// States from 0, where a text begins.
#[derive(Clone, Debug)]
pub struct Automaton {
    /// For each state the state behind each byte that may come.
    pub next: Vec<BTreeMap<u8, usize>>,
    /// Whether a text may end in a state.
    pub accepts: Vec<bool>,
}

/// For each state whether a text may still end after it: in it, or in one that can be reached.
pub fn live(automaton: &Automaton) -> Vec<bool> {
    todo!("from those that accept, backwards")
}

/// The state behind all of these bytes. `None` where one of them may not come, or where no text ends any more.
pub fn walk(automaton: &Automaton, live: &[bool], from: usize, bytes: &[u8]) -> Option<usize> {
    todo!("byte by byte")
}

/// For each token whether it may come next: all of its bytes, of which it has one at least. `eos`, the token that ends
/// the text, may come where the text may end, and nowhere else.
pub fn mask(automaton: &Automaton, live: &[bool], state: usize, vocabulary: &[Vec<u8>], eos: u32) -> Vec<bool> {
    todo!("token by token")
}

/// A bit for each token, 32 to a word: token id stands in word id / 32, in bit id % 32 counted from the lowest.
pub fn packed(mask: &[bool]) -> Vec<u32> {
    todo!("32 to a word")
}

/// Rules out what the bits do not allow.
pub fn restrict(logits: &mut [f32], packed: &[u32]) {
    todo!("minus infinity")
}

/// The bytes that must come next, whatever the model thinks: as long as one byte alone may come and the text may not end.
/// They need no pass of the model.
pub fn forced(automaton: &Automaton, live: &[bool], from: usize) -> Vec<u8> {
    todo!("as long as there is one way")
}
