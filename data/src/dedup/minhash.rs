//! MinHash signatures (Broder 1997): the share of equal places of two signatures estimates the Jaccard similarity of
//! two sets of shingles, with a standard deviation of `sqrt(j * (1 - j) / permutations)`.

use fornax_base::rng::rng;

use crate::words::{ngrams, run_hash, word_hashes};

/// Randomness of the hash functions.
const PURPOSE: &str = "dedup/minhash";

/// The hash functions of a signature: multiply and add modulo 2^64, upper half taken (Dietzfelbinger et al. 1997).
#[derive(Debug, Clone)]
pub(crate) struct MinHasher {
    factors: Vec<u64>,
    terms: Vec<u64>,
    ngram: usize,
}

impl MinHasher {
    /// `permutations` functions over shingles of `ngram` words.
    pub(crate) fn new(permutations: usize, ngram: usize) -> MinHasher {
        let mut rng = rng(0, 0, PURPOSE);
        let mut draw = || (0..permutations).map(|_| rng.next_u64()).collect::<Vec<u64>>();
        let factors = draw().into_iter().map(|factor| factor | 1).collect();
        MinHasher { factors, terms: draw(), ngram }
    }

    /// The signature of `text`; `None` when it has no word. A text of fewer words than a shingle is one shingle.
    pub(crate) fn signature(&self, text: &str) -> Option<Vec<u32>> {
        let shingles = shingles(text, self.ngram);
        if shingles.is_empty() {
            return None;
        }
        let mut least = vec![u32::MAX; self.factors.len()];
        for shingle in shingles {
            for ((least, factor), term) in least.iter_mut().zip(&self.factors).zip(&self.terms) {
                let hash = (shingle.wrapping_mul(*factor).wrapping_add(*term) >> 32) as u32;
                *least = hash.min(*least);
            }
        }
        Some(least)
    }
}

/// The different shingles of a text, sorted.
pub(crate) fn shingles(text: &str, ngram: usize) -> Vec<u64> {
    let words = word_hashes(text);
    let mut shingles: Vec<u64> = match words.len() {
        0 => Vec::new(),
        n if n < ngram => vec![run_hash(&words)],
        _ => ngrams(&words, ngram).collect(),
    };
    shingles.sort_unstable();
    shingles.dedup();
    shingles
}

/// Share of the places at which two signatures agree.
pub(crate) fn similarity(a: &[u32], b: &[u32]) -> f64 {
    let equal = a.iter().zip(b).filter(|(a, b)| a == b).count();
    equal as f64 / a.len().max(1) as f64
}

/// Jaccard similarity of two sorted sets.
#[cfg(test)]
pub(crate) fn jaccard(a: &[u64], b: &[u64]) -> f64 {
    let common = a.iter().filter(|x| b.binary_search(x).is_ok()).count();
    common as f64 / (a.len() + b.len() - common).max(1) as f64
}
