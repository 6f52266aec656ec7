//! The exact BPE trainer: which pairs of tokens to merge, in which order.
//!
//! The trainer of the `tokenizers` library counts in 32 bits, breaks ties by token id, and can only print its
//! progress; this one counts in 64, breaks ties by the greater bytes as Stanford's CS336 reference does (so that its
//! recorded merges are a test here), and calls back.

use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

/// Pieces of text with the number of times each occurs.
pub(super) type Words = Vec<(Vec<u8>, u64)>;
type Pair = (u32, u32);

/// A learned vocabulary without special tokens.
pub(super) struct Learned {
    /// Bytes of each token; the lowest 256 are the single bytes.
    pub(super) tokens: Vec<Arc<[u8]>>,
    /// The merged pairs in order.
    pub(super) merges: Vec<Pair>,
}

/// A pair as it stood when it was put on the heap. The order of the fields is the order of the choice: the greater
/// count, among equals the greater bytes.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    count: u64,
    left: Arc<[u8]>,
    right: Arc<[u8]>,
    pair: Pair,
}

struct Trainer {
    tokens: Vec<Arc<[u8]>>,
    /// Id of each token by its bytes: two ways to spell one token share an id.
    ids: HashMap<Arc<[u8]>, u32>,
    words: Vec<(Vec<u32>, u64)>,
    counts: HashMap<Pair, u64>,
    /// Words in which a pair occurs or once occurred.
    places: HashMap<Pair, Vec<u32>>,
    heap: BinaryHeap<Candidate>,
}

/// Merges the most frequent pair again and again until there are `max_tokens` tokens or no pair occurs `least` times.
pub(super) fn learn(words: Words, max_tokens: usize, least: u64, progress: &mut dyn FnMut(usize)) -> Learned {
    let mut trainer = Trainer::new(words);
    let mut merges = Vec::new();
    while trainer.tokens.len() < max_tokens {
        let Some(best) = trainer.best(least) else {
            break;
        };
        merges.push(best);
        trainer.merge(best);
        progress(merges.len());
    }
    Learned { tokens: trainer.tokens, merges }
}

impl Trainer {
    fn new(words: Words) -> Trainer {
        let tokens: Vec<Arc<[u8]>> = (0..=255u8).map(|byte| Arc::from([byte])).collect();
        let mut trainer = Trainer {
            ids: tokens.iter().cloned().zip(0..).collect(),
            tokens,
            words: words.into_iter().map(|(word, n)| (word.into_iter().map(u32::from).collect(), n)).collect(),
            counts: HashMap::new(),
            places: HashMap::new(),
            heap: BinaryHeap::new(),
        };
        for (index, (word, count)) in (0..).zip(&trainer.words) {
            for pair in pairs(word) {
                *trainer.counts.entry(pair).or_default() += count;
                note(&mut trainer.places, pair, index);
            }
        }
        let found: Vec<Pair> = trainer.counts.keys().copied().collect();
        for pair in found {
            trainer.push(pair);
        }
        trainer
    }

    /// The pair to merge, or `None` when the most frequent one occurs fewer than `least` times.
    fn best(&mut self, least: u64) -> Option<Pair> {
        loop {
            let top = self.heap.pop()?;
            let count = self.counts.get(&top.pair).copied().unwrap_or(0);
            if count == top.count {
                return (count >= least).then_some(top.pair);
            }
            // Other merges took some of its places since: it goes back with what is left.
            if count > 0 && count < top.count {
                self.push(top.pair);
            }
        }
    }

    fn push(&mut self, pair: Pair) {
        let [left, right] = [pair.0, pair.1].map(|id| Arc::clone(&self.tokens[id as usize]));
        let count = self.counts.get(&pair).copied().unwrap_or(0);
        self.heap.push(Candidate { count, left, right, pair });
    }

    fn merge(&mut self, pair: Pair) {
        let id = self.token_of(pair);
        let mut words = self.places.remove(&pair).unwrap_or_default();
        words.sort_unstable();
        words.dedup();
        let mut grown = Vec::new();
        for index in words {
            self.merge_in_word(index, pair, id, &mut grown);
        }
        self.counts.remove(&pair);
        grown.sort_unstable();
        grown.dedup();
        for pair in grown {
            self.push(pair);
        }
    }

    /// Id of the token that `pair` makes.
    fn token_of(&mut self, pair: Pair) -> u32 {
        let [left, right] = [pair.0, pair.1].map(|id| &self.tokens[id as usize]);
        let bytes: Arc<[u8]> = [left.as_ref(), right.as_ref()].concat().into();
        let next = self.tokens.len() as u32;
        let id = *self.ids.entry(Arc::clone(&bytes)).or_insert(next);
        if id == next {
            self.tokens.push(bytes);
        }
        id
    }

    /// Replaces `pair` by `id` in one word and counts its pairs anew; those with `id` in them are added to `grown`.
    fn merge_in_word(&mut self, index: u32, pair: Pair, id: u32, grown: &mut Vec<Pair>) {
        let (word, count) = &mut self.words[index as usize];
        if !pairs(word).any(|found| found == pair) {
            return;
        }
        for found in pairs(word) {
            if let Some(left) = self.counts.get_mut(&found) {
                *left -= *count;
            }
        }
        *word = replaced(word, pair, id);
        for found in pairs(word) {
            *self.counts.entry(found).or_default() += *count;
            if found.0 == id || found.1 == id {
                note(&mut self.places, found, index);
                grown.push(found);
            }
        }
    }
}

fn pairs(word: &[u32]) -> impl Iterator<Item = Pair> {
    word.windows(2).map(|two| (two[0], two[1]))
}

fn note(places: &mut HashMap<Pair, Vec<u32>>, pair: Pair, word: u32) {
    let words = places.entry(pair).or_default();
    if words.last() != Some(&word) {
        words.push(word);
    }
}

/// `word` with each `pair`, taken from the left, replaced by `id`.
fn replaced(word: &[u32], pair: Pair, id: u32) -> Vec<u32> {
    let mut merged = Vec::with_capacity(word.len());
    let mut at = 0;
    while at < word.len() {
        if at + 1 < word.len() && (word[at], word[at + 1]) == pair {
            merged.push(id);
            at += 2;
        } else {
            merged.push(word[at]);
            at += 1;
        }
    }
    merged
}
