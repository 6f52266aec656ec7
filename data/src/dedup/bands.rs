//! Locality-sensitive hashing of signatures: candidates are pairs that agree in at least one band (Leskovec, Rajaraman
//! and Ullman, Mining of Massive Datasets, section 3.4).

use std::collections::HashMap;

use crate::words::mix;

/// How a signature is cut: `bands` bands of `rows` places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bands {
    /// Number of bands.
    pub bands: usize,
    /// Places in each.
    pub rows: usize,
}

/// Least chance that a pair at the threshold becomes a candidate.
const LEAST_RECALL: f64 = 0.95;

impl Bands {
    /// The cut with the fewest candidates below `threshold` that still finds a pair of that similarity with a chance of
    /// at least 0.95; single rows when none does.
    pub fn for_threshold(threshold: f64, permutations: usize) -> Bands {
        let cut = |rows: usize| Bands { bands: permutations / rows, rows };
        let fits = (1..=permutations).rev().map(cut).find(|cut| cut.chance(threshold) >= LEAST_RECALL);
        fits.unwrap_or(cut(1))
    }

    /// The S-curve: the chance that a pair of this similarity agrees in a band, `1 - (1 - s^rows)^bands`.
    pub fn chance(self, similarity: f64) -> f64 {
        1.0 - (1.0 - similarity.powi(self.rows as i32)).powi(self.bands as i32)
    }
}

/// Which documents share a band.
#[derive(Debug)]
pub(super) struct Buckets {
    cut: Bands,
    /// For each band, documents by the hash of their places in it.
    tables: Vec<HashMap<u64, Vec<u32>>>,
}

impl Buckets {
    pub(super) fn new(cut: Bands) -> Buckets {
        Buckets { cut, tables: (0..cut.bands).map(|_| HashMap::new()).collect() }
    }

    /// Documents added before that share a band with `signature`, ascending.
    pub(super) fn candidates(&self, signature: &[u32]) -> Vec<u32> {
        let mut found = Vec::new();
        for (table, key) in self.tables.iter().zip(self.keys(signature)) {
            found.extend(table.get(&key).into_iter().flatten());
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    pub(super) fn add(&mut self, document: u32, signature: &[u32]) {
        let keys: Vec<u64> = self.keys(signature).collect();
        for (table, key) in self.tables.iter_mut().zip(keys) {
            table.entry(key).or_default().push(document);
        }
    }

    fn keys<'a>(&self, signature: &'a [u32]) -> impl Iterator<Item = u64> + use<'a> {
        let hash =
            |band: &[u32]| band.iter().fold(0u64, |hash, place| mix(hash.rotate_left(29) ^ u64::from(*place)));
        signature.chunks_exact(self.cut.rows).take(self.cut.bands).map(hash)
    }
}
