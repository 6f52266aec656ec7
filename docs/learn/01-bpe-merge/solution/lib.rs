//! One step of training a byte-pair encoding, and encoding with what was learned.
//!
//! A token is known by its id. Ids 0 to 255 are the single bytes; each merge that is learned makes one more.

use std::collections::HashMap;

/// A piece of text as token ids, and how often it occurs.
pub type Word = (Vec<u32>, u64);

/// Two neighbouring ids, left and right.
pub type Pair = (u32, u32);

/// The pair of neighbours that occurs most often in all words, or `None` when no pair occurs twice.
///
/// - A word that occurs 7 times counts each of its pairs 7 times.
/// - Overlapping pairs all count: `a a a` holds the pair (a, a) twice.
/// - Among equally frequent pairs the greater one wins: compare the bytes of the left tokens, then those of the right.
///   `tokens[id]` are the bytes of a token.
pub fn best_pair(words: &[Word], tokens: &[Vec<u8>]) -> Option<Pair> {
    let mut counts: HashMap<Pair, u64> = HashMap::new();
    for (ids, count) in words {
        for pair in ids.windows(2) {
            *counts.entry((pair[0], pair[1])).or_default() += count;
        }
    }
    let bytes = |id: u32| &tokens[id as usize];
    let frequent = counts.into_iter().filter(|(_, count)| *count >= 2);
    let best = frequent.max_by_key(|&((left, right), count)| (count, bytes(left), bytes(right)));
    best.map(|(pair, _)| pair)
}

/// `ids` with each `pair` replaced by `new_id`, taken from the left: `a a a` becomes `aa a`.
pub fn merge(ids: &[u32], pair: Pair, new_id: u32) -> Vec<u32> {
    let mut merged = Vec::new();
    let mut at = 0;
    while at < ids.len() {
        if at + 1 < ids.len() && (ids[at], ids[at + 1]) == pair {
            merged.push(new_id);
            at += 2;
        } else {
            merged.push(ids[at]);
            at += 1;
        }
    }
    merged
}

/// The ids of `bytes`. `merges` holds each learned pair and the id it makes, in the order of learning.
///
/// Again and again, the pair that was learned earliest of all pairs present is merged, wherever it stands.
pub fn encode(bytes: &[u8], merges: &[(Pair, u32)]) -> Vec<u32> {
    let mut ids: Vec<u32> = bytes.iter().map(|&byte| u32::from(byte)).collect();
    while let Some((pair, id)) =
        merges.iter().find(|(pair, _)| ids.windows(2).any(|two| (two[0], two[1]) == *pair))
    {
        ids = merge(&ids, *pair, *id);
    }
    ids
}
