//! The repetition rules of Gopher's table A1 (Rae et al. 2021).

use std::collections::{HashMap, HashSet};

use super::Reason;
use crate::words::{mix, run_hash};

/// Greatest share of lines, and of paragraphs, that stand there before.
const DUPLICATES: f64 = 0.30;
/// Greatest share of characters in such lines or paragraphs.
const DUPLICATE_CHARS: f64 = 0.20;
/// For n = 2, 3, 4: greatest share of characters in the most frequent n-gram.
const TOP: [(usize, f64); 3] = [(2, 0.20), (3, 0.18), (4, 0.16)];
/// For n = 5 to 10: greatest share of characters in n-grams that stand there before.
const REPEATED: [(usize, f64); 6] = [(5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10)];

pub(super) fn check(text: &str) -> Result<(), Reason> {
    let chars = text.chars().count().max(1) as f64;
    if too_many(text.split('\n'), chars) {
        return Err(Reason::RepeatedLines);
    }
    if too_many(text.split("\n\n"), chars) {
        return Err(Reason::RepeatedParagraphs);
    }
    let words: Vec<Word> = text.split_whitespace().map(Word::new).collect();
    if TOP.into_iter().any(|(n, most)| top_chars(&words, n) as f64 / chars > most) {
        return Err(Reason::TopNgram);
    }
    if REPEATED.into_iter().any(|(n, most)| repeated_chars(&words, n) as f64 / chars > most) {
        return Err(Reason::RepeatedNgrams);
    }
    Ok(())
}

fn too_many<'t>(parts: impl Iterator<Item = &'t str>, chars: f64) -> bool {
    let mut seen = HashSet::new();
    let (mut n, mut twice, mut twice_chars) = (0u64, 0u64, 0usize);
    for part in parts.map(str::trim).filter(|part| !part.is_empty()) {
        n += 1;
        if !seen.insert(part) {
            twice += 1;
            twice_chars += part.chars().count();
        }
    }
    twice as f64 / n.max(1) as f64 > DUPLICATES || twice_chars as f64 / chars > DUPLICATE_CHARS
}

/// A word by its hash, and its length in characters.
struct Word {
    hash: u64,
    chars: usize,
}

impl Word {
    fn new(word: &str) -> Word {
        let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        let hash = mix(word.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, fnv));
        Word { hash, chars: word.chars().count() }
    }
}

fn hash_and_chars(words: &[Word]) -> (u64, usize) {
    let hashes: Vec<u64> = words.iter().map(|word| word.hash).collect();
    (run_hash(&hashes), words.iter().map(|word| word.chars).sum())
}

/// Characters in all places of the most frequent n-gram, words alone counted; 0 when none stands there twice. Of equal
/// counts the longest counts.
fn top_chars(words: &[Word], n: usize) -> usize {
    let mut counts: HashMap<u64, (usize, usize)> = HashMap::new();
    for run in words.windows(n) {
        let (hash, chars) = hash_and_chars(run);
        counts.entry(hash).or_insert((0, chars)).0 += 1;
    }
    match counts.into_values().max() {
        Some((count, chars)) if count > 1 => count * chars,
        _ => 0,
    }
}

/// Characters in n-grams that stand there before, none counted twice: after a repeated n-gram the search goes on behind
/// it.
fn repeated_chars(words: &[Word], n: usize) -> usize {
    let mut seen = HashSet::new();
    let (mut at, mut repeated) = (0, 0);
    while at + n <= words.len() {
        let (hash, chars) = hash_and_chars(&words[at..at + n]);
        if seen.insert(hash) {
            at += 1;
        } else {
            repeated += chars;
            at += n;
        }
    }
    repeated
}
