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
    let mut live = automaton.accepts.clone();
    loop {
        let before = live.clone();
        for (state, next) in automaton.next.iter().enumerate() {
            if next.values().any(|&to| before[to]) {
                live[state] = true;
            }
        }
        if live == before {
            return live;
        }
    }
}

/// The state behind all of these bytes. `None` where one of them may not come, or where no text ends any more.
pub fn walk(automaton: &Automaton, live: &[bool], from: usize, bytes: &[u8]) -> Option<usize> {
    let mut state = from;
    for byte in bytes {
        state = *automaton.next[state].get(byte)?;
    }
    live[state].then_some(state)
}

/// For each token whether it may come next: all of its bytes, of which it has one at least. `eos`, the token that ends
/// the text, may come where the text may end, and nowhere else.
pub fn mask(automaton: &Automaton, live: &[bool], state: usize, vocabulary: &[Vec<u8>], eos: u32) -> Vec<bool> {
    let may = |(id, bytes): (usize, &Vec<u8>)| match id == eos as usize {
        true => automaton.accepts[state],
        false => !bytes.is_empty() && walk(automaton, live, state, bytes).is_some(),
    };
    vocabulary.iter().enumerate().map(may).collect()
}

/// A bit for each token, 32 to a word: token id stands in word id / 32, in bit id % 32 counted from the lowest.
pub fn packed(mask: &[bool]) -> Vec<u32> {
    let word = |part: &[bool]| part.iter().rev().fold(0, |word, may| word << 1 | u32::from(*may));
    mask.chunks(32).map(word).collect()
}

/// Rules out what the bits do not allow.
pub fn restrict(logits: &mut [f32], packed: &[u32]) {
    for (id, logit) in logits.iter_mut().enumerate() {
        if packed[id / 32] >> (id % 32) & 1 == 0 {
            *logit = f32::NEG_INFINITY;
        }
    }
}

/// The bytes that must come next, whatever the model thinks: as long as one byte alone may come and the text may not end.
/// They need no pass of the model.
pub fn forced(automaton: &Automaton, live: &[bool], from: usize) -> Vec<u8> {
    let mut state = from;
    let mut bytes = Vec::new();
    while !automaton.accepts[state] {
        let mut ways = automaton.next[state].iter().filter(|(_, to)| live[**to]);
        match (ways.next(), ways.next()) {
            (Some((byte, to)), None) => {
                bytes.push(*byte);
                state = *to;
            }
            _ => break,
        }
    }
    bytes
}
